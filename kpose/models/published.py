"""What publications say that the networks cost, row by row, for comparison with what is built here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from kpose.models import build_model, count
from kpose.models.counting import UNITS
from kpose.models.coupled_u_net import PRESETS as CU_NET
from kpose.models.soft_gated import PRESETS as SOFT_GATED

MULTI_STAGE_HRNET = "Multi-Stage HRNet (Huang and Zhu, 2019)"
RAM_GPR = "RAM+GPR (Zhang et al., 2020)"
SOFT_GATED_HOURGLASS = "Soft-gated skip connections (Bulat et al., 2020)"
MMPOSE = "MMPose's table of models"
LITE = "Heatmap-weighting loss (Li and Xiang, 2022)"

Size = tuple[int, int]
COCO_SMALL, COCO_LARGE, MPII = (256, 192), (384, 288), (256, 256)
MPII_JOINTS, COCO_JOINTS = 16, 17


class Row(NamedTuple):
    """One row of a size table.

    Attributes:
        publication: where it is printed.
        network: name for `build_model`.
        input_size: (height, width).
        convention: how its multiply-adds are counted, see `count`.
        parameters: published, in millions, as it is printed; None where the publication gives none.
        multiply_adds: published, in the convention's giga; likewise.
        options: for `build_model`.
        note: why the figures differ, where they do by more than one percent.
    """

    publication: str
    network: str
    input_size: Size
    convention: str
    parameters: str | None
    multiply_adds: str | None
    options: Mapping[str, Any] = MappingProxyType({})
    note: str = ""

    @property
    def num_keypoints(self) -> int:
        """MPII's joints at its square size, COCO's otherwise."""
        return MPII_JOINTS if self.input_size == MPII else COCO_JOINTS


class Comparison(NamedTuple):
    """A row and what was counted: parameters in millions, multiply-adds in the row's giga, and the true ones in 10^9."""

    row: Row
    parameters: float
    multiply_adds: float
    true_multiply_adds: float

    @property
    def parameter_difference(self) -> float | None:
        """In percent of the published figure."""
        return _percent(self.parameters, self.row.parameters)

    @property
    def multiply_add_difference(self) -> float | None:
        """In percent of the published figure."""
        return _percent(self.multiply_adds, self.row.multiply_adds)


def compare(row: Row) -> Comparison:
    """Builds the row's network and counts."""
    model = build_model(row.network, row.num_keypoints, row.input_size, **row.options)
    counts, true = count(model, row.convention), count(model)
    return Comparison(row, counts.params / 1e6, counts.macs / UNITS[row.convention], true.macs / 1e9)


def _percent(built: float, printed: str | None) -> float | None:
    return None if printed is None else 100 * (built / float(printed) - 1)


def rounds_to(built: float, printed: str) -> bool:
    """Whether a figure, rounded as the printed one is, is that one."""
    decimals = len(printed.partition(".")[2])
    return f"{built:.{decimals}f}" == printed


HOURGLASS_NOTE = "published without the residual block after each hourglass: without it 23.722 M and 14.303"
LOST_CELL = "the paper's cell is lost in the stored text; the nearest of the readings that make the second network refine the first"
NO_CODE = "no published code; widths and blocks are those that fit all rows best"
MISPRINT = "printed with 4 stacks, which 3.4 M parameters leave no room for; table IV has the same network with 2"
COUPLING = "the printed figure leaves out what coupling adds to the convolutions between the U-Nets"
VIPNAS = "the network that was published, built here, is another one than the paper's figures are of: see MMPose's own row"
FITTED = "settings of the row are not published; the multiples of 4 that fit best"
AUTHORS_CODE = "the settings of the authors' code"

