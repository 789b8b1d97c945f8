"""The error for bad input from outside, and the hint that comes with a misspelt name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class KposeError(ValueError):
    """Input that kpose refuses: a file, a setting, an annotation.

    The message is one line that names what is wrong, where, and the remedy. The command line prints it without a traceback.
    """


def nearest(value: Any, choices: Iterable[str]) -> str | None:
    """The choice that is spelt most like `value`; None where none is near."""
    return next(iter(difflib.get_close_matches(str(value), list(choices), n=1)), None)


def did_you_mean(value: Any, choices: Iterable[str], otherwise: str = "") -> str:
    """`; did you mean 'x'?` for the choice nearest to `value`; where none is near, `; ` and `otherwise`, or nothing."""
    near = nearest(value, choices)
    if near is not None:
        return f"; did you mean {near!r}?"
    return f"; {otherwise}" if otherwise else ""
