"""The checks every network makes of its arguments before it builds anything."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kpose.errors import KposeError, did_you_mean


def check_input_size(network: str, input_size: Any, multiple: int) -> tuple[int, int]:
    """Returns (height, width) as integers.

    Raises:
        KposeError: when it is not a pair of positive multiples of `multiple`.
    """
    try:
        height, width = (int(side) for side in input_size)
        valid = (height, width) == tuple(input_size) and min(height, width) > 0 and height % multiple == 0 and width % multiple == 0
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise KposeError(
            f"{network}: input_size is {input_size!r}, but must be (height, width), each a positive multiple of {multiple}, "
            f"e.g. {(256, 192) if 64 % multiple == 0 else (2 * multiple, multiple)}"
        )
    return height, width


def check_num_keypoints(network: str, num_keypoints: Any) -> int:
    """Returns the number of joints.

    Raises:
        KposeError: when it is no integer of 1 or more.
    """
    check_integer(network, "num_keypoints", num_keypoints, minimum=1)
    return int(num_keypoints)


def check_integer(network: str, argument: str, value: Any, minimum: int = 1, maximum: int | None = None, multiple: int = 1) -> None:
    """Raises KposeError when `value` is no integer from `minimum` to `maximum`, or no multiple of `multiple`."""
    valid = isinstance(value, int) and not isinstance(value, bool) and value >= minimum and value % multiple == 0
    if valid and (maximum is None or value <= maximum):
        return
    limits = f"of {minimum} or more" if maximum is None else f"from {minimum} to {maximum}"
    wanted = f"an integer {limits}" if multiple == 1 else f"a positive multiple of {multiple}"
    raise KposeError(f"{network}: {argument} is {value!r}, but must be {wanted}")


def check_choice(network: str, argument: str, value: Any, choices: Iterable[str]) -> None:
    """Raises KposeError, naming the nearest valid choice, when `value` is none of `choices`."""
    choices = list(choices)
    if value not in choices:
        raise KposeError(f"{network}: {argument} is {value!r}, but must be one of {', '.join(choices)}{did_you_mean(value, choices)}")
