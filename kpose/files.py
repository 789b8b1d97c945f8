"""Files and folders, written whole or not at all; JSON and tables of numbers, read with limits.

A path with a scheme, such as `gs://bucket/people.json`, is read and written by TensorFlow's file systems (`tf.io.gfile`). Which schemes
there are is up to the TensorFlow that is installed; an unknown one is refused in its words.
"""

from __future__ import annotations

import csv
import errno
import glob
import gzip
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from kpose.errors import KposeError

# The annotations of COCO train2017 take a quarter of a gigabyte; what is larger than this is not read to its end.
LARGEST_JSON_BYTES = 4 << 30
# Two letters at least: C:/ is a drive.
_SCHEME = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]+):/+(?P<rest>.*)", re.DOTALL)
_PIECE_BYTES = 16 << 20


def address(path: str | Path) -> str:
    """A path in the form that file systems take.

    `pathlib` makes `gs:/bucket/people.json` of `gs://bucket/people.json`; here it gets its slash back, so that such a path may be a `Path`
    in between, be joined and have parents. `file:///data` is `/data`.
    """
    text = str(path)
    match = _SCHEME.fullmatch(text)
    if match is None:
        return text
    return f"/{match['rest']}" if match["scheme"] == "file" else f"{match['scheme']}://{match['rest']}"


def is_remote(path: str | Path) -> bool:
    """Whether a path has a scheme, so that TensorFlow must read it."""
    return _SCHEME.fullmatch(address(path)) is not None


