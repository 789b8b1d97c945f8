"""The hourglass-like networks compute what PyTorch computes from the same tensors."""

# ruff: noqa: E402 - what follows needs PyTorch

from __future__ import annotations

import re

import pytest

torch = pytest.importorskip("torch")

from kpose.models.coupled_u_net import cu_net
from kpose.models.hourglass import stacked_hourglass
from kpose.models.soft_gated import GATES, MERGES, soft_gated_hourglass
from kpose.weights.torch_import import load_torch
from kpose.weights.torch_names import Names
from kpose.weights.torch_names.stacked_hourglass import (
    HEAD,
    MMPOSE_NAMES,
    MMPOSE_UNUSED,
    PRINCETON_NAMES,
    PRINCETON_UNUSED,
    PYTORCH_POSE_NAMES,
)
from tests.weights.parity import assert_same, randomised
from tests.weights.references.cu_net import CoupledNetwork
from tests.weights.references.soft_gated import SoftGatedNetwork
from tests.weights.references.stacked_hourglass import MmposeNetwork, PrincetonNetwork, PytorchPoseNetwork

SIZES = [(64, 64), (128, 64)]
"""Multiples of 64, which these networks need."""

RESIDUAL_GAIN = 1.5
JOINTS = 5


def load_all(model, network, rules, unused=()):
    """Every layer takes its tensors; left over are at most those that no forward pass reads."""
    report = load_torch(model, network.state_dict(), names=Names(rules, head=r"(?!)"), trunk_only=True)
    assert not report.fresh
    assert [name for name in report.unused if not any(re.fullmatch(pattern, name) for pattern in unused)] == []


class TestStackedHourglass:
    @pytest.mark.parametrize(("stacks", "size"), [(1, SIZES[0]), (2, SIZES[1])])
    @pytest.mark.parametrize(
        ("variant", "network", "rules", "unused"),
        [
            ("newell", PrincetonNetwork, PRINCETON_NAMES, PRINCETON_UNUSED),
            ("pytorch_pose", PytorchPoseNetwork, PYTORCH_POSE_NAMES, ()),
        ],
        ids=["newell", "pytorch_pose"],
    )
    def test_few_features(self, variant, network, rules, unused, size, stacks):
        model = stacked_hourglass(JOINTS, size, stacks, 16, variant)
        reference = randomised(network(stacks, 16, JOINTS), RESIDUAL_GAIN)
        load_all(model, reference, rules, unused)
        assert_same(model, reference, size)

    @pytest.mark.parametrize(("stacks", "size"), [(1, (128, 128)), (2, (256, 128))])
    def test_cornernet(self, stacks, size):
        model = stacked_hourglass(JOINTS, size, stacks, 16, "cornernet")
        reference = randomised(MmposeNetwork(stacks, 16, JOINTS), RESIDUAL_GAIN)
        load_all(model, reference, MMPOSE_NAMES, MMPOSE_UNUSED if stacks == 1 else ())
        assert_same(model, reference, size)

    @pytest.mark.parametrize(
        ("variant", "rules"), [("newell", PRINCETON_NAMES), ("pytorch_pose", PYTORCH_POSE_NAMES), ("cornernet", MMPOSE_NAMES)]
    )
    def test_another_number_of_joints_leaves_only_the_head_fresh(self, variant, rules):
        networks = {"newell": PrincetonNetwork, "pytorch_pose": PytorchPoseNetwork, "cornernet": MmposeNetwork}
        model = stacked_hourglass(JOINTS, (128, 128), 2, 8, variant)
        reference = networks[variant](2, 8, JOINTS + 2)
        report = load_torch(model, reference.state_dict(), names=Names(rules, HEAD), trunk_only=True)
        remap = [] if variant == "cornernet" else ["stack_1_remap_heatmaps_conv"]
        assert sorted(report.fresh) == sorted(["stack_1_heatmaps", "stack_2_heatmaps", *remap])

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("options", "size", "network", "rules", "unused"),
        [
            ({"stacks": 2, "variant": "newell"}, (64, 64), PrincetonNetwork, PRINCETON_NAMES, PRINCETON_UNUSED),
            ({"stacks": 2, "variant": "pytorch_pose"}, (64, 64), PytorchPoseNetwork, PYTORCH_POSE_NAMES, ()),
            ({"stacks": 1, "variant": "cornernet"}, (128, 128), MmposeNetwork, MMPOSE_NAMES, MMPOSE_UNUSED),
        ],
        ids=["2hg", "hg_s2_b1", "hourglass_52"],
    )
    def test_published_widths(self, options, size, network, rules, unused):
        model = stacked_hourglass(16, size, **options)
        reference = randomised(network(options["stacks"], 256, 16), RESIDUAL_GAIN)
        load_all(model, reference, rules, unused)
        assert_same(model, reference, size)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("variant", "network", "rules", "unused"),
        [
            ("newell", PrincetonNetwork, PRINCETON_NAMES, PRINCETON_UNUSED),
            ("pytorch_pose", PytorchPoseNetwork, PYTORCH_POSE_NAMES, ()),
            ("cornernet", MmposeNetwork, MMPOSE_NAMES, ()),
        ],
        ids=["newell", "pytorch_pose", "cornernet"],
    )
    def test_all_eight_stacks_have_names(self, variant, network, rules, unused):
        load_all(stacked_hourglass(JOINTS, (128, 128), 8, 8, variant), network(8, 8, JOINTS), rules, unused)


