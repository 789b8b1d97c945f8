"""The pages of the Python interface: mkdocstrings reads signatures and docstrings out of the source, nothing is imported."""

from __future__ import annotations

import ast
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
# What users import, the most common first.
MODULES = [
    "kpose",
    "kpose.inference",
    "kpose.models",
    "kpose.config",
    "kpose.data",
    "kpose.training",
    "kpose.losses",
    "kpose.codecs",
    "kpose.evaluation",
    "kpose.export",
    "kpose.weights",
    "kpose.checkpoint",
    "kpose.skeletons",
    "kpose.geometry",
    "kpose.visualize",
    "kpose.audit",
    "kpose.benchmark",
    "kpose.demo",
    "kpose.errors",
]


def page(module: str) -> str:
    """The page of one module as Markdown."""
    parts = [f"# {module}\n", f"::: {module}\n"]
    folder = REPOSITORY.joinpath(*module.split("."))
    for name in _exported(folder / "__init__.py"):
        if (folder / f"{name}.py").is_file():
            # A function that is called as its file is, which mkdocstrings takes for the file.
            parts.append(f"::: {module}.{name}.{name}\n    options: {{show_root_heading: true, show_root_full_path: false}}\n")
    return "\n".join(parts)


def _exported(path: Path) -> list[str]:
    """The names in a module's `__all__`."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body if path.is_file() else ():
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            return list(ast.literal_eval(node.value))
    return []
