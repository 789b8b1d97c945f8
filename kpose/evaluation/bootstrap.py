"""How far a score would move on other photos of the same kind: the bootstrap over images.

Images are drawn with replacement, as many as there are, again and again, and scored anew (Efron, "Bootstrap Methods: Another Look at the
Jackknife", Annals of Statistics 1979); the middle 95 % of these scores are the percentile interval. What is drawn are images, not people:
those of one photo share its light, its crowd and its photographer, and AP ranks them together. Two systems are compared on the same draws:
most of what a draw makes easier or harder is so for both, and their difference is much surer than either score.

Nothing is matched anew for a draw: matching takes place within an image, so that a draw only changes how often each result counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from kpose.errors import KposeError
from kpose.evaluation.coco import METRICS, read_for_oks
from kpose.evaluation.oks import OksEvaluation
from kpose.evaluation.pck import check_points, pck, torso_diameters
from kpose.skeletons import COCO_17, LSP_14, Skeleton

RESAMPLES = 2000
CONFIDENCE = 0.95


class ImageScorer(Protocol):
    """A score of results that can be computed again as if each image had been there several times, or not at all."""

    images: np.ndarray
    """`(M,)` the dataset's numbers of the images."""

    def __call__(self, counts: np.ndarray) -> dict[str, float]:
        """Metrics by name, where image m was there `counts[m]` times; NaN where there is nobody to be found."""
        ...


