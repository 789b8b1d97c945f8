"""The page of commands: what each says for `--help`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from unittest import mock

from kpose.cli import make_parser

_COLUMNS = "88"


def commands(parser: argparse.ArgumentParser | None = None, words: tuple[str, ...] = ("kpose",)) -> Iterator[tuple[str, str]]:
    """Every command and the help that it prints."""
    parser = parser or make_parser()
    # argparse wraps at the width of the terminal.
    with mock.patch.dict(os.environ, COLUMNS=_COLUMNS):
        yield " ".join(words), parser.format_help()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from commands(child, (*words, name))


def page() -> str:
    """The page as Markdown."""
    parts = ["# Commands\n\nEach command as it describes itself; `scripts/VERB.py` in the repository does the same.\n"]
    for name, text in commands():
        level = "##" if name.count(" ") < 2 else "###"
        parts.append(f"{level} {name}\n\n```text\n{text.rstrip()}\n```\n")
    return "\n".join(parts)
