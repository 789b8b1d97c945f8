"""A trained network as a TFLite file that explains itself: `convert_tflite`."""

from __future__ import annotations

import logging
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import keras
import numpy as np
import tensorflow as tf

from kpose.checkpoint import ModelCard, load_model
from kpose.errors import KposeError
from kpose.export.inference_network import equalising_scales, inference_network
from kpose.export.metadata import INPUT, METADATA_NAME, OUTPUT, attach_card
from kpose.export.quantisation import quantise
from kpose.export.runner import TFLiteNetwork
from kpose.export.samples import drawn_crops
from kpose.files import replacing
from kpose.inference.test_time import compile_forward

Precision = Literal["fp32", "fp16", "int8"]
# Crops that the file is compared with Keras on.
_COMPARED = 16


@dataclass(frozen=True)
class Conversion:
    """What `convert_tflite` wrote.

    Attributes:
        path: the file.
        precision: of its weights; with int8 of its activations too.
        size: bytes.
        heatmap_range: greatest less smallest value of Keras' heatmaps of the sample crops.
        largest_difference: between the file's heatmaps and Keras'.
        relative_rms: root of the mean squared difference, over that of Keras' heatmaps.
    """

    path: Path
    precision: Precision
    size: int
    heatmap_range: float
    largest_difference: float
    relative_rms: float

    @property
    def summary(self) -> str:
        """One line."""
        return (
            f"{self.path}: {self.precision}, {self.size / 1e6:.2f} MB, differs from Keras by {self.largest_difference:.2g} at most "
            f"({self.largest_difference / self.heatmap_range:.1e} of the heatmaps' range), by {self.relative_rms:.2e} in the mean (rms)"
        )


def convert_tflite(
    source: keras.Model | str | Path,
    path: str | Path,
    precision: Precision = "fp32",
    samples: np.ndarray | None = None,
    *,
    card: ModelCard | None = None,
) -> Conversion:
    """Write a network as a TFLite file of built-in operations, with its card inside.

    The file takes one crop, `image` `(1, H, W, 3)` RGB in 0..255 (float32; with int8 int8, 128 less), normalises it itself, and gives
    `heatmaps` `(1, h, w, K)` float32. See `inference_network`.

    Args:
        source: the trained network, or its checkpoint.
        path: the file to write, `.tflite`; whole or not at all.
        precision: fp32; fp16: weights of half the size, computed in float32 on a CPU, in float16 on a GPU; int8: weights by channel and
            activations of 8 bits, whose ranges are those that `samples` cause.
        samples: crops `(N, H, W, 3)` in 0..255 as users will have them, see `kpose.export.sample_crops`. With int8 at least 1, better
            100; otherwise they only serve the comparison, and drawn figures are taken where there are none.
        card: of the network, where it has none of its own.

    Raises:
        KposeError: when LiteRT is not installed, precision, samples or network are refused, an operation is none of TFLite's own, or the
            file cannot be written.
    """
    path = Path(path)
    check_conversion(path, precision, samples is not None)
    model = source if isinstance(source, keras.Model) else load_model(source)
    card = card or getattr(model, "card", None)
    if card is None:
        raise KposeError(f"network {model.name!r} has no card that says what it expects; load it with kpose.load_model, or give 'card'")
    crops = check_samples(drawn_crops(card.input_size) if samples is None else samples, card.input_size)
    network = inference_network(model, card)
    if precision == "int8":
        network = inference_network(model, card, equalising_scales(network, crops))
    content = attach_card(_built_in_operations(network, half_precision=precision == "fp16"), card, _description(card, precision))
    if precision == "int8":
        content = attach_card(quantise(content, crops), card, _description(card, precision))
    with replacing(path) as partial:
        partial.write_bytes(content)
        expected, found = _heatmaps(model, card, crops[:_COMPARED]), TFLiteNetwork(partial)(crops[:_COMPARED])
    error = found - expected
    return Conversion(
        path,
        precision,
        len(content),
        float(np.ptp(expected)),
        float(np.abs(error).max()),
        float(np.sqrt(np.mean(error**2) / max(np.mean(expected**2), 1e-30))),
    )


def check_conversion(path: str | Path, precision: str, has_samples: bool) -> None:
    """What can be refused before anything is read.

    Raises:
        KposeError: when there is no such precision, the file's name does not end in `.tflite`, or int8 has no sample crops.
    """
    if precision not in get_args(Precision):
        raise KposeError(f"there is no precision {precision!r}; there are {', '.join(get_args(Precision))}")
    if Path(path).suffix != ".tflite":
        raise KposeError(f"cannot convert to {path}: the file's name ends in .tflite")
    if precision == "int8" and not has_samples:
        raise KposeError("int8 needs sample crops for the ranges of its activations; give a configuration with training people, --config")


def check_samples(samples: np.ndarray, input_size: tuple[int, int]) -> np.ndarray:
    """Crops as float32.

    Raises:
        KposeError: when there is none, or they are no pictures of this height and width in 0..255.
    """
    crops = np.asarray(samples, np.float32)
    if crops.ndim != 4 or crops.shape[1:] != (*input_size, 3):
        raise KposeError(f"sample crops have shape {crops.shape}; expected (N, {input_size[0]}, {input_size[1]}, 3), the network's input")
    if not len(crops):
        raise KposeError("there is no sample crop; give at least one, better 100")
    low, high = float(crops.min()), float(crops.max())
    if not (low >= 0 and high <= 255 and high > 1):
        raise KposeError(f"sample crops hold values from {low:g} to {high:g}; expected RGB in 0..255, not normalised")
    return crops


def _built_in_operations(network: keras.Model, half_precision: bool) -> bytes:
    """The float TFLite file of an `inference_network`."""
    signature = [tf.TensorSpec(network.inputs[0].shape, tf.float32, name=INPUT)]
    function = tf.function(lambda image: {OUTPUT: network(image, training=False)}, input_signature=signature, autograph=False)
    concrete = function.get_concrete_function()
    # Without the network as second argument: its weights become constants, and nothing of them is left over.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    if half_precision:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    logger = logging.getLogger("absl")
    level = logger.level
    # It asks for the network as second argument.
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return converter.convert()
    except Exception as error:  # the converter's own class is not public
        kinds = list(dict.fromkeys(re.findall(r"'tf\.(\w+)' op is neither a custom op nor a flex op", str(error))))
        if not kinds:
            raise
        # Their names begin with those of network and layer.
        places = [operation.name for operation in concrete.graph.get_operations() if operation.type in kinds]
        raise KposeError(
            f"network {network.name!r} cannot be exported: TFLite has no operation of its own for {', '.join(kinds)}"
            f"{' in ' if places else ''}{', '.join(places[:4])}; replace that layer"
        ) from error
    finally:
        logger.setLevel(level)


def _heatmaps(model: keras.Model, card: ModelCard, crops: np.ndarray) -> np.ndarray:
    """What the trained network says."""
    mean, std = np.asarray(card.mean, np.float32), np.asarray(card.std, np.float32)
    return compile_forward(model, len(crops))((crops / np.float32(255) - mean) / std)


def _description(card: ModelCard, precision: Precision) -> str:
    (height, width), joints = card.input_size, card.make_skeleton().num_joints
    return (
        f"{card.name}, {precision}: one person's crop, {height} x {width} RGB in 0..255, to heatmaps of {joints} joints. "
        f"How crops are cut and heatmaps decoded: metadata {METADATA_NAME}. Licence: {card.licence or 'not stated'}"
    )
