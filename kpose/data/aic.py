"""AI Challenger (Wu et al., 2017): `keypoint_{train,validation}_annotations_*.json` and the pictures that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from kpose.data.coco import clean_box, read_coco
from kpose.data.entries import Span, check_span, image_path, kind_of, numbers, require_objects, shown, with_pictures
from kpose.data.instances import Instances
from kpose.errors import KposeError
from kpose.files import read_json
from kpose.skeletons import AIC_14

# The dataset's flag (1 visible, 2 hidden, 3 not there) -> ours.
_VISIBILITY = {1: 2, 2: 1, 3: 0}


def read_aic(
    annotations: str | Path,
    images: str | Path,
    *,
    people: Span | None = None,
    partial: bool = False,
    for_training: bool,
    progress: bool = True,
) -> Instances:
    """Read annotated people from the dataset's own JSON, or from one in COCO's form.

    The own form is a list of `{image_id, human_annotations: {human1: [x1, y1, x2, y2], ...}, keypoint_annotations: {human1: [x, y, v,
    ...], ...}}`; the picture is `image_id` with `.jpg`. Its coordinates are taken to count from 0. Boxes begin at the picture's edge at
    the earliest, as for COCO; where the picture ends, the file does not say. Areas are those of the boxes.

    Args:
        annotations: the JSON.
        images: the folder of its pictures.
        people: only these of the file, from .. up to, counted over all images.
        partial: leave out people whose picture is missing instead of refusing the file.
        for_training: in COCO's form, whether pictures without people are dropped.
        progress: show a progress bar.

    Raises:
        KposeError: when the file is missing or malformed, or names pictures that are not there.
    """
    annotations, images = Path(annotations), Path(images)
    content = read_json(annotations)
    if isinstance(content, dict):
        return read_coco(annotations, images, AIC_14, people=people, partial=partial, for_training=for_training, progress=progress)
    if not isinstance(content, list):
        raise KposeError(f"{annotations}: expected a list of images with human_annotations, found {kind_of(content)}")
    entries = [
        (entry, _people_of(entry, annotations, f"image {shown(entry.get('image_id'), 'image_id' in entry)}"))
        for entry in require_objects(content, annotations, "the list")
    ]
    first, end = check_span(people, sum(len(names) for _, names in entries), annotations)
    files: list[str] = []
    rows: dict[str, list[Any]] = {key: [] for key in ("image_index", "ids", "boxes", "keypoints")}
    position = without_keypoints = without_area = 0
    for entry, names in tqdm(entries, desc=annotations.name, unit="image", disable=not progress or len(entries) < 20000, leave=False):
        what = f"image {shown(entry.get('image_id'))}"
        file = image_path(images, entry, "image_id", annotations, what, ".jpg")
        for name in names:
            position += 1
            if not first < position <= end:
                continue
            x1, y1, x2, y2 = numbers(entry["human_annotations"], name, 4, annotations, what)
            keypoints = np.array(
                numbers(entry["keypoint_annotations"], name, 3 * AIC_14.num_joints, annotations, f"{what}, keypoints of"), np.float64
            ).reshape(-1, 3)
            if not np.isin(keypoints[:, 2], list(_VISIBILITY)).all():
                wrong = keypoints[~np.isin(keypoints[:, 2], list(_VISIBILITY)), 2][0]
                raise KposeError(
                    f"{annotations}: {what} has the flag {wrong:g} in the keypoints of {name!r}, expected 1 (visible), 2 (hidden) or 3 "
                    "(not there)"
                )
            keypoints[:, 2] = [_VISIBILITY[int(flag)] for flag in keypoints[:, 2]]
            box = clean_box(x1, y1, x2 - x1, y2 - y1, 0, 0)
            if not keypoints[:, 2].any():
                without_keypoints += 1
            elif box is None:
                without_area += 1
            else:
                if not files or files[-1] != file:
                    files.append(file)
                rows["image_index"].append(len(files) - 1)
                rows["ids"].append(position)
                rows["boxes"].append([*box, (x2 - x1) * (y2 - y1)])
                rows["keypoints"].append(keypoints)
    notes = []
    if without_keypoints:
        notes.append(f"{annotations}: {without_keypoints} people left out: no keypoint is annotated")
    if without_area:
        notes.append(f"{annotations}: {without_area} people left out: their box has no area within the picture")
    boxes = np.array(rows["boxes"], np.float32).reshape(-1, 5)
    instances = Instances(
        skeleton=AIC_14,
        image_files=tuple(files),
        image_ids=np.arange(1, len(files) + 1),
        image_sizes=np.zeros((len(files), 2), np.int32),
        image_index=np.array(rows["image_index"], np.int32),
        ids=np.array(rows["ids"], np.int64),
        boxes=boxes[:, :4],
        keypoints=np.array(rows["keypoints"], np.float32).reshape(-1, AIC_14.num_joints, 3),
        areas=boxes[:, 4],
        box_scores=np.ones(len(boxes), np.float32),
        annotation_file=annotations,
        notes=tuple(notes),
    )
    return with_pictures(instances, images, annotations, partial)


def _people_of(entry: dict[str, Any], source: Path, what: str) -> list[str]:
    """The names of an image's people, who must have a box and keypoints each."""
    for key in ("human_annotations", "keypoint_annotations"):
        if not isinstance(entry.get(key), dict):
            raise KposeError(f"{source}: {what} has {key!r} {shown(entry.get(key), key in entry)}, expected an object of people by name")
    boxes, keypoints = entry["human_annotations"], entry["keypoint_annotations"]
    if boxes.keys() != keypoints.keys():
        name = min(boxes.keys() ^ keypoints.keys())
        lacking = "keypoints" if name in boxes else "box"
        raise KposeError(f"{source}: {what} has no {lacking} for {shown(name)}, whom it names elsewhere")
    return list(boxes)
