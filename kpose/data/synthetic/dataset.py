"""Writes synthetic people as a dataset in the official COCO layout."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from kpose.data.coco import category_entry, person_annotation
from kpose.data.synthetic.scene import compose_scene
from kpose.errors import KposeError
from kpose.files import replacing, write_json
from kpose.skeletons import COCO_17

# Raised with every change of the pictures, so that an older set on disk is not taken for the present one.
_VERSION = 2
# Starting a worker costs as much as drawing some dozens of pictures.
_IMAGES_WORTH_A_PROCESS = 64
_CHUNK = 16

Span = tuple[int, int]


@dataclass(frozen=True)
class SyntheticDataset:
    """What `write_synthetic_people` wrote, or found already written (`reused`)."""

    annotation_file: Path
    image_folder: Path
    num_images: int
    num_people: int
    reused: bool


def write_synthetic_people(
    folder: str | Path,
    num_images: int,
    *,
    split: str = "train2017",
    seed: int = 0,
    image_size: Span | tuple[Span, Span] = ((256, 384), (256, 384)),
    simple: bool = False,
    processes: int | None = None,
    progress: bool = True,
) -> SyntheticDataset:
    """Write pictures of articulated figures: `folder/{split}/` and, in `folder/annotations/`, `person_keypoints_{split}.json`.

    Picture `i` depends on `seed`, `i`, `image_size` and `simple` alone. The annotation file comes last, so its presence says that the set
    is whole. A whole set with the same arguments is left as it is; one with other arguments is replaced.

    Args:
        folder: made if absent. The folder of another dataset is refused.
        num_images: how many pictures to draw.
        split: the name of the image folder and the end of the annotation file's name.
        seed: use another one for every split.
        image_size: `(height, width)`, or a range of each: `((min_height, max_height), (min_width, max_width))`; in pixels.
        simple: one person a picture, who stands or walks, facing the camera, with nothing in front: what a small network learns in
            minutes. Otherwise up to three in any pose, seen from anywhere, hidden by one another and by things.
        processes: how many draw at once; one per processor if None. More than one need the caller's script to be importable, as always
            with `multiprocessing`: its work stands under `if __name__ == "__main__"`.
        progress: whether to show a progress bar and a summary.

    Raises:
        KposeError: when an argument is out of range, or the folder cannot be written or holds something else.
    """
    ranges = _checked_size(image_size)
    for name, value, least in (("num_images", num_images, 1), ("seed", seed, 0), ("processes", 1 if processes is None else processes, 1)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise KposeError(f"synthetic people: {name!r} must be a whole number of at least {least}, found {value!r}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", split) or split == "annotations":
        raise KposeError(f"synthetic people: 'split' must be a plain name such as 'train2017', found {split!r}")
    folder = Path(folder)
    manifest = {"version": _VERSION, "num_images": int(num_images), "seed": int(seed), "image_size": ranges, "simple": bool(simple)}
    manifest_file = folder / f"synthetic_{split}.json"
    annotation_file = folder / "annotations" / f"person_keypoints_{split}.json"
    image_folder = folder / split
    try:
        found = _read_json(manifest_file)
        reused = found == json.loads(json.dumps(manifest)) and _is_whole(annotation_file, image_folder, num_images)
        if not reused:
            if found is None and (annotation_file.exists() or (image_folder.is_dir() and any(image_folder.iterdir()))):
                raise KposeError(f"{folder} holds a split {split!r} that is not synthetic; choose an empty folder or another split")
            image_folder.mkdir(parents=True, exist_ok=True)
            annotation_file.parent.mkdir(exist_ok=True)
            annotation_file.unlink(missing_ok=True)
            write_json(manifest, manifest_file)
            for left_over in image_folder.iterdir():
                if re.fullmatch(r"\d{12}\.jpg|\.\d{12}\.\d+\.partial\.jpg", left_over.name):
                    left_over.unlink()
            annotations = _draw_all(image_folder, seed, ranges, simple, num_images, processes, progress)
            write_json(annotations, annotation_file)
        else:
            annotations = _read_json(annotation_file) or {}
    except OSError as error:
        raise KposeError(f"cannot write synthetic people to {folder}: {error.strerror or error}; choose another folder") from error
    num_people = len(annotations["annotations"])
    if progress:
        print(f"{num_images} synthetic images, {num_people} people {'found' if reused else 'written'}: {annotation_file}")
    return SyntheticDataset(annotation_file, image_folder, num_images, num_people, reused)


def _checked_size(image_size: Any) -> tuple[Span, Span]:
    try:
        spans = tuple((side, side) if isinstance(side, (int, np.integer)) else tuple(side) for side in image_size)
        (least_height, most_height), (least_width, most_width) = ((int(low), int(high)) for low, high in spans)
    except (TypeError, ValueError):
        raise KposeError(f"synthetic people: 'image_size' must be (height, width) or a range of each, found {image_size!r}") from None
    for low, high in ((least_height, most_height), (least_width, most_width)):
        if not 64 <= low <= high <= 4096:
            raise KposeError(f"synthetic people: sides in 'image_size' must be between 64 and 4096 and in order, found {image_size!r}")
    return (least_height, most_height), (least_width, most_width)


def _read_json(path: Path) -> dict[str, Any] | None:
    """The content of a JSON file of ours; None where it is absent or something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    return content if isinstance(content, dict) else None


