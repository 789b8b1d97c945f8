"""Annotated people in, batches out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kpose.data.coco import read_coco
    from kpose.data.crops import Preparation, preparation_from_config
    from kpose.data.datasets import TrainingSets, ValidationSet, training_instances, training_sets, validation_sets
    from kpose.data.instances import Instances
    from kpose.data.joint_mapping import JointMapping
    from kpose.data.pipeline import (
        SkippedSamples,
        TrainingData,
        evaluation_batches,
        evaluation_dataset,
        steps_per_epoch,
        training_data,
        training_dataset,
    )
    from kpose.data.readers import read_dataset

# Looked up when first used: the processes that draw synthetic people must not each start TensorFlow.
_HOMES = {
    "Instances": "instances",
    "JointMapping": "joint_mapping",
    "Preparation": "crops",
    "SkippedSamples": "pipeline",
    "TrainingData": "pipeline",
    "TrainingSets": "datasets",
    "ValidationSet": "datasets",
    "evaluation_batches": "pipeline",
    "evaluation_dataset": "pipeline",
    "preparation_from_config": "crops",
    "read_coco": "coco",
    "read_dataset": "readers",
    "steps_per_epoch": "pipeline",
    "training_data": "pipeline",
    "training_dataset": "pipeline",
    "training_instances": "datasets",
    "training_sets": "datasets",
    "validation_sets": "datasets",
}

__all__ = [
    "Instances",
    "JointMapping",
    "Preparation",
    "SkippedSamples",
    "TrainingData",
    "TrainingSets",
    "ValidationSet",
    "evaluation_batches",
    "evaluation_dataset",
    "preparation_from_config",
    "read_coco",
    "read_dataset",
    "steps_per_epoch",
    "training_data",
    "training_dataset",
    "training_instances",
    "training_sets",
    "validation_sets",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"kpose.data.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'kpose.data' has no attribute {name!r}")
