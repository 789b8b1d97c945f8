"""RAM+GPR: costs as published, attention by the paper's equations, and what its options leave out."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kpose.errors import KposeError
from kpose.models import count
from kpose.models.counting import UNITS
from kpose.models.hrnet import Recipe, Stage
from kpose.models.ram_gpr import ResolutionWeightedSum, ram_gpr_hrnet, ram_gpr_hrnet_w32, ram_gpr_hrnet_w48

SMALL, LARGE = (256, 192), (384, 288)
SIZE = (64, 96)
SHALLOW = Recipe(1, 8, (Stage(1, 1), Stage(1, 1), Stage(2, 1)))
IMAGES = np.random.default_rng(2).normal(size=(2, *SIZE, 3)).astype("float32")


def shallow(**options):
    return ram_gpr_hrnet("shallow", 4, 5, SIZE, recipe=SHALLOW, **options)


@pytest.fixture(scope="module")
def whole():
    keras.utils.set_random_seed(7)
    return shallow()


def weighted_sum(shape=(4, 6, 3), count=3):
    maps = [keras.Input(shape) for _ in range(count)]
    scores = [keras.Input((1, 1, 1)) for _ in range(count)]
    return keras.Model([maps, scores], ResolutionWeightedSum(name="sum")(maps, scores))


@pytest.mark.parametrize(
    ("build", "size", "options", "params", "multiply_adds", "published"),
    [
        (ram_gpr_hrnet_w32, SMALL, {}, 31_543_065, 8_246_274_496, (31.4, 7.7)),
        pytest.param(ram_gpr_hrnet_w32, LARGE, {}, 31_543_065, 18_552_465_856, (31.4, 17.2), marks=pytest.mark.slow),
        pytest.param(ram_gpr_hrnet_w48, SMALL, {}, 70_344_761, 17_043_424_416, (70.0, 15.8), marks=pytest.mark.slow),
        pytest.param(ram_gpr_hrnet_w48, LARGE, {}, 70_344_761, 38_343_996_576, (70.0, 35.6), marks=pytest.mark.slow),
        pytest.param(ram_gpr_hrnet_w32, SMALL, {"attention": False}, 30_212_753, 8_244_953_088, None, marks=pytest.mark.slow),
        pytest.param(ram_gpr_hrnet_w32, SMALL, {"refinement": False}, 30_650_937, 7_736_175_040, None, marks=pytest.mark.slow),
    ],
    ids=["w32", "w32 large", "w48", "w48 large", "no attention", "no refinement"],
)
def test_costs_are_those_published(build, size, options, params, multiply_adds, published):
    counts = count(build(input_size=size, **options), "hrnet")
    assert counts == (params, multiply_adds)
    if published:
        assert counts.params / 1e6 == pytest.approx(published[0], rel=0.005)
        assert counts.macs / UNITS["hrnet"] == pytest.approx(published[1], rel=0.005)


class TestResolutionWeightedSum:
    def test_is_equations_2_and_3(self):
        random = np.random.default_rng(3)
        maps = random.normal(size=(3, 2, 4, 6, 3)).astype("float32")
        scores = random.normal(size=(3, 2, 1, 1, 1)).astype("float32")
        omega, beta = random.normal(size=(2, 3))
        model = weighted_sum()
        model.get_layer("sum").set_weights([omega, beta])
        weights = np.exp(scores) / np.exp(scores).sum(axis=0) * omega[:, None, None, None, None] + beta[:, None, None, None, None]
        np.testing.assert_allclose(model([list(maps), list(scores)]), (weights * maps).sum(axis=0), atol=1e-5)

    def test_starts_as_a_plain_sum_of_equal_scores(self):
        maps = np.random.default_rng(4).normal(size=(3, 2, 4, 6, 3)).astype("float32")
        scores = np.full((3, 2, 1, 1, 1), 0.7, "float32")
        np.testing.assert_allclose(weighted_sum()([list(maps), list(scores)]), maps.sum(axis=0), atol=1e-5)

    def test_large_scores_do_not_overflow(self):
        maps = np.ones((3, 1, 4, 6, 3), "float32")
        scores = np.array([900.0, 0.0, -900.0], "float32").reshape(3, 1, 1, 1, 1)
        np.testing.assert_allclose(weighted_sum()([list(maps), list(scores)]), 3 * maps[0])

    def test_weights_keep_their_precision_under_mixed_precision(self):
        layer = ResolutionWeightedSum(dtype="mixed_bfloat16")
        maps, scores = keras.ops.ones((2, 1, 4, 6, 3)), keras.ops.zeros((2, 1, 1, 1, 1))
        output = layer(list(maps), list(scores))
        assert output.dtype == "bfloat16" and {weight.dtype for weight in layer.weights} == {"float32"}
        # 2 * (1.001 / 2 + 1.002 / 2 - 1) would be 0 from rounded numbers.
        layer.set_weights([np.array([1.001, 1.002]), np.array([-0.5, -0.5])])
        np.testing.assert_allclose(keras.ops.cast(layer(list(maps), list(scores)), "float32"), 0.0015, rtol=0.01)


def test_a_fresh_network_computes_what_it_would_without_attention(whole):
    plain = shallow(attention=False)
    random = np.random.default_rng(5)
    for layer in (layer for layer in plain.layers if layer.weights):
        values = [
            random.normal(size=weight.shape) * np.prod(weight.shape[:3]) ** -0.5
            if len(weight.shape) == 4
            else random.uniform(0.5, 1.5, weight.shape)
            for weight in layer.weights
        ]
        layer.set_weights(values)
        whole.get_layer(layer.name).set_weights(values)
    found, expected = (keras.ops.convert_to_numpy(model(IMAGES)) for model in (whole, plain))
    assert np.abs(expected[0] - expected[1]).max() > 0.01 * np.ptp(expected)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.ptp(expected))


def test_every_sum_of_an_exchange_is_weighted(whole):
    sums = {layer.name: layer for layer in whole.layers if isinstance(layer, ResolutionWeightedSum)}
    modules = [(2, 0), (3, 0), (4, 0), (4, 1)]
    expected = {f"stage_{stage}_module_{module}_exchange_{branch}": stage for stage, module in modules for branch in range(stage)}
    assert {name.removesuffix("_attention_sum"): layer.scale.shape[0] for name, layer in sums.items()} == expected
    assert not [layer.name for layer in whole.layers if "exchange" in layer.name and layer.name.endswith("_add")]


def test_attention_looks_at_rescaled_maps(whole):
    name = "stage_4_module_0_exchange_1"
    layer = whole.get_layer(f"{name}_attention_sum")
    assert [tensor.shape for tensor in layer.input] == [(None, 8, 12, 8)] * 4 + [(None, 1, 1, 1)] * 4
    assert whole.get_layer(f"{name}_attention_3_mean").input is whole.get_layer(f"{name}_from_3_upsample").output
    assert whole.get_layer(f"{name}_attention_3_hidden_conv").kernel.shape == (1, 1, 8, 8)
    assert whole.get_layer(f"{name}_attention_3_score_conv").kernel.shape == (1, 1, 8, 1)


def test_refinement_joins_every_resolution_from_the_lowest_to_the_highest(whole):
    shapes = [whole.get_layer(f"refinement_{index}_join").output.shape[1:] for index in (2, 1, 0)]
    assert shapes == [(4, 6, 32), (8, 12, 16), (16, 24, 8)]
    assert whole.get_layer("refinement_2_upsample_conv").input is whole.get_layer("stage_4_module_1_exchange_3_relu").output
    assert whole.get_layer("refinement_0_join").input[1] is whole.get_layer("stage_4_module_1_exchange_0_relu").output
    assert whole.get_layer("heatmaps").input is whole.get_layer("refinement_0_join").output


def test_without_refinement_the_resolutions_are_rescaled_and_summed():
    model = shallow(refinement=False)
    layer = model.get_layer("rescaled_sum_add")
    assert {tensor.shape for tensor in layer.input} == {(None, 16, 24, 4)} and len(layer.input) == 4
    assert layer.input[0] is model.get_layer("stage_4_module_1_exchange_0_relu").output
    assert not [layer.name for layer in model.layers if layer.name.startswith("refinement")]


@pytest.mark.parametrize("build", [ram_gpr_hrnet_w32, ram_gpr_hrnet_w48])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": (256, 200)}, r"input_size is \(256, 200\), but must be .* multiple of 32"),
        ({"num_keypoints": 1.5}, "num_keypoints is 1.5"),
        ({"attention": "full"}, "attention is 'full', but must be True or False"),
        ({"refinement": 0}, "refinement is 0, but must be True or False"),
    ],
)
def test_bad_arguments_are_named(build, options, message):
    with pytest.raises(KposeError, match=f"{build.__name__}: {message}"):
        build(**options)
