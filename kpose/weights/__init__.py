"""Published weights into kpose's networks, and the trained networks that come with kpose."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kpose.weights.pretrained import list_pretrained, pretrained_path

if TYPE_CHECKING:
    from kpose.weights.torch_import import ImportReport, load_torch
    from kpose.weights.trunk import TrunkReport, load_trunk

__all__ = ["ImportReport", "TrunkReport", "list_pretrained", "load_torch", "load_trunk", "pretrained_path"]

# These need Keras, which takes seconds to import; the TFLite files of the trained networks do not.
_HOMES = {"ImportReport": "torch_import", "TrunkReport": "trunk", "load_torch": "torch_import", "load_trunk": "trunk"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"kpose.weights.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'kpose.weights' has no attribute {name!r}")
