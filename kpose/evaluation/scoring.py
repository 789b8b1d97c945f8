"""From a network and a set of people to a score: predict, bring back to the photo, suppress, compare."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from kpose import geometry
from kpose.checkpoint import load_model
from kpose.codecs import Codec
from kpose.config import Config, EvaluationConfig
from kpose.data import Instances, evaluation_batches, preparation_from_config, validation_instances
from kpose.errors import KposeError
from kpose.evaluation.coco import coco_ap, coco_results, person_category, write_results
from kpose.evaluation.protocol import has_ground_truth_boxes, metrics_for_json, protocol_card, suppression_threshold
from kpose.evaluation.suppression import oks_nms, rescore
from kpose.files import read_json, write_json
from kpose.inference.test_time import Forward, compile_forward, decoded_size, predict_heatmaps

if TYPE_CHECKING:
    import keras

# A training scores the same network every few epochs, and to trace it takes seconds.
_compile_once = functools.lru_cache(maxsize=1)(compile_forward)

RESULTS, SCORE, PROTOCOL = "results.json", "score.json", "protocol.json"


@dataclass(frozen=True)
class Predictions:
    """What a network said about N people.

    Attributes:
        keypoints: `(N, K, 3)` float32 x, y, score in the image frame.
        areas: `(N,)` square image pixels that the crop shows, the scale of OKS suppression.
    """

    keypoints: np.ndarray
    areas: np.ndarray


@dataclass(frozen=True)
class Score:
    """Metrics by name (see `coco_ap`) and the COCO result list that they come from."""

    metrics: dict[str, float]
    results: list[dict[str, Any]]


def predict_instances(
    model: keras.Model | Forward,
    instances: Instances,
    batches: Iterable[dict[str, Any]],
    codec: Codec,
    evaluation: EvaluationConfig,
    progress: bool = True,
) -> Predictions:
    """Keypoints of all people, in their photos.

    Args:
        model: the network, or `compile_forward` of it.
        instances: the people.
        batches: `image` `(B, H, W, 3)` normalised crops, `matrix` `(B, 2, 3)` from image to crop, `index` `(B,)` positions in `instances`.
        codec: heatmaps to keypoints.
        evaluation: flip and shift.
        progress: show a bar.

    Returns:
        Of the people in the order of `instances`.

    Raises:
        KposeError: when the batches leave somebody out: a score would be too high without a word.
    """
    people, joints = len(instances), instances.skeleton.num_joints
    keypoints, areas, present = np.zeros((people, joints, 3), np.float32), np.zeros(people), np.zeros(people, bool)
    crop_width, crop_height = geometry.crop_extent(codec.input_size, codec.alignment)
    with tqdm(total=people, desc="predicting", unit=" people", disable=not progress, leave=False) as bar:
        for batch in batches:
            index = np.asarray(batch["index"])
            heatmaps = predict_heatmaps(model, batch["image"], codec, instances.skeleton, evaluation.flip, evaluation.shift_heatmap)
            to_image = geometry.invert_affine(np.asarray(batch["matrix"], np.float64))
            keypoints[index] = geometry.transform_points(codec.decode(heatmaps), to_image)
            areas[index] = crop_width * crop_height * np.abs(np.linalg.det(to_image[:, :, :2]))
            present[index] = True
            bar.update(len(index))
    if not present.all():
        raise KposeError(f"{np.count_nonzero(~present)} of {people} people came in no batch, so they cannot be scored")
    return Predictions(keypoints, areas)


def score_predictions(predictions: Predictions, instances: Instances, evaluation: EvaluationConfig) -> Score:
    """OKS AP of predictions against the annotations that the people come from.

    Detected people are suppressed where one is too similar to a better one of the same photo; people of ground-truth boxes never are.

    Raises:
        KposeError: when the people have no annotation file to compare with; also see `coco_ap`.
    """
    if instances.annotation_file is None:
        raise KposeError("these people come without an annotation file, so there is nothing to score against; set 'annotations'")
    annotations = read_json(instances.annotation_file)
    scores = rescore(instances.box_scores, predictions.keypoints, evaluation.keypoint_threshold, evaluation.box_rescoring)
    kept = _unsuppressed(predictions, scores, instances, suppression_threshold(instances, evaluation))
    image_ids = instances.image_ids[instances.image_index[kept]]
    results = coco_results(image_ids, predictions.keypoints[kept], scores[kept], person_category(annotations))
    return Score(coco_ap(results, annotations, instances.skeleton, instances.image_ids), results)


def evaluate(model: keras.Model, instances: Instances, config: Config, progress: bool = True) -> Score:
    """Score a network.

    Args:
        model: from crops to heatmaps.
        instances: whom to find, see `kpose.data.validation_instances`.
        config: crops, codec and protocol.
        progress: show a bar.

    Raises:
        KposeError: when a picture cannot be read, or see `score_predictions`.
    """
    preparation = preparation_from_config(config, decoded_size(model, instances.skeleton, config.codec))
    batches = evaluation_batches(instances, preparation, config.evaluation.batch_size)
    forward = _compile_once(model, config.evaluation.batch_size)
    predictions = predict_instances(forward, instances, batches, preparation.codec, config.evaluation, progress)
    return score_predictions(predictions, instances, config.evaluation)


def evaluate_checkpoint(config: Config, weights: str | Path, output: str | Path) -> Score:
    """Score a checkpoint on the configuration's validation set, and write down the result and how it was made.

    The folder gets `results.json` (the COCO result list), `score.json` (the metrics) and `protocol.json` (see `protocol_card`).

    Raises:
        KposeError: when the checkpoint does not fit the configuration, or see `evaluate`.
    """
    weights, output = Path(weights), Path(output)
    model = load_model(weights)
    model.card.require_match(config, weights)
    instances = validation_instances(config)
    start = time.monotonic()
    score = evaluate(model, instances, config)
    seconds = time.monotonic() - start
    write_results(score.results, output / RESULTS)
    write_json(metrics_for_json(score.metrics), output / SCORE, indent=2)
    write_json(protocol_card(config, instances, score.metrics, model.card, weights), output / PROTOCOL, indent=2)
    boxes = "annotated" if has_ground_truth_boxes(instances) else "detected"
    print(f"{len(instances)} {boxes} people in {len(instances.image_files)} images in {seconds:.0f} s: {format_metrics(score.metrics)}")
    print(f"{RESULTS}, {SCORE} and {PROTOCOL} in {output}")
    return score


def format_metrics(metrics: dict[str, float]) -> str:
    """Metrics in one line; a dash where there is nobody of that size."""
    return "  ".join(f"{name} {'-' if math.isnan(value) else format(value, '.4f')}" for name, value in metrics.items())


def _unsuppressed(predictions: Predictions, scores: np.ndarray, instances: Instances, threshold: float | None) -> np.ndarray:
    """Positions of the people that OKS suppression leaves, photo by photo, in the order of `instances`."""
    people = np.argsort(instances.image_index, kind="stable")
    if threshold is None:
        return np.arange(len(people))
    if instances.skeleton.oks_sigmas is None:
        raise KposeError(
            f"skeleton {instances.skeleton.name!r} has no 'oks_sigmas'; add them, or set evaluation.suppression_threshold to null"
        )
    sigmas = np.array(instances.skeleton.oks_sigmas)
    first_of_image = np.flatnonzero(np.diff(instances.image_index[people])) + 1
    kept = [
        group[oks_nms(predictions.keypoints[group], scores[group], predictions.areas[group], sigmas, threshold)]
        for group in np.split(people, first_of_image)
    ]
    return np.sort(np.concatenate(kept))
