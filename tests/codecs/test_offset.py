from __future__ import annotations

import cv2
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kpose import geometry
from kpose.codecs import OffsetCodec
from kpose.errors import KposeError
from kpose.models.multi_stage_hrnet import CHANNELS_PER_KEYPOINT
from kpose.skeletons import COCO_17

INPUT_SIZE, HEATMAP_SIZE = (96, 80), (24, 20)
CLASSIC = OffsetCodec(INPUT_SIZE, HEATMAP_SIZE)
UNBIASED = OffsetCodec(INPUT_SIZE, HEATMAP_SIZE, alignment="unbiased")
both_alignments = pytest.mark.parametrize("codec", [CLASSIC, UNBIASED], ids=["classic", "unbiased"])


def encode(codec, keypoints):
    maps, weights = codec.encode(tf.constant(keypoints, tf.float32))
    return maps.numpy(), weights.numpy()


def slow_target(keypoints, codec):
    """The target of the published code (Huang et al. 2020, target type "offset"), pixel by pixel; `(height, width, 3 * K)`."""
    height, width = codec.heatmap_size
    maps = np.zeros((height, width, 3 * len(keypoints)))
    stride_x, stride_y = geometry.heatmap_stride(codec.input_size, codec.heatmap_size, codec.alignment)
    for joint, (x, y, visibility) in enumerate(keypoints):
        for row, column in np.ndindex(height, width):
            dx, dy = (x / stride_x - column) / codec.radius, (y / stride_y - row) / codec.radius
            if visibility > 0 and dx**2 + dy**2 <= 1:
                maps[row, column, 3 * joint : 3 * joint + 3] = 1, dx, dy
    return maps


def people(count=1, seed=0, low=-20, high=110):
    random = np.random.default_rng(seed)
    points = random.uniform(low, high, (count, 17, 2))
    return np.concatenate([points, random.integers(0, 3, (count, 17, 1))], axis=-1)


def test_channels_are_those_of_the_network():
    assert OffsetCodec.maps_per_joint == CHANNELS_PER_KEYPOINT


@both_alignments
@pytest.mark.parametrize("radius", [4.0, 2.5])
def test_maps_are_those_of_the_published_code(codec, radius):
    codec = OffsetCodec(INPUT_SIZE, HEATMAP_SIZE, radius, codec.alignment)
    for person in people(4):
        maps, weights = encode(codec, person)
        expected = slow_target(person, codec)
        np.testing.assert_allclose(maps, expected, atol=1e-5)
        np.testing.assert_array_equal(weights, expected[..., ::3].any(axis=(0, 1)))


@both_alignments
@settings(max_examples=20)
@given(fractions=arrays(np.float64, (17, 2), elements=st.floats(0, 1)))
def test_every_pixel_of_a_disc_points_to_the_joint(codec, fractions):
    points = fractions * (np.array(HEATMAP_SIZE[::-1]) - 1)
    keypoints = geometry.heatmap_to_crop(np.concatenate([points, np.full((17, 1), 1.0)], axis=1), INPUT_SIZE, HEATMAP_SIZE, codec.alignment)
    maps, weights = encode(codec, keypoints)
    np.testing.assert_array_equal(weights, 1)
    assert_points_to(maps, codec, points)


def assert_points_to(maps, codec, points, atol=1e-4):
    """Every pixel of each joint's disc has the way to the joint `(K, 2)`, heatmap pixels."""
    for joint, point in enumerate(points):
        rows, columns = np.nonzero(maps[..., 3 * joint] > 0.5)
        assert len(rows)
        offsets = maps[rows, columns, 3 * joint + 1 : 3 * joint + 3] * codec.radius
        np.testing.assert_allclose(np.stack([columns, rows], axis=1) + offsets, np.broadcast_to(point, offsets.shape), atol=atol)


@both_alignments
@pytest.mark.parametrize(
    "keypoint",
    [
        (20.0, 20.0, 0.0),
        (float("nan"), 20.0, 0.0),
        (float("nan"), 20.0, 2.0),
        (20.0, float("nan"), 2.0),
        (float("inf"), 20.0, 2.0),
        (20.0, -float("inf"), 1.0),
        (1e30, 20.0, 2.0),
        (20.0, 20.0, float("nan")),
        (-18.0, 20.0, 2.0),  # the disc ends before the first column
        (20.0, 115.0, 2.0),
    ],
)
def test_a_joint_absent_or_far_from_the_crop_has_no_weight_and_empty_maps(codec, keypoint):
    maps, weights = encode(codec, [keypoint, (20.0, 20.0, 2.0)])
    np.testing.assert_array_equal(weights, [0, 1])
    assert not maps[..., :3].any() and np.isfinite(maps).all()
    assert maps[..., 3].max() == 1


def test_a_joint_beside_the_crop_is_found_there():
    maps, weights = encode(UNBIASED, [(-6.0, 40.0, 2.0)])
    np.testing.assert_array_equal(weights, [1])
    assert_points_to(maps, UNBIASED, geometry.crop_to_heatmap(np.array([[-6.0, 40.0]]), INPUT_SIZE, HEATMAP_SIZE, "unbiased"))


