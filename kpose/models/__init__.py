"""Networks by name: plain functions that return functional Keras models."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras

from kpose.errors import KposeError, did_you_mean
from kpose.models.counting import Counts, count
from kpose.models.coupled_u_net import cu_net
from kpose.models.cpn import cpn_resnet50
from kpose.models.hourglass import stacked_hourglass
from kpose.models.hrnet import hrnet_w32, hrnet_w48, small_hrnet_w16
from kpose.models.lite import lite_mobilenet_v3
from kpose.models.lite_hrnet import lite_hrnet_18, lite_hrnet_30
from kpose.models.multi_stage_hrnet import multi_stage_hrnet_w32, multi_stage_hrnet_w48
from kpose.models.ram_gpr import ram_gpr_hrnet_w32, ram_gpr_hrnet_w48
from kpose.models.simple_baseline import (
    simple_baseline_mobilenet_v2,
    simple_baseline_mobilenet_v3,
    simple_baseline_resnet50,
    simple_baseline_resnet101,
    simple_baseline_resnet152,
    simple_baseline_shufflenet_v2,
)
from kpose.models.soft_gated import soft_gated_hourglass
from kpose.models.vipnas import vipnas_mobilenet_v3

BUILDERS: dict[str, Callable[..., keras.Model]] = {
    builder.__name__: builder
    for builder in (
        cpn_resnet50,
        cu_net,
        hrnet_w32,
        hrnet_w48,
        lite_hrnet_18,
        lite_hrnet_30,
        lite_mobilenet_v3,
        multi_stage_hrnet_w32,
        multi_stage_hrnet_w48,
        ram_gpr_hrnet_w32,
        ram_gpr_hrnet_w48,
        simple_baseline_mobilenet_v2,
        simple_baseline_mobilenet_v3,
        simple_baseline_resnet50,
        simple_baseline_resnet101,
        simple_baseline_resnet152,
        simple_baseline_shufflenet_v2,
        small_hrnet_w16,
        soft_gated_hourglass,
        stacked_hourglass,
        vipnas_mobilenet_v3,
    )
}


def build_model(name: str, num_keypoints: int = 17, input_size: tuple[int, int] = (256, 192), **options: Any) -> keras.Model:
    """Builds a network with fresh weights.

    Args:
        name: One of `list_models()`.
        num_keypoints: Number of joints, one heatmap each.
        input_size: (height, width) of the crop the network takes.
        **options: What the network's own builder takes besides, e.g. `attention="none"` for `lite_mobilenet_v3`.

    Returns:
        A functional model from (B, H, W, 3) float32 normalised RGB to (B, H/4, W/4, num_keypoints) float32 heatmaps, or, of a network
        with several supervised stages, to the list of theirs, of which the last is to be decoded. (Multi-Stage HRNet has two offsets
        besides for each joint.) The builder of each network, named as the network is, says more.

    Raises:
        KposeError: when the name, an option or a value is not valid; the message names the nearest valid one.
    """
    if name not in BUILDERS:
        raise KposeError(f"no network is called {name!r}{did_you_mean(name, BUILDERS)}; there are: {', '.join(list_models())}")
    known = [option for option in inspect.signature(BUILDERS[name]).parameters if option not in ("num_keypoints", "input_size")]
    for option in options:
        if option not in known:
            raise KposeError(f"{name} has no option {option!r}{did_you_mean(option, known)}; its options are: {', '.join(known)}")
    return BUILDERS[name](num_keypoints=num_keypoints, input_size=input_size, **options)


def list_models() -> list[str]:
    """The names `build_model` knows, sorted."""
    return sorted(BUILDERS)


__all__ = ["Counts", "build_model", "count", "list_models"]
