"""Multi-Stage HRNet in PyTorch. No code of it was published: the first network has HRNet's names, the n-th those behind `network_<n>.`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from tests.weights.references.hrnet import ExchangeModule, HighResolutionNetwork, ParallelStages, conv_norm


class LaterNetwork(ParallelStages):
    """Begins with the output of the one before it, and is given what that one found at every position."""

    def __init__(self, width: int, channels: int, modules: Sequence[int], blocks: int) -> None:
        super().__init__(width, modules, blocks, 1, ExchangeModule)
        self.entry = conv_norm(width, 2 * width, 3, 2)
        self.final_layer = nn.Conv2d(width, channels, 1)


class MultiStageNetwork(HighResolutionNetwork):
    def __init__(
        self, width: int, channels: int, stages: int, bottlenecks: int, bottleneck_width: int, modules: Sequence[int], blocks: int
    ) -> None:
        super().__init__(width, channels, bottlenecks, bottleneck_width, modules, blocks)
        self.later = [LaterNetwork(width, channels, modules, blocks) for _ in range(2, stages + 1)]
        for number, network in enumerate(self.later, start=2):
            self.add_module(f"network_{number}", network)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        trail = self.positions(self.enter(image))
        outputs = [self.final_layer(trail[-1][0])]
        for network in self.later:
            result = trail[-1][0]
            trail = network.positions([result, network.entry(result)], trail)
            outputs.append(network.final_layer(trail[-1][0]))
        return outputs
