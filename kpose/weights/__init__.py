"""Published weights into kpose's networks."""

from __future__ import annotations

from kpose.weights.trunk import TrunkReport, load_trunk

__all__ = ["TrunkReport", "load_trunk"]
