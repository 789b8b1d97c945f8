"""PyTorch checkpoints read without PyTorch, and without executing anything that is in them.

A `.pth` file is a pickle, and unpickling by the book calls whatever the file names. Here every name but those that make up a tensor
becomes an inert object that takes any arguments and does nothing. Read are the zip format (PyTorch 1.6 and later), the older stream
of pickles, and `.safetensors`.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
import safetensors

from kpose.errors import KposeError

LARGEST_FILE_BYTES = 2 << 30
"""The largest published pose network takes 0.26 GB, its training checkpoint three times that."""
LARGEST_PICKLE_BYTES = 256 << 20
"""What describes the tensors takes a few hundred bytes each, and training logs some megabytes."""

STATE_KEYS = ("state_dict", "model_state_dict", "model", "best_state_dict", "net")
"""Under which the published code bases keep the network's tensors, beside optimizer, epoch and settings."""

# The magic number with which the older format begins, and the version that follows it.
STREAM_MAGIC, STREAM_VERSION = 0x1950A86A20F9469CFC6C, 1001

STORAGES: dict[str, np.dtype[Any]] = {
    "DoubleStorage": np.dtype("float64"),
    "FloatStorage": np.dtype("float32"),
    "HalfStorage": np.dtype("float16"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("int64"),
    "IntStorage": np.dtype("int32"),
    "ShortStorage": np.dtype("int16"),
    "CharStorage": np.dtype("int8"),
    "ByteStorage": np.dtype("uint8"),
    "BoolStorage": np.dtype("bool"),
}

SAFETENSORS_TYPES = {
    "F64": STORAGES["DoubleStorage"],
    "F32": STORAGES["FloatStorage"],
    "F16": STORAGES["HalfStorage"],
    "BF16": STORAGES["BFloat16Storage"],
    "I64": STORAGES["LongStorage"],
    "I32": STORAGES["IntStorage"],
    "I16": STORAGES["ShortStorage"],
    "I8": STORAGES["CharStorage"],
    "U8": STORAGES["ByteStorage"],
    "BOOL": STORAGES["BoolStorage"],
}


@dataclass(frozen=True)
class Storage:
    """A block of numbers in the file, to which tensors refer."""

    type: str
    key: str
    elements: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its numbers."""
        return STORAGES[self.type]


@dataclass(frozen=True)
class TensorReference:
    """A tensor as the pickle describes it: a view of a storage. Offset and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Inert:
    """Stands for whatever else a pickle names: takes all that unpickling does to an object, and does nothing."""

    def __new__(cls, *arguments: Any, **keywords: Any) -> Inert:
        """Any arguments."""
        return object.__new__(cls)

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        pass

    def __call__(self, *arguments: Any, **keywords: Any) -> Inert:
        """Another inert object."""
        return Inert()

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Drops it."""

    def extend(self, values: Any) -> None:
        """Drops them."""

    def add(self, value: Any) -> None:
        """Drops it."""


class TensorUnpickler(pickle.Unpickler):
    """Unpickles dictionaries, lists, numbers, text and tensors; everything else comes out inert.

    Attributes:
        storages: those that were named, by key.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """The few names that are honoured.

        A pickle may also alter what it is given here, so these are types that cannot be altered, text, and methods of this object.
        """
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch", "Size"):
            return tuple
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return self._rebuild_tensor
        if module == "torch._utils" and name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
            return self._rebuild_parameter
        if module in ("torch", "torch.cuda") and name in STORAGES:
            return name
        return Inert

    def persistent_load(self, reference: Any) -> Storage:
        """A storage: ("storage", type, key, device, elements) and, in old files, of which other one it is a part."""
        kind, type_name, key, _, elements, *part = reference
        if kind != "storage" or type_name not in STORAGES or not isinstance(elements, int) or elements < 0 or any(part):
            raise pickle.UnpicklingError(f"a storage of an unknown kind: {str(reference)[:80]}")
        self.storages[str(key)] = Storage(type_name, str(key), elements)
        return self.storages[str(key)]

    def _rebuild_tensor(self, storage: Storage, offset: Any, shape: Any, strides: Any, *_: Any) -> TensorReference:
        """What follows the strides says nothing about the values."""
        if not isinstance(storage, Storage):
            raise pickle.UnpicklingError("a tensor without a storage")
        return TensorReference(storage, offset, tuple(shape), tuple(strides))

    def _rebuild_parameter(self, tensor: Any, *_: Any) -> Any:
        return tensor


def read_torch_checkpoint(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a network's state in a `.pth`, `.pt`, `.tar` or `.safetensors` file.

    Args:
        path: The file: a state dictionary, or a training's checkpoint with one inside.

    Returns:
        Arrays by the names they have in the file; floating point ones as float32.

    Raises:
        KposeError: when the file is missing, damaged, too large, of another format, or holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise KposeError(f"there is no checkpoint {path}")
    if path.stat().st_size > LARGEST_FILE_BYTES:
        raise KposeError(f"{path} is larger than {LARGEST_FILE_BYTES >> 30} GiB, which no pose network is; file refused")
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        return _read_stream(path)
    except KposeError:
        raise
    except Exception as error:
        # A damaged pickle can fail in any way at all.
        reason = " ".join(str(error).split())[:200]
        raise KposeError(f"{path} is damaged or no PyTorch checkpoint ({type(error).__name__}: {reason}); get the file anew") from error


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    tensors = {}
    entries: Any = safetensors.deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    for name, entry in entries:
        if entry["dtype"] not in SAFETENSORS_TYPES:
            raise KposeError(f"{path}: {name} is of the type {entry['dtype']}, which kpose does not read; save it as float32")
        tensors[name] = _as_float32(np.frombuffer(entry["data"], SAFETENSORS_TYPES[entry["dtype"]]).reshape(entry["shape"]))
    return tensors


def _read_zip(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        descriptions = [name for name in members if name.rsplit("/", 1)[-1] == "data.pkl"]
        if len(descriptions) != 1:
            raise KposeError(f"{path} is a zip file, but no PyTorch checkpoint: it has no data.pkl; get the file anew")
        # A compressed file may claim to unpack to far more than it is.
        if sum(member.file_size for member in members.values()) > LARGEST_FILE_BYTES:
            raise KposeError(f"{path} unpacks to more than {LARGEST_FILE_BYTES >> 30} GiB; file refused")
        folder = descriptions[0].removesuffix("data.pkl")
        if members[descriptions[0]].file_size > LARGEST_PICKLE_BYTES:
            raise KposeError(f"{path}: the description of its tensors is larger than {LARGEST_PICKLE_BYTES >> 20} MiB; file refused")
        if f"{folder}constants.pkl" in members:
            raise KposeError(f"{path} is a TorchScript program; save the network's state_dict with torch.save instead")
        if f"{folder}byteorder" in members and archive.read(f"{folder}byteorder") != b"little":
            raise KposeError(f"{path} was written on a big-endian machine; save it anew on another")
        state = TensorUnpickler(io.BytesIO(archive.read(descriptions[0]))).load()
        return _tensors(state, path, lambda storage: archive.read(f"{folder}data/{storage.key}"))


def _read_stream(path: Path) -> dict[str, np.ndarray]:
    """The format before PyTorch 1.6: pickles one after the other, then the storages."""
    with path.open("rb") as file:
        if TensorUnpickler(file).load() != STREAM_MAGIC or TensorUnpickler(file).load() != STREAM_VERSION:
            raise KposeError(f"{path} is no PyTorch checkpoint: it does not begin as one; get the file anew")
        TensorUnpickler(file).load()  # sizes of integers on the machine that wrote it
        unpickler = TensorUnpickler(file)
        state = unpickler.load()
        places = {}
        for key in TensorUnpickler(file).load():
            if key not in unpickler.storages:
                raise KposeError(f"{path}: nothing says of what type the storage {key} is; save it in the newer format")
            elements = int.from_bytes(file.read(8), "little")
            places[key] = file.tell()
            file.seek(elements * unpickler.storages[key].dtype.itemsize, io.SEEK_CUR)

        def read(storage: Storage) -> bytes:
            file.seek(places[storage.key])
            return file.read(storage.elements * storage.dtype.itemsize)

        return _tensors(state, path, read)


def _tensors(state: Any, path: Path, read: Callable[[Storage], bytes]) -> dict[str, np.ndarray]:
    """The arrays of the state dictionary in what was unpickled."""
    for key in STATE_KEYS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
            break
    if not isinstance(state, Mapping) or not any(isinstance(value, TensorReference) for value in state.values()):
        raise KposeError(f"{path} holds no state dictionary, neither by itself nor under {', '.join(STATE_KEYS)}; save model.state_dict()")
    blocks: dict[str, np.ndarray] = {}
    tensors: dict[str, np.ndarray] = {}
    total = 0
    for name, reference in state.items():
        if isinstance(reference, TensorReference):
            storage = reference.storage
            if storage.key not in blocks:
                blocks[storage.key] = np.frombuffer(read(storage), storage.dtype, storage.elements)
            tensors[str(name)] = _as_float32(_view(reference, blocks[storage.key]))
            # Any number of tensors may be views of the same numbers.
            total += tensors[str(name)].nbytes
            if total > LARGEST_FILE_BYTES:
                raise KposeError(f"{path}: its tensors take more than {LARGEST_FILE_BYTES >> 30} GiB; file refused")
    return tensors


def _view(reference: TensorReference, block: np.ndarray) -> np.ndarray:
    """The tensor's elements, after it was checked that all of them lie in the block."""
    shape, strides, offset = reference.shape, reference.strides, reference.offset
    numbers = (offset, *shape, *strides)
    valid = len(shape) == len(strides) and all(isinstance(number, int) and number >= 0 for number in numbers)
    # As many elements as the block has at most: a stride of 0 could claim any number of them.
    if valid and math.prod(shape) <= block.size:
        last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
        if 0 in shape or last < block.size:
            view = np.lib.stride_tricks.as_strided(block[offset:], shape, [stride * block.itemsize for stride in strides], writeable=False)
            return np.ascontiguousarray(view).reshape(shape)
    raise KposeError(f"a tensor claims elements that its storage {reference.storage.key} does not have: shape {shape}, strides {strides}")


def _as_float32(array: np.ndarray) -> np.ndarray:
    return array.astype("float32") if array.dtype.kind == "f" or array.dtype == ml_dtypes.bfloat16 else array
