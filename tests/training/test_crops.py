"""Training on crop shards: the samples are those of the tf.data pipeline, the result comes back, on every backend that is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import kpose.training.crops
import kpose.weights.trained
from kpose import geometry
from kpose.checkpoint import load_model
from kpose.cli import main
from kpose.codecs import GaussianCodec
from kpose.config import AugmentationConfig, Config, parse_config
from kpose.data import augmentation
from kpose.data.crop_shards import CropShards, read_crop_shards, write_crop_shards
from kpose.data.crops import load_crop, preparation_from_config
from kpose.data.datasets import training_instances
from kpose.data.shares import CYCLE
from kpose.errors import KposeError
from kpose.skeletons import COCO_17
from kpose.training import crop_batches
from kpose.training.crop_batches import UPPER_BODY_PROBABILITY, CropStream, DevicePixels, Draws, draw, plan, stored_frame, stored_source
from kpose.training.crops import STATE, read_state, settings_of, train_on_crops
from kpose.weight_files import load_weights, save_weights, split_arrays
from kpose.weights.trained import import_trained

EVERYTHING = {
    "rotation_degrees": 40,
    "truncation_probability": 0.5,
    "half_body_probability": 0.6,
    "half_body_minimum_joints": 4,
    "cutout_probability": 0.5,
    "brightness": 0.2,
    "contrast": 0.3,
    "saturation": 0.4,
    "channel_gain": 0.2,
}
UNIFORM = {"rotation_distribution": "uniform", "scale_distribution": "uniform"}


def tiny_network(name: str, num_keypoints: int, input_size: tuple[int, int], **options: Any) -> keras.Model:
    inputs = keras.Input((*input_size, 3), name="image")
    x = keras.layers.Conv2D(8, 3, strides=4, padding="same", activation="relu", name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    return keras.Model(inputs, keras.layers.Conv2D(num_keypoints, 1, name="heatmaps", dtype="float32")(x), name=name)


@pytest.fixture
def _tiny_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (kpose.training.crops, kpose.weights.trained):
        monkeypatch.setattr(module, "build_model", tiny_network)


def make_config(people: Path, **sections: Any) -> Config:
    entries = [
        {
            "name": name,
            "annotations": f"{people}/annotations/person_keypoints_{name}2017.json",
            "images": f"{people}/{name}2017",
            "weight": w,
        }
        for name, w in (("train", 0.7), ("val", 0.3))
    ]
    values = {
        "model": {"input_size": [64, 64]},
        "data": {"train": entries},
        "training": {"epochs": 3, "batch_size": 4, "steps_per_epoch": 4, "learning_rate": 1e-2, "warmup_steps": 2, "drop_epochs": [2]},
    }
    return parse_config(values | sections)


@pytest.fixture(scope="module")
def folder(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crops") / "crops"
    write_crop_shards(make_config(people), folder)
    return folder


@pytest.fixture(scope="module")
def crops(folder: Path) -> CropShards:
    return read_crop_shards(folder)


# --- the samples are those of the tf.data pipeline -----------------------------------------------------------------------------------


def tensorflow_draws(seed: tf.Tensor, people: int, config: AugmentationConfig) -> Draws:
    """The random numbers that `kpose.data.augmentation` draws from a seed."""

    def stream(operation: int) -> tf.Tensor:
        return augmentation._stream(seed, operation)

    def uniform(shape: list[int], operation: int, low: float = 0.0) -> np.ndarray:
        return tf.random.stateless_uniform(shape, stream(operation), low, 1.0).numpy()

    turn, turns = tf.random.split(stream(augmentation._ROTATION))
    return Draws(
        truncation=uniform([people, 3], augmentation._TRUNCATION),
        half_body=uniform([2, people], augmentation._HALF_BODY).T,
        scale=augmentation._draw([people], stream(augmentation._SCALE), config.scale_distribution).numpy(),
        turn=augmentation._draw([people], turn, config.rotation_distribution).numpy(),
        turns=tf.random.stateless_uniform([people], turns).numpy(),
        flips=uniform([people], augmentation._FLIP),
        colour=uniform([people, 3], augmentation._COLOUR, -1.0),
        gain=uniform([people, 3], augmentation._GAIN, -1.0),
        cutout=uniform([people, 5], augmentation._CUTOUT),
    )


def random_people(random: np.random.Generator, people: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and keypoints, of which some are not annotated; of the last two people hardly any."""
    boxes = np.concatenate([random.uniform(-20, 200, (people, 2)), random.uniform(10, 200, (people, 2))], axis=1).astype(np.float32)
    points = boxes[:, None, :2] + boxes[:, None, 2:] * random.uniform(size=(people, 17, 2))
    visibility = random.choice([0, 1, 2], (people, 17), p=[0.3, 0.2, 0.5])
    visibility[-1], visibility[-2, 1:] = 0, 0
    return boxes, np.concatenate([points, visibility[..., None]], axis=-1).astype(np.float32)


