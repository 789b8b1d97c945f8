"""The trained networks that come with kpose, by name; nothing is fetched from anywhere.

kpose.list_pretrained()
estimator = kpose.PoseEstimator.from_pretrained("lite_mobilenet_v3_256x192")
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Literal

from kpose.errors import KposeError, did_you_mean

# What `kpose predict` uses when it is told nothing else.
DEFAULT = "lite_mobilenet_v3_256x192"
# Inside the package, so that whoever installs it has them. `scripts/release_weights.py` writes the files and the list of their hashes.
FOLDER = Path(__file__).with_name("released")
# In the form of `sha256sum`, which can check it too.
CHECKSUMS = "SHA256SUMS"

Kind = Literal["keras", "fp16", "int8"]
# What follows the network's name: Keras with float16 weights, and TFLite of either precision.
ENDINGS: dict[str, str] = {"keras": ".keras", "fp16": "_fp16.tflite", "int8": "_int8.tflite"}


def list_pretrained() -> list[str]:
    """The names of the trained networks that are at hand."""
    ending = ENDINGS["keras"]
    return sorted(name.removesuffix(ending) for name in read_checksums() if name.endswith(ending) and (FOLDER / name).is_file())


def pretrained_path(name: str, kind: Kind = "keras") -> Path:
    """The file of a trained network that comes with kpose.

    Args:
        name: one of `list_pretrained()`.
        kind: "keras" for `load_model`; "fp16" or "int8" for TFLite.

    Raises:
        KposeError: when there is no such network, not this kind of it, or the file is not the one that was released.
    """
    if kind not in ENDINGS:
        raise KposeError(f"there is no kind {kind!r} of a trained network; there are {', '.join(ENDINGS)}")
    checksums, names = read_checksums(), list_pretrained()
    if name not in names:
        listed = ", ".join(names) or "none"
        raise KposeError(f"no trained network named {name!r} comes with kpose{did_you_mean(name, names, f'there are: {listed}')}")
    path = FOLDER / f"{name}{ENDINGS[kind]}"
    if path.name not in checksums:
        kinds = ", ".join(other for other, ending in ENDINGS.items() if f"{name}{ending}" in checksums)
        raise KposeError(f"of {name} no {kind!r} comes with kpose, only {kinds}; kpose.export makes it from the .keras file")
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise KposeError(f"cannot read {path}: {error.strerror}; install kpose anew") from error
    if found != checksums[path.name]:
        # Damage, and stand-ins that version control leaves for large files; whoever can exchange the file can exchange its hash.
        raise KposeError(f"{path} is not the file that was released: its SHA-256 begins with {found[:12]}; install kpose anew")
    return path


def find_checkpoint(source: str | Path) -> Path:
    """The `.keras` file that is meant by a path, or by the name of a network that comes with kpose; a file that exists wins.

    Raises:
        KposeError: when there is neither.
    """
    path, name = Path(source), str(source)
    if path.is_file():
        return path
    names = list_pretrained()
    if name in names:
        return pretrained_path(name)
    if path.name != name:  # it has a folder: no name, not even a misspelt one
        raise KposeError(f"there is no checkpoint {path}")
    if path.suffix == ENDINGS["keras"]:
        raise KposeError(f"there is no checkpoint {path}{did_you_mean(path.stem, names)}")
    listed = f"kpose comes with {', '.join(names) or 'none'}"
    raise KposeError(f"there is no checkpoint {path}, nor a trained network of that name{did_you_mean(name, names, listed)}")


def read_checksums() -> dict[str, str]:
    """SHA-256 of each released file by its name; empty where nothing was released.

    Raises:
        KposeError: when the list is damaged.
    """
    path = FOLDER / CHECKSUMS
    if not path.is_file():
        return {}
    found = {}
    for line in path.read_text(encoding="ascii", errors="replace").splitlines():
        # Two spaces, and a name without a folder.
        match = re.fullmatch(r"([0-9a-f]{64})  (\w[\w.]*)", line, re.ASCII)
        if match is None:
            raise KposeError(f"{path} is damaged: {line[:80]!r} is not a SHA-256 and a file's name; install kpose anew")
        found[match[2]] = match[1]
    return found
