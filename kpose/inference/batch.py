"""Millions of pictures: poses in sharded files, each picture once, whatever is killed on the way.

    predict_batch("gs://bucket/photos", "gs://bucket/poses", BatchSettings(("lite_mobilenet_v3_256x192",)), workers=4)

A shard is written whole or not at all, and which pictures it holds is settled before the first is read: whoever writes it, once or again,
writes the same. `kpose.beam` does the same on a cluster.
"""

from __future__ import annotations

import functools
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kpose.beam import beam_pipeline, map_once
from kpose.errors import KposeError
from kpose.files import address, find_files, remove_file, replacing, write_json
from kpose.inference.batch_job import BatchJob, BatchSettings, begin_job, has_job, resume_job
from kpose.inference.batch_shard import Ticket, import_parquet, open_estimator, predict_shard, read_ticket
from kpose.inference.predictor import PoseEstimator
from kpose.processes import Work, run_in_processes

BAD_IMAGES = "bad_images.jsonl"
SUMMARY = "summary.json"
# Each holds TensorFlow and the networks, most of a gigabyte.
_MOST_WORKERS = 8


@dataclass(frozen=True)
class BatchSummary:
    """What came of a batch prediction.

    Attributes:
        images: pictures in the shards.
        people: found in them.
        bad: pictures that could not be read, or with boxes that are none; `bad_images.jsonl` says why.
        shards: the files.
        images_per_second: of this run, from the start of its first process to the end of the last.
    """

    images: int
    people: int
    bad: int
    shards: tuple[Path, ...]
    images_per_second: float


def predict_batch(
    source: str | Path,
    output: str | Path,
    settings: BatchSettings,
    boxes: Mapping[str, np.ndarray] | None = None,
    *,
    shard_size: int = 1000,
    workers: int | None = None,
    resume: bool = False,
    beam: Sequence[str] | None = None,
    progress: bool = True,
) -> BatchSummary:
    """Find the poses in very many pictures.

    `OUTPUT/poses-00000-of-00100.jsonl` and so on hold a line for each picture: its name, height, width, and its people with keypoints
    `(K, 3)` x, y, score in the image frame, score and box. `bad_images.jsonl` names those that are in no shard, with the reason;
    `manifest.json` networks and settings; `summary.json` the counts.

    Args:
        source: a folder, a pattern of pictures, or one of TFRecord shards, see `kpose.inference.batch_job.begin_job`.
        output: a folder of its own.
        settings: how people are looked for.
        boxes: see `begin_job`. Records have their own, which count unless there is a detector or `whole_image` is set.
        shard_size: pictures in a shard; of records it is what their shards hold.
        workers: processes on this machine, which share its cores; default: one for each, 8 at most.
        resume: do what an earlier run left undone.
        beam: options of Beam and its runner: do it on Beam instead of on `workers`. Output, pictures and networks must be where all of
            Beam's workers find them.
        progress: show a bar with the time to go.

    Raises:
        KposeError: when something is refused before the start, see `begin_job` and `resume_job`; when `output` holds a prediction already
            and `resume` is not set; when a shard cannot be written, or kills whoever works on it. What is written stays for `resume`.
    """
    workers = min(os.cpu_count() or 1, _MOST_WORKERS) if workers is None else workers
    if workers < 1:
        raise KposeError(f"cannot predict with {workers} workers; give 1 or more")
    if settings.form == "parquet":
        import_parquet()
    if has_job(output):
        if not resume:
            raise KposeError(f"{address(output)} holds a prediction already; go on with it by --resume, or choose another output")
        job = resume_job(source, output, settings)
    elif resume:
        raise KposeError(f"{address(output)} holds no prediction to go on with; leave --resume out")
    else:
        job = begin_job(source, output, settings, boxes, shard_size)
    tickets = {number: ticket for number in range(job.shards) if (ticket := read_ticket(job, number)) is not None}
    remaining = [number for number in range(job.shards) if number not in tickets]
    before = sum(ticket.images + len(ticket.bad) for ticket in tickets.values())
    if tickets:
        print(f"{len(tickets)} of {job.shards} shards with {before} of {job.images} pictures are there already")
    start = time.monotonic()
    if remaining and beam is not None:
        with beam_pipeline(beam) as pipeline:
            map_once(pipeline, remaining, functools.partial(_predict_on_beam, job))
    elif remaining:
        _predict_here(job, remaining, tickets, before, workers, progress)
    return _finish(job, before, time.monotonic() - start)