@contextmanager
def _as_os_error(path: str | Path) -> Iterator[None]:
    """What TensorFlow says of a file becomes an `OSError`, as Python raises it."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), address(path)) from error
    except tf.errors.OpError as error:
        raise OSError(errno.EIO, str(error.message).strip().partition("\n")[0], address(path)) from error


def read_bytes(path: str | Path, most: int = -1, start: int = 0) -> bytes:
    """The content of a file.

    Args:
        path: local, or with a scheme.
        most: no more than so many bytes; -1: all.
        start: skip so many.

    Raises:
        OSError: when it cannot be read.
    """
    with open_binary(path) as file:
        file.seek(start)
        return file.read(most)


@contextmanager
def open_binary(path: str | Path) -> Iterator[Any]:
    """A file to read bytes from. Raises `OSError`."""
    if is_remote(path):
        import tensorflow as tf

        with _as_os_error(path), tf.io.gfile.GFile(address(path), "rb") as handle:
            yield handle
    else:
        with open(address(path), "rb") as file:
            yield file


def find_files(pattern: str | Path) -> list[str]:
    """The files that match a pattern (`*`, `?`, `[a-z]` in names; without a scheme also `**` for any folders), sorted.

    Raises:
        KposeError: when there is no such file system, or it cannot be asked.
    """
    if not is_remote(pattern):
        return sorted(glob.glob(address(pattern), recursive=True))
    import tensorflow as tf

    try:
        with _as_os_error(pattern):
            return sorted(tf.io.gfile.glob(address(pattern)))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise KposeError(f"cannot look for {address(pattern)}: {error.strerror}") from error


def list_folder(folder: str | Path) -> list[str]:
    """The names in a folder; those of folders may end in a slash.

    Raises:
        OSError: when it cannot be read.
    """
    if not is_remote(folder):
        return os.listdir(address(folder) or ".")
    import tensorflow as tf

    with _as_os_error(folder):
        return tf.io.gfile.listdir(address(folder))


def file_size(path: str | Path) -> int:
    """How many bytes a file has. Raises `OSError`."""
    if not is_remote(path):
        return os.stat(address(path)).st_size
    import tensorflow as tf

    with _as_os_error(path):
        return tf.io.gfile.stat(address(path)).length


def is_folder(path: str | Path) -> bool:
    """Whether a path names a folder that is there."""
    if not is_remote(path):
        return os.path.isdir(address(path))
    import tensorflow as tf

    with suppress(tf.errors.OpError):
        return bool(tf.io.gfile.isdir(address(path)))
    return False


def files_within(folder: str | Path, follow_links: bool = False) -> Iterator[str]:
    """The files in a folder and its subfolders, by their names relative to it, with `/`; none where there is no folder.

    Args:
        folder: local, or with a scheme.
        follow_links: also look into folders that are links; they must not lead in a circle.

    Raises:
        KposeError: when there is no such file system, it cannot be asked, or a name leads out of the folder.
    """
    import tensorflow as tf

    root = address(folder).rstrip("/")
    walked = tf.io.gfile.walk(root) if is_remote(root) else os.walk(root or "/", followlinks=follow_links)
    try:
        if is_remote(root):
            tf.io.gfile.exists(root)  # walking finds nothing where there is no such file system; this says so
        for place, _, names in walked:
            inner = place.rstrip("/")[len(root) :].strip("/")
            found = [f"{inner}/{name}" if inner else name for name in names]
            # Object stores allow any name, and a copy must not leave its folder.
            if leaving := next((name for name in found if ".." in name.split("/")), None):
                raise KposeError(f"{root} holds {leaving!r}, a name that leads out of it; rename it")
            yield from found
    except tf.errors.OpError as error:
        raise KposeError(f"cannot look into {root}: {str(error.message).splitlines()[0]}") from error


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits; of a folder, that of its files' names and digests. Raises `OSError`."""
    digest = hashlib.sha256()
    if is_folder(path):
        for name in sorted(files_within(path, follow_links=True)):
            digest.update(f"{name}\0{sha256_of(f'{address(path)}/{name}')}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()
    with open_binary(path) as handle:
        while piece := handle.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def local_copy(path: str | Path, folder: str | Path) -> Path:
    """A file or folder of this machine with the content of `path`: that itself, or a copy of the same name where it has a scheme.

    Args:
        path: of a file or a folder.
        folder: is there, and takes the copy in a folder of its own: others may have the same name.

    Raises:
        KposeError: when it cannot be read.
    """
    if not is_remote(path):
        return Path(address(path))
    copy = Path(tempfile.mkdtemp(dir=folder)) / Path(path).name
    names = [f"/{name}" for name in files_within(path)] if is_folder(path) else [""]
    try:
        for name in names:
            file = Path(f"{copy}{name}")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(read_bytes(f"{address(path)}{name}"))
    except OSError as error:
        raise KposeError(f"cannot read {address(path)}: {error.strerror}") from error
    return copy


def remove_file(path: str | Path) -> None:
    """Remove a file. Raises `OSError`."""
    if not is_remote(path):
        os.remove(address(path))
        return
    import tensorflow as tf

    with _as_os_error(path):
        tf.io.gfile.remove(address(path))


def remove_folder(folder: str | Path) -> None:
    """Remove a folder and what is in it; nothing happens where it is not there. Raises `OSError`."""
    import tensorflow as tf

    with suppress(FileNotFoundError), _as_os_error(folder):
        tf.io.gfile.rmtree(address(folder))


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`, to write to; it takes the place of `path` when the block ends without an error.

    However the block ends, with a full disk or an interrupt, `path` is either the former file or the whole new one. Missing folders are
    made. The temporary name ends as `path` does, for the libraries that choose a format by it. Where `path` has a scheme, the temporary
    file lies on this machine, and travels when it is whole.

    Raises:
        KposeError: when the file cannot be written.
    """
    path = Path(path)
    if is_remote(path):
        with tempfile.TemporaryDirectory(prefix="kpose-") as folder:
            partial = Path(folder) / path.name
            yield partial
            _send(partial, path)
        return
    # `file:///data/score.json` is local.
    path = Path(address(path))
    # Machines that share a disk may write the same file, with equal process numbers.
    partial = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(3)}.partial{path.suffix}")
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


def _send(file: Path, path: Path) -> None:
    """Copy a file of this machine to where TensorFlow writes; it takes its name there when it is whole."""
    import tensorflow as tf

    target = address(path)
    partial = address(path.with_name(f".{path.stem}.{secrets.token_hex(8)}.partial{path.suffix}"))
    try:
        with _as_os_error(path):
            tf.io.gfile.makedirs(address(path.parent))
            try:
                tf.io.gfile.copy(str(file), partial)
                tf.io.gfile.rename(partial, target, overwrite=True)
            except BaseException:
                with suppress(tf.errors.OpError):
                    tf.io.gfile.remove(partial)
                raise
    except OSError as error:
        raise KposeError(f"cannot write {target}: {error.strerror}; may you write there?") from error


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
        with open_binary(path) as content, gzip.open(content) if path.suffix == ".gz" else nullcontext(content) as handle:
            data = handle.read(LARGEST_JSON_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise KposeError(f"cannot read {address(path)}: {getattr(error, 'strerror', None) or error}") from error
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
