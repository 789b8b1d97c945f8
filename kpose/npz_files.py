"""Reading `.npz` files from outside: plain numbers, within limits, nothing executed and no size believed."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np

from kpose.errors import KposeError
from kpose.files import open_binary

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npz(path: str | Path, largest_bytes: int, *, missing: str, remedy: str) -> dict[str, np.ndarray]:
    """The arrays of a file of `numpy.savez`, by name.

    Args:
        path: the file.
        largest_bytes: what it may unpack to.
        missing: what to say when there is no such file.
        remedy: what to do about one that is damaged.

    Returns:
        Arrays of integers or floating-point numbers, as they are in the file; read-only.

    Raises:
        KposeError: when the file is missing, damaged, too large, or holds anything else.
    """
    path = Path(path)
    try:
        with open_binary(path) as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > largest_bytes:
                raise KposeError(f"{path} unpacks to more than {largest_bytes >> 20} MiB, file refused; {remedy}")
            return {member.filename.removesuffix(".npy"): _read_array(archive, member) for member in members}
    except FileNotFoundError as error:
        raise KposeError(missing) from error
    except KposeError:
        raise
    except (OSError, zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        raise KposeError(f"{path} is no .npz file of plain numbers ({str(error)[:120]}); {remedy}") from error


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """One member; its header may claim neither more nor less than there is, and no Python objects."""
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"{member.filename} has the unknown format version {version}")
        shape, fortran_order, dtype = _HEADERS[version](stream)
        size = math.prod(shape) * dtype.itemsize
        if dtype.kind not in "iuf" or min(shape, default=0) < 0 or size != member.file_size - stream.tell():
            raise ValueError(f"{member.filename} claims {shape} of {dtype}, which is not what it holds")
        data = stream.read(size)
    return np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if fortran_order else "C")
