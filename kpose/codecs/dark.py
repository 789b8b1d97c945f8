"""DARK: from the maximum of a heatmap to the centre of the Gaussian beneath it.

Zhang et al., "Distribution-Aware Coordinate Representation for Human Pose Estimation", CVPR 2020, as the authors' code has it: the heatmap
is modulated (blurred by a Gaussian about as wide as the one it was taught with, and scaled back to its former maximum, equation 11), its
logarithm is a parabola, and one Newton step from the maximum finds that one's top (equation 9). Derivatives are central differences, the
second ones over two pixels each way. Maxima on the two outermost rows and columns stay where they are, and so do those without curvature.

Outside of the map there is nothing, so a joint whose Gaussian reaches over the edge comes out too far inside, by up to a pixel.
The step has no bound, as published: on a map without any clear maximum it can be large.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kpose.codecs.blur import gaussian_blur
from kpose.codecs.maxima import take

# The authors' floor under the logarithm.
SMALLEST = 1e-10


def modulation_size(sigma: float) -> int:
    """The kernel for heatmaps of Gaussians with standard deviation `sigma`: the largest odd size up to 6 sigma, at least 3.

    The published sizes are 11 for sigma 2 and 17 for sigma 3; OpenCV gives those the standard deviations 2.0 and 2.9.
    """
    return max(3, 2 * math.floor(3.0 * sigma - 0.5) + 1)


def newton_step(log: Callable[[int, int], Any]) -> tuple[Any, Any, Any]:
    """Where a paraboloid that is fitted about a maximum has its own (equation 9), before the division.

    Args:
        log: gives the logarithm of the heatmap so many pixels to the right of the maximum and below it; an array of any kind.

    Returns:
        The step in x and in y, each times the Hessian's determinant, and that determinant.
    """
    middle = log(0, 0)
    dx, dy = 0.5 * (log(1, 0) - log(-1, 0)), 0.5 * (log(0, 1) - log(0, -1))
    dxx = 0.25 * (log(2, 0) - 2.0 * middle + log(-2, 0))
    dyy = 0.25 * (log(0, 2) - 2.0 * middle + log(0, -2))
    dxy = 0.25 * (log(1, 1) - log(1, -1) - log(-1, 1) + log(-1, -1))
    return dxy * dy - dyy * dx, dxy * dx - dxx * dy, dxx * dyy - dxy * dxy


def dark_offsets(heatmaps: np.ndarray, x: np.ndarray, y: np.ndarray, sigma: float) -> np.ndarray:
    """The way from the maxima to the centres.

    Args:
        heatmaps: `(N, height, width, K)` float32.
        x: `(N, K)` integer columns of the maxima.
        y: `(N, K)` integer rows of the maxima.
        sigma: standard deviation of the taught Gaussians, heatmap pixels.

    Returns:
        `(N, K, 2)` x, y in heatmap pixels, 0 where the maximum stays.
    """
    height, width = heatmaps.shape[1:3]
    if min(height, width) < 5:
        return np.zeros((*x.shape, 2), np.float32)
    blurred = gaussian_blur(heatmaps, modulation_size(sigma), border="zero")
    former, now = heatmaps.max(axis=(1, 2)), blurred.max(axis=(1, 2))
    scale = np.divide(former, now, out=np.zeros_like(now), where=now > 0)

    inside = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)
    column, row = np.where(inside, x, 2), np.where(inside, y, 2)

    def log(right: int, below: int) -> np.ndarray:
        return np.log(np.maximum(take(blurred, column + right, row + below) * scale, SMALLEST)).astype(np.float64)

    steps_x, steps_y, determinant = newton_step(log)
    usable = inside & (determinant != 0)
    steps = np.stack([steps_x, steps_y], axis=-1)
    found = np.divide(steps, determinant[..., None], out=np.zeros_like(steps), where=usable[..., None])
    return found.astype(np.float32)
