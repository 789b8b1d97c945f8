"""Published PyTorch weights into kpose's networks, tensor by tensor, nothing left over on either side."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from kpose.errors import KposeError
from kpose.models.layers import DepthwiseConv2DTranspose
from kpose.weights.torch_checkpoint import read_torch_checkpoint
from kpose.weights.torch_names import names_of
from kpose.weights.torch_names.names import Names

PREFIXES = ("model.", "module.", "backbone.", "keypoint_head.", "head.")
"""What training in parallel, and MMPose's detectors, put in front of the names of the networks themselves."""

SHOWN = 5
"""How many names an error lists before it only counts."""

BATCH_NORMALISATION = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _convolution(array: np.ndarray) -> np.ndarray:
    """PyTorch's (out, in, h, w) as (h, w, in, out); of a transposed convolution (in, out, h, w) as (h, w, out, in)."""
    return array.transpose(2, 3, 1, 0)


def _depthwise(array: np.ndarray) -> np.ndarray:
    """(channels, 1, h, w) as (h, w, channels, 1)."""
    return array.transpose(2, 3, 0, 1)


def _dense(array: np.ndarray) -> np.ndarray:
    return array.transpose()


# Layers in the order in which they are asked: a depthwise one may be a kind of a plain one.
LAYOUTS: tuple[tuple[type, Callable[[np.ndarray], np.ndarray]], ...] = (
    (DepthwiseConv2DTranspose, _depthwise),
    (keras.layers.DepthwiseConv2D, _depthwise),
    (keras.layers.Conv2DTranspose, _convolution),
    (keras.layers.Conv2D, _convolution),
    (keras.layers.Dense, _dense),
)


class Transfer(NamedTuple):
    """Where one variable comes from: its layer and name here, the tensor's name there, and both shapes."""

    layer: str
    weight: str
    tensor: str
    tensor_shape: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ImportReport:
    """What became of a checkpoint's tensors.

    Attributes:
        loaded: every variable that was set, in the order of the network's layers.
        fresh: layers that keep their fresh weights: with `trunk_only`, those of the head.
        unused: tensors that nothing took: with `trunk_only`, those of another head.
    """

    loaded: list[Transfer] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """In one line: how much was loaded, what was not."""
        values = sum(int(np.prod(transfer.shape)) for transfer in self.loaded)
        layers = len({transfer.layer for transfer in self.loaded})
        text = f"{len(self.loaded)} tensors, {values:,} values, into {layers} layers"
        if self.fresh:
            text += f"; fresh: {_some(self.fresh)}"
        if self.unused:
            text += f"; not used: {_some(self.unused)}"
        return text

    def __str__(self) -> str:
        lines = [
            f"{transfer.tensor} {transfer.tensor_shape} -> {transfer.layer}/{transfer.weight} {transfer.shape}" for transfer in self.loaded
        ]
        lines += [f"fresh: {name}" for name in self.fresh] + [f"not used: {name}" for name in self.unused]
        return "\n".join([*lines, self.summary])


def load_torch(
    model: keras.Model,
    source: Mapping[str, Any] | str | Path,
    *,
    trunk_only: bool = False,
    names: Names | None = None,
) -> ImportReport:
    """Loads the weights that others have published for a network.

        model = kpose.build_model("hrnet_w32")
        print(kpose.weights.load_torch(model, "pose_hrnet_w32_256x192.pth").summary)

    Args:
        model: A network of `kpose.build_model`, as large as the one that was published; changed only when everything fits.
        source: A `.pth` or `.safetensors` file (see `read_torch_checkpoint`), or a state dictionary of tensors or arrays. The official code
            bases' names and MMPose's are understood.
        trunk_only: Load all but the head, for a trunk that was trained for classification or for other joints: the head keeps its
            fresh weights, and tensors that nothing takes are no error. Both are listed in the report.
        names: Rules from layers to the checkpoint's modules, for a network of your own; see `kpose.weights.torch_names`.

    Returns:
        What was loaded from where. `print` it for the list, layer by layer.

    Raises:
        KposeError: when the file cannot be read, a tensor is missing, left over, of another shape or not finite; the message names it.
            The network is then as it was.
    """
    label = str(source) if isinstance(source, (str, Path)) else "the state dictionary"
    tensors = _canonical(_as_arrays(source), label)
    best: _Attempt | None = None
    for candidate in [names] if names is not None else names_of(model.name):
        attempt = _attempt(model, tensors, candidate, trunk_only)
        if best is None or attempt.mismatches < best.mismatches:
            best = attempt
    assert best is not None
    best.require_fit(model, label, trunk_only)
    for layer, values in best.values:
        layer.set_weights(values)
    return ImportReport(best.loaded, best.fresh, best.unused)


