"""What travels inside of a TFLite file as its metadata, JSON that runners in any language can read: the card, and how it was converted."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import pydantic
from pydantic import BaseModel, ConfigDict, Field

from kpose.checkpoint import LARGEST_CARD_BYTES, ModelCard
from kpose.errors import KposeError
from kpose.inference.litert import LARGEST_FILE_BYTES

METADATA_NAME, RECORD_NAME = "kpose_card", "kpose_conversion"
# A file of kpose has a handful: its card, and what the converter notes.
_MOST_ENTRIES = 64
_IDENTIFIER = b"TFL3"
_ALIGNMENT = 16
# What runners call the tensors.
INPUT, OUTPUT, KEYPOINTS = "image", "heatmaps", "keypoints"

Variant = Literal["heatmaps", "keypoints"]
_Parsed = TypeVar("_Parsed", bound=BaseModel)


class Samples(BaseModel):
    """The crops that a file was converted with.

    Attributes:
        number: how many.
        sha256: of their bytes, one crop after the other, uint8.
        source: whose they are, and how they were chosen.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    number: Annotated[int, Field(gt=0)]
    sha256: str
    source: str = ""


class ConversionRecord(BaseModel):
    """How a TFLite file was made, beside the card that says what it expects.

    Attributes:
        variant: what comes out: `heatmaps` `(1, h, w, K)`, or `keypoints` `(1, K, 3)` x, y in the crop frame, and a score.
        precision: of `kpose.export.Precision`; empty in files that are older than this record.
        samples: the crops that it was converted with.
        ranges: how the ranges of int8 activations were found on them.
        range_errors: by every way that was tried the relative rms of the heatmaps, on crops that the ranges were not found on.
        kept_float: outputs of the operations that were left in float32.
        trained_steps: of quantisation-aware training.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    variant: Variant = "heatmaps"
    precision: str = ""
    samples: Samples | None = None
    ranges: str | None = None
    range_errors: dict[str, float] = {}
    kept_float: list[str] = []
    trained_steps: int = 0


def attach_card(content: bytes | bytearray, card: ModelCard, description: str, record: ConversionRecord | None = None) -> bytes:
    """A TFLite file of one picture in and heatmaps or keypoints out, completed with what its users need.

    Args:
        content: of the file.
        card: is written as metadata `kpose_card`; a former one is replaced.
        description: for people; tools show it.
        record: is written as metadata `kpose_conversion`, likewise; by default that of a float file of heatmaps.

    Returns:
        The file with both, and with a signature that calls its input `image` and its output `heatmaps` or `keypoints`. All weights are
        inside of the flatbuffer, where every runtime finds them: a quantiser may have put them behind it.

    Raises:
        KposeError: when LiteRT is not installed.
    """
    schema = read_schema("a card")
    model = schema.ModelT.InitFromPackedBuf(content)
    record = record or ConversionRecord()
    model.description = description
    _set_metadata(schema, model, METADATA_NAME.encode(), card.model_dump_json().encode())
    _set_metadata(schema, model, RECORD_NAME.encode(), record.model_dump_json().encode())
    _set_signature(schema, model, OUTPUT if record.variant == "heatmaps" else KEYPOINTS)
    return pack(model, content)


def pack(model: Any, content: bytes | bytearray) -> bytes:
    """The file of a `ModelT` that was read from `content`, all of its weights inside of the flatbuffer."""
    import flatbuffers

    for buffer in model.buffers:
        if buffer.offset > 1:
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0

    class AlignedBuilder(flatbuffers.Builder):
        """Weights begin at multiples of 16 bytes, as the schema asks; the generated code forgets it."""

        def CreateNumpyVector(self, values: np.ndarray) -> int:
            if values.dtype == np.uint8:
                self.Prep(_ALIGNMENT, values.nbytes)
            return super().CreateNumpyVector(values)

    builder = AlignedBuilder(len(content) + (1 << 16))
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def _set_metadata(schema: Any, model: Any, name: bytes, content: bytes) -> None:
    model.metadata = model.metadata or []
    entry = next((entry for entry in model.metadata if entry.name == name), None)
    if entry is None:
        entry = schema.MetadataT()
        entry.name, entry.buffer = name, len(model.buffers)
        model.metadata.append(entry)
        model.buffers.append(schema.BufferT())
    model.buffers[entry.buffer].data = np.frombuffer(content, np.uint8)


def _set_signature(schema: Any, model: Any, output: str) -> None:
    (graph,) = model.subgraphs
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    named = [(INPUT, graph.inputs), (output, graph.outputs)]
    for name, tensors in named:
        (index,) = tensors
        graph.tensors[index].name = name
    signature.inputs, signature.outputs = ([_tensor_map(schema, name, tensors[0])] for name, tensors in named)
    model.signatureDefs = [signature]


def _tensor_map(schema: Any, name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, int(index)
    return entry


def read_tflite_card(path: str | Path) -> ModelCard:
    """The card inside of a TFLite file of `kpose.export`; nothing is executed.

    Raises:
        KposeError: when the file is missing, too large, damaged, or has no card of kpose.
    """
    text = read_metadata(path, METADATA_NAME)
    if text is None:
        raise KposeError(f"{path} has no card of kpose inside; make it with kpose convert")
    return _parsed(ModelCard, text, path, "card")


def read_tflite_record(path: str | Path) -> ConversionRecord:
    """How a TFLite file of `kpose.export` was made; of files that do not say so, that of heatmaps; nothing is executed.

    Raises:
        KposeError: when the file is missing, too large or damaged.
    """
    text = read_metadata(path, RECORD_NAME)
    return ConversionRecord() if text is None else _parsed(ConversionRecord, text, path, "record of its conversion")


def _parsed(kind: type[_Parsed], text: bytes, path: str | Path, what: str) -> _Parsed:
    try:
        return kind.model_validate_json(text)
    except pydantic.ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise KposeError(f"{path}: its {what} is not valid: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error


def read_metadata(path: str | Path, name: str) -> bytes | None:
    """One entry of a TFLite file's metadata, None where there is none; nothing is executed.

    Raises:
        KposeError: when LiteRT is not installed, or the file is missing, too large or damaged.
    """
    content = read_tflite(path)
    try:
        return _metadata(read_schema(path).Model.GetRootAs(content), Path(path), name)
    except (struct.error, IndexError, TypeError, OverflowError, ValueError, MemoryError) as error:
        if isinstance(error, KposeError):
            raise
        raise KposeError(f"{path} is damaged: its {name} cannot be found ({error})") from error


def read_tflite(path: str | Path) -> bytes:
    """The content of a TFLite file.

    Raises:
        KposeError: when it is missing, too large, or none.
    """
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise KposeError(f"{path} has {path.stat().st_size} bytes, more than any network kpose runs; file refused")
        content = path.read_bytes()
    except OSError as error:
        raise KposeError(f"cannot read {path}: {error.strerror}") from error
    if content[4:8] != _IDENTIFIER:
        raise KposeError(f"{path} is not a TFLite file")
    return content


def _metadata(model: Any, path: Path, name: str) -> bytes | None:
    """The content of an entry; every length is checked before so much is read."""
    count = model.MetadataLength()
    if count > _MOST_ENTRIES:
        raise KposeError(f"{path} claims {count} entries of metadata, no file of kpose has more than {_MOST_ENTRIES}; file refused")
    names = [model.Metadata(position).Name() for position in range(count)]
    if name.encode() not in names:
        return None
    number = model.Metadata(names.index(name.encode())).Buffer()
    if number >= model.BuffersLength():
        raise KposeError(f"{path} is damaged: its {name} is in buffer {number} of {model.BuffersLength()}")
    buffer = model.Buffers(number)
    size = buffer.DataLength()
    if size > LARGEST_CARD_BYTES:
        raise KposeError(f"{path}: its {name} claims {size} bytes, more than any of kpose has; file refused")
    return bytes(bytearray(buffer.Data(position) for position in range(size)))


def read_schema(purpose: Any) -> Any:
    """The module that reads and writes the tables of a TFLite file.

    Args:
        purpose: what needs it, for the message.

    Raises:
        KposeError: when LiteRT is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise KposeError(f"{purpose} needs LiteRT, which is not installed; run: pip install 'kpose[lite]'") from error
    return schema_py_generated
