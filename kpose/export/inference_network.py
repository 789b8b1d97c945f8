"""A trained network as it is exported: the same function of a crop in 0..255, in operations that run on a phone.

The result is a functional Keras model again, so it can be compared with the trained one by calling both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kpose.checkpoint import ModelCard
from kpose.errors import KposeError
from kpose.export.metadata import INPUT
from kpose.models.layers import CornerAlignedUpSampling2D, DepthwiseConv2DTranspose, GroupedConv2D, phase_kernel

Scales = Mapping[str, np.ndarray]

# The quantiser gives a channel the step (of its input) x (its greatest weight) / 127, and counts its bias in such steps, in 32 bits: beside
# a bias, weights must not be too small. So small a weight more changes nothing that 8 bits could hold.
_LEAST_WEIGHT = 1e-4


def inference_network(model: keras.Model, card: ModelCard, equalisation: Scales | None = None, batch_size: int | None = 1) -> keras.Model:
    """The network for inference.

    * It takes the crop in 0..255 and normalises it itself, in a depthwise 1x1 convolution of its own. Folded into the first convolution
      it would not be exact: that one pads with zeros, the mean colour of each channel, and no operation pads each channel differently.
    * Batch normalisation is folded into the convolution before it; where there is none it becomes a depthwise 1x1 convolution.
    * `DepthwiseConv2DTranspose` becomes one 3x3 depthwise convolution and a depth-to-space, see `kpose.models.layers.phase_kernel`, with
      the ReLU behind it moved between the two, where it costs nothing.
    * Of several supervised stages only the last is left: the others exist for the training.

    With `equalisation`, the same function in the form that loses least in int8, where all channels of a tensor share one step:

    * Cross-layer equalisation (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019): a channel
      of small values leaves its convolution multiplied by a number, by which the convolutions behind the activation divide.
    * Hard swish is written as x * relu6(x + 3), whose 6 those convolutions divide by too. LiteRT's operation for it is fastest in float,
      but its fast integer kernels (XNNPACK) do not take it.

    Args:
        model: functional, from normalised crops `(B, H, W, 3)` to heatmaps, of any dtype policy.
        card: says how its crops are normalised.
        equalisation: for int8: by the name of an activation layer the positive factor of each of its channels, see `equalising_scales`;
            of activations that are not in it, 1.
        batch_size: crops at once; None for any number, where TFLite, to which that costs operations, is not the aim.

    Returns:
        A functional model from `image` `(1, H, W, 3)` float32 RGB in 0..255 to the heatmaps `(1, h, w, K)` float32; of any other batch
        size likewise. A layer with weights is called as the trained layer whose output it gives.

    Raises:
        KposeError: when the network is not a functional model of one picture, or a weight is NaN or infinite.
    """
    if not hasattr(model, "operations") or len(model.inputs) != 1 or None in model.inputs[0].shape[1:]:
        raise KposeError(f"network {model.name!r} cannot be exported: expected a functional Keras model of one input of a fixed size")
    for weight in model.weights:
        if not np.isfinite(ops.convert_to_numpy(weight)).all():
            raise KposeError(f"network {model.name!r} cannot be exported: its weight {weight.path} holds NaN or infinity")
    image = keras.Input(batch_shape=(batch_size, *model.inputs[0].shape[1:]), name=INPUT)
    std, mean = np.asarray(card.std, np.float64), np.asarray(card.mean, np.float64)
    normalised = _scale_channels("normalise", 1.0 / (255.0 * std), -mean / std)(image)
    rewriting = _Rewriting(equalisation)

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = keras.tree.map_structure(lambda value: normalised if value is image else value, (args, kwargs))
        return rewriting(layer, *args, **kwargs)

    # A model of its own, for it is not compiled.
    finest = keras.Model(model.inputs[0], model.outputs[-1], name=model.name)
    return keras.models.clone_model(finest, input_tensors=image, clone_function=lambda layer: layer, call_function=call)


def equalising_scales(network: keras.Model, crops: np.ndarray, exponent: float = 0.5, greatest: float = 64.0) -> dict[str, np.ndarray]:
    """Factors for `inference_network` that bring the channels of an activation closer together.

    In front of a depthwise convolution all channels are made alike: each channel of its kernel has a step of its own, so that costs
    nothing. Other convolutions get weights as different as the channels were, so these are only brought closer.

    Args:
        network: of `inference_network`, without equalisation.
        crops: `(N, H, W, 3)` in 0..255.
        exponent: in front of other convolutions; of the ratio between the greatest value of all channels and that of the channel.
        greatest: factor.

    Returns:
        By the name of the activation layer `(C,)`.
    """
    activations = [layer for layer in network.layers if _activation(layer) in ("relu", "hard_swish")]
    layers = [layer for layer in activations if _called_once(layer) and not isinstance(layer, _CONVOLUTIONS)]
    before_depthwise = _before_depthwise(network)
    if not layers:
        return {}
    # What an activation sees and can tell apart: hard swish of all below -3, and ReLU of all below 0, is 0.
    least = {layer.name: -3.0 if _activation(layer) == "hard_swish" else 0.0 for layer in layers}
    inputs = keras.Model(network.inputs, {layer.name: layer.input for layer in layers})

    @tf.function(autograph=False, jit_compile=False)
    def greatest_values(crop: tf.Tensor) -> dict[str, tf.Tensor]:
        seen = inputs(crop, training=False)
        return {name: tf.reduce_max(tf.abs(tf.maximum(values, least[name])), axis=(0, 1, 2)) for name, values in seen.items()}

    found = [greatest_values(tf.constant(crop[None], tf.float32)) for crop in crops]
    scales = {}
    for layer in layers:
        mean = np.maximum(np.mean([values[layer.name] for values in found], axis=0, dtype=np.float64), 1e-6)
        power = 1.0 if id(layer.output) in before_depthwise else exponent
        scales[layer.name] = np.clip((mean.max() / mean) ** power, 1.0, greatest)
    return scales


def _before_depthwise(network: keras.Model) -> set[int]:
    """The tensors, by id, that a depthwise convolution sees, perhaps padded or several times side by side."""
    sources = {}
    for layer in network.layers:
        if isinstance(layer, (keras.layers.ZeroPadding2D, keras.layers.Concatenate)) and _called_once(layer):
            sources[id(layer.output)] = keras.tree.flatten(layer.input)[0]
    found = set()
    for layer in network.layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D) and _called_once(layer):
            tensor = layer.input
            while id(tensor) in sources:
                tensor = sources[id(tensor)]
            found.add(id(tensor))
    return found


def _called_once(layer: keras.layers.Layer) -> bool:
    try:
        return layer.input is not None
    except AttributeError:  # Keras: of several calls none is the layer's input
        return False


@dataclass(frozen=True)
class _Convolution:
    """A trained convolution on its way into the new graph.

    Attributes:
        layer: the trained layer.
        inputs: the tensor of the new graph that it sees.
        kernel: in the layer's own layout.
        bias: `(channels,)` of the output.
    """

    layer: keras.layers.Layer
    inputs: Any
    kernel: np.ndarray
    bias: np.ndarray

    @classmethod
    def of(cls, layer: keras.layers.Layer, inputs: Any, scale: np.ndarray | None) -> _Convolution:
        """What the layer does to inputs that are `scale` times what they are to be."""
        kernel, *bias = map(_numbers, layer.weights)
        if scale is not None:
            kernel = kernel / scale.reshape((1, -1) if isinstance(layer, keras.layers.Conv2DTranspose) else (-1, 1))
        return cls(layer, inputs, kernel, bias[0] if bias else np.zeros(np.prod(_over_outputs(layer, kernel))))

    def scaled(self, scale: np.ndarray, offset: np.ndarray | float = 0.0) -> _Convolution:
        """The one whose output is that of this one times `scale`, plus `offset`, `(channels,)` each."""
        kernel = self.kernel * scale.reshape(_over_outputs(self.layer, self.kernel))
        return replace(self, kernel=kernel, bias=self.bias * scale + offset)


class _Rewriting:
    """Calls new layers in place of the trained ones.

    A convolution is called before it is known what follows. The normalisation behind it then calls another one, folded, on the same
    input; and the activation behind that another one still, equalised. The former ones, of which no output depends any more, are not part
    of the new graph.
    """

    def __init__(self, equalisation: Scales | None) -> None:
        self.equalisation = equalisation
        self.layers: dict[str, list[tuple[list[np.ndarray], Callable[..., Any]]]] = {}  # by name, with their weights, see `_once`
        self.convolutions: dict[int, _Convolution] = {}  # whose output a tensor is, by id
        self.phases: dict[int, Any] = {}  # of which tensor a tensor is the depth-to-space, by id
        self.scales: dict[int, np.ndarray] = {}  # how many times what it is to be a tensor is, `(C,)`, by id
        self.held: list[Any] = []  # an id is only good as long as its tensor lives

    def __call__(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, _CONVOLUTIONS):
            inputs = self._unscaled(args[0]) if isinstance(layer, GroupedConv2D) else args[0]
            return self._convolve(layer.name, _Convolution.of(layer, inputs, self.scales.get(id(inputs))))
        if isinstance(layer, _HOMOGENEOUS):
            return self._scaled(self._copied(layer, *args, **kwargs), self.scales.get(id(args[0])))
        if isinstance(layer, keras.layers.Multiply):
            scales = [self.scales[id(tensor)] for tensor in args[0] if id(tensor) in self.scales]
            return self._scaled(self._copied(layer, *args, **kwargs), np.prod(scales, axis=0) if scales else None)
        activation = _activation(layer)
        if activation == "relu":
            return self._relu(layer, args[0])
        if activation == "hard_swish" and self.equalisation is not None:
            return self._hard_swish(layer, args[0])
        args, kwargs = keras.tree.map_structure(self._unscaled, (args, kwargs))
        if activation == "hard_sigmoid":
            return ops.relu6(args[0] + 3.0) * (1 / 6)
        if isinstance(layer, keras.layers.BatchNormalization):
            return self._normalise(layer, args[0])
        return self._copied(layer, *args, **kwargs) if isinstance(layer, keras.layers.Layer) else layer(*args, **kwargs)

    def _convolve(self, name: str, convolution: _Convolution) -> Any:
        layer, inputs, kernel, bias = convolution.layer, convolution.inputs, convolution.kernel, convolution.bias
        if self.equalisation is not None:
            kernel = _with_least_weights(layer, kernel, bias)
        if isinstance(layer, DepthwiseConv2DTranspose):
            # All phases of a channel have its bias.
            weights = [_numbers(phase_kernel(kernel)), np.tile(bias, 4)]
            outputs = self._rearranged(self._once(name, _depthwise, weights)(keras.layers.Concatenate()([inputs] * 4)))
        else:
            outputs = self._once(name, lambda name, *weights: _copy(layer, name, list(weights)), [kernel, bias])(inputs)
        if _activation(layer) in (None, "linear"):
            self.convolutions[id(outputs)] = convolution
        self.held.append(outputs)
        return outputs

    def _normalise(self, layer: keras.layers.BatchNormalization, inputs: Any) -> Any:
        mean, variance = _numbers(layer.moving_mean), _numbers(layer.moving_variance)
        scale = (_numbers(layer.gamma) if layer.scale else 1.0) / np.sqrt(variance + layer.epsilon)
        offset = (_numbers(layer.beta) if layer.center else 0.0) - mean * scale
        if id(inputs) in self.convolutions:
            return self._convolve(layer.name, self.convolutions[id(inputs)].scaled(scale, offset))
        return self._once(layer.name, _scale_channels, [scale, offset])(inputs)

    def _relu(self, layer: keras.layers.Layer, inputs: Any) -> Any:
        inputs, scale = self._equalised(layer, inputs)
        phases = self.phases.get(id(inputs))
        outputs = self._copied(layer, inputs) if phases is None else self._rearranged(self._copied(layer, phases))
        return self._scaled(outputs, scale)

    def _hard_swish(self, layer: keras.layers.Layer, inputs: Any) -> Any:
        inputs, scale = self._equalised(layer, inputs)
        scale = np.ones(inputs.shape[-1]) if scale is None else scale
        # A depthwise convolution: each channel of its kernel has a step of its own.
        gate = ops.relu6(self._once(f"{layer.name}_gate", _scale_channels, [1.0 / scale, np.full_like(scale, 3.0)])(inputs))
        return self._scaled(inputs * gate, 6.0 * scale)

    def _equalised(self, layer: keras.layers.Layer, inputs: Any) -> tuple[Any, np.ndarray | None]:
        """What the activation is to see, and how many times its input that is."""
        scale = (self.equalisation or {}).get(layer.name)
        convolution = self.convolutions.get(id(inputs))
        if scale is None or convolution is None:
            return inputs, self.scales.get(id(inputs))
        # An activation of the four phases of each channel.
        scale = scale.reshape(-1, len(convolution.bias)).min(axis=0)
        return self._convolve(f"{layer.name}_equalised", convolution.scaled(scale)), scale

    def _scaled(self, tensor: Any, scale: np.ndarray | None) -> Any:
        if scale is not None:
            self.scales[id(tensor)] = scale
            self.held.append(tensor)
        return tensor

    def _unscaled(self, tensor: Any) -> Any:
        scale = self.scales.get(id(tensor))
        return tensor if scale is None else tensor * (1.0 / scale).astype(np.float32)

    def _rearranged(self, phases: Any) -> Any:
        outputs = ops.depth_to_space(phases, 2)
        self.phases[id(outputs)] = phases
        self.held.append(outputs)
        return outputs

    def _copied(self, layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        resize = isinstance(layer, (keras.layers.UpSampling2D, CornerAlignedUpSampling2D))
        return self._once(layer.name, lambda _: _Resize(layer) if resize else _copy(layer), [])(*args, **kwargs)

    def _once(self, name: str, make: Callable[..., Callable[..., Any]], weights: list[np.ndarray]) -> Callable[..., Any]:
        """The layer of this name: a layer that is called twice keeps its one set of weights, unless they are scaled otherwise."""
        known = self.layers.setdefault(name, [])
        for others, layer in known:
            if all(np.array_equal(mine, other) for mine, other in zip(weights, others, strict=True)):
                return layer
        made = make(f"{name}_{len(known) + 1}" if known else name, *weights)
        known.append((weights, made))
        return made


_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Conv2DTranspose, DepthwiseConv2DTranspose)
# Of channels that are some positive number times what they are to be, they give the same number times what they are to give.
_HOMOGENEOUS = (
    keras.layers.ZeroPadding2D,
    keras.layers.UpSampling2D,
    CornerAlignedUpSampling2D,
    keras.layers.MaxPooling2D,
    keras.layers.AveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.GlobalAveragePooling2D,
)


def _over_outputs(layer: keras.layers.Layer, kernel: np.ndarray) -> tuple[int, ...]:
    """The shape in which a vector over the output channels is to be multiplied with the kernel."""
    if isinstance(layer, keras.layers.Conv2DTranspose):
        return kernel.shape[2], 1
    return kernel.shape[3:] if isinstance(layer, keras.layers.Conv2D) else kernel.shape[2:]


def _with_least_weights(layer: keras.layers.Layer, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The kernel with, for each output channel, one weight that is not too small beside the bias."""
    transposed = isinstance(layer, keras.layers.Conv2DTranspose)
    outputs_last = kernel.swapaxes(2, 3) if transposed else kernel
    weights = outputs_last.reshape(-1, len(bias)).copy()
    least = _LEAST_WEIGHT * np.abs(bias)
    small = np.abs(weights).max(axis=0) < least
    weights[0, small] = least[small]
    restored = weights.reshape(outputs_last.shape)
    return restored.swapaxes(2, 3) if transposed else restored


