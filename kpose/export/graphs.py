"""Parts of TFLite graphs put together or taken apart: another type of picture in front, another graph behind, activations by themselves."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from kpose.export.metadata import INPUT, pack, read_schema

Input = Literal["float", "uint8"]


def with_input(content: bytes, wanted: Input) -> bytes:
    """The file with a picture of another type, 0..255 as before: one operation more, which every delegate knows.

    Args:
        content: of a file whose input is float32 in 0..255, or int8, 128 less.
        wanted: float32 or uint8.

    Returns:
        The file itself where its input is of that type.
    """
    schema = read_schema("another input")
    model = schema.ModelT.InitFromPackedBuf(content)
    (graph,) = model.subgraphs
    (former,) = map(int, graph.inputs)
    types = schema.TensorType
    kind = types.UINT8 if wanted == "uint8" else types.FLOAT32
    if graph.tensors[former].type == kind:
        return content
    picture = schema.TensorT()
    picture.name, picture.type, picture.buffer = INPUT, kind, 0
    picture.shape = np.array(graph.tensors[former].shape)
    picture.shapeSignature = None
    if wanted == "uint8":
        picture.quantization = schema.QuantizationParametersT()
        picture.quantization.scale = np.ones(1, np.float32)
        picture.quantization.zeroPoint = np.zeros(1, np.int64)
    graph.tensors[former].name = f"{INPUT}_inside"
    operation = schema.OperatorT()
    operation.inputs, operation.outputs = _indices([len(graph.tensors)]), _indices([former])
    code = schema.OperatorCodeT()
    if graph.tensors[former].type == types.FLOAT32:
        code.builtinCode = schema.BuiltinOperator.DEQUANTIZE
        operation.builtinOptionsType, operation.builtinOptions = schema.BuiltinOptions.DequantizeOptions, schema.DequantizeOptionsT()
    else:
        code.builtinCode = schema.BuiltinOperator.QUANTIZE
        operation.builtinOptionsType, operation.builtinOptions = schema.BuiltinOptions.QuantizeOptions, schema.QuantizeOptionsT()
        # From one type of integers to another since the second version.
        code.version = 2 if wanted == "uint8" else 1
    code.deprecatedBuiltinCode = code.builtinCode
    operation.opcodeIndex = len(model.operatorCodes)
    model.operatorCodes.append(code)
    graph.inputs = _indices([len(graph.tensors)])
    graph.tensors.append(picture)
    graph.operators.insert(0, operation)
    return pack(model, content)


def joined(first: bytes, second: bytes) -> bytes:
    """One file of two: the second one's graph, whose weights are all in the flatbuffer, sees what the first one gives.

    Args:
        first: of one output.
        second: of one input of its shape and type.
    """
    schema = read_schema("joined graphs")
    model, appended = (schema.ModelT.InitFromPackedBuf(content) for content in (first, second))
    (graph,), (behind,) = model.subgraphs, appended.subgraphs
    (entry,), (exit_,) = map(int, behind.inputs), map(int, graph.outputs)
    tensors, buffers, codes = len(graph.tensors), len(model.buffers), len(model.operatorCodes)

    def moved(indices: Any) -> np.ndarray:
        # -1 stands for an input that is left out.
        return _indices([exit_ if index == entry else index + tensors if index >= 0 else index for index in map(int, indices)])

    for tensor in behind.tensors:
        tensor.buffer += buffers
    for operation in behind.operators:
        operation.opcodeIndex += codes
        operation.inputs, operation.outputs = moved(operation.inputs), moved(operation.outputs)
    graph.tensors += behind.tensors
    graph.operators += behind.operators
    graph.outputs = moved(behind.outputs)
    model.buffers += appended.buffers
    model.operatorCodes += appended.operatorCodes
    model.signatureDefs = None
    return pack(model, first)


def activations_apart(content: bytes) -> bytes:
    """A float file whose transposed convolutions have their ReLU behind them, not inside: with one inside a GPU does not take them."""
    schema = read_schema("transposed convolutions")
    model = schema.ModelT.InitFromPackedBuf(content)
    (graph,) = model.subgraphs
    transposed = [number for number, code in enumerate(model.operatorCodes) if code.builtinCode == schema.BuiltinOperator.TRANSPOSE_CONV]
    kinds = schema.ActivationFunctionType
    codes = {kinds.RELU: schema.BuiltinOperator.RELU, kinds.RELU6: schema.BuiltinOperator.RELU6}
    operators = []
    for operation in graph.operators:
        operators.append(operation)
        if operation.opcodeIndex not in transposed or operation.builtinOptions.fusedActivationFunction not in codes:
            continue
        (output,) = map(int, operation.outputs)
        before = schema.TensorT()
        before.name, before.shape, before.type, before.buffer = (
            f"{graph.tensors[output].name.decode()}_before",
            *_like(graph.tensors[output]),
            0,
        )
        activation, code = schema.OperatorT(), schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = codes[operation.builtinOptions.fusedActivationFunction]
        activation.opcodeIndex = len(model.operatorCodes)
        activation.inputs, activation.outputs = _indices([len(graph.tensors)]), _indices([output])
        operation.outputs = activation.inputs
        operation.builtinOptions.fusedActivationFunction = kinds.NONE
        model.operatorCodes.append(code)
        graph.tensors.append(before)
        operators.append(activation)
    if len(operators) == len(graph.operators):
        return content
    for number in transposed:
        # The fourth version is the third with an activation.
        model.operatorCodes[number].version = min(model.operatorCodes[number].version, 3)
    graph.operators = operators
    return pack(model, content)


def _like(tensor: Any) -> tuple[np.ndarray, int]:
    return np.array(tensor.shape), tensor.type


def _indices(values: list[int]) -> np.ndarray:
    """As the schema has them; the generated code writes an array's bytes as they are."""
    return np.array(values, np.int32)
