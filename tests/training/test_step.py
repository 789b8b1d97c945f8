"""The step of a training: in parts, clipped, averaged, in less than float32, by XLA."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kpose.errors import KposeError
from kpose.losses import HeatmapMeanSquaredError
from kpose.models.layers import BatchNormalization
from kpose.training.step import INITIAL_LOSS_SCALE, StepSettings, TrainingModel

SIZE, JOINTS, PEOPLE = 16, 3, 8


def network(precision: str = "float32", norm: bool = False) -> keras.Model:
    keras.utils.set_random_seed(1)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        images = keras.Input((SIZE, SIZE, 3))
        x = keras.layers.Conv2D(6, 3, padding="same", use_bias=not norm)(images)
        if norm:
            x = BatchNormalization()(x)
        outputs = keras.layers.Conv2D(JOINTS, 1, dtype="float32")(keras.layers.ReLU()(x))
    finally:
        keras.config.set_dtype_policy(policy)
    return keras.Model(images, outputs)


def batches(number: int, spoilt: int | None = None) -> tf.data.Dataset:
    """Steps of people; of one of them the pictures are far too bright."""
    random = np.random.default_rng(0)
    images = random.normal(size=(8, PEOPLE, SIZE, SIZE, 3)).astype(np.float32)
    if spoilt is not None:
        images[spoilt] *= 1e30
    heatmaps = random.uniform(size=(8, PEOPLE, SIZE, SIZE, JOINTS)).astype(np.float32)
    weights = random.integers(0, 2, size=(8, PEOPLE, JOINTS)).astype(np.float32)
    return tf.data.Dataset.from_tensor_slices((images, heatmaps, weights)).take(number)


def fitted(
    steps: int = 3,
    settings: StepSettings | None = None,
    optimizer: Any = None,
    precision: str = "float32",
    norm: bool = False,
    spoilt: int | None = None,
) -> TrainingModel:
    finished = network(norm=norm)
    settings = settings or StepSettings()
    other = precision != "float32" or settings.weight_averaging
    model = TrainingModel(network(precision, norm) if other else finished, finished, settings)
    model.compile(optimizer or keras.optimizers.SGD(0.1), HeatmapMeanSquaredError(), jit_compile=False, auto_scale_loss=False)
    model.build_losses()
    model.optimizer.build(model.trainable_variables)
    if steps:
        model.fit(batches(steps, spoilt).repeat(), steps_per_epoch=steps, verbose=0)
    return model


def distance(one: Any, other: Any) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))


def test_parts_of_a_batch_give_the_gradients_of_the_whole() -> None:
    plain = fitted().get_weights()
    for parts in (2, 8):
        assert distance(fitted(settings=StepSettings(accumulation_steps=parts)).get_weights(), plain) < 1e-7
    # The comparison would see another batch.
    assert distance(fitted(steps=2).get_weights(), plain) > 1e-3


def test_parts_of_a_batch_are_one_update() -> None:
    assert int(fitted(steps=3, settings=StepSettings(accumulation_steps=4)).optimizer.iterations.numpy()) == 3


@pytest.mark.parametrize("parts", [1, 4])
def test_all_gradients_together_are_clipped(parts: int) -> None:
    before = network().get_weights()

    def length(clipping: float | None) -> float:
        model = fitted(1, StepSettings(accumulation_steps=parts, gradient_clipping=clipping), keras.optimizers.SGD(1.0))
        return float(np.sqrt(sum(np.square(a - b).sum() for a, b in zip(model.get_weights(), before, strict=True))))

    free = length(None)
    assert length(free / 3) == pytest.approx(free / 3, rel=1e-4)
    assert length(2 * free) == pytest.approx(free, rel=1e-6), "what is short enough stays as it is"


def test_the_average_is_what_is_finished() -> None:
    decay, norm = 0.15, True
    expected = fitted(steps=0, norm=norm).get_weights()
    for step in (1, 2, 3):
        weights = fitted(steps=step, norm=norm).get_weights()
        kept = min(decay, (1 + step) / (10 + step))
        expected = [kept * old + (1 - kept) * new for old, new in zip(expected, weights, strict=True)]
    model = fitted(steps=3, settings=StepSettings(weight_averaging=decay), norm=norm)
    assert distance(model.finish().get_weights(), expected) < 1e-6, "statistics of normalisation too"
    assert distance(model.get_weights(), fitted(steps=3, norm=norm).get_weights()) == 0, "the average does not touch the training"
    assert distance(model.get_weights(), expected) > 1e-3


@pytest.mark.parametrize(("precision", "scaled"), [("mixed_bfloat16", False), ("mixed_float16", True)])
def test_layers_compute_with_less_and_all_else_in_float32(precision: str, scaled: bool) -> None:
    model = fitted(settings=StepSettings(scale_loss=scaled), precision=precision, norm=True)
    convolution = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    assert convolution.compute_dtype == precision.removeprefix("mixed_")
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert model.output.dtype == "float32"
    finished = model.finish()
    assert {layer.compute_dtype for layer in finished.layers} == {"float32"}
    assert distance(finished.get_weights(), model.get_weights()) == 0
    away = distance(model.get_weights(), fitted(norm=True).get_weights())
    assert 0 < away < 1e-2, "rounded, but the same training"


def test_an_overflow_costs_a_step_and_nothing_else() -> None:
    scaled = StepSettings(scale_loss=True)
    before = fitted(steps=1, settings=scaled, precision="mixed_float16", norm=True)
    model = fitted(steps=2, settings=scaled, precision="mixed_float16", norm=True, spoilt=1)
    assert distance(model.get_weights(), before.get_weights()) == 0, "weights and statistics are those before it"
    scale = model.loss_scale
    assert scale is not None
    assert float(scale.factor.numpy()) == INITIAL_LOSS_SCALE / 2 and int(scale.skipped_steps.numpy()) == 1
    assert int(model.optimizer.iterations.numpy()) == 1
    assert np.isfinite(model.history.history["loss"]).all()
    model.fit(batches(2), verbose=0)
    assert int(model.optimizer.iterations.numpy()) == 3, "it goes on"


def test_the_loss_scale_grows_after_many_good_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kpose.training.step.LOSS_SCALE_PATIENCE", 2)
    model = fitted(steps=5, settings=StepSettings(scale_loss=True), precision="mixed_float16")
    assert model.loss_scale is not None and float(model.loss_scale.factor.numpy()) == 4 * INITIAL_LOSS_SCALE


def test_scaling_keeps_gradients_that_float16_would_lose() -> None:
    """With a loss so small that its gradients are below the smallest float16, 6e-8."""

    def moved(scaled: bool) -> float:
        model = fitted(steps=0, settings=StepSettings(scale_loss=scaled), precision="mixed_float16")
        model.compile(keras.optimizers.SGD(1e6), HeatmapMeanSquaredError(factor=1e-7), jit_compile=False, auto_scale_loss=False)
        model.optimizer.build(model.trainable_variables)
        kernel = model.get_weights()[0]
        model.fit(batches(1), verbose=0)
        return float(np.abs(model.get_weights()[0] - kernel).max())

    assert moved(scaled=True) > 2 * moved(scaled=False)


def test_a_scale_that_falls_for_ever_ends_the_training() -> None:
    model = fitted(steps=0, settings=StepSettings(scale_loss=True), precision="mixed_float16")
    model.require_sound_loss_scale()
    assert model.loss_scale is not None
    model.loss_scale.factor.assign(0.5)
    with pytest.raises(KposeError, match=r"overflow float16 even with a loss scale of 0\.5; set training\.precision to bfloat16"):
        model.require_sound_loss_scale()


@pytest.mark.parametrize("parts", [1, 2])
def test_xla_gives_the_same(parts: int) -> None:
    compiled = fitted(settings=StepSettings(jit_compile=True, accumulation_steps=parts), norm=True).get_weights()
    assert distance(compiled, fitted(settings=StepSettings(accumulation_steps=parts), norm=True).get_weights()) < 1e-5
