"""A trained network as a TFLite file that explains itself: `convert_tflite`."""

from __future__ import annotations

import hashlib
import logging
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import keras
import numpy as np
import tensorflow as tf

from kpose.checkpoint import ModelCard, load_model
from kpose.errors import KposeError
from kpose.export.decoding import keypoint_function
from kpose.export.graphs import Input, activations_apart, joined, with_input
from kpose.export.inference_network import equalising_scales, inference_network
from kpose.export.metadata import INPUT, KEYPOINTS, METADATA_NAME, OUTPUT, ConversionRecord, Samples, attach_card
from kpose.export.quantisation import best_ranges, layer_errors, quantise, quantise_weights, relative_rms
from kpose.export.quantisation_aware import train_quantisation_aware
from kpose.export.runner import TFLiteDecodingNetwork, TFLiteNetwork
from kpose.export.samples import drawn_crops
from kpose.export.sensitivity import sensitive_operations
from kpose.files import replacing
from kpose.inference.test_time import compile_forward

Precision = Literal["fp32", "fp16", "dynamic", "int8", "int8-float-io"]
INTEGERS: tuple[Precision, ...] = ("int8", "int8-float-io")
# Crops that the file is compared with Keras on; and those that say which operations to keep in float, each of which is tried by itself.
_COMPARED, _TRIED = 16, 16


@dataclass(frozen=True)
class Conversion:
    """What `convert_tflite` wrote.

    Attributes:
        path: the file.
        record: how, as it is written in the file.
        size: bytes.
        heatmap_range: greatest less smallest value of Keras' heatmaps of the sample crops.
        largest_difference: between the file's heatmaps and Keras'.
        relative_rms: root of the mean squared difference, over that of Keras' heatmaps.
        decoding_difference: of the variant that decodes, the greatest distance between its keypoints and those that its codec decodes from
            the same heatmaps, in pixels of the crop; else None.
        layer_errors: with int8, by the name of each tensor its relative rms against the float network, see `layer_errors`.
    """

    path: Path
    record: ConversionRecord
    size: int
    heatmap_range: float
    largest_difference: float
    relative_rms: float
    decoding_difference: float | None = None
    layer_errors: dict[str, float] = field(default_factory=dict)

    @property
    def precision(self) -> str:
        """Of its weights; with int8 of its activations too."""
        return self.record.precision

    @property
    def summary(self) -> str:
        """One line."""
        parts = [
            f"{self.path}: {self.precision}, {self.size / 1e6:.2f} MB",
            f"differs from Keras by {self.largest_difference:.2g} at most "
            f"({self.largest_difference / self.heatmap_range:.1e} of the heatmaps' range), by {self.relative_rms:.2e} in the mean (rms)",
        ]
        if self.decoding_difference is not None:
            parts.append(f"keypoints within {self.decoding_difference:.1e} px of its codec's")
        if self.record.ranges:
            number = self.record.samples.number if self.record.samples else 0
            parts.append(f"ranges: {self.record.ranges} of {number} crops")
        if self.record.trained_steps:
            parts.append(f"trained for {self.record.trained_steps} steps")
        if self.record.kept_float:
            # Their names would fill several lines; `read_tflite_record` has them.
            parts.append(f"{len(self.record.kept_float)} operations in float")
        return "; ".join([", ".join(parts[:2]), *parts[2:]])


