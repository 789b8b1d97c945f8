"""The soft-gated hourglass in PyTorch. Its authors published no code; the names of the tensors are ours."""

from __future__ import annotations

import torch
from torch import nn


def norm_relu_conv(inputs: int, outputs: int, kernel_size: int, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2, groups=groups, bias=False)
    return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), conv)


class SoftGatedBlock(nn.Module):
    def __init__(self, inputs: int, width: int, gate: str, groups: int = 1) -> None:
        super().__init__()
        self.parts = nn.ModuleList(
            [
                norm_relu_conv(inputs, width // 2, 3, groups),
                norm_relu_conv(width // 2, width // 4, 3),
                norm_relu_conv(width // 4, width // 4, 3),
            ]
        )
        self.shortcut = norm_relu_conv(inputs, width, 1, groups) if inputs != width else nn.Identity()
        gates = {"channel": width, "scalar": 1}
        # Another value for every channel.
        self.gate = nn.Parameter(torch.linspace(-0.8, 1.2, gates[gate])) if gate in gates else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = [x]
        for part in self.parts:
            found.append(part(found[-1]))
        shortcut = self.shortcut(x)
        if self.gate is not None:
            shortcut = shortcut * self.gate[:, None, None]
        return shortcut + torch.cat(found[1:], dim=1)


class SoftGatedStack(nn.Module):
    def __init__(self, width: int, merge: str, gate: str, depth: int = 4) -> None:
        super().__init__()
        self.skips = nn.ModuleList(SoftGatedBlock(width, width, gate) for _ in range(depth))
        self.encoders = nn.ModuleList(SoftGatedBlock(width, width, gate) for _ in range(depth))
        inputs, groups = width if merge == "sum" else 2 * width, 2 if merge == "concat_grouped" else 1
        self.decoders = nn.ModuleList(SoftGatedBlock(inputs, width, gate, groups) for _ in range(depth))
        self.adds = merge == "sum"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for skip, encoder in zip(self.skips, self.encoders, strict=True):
            skips.append(skip(x))
            x = encoder(nn.functional.max_pool2d(x, 2))
        for skipped, decoder in zip(reversed(skips), reversed(self.decoders), strict=True):
            x = nn.functional.interpolate(x, scale_factor=2)
            x = decoder(x + skipped if self.adds else torch.cat([x, skipped], dim=1))
        return x


class SoftGatedNetwork(nn.Module):
    def __init__(self, stacks: int, width: int, joints: int, merge: str, gate: str) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2))
        self.stem_block = SoftGatedBlock(64, width, gate)
        self.stacks = nn.ModuleList(SoftGatedStack(width, merge, gate) for _ in range(stacks))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(stacks))
        self.heatmaps = nn.ModuleList(nn.Conv2d(width, joints, 1) for _ in range(stacks))
        self.remap_features = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(stacks - 1))
        self.remap_heatmaps = nn.ModuleList(nn.Conv2d(joints, width, 1) for _ in range(stacks - 1))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.stem_block(self.stem(x))
        found = []
        for index, stack in enumerate(self.stacks):
            features = torch.relu(self.norms[index](stack(x)))
            found.append(self.heatmaps[index](features))
            if index < len(self.remap_features):
                x = x + self.remap_features[index](features) + self.remap_heatmaps[index](found[-1])
        return found