@dataclass
class _Attempt:
    """One naming tried: what fits, and all that does not."""

    loaded: list[Transfer] = field(default_factory=list)
    values: list[tuple[keras.layers.Layer, list[np.ndarray]]] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    @property
    def mismatches(self) -> int:
        return len(self.missing) + len(self.unused) + len(self.misshapen)

    def require_fit(self, model: keras.Model, label: str, trunk_only: bool) -> None:
        problems = []
        if self.missing:
            problems.append(f"{len(self.missing)} tensors are missing there ({_some(self.missing)})")
        if self.misshapen:
            problems.append(f"{len(self.misshapen)} are of another shape ({_some(self.misshapen)})")
        if self.unused and not trunk_only:
            problems.append(f"{len(self.unused)} are left over ({_some(self.unused)})")
        if self.broken:
            problems.append(f"{len(self.broken)} hold values that are not finite ({_some(self.broken)})")
        if problems:
            remedy = "build the network with the joints and options it was trained with"
            remedy += "" if trunk_only else ", or load the trunk only"
            raise KposeError(f"{label} does not fit {model.name}: {'; '.join(problems)}; {remedy}")


def _attempt(model: keras.Model, tensors: Mapping[str, np.ndarray], names: Names, trunk_only: bool) -> _Attempt:
    attempt = _Attempt()
    taken: set[str] = set()
    for layer in model.layers:
        if not layer.weights:
            continue
        if trunk_only and re.fullmatch(names.head, layer.name):
            attempt.fresh.append(layer.name)
            continue
        module = names.module_of(layer.name)
        if module is None:
            attempt.missing.append(f"a name for {layer.name}")
            continue
        factor = 3.0 if re.fullmatch(names.tripled, layer.name) else 1.0
        values = []
        for weight in layer.weights:
            tensor, convert = _origin(layer, weight.name)
            tensor = f"{module}.{tensor}"
            if tensor not in tensors:
                attempt.missing.append(f"{tensor} for {layer.name}/{weight.name}")
                continue
            taken.add(tensor)
            array = tensors[tensor]
            shape = tuple(weight.shape)
            value = convert(array) if array.ndim == len(shape) else array
            if value.shape != shape:
                attempt.misshapen.append(f"{tensor} {array.shape} for {layer.name}/{weight.name} {shape}")
            elif not np.isfinite(value).all():
                attempt.broken.append(tensor)
            attempt.loaded.append(Transfer(layer.name, weight.name, tensor, array.shape, shape))
            values.append(value * factor)
        attempt.values.append((layer, values))
    attempt.unused = [tensor for tensor in tensors if tensor not in taken and not re.fullmatch(names.ignored, tensor)]
    return attempt


def _origin(layer: keras.layers.Layer, weight: str) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """The last part of a tensor's name, and how its layout changes."""
    if isinstance(layer, keras.layers.BatchNormalization):
        return BATCH_NORMALISATION[weight], _same
    if weight == "bias":
        return "bias", _same
    for kind, convert in LAYOUTS:
        if isinstance(layer, kind):
            return "weight", convert
    raise KposeError(f"{layer.name} is a {type(layer).__name__}, for which no published layout is known")


def _as_arrays(source: Mapping[str, Any] | str | Path) -> dict[str, np.ndarray]:
    if isinstance(source, (str, Path)):
        return read_torch_checkpoint(source)
    # A tensor of PyTorch may lie on another device and be part of a gradient; asked by what it can do, without importing PyTorch.
    return {name: np.asarray(value.detach().cpu().float() if hasattr(value, "detach") else value) for name, value in source.items()}


def _canonical(tensors: Mapping[str, np.ndarray], label: str) -> dict[str, np.ndarray]:
    """Tensors without the prefixes of wrappers, and without the counters of batch normalisation."""
    canonical: dict[str, np.ndarray] = {}
    for name, array in tensors.items():
        short = name
        while prefix := next((prefix for prefix in PREFIXES if short.startswith(prefix)), None):
            short = short.removeprefix(prefix)
        if short.endswith(".num_batches_tracked"):
            continue
        if short in canonical:
            raise KposeError(f"{label} holds {short} twice, with different prefixes; keep the one network you want")
        canonical[short] = array
    return canonical


def _some(names: Sequence[str] | Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
