"""Heatmaps of a batch, with the flip test: the network also sees each crop mirrored, and both answers are averaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kpose.codecs import Codec, maps_per_joint
from kpose.config import CodecConfig
from kpose.errors import KposeError
from kpose.skeletons import Skeleton

# Images (B, H, W, 3) in, heatmaps (B, h, w, K) out: a network, or its compiled form.
Forward = Callable[[Any], Any]


def compile_forward(model: keras.Model, batch_size: int) -> Forward:
    """The network in inference mode, compiled once for one batch size.

    TensorFlow compiles anew for every other batch size, which takes some ten seconds on a large network; here a smaller batch (the last one
    of a dataset) is filled up with zeros instead, and a larger one is cut into several.

    Args:
        model: from images to heatmaps; of several outputs the last, the finest stage, counts.
        batch_size: of the compiled network.

    Returns:
        A function from images `(B, H, W, 3)`, any B, to heatmaps `(B, h, w, K)` float32.
    """
    import tensorflow as tf

    # Under XLA, which Model.predict would choose, convolutions on the CPU take many times longer.
    @tf.function(autograph=False, jit_compile=False)
    def run(images: tf.Tensor) -> tf.Tensor:
        return tf.cast(_finest(model(images, training=False)), tf.float32)

    def forward(images: Any) -> np.ndarray:
        images = np.asarray(images, np.float32)
        parts = []
        for start in range(0, len(images), batch_size):
            part = images[start : start + batch_size]
            missing = batch_size - len(part)
            filled = np.concatenate([part, np.zeros((missing, *part.shape[1:]), np.float32)]) if missing else part
            parts.append(run(tf.constant(filled)).numpy()[: len(part)])
        return np.concatenate(parts)

    return forward


def decoded_size(model: keras.Model, skeleton: Skeleton, codec: CodecConfig) -> tuple[int, int]:
    """Height and width of the maps that are decoded: those of the last output.

    Raises:
        KposeError: when there are not as many for each joint as the codec has.
    """
    height, width, channels = model.outputs[-1].shape[1:]
    each = maps_per_joint(codec)
    if channels != skeleton.num_joints * each:
        raise KposeError(
            f"{model.name} gives {channels} maps, but skeleton {skeleton.name!r} has {skeleton.num_joints} joints with {each} in codec "
            f"{codec.name!r}; take the skeleton and the codec it was built for (Multi-Stage HRNet: codec.name=offset)"
        )
    return height, width


def predict_heatmaps(
    model: keras.Model | Forward,
    images: Any,
    codec: Codec,
    skeleton: Skeleton,
    flip: bool = True,
    shift_heatmap: bool = True,
) -> np.ndarray:
    """Heatmaps of a batch of crops.

    Args:
        model: the network; where there are many batches, its compiled form from `compile_forward`.
        images: `(B, H, W, 3)` normalised crops.
        codec: brings the heatmaps of mirrored crops back.
        skeleton: which joints change places in a mirrored crop.
        flip: average with the mirrored crops' heatmaps (the flip test).
        shift_heatmap: move those by the pixel that `classic` alignment is off, see `Codec.unmirror`.

    Returns:
        `(B, h, w, K)` float32.
    """
    images = np.asarray(images, np.float32)
    heatmaps = _forward(model, images)
    if not flip:
        return heatmaps
    mirrored = _forward(model, np.ascontiguousarray(images[:, :, ::-1]))
    return 0.5 * (heatmaps + codec.unmirror(mirrored, skeleton.flip_permutation, shift_heatmap))


def _forward(model: keras.Model | Forward, images: np.ndarray) -> np.ndarray:
    outputs = model(images, training=False) if isinstance(model, keras.Model) else model(images)
    return np.asarray(_finest(outputs), np.float32)


def _finest(outputs: Any) -> Any:
    return outputs[-1] if isinstance(outputs, (list, tuple)) else outputs
