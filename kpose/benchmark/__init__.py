"""Speed: of the training pipeline against its ceiling, of the networks against one another."""

from __future__ import annotations

from kpose.benchmark.data import benchmark_data
from kpose.benchmark.models import benchmark_models

__all__ = ["benchmark_data", "benchmark_models"]
