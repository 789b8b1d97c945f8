"""ResNet's trunk in PyTorch, with the names of tensors that PyTorch's own networks give them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, outputs: int, stride: int, project: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.downsample = nn.Sequential(conv, nn.BatchNorm2d(outputs)) if project else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNet(nn.Module):
    """`classes` adds the classifier, which a trunk trained on ImageNet still has."""

    def __init__(self, blocks: Sequence[int], classes: int = 0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for stage, count in enumerate(blocks):
            width, layers = 64 * 2**stage, []
            for index in range(count):
                stride = 2 if stage and not index else 1
                layers.append(Bottleneck(inputs, width, 4 * width, stride, project=not index))
                inputs = 4 * width
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        if classes:
            self.fc = nn.Linear(inputs, classes)

    def stages(self, x: torch.Tensor) -> list[torch.Tensor]:
        """What each of the four stages gives, the finest first."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        outputs = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            outputs.append(x := stage(x))
        return outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.stages(x)[-1]
