"""The learning rate over the steps, and the optimizer that follows it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kpose.config import parse_config
from kpose.training.fit import make_optimizer
from kpose.training.schedules import CosineRestarts, WarmupStepDecay, restart_lengths


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


# Two descents, of 100 and of 200 steps, from 1e-3 to 1e-5. By hand: halfway the mean of both, after a third 3/4 of the way from the lowest.
@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 1e-3),
        (50, 5.05e-4),
        (99, 1.0244e-5),  # 1e-5 + 9.9e-4 (1 + cos(0.99 pi)) / 2
        (100, 1e-3),
        (100 + 200 / 3, 7.525e-4),
        (200, 5.05e-4),
        (299, 1.0061e-5),
        (300, 1e-5),
        (10**6, 1e-5),
    ],
)
def test_a_rate_with_restarts_falls_as_a_cosine_and_starts_anew(step: float, rate: float) -> None:
    assert float(CosineRestarts(1e-3, [100, 200], 1e-5)(step)) == pytest.approx(rate, rel=1e-4)


def test_a_rate_with_restarts_is_warmed_up_too() -> None:
    schedule, warmed = CosineRestarts(1e-3, [100]), CosineRestarts(1e-3, [100], warmup_steps=10, warmup_factor=0.2)
    assert float(warmed(0)) == pytest.approx(2e-4)
    assert float(warmed(5)) == pytest.approx(0.6 * float(schedule(5)))
    assert [float(warmed(step)) for step in (10, 60, 100)] == [float(schedule(step)) for step in (10, 60, 100)]


def test_restarts_survive_saving() -> None:
    schedule = CosineRestarts(1e-3, [100, 200], 1e-5, 10, 0.1)
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert [float(restored(step)) for step in (0, 40, 150, 400)] == [float(schedule(step)) for step in (0, 40, 150, 400)]


@pytest.mark.parametrize(
    ("epochs", "first", "factor", "lengths"),
    [
        (240, 16, 2.0, [160, 320, 640, 1280]),  # the restarts after epochs 16, 48 and 112, the end after 240
        (200, 16, 2.0, [160, 320, 640, 1280]),  # stops within the last descent
        (112, 16, 2.0, [160, 320, 640]),
        (3, 1, 1.0, [10, 10, 10]),
        (6, 1, 1.5, [10, 15, 22, 34]),  # whole steps: 22.5 and 33.75
    ],
)
def test_descents_cover_the_training(epochs: int, first: int, factor: float, lengths: list[int]) -> None:
    assert restart_lengths(epochs, first, factor, steps_per_epoch=10) == lengths


def optimizer(**settings: Any) -> keras.optimizers.Optimizer:
    return make_optimizer(parse_config({"training": settings}), steps_per_epoch=10)


def rates(**settings: Any) -> list[float]:
    """The learning rate in the middle of the first ten epochs."""
    schedule = optimizer(**settings)._learning_rate
    return [float(schedule(10 * epoch + 5)) for epoch in range(10)]


def test_drops_are_counted_in_epochs() -> None:
    found = rates(learning_rate=0.5, warmup_steps=0, drop_epochs=[3, 7], drop_factor=0.5)
    np.testing.assert_allclose(found, [0.5] * 3 + [0.25] * 4 + [0.125] * 3)


def test_restarts_are_counted_in_epochs() -> None:
    settings = {"schedule": "restarts", "epochs": 12, "first_restart": 2, "restart_factor": 2.0, "warmup_steps": 0}
    found = rates(learning_rate=1.0, **settings)
    expected = [(1 + np.cos(np.pi * part)) / 2 for part in (0.25, 0.75, 0.125, 0.375, 0.625, 0.875, 0.0625, 0.1875, 0.3125, 0.4375)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def two_steps(gradients: list[float], **settings: Any) -> list[float]:
    """Where a variable that begins at 1 is after each of two steps at a rate of 0.1."""
    variable = keras.Variable([1.0])
    chosen = optimizer(learning_rate=0.1, warmup_steps=0, drop_epochs=[], **settings)
    chosen.build([variable])
    places = []
    for gradient in gradients:
        chosen.apply([tf.constant([gradient])])
        places.append(float(variable[0]))
    return places


# By hand, from the published update rules.
@pytest.mark.parametrize(
    ("settings", "gradients", "places"),
    [
        # Adam's first step is the rate itself, whatever the gradient. Its second: m = 0.19 / 0.19, v = 0.001999 / 0.001999.
        ({"optimizer": "adam"}, [2.0, 2.0], [0.9, 0.8]),
        # Each time a tenth of a tenth of the variable besides.
        ({"optimizer": "adamw", "weight_decay": 0.1}, [2.0, 2.0], [0.89, 0.7811]),
        # PyTorch's: v = 0.01 g^2, a step of rate x 10; then v = 0.0199 g^2, of rate x 7.0888.
        ({"optimizer": "rmsprop"}, [2.0, 2.0], [0.0, -0.70888]),
        # As far with the tiny gradients that heatmaps give: 1e-8 is small against the root of v, 1e-6.
        ({"optimizer": "rmsprop"}, [1e-5, 1e-5], [0.0, -0.70888]),
        ({"optimizer": "sgd"}, [2.0, 2.0], [0.8, 0.42]),  # 0.2, then 0.2 + 0.9 x 0.2
        ({"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.1}, [2.0, 2.0], [0.79, 0.5821]),
    ],
)
def test_an_optimizer_follows_its_rule(settings: dict[str, Any], gradients: list[float], places: list[float]) -> None:
    np.testing.assert_allclose(two_steps(gradients, **settings), places, atol=2e-4)
