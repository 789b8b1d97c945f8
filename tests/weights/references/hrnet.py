"""HRNet in PyTorch, with the names of tensors that leoxiaobin/deep-high-resolution-net.pytorch gives them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


def conv_norm(inputs: int, outputs: int, kernel_size: int, stride: int = 1, relu: bool = True) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel_size, stride, kernel_size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), *[nn.ReLU()] * relu)


class BasicBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.bn1, self.bn2 = (nn.BatchNorm2d(width) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(x + self.bn2(self.conv2(y)))


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm2d(width), nn.BatchNorm2d(width), nn.BatchNorm2d(4 * width)
        self.downsample = conv_norm(inputs, 4 * width, 1, relu=False) if inputs != 4 * width else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.downsample(x) + self.bn3(self.conv3(y)))


class ExchangeModule(nn.Module):
    def __init__(self, widths: Sequence[int], blocks: int, outputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*[BasicBlock(width) for _ in range(blocks)]) for width in widths)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(rescaling(widths, source, target) for source in range(len(widths))) for target in range(outputs)
        )

    def forward(self, branches: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        found = [branch(x) for branch, x in zip(self.branches, branches, strict=True)]
        return [
            torch.relu(self.fuse([layer(x) for layer, x in zip(layers, found, strict=True)], target))
            for target, layers in enumerate(self.fuse_layers)
        ]

    def fuse(self, maps: Sequence[torch.Tensor], target: int) -> torch.Tensor:
        return sum(maps[1:], start=maps[0])


def rescaling(widths: Sequence[int], source: int, target: int) -> nn.Module:
    if source == target:
        return nn.Identity()
    if source > target:
        conv, norm = conv_norm(widths[source], widths[target], 1, relu=False)
        return nn.Sequential(conv, norm, nn.Upsample(scale_factor=2 ** (source - target), mode="nearest"))
    kept = [conv_norm(widths[source], widths[source], 3, 2) for _ in range(target - source - 1)]
    return nn.Sequential(*kept, conv_norm(widths[source], widths[target], 3, 2, relu=False))


class ParallelStages(nn.Module):
    """Stages 2, 3 and 4 with the transitions between them. `positions` gives the branches at every one of them."""

    def __init__(self, width: int, modules: Sequence[int], blocks: int, outputs: int, module: type[ExchangeModule]) -> None:
        super().__init__()
        widths = [width * 2**index for index in range(4)]
        # A transition's list has entries for the branches there are already, without tensors.
        self.transition2 = nn.ModuleList([nn.Identity(), nn.Identity(), nn.Sequential(conv_norm(widths[1], widths[2], 3, 2))])
        self.transition3 = nn.ModuleList([*[nn.Identity() for _ in range(3)], nn.Sequential(conv_norm(widths[2], widths[3], 3, 2))])
        self.stage2 = nn.ModuleList(module(widths[:2], blocks, 2) for _ in range(modules[0]))
        self.stage3 = nn.ModuleList(module(widths[:3], blocks, 3) for _ in range(modules[1]))
        counts = [4] * (modules[2] - 1) + [outputs]
        self.stage4 = nn.ModuleList(module(widths, blocks, count) for count in counts)

    def positions(self, branches: list[torch.Tensor], delivered: Sequence[list[torch.Tensor]] | None = None) -> list[list[torch.Tensor]]:
        def arrive(branches: list[torch.Tensor]) -> list[torch.Tensor]:
            if delivered is not None:
                branches = [own + other for own, other in zip(branches, delivered[len(trail)], strict=True)]
            trail.append(branches)
            return branches

        trail: list[list[torch.Tensor]] = []
        branches = arrive(branches)
        for module in self.stage2:
            branches = arrive(module(branches))
        branches = [*branches, self.transition2[2](branches[-1])]
        for module in self.stage3:
            branches = arrive(module(branches))
        branches = [*branches, self.transition3[3](branches[-1])]
        for module in self.stage4:
            branches = arrive(module(branches))
        return trail


class HighResolutionNetwork(ParallelStages):
    def __init__(
        self,
        width: int,
        channels: int,
        bottlenecks: int = 4,
        bottleneck_width: int = 64,
        modules: Sequence[int] = (1, 4, 3),
        blocks: int = 4,
        outputs: int = 1,
        module: type[ExchangeModule] = ExchangeModule,
    ) -> None:
        super().__init__(width, modules, blocks, outputs, module)
        self.conv1 = nn.Conv2d(3, 64, 3, 2, 1, bias=False)
        self.conv2 = nn.Conv2d(64, 64, 3, 2, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(64), nn.BatchNorm2d(64)
        wide = 4 * bottleneck_width
        self.layer1 = nn.Sequential(*[Bottleneck(wide if index else 64, bottleneck_width) for index in range(bottlenecks)])
        self.transition1 = nn.ModuleList([conv_norm(wide, width, 3), nn.Sequential(conv_norm(wide, 2 * width, 3, 2))])
        self.final_layer = nn.Conv2d(width, channels, 1)

    def enter(self, image: torch.Tensor) -> list[torch.Tensor]:
        x = torch.relu(self.bn1(self.conv1(image)))
        x = torch.relu(self.bn2(self.conv2(x)))
        x = self.layer1(x)
        return [transition(x) for transition in self.transition1]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.final_layer(self.positions(self.enter(image))[-1][0])
