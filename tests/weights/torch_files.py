"""Writes what `torch.save` writes, without PyTorch: for the tests of those who read it."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile

import numpy as np

from kpose.weights.torch_checkpoint import STREAM_MAGIC, STREAM_VERSION

TYPES = {"float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage", "bfloat16": "BFloat16Storage"}


class TorchPickler(pickle._Pickler):  # type: ignore[name-defined]
    """Pickles arrays as PyTorch pickles tensors: calls by name, storages by a persistent identifier."""

    def __init__(self, file, legacy=False):
        super().__init__(file, protocol=2)
        self.blocks = {}
        self.legacy = legacy

    def write_global(self, module, name):
        self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())

    def save_array(self, array):
        key = str(len(self.blocks))
        array = np.array(array, order="C")
        self.blocks[key] = array.tobytes()
        strides = [stride // array.itemsize for stride in array.strides]
        self.write_tensor(array, key, 0, array.shape, strides)

    def write_tensor(self, array, key, offset, shape, strides):
        self.write_global("torch._utils", "_rebuild_tensor_v2")
        self.write(pickle.MARK + pickle.MARK)
        self.save("storage")
        self.write_global("torch", TYPES[array.dtype.name])
        for value in (key, "cuda:0", array.size, *((None,) if self.legacy else ())):
            self.save(value)
        self.write(pickle.TUPLE + pickle.BINPERSID)
        for value in (offset, tuple(shape), tuple(strides), False):
            self.save(value)
        self.write_global("collections", "OrderedDict")
        self.write(pickle.EMPTY_TUPLE + pickle.REDUCE + pickle.TUPLE + pickle.REDUCE)

    dispatch = pickle._Pickler.dispatch | {np.ndarray: save_array}  # type: ignore[attr-defined]


def write_zip(path, value, pickler=TorchPickler):
    description = io.BytesIO()
    writer = pickler(description)
    writer.dump(value)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", description.getvalue())
        archive.writestr("archive/byteorder", "little")
        for key, block in writer.blocks.items():
            archive.writestr(f"archive/data/{key}", block)
    return path


def write_stream(path, value):
    with path.open("wb") as file:
        for part in (STREAM_MAGIC, STREAM_VERSION, {"little_endian": True}):
            pickle.dump(part, file, protocol=2)
        writer = TorchPickler(file, legacy=True)
        writer.dump(value)
        pickle.dump(list(writer.blocks), file, protocol=2)
        for block in writer.blocks.values():
            file.write(struct.pack("<q", len(block) // 4) + block)
    return path
