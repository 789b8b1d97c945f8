"""From a float TFLite file to int8: weights by channel, activations by tensor; or the weights alone (`dynamic`)."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np

from kpose.errors import KposeError
from kpose.export.metadata import INPUT, OUTPUT, pack, read_schema

# By the name of a tensor the smallest and greatest value that it is to hold.
Ranges = dict[str, tuple[float, float]]
# How they come from the values of each crop: the outermost of all; the same without the outermost ten-thousandth of each crop's, for a
# single pixel is not worth that all others are told apart less well; or the mean over the crops of each one's outermost.
RangeRule = Literal["min-max", "percentile", "average"]
_OUTERMOST = 1e-4
# What is always zero, behind a rectifier that never opens, would else get steps so small that XNNPACK's arithmetic overflows, and takes
# the process with it. A trained network whose ranges were 1e-5 wide crashed, at 1e-4 it ran.
_NARROWEST = 1e-3
# One crop in so many is not shown to the rules, and says which of them is the best.
_HELD_OUT = 4


def quantise(content: bytes, ranges: Ranges, kept_float: Sequence[str] = ()) -> bytes:
    """The file in 8-bit integers, from an int8 image (128 less than 0..255) to float32 heatmaps.

    Args:
        content: a float32 TFLite file with a signature, see `attach_card`.
        ranges: of every tensor that it computes; one narrower than a thousandth is widened upwards.
        kept_float: outputs of operations that stay in float32.

    Raises:
        KposeError: when LiteRT's quantiser is not installed.
    """

    def recipe(manager: Any, names: Any) -> None:
        manager.add_static_config(".*", names.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8)
        manager.add_quantization_config(".*", names.OUTPUT, algorithm_key="no_quantize")
        for name in kept_float:
            manager.add_quantization_config(_scope(name), names.ALL_SUPPORTED, algorithm_key="no_quantize")

    return rearranged_in_integers(_quantised(content, recipe, ranges))


def quantise_alone(content: bytes, ranges: Ranges, output: str) -> bytes:
    """The float file with the one operation of this output in 8-bit integers, see `quantise`."""

    def recipe(manager: Any, names: Any) -> None:
        manager.add_static_config(_scope(output), names.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8)
        manager.add_quantization_config(".*", names.OUTPUT, algorithm_key="no_quantize")

    return _quantised(content, recipe, ranges)


def quantise_weights(content: bytes) -> bytes:
    """The file with the weights of its convolutions and dense layers in 8-bit integers; activations are quantised as they come.

    Raises:
        KposeError: when LiteRT's quantiser is not installed.
    """
    return _quantised(content, lambda manager, names: manager.add_dynamic_config(".*", names.ALL_SUPPORTED, 8), None)


def _scope(output: str) -> str:
    return f"^{re.escape(output)};?$"


def _quantised(content: bytes, recipe: Callable[[Any, Any], None], ranges: Ranges | None) -> bytes:
    try:
        from ai_edge_quantizer import qtyping, quantizer, recipe_manager
    except ImportError as error:
        raise KposeError("int8 needs the quantiser of LiteRT, which is not installed; run: pip install 'kpose[lite]'") from error
    manager = recipe_manager.RecipeManager()
    recipe(manager, qtyping.TFLOperationName)
    # Arrays of as many dimensions as the tensors have.
    statistics = {name: {"min": _array(low), "max": _array(max(high, low + _NARROWEST))} for name, (low, high) in (ranges or {}).items()}
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        work = quantizer.Quantizer(bytearray(content), manager.get_quantization_recipe())
        return bytes(work.quantize(statistics or None, enable_progress_report=False).quantized_model)


def best_ranges(content: bytes, crops: np.ndarray) -> tuple[RangeRule, Ranges, dict[str, float]]:
    """The ranges by which the heatmaps of int8 are nearest to those of float.

    Args:
        content: see `quantise`.
        crops: `(N, H, W, 3)` in 0..255. Every rule is tried with three quarters of them, and judged by the heatmaps of the others; fewer
            than 4 judge nothing.

    Returns:
        The best rule, its ranges by all crops, and by every rule the relative rms of the heatmaps.
    """
    ends = activation_ends(content, crops)
    shown = np.arange(len(crops)) % _HELD_OUT != _HELD_OUT - 1
    if shown.all():
        return "percentile", narrowed(content, activation_ranges(ends, "percentile")), {}
    expected = run(content, crops[~shown])
    errors: dict[RangeRule, float] = {}
    for rule in get_args(RangeRule):
        ranges = narrowed(content, activation_ranges({name: found[shown] for name, found in ends.items()}, rule))
        errors[rule] = relative_rms(run(quantise(content, ranges), crops[~shown]), expected)
    best = min(errors, key=lambda rule: errors[rule])
    return best, narrowed(content, activation_ranges(ends, best)), {rule: round(error, 5) for rule, error in errors.items()}


def relative_rms(values: np.ndarray, expected: np.ndarray) -> float:
    """Root of the mean squared difference, over that of what is expected."""
    return float(np.sqrt(np.mean((values - expected) ** 2) / max(np.mean(expected**2), 1e-30)))


def rearranged_in_integers(content: bytes) -> bytes:
    """The file with every depth-to-space on 8-bit integers, where the quantiser put it between a DEQUANTIZE and a QUANTIZE of one scale."""
    schema = read_schema("int8")
    model = schema.ModelT.InitFromPackedBuf(content)
    (graph,) = model.subgraphs
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    wanted = [getattr(schema.BuiltinOperator, name) for name in ("DEQUANTIZE", "DEPTH_TO_SPACE", "QUANTIZE")]
    makers = {int(operation.outputs[0]): operation for operation in graph.operators}
    kept = list(graph.operators)
    for last in graph.operators:
        middle = makers.get(int(last.inputs[0]))
        first = makers.get(int(middle.inputs[0])) if middle else None
        if not (first and middle) or [codes[operation.opcodeIndex] for operation in (first, middle, last)] != wanted:
            continue
        before, after = (graph.tensors[int(index)].quantization for index in (first.inputs[0], last.outputs[0]))
        alone = all(sum(operation.outputs[0] in other.inputs for other in graph.operators) == 1 for operation in (first, middle))
        if alone and np.array_equal(before.scale, after.scale) and np.array_equal(before.zeroPoint, after.zeroPoint):
            middle.inputs, middle.outputs = first.inputs, last.outputs
            kept = [operation for operation in kept if operation is not first and operation is not last]
    graph.operators = kept
    return pack(model, content)


def activation_ends(content: bytes, crops: np.ndarray) -> dict[str, np.ndarray]:
    """What every tensor that a float file computes holds of each crop.

    Returns:
        By the tensor's name `(N, 4)`: smallest and greatest value, and the same without the outermost ten-thousandth at either end. Of
        the heatmaps nothing is left aside, for their few greatest values are the joints.
    """
    interpreter = _interpreter(content, preserve=True)
    graph = read_schema("int8").ModelT.InitFromPackedBuf(content).subgraphs[0]
    names = {int(index): graph.tensors[index].name.decode() for operation in graph.operators for index in operation.outputs}
    ends: dict[str, list[list[float]]] = {name: [] for name in names.values()}
    for crop in crops:
        _invoke(interpreter, crop)
        for index, name in names.items():
            values = interpreter.get_tensor(index)
            outermost = float(values.min()), float(values.max())
            ends[name].append([*outermost, *(outermost if name == OUTPUT else outer_values(values))])
    return {name: np.array(found) for name, found in ends.items()}


def outer_values(values: np.ndarray) -> tuple[float, float]:
    """The smallest and greatest value behind the outermost ten-thousandth at either end."""
    flat = values.ravel()
    left = int(_OUTERMOST * flat.size)
    low, high = np.partition(flat, [left, flat.size - 1 - left])[[left, flat.size - 1 - left]].tolist()
    return low, high


def activation_ranges(ends: dict[str, np.ndarray], rule: RangeRule) -> Ranges:
    """Ranges of every tensor by a rule, from its `activation_ends`.

    The image has the range that every picture may have, and heatmaps the one they had: a peak must not be cut.
    """
    ranges = {INPUT: (0.0, 255.0)}
    for name, found in ends.items():
        low, high, inner_low, inner_high = found.T
        if rule == "percentile":
            ranges[name] = float(inner_low.min()), float(inner_high.max())
        elif rule == "average" and name != OUTPUT:
            ranges[name] = float(low.mean()), float(high.mean())
        else:
            ranges[name] = float(low.min()), float(high.max())
    return ranges


def layer_errors(content: bytes, quantised: bytes, crops: np.ndarray) -> dict[str, float]:
    """How far each tensor of a file in integers is from the same one of the float file, with all that went before: relative rms.

    Args:
        content: the float32 file that was quantised.
        quantised: what became of it.
        crops: `(N, H, W, 3)` in 0..255.

    Returns:
        By the tensor's name, in the order in which they are computed.
    """
    files = [_interpreter(part, preserve=True) for part in (content, quantised)]
    tensors = [{detail["name"]: detail for detail in one.get_tensor_details()} for one in files]
    computed = output_names(quantised)
    names = [name for name in output_names(content) if name in computed]
    differences, sizes = np.zeros(len(names)), np.zeros(len(names))
    for crop in crops:
        for one in files:
            _invoke(one, crop)
        for place, name in enumerate(names):
            expected, found = (_real(one, details[name]) for one, details in zip(files, tensors, strict=True))
            differences[place] += np.square(found - expected).sum()
            sizes[place] += np.square(expected).sum()
    return dict(zip(names, np.sqrt(differences / np.maximum(sizes, 1e-30)).tolist(), strict=True))


def output_names(content: bytes) -> list[str]:
    """The outputs of a file's operations, in order."""
    (graph,) = read_schema("int8").ModelT.InitFromPackedBuf(content).subgraphs
    return [graph.tensors[int(operation.outputs[0])].name.decode() for operation in graph.operators]


