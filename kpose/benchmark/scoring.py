"""How long a COCO score takes, beside pycocotools' own time for the same files.

Both read the same two files and score them, in turns, so that a machine that slows down or is shared slows both alike; the ratio is the
median over the turns.
"""

from __future__ import annotations

import contextlib
import io
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tqdm import tqdm

from kpose.errors import KposeError
from kpose.evaluation.coco import METRICS, coco_ap, person_category
from kpose.files import read_json, write_json


@dataclass(frozen=True)
class ScoringTime:
    """A measured pair.

    Attributes:
        pycocotools: seconds, median over the turns.
        kpose: seconds, median over the turns.
        ratio: kpose's time over pycocotools' in the same turn, median.
        difference: the largest between the two in any figure.
        score: kpose's figures.
    """

    pycocotools: float
    kpose: float
    ratio: float
    difference: float
    score: dict[str, float]


def benchmark_scoring(annotations: str | Path, results_per_image: int = 20, turns: int = 3) -> ScoringTime:
    """Measure and print how long it takes to read and score synthetic results of an annotation file.

    Args:
        annotations: COCO-style JSON (`.gz` too) of people with 17 joints.
        results_per_image: how many synthetic results each image gets.
        turns: how often both are measured.

    Raises:
        KposeError: when the file cannot be read or is no COCO-style annotation; also see `coco_ap`.
    """
    if results_per_image < 1 or turns < 1:
        raise KposeError(f"expected at least one result per image and one turn, found {results_per_image} and {turns}")
    content = read_json(annotations)
    if not isinstance(content, dict):
        raise KposeError(f"{annotations}: expected an object with images, annotations and categories, found {type(content).__name__}")
    results = synthetic_results(content, results_per_image)
    with tempfile.TemporaryDirectory() as folder:
        # pycocotools reads plain files alone.
        truth_file, results_file = write_json(content, Path(folder, "truth.json")), write_json(results, Path(folder, "results.json"))
        theirs, ours = [], []
        for _ in tqdm(range(turns), desc="scoring", unit=" turns", leave=False):
            expected, seconds = _timed(lambda: official_score(truth_file, results_file))
            theirs.append(seconds)
            score, seconds = _timed(lambda: coco_ap(results_file, truth_file))
            ours.append(seconds)
    measured = ScoringTime(
        pycocotools=statistics.median(theirs),
        kpose=statistics.median(ours),
        ratio=statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True)),
        difference=float(np.nanmax([abs(score[name] - expected[name]) for name in METRICS])),
        score=score,
    )
    print(format_scoring_time(measured))
    people = sum(bool(person.get("num_keypoints")) for person in content["annotations"])
    print(f"{len(content['images'])} images, {people} people with keypoints, {len(results)} results; median of {turns} turns")
    print(f"{os.cpu_count()} CPU threads, {platform.machine()}, pycocotools {version('pycocotools')}, NumPy {np.__version__}")
    return measured


def synthetic_results(annotations: dict[str, Any], per_image: int, seed: int = 0) -> list[dict[str, Any]]:
    """Results that keep an evaluation busy: annotated poses moved by little or much, of which many are near to the same person.

    Args:
        annotations: a COCO-style dictionary.
        per_image: how many each image gets; where nobody is annotated they lie anywhere.
        seed: of the random numbers.

    Raises:
        KposeError: when it has no images, or no person with keypoints.
    """
    category = person_category(annotations)
    try:
        poses: dict[int, list[np.ndarray]] = {image["id"]: [] for image in annotations["images"]}
        for person in annotations["annotations"]:
            if person.get("num_keypoints"):
                poses[person["image_id"]].append(np.array(person["keypoints"], np.float64).reshape(-1, 3))
        joints = next(len(pose[0]) for pose in poses.values() if pose)
    except (KeyError, TypeError, ValueError, StopIteration) as error:
        raise KposeError("annotations: found no images with people whose keypoints are annotated; is it a COCO keypoint file?") from error
    random = np.random.default_rng(seed)
    results = []
    for image, known in poses.items():
        for _ in range(per_image):
            keypoints = np.concatenate([random.uniform(0, 480, (joints, 2)), np.ones((joints, 1))], axis=-1)
            if known:
                keypoints = known[random.integers(len(known))].copy()
                extent = np.ptp(keypoints[keypoints[:, 2] > 0, :2], axis=0).max()
                keypoints[:, :2] += random.normal(size=(joints, 2)) * extent * random.choice([0.01, 0.03, 0.1, 0.3])
            results.append(
                {
                    "image_id": image,
                    "category_id": category,
                    "keypoints": keypoints.round(3).ravel().tolist(),
                    "score": round(float(random.random()), 6),
                }
            )
    return results


def official_score(annotations: str | Path, results: str | Path) -> dict[str, float]:
    """pycocotools' own figures, from files to the end; NaN where nobody is of that size."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(str(results)), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: float(value) if value >= 0 else float("nan") for name, value in zip(METRICS, evaluation.stats, strict=True)}


def format_scoring_time(measured: ScoringTime) -> str:
    """The pair as a Markdown table."""
    return "\n".join(
        [
            "| scored by | seconds | ratio | AP |",
            "|---|---|---|---|",
            f"| pycocotools: `COCO`, `loadRes`, `COCOeval` | {measured.pycocotools:.2f} | 1.00 | |",
            f"| `kpose.evaluation.coco_ap` | {measured.kpose:.2f} | {measured.ratio:.3f} | {measured.score['AP']:.4f} |",
            "",
            f"largest difference in any of the {len(METRICS)} figures: {measured.difference:.1e}",
        ]
    )


def _timed(score: Callable[[], dict[str, float]]) -> tuple[dict[str, float], float]:
    start = time.perf_counter()
    metrics = score()
    return metrics, time.perf_counter() - start
