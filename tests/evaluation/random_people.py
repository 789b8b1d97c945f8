"""Arguments of the scores that count correct joints, for people made up at random."""

from __future__ import annotations

import numpy as np


def lsp_people(seed: int, count: int = 9) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = random.uniform(0, 200, (count, 14, 2))
    missing = random.random((count, 14)) < 0.2
    missing[0] = False
    return {"predictions": truth + random.normal(size=truth.shape) * 10, "ground_truth": truth, "missing": missing}


def mpii_people(seed: int, count: int = 9) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = random.uniform(0, 200, (count, 16, 2))
    corners = random.uniform(0, 200, (count, 2, 2))
    corners[:, 1] = corners[:, 0] + random.uniform(10, 60, (count, 2))
    missing = random.random((count, 16)) < 0.3
    missing[0] = False  # every joint is annotated at least once
    return {
        "predictions": truth + random.normal(size=truth.shape) * 10,
        "ground_truth": truth,
        "head_boxes": corners,
        "missing": missing,
    }
