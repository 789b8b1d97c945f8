"""Training: fit a network as a configuration says."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kpose.training.crops import train_on_crops
    from kpose.training.fit import TrainingResult, make_model, make_training_model, train
    from kpose.training.preemption import Preempted
    from kpose.training.recipe import make_loss, make_optimizer, make_schedule
    from kpose.training.schedules import WarmupStepDecay

# Looked up when first used: training on crops does without TensorFlow.
_HOMES = {
    "Preempted": "preemption",
    "TrainingResult": "fit",
    "WarmupStepDecay": "schedules",
    "make_loss": "recipe",
    "make_model": "fit",
    "make_optimizer": "recipe",
    "make_schedule": "recipe",
    "make_training_model": "fit",
    "train": "fit",
    "train_on_crops": "crops",
}

__all__ = [
    "Preempted",
    "TrainingResult",
    "WarmupStepDecay",
    "make_loss",
    "make_model",
    "make_optimizer",
    "make_schedule",
    "make_training_model",
    "train",
    "train_on_crops",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"kpose.training.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'kpose.training' has no attribute {name!r}")
