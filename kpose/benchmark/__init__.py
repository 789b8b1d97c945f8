"""Speed: of training data and training steps against what limits them, of networks against one another, of the score, of a served model.

And what encodings lose; what TFLite files of every precision lose and take; and what networks score and take beside those that people
would use instead.
"""

from __future__ import annotations

from kpose.benchmark.codecs import benchmark_codecs
from kpose.benchmark.cost import benchmark_cost
from kpose.benchmark.data import benchmark_data
from kpose.benchmark.export import benchmark_export
from kpose.benchmark.models import benchmark_models
from kpose.benchmark.peers import benchmark_peers
from kpose.benchmark.scoring import benchmark_scoring
from kpose.benchmark.serving import benchmark_serving
from kpose.benchmark.training import benchmark_training

__all__ = [
    "benchmark_codecs",
    "benchmark_cost",
    "benchmark_data",
    "benchmark_export",
    "benchmark_models",
    "benchmark_peers",
    "benchmark_scoring",
    "benchmark_serving",
    "benchmark_training",
]
