"""Which of several poses of one photo are kept, and how sure they are: OKS suppression and rescoring.

Papandreou et al., "Towards Accurate Multi-person Pose Estimation in the Wild" (CVPR 2017), section 3.4, in the form of the evaluation
code of Xiao et al. (ECCV 2018) and Sun et al. (CVPR 2019), whose published scores are made with it.
"""

from __future__ import annotations

import numpy as np

from kpose.inference.scores import mean_joint_scores


def oks_similarity(
    keypoints: np.ndarray, others: np.ndarray, area: np.ndarray | float, other_areas: np.ndarray, sigmas: np.ndarray
) -> np.ndarray:
    """Object keypoint similarity between predicted poses.

    Args:
        keypoints: `(..., K, 2 or more)` x, y in the image frame; all joints count.
        others: of a shape that broadcasts with `keypoints`.
        area: `(...)` of the person, square image pixels; the published code takes the region that the crop shows (the padded box).
        other_areas: `(...)` of the others; the mean of both areas sets the scale.
        sigmas: `(K,)`, `Skeleton.oks_sigmas`.

    Returns:
        `(...)` in 0..1, 1 for equal poses.
    """
    variances = (2.0 * np.asarray(sigmas, np.float64)) ** 2
    difference = np.asarray(keypoints, np.float64)[..., :2] - np.asarray(others, np.float64)[..., :2]
    mean_area = (np.asarray(area, np.float64) + np.asarray(other_areas, np.float64)) / 2.0 + np.spacing(1)
    exponent = (difference**2).sum(axis=-1) / variances / mean_area[..., None] / 2.0
    return np.exp(-exponent).mean(axis=-1)


def oks_nms(keypoints: np.ndarray, scores: np.ndarray, areas: np.ndarray, sigmas: np.ndarray, threshold: float) -> np.ndarray:
    """Greedy non-maximum suppression among the poses of one image.

    Args:
        keypoints: `(N, K, 2 or more)` image frame.
        scores: `(N,)` of the people.
        areas: `(N,)` see `oks_similarity`.
        sigmas: `(K,)`.
        threshold: a pose is dropped when its similarity to a better one is greater.

    Returns:
        Positions of the kept poses, best score first; of equal scores the earlier one is better.
    """
    keypoints, areas = np.asarray(keypoints), np.asarray(areas)
    order = np.argsort(-np.asarray(scores), kind="stable")
    kept = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        order = rest[oks_similarity(keypoints[best], keypoints[rest], areas[best], areas[rest], sigmas) <= threshold]
    return np.array(kept, np.int64)


def rescore(box_scores: np.ndarray, keypoints: np.ndarray, keypoint_threshold: float = 0.2, box_rescoring: bool = True) -> np.ndarray:
    """Scores of people from those of their joints.

    Args:
        box_scores: `(N,)` of the person detector, 1 for ground-truth boxes.
        keypoints: `(N, K, 3)` x, y, score.
        keypoint_threshold: joints with a greater score count.
        box_rescoring: multiply with the box score.

    Returns:
        `(N,)` the mean score of the joints that count (0 where none does), times the box score.
    """
    means = mean_joint_scores(keypoints, keypoint_threshold)
    return means * np.asarray(box_scores) if box_rescoring else means
