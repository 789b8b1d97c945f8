"""Training by configuration: the same as plain `model.fit`, resumable, careful with what it finds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml

import kpose.training.fit
from kpose.checkpoint import ModelCard, load_model, read_card, save_model
from kpose.config import Config, parse_config
from kpose.data import training_data
from kpose.errors import KposeError
from kpose.files import read_number_table
from kpose.losses import HeatmapMeanSquaredError, HeatmapWeightingLoss
from kpose.skeletons import COCO_17
from kpose.training import TrainingResult, make_loss, make_model, make_optimizer, train
from kpose.weights.torch_names import PUBLISHED, Names
from tests.training.tiny_training import tiny_config
from tests.weights.torch_files import write_zip


def tiny_network(name: str, num_keypoints: int, input_size: tuple[int, int], **options: Any) -> keras.Model:
    """Stands for a real network, which takes half a minute to compile; with batch normalisation, for its state matters."""
    inputs = keras.Input((*input_size, 3))
    x = keras.layers.Conv2D(8, 3, strides=4, padding="same", activation="relu")(inputs)
    x = keras.layers.BatchNormalization()(x)
    return keras.Model(inputs, keras.layers.Conv2D(num_keypoints, 1)(x), name=name)


@pytest.fixture(autouse=True)
def _tiny_network(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "slow" not in request.keywords:
        monkeypatch.setattr(kpose.training.fit, "build_model", tiny_network)


def make_config(people: Path, output: Path) -> Config:
    return tiny_config(people, output, training={"steps_per_epoch": 2, "warmup_steps": 2, "save_every_minutes": 10})


@pytest.fixture
def config(people: Path, tmp_path: Path) -> Config:
    return make_config(people, tmp_path / "run")


@pytest.fixture(scope="module")
def trained(people: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """A whole training; several tests look at what it left behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kpose.training.fit, "build_model", tiny_network)
        return train(make_config(people, tmp_path_factory.mktemp("trained") / "run"))


def changed(config: Config, **training: Any) -> Config:
    return config.model_copy(update={"training": config.training.model_copy(update=training)})


def assert_equal_weights(model: keras.Model, other: keras.Model) -> None:
    for mine, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_leaves_checkpoints_log_curve_and_settings(trained: TrainingResult) -> None:
    names = {path.name for path in trained.folder.iterdir()}
    assert names == {"best.keras", "last.keras", "training.csv", "curve.png", "config.yaml", "states", "tensorboard"}
    rows = read_number_table(trained.folder / "training.csv")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert ["AP" in row for row in rows] == [False, True, True], "scored every second epoch and after the last"
    assert rows[-1]["learning_rate"] == pytest.approx(1e-3), "dropped after two epochs"
    assert trained.metrics["AP"] == rows[-1]["AP"]
    assert list((trained.folder / "tensorboard").rglob("events*"))


def test_the_checkpoint_explains_itself(trained: TrainingResult) -> None:
    card = read_card(trained.folder / "last.keras")
    assert card.make_skeleton().num_joints == 17
    assert card.training["epoch"] == 3
    assert "person_keypoints_train2017.json" in card.data
    assert_equal_weights(load_model(trained.folder / "last.keras"), trained.model)


def test_gives_what_plain_fit_gives(trained: TrainingResult, config: Config) -> None:
    model = make_model(config)
    data = training_data(config, model)
    model.compile(make_optimizer(config, data.steps_per_epoch), make_loss(config), jit_compile=False)
    model.fit(data.dataset, epochs=3, steps_per_epoch=data.steps_per_epoch, verbose=0, shuffle=False)
    assert_equal_weights(model, trained.model)


