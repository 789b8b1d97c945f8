"""Lite-HRNet: costs as published, structure as in the authors' code."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kpose.errors import KposeError
from kpose.models import count
from kpose.models.lite_hrnet import conditional_channel_weighting, lite_hrnet_18, lite_hrnet_30

COCO, COCO_LARGE, MPII = (17, (256, 192)), (17, (384, 288)), (16, (256, 256))


@pytest.fixture(scope="module")
def small():
    keras.utils.set_random_seed(7)
    return lite_hrnet_18(num_keypoints=5, input_size=(64, 64))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "task", "params", "multiply_adds", "published"),
    [
        (lite_hrnet_18, COCO, 1_130_769, 198_626_688, 205.2),
        (lite_hrnet_18, COCO_LARGE, 1_130_769, 446_778_048, 461.6),
        (lite_hrnet_18, MPII, 1_130_728, 264_636_544, 273.4),
        (lite_hrnet_30, COCO, 1_763_717, 309_451_488, 319.2),
        (lite_hrnet_30, COCO_LARGE, 1_763_717, 696_046_848, 717.8),
        (lite_hrnet_30, MPII, 1_763_676, 412_379_744, 425.3),
    ],
)
def test_costs_are_those_published(build, task, params, multiply_adds, published):
    """Published: 1.1 M and 1.8 M parameters; the authors' repository gives multiply-adds in units of 2^20."""
    model = build(*task)
    assert count(model) == (params, multiply_adds)
    assert params / 1e6 == pytest.approx(1.1 if build is lite_hrnet_18 else 1.8, abs=0.05)
    assert count(model, "lite_hrnet").macs / 2**20 == pytest.approx(published, rel=0.003)


def test_modules_are_as_many_as_in_the_table(small):
    names = [layer.name for layer in small.layers]
    for stage, modules in ((2, 2), (3, 4), (4, 2)):
        assert f"stage_{stage}_module_{modules - 1}_fuse_0_add" in names and f"stage_{stage}_module_{modules}_fuse_0_add" not in names


def test_every_branch_has_its_width_and_resolution_to_the_end(small):
    shapes = [small.get_layer(f"stage_4_module_1_fuse_{branch}_relu").output.shape[1:] for branch in range(4)]
    assert shapes == [(16, 16, 40), (8, 8, 80), (4, 4, 160), (2, 2, 320)]


def test_branch_0_counts_double_and_its_sum_is_what_the_others_get(small):
    """The sums of the authors' code, written out with the network's own maps."""
    fuse = "stage_2_module_0_fuse"
    layers = [
        "stage_2_module_0_block_1_branch_0_shuffle",
        "stage_2_module_0_block_1_branch_1_shuffle",
        f"{fuse}_0_from_1_upsample",
        f"{fuse}_1_from_0_step_0_pointwise_norm",
        f"{fuse}_0_relu",
        f"{fuse}_1_relu",
    ]
    part = keras.Model(small.input, [small.get_layer(name).output for name in layers])
    images = np.random.default_rng(2).normal(size=(2, 64, 64, 3)).astype("float32")
    high, low, up, down, fused_high, fused_low = (np.asarray(tensor) for tensor in part(images))
    np.testing.assert_allclose(fused_high, np.maximum(2 * high + up, 0), atol=1e-6)
    np.testing.assert_allclose(fused_low, np.maximum(2 * down + low, 0), atol=1e-6)
    assert small.get_layer(f"{fuse}_1_from_0_step_0_depthwise_conv_pad").input is small.get_layer(f"{fuse}_0_add").output


def test_half_of_every_branch_passes_and_the_other_is_weighted():
    inputs = [keras.Input((8, 6, 8)), keras.Input((4, 3, 16))]
    model = keras.Model(inputs, conditional_channel_weighting(inputs, "block"))
    random = np.random.default_rng(3)
    branches = [random.normal(size=(2, *tensor.shape[1:])).astype("float32") for tensor in inputs]
    for before, after in zip(branches, model(branches), strict=True):
        kept = before.shape[-1] // 2
        np.testing.assert_array_equal(after[..., 0::2], before[..., :kept])
        assert np.abs(after[..., 1::2] - before[..., kept:]).max() > 0.1


def test_weights_start_as_the_authors_do(small):
    for name in ("stem_conv", "head_0_depthwise_conv", "head_0_pointwise_conv", "stage_4_module_0_block_0_cross_reduce_conv"):
        assert float(keras.ops.std(small.get_layer(name).kernel)) == pytest.approx(0.001, rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": (256, 200)}, r"lite_hrnet_30: input_size is \(256, 200\), but must be .* multiple of 32"),
        ({"num_keypoints": 0}, "lite_hrnet_30: num_keypoints is 0, but must be"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(KposeError, match=message):
        lite_hrnet_30(**options)
