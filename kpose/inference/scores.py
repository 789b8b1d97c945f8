"""How sure a network is of a person."""

from __future__ import annotations

import numpy as np


def mean_joint_scores(keypoints: np.ndarray, keypoint_threshold: float = 0.2) -> np.ndarray:
    """Scores of people from those of their joints, as the evaluation code of Xiao et al. (ECCV 2018) takes them.

    Args:
        keypoints: `(..., K, 3)` x, y, score.
        keypoint_threshold: joints with a greater score count.

    Returns:
        `(...)`: the mean score of the joints that count, 0 where none does.
    """
    joint_scores = np.asarray(keypoints)[..., 2]
    counts = joint_scores > keypoint_threshold
    return (joint_scores * counts).sum(axis=-1) / np.maximum(counts.sum(axis=-1), 1)
