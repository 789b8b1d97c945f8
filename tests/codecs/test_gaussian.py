from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kpose import geometry
from kpose.codecs import GaussianCodec
from kpose.errors import KposeError
from kpose.skeletons import COCO_17

INPUT_SIZE, HEATMAP_SIZE = (64, 48), (16, 12)
CLASSIC = GaussianCodec(INPUT_SIZE, HEATMAP_SIZE)
UNBIASED = GaussianCodec(INPUT_SIZE, HEATMAP_SIZE, alignment="unbiased")
both_alignments = pytest.mark.parametrize("codec", [CLASSIC, UNBIASED], ids=["classic", "unbiased"])

# A Gaussian about a rounded centre has its maximum up to half a heatmap pixel away, on each axis.
GRID_LIMIT = 0.5
TOLERANCE = 0.05


def in_crop(elements=COCO_17.num_joints, size=INPUT_SIZE):
    """Visible keypoints whose nearest heatmap pixel exists: between the outer pixel centres of the heatmap."""
    fractions = arrays(np.float64, (elements, 2), elements=st.floats(0, 1))
    return fractions.map(lambda part: np.concatenate([part * (size[1] - 5, size[0] - 5) + 0.5, np.full((elements, 1), 2.0)], axis=1))


def encode(codec, keypoints):
    heatmaps, weights = codec.encode(tf.constant(keypoints, tf.float32))
    return heatmaps.numpy(), weights.numpy()


def stride(codec):
    return np.array(geometry.heatmap_stride(codec.input_size, codec.heatmap_size, codec.alignment))


# References of the field, written out.


def hrnet_target(keypoints, input_size, heatmap_size, sigma):
    """`generate_target` of SimpleBaseline and HRNet (lib/dataset/JointsDataset.py), joint by joint; heatmaps `(K, height, width)`."""
    joints = len(keypoints)
    heatmaps = np.zeros((joints, *heatmap_size), np.float32)
    weights = np.minimum(keypoints[:, 2], 1).astype(np.float32)
    reach = sigma * 3
    stride_x, stride_y = input_size[1] / heatmap_size[1], input_size[0] / heatmap_size[0]
    for joint in range(joints):
        mu_x = int(keypoints[joint, 0] / stride_x + 0.5)
        mu_y = int(keypoints[joint, 1] / stride_y + 0.5)
        upper_left = int(mu_x - reach), int(mu_y - reach)
        lower_right = int(mu_x + reach + 1), int(mu_y + reach + 1)
        if upper_left[0] >= heatmap_size[1] or upper_left[1] >= heatmap_size[0] or lower_right[0] < 0 or lower_right[1] < 0:
            weights[joint] = 0
            continue
        size = 2 * reach + 1
        x = np.arange(0, size, 1, np.float32)
        y = x[:, np.newaxis]
        middle = size // 2
        patch = np.exp(-((x - middle) ** 2 + (y - middle) ** 2) / (2 * sigma**2))
        patch_x = max(0, -upper_left[0]), min(lower_right[0], heatmap_size[1]) - upper_left[0]
        patch_y = max(0, -upper_left[1]), min(lower_right[1], heatmap_size[0]) - upper_left[1]
        image_x = max(0, upper_left[0]), min(lower_right[0], heatmap_size[1])
        image_y = max(0, upper_left[1]), min(lower_right[1], heatmap_size[0])
        if weights[joint] > 0.5:
            heatmaps[joint, image_y[0] : image_y[1], image_x[0] : image_x[1]] = patch[patch_y[0] : patch_y[1], patch_x[0] : patch_x[1]]
    return heatmaps, weights


def hrnet_final_predictions(heatmaps):
    """`get_max_preds` and `get_final_preds` of HRNet (lib/core/inference.py), in heatmap pixels; heatmaps `(N, K, height, width)`."""
    count, joints, height, width = heatmaps.shape
    flat = heatmaps.reshape((count, joints, -1))
    index = np.argmax(flat, 2).reshape((count, joints, 1))
    maxima = np.amax(flat, 2).reshape((count, joints, 1))
    points = np.tile(index, (1, 1, 2)).astype(np.float32)
    points[:, :, 0] = points[:, :, 0] % width
    points[:, :, 1] = np.floor(points[:, :, 1] / width)
    points *= np.tile(np.greater(maxima, 0.0), (1, 1, 2)).astype(np.float32)
    for n in range(count):
        for p in range(joints):
            heatmap = heatmaps[n, p]
            px, py = math.floor(points[n, p, 0] + 0.5), math.floor(points[n, p, 1] + 0.5)
            if 1 < px < width - 1 and 1 < py < height - 1:
                slope = np.array([heatmap[py, px + 1] - heatmap[py, px - 1], heatmap[py + 1, px] - heatmap[py - 1, px]])
                points[n, p] += np.sign(slope) * 0.25
    return points, maxima


