"""RAM+GPR in PyTorch. No code of it was published: the trunk has HRNet's names, attention and refinement have names made up here."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from tests.weights.references.hrnet import ExchangeModule, HighResolutionNetwork, rescaling


class Attention(nn.Module):
    """Equations 1 to 3, for one output."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.scores = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, 1, 1)) for _ in range(count)
        )
        self.omega = nn.Parameter(torch.full((count,), float(count)))
        self.beta = nn.Parameter(torch.zeros(count))

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        exponentials = [torch.exp(score(x)) for score, x in zip(self.scores, maps, strict=True)]
        total = sum(exponentials)
        weights = [value / total * omega + beta for value, omega, beta in zip(exponentials, self.omega, self.beta, strict=True)]
        return sum(x * weight for x, weight in zip(maps, weights, strict=True))


class AttentiveExchangeModule(ExchangeModule):
    def __init__(self, widths: Sequence[int], blocks: int, outputs: int) -> None:
        super().__init__(widths, blocks, outputs)
        self.attention = nn.ModuleList(Attention(widths[target], len(widths)) for target in range(outputs))

    def fuse(self, maps: Sequence[torch.Tensor], target: int) -> torch.Tensor:
        return self.attention[target](maps)


class Refinement(nn.Module):
    """Equations 4 and 5, for one step."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.deconv = nn.Sequential(nn.ConvTranspose2d(inputs, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.interpolate = nn.Sequential(nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: torch.Tensor, higher: torch.Tensor) -> torch.Tensor:
        interpolated = nn.functional.interpolate(self.interpolate(x), scale_factor=2, mode="bilinear", align_corners=False)
        return torch.cat([self.deconv(x) + interpolated, higher], dim=1)


class RamGprNetwork(HighResolutionNetwork):
    def __init__(
        self,
        width: int,
        channels: int,
        bottlenecks: int,
        bottleneck_width: int,
        modules: Sequence[int],
        blocks: int,
        attention: bool = True,
        refinement: bool = True,
    ) -> None:
        module = AttentiveExchangeModule if attention else ExchangeModule
        super().__init__(width, channels, bottlenecks, bottleneck_width, modules, blocks, 4, module)
        widths = [width * 2**index for index in range(4)]
        if refinement:
            # In the order of the resolutions, the highest first; the lowest has nothing beside it yet.
            inputs = [2 * widths[1], 2 * widths[2], widths[3]]
            self.refinement = nn.ModuleList(Refinement(*pair) for pair in zip(inputs, widths[:3], strict=True))
            self.final_layer = nn.Conv2d(2 * width, channels, 1)
        else:
            self.rescale = nn.ModuleList(rescaling(widths, source, 0) for source in range(4))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        branches = self.positions(self.enter(image))[-1]
        if not hasattr(self, "refinement"):
            return self.final_layer(torch.relu(sum(layer(x) for layer, x in zip(self.rescale, branches, strict=True))))
        x = branches[3]
        for index in (2, 1, 0):
            x = self.refinement[index](x, branches[index])
        return self.final_layer(x)
