"""The cascaded pyramid network in PyTorch, with the names of tensors that GengDavid/pytorch-cpn gives them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from tests.weights.references.resnet import Bottleneck, ResNet


def upsampling(factor: int) -> nn.Upsample:
    return nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=True)


def conv_norm(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]


def refinement(inputs: int) -> Bottleneck:
    return Bottleneck(inputs, 128, 256, stride=1, project=True)


class GlobalNet(nn.Module):
    """Its lists count from the coarsest level."""

    def __init__(self, joints: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Sequential(*conv_norm(width, 256), nn.ReLU()) for width in (2048, 1024, 512, 256))
        self.upsamples = nn.ModuleList(nn.Sequential(upsampling(2), *conv_norm(256, 256)) for _ in range(3))
        self.predict = nn.ModuleList(
            nn.Sequential(
                *conv_norm(256, 256),
                nn.ReLU(),
                nn.Conv2d(256, joints, 3, padding=1, bias=False),
                upsampling(factor),
                nn.BatchNorm2d(joints),
            )
            for factor in (8, 4, 2, 1)
        )

    def forward(self, stages: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        features: list[torch.Tensor] = []
        for index, (lateral, x) in enumerate(zip(self.laterals, stages, strict=True)):
            features.append(lateral(x) + self.upsamples[index - 1](features[-1]) if features else lateral(x))
        return features, [predict(x) for predict, x in zip(self.predict, features, strict=True)]


class RefineNet(nn.Module):
    def __init__(self, joints: int) -> None:
        super().__init__()
        self.cascade = nn.ModuleList(
            nn.Sequential(*(refinement(256) for _ in range(count)), upsampling(2**count)) for count in (3, 2, 1, 0)
        )
        self.final_predict = nn.Sequential(refinement(1024), nn.Conv2d(256, joints, 3, padding=1, bias=False), nn.BatchNorm2d(joints))

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        return self.final_predict(torch.cat([layers(x) for layers, x in zip(self.cascade, features, strict=True)], dim=1))


class CascadedPyramidNetwork(nn.Module):
    def __init__(self, blocks: Sequence[int], joints: int) -> None:
        super().__init__()
        self.resnet = ResNet(blocks)
        self.global_net = GlobalNet(joints)
        self.refine_net = RefineNet(joints)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features, predictions = self.global_net(self.resnet.stages(x)[::-1])
        return [*predictions, self.refine_net(features)]
