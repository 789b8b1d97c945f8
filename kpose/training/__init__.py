"""Training: fit a network as a configuration says."""

from kpose.training.fit import TrainingResult, make_callbacks, make_loss, make_model, make_optimizer, train
from kpose.training.schedules import WarmupStepDecay

__all__ = [
    "TrainingResult",
    "WarmupStepDecay",
    "make_callbacks",
    "make_loss",
    "make_model",
    "make_optimizer",
    "train",
]
