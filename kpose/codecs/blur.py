"""Gaussian blur of many maps at once: OpenCV's, which the published decoders run on one map after the other, as two matrix products."""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np

Border = Literal["zero", "mirror"]


def gaussian_blur(maps: np.ndarray, size: int, border: Border) -> np.ndarray:
    """Blur maps.

    Args:
        maps: `(N, height, width, channels)` float32.
        size: of the square kernel, odd pixels; its standard deviation is the one that OpenCV takes for it, 0.15 x size + 0.35 (up to 7,
            what OpenCV has in its stead).
        border: what lies outside of a map: nothing, or the map mirrored about its outermost pixels (OpenCV's default).

    Returns:
        Of the shape of `maps`, float32.
    """
    count, height, width, channels = maps.shape
    down = blur_matrix(height, size, border) @ maps.reshape(count, height, width * channels)
    return blur_matrix(width, size, border) @ down.reshape(maps.shape)


def gaussian_kernel(size: int) -> np.ndarray:
    """`(size,)`: the kernel of `gaussian_blur` along one side."""
    import cv2  # here, so that training on crops, which blurs nothing, does without it

    return cv2.getGaussianKernel(size, 0)[:, 0]


@functools.lru_cache(maxsize=64)
def blur_matrix(length: int, size: int, border: Border) -> np.ndarray:
    """`(length, length)` float32: `gaussian_blur` of a line of pixels; each row the kernel, what lies outside left out or folded back."""
    reach = size // 2
    places = np.arange(-reach, length + reach) if border == "zero" else np.pad(np.arange(length), reach, mode="reflect")
    line = np.arange(length)
    matrix = np.zeros((length, length))
    for tap, weight in enumerate(gaussian_kernel(size)):
        source = places[tap : tap + length]
        inside = (source >= 0) & (source < length)
        np.add.at(matrix, (line[inside], source[inside]), weight)
    return matrix.astype(np.float32)
