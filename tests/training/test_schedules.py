"""The learning rate over the steps."""

from __future__ import annotations

import keras
import pytest

from kpose.training.schedules import WarmupStepDecay


@pytest.fixture
def schedule() -> WarmupStepDecay:
    return WarmupStepDecay(5e-4, warmup_steps=500, warmup_factor=0.001, drop_steps=[1700, 2000], drop_factor=0.1)


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 5e-7), (250, 5e-4 * (0.001 + 0.999 * 0.5)), (500, 5e-4), (1699, 5e-4), (1700, 5e-5), (1999, 5e-5), (2000, 5e-6), (10**6, 5e-6)],
)
def test_rate_follows_the_published_recipe(schedule: WarmupStepDecay, step: int, rate: float) -> None:
    assert float(schedule(step)) == pytest.approx(rate, rel=1e-5)


def test_without_warmup_the_first_step_has_the_full_rate() -> None:
    assert float(WarmupStepDecay(1e-3)(0)) == pytest.approx(1e-3)


def test_survives_saving(schedule: WarmupStepDecay) -> None:
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert [float(restored(step)) for step in (0, 400, 1800, 3000)] == [float(schedule(step)) for step in (0, 400, 1800, 3000)]
