"""A loaded trunk computes what keras.applications computes with the same file, and a bad file changes nothing."""

from __future__ import annotations

import io

import cv2
import keras
import numpy as np
import pytest

from kpose.errors import KposeError
from kpose.models import build_model
from kpose.weights import load_trunk, trunk

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
HALF = (0.5, 0.5, 0.5)
SIZE = (128, 96)
IMAGE = np.random.default_rng(4).uniform(size=(1, *SIZE, 3))


def network(**options):
    return build_model("lite_mobilenet_v3", num_keypoints=3, input_size=SIZE, **options)


def application():
    return keras.applications.MobileNetV3Large((*SIZE, 3), include_top=False, weights=None, include_preprocessing=False)


def entries(model):
    """A Keras application's variables under the names a trunk file gives them."""
    return {f"{layer.name}/{weight.name}": weight for layer in model.layers for weight in layer.weights}


def application_with(path):
    model = application()
    with np.load(path, allow_pickle=False) as file:
        for name, weight in entries(model).items():
            if name in file:
                weight.assign(file[name].astype("float32"))
    return model


def features(model, layer, images):
    return keras.ops.convert_to_numpy(keras.Model(model.input, model.get_layer(layer).output)(images.astype("float32")))


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def made_up_arrays():
    """A whole trunk whose statistics are those of no fresh layer."""
    random = np.random.default_rng(11)
    arrays = {}
    for name, weight in entries(application()).items():
        if name.endswith("kernel"):
            fan_in = np.prod(weight.shape[:2] if "depthwise" in name else weight.shape[:3])
            arrays[name] = random.normal(scale=fan_in**-0.5, size=weight.shape).astype("float16")
        elif name.endswith(("gamma", "moving_variance")):
            arrays[name] = random.uniform(0.5, 1.5, size=weight.shape).astype("float32")
        else:
            arrays[name] = random.uniform(-0.5, 0.5, size=weight.shape).astype("float32")
    return arrays


@pytest.fixture(scope="module")
def made_up_trunk(made_up_arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("trunk") / "trunk.npz"
    np.savez(path, **made_up_arrays)
    return path


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("block_0_add", "expanded_conv_add"),
        ("block_3_project_norm", "expanded_conv_3_project_bn"),
        ("block_12_squeeze_scale", "expanded_conv_12_squeeze_excite_mul"),
        ("last_norm", "conv_1_bn"),
    ],
)
def test_features_equal_keras_applications(made_up_trunk, ours, theirs):
    """Up to rounding, with TensorFlow's padding and an input normalised to [-1, 1] as that network expects."""
    model = network(backbone="paper", padding="same")
    load_trunk(model, made_up_trunk, mean=HALF, std=HALF)
    result, expected = features(model, ours, 2 * IMAGE - 1), features(application_with(made_up_trunk), theirs, 2 * IMAGE - 1)
    np.testing.assert_allclose(result, expected, atol=2e-5 * np.abs(expected).max())


def test_another_normalisation_of_the_input_is_folded_into_the_stem(made_up_trunk):
    """Exactly, but for the last row and column, whose padding now has the mean colour instead of middle grey."""
    model = network(backbone="paper", padding="same")
    load_trunk(model, made_up_trunk, mean=MEAN, std=STD)
    result = features(model, "stem_norm", (IMAGE - MEAN) / STD)
    expected = features(application_with(made_up_trunk), "conv_bn", 2 * IMAGE - 1)
    difference = np.abs(result - expected)[0].max(axis=-1)
    assert difference[:-1, :-1].max() < 2e-5 * np.abs(expected).max()
    assert difference[-1].max() > 1e-3


