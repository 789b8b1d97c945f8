"""Files and folders, written whole or not at all; JSON and tables of numbers, read with limits."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kpose.errors import KposeError

# The annotations of COCO train2017 take a quarter of a gigabyte; what is larger than this is not read to its end.
LARGEST_JSON_BYTES = 4 << 30


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`, to write to; it takes the place of `path` when the block ends without an error.

    However the block ends, with a full disk or an interrupt, `path` is either the former file or the whole new one. Missing folders are
    made. The temporary name ends as `path` does, for the libraries that choose a format by it.

    Raises:
        KposeError: when the file cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb") as written:
            # Without it a power failure may leave the new name without its content.
            os.fsync(written.fileno())
        os.replace(partial, path)
    except OSError as error:
        kept = "; the former file is untouched" if path.is_file() else ""
        raise KposeError(f"cannot write {path}: {error.strerror or error}; is there room, and may you write there?{kept}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path`, to fill; it becomes `path` when the block ends without an error.

    However the block ends, there is either no `path` or the whole of it. Missing folders above are made. The temporary name begins with a
    dot: whoever watches for folders of certain names does not take it for one.

    Raises:
        KposeError: when `path` is already there, now or in the end, or the folder cannot be written.
    """
    path = Path(path)
    taken = f"{path} is already there and is not written over; choose another name, or remove it"
    if path.exists() or path.is_symlink():
        raise KposeError(taken)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        for folder, _, names in os.walk(partial):
            for name in names:
                with open(os.path.join(folder, name), "rb") as written:
                    os.fsync(written.fileno())
        if path.exists():
            raise KposeError(taken)
        os.rename(partial, path)
    except OSError as error:
        if path.exists():  # somebody else was faster
            raise KposeError(taken) from error
        raise KposeError(f"cannot write {path}: {error.strerror or error}; is there room, and may you write there?") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_json(value: Any, path: str | Path, indent: int | None = None) -> Path:
    """Write JSON, whole or not at all; returns the path.

    Raises:
        KposeError: when the folder or file cannot be written, see `replacing`.
        ValueError: when `value` holds NaN or infinity, which JSON does not have.
    """
    path = Path(path)
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as handle:
        json.dump(value, handle, indent=indent, allow_nan=False)
        handle.write("\n")
    return path


def read_json(path: str | Path) -> Any:
    """Read a JSON file, `.gz` or plain.

    Raises:
        KposeError: when it is missing, damaged, no JSON, or unreasonably large.
    """
    path = Path(path)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as handle:
            data = handle.read(LARGEST_JSON_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise KposeError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > LARGEST_JSON_BYTES:
        raise KposeError(f"{path} holds more than {LARGEST_JSON_BYTES >> 30} GiB of JSON; split it")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise KposeError(f"{path} is not valid JSON: {error}") from error


def read_number_table(path: str | Path) -> list[dict[str, float]]:
    """The rows of a CSV file of numbers, by column; empty fields are left out.

    Raises:
        KposeError: when the file cannot be read or holds anything else.
    """
    try:
        with open(path, newline="", encoding="utf-8") as lines:
            return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(lines)]
    except OSError as error:
        raise KposeError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError, csv.Error) as error:
        raise KposeError(f"{path} is not a table of numbers: {error}") from error
