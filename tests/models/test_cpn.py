"""The cascaded pyramid network: what it returns and costs, and how its variants differ."""

from __future__ import annotations

import math

import keras
import pytest

from kpose.errors import KposeError
from kpose.models import count
from kpose.models.cpn import cpn_resnet50

VARIANTS = ["authors", "pytorch"]


@pytest.fixture(scope="module")
def networks():
    return {variant: cpn_resnet50(variant=variant) for variant in VARIANTS}


@pytest.mark.parametrize("variant", VARIANTS)
def test_predictions_come_coarse_to_fine_and_refined_last(networks, variant):
    model = networks[variant]
    assert model.output_names == [f"global_{level}_heatmaps" for level in (4, 3, 2, 1)] + ["refine_heatmaps"]
    assert model.output_shape == [(None, 64, 48, 17)] * 5
    assert {output.dtype for output in model.outputs} == {"float32"}


@pytest.mark.parametrize(
    ("variant", "params", "all_predictions", "last_prediction"),
    [("authors", 27_009_770, 6.734, 6.336), ("pytorch", 27_406_826, 6.813, 6.415)],
)
def test_costs(networks, variant, params, all_predictions, last_prediction):
    """Published: 27.0 M, and 6.20 G."""
    model = networks[variant]
    assert count(model).params == params
    assert count(model).macs / 2**30 == pytest.approx(all_predictions, abs=5e-4)
    assert count(keras.Model(model.input, model.outputs[-1])).macs / 2**30 == pytest.approx(last_prediction, abs=5e-4)


def test_a_reading_with_both_published_figures(networks):
    """Without GlobalNet's predictions, on a ResNet whose stages halve the resolution in their first convolution."""
    model = networks["pytorch"]
    predicting = count(keras.Model(model.input, model.outputs[-1]))
    saved = 0
    for stage in (2, 3, 4):
        layer = model.get_layer(f"stage_{stage}_block_0_1_conv")
        saved += math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:3]) * 3 // 4
    assert predicting.params / 1e6 == pytest.approx(27.0, abs=0.05)
    assert (predicting.macs - saved) / 2**30 == pytest.approx(6.20, abs=0.005)


def test_variants_differ_in_projections_and_normalisation_of_what_comes_down(networks):
    authors, pytorch = ({layer.name for layer in networks[variant].layers if layer.weights} for variant in VARIANTS)
    assert authors < pytorch
    blocks = [f"refine_{level}_block_{index}" for level in (4, 3, 2) for index in range(level - 1)]
    assert pytorch - authors == {f"{block}_shortcut_{part}" for block in blocks for part in ("conv", "norm")} | {
        f"global_{level}_merge_norm" for level in (3, 2, 1)
    }
    assert (
        networks["authors"].get_layer("global_1_merge_conv").use_bias and not networks["pytorch"].get_layer("global_1_merge_conv").use_bias
    )


def test_weights_start_as_the_authors_do(networks):
    model = networks["authors"]

    def deviation(layer):
        return float(keras.ops.std(model.get_layer(layer).kernel))

    assert deviation("global_4_lateral_conv") == pytest.approx((2 / (2048 + 256)) ** 0.5, rel=0.05)
    assert deviation("global_1_heatmap_conv") == pytest.approx((2 / (9 * 256 + 9 * 17)) ** 0.5, rel=0.05)
    assert deviation("refine_4_block_0_2_conv") == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": (240, 192)}, r"cpn_resnet50: input_size is \(240, 192\), but must be .* multiple of 32"),
        ({"num_keypoints": True}, "cpn_resnet50: num_keypoints is True"),
        ({"variant": "author"}, "cpn_resnet50: variant is 'author', but must be one of authors, pytorch; did you mean 'authors'"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(KposeError, match=message) as error:
        cpn_resnet50(**options)
    assert "\n" not in str(error.value)