class OksScorer:
    """`coco_ap` of drawn images. Results are matched once; with every image once the figures are those of `coco_ap`.

    Args:
        results: see `coco_ap`.
        annotations: see `coco_ap`.
        skeleton: see `coco_ap`.
        image_ids: see `coco_ap`.

    Raises:
        KposeError: see `coco_ap`.
    """

    def __init__(
        self,
        results: Sequence[dict[str, Any]] | str | Path,
        annotations: dict[str, Any] | str | Path,
        skeleton: Skeleton = COCO_17,
        image_ids: Iterable[int] | None = None,
    ) -> None:
        truth, found, images = read_for_oks(results, annotations, skeleton, image_ids)
        evaluation = OksEvaluation(truth.people, found, np.array(skeleton.oks_sigmas), images)
        evaluation.evaluate()
        parameters = evaluation.params
        self.images = np.array(parameters.imgIds, np.int64)
        self._recalls = parameters.recThrs
        self._thresholds = np.asarray(parameters.iouThrs)
        # One row an area range (all, medium, large), in it one entry an image.
        entries = [evaluation.evalImgs[start : start + len(self.images)] for start in range(0, len(evaluation.evalImgs), len(self.images))]
        scores = np.concatenate([entry["dtScores"] for entry in entries[0]])
        # As pycocotools sorts them: of equal scores the one of the earlier image comes first.
        order = np.argsort(-scores, kind="mergesort")
        self._image = np.repeat(np.arange(len(self.images)), [len(entry["dtScores"]) for entry in entries[0]])[order]
        matched = np.stack([np.concatenate([entry["dtMatches"] for entry in row], axis=1) for row in entries])[..., order]
        ignored = np.stack([np.concatenate([entry["dtIgnore"] for entry in row], axis=1) for row in entries])[..., order]
        self._hits, self._mistakes = matched & ~ignored, ~matched & ~ignored  # (A, T, P)
        self._people = np.array([[np.count_nonzero(~entry["gtIgnore"]) for entry in row] for row in entries])  # (A, M)

    def __call__(self, counts: np.ndarray) -> dict[str, float]:
        """The figures of `coco_ap` where image m is there `counts[m]` times."""
        weights = np.asarray(counts)[self._image]
        precision, recall = zip(*(self._curve(area, weights, counts) for area in range(len(self._people))), strict=True)
        half, three_quarters = (int(np.argmin(np.abs(self._thresholds - at))) for at in (0.5, 0.75))
        values = []
        for kind in (precision, recall):
            values += [kind[0], kind[0][half], kind[0][three_quarters], kind[1], kind[2]]
        return {name: float(np.mean(value)) for name, value in zip(METRICS, values, strict=True)}

    def _curve(self, area: int, weights: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Precision `(T, R)` at the recall levels, and the greatest recall `(T,)`, as `COCOeval.accumulate` has them."""
        people = int(self._people[area] @ counts)
        rows = len(self._thresholds)
        if not people:
            return np.full((rows, len(self._recalls)), math.nan), np.full(rows, math.nan)
        # A result that counts three times is three equal steps of the curve, whose best precision is that of the last: one step does.
        hits = np.cumsum(self._hits[area] * weights, axis=1).astype(np.float64)
        mistakes = np.cumsum(self._mistakes[area] * weights, axis=1).astype(np.float64)
        recall, precision = hits / people, hits / (mistakes + hits + np.spacing(1))
        # The best precision at this recall or a greater one; 0 beyond the last.
        best = np.zeros((rows, precision.shape[1] + 1))
        best[:, :-1] = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        at = np.stack([row[np.searchsorted(reached, self._recalls)] for row, reached in zip(best, recall, strict=True)])
        return at, recall[:, -1] if recall.shape[1] else np.zeros(rows)


class PckScorer:
    """`pck` of drawn images. People without a torso, whom it leaves out, are left out here; and images without anybody else.

    Args:
        image_ids: `(N,)` the dataset's numbers of the people's images.
        predictions: see `pck`.
        ground_truth: see `pck`.
        missing: see `pck`.
        threshold: see `pck`.
        skeleton: see `pck`.

    Raises:
        KposeError: see `pck`; also when the images are those of other people.
    """

    def __init__(
        self,
        image_ids: np.ndarray,
        predictions: np.ndarray,
        ground_truth: np.ndarray,
        missing: np.ndarray,
        threshold: float = 0.2,
        skeleton: Skeleton = LSP_14,
    ) -> None:
        predictions, ground_truth, missing = check_points(predictions, ground_truth, missing, skeleton)
        if len(image_ids) != len(predictions):
            raise KposeError(f"{len(image_ids)} image numbers for {len(predictions)} people; give one for each")
        known = ~np.isnan(torso_diameters(ground_truth, missing, skeleton))
        self.images, self._image = np.unique(np.asarray(image_ids, np.int64)[known], return_inverse=True)
        self._predictions, self._truth, self._missing = predictions[known], ground_truth[known], missing[known]
        self._threshold, self._skeleton = threshold, skeleton

    def __call__(self, counts: np.ndarray) -> dict[str, float]:
        """The figures of `pck`, its `mean` as `PCK`, where image m is there `counts[m]` times."""
        drawn = np.repeat(np.arange(len(self._image)), np.asarray(counts)[self._image])
        found = pck(self._predictions[drawn], self._truth[drawn], self._missing[drawn], self._threshold, self._skeleton)
        return {"PCK": found.pop("mean"), **found}


@dataclass(frozen=True)
class Interval:
    """A value and the interval that holds `CONFIDENCE` of its bootstrap values; NaN where there is none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """A score and what it was on R draws of images.

    Attributes:
        score: metrics by name, of all images once.
        draws: by name `(R,)`.
        images: `(M,)` the dataset's numbers of the images.
        seed: of the draws.
    """

    score: dict[str, float]
    draws: dict[str, np.ndarray]
    images: np.ndarray
    seed: int

    def interval(self, metric: str) -> Interval:
        """The percentile interval of a metric. Draws in which it has no value, nobody of that size being in them, are left out."""
        return _interval(self.score[metric], self.draws[metric])

    def difference(self, other: Bootstrap, metric: str) -> Interval:
        """How much greater the metric is than another system's, on the same draws.

        Raises:
            KposeError: when the draws are not the same.
        """
        mine, others = self.draws[metric], other.draws[metric]
        if not np.array_equal(self.images, other.images) or (self.seed, len(mine)) != (other.seed, len(others)):
            raise KposeError("two scores can only be compared on the same draws: score the same images, with the same seed and resamples")
        return _interval(self.score[metric] - other.score[metric], mine - others)


def bootstrap(scorer: ImageScorer, resamples: int = RESAMPLES, seed: int = 0, progress: bool = True) -> Bootstrap:
    """Score draws of images.

    Args:
        scorer: the score.
        resamples: how many draws.
        seed: of the draws; scores of the same images, seed and number are on the same draws.
        progress: show a bar.

    Raises:
        KposeError: when there are fewer than 2 images or no draw.
    """
    images = len(scorer.images)
    if images < 2 or resamples < 1:
        raise KposeError(f"a bootstrap needs at least 2 images and 1 resample, found {images} and {resamples}")
    counts = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)
    score = scorer(np.ones(images, np.int64))
    draws = [scorer(drawn) for drawn in tqdm(counts, desc="bootstrap", unit=" resamples", disable=not progress, leave=False)]
    return Bootstrap(score, {name: np.array([draw[name] for draw in draws]) for name in score}, scorer.images, seed)


def _interval(value: float, draws: np.ndarray) -> Interval:
    known = draws[~np.isnan(draws)]
    if not len(known):
        return Interval(value, math.nan, math.nan)
    low, high = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(value, float(low), float(high))
