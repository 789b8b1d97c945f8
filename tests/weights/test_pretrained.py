"""The networks that come with kpose: by name, unharmed, small, and with a card that says what one must know."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest

import kpose
from kpose.checkpoint import ModelCard, load_model, read_card, save_model
from kpose.cli import main
from kpose.config import parse_config
from kpose.data import read_coco
from kpose.errors import KposeError
from kpose.inference import PoseEstimator, read_image
from kpose.skeletons import COCO_17
from kpose.weights import pretrained
from kpose.weights.release import FACTS, release
from kpose.yaml_files import format_yaml

NAME = "lite_mobilenet_v3_256x192"
SHIPPED = pretrained.FOLDER
FILLED = {
    "data": "two photos, CC0-1.0",
    "licence": "CC0-1.0",
    "intended_use": "tests",
    "score": {"AP": 0.5},
    "score_interval": {"AP": [0.4, 0.6]},
    "protocol": "annotated boxes",
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """What a training leaves, of a network that answers at random."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((256, 192, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(17, 4, strides=4)(inputs))
    card = ModelCard.from_config(parse_config({}), data="written by the training", training={"epoch": 3})
    save_model(model, tmp_path / "last.keras", card)
    return tmp_path / "last.keras"


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    path = tmp_path / "facts.yaml"
    path.write_text(format_yaml(FILLED))
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for released networks, instead of the package's own."""
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "released")
    return tmp_path / "released"


@pytest.fixture
def released(folder: Path, checkpoint: Path, facts: Path) -> Path:
    (path,) = release(checkpoint, facts)
    return path


def test_a_name_is_all_that_is_needed(released: Path, checkpoint: Path) -> None:
    assert kpose.list_pretrained() == [NAME]
    assert kpose.pretrained_path(NAME) == released
    card = load_model(NAME).card
    assert card == read_card(NAME)
    assert (card.data, card.intended_use, card.score_interval) == ("two photos, CC0-1.0", "tests", {"AP": (0.4, 0.6)})
    assert card.training == {"epoch": 3}
    picture = np.random.default_rng(0).integers(0, 255, (80, 60, 3), np.uint8)
    by_name, by_path = (PoseEstimator.from_pretrained(source)(picture, [[5, 5, 40, 60]]) for source in (NAME, checkpoint))
    np.testing.assert_array_equal(by_name[0][0].keypoints, by_path[0][0].keypoints)


def test_predict_needs_nothing_but_a_photo(released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2.imwrite(str(tmp_path / "photo.jpg"), np.full((60, 80, 3), 90, np.uint8))
    assert main(["predict", str(tmp_path / "photo.jpg"), "--output", str(tmp_path / "out")]) == 0
    assert "1 people in 1 pictures" in capsys.readouterr().out
    assert (tmp_path / "out" / "photo.jpg").is_file()


def test_a_file_wins_over_a_name(released: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).mkdir()
    assert pretrained.find_checkpoint(NAME) == released, "a folder is no checkpoint"
    (tmp_path / NAME).rmdir()
    shutil.copy(checkpoint, tmp_path / NAME)
    assert pretrained.find_checkpoint(NAME) == Path(NAME)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("lite_mobilenet_v3_256x129", f"nor a trained network of that name; did you mean {NAME!r}?"),
        (f"{NAME}.keras", f"there is no checkpoint {NAME}.keras; did you mean {NAME!r}?"),
        ("resnet", f"there is no checkpoint resnet, nor a trained network of that name; kpose comes with {NAME}"),
        ("gone.keras", "there is no checkpoint gone.keras"),
        (f"runs/{NAME}", f"there is no checkpoint runs/{NAME}"),
        (Path("runs/gone.keras"), "there is no checkpoint runs/gone.keras"),
        ("", "there is no checkpoint ., nor a trained network"),
    ],
)
def test_what_is_neither_file_nor_name_is_refused(released: Path, source: str | Path, message: str) -> None:
    for read in (load_model, read_card, PoseEstimator.from_pretrained):
        with pytest.raises(KposeError, match=re.escape(message) + ("$" if "gone" in message else "")):
            read(source)


def test_without_any_release_there_is_none(folder: Path, checkpoint: Path) -> None:
    assert kpose.list_pretrained() == []
    assert load_model(checkpoint).card.name == "lite_mobilenet_v3"
    with pytest.raises(KposeError, match="kpose comes with none"):
        load_model(NAME)
    with pytest.raises(KposeError, match="there are: none"):
        kpose.pretrained_path(NAME)


