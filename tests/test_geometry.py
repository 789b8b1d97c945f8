from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kpose import geometry

alignments = st.sampled_from(["classic", "unbiased"])
crop_sizes = st.sampled_from([(256, 192), (384, 288), (256, 256), (64, 48), (7, 5)])


def numbers(low, high):
    return st.floats(low, high, width=32)


@st.composite
def crops(draw):
    """The arguments of `crop_matrix` for a region of 20 to 2000 pixels in or near a photo."""
    crop_size = draw(crop_sizes)
    width = draw(numbers(20, 2000))
    return {
        "centers": np.array([draw(numbers(-500, 4000)), draw(numbers(-500, 4000))]),
        "sizes": np.array([width, width * crop_size[0] / crop_size[1]]),
        "crop_size": crop_size,
        "rotation": draw(numbers(-180, 180)),
        "mirrored": draw(st.booleans()),
        "alignment": draw(alignments),
    }


# References of the field, written out.


def hrnet_affine_transform(center, size, rotation, crop_size):
    """`get_affine_transform` of SimpleBaseline and HRNet (lib/utils/transforms.py): three points of the box and of the crop."""
    radians = math.pi * rotation / 180
    source_direction = np.array([0, size[0] * -0.5])
    source_direction = np.array(
        [
            source_direction[0] * math.cos(radians) - source_direction[1] * math.sin(radians),
            source_direction[0] * math.sin(radians) + source_direction[1] * math.cos(radians),
        ]
    )
    height, width = crop_size

    def three_points(middle, direction):
        second = middle + direction
        difference = middle - second
        return np.float32([middle, second, second + np.array([-difference[1], difference[0]])])

    source = three_points(np.asarray(center), source_direction)
    target = three_points(np.array([width * 0.5, height * 0.5]), np.array([0, width * -0.5]))
    return cv2.getAffineTransform(source, target)


def udp_warp_matrix(theta, size_input, size_dst, size_target):
    """`get_warp_matrix` of MMPose after UDP (Huang et al., CVPR 2020); called with (rotation, 2 x center, crop size - 1, box size)."""
    theta = math.radians(theta)
    scale_x, scale_y = size_dst[0] / size_target[0], size_dst[1] / size_target[1]
    shift_x = -0.5 * size_input[0] * math.cos(theta) + 0.5 * size_input[1] * math.sin(theta) + 0.5 * size_target[0]
    shift_y = -0.5 * size_input[0] * math.sin(theta) - 0.5 * size_input[1] * math.cos(theta) + 0.5 * size_target[1]
    return np.array(
        [
            [math.cos(theta) * scale_x, -math.sin(theta) * scale_x, scale_x * shift_x],
            [math.sin(theta) * scale_y, math.cos(theta) * scale_y, scale_y * shift_y],
        ]
    )


def hrnet_center_and_size(box, aspect_ratio):
    """`_xywh2cs` of HRNet (lib/dataset/coco.py), in pixels instead of 200ths."""
    x, y, width, height = box
    center = np.array([x + width * 0.5, y + height * 0.5])
    if width > aspect_ratio * height:
        height = width / aspect_ratio
    elif width < aspect_ratio * height:
        width = height * aspect_ratio
    return center, np.array([width, height]) * 1.25


# Boxes.


@given(
    arrays(np.float32, (4,), elements=numbers(1, 1000)),
    crop_sizes,
    st.floats(1, 2),
)
def test_a_fitted_box_has_the_aspect_of_the_crop_and_contains_the_box(box, crop_size, padding):
    center, size = geometry.fit_box_to_aspect(box.astype(np.float64), crop_size, padding)
    assert size[0] / size[1] == pytest.approx(crop_size[1] / crop_size[0])
    np.testing.assert_allclose(center, box[:2] + box[2:] / 2, rtol=1e-6)
    assert (size >= box[2:] * padding * (1 - 1e-6)).all()
    # Not larger than needed: one side is the box's own.
    assert (size / (box[2:] * padding)).min() == pytest.approx(1)


@given(arrays(np.float32, (4,), elements=numbers(1, 1000)))
def test_a_fitted_box_is_that_of_hrnet(box):
    center, size = geometry.fit_box_to_aspect(box, (256, 192))
    expected_center, expected_size = hrnet_center_and_size(box.astype(np.float64), 192 / 256)
    np.testing.assert_allclose(center, expected_center, rtol=1e-5)
    np.testing.assert_allclose(size, expected_size, rtol=1e-5)


