"""The hourglass-like networks: published sizes, structure, options and what they refuse."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kpose.errors import KposeError
from kpose.models import count, coupled_u_net, soft_gated
from kpose.models.coupled_u_net import cu_net
from kpose.models.hourglass import stacked_hourglass
from kpose.models.soft_gated import SoftGate, soft_gated_hourglass

MPII = {"num_keypoints": 16, "input_size": (256, 256)}
TINY = {"num_keypoints": 5, "input_size": (64, 64)}


def names(model):
    return [layer.name for layer in model.layers]


# Parameters and multiply-adds here, and the published ones in millions and 10^9.
SOFT_GATED = {
    "1x68": (511_865, 0.8023e9, 0.5, 0.8),
    "2x68": (987_813, 1.3439e9, 1.0, 1.39),
    "2x80": (1_355_448, 1.7777e9, 1.4, 1.75),
    "2x96": (1_936_656, 2.4606e9, 1.9, 2.43),
    "2x108": (2_440_833, 3.0511e9, 2.4, 3.1),
    "2x120": (3_003_528, 3.7088e9, 2.9, 3.75),
    "2x128": (3_411_168, 4.1846e9, 3.4, 4.27),
    "4x144": (8_536_376, 10.0406e9, 8.5, 9.9),
    "4x256": (26_799_936, 31.0219e9, 26, None),
    "2x148_sum": (3_397_941, 3.9555e9, 3.4, None),
    "2x144_concat_grouped": (3_392_088, 3.9848e9, 3.4, None),
    "2x128_identity": (3_407_968, 4.1846e9, 3.4, None),
    "2x128_scalar": (3_407_993, 4.1846e9, 3.4, None),
}

CU_NET = {
    "2x64_growth_16": (492_608, 0.7705e9, 0.5, 0.77),
    "2x144_growth_8": (1_001_424, 1.6987e9, 1.0, 1.68),
    "2x124_growth_24": (1_417_164, 2.1223e9, 1.4, 2.14),
    "2x128_growth_32": (1_923_200, 2.7568e9, 1.9, 2.7),
    "2x160_growth_32": (2_411_296, 3.4990e9, 2.4, 3.5),
    "2x172_growth_36": (2_898_732, 4.1535e9, 2.9, 4.15),
    "4x128_growth_32": (3_952_128, 5.4512e9, 4.0, 5.17),
    "8x128_growth_32": (10_281_344, 14.5915e9, 10.1, 12.7),
}

SAMPLE = {"1x68", "2x128", "4x144", "2x148_sum", "2x144_concat_grouped", "2x128_scalar", "2x64_growth_16", "2x128_growth_32"}
"""Building all of them takes a minute."""


def presets(costs):
    return [pytest.param(preset, marks=[] if preset in SAMPLE else pytest.mark.slow) for preset in costs]


class TestSoftGated:
    def test_every_preset_is_counted(self):
        assert set(soft_gated.PRESETS) == set(SOFT_GATED)

    @pytest.mark.parametrize("preset", presets(SOFT_GATED))
    def test_costs_about_what_was_published(self, preset):
        params, macs, published_params, published_macs = SOFT_GATED[preset]
        found = count(soft_gated_hourglass(**MPII, **soft_gated.PRESETS[preset]))
        assert found.params == params and found.macs == pytest.approx(macs, abs=1e5)
        assert params / 1e6 == pytest.approx(published_params, rel=0.04)
        assert published_macs is None or macs / 1e9 == pytest.approx(published_macs, rel=0.04)

    def test_every_stack_predicts(self):
        model = soft_gated_hourglass(**TINY, stacks=2, channels=8)
        assert [tensor.shape for tensor in model.outputs] == [(None, 16, 16, 5)] * 2
        assert [name for name in names(model) if name.endswith("heatmaps")] == ["stack_1_heatmaps", "stack_2_heatmaps"]

    def test_one_stack_returns_one_tensor(self):
        model = soft_gated_hourglass(**TINY, stacks=1, channels=8)
        assert model.output.shape == (None, 16, 16, 5)
        assert "heatmaps" in names(model)

    @pytest.mark.parametrize(("gate", "shape"), [("channel", (8,)), ("scalar", (1,))])
    def test_every_block_has_a_gate_that_starts_where_it_was_told_to(self, gate, shape):
        model = soft_gated_hourglass(**TINY, stacks=1, channels=8, gate=gate, gate_initial_value=0.25)
        gates = [layer for layer in model.layers if isinstance(layer, SoftGate)]
        blocks = [name for name in names(model) if name.endswith("_concat")]
        assert len(gates) == len(blocks) == 1 + 3 * soft_gated.DEPTH
        assert all(layer.gate.shape == shape and np.all(layer.gate.numpy() == 0.25) for layer in gates)

    def test_a_closed_gate_lets_nothing_of_the_input_through(self):
        """The default: at first a block is its convolutions alone."""
        model = soft_gated_hourglass(**TINY, stacks=1, channels=8)
        block = keras.Model(model.input, [model.get_layer(f"stack_1_level_0_skip_{part}").output for part in ("concat", "add")])
        residual, output = block(np.random.default_rng(1).normal(size=(1, 64, 64, 3)).astype("float32"))
        np.testing.assert_array_equal(residual, output)

    def test_without_gates_the_blocks_are_plain_residual_blocks(self):
        model = soft_gated_hourglass(**TINY, stacks=1, channels=8, gate="identity")
        assert not any(isinstance(layer, SoftGate) for layer in model.layers)

    def test_the_gate_scales_and_survives_a_file(self, tmp_path):
        inputs = keras.Input((2, 2, 3))
        model = keras.Model(inputs, SoftGate(initial_value=0.5, name="gate")(inputs))
        model.get_layer("gate").set_weights([np.array([2.0, 0.0, -1.0], "float32")])
        model.save(tmp_path / "gate.keras")
        model = keras.models.load_model(tmp_path / "gate.keras")
        np.testing.assert_array_equal(model(np.ones((1, 2, 2, 3)))[0, 0, 0], [2.0, 0.0, -1.0])
        assert (model.get_layer("gate").per_channel, model.get_layer("gate").initial_value) == (True, 0.5)

    def test_the_gate_keeps_to_the_compute_dtype(self):
        gate = SoftGate(dtype="mixed_bfloat16")
        assert gate(keras.ops.ones((1, 2, 2, 3), "bfloat16")).dtype == "bfloat16"
        assert gate.gate.dtype == "float32"

    def test_grouping_keeps_the_two_sources_apart(self):
        model = soft_gated_hourglass(**TINY, stacks=1, channels=8, merge="concat_grouped")
        grouped = {layer.name for layer in model.layers if getattr(layer, "groups", 1) == 2}
        assert grouped == {f"stack_1_level_{level}_decoder_{part}_conv" for level in range(4) for part in ("1", "shortcut")}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"channels": 70}, "channels is 70, but must be a positive multiple of 4"),
            ({"channels": 0}, "channels is 0"),
            ({"channels": "144"}, "channels is '144'"),
            ({"stacks": 0}, "stacks is 0, but must be an integer of 1 or more"),
            ({"stacks": True}, "stacks is True"),
            ({"merge": "add"}, "merge is 'add', but must be one of concat, concat_grouped, sum"),
            ({"gate": "chanel"}, "gate is 'chanel'.*did you mean 'channel'"),
            ({"gate_initial_value": "0"}, "gate_initial_value is '0', but must be a finite number"),
            ({"gate_initial_value": float("nan")}, "gate_initial_value is nan"),
            ({"input_size": (96, 64)}, r"input_size is \(96, 64\).*multiple of 64"),
            ({"num_keypoints": 0}, "num_keypoints is 0"),
        ],
    )
    def test_bad_arguments_are_named(self, options, message):
        with pytest.raises(KposeError, match=message) as error:
            soft_gated_hourglass(**options)
        assert "\n" not in str(error.value)


class TestCuNet:
    def test_every_preset_is_counted(self):
        assert set(coupled_u_net.PRESETS) == set(CU_NET)

    @pytest.mark.parametrize("preset", presets(CU_NET))
    def test_costs_about_what_was_published(self, preset):
        """The module says what is known about the multiply-adds of the two large ones."""
        params, macs, published_params, published_macs = CU_NET[preset]
        found = count(cu_net(**MPII, **coupled_u_net.PRESETS[preset]))
        assert found.params == params and found.macs == pytest.approx(macs, abs=1e5)
        assert params / 1e6 == pytest.approx(published_params, rel=0.022)
        tolerance = {"4x128_growth_32": 0.055, "8x128_growth_32": 0.15}.get(preset, 0.022)
        assert macs / 1e9 == pytest.approx(published_macs, rel=tolerance)

    @pytest.mark.slow
    def test_eight_coupled_u_nets_have_the_published_weights_in_their_convolutions(self):
        """10.1 M are those of the convolutions alone, and 12.7 G the cost without the coupling between the U-Nets' inputs."""
        model = cu_net(**MPII, **coupled_u_net.PRESETS["8x128_growth_32"])
        assert sum(layer.count_params() for layer in model.layers if isinstance(layer, keras.layers.Conv2D)) == 10_144_128
        extra = sum((model.get_layer(f"stack_{stack}_input_conv").input.shape[-1] - 128) * 128 * 64**2 for stack in range(2, 9))
        assert count(model).macs - extra == pytest.approx(12.712e9, abs=1e6)

    @pytest.mark.parametrize(
        ("order", "widths"),
        [(0, [8, 8, 8, 8]), (1, [8, 12, 12, 12]), (2, [8, 12, 16, 16]), (3, [8, 12, 16, 20]), (9, [8, 12, 16, 20])],
    )
    def test_order_says_how_many_u_nets_back_a_block_looks(self, order, widths):
        model = cu_net(**TINY, stacks=4, channels=8, growth=4, order=order)
        inputs = [model.get_layer(f"stack_{stack}_neck_1_norm").input.shape[-1] for stack in range(1, 5)]
        assert inputs == widths
        merged = [model.get_layer(f"stack_{stack}_up_0_1_norm").input.shape[-1] for stack in range(1, 5)]
        assert merged == [width + 8 for width in widths]
        between = [model.get_layer(f"stack_{stack}_input_norm").input.shape[-1] for stack in range(2, 5)]
        assert between == [8 * (1 + min(stack, order)) for stack in range(1, 4)]

    def test_every_u_net_predicts_and_a_single_one_returns_one_tensor(self):
        model = cu_net(**TINY, channels=8, growth=4)
        assert [tensor.shape for tensor in model.outputs] == [(None, 16, 16, 5)] * 2
        assert [name for name in names(model) if name.endswith("heatmaps")] == ["stack_1_heatmaps", "stack_2_heatmaps"]
        assert cu_net(**TINY, stacks=1, channels=8, growth=4).output.shape == (None, 16, 16, 5)

    def test_weights_start_as_the_authors_do(self):
        model = cu_net(**TINY, stacks=1, channels=32)
        assert not any(layer.use_bias for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
        scale = model.get_layer("stack_1_neck_1_norm").gamma.numpy()
        assert scale.min() >= 0 and scale.max() <= 1 and np.std(scale) > 0.1
        kernel = model.get_layer("stack_1_neck_2_conv").kernel.numpy()
        limit = (9 * 4 * 32) ** -0.5
        assert 0.95 * limit < np.abs(kernel).max() <= limit

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"stacks": 0}, "stacks is 0"),
            ({"channels": 0}, "channels is 0"),
            ({"growth": 1.5}, "growth is 1.5, but must be an integer of 1 or more"),
            ({"order": -1}, "order is -1, but must be an integer of 0 or more"),
            ({"input_size": (64, 96)}, "multiple of 64"),
        ],
    )
    def test_bad_arguments_are_named(self, options, message):
        with pytest.raises(KposeError, match=message):
            cu_net(**options)