def convert_tflite(
    source: keras.Model | str | Path,
    path: str | Path,
    precision: Precision = "fp32",
    samples: np.ndarray | None = None,
    *,
    card: ModelCard | None = None,
    inputs: Input | None = None,
    decode: bool = False,
    keep_float: Literal["auto"] | None = None,
    samples_source: str = "",
    training_batches: Iterable[np.ndarray] | tf.data.Dataset | None = None,
    training_steps: int = 0,
) -> Conversion:
    """Write a network as a TFLite file of built-in operations, with its card inside.

    The file takes one crop, `image` `(1, H, W, 3)` RGB in 0..255, normalises it itself, and gives `heatmaps` `(1, h, w, K)` float32, or
    with `decode` `keypoints` `(1, K, 3)` float32. See `inference_network`.

    Args:
        source: the trained network, or its checkpoint.
        path: the file to write, `.tflite`; whole or not at all.
        precision: fp32; fp16: weights of half the size, computed in float32 on a CPU, in float16 on a GPU; dynamic: weights of 8 bits, the
            runtime quantises activations as they come; int8: weights by channel and activations of 8 bits, whose ranges are
            those that `samples` cause; int8-float-io: the same with a float32 picture.
        samples: crops `(N, H, W, 3)` in 0..255 as users will have them, see `kpose.export.sample_crops`. With int8 at least 1, better
            100; otherwise they only serve the comparison, and drawn figures are taken where there are none.
        card: of the network, where it has none of its own.
        inputs: type of the picture: float (float32), or uint8, as cameras have it. By default float, with int8 alone int8, 128 less.
        decode: decode inside of the graph: x, y in the crop frame and a score, as the card's codec does.
        keep_float: with int8, auto: operations that lose most stay in float32, see `sensitive_operations`; takes minutes.
        samples_source: whose crops the samples are; is written into the file.
        training_batches: with int8, crops to train on while the network is rounded, see `train_quantisation_aware` and
            `kpose.export.training_crops`. The trained network itself stays as it is.
        training_steps: how many of those batches.

    Raises:
        KposeError: when LiteRT is not installed, precision, samples or network are refused, an operation is none of TFLite's own, or the
            file cannot be written.
    """
    path = Path(path)
    check_conversion(path, precision, samples is not None, inputs, keep_float, training_batches is not None)
    model = source if isinstance(source, keras.Model) else load_model(source)
    card = card or getattr(model, "card", None)
    if card is None:
        raise KposeError(f"network {model.name!r} has no card that says what it expects; load it with kpose.load_model, or give 'card'")
    crops = check_samples(drawn_crops(card.input_size) if samples is None else samples, card.input_size)
    network = inference_network(model, card)
    codec = card.make_codec(network.output_shape[1:3])
    decoder = keypoint_function(codec) if decode else None
    record = ConversionRecord(precision=precision)
    if precision in (*INTEGERS, "dynamic"):
        network = inference_network(model, card, equalising_scales(network, crops))
    if precision in INTEGERS and training_batches is not None:
        train_quantisation_aware(network, training_batches, crops, training_steps)
        record = record.model_copy(update={"trained_steps": training_steps})
    content = attach_card(_built_in_operations(network, half_precision=precision == "fp16"), card, "")
    errors: dict[str, float] = {}
    if precision in INTEGERS:
        before = content
        content, record = _in_integers(content, crops, record, keep_float, samples_source)
        errors = layer_errors(before, content, crops[-_TRIED:])
    elif precision == "dynamic":
        content = quantise_weights(content)
    else:
        content = activations_apart(content)
    if inputs or precision == "int8-float-io":
        content = with_input(content, inputs or "float")
    content = attach_card(content, card, _description(card, record), record)
    with replacing(path) as partial:
        partial.write_bytes(content)
        expected, found = keras_heatmaps(model, card, crops[:_COMPARED]), TFLiteNetwork(partial)(crops[:_COMPARED])
        difference = None
        if decoder is not None:
            record = record.model_copy(update={"variant": "keypoints"})
            content = attach_card(joined(content, _decoder_file(decoder, network)), card, _description(card, record), record)
            partial.write_bytes(content)
            keypoints = TFLiteDecodingNetwork(partial)(crops[:_COMPARED])
            difference = float(np.linalg.norm((keypoints - codec.decode(found))[..., :2], axis=-1).max())
    return Conversion(
        path,
        record,
        len(content),
        float(np.ptp(expected)),
        float(np.abs(found - expected).max()),
        relative_rms(found, expected),
        difference,
        errors,
    )


def _in_integers(
    content: bytes, crops: np.ndarray, record: ConversionRecord, keep_float: str | None, samples_source: str
) -> tuple[bytes, ConversionRecord]:
    rule, ranges, errors = best_ranges(content, crops)
    kept = sensitive_operations(content, ranges, crops[-_TRIED:]).kept if keep_float else []
    digest = hashlib.sha256(np.rint(crops).astype(np.uint8).tobytes()).hexdigest()
    samples = Samples(number=len(crops), sha256=digest, source=samples_source)
    found = {"samples": samples, "ranges": rule, "range_errors": errors, "kept_float": kept}
    return quantise(content, ranges, kept), record.model_copy(update=found)


