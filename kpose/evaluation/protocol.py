"""The protocol card: all that a score depends on, so that two scores can be compared, or known to be incomparable."""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kpose.checkpoint import ModelCard
from kpose.config import Config, EvaluationConfig
from kpose.data.instances import Instances
from kpose.errors import KposeError


def protocol_card(config: Config, instances: Instances, metrics: dict[str, float], card: ModelCard, weights: str | Path) -> dict[str, Any]:
    """How a score was made, as plain values for JSON. Files are named without their folders.

    Args:
        config: the experiment whose validation set was scored.
        instances: the people of that set.
        metrics: the score, see `coco_ap`.
        card: of the network.
        weights: the checkpoint.

    Raises:
        KposeError: when a file cannot be read to take its hash.
    """
    dataset, evaluation = config.data.validation[0] if config.data.validation else None, config.evaluation
    if dataset is None or instances.annotation_file is None:
        raise KposeError("a protocol card needs a validation set with annotations; set data.validation")
    ground_truth = has_ground_truth_boxes(instances)
    boxes: dict[str, Any] = {"source": "ground truth"}
    if not ground_truth and dataset.detections is not None:
        boxes = {"source": "detections", **_file(dataset.detections), "minimum_score": dataset.minimum_box_score}
    return {
        "metrics": metrics_for_json(metrics),
        "dataset": {
            "annotations": _file(instances.annotation_file),
            "include": dataset.include,
            "exclude": dataset.exclude,
            "images": len(instances.image_files),
            "people": len(instances),
            "skeleton": instances.skeleton.name,
            "joints": instances.skeleton.num_joints,
            "oks_sigmas": instances.skeleton.to_dict()["oks_sigmas"],
        },
        "boxes": boxes | {"padding": config.data.box_padding},
        "test": {
            "flip": evaluation.flip,
            "shift_heatmap": evaluation.flip and evaluation.shift_heatmap and config.codec.alignment == "classic",
            "codec": config.codec.model_dump(mode="json"),
            "oks_suppression_threshold": suppression_threshold(instances, evaluation),
            "keypoint_threshold": evaluation.keypoint_threshold,
            "box_rescoring": evaluation.box_rescoring,
        },
        "model": {
            "name": card.name,
            "options": card.options,
            "input_size": list(card.input_size),
            "epoch": card.training.get("epoch"),
            "licence": card.licence,
            "weights": _file(weights),
        },
        "versions": _versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def has_ground_truth_boxes(instances: Instances) -> bool:
    """Whether the people are annotated ones; detections have neither a number nor keypoints."""
    return bool((instances.ids != 0).any() or (instances.keypoints[..., 2] > 0).any())


def suppression_threshold(instances: Instances, evaluation: EvaluationConfig) -> float | None:
    """The OKS above which a detected person counts as found twice; None where nobody is suppressed."""
    return None if has_ground_truth_boxes(instances) else evaluation.suppression_threshold


def metrics_for_json(metrics: dict[str, float]) -> dict[str, float | None]:
    """Metrics with None for NaN, which JSON does not have."""
    return {name: None if math.isnan(value) else value for name, value in metrics.items()}


def _file(path: str | Path) -> dict[str, str]:
    """Name and SHA-256 of a file."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            return {"file": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    except OSError as error:
        raise KposeError(f"cannot read {path} to take its hash: {error.strerror}") from error


def _versions() -> dict[str, str]:
    import cv2
    import keras
    import numpy as np
    import tensorflow as tf

    import kpose

    return {
        "kpose": kpose.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "pycocotools": version("pycocotools"),
    }