def everywhere(people: int) -> tf.Tensor:
    """A frame that cuts off nothing."""
    return tf.constant([[-9999, -9999, 9999, 9999]] * people)


@pytest.mark.parametrize("alignment", ["classic", "unbiased"])
@pytest.mark.parametrize("changes", [{}, EVERYTHING, EVERYTHING | UNIFORM], ids=["default", "everything", "uniform"])
def test_plans_are_those_of_the_pipeline(changes: dict[str, Any], alignment: geometry.Alignment) -> None:
    boxes, keypoints = random_people(np.random.default_rng(3), 400)
    config, size, seed = AugmentationConfig(**changes), (64, 48), tf.constant([5, 7], tf.int64)
    expected = augmentation.random_plan(tf.constant(boxes), tf.constant(keypoints), seed, config, COCO_17, size, 1.25)
    matrix = geometry.crop_matrix(expected["center"], expected["size"], size, expected["rotation"], expected["mirrored"], alignment)
    found = plan(boxes, keypoints, tensorflow_draws(seed, 400, config), config, COCO_17, size, 1.25, alignment)
    np.testing.assert_allclose(found.matrix, matrix, rtol=1e-4, atol=2e-3)
    np.testing.assert_allclose(found.keypoints, geometry.transform_points(expected["keypoints"], matrix), atol=5e-3)
    for name in ("frame", "colour", "cutout"):
        if name in expected:
            np.testing.assert_allclose(getattr(found, name), expected[name], atol=1e-4)


def test_half_bodies_are_as_frequent_as_in_the_pipeline() -> None:
    assert UPPER_BODY_PROBABILITY == augmentation._UPPER_BODY_PROBABILITY


