"""Checks that the readers share: fields of JSON entries, a choice of people, names and presence of pictures."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from kpose.data.instances import Instances
from kpose.errors import KposeError
from kpose.files import address, list_folder

# No JPEG is larger; beyond these a file is broken or means harm.
MAXIMUM_IMAGE_SIDE = 65535
MAXIMUM_COORDINATE = 1e6

Span = tuple[int, int]


def kind_of(value: Any) -> str:
    """What a JSON value is, for a message."""
    return {dict: "an object", list: "a list", str: "a text", type(None): "nothing"}.get(type(value), repr(value)[:40])


def shown(value: Any, given: bool = True) -> str:
    """A value in a message, cut short; `missing` where it is not given."""
    if not given:
        return "missing"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def require_objects(entries: list[Any], source: Path, where: str) -> list[dict[str, Any]]:
    """The entries of a list, all of which must be objects. Raises `KposeError`."""
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise KposeError(f"{source}: entry {position} of {where} is {kind_of(entry)}, expected an object")
    return entries


def whole_number(entry: dict[str, Any], key: str, source: Path, what: str) -> int:
    """An integer field that fits 64 bits; some writers give it as 1.0. Raises `KposeError`."""
    value = entry.get(key)
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole or abs(value) >= 2**63:  # type: ignore[arg-type]
        raise KposeError(f"{source}: {what} has {key!r} {shown(value, key in entry)}, expected a whole number")
    return int(value)  # type: ignore[arg-type]


def numbers(entry: dict[str, Any], key: str, length: int, source: Path, what: str) -> list[float]:
    """A field of `length` finite numbers within `MAXIMUM_COORDINATE`. Raises `KposeError`."""
    values = entry.get(key)
    if not isinstance(values, list) or len(values) != length:
        found = f"{len(values)} numbers" if isinstance(values, list) else shown(values, key in entry)
        raise KposeError(f"{source}: {what} has {key!r} {found}, expected {length} numbers")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or abs(value) > MAXIMUM_COORDINATE:
            raise KposeError(
                f"{source}: {what} has {shown(value)} in {key!r}, expected a number within {MAXIMUM_COORDINATE:g}; mend or remove it"
            )
    return values


def check_span(people: Span | None, count: int, source: Path) -> Span:
    """From and up to which of the file's people to read; by default all `count` of them.

    Raises:
        KposeError: when the file does not have them.
    """
    if people is None:
        return 0, count
    first, end = people
    if not 0 <= first < end <= count:
        raise KposeError(f"{source} has {count} people: 'people' is [{first}, {end}], which must lie within [0, {count}] and hold somebody")
    return first, end


def stays_inside(name: str) -> bool:
    """Whether a file name of an annotation stays in the folder of images."""
    path = PurePosixPath(name.replace("\\", "/"))
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name and ":" not in path.parts[0]


def image_path(folder: Path, entry: dict[str, Any], key: str, source: Path, what: str, suffix: str = "") -> str:
    """Where the picture of an entry lies.

    Raises:
        KposeError: when the name in field `key` is none or leaves the folder.
    """
    name = entry.get(key)
    if not isinstance(name, str) or not name:
        raise KposeError(f"{source}: {what} has {key!r} {shown(name, key in entry)}, expected a file name")
    if not stays_inside(name):
        raise KposeError(f"{source}: {what} has the file name {shown(name)}, which leaves the image folder; make it relative")
    return os.path.join(address(folder), name + suffix)


def with_pictures(instances: Instances, folder: Path, source: Path, partial: bool) -> Instances:
    """The people whose picture is there; the others are refused, or with `partial` left out and noted.

    One listing per folder instead of one look-up per image: annotation files list hundreds of thousands.

    Raises:
        KposeError: when pictures are missing and `partial` is not set.
    """
    listings: dict[str, set[str]] = {}
    missing = []
    used = np.unique(instances.image_index)
    for image in used.tolist():
        parent, name = os.path.split(instances.image_files[image])
        if parent not in listings:
            try:
                listings[parent] = set(list_folder(parent))
            except OSError:
                listings[parent] = set()
        if name not in listings[parent]:
            missing.append(image)
    if not missing:
        return instances
    if not partial:
        what = "image that it lists is" if len(missing) == 1 else "images that it lists are"
        raise KposeError(
            f"{source}: {len(missing)} {what} missing, first {instances.image_files[missing[0]]}; check that 'images' ({folder}) is the "
            "right folder and complete"
        )
    kept = instances.select(~np.isin(instances.image_index, missing))
    note = f"{source}: {len(instances) - len(kept)} people left out: {len(missing)} of {len(used)} images are missing"
    return replace(kept, notes=(*kept.notes, note))
