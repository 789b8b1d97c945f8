"""Boxes, crops and affine maps: one definition that serves numpy arrays and TensorFlow tensors alike.

Every function takes either kind and returns the same kind (but `warp_image` is TensorFlow's, `box_overlap` numpy's). Pixel centres sit
at integer coordinates. Three frames occur: *image* (the photo), *crop* (the network's input) and *heatmap* (its output). Sizes are
`(height, width)`, points `x, y`, boxes `x, y, width, height`.

Two alignments tie the frames together:

* `classic`, what the published weights were trained with: the crop spans `width` pixels of the box, `crop = heatmap x stride`. Its centre
  `width / 2` is half a pixel off the middle of the pixel grid, so a mirrored crop needs a shift.
* `unbiased` (Huang et al., "The Devil is in the Details", CVPR 2020): lengths are measured between pixel centres, `width - 1` of
  them, in all frames, so that mirroring and resizing commute.
"""

from __future__ import annotations

import sys
from typing import Any, Literal

import numpy as np

Alignment = Literal["classic", "unbiased"]
Size = tuple[int, int]
# A numpy array or a TensorFlow tensor; a function returns the kind it was given.
Array = Any


def array_namespace(*values: Array) -> Any:
    """TensorFlow if any value is its tensor, else numpy: both have the functions used here under the same names."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and any(tensorflow.is_tensor(value) for value in values):
        return tensorflow
    return np


def _float(value: Array, namespace: Any) -> Array:
    """As floating point, at least float32 (float64 stays, for exact round trips)."""
    if namespace is np:
        value = np.asarray(value)
        return value if value.dtype == np.float64 else value.astype(np.float32)
    wide = namespace.is_tensor(value) and value.dtype == namespace.float64
    return value if wide else namespace.cast(value, namespace.float32)


def box_overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes `(..., 4)` x, y, width, height; 0 for boxes without area."""
    boxes, others = boxes.astype(np.float64), others.astype(np.float64)
    low = np.maximum(boxes[..., :2], others[..., :2])
    high = np.minimum(boxes[..., :2] + boxes[..., 2:], others[..., :2] + others[..., 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    union = np.prod(boxes[..., 2:], axis=-1) + np.prod(others[..., 2:], axis=-1) - shared
    return np.asarray(shared / np.maximum(union, 1e-12))


def crop_extent(crop_size: Size, alignment: Alignment) -> tuple[float, float]:
    """`(width, height)` of a crop as the alignment measures it: in pixels, or in steps between pixel centres."""
    height, width = crop_size
    return (float(width), float(height)) if alignment == "classic" else (float(width - 1), float(height - 1))


def fit_box_to_aspect(boxes: Array, crop_size: Size, padding: float | Array = 1.25) -> tuple[Array, Array]:
    """Grow boxes to the crop's aspect ratio about their centres, then by `padding`.

    Args:
        boxes: `(..., 4)` x, y, width, height in the image frame.
        crop_size: height and width of the crop.
        padding: factor on both sides, 1.25 in the published recipes: a number, or `(...)` of one for each box.

    Returns:
        Centres `(..., 2)` and sizes `(..., 2)` (width, height) in image pixels.

    Example:
        >>> fit_box_to_aspect(np.array([10.0, 20.0, 30.0, 80.0]), crop_size=(256, 192), padding=1.0)
        (array([25., 60.]), array([60., 80.]))
    """
    namespace = array_namespace(boxes, padding)
    boxes, padding = _float(boxes, namespace), _float(padding, namespace)
    aspect_ratio = crop_size[1] / crop_size[0]
    x, y, width, height = boxes[..., 0], boxes[..., 1], boxes[..., 2], boxes[..., 3]
    centers = namespace.stack([x + width * 0.5, y + height * 0.5], axis=-1)
    grown_width = namespace.maximum(width, height * aspect_ratio)
    sizes = namespace.stack([grown_width * padding, grown_width / aspect_ratio * padding], axis=-1)
    return centers, sizes


def crop_matrix(
    centers: Array,
    sizes: Array,
    crop_size: Size,
    rotation: Array | float = 0.0,
    mirrored: Array | bool = False,
    alignment: Alignment = "classic",
) -> Array:
    """The affine map from the image to the crop.

    The region of `sizes` about `centers`, turned by `rotation`, fills the crop. Mirroring is part of the map, so that one warp does it
    all: x becomes `width - x` under `classic` alignment (about the crop's centre `width / 2`, as HRNet does), `width - 1 - x` under
    `unbiased` (about the middle of the pixel grid: the crop with its columns reversed).

    Args:
        centers: `(..., 2)` x, y of the region's centre, image frame.
        sizes: `(..., 2)` width, height of the region in image pixels; of the crop's aspect ratio, greater than 0.
        crop_size: height and width of the crop.
        rotation: `(...)` or one number for all: degrees by which the region is turned clockwise on the screen (its content turns the
            other way), before mirroring. The sense of HRNet; the published code of the unbiased paper turns the other way.
        mirrored: `(...)` or one bool for all: whether left and right change places in the crop.
        alignment: see the module.

    Returns:
        `(..., 2, 3)`: `crop = matrix @ [x, y, 1]`.

    Example:
        >>> crop_matrix(np.array([100.0, 80.0]), np.array([96.0, 128.0]), crop_size=(256, 192)).tolist()
        [[2.0, 0.0, -104.0], [-0.0, 2.0, -32.0]]
    """
    namespace = array_namespace(centers, sizes, rotation, mirrored)
    centers, sizes = _float(centers, namespace), _float(sizes, namespace)
    angle = _float(rotation, namespace) * (np.pi / 180.0)
    sign = 1.0 - 2.0 * _float(mirrored, namespace)
    extent_x, extent_y = crop_extent(crop_size, alignment)
    scale_x, scale_y = extent_x / sizes[..., 0], extent_y / sizes[..., 1]
    cosine, sine = namespace.cos(angle), namespace.sin(angle)
    a, b = sign * scale_x * cosine, sign * scale_x * sine
    c, d = -scale_y * sine, scale_y * cosine
    center_x, center_y = centers[..., 0], centers[..., 1]
    shift_x = extent_x * 0.5 - a * center_x - b * center_y
    shift_y = extent_y * 0.5 - c * center_x - d * center_y
    return namespace.stack([namespace.stack([a, b, shift_x], axis=-1), namespace.stack([c, d, shift_y], axis=-1)], axis=-2)


def invert_affine(matrix: Array) -> Array:
    """The inverse of affine maps `(..., 2, 3)`, of the same shape: from the crop to the image, for one that goes the other way."""
    namespace = array_namespace(matrix)
    matrix = _float(matrix, namespace)
    a, b, x = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 0, 2]
    c, d, y = matrix[..., 1, 0], matrix[..., 1, 1], matrix[..., 1, 2]
    determinant = a * d - b * c
    first = namespace.stack([d, -b, b * y - d * x], axis=-1)
    second = namespace.stack([-c, a, c * x - a * y], axis=-1)
    return namespace.stack([first, second], axis=-2) / determinant[..., None, None]


def transform_points(points: Array, matrix: Array) -> Array:
    """Move points by an affine map.

    Args:
        points: `(..., K, 2 or more)`: x, y, then values that stay as they are (visibility, score).
        matrix: `(..., 2, 3)`, the leading dimensions those of `points`.

    Returns:
        Of the shape of `points`.
    """
    namespace = array_namespace(points, matrix)
    points, matrix = _float(points, namespace), _float(matrix, namespace)
    x, y = points[..., 0], points[..., 1]
    moved = [matrix[..., row, 0][..., None] * x + matrix[..., row, 1][..., None] * y + matrix[..., row, 2][..., None] for row in (0, 1)]
    moved += [points[..., column] for column in range(2, points.shape[-1])]
    return namespace.stack(moved, axis=-1)


def heatmap_stride(crop_size: Size, heatmap_size: Size, alignment: Alignment) -> tuple[float, float]:
    """`(x, y)` crop pixels per heatmap pixel."""
    crop_x, crop_y = crop_extent(crop_size, alignment)
    heatmap_x, heatmap_y = crop_extent(heatmap_size, alignment)
    return crop_x / heatmap_x, crop_y / heatmap_y


def crop_to_heatmap(points: Array, crop_size: Size, heatmap_size: Size, alignment: Alignment = "classic") -> Array:
    """Points `(..., 2 or more)` from the crop frame to the heatmap frame; values beyond x, y stay."""
    stride_x, stride_y = heatmap_stride(crop_size, heatmap_size, alignment)
    return _scale_points(points, 1.0 / stride_x, 1.0 / stride_y)


def heatmap_to_crop(points: Array, crop_size: Size, heatmap_size: Size, alignment: Alignment = "classic") -> Array:
    """Points `(..., 2 or more)` from the heatmap frame to the crop frame; values beyond x, y stay."""
    return _scale_points(points, *heatmap_stride(crop_size, heatmap_size, alignment))


def _scale_points(points: Array, factor_x: float, factor_y: float) -> Array:
    namespace = array_namespace(points)
    points = _float(points, namespace)
    columns = [points[..., 0] * factor_x, points[..., 1] * factor_y]
    columns += [points[..., column] for column in range(2, points.shape[-1])]
    return namespace.stack(columns, axis=-1)


def visible_region(matrix: Array, crop_size: Size, image_size: Array) -> Array:
    """The part of the image that a crop shows: the rectangle to decode.

    Args:
        matrix: `(..., 2, 3)` from image to crop.
        crop_size: height and width of the crop.
        image_size: `(..., 2)` integer height and width of the image.

    Returns:
        `(..., 4)` integers y, x, height, width within the image, one pixel wider on each side than the corners of the crop so that
        bilinear interpolation finds its neighbours; at least 1 x 1 even where the crop lies outside of the image.
    """
    namespace = array_namespace(matrix, image_size)
    height, width = crop_size
    corners = np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]], np.float32)
    if namespace is not np:
        corners = namespace.constant(corners)
    points = transform_points(corners, invert_affine(matrix))
    limit = namespace.stack([_float(image_size[..., 1], namespace), _float(image_size[..., 0], namespace)], axis=-1)
    if namespace is np:
        first, last = points.min(axis=-2), points.max(axis=-2)
    else:
        first, last = namespace.reduce_min(points, axis=-2), namespace.reduce_max(points, axis=-2)
    zero = namespace.zeros_like(limit)
    start = namespace.minimum(namespace.maximum(namespace.floor(first) - 1.0, zero), limit - 1.0)
    stop = namespace.maximum(namespace.minimum(namespace.floor(last) + 3.0, limit), start + 1.0)
    size = stop - start
    region = namespace.stack([start[..., 1], start[..., 0], size[..., 1], size[..., 0]], axis=-1)
    return region.astype(np.int32) if namespace is np else namespace.cast(region, namespace.int32)


def translate_source(matrix: Array, offset: Array) -> Array:
    """An affine map `(2, 3)` for a source image of which only the part from `offset` (x, y) on is at hand."""
    namespace = array_namespace(matrix, offset)
    matrix, offset = _float(matrix, namespace), _float(offset, namespace)
    shift = matrix[:, 0] * offset[0] + matrix[:, 1] * offset[1] + matrix[:, 2]
    return namespace.stack([matrix[:, 0], matrix[:, 1], shift], axis=-1)


def warp_image(images: Array, matrices: Array, crop_size: Size) -> Array:
    """Cut crops out of images by bilinear interpolation; black outside of the image.

    Args:
        images: `(B, H, W, C)` uint8 or float32.
        matrices: `(B, 2, 3)` from image to crop.
        crop_size: height and width of the crops.

    Returns:
        `(B, height, width, C)` float32: interpolated values are not rounded.
    """
    import tensorflow as tf

    inverse = invert_affine(tf.convert_to_tensor(matrices, tf.float32))
    rows = tf.reshape(inverse, [-1, 6])
    transforms = tf.concat([rows, tf.zeros_like(rows[:, :2])], axis=1)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=transforms,
        output_shape=tf.constant(crop_size, tf.int32),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
