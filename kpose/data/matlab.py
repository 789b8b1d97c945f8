"""MATLAB files of version 5 to 7 (`.mat`): numbers, texts, structures and cells, read with limits.

Written after "MAT-File Format" (The MathWorks). A file from outside is checked at every step: no length in it is believed before what it
speaks of is there, and a small file cannot fill the memory. (scipy's reader is faster, and ends the whole process on some damaged files.)
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kpose.errors import KposeError

# MPII's release, the largest of the datasets that come in this form, takes 13 MB packed and some 1.8 million small arrays.
LARGEST_FILE_BYTES = 256 << 20
LARGEST_UNPACKED_BYTES = 1 << 30
MOST_ARRAYS = 10_000_000
_DEEPEST = 32  # structures within structures

# Types of an element's data, and of an array.
_INT8, _UINT16, _MATRIX, _COMPRESSED, _UTF8, _UTF16, _UTF32 = 1, 4, 14, 15, 16, 17, 18
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CELL, _STRUCTURE, _TEXT = 1, 2, 4
_NUMERIC_CLASSES = range(6, 16)

Shape = tuple[int | None, ...]
# What a variable may be: numbers in their shape, a text, or a list of structures (by field) or cells in MATLAB's order.
Value = np.ndarray | str | list[Any]


def read_arrays(path: str | Path, shapes: Mapping[str, Shape]) -> dict[str, np.ndarray]:
    """Numeric variables of known shape.

    Args:
        path: the file.
        shapes: by name; None where any length will do. A last length of 1, which MATLAB does not keep, is given back.

    Returns:
        float64 arrays of those shapes by name; they may hold NaN.

    Raises:
        KposeError: when the file is no MATLAB file, is damaged or unreasonably large, or a variable is missing, no numbers, or of
            another shape.
    """
    path = Path(path)
    found = _read(path, shapes)
    arrays = {}
    for name, shape in shapes.items():
        if name not in found:
            raise _without(path, name)
        values = found[name]
        if not isinstance(values, np.ndarray):
            raise KposeError(f"{path}: {name!r} holds no numbers")
        lengths = (*values.shape, 1) if values.ndim == len(shape) - 1 and shape[-1] is None else values.shape
        if len(lengths) != len(shape) or any(want not in (None, have) for have, want in zip(lengths, shape, strict=True)):
            raise KposeError(f"{path}: {name!r} is {_times(values.shape)}, expected {_times(shape)}")
        arrays[name] = values.astype(np.float64).reshape(lengths)
    return arrays


def array_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """The shape of each variable, without reading its content.

    Raises:
        KposeError: when the file is no MATLAB file, is damaged or unreasonably large.
    """
    return {name: shape for name, shape, _ in _variables(Path(path))}


def read_variable(path: str | Path, name: str) -> Value:
    """A variable of any kind; `field` and `as_list` read on in structures and cells.

    Raises:
        KposeError: when the file is no MATLAB file, is damaged or unreasonably large, or has no such variable.
    """
    found = _read(Path(path), [name])
    if name not in found:
        raise _without(Path(path), name)
    return found[name]


def field(value: Any, name: str) -> Any:
    """A field of a single structure: one number as `float`, else a `Value`; None where it is empty or there is none."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    found = value.get(name) if isinstance(value, dict) else None
    if isinstance(found, np.ndarray):
        return float(found.flat[0]) if found.size == 1 else found if found.size else None
    return found or None


def as_list(value: Any) -> list[Any]:
    """The structures, cells or numbers of a value, however many there are."""
    if value is None:
        return []
    if isinstance(value, np.ndarray):
        return value.ravel(order="F").tolist()
    return value if isinstance(value, list) else [value]


def _times(shape: Shape) -> str:
    return "x".join("N" if length is None else str(length) for length in shape)


def _without(path: Path, name: str) -> KposeError:
    return KposeError(f"{path} has no variable {name!r}; it holds {', '.join(sorted(array_shapes(path))) or 'nothing'}")


class _DamagedError(Exception):
    """A length or type that does not fit what is there."""


