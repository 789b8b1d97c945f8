"""What the benchmark of training steps reports; how fast anything is, is no matter of tests."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kpose.benchmark import training
from kpose.benchmark.training import (
    INFERENCE,
    PRODUCT_SIZE,
    STEP,
    benchmark_training,
    compiled_calls,
    floors,
    gradient_difference,
    with_plain_normalisation,
)
from kpose.errors import KposeError
from kpose.models.counting import count_activations
from kpose.models.layers import BatchNormalization


def tiny(name: str = "tiny", num_keypoints: int = 2, input_size: tuple[int, int] = (16, 16), outputs: int = 1) -> keras.Model:
    inputs = keras.Input((*input_size, 3))
    x = keras.layers.ReLU()(BatchNormalization(name="normalised")(keras.layers.Conv2D(4, 3, strides=4, padding="same")(inputs)))
    heads = [keras.layers.Conv2D(num_keypoints, 1, name=f"heatmaps_{number}")(x) for number in range(outputs)]
    return keras.Model(inputs, heads if outputs > 1 else heads[0], name=name)


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_step_trains_and_inference_does_not(outputs: int):
    model = tiny(outputs=outputs)
    calls = compiled_calls(model, batch_size=3)
    before = model.get_weights()
    calls[INFERENCE]()
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    losses = [calls[STEP]() for _ in range(3)]
    assert all(np.isfinite(losses)) and int(model.optimizer.iterations) == 3
    assert all(np.any(one != other) for one, other in zip(before, model.get_weights(), strict=True))


def test_the_plain_network_is_the_same_function():
    model = tiny()
    compiled_calls(model, 2)[STEP]()  # so that its statistics are not those of a fresh network
    plain = with_plain_normalisation(model)
    assert type(plain.get_layer("normalised")) is keras.layers.BatchNormalization
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    np.testing.assert_allclose(plain(images), model(images), atol=1e-5)


def test_networks_that_are_not_the_same_are_told_apart():
    model = tiny()
    assert gradient_difference(model, with_plain_normalisation(model), 4) < 1e-5
    other = keras.models.clone_model(model)
    assert gradient_difference(model, other, 4) > 0.1, "other weights, other gradients"


def test_floors_by_hand():
    model = tiny()
    # 4 x 4 positions; 27 weights for each of 4 channels, then 4 for each of 2 joints.
    assert count_activations(model) == 16 * (4 + 2)
    multiply_adds, moved = floors(model, 10, product=2.0, move=8.0)
    assert multiply_adds == pytest.approx(3 * 10 * 16 * (27 * 4 + 4 * 2) / PRODUCT_SIZE**3 * 2.0)
    assert moved == pytest.approx(5 * 10 * 16 * 6 / (2 * training.MOVED_NUMBERS) * 8.0)


def test_the_table_is_complete(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(training, "build_model", tiny)
    monkeypatch.setattr(training, "measure_peak_memory", lambda *_: (12.0, 34.0))
    measured = benchmark_training(["first", "second"], (16, 16), batch_size=2, rounds=1)
    assert [one.name for one in measured] == ["first", "second"]
    assert all(one.step > 0 and one.step_over_inference > 0 and one.plain_over_fused > 0 for one in measured)
    assert all(one.gradient_difference < 1e-5 for one in measured)
    table = capsys.readouterr().out.splitlines()
    assert len({row.count("|") for row in table[:4]}) == 1 and table[2].startswith("| `first` | 2 |") and table[2].endswith("| 12 | 34 |")


@pytest.mark.slow
def test_peak_memory_of_a_step_is_more_than_that_of_inference():
    inference, step = training.measure_peak_memory("lite_mobilenet_v3", (64, 64), 4)
    assert inference is not None and step is not None
    assert 0 < inference < step < 10_000


def test_nothing_to_measure_is_refused():
    with pytest.raises(KposeError, match="0 rounds"):
        benchmark_training(rounds=0)
