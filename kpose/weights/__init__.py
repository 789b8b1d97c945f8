"""Published weights into kpose's networks."""

from __future__ import annotations

from kpose.weights.torch_import import ImportReport, load_torch
from kpose.weights.trunk import TrunkReport, load_trunk

__all__ = ["ImportReport", "TrunkReport", "load_torch", "load_trunk"]