class _Elements:
    """The elements of a stretch of bytes, one after the other; nested arrays are read from the same bytes."""

    def __init__(self, data: bytes, order: str) -> None:
        self._data = data
        self._order = order
        self._pair = struct.Struct(f"{order}2I")
        self._plain_header = struct.Struct(f"{order}10I")
        self._arrays = 0

    def element(self, place: int, end: int) -> tuple[int, int, int, int]:
        """Type, begin and end of the data, and the place of the next element."""
        if place + 8 > end:
            raise _DamagedError("ends within an element")
        kind, length = self._pair.unpack_from(self._data, place)
        if kind >> 16:  # a small element: type, length and data in 8 bytes
            kind, length, begin, following = kind & 0xFFFF, kind >> 16, place + 4, place + 8
            if length > 4:
                raise _DamagedError("has a small element of more than 4 bytes")
        else:
            begin = place + 8
            following = begin + length + (-length % 8)
        if begin + length > end:
            raise _DamagedError(f"is cut off: {length} bytes should follow, {end - begin} do")
        return kind, begin, begin + length, min(following, end)

    def header(self, begin: int, end: int) -> tuple[int, tuple[int, ...], str, int]:
        """Class, lengths and name of an array, and the place of its content."""
        if begin + 40 <= end:
            # Nearly all arrays of a structure begin alike: flags, two lengths, no name.
            *tags, rows, columns, _, name_length = self._plain_header.unpack_from(self._data, begin)
            if tags[:2] == [6, 8] and tags[4:] == [5, 8] and name_length == 0 and not tags[2] & 0x0800 and rows | columns < 1 << 31:
                return tags[2] & 0xFF, (rows, columns), "", begin + 40
        _, flags, flags_end, place = self.element(begin, end)
        if flags_end - flags != 8:
            raise _DamagedError("has an array without flags")
        word = self._pair.unpack_from(self._data, flags)[0]
        if word & 0x0800:
            raise _DamagedError("has complex numbers")
        _, lengths, lengths_end, place = self.element(place, end)
        shape = struct.unpack_from(f"{self._order}{(lengths_end - lengths) // 4}i", self._data, lengths)
        if not 2 <= len(shape) <= 32 or min(shape) < 0:
            raise _DamagedError(f"has an array of the lengths {shape[:4]}")
        _, name, name_end, place = self.element(place, end)
        text = self._data[name:name_end].decode("latin-1")
        if text and not text.isidentifier():
            raise _DamagedError("has a variable whose name is none")
        return word & 0xFF, shape, text, place

    def array(self, begin: int, end: int, depth: int = 0) -> Value:
        """The content of an array."""
        self._arrays += 1
        if self._arrays > MOST_ARRAYS or depth > _DEEPEST:
            raise _DamagedError("has more arrays in it than any dataset that kpose reads")
        if begin == end:
            return np.zeros((0, 0))
        kind, shape, _, place = self.header(begin, end)
        count = 1
        for length in shape:
            count *= length
        if kind in _NUMERIC_CLASSES:
            return self._numbers(place, end, shape, count)
        if kind == _TEXT:
            return self._text(place, end) if count else ""
        if kind == _CELL:
            return list(self._nested(place, end, count, depth))
        if kind == _STRUCTURE:
            names, place = self._field_names(place, end)
            values = self._nested(place, end, count * len(names), depth)
            # Of no field there is nothing to say how many of them there are.
            return [dict(zip(names, group, strict=True)) for group in zip(*[values] * len(names), strict=True)] if names else []
        raise _DamagedError(f"has an array of class {kind}, which kpose does not read")

    def _numbers(self, place: int, end: int, shape: tuple[int, ...], count: int) -> np.ndarray:
        kind, begin, data_end, _ = self.element(place, end)
        if kind not in _NUMBERS:
            raise _DamagedError(f"has numbers of type {kind}")
        dtype = np.dtype(self._order + _NUMBERS[kind])
        if count * dtype.itemsize != data_end - begin:
            raise _DamagedError(f"claims to have {_times(shape)} numbers, of which {(data_end - begin) // dtype.itemsize} are there")
        return np.frombuffer(self._data, dtype, count, begin).reshape(shape, order="F")

    def _text(self, place: int, end: int) -> str:
        kind, begin, data_end, _ = self.element(place, end)
        suffix = "-le" if self._order == "<" else "-be"
        encodings = {_INT8: "latin-1", 2: "latin-1", _UINT16: "utf-16" + suffix, _UTF8: "utf-8", _UTF16: "utf-16" + suffix}
        encoding = (encodings | {_UTF32: "utf-32" + suffix}).get(kind)
        if encoding is None:
            raise _DamagedError(f"has a text of type {kind}")
        return self._data[begin:data_end].decode(encoding, "replace")

    def _field_names(self, place: int, end: int) -> tuple[list[str], int]:
        _, begin, data_end, place = self.element(place, end)
        length = int.from_bytes(self._data[begin:data_end], "little" if self._order == "<" else "big")
        _, begin, data_end, place = self.element(place, end)
        if data_end > begin and not 0 < length <= data_end - begin:
            raise _DamagedError("has a structure without names for its fields")
        names = [self._data[start : start + length].split(b"\0")[0].decode("latin-1") for start in range(begin, data_end, length or 1)]
        return names, place

    def _nested(self, place: int, end: int, count: int, depth: int) -> Iterator[Value]:
        for _ in range(count):
            kind, begin, data_end, place = self.element(place, end)
            if kind != _MATRIX:
                raise _DamagedError(f"has an element of type {kind} where an array should be")
            yield self.array(begin, data_end, depth + 1)


