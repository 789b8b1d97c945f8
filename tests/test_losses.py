"""The losses equal the authors' formulas written out, and masks reach them through model.fit."""

from __future__ import annotations

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from kpose.codecs import OffsetCodec
from kpose.errors import KposeError
from kpose.losses import HeatmapMeanSquaredError, HeatmapWeightingLoss, OffsetLoss

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


@pytest.mark.parametrize(
    "loss",
    [
        HeatmapMeanSquaredError(name="mse"),
        HeatmapWeightingLoss("x^2", reduction="sum"),
        HeatmapMeanSquaredError(hard_keypoints=2, factor=0.5),
        OffsetLoss("smooth_l1", hard_keypoints=1),
    ],
)
def test_config_returns_the_same_loss(loss):
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    assert copy.get_config() == loss.get_config()
    targets, predictions = (np.repeat(maps, loss.maps_per_joint, axis=-1) for maps in (TARGETS, PREDICTIONS))
    assert float(copy(targets, predictions, MASK)) == float(loss(targets, predictions, MASK))


@pytest.mark.parametrize("loss", [HeatmapMeanSquaredError(), HeatmapWeightingLoss("x"), HeatmapMeanSquaredError(hard_keypoints=3)])
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


# Online hard keypoint mining.


def mined(losses, weights, count):
    """The mean of each person's worst joints among those with a weight, then over people; the rest of the mean is 0."""
    total = 0.0
    for person, weight in zip(losses, weights, strict=True):
        worst = sorted((loss * w for loss, w in zip(person, weight, strict=True) if w > 0), reverse=True)[:count]
        total += sum(worst) / count
    return total / len(losses)


@pytest.mark.parametrize("loss", [HeatmapMeanSquaredError, HeatmapWeightingLoss])
@pytest.mark.parametrize("count", [1, 3, 4])
@pytest.mark.parametrize("mask", [None, MASK, MASK * 0.5, np.zeros_like(MASK)])
def test_hard_keypoints_are_the_worst_of_the_annotated(loss, count, mask):
    each = np.asarray(loss().call(TARGETS, PREDICTIONS))
    expected = mined(each, np.ones((5, 4)) if mask is None else mask, count)
    assert float(loss(hard_keypoints=count)(TARGETS, PREDICTIONS, mask)) == pytest.approx(expected, rel=1e-5)


def test_a_masked_joint_is_never_mined_however_wrong_it_is():
    predictions, mask = PREDICTIONS.copy(), np.ones((5, 4), "float32")
    mask[:, 2] = 0
    expected = float(HeatmapMeanSquaredError(hard_keypoints=2)(TARGETS, predictions, mask))
    for value in (1e6, np.inf, np.nan):
        predictions[..., 2] = value
        assert float(HeatmapMeanSquaredError(hard_keypoints=2)(TARGETS, predictions, mask)) == pytest.approx(expected, rel=1e-6)


def test_only_the_mined_joints_learn():
    loss = HeatmapMeanSquaredError(hard_keypoints=2)
    mask = np.ones((5, 4), "float32")
    mask[:, 0] = 0
    predictions = tf.Variable(TARGETS + np.array([9, 1, 3, 2], "float32"))  # the first is masked, the second the easiest
    with tf.GradientTape() as tape:
        value = loss(TARGETS, predictions, mask)
    gradient = np.abs(tape.gradient(value, predictions).numpy()).sum(axis=(0, 1, 2))
    assert (gradient > 0).tolist() == [False, False, True, True]


def test_mining_more_joints_than_there_are_is_refused():
    with pytest.raises(KposeError, match=r"^hard_keypoints is 5, but there are 4 joints; ask for fewer$"):
        HeatmapMeanSquaredError(hard_keypoints=5)(TARGETS, PREDICTIONS)
    with pytest.raises(KposeError, match="hard_keypoints is 0; a person learns from 1 joint at least"):
        HeatmapMeanSquaredError(hard_keypoints=0)


@pytest.mark.parametrize("hard_keypoints", [None, 2])
def test_the_factor_multiplies(hard_keypoints):
    single, triple = (HeatmapWeightingLoss(factor=factor, hard_keypoints=hard_keypoints) for factor in (1.0, 3.0))
    assert float(triple(TARGETS, PREDICTIONS, MASK)) == pytest.approx(3 * float(single(TARGETS, PREDICTIONS, MASK)), rel=1e-6)


# Heatmaps and offsets.

CODEC = OffsetCodec((32, 24), (8, 6), radius=2.0)
JOINTS = np.concatenate([RANDOM.uniform(0, 24, (5, 4, 2)), RANDOM.integers(0, 3, (5, 4, 1))], axis=-1).astype("float32")
OFFSET_TARGETS, OFFSET_MASK = (tensor.numpy() for tensor in CODEC.encode(JOINTS))
OFFSET_PREDICTIONS = RANDOM.normal(size=(5, 8, 6, 12)).astype("float32")

OFFSET_FORMULAS = {"squared": lambda d: d**2, "smooth_l1": lambda d: d**2 if abs(d) < 1 else 2 * abs(d) - 1}