@both_alignments
@pytest.mark.parametrize("leading", [(), (3,), (2, 3), (0,)])
def test_leading_dimensions_are_kept(codec, leading):
    keypoints = people(int(np.prod(leading)), seed=1, low=5, high=70).reshape(*leading, 17, 3).astype(np.float32)
    maps, weights = encode(codec, keypoints)
    assert maps.shape == (*leading, *HEATMAP_SIZE, 51) and weights.shape == (*leading, 17)
    decoded, mirrored = codec.decode(maps), codec.unmirror(maps, COCO_17.flip_permutation)
    assert decoded.shape == (*leading, 17, 3) and mirrored.shape == maps.shape
    for place in np.ndindex(leading):
        alone, alone_weights = encode(codec, keypoints[place])
        np.testing.assert_array_equal(maps[place], alone)
        np.testing.assert_array_equal(weights[place], alone_weights)
        np.testing.assert_allclose(decoded[place], codec.decode(alone), atol=1e-4)
        np.testing.assert_array_equal(mirrored[place], codec.unmirror(alone, COCO_17.flip_permutation))


def test_encoding_runs_in_a_graph_with_an_unknown_batch_size():
    keypoints = people(2).astype(np.float32)

    @tf.function(input_signature=[tf.TensorSpec([None, 17, 3])])
    def in_graph(keypoints):
        maps, weights = CLASSIC.encode(keypoints)
        assert maps.shape.as_list() == [None, *HEATMAP_SIZE, 51]
        return maps, weights

    for found, expected in zip(in_graph(keypoints), encode(CLASSIC, keypoints), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


@both_alignments
def test_decoding_is_that_of_the_published_code(codec):
    """On maps of a poor network, one joint at a time: smooth with OpenCV, take the maximum, add the offset found there."""
    random = np.random.default_rng(3)
    maps = encode(codec, people(2, seed=4, low=0, high=80))[0] + random.normal(0, 0.3, (2, *HEATMAP_SIZE, 51))
    maps = maps.astype(np.float32)
    maps[1, ..., 3] = -1.0
    found = geometry.crop_to_heatmap(codec.decode(maps), INPUT_SIZE, HEATMAP_SIZE, codec.alignment)
    for person, joint in np.ndindex(2, 17):
        heatmap = cv2.GaussianBlur(np.ascontiguousarray(maps[person, ..., 3 * joint]), (15, 15), 0)
        dx, dy = (cv2.GaussianBlur(np.ascontiguousarray(maps[person, ..., 3 * joint + axis]), (7, 7), 0) for axis in (1, 2))
        row, column = np.unravel_index(heatmap.argmax(), heatmap.shape)
        expected = (column + 4 * dx[row, column], row + 4 * dy[row, column]) if heatmap.max() > 0 else (0, 0)
        np.testing.assert_allclose(found[person, joint, :2], expected, atol=1e-4)
        assert found[person, joint, 2] == pytest.approx(heatmap.max(), abs=1e-5)


# Mirrored crops.


def mirrored_maps(codec, fractions):
    """Joints `(17, 2)`, heatmap pixels, and the maps of their mirrored crop."""
    size = np.array(HEATMAP_SIZE[::-1])
    points = 1 + fractions * (size - 3)
    keypoints = geometry.heatmap_to_crop(np.concatenate([points, np.full((17, 1), 2.0)], axis=1), INPUT_SIZE, HEATMAP_SIZE, codec.alignment)
    return points, encode(codec, keypoints[COCO_17.flip_permutation] * (-1, 1, 1) + (INPUT_SIZE[1] - 1, 0, 0))[0]


@both_alignments
@settings(max_examples=20)
@given(fractions=arrays(np.float64, (17, 2), elements=st.floats(0, 1)))
def test_every_pixel_of_an_unmirrored_disc_points_to_the_joint(codec, fractions):
    """Also in the first column, which the shift leaves where it is."""
    points, maps = mirrored_maps(codec, fractions)
    assert_points_to(codec.unmirror(maps, COCO_17.flip_permutation), codec, points)


@settings(max_examples=20)
@given(fractions=arrays(np.float64, (17, 2), elements=st.floats(0, 1)))
def test_unbiased_maps_of_the_mirrored_crop_are_those_of_the_crop_without_any_shift(fractions):
    points, maps = mirrored_maps(UNBIASED, fractions)
    for shift in (True, False):
        assert_points_to(UNBIASED.unmirror(maps, COCO_17.flip_permutation, shift), UNBIASED, points)


def test_without_the_shift_classic_maps_stay_three_crop_pixels_to_the_left():
    points, maps = mirrored_maps(CLASSIC, np.full((17, 2), 0.5))
    assert_points_to(CLASSIC.unmirror(maps, COCO_17.flip_permutation, shift=False), CLASSIC, points - (0.75, 0))


def test_unmirroring_leaves_the_maps_it_is_given_alone():
    maps = np.random.default_rng(0).normal(size=(2, *HEATMAP_SIZE, 51)).astype(np.float32)
    before = maps.copy()
    assert CLASSIC.unmirror(maps, COCO_17.flip_permutation).dtype == np.float32
    np.testing.assert_array_equal(maps, before)


# What is refused.


@pytest.mark.parametrize("shape", [(1, 20, 24, 51), (1, *HEATMAP_SIZE, 17), (24, 20)])
def test_maps_of_another_shape_are_refused(shape):
    with pytest.raises(KposeError, match=r"heatmaps of shape .* do not fit this codec.*3 x joints"):
        CLASSIC.decode(np.zeros(shape, np.float32))


@pytest.mark.parametrize("radius", [0.0, 0.9, -1.0, float("nan"), float("inf")])
def test_a_disc_that_may_hold_no_pixel_is_refused(radius):
    with pytest.raises(KposeError, match="codec radius must be finite and at least 1"):
        OffsetCodec(INPUT_SIZE, HEATMAP_SIZE, radius)
