"""How many samples of a stream each of several datasets gets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# With weights, so many consecutive samples hold each dataset's share exactly (to a thousandth), in an order drawn anew each time.
CYCLE = 1000


def shares(weights: Sequence[float]) -> np.ndarray:
    """`(D,)` int64: how many of `CYCLE` samples come from each of D datasets of those weights; at least one, `CYCLE` in all."""
    exact = np.asarray(weights, np.float64) / np.sum(weights) * CYCLE
    counts = np.maximum(np.floor(exact), 1).astype(np.int64)
    # What is left goes to the largest remainders; what the ones at least took too much comes off the largest share.
    left = CYCLE - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[: max(left, 0)]] += 1
    counts[np.argmax(counts)] += min(left, 0)
    return counts
