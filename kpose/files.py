"""JSON files, read with limits and written whole or not at all."""

from __future__ import annotations

import gzip
import json
import os
import tempfile
import zlib
from pathlib import Path
from typing import Any

from kpose.errors import KposeError

# The annotations of COCO train2017 take a quarter of a gigabyte; what is larger than this is not read to its end.
LARGEST_JSON_BYTES = 4 << 30


def write_json(value: Any, path: str | Path, indent: int | None = None) -> Path:
    """Write JSON to a temporary file in the same folder, then put it in place.

    Raises:
        KposeError: when the folder or file cannot be written (the previous file is left as it was).
        ValueError: when `value` holds NaN or infinity, which JSON does not have.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            json.dump(value, handle, indent=indent, allow_nan=False)
            handle.write("\n")
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise KposeError(f"cannot write {path}: {error.strerror}; is there room, and may you write there?") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
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
