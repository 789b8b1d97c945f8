from __future__ import annotations

import cv2
import numpy as np
import pytest

from kpose.codecs.blur import gaussian_blur


@pytest.mark.parametrize("size", [3, 5, 7, 11, 15, 17])
@pytest.mark.parametrize("shape", [(2, 16, 12, 5), (1, 64, 48, 17), (1, 6, 9, 1), (0, 16, 12, 3)])
def test_blur_is_that_of_opencv_on_one_map_after_the_other(size, shape):
    maps = np.random.default_rng(size).normal(size=shape).astype(np.float32)
    mirrored, alone = gaussian_blur(maps, size, "mirror"), gaussian_blur(maps, size, "zero")
    assert mirrored.shape == alone.shape == shape and mirrored.dtype == np.float32
    reach = size // 2
    for person, channel in np.ndindex(shape[0], shape[-1]):
        one = maps[person, :, :, channel]
        np.testing.assert_allclose(mirrored[person, :, :, channel], cv2.GaussianBlur(one, (size, size), 0), atol=1e-5)
        inside = (slice(reach, -reach), slice(reach, -reach))
        expected = cv2.GaussianBlur(np.pad(one, reach), (size, size), 0)[inside]
        np.testing.assert_allclose(alone[person, :, :, channel], expected, atol=1e-5)
