"""The cascaded pyramid network computes what PyTorch computes from the same tensors."""

# ruff: noqa: E402 - what follows needs PyTorch

from __future__ import annotations

import keras
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from kpose.models.cpn import VARIANTS, cascaded_pyramid, cpn_resnet50
from kpose.models.layers import CornerAlignedUpSampling2D
from kpose.models.resnet import RESNET_50, resnet
from kpose.weights.torch_import import load_torch
from kpose.weights.torch_names import Names
from kpose.weights.torch_names.cpn import HEAD, NAMES, NAMES_ON_IMAGENET
from tests.weights.parity import SIZES, assert_same, randomised
from tests.weights.references.cpn import CascadedPyramidNetwork
from tests.weights.references.resnet import ResNet

SHALLOW = (1, 1, 1, 1)


def shallow(size):
    inputs = keras.Input((*size, 3), name="image")
    return keras.Model(inputs, cascaded_pyramid(resnet(inputs, SHALLOW), 5, VARIANTS["pytorch"]), name="shallow")


@pytest.mark.parametrize("size", SIZES)
def test_shallow(size):
    model, reference = shallow(size), randomised(CascadedPyramidNetwork(SHALLOW, 5))
    load_torch(model, reference.state_dict(), names=Names(NAMES, HEAD))
    assert_same(model, reference, size)


@pytest.mark.slow
def test_resnet50():
    reference = randomised(CascadedPyramidNetwork(RESNET_50, 17), gain=4.0)
    for size in SIZES:
        model = cpn_resnet50(17, size, "pytorch")
        load_torch(model, reference.state_dict(), names=Names(NAMES, HEAD))
        assert_same(model, reference, size)


def test_a_trunk_trained_on_imagenet_fills_the_trunk_and_leaves_the_rest():
    model, trunk = shallow(SIZES[0]), randomised(ResNet(SHALLOW, classes=10))
    report = load_torch(model, trunk.state_dict(), names=Names(NAMES_ON_IMAGENET, HEAD), trunk_only=True)
    assert report.unused == ["fc.weight", "fc.bias"]
    assert all(name.startswith(("global_", "refine_")) for name in report.fresh)
    assert_same(keras.Model(model.input, model.get_layer("stage_4_block_0_relu").output), trunk, SIZES[0])


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (12, 9)])
def test_upsampling_keeps_the_corners_in_place(size, factor):
    images = np.random.default_rng(4).normal(size=(2, *size, 3)).astype("float32")
    upsample = torch.nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=True)
    expected = upsample(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(CornerAlignedUpSampling2D(factor)(images), expected, atol=1e-5)
