"""SimpleBaseline computes what PyTorch computes from the same tensors, on every trunk."""

# ruff: noqa: E402 - what follows needs PyTorch

from __future__ import annotations

import keras
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from kpose.models import simple_baseline
from kpose.models.lite import lite_mobilenet_v3
from kpose.models.resnet import RESNET_50, resnet
from kpose.weights.torch_import import load_torch
from kpose.weights.torch_names import Names, mobilenet_v3
from kpose.weights.torch_names.simple_baseline import (
    HEAD,
    MOBILENET_V2_NAMES,
    MOBILENET_V3_NAMES,
    RESNET_NAMES,
    SHUFFLENET_V2_NAMES,
)
from tests.weights.parity import SIZES, TOLERANCE, assert_same, images, randomised
from tests.weights.references.resnet import ResNet
from tests.weights.references.simple_baseline import MobileNetV2, MobileNetV3, PoseResNet, ShuffleNetV2, TopDown

# With two blocks in a row everywhere: the first of a stage and the others are not alike.
SHALLOW = (2, 2, 2, 2)


@pytest.fixture(scope="module")
def mobilenet_v3_reference():
    return randomised(TopDown(MobileNetV3(), 960, 17))


def shallow(size, joints=5):
    inputs = keras.Input((*size, 3), name="image")
    return keras.Model(inputs, simple_baseline.upsampling_head(resnet(inputs, SHALLOW)["stage_4"], joints), name="shallow")


class TestResnet:
    @pytest.mark.parametrize("size", SIZES)
    def test_shallow(self, size):
        model, reference = shallow(size), randomised(PoseResNet(SHALLOW, 5))
        load_torch(model, reference.state_dict(), names=Names(RESNET_NAMES, HEAD))
        assert_same(model, reference, size)

    @pytest.mark.slow
    def test_resnet50(self):
        reference = randomised(PoseResNet(RESNET_50, 17), gain=4.0)
        for size in SIZES:
            model = simple_baseline.simple_baseline_resnet50(17, size)
            load_torch(model, reference.state_dict(), names=Names(RESNET_NAMES, HEAD))
            assert_same(model, reference, size)

    def test_a_trunk_trained_on_imagenet_fills_the_trunk_and_leaves_the_head(self):
        model, trunk = shallow(SIZES[1]), randomised(ResNet(SHALLOW, classes=10))
        report = load_torch(model, trunk.state_dict(), names=Names(RESNET_NAMES, HEAD), trunk_only=True)
        assert report.fresh == [f"head_{step}_upsample_{part}" for step in (1, 2, 3) for part in ("conv", "norm")] + ["heatmaps"]
        assert report.unused == ["fc.weight", "fc.bias"]
        assert_same(keras.Model(model.input, model.get_layer("stage_4_block_1_relu").output), trunk, SIZES[1])


class TestMobilenetV2:
    @pytest.mark.parametrize("size", SIZES)
    def test_whole(self, size):
        model, reference = simple_baseline.simple_baseline_mobilenet_v2(17, size), randomised(TopDown(MobileNetV2(), 1280, 17))
        load_torch(model, reference.state_dict(), names=Names(MOBILENET_V2_NAMES, HEAD))
        assert_same(model, reference, size)

    def test_the_comparison_sees_the_upper_bound_of_relu6(self):
        reference = randomised(TopDown(MobileNetV2(), 1280, 17))
        with torch.no_grad():
            last = reference.backbone(torch.from_numpy(images(SIZES[0]).transpose(0, 3, 1, 2)))
        assert last.max() == 6 and 0.01 < (last == 6).float().mean() < 0.9


class TestShufflenetV2:
    @pytest.mark.parametrize("size", SIZES)
    def test_whole(self, size):
        model, reference = simple_baseline.simple_baseline_shufflenet_v2(17, size), randomised(TopDown(ShuffleNetV2(), 1024, 17, "head"))
        load_torch(model, reference.state_dict(), names=Names(SHUFFLENET_V2_NAMES, HEAD))
        assert_same(model, reference, size)


class TestMobilenetV3:
    @pytest.mark.parametrize("size", SIZES)
    def test_whole(self, mobilenet_v3_reference, size):
        model = simple_baseline.simple_baseline_mobilenet_v3(17, size)
        load_torch(model, mobilenet_v3_reference.state_dict(), names=Names(MOBILENET_V3_NAMES, HEAD))
        assert_same(model, mobilenet_v3_reference, size)

    def test_the_lightweight_network_takes_the_trunk(self, mobilenet_v3_reference):
        model = lite_mobilenet_v3(17, SIZES[1])
        names = Names(mobilenet_v3.NAMES, r"head_.+|attention_.+|heatmaps")
        report = load_torch(model, mobilenet_v3_reference.backbone.state_dict(), names=names, trunk_only=True)
        assert not report.unused
        assert_same(keras.Model(model.input, model.get_layer("last_hard_swish").output), mobilenet_v3_reference.backbone, SIZES[1])


def test_the_comparison_sees_a_pixel_of_padding(mobilenet_v3_reference):
    """TensorFlow's padding is far outside the tolerance."""
    found = []
    for padding in simple_baseline.PADDINGS:
        model = simple_baseline.simple_baseline_mobilenet_v3(17, SIZES[0], padding=padding)
        load_torch(model, mobilenet_v3_reference.state_dict(), names=Names(MOBILENET_V3_NAMES, HEAD))
        found.append(keras.ops.convert_to_numpy(model(images(SIZES[0]), training=False)))
    assert np.abs(found[0] - found[1]).max() > 100 * TOLERANCE * np.ptp(found[0])