ROWS: tuple[Row, ...] = (
    Row(RAM_GPR, "stacked_hourglass", COCO_SMALL, "hrnet", "25.1", "14.3", {"stacks": 8}, HOURGLASS_NOTE),
    Row(RAM_GPR, "cpn_resnet50", COCO_SMALL, "hrnet", "27.0", "6.2", {}, "see kpose/models/cpn.py: no published code has both figures"),
    Row(RAM_GPR, "simple_baseline_resnet50", COCO_SMALL, "hrnet", "34.0", "8.9"),
    Row(RAM_GPR, "simple_baseline_resnet101", COCO_SMALL, "hrnet", "53.0", "12.4"),
    Row(RAM_GPR, "simple_baseline_resnet152", COCO_SMALL, "hrnet", "68.6", "15.7"),
    Row(RAM_GPR, "simple_baseline_resnet152", COCO_LARGE, "hrnet", "68.6", "35.6"),
    Row(RAM_GPR, "hrnet_w32", COCO_SMALL, "hrnet", "28.5", "7.1"),
    Row(RAM_GPR, "hrnet_w48", COCO_SMALL, "hrnet", "63.6", "14.6"),
    Row(RAM_GPR, "hrnet_w32", COCO_LARGE, "hrnet", "28.5", "16.0"),
    Row(RAM_GPR, "hrnet_w48", COCO_LARGE, "hrnet", "63.6", "32.9"),
    Row(RAM_GPR, "ram_gpr_hrnet_w32", COCO_SMALL, "hrnet", "31.4", "7.7"),
    Row(RAM_GPR, "ram_gpr_hrnet_w48", COCO_SMALL, "hrnet", "70.0", "15.8"),
    Row(RAM_GPR, "ram_gpr_hrnet_w32", COCO_LARGE, "hrnet", "31.4", "17.2"),
    Row(RAM_GPR, "ram_gpr_hrnet_w48", COCO_LARGE, "hrnet", "70.0", "35.6"),
    Row(RAM_GPR, "ram_gpr_hrnet_w32", COCO_SMALL, "hrnet", None, None, {"attention": False}),
    Row(RAM_GPR, "ram_gpr_hrnet_w32", COCO_SMALL, "hrnet", None, None, {"refinement": False}),
    Row(MULTI_STAGE_HRNET, "multi_stage_hrnet_w32", COCO_SMALL, "hrnet", None, None, {"stages": 1}),
    Row(MULTI_STAGE_HRNET, "multi_stage_hrnet_w32", COCO_LARGE, "hrnet", None, None, {"stages": 1}),
    Row(MULTI_STAGE_HRNET, "multi_stage_hrnet_w48", COCO_SMALL, "hrnet", None, None, {"stages": 1}),
    Row(MULTI_STAGE_HRNET, "multi_stage_hrnet_w48", COCO_LARGE, "hrnet", None, None, {"stages": 1}),
    Row(MULTI_STAGE_HRNET, "multi_stage_hrnet_w48", COCO_LARGE, "hrnet", None, "61.5", {"stages": 2}, LOST_CELL),
    Row(LITE, "lite_mobilenet_v3", COCO_SMALL, "mmpose", "3.1", "0.58"),
    Row(LITE, "lite_mobilenet_v3", COCO_LARGE, "mmpose", "3.1", "1.30"),
    Row(LITE, "lite_mobilenet_v3", MPII, "mmpose", "3.1", "0.77"),
    Row(LITE, "simple_baseline_mobilenet_v2", COCO_SMALL, "mmpose", "9.6", "1.59"),
    Row(LITE, "simple_baseline_mobilenet_v2", COCO_LARGE, "mmpose", "9.6", "3.57"),
    Row(LITE, "simple_baseline_mobilenet_v2", MPII, "mmpose", "9.6", "2.12"),
    Row(LITE, "simple_baseline_mobilenet_v3", COCO_SMALL, "mmpose", "8.7", "1.47"),
    Row(LITE, "simple_baseline_shufflenet_v2", COCO_SMALL, "mmpose", "7.6", "1.37"),
    Row(LITE, "simple_baseline_shufflenet_v2", COCO_LARGE, "mmpose", "7.6", "3.08"),
    Row(LITE, "simple_baseline_shufflenet_v2", MPII, "mmpose", "7.6", "1.83"),
    Row(LITE, "small_hrnet_w16", COCO_SMALL, "lite_hrnet", "1.3", "0.54"),
    Row(LITE, "small_hrnet_w16", COCO_LARGE, "lite_hrnet", "1.3", "1.21"),
    Row(LITE, "lite_hrnet_18", COCO_SMALL, "lite_hrnet", "1.1", "0.20"),
    Row(LITE, "lite_hrnet_18", COCO_LARGE, "lite_hrnet", "1.1", "0.45"),
    Row(LITE, "lite_hrnet_18", MPII, "lite_hrnet", "1.1", "0.27"),
    Row(LITE, "lite_hrnet_30", COCO_SMALL, "lite_hrnet", "1.8", "0.31"),
    Row(LITE, "lite_hrnet_30", COCO_LARGE, "lite_hrnet", "1.8", "0.70"),
    Row(LITE, "lite_hrnet_30", MPII, "lite_hrnet", "1.8", "0.42"),
    Row(LITE, "vipnas_mobilenet_v3", COCO_SMALL, "mmpose", "2.8", "0.69", {}, VIPNAS),
    Row(MMPOSE, "vipnas_mobilenet_v3", COCO_SMALL, "mmpose", "5.9", "0.76"),
    Row(SOFT_GATED_HOURGLASS, "soft_gated_hourglass", MPII, "plain", "8.5", "9.9", SOFT_GATED["4x144"], NO_CODE),
    Row(SOFT_GATED_HOURGLASS, "soft_gated_hourglass", MPII, "plain", "3.4", "4.27", SOFT_GATED["2x128"], MISPRINT),
    Row(SOFT_GATED_HOURGLASS, "soft_gated_hourglass", MPII, "plain", "26", None, SOFT_GATED["4x256"], "26.8, printed as 26"),
    Row(SOFT_GATED_HOURGLASS, "soft_gated_hourglass", MPII, "plain", "0.5", "0.80", SOFT_GATED["1x68"]),
    Row(SOFT_GATED_HOURGLASS, "soft_gated_hourglass", MPII, "plain", "1.0", "1.39", SOFT_GATED["2x68"], NO_CODE),
    Row(SOFT_GATED_HOURGLASS, "soft_gated_hourglass", MPII, "plain", "1.4", "1.75", SOFT_GATED["2x80"], NO_CODE),
    Row(SOFT_GATED_HOURGLASS, "soft_gated_hourglass", MPII, "plain", "1.9", "2.43", SOFT_GATED["2x96"], NO_CODE),
    Row(SOFT_GATED_HOURGLASS, "soft_gated_hourglass", MPII, "plain", "2.4", "3.10", SOFT_GATED["2x108"], NO_CODE),
    Row(SOFT_GATED_HOURGLASS, "soft_gated_hourglass", MPII, "plain", "2.9", "3.75", SOFT_GATED["2x120"], NO_CODE),
    Row(SOFT_GATED_HOURGLASS, "soft_gated_hourglass", MPII, "plain", "3.4", None, SOFT_GATED["2x148_sum"]),
    Row(SOFT_GATED_HOURGLASS, "soft_gated_hourglass", MPII, "plain", "3.4", None, SOFT_GATED["2x144_concat_grouped"]),
    Row(SOFT_GATED_HOURGLASS, "stacked_hourglass", MPII, "plain", "25.5", None, {"stacks": 8}),
    Row(SOFT_GATED_HOURGLASS, "cu_net", MPII, "plain", "0.5", "0.77", CU_NET["2x64_growth_16"]),
    Row(SOFT_GATED_HOURGLASS, "cu_net", MPII, "plain", "1.0", "1.68", CU_NET["2x144_growth_8"], FITTED),
    Row(SOFT_GATED_HOURGLASS, "cu_net", MPII, "plain", "1.4", "2.14", CU_NET["2x124_growth_24"], FITTED),
    Row(SOFT_GATED_HOURGLASS, "cu_net", MPII, "plain", "1.9", "2.70", CU_NET["2x128_growth_32"], AUTHORS_CODE),
    Row(SOFT_GATED_HOURGLASS, "cu_net", MPII, "plain", "2.4", "3.50", CU_NET["2x160_growth_32"], FITTED),
    Row(SOFT_GATED_HOURGLASS, "cu_net", MPII, "plain", "2.9", "4.15", CU_NET["2x172_growth_36"], FITTED),
    Row(SOFT_GATED_HOURGLASS, "cu_net", MPII, "plain", "4.0", "5.17", CU_NET["4x128_growth_32"], COUPLING),
    Row(SOFT_GATED_HOURGLASS, "cu_net", MPII, "plain", "10.1", "12.7", CU_NET["8x128_growth_32"], COUPLING),
)
