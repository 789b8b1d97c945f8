"""Speed: of the training pipeline against its ceiling, of the networks against one another, of the score against pycocotools.

And what encodings lose.
"""

from __future__ import annotations

from kpose.benchmark.codecs import benchmark_codecs
from kpose.benchmark.data import benchmark_data
from kpose.benchmark.models import benchmark_models
from kpose.benchmark.scoring import benchmark_scoring

__all__ = ["benchmark_codecs", "benchmark_data", "benchmark_models", "benchmark_scoring"]
