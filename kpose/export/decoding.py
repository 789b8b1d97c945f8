"""Decoding inside of the graph: what `GaussianCodec.decode` does in NumPy, in operations of TFLite's own.

For one person, in float32. Definitions and their reasons are those of `kpose.codecs`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from kpose import geometry
from kpose.codecs import Codec, GaussianCodec
from kpose.codecs.blur import gaussian_kernel
from kpose.codecs.dark import SMALLEST, modulation_size, newton_step
from kpose.errors import KposeError

# The value of each joint's map at the pixel so far right of, and below, a given one.
_Look = Callable[[int, int], tf.Tensor]


def keypoint_function(codec: Codec) -> Callable[[tf.Tensor], tf.Tensor]:
    """From heatmaps `(1, h, w, K)` float32 to keypoints `(1, K, 3)` float32: x, y in the crop frame, and a score.

    Raises:
        KposeError: when the codec decodes anything else than Gaussian heatmaps.
    """
    if not isinstance(codec, GaussianCodec):
        raise KposeError(
            f"maps of {type(codec).__name__} cannot be decoded inside of the graph, Gaussian heatmaps can; convert without --decode"
        )

    def keypoints(heatmaps: tf.Tensor) -> tf.Tensor:
        height, width, joints = heatmaps.shape[1:]
        pixels = tf.reshape(heatmaps, (height * width, joints))
        best, scores = tf.argmax(pixels, axis=0, output_type=tf.int32), tf.reduce_max(pixels, axis=0)
        row = best // width
        column = best - row * width
        points = tf.cast(tf.stack([column, row], axis=-1), tf.float32)
        if codec.decoding == "quarter_offset":
            points += _quarter_offsets(heatmaps, column, row)
        elif codec.decoding == "dark":
            points += _dark_offsets(heatmaps, column, row, codec.sigma)
        points *= tf.expand_dims(tf.cast(scores > 0, tf.float32), -1)
        stride = geometry.heatmap_stride(codec.input_size, codec.heatmap_size, codec.alignment)
        return tf.reshape(tf.concat([points * np.array(stride, np.float32), tf.expand_dims(scores, -1)], axis=-1), (1, joints, 3))

    return keypoints


def _looker(maps: tf.Tensor, column: tf.Tensor, row: tf.Tensor) -> _Look:
    _, _, width, joints = maps.shape
    flat = tf.reshape(maps, (-1,))
    here = (row * width + column) * joints + tf.range(joints)
    return lambda right, below: tf.gather(flat, here + (below * width + right) * joints)


def _inside(column: tf.Tensor, row: tf.Tensor, size: Any, last: int) -> tf.Tensor:
    """1.0 where a pixel is neither on the first two nor on the last so many rows and columns, else 0.0; `(K,)`."""
    height, width = size
    return tf.cast((column > 1) & (column < width - last) & (row > 1) & (row < height - last), tf.float32)


def _quarter_offsets(heatmaps: tf.Tensor, column: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
    height, width = heatmaps.shape[1:3]
    inside = _inside(column, row, (height, width), 1)
    # Pixels at the edge look at others than their own neighbours, which exist; `inside` takes no notice.
    look = _looker(heatmaps, tf.clip_by_value(column, 1, width - 2), tf.clip_by_value(row, 1, height - 2))
    slopes = tf.stack([look(1, 0) - look(-1, 0), look(0, 1) - look(0, -1)], axis=-1)
    return 0.25 * tf.expand_dims(inside, -1) * tf.sign(slopes)


def _dark_offsets(heatmaps: tf.Tensor, column: tf.Tensor, row: tf.Tensor, sigma: float) -> tf.Tensor:
    height, width, joints = heatmaps.shape[1:]
    if min(height, width) < 5:
        return tf.zeros((joints, 2))
    line = np.repeat(gaussian_kernel(modulation_size(sigma)).astype(np.float32)[:, None], joints, axis=1)
    blurred = heatmaps
    for kernel in (line[:, None, :, None], line[None, :, :, None]):
        blurred = tf.nn.depthwise_conv2d(blurred, kernel, (1, 1, 1, 1), "SAME")
    former, now = (tf.reduce_max(maps, axis=(0, 1, 2)) for maps in (heatmaps, blurred))
    scale = tf.where(now > 0, former / tf.where(now > 0, now, 1.0), 0.0)
    look = _looker(blurred, tf.clip_by_value(column, 2, width - 3), tf.clip_by_value(row, 2, height - 3))

    def log(right: int, below: int) -> tf.Tensor:
        return tf.math.log(tf.maximum(look(right, below) * scale, SMALLEST))

    steps_x, steps_y, determinant = newton_step(log)
    usable = _inside(column, row, (height, width), 2) * tf.cast(tf.not_equal(determinant, 0.0), tf.float32)
    steps = tf.stack([steps_x, steps_y], axis=-1)
    return steps / tf.expand_dims(tf.where(usable > 0, determinant, 1.0), -1) * tf.expand_dims(usable, -1)
