"""Left and right: what is exchanged is found, what is not is left in peace, and what nobody can know is not claimed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kpose.audit.sides import MINIMUM_PEOPLE, judge_sides, normalise
from kpose.files import read_json
from kpose.skeletons import COCO_17, LSP_14, Skeleton
from tests.audit.conftest import bodies, exchanged


@pytest.mark.parametrize("pairs", [("knee",), ("wrist", "elbow"), ("ankle", "knee", "hip"), ("shoulder",)])
def test_an_exchanged_part_is_found_and_named(pairs: tuple[str, ...]) -> None:
    keypoints = bodies(600)
    wrong = np.arange(4)
    keypoints[wrong] = exchanged(keypoints[wrong], LSP_14, *pairs)
    verdicts = judge_sides(keypoints, LSP_14)
    assert verdicts is not None
    assert (verdicts.probabilities[wrong] > 0.5).mean() >= 0.75
    assert (verdicts.probabilities[4:] > 0.5).mean() < 0.01
    found = verdicts.likeliest[wrong][verdicts.probabilities[wrong] > 0.5]
    named = [left.removeprefix("left_") in pairs for left, _ in LSP_14.left_right_pairs]
    # Exchanging the legs or all but the legs is the same fault, told from the other end: seen from behind or from the front.
    same = (found == named).all(axis=1) | (found == np.logical_not(named)).all(axis=1)
    assert same.mean() >= 0.75


def test_nobody_is_accused_of_what_cannot_be_seen() -> None:
    # Half of them face the camera, half do not: a whole body exchanged is one that has turned round.
    keypoints = bodies(600, back=0.5)
    keypoints[:20] = exchanged(keypoints[:20], LSP_14)
    verdicts = judge_sides(keypoints, LSP_14)
    assert verdicts is not None
    assert (verdicts.probabilities > 0.5).mean() < 0.01


def test_a_body_exchanged_as_a_whole_is_found_where_all_others_face_the_camera() -> None:
    keypoints = bodies(600, back=0.0)
    keypoints[:5] = exchanged(keypoints[:5], LSP_14)
    verdicts = judge_sides(keypoints, LSP_14)
    assert verdicts is not None
    assert (verdicts.probabilities[:5] > 0.9).all() and (verdicts.probabilities[5:] > 0.5).sum() <= 3
    assert verdicts.likeliest[:5].all()


def test_probabilities_do_not_depend_on_place_size_rotation_or_mirror() -> None:
    keypoints = bodies(400)
    keypoints[:8] = exchanged(keypoints[:8], LSP_14, "knee")
    moved = keypoints.copy()
    joints = (keypoints[..., 0] + 1j * keypoints[..., 1]) * 0.37 * np.exp(0.2j) + (33 - 90j)
    moved[..., 0], moved[..., 1] = joints.real, joints.imag
    mirrored = exchanged(keypoints * [-1, 1, 1], LSP_14)
    first = judge_sides(keypoints, LSP_14)
    assert first is not None
    for other in (moved, mirrored):
        second = judge_sides(other, LSP_14)
        assert second is not None
        assert np.abs(first.probabilities - second.probabilities).max() < 0.1


def test_the_normal_place_ignores_which_side_is_which() -> None:
    keypoints = bodies(200)
    straight, usable = normalise(keypoints, LSP_14)
    other, _ = normalise(exchanged(keypoints, LSP_14, "knee", "wrist"), LSP_14)
    assert usable.all()
    middle = LSP_14.index("neck")
    np.testing.assert_allclose(straight[:, middle], other[:, middle], atol=1e-9)
    # Upright: the head is above the hips, whatever the picture is turned by.
    assert (straight[:, LSP_14.index("head_top")].imag < straight[:, LSP_14.index("left_hip")].imag).all()


def test_joints_that_are_not_annotated_are_neither_evidence_nor_accused() -> None:
    keypoints = bodies(400)
    keypoints[:10] = exchanged(keypoints[:10], LSP_14, "knee")
    junk = keypoints.copy()
    for joint in LSP_14.indices(("left_ankle", "right_ankle")):
        keypoints[:, joint] = 0
        junk[:, joint] = [1e5, -1e5, 0]
    first, second = judge_sides(keypoints, LSP_14), judge_sides(junk, LSP_14)
    assert first is not None and second is not None
    np.testing.assert_array_equal(first.probabilities, second.probabilities)
    ankles = [left for left, _ in LSP_14.left_right_pairs].index("left_ankle")
    assert not first.likeliest[:, ankles].any() and not first.pairs[:, ankles].any()


def test_too_few_people_or_no_pairs_are_not_judged() -> None:
    assert judge_sides(bodies(MINIMUM_PEOPLE - 1), LSP_14) is None
    assert judge_sides(bodies(300)[:, :2], Skeleton("pole", ("top", "bottom"), limbs=(("top", "bottom"),))) is None
    assert judge_sides(np.zeros((0, 14, 3)), LSP_14) is None


def test_real_people_with_exchanged_sides(shared_data: Path) -> None:
    file = shared_data / "coco/annotations/person_keypoints_val2017_512images.json.gz"
    people = [entry["keypoints"] for entry in read_json(file)["annotations"] if not entry["iscrowd"]]
    keypoints = np.array([person for person in people if any(person[2::3])], float).reshape(-1, 17, 3)
    clean = judge_sides(keypoints, COCO_17)
    assert clean is not None and (clean.probabilities > 0.5).mean() < 0.015
    # Whole bodies with a face and shoulders: a nose that is seen tells where the left is.
    able = np.flatnonzero((keypoints[:, :7, 2] > 0).all(axis=1))[::10]
    keypoints[able] = exchanged(keypoints[able], COCO_17)
    found = judge_sides(keypoints, COCO_17)
    assert found is not None and len(able) > 15
    assert (found.probabilities[able] > 0.5).mean() > 0.7
