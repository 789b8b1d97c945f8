"""What every network does: the same tests for all, by name."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest

import kpose.models
from kpose.errors import KposeError
from kpose.losses import HeatmapMeanSquaredError
from kpose.models import BUILDERS, build_model, count, list_models

# Written by `python tests/models/write_layer_names.py`: the names by which weight import and fine-tuning know the layers.
LAYER_NAMES = Path(__file__).with_name("layer_names.json.gz")

OPTIONS = {
    "stacked_hourglass": {"stacks": 2, "channels": 32},
    "soft_gated_hourglass": {"stacks": 2, "channels": 32},
    "cu_net": {"stacks": 3, "channels": 32, "growth": 8},
}
"""Networks that can be built small are."""

LARGE = {"hrnet_w32", "hrnet_w48", "multi_stage_hrnet_w32", "multi_stage_hrnet_w48", "ram_gpr_hrnet_w32", "ram_gpr_hrnet_w48"}
LARGE |= {"simple_baseline_resnet101", "simple_baseline_resnet152", "lite_hrnet_30"}
"""Each has a smaller relative of the same file, which stands for it where a test takes long."""

SIZES = ((64, 64), (128, 64))
JOINTS = 5

EVERY = pytest.mark.parametrize("model", list_models(), indirect=True)
EVERY_LARGE_ONES_SLOWLY = pytest.mark.parametrize(
    "model", [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in list_models()], indirect=True
)


def network(name: str) -> keras.Model:
    keras.utils.set_random_seed(7)
    return build_model(name, JOINTS, SIZES[0], **OPTIONS.get(name, {}))


def calibrate(model: keras.Model) -> None:
    """Makes normalisations take back what grows: with fresh statistics a deep network leaves the range of half precision.

    What is small stays so: to blow it up would blow up rounding too.
    """
    normalisations = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in normalisations]
    for layer in normalisations:
        layer.momentum = 0.0
    model(images(), training=True)
    for layer, momentum in zip(normalisations, momenta, strict=True):
        layer.momentum = momentum
        layer.moving_mean.assign(keras.ops.zeros_like(layer.moving_mean))
        layer.moving_variance.assign(keras.ops.maximum(layer.moving_variance, 1.0))


@pytest.fixture(scope="module")
def model(request: pytest.FixtureRequest) -> keras.Model:
    """A network by its name. Built once: the scope makes pytest run all tests of a network before it goes on to the next."""
    model = network(request.param)
    calibrate(model)
    return model


def images(size=SIZES[0], batch=2):
    return np.random.default_rng(2).normal(size=(batch, *size, 3)).astype("float32")


def outputs_of(result):
    return result if isinstance(result, list) else [result]


def channels(name):
    """Heatmaps, and for Multi-Stage HRNet two offsets with each."""
    return 3 * JOINTS if name.startswith("multi_stage_hrnet") else JOINTS


@contextlib.contextmanager
def precision(policy):
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy("float32")


def test_the_published_networks_are_there():
    assert list_models() == sorted(BUILDERS)
    assert set(list_models()) == {
        "cpn_resnet50", "cu_net", "hrnet_w32", "hrnet_w48", "lite_hrnet_18", "lite_hrnet_30", "lite_mobilenet_v3",
        "multi_stage_hrnet_w32", "multi_stage_hrnet_w48", "ram_gpr_hrnet_w32", "ram_gpr_hrnet_w48",
        "simple_baseline_mobilenet_v2", "simple_baseline_mobilenet_v3", "simple_baseline_resnet50", "simple_baseline_resnet101",
        "simple_baseline_resnet152", "simple_baseline_shufflenet_v2", "small_hrnet_w16", "soft_gated_hourglass", "stacked_hourglass",
        "vipnas_mobilenet_v3",
    }  # fmt: skip


@EVERY
def test_heatmaps_are_a_quarter_of_the_input_and_every_size_is_known(model, request):
    name = request.node.callspec.params["model"]
    assert model.name == name
    assert model.input_shape == (None, *SIZES[0], 3)
    for output, result in zip(model.outputs, outputs_of(model(images(), training=False)), strict=True):
        assert output.shape == (None, 16, 16, channels(name))
        assert result.shape == (2, 16, 16, channels(name)) and result.dtype == "float32"
        assert np.isfinite(result).all()
    assert all(None not in tensor.shape[1:] for operation in model.operations for tensor in outputs_of(operation.output))
    assert count(model).params == sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


@EVERY_LARGE_ONES_SLOWLY
def test_other_sizes_and_joints(model):
    name = model.name
    model = build_model(name, 3, SIZES[1], **OPTIONS.get(name, {}))
    height, width = SIZES[1][0] // 4, SIZES[1][1] // 4
    assert [output.shape for output in model.outputs] == [(None, height, width, channels(name) // JOINTS * 3)] * len(model.outputs)


@EVERY
def test_layers_have_names_of_their_own_that_stay(model):
    """Every operation is a layer with a name that was given to it; those with weights keep theirs, for files lean on them."""
    names = [operation.name for operation in model.operations]
    assert len(set(names)) == len(names)
    assert all(isinstance(operation, keras.layers.Layer) for operation in model.operations)
    automatic = {keras.src.utils.naming.to_snake_case(type(operation).__name__) for operation in model.operations}
    assert not [one for one in names if re.sub(r"_\d+$", "", one) in automatic - {"image"}]
    with gzip.open(LAYER_NAMES, "rt") as file:
        expected = json.load(file)[model.name]
    assert [layer.name for layer in model.layers if layer.weights] == expected


@EVERY_LARGE_ONES_SLOWLY
def test_loss_falls_and_every_weight_learns(model):
    """A few eager steps on a fixed batch: tracing one would take longer than all of them."""
    import tensorflow as tf

    learner = keras.models.clone_model(model)
    learner.set_weights(model.get_weights())
    targets = np.random.default_rng(3).uniform(size=(2, 16, 16, channels(model.name))).astype("float32")
    loss, optimizer = HeatmapMeanSquaredError(), keras.optimizers.Adam(1e-4)
    values = []
    for _ in range(4):
        with tf.GradientTape() as tape:
            values.append(sum(loss(targets, output) for output in outputs_of(learner(images(), training=True))))
        gradients = tape.gradient(values[-1], [weight.value for weight in learner.trainable_weights])
        without = [weight.path for weight, gradient in zip(learner.trainable_weights, gradients, strict=True) if gradient is None]
        assert not without
        optimizer.apply(gradients, learner.trainable_weights)
    assert values[-1] < values[0]


@EVERY_LARGE_ONES_SLOWLY
def test_a_file_brings_it_back(model, tmp_path):
    model.save(tmp_path / "network.keras")
    copy = keras.models.load_model(tmp_path / "network.keras")
    for restored, output in zip(outputs_of(copy(images())), outputs_of(model(images())), strict=True):
        np.testing.assert_array_equal(restored, output)


@EVERY_LARGE_ONES_SLOWLY
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_runs_in_half_precision_and_answers_in_single(model, policy):
    with precision(policy):
        mixed = network(model.name)
    mixed.set_weights(model.get_weights())
    for half, single in zip(outputs_of(mixed(images())), outputs_of(model(images())), strict=True):
        assert half.dtype == "float32"
        scale = np.abs(single).max() + 1e-6
        assert np.isfinite(half).all() and np.abs(half - single).max() < 0.25 * scale


OTHER_BACKEND = """
import sys, numpy, keras
assert keras.backend.backend() == "torch"
from kpose.models import build_model
folder, name, options = sys.argv[1], sys.argv[2], eval(sys.argv[3])
model = build_model(name, 5, (64, 64), **options)
model.load_weights(f"{folder}/network.weights.h5")
images = numpy.load(f"{folder}/images.npy")
outputs = model(images, training=False)
outputs = outputs if isinstance(outputs, list) else [outputs]
numpy.savez(f"{folder}/outputs.npz", *[keras.ops.convert_to_numpy(output) for output in outputs])
assert "tensorflow" not in sys.modules
"""


@pytest.mark.slow
@pytest.mark.parametrize("model", sorted(set(list_models()) - LARGE), indirect=True)
def test_another_backend_gives_the_same_without_tensorflow(model, tmp_path):
    pytest.importorskip("torch", reason="needs the extra 'torch'")
    model.save_weights(tmp_path / "network.weights.h5")
    np.save(tmp_path / "images.npy", images())
    subprocess.run(
        [sys.executable, "-c", OTHER_BACKEND, str(tmp_path), model.name, repr(OPTIONS.get(model.name, {}))],
        env={**os.environ, "KERAS_BACKEND": "torch"},
        check=True,
    )
    with np.load(tmp_path / "outputs.npz") as others:
        for other, output in zip(others.values(), outputs_of(model(images(), training=False)), strict=True):
            np.testing.assert_allclose(other, output, atol=1e-4 * np.ptp(output))


@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize("size", [(250, 192), (0, 64), (-64, 64), 64, (64.5, 64), (48, 64)])
def test_sizes_that_do_not_divide_are_refused_in_one_line(name, size):
    with pytest.raises(KposeError, match=f"{name}: input_size is .* must be") as error:
        build_model(name, JOINTS, size)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize("joints", [0, -1, 2.5, True, "17"])
def test_numbers_of_joints_that_are_none_are_refused(name, joints):
    with pytest.raises(KposeError, match=f"{name}: num_keypoints is {joints!r}"):
        build_model(name, joints, SIZES[0])


@pytest.mark.parametrize("name", list_models())
def test_unknown_options_are_refused_with_the_valid_ones(name):
    with pytest.raises(KposeError, match=f"{name} has no option 'colour'"):
        build_model(name, JOINTS, SIZES[0], colour="blue")


def test_unknown_name_names_the_nearest():
    with pytest.raises(KposeError, match="no network is called 'lite_mobilenetv3'; did you mean 'lite_mobilenet_v3'"):
        build_model("lite_mobilenetv3")


def test_no_builder_hides_a_module():
    """`import kpose.models.x as y` gives the attribute `x` of the package, which must be the module."""
    modules = {path.stem for path in Path(kpose.models.__file__).parent.glob("*.py")} - {"__init__"}
    hidden = {name for name in modules if not isinstance(getattr(kpose.models, name, types), types.ModuleType)}
    assert not hidden
