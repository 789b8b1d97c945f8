"""The maxima of many maps at once: where every decoding begins."""

from __future__ import annotations

import math

import numpy as np

from kpose import geometry
from kpose.errors import KposeError


def as_people(maps: np.ndarray, heatmap_size: geometry.Size, maps_per_joint: int = 1) -> tuple[np.ndarray, tuple[int, ...]]:
    """Maps `(..., height, width, channels)` as `(N, height, width, channels)` float32, and the leading dimensions.

    Raises:
        KposeError: when they are not of `heatmap_size`, or the channels no multiple of `maps_per_joint`.
    """
    maps = np.asarray(maps, np.float32)
    if maps.shape[-3:-1] != tuple(heatmap_size) or maps.shape[-1] % maps_per_joint:
        channels = "joints" if maps_per_joint == 1 else f"{maps_per_joint} x joints"
        raise KposeError(
            f"heatmaps of shape {maps.shape} do not fit this codec, which is for (..., height, width, {channels}) with "
            f"height and width {tuple(heatmap_size)}"
        )
    leading = maps.shape[:-3]
    return maps.reshape(math.prod(leading), *maps.shape[-3:]), leading


def find_maxima(heatmaps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Column, row and value of the maximum of each heatmap `(N, height, width, K)`, of several the first; all three `(N, K)`."""
    count, height, width, joints = heatmaps.shape
    flat = heatmaps.reshape(count, height * width, joints)
    best = flat.argmax(axis=1)
    values = np.take_along_axis(flat, best[:, None, :], axis=1)[:, 0, :]
    y, x = np.divmod(best, width)
    return x, y, values


def take(heatmaps: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`(N, K)`: the values of heatmaps `(N, height, width, K)` at columns x and rows y `(N, K)`, which must exist."""
    count, _, _, joints = heatmaps.shape
    return heatmaps[np.arange(count)[:, None], y, x, np.arange(joints)]