class TestStackedHourglass:
    @pytest.mark.slow
    def test_eight_stacks_cost_what_was_published(self):
        """25.5 M on MPII; on COCO 25.1 M and 14.3, which leaves out the residual blocks after the hourglasses."""
        model = stacked_hourglass(**MPII)
        assert count(model).params == 25_434_112
        assert count(model).macs == pytest.approx(27.440e9, abs=1e6)
        model = stacked_hourglass()
        assert count(model).params == 25_437_960
        assert count(model, "hrnet").macs / 2**30 == pytest.approx(19.178, abs=1e-3)
        output = [model.get_layer(f"stack_{stack}_output_{part}_conv") for stack in range(1, 9) for part in (1, 2, 3)]
        left_out = sum(layer.count_params() - layer.filters for layer in output) * 64 * 48
        assert (count(model, "hrnet").macs - left_out) / 2**30 == pytest.approx(14.303, abs=1e-3)

    @pytest.mark.parametrize(
        ("options", "params"),
        [
            ({"stacks": 1, "variant": "pytorch_pose"}, 3.59e6),
            ({"stacks": 2, "variant": "pytorch_pose"}, 6.73e6),
            pytest.param({"stacks": 8, "variant": "pytorch_pose"}, 25.59e6, marks=pytest.mark.slow),
            # 94.85 M with the block that MMPose makes for nothing.
            pytest.param({"stacks": 1, "variant": "cornernet"}, 93.67e6, marks=pytest.mark.slow),
        ],
        ids=["hg_s1_b1", "hg_s2_b1", "hg_s8_b1", "hourglass_52"],
    )
    def test_the_other_variants_have_the_parameters_of_the_published_ones(self, options, params):
        assert count(stacked_hourglass(**MPII, **options)).params == pytest.approx(params, abs=5e3)

    @pytest.mark.parametrize(("variant", "size"), [("newell", (64, 64)), ("pytorch_pose", (64, 64)), ("cornernet", (128, 128))])
    def test_every_stack_predicts_and_a_single_one_returns_one_tensor(self, variant, size):
        model = stacked_hourglass(5, size, stacks=2, channels=8, variant=variant)
        assert [tensor.shape for tensor in model.outputs] == [(None, size[0] // 4, size[1] // 4, 5)] * 2
        assert [name for name in names(model) if name.endswith("heatmaps")] == ["stack_1_heatmaps", "stack_2_heatmaps"]
        model = stacked_hourglass(5, size, stacks=1, channels=8, variant=variant)
        assert model.output.shape == (None, size[0] // 4, size[1] // 4, 5)
        assert "heatmaps" in names(model)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"stacks": 9}, "stacks is 9, but must be an integer from 1 to 8"),
            ({"channels": 15}, "channels is 15, but must be a positive multiple of 2"),
            ({"variant": "newel"}, "did you mean 'newell'"),
            ({"input_size": (96, 96)}, "multiple of 64"),
            ({"input_size": (64, 64), "variant": "cornernet"}, "multiple of 128"),
        ],
    )
    def test_bad_arguments_are_named(self, options, message):
        with pytest.raises(KposeError, match=message):
            stacked_hourglass(**options)
