"""Annotated people in, batches out."""

from kpose.data.coco import dataset_from_config, read_coco
from kpose.data.instances import Instances
from kpose.data.pipeline import (
    Preparation,
    SkippedSamples,
    TrainingData,
    evaluation_batches,
    evaluation_dataset,
    preparation_from_config,
    steps_per_epoch,
    training_data,
    training_dataset,
    training_instances,
    validation_instances,
)

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
