"""Annotated people in, batches out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kpose.data.coco import dataset_from_config, read_coco
    from kpose.data.crops import Preparation, preparation_from_config
    from kpose.data.instances import Instances
    from kpose.data.pipeline import (
        SkippedSamples,
        TrainingData,
        evaluation_batches,
        evaluation_dataset,
        steps_per_epoch,
        training_data,
        training_dataset,
        training_instances,
        validation_instances,
    )

# Looked up when first used: the processes that draw synthetic people must not each start TensorFlow.
_HOMES = {
    "Instances": "instances",
    "Preparation": "crops",
    "SkippedSamples": "pipeline",
    "TrainingData": "pipeline",
    "dataset_from_config": "coco",
    "evaluation_batches": "pipeline",
    "evaluation_dataset": "pipeline",
    "preparation_from_config": "crops",
    "read_coco": "coco",
    "steps_per_epoch": "pipeline",
    "training_data": "pipeline",
    "training_dataset": "pipeline",
    "training_instances": "pipeline",
    "validation_instances": "pipeline",
}

__all__ = [
    "Instances",
    "Preparation",
    "SkippedSamples",
    "TrainingData",
    "dataset_from_config",
    "evaluation_batches",
    "evaluation_dataset",
    "preparation_from_config",
    "read_coco",
    "steps_per_epoch",
    "training_data",
    "training_dataset",
    "training_instances",
    "validation_instances",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"kpose.data.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'kpose.data' has no attribute {name!r}")
