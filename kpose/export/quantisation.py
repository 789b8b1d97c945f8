"""From a float TFLite file to int8: weights by channel, activations by tensor."""

from __future__ import annotations

import contextlib
import io
import warnings

import numpy as np

from kpose.errors import KposeError
from kpose.export.metadata import INPUT, OUTPUT, pack, read_schema

# By the name of a tensor the smallest and greatest value that it is to hold.
Ranges = dict[str, tuple[float, float]]
_OUTERMOST = 1e-4


def quantise(content: bytes, crops: np.ndarray) -> bytes:
    """The file in 8-bit integers, from an int8 image (128 less than 0..255) to float32 heatmaps.

    Args:
        content: a float32 TFLite file with a signature, see `attach_card`.
        crops: `(N, H, W, 3)` in 0..255, on which the ranges of the activations are found.

    Raises:
        KposeError: when LiteRT's quantiser is not installed.
    """
    try:
        from ai_edge_quantizer import qtyping, quantizer, recipe_manager
    except ImportError as error:
        raise KposeError("int8 needs the quantiser of LiteRT, which is not installed; run: pip install 'kpose[lite]'") from error
    ranges = narrowed(content, activation_ranges(content, crops))
    recipe = recipe_manager.RecipeManager()
    recipe.add_static_config(".*", qtyping.TFLOperationName.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8)
    recipe.add_quantization_config(".*", qtyping.TFLOperationName.OUTPUT, algorithm_key="no_quantize")
    # Arrays of as many dimensions as the tensors have.
    statistics = {name: {"min": _array(low), "max": _array(high)} for name, (low, high) in ranges.items()}
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        work = quantizer.Quantizer(bytearray(content), recipe.get_quantization_recipe())
        return rearranged_in_integers(bytes(work.quantize(statistics, enable_progress_report=False).quantized_model))


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


def activation_ranges(content: bytes, crops: np.ndarray) -> Ranges:
    """Smallest and greatest value of every tensor that a float file computes on the crops.

    Of each crop the outermost ten-thousandth at either end is left aside: a single pixel is not worth that all others are told apart less
    well. Not so of the heatmaps, whose few greatest values are the joints. The image has the range that every picture may have.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    with warnings.catch_warnings():
        # That all tensors are kept costs memory.
        warnings.simplefilter("ignore")
        interpreter = Interpreter(
            model_content=content,
            num_threads=2,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
    interpreter.allocate_tensors()
    (image,) = interpreter.get_input_details()
    graph = read_schema("int8").ModelT.InitFromPackedBuf(content).subgraphs[0]
    names = {int(index): graph.tensors[index].name.decode() for operation in graph.operators for index in operation.outputs}
    ranges = {INPUT: (0.0, 255.0)}
    for crop in crops:
        interpreter.set_tensor(image["index"], np.asarray(crop[None], np.float32))
        interpreter.invoke()
        for index, name in names.items():
            values = interpreter.get_tensor(index)
            ends = (float(values.min()), float(values.max())) if name == OUTPUT else outer_values(values)
            low, high = ranges.get(name, ends)
            ranges[name] = min(low, ends[0]), max(high, ends[1])
    return ranges


def outer_values(values: np.ndarray) -> tuple[float, float]:
    """The smallest and greatest value behind the outermost ten-thousandth at either end."""
    flat = values.ravel()
    left = int(_OUTERMOST * flat.size)
    low, high = np.partition(flat, [left, flat.size - 1 - left])[[left, flat.size - 1 - left]].tolist()
    return low, high


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
