"""Checkpoints: whole or not at all, self-explaining, hostile until checked."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from kpose.checkpoint import CARD_NAME, HALVED_KERNEL_VALUES, ModelCard, load_model, read_card, save_model
from kpose.config import parse_config
from kpose.errors import KposeError


@pytest.fixture
def card() -> ModelCard:
    return ModelCard.from_config(parse_config({"model": {"input_size": [64, 64]}}), data="two photos", licence="CC0-1.0")


@pytest.fixture
def model() -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, keras.layers.Conv2D(17, 1, name="heatmaps")(inputs))


def rewrite(path: Path, entry: str, content: bytes | None) -> None:
    """Replace (or, with None, remove) an entry of a checkpoint."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries.pop(entry, None)
    if content is not None:
        entries[entry] = content
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def test_network_and_card_come_back(tmp_path: Path, model: keras.Model, card: ModelCard) -> None:
    save_model(model, tmp_path / "pose.keras", card)
    restored = load_model(tmp_path / "pose.keras")
    image = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(restored.predict_on_batch(image), model.predict_on_batch(image))
    assert restored.card == card
    assert restored.card.make_skeleton().joint_names[0] == "nose"


def test_plain_keras_reads_the_file_too(tmp_path: Path, model: keras.Model, card: ModelCard) -> None:
    save_model(model, tmp_path / "pose.keras", card)
    assert keras.saving.load_model(tmp_path / "pose.keras").count_params() == model.count_params()


def test_optimizer_state_comes_back(tmp_path: Path, model: keras.Model, card: ModelCard) -> None:
    model.compile("adam", "mse")
    model.train_on_batch(np.ones((1, 8, 8, 3)), np.ones((1, 8, 8, 17)))
    save_model(model, tmp_path / "pose.keras", card)
    restored = load_model(tmp_path / "pose.keras", compile=True)
    for mine, theirs in zip(restored.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())


