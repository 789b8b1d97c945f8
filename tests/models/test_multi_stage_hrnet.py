"""Multi-Stage HRNet: costs near the published one, and what a network hands to the next."""

from __future__ import annotations

import pytest

from kpose.errors import KposeError
from kpose.models import count, hrnet
from kpose.models.counting import UNITS
from kpose.models.hrnet import Recipe, Stage
from kpose.models.multi_stage_hrnet import multi_stage_hrnet, multi_stage_hrnet_w32, multi_stage_hrnet_w48

SIZE = (64, 96)
SHALLOW = Recipe(1, 8, (Stage(1, 1), Stage(2, 1), Stage(2, 1)))
POSITIONS = ["transition_1", "stage_2_module_0", "stage_3_module_0", "stage_3_module_1", "stage_4_module_0", "stage_4_module_1"]


@pytest.fixture(scope="module")
def three():
    return multi_stage_hrnet("three", 4, 5, SIZE, 3, SHALLOW)


def names(model):
    return [layer.name for layer in model.layers]


@pytest.mark.parametrize(
    ("build", "size", "stages", "params", "multiply_adds"),
    [
        (multi_stage_hrnet_w32, (256, 192), 1, 28_537_235, 7_648_346_112),
        pytest.param(multi_stage_hrnet_w32, (256, 192), 2, 56_546_598, 13_968_408_576, marks=pytest.mark.slow),
        pytest.param(multi_stage_hrnet_w48, (384, 288), 1, 63_597_411, 35_317_886_976, marks=pytest.mark.slow),
        pytest.param(multi_stage_hrnet_w48, (384, 288), 2, 126_579_366, 67_304_742_912, marks=pytest.mark.slow),
    ],
    ids=["w32", "2 x w32", "w48", "2 x w48"],
)
def test_costs(build, size, stages, params, multiply_adds):
    counts = count(build(input_size=size, stages=stages), "hrnet")
    assert counts == (params, multiply_adds)
    if (build, stages) == (multi_stage_hrnet_w48, 2):
        # The only cost that the paper gives.
        assert counts.macs / UNITS["hrnet"] == pytest.approx(61.5, rel=0.02)


def test_every_stage_has_an_output_of_three_channels_per_joint(three):
    assert three.output_names == ["stage_1_heatmaps", "stage_2_heatmaps", "stage_3_heatmaps"]
    assert three.output_shape == [(None, 16, 24, 15)] * 3
    assert {output.dtype for output in three.outputs} == {"float32"}


def test_one_stage_is_an_hrnet(three):
    one = multi_stage_hrnet("one", 4, 5, SIZE, 1, SHALLOW)
    plain = hrnet.hrnet("plain", 4, 15, SIZE, SHALLOW)
    assert one.output_shape == (None, 16, 24, 15)
    assert names(one) == names(plain)
    assert set(names(plain)) - {"heatmaps"} < set(names(three))


def test_stem_stage_1_and_transition_1_are_there_once(three):
    for number in (2, 3):
        own = {name.removeprefix(f"network_{number}_") for name in names(three) if name.startswith(f"network_{number}_")}
        assert not {name for name in own if name.startswith(("stem", "stage_1", "transition_1")) and not name.endswith("_delivered_add")}
        assert {"entry_branch_1_conv", "transition_2_branch_2_conv", "stage_2_module_0_branch_0_block_0_1_conv"} <= own


def test_the_next_network_begins_with_the_output_of_the_one_before(three):
    # The sum at the last position is the network's output, from which its heatmaps come.
    outputs = [f"{prefix}stage_4_module_1" for prefix in ("", "network_2_")]
    outputs = [three.get_layer(f"{outputs[0]}_exchange_0_relu").output, three.get_layer(f"{outputs[1]}_branch_0_delivered_add").output]
    for number, output in enumerate(outputs, start=1):
        assert three.get_layer(f"stage_{number}_heatmaps").input is output
        assert three.get_layer(f"network_{number + 1}_entry_branch_1_conv_pad").input is output
        assert three.get_layer(f"network_{number + 1}_transition_1_branch_0_delivered_add").input[0] is output
    assert three.get_layer("network_2_entry_branch_1_conv").output.shape == (None, 8, 12, 8)


def test_what_a_network_found_is_added_at_every_position_of_the_next(three):
    branches = [2, 2, 3, 3, 4, 1]
    for number in (2, 3):
        found = [name for name in names(three) if name.startswith(f"network_{number}_") and name.endswith("_delivered_add")]
        assert set(found) == {
            f"network_{number}_{position}_branch_{branch}_delivered_add"
            for position, count in zip(POSITIONS, branches, strict=True)
            for branch in range(count)
        }
    # From the third on it is the sums that are handed on.
    name = "stage_3_module_1_branch_2_delivered_add"
    first, second, third = (
        three.get_layer(layer) for layer in ("stage_3_module_1_exchange_2_relu", f"network_2_{name}", f"network_3_{name}")
    )
    assert second.input[1] is first.output and third.input[1] is second.output


@pytest.mark.parametrize("build", [multi_stage_hrnet_w32, multi_stage_hrnet_w48])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": (256, 200)}, r"input_size is \(256, 200\), but must be .* multiple of 32"),
        ({"num_keypoints": -1}, "num_keypoints is -1"),
        ({"stages": 0}, "stages is 0, but must be an integer from 1 to 4"),
        ({"stages": 5}, "stages is 5, but must be an integer from 1 to 4"),
        ({"stages": True}, "stages is True"),
        ({"stages": "2"}, "stages is '2'"),
    ],
)
def test_bad_arguments_are_named(build, options, message):
    with pytest.raises(KposeError, match=f"{build.__name__}: {message}"):
        build(**options)
