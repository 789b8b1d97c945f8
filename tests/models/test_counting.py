"""Counts equal the published figures, and small graphs whose sum can be done by hand."""

from __future__ import annotations

import keras
import pytest

from kpose.errors import KposeError
from kpose.models import build_model, count
from kpose.models.counting import CONVENTIONS
from kpose.models.layers import BatchNormalization, DepthwiseConv2DTranspose


@pytest.mark.parametrize(
    ("options", "params", "plain", "mmpose"),
    [
        ({}, 3_077_882, 0.5590e9, 0.5800e9),
        ({"input_size": (384, 288)}, 3_077_882, 1.2561e9, 1.3034e9),
        ({"input_size": (256, 256), "num_keypoints": 16}, 3_077_625, 0.7438e9, 0.7719e9),
        ({"attention_steps": (True, True, True)}, 3_144_592, 0.5593e9, 0.5806e9),
        ({"attention": "none"}, 3_044_527, 0.5582e9, 0.5784e9),
    ],
    ids=["256x192", "384x288", "MPII", "attention thrice", "no attention"],
)
def test_the_lightweight_network_costs_what_was_published(options, params, plain, mmpose):
    """Published: 3.1 M, and 0.58, 1.30 and 0.77 G by the count of the authors' tools."""
    model = build_model("lite_mobilenet_v3", **options)
    assert count(model).params == params
    assert count(model).macs == pytest.approx(plain, abs=1e5)
    assert count(model, "mmpose").macs == pytest.approx(mmpose, abs=1e5)


def sequence(size, *layers):
    inputs = x = keras.Input(size)
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (keras.layers.Conv2D(5, 3, padding="same", use_bias=False), dict.fromkeys(CONVENTIONS, 9 * 4 * 5 * 48)),
        (keras.layers.Conv2D(5, 1), {"plain": 4 * 5 * 48, "hrnet": 4 * 5 * 48, "mmpose": 5 * 5 * 48, "lite_hrnet": 5 * 5 * 48}),
        (
            keras.layers.Conv2D(5, 1, activation="relu"),
            {"plain": 4 * 5 * 48, "hrnet": 4 * 5 * 48, "mmpose": 6 * 5 * 48, "lite_hrnet": 6 * 5 * 48},
        ),
        (keras.layers.Conv2D(6, 3, strides=2, groups=2, padding="same", use_bias=False), dict.fromkeys(CONVENTIONS, 9 * 2 * 6 * 12)),
        (keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False), dict.fromkeys(CONVENTIONS, 9 * 4 * 48)),
        (DepthwiseConv2DTranspose(), {"plain": 16 * 4 * 48, "hrnet": 16 * 4 * 192, "mmpose": 16 * 4 * 48, "lite_hrnet": 16 * 4 * 48}),
        (
            keras.layers.Conv2DTranspose(5, 4, strides=2, padding="same", use_bias=False),
            {"plain": 16 * 20 * 48, "hrnet": 16 * 20 * 192, "mmpose": 16 * 20 * 48, "lite_hrnet": 16 * 20 * 48},
        ),
        (keras.layers.Dense(7, use_bias=False), dict.fromkeys(CONVENTIONS, 4 * 7 * 48)),
        (BatchNormalization(), {"plain": 0, "hrnet": 0, "mmpose": 2 * 4 * 48, "lite_hrnet": 2 * 4 * 48}),
        (keras.layers.ReLU(6.0), {"plain": 0, "hrnet": 0, "mmpose": 4 * 48, "lite_hrnet": 4 * 48}),
        (keras.layers.Activation("relu"), {"plain": 0, "hrnet": 0, "mmpose": 4 * 48, "lite_hrnet": 4 * 48}),
        (keras.layers.Activation("hard_swish"), dict.fromkeys(CONVENTIONS, 0)),
        (keras.layers.GlobalAveragePooling2D(), {"plain": 0, "hrnet": 0, "mmpose": 4 * 48, "lite_hrnet": 0}),
        (keras.layers.UpSampling2D(2), {"plain": 0, "hrnet": 0, "mmpose": 4 * 192, "lite_hrnet": 0}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, keras.layers.Layer) else "",
)
def test_one_layer_on_eight_by_six(layer, expected):
    model = sequence((8, 6, 4), layer)
    assert {convention: count(model, convention).macs for convention in CONVENTIONS} == expected


def test_a_shared_layer_is_paid_for_at_every_call_and_its_weights_once():
    conv = keras.layers.Conv2D(4, 1, use_bias=False)
    assert count(sequence((8, 6, 4), conv, conv)) == (16, 2 * 16 * 48)


@pytest.mark.parametrize("inner_size", [(8, 6, 4), (None, None, 4)])
def test_a_model_within_a_model_is_counted_at_the_size_it_is_called_with(inner_size):
    inner = sequence(inner_size, keras.layers.Conv2D(4, 1, use_bias=False))
    assert count(sequence((8, 6, 4), inner, keras.layers.ReLU(), inner)) == (16, 2 * 16 * 48)


def test_what_a_model_is_called_with_elsewhere_does_not_count():
    inner = sequence((None, None, 4), keras.layers.Conv2D(4, 1, use_bias=False))
    inner(keras.Input((2, 2, 4)))
    assert count(sequence((8, 6, 4), inner)) == (16, 16 * 48)


def test_a_sequential_model_is_entered():
    inner = keras.Sequential([keras.Input((8, 6, 4)), keras.layers.Conv2D(5, 1, use_bias=False)])
    assert count(inner) == count(sequence((8, 6, 4), inner)) == (20, 20 * 48)


def test_frozen_parameters_do_not_count():
    model = sequence((8, 6, 4), keras.layers.Conv2D(5, 1))
    model.trainable = False
    assert count(model) == (0, 20 * 48)


@pytest.mark.parametrize(
    ("model", "convention", "message"),
    [
        (lambda: sequence((None, None, 3), keras.layers.Conv2D(4, 1)), "plain", "fixed input size"),
        (lambda: sequence((8, 4), keras.layers.LSTM(3)), "plain", "LSTM, whose multiply-adds are not known"),
        (lambda: sequence((8, 6, 4), keras.layers.ReLU()), "hrnett", "did you mean 'hrnet'"),
    ],
)
def test_what_cannot_be_counted_honestly_is_refused(model, convention, message):
    with pytest.raises(KposeError, match=message):
        count(model(), convention)
