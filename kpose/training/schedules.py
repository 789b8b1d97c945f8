"""Learning-rate schedules."""

from __future__ import annotations

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
        if self.warmup_steps:
            progress = ops.minimum(step / self.warmup_steps, 1.0)
            rate = rate * (self.warmup_factor + (1.0 - self.warmup_factor) * progress)
        return rate

    def get_config(self) -> dict[str, Any]:
        """The arguments, for saving."""
        return {
            "learning_rate": self.learning_rate,
            "warmup_steps": self.warmup_steps,
            "warmup_factor": self.warmup_factor,
            "drop_steps": list(self.drop_steps),
            "drop_factor": self.drop_factor,
        }