@pytest.mark.parametrize("center", ["rounded", "exact"])
@pytest.mark.parametrize("alignment", ["classic", "unbiased"])
def test_targets_are_those_of_the_codec(center: Any, alignment: geometry.Alignment) -> None:
    codec = GaussianCodec((64, 48), (16, 12), 2.0, alignment, center)
    random = np.random.default_rng(1)
    keypoints = np.concatenate([random.uniform(-60, 120, (50, 9, 2)), random.integers(0, 3, (50, 9, 1))], axis=-1).astype(np.float32)
    keypoints[0, :3, 0], keypoints[1, 0, 1] = [np.nan, np.inf, -np.inf], np.nan
    expected, found = codec.encode(tf.constant(keypoints)), crop_batches.encode(tf.constant(keypoints), codec)
    for theirs, ours in zip(expected, found, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert 0 < np.mean(found[1]) < 0.6


def test_pixels_are_those_of_the_warp(crops: CropShards) -> None:
    pixels = crops.decode()
    random = np.random.default_rng(2)
    draws = draw(random, len(crops), AugmentationConfig())
    matrix = plan(crops.boxes, crops.keypoints, draws, AugmentationConfig(), crops.skeleton, (64, 48), 1.6, "classic").matrix
    source = stored_source(matrix, crops.shrink)
    found = crop_batches.cut_crops(DevicePixels.of(pixels), tf.range(len(crops)), tf.constant(source), everywhere(len(crops)), (64, 48))
    for person in range(len(crops)):
        expected = geometry.warp_image(pixels.picture(person)[None], geometry.invert_affine(source[person])[None], (64, 48))[0]
        np.testing.assert_allclose(found[person], expected, atol=0.1)


@pytest.mark.parametrize("places", [1e9, -1e9])
def test_a_crop_far_outside_is_black(places: float, crops: CropShards) -> None:
    source = tf.constant([[[1.0, 0, places], [0, 1.0, places]]])
    assert not np.any(crop_batches.cut_crops(DevicePixels.of(crops.decode()), tf.constant([0]), source, everywhere(1), (8, 8)))


@pytest.mark.parametrize("content", ["mean_colour", "another_person"])
def test_whole_samples_are_those_of_the_pipeline(people: Path, crops: CropShards, content: str) -> None:
    config = make_config(people, augmentation={**EVERYTHING, "cutout_content": content})
    instances, preparation = training_instances(config), preparation_from_config(config)
    seed, size, count = tf.constant([1, 2], tf.int64), (64, 64), len(crops)
    boxes, keypoints = tf.constant(instances.boxes), tf.constant(instances.keypoints)
    theirs = augmentation.random_plan(boxes, keypoints, seed, config.augmentation, COCO_17, size, 1.25)
    matrix = preparation.matrix(theirs)
    heatmaps, weights = preparation.codec.encode(geometry.transform_points(theirs["keypoints"], matrix))
    draws = tensorflow_draws(seed, count, config.augmentation)
    ours = plan(crops.boxes, crops.keypoints, draws, config.augmentation, COCO_17, size, 1.25, "classic")
    batch = {
        "person": tf.range(count),
        "source": tf.constant(stored_source(ours.matrix, crops.shrink)),
        "frame": tf.constant(stored_frame(ours.frame, crops.shrink)),
        **{name: tf.constant(getattr(ours, name)) for name in ("keypoints", "colour", "cutout")},
    }
    image, found, mask = crop_batches.network_batch(DevicePixels.of(crops.decode()), batch, config, [preparation.codec])
    np.testing.assert_allclose(found[0], heatmaps, atol=1e-5)
    np.testing.assert_array_equal(mask[0], weights)
    files = [tf.io.read_file(instances.image_files[index]) for index in instances.image_index]
    cutouts = theirs["cutout"] if content == "mean_colour" else [None] * count
    loaded = zip(files, matrix, theirs["colour"], cutouts, theirs["frame"], strict=True)
    expected = tf.stack([load_crop(file, rows, preparation, *changes) for file, rows, *changes in loaded])
    if content == "another_person":
        expected = augmentation.paste_other_people(expected, theirs["cutout"])
    differences = np.mean(255 * np.abs((image - expected) * np.array(preparation.std, np.float32)), axis=(1, 2, 3))
    # Grey levels. Of photos that are stored as they are nothing is lost; parts of a photo are a second JPEG.
    whole = (crops.sizes == 120).all(axis=1)
    assert 5 < np.count_nonzero(whole) < count - 5
    assert content == "another_person" or differences[whole].max() < 0.01
    assert differences.mean() < 1


# --- who comes, and when -------------------------------------------------------------------------------------------------------------


def test_the_stream_is_a_function_of_seed_and_position(people: Path, crops: CropShards) -> None:
    config = make_config(people, training={"batch_size": 300}, seed=4)
    stream, other = CropStream(crops, config), CropStream(crops, config)
    batches = [stream.batch(step).columns() for step in range(8)]
    for step in (7, 3):
        for name, column in other.batch(step).columns().items():
            np.testing.assert_array_equal(column, batches[step][name])
    assert not np.array_equal(CropStream(crops, make_config(people, seed=5)).people(0), stream.people(0))
    assert not np.array_equal(stream.people(1), stream.people(0))


def test_each_dataset_has_its_share_and_everybody_comes_equally_often(people: Path, crops: CropShards) -> None:
    stream = CropStream(crops, make_config(people))
    seen = np.bincount(np.concatenate([stream.people(block) for block in range(3)]), minlength=len(crops))
    first = crops.datasets[0].people
    assert seen[:first].sum() == 3 * CYCLE * 7 // 10
    assert np.ptp(seen[:first]) <= 1 and np.ptp(seen[first:]) <= 1


# --- training and its files ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_tiny_network")
def test_an_interrupted_training_ends_as_one_without(people: Path, folder: Path, tmp_path: Path) -> None:
    config = make_config(people)
    whole = train_on_crops(folder, tmp_path / "whole", config=config)
    part = train_on_crops(folder, tmp_path / "parts", config=config, minutes=1e-9)
    assert (whole.step, part.step) == (12, 0)
    halfway = config.model_copy(update={"training": config.training.model_copy(update={"epochs": 2})})
    train_on_crops(folder, tmp_path / "parts", config=halfway, resume=True, log_seconds=1e9)
    assert len(list((tmp_path / "parts").glob("weights-*.npz"))) == 1
    rest = train_on_crops(folder, tmp_path / "parts", config=config, resume=True, log_seconds=1e9)
    assert rest.step == 12
    for mine, theirs in zip(rest.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)
    lines = [json.loads(line) for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [8, 12]
    assert lines[-1]["learning_rate"] == pytest.approx(1e-3) and lines[-1]["crops_per_second"] > 0


@pytest.mark.usefixtures("_tiny_network")
def test_weights_come_back_as_a_checkpoint(people: Path, folder: Path, tmp_path: Path) -> None:
    result = train_on_crops(folder, tmp_path / "run", config=make_config(people))
    assert main(["import-weights", str(tmp_path / "run"), "--output", str(tmp_path / "back.keras")]) == 0
    back = load_model(tmp_path / "back.keras")
    for mine, theirs in zip(back.get_weights(), result.model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert back.card.training == {"step": 12, "planned_steps": 12, "backend": "tensorflow", "seed": 0}
    assert back.card.data.startswith("crops: ") and "of train (70.0%)" in back.card.data
    assert back.card.input_size == (64, 64)
    result.model.save_weights(tmp_path / "one.weights.h5")
    with pytest.raises(KposeError, match="does not say what it was trained for"):
        import_trained(tmp_path / "one.weights.h5", tmp_path / "other.keras")
    import_trained(tmp_path / "one.weights.h5", tmp_path / "other.keras", make_config(people))
    start = train_on_crops(folder, tmp_path / "next", config=make_config(people), minutes=0, initial_weights=tmp_path / "other.keras")
    for mine, theirs in zip(start.model.get_weights(), result.model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.usefixtures("_tiny_network")
def test_half_precision_learns_too(people: Path, folder: Path, tmp_path: Path) -> None:
    result = train_on_crops(folder, tmp_path / "run", config=make_config(people), bfloat16=True)
    assert keras.config.dtype_policy().name == "float32"
    assert result.model.get_layer("conv").compute_dtype == "bfloat16"
    assert {weight.dtype for weight in result.model.weights} == {"float32"}
    assert np.isfinite(result.loss)


@pytest.mark.usefixtures("_tiny_network")
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / STATE).unlink(), "to resume from"),
        (lambda run: (run / STATE).write_text("{}"), "is damaged"),
        (lambda run: next(run.glob("weights-*")).unlink(), "there are no weights"),
        (lambda run: next(run.glob("optimizer-*")).write_bytes(b"?"), "no .npz file of plain numbers"),
        (lambda run: (run / STATE).write_text((run / STATE).read_text().replace('"step": 12', '"step": 13')), "its optimizer another"),
        (
            lambda run: (run / STATE).write_text((run / STATE).read_text().replace('"weights-', '"../weights-')),
            "no .npz file of its folder",
        ),
        (lambda run: (run / STATE).write_text((run / STATE).read_text().replace('"crops": "', '"crops": "0')), "trained on other crops"),
        (lambda run: None, "has finished its 12 steps"),
    ],
)
def test_what_cannot_be_resumed_is_refused(spoil: Any, message: str, people: Path, folder: Path, tmp_path: Path) -> None:
    config, run = make_config(people), tmp_path / "run"
    train_on_crops(folder, run, config=config)
    with pytest.raises(KposeError, match="already holds a training"):
        train_on_crops(folder, run, config=config)
    spoil(run)
    with pytest.raises(KposeError, match=message):
        train_on_crops(folder, run, config=config, resume=True)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.epoch=3"], "have no 'training.epoch'; did you mean 'epochs'?"),
        (["trainin.epochs=3"], "have no 'trainin.epochs'"),
        (["training.epochs=none"], "'training.epochs' is 'none'"),
        (["codec.name=offset", "loss.name=offset"], "knows no codec 'offset'"),
        (["training.weight_averaging=0.9"], "knows no training.weight_averaging \\(it is 0.9\\); leave it out"),
        (["skeleton=mpii_16"], "annotated for skeleton 'coco_17'"),
    ],
)
@pytest.mark.usefixtures("_tiny_network")
def test_settings_that_do_not_fit_are_refused(overrides: list[str], message: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(KposeError, match=message.replace("?", r"\?")):
        train_on_crops(folder, tmp_path / "run", overrides)


def test_settings_without_pydantic_have_the_same_attributes(crops: CropShards, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = ["training.batch_size=7", "model.input_size=[32, 64]", "model.options.attention=se"]
    expected = settings_of(crops.settings, overrides)
    monkeypatch.setitem(sys.modules, "pydantic", None)
    monkeypatch.delitem(sys.modules, "kpose.config")
    found = settings_of(crops.settings, overrides)
    assert not isinstance(found, Config)
    assert found.model.options == {"attention": "se"} and found.seed == expected.seed
    for section in ("model", "codec", "augmentation", "loss", "training"):
        for name, value in getattr(expected, section):
            plain = list(value) if isinstance(value, tuple) else value
            assert getattr(getattr(found, section), name) == plain


def test_arrays_are_split_in_order() -> None:
    arrays = [np.full(size, number) for number, size in enumerate((10, 10, 50, 1))]
    groups = split_arrays(arrays, 20 * 8)
    assert [sorted(group) for group in groups] == [["000000", "000001"], ["000002"], ["000003"]]


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    small, large = tiny_network("a", 3, (32, 32)), tiny_network("a", 4, (32, 32))
    save_weights(small, tmp_path / "small.npz")
    small.save_weights(tmp_path / "small.weights.h5")
    for name in ("small.npz", "small.weights.h5"):
        load_weights(small, tmp_path / name)
        with pytest.raises(KposeError, match="another network|does not fit"):
            load_weights(large, tmp_path / name)
    with pytest.raises(KposeError, match="ends in .npz"):
        save_weights(small, tmp_path / "small.h5")
    with pytest.raises(KposeError, match="there are no weights"):
        load_weights(small, tmp_path / "gone.npz")
    (tmp_path / "small.bin").write_bytes(b"")
    with pytest.raises(KposeError, match="is no file of weights"):
        load_weights(small, tmp_path / "small.bin")


# --- other backends, on a machine that lacks the rest --------------------------------------------------------------------------------

ELSEWHERE = """
import importlib.machinery, sys

HIDDEN = {"tensorflow", "pydantic", "cv2", "tqdm", "pycocotools", "matplotlib", "safetensors"}


class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else super().find_spec(name, path, target)


sys.meta_path[:] = [Finder if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]
from kpose.cli import main

status = main(sys.argv[1:])
assert not HIDDEN & set(sys.modules)
sys.exit(status)
"""


def mean_loss(run: Path) -> float:
    """Of all steps, whatever the clock put into a line."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return float(np.average([line["loss"] for line in lines], weights=np.diff([0, *(line["step"] for line in lines)])))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_another_backend_trains_alike_without_tensorflow_opencv_and_pydantic(
    backend: str, people: Path, folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip(backend, reason=f"needs {backend}, which kpose does not")
    pytest.importorskip("PIL", reason="needs Pillow in OpenCV's place")
    settings = ["model.options.attention=none", "training.learning_rate=0.001", "training.epochs=1"]
    config = settings_of(read_crop_shards(folder).settings, settings)
    start = keras.utils.set_random_seed(0) or kpose.training.crops.build_model("lite_mobilenet_v3", 17, (64, 64), attention="none")
    save_weights(start, tmp_path / "start.npz")
    arguments = [
        "train-on-crops",
        "--crops",
        str(folder),
        "--output",
        str(tmp_path / backend),
        "--initial-weights",
        str(tmp_path / "start.npz"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, *arguments, *settings],
        env={**os.environ, "KERAS_BACKEND": backend, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert read_state(tmp_path / backend)["backend"] == backend
    mine = train_on_crops(folder, tmp_path / "tensorflow", config=config, initial_weights=tmp_path / "start.npz")
    assert mean_loss(tmp_path / backend) == pytest.approx(mean_loss(tmp_path / "tensorflow"), rel=0.01)
    import_trained(tmp_path / backend, tmp_path / "back.keras")
    back = load_model(tmp_path / "back.keras")
    with np.load(tmp_path / backend / read_state(tmp_path / backend)["weights"]) as carried:
        for weight in back.weights:
            np.testing.assert_array_equal(weight, carried[weight.path])
    # Adam makes much of gradients that are next to nothing: single weights may part, the way of all together may not.
    moved, apart = (
        np.linalg.norm([np.linalg.norm(a - b) for a, b in zip(mine.model.get_weights(), other.get_weights(), strict=True)])
        for other in (start, back)
    )
    assert apart < 0.3 * moved