def test_an_interrupt_leaves_the_former_file(tmp_path: Path, model: keras.Model, card: ModelCard, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pose.keras"
    save_model(model, path, card)
    before = path.read_bytes()

    def interrupted(_model: keras.Model, target: Path) -> None:
        Path(target).write_bytes(b"half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(keras.saving, "save_model", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_model(model, path, card)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["pose.keras"]


FULL_DISK = """
import resource, signal, sys
import keras, numpy as np
from kpose.checkpoint import ModelCard, save_model
from kpose.config import parse_config
from kpose.errors import KposeError

card = ModelCard.from_config(parse_config({}))
def network(width):
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, keras.layers.Conv2D(width, 3)(inputs))
save_model(network(8), sys.argv[1], card)
# The system refuses to write more than this to any file, as a full disk would.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_model(network(4000), sys.argv[1], card)
except KposeError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "pose.keras"
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=False)
    assert f"cannot write {path}" in done.stdout, done.stderr
    assert "the former file is untouched" in done.stdout
    assert load_model(path).output_shape[-1] == 8
    assert [file.name for file in tmp_path.iterdir()] == ["pose.keras"]


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_a_truncated_file_is_refused_in_one_line(tmp_path: Path, model: keras.Model, card: ModelCard, kept: float) -> None:
    path = tmp_path / "pose.keras"
    save_model(model, path, card)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept if kept > 1 else kept * len(data))])
    with pytest.raises(KposeError, match="truncated or not a .keras file") as refusal:
        load_model(path)
    assert "\n" not in str(refusal.value)


def test_damaged_weights_are_refused(tmp_path: Path, model: keras.Model, card: ModelCard) -> None:
    path = tmp_path / "pose.keras"
    save_model(model, path, card)
    rewrite(path, "model.weights.h5", b"not HDF5")
    with pytest.raises(KposeError, match="damaged"):
        load_model(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KposeError, match=r"there is no checkpoint .*gone\.keras"):
        load_model(tmp_path / "gone.keras")


def test_a_file_without_card_is_refused(tmp_path: Path, model: keras.Model) -> None:
    model.save(tmp_path / "plain.keras")
    with pytest.raises(KposeError, match=r"no card\.json inside"):
        load_model(tmp_path / "plain.keras")


@pytest.mark.parametrize(
    ("field", "value"),
    [("input_size", "large"), ("input_size", [256, 10**9]), ("mean", [0, 0, float("nan")]), ("std", [0.2, 0.0, 0.2]), ("box_padding", -1)],
)
def test_an_invalid_card_names_the_field(tmp_path: Path, model: keras.Model, card: ModelCard, field: str, value: object) -> None:
    path = tmp_path / "pose.keras"
    save_model(model, path, card)
    rewrite(path, CARD_NAME, json.dumps(card.model_dump(mode="json") | {field: value}).encode())
    with pytest.raises(KposeError, match=f"its card is not valid: {field}"):
        read_card(path)


def test_an_oversized_entry_is_refused_before_it_is_read(tmp_path: Path, model: keras.Model, card: ModelCard) -> None:
    path = tmp_path / "pose.keras"
    save_model(model, path, card)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", b" " * (2 << 20))
    with pytest.raises(KposeError, match=r"metadata\.json inside claims 2097152 bytes"):
        read_card(path)


def test_foreign_classes_are_refused(tmp_path: Path, model: keras.Model, card: ModelCard) -> None:
    path = tmp_path / "pose.keras"
    save_model(model, path, card)
    rewrite(path, "config.json", json.dumps({"module": "os", "class_name": "system", "config": {}, "registered_name": None}).encode())
    with pytest.raises(KposeError, match="asks for the class 'system' of 'os'"):
        load_model(path)


def test_a_lambda_is_refused(tmp_path: Path, card: ModelCard) -> None:
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1)(inputs))
    save_model(model, tmp_path / "pose.keras", card)
    with pytest.raises(KposeError):
        load_model(tmp_path / "pose.keras")


def test_the_name_must_end_in_keras(tmp_path: Path, model: keras.Model, card: ModelCard) -> None:
    with pytest.raises(KposeError, match=r"ends in \.keras"):
        save_model(model, tmp_path / "pose.h5", card)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"skeleton": "mpii_16"}, r"skeleton 'coco_17' \(17 joints\), the configuration asks for 'mpii_16' \(16 joints\)"),
        ({"model": {"input_size": [64, 96]}}, r"model\.input_size = \(64, 64\), the configuration says \(64, 96\)"),
        ({"codec": {"sigma": 3}}, "codec = "),
        ({"data": {"box_padding": 1.1}}, r"data\.box_padding = 1\.25"),
    ],
)
def test_a_configuration_for_another_checkpoint_is_refused(card: ModelCard, change: dict, message: str) -> None:
    config = parse_config({"model": {"input_size": [64, 64]}} | change)
    with pytest.raises(KposeError, match=message):
        card.require_match(config, "pose.keras")


@pytest.fixture
def large_model() -> keras.Model:
    """A kernel that is halved, one that is not, normalisation, and training state."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(64, 3, padding="same", name="small")(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Conv2D(128, 3, padding="same", name="large")(x)
    model = keras.Model(inputs, keras.layers.Conv2D(17, 1)(x))
    model.compile("adam", "mse")
    model.train_on_batch(np.ones((1, 8, 8, 3)), np.ones((1, 8, 8, 17)))
    return model


def test_half_precision_rounds_large_kernels_and_nothing_else(tmp_path: Path, large_model: keras.Model, card: ModelCard) -> None:
    path = tmp_path / "pose.keras"
    save_model(large_model, path, card, half_precision=True)
    restored, by_keras = load_model(path), keras.saving.load_model(path)
    assert restored.card == card
    rounded = []
    for mine, plain, original in zip(restored.weights, by_keras.weights, large_model.weights, strict=True):
        values = original.numpy()
        if values.size >= HALVED_KERNEL_VALUES:
            rounded.append(original.path)
            assert (values.astype(np.float16) != values).any(), "nothing there to be rounded"
            values = values.astype(np.float16).astype(np.float32)
        assert mine.dtype == "float32"
        np.testing.assert_array_equal(mine.numpy(), values)
        np.testing.assert_array_equal(plain.numpy(), values)
    assert rounded == ["large/kernel"]


def test_half_precision_leaves_the_training_state_behind(tmp_path: Path, large_model: keras.Model, card: ModelCard) -> None:
    save_model(large_model, tmp_path / "whole.keras", card)
    save_model(large_model, tmp_path / "half.keras", card, half_precision=True)
    whole, half = ((tmp_path / name).stat().st_size for name in ("whole.keras", "half.keras"))
    assert half < whole / 4  # three float32 of every weight, against mostly one float16
    assert load_model(tmp_path / "whole.keras", compile=True).compiled
    assert not load_model(tmp_path / "half.keras", compile=True).compiled


def test_half_precision_gives_the_same_bytes_again(tmp_path: Path, large_model: keras.Model, card: ModelCard) -> None:
    """Whoever releases a checkpoint anew changes nothing in version control."""
    save_model(large_model, tmp_path / "last.keras", card)
    first, second = tmp_path / "first.keras", tmp_path / "second.keras"
    for path in (first, second):
        save_model(load_model(tmp_path / "last.keras"), path, card, half_precision=True)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("value", [7e4, float("inf"), float("nan")])
def test_a_kernel_beyond_float16_is_refused(tmp_path: Path, large_model: keras.Model, card: ModelCard, value: float) -> None:
    kernel = large_model.get_layer("large").kernel.numpy()
    kernel[0, 0, 0, 0] = value
    large_model.get_layer("large").kernel.assign(kernel)
    path = tmp_path / "pose.keras"
    path.write_bytes(b"the former file")
    with pytest.raises(KposeError, match=r"cannot save .*pose\.keras in half precision: .* beyond 65504"):
        save_model(large_model, path, card, half_precision=True)
    assert path.read_bytes() == b"the former file"
    assert [file.name for file in tmp_path.iterdir()] == ["pose.keras"]
    save_model(large_model, path, card)
