"""HRNet and the two networks on its trunk compute what PyTorch computes from the same tensors."""

# ruff: noqa: E402 - what follows needs PyTorch

from __future__ import annotations

import keras
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from kpose.models import hrnet, multi_stage_hrnet, ram_gpr
from kpose.models.hrnet import Recipe, Stage
from kpose.weights.torch_import import load_torch
from kpose.weights.torch_names import Names
from kpose.weights.torch_names.hrnet import MULTI_STAGE_HEAD, NAMES, RAM_GPR_HEAD, RAM_GPR_HEAD_ON_POSE
from tests.weights import parity
from tests.weights.parity import SIZES, assert_same, images
from tests.weights.references.hrnet import HighResolutionNetwork
from tests.weights.references.multi_stage_hrnet import MultiStageNetwork
from tests.weights.references.ram_gpr import RamGprNetwork

# As deep as need be to have every kind of layer; the small HRNet has more than one block in a row.
SHALLOW = Recipe(2, 8, (Stage(1, 1), Stage(2, 1), Stage(3, 1)))
SHALLOW_REFERENCE = {"bottlenecks": 2, "bottleneck_width": 8, "modules": (1, 2, 3), "blocks": 1}


def randomised(network):
    """As for other networks, with less to add up in its many blocks, and with attention that does not weigh all maps alike."""
    parity.randomised(network, gain=3.0, shift=0.1)
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for module in network.modules():
            if hasattr(module, "omega"):
                count = len(module.omega)
                module.omega.copy_(count * (0.5 + torch.rand(count, generator=random)))
                module.beta.copy_(torch.rand(count, generator=random) - 0.5)
    return network


class TestHrnet:
    @pytest.mark.parametrize("size", SIZES)
    def test_narrow(self, size):
        model = hrnet.hrnet("hrnet", 6, 5, size, SHALLOW)
        reference = randomised(HighResolutionNetwork(6, 5, **SHALLOW_REFERENCE))
        load_torch(model, reference.state_dict(), names=Names(NAMES))
        assert_same(model, reference, size)

    @pytest.mark.parametrize("size", SIZES)
    def test_small(self, size):
        model = hrnet.small_hrnet_w16(17, size)
        reference = randomised(HighResolutionNetwork(16, 17, bottlenecks=1, bottleneck_width=32, modules=(1, 1, 1), blocks=2))
        load_torch(model, reference.state_dict(), names=Names(NAMES))
        assert_same(model, reference, size)

    @pytest.mark.slow
    @pytest.mark.parametrize(("build", "width"), [(hrnet.hrnet_w32, 32), (hrnet.hrnet_w48, 48)])
    def test_published_widths(self, build, width):
        reference = randomised(HighResolutionNetwork(width, 17))
        for size in SIZES:
            model = build(17, size)
            load_torch(model, reference.state_dict(), names=Names(NAMES))
            assert_same(model, reference, size)


class TestMultiStageHrnet:
    WHOLE = Names(
        (
            (r"network_(\d)_entry_branch_1_conv", r"network_\1.entry.0"),
            (r"network_(\d)_entry_branch_1_norm", r"network_\1.entry.1"),
            (r"stage_1_heatmaps", r"final_layer"),
            (r"stage_(\d)_heatmaps", r"network_\1.final_layer"),
            *[
                (pattern.replace(r"(?:network_\d_)?", f"network_{number}_"), f"network_{number}.{template}")
                for pattern, template in NAMES
                for number in (2, 3)
                if pattern.startswith(r"(?:network_\d_)?")
            ],
            *NAMES,
        )
    )

    @pytest.mark.parametrize(("stages", "size"), [(2, SIZES[0]), (3, SIZES[1])])
    def test_narrow(self, stages, size):
        model = multi_stage_hrnet.multi_stage_hrnet("multi_stage_hrnet", 4, 2, size, stages, SHALLOW)
        reference = randomised(MultiStageNetwork(4, 6, stages, **SHALLOW_REFERENCE))
        load_torch(model, reference.state_dict(), names=self.WHOLE)
        assert_same(model, reference, size)

    def test_one_stage_is_an_hrnet_with_three_channels_per_joint(self):
        model = multi_stage_hrnet.multi_stage_hrnet("multi_stage_hrnet", 4, 2, SIZES[0], 1, SHALLOW)
        reference = randomised(HighResolutionNetwork(4, 6, **SHALLOW_REFERENCE))
        load_torch(model, reference.state_dict(), names=Names(NAMES))
        assert_same(model, reference, SIZES[0])

    def test_one_trunk_fills_every_network(self):
        model = multi_stage_hrnet.multi_stage_hrnet("multi_stage_hrnet", 4, 2, SIZES[0], 2, SHALLOW)
        # The trunk on ImageNet: all four outputs, another end.
        trunk = randomised(HighResolutionNetwork(4, 10, **SHALLOW_REFERENCE, outputs=4))
        report = load_torch(model, trunk.state_dict(), names=Names(NAMES, MULTI_STAGE_HEAD), trunk_only=True)
        assert report.fresh == [
            "network_2_entry_branch_1_conv",
            "network_2_entry_branch_1_norm",
            "stage_1_heatmaps",
            "stage_2_heatmaps",
        ]
        assert all(name.startswith(("final_layer.", "stage4.2.fuse_layers.")) for name in report.unused)
        first, second = (
            model.get_layer(f"{prefix}stage_4_module_2_branch_3_block_0_2_conv").get_weights()[0] for prefix in ("", "network_2_")
        )
        np.testing.assert_array_equal(first, second)


