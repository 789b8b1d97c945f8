"""Decoding of batches inside of a TensorFlow graph: what codecs decode and unmirror in NumPy.

`kpose.export.decoding` does it for one person in TFLite's operations; here any operation of TensorFlow will do, and every codec is known.
Definitions and their reasons are those of `kpose.codecs`.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from kpose import geometry
from kpose.codecs import Codec, GaussianCodec, OffsetCodec
from kpose.codecs.blur import Border, blur_matrix
from kpose.codecs.dark import SMALLEST, modulation_size, newton_step
from kpose.codecs.offset import HEATMAP_BLUR, OFFSET_BLUR
from kpose.errors import KposeError


def decode(codec: Codec, maps: tf.Tensor) -> tf.Tensor:
    """Keypoints of maps, as `codec.decode`.

    Args:
        codec: of the maps.
        maps: `(B, height, width, K * maps_per_joint)` float32, all but B static.

    Returns:
        `(B, K, 3)` float32: x, y in the crop frame, and a score.

    Raises:
        KposeError: when the codec is none that is known here.
    """
    if isinstance(codec, GaussianCodec):
        points, scores = _decode_gaussian(codec, maps)
    elif isinstance(codec, OffsetCodec):
        points, scores = _decode_offset(codec, maps)
    else:
        raise KposeError(f"maps of {type(codec).__name__} cannot be decoded inside of the graph")
    points = tf.where(scores[..., None] > 0, points, 0.0)
    points = geometry.heatmap_to_crop(points, codec.input_size, codec.heatmap_size, codec.alignment)
    return tf.concat([points, scores[..., None]], axis=-1)


def unmirror(codec: Codec, maps: tf.Tensor, flip_permutation: np.ndarray, shift: bool = True) -> tf.Tensor:
    """The maps of a mirrored crop, brought back to the crop itself, as `codec.unmirror`."""
    _, height, width, channels = maps.shape
    each = codec.maps_per_joint
    joints = tf.reshape(maps, (-1, height, width, channels // each, each))
    back = tf.gather(tf.reverse(joints, axis=[2]), flip_permutation, axis=3)
    offsets = isinstance(codec, OffsetCodec)
    if offsets:
        back *= tf.constant([1.0, -1.0, 1.0])
    if shift and codec.alignment == "classic":
        back = tf.concat([back[:, :, :1], back[:, :, :-1]], axis=2)
        if isinstance(codec, OffsetCodec):
            stride, _ = geometry.heatmap_stride(codec.input_size, codec.heatmap_size, codec.alignment)
            moved = np.zeros((1, 1, width, 1, each), np.float32)
            moved[..., 1] = -1.0 / (stride * codec.radius)
            moved[:, :, 0, :, 1] += 1.0 / codec.radius
            back += moved
    return tf.reshape(back, tf.shape(maps))


class _Maps:
    """Maps `(B, height, width, K)` that are looked up by column and row `(B, K)`."""

    def __init__(self, maps: tf.Tensor) -> None:
        _, height, self.width, joints = maps.shape
        self.flat = tf.transpose(tf.reshape(maps, (-1, height * self.width, joints)), (0, 2, 1))

    def maxima(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Column and row, int32, and value of the maximum of each map, of several the first."""
        best = tf.argmax(self.flat, axis=-1, output_type=tf.int32)
        return best % self.width, best // self.width, tf.reduce_max(self.flat, axis=-1)

    def __call__(self, column: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
        return tf.gather(self.flat, row * self.width + column, batch_dims=2)


def _inside(column: tf.Tensor, row: tf.Tensor, size: geometry.Size, last: int) -> tf.Tensor:
    """Whether a pixel is neither on the first two nor on the last so many rows and columns."""
    height, width = size
    return (column > 1) & (column < width - last) & (row > 1) & (row < height - last)


def _decode_gaussian(codec: GaussianCodec, heatmaps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    maps = _Maps(heatmaps)
    column, row, scores = maps.maxima()
    points = tf.cast(tf.stack([column, row], axis=-1), tf.float32)
    if codec.decoding == "quarter_offset":
        inside = _inside(column, row, codec.heatmap_size, 1)
        x, y = tf.where(inside, column, 1), tf.where(inside, row, 1)
        slopes = tf.stack([maps(x + 1, y) - maps(x - 1, y), maps(x, y + 1) - maps(x, y - 1)], axis=-1)
        points += 0.25 * tf.cast(inside[..., None], tf.float32) * tf.sign(slopes)
    elif codec.decoding == "dark":
        points += _dark_offsets(codec, heatmaps, column, row)
    return points, scores


def _dark_offsets(codec: GaussianCodec, heatmaps: tf.Tensor, column: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
    if min(codec.heatmap_size) < 5:
        return tf.zeros(tf.concat([tf.shape(column), [2]], axis=0))
    blurred = _blur(heatmaps, modulation_size(codec.sigma), "zero")
    former, now = tf.reduce_max(heatmaps, axis=(1, 2)), tf.reduce_max(blurred, axis=(1, 2))
    scale = tf.where(now > 0, former / tf.where(now > 0, now, 1.0), 0.0)
    inside = _inside(column, row, codec.heatmap_size, 2)
    x, y = tf.where(inside, column, 2), tf.where(inside, row, 2)
    maps = _Maps(blurred)

    def log(right: int, below: int) -> tf.Tensor:
        return tf.cast(tf.math.log(tf.maximum(maps(x + right, y + below) * scale, SMALLEST)), tf.float64)

    steps_x, steps_y, determinant = newton_step(log)
    usable = inside & tf.not_equal(determinant, 0.0)
    steps = tf.stack([steps_x, steps_y], axis=-1)
    found = tf.where(usable[..., None], steps / tf.where(usable, determinant, 1.0)[..., None], 0.0)
    return tf.cast(found, tf.float32)


def _decode_offset(codec: OffsetCodec, maps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    x, y, scores = _Maps(_blur(maps[..., ::3], HEATMAP_BLUR, "mirror")).maxima()
    offsets = [_Maps(_blur(maps[..., axis::3], OFFSET_BLUR, "mirror"))(x, y) for axis in (1, 2)]
    return tf.cast(tf.stack([x, y], axis=-1), tf.float32) + codec.radius * tf.stack(offsets, axis=-1), scores


def _blur(maps: tf.Tensor, size: int, border: Border) -> tf.Tensor:
    """`kpose.codecs.blur.gaussian_blur`."""
    _, height, width, _ = maps.shape
    down = tf.einsum("yh,bhwk->bywk", blur_matrix(height, size, border), maps)
    return tf.einsum("xw,bywk->byxk", blur_matrix(width, size, border), down)
