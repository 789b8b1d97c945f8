"""From a network and a set of people to a score: predict, bring back to the photo, suppress, compare."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kpose.config import Config, EvaluationConfig
from kpose.data import ValidationSet, validation_sets
from kpose.evaluation.coco import person_category, write_results
from kpose.evaluation.metrics import metric_of, truth_of
from kpose.evaluation.prediction import Predictions, load_networks, pose_test, predict_instances, view_batches
from kpose.evaluation.protocol import has_ground_truth_boxes, metrics_for_json, protocol_card, suppression_threshold
from kpose.evaluation.raw import RAW_PREDICTIONS, RawPredictions, write_raw_predictions
from kpose.files import write_json

if TYPE_CHECKING:
    import keras

RESULTS, SCORE, PROTOCOL = "results.json", "score.json", "protocol.json"


@dataclass(frozen=True)
class Score:
    """Metrics by name (the set's protocol decides which), the COCO result list of the people that were left, and what it was made of."""

    metrics: dict[str, float]
    results: list[dict[str, Any]]
    raw: RawPredictions


def score_predictions(predictions: Predictions, validation: ValidationSet, evaluation: EvaluationConfig) -> Score:
    """Predictions against the annotations that the people come from, under the set's own protocol.

    Detected people are suppressed where one is too similar to a better one of the same photo; people of ground-truth boxes never are.
    Joints that the network does not have take no part.

    Args:
        predictions: of the people of `validation`, with the network's joints.
        validation: whom it was asked for.
        evaluation: score rule and suppression.

    Raises:
        KposeError: when the people have no annotation file to compare with; also see `coco_ap`, `crowdpose_ap`, `pckh` and `pck`.
    """
    raw, truth = RawPredictions.of(predictions, validation), truth_of(validation)
    results = raw.results(
        suppression_threshold(validation.instances, evaluation),
        evaluation.keypoint_threshold,
        evaluation.box_rescoring,
        validation,
        person_category(truth),
    )
    return Score(metric_of(validation.dataset).compute(raw.keypoints, results, truth, validation), results, raw)


def evaluate(model: keras.Model | Sequence[keras.Model], validation: ValidationSet, config: Config, progress: bool = True) -> Score:
    """Score a network.

    Args:
        model: from crops to heatmaps; several are an ensemble, see `pose_test`.
        validation: whom to find, see `kpose.data.validation_sets`.
        config: crops, codec and protocol.
        progress: show a bar.

    Raises:
        KposeError: when a picture cannot be read, or see `score_predictions`.
    """
    test = pose_test(config, model)
    batches = view_batches(test, validation.instances, config.evaluation.batch_size)
    predictions = predict_instances(test, validation.instances, batches, progress)
    return score_predictions(predictions, validation, config.evaluation)


def evaluate_checkpoint(config: Config, weights: str | Path | Sequence[str | Path], output: str | Path) -> dict[str, Score]:
    """Score a checkpoint, or an ensemble of several, on the configuration's validation sets, each under its own protocol.

    Results, and how they were made, are written down.

    The folder gets `results.json` (the COCO result list), `score.json` (the metrics), `protocol.json` (see `protocol_card`) and
    `predictions.npz` (see `RawPredictions`); where there are several sets, a subfolder of each set's name gets them.

    Returns:
        The scores by name of the set.

    Raises:
        KposeError: when the checkpoint does not fit the configuration, or see `evaluate`.
    """
    files = [weights] if isinstance(weights, (str, Path)) else list(weights)
    output = Path(output)
    models = load_networks(config, files)
    sets = validation_sets(config)
    for validation in sets:
        metric_of(validation.dataset).require(validation)
    scores = {}
    for validation in sets:
        instances, metric = validation.instances, metric_of(validation.dataset)
        folder = output if len(sets) == 1 else output / validation.name
        start = time.monotonic()
        score = scores[validation.name] = evaluate(models, validation, config)
        seconds = time.monotonic() - start
        card = protocol_card(
            config,
            validation.dataset,
            instances,
            score.metrics,
            [(model.card, file) for model, file in zip(models, files, strict=True)],
            protocol=metric.title,
            joints_left_out=validation.mapping.unused,
        )
        write_results(score.results, folder / RESULTS)
        write_raw_predictions(score.raw, folder / RAW_PREDICTIONS)
        write_json(metrics_for_json(score.metrics), folder / SCORE, indent=2)
        write_json(card, folder / PROTOCOL, indent=2)
        boxes = "annotated" if has_ground_truth_boxes(instances) else "detected"
        print(
            f"{validation.name}: {len(instances)} {boxes} people in {len(instances.image_files)} images in {seconds:.0f} s: "
            f"{format_metrics({name: score.metrics[name] for name in metric.logged})}"
        )
        print(f"{RESULTS}, {SCORE}, {PROTOCOL} and {RAW_PREDICTIONS} in {folder}")
    return scores


def format_metrics(metrics: dict[str, float]) -> str:
    """Metrics in one line; a dash where there is nobody of that size."""
    return "  ".join(f"{name} {'-' if math.isnan(value) else format(value, '.4f')}" for name, value in metrics.items())
