"""The lightweight networks compute what PyTorch computes from the same tensors."""

# ruff: noqa: E402 - what follows needs PyTorch

from __future__ import annotations

import keras
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from kpose.models.lite import ATTENTION, lite_mobilenet_v3
from kpose.models.lite_hrnet import MODULES_18, conditional_channel_weighting, lite_hrnet, lite_hrnet_18
from kpose.models.vipnas import vipnas_mobilenet_v3
from kpose.weights.torch_import import load_torch
from kpose.weights.torch_names import Names, lite, vipnas
from kpose.weights.torch_names import lite_hrnet as lite_hrnet_names
from tests.weights.parity import SIZES, TOLERANCE, assert_same, randomised
from tests.weights.references.lite import LiteNetwork
from tests.weights.references.lite_hrnet import ConditionalChannelWeighting, LiteHRNet
from tests.weights.references.vipnas import ViPNAS

LITE_NAMES = {"full": lite.NAMES, "none": lite.NAMES, "se": lite.SE_NAMES, "cbam": lite.CBAM_NAMES}

# With one module a stage, and two in the last: the first of a stage and the others are not alike.
SHORT = (1, 1, 2)

# A branch that counts double in every sum would let a larger one explode.
LITE_HRNET_GAIN = 3.0


def calibrated(network: torch.nn.Module) -> torch.nn.Module:
    """Random weights, and statistics of random images, spread at random.

    Through so many gated blocks, statistics drawn from nowhere let the signal die or explode; exploded, it saturates the gates, and PyTorch
    itself differs between float32 and float64 by hundredths.
    """
    randomised(network)
    random = torch.Generator().manual_seed(7)
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.randn((16, 3, 64, 64), generator=random))
        for norm in norms:
            norm.running_mean += norm.running_var.sqrt() * (torch.rand(norm.running_mean.shape, generator=random) - 0.5) * 0.6
            norm.running_var *= torch.rand(norm.running_var.shape, generator=random) * 1.5 + 0.5
    return network.eval()


@pytest.mark.parametrize("size", SIZES)
def test_short_lite_hrnet(size):
    model, reference = lite_hrnet("short", SHORT, 5, size), randomised(LiteHRNet(SHORT, 5), LITE_HRNET_GAIN)
    load_torch(model, reference.state_dict(), names=Names(lite_hrnet_names.NAMES))
    assert_same(model, reference, size)


@pytest.mark.slow
def test_lite_hrnet_18():
    reference = randomised(LiteHRNet(MODULES_18, 17), LITE_HRNET_GAIN)
    for size in SIZES:
        model = lite_hrnet_18(17, size)
        load_torch(model, reference.state_dict(), names=Names(lite_hrnet_names.NAMES))
        assert_same(model, reference, size)


def test_conditional_channel_weighting():
    """On its own, so that no other block makes good for it."""
    widths, sizes = (40, 80, 160), ((16, 12), (8, 6), (4, 3))
    inputs = [keras.Input((*size, width)) for size, width in zip(sizes, widths, strict=True)]
    model = keras.Model(inputs, conditional_channel_weighting(inputs, "stage_3_module_0_block_0"), name="block")
    reference = randomised(ConditionalChannelWeighting(widths))
    state = {f"stage1.0.layers.0.{name}": tensor for name, tensor in reference.state_dict().items()}
    load_torch(model, state, names=Names(lite_hrnet_names.NAMES))

    random = np.random.default_rng(6)
    branches = [random.normal(size=(2, *size, width)).astype("float32") for size, width in zip(sizes, widths, strict=True)]
    with torch.no_grad():
        expected = reference([torch.from_numpy(x.transpose(0, 3, 1, 2)) for x in branches])
    for ours, theirs, before in zip(model(branches, training=False), expected, branches, strict=True):
        theirs = theirs.numpy().transpose(0, 2, 3, 1)
        assert np.abs(ours.numpy() - theirs).max() <= TOLERANCE * np.ptp(theirs)
        # Half of the channels pass, and stand at the even places; the block did something to the others.
        np.testing.assert_array_equal(ours[..., 0::2], before[..., : before.shape[-1] // 2])
        assert np.abs(ours[..., 1::2] - before[..., before.shape[-1] // 2 :]).max() > 0.1


@pytest.mark.parametrize("size", SIZES)
def test_vipnas(size):
    model, reference = vipnas_mobilenet_v3(17, size), calibrated(ViPNAS(17))
    load_torch(model, reference.state_dict(), names=Names(vipnas.NAMES))
    assert_same(model, reference, size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("attention", ATTENTION)
def test_lite(attention, size):
    model, reference = lite_mobilenet_v3(17, size, attention=attention), calibrated(LiteNetwork(17, attention))
    load_torch(model, reference.state_dict(), names=Names(LITE_NAMES[attention]))
    assert_same(model, reference, size)