def _activation(layer: Any) -> str | None:
    """The name of the activation that a layer is, or ends with; None where it has none."""
    if isinstance(layer, keras.layers.ReLU):
        plain = layer.max_value is None and not layer.negative_slope and not layer.threshold
        return "relu" if plain else "another ReLU"
    activation = getattr(layer, "activation", None)
    return None if activation is None else {"hard_silu": "hard_swish"}.get(activation.__name__, activation.__name__)


def _copy(layer: keras.layers.Layer, name: str | None = None, weights: list[np.ndarray] | None = None) -> Callable[..., Any]:
    """A layer like `layer`, in float32 whatever that is, with its weights or with a kernel and a bias."""
    config = {**layer.get_config(), "dtype": "float32", "name": name or layer.name}
    if weights is None:
        weights = layer.get_weights()
    else:
        config["use_bias"] = True
    copy = type(layer).from_config(config)

    def call(*args: Any, **kwargs: Any) -> Any:
        outputs = copy(*args, **kwargs)
        copy.set_weights(weights)
        return outputs

    return call


def _depthwise(name: str, kernel: np.ndarray, bias: np.ndarray) -> Callable[..., Any]:
    """A depthwise convolution with these weights, a kernel `(size, size, C, 1)`."""
    return _copy(keras.layers.DepthwiseConv2D(kernel.shape[0], padding="same"), name, [kernel, bias])


def _scale_channels(name: str, scale: np.ndarray, offset: np.ndarray) -> Callable[..., Any]:
    """Each channel times a number, plus another one, in a form whose weights are quantised by channel."""
    return _depthwise(name, scale.reshape(1, 1, -1, 1), offset)


def _numbers(weight: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(weight), np.float64)


class _Resize(keras.layers.Layer):
    """The upsampling of another layer as the one operation that TFLite has for it."""

    def __init__(self, layer: keras.layers.Layer) -> None:
        super().__init__(name=layer.name, dtype="float32")
        self.layer = layer

    def call(self, inputs: Any) -> Any:
        """Upsamples."""
        height, width = self.compute_output_shape(inputs.shape)[1:3]
        if isinstance(self.layer, CornerAlignedUpSampling2D):
            return tf.raw_ops.ResizeBilinear(images=inputs, size=(height, width), align_corners=True)
        return tf.image.resize(inputs, (height, width), self.layer.interpolation)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """As of the other layer."""
        return self.layer.compute_output_shape(input_shape)
