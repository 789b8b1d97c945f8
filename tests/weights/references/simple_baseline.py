"""SimpleBaseline in PyTorch, with the names of tensors that published checkpoints have.

On ResNet those of microsoft/human-pose-estimation.pytorch, on the lightweight trunks MMPose's; the last convolution of MobileNetV3 as
HAIV-Lab/ICPR22w has it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from tests.weights.references.resnet import ResNet


def deconvolution_head(inputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (inputs, 256, 256):
        layers += [nn.ConvTranspose2d(width, 256, 4, 2, 1, bias=False), nn.BatchNorm2d(256), nn.ReLU()]
    return nn.Sequential(*layers)


class PoseResNet(ResNet):
    """Trunk and head in one module, as the authors have it."""

    def __init__(self, blocks: Sequence[int], joints: int) -> None:
        super().__init__(blocks)
        self.deconv_layers = deconvolution_head(2048)
        self.final_layer = nn.Conv2d(256, joints, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.final_layer(self.deconv_layers(super().forward(x)))


class HeatmapHead(nn.Module):
    def __init__(self, inputs: int, joints: int) -> None:
        super().__init__()
        self.deconv_layers = deconvolution_head(inputs)
        self.final_layer = nn.Conv2d(256, joints, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.final_layer(self.deconv_layers(x))


class TopDown(nn.Module):
    """Trunk and head side by side, as MMPose has them; the head's name has changed with version 1."""

    def __init__(self, backbone: nn.Module, width: int, joints: int, head: str = "keypoint_head") -> None:
        super().__init__()
        self.backbone = backbone
        self.head_name = head
        self.add_module(head, HeatmapHead(width, joints))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.get_submodule(self.head_name)(self.backbone(x))


def conv_module(
    inputs: int, outputs: int, kernel_size: int, stride: int = 1, groups: int = 1, activation: nn.Module | None = None, norm: bool = True
) -> nn.Sequential:
    """Convolution `conv`, normalisation `bn` and activation; without normalisation the convolution has a bias."""
    parts: list[tuple[str, nn.Module]] = [
        ("conv", nn.Conv2d(inputs, outputs, kernel_size, stride, kernel_size // 2, groups=groups, bias=not norm))
    ]
    if norm:
        parts.append(("bn", nn.BatchNorm2d(outputs)))
    if activation is not None:
        parts.append(("activate", activation))
    return nn.Sequential(OrderedDict(parts))


class MobileNetV2Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        layers = [conv_module(inputs, width, 1, activation=nn.ReLU6())] if expansion > 1 else []
        layers += [conv_module(width, width, 3, stride, width, nn.ReLU6()), conv_module(width, outputs, 1)]
        self.conv = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.has_shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv_module(3, 32, 3, 2, activation=nn.ReLU6())
        settings = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
        inputs = 32
        for number, (expansion, width, count, stride) in enumerate(settings, start=1):
            blocks = []
            for index in range(count):
                blocks.append(MobileNetV2Block(inputs, width, 1 if index else stride, expansion))
                inputs = width
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.conv2 = conv_module(320, 1280, 1, activation=nn.ReLU6())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(x)
        for number in range(1, 8):
            x = self.get_submodule(f"layer{number}")(x)
        return self.conv2(x)


class ShuffleNetV2Unit(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        self.stride = stride
        if stride > 1:
            self.branch1 = nn.Sequential(conv_module(inputs, inputs, 3, stride, inputs), conv_module(inputs, half, 1, activation=nn.ReLU()))
        self.branch2 = nn.Sequential(
            conv_module(inputs if stride > 1 else half, half, 1, activation=nn.ReLU()),
            conv_module(half, half, 3, stride, half),
            conv_module(half, half, 1, activation=nn.ReLU()),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.stride > 1:
            halves = self.branch1(x), self.branch2(x)
        else:
            first, second = x.chunk(2, dim=1)
            halves = first, self.branch2(second)
        # One channel from either half in turn.
        return torch.stack(halves, dim=2).flatten(1, 2)


class ShuffleNetV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv_module(3, 24, 3, 2, activation=nn.ReLU())
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        layers: list[nn.Module] = []
        inputs = 24
        for width, count in ((116, 4), (232, 8), (464, 4)):
            units = []
            for index in range(count):
                units.append(ShuffleNetV2Unit(inputs, width, 1 if index else 2))
                inputs = width
            layers.append(nn.Sequential(*units))
        self.layers = nn.ModuleList([*layers, conv_module(464, 1024, 1, activation=nn.ReLU())])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.conv1(x))
        for layer in self.layers:
            x = layer(x)
        return x


class SqueezeAndExcite(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = conv_module(width, width // 4, 1, activation=nn.ReLU(), norm=False)
        self.conv2 = conv_module(width // 4, width, 1, activation=nn.Hardsigmoid(), norm=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.conv2(self.conv1(x.mean(dim=(2, 3), keepdim=True)))


class MobileNetV3Block(nn.Module):
    def __init__(self, inputs: int, kernel_size: int, width: int, outputs: int, squeeze: bool, activation: nn.Module, stride: int) -> None:
        super().__init__()
        self.expand_conv = conv_module(inputs, width, 1, activation=activation)
        self.depthwise_conv = conv_module(width, width, kernel_size, stride, width, activation)
        self.se = SqueezeAndExcite(width) if squeeze else nn.Identity()
        self.linear_conv = conv_module(width, outputs, 1)
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear_conv(self.se(self.depthwise_conv(self.expand_conv(x))))
        return x + y if self.has_shortcut else y


class MobileNetV3(nn.Module):
    # Kernel size, width inside, width, squeeze-and-excite, activation, stride.
    SETTINGS = (
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

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv_module(3, 16, 3, 2, activation=nn.Hardswish())
        inputs = 16
        for number, (kernel_size, width, outputs, squeeze, activation, stride) in enumerate(self.SETTINGS, start=1):
            self.add_module(f"layer{number}", MobileNetV3Block(inputs, kernel_size, width, outputs, squeeze, activation(), stride))
            inputs = outputs
        self.conv2 = conv_module(160, 960, 1, activation=nn.Hardswish())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(x)
        for number in range(1, 16):
            x = self.get_submodule(f"layer{number}")(x)
        return self.conv2(x)
