"""What a batch prediction is to do, written down before it begins: which pictures go into which shard, by which networks.

OUTPUT/manifest.json            networks and settings; written last, so that where it lies all plans do
OUTPUT/plan/00012.json          the pictures of shard 12
OUTPUT/done/00012.json          what came of it; written after the shard
OUTPUT/poses-00012-of-00100.jsonl
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kpose.checkpoint import read_card
from kpose.data.tfrecords import manifest_entries
from kpose.errors import KposeError
from kpose.files import address, files_within, find_files, is_remote, local_copy, read_json, sha256_of, write_json
from kpose.inference.detector_files import open_detector
from kpose.inference.folder import listed_boxes
from kpose.inference.images import SUFFIXES
from kpose.inference.listed_detections import ListedDetections
from kpose.inference.test_time import common_skeleton
from kpose.weights.pretrained import find_checkpoint

FORMAT = "kpose poses 1"
MANIFEST = "manifest.json"
RECORDS_SUFFIX = ".tfrecord"

Form = Literal["jsonl", "parquet"]


@dataclass(frozen=True)
class BatchSettings:
    """How people are looked for.

    Attributes:
        weights: `.keras` checkpoints, or names of networks that come with kpose; several answer together. Workers must find them there.
        detector: TFLite file or folder of a SavedModel, a person detector, which finds everybody.
        whole_image: take each picture as one person's box, where it comes without boxes and there is no detector; otherwise the box is
            found from the joints, in passes.
        flip: also look at the mirrored crops.
        form: of the shards: JSON lines, or Parquet (`kpose[parquet]`).
        batch_size: crops that go through a network at once, at most.
        person_class: the number of the class `person` in what the detector says; default: as of its kind.
    """

    weights: tuple[str, ...]
    detector: str | None = None
    whole_image: bool = False
    flip: bool = True
    form: Form = "jsonl"
    batch_size: int = 32
    person_class: int | None = None


@dataclass(frozen=True)
class BatchJob:
    """A batch prediction.

    Attributes:
        output: the folder that everything goes to.
        settings: how people are looked for.
        digests: SHA-256 of each network's file, then of the detector's.
        root: what the pictures' names are relative to; empty: they are whole paths.
        shards: how many there are.
        images: how many pictures they hold together.
    """

    output: str
    settings: BatchSettings
    digests: tuple[str, ...]
    root: str
    shards: int
    images: int

    def shard_path(self, number: int) -> Path:
        """The file of a shard."""
        return Path(self.output) / f"poses-{number:05d}-of-{self.shards:05d}.{self.settings.form}"

    def plan_path(self, number: int) -> Path:
        """The file that names its pictures."""
        return Path(self.output) / "plan" / f"{number:05d}.json"

    def ticket_path(self, number: int) -> Path:
        """The file that says that it is done, and what came of it."""
        return Path(self.output) / "done" / f"{number:05d}.json"


def digests_of(settings: BatchSettings) -> tuple[str, ...]:
    """The SHA-256 of all files that decide what is found.

    Raises:
        KposeError: when one cannot be read.
    """
    files = [weights if is_remote(weights) else str(find_checkpoint(weights)) for weights in settings.weights]
    try:
        return tuple(sha256_of(file) for file in [*files, *([settings.detector] if settings.detector else [])])
    except OSError as error:
        raise KposeError(f"cannot read {error.filename}: {error.strerror}") from error


def begin_job(
    source: str | Path,
    output: str | Path,
    settings: BatchSettings,
    boxes: Mapping[str, np.ndarray] | None = None,
    shard_size: int = 1000,
) -> BatchJob:
    """Look for the pictures, share them out and write the plan.

    Pictures are taken in the order of their names, `shard_size` to a shard. A set of records keeps its own shards.

    Args:
        source: a folder (with its subfolders), a pattern of pictures such as `gs://bucket/*.jpg`, or one of TFRecord shards.
        output: a folder without a job.
        settings: how people are looked for.
        boxes: of pictures in files, by name relative to the folder, by address, or by file name alone; who is not named shows nobody.
        shard_size: pictures in a shard.

    Raises:
        KposeError: when the detector is none that looks at pictures, there is no picture, the boxes are for others, a file cannot be read,
            or the plan cannot be written.
    """
    _require_detector(settings)
    if shard_size < 1:
        raise KposeError(f"a shard of {shard_size} pictures is not possible; give 1 or more")
    digests, skeleton, text = digests_of(settings), _skeleton(settings), address(source)
    root, names = _find(text, address(output))
    recorded = [name for name in names if name.endswith(RECORDS_SUFFIX)]
    if recorded and (len(recorded) < len(names) or boxes is not None):
        raise KposeError(
            f"{text} matches TFRecord shards; give them without pictures beside them, and without boxes: records have their own"
        )
    plans: list[dict[str, Any]]
    if recorded:
        entries = manifest_entries(recorded)
        plans = [{"records": path, "images": entry["images"]} for path, entry in entries.items()]
    else:
        parts = [names[start : start + shard_size] for start in range(0, len(names), shard_size)]
        found = {} if boxes is None else {name: listed for name in names if (listed := listed_boxes(name, boxes)) is not None}
        if boxes is not None and not any(map(len, found.values())):
            raise KposeError(
                f"the boxes name none of the pictures in {text}: they have {next(iter(boxes or {}), 'nothing')!r}, it has {names[0]!r}"
            )
        if boxes is not None and len(found) < len(names):
            print(f"{len(names) - len(found)} of {len(names)} pictures are not named with the boxes, and show nobody")
        plans = [
            {"images": part} if boxes is None else {"images": part, "boxes": [_numbers(found.get(name)) for name in part]} for part in parts
        ]
    images = sum(plan["images"] if recorded else len(plan["images"]) for plan in plans)
    job = BatchJob(address(output), settings, digests, root, len(plans), images)
    with ThreadPoolExecutor() as pool:  # elsewhere each file takes its time
        list(pool.map(lambda number: write_json(plans[number], job.plan_path(number)), range(len(plans))))
    counts = {"images": images, "shards": len(plans)}
    write_json({"format": FORMAT, "source": text, "root": root, **counts, **_identity(job), "skeleton": skeleton}, _manifest(output), 1)
    return job


def resume_job(source: str | Path, output: str | Path, settings: BatchSettings) -> BatchJob:
    """The job that a folder holds; its pictures are those that were there when it began.

    Raises:
        KposeError: when it holds none, or one of other networks, settings or pictures.
    """
    manifest = read_json(_manifest(output))
    counts = ("images", "shards")
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or not all(isinstance(manifest.get(key), int) for key in counts):
        raise KposeError(f"{address(_manifest(output))} is no manifest of a batch prediction ({FORMAT!r}); choose another output")
    root = str(manifest.get("root", ""))
    job = BatchJob(address(output), settings, digests_of(settings), root, manifest["shards"], manifest["images"])
    wanted = {"source": address(source), **_identity(job)}
    for key, value in wanted.items():
        before = manifest.get(key)
        if before != value:
            if isinstance(before, dict) and isinstance(value, dict):
                names = [name for name in {**before, **value} if before.get(name) != value.get(name)]
                before, value = ({name: side.get(name) for name in names} for side in (before, value))
            raise KposeError(
                f"{address(output)} was begun with {key} {_short(before)}, now it is {_short(value)}; give the same, or another output"
            )
    return job


def has_job(output: str | Path) -> bool:
    """Whether a folder holds a job."""
    return bool(find_files(_manifest(output)))


def _identity(job: BatchJob) -> dict[str, Any]:
    """What must not change while a job is under way."""
    settings = asdict(job.settings)
    if settings["person_class"] is None:  # as before there was a choice
        del settings["person_class"]
    files = [*settings.pop("weights"), *([job.settings.detector] if settings.pop("detector") else [])]
    # A network is the same wherever its file lies.
    networks = [f"{Path(file).name} (SHA-256 {digest[:16]})" for file, digest in zip(files, job.digests, strict=True)]
    return {"networks": networks, "settings": settings}


def _skeleton(settings: BatchSettings) -> dict[str, Any]:
    """The meaning of the keypoints, which all networks share."""
    with tempfile.TemporaryDirectory(prefix="kpose-") as folder:
        files = [local_copy(weights, folder) for weights in settings.weights]
        return common_skeleton([read_card(file) for file in files], files).to_dict()


def _require_detector(settings: BatchSettings) -> None:
    """Refuse what is no detector before anything is written: the workers open it when the job is there."""
    if settings.detector is None:
        return
    with tempfile.TemporaryDirectory(prefix="kpose-") as folder:
        detector = open_detector(local_copy(settings.detector, folder), settings.person_class)
    if isinstance(detector, ListedDetections):
        raise KposeError(f"{settings.detector} lists detections; give it as --boxes, or a detector that looks")


def _numbers(boxes: np.ndarray | None) -> list[list[float]]:
    return [] if boxes is None else np.asarray(boxes, np.float64).tolist()


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 160 else f"{text[:157]}..."


def _manifest(output: str | Path) -> Path:
    return Path(output) / MANIFEST


def _find(source: str, output: str) -> tuple[str, list[str]]:
    """The root, and the names of all pictures or records, sorted."""
    if any(character in source for character in "*?["):
        names = [name for name in find_files(source) if name.lower().endswith((*SUFFIXES, RECORDS_SUFFIX))]
        if not names:
            raise KposeError(f"no picture ({', '.join(SUFFIXES)}) and no TFRecord shard matches {source}")
        return "", names
    if source.endswith(RECORDS_SUFFIX):
        return "", [source]
    root = source.rstrip("/") if is_remote(source) else os.path.abspath(source)
    # What an earlier prediction put beside the pictures is not one of them.
    written = (output if is_remote(output) else os.path.abspath(output)).rstrip("/")
    names = sorted(
        name for name in files_within(root) if name.lower().endswith(SUFFIXES) and not f"{root}/{name}".startswith(f"{written}/")
    )
    if not names:
        raise KposeError(f"there is no folder {source}, or no picture ({', '.join(SUFFIXES)}) in it")
    return root, names