def test_a_resumed_training_ends_as_an_uninterrupted_one(trained: TrainingResult, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: Any, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(keras.callbacks.TensorBoard, "on_epoch_end", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    assert read_card(config.output / "last.keras").training["epoch"] == 2
    resumed = train(config, resume=True)
    assert_equal_weights(resumed.model, trained.model)
    mine, theirs = (read_number_table(run / "training.csv") for run in (config.output, trained.folder))
    assert [row["epoch"] for row in mine] == [1, 2, 3]
    assert [row["loss"] for row in mine] == pytest.approx([row["loss"] for row in theirs])


def test_a_finished_training_is_not_overwritten(config: Config) -> None:
    train(changed(config, epochs=1))
    with pytest.raises(KposeError, match="already holds a training; add --resume"):
        train(changed(config, epochs=1))
    with pytest.raises(KposeError, match="has finished its 1 epochs"):
        train(changed(config, epochs=1), resume=True)


def test_resume_needs_a_checkpoint(config: Config) -> None:
    with pytest.raises(KposeError, match=r"there is no state in .*states to resume from"):
        train(config, resume=True)


def test_resume_with_other_data_is_refused(config: Config) -> None:
    train(changed(config, epochs=1))
    with pytest.raises(
        KposeError, match=r"step-000000002\.npz is of a training with steps_per_epoch 2, the configuration and its data make it 1"
    ):
        train(changed(config, steps_per_epoch=1), resume=True)


def test_a_checkpoint_of_another_skeleton_is_refused(config: Config, tmp_path: Path) -> None:
    start = tmp_path / "start.keras"
    other = config.model_copy(update={"skeleton": "mpii_16"})
    save_model(tiny_network("tiny", 16, (64, 64)), start, ModelCard.from_config(other))
    with pytest.raises(KposeError, match=r"skeleton 'mpii_16' \(16 joints\), the configuration asks for 'coco_17' \(17 joints\)"):
        make_model(config.model_copy(update={"model": config.model.model_copy(update={"initial_weights": start})}))


def test_initial_weights_are_taken(config: Config, tmp_path: Path) -> None:
    start = tmp_path / "start.keras"
    network = tiny_network("tiny", 17, (64, 64))
    save_model(network, start, ModelCard.from_config(config))
    model = make_model(config.model_copy(update={"model": config.model.model_copy(update={"initial_weights": start})}))
    assert_equal_weights(model, network)


def named_network(name: str, num_keypoints: int, input_size: tuple[int, int], **options: Any) -> keras.Model:
    """The tiny network with a stem, which has the two layers with state, and a head."""
    model = tiny_network(name, num_keypoints, input_size)
    for layer, label in zip((layer for layer in model.layers if layer.weights), ("stem_conv", "stem_norm", "head"), strict=True):
        layer.name = label
    return model


def starting_from(config: Config, **model: Any) -> Config:
    return config.model_copy(update={"model": config.model.model_copy(update=model)})


def test_frozen_layers_keep_weights_and_statistics(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kpose.training.fit, "build_model", named_network)
    config = starting_from(changed(config, epochs=1), frozen=["stem"])
    before = {layer.name: layer.get_weights() for layer in make_model(config).layers}
    model = train(config).model
    after = {layer.name: layer.get_weights() for layer in model.layers}
    for name in ("stem_conv", "stem_norm"):
        for mine, theirs in zip(after[name], before[name], strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert all((mine != theirs).any() for mine, theirs in zip(after["head"], before["head"], strict=True))
    # What was learned with frozen layers starts a training without them.
    start = starting_from(config, frozen=[], initial_weights=config.output / "last.keras")
    thawed = make_model(start)
    assert_equal_weights(thawed, model)
    assert len(thawed.trainable_weights) == 6 and len(model.trainable_weights) == 2


def test_a_training_with_frozen_layers_is_resumed(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kpose.training.fit, "build_model", named_network)
    config = starting_from(config, frozen=["stem"])
    train(changed(config, epochs=1))
    half_way = load_model(config.output / "last.keras")
    resumed = train(changed(config, epochs=2), resume=True).model
    for name, same in (("stem_norm", True), ("head", False)):
        pairs = zip(resumed.get_layer(name).get_weights(), half_way.get_layer(name).get_weights(), strict=True)
        assert all(np.array_equal(mine, theirs) == same for mine, theirs in pairs), name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ste", "model.frozen: tiny has no layer 'ste'; did you mean 'stem'"),
        ("head_", "has no layer 'head_'"),
        ("trunk", "no layer 'trunk'"),
    ],
)
def test_layers_to_freeze_must_exist(config: Config, monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    monkeypatch.setattr(kpose.training.fit, "build_model", lambda name, *arguments, **options: named_network("tiny", *arguments))
    with pytest.raises(KposeError) as error:
        make_model(starting_from(config, frozen=[name]))
    assert message in str(error.value)


def test_initial_weights_may_come_from_crops_of_another_size(config: Config, tmp_path: Path) -> None:
    start = tmp_path / "start.keras"
    network = tiny_network("tiny", 17, (128, 96))
    larger = starting_from(config, input_size=(128, 96))
    larger = larger.model_copy(update={"data": larger.data.model_copy(update={"box_padding": 1.5})})
    save_model(network, start, ModelCard.from_config(larger))
    model = make_model(starting_from(config, initial_weights=start))
    assert model.input_shape == (None, 64, 64, 3)
    assert_equal_weights(model, network)
    # To resume, or to score, the size must be the same.
    with pytest.raises(KposeError, match=r"trained with model.input_size = \(128, 96\), the configuration says \(64, 64\)"):
        ModelCard.from_config(larger).require_match(config, start)


def test_initial_weights_may_come_from_maps_that_are_made_otherwise(config: Config, tmp_path: Path) -> None:
    start = tmp_path / "start.keras"
    network = tiny_network("tiny", 17, (64, 64))
    card = ModelCard.from_config(config)
    save_model(network, start, card)
    codec = {"center": "exact", "alignment": "unbiased", "decoding": "dark"}
    finer = parse_config(config.model_dump() | {"codec": codec})
    assert_equal_weights(make_model(starting_from(finer, initial_weights=start)), network)
    # To resume, or to score, the maps must be the same; offsets are other maps altogether.
    with pytest.raises(KposeError, match="was trained with codec"):
        card.require_match(finer, start)
    with pytest.raises(KposeError, match="was trained with codec = name='gaussian'"):
        card.require_match(parse_config({"codec": {"name": "offset"}, "loss": {"name": "offset"}}), start, start=True)


def test_initial_weights_of_another_network_or_normalisation_are_refused(config: Config, tmp_path: Path) -> None:
    start = tmp_path / "start.keras"
    inputs = keras.Input((64, 64, 3))
    save_model(keras.Model(inputs, keras.layers.Conv2D(17, 4, strides=4)(inputs)), start, ModelCard.from_config(config))
    with pytest.raises(KposeError, match=r"start\.keras holds another network"):
        make_model(starting_from(config, initial_weights=start))
    darker = config.model_copy(update={"data": config.data.model_copy(update={"mean": (0.1, 0.1, 0.1)})})
    save_model(tiny_network("tiny", 17, (64, 64)), start, ModelCard.from_config(darker))
    with pytest.raises(KposeError, match=r"trained with data\.mean = \(0\.1, 0\.1, 0\.1\)"):
        make_model(starting_from(config, initial_weights=start))


def test_a_broken_picture_is_skipped_and_reported(config: Config, people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for picture in (people / "train2017").iterdir():
        (folder / picture.name).write_bytes(picture.read_bytes())
    (folder / "000000000001.jpg").write_bytes(b"\xff\xd8\xff no picture")
    part = config.data.train[0].model_copy(update={"images": folder})
    data = config.data.model_copy(update={"train": [part], "validation": None})
    train(changed(config, epochs=1).model_copy(update={"data": data}))
    assert "000000000001.jpg" in capsys.readouterr().err


def test_an_empty_dataset_is_refused(config: Config, tmp_path: Path) -> None:
    empty = tmp_path / "empty.json"
    content = json.loads(Path(config.data.train[0].annotations or "").read_text())
    empty.write_text(json.dumps(content | {"annotations": []}))
    part = config.data.train[0].model_copy(update={"annotations": empty})
    with pytest.raises(KposeError, match=r"empty\.json"):
        train(config.model_copy(update={"data": config.data.model_copy(update={"train": [part]})}))


@pytest.mark.parametrize(("name", "kind"), [("mean_squared_error", HeatmapMeanSquaredError), ("heatmap_weighting", HeatmapWeightingLoss)])
def test_losses_by_name(name: str, kind: type) -> None:
    assert isinstance(make_loss(parse_config({"loss": {"name": name}})), kind)


def test_a_trunk_comes_from_a_published_checkpoint(people, tmp_path, monkeypatch, capsys):
    """A `.pth` with the classifier of its own, as PyTorch's trunks have it."""
    names = Names(((r"conv2d", "conv1"), (r"batch_normalization", "bn1")), head="conv2d_1")

    def named(*arguments: Any, **options: Any) -> keras.Model:
        model = tiny_network(*arguments, **options)
        for layer, name in zip(
            (layer for layer in model.layers if layer.weights), ("conv2d", "batch_normalization", "conv2d_1"), strict=True
        ):
            layer.name = name
        return model

    monkeypatch.setattr(kpose.training.fit, "build_model", named)
    monkeypatch.setitem(PUBLISHED, "lite_mobilenet_v3", (names,))
    tensors = {"conv1.weight": np.full((8, 3, 3, 3), 0.5, "float32"), "conv1.bias": np.zeros(8, "float32"), "fc.weight": np.ones((10, 8))}
    tensors |= {f"bn1.{name}": np.full(8, 2.0, "float32") for name in ("weight", "bias", "running_mean", "running_var")}
    config = make_config(people, tmp_path)
    path = write_zip(tmp_path / "trunk.pth", {name: tensor.astype("float32") for name, tensor in tensors.items()})
    model = make_model(config.model_copy(update={"model": config.model.model_copy(update={"trunk_weights": path})}))
    np.testing.assert_array_equal(model.layers[1].kernel, np.full((3, 3, 3, 8), 0.5))
    assert "trunk: 6 tensors" in (printed := capsys.readouterr().out) and "fresh: conv2d_1; not used: fc.weight" in printed


def test_every_stage_of_a_network_is_supervised_and_the_last_one_scored(people, tmp_path, monkeypatch):
    def two_stages(name: str, num_keypoints: int, input_size: tuple[int, int], **options: Any) -> keras.Model:
        model = tiny_network(name, num_keypoints, input_size)
        return keras.Model(model.input, [model.output, keras.layers.Conv2D(num_keypoints, 1, name="last")(model.output)], name=name)

    monkeypatch.setattr(kpose.training.fit, "build_model", two_stages)
    config = make_config(people, tmp_path)
    before = [weight.numpy() for weight in make_model(config).trainable_weights]
    result = train(config)
    assert all((weight.numpy() != start).any() for weight, start in zip(result.model.trainable_weights, before, strict=True))
    heatmaps = training_data(config, result.model).dataset.as_numpy_iterator().next()[1]
    assert [stage.shape for stage in heatmaps] == [(4, 16, 16, 17)] * 2
    assert "AP" in result.metrics and (tmp_path / "best.keras").exists()


@pytest.mark.slow
def test_the_lightweight_network_learns(config: Config) -> None:
    learned = train(changed(config, epochs=12, steps_per_epoch=4, validate_every=0))
    losses = [row["loss"] for row in read_number_table(learned.folder / "training.csv")]
    assert losses[-1] < 0.8 * losses[0]


def test_without_a_validation_set_no_network_is_called_the_best(config: Config) -> None:
    alone = config.model_copy(update={"data": config.data.model_copy(update={"validation": None})})
    result = train(changed(alone, epochs=1, steps_per_epoch=1))
    assert result.metrics == {}
    assert (result.folder / "last.keras").exists()
    assert not (result.folder / "best.keras").exists()


def test_a_skeleton_that_cannot_be_scored_is_refused_before_training(config: Config, tmp_path: Path) -> None:
    skeleton = tmp_path / "unscored.yaml"
    skeleton.write_text(yaml.safe_dump({"name": "unscored", "joint_names": list(COCO_17.joint_names)}))
    with pytest.raises(KposeError, match=r"'unscored' has no 'oks_sigmas'"):
        train(config.model_copy(update={"skeleton": str(skeleton)}))
