"""The page of settings, made from the types, defaults and comments in `kpose/config.py`."""

from __future__ import annotations

import ast
import inspect
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import kpose.config
from kpose.config import Config
from kpose.yaml_files import format_yaml

_SIGNS = {
    Ge: ("ge", "at least"),
    Gt: ("gt", "greater than"),
    Le: ("le", "at most"),
    Lt: ("lt", "less than"),
    MinLen: ("min_length", "length at least"),
}
_WORDS = {str: "text", int: "integer", float: "number", bool: "true or false", Path: "path", Any: "anything", type(None): "null"}


@dataclass(frozen=True)
class Setting:
    """One key of a configuration file.

    Attributes:
        key: with its section's name in front; `[]` stands behind a list of sections.
        kind: the values that it takes, in words.
        default: as it stands in a YAML file.
        description: the comment in the source.
    """

    key: str
    kind: str
    default: str
    description: str


@dataclass(frozen=True)
class Section:
    """Some settings that belong together: their key, what they are about, and they themselves."""

    key: str
    description: str
    settings: list[Setting]


def sections(model: type[BaseModel] = Config, key: str = "") -> list[Section]:
    """All sections in the order of the source, the outermost first."""
    comments = _comments()[model.__name__]
    own, inner = [], []
    for name, field in model.model_fields.items():
        nested = _model_of(field.annotation)
        full = f"{key}.{name}" if key else name
        if nested is None:
            own.append(Setting(full, _field_kind(field), _shown(field.get_default()), comments.get(name, "")))
        else:
            inner += sections(nested, f"{full}[]" if get_origin(field.annotation) is list else full)
    return [Section(key, inspect.getdoc(model) or "", own), *inner]


def page() -> str:
    """The page as Markdown."""
    parts = [
        "# Configuration\n",
        "One YAML file describes an experiment; `kpose VERB --config FILE KEY=VALUE` replaces settings by their dotted key, such as "
        "`training.epochs=10`. `extends: FILE`, a path from the file itself, names a configuration whose settings hold where this one is "
        "silent. An unknown key is refused, with the nearest known one.\n",
        "Paths are relative to the working directory.\n",
    ]
    for section in sections():
        parts.append(f"## {section.key.replace('[]', '')}\n" if section.key else "## At the top\n")
        parts.append(section.description + (" A list of such." if section.key.endswith("[]") else "") + "\n")
        if section.settings:
            parts.append("| key | values | default | |\n|---|---|---|---|")
            parts += [
                f"| `{setting.key}` | {_cell(setting.kind)} | `{setting.default}` | {_cell(setting.description)} |"
                for setting in section.settings
            ]
            parts.append("")
    return "\n".join(parts)


def _comments() -> dict[str, dict[str, str]]:
    """The comment behind each setting, by class and name."""
    source = inspect.getsource(kpose.config)
    lines = source.splitlines()
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            fields = [field for field in node.body if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)]
            found[node.name] = {}
            for field in fields:
                # Columns of the syntax tree count bytes.
                rest = lines[(field.end_lineno or 1) - 1].encode()[field.end_col_offset :].decode()
                found[node.name][field.target.id] = rest.partition("#")[2].strip()  # type: ignore[union-attr]
    return found


def _model_of(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and not isinstance(candidate, types.GenericAlias) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _field_kind(field: FieldInfo) -> str:
    return _kind(field.annotation) + _bounds(field.metadata)


def _kind(annotation: Any) -> str:
    """The values of a type in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        metadata = [item for extra in arguments[1:] for item in (extra.metadata if isinstance(extra, FieldInfo) else [extra])]
        return _kind(arguments[0]) + _bounds(metadata)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_kind, arguments))
    if origin is list:
        return f"list of: {_kind(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(map(_kind, arguments))}]"
    if origin is dict:
        return f"{_kind(arguments[0])}: {_kind(arguments[1])}, ..."
    return _WORDS[annotation]


def _bounds(metadata: list[Any]) -> str:
    words = [f"{word} {getattr(item, name)}" for item in metadata for kind, (name, word) in _SIGNS.items() if isinstance(item, kind)]
    return f" ({', '.join(words)})" if words else ""


def _shown(value: Any) -> str:
    """A default as YAML in one line."""
    if value is None:
        return "null"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, dict) and not value:
        return "{}"
    if isinstance(value, Path):
        return str(value)
    return format_yaml(value).removesuffix("...\n").strip() if not isinstance(value, str) else value


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