def test_each_box_of_a_batch_may_have_its_own_padding():
    boxes = np.array([[0, 0, 30, 40], [10, 10, 60, 80], [0, 0, 30, 40]], np.float32)
    padding = np.array([1.0, 1.25, 1.5], np.float32)
    _, sizes = geometry.fit_box_to_aspect(boxes, (256, 192), padding)
    np.testing.assert_allclose(sizes, [[30, 40], [75, 100], [45, 60]])
    np.testing.assert_allclose(geometry.fit_box_to_aspect(tf.constant(boxes), (256, 192), tf.constant(padding))[1], sizes)


# Maps.


@given(crops())
def test_the_classic_map_is_that_of_hrnet(crop):
    crop |= {"alignment": "classic", "mirrored": False}
    expected = hrnet_affine_transform(crop["centers"], crop["sizes"], crop["rotation"], crop["crop_size"])
    corners = np.array([crop["centers"] + crop["sizes"] * [i, j] / 2 for i in (-1, 0, 1) for j in (-1, 0, 1)])
    found = geometry.transform_points(corners, geometry.crop_matrix(**crop))
    # The reference rounds its three points to float32, which is felt at coordinates in the thousands on a small box.
    tolerance = 1e-4 + 4 * np.spacing(np.float32(np.abs(corners).max())) * max(crop["crop_size"]) / crop["sizes"].min()
    np.testing.assert_allclose(found, geometry.transform_points(corners, expected), atol=tolerance, rtol=0)


@pytest.mark.parametrize("rotation", [0.0, 30.0, -45.0, 90.0, 180.0])
def test_the_classic_map_is_that_of_hrnet_to_four_decimals(rotation):
    center, size, crop_size = np.array([311.5, 208.25]), np.array([187.5, 250.0]), (256, 192)
    expected = hrnet_affine_transform(center, size, rotation, crop_size)
    np.testing.assert_allclose(geometry.crop_matrix(center, size, crop_size, rotation), expected, atol=1e-4)


@given(crops())
def test_the_unbiased_map_is_that_of_udp(crop):
    crop |= {"alignment": "unbiased", "mirrored": False}
    height, width = crop["crop_size"]
    # UDP turns the other way than HRNet; kpose turns as HRNet in both alignments.
    expected = udp_warp_matrix(-crop["rotation"], 2 * crop["centers"], (width - 1, height - 1), crop["sizes"])
    np.testing.assert_allclose(geometry.crop_matrix(**crop), expected, atol=1e-4, rtol=1e-9)


@given(crops())
def test_the_region_fills_the_crop(crop):
    crop |= {"rotation": 0.0, "mirrored": False}
    first = crop["centers"] - crop["sizes"] / 2
    ends = np.array([first, first + crop["sizes"]])
    extent = geometry.crop_extent(crop["crop_size"], crop["alignment"])
    np.testing.assert_allclose(geometry.transform_points(ends, geometry.crop_matrix(**crop)), [(0, 0), extent], atol=1e-6)


def test_rotation_turns_the_region_clockwise_on_the_screen():
    matrix = geometry.crop_matrix(np.array([50.0, 50.0]), np.array([100.0, 100.0]), (100, 100), rotation=90.0)
    # The upper edge of a region turned clockwise by 90 degrees is its right side in the photo.
    np.testing.assert_allclose(geometry.transform_points(np.array([[100.0, 50.0]]), matrix), [[50.0, 0.0]], atol=1e-9)


@given(crops())
def test_a_mirrored_map_reflects_the_crop_about_its_axis(crop):
    straight, mirrored = (geometry.crop_matrix(**{**crop, "mirrored": value}) for value in (False, True))
    points = crop["centers"] + np.array([[0.0, 0.0], [13.0, -7.0], [-200.0, 55.0]])
    expected = geometry.transform_points(points, straight)
    width = crop["crop_size"][1]
    expected[:, 0] = (width if crop["alignment"] == "classic" else width - 1) - expected[:, 0]
    np.testing.assert_allclose(geometry.transform_points(points, mirrored), expected, atol=1e-6)


@pytest.mark.parametrize("mirrored", [False, True])
def test_an_unbiased_mirrored_crop_is_the_crop_with_its_columns_reversed(mirrored):
    image = np.random.default_rng(0).uniform(0, 255, (1, 60, 80, 3)).astype(np.float32)
    arguments = {"centers": np.array([41.3, 28.9]), "sizes": np.array([36.0, 48.0]), "crop_size": (64, 48), "rotation": 20.0}
    crops_of_both = [
        geometry.warp_image(image, geometry.crop_matrix(**arguments, mirrored=value, alignment="unbiased")[None], (64, 48)).numpy()
        for value in (mirrored, not mirrored)
    ]
    np.testing.assert_allclose(crops_of_both[0], crops_of_both[1][:, :, ::-1], atol=0.02)


