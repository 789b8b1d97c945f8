"""OKS average precision, computed by pycocotools.

The score is COCO's own code; what is added here is what that code leaves to luck: results and annotations are checked before they are
compared, any skeleton with OKS sigmas is accepted, and nothing is printed. That code is a Python loop over people: 512 images of COCO
val2017 with 1,500 results take it 2 s on one core, ten times as many half a minute.
"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from kpose.errors import KposeError
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
            frame; the third number is not looked at) and `score`; or the path of such a JSON file (`.gz` too).
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
    if skeleton.oks_sigmas is None:
        raise KposeError(f"skeleton {skeleton.name!r} has no 'oks_sigmas', which OKS AP needs; add one number per joint to the skeleton")
    truth, source = _load_annotations(annotations, skeleton)
    known_images = {image["id"] for image in truth["images"]}
    chosen = known_images if image_ids is None else {int(image) for image in image_ids}
    if unknown := chosen - known_images:
        raise KposeError(f"image_ids: image {min(unknown)} is not in {source} (and {len(unknown) - 1} more)")
    if not any(person["num_keypoints"] and not person["iscrowd"] and person["image_id"] in chosen for person in truth["annotations"]):
        raise KposeError(f"{source}: no person with keypoints in the {len(chosen)} images to score; nothing to compare with")
    found = _load_results(results, truth, source, skeleton)
    if not found["annotations"]:
        warnings.warn("no result to score: AP is 0", stacklevel=2)

    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_as_coco(truth), _as_coco(found), iouType="keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(skeleton.oks_sigmas)
        evaluation.params.imgIds = sorted(chosen)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # pycocotools writes -1 where it found nobody of that size.
    return {name: float(value) if value >= 0 else float("nan") for name, value in zip(METRICS, evaluation.stats, strict=True)}


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


def _load_annotations(annotations: dict[str, Any] | str | Path, skeleton: Skeleton) -> tuple[dict[str, Any], str]:
    """A checked copy with what pycocotools takes for granted filled in, and the name to call it by in errors."""
    source = "annotations" if isinstance(annotations, dict) else str(annotations)
    values = annotations if isinstance(annotations, dict) else read_json(annotations)
    for key in ("images", "annotations", "categories"):
        if not isinstance(values, dict) or not isinstance(values.get(key), list):
            raise KposeError(f"{source}: no list {key!r}; is it a COCO-style annotation file?")
        for entry in values[key]:
            if not isinstance(entry, dict) or (key == "images" and not isinstance(entry.get("id"), int)):
                raise KposeError(f"{source}: an entry of {key!r} is no mapping with an integer 'id': {str(entry)[:80]}")
    category = person_category(values)
    images = {image["id"] for image in values["images"]}
    people: list[dict[str, Any]] = []
    for position, person in enumerate(values["annotations"]):
        if person.get("category_id") != category:
            continue
        label = f"{source}: annotation {person.get('id', f'number {position}')}"
        if not isinstance(person.get("image_id"), int) or person["image_id"] not in images:
            raise KposeError(f"{label} belongs to image {person.get('image_id')!r}, which is not listed")
        # People of whom only the box is annotated have no keypoints, and are ignored as those with zeros are.
        given = person.get("keypoints") or [0] * (3 * skeleton.num_joints)
        keypoints = _numbers(given, 3 * skeleton.num_joints, f"{label}: 'keypoints'", skeleton)
        annotated = person.get("num_keypoints", sum(flag > 0 for flag in keypoints[2::3]))
        box = _numbers(person.get("bbox"), 4, f"{label}: 'bbox'")
        area = _numbers([person.get("area", _AREA_OF_BOX * box[2] * box[3])], 1, f"{label}: 'area'")[0]
        people.append(
            {
                # Numbered afresh: pycocotools takes a match with an annotation number 0 for no match.
                "id": len(people) + 1,
                "image_id": person["image_id"],
                "category_id": category,
                "keypoints": keypoints,
                "num_keypoints": int(_numbers([annotated], 1, f"{label}: 'num_keypoints'")[0]),
                "bbox": box,
                "area": area,
                "iscrowd": int(bool(person.get("iscrowd", 0))),
            }
        )
    return {"images": [{"id": image} for image in images], "annotations": people, "categories": [{"id": category}]}, source


def _load_results(
    results: Sequence[dict[str, Any]] | str | Path, truth: dict[str, Any], truth_source: str, skeleton: Skeleton
) -> dict[str, Any]:
    """The results as pycocotools' `loadRes` would hold them."""
    source = str(results) if isinstance(results, (str, Path)) else "results"
    values = read_json(results) if isinstance(results, (str, Path)) else results
    if not isinstance(values, (list, tuple)):
        raise KposeError(f"{source}: expected a list of results, found {type(values).__name__}")
    images = {image["id"] for image in truth["images"]}
    category = truth["categories"][0]["id"]
    people = []
    for position, result in enumerate(values):
        label = f"{source}: result number {position}"
        if not isinstance(result, dict):
            raise KposeError(f"{label} is no mapping with image_id, category_id, keypoints, score: {str(result)[:80]}")
        if not isinstance(result.get("image_id"), (int, np.integer)) or result["image_id"] not in images:
            raise KposeError(
                f"{label} is for image {result.get('image_id')!r}, which is not in {truth_source}; was it made for another set?"
            )
        if result.get("category_id") != category:
            raise KposeError(f"{label} has category {result.get('category_id')!r}, but people are category {category} in {truth_source}")
        keypoints = _numbers(result.get("keypoints"), 3 * skeleton.num_joints, f"{label}: 'keypoints'", skeleton)
        score = _numbers([result.get("score")], 1, f"{label}: 'score'")[0]
        x, y = keypoints[0::3], keypoints[1::3]
        width, height = max(x) - min(x), max(y) - min(y)
        people.append(
            {
                "id": position + 1,
                "image_id": result["image_id"],
                "category_id": category,
                "keypoints": keypoints,
                "score": score,
                "bbox": [min(x), min(y), width, height],
                "area": width * height,
            }
        )
    return {"images": truth["images"], "annotations": people, "categories": truth["categories"]}


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


def _as_coco(dataset: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco
