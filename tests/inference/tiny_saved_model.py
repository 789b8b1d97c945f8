"""A SavedModel of any function, for the tests of detectors."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf


def write_saved_model(folder: Path, function, shape=(1, None, None, 3), dtype=tf.uint8, signature: str = "serving_default") -> Path:
    module = tf.Module()
    module.detect = tf.function(function, input_signature=[tf.TensorSpec(shape, dtype, name="inputs")], autograph=False)
    tf.saved_model.save(module, str(folder), signatures={signature: module.detect})
    return folder
