from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from kpose.data import Instances, JointMapping
from kpose.errors import KposeError
from kpose.skeletons import AIC_14, COCO_17, CROWDPOSE_14, LSP_14, MPII_16, SKELETONS, Skeleton

LSP_AS_MPII = JointMapping(
    LSP_14,
    MPII_16,
    rename={"neck": "upper_neck"},
    interpolate={"pelvis": ["left_hip", "right_hip"], "thorax": ["left_shoulder", "right_shoulder"]},
)
MAPPINGS = [
    LSP_AS_MPII,
    *(JointMapping(SKELETONS[source], SKELETONS[target]) for source in SKELETONS for target in SKELETONS),
]


def people(skeleton: Skeleton, count: int = 5, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    keypoints = random.uniform(0, 200, (count, skeleton.num_joints, 3)).astype(np.float32)
    keypoints[..., 2] = random.integers(0, 3, keypoints.shape[:-1])
    return keypoints


def label(mapping: JointMapping) -> str:
    return f"{mapping.source.name}-{mapping.target.name}{'-interpolated' if mapping.interpolate else ''}"


@pytest.mark.parametrize("mapping", MAPPINGS, ids=label)
def test_joints_of_equal_name_keep_their_place_and_visibility(mapping):
    given_points = people(mapping.source)
    found = mapping.to_target(given_points)
    for joint in mapping.source.joint_names:
        if mapping.rename.get(joint, joint) in mapping.target.joint_names:
            before = given_points[:, mapping.source.index(joint)]
            after = found[:, mapping.target.index(mapping.rename.get(joint, joint))]
            np.testing.assert_array_equal(after, np.where(before[:, 2:] > 0, before, 0))


@pytest.mark.parametrize("mapping", MAPPINGS, ids=label)
def test_joints_that_the_dataset_lacks_are_not_annotated(mapping):
    found = mapping.to_target(people(mapping.source))
    assert not found[:, list(mapping.target.indices(mapping.missing))].any()


@pytest.mark.parametrize("mapping", MAPPINGS, ids=label)
def test_the_way_back_returns_every_joint_that_the_network_knows(mapping):
    given_points = people(mapping.source)
    given_points[..., 2] = 1
    back = mapping.to_source(mapping.to_target(given_points))
    np.testing.assert_array_equal(back[:, mapping.known], given_points[:, mapping.known])
    assert not back[:, ~mapping.known].any()
    assert set(mapping.unused) == {joint for joint, known in zip(mapping.source.joint_names, mapping.known, strict=True) if not known}


@pytest.mark.parametrize("mapping", MAPPINGS, ids=label)
def test_a_graph_maps_as_numpy_does(mapping):
    given_points = people(mapping.source, seed=3)
    in_graph = tf.function(mapping.to_target, input_signature=[tf.TensorSpec((None, mapping.source.num_joints, 3), tf.float32)])
    np.testing.assert_array_equal(in_graph(tf.constant(given_points)).numpy(), mapping.to_target(given_points))


@given(st.integers(0, 2), st.integers(0, 2), st.integers(0, 1000))
def test_an_interpolated_joint_lies_half_way_and_is_as_visible_as_its_parts(left, right, seed):
    points = people(LSP_14, count=1, seed=seed)
    points[0, LSP_14.index("left_hip"), 2], points[0, LSP_14.index("right_hip"), 2] = left, right
    pelvis = LSP_AS_MPII.to_target(points)[0, MPII_16.index("pelvis")]
    expected = (points[0, LSP_14.index("left_hip"), :2] + points[0, LSP_14.index("right_hip"), :2]) / 2
    assert pelvis[2] == min(left, right)
    np.testing.assert_allclose(pelvis[:2], expected if min(left, right) else 0, rtol=1e-6)


def test_what_stands_where_nothing_is_annotated_reaches_nobody():
    points = people(LSP_14)
    points[:, :, 2] = 0
    points[:, :, :2] = np.nan
    np.testing.assert_array_equal(LSP_AS_MPII.to_target(points), 0)


def test_mirroring_before_or_after_the_mapping_is_the_same():
    points = people(LSP_14)
    swapped_first = LSP_AS_MPII.to_target(points[:, LSP_14.flip_permutation])
    np.testing.assert_array_equal(swapped_first, LSP_AS_MPII.to_target(points)[:, MPII_16.flip_permutation])


def test_people_keep_all_but_their_joints():
    count = 4
    instances = Instances(
        skeleton=LSP_14,
        image_files=("a.jpg",),
        image_ids=np.array([7]),
        image_sizes=np.zeros((1, 2), np.int32),
        image_index=np.zeros(count, np.int32),
        ids=np.arange(count),
        boxes=np.ones((count, 4), np.float32),
        keypoints=people(LSP_14, count),
        areas=np.ones(count, np.float32),
        box_scores=np.ones(count, np.float32),
    )
    mapped = LSP_AS_MPII.apply(instances)
    assert mapped.skeleton == MPII_16
    assert mapped.keypoints.shape == (count, 16, 3)
    assert mapped.boxes is instances.boxes
    assert JointMapping(LSP_14, LSP_14).apply(instances) is instances


def test_the_note_says_what_is_left_open():
    assert JointMapping(AIC_14, COCO_17, label="aic").note == (
        "aic for coco_17: does not annotate nose, left_eye, right_eye, left_ear, right_ear; its head_top, neck not used"
    )
    assert LSP_AS_MPII.note == ""
    assert JointMapping(CROWDPOSE_14, CROWDPOSE_14).note == ""


@pytest.mark.parametrize(
    ("rename", "interpolate", "message"),
    [
        ({"nek": "upper_neck"}, {}, "'rename' names 'nek', which skeleton 'lsp_14' does not have; did you mean 'neck'?"),
        ({"neck": "neck"}, {}, "'rename' names 'neck', which skeleton 'mpii_16' does not have"),
        ({"neck": "head_top"}, {}, "both 'neck' and 'head_top' would be 'head_top' of 'mpii_16'; rename one"),
        ({}, {"pelvis": []}, "'interpolate' names no joint for 'pelvis'"),
        ({}, {"pelvis": ["hip"]}, "'interpolate' names 'hip', which skeleton 'lsp_14' does not have"),
        ({}, {"belly": ["left_hip"]}, "'interpolate' names 'belly', which skeleton 'mpii_16' does not have"),
        ({}, {"left_hip": ["right_hip"]}, "lsp annotates 'left_hip' itself (as 'left_hip'); take it out of 'interpolate'"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused_in_one_line(rename, interpolate, message):
    with pytest.raises(KposeError) as refusal:
        JointMapping(LSP_14, MPII_16, rename, interpolate, "lsp")
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_skeletons_with_nothing_in_common_are_refused():
    with pytest.raises(KposeError, match=r"no joint of skeleton 'fish'.*name the pairs under 'rename'"):
        JointMapping(Skeleton("fish", ("mouth", "tail")), COCO_17)
