"""S-ViPNAS-MobileNetV3 in PyTorch, with MMPose's names of tensors."""

from __future__ import annotations

import torch
from torch import nn

from tests.weights.references.lite_hrnet import ConvModule

# Width, expansion, depth, kernel size, groups, attention, stride and activation of every stage after the stem.
STAGES = (
    (16, 1, 1, 3, 8, True, 1, nn.ReLU),
    (24, 5, 4, 7, 120, True, 2, nn.ReLU),
    (40, 4, 4, 7, 20, False, 2, nn.ReLU),
    (80, 5, 4, 5, 100, True, 2, nn.Hardswish),
    (112, 5, 4, 7, 280, True, 1, nn.Hardswish),
    (160, 6, 4, 5, 240, True, 2, nn.Hardswish),
)


class SteepHardSigmoid(nn.Module):
    """mmcv's hard sigmoid up to 1.4.3, and what MMPose asks for by name since."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ((x + 1) / 2).clamp(0, 1)


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvModule(channels, channels // 4, norm=False, activation=nn.ReLU())
        self.conv2 = ConvModule(channels // 4, channels, norm=False, activation=SteepHardSigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.conv2(self.conv1(x.mean((2, 3), keepdim=True)))


class InvertedResidual(nn.Module):
    def __init__(
        self, inputs: int, outputs: int, middle: int, kernel: int, groups: int, attention: bool, stride: int, activation: type[nn.Module]
    ) -> None:
        super().__init__()
        self.shortcut = stride == 1 and inputs == outputs
        if middle != outputs:
            self.expand_conv = ConvModule(inputs, middle, activation=activation())
        self.depthwise_conv = ConvModule(middle, middle, kernel, stride, groups, activation=activation())
        if attention:
            self.se = SqueezeExcite(middle)
        self.linear_conv = ConvModule(middle, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = x
        for part in ("expand_conv", "depthwise_conv", "se", "linear_conv"):
            if hasattr(self, part):
                out = getattr(self, part)(out)
        return x + out if self.shortcut else out


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = ConvModule(3, 16, 3, 2, activation=nn.Hardswish())
        inputs, self.blocks = 16, 0
        for width, expansion, depth, kernel, groups, attention, stride, activation in STAGES:
            for position in range(depth):
                self.blocks += 1
                block = InvertedResidual(
                    inputs, width, width * expansion, kernel, groups, attention, stride if position == 0 else 1, activation
                )
                self.add_module(f"layer{self.blocks}", block)
                inputs = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(x)
        for index in range(1, self.blocks + 1):
            x = self.get_submodule(f"layer{index}")(x)
        return x


class Head(nn.Module):
    def __init__(self, joints: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [nn.ConvTranspose2d(160, 160, 4, 2, 1, groups=160, bias=False), nn.BatchNorm2d(160), nn.ReLU()]
        self.deconv_layers = nn.Sequential(*layers)
        self.final_layer = nn.Conv2d(160, joints, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.final_layer(self.deconv_layers(x))


class ViPNAS(nn.Module):
    """Trunk and head side by side, as MMPose has them since version 1."""

    def __init__(self, joints: int) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.head = Head(joints)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(x))