def soft_gated_names(stacks):
    blocks = [("stem_block", "stem_block")]
    rules = [("stem_conv", "stem.0"), ("stem_norm", "stem.1")]
    for stack in range(stacks):
        for level in range(4):
            blocks.append((f"stack_{stack + 1}_level_{level}_skip", f"stacks.{stack}.skips.{level}"))
            blocks.append((f"stack_{stack + 1}_level_{level + 1}_encoder", f"stacks.{stack}.encoders.{level}"))
            blocks.append((f"stack_{stack + 1}_level_{level}_decoder", f"stacks.{stack}.decoders.{level}"))
        rules.append((f"stack_{stack + 1}_head_norm", f"norms.{stack}"))
        rules.append((f"stack_{stack + 1}_heatmaps", f"heatmaps.{stack}"))
        rules += [(f"stack_{stack + 1}_remap_{part}_conv", f"remap_{part}.{stack}") for part in ("features", "heatmaps")]
    for ours, theirs in blocks:
        for layer, position in (("norm", 0), ("conv", 2)):
            rules += [(f"{ours}_{part}_{layer}", f"{theirs}.parts.{part - 1}.{position}") for part in (1, 2, 3)]
            rules.append((f"{ours}_shortcut_{layer}", f"{theirs}.shortcut.{position}"))
        rules.append((f"{ours}_gate", f"{theirs}.gate"))
    # The gates have no layout that the import knows; they are set beside it.
    return Names((*rules, ("heatmaps", "heatmaps.0")), head=r".+_gate")


class TestSoftGated:
    @pytest.mark.parametrize(
        ("stacks", "merge", "gate", "size"),
        [
            *((1, merge, gate, SIZES[0]) for merge in MERGES for gate in GATES),
            *((2, merge, "channel", SIZES[1]) for merge in MERGES),
        ],
    )
    def test_narrow(self, stacks, merge, gate, size):
        model = soft_gated_hourglass(JOINTS, size, stacks, 12, merge, gate)
        reference = randomised(SoftGatedNetwork(stacks, 12, JOINTS, merge, gate), RESIDUAL_GAIN)
        names = soft_gated_names(stacks)
        report = load_torch(model, reference.state_dict(), names=names, trunk_only=True)
        gates = {name: names.module_of(name) for name in report.fresh}
        assert len(gates) == (0 if gate == "identity" else 1 + 12 * stacks)
        assert set(report.unused) == set(gates.values())
        for name, module in gates.items():
            model.get_layer(name).set_weights([reference.state_dict()[module].numpy()])
        assert_same(model, reference, size)


def cu_net_names(stacks):
    rules = [("stem_conv", "features.conv0"), ("stem_norm", "features.norm0")]
    for stack in range(stacks):
        ours = f"stack_{stack + 1}"
        for block, module in ((rf"{ours}_(up|down)_(\d)", r"hg.\1_blocks.\2"), (rf"{ours}_neck", r"hg.neck_block")):
            first, second = (3, 4) if "(" in block else (1, 2)
            rules.append((rf"{block}_(\d)_(norm|conv)", rf"{module}.layers.{stack}.\{second}\{first}"))
            rules.append((rf"{block}_(ahead|skip)_(norm|conv)", rf"{module}.adapters_\{first}.{stack}.adapter_\{second}"))
        rules.append((rf"{ours}_input_(norm|conv)", rf"intermedia.adapters.{stack - 1}.adapter_\1"))
        rules.append((f"{ours}_head_norm", f"linears.{stack}.norm"))
        rules.append((f"{ours}_heatmaps", f"linears.{stack}.conv"))
    return (*rules, ("heatmaps", "linears.0.conv"))


class TestCuNet:
    @pytest.mark.parametrize(
        ("stacks", "order", "size"),
        [(1, 0, SIZES[0]), (2, 1, SIZES[1]), (3, 0, SIZES[0]), (3, 7, SIZES[1]), (4, 2, SIZES[0])],
    )
    def test_narrow(self, stacks, order, size):
        model = cu_net(JOINTS, size, stacks, 8, 4, order)
        reference = randomised(CoupledNetwork(stacks, 8, 4, order, JOINTS))
        load_all(model, reference, cu_net_names(stacks))
        assert_same(model, reference, size)
