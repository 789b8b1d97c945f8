"""The backbone's tensors, strides and widths, against the paper's tables."""

from __future__ import annotations

import keras
import pytest

from kpose.models.counting import count
from kpose.models.mobilenet_v3 import BLOCKS, mobilenet_v3_large


@pytest.mark.parametrize(("blocks", "stride_32_from"), [("openmmlab", 13), ("paper", 12)])
def test_resolution_is_halved_where_the_table_says(blocks, stride_32_from):
    outputs = mobilenet_v3_large(keras.Input((256, 192, 3)), blocks=blocks)
    heights = [outputs[f"block_{index}"].shape[1] for index in range(15)]
    expected = [128, 64, 64, 32, 32, 32] + [16] * (stride_32_from - 6) + [8] * (15 - stride_32_from)
    assert heights == expected
    assert outputs["stem"].shape == (None, 128, 96, 16)
    assert outputs["last"].shape == (None, 8, 6, 960)


@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_paper_blocks_are_those_of_keras_applications(padding):
    inputs = keras.Input((64, 64, 3))
    ours = keras.Model(inputs, mobilenet_v3_large(inputs, blocks="paper", padding=padding)["last"])
    reference = keras.applications.MobileNetV3Large((64, 64, 3), include_top=False, weights=None, include_preprocessing=False)
    assert [weight.shape for weight in ours.weights] == [weight.shape for weight in reference.weights]


def test_openmmlab_squeezes_to_a_plain_quarter_and_expands_in_every_block():
    for block in BLOCKS["openmmlab"]:
        assert block.squeeze in (0, block.expansion // 4) and block.expansion > 0


@pytest.mark.parametrize("blocks", BLOCKS)
def test_no_convolution_but_the_squeeze_has_a_bias(blocks):
    inputs = keras.Input((64, 64, 3))
    model = keras.Model(inputs, mobilenet_v3_large(inputs, blocks=blocks)["last"])
    biased = [layer.name for layer in model.layers if getattr(layer, "use_bias", False)]
    assert all("_squeeze_" in name for name in biased)
    assert count(model).params > 2_000_000
