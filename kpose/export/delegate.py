"""What TFLite's GPU delegate takes, and what of a file it would leave to the CPU.

The table is written from the delegate's own source as of LiteRT 2 (TensorFlow 2.21 has the same):

* `tflite/delegates/gpu/common/model_builder.cc`: which operations there are (`NewOperationParser`), up to which version
  (`CheckMaxSupportedOpVersion` in each parser's `IsSupported`), which types and how many dimensions (`GetOpsToReplace`).
* `tflite/tools/versioning/gpu_compatibility.cc` (`CheckGpuDelegateCompatibility`): inputs and attributes, without enhanced broadcasting,
  which is not on by itself.

As with its default options, 8-bit integers are let in: they are computed in float. `Analyzer(gpu_compatibility=True)` of TensorFlow is no
substitute: since 2.18 it passes everything.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kpose.errors import KposeError
from kpose.export.metadata import read_schema, read_tflite


@dataclass(frozen=True)
class Tensor:
    """What an operation sees or gives.

    Attributes:
        name: in the file.
        shape: its sides.
        type: as the schema calls it, such as FLOAT32.
        constant: whether its values are in the file, perhaps in half precision, which every runtime widens once and for all.
        consumers: how many operations see it.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    constant: bool
    consumers: int


@dataclass(frozen=True)
class Operation:
    """An operation of a file.

    Attributes:
        kind: as the schema calls it, such as CONV_2D; of a custom operation its own name.
        version: of the operation.
        inputs: without those that are left out.
        outputs: what it gives.
        options: its attributes, the schema's object; None where it has none.
        custom: whether it is none of TFLite's own.
    """

    kind: str
    version: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    options: Any
    custom: bool

    @property
    def output(self) -> str:
        """The name of its first output, by which people find its layer; of an output of several operations in one, the first part."""
        return self.outputs[0].name.split(";")[0] if self.outputs else ""


@dataclass(frozen=True)
class Finding:
    """An operation that the delegate leaves to the CPU.

    Attributes:
        operation: its kind.
        output: the name of its first output, which begins as the layer is called.
        reason: in a few words.
    """

    operation: str
    output: str
    reason: str

    def __str__(self) -> str:
        return f"{self.operation} {self.output}: {self.reason}"


def delegate_findings(path: str | Path) -> list[Finding]:
    """Every operation of a TFLite file that the GPU delegate would leave to the CPU, in order; none: all of it runs on the GPU.

    Raises:
        KposeError: when LiteRT is not installed, or the file is missing, too large or damaged.
    """
    judged = [(operation, _refusal(operation)) for operation in read_operations(path)]
    return [Finding(operation.kind, operation.output, reason) for operation, reason in judged if reason is not None]


def operation_counts(path: str | Path) -> Counter[tuple[str, int]]:
    """How often a TFLite file has each kind of operation, by kind and version.

    Raises:
        KposeError: see `delegate_findings`.
    """
    return Counter((operation.kind, operation.version) for operation in read_operations(path))


def read_operations(path: str | Path) -> list[Operation]:
    """The operations of a TFLite file of one graph, in order; nothing is executed.

    Raises:
        KposeError: see `delegate_findings`.
    """
    content, schema = read_tflite(path), read_schema(path)
    try:
        return _operations(schema, schema.ModelT.InitFromPackedBuf(content))
    except (struct.error, IndexError, TypeError, AttributeError, KeyError, OverflowError, ValueError, MemoryError) as error:
        raise KposeError(f"{path} is damaged: its operations cannot be read ({' '.join(str(error).split())[:120]})") from error


def _operations(schema: Any, model: Any) -> list[Operation]:
    (graph,) = model.subgraphs
    kinds, types = _names(schema.BuiltinOperator), _names(schema.TensorType)
    consumers = Counter(int(index) for operation in graph.operators for index in operation.inputs)
    buffers = [model.buffers[tensor.buffer] for tensor in graph.tensors]
    # Values may lie behind the flatbuffer.
    constants = {index for index, buffer in enumerate(buffers) if buffer.data is not None or buffer.offset > 1}
    for operation in graph.operators:
        code = model.operatorCodes[operation.opcodeIndex]
        if code.builtinCode == schema.BuiltinOperator.DEQUANTIZE and int(operation.inputs[0]) in constants:
            constants.add(int(operation.outputs[0]))

    def tensors(indices: Any) -> tuple[Tensor, ...]:
        found = []
        for index in map(int, indices):
            if index >= 0:  # -1 stands for an input that is left out
                tensor = graph.tensors[index]
                shape = tuple(map(int, tensor.shape)) if tensor.shape is not None else ()
                found.append(Tensor(tensor.name.decode(), shape, types[tensor.type], index in constants, consumers[index]))
        return tuple(found)

    operations = []
    for operation in graph.operators:
        code = model.operatorCodes[operation.opcodeIndex]
        custom = code.customCode is not None
        kind = code.customCode.decode() if custom else kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]
        inputs, outputs = tensors(operation.inputs), tensors(operation.outputs)
        operations.append(Operation(kind, code.version, inputs, outputs, operation.builtinOptions, custom))
    return operations