@given(crops())
def test_the_inverse_undoes_the_map(crop):
    matrix = geometry.crop_matrix(**crop)
    inverse = geometry.invert_affine(matrix)
    homogeneous = [np.vstack([part, [0, 0, 1]]) for part in (matrix, inverse)]
    np.testing.assert_allclose(homogeneous[0] @ homogeneous[1], np.eye(3), atol=1e-6)
    points = np.array([[0.0, 0.0, 2.0], [17.0, 3000.0, 0.0], [-40.0, 12.0, 1.0]])
    there = geometry.transform_points(points, matrix)
    back = geometry.transform_points(there, inverse)
    np.testing.assert_allclose(back, points, atol=1e-6)
    np.testing.assert_array_equal(there[:, 2], points[:, 2])


@given(crops())
def test_numpy_and_tensorflow_give_the_same_numbers(crop):
    box = np.array([*(crop["centers"] - crop["sizes"] / 2), *crop["sizes"]], np.float32)
    points = np.array([[3.0, 4.0, 1.0], [250.0, 90.0, 0.0]], np.float32)
    image_size = np.array([480, 640], np.int32)

    def everything(kind):
        centers, sizes = geometry.fit_box_to_aspect(kind(box), crop["crop_size"])
        matrix = geometry.crop_matrix(
            centers, sizes, crop["crop_size"], kind(np.float32(crop["rotation"])), kind(np.bool_(crop["mirrored"])), crop["alignment"]
        )
        inverse = geometry.invert_affine(matrix)
        moved = geometry.transform_points(kind(points), inverse)
        small = (crop["crop_size"][0] * 4, crop["crop_size"][1] * 4), crop["crop_size"], crop["alignment"]
        heatmap = geometry.crop_to_heatmap(kind(points), *small)
        return centers, sizes, matrix, inverse, moved, heatmap, geometry.heatmap_to_crop(heatmap, *small)

    for numpy_value, tensor in zip(everything(np.asarray), everything(tf.constant), strict=True):
        assert isinstance(numpy_value, np.ndarray)
        assert tf.is_tensor(tensor)
        np.testing.assert_allclose(tensor, numpy_value, rtol=1e-4, atol=2e-3)
    for kind, translated in ((np.asarray, np.ndarray), (tf.constant, tf.Tensor)):
        matrix = kind(geometry.crop_matrix(**crop).astype(np.float32))
        region = geometry.visible_region(matrix, crop["crop_size"], kind(image_size))
        assert region.dtype == np.int32
        assert isinstance(geometry.translate_source(matrix, region[1::-1]), translated)


@pytest.mark.parametrize("leading", [(), (3,), (2, 3), (0,)])
@pytest.mark.parametrize("kind", [np.asarray, tf.constant], ids=["numpy", "tensorflow"])
def test_leading_dimensions_are_kept(leading, kind):
    random = np.random.default_rng(0)
    boxes = random.uniform(20, 200, (*leading, 4)).astype(np.float32)
    rotation = random.uniform(-90, 90, leading).astype(np.float32)
    mirrored = np.asarray(random.uniform(size=leading) < 0.5)
    points = random.uniform(0, 200, (*leading, 17, 3)).astype(np.float32)
    centers, sizes = geometry.fit_box_to_aspect(kind(boxes), (64, 48))
    matrix = geometry.crop_matrix(centers, sizes, (64, 48), kind(rotation), kind(mirrored))
    assert matrix.shape == (*leading, 2, 3)
    assert geometry.crop_matrix(centers, sizes, (64, 48)).shape == (*leading, 2, 3)
    moved = np.asarray(geometry.transform_points(kind(points), matrix))
    assert moved.shape == points.shape
    assert geometry.invert_affine(matrix).shape == matrix.shape
    for place in np.ndindex(leading):
        alone = geometry.crop_matrix(*geometry.fit_box_to_aspect(boxes[place], (64, 48)), (64, 48), rotation[place], mirrored[place])
        np.testing.assert_allclose(moved[place], geometry.transform_points(points[place], alone), atol=1e-2, rtol=1e-4)