class TestRamGpr:
    WHOLE = Names(
        (
            (r"stage_(\d)_module_(\d)_exchange_(\d)_attention_(\d)_hidden_conv", r"stage\1.\2.attention.\3.scores.\4.1"),
            (r"stage_(\d)_module_(\d)_exchange_(\d)_attention_(\d)_score_conv", r"stage\1.\2.attention.\3.scores.\4.3"),
            (r"refinement_(\d)_upsample_conv", r"refinement.\1.deconv.0"),
            (r"refinement_(\d)_upsample_norm", r"refinement.\1.deconv.1"),
            (r"refinement_(\d)_interpolate_conv", r"refinement.\1.interpolate.0"),
            (r"refinement_(\d)_interpolate_norm", r"refinement.\1.interpolate.1"),
            (r"rescaled_sum_from_(\d)_conv", r"rescale.\1.0"),
            (r"rescaled_sum_from_(\d)_norm", r"rescale.\1.1"),
            *NAMES,
        ),
        # Scale and offset of the attention have no layout that the import knows; they are set beside it.
        head=r".+_attention_sum",
    )

    @pytest.mark.parametrize(
        ("options", "size"),
        [
            ({}, SIZES[0]),
            ({}, SIZES[1]),
            ({"attention": False, "refinement": False}, SIZES[1]),
        ],
        ids=str,
    )
    def test_narrow(self, options, size):
        model = ram_gpr.ram_gpr_hrnet("ram_gpr_hrnet", 4, 3, size, recipe=SHALLOW, **options)
        reference = randomised(RamGprNetwork(4, 3, **SHALLOW_REFERENCE, **options))
        report = load_torch(model, reference.state_dict(), names=self.WHOLE, trunk_only=True)
        affine = set(report.unused)
        for name in report.fresh:
            stage, module, target = (int(part) for part in name.split("_")[1:6:2])
            prefix = f"stage{stage}.{module}.attention.{target}"
            affine -= {f"{prefix}.omega", f"{prefix}.beta"}
            attention = reference.get_submodule(prefix)
            model.get_layer(name).set_weights([attention.omega.detach().numpy(), attention.beta.detach().numpy()])
        assert not affine
        assert_same(model, reference, size)

    @pytest.mark.parametrize(("outputs", "head"), [(4, RAM_GPR_HEAD), (1, RAM_GPR_HEAD_ON_POSE)], ids=["ImageNet", "pose"])
    def test_takes_a_trunk(self, outputs, head):
        model = ram_gpr.ram_gpr_hrnet("ram_gpr_hrnet", 4, 3, SIZES[0], recipe=SHALLOW)
        trunk = randomised(HighResolutionNetwork(4, 10, **SHALLOW_REFERENCE, outputs=outputs))
        report = load_torch(model, trunk.state_dict(), names=Names(NAMES, head), trunk_only=True)
        assert report.unused == ["final_layer.weight", "final_layer.bias"]
        # A fresh attention adds up as HRNet does: the trunk's own output is what it was.
        mine = keras.Model(model.input, model.get_layer("stage_4_module_2_exchange_0_relu").output)
        with torch.no_grad():
            theirs = trunk.positions(trunk.enter(torch.from_numpy(images(SIZES[0]).transpose(0, 3, 1, 2))))[-1][0].numpy()
        np.testing.assert_allclose(mine(images(SIZES[0])), theirs.transpose(0, 2, 3, 1), atol=1e-4 * np.ptp(theirs))
