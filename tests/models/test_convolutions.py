"""Convolutions pad and start as PyTorch's do."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kpose.models import convolutions


class TestStridePadding:
    def test_symmetric_padding_is_that_of_torch(self):
        """Output o of a 3x3 stride-2 convolution with padding 1 sees the input pixels 2o - 1, 2o and 2o + 1."""
        x = np.arange(8, dtype="float32").reshape(1, 1, 8, 1) * np.ones((1, 8, 1, 1), "float32")
        inputs = keras.Input((8, 8, 1))
        outputs = convolutions.strided_conv(inputs, 1, 3, 2, name="conv", kernel_initializer="ones")
        result = keras.Model(inputs, outputs)(x).numpy()[0, 1, :, 0]
        np.testing.assert_allclose(result, [3 * (0 + 1), 3 * (1 + 2 + 3), 3 * (3 + 4 + 5), 3 * (5 + 6 + 7)])

    @pytest.mark.parametrize("kernel_size", [3, 5])
    @pytest.mark.parametrize(("stride", "padding"), [(1, "symmetric"), (2, "symmetric"), (2, "same")])
    def test_depthwise_convolution_divides_the_size_by_the_stride(self, kernel_size, stride, padding):
        inputs = keras.Input((16, 12, 3))
        outputs = convolutions.strided_depthwise_conv(inputs, kernel_size, stride, padding=padding, name="conv")
        assert outputs.shape == (None, 16 // stride, 12 // stride, 3)


class TestInitialisers:
    """Standard deviations as PyTorch's kaiming_normal_(mode="fan_out") and its default for convolutions give them."""

    @pytest.mark.parametrize(
        ("initialiser", "shape", "deviation"),
        [
            (convolutions.he_normal, (3, 3, 20, 64), (2 / (9 * 64)) ** 0.5),
            (convolutions.he_normal_depthwise, (5, 5, 960, 1), (2 / (25 * 960)) ** 0.5),
            (convolutions.lecun_uniform, (1, 1, 256, 256), (1 / (3 * 256)) ** 0.5),
        ],
    )
    def test_standard_deviation(self, initialiser, shape, deviation):
        values = keras.ops.convert_to_numpy(initialiser()(shape))
        assert values.std() == pytest.approx(deviation, rel=0.03)
