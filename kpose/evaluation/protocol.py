"""The protocol card: all that a score depends on, so that two scores can be compared, or known to be incomparable."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from kpose.checkpoint import ModelCard
from kpose.config import CodecConfig, Config, DatasetConfig, EvaluationConfig, Fraction, Positive
from kpose.data.instances import Instances
from kpose.errors import KposeError
from kpose.files import read_json

# Raised with every change of what a card holds or means: cards of different versions are not compared.
CARD_VERSION = 2


class _Part(BaseModel):
    # What a card holds beyond these fields is for people to read.
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, protected_namespaces=())


class HashedFile(_Part):
    """A file without its folder."""

    file: Annotated[str, Field(max_length=255)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class ScoredDataset(_Part):
    """Whose score it is: two scores compare only where all of this is equal."""

    format: str
    annotations: HashedFile
    head_boxes: HashedFile | None
    include: dict[str, list[str | int]]
    exclude: dict[str, list[str | int]]
    people_range: tuple[int, int] | None
    images: int
    skeleton: str
    joint_names: tuple[str, ...]
    joints_left_out: tuple[str, ...]
    oks_sigmas: tuple[float, ...] | None


class UsedBoxes(_Part):
    """Where people were looked for; file, hash and minimum score of detections alone."""

    source: Literal["ground truth", "detections"]
    file: Annotated[str, Field(max_length=255)] = ""
    sha256: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""
    minimum_score: float = 0.0
    padding: Positive


class TestSettings(_Part):
    """What was done between the photo and the list of results."""

    flip: bool
    shift_heatmap: bool
    rotations: Annotated[tuple[float, ...], Field(min_length=1)]
    scales: Annotated[tuple[Positive, ...], Field(min_length=1)]
    ensemble: Literal["positions", "heatmaps"] | None
    codec: CodecConfig
    oks_suppression_threshold: Fraction | None
    keypoint_threshold: float
    box_rescoring: bool


class UsedNetwork(_Part):
    """One network; several are an ensemble."""

    name: str
    input_size: tuple[int, int]
    weights: HashedFile


class ProtocolCard(_Part):
    """A protocol card that was read back, see `protocol_card`."""

    protocol: str
    metrics: Annotated[dict[str, float | None], Field(min_length=1)]
    dataset: ScoredDataset
    boxes: UsedBoxes
    test: TestSettings
    networks: Annotated[tuple[UsedNetwork, ...], Field(min_length=1)]
    versions: dict[str, str]


def read_protocol_card(path: str | Path) -> ProtocolCard:
    """Read a `protocol.json`.

    Raises:
        KposeError: when it is missing, no card, a card of another version of kpose, or a value is not valid.
    """
    values = read_json(path)
    if not isinstance(values, dict) or not {"metrics", "dataset", "test"} <= values.keys():
        raise KposeError(f"{path} is no protocol card; `kpose evaluate` writes one as protocol.json")
    found = values.get("card_version", 1)
    if found != CARD_VERSION:
        raise KposeError(
            f"{path} is a protocol card of version {str(found)[:20]}, this kpose reads version {CARD_VERSION}; "
            "evaluate that checkpoint again"
        )
    try:
        return ProtocolCard.model_validate(values)
    except pydantic.ValidationError as error:
        problem = error.errors(include_url=False)[0]
        message = problem["msg"]
        raise KposeError(f"{path}: {'.'.join(map(str, problem['loc']))}: {message[0].lower()}{message[1:]}") from error


def protocol_card(
    config: Config,
    dataset: DatasetConfig,
    instances: Instances,
    metrics: dict[str, float],
    networks: Sequence[tuple[ModelCard, str | Path]],
    *,
    protocol: str,
    joints_left_out: Sequence[str] = (),
) -> dict[str, Any]:
    """How a score was made, as plain values for JSON. Files are named without their folders.

    Args:
        config: the experiment: crops and `evaluation`.
        dataset: the validation set that was scored, one of `config.data.validation`.
        instances: the people of that set.
        metrics: the score, the one that counts first.
        networks: each network's card and checkpoint; several are an ensemble.
        protocol: name of the score, such as `OKS AP`.
        joints_left_out: names of the dataset's joints that take no part in the score.

    Raises:
        KposeError: when a file cannot be read to take its hash, or the people have no annotation file.
    """
    if instances.annotation_file is None:
        raise KposeError("a protocol card needs a validation set with annotations; set data.validation")
    evaluation = config.evaluation
    boxes: dict[str, Any] = {"source": "ground truth"}
    if not has_ground_truth_boxes(instances) and dataset.detections is not None:
        boxes = {"source": "detections", **_file(dataset.detections), "minimum_score": dataset.minimum_box_score}
    return {
        "card_version": CARD_VERSION,
        "protocol": protocol,
        "metrics": metrics_for_json(metrics),
        "dataset": {
            "name": dataset.name or dataset.format,
            "format": dataset.format,
            "annotations": _file(instances.annotation_file),
            "head_boxes": _file(dataset.head_boxes) if dataset.head_boxes is not None else None,
            "include": dataset.include,
            "exclude": dataset.exclude,
            "people_range": list(dataset.people) if dataset.people is not None else None,
            "images": len(instances.image_files),
            "people": len(instances),
            "skeleton": instances.skeleton.name,
            "joint_names": list(instances.skeleton.joint_names),
            "joints_left_out": list(joints_left_out),
            "oks_sigmas": instances.skeleton.to_dict()["oks_sigmas"],
        },
        "boxes": boxes | {"padding": config.data.box_padding},
        "test": {
            "flip": evaluation.flip,
            "shift_heatmap": evaluation.flip and evaluation.shift_heatmap and config.codec.alignment == "classic",
            "rotations": list(evaluation.rotations),
            "scales": list(evaluation.scales),
            "ensemble": evaluation.ensemble if len(networks) > 1 else None,
            "codec": config.codec.model_dump(mode="json"),
            "oks_suppression_threshold": suppression_threshold(instances, evaluation),
            "keypoint_threshold": evaluation.keypoint_threshold,
            "box_rescoring": evaluation.box_rescoring,
        },
        "networks": [
            {
                "name": card.name,
                "options": card.options,
                "input_size": list(card.input_size),
                "epoch": card.training.get("epoch"),
                "licence": card.licence,
                "weights": _file(weights),
            }
            for card, weights in networks
        ],
        "versions": library_versions(),
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


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file.

    Raises:
        KposeError: when it cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise KposeError(f"cannot read {path} to take its hash: {error.strerror}") from error


def library_versions() -> dict[str, str]:
    """The installed versions of what a score is computed with."""
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


def _file(path: str | Path) -> dict[str, str]:
    """Name and SHA-256 of a file."""
    return {"file": Path(path).name, "sha256": file_hash(path)}
