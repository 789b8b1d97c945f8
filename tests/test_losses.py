"""The losses equal the authors' formula written out, and masks reach them through model.fit."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kpose.errors import KposeError
from kpose.losses import HeatmapMeanSquaredError, HeatmapWeightingLoss

RANDOM = np.random.default_rng(3)
TARGETS = RANDOM.uniform(size=(5, 8, 6, 4)).astype("float32")
PREDICTIONS = RANDOM.normal(size=(5, 8, 6, 4)).astype("float32")
MASK = RANDOM.integers(0, 2, size=(5, 4)).astype("float32")

FUNCTIONS = {"none": lambda x: 0 * x, "x": lambda x: x, "2x": lambda x: 2 * x, "x^2": lambda x: x**2, "e^x": np.exp}


def authors_loss(targets, predictions, mask, function):
    """Per joint the mean over batch and pixels, with both heatmaps multiplied by the joint's weight; then the mean over joints."""
    total = 0.0
    for joint in range(targets.shape[-1]):
        target, prediction = targets[..., joint], predictions[..., joint]
        weight = mask[:, joint, None, None]
        total += np.mean((prediction * weight - target * weight) ** 2 * (function(target) + 1))
    return total / targets.shape[-1]


@pytest.mark.parametrize("weighting", FUNCTIONS)
@pytest.mark.parametrize("mask", [None, MASK])
def test_equals_the_formula(weighting, mask):
    expected = authors_loss(TARGETS, PREDICTIONS, np.ones((5, 4)) if mask is None else mask, FUNCTIONS[weighting])
    assert float(HeatmapWeightingLoss(weighting)(TARGETS, PREDICTIONS, mask)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("mask", [None, MASK])
def test_no_weighting_is_the_mean_squared_error(mask):
    plain = HeatmapMeanSquaredError()(TARGETS, PREDICTIONS, mask)
    assert float(HeatmapWeightingLoss("none")(TARGETS, PREDICTIONS, mask)) == float(plain)
    if mask is None:
        assert float(plain) == pytest.approx(np.mean((TARGETS - PREDICTIONS) ** 2), rel=1e-5)


@pytest.mark.parametrize("loss", [HeatmapMeanSquaredError(), HeatmapWeightingLoss("e^x")])
def test_one_value_per_joint(loss):
    assert loss.call(TARGETS, PREDICTIONS).shape == (5, 4)


@pytest.mark.parametrize("loss", [HeatmapMeanSquaredError(name="mse"), HeatmapWeightingLoss("x^2", reduction="sum")])
def test_config_returns_the_same_loss(loss):
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    assert copy.get_config() == loss.get_config()
    assert float(copy(TARGETS, PREDICTIONS)) == float(loss(TARGETS, PREDICTIONS))


@pytest.mark.parametrize("loss", [HeatmapMeanSquaredError(), HeatmapWeightingLoss("x")])
def test_fit_leaves_a_masked_joint_alone_and_teaches_the_others(loss):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 6, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(4, 1)(inputs))
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss)
    before = [weight.copy() for weight in model.get_weights()]
    mask = np.ones((5, 4), "float32")
    mask[:, 2] = 0
    images = RANDOM.normal(size=(5, 8, 6, 3)).astype("float32")
    model.fit(images, TARGETS, sample_weight=mask, batch_size=5, epochs=1, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old[..., 2], new[..., 2])
        assert np.all(np.any((old != new).reshape(-1, 4), axis=0) == [True, True, False, True])


def test_the_loss_fit_reports_is_the_formula():
    inputs = keras.Input((8, 6, 4))
    model = keras.Model(inputs, keras.layers.Rescaling(1.0)(inputs))
    model.compile(loss=HeatmapWeightingLoss("x"))
    reported = model.evaluate(PREDICTIONS, TARGETS, sample_weight=MASK, batch_size=5, verbose=0)
    assert reported == pytest.approx(authors_loss(TARGETS, PREDICTIONS, MASK, FUNCTIONS["x"]), rel=1e-5)


def test_unknown_weighting_names_the_nearest():
    with pytest.raises(KposeError, match=r"'x\^3' is unknown; did you mean 'x\^2'\?"):
        HeatmapWeightingLoss("x^3")


@pytest.mark.parametrize("loss", [HeatmapMeanSquaredError(), HeatmapWeightingLoss()])
@pytest.mark.parametrize("shape", [(5, 8, 6, 1), (5, 1, 6, 4), (5, 8, 6)])
def test_heatmaps_that_would_only_broadcast_are_refused(loss, shape):
    with pytest.raises(KposeError, match="cannot teach"):
        loss(np.zeros(shape, "float32"), PREDICTIONS)
