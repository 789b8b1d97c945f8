"""The lightweight network in PyTorch, with the names of tensors of HAIV-Lab/ICPR22w; gates are PyTorch's hard sigmoids."""

from __future__ import annotations

import torch
from torch import nn

from tests.weights.references.lite_hrnet import ConvModule

# Kernel size, width inside, width, attention, activation and stride of every block.
BLOCKS = (
    (3, 16, 16, False, nn.ReLU, 1),
    (3, 64, 24, False, nn.ReLU, 2),
    (3, 72, 24, False, nn.ReLU, 1),
    (5, 72, 40, True, nn.ReLU, 2),
    (5, 120, 40, True, nn.ReLU, 1),
    (5, 120, 40, True, nn.ReLU, 1),
    (3, 240, 80, False, nn.Hardswish, 2),
    (3, 200, 80, False, nn.Hardswish, 1),
    (3, 184, 80, False, nn.Hardswish, 1),
    (3, 184, 80, False, nn.Hardswish, 1),
    (3, 480, 112, True, nn.Hardswish, 1),
    (3, 672, 112, True, nn.Hardswish, 1),
    (5, 672, 160, True, nn.Hardswish, 1),
    (5, 672, 160, True, nn.Hardswish, 2),
    (5, 960, 160, True, nn.Hardswish, 1),
)


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvModule(channels, channels // 4, norm=False, activation=nn.ReLU())
        self.conv2 = ConvModule(channels // 4, channels, norm=False, activation=nn.Hardsigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.conv2(self.conv1(x.mean((2, 3), keepdim=True)))


class InvertedResidual(nn.Module):
    def __init__(
        self, inputs: int, kernel: int, middle: int, outputs: int, attention: bool, activation: type[nn.Module], stride: int
    ) -> None:
        super().__init__()
        self.shortcut = stride == 1 and inputs == outputs
        self.expand_conv = ConvModule(inputs, middle, activation=activation())
        self.depthwise_conv = ConvModule(middle, middle, kernel, stride, middle, activation=activation())
        self.se = SqueezeExcite(middle) if attention else nn.Identity()
        self.linear_conv = ConvModule(middle, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.linear_conv(self.se(self.depthwise_conv(self.expand_conv(x))))
        return x + out if self.shortcut else out


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = ConvModule(3, 16, 3, 2, activation=nn.Hardswish())
        inputs = 16
        for index, (kernel, middle, outputs, attention, activation, stride) in enumerate(BLOCKS, start=1):
            self.add_module(f"layer{index}", InvertedResidual(inputs, kernel, middle, outputs, attention, activation, stride))
            inputs = outputs
        self.conv2 = ConvModule(inputs, 960, activation=nn.Hardswish())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(x)
        for index in range(1, len(BLOCKS) + 1):
            x = self.get_submodule(f"layer{index}")(x)
        return self.conv2(x)


class Spatial(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvModule(channels, 1, norm=False, activation=nn.ReLU())
        self.conv2 = ConvModule(1, 1, 3, norm=False, activation=nn.Hardsigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.conv2(self.conv1(x))


class Attention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.se = SqueezeExcite(channels)
        self.sse = Spatial(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.se(x) + self.sse(x)


class ChannelAttention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shared_MLP = nn.Sequential(
            nn.Conv2d(channels, channels // 4, 1, bias=False), nn.ReLU(), nn.Conv2d(channels // 4, channels, 1, bias=False)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.hardsigmoid(self.shared_MLP(x.mean((2, 3), keepdim=True)) + self.shared_MLP(x.amax((2, 3), keepdim=True)))


class SpatialAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv2d = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return nn.functional.hardsigmoid(self.conv2d(pooled))


class CBAM(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel_attention = ChannelAttention(channels)
        self.spatial_attention = SpatialAttention()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.channel_attention(x) * x
        return self.spatial_attention(x) * x


ATTENTION = {"full": Attention, "se": SqueezeExcite, "cbam": CBAM}


class Head(nn.Module):
    def __init__(self, joints: int, attention: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in (960, 256, 256):
            layers += [nn.ConvTranspose2d(width, width, 4, 2, 1, groups=width, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            layers += [nn.Conv2d(width, 256, 1), nn.BatchNorm2d(256), nn.ReLU()]
        if attention != "none":
            layers.append(ATTENTION[attention](256))
        self.deconv_layers = nn.Sequential(*layers)
        self.final_layer = nn.Conv2d(256, joints, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.final_layer(self.deconv_layers(x))


class LiteNetwork(nn.Module):
    """Trunk and head side by side, as MMPose 0.x has them."""

    def __init__(self, joints: int, attention: str) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.keypoint_head = Head(joints, attention)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.keypoint_head(self.backbone(x))
