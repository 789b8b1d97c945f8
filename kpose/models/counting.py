"""What a network costs: trainable parameters and multiply-adds.

Publications count multiply-adds in different ways, so that the same network appears with different figures. `count` gives the
true cost by default and three of the usual conventions beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras

from kpose.errors import KposeError
from kpose.models.checks import check_choice
from kpose.models.layers import DepthwiseConv2DTranspose

CONVENTIONS = ("plain", "hrnet", "mmpose", "lite_hrnet")

UNITS = {"plain": 10**9, "hrnet": 2**30, "mmpose": 10**9, "lite_hrnet": 2**30}
"""What the publications that count so call a giga."""

CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
)
TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose, DepthwiseConv2DTranspose)
POOLING = (
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.AveragePooling2D,
    keras.layers.MaxPooling2D,
)


class Counts(NamedTuple):
    """Trainable parameters, and multiply-adds for one image."""

    params: int
    macs: int


class Step(NamedTuple):
    """One call of a layer: its input and output shapes, without the batch."""

    layer: Any
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]


def count(model: keras.Model, convention: str = "plain") -> Counts:
    """Counts a functional model's trainable parameters and its multiply-adds for one image.

    A layer called twice is paid for twice; models inside models are entered.

    Args:
        model: Functional, with a fixed input size.
        convention: What counts as a multiply-add.
            "plain": the weights of convolutions (a transposed one at its input positions, which is what it really costs) and
            dense layers times the positions they are applied to; no bias, normalisation or activation.
            "hrnet": the same, but transposed convolutions at their output positions (four times the true cost at stride 2).
            Figures of the HRNet family; they print them in units of 2^30.
            "mmpose": as "plain", and bias of convolutions and dense layers, 2 per element of batch normalisation, 1 per element
            of ReLU and ReLU6, pooling per input element, upsampling per output element. Figures of the lightweight networks,
            in units of 10^9.
            "lite_hrnet": the same without pooling and upsampling. Figures of the Lite-HRNet paper, in units of 2^30.

    Returns:
        The counts. Parameters are the trainable ones: Keras' `count_params` adds normalisation's moving statistics.

    Raises:
        KposeError: when the convention is unknown, the input size is open, or a layer with weights is of a kind this count does
            not know, so that its sum would be too small.
    """
    check_choice("count", "convention", convention, CONVENTIONS)
    params = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    macs = sum(_multiply_adds(step, convention) for step in _steps(model))
    return Counts(params=params, macs=macs)


def count_activations(model: keras.Model) -> int:
    """Numbers that the convolutions and dense layers of a functional model put out for one image.

    What normalisation and activation make of them can take their place; these must go through memory however a network is run.

    Raises:
        KposeError: when the input size is open.
    """
    kinds = (*CONVOLUTIONS, *TRANSPOSED, keras.layers.Dense)
    return sum(math.prod(step.output_shape) for step in _steps(model) if isinstance(step.layer, kinds))


def _steps(model: keras.Model) -> Iterator[Step]:
    """Every call of every layer in a functional model, models within it resolved."""
    if isinstance(model, keras.Sequential):
        model = model._functional
    if not hasattr(model, "_nodes_by_depth"):
        raise KposeError("count: only functional models, built from keras.Input, tell the sizes of their layers")
    for node in (node for depth in model._nodes_by_depth.values() for node in depth):
        layer, inputs = node.operation, node.arguments.keras_tensors
        if isinstance(layer, keras.Model):
            yield from _steps(_at_shapes_of(layer, inputs))
        elif isinstance(layer, keras.layers.Layer) and inputs:
            yield Step(layer, _shape(layer, inputs[0]), _shape(layer, node.outputs[0]))


def _at_shapes_of(model: keras.Model, tensors: list[Any]) -> keras.Model:
    """The inner model as it is called: at the caller's sizes, where its own are open or differ."""
    if [tensor.shape[1:] for tensor in model.inputs] == [tensor.shape[1:] for tensor in tensors]:
        return model
    inputs = [keras.Input(tensor.shape[1:]) for tensor in tensors]
    return keras.models.clone_model(model, input_tensors=inputs if len(inputs) > 1 else inputs[0])


def _shape(layer: Any, tensor: Any) -> tuple[int, ...]:
    shape = tuple(tensor.shape[1:])
    if None in shape:
        raise KposeError(f"count: {layer.name} has the open size {shape}; build the model for a fixed input size")
    return shape


def _multiply_adds(step: Step, convention: str) -> int:
    layer = step.layer
    elements = math.prod(step.output_shape)
    pooling = convention == "mmpose"
    elementwise = convention in ("mmpose", "lite_hrnet")
    total = 0
    if isinstance(layer, TRANSPOSED):
        positions = step.output_shape if convention == "hrnet" else step.input_shape
        total = math.prod(layer.kernel.shape) * math.prod(positions[:-1])
    elif isinstance(layer, (*CONVOLUTIONS, keras.layers.Dense)):
        total = math.prod(layer.kernel.shape) * math.prod(step.output_shape[:-1])
    elif isinstance(layer, keras.layers.BatchNormalization):
        return 2 * elements if elementwise else 0
    elif isinstance(layer, POOLING):
        return math.prod(step.input_shape) if pooling else 0
    elif isinstance(layer, keras.layers.UpSampling2D):
        return elements if pooling else 0
    elif _is_relu(layer):
        return elements if elementwise else 0
    elif any(len(weight.shape) > 1 for weight in layer.trainable_weights):
        raise KposeError(f"count: {layer.name} is a {type(layer).__name__}, whose multiply-adds are not known; count it by hand")
    if elementwise and total:
        total += elements * bool(getattr(layer, "use_bias", False)) + elements * _is_relu(layer)
    return total


def _is_relu(layer: Any) -> bool:
    """Whether the layer is, or ends in, a ReLU or ReLU6."""
    activations: tuple[Callable[..., Any], ...] = (keras.activations.relu, keras.activations.relu6)
    return isinstance(layer, keras.layers.ReLU) or getattr(layer, "activation", None) in activations
