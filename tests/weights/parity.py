"""What the comparisons of a network with its PyTorch reference have in common."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import torch

SIZES = [(64, 64), (96, 64)]

TOLERANCE = 1e-4
"""Of the heatmaps' range."""


def randomised(network: torch.nn.Module, gain: float = 6.0, shift: float = 0.3, seed: int = 5) -> torch.nn.Module:
    """Weights and statistics that leave no layer's effect out.

    Weights lie within (gain / fan-in) ** 0.5: a gain of 6 keeps the scale from a ReLU to the next; where many blocks add up, less does.
    The means that normalisation takes away and adds lie within `shift`: in a deep network they drown what depends on the image.
    """
    random = torch.Generator().manual_seed(seed)

    def uniform(tensor: torch.Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.rand(tensor.shape, generator=random) * (high - low) + low)

    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                uniform(module.weight, 0.5, 1.5)
                uniform(module.bias, -shift, shift)
                uniform(module.running_mean, -shift, shift)
                uniform(module.running_var, 0.5, 2.0)
            elif isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
                # A transposed convolution of 4x4 and stride 2 gives every output pixel 4 of its 16 weights.
                fan_in = module.weight[0].numel() if isinstance(module, torch.nn.Conv2d) else module.weight.shape[0] * 4
                bound = (gain / fan_in) ** 0.5
                uniform(module.weight, -bound, bound)
                if module.bias is not None:
                    uniform(module.bias, -0.5, 0.5)
    return network.eval()


def images(size: tuple[int, int]) -> np.ndarray:
    """Noise (2, H, W, 3) float32, each image of another colour."""
    random = np.random.default_rng(6)
    return (random.normal(size=(2, *size, 3)) + random.normal(size=(2, 1, 1, 3))).astype("float32")


def assert_same(model: keras.Model, reference: torch.nn.Module, size: tuple[int, int]) -> None:
    """No output differs by more than the tolerance; and none is dead, exploded, or the same for every image."""
    batch = images(size)
    with torch.no_grad():
        expected = reference(torch.from_numpy(batch.transpose(0, 3, 1, 2)))
    found = model(batch, training=False)
    pairs = list(zip(as_list(expected), as_list(found), strict=True))
    for number, (theirs, ours) in enumerate(pairs):
        theirs, ours = theirs.numpy().transpose(0, 2, 3, 1), keras.ops.convert_to_numpy(ours)
        span = np.ptp(theirs)
        assert ours.shape == theirs.shape
        assert 0.01 < span < 1e6 and np.abs(theirs[0] - theirs[1]).max() > 200 * TOLERANCE * span
        difference = np.abs(ours - theirs).max() / span
        print(f"{model.name} {size} output {number}: {difference:.1e} of the range {span:.3g}")
        assert difference <= TOLERANCE


def as_list(outputs: Any) -> list[Any]:
    """A network's only output as a list of one."""
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]
