"""Published MobileNetV3-Large trunks into a network: what fits is loaded, what does not is listed.

A file is an `.npz` with one array per variable of `keras.applications.MobileNetV3Large(include_top=False,
include_preprocessing=False)`, under the names Keras gives them there. Such a trunk differs from kpose's backbone in three ways:

* It expects RGB in [-1, 1], kpose feeds (RGB - mean) / std. The scale is folded into the stem's kernel, the shift into the moving
  mean of its normalisation; both are exact but for the outermost row and column of the stem, where padding with zeros now
  means the mean colour and no longer middle grey.
* Its batch normalisation has epsilon 1e-3, kpose's 1e-5: the difference is added to the moving variances, so that inference is the
  same. (In training, the batch's own variance meets the smaller epsilon.)
* A trunk from TensorFlow pads stride-2 convolutions at the bottom and right, one from PyTorch on all sides. The file does not say
  which, and padding holds no weights: build the network with `padding="same"` to have a TensorFlow trunk's features exactly.
  With the other padding every stride-2 layer looks half an output pixel aside until training has made up for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np

from kpose.errors import KposeError
from kpose.npz_files import read_npz

LARGEST_FILE_BYTES = 256 << 20
"""A MobileNetV3-Large takes 12 MB in float32."""

KERAS_EPSILON = 1e-3

NORMALISATION_WEIGHTS = ("gamma", "beta", "moving_mean", "moving_variance")

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class TrunkReport:
    """What became of the variables of a trunk file.

    Attributes:
        loaded: the network's variables that were set, as `layer/weight`.
        left_out: the backbone's variables that keep their fresh values, each with the reason.
        unused: entries of the file that nothing in the network takes.
    """

    loaded: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        total = len(self.loaded) + len(self.left_out)
        lines = [f"trunk: {len(self.loaded)} of the backbone's {total} variables loaded, {len(self.unused)} entries of the file unused"]
        reasons: dict[tuple[str, str], list[str]] = {}
        for variable, reason in self.left_out:
            layer, weight = variable.split("/")
            reasons.setdefault((layer, reason), []).append(weight)
        lines += [f"  left out {layer} ({', '.join(weights)}): {reason}" for (layer, reason), weights in reasons.items()]
        return "\n".join(lines)


def load_trunk(
    model: keras.Model,
    path: str | Path,
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
) -> TrunkReport:
    """Loads a trunk file into a network with a `kpose.models.mobilenet_v3` backbone.

    A convolution is loaded together with its normalisation, or both are left as they are.

    Args:
        model: The network; changed only if the file is sound.
        path: The `.npz` file.
        mean: Per channel, of RGB in 0..1: the normalisation the network is fed with.
        std: Likewise.

    Returns:
        What was loaded, what was left out and why, and what the file holds beyond that. `print` it.

    Raises:
        KposeError: when the file is missing, damaged, too large, holds anything but finite numbers, or fits nowhere.
    """
    layers = {layer.name: layer for layer in model.layers}
    if "stem_conv" not in layers or "last_norm" not in layers:
        raise KposeError(f"{model.name} has no MobileNetV3 backbone; a trunk file fits only networks that have one")
    arrays = _read_arrays(Path(path))
    report = TrunkReport()
    values: list[tuple[keras.layers.Layer, list[np.ndarray]]] = []
    taken: set[str] = set()
    for ours, theirs in _units(layers).items():
        unit = [layers[name] for name in (f"{ours}_conv", f"{ours}_norm") if name in layers]
        entries = {
            f"{layer.name}/{weight.name}": f"{theirs}{'_bn' if layer.name.endswith('_norm') else ''}/{weight.name}"
            for layer in unit
            for weight in layer.weights
        }
        shapes = {f"{layer.name}/{weight.name}": tuple(weight.shape) for layer in unit for weight in layer.weights}
        reason = _misfit(shapes, entries, arrays)
        if reason:
            report.left_out.extend((variable, reason) for variable in entries)
            continue
        report.loaded.extend(entries)
        taken.update(entries.values())
        values += [(layer, [arrays[entries[f"{layer.name}/{weight.name}"]] for weight in layer.weights]) for layer in unit]
    report.unused.extend(sorted(set(arrays) - taken))
    if not report.loaded:
        raise KposeError(f"{path}: nothing in it fits {model.name}; its entries must be named as in keras.applications.MobileNetV3Large")

    for layer, weights in values:
        layer.set_weights(_without_keras_epsilon(layer, weights))
    if "stem_conv/kernel" in report.loaded:
        _fold_normalisation(layers["stem_conv"], layers["stem_norm"], np.asarray(mean, "float64"), np.asarray(std, "float64"))
    return report


def _units(layers: dict[str, keras.layers.Layer]) -> dict[str, str]:
    """The backbone's convolutions, without the ending `_conv`, and what keras.applications calls each of them."""
    parts = {
        "expand": "expand",
        "depthwise": "depthwise",
        "squeeze_reduce": "squeeze_excite_conv",
        "squeeze_restore": "squeeze_excite_conv_1",
        "project": "project",
    }
    units = {"stem": "conv"}
    for index in range(15):
        prefix = f"expanded_conv_{index}_" if index else "expanded_conv_"
        units.update({f"block_{index}_{ours}": prefix + theirs for ours, theirs in parts.items() if f"block_{index}_{ours}_conv" in layers})
    return units | {"last": "conv_1"}


def _misfit(shapes: dict[str, tuple[int, ...]], entries: dict[str, str], arrays: Arrays) -> str:
    """Why a convolution and its normalisation cannot be loaded; empty when they can."""
    for variable, entry in entries.items():
        if entry not in arrays:
            return f"the file has no {entry}"
        if arrays[entry].shape != shapes[variable]:
            return f"{entry} is {arrays[entry].shape} in the file, {variable} {shapes[variable]} in the network"
    return ""


def _without_keras_epsilon(layer: keras.layers.Layer, weights: list[np.ndarray]) -> list[np.ndarray]:
    """Moves the difference between Keras' epsilon and the layer's own into the moving variance."""
    if not isinstance(layer, keras.layers.BatchNormalization):
        return weights
    return [
        array + (KERAS_EPSILON - layer.epsilon) if weight.name == "moving_variance" else array
        for weight, array in zip(layer.weights, weights, strict=True)
    ]


def _fold_normalisation(conv: keras.layers.Layer, norm: keras.layers.Layer, mean: np.ndarray, std: np.ndarray) -> None:
    """Lets a stem for RGB t in [-1, 1] take u = (RGB - mean) / std: t = 2 std u + (2 mean - 1)."""
    kernel = keras.ops.convert_to_numpy(conv.kernel).astype("float64")
    shift = np.einsum("hwio,i->o", kernel, 2 * mean - 1)
    conv.kernel.assign(kernel * (2 * std)[:, None])
    # What the shift would add to every output pixel is taken from the mean the normalisation subtracts.
    norm.moving_mean.assign(keras.ops.convert_to_numpy(norm.moving_mean) - shift)


def _read_arrays(path: Path) -> Arrays:
    """The file's arrays as float32, after every size it claims was held against what is there.

    Raises:
        KposeError: as `load_trunk`.
    """
    remedy = "get the file anew"
    found = read_npz(path, LARGEST_FILE_BYTES, missing=f"there is no trunk file {path}; check model.trunk_weights", remedy=remedy)
    arrays = {name: array.astype("float32") for name, array in found.items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise KposeError(f"{path}: {name} holds values that are not finite; {remedy}")
        if name.endswith("/moving_variance") and (array < 0).any():
            raise KposeError(f"{path}: {name} holds a negative variance; {remedy}")
    return arrays
