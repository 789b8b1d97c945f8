"""Whole folders: pictures and boxes in, annotated pictures and one JSON out."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from kpose.errors import KposeError
from kpose.files import read_json, write_json
from kpose.inference.grouping import group_pictures
from kpose.inference.images import SUFFIXES, read_image
from kpose.inference.listed_detections import ListedDetections
from kpose.inference.predictor import PoseEstimator, box_array, check_boxes
from kpose.visualize import draw_poses, write_image

PREDICTIONS = "predictions.json"
# The category `person` in the results of COCO detectors, which carry no list of categories.
_COCO_PERSON = 1
_COCO_STEM = re.compile(r"\d{12}\.")


@dataclass(frozen=True)
class PredictionSummary:
    """What came of a folder.

    Attributes:
        pictures: that were read.
        people: that were looked for in them.
        left_out: name of each picture that could not be read, or whose boxes are no boxes -> why.
        output: the folder with the annotated pictures and `predictions.json`.
    """

    pictures: int
    people: int
    left_out: dict[str, str]
    output: Path


def read_boxes(path: str | Path, minimum_score: float = 0.5) -> dict[str, np.ndarray]:
    """Person boxes by picture.

    Three forms are understood: `{file name: [[x, y, width, height], ...]}`; COCO annotations (`images`, `annotations` with `bbox`;
    crowds are left out); a list of COCO detections, whose pictures are named by `file_name` or by COCO's twelve digits of `image_id` (other
    categories than COCO's person, 1, are left out).

    Args:
        path: the JSON file (`.gz` too).
        minimum_score: boxes that carry a lower `score` are left out: detectors list hundreds of doubtful ones.

    Returns:
        `(n, 4)` float32 x, y, width, height by file name.

    Raises:
        KposeError: when the file cannot be read or is of another form.
    """
    content = read_json(path)
    if isinstance(content, dict) and isinstance(content.get("annotations"), list) and isinstance(content.get("images"), list):
        entries, names = _people(content, path), _names(content["images"], path)
        found: dict[str, list[Any]] = {name: [] for name in names.values()}
    elif isinstance(content, list):
        entries, names, found = content, {}, {}
    elif isinstance(content, dict):
        return {name: box_array(boxes, f"{path}: {name!r}") for name, boxes in content.items()}
    else:
        raise KposeError(f"{path}: expected {{file name: boxes}} or COCO annotations or detections, found {type(content).__name__}")
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict) or "bbox" not in entry:
            raise KposeError(f"{path}: entry {position} has no 'bbox'; expected image_id, bbox and score")
        score = entry.get("score", 1.0)
        if isinstance(score, (int, float)) and score < minimum_score:
            continue
        if not names and entry.get("category_id", _COCO_PERSON) != _COCO_PERSON:
            continue
        image_id = entry.get("image_id")
        # Anything may stand there, also what no dictionary can look up.
        listed = names.get(image_id) if isinstance(image_id, int) else None
        name = entry.get("file_name") or listed or _coco_name(image_id)
        if not isinstance(name, str):
            raise KposeError(f"{path}: entry {position} has image_id {str(image_id)[:80]!r}, which names no picture")
        found.setdefault(name, []).append(entry["bbox"])
    return {name: box_array(boxes, f"{path}: {name!r}") for name, boxes in found.items()}


def predict_folder(
    estimator: PoseEstimator,
    source: str | Path,
    boxes: Mapping[str, np.ndarray] | None = None,
    output: str | Path = "predictions",
    minimum_score: float = 0.2,
    progress: bool = True,
) -> PredictionSummary:
    """Find poses in a picture or a folder of pictures (with its subfolders), draw them and write them down.

    Annotated pictures lie in `output` as the originals do in `source`; `predictions.json` there holds joint names, skeleton, and for each
    picture its size and people. A picture that cannot be read, or with a box that is none, is left out and reported.

    Args:
        estimator: finds the poses.
        source: a JPEG or PNG file, or a folder.
        boxes: by path relative to `source`, or by file name alone, see `read_boxes`; None looks for one person in each picture, as
            `estimator` does.
        output: a folder of its own.
        minimum_score: joints below it are not drawn.
        progress: show a bar.

    Raises:
        KposeError: when there is no picture, every one is left out, the boxes are for others, or `output` cannot be written.
    """
    source, output = Path(source), Path(output)
    pictures = _find_pictures(source, output)
    _check_targets(pictures, output)
    if boxes is not None and not any(listed_boxes(name, boxes) is not None for name in pictures):
        raise KposeError(
            f"the boxes name none of the pictures in {source}: they have {next(iter(boxes), 'nothing')!r}, it has {min(pictures)!r}"
        )
    detector = estimator.detector
    if boxes is None and isinstance(detector, ListedDetections) and not any(map(detector.lists, pictures)):
        raise KposeError(f"the listed detections name none of the pictures in {source}, such as {min(pictures)!r}")
    start = time.monotonic()
    people: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    with tqdm(total=len(pictures), desc="predicting", unit=" pictures", disable=not progress, leave=False) as bar:
        for batch in group_pictures(_readable(pictures, boxes, left_out), estimator.batch_size):
            names = [name for name, _, _ in batch]
            poses = estimator([image for _, image, _ in batch], [picture_boxes for _, _, picture_boxes in batch], names)
            for (name, image, _), found in zip(batch, poses, strict=True):
                write_image(output / name, draw_poses(image, [pose.keypoints for pose in found], estimator.skeleton, minimum_score))
                people[name] = {"height": image.shape[0], "width": image.shape[1], "people": [pose.to_json() for pose in found]}
            bar.update(len(people) + len(left_out) - bar.n)
    if not people:
        name, reason = next(iter(left_out.items()))
        raise KposeError(
            reason if len(pictures) == 1 else f"none of {len(pictures)} pictures in {source} can be read, first {name}: {reason}"
        )
    skeleton = estimator.skeleton.to_dict()
    content = {"joint_names": skeleton["joint_names"], "skeleton": skeleton, "images": people, "left_out": sorted(left_out)}
    write_json(content, output / PREDICTIONS)
    count = sum(len(entry["people"]) for entry in people.values())
    seconds = time.monotonic() - start
    print(f"{count} people in {len(people)} pictures in {seconds:.1f} s; annotated pictures and {PREDICTIONS} are in {output}")
    for name, reason in left_out.items():
        print(f"left out {name}: {reason}")
    return PredictionSummary(len(people), count, left_out, output)


def _find_pictures(source: Path, output: Path) -> dict[str, Path]:
    """Pictures by their path relative to `source`, in order; those that an earlier run left in `output` are no source."""
    if source.is_file():
        if source.suffix.lower() not in SUFFIXES:
            raise KposeError(f"{source} is not a picture kpose reads ({', '.join(SUFFIXES)}); convert it")
        return {source.name: source}
    if not source.is_dir():
        raise KposeError(f"there is no picture or folder {source}")
    if source.resolve() == output.resolve():
        raise KposeError(f"output {output} is the folder of the pictures, which would be overwritten; choose another")
    found = {}
    for folder, subfolders, files in os.walk(source):
        subfolders[:] = sorted(name for name in subfolders if Path(folder, name).resolve() != output.resolve())
        for name in sorted(files):
            if Path(name).suffix.lower() in SUFFIXES:
                path = Path(folder, name)
                found[path.relative_to(source).as_posix()] = path
    if not found:
        raise KposeError(f"folder {source} has no picture ({', '.join(SUFFIXES)})")
    return found


def _check_targets(pictures: Mapping[str, Path], output: Path) -> None:
    """Nothing is written over a source, nor through a link out of the output folder."""
    root, sources = output.resolve(), {path.resolve() for path in pictures.values()}
    for name in pictures:
        target = (output / name).parent.resolve() / Path(name).name
        if not target.is_relative_to(root):
            raise KposeError(
                f"{output / name} would be written outside of {output}, through a link; remove the link or choose another output"
            )
        if target in sources:
            raise KposeError(f"{output / name} is one of the pictures to read and would be overwritten; choose another output")


def _readable(
    pictures: Mapping[str, Path], boxes: Mapping[str, np.ndarray] | None, left_out: dict[str, str]
) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
    """Pictures with their boxes; those that cannot be read are put down in `left_out`."""
    for name, path in pictures.items():
        picture_boxes = None
        try:
            image = read_image(path)
            if boxes is not None:
                listed = listed_boxes(name, boxes)
                picture_boxes = check_boxes([] if listed is None else listed, image.shape[:2], str(path))
        except KposeError as error:
            left_out[name] = str(error)
            continue
        yield name, image, picture_boxes


def listed_boxes(name: str, boxes: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The boxes that `read_boxes` found for a picture, by its path or file name; None where it is not named.

    What names a picture by COCO's number alone does not know the kind of its file.
    """
    file = name.rsplit("/", 1)[-1]
    keys = [name, file, f"{file.rpartition('.')[0]}.jpg"] if _COCO_STEM.match(file) else [name, file]
    return next((boxes[key] for key in keys if key in boxes), None)


def _people(content: dict[str, Any], path: str | Path) -> list[dict[str, Any]]:
    """The annotations of people, crowds left out."""
    listed = content.get("categories")
    categories = [category for category in listed if isinstance(category, dict)] if isinstance(listed, list) else []
    # A list, not a set: a hostile file may have numbers there that are none.
    persons = [category.get("id") for category in categories if category.get("name") == "person" or category.get("keypoints")]
    if not all(isinstance(entry, dict) for entry in content["annotations"]):
        raise KposeError(f"{path}: 'annotations' must hold objects with image_id and bbox")
    return [entry for entry in content["annotations"] if not entry.get("iscrowd") and (not persons or entry.get("category_id") in persons)]


def _names(images: list[Any], path: str | Path) -> dict[Any, str]:
    for entry in images:
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), int) or not isinstance(entry.get("file_name"), str):
            raise KposeError(f"{path}: an entry of 'images' has no 'id' and 'file_name': {str(entry)[:80]}")
    return {entry["id"]: entry["file_name"] for entry in images}


def _coco_name(image_id: Any) -> str | None:
    return f"{image_id:012d}.jpg" if isinstance(image_id, int) else None