def _read(path: Path, names: Collection[str]) -> dict[str, Value]:
    found = {}
    for name, _, content in _variables(path):
        if name in names:
            try:
                found[name] = content()
            except _DamagedError as error:
                raise KposeError(f"{path}: {name!r} {error}; fetch the file again") from error
    return found


def _variables(path: Path) -> Iterator[tuple[str, tuple[int, ...], Any]]:
    """Name, shape and a function that gives the content of each variable."""
    try:
        with path.open("rb") as file:
            header = file.read(128)
            if header.startswith((b"MATLAB 7.3", b"\x89HDF")):
                raise KposeError(f"{path} is a MATLAB 7.3 file; load it in MATLAB or Octave and save it with the option -v7")
            order = {b"IM": "<", b"MI": ">"}.get(header[126:])
            if order is None:
                raise KposeError(f"{path} is no MATLAB file; expected one of version 5 to 7")
            data = file.read(LARGEST_FILE_BYTES + 1)
        if len(data) > LARGEST_FILE_BYTES:
            raise KposeError(f"{path} is larger than {LARGEST_FILE_BYTES >> 20} MiB; no dataset that kpose reads is")
        outer, place, room = _Elements(data, order), 0, LARGEST_UNPACKED_BYTES
        while place < len(data):
            kind, begin, end, following = outer.element(place, len(data))
            elements = outer
            if kind == _COMPRESSED:
                following = end  # nothing is padded after these
                unpacked = _unpack(data[begin:end], room)
                room -= len(unpacked)
                elements = _Elements(unpacked, order)
                kind, begin, end, _ = elements.element(0, len(unpacked))
            if kind != _MATRIX:
                raise _DamagedError(f"has an element of type {kind} where an array should be")
            _, shape, name, _ = elements.header(begin, end)
            yield name, shape, lambda elements=elements, begin=begin, end=end: elements.array(begin, end)
            place = following
    except (OSError, zlib.error) as error:
        raise KposeError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    except _DamagedError as error:
        raise KposeError(f"{path} {error}; fetch it again") from error


def _unpack(packed: bytes, room: int) -> bytes:
    unpacker = zlib.decompressobj()
    unpacked = unpacker.decompress(packed, room + 1)
    if len(unpacked) > room:
        raise _DamagedError(f"unpacks to more than {LARGEST_UNPACKED_BYTES >> 20} MiB, more than any dataset that kpose reads")
    if not unpacker.eof:
        raise _DamagedError("is cut off within packed data")
    return unpacked
