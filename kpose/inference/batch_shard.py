"""One shard of a batch prediction: its pictures in, poses out, whole or not at all."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from kpose.data.tfrecords import Picture, read_pictures
from kpose.errors import KposeError
from kpose.files import file_size, local_copy, read_json, replacing, sha256_of, write_json
from kpose.inference.batch_job import BatchJob, Form, digests_of
from kpose.inference.grouping import group_pictures
from kpose.inference.images import decode_image, read_image
from kpose.inference.predictor import PoseEstimator, check_boxes

# Pictures that are decoded ahead of the network.
_AHEAD = 16
_THREADS = 4

Bad = tuple[str, str]
Load = Callable[[], tuple[np.ndarray, np.ndarray | None]]


@dataclass(frozen=True)
class Ticket:
    """What came of a shard.

    Attributes:
        images: pictures in it.
        people: found in them.
        bad: name of each picture that is not in it, and why; names of records may come twice.
    """

    images: int
    people: int
    bad: tuple[Bad, ...]


def open_estimator(job: BatchJob) -> PoseEstimator:
    """The networks of a job, which must be those that it began with.

    Raises:
        KposeError: when they are others, or cannot be read.
    """
    from kpose.inference.detector_files import open_detector
    from kpose.inference.refinement import Refinement

    settings = job.settings
    if (found := digests_of(settings)) != job.digests:
        changed = next(
            file for file, one, other in zip((*settings.weights, settings.detector), found, job.digests, strict=False) if one != other
        )
        raise KposeError(f"{changed} is another file here than where the prediction began; give all workers the same")
    with tempfile.TemporaryDirectory(prefix="kpose-") as folder:
        detector = open_detector(local_copy(settings.detector, folder), settings.person_class) if settings.detector else None
        return PoseEstimator.from_pretrained(
            [local_copy(file, folder) for file in settings.weights],
            flip=settings.flip,
            refinement=None if settings.whole_image else Refinement(),
            detector=detector,
            batch_size=settings.batch_size,
        )


def read_ticket(job: BatchJob, number: int) -> Ticket | None:
    """What came of a shard; None where it is not there as it was written."""
    try:
        content = read_json(job.ticket_path(number))
        if file_size(job.shard_path(number)) != content["bytes"]:
            return None
        return Ticket(int(content["images"]), int(content["people"]), tuple((str(name), str(reason)) for name, reason in content["bad"]))
    except (KposeError, OSError, KeyError, TypeError, ValueError):
        return None


def predict_shard(job: BatchJob, number: int, estimator: PoseEstimator, update: Callable[[int], None] = lambda done: None) -> Ticket:
    """Find the poses of a shard's pictures and write them; the ticket comes last.

    Args:
        job: what to do.
        number: of the shard.
        estimator: of `open_estimator`.
        update: is called with the number of pictures that are behind it.

    Raises:
        KposeError: when the plan is damaged, the records are missing, or the shard cannot be written.
    """
    path, bad = job.shard_path(number), list[Bad]()
    images = people = 0

    def found() -> Iterator[dict[str, Any]]:
        nonlocal images, people
        for group in group_pictures(_readable(job, number, bad), estimator.batch_size):
            poses = estimator([image for _, image, _ in group], [boxes for _, _, boxes in group])
            for (name, image, _), persons in zip(group, poses, strict=True):
                images, people = images + 1, people + len(persons)
                yield {
                    "image": name,
                    "height": image.shape[0],
                    "width": image.shape[1],
                    "people": [pose.to_json() for pose in persons],
                }
            update(images + len(bad))

    with replacing(path) as partial:
        _write(found(), partial, job.settings.form)
        size, digest = file_size(partial), sha256_of(partial)
    write_json({"images": images, "people": people, "bytes": size, "sha256": digest, "bad": bad}, job.ticket_path(number))
    return Ticket(images, people, tuple(bad))


def _readable(job: BatchJob, number: int, bad: list[Bad]) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
    """Name, picture and boxes of those of a shard that can be read; the others are put down in `bad`."""
    for name, read in _ahead(_loads(job, number, bad)):
        try:
            yield name, *read.result()
        except KposeError as error:
            bad.append((name, str(error)))


def _ahead(loads: Iterable[tuple[str, Load]]) -> Iterator[tuple[str, Future[tuple[np.ndarray, np.ndarray | None]]]]:
    """Pictures in their order, a few of which are read ahead by threads."""
    with ThreadPoolExecutor(_THREADS) as pool:
        coming = ((name, pool.submit(load)) for name, load in loads)
        pending = list(islice(coming, _AHEAD))
        while pending:
            yield pending.pop(0)
            pending += islice(coming, 1)


def _loads(job: BatchJob, number: int, bad: list[Bad]) -> Iterator[tuple[str, Load]]:
    """The name of each picture of a shard, and what reads it with its boxes."""
    plan = read_json(job.plan_path(number))
    if "records" in plan:
        for picture in read_pictures(plan["records"], plan["images"]):
            if isinstance(picture, str):
                bad.append((picture, "the record is damaged: its checksum is wrong"))
            else:
                yield picture.name, _from_record(picture, job)
        return
    listed = plan.get("boxes") or [None] * len(plan["images"])
    for name, boxes in zip(plan["images"], listed, strict=True):
        yield name, _from_file(f"{job.root}/{name}" if job.root else name, boxes)


def _from_file(path: str, boxes: list[list[float]] | None) -> Load:
    def load() -> tuple[np.ndarray, np.ndarray | None]:
        image = read_image(path)
        return image, None if boxes is None else check_boxes(boxes, image.shape[:2], path)

    return load


def _from_record(picture: Picture, job: BatchJob) -> Load:
    own_boxes = job.settings.detector is None and not job.settings.whole_image

    def load() -> tuple[np.ndarray, np.ndarray | None]:
        # Annotations are in the frame of the pixels as they are stored, whatever the EXIF data says.
        image = decode_image(picture.content, picture.name, upright=not own_boxes)
        return image, check_boxes(picture.boxes, image.shape[:2], picture.name) if own_boxes else None

    return load


def _write(rows: Iterable[dict[str, Any]], path: Path, form: Form) -> None:
    if form == "jsonl":
        with path.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
        return
    arrow, parquet = import_parquet()
    person = arrow.struct(
        [("keypoints", arrow.list_(arrow.list_(arrow.float32(), 3))), ("score", arrow.float32()), ("box", arrow.list_(arrow.float32(), 4))]
    )
    schema = arrow.schema([("image", arrow.string()), ("height", arrow.int32()), ("width", arrow.int32()), ("people", arrow.list_(person))])
    parquet.write_table(arrow.Table.from_pylist(list(rows), schema), path)


def import_parquet() -> tuple[Any, Any]:
    """PyArrow and its module for Parquet.

    Raises:
        KposeError: when it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise KposeError("Parquet files need PyArrow; pip install 'kpose[parquet]', or write JSON lines") from error
    return pyarrow, pyarrow.parquet