@given(crop_sizes, alignments, st.lists(st.tuples(numbers(-50, 400), numbers(-50, 400), numbers(0, 2)), min_size=1))
def test_the_heatmap_frame_and_back(crop_size, alignment, points):
    heatmap_size = (crop_size[0] // 4 + 1, crop_size[1] // 4 + 1)
    points = np.array(points, np.float64)
    there = geometry.crop_to_heatmap(points, crop_size, heatmap_size, alignment)
    np.testing.assert_allclose(geometry.heatmap_to_crop(there, crop_size, heatmap_size, alignment), points, atol=1e-9)
    np.testing.assert_array_equal(there[:, 2], points[:, 2])


def test_the_alignments_measure_the_heatmap_differently():
    corner = np.array([191.0, 255.0])
    np.testing.assert_allclose(geometry.crop_to_heatmap(corner, (256, 192), (64, 48), "classic"), corner / 4)
    np.testing.assert_allclose(geometry.crop_to_heatmap(corner, (256, 192), (64, 48), "unbiased"), [47, 63])


# The part of the photo that a crop needs, and the crop itself.


def sampled_pixels(matrix, crop_size, image_size):
    """`(rows, columns)` of every image pixel that bilinear interpolation of a crop gives a weight, straight from the definition."""
    height, width = crop_size
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 2).astype(np.float64)
    points = geometry.transform_points(grid, geometry.invert_affine(matrix))
    low = np.floor(points)
    pixels = np.concatenate([low + step for step in ([0, 0], [0, 1], [1, 0], [1, 1])]).astype(np.int64)
    inside = (pixels >= 0).all(axis=1) & (pixels[:, 0] < image_size[1]) & (pixels[:, 1] < image_size[0])
    return pixels[inside, 1], pixels[inside, 0]


@given(crops(), st.tuples(st.integers(1, 3000), st.integers(1, 3000)))
def test_the_visible_region_covers_every_pixel_that_is_sampled_and_stays_in_the_image(crop, image_size):
    matrix = geometry.crop_matrix(**crop)
    y, x, height, width = geometry.visible_region(matrix.astype(np.float32), crop["crop_size"], np.array(image_size))
    assert 0 <= y < y + height <= image_size[0]
    assert 0 <= x < x + width <= image_size[1]
    rows, columns = sampled_pixels(matrix, crop["crop_size"], image_size)
    if len(rows):
        assert y <= rows.min()
        assert rows.max() < y + height
        assert x <= columns.min()
        assert columns.max() < x + width


@given(crops())
def test_the_visible_region_is_not_much_larger_than_needed(crop):
    matrix = geometry.crop_matrix(**crop)
    image_size = (10_000, 10_000)
    crop["centers"][:] = np.abs(crop["centers"]) + 4000
    matrix = geometry.crop_matrix(**crop)
    y, x, height, width = geometry.visible_region(matrix, crop["crop_size"], np.array(image_size))
    rows, columns = sampled_pixels(matrix, crop["crop_size"], image_size)
    assert rows.min() - y <= 2
    assert y + height - 1 - rows.max() <= 2
    assert columns.min() - x <= 2
    assert x + width - 1 - columns.max() <= 2


@pytest.mark.parametrize("center", [(-500.0, 30.0), (30.0, -500.0), (900.0, 30.0), (30.0, 900.0), (-9e3, 9e3)])
def test_a_crop_outside_of_the_image_has_a_region_of_one_pixel_and_is_black(center):
    image = np.full((1, 60, 80, 3), 200, np.uint8)
    matrix = geometry.crop_matrix(np.array(center), np.array([36.0, 48.0]), (64, 48), rotation=10.0).astype(np.float32)
    y, x, height, width = geometry.visible_region(matrix, (64, 48), np.array([60, 80]))
    assert (height == 1) or (width == 1)
    part = image[:, y : y + height, x : x + width]
    assert not geometry.warp_image(part, geometry.translate_source(matrix, np.array([x, y]))[None], (64, 48)).numpy().any()


def warp_region(image, matrix, crop_size):
    y, x, height, width = geometry.visible_region(matrix, crop_size, np.array(image.shape[:2]))
    moved = geometry.translate_source(matrix, np.array([x, y]))
    return geometry.warp_image(image[None, y : y + height, x : x + width], moved[None], crop_size)[0].numpy()


@pytest.fixture(scope="module")
def photo():
    """Noise, the hardest content for interpolation: every pixel differs from its neighbours."""
    return np.random.default_rng(0).uniform(0, 255, (120, 150, 3)).astype(np.float32)


