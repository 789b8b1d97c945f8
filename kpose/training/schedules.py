"""Learning-rate schedules. Both go by the step, of which `make_optimizer` knows how many an epoch has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kpose")
class WarmupStepDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then a drop by a factor at given steps: the recipe of SimpleBaseline, HRNet and the lightweight network.

    Args:
        learning_rate: rate between warm-up and the first drop.
        warmup_steps: steps of the warm-up, 0 for none.
        warmup_factor: fraction of the rate at step 0.
        drop_steps: steps from which on the rate is multiplied by `drop_factor` once more.
        drop_factor: see there.
    """

    def __init__(
        self,
        learning_rate: float,
        warmup_steps: int = 0,
        warmup_factor: float = 0.001,
        drop_steps: Sequence[int] = (),
        drop_factor: float = 0.1,
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps
        self.warmup_factor = warmup_factor
        self.drop_steps = tuple(drop_steps)
        self.drop_factor = drop_factor

    def __call__(self, step: Any) -> Any:
        """The rate at a step (0 based)."""
        step = ops.cast(step, "float32")
        rate = ops.convert_to_tensor(self.learning_rate, "float32")
        for drop_step in self.drop_steps:
            rate = ops.where(step >= drop_step, rate * self.drop_factor, rate)
        return _warm_up(rate, step, self.warmup_steps, self.warmup_factor)

    def get_config(self) -> dict[str, Any]:
        """The arguments, for saving."""
        return {
            "learning_rate": self.learning_rate,
            "warmup_steps": self.warmup_steps,
            "warmup_factor": self.warmup_factor,
            "drop_steps": list(self.drop_steps),
            "drop_factor": self.drop_factor,
        }


@keras.saving.register_keras_serializable(package="kpose")
class CosineRestarts(keras.optimizers.schedules.LearningRateSchedule):
    """Cosine descents one after another, each from the full rate: SGDR (Loshchilov and Hutter, ICLR 2017, equation 5).

    With L the steps of a descent, its step t has the rate low + (high - low) (1 + cos(pi t / L)) / 2. As in the paper the rate changes
    with every step, not with every epoch; the lowest rate is that of the step after a descent's last, where the next one begins.

    Args:
        learning_rate: rate at the begin of a descent.
        descent_steps: steps of each descent, one after another; afterwards the rate stays the lowest.
        lowest_learning_rate: rate at the end of a descent.
        warmup_steps: steps over which the rate is led up to the schedule's, 0 for none.
        warmup_factor: fraction of the schedule's rate at step 0.
    """

    def __init__(
        self,
        learning_rate: float,
        descent_steps: Sequence[int],
        lowest_learning_rate: float = 0.0,
        warmup_steps: int = 0,
        warmup_factor: float = 0.001,
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.descent_steps = tuple(descent_steps)
        self.lowest_learning_rate = lowest_learning_rate
        self.warmup_steps = warmup_steps
        self.warmup_factor = warmup_factor

    def __call__(self, step: Any) -> Any:
        """The rate at a step (0 based)."""
        step = ops.cast(step, "float32")
        progress = ops.ones_like(step)
        begin = 0
        for steps in self.descent_steps:
            progress = ops.where((step >= begin) & (step < begin + steps), (step - begin) / steps, progress)
            begin += steps
        height = 0.5 * (1.0 + ops.cos(progress * math.pi))
        rate = self.lowest_learning_rate + (self.learning_rate - self.lowest_learning_rate) * height
        return _warm_up(rate, step, self.warmup_steps, self.warmup_factor)

    def get_config(self) -> dict[str, Any]:
        """The arguments, for saving."""
        return {
            "learning_rate": self.learning_rate,
            "descent_steps": list(self.descent_steps),
            "lowest_learning_rate": self.lowest_learning_rate,
            "warmup_steps": self.warmup_steps,
            "warmup_factor": self.warmup_factor,
        }


def restart_lengths(epochs: int, first: int, factor: float, steps_per_epoch: int) -> list[int]:
    """Steps of the descents that a training of so many epochs takes; the last one may be longer than what is left of the training.

    Args:
        epochs: of the training.
        first: epochs of the first descent (the paper's T_0).
        factor: by which each descent is longer than the one before it (its T_mult).
        steps_per_epoch: the unit; lengths are whole steps.
    """
    lengths: list[int] = []
    while sum(lengths) < epochs * steps_per_epoch:
        lengths.append(round(first * factor ** len(lengths) * steps_per_epoch))
    return lengths


def _warm_up(rate: Any, step: Any, steps: int, factor: float) -> Any:
    """A schedule's rate, led up linearly from `factor` of it over its first steps."""
    if not steps:
        return rate
    return rate * (factor + (1.0 - factor) * ops.minimum(step / steps, 1.0))
