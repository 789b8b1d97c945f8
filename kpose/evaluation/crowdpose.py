"""CrowdPose's average precision: that of COCO with its own areas, and by how crowded the image is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kpose.errors import KposeError
from kpose.evaluation.coco import METRICS, nan_where_nobody, read_for_oks
from kpose.evaluation.oks import OksEvaluation
from kpose.skeletons import CROWDPOSE_14, Skeleton

# Lowest crowd index of the images that are medium and hard. Those of the published evaluation code, and so of the published tables; the
# paper's text says 0.1 and 0.8.
MEDIUM, HARD = 0.2, 0.8


def crowdpose_ap(
    results: Sequence[dict[str, Any]] | str | Path,
    annotations: dict[str, Any] | str | Path,
    skeleton: Skeleton = CROWDPOSE_14,
    image_ids: Iterable[int] | None = None,
) -> dict[str, float]:
    """Average precision and recall as CrowdPose publishes them (Li et al., CVPR 2019, `crowdpose-api`).

    It differs from `coco_ap` in two things. A person's area is 0.53 times that of the box, whatever the annotation says. And in place of
    medium and large people there are easy, medium and hard images, by the image's `crowdIndex`: below 0.2, below 0.8, and from 0.8.

    Args:
        results: see `coco_ap`; at most the 20 best of an image count.
        annotations: see `coco_ap`; each image that is scored has a `crowdIndex` in 0..1.
        skeleton: gives the number of joints and their OKS sigmas.
        image_ids: the images to score; None for all in `annotations`.

    Returns:
        `AP`, `AP50`, `AP75`, `AR`, `AR50`, `AR75`, `AP_easy`, `AP_medium`, `AP_hard` in 0..1; NaN where there is nobody to find. The
        published code rounds the last three to four digits.

    Raises:
        KposeError: see `coco_ap`; also when an image has no crowd index.
    """
    truth, found, images = read_for_oks(results, annotations, skeleton, image_ids, areas_from_boxes=True)
    crowding = np.array([_crowd_index(truth.images[image], truth.source) for image in images.tolist()])
    sigmas = np.array(skeleton.oks_sigmas)

    def average_precision(chosen: np.ndarray) -> dict[str, float]:
        stats = OksEvaluation(truth.people, found, sigmas, images[chosen]).run() if chosen.any() else np.full(len(METRICS), -1.0)
        return {name: nan_where_nobody(value) for name, value in zip(METRICS, stats, strict=True)}

    scores = average_precision(np.ones(len(images), bool))
    return {name: scores[name] for name in ("AP", "AP50", "AP75", "AR", "AR50", "AR75")} | {
        "AP_easy": average_precision(crowding < MEDIUM)["AP"],
        "AP_medium": average_precision((crowding >= MEDIUM) & (crowding < HARD))["AP"],
        "AP_hard": average_precision(crowding >= HARD)["AP"],
    }


def _crowd_index(image: dict[str, Any], source: str) -> float:
    value = image.get("crowdIndex")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and 0 <= value <= 1):
        raise KposeError(f"{source}: image {image['id']} has crowdIndex {value!r}, expected a number in 0..1; is it a CrowdPose file?")
    return float(value)