def _is_whole(annotation_file: Path, image_folder: Path, num_images: int) -> bool:
    if not annotation_file.is_file() or not image_folder.is_dir():
        return False
    present = {entry.name for entry in os.scandir(image_folder)}
    return all(_file_name(image_id) in present for image_id in range(1, num_images + 1))


def _file_name(image_id: int) -> str:
    return f"{image_id:012d}.jpg"


@dataclass(frozen=True)
class _Chunk:
    """Consecutive pictures for one process to draw."""

    image_folder: Path
    seed: int
    ranges: tuple[Span, Span]
    simple: bool
    image_ids: range


def _draw_chunk(chunk: _Chunk) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Draw and write pictures; gives their COCO image records, each with those of its people (but for their ids)."""
    cv2.setNumThreads(1)
    return [_draw_image(chunk, image_id) for image_id in chunk.image_ids]


def _draw_image(chunk: _Chunk, image_id: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    rng = np.random.default_rng((chunk.seed, image_id))
    height, width = (int(rng.integers(low, high + 1)) for low, high in chunk.ranges)
    scene = compose_scene(rng, height, width, simple=chunk.simple)
    written, jpeg = cv2.imencode(".jpg", scene.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(60, 96))])
    if not written:
        raise KposeError(f"synthetic image {image_id} could not be encoded as JPEG; the installed OpenCV lacks JPEG support")
    with replacing(chunk.image_folder / _file_name(image_id)) as partial:
        partial.write_bytes(jpeg.tobytes())
    image = {"id": image_id, "file_name": _file_name(image_id), "height": height, "width": width, "license": 1}
    people = [person_annotation(image_id, person.keypoints, person.box, person.area) for person in scene.people]
    return image, people


def _drawn(chunks: list[_Chunk], processes: int) -> Iterator[list[tuple[dict[str, Any], list[dict[str, Any]]]]]:
    if processes == 1:
        yield from map(_draw_chunk, chunks)
        return
    # A fork of a process in which TensorFlow has started its threads can hang; a fresh one cannot.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(_draw_chunk, chunks)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _draw_all(
    image_folder: Path, seed: int, ranges: tuple[Span, Span], simple: bool, num_images: int, processes: int | None, progress: bool
) -> dict[str, Any]:
    """Draw every picture and gather the content of the annotation file, in the order of the pictures."""
    if processes is None:
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        processes = max(1, min(processors, num_images // _IMAGES_WORTH_A_PROCESS))
    chunks = [
        _Chunk(image_folder, seed, ranges, simple, range(first, min(first + _CHUNK, num_images + 1)))
        for first in range(1, num_images + 1, _CHUNK)
    ]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    with tqdm(total=num_images, desc="drawing people", unit="image", disable=not progress) as bar:
        for chunk in _drawn(chunks, processes):
            for image, people in chunk:
                images.append(image)
                for person in people:
                    annotations.append({"id": len(annotations) + 1, **person})
            bar.update(len(chunk))
    return {
        "info": {"description": "synthetic people drawn by kpose", "version": str(_VERSION), "seed": int(seed)},
        "licenses": [{"id": 1, "name": "free of rights: drawn by a program", "url": ""}],
        "images": images,
        "annotations": annotations,
        "categories": [category_entry(COCO_17)],
    }
