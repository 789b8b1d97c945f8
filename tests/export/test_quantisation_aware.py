"""Fake quantisation is what the int8 file does, and training with it brings the file closer to the network."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kpose.errors import KposeError
from kpose.export import TFLiteNetwork, convert_tflite, read_tflite_record
from kpose.export.inference_network import equalising_scales, inference_network
from kpose.export.metadata import attach_card
from kpose.export.quantisation import best_ranges, quantise
from kpose.export.quantisation_aware import activation_ranges, fake_quantised, train_quantisation_aware
from kpose.export.tflite import _built_in_operations
from tests.export.conftest import tiny_network


@pytest.fixture
def exported(network, crops) -> keras.Model:
    return inference_network(network, network.card, equalising_scales(inference_network(network, network.card), crops))


def int8_heatmaps(exported: keras.Model, network: keras.Model, crops: np.ndarray, path) -> np.ndarray:
    content = attach_card(_built_in_operations(exported, half_precision=False), network.card, "")
    path.write_bytes(attach_card(quantise(content, best_ranges(content, crops)[1]), network.card, ""))
    return TFLiteNetwork(path)(crops)


def float_heatmaps(model: keras.Model, crops: np.ndarray) -> np.ndarray:
    return np.concatenate([np.asarray(model(crop[None].astype(np.float32), training=False)) for crop in crops])


def error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)))


def test_it_rounds_as_the_file_does(exported, network, crops, tmp_path):
    expected = float_heatmaps(exported, crops)
    rounded = np.asarray(fake_quantised(exported, activation_ranges(exported, crops))(crops.astype(np.float32)))
    file = int8_heatmaps(exported, network, crops, tmp_path / "pose.tflite")
    assert error(rounded, expected) > 0.01
    # Neither is the other to the last step, but what they lose is the same.
    assert error(rounded, expected) == pytest.approx(error(file, expected), rel=0.5)
    assert error(rounded, file) < 1.2 * error(file, expected)


def test_training_brings_the_file_closer(exported, network, crops, tmp_path):
    expected = float_heatmaps(exported, crops)
    before = error(int8_heatmaps(exported, network, crops, tmp_path / "before.tflite"), expected)
    losses = train_quantisation_aware(exported, [crops] * 60, crops, 60, 1e-3, progress=False)
    after = error(int8_heatmaps(exported, network, crops, tmp_path / "after.tflite"), expected)
    assert np.mean(losses[-10:]) < 0.92 * np.mean(losses[:10])
    assert after < before


def test_the_network_that_was_trained_stays_as_it_was(exported, network, crops):
    before = [weight.copy() for weight in network.get_weights()]
    folded = [weight.copy() for weight in exported.get_weights()]
    train_quantisation_aware(exported, [crops], crops, 1, progress=False)
    assert all(np.array_equal(mine, other) for mine, other in zip(network.get_weights(), before, strict=True))
    assert not all(np.array_equal(mine, other) for mine, other in zip(exported.get_weights(), folded, strict=True))


@pytest.mark.parametrize(
    ("steps", "rate", "message"),
    [(0, 1e-3, "at least 1 step, found 0"), (3, 1e-3, "got 2 batches for 3 steps"), (2, 1e30, "diverged at step 2; lower its learning")],
)
def test_what_cannot_be_trained_is_refused(crops, network, steps, rate, message):
    fresh = inference_network(tiny_network(), network.card, {})
    with pytest.raises(KposeError, match=message):
        train_quantisation_aware(fresh, [crops] * 2, crops, steps, rate, progress=False)


def test_a_conversion_trains_on_request_and_says_so(network, crops, tmp_path):
    before = [weight.copy() for weight in network.get_weights()]
    path = tmp_path / "pose.tflite"
    result = convert_tflite(network, path, "int8", crops, training_batches=[crops] * 3, training_steps=3)
    assert "trained for 3 steps" in result.summary
    assert read_tflite_record(path).trained_steps == 3
    assert all(np.array_equal(mine, other) for mine, other in zip(network.get_weights(), before, strict=True))
    with pytest.raises(KposeError, match="in fp16 there is nothing to be trained for"):
        convert_tflite(network, path, "fp16", crops, training_batches=[crops], training_steps=1)