def check_conversion(
    path: str | Path,
    precision: str,
    has_samples: bool,
    inputs: str | None = None,
    keep_float: str | None = None,
    trained: bool = False,
) -> None:
    """What can be refused before anything is read.

    Raises:
        KposeError: when there is no such precision or input, the file's name does not end in `.tflite`, int8 has no sample crops, or what
            is asked for goes not together.
    """
    if precision not in get_args(Precision):
        raise KposeError(f"there is no precision {precision!r}; there are {', '.join(get_args(Precision))}")
    if inputs not in (None, *get_args(Input)):
        raise KposeError(f"there is no input {inputs!r}; there are {', '.join(get_args(Input))}")
    if keep_float not in (None, "auto"):
        raise KposeError(f"operations are kept in float by 'auto' alone, found {keep_float!r}")
    if Path(path).suffix != ".tflite":
        raise KposeError(f"cannot convert to {path}: the file's name ends in .tflite")
    if precision == "int8-float-io" and inputs == "uint8":
        raise KposeError("int8-float-io takes a float picture; for a uint8 one convert with precision int8 and input uint8")
    if keep_float and precision not in INTEGERS:
        raise KposeError(f"in {precision} no operation is in integers; keep operations in float with precision int8")
    if trained and precision not in INTEGERS:
        raise KposeError(f"in {precision} there is nothing to be trained for; quantisation-aware training goes with precision int8")
    if precision in INTEGERS and not has_samples:
        raise KposeError(
            f"{precision} needs sample crops for the ranges of its activations; give a configuration with training people, --config"
        )


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

    def function(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {OUTPUT: network(image, training=False)}

    return _converted(function, tf.TensorSpec(network.inputs[0].shape, tf.float32, name=INPUT), network.name, half_precision)


def _decoder_file(decoder: Callable[[tf.Tensor], tf.Tensor], network: keras.Model) -> bytes:
    """The float TFLite file of what decodes the network's heatmaps."""

    def function(heatmaps: tf.Tensor) -> dict[str, tf.Tensor]:
        return {KEYPOINTS: decoder(heatmaps)}

    return _converted(function, tf.TensorSpec(network.outputs[0].shape, tf.float32, name=OUTPUT), network.name, half_precision=False)


def _converted(function: Callable[..., dict[str, tf.Tensor]], signature: tf.TensorSpec, name: str, half_precision: bool) -> bytes:
    concrete = tf.function(function, input_signature=[signature], autograph=False).get_concrete_function()
    logger = logging.getLogger("absl")
    level = logger.level
    # It asks for the network as second argument. Without it weights become constants, and nothing of them is left over.
    logger.setLevel(logging.ERROR)
    try:
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
        if half_precision:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
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
            f"network {name!r} cannot be exported: TFLite has no operation of its own for {', '.join(kinds)}"
            f"{' in ' if places else ''}{', '.join(places[:4])}; replace that layer"
        ) from error
    finally:
        logger.setLevel(level)


def keras_heatmaps(model: keras.Model, card: ModelCard, crops: np.ndarray) -> np.ndarray:
    """What the trained network says to crops `(N, H, W, 3)` float32 in 0..255."""
    mean, std = np.asarray(card.mean, np.float32), np.asarray(card.std, np.float32)
    return compile_forward(model, len(crops))((crops / np.float32(255) - mean) / std)


def _description(card: ModelCard, record: ConversionRecord) -> str:
    (height, width), joints = card.input_size, card.make_skeleton().num_joints
    if record.variant == "heatmaps":
        outputs, how = f"heatmaps of {joints} joints", "How crops are cut and heatmaps decoded"
    else:
        outputs, how = f"x, y (crop pixels) and score of {joints} joints", "How crops are cut"
    return (
        f"{card.name}, {record.precision}: one person's crop, {height} x {width} RGB in 0..255, to {outputs}. "
        f"{how}: metadata {METADATA_NAME}. Licence: {card.licence or 'not stated'}"
    )