def _real(interpreter: Any, tensor: dict[str, Any]) -> np.ndarray:
    """The values that a tensor stands for, float64."""
    values = interpreter.get_tensor(tensor["index"]).astype(np.float64)
    scale, zero = tensor["quantization"]
    return (values - zero) * scale if tensor["dtype"] == np.int8 else values


def run(content: bytes, crops: np.ndarray) -> np.ndarray:
    """The output of a file for each crop `(N, H, W, 3)` in 0..255, float32."""
    interpreter = _interpreter(content)
    (output,) = interpreter.get_output_details()
    found = []
    for crop in crops:
        _invoke(interpreter, crop)
        found.append(interpreter.get_tensor(output["index"])[0])
    return np.stack(found)


def _invoke(interpreter: Any, crop: np.ndarray) -> None:
    (image,) = interpreter.get_input_details()
    values = np.rint(crop[None] - 128.0) if image["dtype"] == np.int8 else crop[None]
    interpreter.set_tensor(image["index"], values.astype(image["dtype"]))
    interpreter.invoke()


def _interpreter(content: bytes, preserve: bool = False) -> Any:
    """An interpreter; `preserve`: that also gives what is computed on the way, for which it takes no delegate, and more memory."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    options = {}
    if preserve:
        options = {
            "experimental_op_resolver_type": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            "experimental_preserve_all_tensors": True,
        }
    with warnings.catch_warnings():
        # That all tensors are kept costs memory.
        warnings.simplefilter("ignore")
        interpreter = Interpreter(model_content=content, num_threads=2, **options)
    interpreter.allocate_tensors()
    return interpreter


def narrowed(content: bytes, ranges: Ranges) -> Ranges:
    """Ranges without the values that hard swish cannot tell apart, all those whose gate is closed.

    In the form that `inference_network` gives it: x * relu6(x / scale + 3), the second factor by a depthwise 1x1 convolution of x.
    """
    schema = read_schema("int8")
    model = schema.ModelT.InitFromPackedBuf(content)
    (graph,) = model.subgraphs
    result = dict(ranges)

    def constant(index: int) -> np.ndarray:
        return np.asarray(model.buffers[graph.tensors[index].buffer].data, np.uint8).view(np.float32)

    gates = {}
    for operation in graph.operators:
        options = operation.builtinOptions
        if isinstance(options, schema.DepthwiseConv2DOptionsT) and options.fusedActivationFunction == schema.ActivationFunctionType.RELU6:
            inputs, kernel, bias = map(int, operation.inputs)
            if tuple(graph.tensors[kernel].shape[1:3]) == (1, 1):
                gates[int(operation.outputs[0])] = inputs, -float(np.max(constant(bias) / constant(kernel)))
        elif isinstance(options, schema.MulOptionsT):
            for factor, gate in (operation.inputs, operation.inputs[::-1]):
                if gates.get(int(gate), (None,))[0] == factor:
                    name = graph.tensors[factor].name.decode()
                    low, high = ranges[name]
                    result[name] = max(low, gates[int(gate)][1]), high
    return result


def _array(value: float) -> np.ndarray:
    return np.full((1, 1, 1, 1), value, np.float32)