def test_a_network_whose_file_is_absent_is_not_listed(released: Path) -> None:
    released.unlink()
    assert kpose.list_pretrained() == []
    with pytest.raises(KposeError, match=f"no trained network named {NAME!r}"):
        kpose.pretrained_path(NAME)


def test_a_damaged_file_is_refused(released: Path) -> None:
    content = bytearray(released.read_bytes())
    content[len(content) // 2] ^= 1
    released.write_bytes(content)
    with pytest.raises(KposeError, match=r"is not the file that was released.*install kpose anew"):
        load_model(NAME)


@pytest.mark.parametrize("line", ["", "no hash", f"{'0' * 64}  ../secret.keras", f"{'0' * 64} one_space.keras", f"{'g' * 64}  a.keras"])
def test_a_damaged_list_is_refused(released: Path, line: str) -> None:
    with (released.parent / pretrained.CHECKSUMS).open("a") as checksums:
        checksums.write(f"{line}\n")
    with pytest.raises(KposeError, match="SHA256SUMS is damaged"):
        kpose.list_pretrained()


def test_kinds(released: Path) -> None:
    with pytest.raises(KposeError, match=f"of {NAME} no 'int8' comes with kpose, only keras"):
        kpose.pretrained_path(NAME, kind="int8")
    with pytest.raises(KposeError, match="no kind 'pth'"):
        kpose.pretrained_path(NAME, kind="pth")
    tflite = released.with_name(f"{NAME}_int8.tflite")
    tflite.write_bytes(b"a network")
    with (released.parent / pretrained.CHECKSUMS).open("a") as checksums:
        checksums.write(f"{hashlib.sha256(b'a network').hexdigest()}  {tflite.name}\n")
    assert kpose.pretrained_path(NAME, kind="int8") == tflite
    assert kpose.list_pretrained() == [NAME]


def test_a_release_leaves_nothing_of_the_former_one(released: Path, checkpoint: Path, facts: Path) -> None:
    """TFLite files of another training than the `.keras` beside them would be a trap."""
    stale, other = released.with_name(f"{NAME}_int8.tflite"), released.with_name("other_64x48.keras")
    checksums = released.parent / pretrained.CHECKSUMS
    for path in (stale, other):
        path.write_bytes(b"a network")
        with checksums.open("a") as lines:
            lines.write(f"{hashlib.sha256(b'a network').hexdigest()}  {path.name}\n")
    before = released.read_bytes()
    assert release(checkpoint, facts) == [released]
    assert released.read_bytes() == before
    assert sorted(path.name for path in released.parent.iterdir()) == [pretrained.CHECKSUMS, released.name, other.name]
    assert sorted(pretrained.read_checksums()) == [released.name, other.name]


def test_tflite_files_are_of_the_same_network(folder: Path, checkpoint: Path, facts: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="kpose[lite] runs and quantises TFLite files")
    pytest.importorskip("ai_edge_quantizer", reason="kpose[lite] runs and quantises TFLite files")
    from kpose.export import TFLiteRunner

    samples = np.random.default_rng(0).integers(0, 256, (4, 256, 192, 3)).astype(np.float32)
    written = release(checkpoint, facts, samples)
    assert written == [kpose.pretrained_path(NAME, kind) for kind in ("keras", "fp16", "int8")]
    assert sorted(path.name for path in folder.iterdir()) == sorted([pretrained.CHECKSUMS, *(path.name for path in written)])
    picture = np.random.default_rng(0).integers(0, 255, (80, 60, 3), np.uint8)
    runner = TFLiteRunner.from_pretrained(NAME, kind="fp16")
    assert runner.cards[0] == read_card(NAME)
    found = [estimator(picture, [[5, 5, 40, 60]])[0][0].keypoints for estimator in (runner, PoseEstimator.from_pretrained(NAME))]
    # Float16 may exchange two nearly equal maxima of these random maps, not all of them.
    assert np.median(np.abs(found[0] - found[1])) < 0.01
    assert release(checkpoint, facts) == written[:1]
    assert kpose.list_pretrained() == [NAME]
    assert not written[1].exists() and not written[2].exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"licence": ""}, "does not say licence; a network is not passed on without"),
        ({"score": None, "protocol": None}, "does not say score, protocol"),
        ({"licens": "CC0-1.0"}, "a card has no 'licens' to be filled in; did you mean 'licence'?"),
        ({"input_size": [64, 48]}, "a card has no 'input_size' to be filled in"),
        ({"score": {"AP": 0.5, "AR": 0.6}}, "score and score_interval must be of the same metrics"),
        ({"score_interval": {"AP": "wide"}}, r"score_interval\.AP: "),
        ({"score_interval": ["AP"], "score": ["AP"]}, "score: Input should be a valid dictionary"),
    ],
    ids=str,
)
def test_an_incomplete_card_is_not_released(folder: Path, checkpoint: Path, facts: Path, change: dict, message: str) -> None:
    facts.write_text(format_yaml({**FILLED, **change}))
    with pytest.raises(KposeError, match=message):
        release(checkpoint, facts)
    assert kpose.list_pretrained() == []