def _names(enumeration: Any) -> dict[int, str]:
    return {number: name for name, number in vars(enumeration).items() if isinstance(number, int)}


def _refusal(operation: Operation) -> str | None:
    """Why the delegate leaves an operation to the CPU; None where it takes it."""
    if operation.custom:
        return "a custom operation; the delegate has none of that name"
    if operation.kind not in _TAKEN:
        return "the delegate has no such operation"
    latest, check = _TAKEN[operation.kind]
    if latest is not None and operation.version > latest:
        return f"version {operation.version}; the delegate knows it up to {latest}"
    return (check(operation) if check else None) or _tensor_refusal(operation)


# Of the tensors that are computed; constants may be of other types.
_TYPES = ("FLOAT32", "FLOAT16", "INT8", "UINT8")
_LOGICAL = ("EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "NOT_EQUAL", "LOGICAL_AND")
_MOST_DIMENSIONS = 4


def _tensor_refusal(operation: Operation) -> str | None:
    more_inputs = {"CAST": ("BOOL", "INT32"), "ONE_HOT": ("INT32",), "GATHER": ("INT32",)}
    more_inputs |= dict.fromkeys(("SELECT", "SELECT_V2", "LOGICAL_AND"), ("BOOL",))
    more_outputs = {"CAST": ("BOOL", "INT32")} | dict.fromkeys(_LOGICAL, ("BOOL",))
    for tensors, more in ((operation.inputs, more_inputs), (operation.outputs, more_outputs)):
        for tensor in tensors:
            if len(tensor.shape) > _MOST_DIMENSIONS:
                return f"{len(tensor.shape)} dimensions in {tensor.name}; the delegate has {_MOST_DIMENSIONS} at most"
            if not tensor.constant and tensor.type not in (*_TYPES, *more.get(operation.kind, ())):
                return f"{tensor.name} is {tensor.type}; the delegate computes in {', '.join(_TYPES)}"
    return None


def _computed(operation: Operation) -> list[Tensor]:
    return [tensor for tensor in operation.inputs if not tensor.constant]


def _inputs(*allowed: tuple[int, int | None]) -> Callable[[Operation], str | None]:
    """So many computed and constant inputs (None: any number), and one output."""

    def check(operation: Operation) -> str | None:
        computed = len(_computed(operation))
        constants = len(operation.inputs) - computed
        if any(computed == few and others in (constants, None) for few, others in allowed) and len(operation.outputs) == 1:
            return None
        return f"{computed} computed and {constants} constant inputs, {len(operation.outputs)} outputs"

    return check


def _all(*checks: Callable[[Operation], str | None]) -> Callable[[Operation], str | None]:
    def check(operation: Operation) -> str | None:
        return next((reason for one in checks if (reason := one(operation)) is not None), None)

    return check


def _attribute(name: str, allowed: Callable[[Any], bool], reason: str) -> Callable[[Operation], str | None]:
    def check(operation: Operation) -> str | None:
        if operation.options is None:
            return None  # its attributes are the defaults, which are allowed
        value = getattr(operation.options, name)
        return None if allowed(value) else f"{reason} ({name} {value})"

    return check


_SIGN_BIT = 5
_activation = _attribute("fusedActivationFunction", lambda value: value != _SIGN_BIT, "a fused activation that the delegate has not")
_strides = _all(*(_attribute(name, lambda value: value > 0, "a stride below 1") for name in ("strideH", "strideW")))
_filter = _all(*(_attribute(name, lambda value: value > 0, "a window below 1") for name in ("filterHeight", "filterWidth")))
_dilation = _all(*(_attribute(name, lambda value: value > 0, "a dilation below 1") for name in ("dilationHFactor", "dilationWFactor")))
_block = _attribute("blockSize", lambda value: value > 1, "a block that is too small")


def _convolution(operation: Operation) -> str | None:
    if len(_computed(operation)) > 2 or len(operation.inputs) < 2 or len(operation.outputs) != 1:
        return f"{len(_computed(operation))} computed inputs, {len(operation.outputs)} outputs"
    return None


def _depthwise(operation: Operation) -> str | None:
    image, kernel, output = operation.inputs[0].shape, operation.inputs[1].shape, operation.outputs[0].shape
    if not len(image) == len(kernel) == len(output) == 4:
        return f"shapes {image}, {kernel}, {output}; four dimensions are needed"
    multiplier = operation.options.depthMultiplier
    if image[0] != output[0] or kernel[3] != output[3] or output[3] != image[3] * multiplier:
        return f"shapes {image}, {kernel}, {output} with depth multiplier {multiplier}, which go not together"
    if multiplier != 1 and image[3] != 1:
        return f"depth multiplier {multiplier} of {image[3]} channels; the delegate has it of one channel alone"
    return None


def _broadcast(operation: Operation) -> str | None:
    """Of ADD and MUL: two inputs, of which one is spread over the other."""
    if len(operation.inputs) != 2:
        return f"{len(operation.inputs)} inputs; two are needed"
    first, second = (tensor.shape for tensor in operation.inputs)
    if len(first) == len(second):
        larger, smaller = (any(one > other for one, other in zip(*pair, strict=True)) for pair in ((first, second), (second, first)))
        return f"{first} and {second}: neither is spread over the other" if operation.kind == "MUL" and larger and smaller else None
    longer, shorter = sorted((first, second), key=len, reverse=True)
    if len(shorter) <= 1:
        return None
    spread = len(longer) == 4 and (
        (len(shorter) == 3 and longer[0] == 1)
        or (len(shorter) == 2 and longer[0] == 1 and shorter == (1, 1))
        or (len(shorter) == 2 and shorter == (longer[0], longer[3]))
    )
    return None if spread else f"{first} and {second} are not spread over each other"


def _cast(operation: Operation) -> str | None:
    pair = operation.inputs[0].type, operation.outputs[0].type
    floats = ("FLOAT16", "FLOAT32")
    if (pair[0] == "BOOL" and pair[1] in floats) or (pair[0] in floats and pair[1] == "BOOL"):
        return None
    if pair[0] in ("FLOAT32", "INT32") and pair[1] in ("FLOAT32", "INT32"):
        return None
    return f"from {pair[0]} to {pair[1]}"


def _logical(operation: Operation) -> str | None:
    # Its only consumer must be a CAST or SELECT to float; of that, the number is all that is looked at here.
    consumers = operation.outputs[0].consumers
    return None if consumers == 1 else f"its truth values go to {consumers} operations; the delegate has it with one CAST or SELECT alone"


def _constant_axes(operation: Operation) -> str | None:
    axes = operation.inputs[1]
    return None if axes.constant and axes.type == "INT32" else "its axes are not constant int32"


def _gather(operation: Operation) -> str | None:
    if operation.inputs[0].type == "INT32":
        return "of int32"
    indices = operation.inputs[1]
    return None if len(indices.shape) == 1 and indices.type == "INT32" else "its indices are no int32 vector"


def _padding(operation: Operation) -> str | None:
    shape = operation.inputs[1].shape
    return None if len(shape) == 2 and shape[0] in (3, 4) and shape[1] == 2 else f"padding of shape {shape}; 3 x 2 or 4 x 2 is needed"


def _slice(operation: Operation) -> str | None:
    sides = len(operation.inputs[0].shape)
    return None if sides in (3, 4) else f"of {sides} dimensions; the delegate has it of 3 and 4"


def _dense(operation: Operation) -> str | None:
    if len(_computed(operation)) > 2 or operation.inputs[0].constant:
        return "its input is constant, or more than two are computed"
    kept = operation.options is not None and operation.options.keepNumDims
    if kept and len(operation.inputs[0].shape) != len(operation.outputs[0].shape):
        return "it keeps dimensions that its output has not"
    return None


def _resize(operation: Operation) -> str | None:
    both = operation.options is not None and operation.options.alignCorners and operation.options.halfPixelCenters
    return "corners aligned and half-pixel centres at once" if both else None


def _select(operation: Operation) -> str | None:
    output = operation.outputs[0].shape
    for tensor in operation.inputs[1:]:
        if tensor.type not in ("FLOAT32", "FLOAT16"):
            return f"between values of {tensor.type}"
        if tensor.shape and tensor.shape != output and (len(tensor.shape) > 1 or tensor.shape[0] > 1):
            return f"{tensor.shape} is spread over {output}"
    return None


_one = _inputs((1, None))
_one_alone = _inputs((1, 0))
_two = _inputs((2, 0), (1, 1))
_masks = _all(
    *(
        _attribute(f"{name}Mask", lambda value: not value, "a mask that the delegate has not")
        for name in ("ellipsis", "newAxis", "shrinkAxis")
    )
)

# By operation the latest version that is taken (None: any), and what else is asked of it.
_TAKEN: dict[str, tuple[int | None, Callable[[Operation], str | None] | None]] = {
    "ADD": (2, _all(_broadcast, _activation)),
    "ADD_N": (2, _inputs((2, 0), (1, 1))),
    "AVERAGE_POOL_2D": (2, _all(_one, _filter, _strides, _activation)),
    "BATCH_MATMUL": (None, _inputs((2, 0), (1, 1))),
    "CAST": (None, _all(_one, _cast)),
    "CONCATENATION": (2, None),
    "CONV_2D": (6, _all(_convolution, _strides, _dilation, _activation)),
    "CUMSUM": (1, _constant_axes),
    "DEPTHWISE_CONV_2D": (6, _all(_convolution, _strides, _dilation, _activation, _depthwise)),
    "DEPTH_TO_SPACE": (None, _all(_one, _block)),
    "DEQUANTIZE": (3, lambda operation: "of INT16" if operation.inputs[0].type == "INT16" else None),
    "DIV": (2, _all(_two, _activation)),
    "FULLY_CONNECTED": (9, _all(_attribute("weightsFormat", lambda value: value == 0, "weights in another order"), _dense)),
    "GATHER": (1, _all(_two, _gather)),
    "HARD_SWISH": (None, _one),
    "LEAKY_RELU": (2, None),
    "MAX_POOL_2D": (2, _all(_one, _filter, _strides, _activation)),
    "MEAN": (None, _all(_inputs((1, 1)), _constant_axes)),
    "MIRROR_PAD": (2, _all(_one, _padding, _attribute("mode", lambda value: value == 0, "mirrored with the edge"))),
    "MUL": (3, _all(_broadcast, _activation)),
    "PACK": (None, None),
    "PAD": (2, _all(_one, _padding)),
    "PADV2": (2, _all(_one, _padding)),
    "PRELU": (1, None),
    "QUANTIZE": (2, _one),
    "RELU": (2, None),
    "RELU6": (2, None),
    "RELU_0_TO_1": (2, None),
    "RELU_N1_TO_1": (2, None),
    "RESHAPE": (1, _one),
    "RESIZE_BILINEAR": (3, _all(_one, _resize)),
    "RESIZE_NEAREST_NEIGHBOR": (3, _one),
    "SELECT": (1, _select),
    "SELECT_V2": (1, _select),
    "SLICE": (2, _slice),
    "SOFTMAX": (2, _attribute("beta", lambda value: value == 1, "scaled")),
    "SPACE_TO_DEPTH": (2, _all(_one, _block)),
    "SPLIT": (None, None),
    "SPLIT_V": (None, None),
    "STRIDED_SLICE": (4, _all(_slice, _masks)),
    "SUB": (2, _all(_two, _activation)),
    "TILE": (None, _one),
    "TRANSPOSE": (4, _one),
    "TRANSPOSE_CONV": (3, _all(_convolution, _strides)),
    "UNPACK": (None, None),
    **dict.fromkeys(("REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "SUM"), (None, _all(_one, _constant_axes))),
    **dict.fromkeys(_LOGICAL, (2, _all(_two, _logical))),
    **dict.fromkeys(
        ("ABS", "COS", "ELU", "EXP", "FLOOR", "GELU", "LOG", "LOGISTIC", "NEG", "RSQRT", "SIGN", "SIN", "SQRT", "SQUARE", "TANH"),
        (2, _one_alone),
    ),
    **dict.fromkeys(("FLOOR_DIV", "FLOOR_MOD", "MAXIMUM", "MINIMUM", "POW", "SQUARED_DIFFERENCE"), (2, _two)),
}
