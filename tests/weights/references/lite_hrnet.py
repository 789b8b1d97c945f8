"""Lite-HRNet in PyTorch, with the names of tensors of HRNet/Lite-HRNet and MMPose."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

WIDTHS = (40, 80, 160, 320)


class ConvModule(nn.Module):
    """Convolution, normalisation and activation under mmcv's names; a bias only where nothing normalises."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        norm: bool = True,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=not norm)
        if norm:
            self.bn = nn.BatchNorm2d(outputs)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        if hasattr(self, "bn"):
            x = self.bn(x)
        return x if self.activation is None else self.activation(x)


def shuffle(x: torch.Tensor) -> torch.Tensor:
    batch, channels, height, width = x.shape
    return x.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous().view(batch, channels, height, width)


class SpatialWeighting(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvModule(channels, channels // 4, norm=False, activation=nn.ReLU())
        self.conv2 = ConvModule(channels // 4, channels, norm=False, activation=nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.conv2(self.conv1(functional.adaptive_avg_pool2d(x, 1)))


class CrossResolutionWeighting(nn.Module):
    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = list(channels)
        total = sum(channels)
        self.conv1 = ConvModule(total, total // 8, activation=nn.ReLU())
        self.conv2 = ConvModule(total // 8, total, activation=nn.Sigmoid())

    def forward(self, branches: list[torch.Tensor]) -> list[torch.Tensor]:
        size = branches[-1].shape[-2:]
        pooled = torch.cat([functional.adaptive_avg_pool2d(x, size) for x in branches[:-1]] + [branches[-1]], dim=1)
        weights = torch.split(self.conv2(self.conv1(pooled)), self.channels, dim=1)
        return [x * functional.interpolate(weight, size=x.shape[-2:], mode="nearest") for x, weight in zip(branches, weights, strict=True)]


class ConditionalChannelWeighting(nn.Module):
    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        halves = [width // 2 for width in channels]
        self.cross_resolution_weighting = CrossResolutionWeighting(halves)
        self.depthwise_convs = nn.ModuleList(ConvModule(width, width, 3, groups=width) for width in halves)
        self.spatial_weighting = nn.ModuleList(SpatialWeighting(width) for width in halves)

    def forward(self, branches: list[torch.Tensor]) -> list[torch.Tensor]:
        kept, weighted = zip(*(x.chunk(2, dim=1) for x in branches), strict=True)
        outputs = self.cross_resolution_weighting(list(weighted))
        outputs = [conv(x) for conv, x in zip(self.depthwise_convs, outputs, strict=True)]
        outputs = [weighting(x) for weighting, x in zip(self.spatial_weighting, outputs, strict=True)]
        return [shuffle(torch.cat(pair, dim=1)) for pair in zip(kept, outputs, strict=True)]


class Stem(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = ConvModule(3, 32, 3, 2, activation=nn.ReLU())
        self.branch1 = nn.Sequential(ConvModule(16, 16, 3, 2, groups=16), ConvModule(16, 16, activation=nn.ReLU()))
        self.expand_conv = ConvModule(16, 32, activation=nn.ReLU())
        self.depthwise_conv = ConvModule(32, 32, 3, 2, groups=32)
        self.linear_conv = ConvModule(32, 16, activation=nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.conv1(x).chunk(2, dim=1)
        right = self.linear_conv(self.depthwise_conv(self.expand_conv(right)))
        return shuffle(torch.cat([self.branch1(left), right], dim=1))


def separable(inputs: int, outputs: int, stride: int, relu: bool = True) -> nn.Sequential:
    layers = [
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, nn.ReLU()) if relu else nn.Sequential(*layers)


class Module(nn.Module):
    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(ConditionalChannelWeighting(channels) for _ in range(2)))
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self.path(channels, source, target) for source in range(len(channels))) for target in range(len(channels))
        )

    @staticmethod
    def path(channels: Sequence[int], source: int, target: int) -> nn.Module | None:
        inputs, outputs, steps = channels[source], channels[target], target - source
        if steps == 0:
            return None
        if steps < 0:
            return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.Upsample(scale_factor=2**-steps))
        last = separable(inputs, outputs, 2, relu=False)
        return nn.Sequential(*(separable(inputs, inputs, 2) for _ in range(steps - 1)), last)

    def forward(self, branches: list[torch.Tensor]) -> list[torch.Tensor]:
        branches = self.layers(branches)
        outputs = []
        for target, paths in enumerate(self.fuse_layers):
            # In place as in the published code: the first sum overwrites branch 0, which the later ones read.
            total = branches[0] if target == 0 else paths[0](branches[0])
            for source, path in enumerate(paths):
                total += branches[source] if source == target else path(branches[source])
            outputs.append(functional.relu(total))
        return outputs


class SeparableModule(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise_conv = ConvModule(inputs, inputs, 3, groups=inputs)
        self.pointwise_conv = ConvModule(inputs, outputs, activation=nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pointwise_conv(self.depthwise_conv(x))


class IterativeHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.projects = nn.ModuleList(
            SeparableModule(inputs, outputs) for inputs, outputs in zip(WIDTHS[::-1], (160, 80, 40, 40), strict=True)
        )

    def forward(self, branches: list[torch.Tensor]) -> torch.Tensor:
        below = None
        for project, x in zip(self.projects, branches[::-1], strict=True):
            if below is not None:
                x = x + functional.interpolate(below, size=x.shape[-2:], mode="bilinear", align_corners=True)
            below = project(x)
        return below


class Backbone(nn.Module):
    def __init__(self, modules: Sequence[int]) -> None:
        super().__init__()
        self.stem = Stem()
        self.transition0 = nn.ModuleList([separable(32, 40, 1), nn.Sequential(separable(32, 80, 2))])
        self.transition1 = nn.ModuleList([None, None, nn.Sequential(separable(80, 160, 2))])
        self.transition2 = nn.ModuleList([None, None, None, nn.Sequential(separable(160, 320, 2))])
        for stage, count in enumerate(modules):
            setattr(self, f"stage{stage}", nn.Sequential(*(Module(WIDTHS[: stage + 2]) for _ in range(count))))
        self.head_layer = IterativeHead()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branches = [self.stem(x)]
        for stage in range(3):
            inputs = [*branches, branches[-1]]
            transition = getattr(self, f"transition{stage}")
            branches = getattr(self, f"stage{stage}")(
                [x if layer is None else layer(x) for x, layer in zip(inputs, transition, strict=True)]
            )
        return self.head_layer(branches)


class Head(nn.Module):
    def __init__(self, joints: int) -> None:
        super().__init__()
        self.final_layer = nn.Conv2d(40, joints, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.final_layer(x)


class LiteHRNet(nn.Module):
    """Trunk and head side by side, as MMPose has them before version 1."""

    def __init__(self, modules: Sequence[int], joints: int) -> None:
        super().__init__()
        self.backbone = Backbone(modules)
        self.keypoint_head = Head(joints)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.keypoint_head(self.backbone(x))
