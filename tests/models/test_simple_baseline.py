"""SimpleBaseline and its trunks: costs as published, structure as in the papers."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kpose.errors import KposeError
from kpose.models import count, simple_baseline
from kpose.models.mobilenet_v2 import mobilenet_v2
from kpose.models.resnet import resnet
from kpose.models.shufflenet_v2 import shufflenet_v2

COCO, COCO_LARGE, MPII = (17, (256, 192)), (17, (384, 288)), (16, (256, 256))

LIGHTWEIGHT = ["mobilenet_v2", "mobilenet_v3", "shufflenet_v2"]


def build(trunk, *arguments, **options):
    return getattr(simple_baseline, f"simple_baseline_{trunk}")(*arguments, **options)


@pytest.mark.parametrize(
    ("trunk", "task", "params", "multiply_adds", "published"),
    [
        ("resnet50", COCO, 33_999_697, 9_654_239_232, (34.0, 8.9)),
        pytest.param("resnet101", COCO, 52_991_825, 13_290_700_800, (53.0, 12.4), marks=pytest.mark.slow),
        pytest.param("resnet152", COCO, 68_635_473, 16_927_162_368, (68.6, 15.7), marks=pytest.mark.slow),
        pytest.param("resnet152", COCO_LARGE, 68_635_473, 38_086_115_328, (68.6, 35.6), marks=pytest.mark.slow),
        ("mobilenet_v2", COCO, 9_569_809, 1_587_256_320, (9.6, 1.59)),
        ("mobilenet_v2", COCO_LARGE, 9_569_809, 3_571_326_720, (9.6, 3.57)),
        ("mobilenet_v2", MPII, 9_569_552, 2_115_289_088, (9.6, 2.12)),
        ("mobilenet_v3", COCO, 8_669_743, 1_465_690_740, (8.7, 1.47)),
        ("shufflenet_v2", COCO, 7_550_965, 1_371_009_504, (7.6, 1.37)),
        ("shufflenet_v2", COCO_LARGE, 7_550_965, 3_084_763_200, (7.6, 3.08)),
        ("shufflenet_v2", MPII, 7_550_708, 1_826_957_920, (7.6, 1.83)),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_costs_are_those_published(trunk, task, params, multiply_adds, published):
    model = build(trunk, *task)
    convention, unit = ("hrnet", 2**30) if trunk.startswith("resnet") else ("mmpose", 10**9)
    counts = count(model, convention)
    assert counts == (params, multiply_adds)
    assert counts.params / 1e6 == pytest.approx(published[0], rel=0.01)
    assert counts.macs / unit == pytest.approx(published[1], rel=0.011)


def test_true_cost_of_the_transposed_convolutions_is_a_quarter_of_the_published_one():
    assert count(build("resnet50")).macs == pytest.approx(5.426e9, rel=1e-3)


def strides_and_widths(outputs, size):
    return {name: (size // tensor.shape[1], tensor.shape[-1]) for name, tensor in outputs.items()}


@pytest.mark.parametrize(
    ("trunk", "expected"),
    [
        (resnet, {"stem": (4, 64), "stage_1": (4, 256), "stage_2": (8, 512), "stage_3": (16, 1024), "stage_4": (32, 2048)}),
        (
            mobilenet_v2,
            {
                "stem": (2, 32),
                "stage_1": (2, 16),
                "stage_2": (4, 24),
                "stage_3": (8, 32),
                "stage_4": (16, 64),
                "stage_5": (16, 96),
                "stage_6": (32, 160),
                "stage_7": (32, 320),
                "last": (32, 1280),
            },
        ),
        (shufflenet_v2, {"stem": (4, 24), "stage_2": (8, 116), "stage_3": (16, 232), "stage_4": (32, 464), "last": (32, 1024)}),
    ],
)
def test_trunks_give_their_tensors_by_name(trunk, expected):
    assert strides_and_widths(trunk(keras.Input((64, 64, 3))), 64) == expected


def test_resnet_halves_the_resolution_in_the_3x3_convolution():
    inputs = keras.Input((64, 64, 3))
    model = keras.Model(inputs, resnet(inputs, (1, 2, 1, 1))["stage_4"])
    strides = {layer.name: layer.strides[0] for layer in model.layers if isinstance(layer, keras.layers.Conv2D)}
    halving = {"stem_conv"} | {f"stage_{stage}_block_0_{part}_conv" for stage in (2, 3, 4) for part in ("2", "shortcut")}
    assert {name for name, stride in strides.items() if stride == 2} == halving
    assert "stage_1_block_0_shortcut_conv" in strides and "stage_2_block_1_shortcut_conv" not in strides


def test_mobilenet_v2_has_the_weights_of_keras_applications():
    inputs = keras.Input((64, 64, 3))
    ours = keras.Model(inputs, mobilenet_v2(inputs)["last"])
    reference = keras.applications.MobileNetV2((64, 64, 3), include_top=False, weights=None)
    assert [weight.shape for weight in ours.weights] == [weight.shape for weight in reference.weights]


def test_shufflenet_passes_half_of_the_channels_on_and_shuffles_them_in():
    inputs = keras.Input((64, 64, 3))
    model = keras.Model(inputs, shufflenet_v2(inputs)["last"])
    before, after = (model.get_layer(f"stage_2_block_{index}_shuffle").output for index in (0, 1))
    images = np.random.default_rng(3).normal(size=(1, 64, 64, 3)).astype("float32")
    before, after = (keras.ops.convert_to_numpy(tensor) for tensor in keras.Model(inputs, [before, after])(images))
    np.testing.assert_array_equal(after[..., ::2], before[..., :58])
    assert np.abs(after[..., 1::2] - before[..., 58:]).max() > 0


@pytest.fixture(scope="module")
def lightweight():
    return {trunk: build(trunk, 5, (64, 32)) for trunk in LIGHTWEIGHT}


@pytest.mark.parametrize("trunk", LIGHTWEIGHT)
def test_tensorflow_padding_is_an_option_that_changes_no_weight(lightweight, trunk):
    model = build(trunk, 5, (64, 32), padding="same")
    assert not [layer.name for layer in model.layers if layer.name.endswith("_pad")]
    assert [weight.path for weight in model.weights] == [weight.path for weight in lightweight[trunk].weights]
    assert model.output_shape == lightweight[trunk].output_shape == (None, 16, 8, 5)


def test_the_mobilenet_v3_papers_own_blocks_are_an_option():
    names = {layer.name for layer in build("mobilenet_v3", 5, (64, 32), backbone="paper").layers}
    assert "block_0_expand_conv" not in names and "block_1_expand_conv" in names


@pytest.mark.parametrize("trunk", LIGHTWEIGHT)
def test_no_convolution_has_a_bias_but_the_last_and_the_gates(lightweight, trunk):
    biased = [layer.name for layer in lightweight[trunk].layers if getattr(layer, "use_bias", False) and "_squeeze_" not in layer.name]
    assert biased == ["heatmaps"]


def test_weights_start_as_published(lightweight):
    model = lightweight["mobilenet_v2"]

    def deviation(layer):
        return float(keras.ops.std(model.get_layer(layer).kernel))

    assert [deviation(f"head_{step}_upsample_conv") for step in (1, 2, 3)] == pytest.approx([0.001] * 3, rel=0.02)
    assert deviation("heatmaps") == pytest.approx(0.001, rel=0.1)
    assert deviation("last_conv") == pytest.approx((2 / 1280) ** 0.5, rel=0.05)
    assert deviation("stage_6_block_1_depthwise_conv") == pytest.approx((2 / (9 * 960)) ** 0.5, rel=0.05)


@pytest.mark.parametrize(
    ("trunk", "options", "message"),
    [
        ("resnet50", {"input_size": (250, 192)}, r"simple_baseline_resnet50: input_size is \(250, 192\), but must be .* multiple of 32"),
        ("resnet101", {"num_keypoints": 0}, "simple_baseline_resnet101: num_keypoints is 0"),
        ("resnet152", {"num_keypoints": "17"}, "simple_baseline_resnet152: num_keypoints is '17'"),
        ("mobilenet_v2", {"padding": "valid"}, "simple_baseline_mobilenet_v2: padding is 'valid', but must be one of symmetric, same"),
        ("mobilenet_v3", {"padding": "symetric"}, "simple_baseline_mobilenet_v3: padding .* did you mean 'symmetric'"),
        ("mobilenet_v3", {"backbone": "openmlab"}, "simple_baseline_mobilenet_v3: backbone .* did you mean 'openmmlab'"),
        ("shufflenet_v2", {"padding": None}, "simple_baseline_shufflenet_v2: padding is None"),
    ],
)
def test_bad_arguments_are_named(trunk, options, message):
    with pytest.raises(KposeError, match=message) as error:
        build(trunk, **options)
    assert "\n" not in str(error.value)
