"""TFRecord shards, written on a cluster by Apache Beam: byte for byte those of `write_tfrecords`.

Pictures and folder must be where all workers can read and write: a shared disk, or a path with a scheme, such as `gs://`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kpose.beam import beam_pipeline, map_once
from kpose.data.instances import Instances
from kpose.data.tfrecords import ShardPlan, WrittenShard, plan_shards, write_manifest, write_shard
from kpose.errors import KposeError
from kpose.files import address, read_json, remove_folder, replacing, write_json
from kpose.npz_files import read_npz
from kpose.skeletons import Skeleton

_COLUMNS = ("image_ids", "image_sizes", "image_index", "ids", "boxes", "keypoints", "areas", "box_scores")
_LARGEST_PLAN_BYTES = 4 << 30


def write_tfrecords_with_beam(
    instances: Instances, folder: str | Path, prefix: str = "people", shards: int = 16, seed: int = 0, options: Sequence[str] = ()
) -> Path:
    """`write_tfrecords` on Beam's workers.

    Whom each shard holds is written to a folder of plans beside the shards, which goes when all are there: annotations of millions of
    people would not travel with a pipeline.

    Args:
        instances: the people.
        folder: where to write to.
        prefix: of the files' names.
        shards: how many files.
        seed: of the order.
        options: of Beam and its runner, see `kpose.beam.beam_pipeline`.

    Returns:
        The manifest.

    Raises:
        KposeError: as `write_tfrecords`; also when Beam is not installed or the pipeline fails.
    """
    plans = plan_shards(instances, folder, prefix, shards, seed)
    plan_folder = Path(folder) / f"{prefix}-plans"
    for number, plan in enumerate(plans):
        _write_plan(plan, plan_folder / f"{number:05d}.npz")
    task = _WriteShard(address(plan_folder), tuple(sorted(instances.skeleton.to_dict().items())))
    with beam_pipeline(options) as pipeline:
        map_once(pipeline, range(len(plans)), task)
    written = []
    for number in range(len(plans)):
        found = read_json(plan_folder / f"{number:05d}.json")
        written.append(WrittenShard(found["entry"], tuple(found["broken"])))
    manifest = write_manifest(written, instances.skeleton, folder, prefix)
    try:
        remove_folder(plan_folder)
    except OSError as error:
        raise KposeError(f"the shards are written, but {address(plan_folder)} cannot be removed: {error.strerror}") from error
    return manifest


@dataclass(frozen=True)
class _WriteShard:
    """What a worker does for the shard of a number: read the plan, write the shard, leave word of it beside the plan."""

    plans: str
    skeleton: tuple[tuple[str, Any], ...]

    def __call__(self, number: int) -> None:
        path = Path(self.plans) / f"{number:05d}.npz"
        written = write_shard(_read_plan(path, Skeleton.from_dict(dict(self.skeleton), source=str(path))))
        write_json({"entry": written.entry, "broken": written.broken}, path.with_suffix(".json"))


def _write_plan(plan: ShardPlan, path: Path) -> None:
    people = plan.people
    texts = json.dumps({"path": plan.path, "image_files": people.image_files}).encode()
    with replacing(path) as partial:
        np.savez(partial, texts=np.frombuffer(texts, np.uint8), **{name: getattr(people, name) for name in _COLUMNS})


def _read_plan(path: Path, skeleton: Skeleton) -> ShardPlan:
    remedy = "write the shards again"
    arrays: dict[str, Any] = read_npz(path, _LARGEST_PLAN_BYTES, missing=f"the plan {address(path)} is missing; {remedy}", remedy=remedy)
    texts = json.loads(arrays.pop("texts").tobytes())
    return ShardPlan(texts["path"], Instances(skeleton, tuple(texts["image_files"]), **arrays))
