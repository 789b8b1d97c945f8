"""ViPNAS: costs as MMPose publishes them, structure as it was found; and the grouped convolution it needs."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from kpose.errors import KposeError
from kpose.models import count, layers
from kpose.models.layers import DepthwiseConv2DTranspose, GroupedConv2D
from kpose.models.vipnas import STAGES, vipnas_mobilenet_v3


@pytest.fixture(scope="module")
def small():
    keras.utils.set_random_seed(7)
    return vipnas_mobilenet_v3(num_keypoints=5, input_size=(64, 64))


def test_costs_are_those_of_mmpose():
    """MMPose's table of inference speed: 5.9 M, 0.76 G."""
    model = vipnas_mobilenet_v3()
    assert count(model) == (5_895_725, 734_151_936)
    assert count(model, "mmpose").macs / 1e9 == pytest.approx(0.76, abs=0.005)


def test_attention_is_half_of_the_parameters(small):
    """So that no variant without it has the 2.8 M of the paper either."""
    squeezed = sum(count_weights(layer) for layer in small.layers if "_squeeze_" in layer.name)
    assert squeezed == pytest.approx(2.83e6, rel=0.01)
    assert count(small).params - squeezed == pytest.approx(3.06e6, rel=0.01)


def count_weights(layer):
    return sum(int(np.prod(weight.shape)) for weight in layer.trainable_weights)


def test_blocks_have_the_widths_groups_and_resolutions_found(small):
    index = 0
    strides = {16: 2, 24: 4, 40: 8, 80: 16, 112: 16, 160: 32}
    for stage in STAGES:
        for _ in range(stage.blocks):
            conv = small.get_layer(f"block_{index}_spatial_conv")
            assert small.get_layer(f"block_{index}_project_norm").output.shape[1:] == (*[64 // strides[stage.width]] * 2, stage.width)
            assert conv.kernel_size == (stage.kernel_size,) * 2
            if isinstance(conv, GroupedConv2D):
                assert conv.groups == stage.groups
            else:
                assert isinstance(conv, keras.layers.DepthwiseConv2D) and conv.input.shape[-1] == stage.groups
            index += 1
    names = {layer.name for layer in small.layers}
    assert index == 21 and f"block_{index}_spatial_conv" not in names
    assert "block_0_expand_conv" not in names and "block_5_squeeze_gate" not in names and "block_9_squeeze_gate" in names
    assert isinstance(small.get_layer("head_3_upsample_conv"), DepthwiseConv2DTranspose)


def test_gates_are_three_times_as_steep_as_the_usual_hard_sigmoid(small):
    gate = keras.Model(small.get_layer("block_0_squeeze_restore_conv").output, small.get_layer("block_0_squeeze_gate").output)
    values = np.linspace(-2, 2, 16, dtype="float32").reshape(1, 1, 1, 16)
    np.testing.assert_allclose(gate(values), np.clip((values + 1) / 2, 0, 1), atol=1e-6)


def test_weights_start_as_the_authors_do(small):
    for name in ("block_1_spatial_conv", "block_20_spatial_conv", "block_20_expand_conv", "head_1_upsample_conv", "heatmaps"):
        assert float(keras.ops.std(small.get_layer(name).kernel)) == pytest.approx(0.001, rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": (250, 192)}, r"vipnas_mobilenet_v3: input_size is \(250, 192\), but must be .* multiple of 32"),
        ({"num_keypoints": True}, "vipnas_mobilenet_v3: num_keypoints is True, but must be"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(KposeError, match=message):
        vipnas_mobilenet_v3(**options)


class TestGroupedConvolution:
    inputs = np.random.default_rng(4).normal(size=(2, 7, 6, 12)).astype("float32")

    def layer(self, **options):
        layer = GroupedConv2D(18, 3, groups=6, use_bias=False, **options)
        layer.build(self.inputs.shape)
        layer.kernel.assign(np.random.default_rng(5).normal(size=layer.kernel.shape))
        return layer

    @pytest.mark.parametrize("options", [{"padding": "same"}, {"padding": "valid", "strides": 2}], ids=["same", "valid, stride 2"])
    def test_each_group_is_a_convolution_of_its_own_and_so_are_the_gradients(self, options):
        layer = self.layer(**options)
        inputs = tf.constant(self.inputs)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(inputs)
            kernel = layer.kernel.value
            grouped = layer(inputs)
            pieces = zip(tf.split(inputs, 6, axis=-1), tf.split(kernel, 6, axis=-1), strict=True)
            single = tf.concat([tf.nn.conv2d(x, part, layer.strides, layer.padding.upper()) for x, part in pieces], axis=-1)
            weights = np.random.default_rng(6).normal(size=single.shape).astype("float32")
            sums = [tf.reduce_sum(outputs * weights) for outputs in (grouped, single)]
        np.testing.assert_allclose(grouped, single, atol=1e-5)
        for ours, theirs in zip(*(tape.gradient(total, [inputs, kernel]) for total in sums), strict=True):
            assert np.abs(theirs).max() > 1
            np.testing.assert_allclose(ours, theirs, atol=1e-4)

    def test_the_neutral_form_gives_the_same(self, monkeypatch):
        layer = self.layer(padding="same")
        fast = layer(self.inputs).numpy()
        monkeypatch.setattr(layers, "tf", None)
        np.testing.assert_allclose(layer(self.inputs), fast, atol=1e-5)

    def test_float16_has_a_gradient_too(self):
        layer = self.layer(padding="same", dtype="mixed_float16")
        with tf.GradientTape() as tape:
            outputs = layer(self.inputs)
            loss = tf.reduce_mean(tf.cast(outputs, "float32") ** 2)
        assert outputs.dtype == "float16" and np.isfinite(tape.gradient(loss, layer.kernel.value)).all()

    def test_a_configuration_brings_it_back(self):
        layer = self.layer(padding="same")
        copy = keras.layers.deserialize(keras.layers.serialize(layer))
        assert isinstance(copy, GroupedConv2D) and copy.groups == 6 and not copy.supports_jit
