"""DARK's decoding equals the paper's formula, written out slowly for one heatmap."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kpose import geometry
from kpose.codecs import GaussianCodec
from kpose.codecs.dark import modulation_size

HEATMAP_SIZE = (24, 20)


def slow_dark(heatmap, kernel_size):
    """The centre (x, y) in one heatmap: modulation, logarithm, Newton's step; with the border rules of the authors' code."""
    height, width = heatmap.shape
    values = {(x, y): float(heatmap[y, x]) for x in range(width) for y in range(height)}
    top = max(values.values())
    column, row = min(((x, y) for (x, y), value in values.items() if value == top), key=lambda place: (place[1], place[0]))
    if top <= 0:
        return 0.0, 0.0
    if not (2 <= column <= width - 3 and 2 <= row <= height - 3):
        return float(column), float(row)
    deviation = 0.3 * ((kernel_size - 1) * 0.5 - 1) + 0.8
    taps = [math.exp(-((tap - kernel_size // 2) ** 2) / (2 * deviation**2)) for tap in range(kernel_size)]
    if kernel_size == 5:  # OpenCV rounds the small ones to binomials
        taps = [1, 4, 6, 4, 1]
    total = sum(taps)

    def blurred(x, y):
        return sum(
            taps[i] * taps[j] / total**2 * values.get((x + i - kernel_size // 2, y + j - kernel_size // 2), 0.0)
            for i in range(kernel_size)
            for j in range(kernel_size)
        )

    scale = top / max(blurred(x, y) for x, y in values)

    def log(x, y):
        return math.log(max(blurred(x, y) * scale, 1e-10))

    m = (column, row)
    gradient = np.array([(log(m[0] + 1, m[1]) - log(m[0] - 1, m[1])) / 2, (log(m[0], m[1] + 1) - log(m[0], m[1] - 1)) / 2])
    xx = (log(m[0] + 2, m[1]) - 2 * log(*m) + log(m[0] - 2, m[1])) / 4
    yy = (log(m[0], m[1] + 2) - 2 * log(*m) + log(m[0], m[1] - 2)) / 4
    xy = (log(m[0] + 1, m[1] + 1) - log(m[0] - 1, m[1] + 1) - log(m[0] + 1, m[1] - 1) + log(m[0] - 1, m[1] - 1)) / 4
    if xx * yy - xy * xy == 0:
        return float(column), float(row)
    step = np.linalg.solve(np.array([[xx, xy], [xy, yy]]), -gradient)
    return column + step[0], row + step[1]


def noisy_gaussians(count, joints, sigma, seed):
    random = np.random.default_rng(seed)
    height, width = HEATMAP_SIZE
    center = random.uniform(-1, (width, height), (count, joints, 2))
    x, y = np.arange(width), np.arange(height)[:, None]
    distance = (x - center[..., 0, None, None]) ** 2 + (y - center[..., 1, None, None]) ** 2
    maps = random.uniform(0.3, 1, (count, joints, 1, 1)) * np.exp(-distance / (2 * sigma**2))
    maps += random.uniform(-0.03, 0.03, maps.shape)
    return maps.transpose(0, 2, 3, 1).astype(np.float32)


@pytest.mark.parametrize(("sigma", "kernel"), [(2.0, 11), (3.0, 17), (1.0, 5)])
def test_decoding_is_the_formula_of_the_paper(sigma, kernel):
    assert modulation_size(sigma) == kernel
    heatmaps = noisy_gaussians(3, 5, sigma, seed=kernel)
    heatmaps[0, :, :, 0] = 0.0
    heatmaps[0, :, :, 1] = -np.abs(heatmaps[0, :, :, 1])
    codec = GaussianCodec((96, 80), HEATMAP_SIZE, sigma, decoding="dark")
    found = geometry.crop_to_heatmap(codec.decode(heatmaps), codec.input_size, HEATMAP_SIZE)
    moved = 0
    for person, joint in np.ndindex(3, 5):
        expected = slow_dark(heatmaps[person, :, :, joint], kernel)
        np.testing.assert_allclose(found[person, joint, :2], expected, atol=2e-3)
        assert found[person, joint, 2] == heatmaps[person, :, :, joint].max()
        moved += np.abs(np.subtract(expected, np.round(expected))).max() > 0.01
    assert moved >= 5, "maxima inside of the map are what this test is about"


@pytest.mark.parametrize("sigma", [0.3, 0.5, 1.5, 2.4])
def test_modulation_kernels_are_odd_and_reach_three_sigma_at_most(sigma):
    size = modulation_size(sigma)
    assert size % 2 == 1
    assert size == 3 or 6 * sigma - 2 < size <= 6 * sigma


@pytest.mark.parametrize("shape", [(4, 4), (1, 9), (5, 5)])
def test_maps_too_small_for_a_second_difference_are_decoded_at_their_maximum(shape):
    heatmaps = np.random.default_rng(0).uniform(0.1, 1, (2, *shape, 3)).astype(np.float32)
    dark, plain = (GaussianCodec((20, 20), shape, decoding=decoding) for decoding in ("dark", "argmax"))
    heatmaps[:, 0, 0] = 2.0
    np.testing.assert_array_equal(dark.decode(heatmaps), plain.decode(heatmaps))


def test_a_plateau_without_curvature_stays_where_it_is():
    heatmaps = np.zeros((1, *HEATMAP_SIZE, 1), np.float32)
    heatmaps[0, 12, 10] = 1e-12  # below the floor of the logarithm
    found = GaussianCodec((96, 80), HEATMAP_SIZE, 1.0, decoding="dark").decode(heatmaps)
    np.testing.assert_array_equal(found[0, 0, :2], [40, 48])
