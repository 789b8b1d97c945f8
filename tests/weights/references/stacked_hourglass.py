"""Three stacked hourglasses in PyTorch, each with the names of tensors that its code base gives them."""

from __future__ import annotations

import torch
from torch import nn


class Convolution(nn.Module):
    """A convolution with bias in princeton-vl/pytorch_stacked_hourglass: `conv`, and `bn` where asked for."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int = 1, stride: int = 1, norm_relu: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size, stride, kernel_size // 2)
        self.bn = nn.BatchNorm2d(outputs) if norm_relu else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return x if self.bn is None else torch.relu(self.bn(x))


class PrincetonResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), Convolution(inputs, outputs // 2)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs // 2), Convolution(outputs // 2, outputs // 2, 3)
        self.bn3, self.conv3 = nn.BatchNorm2d(outputs // 2), Convolution(outputs // 2, outputs)
        # Made always, used where the width changes.
        self.skip_layer = Convolution(inputs, outputs)
        self.projects = inputs != outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(torch.relu(self.bn1(x)))
        y = self.conv2(torch.relu(self.bn2(y)))
        y = self.conv3(torch.relu(self.bn3(y)))
        return y + (self.skip_layer(x) if self.projects else x)


class PrincetonHourglass(nn.Module):
    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.up1, self.low1, self.low3 = (PrincetonResidual(width, width) for _ in range(3))
        self.low2 = PrincetonHourglass(depth - 1, width) if depth > 1 else PrincetonResidual(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = self.low3(self.low2(self.low1(nn.functional.max_pool2d(x, 2))))
        return self.up1(x) + nn.functional.interpolate(low, scale_factor=2)


class Wrapped(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = Convolution(inputs, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class PrincetonNetwork(nn.Module):
    def __init__(self, stacks: int, width: int, joints: int) -> None:
        super().__init__()
        self.pre = nn.Sequential(
            Convolution(3, 64, 7, 2, norm_relu=True),
            PrincetonResidual(64, 128),
            nn.MaxPool2d(2),
            PrincetonResidual(128, 128),
            PrincetonResidual(128, width),
        )
        self.hgs = nn.ModuleList(nn.Sequential(PrincetonHourglass(4, width)) for _ in range(stacks))
        self.features = nn.ModuleList(
            nn.Sequential(PrincetonResidual(width, width), Convolution(width, width, norm_relu=True)) for _ in range(stacks)
        )
        self.outs = nn.ModuleList(Convolution(width, joints) for _ in range(stacks))
        self.merge_features = nn.ModuleList(Wrapped(width, width) for _ in range(stacks - 1))
        self.merge_preds = nn.ModuleList(Wrapped(joints, width) for _ in range(stacks - 1))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.pre(x)
        found = []
        for stack, hourglass in enumerate(self.hgs):
            features = self.features[stack](hourglass(x))
            found.append(self.outs[stack](features))
            if stack < len(self.merge_preds):
                x = x + self.merge_preds[stack](found[-1]) + self.merge_features[stack](features)
        return found


class PytorchPoseResidual(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, width, 1)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), nn.Conv2d(width, width, 3, padding=1)
        self.bn3, self.conv3 = nn.BatchNorm2d(width), nn.Conv2d(width, 2 * width, 1)
        self.downsample = nn.Sequential(nn.Conv2d(inputs, 2 * width, 1)) if inputs != 2 * width else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(torch.relu(self.bn1(x)))
        y = self.conv2(torch.relu(self.bn2(y)))
        return self.conv3(torch.relu(self.bn3(y))) + self.downsample(x)


def pytorch_pose_block(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(PytorchPoseResidual(inputs, width))


class PytorchPoseHourglass(nn.Module):
    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        # From the lowest resolution up, which alone has a fourth block: the one in the middle.
        self.hg = nn.ModuleList(
            nn.ModuleList(pytorch_pose_block(2 * width, width) for _ in range(4 if level == 0 else 3)) for level in range(depth)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.descend(len(self.hg) - 1, x)

    def descend(self, level: int, x: torch.Tensor) -> torch.Tensor:
        skip, down, up, *middle = self.hg[level]
        low = down(nn.functional.max_pool2d(x, 2))
        low = self.descend(level - 1, low) if level else middle[0](low)
        return skip(x) + nn.functional.interpolate(up(low), scale_factor=2)


class PytorchPoseNetwork(nn.Module):
    def __init__(self, stacks: int, width: int, joints: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3), nn.BatchNorm2d(64)
        self.layer1 = pytorch_pose_block(64, 64)
        self.layer2 = pytorch_pose_block(128, width // 2)
        self.layer3 = pytorch_pose_block(width, width // 2)
        self.hg = nn.ModuleList(PytorchPoseHourglass(4, width // 2) for _ in range(stacks))
        self.res = nn.ModuleList(pytorch_pose_block(width, width // 2) for _ in range(stacks))
        self.fc = nn.ModuleList(nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.ReLU()) for _ in range(stacks))
        self.score = nn.ModuleList(nn.Conv2d(width, joints, 1) for _ in range(stacks))
        self.fc_ = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(stacks - 1))
        self.score_ = nn.ModuleList(nn.Conv2d(joints, width, 1) for _ in range(stacks - 1))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.layer1(torch.relu(self.bn1(self.conv1(x))))
        x = self.layer3(self.layer2(nn.functional.max_pool2d(x, 2)))
        found = []
        for stack, hourglass in enumerate(self.hg):
            features = self.fc[stack](self.res[stack](hourglass(x)))
            found.append(self.score[stack](features))
            if stack < len(self.fc_):
                x = x + self.fc_[stack](features) + self.score_[stack](found[-1])
        return found


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class ConvModule(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel_size: int, stride: int = 1, relu: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size, stride, kernel_size // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.relu = relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn(self.conv(x))
        return torch.relu(x) if self.relu else x


class MmposeHourglass(nn.Module):
    def __init__(self, widths: list[int], blocks: list[int]) -> None:
        super().__init__()
        (width, lower, *_), (count, lowest, *_) = widths, blocks
        self.up1 = nn.Sequential(*[BasicBlock(width, width) for _ in range(count)])
        self.low1 = nn.Sequential(BasicBlock(width, lower, 2), *[BasicBlock(lower, lower) for _ in range(count - 1)])
        self.low3 = nn.Sequential(*[BasicBlock(lower, lower) for _ in range(count - 1)], BasicBlock(lower, width))
        if len(widths) > 2:
            self.low2 = MmposeHourglass(widths[1:], blocks[1:])
        else:
            self.low2 = nn.Sequential(*[BasicBlock(lower, lower) for _ in range(lowest)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up1(x) + nn.functional.interpolate(self.low3(self.low2(self.low1(x))), scale_factor=2)


class MmposeNetwork(nn.Module):
    def __init__(self, stacks: int, width: int, joints: int) -> None:
        super().__init__()
        widths = [width, width, *[width * 3 // 2] * 3, 2 * width]
        self.stem = nn.Sequential(ConvModule(3, width // 2, 7, 2), nn.Sequential(BasicBlock(width // 2, width, 2)))
        self.hourglass_modules = nn.ModuleList(MmposeHourglass(widths, [2, 2, 2, 2, 2, 4]) for _ in range(stacks))
        # One block too many where there is one stack.
        self.inters = nn.Sequential(*[BasicBlock(width, width) for _ in range(max(stacks - 1, 1))])
        self.conv1x1s = nn.ModuleList(ConvModule(width, width, 1, relu=False) for _ in range(stacks - 1))
        self.out_convs = nn.ModuleList(ConvModule(width, width, 3) for _ in range(stacks))
        self.remap_convs = nn.ModuleList(ConvModule(width, width, 1, relu=False) for _ in range(stacks - 1))
        self.multi_final_layers = nn.ModuleList(nn.Conv2d(width, joints, 1) for _ in range(stacks))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.stem(x)
        found = []
        for stack, hourglass in enumerate(self.hourglass_modules):
            features = self.out_convs[stack](hourglass(x))
            found.append(self.multi_final_layers[stack](features))
            if stack < len(self.conv1x1s):
                x = self.inters[stack](torch.relu(self.conv1x1s[stack](x) + self.remap_convs[stack](features)))
        return found
