"""Which operations lose most in 8-bit integers, each measured by itself; and which of them to keep in float."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from kpose.export.metadata import read_schema
from kpose.export.quantisation import Ranges, output_names, quantise, quantise_alone, relative_rms, run

# Of the heatmaps' error, as the sum of what each operation adds to its square: so much of it is to go, by so many operations at most.
_SHARE = 0.5
_MOST = 8


@dataclass(frozen=True)
class Sensitivity:
    """What was found.

    Attributes:
        errors: by the output of every operation that was quantised alone, the relative rms of the heatmaps; the greatest first.
        kept: outputs of the operations to be kept in float, those that see what the worst ones give among them, which they would have to
            see in integers; none where that gains nothing.
        before: relative rms of the heatmaps with all of them in integers.
        after: with those kept in float.
    """

    errors: dict[str, float]
    kept: list[str]
    before: float
    after: float


def sensitive_operations(content: bytes, ranges: Ranges, crops: np.ndarray, progress: bool = True) -> Sensitivity:
    """Quantise one operation after the other, alone, and keep those in float that matter most.

    Args:
        content: a float32 TFLite file of heatmaps, see `kpose.export.quantisation.quantise`.
        ranges: of every tensor that it computes.
        crops: `(N, H, W, 3)` in 0..255; better others than the ranges were found on.
        progress: show a bar.
    """
    expected = run(content, crops)
    errors = {}
    for name in tqdm(output_names(content), desc="quantising alone", unit=" operations", disable=not progress, leave=False):
        alone = quantise_alone(content, ranges, name)
        if len(output_names(alone)) > len(output_names(content)):  # else the quantiser left it as it is
            errors[name] = relative_rms(run(alone, crops), expected)
    errors = dict(sorted(errors.items(), key=lambda entry: -entry[1]))
    worst = _worst(list(errors), np.array(list(errors.values())))
    kept = list(dict.fromkeys(name for one in worst for name in (one, *_consumers(content, one))))
    before, after = (relative_rms(run(quantise(content, ranges, names), crops), expected) for names in ((), kept))
    return Sensitivity(errors, kept if after < before else [], before, min(before, after))


def _worst(names: Sequence[str], errors: np.ndarray) -> list[str]:
    """The fewest operations that make up the share, errors in descending order."""
    squares = np.cumsum(errors**2)
    enough = int(np.searchsorted(squares, _SHARE * squares[-1])) + 1 if len(squares) else 0
    return list(names[: min(enough, _MOST)])


def _consumers(content: bytes, name: str) -> list[str]:
    """The outputs of the operations that see a tensor."""
    (graph,) = read_schema("int8").ModelT.InitFromPackedBuf(content).subgraphs
    seen = [[graph.tensors[int(index)].name.decode() for index in operation.inputs if index >= 0] for operation in graph.operators]
    return [graph.tensors[int(one.outputs[0])].name.decode() for one, inputs in zip(graph.operators, seen, strict=True) if name in inputs]