def test_published_backbone_takes_what_fits_and_names_the_rest(made_up_trunk):
    model = network()
    fresh = {layer.name: [weight.copy() for weight in layer.get_weights()] for layer in model.layers}
    report = load_trunk(model, made_up_trunk)
    layers_left_out = {variable.split("/")[0] for variable, _ in report.left_out}
    blocks = [f"block_{index}_squeeze_{part}_conv" for index in (3, 4, 5) for part in ("reduce", "restore")]
    blocks += [f"block_13_{part}_{kind}" for part in ("expand", "depthwise", "project") for kind in ("conv", "norm")]
    blocks += ["block_13_squeeze_reduce_conv", "block_13_squeeze_restore_conv", "block_0_expand_conv", "block_0_expand_norm"]
    assert layers_left_out == set(blocks)
    assert "the file has no expanded_conv_expand/kernel" in str(report)
    assert "expanded_conv_13_expand/kernel is (1, 1, 160, 960) in the file" in str(report)
    for layer in model.layers:
        same = all(np.array_equal(old, new) for old, new in zip(fresh[layer.name], layer.get_weights(), strict=True))
        head = layer.name.startswith(("head", "attention", "heatmaps"))
        assert not layer.weights or same == (head or layer.name in layers_left_out), layer.name


def test_papers_backbone_takes_everything(made_up_trunk, made_up_arrays):
    report = load_trunk(network(backbone="paper"), made_up_trunk)
    assert (len(report.loaded), report.left_out, report.unused) == (len(made_up_arrays), [], [])


@pytest.mark.parametrize(
    ("name", "loaded", "padding"),
    [("mobilenet_v3_large_coco_detection", 214, "same"), ("mobilenet_v3_large_imagenet_finetuned", 262, "symmetric")],
)
def test_published_trunks_on_a_photo(shared_models, shared_data, name, loaded, padding):
    """All of a published file is taken, and its features are those of keras.applications, at every depth the file reaches."""
    path = shared_models / f"{name}.npz"
    model = network(backbone="paper", padding="same")
    report = load_trunk(model, path, mean=HALF, std=HALF)
    assert (len(report.loaded), len(report.unused)) == (loaded, 0)
    assert all("the file has no" in reason for _, reason in report.left_out)
    photo = cv2.imread(str(sorted((shared_data / "coco" / "val2017").glob("*.jpg"))[0]))
    image = cv2.resize(photo, SIZE[::-1], interpolation=cv2.INTER_AREA)[None, ..., ::-1] / 255
    expected = features(application_with(path), "expanded_conv_12_squeeze_excite_mul", 2 * image - 1)
    result = features(model, "block_12_squeeze_scale", 2 * image - 1)
    np.testing.assert_allclose(result, expected, atol=1e-4 * np.abs(expected).max())

    usual = network(backbone="paper", padding="same")
    load_trunk(usual, path)
    result = features(usual, "block_12_squeeze_scale", (image - MEAN) / STD)
    assert np.corrcoef(result.ravel(), expected.ravel())[0, 1] > 0.98  # not 1: the border's padding has another colour


def npz(arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no .npz file"),
        (npz({"something/kernel": np.ones((3, 3), "float32")}), "nothing in it fits"),
        (npz({"conv/kernel": np.full((3, 3, 3, 16), np.nan, "float32")}), "not finite"),
        (npz({"conv_bn/moving_variance": np.full(16, -1, "float32")}), "negative variance"),
    ],
)
def test_unusable_file_is_refused_and_changes_nothing(content, message, tmp_path, model):
    path = tmp_path / "trunk.npz"
    path.write_bytes(content)
    before = [weight.copy() for weight in model.get_weights()]
    with pytest.raises(KposeError, match=message) as error:
        load_trunk(model, path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_missing_file(tmp_path, model):
    with pytest.raises(KposeError, match="there is no trunk file"):
        load_trunk(model, tmp_path / "absent.npz")


def test_file_that_unpacks_to_too_much(made_up_trunk, monkeypatch, model):
    monkeypatch.setattr(trunk, "LARGEST_FILE_BYTES", 1 << 20)
    with pytest.raises(KposeError, match="unpacks to more than 1 MiB"):
        load_trunk(model, made_up_trunk)


def test_network_without_such_a_backbone(made_up_trunk):
    inputs = keras.Input((8, 8, 3))
    with pytest.raises(KposeError, match="has no MobileNetV3 backbone"):
        load_trunk(keras.Model(inputs, keras.layers.Conv2D(3, 1)(inputs)), made_up_trunk)
