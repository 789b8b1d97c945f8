"""OKS average precision, equal to that of pycocotools.

What is added to pycocotools is what it leaves to luck: results and annotations are checked before they are compared, any skeleton with OKS
sigmas is accepted, nothing is printed, and nobody waits (see `kpose.evaluation.oks`).
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kpose.errors import KposeError
from kpose.evaluation.oks import AnnotatedPeople, FoundPeople, OksEvaluation
from kpose.files import read_json, write_json
from kpose.skeletons import COCO_17, Skeleton

METRICS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")

# Annotations without an area (CrowdPose): the part of a box that a person fills, as the CrowdPose evaluation has it.
_AREA_OF_BOX = 0.53


def coco_ap(
    results: Sequence[dict[str, Any]] | str | Path,
    annotations: dict[str, Any] | str | Path,
    skeleton: Skeleton = COCO_17,
    image_ids: Iterable[int] | None = None,
) -> dict[str, float]:
    """Average precision and recall of object keypoint similarity (https://cocodataset.org/#keypoints-eval).

    Args:
        results: the official result list, one dict a person with `image_id`, `category_id`, `keypoints` (3K numbers, x, y in the image
            frame; the third number is not looked at, nor is a `bbox`) and `score`; or the path of such a JSON file (`.gz` too).
        annotations: ground truth in COCO's layout: a loaded dict (left unchanged) or the path of its JSON file (`.gz` too).
        skeleton: gives the number of joints and their OKS sigmas.
        image_ids: the images to score; None for all in `annotations`.

    Returns:
        AP and AR over OKS 0.50 to 0.95, at 0.50 and 0.75, and for medium (32² to 96² square pixels) and large people, each in 0..1; NaN
        where there is nobody of that size to find. An empty result list scores 0, with a warning.

    Raises:
        KposeError: when the skeleton has no sigmas, a file cannot be read, results and annotations do not belong together (number of
            keypoints, unknown image or category, numbers that are not finite), or nobody is annotated.
    """
    truth, found, chosen = read_for_oks(results, annotations, skeleton, image_ids)
    stats = OksEvaluation(truth.people, found, np.array(skeleton.oks_sigmas), chosen).run()
    return {name: nan_where_nobody(value) for name, value in zip(METRICS, stats, strict=True)}


def coco_results(image_ids: np.ndarray, keypoints: np.ndarray, scores: np.ndarray, category_id: int = 1) -> list[dict[str, Any]]:
    """The official COCO result list.

    Args:
        image_ids: `(N,)` the dataset's numbers of the images.
        keypoints: `(N, K, 3)` x, y, score in the image frame; written to a thousandth of a pixel.
        scores: `(N,)` of the people.
        category_id: the number of the category `person` in the annotations.
    """
    flat = np.round(np.asarray(keypoints, np.float64), 3).reshape(len(keypoints), -1)
    return [
        {"image_id": int(image), "category_id": int(category_id), "keypoints": person.tolist(), "score": float(score)}
        for image, person, score in zip(image_ids, flat, scores, strict=True)
    ]


def write_results(results: Sequence[dict[str, Any]], path: str | Path) -> Path:
    """Write a result list as JSON; the file appears whole or not at all. Returns its path."""
    return write_json(list(results), path)


def person_category(annotations: dict[str, Any] | str | Path) -> int:
    """The number of the category whose keypoints are annotated, 1 in COCO.

    Raises:
        KposeError: when the annotations have no category, or several with keypoints.
    """
    source = "annotations" if isinstance(annotations, dict) else str(annotations)
    values = annotations if isinstance(annotations, dict) else read_json(annotations)
    categories = values.get("categories") if isinstance(values, dict) else None
    if not isinstance(categories, list) or not categories or not all(isinstance(category, dict) for category in categories):
        raise KposeError(f"{source}: no list 'categories'; is it a COCO-style annotation file?")
    with_keypoints = [category for category in categories if category.get("keypoints")] or categories
    if len(with_keypoints) > 1:
        raise KposeError(f"{source}: {len(with_keypoints)} categories have keypoints; kpose scores one, leave the person alone")
    try:
        return int(with_keypoints[0]["id"])
    except (KeyError, TypeError, ValueError) as error:
        raise KposeError(f"{source}: category {with_keypoints[0].get('name')!r} has no number 'id'") from error


@dataclass(frozen=True)
class Annotations:
    """A checked annotation file.

    Attributes:
        source: what errors call it.
        category: the number of the category `person`.
        images: the images' entries by number.
        people: the annotated people.
    """

    source: str
    category: int
    images: dict[int, dict[str, Any]]
    people: AnnotatedPeople


def read_for_oks(
    results: Sequence[dict[str, Any]] | str | Path,
    annotations: dict[str, Any] | str | Path,
    skeleton: Skeleton,
    image_ids: Iterable[int] | None,
    areas_from_boxes: bool = False,
) -> tuple[Annotations, FoundPeople, np.ndarray]:
    """Read and check what a score by object keypoint similarity compares.

    Args:
        results: see `coco_ap`.
        annotations: see `coco_ap`.
        skeleton: see `coco_ap`.
        image_ids: see `coco_ap`.
        areas_from_boxes: take people's areas from their boxes, whatever the annotation says; else only where it does not say.

    Returns:
        The annotations, the results, and the numbers of the images to score.

    Raises:
        KposeError: see `coco_ap`.
    """
    if skeleton.oks_sigmas is None:
        raise KposeError(f"skeleton {skeleton.name!r} has no 'oks_sigmas', which OKS AP needs; add one number per joint to the skeleton")
    truth = _read_annotations(annotations, skeleton, areas_from_boxes)
    chosen = set(truth.images) if image_ids is None else {int(image) for image in image_ids}
    if unknown := chosen - truth.images.keys():
        raise KposeError(f"image_ids: image {min(unknown)} is not in {truth.source} (and {len(unknown) - 1} more)")
    images = np.array(sorted(chosen), np.int64)
    if not (~truth.people.ignored & np.isin(truth.people.image_ids, images)).any():
        raise KposeError(f"{truth.source}: no person with keypoints in the {len(images)} images to score; nothing to compare with")
    found = _read_results(results, truth, skeleton)
    if not len(found.scores):
        warnings.warn("no result to score: AP is 0", stacklevel=3)
    return truth, found, images


def nan_where_nobody(value: float) -> float:
    """pycocotools writes -1 where it found nobody to be found; NaN says it better."""
    return float(value) if value >= 0 else math.nan


def _read_annotations(annotations: dict[str, Any] | str | Path, skeleton: Skeleton, areas_from_boxes: bool) -> Annotations:
    source = "annotations" if isinstance(annotations, dict) else str(annotations)
    values = annotations if isinstance(annotations, dict) else read_json(annotations)
    for key in ("images", "annotations", "categories"):
        if not isinstance(values, dict) or not isinstance(values.get(key), list):
            raise KposeError(f"{source}: no list {key!r}; is it a COCO-style annotation file?")
        for entry in values[key]:
            if not isinstance(entry, dict) or (key == "images" and not _is_number_of_image(entry.get("id"))):
                raise KposeError(f"{source}: an entry of {key!r} is no mapping with an integer 'id': {str(entry)[:80]}")
    category = person_category(values)
    images = {image["id"]: image for image in values["images"]}
    people = [(position, person) for position, person in enumerate(values["annotations"]) if person.get("category_id") == category]

    def label(row: int) -> str:
        position, person = people[row]
        return f"{source}: annotation {person.get('id', f'number {position}')}"

    for row, (_, person) in enumerate(people):
        if not isinstance(person.get("image_id"), int) or person["image_id"] not in images:
            raise KposeError(f"{label(row)} belongs to image {person.get('image_id')!r}, which is not listed")
    # People of whom only the box is annotated have no keypoints, and are ignored as those with zeros are.
    absent = [0] * (3 * skeleton.num_joints)
    flat = _number_table([person.get("keypoints") or absent for _, person in people], "keypoints", len(absent), label, skeleton)
    keypoints = flat.reshape(-1, skeleton.num_joints, 3)
    boxes = _number_table([person.get("bbox") for _, person in people], "bbox", 4, label)
    areas = boxes[:, 3] * boxes[:, 2] * _AREA_OF_BOX
    if not areas_from_boxes:
        given = [[person.get("area", area)] for (_, person), area in zip(people, areas.tolist(), strict=True)]
        areas = _number_table(given, "area", 1, label)[:, 0]
    visible = (keypoints[..., 2] > 0).sum(axis=1).tolist()
    annotated = [[person.get("num_keypoints", count)] for (_, person), count in zip(people, visible, strict=True)]
    crowds = np.array([bool(person.get("iscrowd", 0)) for _, person in people], bool)
    return Annotations(
        source,
        category,
        images,
        AnnotatedPeople(
            image_ids=np.array([person["image_id"] for _, person in people], np.int64),
            keypoints=keypoints,
            boxes=boxes,
            areas=areas,
            ignored=crowds | (np.abs(_number_table(annotated, "num_keypoints", 1, label)[:, 0]) < 1),
            crowds=crowds,
        ),
    )


def _is_number_of_image(value: Any) -> bool:
    return isinstance(value, int) and -(2**63) <= value < 2**63


def _read_results(results: Sequence[dict[str, Any]] | str | Path, truth: Annotations, skeleton: Skeleton) -> FoundPeople:
    source = str(results) if isinstance(results, (str, Path)) else "results"
    values = read_json(results) if isinstance(results, (str, Path)) else results
    if not isinstance(values, (list, tuple)):
        raise KposeError(f"{source}: expected a list of results, found {type(values).__name__}")

    def label(row: int) -> str:
        return f"{source}: result number {row}"

    for row, result in enumerate(values):
        if not isinstance(result, dict):
            raise KposeError(f"{label(row)} is no mapping with image_id, category_id, keypoints, score: {str(result)[:80]}")
        if not isinstance(result.get("image_id"), (int, np.integer)) or result["image_id"] not in truth.images:
            image = result.get("image_id")
            raise KposeError(f"{label(row)} is for image {image!r}, which is not in {truth.source}; was it made for another set?")
        if result.get("category_id") != truth.category:
            category = result.get("category_id")
            raise KposeError(f"{label(row)} has category {category!r}, but people are category {truth.category} in {truth.source}")
    keypoints = _number_table([result.get("keypoints") for result in values], "keypoints", 3 * skeleton.num_joints, label, skeleton)
    return FoundPeople(
        image_ids=np.array([result["image_id"] for result in values], np.int64),
        keypoints=keypoints.reshape(-1, skeleton.num_joints, 3)[..., :2],
        scores=_number_table([[result.get("score")] for result in values], "score", 1, label)[:, 0],
    )


def _number_table(rows: list[Any], name: str, count: int, label: Callable[[int], str], skeleton: Skeleton | None = None) -> np.ndarray:
    """`(len(rows), count)` float64 if every row holds so many finite numbers."""
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        table = np.array(rows, np.float64)
        if table.shape == (len(rows), count) and np.isfinite(table).all():
            return table
    # One by one is slow, but says whose numbers they are.
    return np.array([_numbers(row, count, f"{label(i)}: {name!r}", skeleton) for i, row in enumerate(rows)]).reshape(-1, count)


def _numbers(values: Any, count: int, label: str, skeleton: Skeleton | None = None) -> list[float]:
    """`values` if they are `count` finite numbers."""
    if not isinstance(values, (list, tuple)) or len(values) != count:
        found = len(values) if isinstance(values, (list, tuple)) else type(values).__name__
        expected = f"{count} numbers"
        if skeleton is not None:
            expected += f" (3 for each of the {skeleton.num_joints} joints and sigmas of skeleton {skeleton.name!r})"
            if isinstance(found, int) and found % 3 == 0:
                found = f"{found}, {found // 3} joints"
        raise KposeError(f"{label}: expected {expected}, found {found}")
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError) as error:
        raise KposeError(f"{label}: expected {'a number' if count == 1 else 'numbers'}, found {str(values)[:80]}") from error
    if not all(map(math.isfinite, numbers)):
        raise KposeError(f"{label} holds NaN or infinity; leave such people out")
    return numbers
