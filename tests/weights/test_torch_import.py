"""Every tensor of a published checkpoint finds its place, or nothing is changed and the message names it."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kpose.checkpoint import load_model
from kpose.errors import KposeError
from kpose.models import build_model, list_models
from kpose.models.layers import BatchNormalization, DepthwiseConv2DTranspose
from kpose.weights import load_torch
from kpose.weights.convert import import_checkpoint
from kpose.weights.torch_names import PUBLISHED, Names, names_of
from tests.weights.torch_files import write_zip

RULES = (
    (r"first_conv", r"conv1"),
    (r"first_norm", r"bn1"),
    (r"layer_(\d)_conv", r"layers.\1.conv"),
    (r"dense", r"classifier"),
)
NAMES = Names(RULES, head="dense", ignored=r"unread\..*")
VECTORS = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def network() -> keras.Model:
    inputs = x = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="first_conv")(x)
    x = BatchNormalization(name="first_norm")(x)
    x = keras.layers.DepthwiseConv2D(3, use_bias=False, name="layer_0_conv")(x)
    x = keras.layers.Conv2DTranspose(6, 4, strides=2, use_bias=False, name="layer_1_conv")(x)
    x = DepthwiseConv2DTranspose(name="layer_2_conv")(x)
    x = keras.layers.Conv2D(4, 3, groups=2, use_bias=False, name="layer_3_conv")(x)
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(inputs, keras.layers.Dense(5, name="dense")(x), name="small")


def state(**changes: np.ndarray | None) -> dict[str, np.ndarray]:
    """The tensors of `network` as PyTorch has them; a change of None leaves one out."""
    random = np.random.default_rng(1)
    shapes = {
        "conv1.weight": (4, 3, 3, 3),
        "conv1.bias": (4,),
        **{f"bn1.{name}": (4,) for name in VECTORS},
        "bn1.num_batches_tracked": (),
        "layers.0.conv.weight": (4, 1, 3, 3),
        "layers.1.conv.weight": (4, 6, 4, 4),
        "layers.2.conv.weight": (6, 1, 4, 4),
        "layers.3.conv.weight": (4, 3, 3, 3),
        "classifier.weight": (5, 4),
        "classifier.bias": (5,),
    }
    tensors: dict[str, np.ndarray | None] = {name: random.uniform(0.5, 1.5, shape).astype("float32") for name, shape in shapes.items()}
    return {name: tensor for name, tensor in (tensors | changes).items() if tensor is not None}


def values(model: keras.Model) -> list[np.ndarray]:
    return [np.array(weight) for weight in model.get_weights()]


def test_every_tensor_goes_where_it_belongs_in_keras_layout():
    model, tensors = network(), state()
    report = load_torch(model, tensors, names=NAMES)

    def weight(layer, name):
        return np.asarray(next(weight for weight in model.get_layer(layer).weights if weight.name == name).numpy())

    np.testing.assert_array_equal(weight("first_conv", "kernel")[1, 2, 0, 3], tensors["conv1.weight"][3, 0, 1, 2])
    np.testing.assert_array_equal(weight("first_conv", "bias"), tensors["conv1.bias"])
    for theirs, ours in VECTORS.items():
        np.testing.assert_array_equal(weight("first_norm", ours), tensors[f"bn1.{theirs}"])
    np.testing.assert_array_equal(weight("layer_0_conv", "kernel")[1, 2, 3, 0], tensors["layers.0.conv.weight"][3, 0, 1, 2])
    np.testing.assert_array_equal(weight("layer_1_conv", "kernel")[1, 2, 5, 3], tensors["layers.1.conv.weight"][3, 5, 1, 2])
    np.testing.assert_array_equal(weight("layer_2_conv", "kernel")[1, 2, 3, 0], tensors["layers.2.conv.weight"][3, 0, 1, 2])
    np.testing.assert_array_equal(weight("layer_3_conv", "kernel")[1, 2, 0, 3], tensors["layers.3.conv.weight"][3, 0, 1, 2])
    np.testing.assert_array_equal(weight("dense", "kernel"), tensors["classifier.weight"].T)
    assert len(report.loaded) == len(model.weights) and not report.fresh and not report.unused
    assert "conv1.weight (4, 3, 3, 3) -> first_conv/kernel (3, 3, 3, 4)" in str(report)
    assert report.summary == f"12 tensors, {sum(value.size for value in values(model)):,} values, into 7 layers"


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "module.backbone.", "keypoint_head.", "head."])
def test_prefixes_of_wrappers_are_taken_away(prefix):
    model = network()
    load_torch(model, {prefix + name: tensor for name, tensor in state().items()}, names=NAMES)
    np.testing.assert_array_equal(model.get_layer("first_conv").bias, state()["conv1.bias"])


def test_a_tensor_under_two_prefixes_is_ambiguous():
    with pytest.raises(KposeError, match=r"holds conv1\.bias twice"):
        load_torch(network(), state() | {"backbone.conv1.bias": np.zeros(4, "float32")}, names=NAMES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv1.bias": None}, r"1 tensors are missing there \(conv1\.bias for first_conv/bias\)"),
        ({"extra.weight": np.zeros(3)}, r"1 are left over \(extra\.weight\)"),
        ({"classifier.weight": np.zeros((17, 4))}, r"1 are of another shape \(classifier\.weight \(17, 4\) for dense/kernel \(4, 5\)\)"),
        ({"bn1.running_var": np.full(4, np.nan)}, r"1 hold values that are not finite \(bn1\.running_var\)"),
        ({f"extra.{index}": np.zeros(3) for index in range(8)}, r"8 are left over \(extra\.0, .* and 3 more\)"),
    ],
)
def test_what_does_not_fit_is_named_and_changes_nothing(changes, message):
    model = network()
    before = values(model)
    with pytest.raises(KposeError, match=message) as error:
        load_torch(model, state(**changes), names=NAMES)
    assert "\n" not in str(error.value)
    for value, old in zip(values(model), before, strict=True):
        np.testing.assert_array_equal(value, old)


def test_tensors_that_no_forward_pass_reads_are_ignored():
    load_torch(network(), state() | {"unread.weight": np.zeros(3)}, names=NAMES)


def test_the_trunk_alone_leaves_the_head_fresh_and_lists_what_is_left():
    model = network()
    head = model.get_layer("dense").get_weights()
    report = load_torch(
        model, state(**{"classifier.weight": np.zeros((1000, 4)), "extra.weight": np.zeros(3)}), names=NAMES, trunk_only=True
    )
    for value, old in zip(model.get_layer("dense").get_weights(), head, strict=True):
        np.testing.assert_array_equal(value, old)
    np.testing.assert_array_equal(model.get_layer("first_conv").bias, state()["conv1.bias"])
    assert report.fresh == ["dense"] and report.unused == ["classifier.weight", "classifier.bias", "extra.weight"]
    assert "fresh: dense; not used: classifier.weight" in report.summary


def test_a_trunk_that_is_not_whole_is_refused_also_without_the_head():
    with pytest.raises(KposeError, match=r"layers\.3\.conv\.weight for layer_3_conv/kernel"):
        load_torch(network(), state(**{"layers.3.conv.weight": None}), names=NAMES, trunk_only=True)


def test_a_steeper_gate_is_made_up_for():
    model = network()
    load_torch(model, state(), names=Names(RULES, tripled="first_conv", ignored=""))
    np.testing.assert_allclose(model.get_layer("first_conv").bias, 3 * state()["conv1.bias"], rtol=1e-6)


def test_a_layer_without_a_rule_is_told():
    with pytest.raises(KposeError, match="a name for dense"):
        load_torch(network(), state(), names=Names(RULES[:3]))


def test_networks_of_which_nothing_is_published_are_refused():
    with pytest.raises(KposeError, match="no published checkpoints are known for 'cu_net'.*hrnet_w32"):
        load_torch(build_model("cu_net", 5, (64, 64), stacks=1, channels=8, growth=4), {})


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_every_naming_is_of_a_network_that_exists(name):
    assert name in list_models()


@pytest.mark.parametrize("attention", ["full", "none", "se", "cbam"])
def test_the_lightweight_network_takes_a_checkpoint_of_its_authors(attention, tmp_path, capsys):
    """A file with the authors' names, prefixes and counters, through to a prediction that is the same from the written file."""
    model = build_model("lite_mobilenet_v3", 5, (64, 64), attention=attention)
    rules = {"se": 1, "cbam": 2}.get(attention, 0)
    tensors = published(model, names_of("lite_mobilenet_v3")[rules])
    head = ("deconv_layers", "final_layer")
    wrapped = {f"{'keypoint_head' if name.startswith(head) else 'backbone'}.{name}": tensor for name, tensor in tensors.items()}
    path = write_zip(tmp_path / "epoch_210.pth", {"meta": {"epoch": 210}, "state_dict": wrapped})
    skeleton = tmp_path / "five.yaml"
    skeleton.write_text("name: five\njoint_names: [a, b, c, d, e]\nlimbs: []\nleft_right_pairs: []\n")
    import_checkpoint(
        path,
        "lite_mobilenet_v3",
        tmp_path / "lite.keras",
        skeleton=str(skeleton),
        input_size=(64, 64),
        options={"attention": attention},
        licence="Apache-2.0",
    )
    load_torch(model, path)
    written = load_model(tmp_path / "lite.keras")
    images = np.random.default_rng(2).normal(size=(1, 64, 64, 3)).astype("float32")
    np.testing.assert_array_equal(written(images), model(images))
    assert written.card.name == "lite_mobilenet_v3" and written.card.licence == "Apache-2.0"
    assert written.card.data.startswith("imported from epoch_210.pth (SHA-256 ")
    assert "lite.keras" in capsys.readouterr().out


def published(model: keras.Model, names: Names) -> dict[str, np.ndarray]:
    """Tensors under the published names, in PyTorch's layout, as random as may be."""
    random = np.random.default_rng(4)
    tensors = {}
    for layer in model.layers:
        for weight in layer.weights:
            value = random.uniform(0.5, 1.5, weight.shape).astype("float32")
            if value.ndim == 4:
                depthwise = isinstance(layer, keras.layers.DepthwiseConv2D | DepthwiseConv2DTranspose)
                value = value.transpose(2, 3, 0, 1) if depthwise else value.transpose(3, 2, 0, 1)
                value = value * 0.1
            name = {ours: theirs for theirs, ours in VECTORS.items()}.get(weight.name, "bias" if weight.name == "bias" else "weight")
            tensors[f"{names.module_of(layer.name)}.{name}"] = value
    return tensors
