"""YAML that people write, read without its traps; every fault is told in one line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from kpose.errors import KposeError

# Far above any configuration or skeleton: a wrong file (a dataset, a checkpoint) is refused before it is parsed.
MAXIMUM_BYTES = 1_000_000

_TAG = "tag:yaml.org,2002:"
_SIGN_OR_DIGIT = list("-+0123456789.")
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)$|0x[0-9a-fA-F]+$")
_FLOAT = re.compile(
    r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$|[-+]?[0-9]+[eE][-+]?[0-9]+$|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
)


class _Loader(yaml.SafeLoader):
    """Plain values only; numbers as in YAML 1.2.

    PyYAML follows YAML 1.1, where `5e-4` is text, `20241207_101929` and `1:30` are integers and `010` is 8.
    """

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node] | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)  # type: ignore[arg-type]
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    # PyYAML would keep the last one and drop the others without a word.
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} stands there twice", key.start_mark)
                seen.add(key.value)
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes the text that `_Loader` would take for a number."""


for _class in (_Loader, _Dumper):
    _class.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in (f"{_TAG}int", f"{_TAG}float", f"{_TAG}timestamp")]
        for first, resolvers in _class.yaml_implicit_resolvers.items()
    }
    _class.add_implicit_resolver(f"{_TAG}int", _INTEGER, _SIGN_OR_DIGIT)
    _class.add_implicit_resolver(f"{_TAG}float", _FLOAT, _SIGN_OR_DIGIT)


def parse_yaml(text: str, source: str) -> Any:
    """The value of a YAML text: mappings, lists, text, numbers, booleans and null, nothing else.

    Args:
        text: the YAML.
        source: where it comes from, named in errors.

    Raises:
        KposeError: when it is not valid YAML, names a key twice or asks for a Python object.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise KposeError(f"{source} is not valid YAML: {line}{error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise KposeError(f"{source} is not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise KposeError(f"{source} is not valid YAML: it is nested too deeply") from error


def read_yaml(path: str | Path, what: str) -> Any:
    """The value of a YAML file.

    Args:
        path: the file.
        what: what it should hold (`configuration`), named in errors.

    Raises:
        KposeError: when it cannot be read, is too large, or see `parse_yaml`.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAXIMUM_BYTES + 1)
    except OSError as error:
        raise KposeError(f"cannot read {what} {path}: {error.strerror}") from error
    if len(content) > MAXIMUM_BYTES:
        raise KposeError(f"{path} is larger than {MAXIMUM_BYTES} bytes: hardly a {what}")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise KposeError(f"{path} is not valid YAML: byte {error.start} is no UTF-8 text") from error
    return parse_yaml(text, str(path))


def format_yaml(value: Any) -> str:
    """YAML text that `parse_yaml` reads back as the same value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=140)