def slow_offset_losses(targets, predictions, formula):
    """`(B, K)`, pixel by pixel."""
    people, height, width, channels = targets.shape
    losses = np.zeros((people, channels // 3))
    for person, row, column, joint in np.ndindex(people, height, width, channels // 3):
        target, prediction = (maps[person, row, column, 3 * joint : 3 * joint + 3] for maps in (targets, predictions))
        error = (prediction[0] - target[0]) ** 2
        if target[0] == 1:
            error += formula(prediction[1] - target[1]) + formula(prediction[2] - target[2])
        losses[person, joint] += error / (height * width)
    return losses


@pytest.mark.parametrize("error", OFFSET_FORMULAS)
@pytest.mark.parametrize("mask", [None, OFFSET_MASK])
def test_the_offset_loss_is_the_formula(error, mask):
    each = slow_offset_losses(OFFSET_TARGETS, OFFSET_PREDICTIONS, OFFSET_FORMULAS[error])
    expected = np.mean(each * (1 if mask is None else mask))
    assert float(OffsetLoss(error)(OFFSET_TARGETS, OFFSET_PREDICTIONS, mask)) == pytest.approx(expected, rel=1e-5)


def test_smooth_l1_is_twice_that_of_pytorch_and_differs_from_the_square_only_far_away():
    near, far = OFFSET_TARGETS + 0.9, OFFSET_TARGETS + 5.0
    assert float(OffsetLoss("smooth_l1")(OFFSET_TARGETS, near)) == pytest.approx(float(OffsetLoss()(OFFSET_TARGETS, near)), rel=1e-5)
    disc = OFFSET_TARGETS[..., ::3].mean()
    assert float(OffsetLoss("smooth_l1")(OFFSET_TARGETS, far)) == pytest.approx(25 + 2 * 9 * disc, rel=1e-5)
    assert float(OffsetLoss()(OFFSET_TARGETS, far)) == pytest.approx(25 + 2 * 25 * disc, rel=1e-5)


def test_offsets_outside_of_the_disc_are_free():
    predictions = OFFSET_TARGETS.copy()
    outside = OFFSET_TARGETS[..., ::3] == 0
    for axis in (1, 2):
        predictions[..., axis::3][outside] = 7.0
    assert float(OffsetLoss()(OFFSET_TARGETS, predictions)) == 0


def test_the_offset_loss_mines_whole_joints():
    each = slow_offset_losses(OFFSET_TARGETS, OFFSET_PREDICTIONS, OFFSET_FORMULAS["squared"])
    found = float(OffsetLoss(hard_keypoints=2)(OFFSET_TARGETS, OFFSET_PREDICTIONS, OFFSET_MASK))
    assert found == pytest.approx(mined(each, OFFSET_MASK, 2), rel=1e-5)


def test_unknown_offset_errors_and_maps_that_are_not_three_a_joint_are_refused():
    with pytest.raises(KposeError, match=r"offset error 'smooth_l2' is unknown; did you mean 'smooth_l1'\?"):
        OffsetLoss("smooth_l2")
    with pytest.raises(KposeError, match=r"\(batch, height, width, 3 x joints\)"):
        OffsetLoss()(TARGETS, PREDICTIONS)


def test_every_loss_works_on_another_backend():
    """The values under PyTorch are those under TensorFlow, gradients of the mined joints included."""
    pytest.importorskip("torch", reason="needs PyTorch, extra `torch`")
    code = """
import keras, numpy as np, torch
from kpose.losses import HeatmapMeanSquaredError, HeatmapWeightingLoss, OffsetLoss
assert keras.backend.backend() == "torch"
random = np.random.default_rng(0)
targets, predictions = (random.uniform(size=(3, 4, 5, 6)).astype("float32") for _ in range(2))
for loss in (HeatmapWeightingLoss("e^x"), HeatmapMeanSquaredError(hard_keypoints=2, factor=2.0)):
    print(float(loss(targets, predictions, np.array([[1, 0, 1, 1, 0, 1]] * 3, "float32"))))
leaf = torch.tensor(predictions, requires_grad=True)
value = OffsetLoss("smooth_l1", hard_keypoints=1)(targets, leaf, np.array([[1, 0]] * 3, "float32"))
value.backward()
print(float(value), float(leaf.grad[..., :3].abs().sum() > 0), float(leaf.grad[..., 3:].abs().sum()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "KERAS_BACKEND": "torch"}, check=False
    )
    assert done.returncode == 0, done.stderr
    random = np.random.default_rng(0)
    targets, predictions = (random.uniform(size=(3, 4, 5, 6)).astype("float32") for _ in range(2))
    six, two = np.array([[1, 0, 1, 1, 0, 1]] * 3, "float32"), np.array([[1, 0]] * 3, "float32")
    expected = [
        float(HeatmapWeightingLoss("e^x")(targets, predictions, six)),
        float(HeatmapMeanSquaredError(hard_keypoints=2, factor=2.0)(targets, predictions, six)),
        float(OffsetLoss("smooth_l1", hard_keypoints=1)(targets, predictions, two)),
        1.0,
        0.0,
    ]
    assert [float(word) for word in done.stdout.split()] == pytest.approx(expected, rel=1e-5)