def random_matrix(seed, image_size):
    random = np.random.default_rng(seed)
    width = random.uniform(0.1, 1.2) * image_size[1]
    center = random.uniform(-0.1, 1.1, 2) * image_size[::-1]
    alignment = ("classic", "unbiased")[seed % 2]
    size = np.array([width, width * 4 / 3])
    return geometry.crop_matrix(center, size, (64, 48), random.uniform(-180, 180), bool(seed % 3), alignment)


@pytest.mark.parametrize("seed", range(30))
def test_a_crop_is_that_of_opencv(photo, seed):
    matrix = random_matrix(seed, photo.shape[:2])
    inverse = geometry.invert_affine(matrix)
    expected = cv2.warpAffine(photo, inverse, (48, 64), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    found = geometry.warp_image(photo[None], matrix.astype(np.float32)[None], (64, 48))[0].numpy()
    # Measured: 0.008 of 255 at most on noise (float32 coordinates against float64 ones).
    np.testing.assert_allclose(found, expected, atol=0.02)


@pytest.mark.parametrize("seed", range(30))
def test_warping_the_visible_region_is_warping_the_image(photo, seed):
    matrix = random_matrix(seed, photo.shape[:2]).astype(np.float32)
    whole = geometry.warp_image(photo[None], matrix[None], (64, 48))[0].numpy()
    # Not a bit more than the rounding of coordinates: a pixel left out would show as tens of grey levels.
    np.testing.assert_allclose(warp_region(photo, matrix, (64, 48)), whole, atol=0.02)


@settings(max_examples=30)
@given(
    st.sampled_from([0.25, 0.5, 1.0, 2.0, 4.0]),
    st.integers(-8 * 60, 8 * 160),
    st.integers(-8 * 60, 8 * 130),
    st.sampled_from([[[1, 0], [0, 1]], [[-1, 0], [0, 1]], [[0, 1], [-1, 0]], [[0, -1], [-1, 0]]]),
)
def test_warping_the_visible_region_is_exact_where_coordinates_are(scale, eighths_x, eighths_y, turn):
    photo = np.random.default_rng(0).uniform(0, 255, (120, 150, 3)).astype(np.float32)
    linear = np.array(turn, np.float32) * np.float32(scale)
    matrix = np.concatenate([linear, -linear @ [[eighths_x / 8], [eighths_y / 8]]], axis=1).astype(np.float32)
    whole = geometry.warp_image(photo[None], matrix[None], (32, 24))[0].numpy()
    np.testing.assert_array_equal(warp_region(photo, matrix, (32, 24)), whole)


def test_the_identity_crop_is_the_image_and_black_beyond(photo):
    identity = np.array([[[1, 0, 0], [0, 1, 0]]], np.float32)
    found = geometry.warp_image(photo[None], identity, (130, 160))[0].numpy()
    np.testing.assert_array_equal(found[:120, :150], photo)
    assert not found[120:].any()
    assert not found[:, 150:].any()


def test_crops_are_cut_in_a_graph_from_batches_of_unknown_size(photo):
    matrices = np.stack([random_matrix(seed, photo.shape[:2]) for seed in range(3)]).astype(np.float32)
    images = np.stack([photo] * 3).astype(np.uint8)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8), tf.TensorSpec([None, 2, 3])])
    def cut(images, matrices):
        return geometry.warp_image(images, matrices, (64, 48))

    found = cut(images, matrices).numpy()
    assert found.dtype == np.float32
    expected = [geometry.warp_image(image[None], matrix[None], (64, 48))[0] for image, matrix in zip(images, matrices, strict=True)]
    np.testing.assert_array_equal(found, np.stack(expected))


def test_the_visible_region_is_found_in_a_graph(photo):
    matrix = random_matrix(4, photo.shape[:2]).astype(np.float32)

    @tf.function(input_signature=[tf.TensorSpec([2, 3]), tf.TensorSpec([2], tf.int32)])
    def region(matrix, image_size):
        return geometry.visible_region(matrix, (64, 48), image_size)

    size = np.array(photo.shape[:2], np.int32)
    np.testing.assert_array_equal(region(matrix, size), geometry.visible_region(matrix, (64, 48), size))


@pytest.mark.parametrize(
    ("other", "overlap"), [((0, 0, 10, 20), 1), ((5, 0, 10, 20), 1 / 3), ((10, 0, 10, 20), 0), ((0, 0, 10, 10), 0.5), ((0, 0, 0, 0), 0)]
)
def test_overlap_is_intersection_over_union(other, overlap):
    assert geometry.box_overlap(np.array([0.0, 0, 10, 20]), np.array(other, float)) == pytest.approx(overlap)