def test_facts_must_be_named(folder: Path, checkpoint: Path, facts: Path) -> None:
    facts.write_text("- research only\n")
    with pytest.raises(KposeError, match="must map data, licence"):
        release(checkpoint, facts)


def test_the_names_are_known_without_keras() -> None:
    """Whoever runs a TFLite file on a small device does not wait for TensorFlow."""
    program = "import sys, kpose; kpose.list_pretrained(); print('keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# --- what is really in the package ----------------------------------------------------------------------------------------------------

RELEASED = kpose.list_pretrained()
needs_a_release = pytest.mark.skipif(not RELEASED, reason="no trained network is released yet")


@needs_a_release
def test_the_default_is_there() -> None:
    assert pretrained.DEFAULT in RELEASED


@needs_a_release
def test_every_file_is_listed_and_every_listed_file_is_there() -> None:
    assert {path.name for path in SHIPPED.iterdir()} == {pretrained.CHECKSUMS, *pretrained.read_checksums()}


@pytest.mark.parametrize("name", RELEASED)
def test_a_shipped_network_is_small_unharmed_and_explains_itself(name: str) -> None:
    path = kpose.pretrained_path(name)
    assert path.stat().st_size <= 8e6
    card = read_card(name)
    assert name == f"{card.name}_{card.input_size[0]}x{card.input_size[1]}"
    assert all(getattr(card, fact) for fact in FACTS)
    for metric, (low, high) in card.score_interval.items():
        assert low <= card.score[metric] <= high


@pytest.mark.parametrize("name", RELEASED)
def test_half_precision_hardly_changes_the_heatmaps_of_real_people(name: str, shared_data: Path, tmp_path: Path) -> None:
    """The weights of the training lie within float16's rounding of the shipped ones: drawn from there, rounded again, compared."""
    trained = load_model(name)
    generator = np.random.default_rng(3)
    for weight in trained.weights:
        if len(weight.shape) >= 2:
            values = weight.numpy()
            # float16 has 11 significant bits: rounding moves a value by up to 2^-11 of itself.
            weight.assign(values * (1 + generator.uniform(-1, 1, values.shape) * 2.0**-11))
    save_model(trained, tmp_path / "half.keras", trained.card, half_precision=True)
    rounded = load_model(tmp_path / "half.keras")
    assert any((mine.numpy() != theirs.numpy()).any() for mine, theirs in zip(rounded.weights, trained.weights, strict=True))
    coco = shared_data / "coco"
    annotations = coco / "annotations" / "person_keypoints_val2017.json"
    people = read_coco(annotations, coco / "val2017", COCO_17, for_training=False, progress=False)
    estimator = PoseEstimator(trained)
    crops = []
    for person in range(8):
        image = read_image(people.image_files[people.image_index[person]])
        (preparation,) = estimator.test.preparations
        (matrices,) = preparation.views(people.boxes[[person]], (0.0,), (1.0,))
        crops.append(estimator._crops(image, matrices, preparation))
    before, after = (model.predict_on_batch(np.concatenate(crops)) for model in (trained, rounded))
    assert np.abs(after - before).max() < 1e-3 * np.ptp(before)


@pytest.mark.slow
def test_a_wheel_carries_them(repository: Path, tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77", reason="builds a wheel, without a network, by the setuptools at hand")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(repository / name, tmp_path / name)
    shutil.copytree(repository / "kpose", tmp_path / "kpose", ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "wheels", "."]
    subprocess.run(build, cwd=tmp_path, check=True, env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    (wheel,) = (tmp_path / "wheels").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        for path in SHIPPED.iterdir():
            assert archive.read(f"kpose/weights/released/{path.name}") == path.read_bytes()
