"""Which score a dataset gets: the published protocol of each, and what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kpose.config import DatasetConfig
from kpose.data import Instances, ValidationSet
from kpose.errors import KposeError
from kpose.evaluation.coco import coco_ap
from kpose.evaluation.crowdpose import crowdpose_ap
from kpose.evaluation.pck import TORSO, check_points, correct_percentages, pair_groups, pck
from kpose.evaluation.pckh import pckh_of_head_sizes
from kpose.files import read_json
from kpose.skeletons import MPII_16

Results = list[dict[str, Any]]


@dataclass(frozen=True)
class Metric:
    """A score and how it is computed.

    Attributes:
        title: its name in protocol cards.
        logged: the metrics that logs and summaries show; the first is the one that counts.
        compute: metrics by name, from the keypoints `(N, K, 3)` of all people in the image frame, the COCO result list of those that
            suppression left, the truth (`truth_of`) and the set.
        require: raises `KposeError` where a set cannot be scored so.
    """

    title: str
    logged: tuple[str, ...]
    compute: Callable[[np.ndarray, Results, dict[str, Any], ValidationSet], dict[str, float]]
    require: Callable[[ValidationSet], None]


# The protocol under which each dataset is published.
_OF_FORMAT = {
    "coco": "oks",
    "tfrecord": "oks",
    "aic": "oks",
    "crowdpose": "crowdpose",
    "mpii": "pckh",
    "lsp": "pck",
    "lspet": "pck",
}


def metric_of(dataset: DatasetConfig) -> Metric:
    """The score of a validation set: its `protocol`, or the one of its format."""
    return _METRICS[dataset.protocol or _OF_FORMAT[dataset.format]]


def truth_of(validation: ValidationSet) -> dict[str, Any]:
    """What predictions are compared with, in COCO's layout.

    From a COCO-style file it is that file's content, with its crowds and its people without keypoints; joints that the network does not
    have count as not annotated. Other formats give the people that were read.

    Raises:
        KposeError: when the people have no annotation file.
    """
    dataset, instances, known = validation.dataset, validation.instances, validation.mapping.known
    if instances.annotation_file is None:
        raise KposeError("these people come without an annotation file, so there is nothing to score against; set 'annotations'")
    content = read_json(instances.annotation_file) if dataset.format in ("coco", "crowdpose", "tfrecord") else None
    if not isinstance(content, dict):
        return _truth_from(instances, known)
    people = content.get("annotations")
    if not isinstance(people, list):
        return content  # the score says what is wrong with it
    if dataset.people is not None:
        chosen = set(instances.ids.tolist())
        people = [person for person in people if person.get("id") in chosen or person.get("iscrowd")]
    if not known.all():
        people = [_without(person, known) for person in people]
    return {**content, "annotations": people}


def _truth_from(instances: Instances, known: np.ndarray) -> dict[str, Any]:
    keypoints = np.where(known[:, None], instances.keypoints, 0).astype(np.float64)
    return {
        "images": [{"id": int(number)} for number in instances.image_ids],
        "categories": [{"id": 1, "name": "person", "keypoints": list(instances.skeleton.joint_names)}],
        "annotations": [
            {
                "id": position + 1,
                "image_id": int(instances.image_ids[image]),
                "category_id": 1,
                "keypoints": points.ravel().tolist(),
                "num_keypoints": int(np.count_nonzero(points[:, 2] > 0)),
                "bbox": box.tolist(),
                "area": float(area),
                "iscrowd": 0,
            }
            for position, (image, points, box, area) in enumerate(
                zip(instances.image_index, keypoints, instances.boxes.astype(np.float64), instances.areas, strict=True)
            )
        ],
    }


def _without(person: dict[str, Any], known: np.ndarray) -> dict[str, Any]:
    """An annotation of which only the known joints are annotated."""
    given = person.get("keypoints")
    if not isinstance(given, list) or len(given) != 3 * len(known):
        return person  # the score says what is wrong with it
    keypoints = [value if known[position // 3] else 0 for position, value in enumerate(given)]
    return {**person, "keypoints": keypoints, "num_keypoints": sum(flag > 0 for flag in keypoints[2::3])}


def _require_sigmas(validation: ValidationSet) -> None:
    skeleton = validation.instances.skeleton
    if skeleton.oks_sigmas is None:
        raise KposeError(
            f"{validation.name}: skeleton {skeleton.name!r} has no 'oks_sigmas', so AP cannot be computed; add them, or set this "
            "validation set's 'protocol' to pck_box"
        )


def _require_head_sizes(validation: ValidationSet) -> None:
    instances = validation.instances
    if instances.skeleton.joint_names != MPII_16.joint_names:
        raise KposeError(f"{validation.name}: PCKh is for the joints of {MPII_16.name!r}, these are {instances.skeleton.name!r}; use pck")
    if not np.isfinite(instances.head_sizes).all():
        unknown = np.count_nonzero(~np.isfinite(instances.head_sizes))
        raise KposeError(
            f"{validation.name}: the head size of {unknown} of {len(instances)} people is unknown, and PCKh is measured in it; give "
            "'head_boxes' (gt_valid.mat) beside valid.json, or take valid.h5 or the official .mat"
        )


def _require_torso(validation: ValidationSet) -> None:
    skeleton = validation.instances.skeleton
    if not set(TORSO) <= set(skeleton.joint_names):
        raise KposeError(
            f"{validation.name}: PCK is measured in torsos, and skeleton {skeleton.name!r} lacks {' or '.join(TORSO)}; set this validation "
            "set's 'protocol' to pck_box"
        )


def _require_nothing(validation: ValidationSet) -> None:
    """Every set has boxes."""


def _coco_ap(keypoints: np.ndarray, results: Results, truth: dict[str, Any], validation: ValidationSet) -> dict[str, float]:
    return coco_ap(results, truth, validation.instances.skeleton, validation.instances.image_ids)


def _crowdpose_ap(keypoints: np.ndarray, results: Results, truth: dict[str, Any], validation: ValidationSet) -> dict[str, float]:
    return crowdpose_ap(results, truth, validation.instances.skeleton, validation.instances.image_ids)


def _pckh(keypoints: np.ndarray, results: Results, truth: dict[str, Any], validation: ValidationSet) -> dict[str, float]:
    positions, missing = validation.instances.keypoints[..., :2], _missing(validation)
    sizes = validation.instances.head_sizes
    half = pckh_of_head_sizes(keypoints[..., :2], positions, sizes, missing, threshold=0.5)
    tenth = pckh_of_head_sizes(keypoints[..., :2], positions, sizes, missing, threshold=0.1)
    return {"PCKh": half.pop("mean"), "PCKh@0.1": tenth["mean"], **half}


def _pck(keypoints: np.ndarray, results: Results, truth: dict[str, Any], validation: ValidationSet) -> dict[str, float]:
    instances = validation.instances
    found = pck(keypoints[..., :2], instances.keypoints[..., :2], _missing(validation), skeleton=instances.skeleton)
    return {"PCK": found.pop("mean"), **found}


def _pck_of_boxes(keypoints: np.ndarray, results: Results, truth: dict[str, Any], validation: ValidationSet) -> dict[str, float]:
    instances, skeleton = validation.instances, validation.instances.skeleton
    found = correct_percentages(
        *check_points(keypoints[..., :2], instances.keypoints[..., :2], _missing(validation), skeleton),
        units=instances.boxes[:, 2:].max(axis=1),
        threshold=0.2,
        skeleton=skeleton,
        pooled=skeleton.joint_names,
        groups=pair_groups(skeleton),
    )
    return {"PCK": found.pop("mean"), **found}


def _missing(validation: ValidationSet) -> np.ndarray:
    """`(N, K)`: joints that are not annotated, or that the network does not have."""
    return (validation.instances.keypoints[..., 2] == 0) | ~validation.mapping.known


_METRICS = {
    "oks": Metric("OKS AP", ("AP", "AP50", "AP75", "APM", "APL", "AR"), _coco_ap, _require_sigmas),
    "crowdpose": Metric("CrowdPose AP", ("AP", "AP50", "AP75", "AP_easy", "AP_medium", "AP_hard"), _crowdpose_ap, _require_sigmas),
    "pckh": Metric("PCKh@0.5", ("PCKh", "PCKh@0.1"), _pckh, _require_head_sizes),
    "pck": Metric("PCK@0.2", ("PCK",), _pck, _require_torso),
    # Yang and Ramanan (PAMI 2013): the unit is the longer side of the person's box.
    "pck_box": Metric("PCK@0.2 of the box", ("PCK",), _pck_of_boxes, _require_nothing),
}
