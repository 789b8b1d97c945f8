"""How published code bases name the modules of the networks that kpose has: one file per family, one rule per kind of layer."""

from __future__ import annotations

from kpose.errors import KposeError, did_you_mean
from kpose.weights.torch_names import cpn, hrnet, lite, lite_hrnet, simple_baseline, stacked_hourglass, vipnas
from kpose.weights.torch_names.names import Names

LITE_HEAD = r"head_.+|attention_.+|heatmaps"

SQUEEZE = r"block_\d+_squeeze_restore_conv"
"""The convolutions before MobileNetV3's gates, which are (x + 1) / 2 in MMPose."""

RESNET = (Names(simple_baseline.RESNET_NAMES, simple_baseline.HEAD),)
HRNET = (Names(hrnet.NAMES),)
MULTI_STAGE_HRNET = (Names(hrnet.NAMES, hrnet.MULTI_STAGE_HEAD),)
RAM_GPR = (Names(hrnet.NAMES, hrnet.RAM_GPR_HEAD), Names(hrnet.NAMES, hrnet.RAM_GPR_HEAD_ON_POSE))
LITE_HRNET = (Names(lite_hrnet.NAMES),)

PUBLISHED: dict[str, tuple[Names, ...]] = {
    "cpn_resnet50": (Names(cpn.NAMES, cpn.HEAD), Names(cpn.NAMES_ON_IMAGENET, cpn.HEAD)),
    "hrnet_w32": HRNET,
    "hrnet_w48": HRNET,
    "lite_hrnet_18": LITE_HRNET,
    "lite_hrnet_30": LITE_HRNET,
    "lite_mobilenet_v3": tuple(Names(rules, LITE_HEAD) for rules in (lite.NAMES, lite.SE_NAMES, lite.CBAM_NAMES)),
    "multi_stage_hrnet_w32": MULTI_STAGE_HRNET,
    "multi_stage_hrnet_w48": MULTI_STAGE_HRNET,
    "ram_gpr_hrnet_w32": RAM_GPR,
    "ram_gpr_hrnet_w48": RAM_GPR,
    "simple_baseline_mobilenet_v2": (Names(simple_baseline.MOBILENET_V2_NAMES, simple_baseline.HEAD),),
    "simple_baseline_mobilenet_v3": (Names(simple_baseline.MOBILENET_V3_NAMES, simple_baseline.HEAD, tripled=SQUEEZE),),
    "simple_baseline_resnet50": RESNET,
    "simple_baseline_resnet101": RESNET,
    "simple_baseline_resnet152": RESNET,
    "simple_baseline_shufflenet_v2": (Names(simple_baseline.SHUFFLENET_V2_NAMES, simple_baseline.HEAD),),
    "small_hrnet_w16": HRNET,
    "stacked_hourglass": (
        Names(stacked_hourglass.PRINCETON_NAMES, stacked_hourglass.HEAD, "|".join(stacked_hourglass.PRINCETON_UNUSED)),
        Names(stacked_hourglass.PYTORCH_POSE_NAMES, stacked_hourglass.HEAD),
        Names(stacked_hourglass.MMPOSE_NAMES, stacked_hourglass.HEAD, "|".join(stacked_hourglass.MMPOSE_UNUSED)),
    ),
    "vipnas_mobilenet_v3": (Names(vipnas.NAMES, r"head_.+|heatmaps"),),
}
"""By the network's name: the namings under which weights of it have been published, tried in turn."""


def names_of(network: str) -> tuple[Names, ...]:
    """The namings under which weights of a network have been published.

    Raises:
        KposeError: when none are known.
    """
    if network not in PUBLISHED:
        raise KposeError(
            f"no published checkpoints are known for {network!r}{did_you_mean(network, PUBLISHED)}; they are for: "
            + ", ".join(sorted(PUBLISHED))
        )
    return PUBLISHED[network]


__all__ = ["PUBLISHED", "Names", "names_of"]
