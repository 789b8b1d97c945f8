from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools.cocoeval import Params

from kpose.errors import KposeError
from kpose.skeletons import AIC_14, COCO_17, CROWDPOSE_14, LSP_14, MPII_16, SKELETONS, Skeleton, get_skeleton
from kpose.yaml_files import format_yaml

every_skeleton = pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)

SMALL = {"name": "small", "joint_names": ["nose", "left_hand", "right_hand"]}


def sample_joint_names(path):
    return json.loads(path.read_text())["categories"][0]["keypoints"]


@every_skeleton
def test_mirroring_twice_changes_nothing(skeleton):
    permutation = skeleton.flip_permutation
    assert permutation.dtype == np.int32
    np.testing.assert_array_equal(permutation[permutation], np.arange(skeleton.num_joints))


@every_skeleton
def test_mirroring_swaps_left_and_right_and_keeps_the_middle(skeleton):
    for joint, partner in enumerate(skeleton.flip_permutation):
        name = skeleton.joint_names[joint]
        side, _, rest = name.partition("_")
        expected = {"left": f"right_{rest}", "right": f"left_{rest}"}.get(side, name)
        assert skeleton.joint_names[partner] == expected


@every_skeleton
def test_each_joint_is_in_the_upper_or_the_lower_body_and_in_a_limb(skeleton):
    assert sorted(skeleton.upper_body + skeleton.lower_body) == sorted(skeleton.joint_names)
    assert {joint for limb in skeleton.limbs for joint in limb} == set(skeleton.joint_names)


@every_skeleton
def test_limbs_are_the_same_on_both_sides(skeleton):
    permutation = skeleton.flip_permutation
    limbs = {frozenset(limb) for limb in skeleton.limb_indices}
    assert len(limbs) == len(skeleton.limbs)
    assert {frozenset(int(permutation[joint]) for joint in limb) for limb in limbs} == limbs


@every_skeleton
def test_upper_and_lower_body_are_the_same_on_both_sides(skeleton):
    for body in (skeleton.upper_body, skeleton.lower_body):
        half = set(skeleton.indices(body))
        assert {int(skeleton.flip_permutation[joint]) for joint in half} == half


def test_the_flip_permutation_that_all_share_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        COCO_17.flip_permutation[0] = 3


def test_coco_sigmas_are_those_of_pycocotools():
    # pycocotools divides by 10 as it loads: equal but for the last bit.
    np.testing.assert_allclose(COCO_17.oks_sigmas, Params(iouType="keypoints").kpt_oks_sigmas, rtol=1e-12)


@pytest.mark.parametrize(
    ("skeleton", "doubled_sides"),
    [(COCO_17, True), (CROWDPOSE_14, True), (AIC_14, False)],
    ids=lambda value: getattr(value, "name", None),
)
def test_sigmas_are_one_for_each_joint(skeleton, doubled_sides):
    sigmas = np.array(skeleton.oks_sigmas)
    assert len(sigmas) == skeleton.num_joints
    # COCO and CrowdPose measured a joint's left and right together, AI Challenger apart.
    assert (sigmas == sigmas[skeleton.flip_permutation]).all() == doubled_sides


def test_coco_joints_are_those_of_the_official_file(shared_data):
    for name in ("person_keypoints_val2017.json", "person_keypoints_train2017.json"):
        category = json.loads((shared_data / "coco/annotations" / name).read_text())["categories"][0]
        assert list(COCO_17.joint_names) == category["keypoints"]
        official_limbs = {frozenset((a - 1, b - 1)) for a, b in category["skeleton"]}
        assert {frozenset(limb) for limb in COCO_17.limb_indices} == official_limbs


def test_ai_challenger_joints_are_those_of_its_file(shared_data):
    found = sample_joint_names(shared_data / "format_samples/aic/test_aic.json")
    assert list(AIC_14.joint_names) == [name.lower().replace(" ", "_") for name in found]


def test_crowdpose_joints_are_those_of_its_file(shared_data):
    found = sample_joint_names(shared_data / "format_samples/crowdpose/test_crowdpose.json")
    assert list(CROWDPOSE_14.joint_names) == ["head_top" if name == "head" else name for name in found]


def test_mpii_order_puts_the_joints_of_real_people_where_their_names_say(shared_data):
    people = json.loads((shared_data / "format_samples/mpii/test_mpii.json").read_text())
    upright = 0
    for person in people:
        joints = np.array(person["joints"])
        if not all(person["joints_vis"]):
            continue
        upright += 1
        at = {name: joints[MPII_16.index(name)] for name in MPII_16.joint_names}
        assert len(joints) == MPII_16.num_joints
        # Down the middle line, the pelvis lies between the hips and the thorax between the shoulders.
        assert at["head_top"][1] < at["upper_neck"][1] < at["thorax"][1] < at["pelvis"][1]
        for middle, side in (("pelvis", "hip"), ("thorax", "shoulder")):
            halfway = (at[f"left_{side}"] + at[f"right_{side}"]) / 2
            width = np.linalg.norm(at[f"left_{side}"] - at[f"right_{side}"])
            assert np.linalg.norm(at[middle] - halfway) < max(width, 20)
    assert upright


