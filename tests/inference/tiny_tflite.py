"""TFLite files made on the spot, of networks whose answers are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf


def write_tflite(path: Path, network: Callable[[tf.Tensor], Any], input_shape: Sequence[int], dtype: tf.DType = tf.uint8) -> Path:
    """A TFLite file of a function of one tensor."""
    function = tf.function(network, input_signature=[tf.TensorSpec(input_shape, dtype)], autograph=False)
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], function).convert())
    return path


def bright_box(images: tf.Tensor, limit: float) -> tf.Tensor:
    """`(4,)` y and x of the upper left and of the lower right corner of what is brighter than `limit` in any channel, as fractions."""
    bright = tf.cast(tf.reduce_max(tf.cast(images[0], tf.float32), axis=-1) > limit, tf.float32)
    corners = []
    for lowest in (True, False):
        for axis in (1, 0):
            seen = tf.reduce_max(bright, axis=axis)
            length = float(images.shape[1:3][1 - axis])
            steps = tf.range(length)
            edge = tf.reduce_min(steps + (1 - seen) * length) if lowest else tf.reduce_max((steps + 1) * seen)
            corners.append(edge / length)
    return tf.stack(corners)
