"""COCO-style annotations: `person_keypoints_*.json`, a folder of images and, for evaluation, a file of detections; read and written.

Which people take part, and how their boxes are cleaned, follows the data loader of Sun et al. (HRNet, CVPR 2019), which the
published scores with ground-truth boxes rest on: crowds (`iscrowd` 1) and people without a single keypoint are no candidates, in
training and in evaluation with ground-truth boxes alike; boxes are cut to the picture. pycocotools itself ignores crowds and
people without keypoints when it scores, so leaving them out costs no recall.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from kpose.data.entries import (
    MAXIMUM_IMAGE_SIDE,
    Span,
    check_span,
    image_path,
    kind_of,
    numbers,
    require_objects,
    shown,
    whole_number,
    with_pictures,
)
from kpose.data.instances import Instances
from kpose.errors import KposeError
from kpose.files import read_json, write_json
from kpose.skeletons import Skeleton

Filter = Mapping[str, Sequence[str | int]]


def read_coco(
    annotations: str | Path,
    images: str | Path,
    skeleton: Skeleton,
    detections: str | Path | None = None,
    minimum_box_score: float = 0.0,
    include: Filter | None = None,
    exclude: Filter | None = None,
    *,
    people: Span | None = None,
    joint_aliases: Mapping[str, str] | None = None,
    box_area_share: float = 1.0,
    partial: bool = False,
    for_training: bool,
    progress: bool = True,
) -> Instances:
    """Read annotated or detected people.

    Keypoints outside of the picture are kept as they are: the codec gives them no weight once they leave the crop. `Left Wrist` in the
    file is `left_wrist`.

    Args:
        annotations: COCO-style JSON, also gzipped (`.json.gz`).
        images: the folder that its file names are relative to.
        skeleton: the joints, in the order of the annotation.
        detections: JSON list of `{image_id, category_id, bbox, score}`: candidates are these boxes, as they are, instead of the
            annotated people. Evaluation only.
        minimum_box_score: detections with a lower score are left out.
        include: keep only images whose field has one of the values, such as `{"take": ["20241207_101929"]}`.
        exclude: leave out images whose field has one of the values.
        people: only the annotations from .. up to these positions of the file, and their images. Not with detections.
        joint_aliases: joints of the file that the skeleton calls by another name, such as `{"head": "head_top"}`.
        box_area_share: the area of a person whose annotation gives none, as a share of its box.
        partial: leave out people whose picture is missing instead of refusing the file.
        for_training: whether detections are refused.
        progress: show a progress bar on large files.

    Returns:
        The people; `annotation_file` is `annotations`. Images without people stay listed in evaluation, for their false positives count.

    Raises:
        KposeError: when a file is missing or malformed, does not fit the skeleton, or names images that are not there.
    """
    annotations, images = Path(annotations), Path(images)
    if detections is not None and for_training:
        raise KposeError(f"{detections}: detections carry no keypoints, so they cannot train; remove 'detections' from the training set")
    content = read_json(annotations)
    if not isinstance(content, dict):
        raise KposeError(f"{annotations}: expected an object with images, annotations and categories, found {kind_of(content)}")
    records = {key: _list(content, key, annotations) for key in ("images", "annotations", "categories")}
    category = _person_category(records["categories"], records["annotations"], skeleton, joint_aliases or {}, annotations)
    if people is not None:
        if detections is not None:
            raise KposeError(f"{annotations}: 'people' chooses among the annotated; leave it out where 'detections' are given")
        first, end = check_span(people, len(records["annotations"]), annotations)
        records["annotations"] = records["annotations"][first:end]
    image_ids, image_files, image_sizes = _read_images(records["images"], images, include or {}, exclude or {}, annotations)
    positions = {int(number): position for position, number in enumerate(image_ids)}
    left_out = {whole_number(entry, "id", annotations, "image") for entry in records["images"]} - positions.keys()
    if detections is None:
        columns, notes = _read_people(
            records["annotations"], positions, left_out, image_sizes, skeleton, category, box_area_share, annotations, progress=progress
        )
    else:
        columns, notes = _read_detections(Path(detections), positions, left_out, skeleton, category, minimum_box_score, progress=progress)
    used = np.unique(columns["image_index"])
    if for_training or people is not None:
        # Images that nobody learns from would only take memory; those of people who were not chosen are no part of the set.
        columns["image_index"] = np.searchsorted(used, columns["image_index"]).astype(np.int32)
        image_files = [image_files[position] for position in used]
        image_ids, image_sizes = image_ids[used], image_sizes[used]
    instances = Instances(
        skeleton=skeleton,
        image_files=tuple(image_files),
        image_ids=image_ids,
        image_sizes=image_sizes,
        annotation_file=annotations,
        notes=tuple(f"{detections if detections is not None else annotations}: {note}" for note in notes),
        **columns,
    )
    return with_pictures(instances, images, annotations, partial)


def _list(content: dict[str, Any], key: str, source: Path) -> list[dict[str, Any]]:
    value = content.get(key)
    if not isinstance(value, list):
        raise KposeError(f"{source}: {key!r} is {'missing' if key not in content else kind_of(value)}; a COCO file has a list there")
    return require_objects(value, source, repr(key))


def _person_category(
    categories: list[dict[str, Any]], people: list[dict[str, Any]], skeleton: Skeleton, aliases: Mapping[str, str], source: Path
) -> int:
    """The number of the category whose keypoints are those of the skeleton."""
    if not categories:
        raise KposeError(f"{source}: 'categories' is empty; a person category with a list of 'keypoints' is expected")
    named = [category for category in categories if category.get("name") == "person"]
    with_joints = [category for category in categories if category.get("keypoints")]
    candidates = named or with_joints or categories
    if len(candidates) > 1:
        matching = [category for category in candidates if category.get("keypoints") == list(skeleton.joint_names)]
        if len(matching) != 1:
            names = ", ".join(str(category.get("name")) for category in candidates[:5])
            raise KposeError(f"{source}: several categories could be people ({names}); name the right one 'person'")
        candidates = matching
    category = candidates[0]
    number = whole_number(category, "id", source, f"category {category.get('name')!r}")
    joints = category.get("keypoints")
    if not joints:
        if any(person.get("keypoints") for person in people):
            return number
        raise KposeError(f"{source} has no keypoints (is it an instances_*.json?); give the person_keypoints_*.json")
    if not isinstance(joints, list) or not all(isinstance(joint, str) for joint in joints):
        raise KposeError(f"{source}: 'keypoints' of category {category.get('name')!r} must be a list of joint names")
    expected = list(skeleton.joint_names)
    if len(joints) != len(expected):
        raise KposeError(
            f"{source} annotates {len(joints)} joints, the skeleton {skeleton.name!r} has {len(expected)}; set 'skeleton' to the one "
            "that the file was annotated with, or describe it in a YAML"
        )
    for position, (found, wanted) in enumerate(zip(joints, expected, strict=True)):
        if not _same_joint(found, wanted, aliases):
            how = "in another order" if sorted(joints) == sorted(expected) else "under other names"
            raise KposeError(
                f"{source} annotates the joints {how}: joint {position} is {found!r}, the skeleton {skeleton.name!r} has {wanted!r} "
                "there; describe the file's own joints in a skeleton YAML"
            )
    return number


def _same_joint(found: str, wanted: str, aliases: Mapping[str, str]) -> bool:
    plain = found.casefold().replace(" ", "_")
    return found == wanted or aliases.get(plain, plain) == wanted


def _read_images(
    entries: list[dict[str, Any]], folder: Path, include: Filter, exclude: Filter, source: Path
) -> tuple[np.ndarray, list[str], np.ndarray]:
    for key in (*include, *exclude):
        if entries and not any(key in entry for entry in entries):
            fields = ", ".join(entries[0])
            raise KposeError(f"{source}: no image has the field {key!r} that 'include' or 'exclude' asks for; its fields: {fields}")
    image_ids, files, sizes = [], [], []
    seen: set[int] = set()
    for position, entry in enumerate(entries):
        number = whole_number(entry, "id", source, f"image {position}")
        if number in seen:
            raise KposeError(f"{source}: two images have the id {number}; ids must differ")
        seen.add(number)
        if not all(_matches(entry, key, values) for key, values in include.items()):
            continue
        if any(_matches(entry, key, values) for key, values in exclude.items()):
            continue
        file = image_path(folder, entry, "file_name", source, f"image {number}")
        size = []
        for key in ("height", "width"):
            length = whole_number(entry, key, source, f"image {number}") if entry.get(key) is not None else 0
            if length < 0 or length > MAXIMUM_IMAGE_SIDE or (length == 0 and entry.get(key) is not None):
                raise KposeError(f"{source}: image {number} has the {key} {length}, expected 1 to {MAXIMUM_IMAGE_SIDE}")
            size.append(length)
        image_ids.append(number)
        files.append(file)
        sizes.append(size)
    return np.array(image_ids, np.int64), files, np.array(sizes, np.int32).reshape(-1, 2)


def _matches(entry: dict[str, Any], key: str, values: Sequence[str | int]) -> bool:
    # A command line or a YAML may give 7 where the JSON has "7".
    return str(entry.get(key)) in {str(value) for value in values}


def _columns(rows: dict[str, list[Any]], joints: int) -> dict[str, np.ndarray]:
    count = len(rows["image_index"])
    keypoints = rows["keypoints"] or np.zeros((count, joints, 3))  # detections have none
    return {
        "image_index": np.array(rows["image_index"], np.int32),
        "ids": np.array(rows["ids"], np.int64),
        "boxes": np.array(rows["boxes"], np.float32).reshape(count, 4),
        "keypoints": np.array(keypoints, np.float32).reshape(count, joints, 3),
        "areas": np.array(rows["areas"], np.float32),
        "box_scores": np.array(rows["box_scores"], np.float32),
    }


def _read_people(
    people: list[dict[str, Any]],
    positions: dict[int, int],
    left_out: set[int],
    image_sizes: np.ndarray,
    skeleton: Skeleton,
    category: int,
    box_area_share: float,
    source: Path,
    *,
    progress: bool,
) -> tuple[dict[str, np.ndarray], list[str]]:
    rows: dict[str, list[Any]] = {key: [] for key in ("image_index", "ids", "boxes", "keypoints", "areas", "box_scores")}
    without_keypoints = without_area = outside = unknown_images = 0
    sizes = image_sizes.tolist()
    for entry in tqdm(people, desc=source.name, unit="people", disable=not progress or len(people) < 20000, leave=False):
        what = f"annotation {shown(entry.get('id'), 'id' in entry)}"
        number = whole_number(entry, "id", source, what)
        if whole_number(entry, "category_id", source, what) != category:
            continue
        image = whole_number(entry, "image_id", source, what)
        if image not in positions:
            unknown_images += image not in left_out
            continue
        if entry.get("iscrowd"):
            continue
        if not entry.get("keypoints") or entry.get("num_keypoints") == 0:
            without_keypoints += 1
            continue
        found = entry["keypoints"]
        joints = skeleton.num_joints
        if isinstance(found, list) and len(found) != 3 * joints:
            raise KposeError(
                f"{source}: {what} has {len(found) / 3:g} joints ({len(found)} numbers), the skeleton {skeleton.name!r} has {joints}; "
                "set 'skeleton' to the one that the file was annotated with"
            )
        keypoints = numbers(entry, "keypoints", 3 * joints, source, what)
        if not any(visibility > 0 for visibility in keypoints[2::3]):
            without_keypoints += 1
            continue
        x, y, width, height = numbers(entry, "bbox", 4, source, what)
        area = entry.get("area")
        if area is None:
            area = box_area_share * width * height
        elif isinstance(area, bool) or not isinstance(area, (int, float)) or not math.isfinite(area):
            raise KposeError(f"{source}: {what} has the area {shown(area)}, expected a number")
        image_height, image_width = sizes[positions[image]]
        box = clean_box(x, y, width, height, image_height, image_width)
        if box is None or area <= 0:
            without_area += 1
            continue
        if image_width:
            outside += sum(
                v > 0 and not (0 <= x < image_width and 0 <= y < image_height)
                for x, y, v in zip(keypoints[0::3], keypoints[1::3], keypoints[2::3], strict=True)
            )
        rows["image_index"].append(positions[image])
        rows["ids"].append(number)
        rows["boxes"].append(box)
        rows["keypoints"].append(keypoints)
        rows["areas"].append(area)
        rows["box_scores"].append(1.0)
    notes = []
    if unknown_images:
        notes.append(f"{unknown_images} people left out: their image is not listed")
    if without_keypoints:
        notes.append(f"{without_keypoints} people left out: no keypoint is annotated")
    if without_area:
        notes.append(f"{without_area} people left out: their box has no area within the picture")
    if outside:
        notes.append(f"{outside} keypoints lie outside of their picture; they are learned only where the crop reaches them")
    return _columns(rows, skeleton.num_joints), notes


def clean_box(x: float, y: float, width: float, height: float, image_height: int, image_width: int) -> list[float] | None:
    """A box cut to the picture as HRNet's loader does it, its far edge the last pixel; None where nothing is left.

    Image frame; a height or width of 0 stands for a picture of unknown size, whose far edges cut nothing.
    """
    if width <= 0 or height <= 0:
        return None
    left, top = max(0.0, x), max(0.0, y)
    right, bottom = left + max(0.0, width - 1), top + max(0.0, height - 1)
    if image_width:
        right = min(image_width - 1.0, right)
    if image_height:
        bottom = min(image_height - 1.0, bottom)
    if right < left or bottom < top or (right == left and bottom == top):
        return None
    return [left, top, right - left, bottom - top]


def _read_detections(
    path: Path,
    positions: dict[int, int],
    left_out: set[int],
    skeleton: Skeleton,
    category: int,
    minimum_box_score: float,
    *,
    progress: bool,
) -> tuple[dict[str, np.ndarray], list[str]]:
    content = read_json(path)
    if not isinstance(content, list):
        raise KposeError(f"{path}: expected a list of detections (image_id, category_id, bbox, score), found {kind_of(content)}")
    rows: dict[str, list[Any]] = {key: [] for key in ("image_index", "ids", "boxes", "keypoints", "areas", "box_scores")}
    unknown_images = without_area = below = 0
    for position, entry in enumerate(
        tqdm(content, desc=path.name, unit="boxes", disable=not progress or len(content) < 20000, leave=False)
    ):
        what = f"detection {position}"
        if not isinstance(entry, dict):
            raise KposeError(f"{path}: {what} is {kind_of(entry)}, expected an object with image_id, category_id, bbox and score")
        if whole_number(entry, "category_id", path, what) != category:
            continue
        image = whole_number(entry, "image_id", path, what)
        if image not in positions:
            unknown_images += image not in left_out
            continue
        score = entry.get("score")
        if isinstance(score, bool) or not isinstance(score, (int, float)) or not math.isfinite(score):
            raise KposeError(f"{path}: {what} has 'score' {shown(score, 'score' in entry)}, expected a number")
        if score < minimum_box_score:
            below += 1
            continue
        box = numbers(entry, "bbox", 4, path, what)
        if box[2] <= 0 or box[3] <= 0:
            without_area += 1
            continue
        rows["image_index"].append(positions[image])
        rows["ids"].append(0)
        rows["boxes"].append(box)
        rows["areas"].append(box[2] * box[3])
        rows["box_scores"].append(score)
    notes = []
    if unknown_images:
        notes.append(f"{unknown_images} boxes left out: their image is not in the annotation file")
    if below:
        notes.append(f"{below} boxes left out: their score is below {minimum_box_score:g}")
    if without_area:
        notes.append(f"{without_area} boxes left out: they have no area")
    return _columns(rows, skeleton.num_joints), notes


def write_coco(people: Instances, images: str | Path, path: str | Path, description: str) -> Path:
    """Write annotated people as a COCO-style JSON file, whole or not at all.

    Of pictures, only those with people are listed; those of unknown size without one, which `read_coco` takes. Reading makes boxes a
    pixel smaller, see `clean_box`; everything else comes back to a hundredth of a pixel.

    Args:
        people: whom, their ids unique.
        images: the folder that file names become relative to.
        path: the file.
        description: what it holds and how it was made.

    Returns:
        `path`.

    Raises:
        KposeError: when the file cannot be written, or a picture lies outside of the folder.
    """
    entries = []
    for image in np.unique(people.image_index).tolist():
        file = Path(people.image_files[image])
        if not file.is_relative_to(images):
            raise KposeError(f"{file} does not lie in {images}, the folder that file names in {path} would be relative to")
        height, width = people.image_sizes[image].tolist()
        size = {"height": height, "width": width} if height and width else {}
        entries.append({"id": int(people.image_ids[image]), "file_name": file.relative_to(images).as_posix(), **size})
    numbers_of_people = zip(people.ids.tolist(), people.image_ids[people.image_index].tolist(), strict=True)
    annotations = [
        {"id": number, **person_annotation(image, *columns)}
        for (number, image), *columns in zip(numbers_of_people, people.keypoints, people.boxes, people.areas.tolist(), strict=True)
    ]
    content = {"info": {"description": description}, "images": entries, "annotations": annotations}
    return write_json(content | {"categories": [category_entry(people.skeleton)]}, path)


def person_annotation(image: int, keypoints: np.ndarray, box: np.ndarray, area: float) -> dict[str, Any]:
    """What a COCO-style file says of a person, but for the id: keypoints `(K, 3)` and box `(4,)` to a hundredth of a pixel."""
    return {
        "image_id": image,
        "category_id": 1,
        "iscrowd": 0,
        "num_keypoints": int((keypoints[:, 2] > 0).sum()),
        "keypoints": [_short(value) for value in keypoints.reshape(-1).tolist()],
        "bbox": [_short(value) for value in box.tolist()],
        "area": _short(area),
    }


def category_entry(skeleton: Skeleton) -> dict[str, Any]:
    """The category of `person_annotation`, which names the joints."""
    limbs = [[a + 1, b + 1] for a, b in skeleton.limb_indices]
    return {"id": 1, "name": "person", "supercategory": "person", "keypoints": list(skeleton.joint_names), "skeleton": limbs}


def _short(value: float) -> float:
    # Whole numbers stay whole: 0 for an absent joint, as in the official files.
    return int(value) if value == int(value) else round(value, 2)