def test_mpii_and_lsp_have_legs_and_arms_in_the_same_order():
    assert MPII_16.joint_names[:6] == LSP_14.joint_names[:6]
    assert MPII_16.joint_names[10:] == LSP_14.joint_names[6:12]


@every_skeleton
def test_a_skeleton_survives_its_yaml(skeleton, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(format_yaml(skeleton.to_dict()), encoding="utf-8")
    assert get_skeleton(path) == skeleton
    assert get_skeleton(str(path)) == skeleton


def test_a_skeleton_needs_only_a_name_and_joints():
    skeleton = Skeleton.from_dict(SMALL)
    assert skeleton.num_joints == 3
    assert skeleton.oks_sigmas is None
    np.testing.assert_array_equal(skeleton.flip_permutation, [0, 1, 2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"left_right_pairs": [["left_hand", "rigth_hand"]]},
            "no joint 'rigth_hand' .named in 'left_right_pairs'.; did you mean 'right_hand'?",
        ),
        ({"limbs": [["nose", "tail"]]}, "no joint 'tail' .named in 'limbs'.; it has nose, left_hand, right_hand"),
        ({"upper_body": ["noze"]}, "'noze' .named in 'upper_body'.; did you mean 'nose'"),
        ({"joint_names": ["nose", "nose"]}, "names 'nose' more than once"),
        ({"joint_names": []}, "has no joints"),
        ({"joint_names": "nose"}, "'joint_names' must be a list of joint names, found 'nose'"),
        ({"joint_names": ["nose", 3]}, "'joint_names' must be a list of joint names"),
        ({"joint_names": None}, "'joint_names' is missing"),
        ({"name": None}, "'name' is missing"),
        ({"name": ["small"]}, "'name' must be text"),
        ({"upper_body": 0}, "'upper_body' must be a list"),
        ({"limbs": [["nose", "nose"]]}, "'nose', 'nose'. in 'limbs' must be two different joints"),
        ({"limbs": [["nose"]]}, "'limbs' must be a list of .joint, joint."),
        ({"limbs": ["nose"]}, "'limbs' must be a list of .joint, joint."),
        ({"limbs": False}, "'limbs' must be a list of .joint, joint."),
        (
            {"left_right_pairs": [["left_hand", "right_hand"], ["nose", "left_hand"]]},
            "a joint stands in two of 'left_right_pairs'",
        ),
        ({"oks_sigmas": [0.1, 0.1]}, "has 3 joints but 2 'oks_sigmas'"),
        ({"oks_sigmas": [0.1, 0.0, 0.1]}, "'oks_sigmas' must be finite and greater than 0, one is 0.0"),
        ({"oks_sigmas": [0.1, float("nan"), 0.1]}, "must be finite and greater than 0, one is nan"),
        ({"oks_sigmas": [0.1, float("inf"), 0.1]}, "must be finite and greater than 0, one is inf"),
        ({"oks_sigmas": [0.1, "0.1", 0.1]}, "'oks_sigmas' must be a list of numbers"),
        ({"oks_sigmas": [0.1, True, 0.1]}, "'oks_sigmas' must be a list of numbers"),
        ({"oks_sigmas": 0.1}, "'oks_sigmas' must be a list of numbers"),
        ({"left_right_pair": []}, "unknown key 'left_right_pair'; did you mean 'left_right_pairs'?"),
        ({1: []}, "unknown key 1; known: name, joint_names"),
    ],
)
def test_a_faulty_skeleton_file_is_refused_in_one_line(changes, message, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(format_yaml({**SMALL, **changes}), encoding="utf-8")
    with pytest.raises(KposeError, match=message) as caught:
        get_skeleton(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- nose\n", "expected a mapping with name, joint_names, .* found list"),
        ("", "found NoneType"),
        ("name: [", "is not valid YAML: line 2"),
        ("name: !!python/object/apply:os.getcwd []", "is not valid YAML: line 1: could not determine a constructor"),
    ],
)
def test_what_is_no_skeleton_file_is_refused(text, message, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(text + "\n", encoding="utf-8")
    with pytest.raises(KposeError, match=message) as caught:
        Skeleton.from_yaml(path)
    assert str(path) in str(caught.value)


def test_a_missing_skeleton_file_is_named(tmp_path):
    with pytest.raises(KposeError, match=r"cannot read skeleton .*absent\.yaml: No such file"):
        get_skeleton(tmp_path / "absent.yaml")


@pytest.mark.parametrize(("name", "hint"), [("coco17", "did you mean 'coco_17'?"), ("octopus", "built in: coco_17, mpii_16")])
def test_an_unknown_skeleton_name_gets_a_suggestion(name, hint):
    with pytest.raises(KposeError, match=f"unknown skeleton '{name}'; {hint}"):
        get_skeleton(name)


def test_a_joint_is_found_by_name():
    assert COCO_17.index("left_wrist") == 9
    assert COCO_17.indices(("nose", "right_ankle")) == (0, 16)
    with pytest.raises(KposeError, match="no joint 'left_wirst' .*did you mean 'left_wrist'"):
        COCO_17.index("left_wirst")