def _predict_here(job: BatchJob, remaining: Sequence[int], tickets: dict[int, Ticket], before: int, workers: int, progress: bool) -> None:
    with tqdm(total=job.images, initial=before, desc="predicting", unit="image", disable=not progress, leave=False) as bar:
        done, bad = before, sum(len(ticket.bad) for ticket in tickets.values())

        def show(steps: int) -> None:
            bar.update(done + steps - bar.n)

        def count(number: int) -> None:
            nonlocal done, bad
            ticket = read_ticket(job, number)
            if ticket is None:
                raise KposeError(
                    f"{address(job.shard_path(number))} was written, and is not there as it was; is somebody else at work there?"
                )
            done, bad = done + ticket.images + len(ticket.bad), bad + len(ticket.bad)
            bar.set_postfix(bad=bad)

        threads = max((os.cpu_count() or 1) // workers, 1)
        given_up = run_in_processes(functools.partial(_begin_work, job, threads), remaining, workers, show, count)
    if given_up:
        number, why = next(iter(given_up.items()))
        raise KposeError(
            f"{len(given_up)} of {job.shards} shards cannot be written, first {job.shard_path(number).name}: {why}; its pictures are in "
            f"{address(job.plan_path(number))}; the other shards are written"
        )


def _begin_work(job: BatchJob, threads: int) -> Work:
    """In a process of its own: load the networks, and give what writes a shard."""
    import tensorflow as tf

    # Processes share the cores, and perhaps a GPU.
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    for device in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(device, True)
    estimator = open_estimator(job)

    def work(number: int, update: object) -> None:
        predict_shard(job, number, estimator, update)  # type: ignore[arg-type]

    return work


_open_once = functools.lru_cache(maxsize=1)(open_estimator)
# A runner may use several threads; the networks take all cores anyway.
_ONE_AT_A_TIME = threading.Lock()


def _predict_on_beam(job: BatchJob, number: int) -> None:
    with _ONE_AT_A_TIME:
        if read_ticket(job, number) is None:
            estimator: PoseEstimator = _open_once(job)
            predict_shard(job, number, estimator)


def _finish(job: BatchJob, before: int, seconds: float) -> BatchSummary:
    """Count what is there, and write down which pictures are not."""
    tickets = [read_ticket(job, number) for number in range(job.shards)]
    missing = [number for number, ticket in enumerate(tickets) if ticket is None]
    if missing:
        raise KposeError(f"{len(missing)} of {job.shards} shards are missing, first {job.shard_path(missing[0]).name}; go on by --resume")
    there = [ticket for ticket in tickets if ticket is not None]
    images, people = sum(ticket.images for ticket in there), sum(ticket.people for ticket in there)
    bad = [entry for ticket in there for entry in ticket.bad]
    if images + len(bad) != job.images:
        raise KposeError(
            f"{images} pictures are in the shards and {len(bad)} are bad, but there were {job.images}; is somebody else at work there?"
        )
    output = Path(job.output)
    for left_over in find_files(output / ".poses-*.partial*"):  # of processes that were killed
        with suppress(OSError):
            remove_file(left_over)
    with replacing(output / BAD_IMAGES) as partial, partial.open("w", encoding="utf-8") as file:
        for name, reason in bad:
            file.write(json.dumps({"image": name, "reason": reason}, ensure_ascii=False) + "\n")
    write_json({"images": images, "people": people, "bad_images": len(bad), "shards": job.shards}, output / SUMMARY, indent=1)
    speed = (job.images - before) / seconds if seconds else 0.0
    told = f", the first is {bad[0][0]}" if bad else ""
    print(
        f"{people} people in {images} images, {len(bad)} bad images ({BAD_IMAGES}{told}); {job.images - before} images in {seconds:.1f} s, "
        f"{speed:.1f} images/s; {job.shards} shards in {job.output}"
    )
    return BatchSummary(images, people, len(bad), tuple(job.shard_path(number) for number in range(job.shards)), speed)
