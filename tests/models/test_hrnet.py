"""HRNet: costs as published, branches and exchanges as in the paper."""

from __future__ import annotations

import keras
import pytest

from kpose.errors import KposeError
from kpose.models import count, hrnet
from kpose.models.counting import UNITS
from kpose.models.hrnet import Recipe, Stage

COCO, COCO_LARGE, MPII = (17, (256, 192)), (17, (384, 288)), (16, (256, 256))


@pytest.fixture(scope="module")
def shallow():
    """One block in every branch of every module, else as published."""
    keras.utils.set_random_seed(7)
    return hrnet.hrnet("shallow", 8, 5, (64, 96), Recipe(4, 64, (Stage(1, 1), Stage(4, 1), Stage(3, 1))))


def deviation(model, layer):
    return float(keras.ops.std(model.get_layer(layer).kernel))


@pytest.mark.parametrize(
    ("build", "task", "params", "multiply_adds", "published"),
    [
        (hrnet.hrnet_w32, COCO, 28_536_113, 7_645_003_776, (28.5, 7.1)),
        pytest.param(hrnet.hrnet_w32, COCO_LARGE, 28_536_113, 17_201_258_496, (28.5, 16.0), marks=pytest.mark.slow),
        pytest.param(hrnet.hrnet_w32, MPII, 28_536_080, 10_193_207_296, (28.5, 9.5), marks=pytest.mark.slow),
        pytest.param(hrnet.hrnet_w48, COCO, 63_595_745, 15_691_825_152, (63.6, 14.6), marks=pytest.mark.slow),
        pytest.param(hrnet.hrnet_w48, COCO_LARGE, 63_595_745, 35_306_606_592, (63.6, 32.9), marks=pytest.mark.slow),
    ],
    ids=["w32", "w32 large", "w32 MPII", "w48", "w48 large"],
)
def test_costs_are_those_published(build, task, params, multiply_adds, published):
    counts = count(build(*task), "hrnet")
    assert counts == (params, multiply_adds)
    assert counts.params / 1e6 == pytest.approx(published[0], rel=0.002)
    assert counts.macs / UNITS["hrnet"] == pytest.approx(published[1], rel=0.004)


@pytest.mark.parametrize(("task", "published"), [(COCO, 0.54), (COCO_LARGE, 1.21)], ids=["small", "large"])
def test_costs_of_the_small_network_are_those_published(task, published):
    counts = count(hrnet.small_hrnet_w16(*task), "lite_hrnet")
    assert counts.params == 1_284_961
    assert counts.params / 1e6 == pytest.approx(1.3, rel=0.012)
    assert counts.macs / UNITS["lite_hrnet"] == pytest.approx(published, rel=0.006)


def test_a_branch_joins_at_every_stage_half_as_high_and_wide_with_twice_the_channels(shallow):
    for stage, modules in ((2, 1), (3, 4), (4, 3)):
        for module in range(modules):
            name = f"stage_{stage}_module_{module}"
            shapes = [shallow.get_layer(f"{name}_branch_{branch}_block_0_relu").output.shape[1:] for branch in range(stage)]
            assert shapes == [(16 // 2**branch, 24 // 2**branch, 8 * 2**branch) for branch in range(stage)]


def test_every_exchange_gives_all_resolutions_but_the_last_that_gives_the_highest(shallow):
    outputs = {layer.name.removesuffix("_add") for layer in shallow.layers if "exchange" in layer.name and layer.name.endswith("_add")}
    modules = [(2, 0), *[(3, module) for module in range(4)], (4, 0), (4, 1)]
    expected = {f"stage_{stage}_module_{module}_exchange_{branch}" for stage, module in modules for branch in range(stage)}
    assert outputs == expected | {"stage_4_module_2_exchange_0"}


def test_on_the_way_down_width_is_kept_until_the_last_step_which_leaves_the_relu_to_the_sum(shallow):
    name = "stage_4_module_0_exchange_3_from_0_step"
    assert [shallow.get_layer(f"{name}_{step}_conv").output.shape[1:] for step in range(3)] == [(8, 12, 8), (4, 6, 8), (2, 3, 64)]
    names = {layer.name for layer in shallow.layers}
    assert f"{name}_1_relu" in names and f"{name}_2_relu" not in names


def test_a_new_branch_comes_from_the_lowest_one(shallow):
    assert shallow.get_layer("transition_3_branch_3_conv_pad").input is shallow.get_layer("stage_3_module_3_exchange_2_relu").output


def test_the_small_network_has_one_bottleneck_and_one_module_of_two_blocks_a_stage():
    names = [layer.name for layer in hrnet.small_hrnet_w16(5, (64, 64)).layers]
    assert [name for name in names if name.startswith("stage_1_") and name.endswith("_add")] == ["stage_1_block_0_add"]
    blocks = {name for name in names if name.startswith("stage_4_") and "block" in name and name.endswith("_add")}
    assert blocks == {f"stage_4_module_0_branch_{branch}_block_{block}_add" for branch in range(4) for block in range(2)}


def test_no_convolution_but_the_last_has_a_bias(shallow):
    assert [layer.name for layer in shallow.layers if getattr(layer, "use_bias", False)] == ["heatmaps"]


def test_weights_start_as_the_authors_do(shallow):
    for layer in ("stem_2_conv", "stage_1_block_0_shortcut_conv", "stage_4_module_1_branch_3_block_0_2_conv"):
        assert deviation(shallow, layer) == pytest.approx(0.001, rel=0.05)
    twins = [shallow.get_layer(f"stage_4_module_{module}_branch_3_block_0_1_conv").kernel for module in (0, 1)]
    assert float(keras.ops.max(keras.ops.abs(twins[0] - twins[1]))) > 0.001


@pytest.mark.parametrize("build", [hrnet.hrnet_w32, hrnet.hrnet_w48, hrnet.small_hrnet_w16])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": (240, 192)}, r"input_size is \(240, 192\), but must be .* multiple of 32"),
        ({"num_keypoints": 0}, "num_keypoints is 0, but must be an integer of 1 or more"),
    ],
)
def test_bad_arguments_are_named(build, options, message):
    with pytest.raises(KposeError, match=f"{build.__name__}: {message}"):
        build(**options)