# Encoding.


@given(
    arrays(
        np.float32,
        (5, 2),
        elements=st.floats(-60, 110, width=32).filter(
            # A Gaussian that ends one pixel outside to the left or above: HRNet asks the network for an empty heatmap there
            # (`lower_right < 0` is off by one), kpose leaves it out.
            lambda value: int(value / 4 + 0.5) not in (-7, -4)
        ),
    ),
    arrays(np.float32, (5,), elements=st.sampled_from([0.0, 1.0, 2.0])),
    st.sampled_from([1.0, 2.0]),
)
def test_heatmaps_and_weights_are_those_of_hrnet(points, visibility, sigma):
    keypoints = np.concatenate([points, visibility[:, None]], axis=1)
    codec = GaussianCodec(INPUT_SIZE, HEATMAP_SIZE, sigma)
    heatmaps, weights = encode(codec, keypoints)
    expected, expected_weights = hrnet_target(keypoints, INPUT_SIZE, HEATMAP_SIZE, int(sigma))
    np.testing.assert_allclose(heatmaps, expected.transpose(1, 2, 0), atol=1e-6)
    np.testing.assert_array_equal(weights, expected_weights)


def test_published_sizes_give_the_heatmaps_of_hrnet():
    random = np.random.default_rng(0)
    for input_size, sigma in (((256, 192), 2), ((384, 288), 3)):
        heatmap_size = (input_size[0] // 4, input_size[1] // 4)
        keypoints = np.concatenate([random.uniform(0, input_size[::-1], (17, 2)), np.full((17, 1), 2.0)], axis=1).astype(np.float32)
        heatmaps, weights = encode(GaussianCodec(input_size, heatmap_size, sigma), keypoints)
        expected, expected_weights = hrnet_target(keypoints, input_size, heatmap_size, sigma)
        np.testing.assert_allclose(heatmaps, expected.transpose(1, 2, 0), atol=1e-6)
        np.testing.assert_array_equal(weights, expected_weights)


@both_alignments
@given(keypoints=in_crop())
def test_a_keypoint_in_the_crop_has_one_maximum_of_one(codec, keypoints):
    heatmaps, weights = encode(codec, keypoints)
    np.testing.assert_array_equal(weights, 1)
    np.testing.assert_array_equal((heatmaps == 1).sum(axis=(0, 1)), 1)
    assert heatmaps.min() >= 0


@both_alignments
@pytest.mark.parametrize(
    "keypoint",
    [
        (20.0, 20.0, 0.0),
        (float("nan"), 20.0, 0.0),
        (20.0, float("nan"), 2.0),
        (float("inf"), 20.0, 2.0),
        (20.0, -float("inf"), 1.0),
        (1e30, 20.0, 2.0),
        (-1e30, 20.0, 2.0),
        (20.0, 20.0, float("nan")),
        (-40.0, 20.0, 2.0),
        (20.0, -40.0, 2.0),
        (90.0, 20.0, 2.0),
        (20.0, 110.0, 2.0),
        (-34.0, 20.0, 2.0),  # just farther than the Gaussian reaches
    ],
)
def test_a_joint_absent_or_far_from_the_crop_has_no_weight_and_an_empty_heatmap(codec, keypoint):
    heatmaps, weights = encode(codec, [keypoint, (20.0, 20.0, 2.0)])
    np.testing.assert_array_equal(weights, [0, 1])
    assert not heatmaps[..., 0].any()
    assert heatmaps[..., 1].max() == 1


def test_a_joint_beside_the_crop_shows_the_end_of_its_gaussian():
    heatmaps, weights = encode(CLASSIC, [(-22.0, 20.0, 2.0)])
    np.testing.assert_array_equal(weights, [1])
    assert heatmaps.max() == pytest.approx(math.exp(-25 / 8))
    assert not heatmaps[:, 2:].any()


@both_alignments
@pytest.mark.parametrize("leading", [(), (3,), (2, 3), (0,)])
def test_leading_dimensions_are_kept(codec, leading):
    random = np.random.default_rng(0)
    keypoints = random.uniform(0, 48, (*leading, 5, 3)).astype(np.float32)
    keypoints[..., 2] = random.integers(0, 3, (*leading, 5))
    heatmaps, weights = encode(codec, keypoints)
    assert heatmaps.shape == (*leading, *HEATMAP_SIZE, 5)
    assert weights.shape == (*leading, 5)
    decoded = codec.decode(heatmaps)
    assert decoded.shape == (*leading, 5, 3)
    mirrored = codec.unmirror(heatmaps, np.arange(5))
    assert mirrored.shape == heatmaps.shape
    for place in np.ndindex(leading):
        alone, alone_weights = encode(codec, keypoints[place])
        np.testing.assert_array_equal(heatmaps[place], alone)
        np.testing.assert_array_equal(weights[place], alone_weights)
        np.testing.assert_array_equal(decoded[place], codec.decode(alone))
        np.testing.assert_array_equal(mirrored[place], codec.unmirror(alone, np.arange(5)))


def test_encoding_runs_in_a_graph_with_an_unknown_batch_size():
    keypoints = np.random.default_rng(0).uniform(0, 48, (2, 17, 3)).astype(np.float32)

    @tf.function(input_signature=[tf.TensorSpec([None, 17, 3])])
    def in_graph(keypoints):
        return CLASSIC.encode(keypoints)

    for found, expected in zip(in_graph(keypoints), encode(CLASSIC, keypoints), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-7)


# Decoding.


def decoded_in_heatmap_frame(codec, heatmaps):
    return geometry.crop_to_heatmap(codec.decode(heatmaps), codec.input_size, codec.heatmap_size, codec.alignment)


@both_alignments
@given(heatmaps=arrays(np.float32, (2, *HEATMAP_SIZE, 3), elements=st.floats(-1, 1, width=32)))
def test_decoding_is_that_of_hrnet(codec, heatmaps):
    points, maxima = hrnet_final_predictions(heatmaps.transpose(0, 3, 1, 2))
    found = decoded_in_heatmap_frame(codec, heatmaps)
    np.testing.assert_allclose(found[..., :2], points, atol=1e-5)
    np.testing.assert_array_equal(found[..., 2:], maxima)


@pytest.mark.parametrize("row", range(HEATMAP_SIZE[0]))
@pytest.mark.parametrize("column", range(HEATMAP_SIZE[1]))
def test_a_maximum_anywhere_is_decoded_as_hrnet_does(row, column):
    heatmaps = np.random.default_rng(row * 100 + column).uniform(0, 0.5, (1, *HEATMAP_SIZE, 1)).astype(np.float32)
    heatmaps[0, row, column, 0] = 1
    points, _ = hrnet_final_predictions(heatmaps.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(decoded_in_heatmap_frame(CLASSIC, heatmaps)[..., :2], points, atol=1e-6)
    # Maxima in the first two and the last rows and columns stay where they are.
    border = row < 2 or column < 2 or row == HEATMAP_SIZE[0] - 1 or column == HEATMAP_SIZE[1] - 1
    assert np.abs(points[0, 0] - (column, row)).max() == (0 if border else 0.25)


def test_heatmaps_without_a_positive_value_decode_to_the_corner():
    heatmaps = np.full((1, *HEATMAP_SIZE, 2), -0.5, np.float32)
    heatmaps[..., 1] = 0
    np.testing.assert_array_equal(CLASSIC.decode(heatmaps), [[[0, 0, -0.5], [0, 0, 0]]])


@pytest.mark.parametrize("shape", [(1, 12, 16, 17), (1, 64, 48, 17), (16, 12)])
def test_heatmaps_of_another_size_are_refused(shape):
    with pytest.raises(KposeError, match=r"heatmaps of shape .* do not fit this codec"):
        CLASSIC.decode(np.zeros(shape, np.float32))


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf")])
def test_a_gaussian_without_a_width_is_refused(sigma):
    with pytest.raises(KposeError, match="codec sigma must be finite and greater than 0"):
        GaussianCodec(INPUT_SIZE, HEATMAP_SIZE, sigma)


# There and back.


@both_alignments
@given(keypoints=in_crop())
def test_a_keypoint_comes_back_within_half_a_heatmap_pixel(codec, keypoints):
    heatmaps, _ = encode(codec, keypoints)
    decoded = codec.decode(heatmaps)
    assert (np.abs(decoded[:, :2] - keypoints[:, :2]) <= GRID_LIMIT * stride(codec) + TOLERANCE).all()
    np.testing.assert_array_equal(decoded[:, 2], 1)


@both_alignments
def test_the_error_over_the_crop_is_that_of_rounding_alone(codec):
    # A uniform error in -1/2 .. 1/2 heatmap pixel: no bias, a quarter on average, half at most.
    random = np.random.default_rng(0)
    points = random.uniform(0.5, np.array(HEATMAP_SIZE[::-1]) - 1.5, (5000, 2))
    keypoints = geometry.heatmap_to_crop(
        np.concatenate([points, np.full((5000, 1), 2.0)], axis=1), INPUT_SIZE, HEATMAP_SIZE, codec.alignment
    )
    heatmaps, _ = encode(codec, keypoints)
    error = (codec.decode(heatmaps)[:, :2] - keypoints[:, :2]) / stride(codec)
    np.testing.assert_allclose(error.mean(axis=0), 0, atol=0.02)
    np.testing.assert_allclose(np.abs(error).mean(axis=0), 0.25, atol=0.02)
    assert np.abs(error).max() == pytest.approx(GRID_LIMIT, abs=0.01)


@both_alignments
def test_a_keypoint_on_the_heatmap_grid_comes_back_exactly(codec):
    rows, columns = np.meshgrid(np.arange(HEATMAP_SIZE[0]), np.arange(HEATMAP_SIZE[1]), indexing="ij")
    grid = np.stack([columns.ravel(), rows.ravel(), np.full(rows.size, 2)], axis=1).astype(np.float32)
    keypoints = geometry.heatmap_to_crop(grid, INPUT_SIZE, HEATMAP_SIZE, codec.alignment)
    heatmaps, _ = encode(codec, keypoints)
    np.testing.assert_allclose(codec.decode(heatmaps)[:, :2], keypoints[:, :2], atol=1e-4)


def test_the_quarter_offset_halves_the_error_of_lopsided_maxima():
    # What a network answers is a Gaussian about the true place, not about a pixel.
    random = np.random.default_rng(0)
    centers = random.uniform(3, 8, (500, 2))
    x, y = np.arange(HEATMAP_SIZE[1]), np.arange(HEATMAP_SIZE[0])
    distance = (x[None, None] - centers[:, 0, None, None]) ** 2 + (y[None, :, None] - centers[:, 1, None, None]) ** 2
    heatmaps = np.exp(-distance / 8)[..., None].astype(np.float32)
    error = np.abs(decoded_in_heatmap_frame(CLASSIC, heatmaps)[:, 0, :2] - centers)
    assert error.max() <= 0.25 + 1e-3


@both_alignments
@given(
    keypoints=in_crop(),
    center=arrays(np.float64, (2,), elements=st.floats(0, 2000)),
    width=st.floats(30, 1500),
    rotation=st.floats(-180, 180),
    mirrored=st.booleans(),
)
def test_a_keypoint_in_the_photo_comes_back_within_half_a_heatmap_pixel_of_the_crop(codec, keypoints, center, width, rotation, mirrored):
    matrix = geometry.crop_matrix(center, np.array([width, width * 4 / 3]), INPUT_SIZE, rotation, mirrored, codec.alignment)
    in_photo = geometry.transform_points(keypoints, geometry.invert_affine(matrix))
    heatmaps, _ = encode(codec, geometry.transform_points(in_photo, matrix))
    back = geometry.transform_points(codec.decode(heatmaps), geometry.invert_affine(matrix))
    photo_pixels = 1 / np.sqrt(np.abs(np.linalg.det(matrix[:, :2])))
    limit = np.linalg.norm(GRID_LIMIT * stride(codec)) + TOLERANCE
    # Crop pixels are not quite square under unbiased alignment: 48 - 1 of them on 64 - 1.
    assert (np.linalg.norm(back[:, :2] - in_photo[:, :2], axis=-1) <= limit * photo_pixels * 1.01).all()


# Mirrored crops. The bound in x differs with the way of mirroring and the alignment; y is never touched.


@given(keypoints=in_crop())
def test_unbiased_heatmaps_of_the_mirrored_crop_come_back_within_the_grid_limit(keypoints):
    mirrored = keypoints[COCO_17.flip_permutation] * (-1, 1, 1) + (INPUT_SIZE[1] - 1, 0, 0)
    heatmaps, _ = encode(UNBIASED, mirrored)
    for shift in (True, False):  # under unbiased alignment there is nothing to shift
        decoded = UNBIASED.decode(UNBIASED.unmirror(heatmaps, COCO_17.flip_permutation, shift))
        assert (np.abs(decoded[:, :2] - keypoints[:, :2]) <= GRID_LIMIT * stride(UNBIASED) + TOLERANCE).all()


# The shift leaves the first column where it is, as HRNet does: keypoints within a heatmap pixel of the left edge are not shifted.
@given(keypoints=in_crop(size=(64, 44)).map(lambda points: np.add(points, (5, 0, 0))))
def test_classic_heatmaps_of_the_mirrored_crop_come_back_within_the_documented_bias(keypoints):
    mirrored = keypoints[COCO_17.flip_permutation] * (-1, 1, 1) + (INPUT_SIZE[1] - 1, 0, 0)
    heatmaps, _ = encode(CLASSIC, mirrored)
    shifted = CLASSIC.decode(CLASSIC.unmirror(heatmaps, COCO_17.flip_permutation))
    error = shifted[:, :2] - keypoints[:, :2]
    # One crop pixel to the right of the grid limit's two; unshifted it is three to the left.
    assert (np.abs(error - (1, 0)) <= GRID_LIMIT * 4 + TOLERANCE).all()
    unshifted = CLASSIC.decode(CLASSIC.unmirror(heatmaps, COCO_17.flip_permutation, shift=False))
    np.testing.assert_allclose(shifted[:, :2] - unshifted[:, :2], np.broadcast_to([4, 0], (17, 2)), atol=1e-5)


@given(keypoints=in_crop(size=(64, 44)).map(lambda points: np.add(points, (6, 0, 0))))
def test_classic_heatmaps_of_a_crop_mirrored_by_its_map_come_back_without_bias(keypoints):
    mirrored = keypoints[COCO_17.flip_permutation] * (-1, 1, 1) + (INPUT_SIZE[1], 0, 0)
    heatmaps, _ = encode(CLASSIC, mirrored)
    decoded = CLASSIC.decode(CLASSIC.unmirror(heatmaps, COCO_17.flip_permutation))
    assert (np.abs(decoded[:, :2] - keypoints[:, :2]) <= GRID_LIMIT * 4 + TOLERANCE).all()


def test_unmirroring_is_that_of_hrnet():
    heatmaps = np.random.default_rng(0).uniform(size=(2, *HEATMAP_SIZE, 17)).astype(np.float32)
    # `flip_back`, then `output_flipped[:, :, :, 1:] = output_flipped.clone()[:, :, :, 0:-1]` (lib/core/function.py).
    expected = heatmaps[:, :, ::-1, COCO_17.flip_permutation].copy()
    np.testing.assert_array_equal(CLASSIC.unmirror(heatmaps, COCO_17.flip_permutation, shift=False), expected)
    expected[:, :, 1:] = expected[:, :, :-1].copy()
    np.testing.assert_array_equal(CLASSIC.unmirror(heatmaps, COCO_17.flip_permutation), expected)


def test_without_the_quarter_offset_maxima_stay_where_they_are():
    heatmaps = np.zeros((1, *CLASSIC.heatmap_size, 1), np.float32)
    heatmaps[0, 9, 5, 0], heatmaps[0, 9, 6, 0], heatmaps[0, 8, 5, 0] = 1.0, 0.5, 0.5
    moved = decoded_in_heatmap_frame(CLASSIC, heatmaps)[0, 0, :2]
    np.testing.assert_allclose(moved, [5.25, 8.75], atol=1e-6)
    kept = geometry.crop_to_heatmap(
        replace(CLASSIC, decoding="argmax").decode(heatmaps), CLASSIC.input_size, CLASSIC.heatmap_size, "classic"
    )
    np.testing.assert_array_equal(kept[0, 0, :2], [5, 9])
