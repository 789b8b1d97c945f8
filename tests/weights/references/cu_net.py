"""Coupled U-Nets in PyTorch, with the names of tensors that the authors' code (zhiqiangdon/CU-Net) gives them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn


def norm_relu_conv(inputs: int, outputs: int, prefix: str = "") -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            {
                f"{prefix}norm": nn.BatchNorm2d(inputs),
                f"{prefix}relu": nn.ReLU(),
                f"{prefix}conv": nn.Conv2d(inputs, outputs, 1, bias=False),
            }
        )
    )


class DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv2(torch.relu(self.norm2(self.conv1(torch.relu(self.norm1(x))))))


class DenseBlock(nn.Module):
    """The same block of all U-Nets: a layer for each of them, and what the latest `order` of them found."""

    def __init__(self, inputs: int, outputs: int, growth: int, stacks: int, order: int, skips: bool) -> None:
        super().__init__()
        widths = [inputs + min(stack, order) * growth for stack in range(stacks)]
        self.layers = nn.ModuleList(DenseLayer(width, growth) for width in widths)
        self.adapters_ahead = nn.ModuleList(norm_relu_conv(width + growth, outputs, "adapter_") for width in widths)
        if skips:
            self.adapters_skip = nn.ModuleList(norm_relu_conv(width + growth, outputs, "adapter_") for width in widths)
        self.order = order
        self.kept: list[torch.Tensor] = []

    def forward(self, x: Sequence[torch.Tensor], stack: int) -> list[torch.Tensor]:
        if stack == 0:
            self.kept = []
        coupled = [*x, *self.kept]
        found = self.layers[stack](torch.cat(coupled, dim=1))
        # As a queue that holds `order` tensors at most.
        self.kept.append(found)
        if len(self.kept) > self.order:
            self.kept.pop(0)
        joined = torch.cat([*coupled, found], dim=1)
        adapters = [self.adapters_ahead, self.adapters_skip] if hasattr(self, "adapters_skip") else [self.adapters_ahead]
        return [adapter[stack](joined) for adapter in adapters]


class UNets(nn.Module):
    def __init__(self, width: int, growth: int, stacks: int, order: int) -> None:
        super().__init__()
        self.down_blocks = nn.ModuleList(DenseBlock(width, width, growth, stacks, order, True) for _ in range(4))
        self.up_blocks = nn.ModuleList(DenseBlock(2 * width, width, growth, stacks, order, False) for _ in range(4))
        self.neck_block = DenseBlock(width, width, growth, stacks, order, False)

    def forward(self, x: torch.Tensor, stack: int) -> torch.Tensor:
        skips = []
        for block in self.down_blocks:
            x, skip = block([x], stack)
            skips.append(skip)
            x = nn.functional.max_pool2d(x, 2)
        (x,) = self.neck_block([x], stack)
        for block, skip in zip(reversed(self.up_blocks), reversed(skips), strict=True):
            (x,) = block([nn.functional.interpolate(x, scale_factor=2), skip], stack)
        return x


class Intermedia(nn.Module):
    def __init__(self, width: int, stacks: int, order: int) -> None:
        super().__init__()
        self.adapters = nn.ModuleList(norm_relu_conv((1 + min(stack, order)) * width, width, "adapter_") for stack in range(1, stacks))


class CoupledNetwork(nn.Module):
    def __init__(self, stacks: int, width: int, growth: int, order: int, joints: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            OrderedDict(conv0=nn.Conv2d(3, width, 7, 2, 3, bias=False), norm0=nn.BatchNorm2d(width), relu0=nn.ReLU(), pool0=nn.MaxPool2d(2))
        )
        self.hg = UNets(width, growth, stacks, order)
        self.linears = nn.ModuleList(norm_relu_conv(width, joints) for _ in range(stacks))
        self.intermedia = Intermedia(width, stacks, order)
        self.stacks, self.order = stacks, order

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.features(x)
        kept: list[torch.Tensor] = []
        found = []
        for stack in range(self.stacks):
            if stack:
                x = self.intermedia.adapters[stack - 1](torch.cat([x, *kept], dim=1))
            kept = [*kept, x][-self.order :] if self.order else []
            x = self.hg(x, stack)
            found.append(self.linears[stack](x))
        return found
