"""Batch prediction: each picture once, whatever is killed on the way."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from kpose.checkpoint import ModelCard, load_model, save_model
from kpose.cli import main
from kpose.config import parse_config
from kpose.data import read_coco
from kpose.data.synthetic import write_synthetic_people
from kpose.data.tfrecords import write_tfrecords
from kpose.errors import KposeError
from kpose.files import files_within
from kpose.inference import BatchSettings, PoseEstimator, batch, predict_batch
from kpose.inference.batch_job import begin_job
from kpose.inference.batch_shard import open_estimator, predict_shard
from kpose.skeletons import COCO_17
from tests.inference.tiny_saved_model import write_saved_model


def write_network(path: Path, seed: int = 5) -> str:
    """A tiny untrained network whose heatmaps depend on the picture."""
    keras.utils.set_random_seed(seed)
    images = keras.Input((64, 48, 3))
    network = keras.Model(images, keras.layers.Conv2D(17, 5, strides=4, padding="same")(images))
    save_model(network, path, ModelCard.from_config(parse_config({"model": {"input_size": [64, 48]}})))
    return str(path)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> BatchSettings:
    return BatchSettings((write_network(tmp_path_factory.mktemp("network") / "tiny.keras"),), whole_image=True, flip=False)


def write_pictures(folder: Path, count: int) -> None:
    random = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number % 7}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), random.integers(0, 255, (40, 30, 3)).astype(np.uint8))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten pictures, two of them bad."""
    write_pictures(tmp_path / "photos", 10)
    (tmp_path / "photos" / "3" / "00003.jpg").write_bytes(b"no picture")
    whole = tmp_path / "photos" / "1" / "00001.jpg"
    whole.write_bytes(whole.read_bytes()[:300])
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    return tmp_path / "photos"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in this process: starting others takes seconds."""

    def run(begin: Any, numbers: Any, processes: int, on_steps: Any, on_done: Any) -> dict[int, str]:
        # Not `begin`, which sets up TensorFlow of a fresh process.
        job = begin.args[0]
        estimator = open_estimator(job)
        for number in numbers:
            predict_shard(job, number, estimator, on_steps)
            on_done(number)
        return {}

    monkeypatch.setattr(batch, "run_in_processes", run)


def rows_of(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for shard in sorted(output.glob("poses-*.jsonl")) for line in shard.read_text().splitlines()]


def bad_of(output: Path) -> dict[str, str]:
    return {row["image"]: row["reason"] for row in map(json.loads, (output / "bad_images.jsonl").read_text().splitlines())}


@pytest.mark.usefixtures("here")
def test_shards_hold_what_the_estimator_says_of_each_picture(photos, settings, tmp_path, capsys):
    summary = predict_batch(photos, tmp_path / "out", settings, shard_size=4, progress=False)
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.jpg"))
    good = [name for name in names if name not in ("3/00003.jpg", "1/00001.jpg")]
    rows = rows_of(tmp_path / "out")
    assert [row["image"] for row in rows] == good
    assert [path.name for path in summary.shards] == [f"poses-0000{number}-of-00003.jsonl" for number in range(3)]
    estimator = PoseEstimator(load_model(settings.weights[0]), flip=False, refinement=None)
    for row, (pose,) in zip(rows, estimator([photos / name for name in good]), strict=True):
        assert (row["height"], row["width"]) == (40, 30)
        np.testing.assert_allclose(row["people"][0]["keypoints"], pose.keypoints, atol=2e-3)
    bad = bad_of(tmp_path / "out")
    assert "neither a JPEG nor a PNG" in bad["3/00003.jpg"] and "damaged or cut off" in bad["1/00001.jpg"]
    assert (summary.images, summary.people, summary.bad) == (8, 8, 2)
    told = capsys.readouterr().out
    assert "8 people in 8 images, 2 bad images (bad_images.jsonl, the first is 1/00001.jpg)" in told and "images/s" in told
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["skeleton"]["joint_names"] == list(COCO_17.joint_names)
    assert manifest["settings"] == {"whole_image": True, "flip": False, "form": "jsonl", "batch_size": 32}


@pytest.mark.usefixtures("here")
def test_resuming_does_what_is_left_and_gives_the_same_bytes(photos, settings, tmp_path, capsys):
    output = tmp_path / "out"
    predict_batch(photos, output, settings, shard_size=3, progress=False)
    whole = {path.name: path.read_bytes() for path in output.glob("*.jsonl")}
    (output / "poses-00001-of-00004.jsonl").unlink()
    (output / "done" / "00002.json").unlink()
    (output / "poses-00003-of-00004.jsonl").write_text("cut off")
    # What comes later is not part of it, what has gone is bad.
    write_pictures(tmp_path / "photos", 12)
    with pytest.raises(KposeError, match="holds a prediction already; go on with it by --resume"):
        predict_batch(photos, output, settings, progress=False)
    (photos / "3" / "00003.jpg").write_bytes(b"no picture")
    (photos / "1" / "00001.jpg").write_bytes((photos / "1" / "00001.jpg").read_bytes()[:300])
    capsys.readouterr()
    predict_batch(photos, output, settings, progress=False, resume=True)
    assert "1 of 4 shards with 3 of 10 pictures are there already" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in output.glob("*.jsonl")} == whole
    predict_batch(photos, output, settings, progress=False, resume=True)
    assert "4 of 4 shards" in capsys.readouterr().out


@pytest.mark.usefixtures("here")
def test_resuming_with_another_network_or_setting_is_refused_in_one_line(photos, settings, tmp_path):
    output = tmp_path / "out"
    with pytest.raises(KposeError, match="holds no prediction to go on with"):
        predict_batch(photos, output, settings, resume=True)
    predict_batch(photos, output, settings, progress=False)
    other = replace(settings, weights=(write_network(tmp_path / "other" / "tiny.keras", seed=6),))
    for wrong, message in (
        (other, r"was begun with networks .*tiny.keras \(SHA-256 \w{16}\).*, now it is"),
        (replace(settings, flip=True), "was begun with settings {'flip': False}, now it is {'flip': True};"),
    ):
        with pytest.raises(KposeError, match=message) as error:
            predict_batch(photos, output, wrong, progress=False, resume=True)
        assert "\n" not in str(error.value)
    with pytest.raises(KposeError, match="was begun with source"):
        predict_batch(tmp_path, output, settings, progress=False, resume=True)


def test_a_worker_with_another_network_than_the_launcher_refuses(photos, settings, tmp_path):
    network = tmp_path / "tiny.keras"
    job = begin_job(photos, tmp_path / "out", replace(settings, weights=(write_network(network),)))
    write_network(network, seed=6)
    with pytest.raises(KposeError, match="tiny.keras is another file here than where the prediction began"):
        open_estimator(job)


@pytest.mark.usefixtures("here")
def test_boxes_and_parquet(photos, settings, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs PyArrow: pip install kpose[parquet]")
    boxes = {
        "0/00000.jpg": np.array([[1, 2, 20, 30], [5, 5, 10, 10]]),
        "00002.jpg": np.array([[0, 0, 9, 9]]),
        "4/00004.jpg": np.array([[99, 0, 9, 9]]),
    }
    for form in ("jsonl", "parquet"):
        predict_batch(photos, tmp_path / form, replace(settings, form=form), boxes, progress=False)
    rows = parquet.read_table(str(tmp_path / "parquet" / "poses-00000-of-00001.parquet")).to_pylist()
    expected = rows_of(tmp_path / "jsonl")
    assert [len(row["people"]) for row in rows] == [
        2 if row["image"] == "0/00000.jpg" else int(row["image"] == "2/00002.jpg") for row in rows
    ]
    assert len(rows) == len(expected) == 7
    for row, other in zip(rows, expected, strict=True):
        assert row["image"] == other["image"]
        for person, person_of_other in zip(row["people"], other["people"], strict=True):
            for key in ("keypoints", "score", "box"):
                np.testing.assert_allclose(person[key], person_of_other[key], rtol=1e-6)
    assert "lies outside of the picture" in bad_of(tmp_path / "parquet")["4/00004.jpg"]
    with pytest.raises(KposeError, match="the boxes name none of the pictures"):
        predict_batch(photos, tmp_path / "none", settings, {"x.jpg": np.array([[0, 0, 9, 9]])})


@pytest.mark.usefixtures("here")
def test_records_come_with_their_boxes_and_damaged_ones_are_bad(settings, tmp_path):
    write_synthetic_people(tmp_path / "people", 9, split="train2017", progress=False)
    annotations = tmp_path / "people" / "annotations" / "person_keypoints_train2017.json"
    people = read_coco(annotations, tmp_path / "people" / "train2017", COCO_17, for_training=True)
    records = tmp_path / "records"
    write_tfrecords(people, records, shards=2, progress=False)
    settings = replace(settings, whole_image=False)
    predict_batch(records / "people-*.tfrecord", tmp_path / "whole", settings, progress=False)
    rows = {row["image"]: row for row in rows_of(tmp_path / "whole")}
    assert rows.keys() == set(people.image_files)
    for image, file in enumerate(people.image_files):
        np.testing.assert_allclose([person["box"] for person in rows[file]["people"]], people.boxes[people.image_index == image], atol=1e-3)
    shard = records / "people-00000-of-00002.tfrecord"
    content = bytearray(shard.read_bytes())
    content[16 + int.from_bytes(content[:8], "little") + 60] ^= 255
    shard.write_bytes(content)
    summary = predict_batch(records / "people-*.tfrecord", tmp_path / "damaged", settings, progress=False)
    assert (summary.images, summary.bad) == (len(people.image_files) - 1, 1)
    assert bad_of(tmp_path / "damaged") == {f"{shard}, record 1": "the record is damaged: its checksum is wrong"}


@pytest.mark.usefixtures("here")
def test_pictures_networks_and_output_may_lie_in_another_file_system(photos, settings, tmp_path):
    predict_batch(photos, tmp_path / "local", settings, shard_size=4, progress=False)
    for path in photos.rglob("*.*"):
        target = f"ram://batch/photos/{path.relative_to(photos).as_posix()}"
        tf.io.gfile.makedirs(target.rpartition("/")[0])
        tf.io.gfile.copy(str(path), target, overwrite=True)
    tf.io.gfile.copy(settings.weights[0], "ram://batch/tiny.keras", overwrite=True)
    remote = replace(settings, weights=("ram://batch/tiny.keras",))
    predict_batch("ram://batch/photos", "ram://batch/out", remote, shard_size=4, progress=False)
    for shard in sorted((tmp_path / "local").glob("poses-*")):
        assert tf.io.gfile.GFile(f"ram://batch/out/{shard.name}", "rb").read() == shard.read_bytes()
    predict_batch("ram://batch/photos/*/*.jpg", "ram://batch/again", remote, progress=False)
    assert tf.io.gfile.exists("ram://batch/again/poses-00000-of-00001.jsonl")


def two_people(images: tf.Tensor) -> dict[str, tf.Tensor]:
    """Of three boxes two are of class 7."""
    return {
        "detection_boxes": tf.constant([[[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]]),
        "detection_scores": tf.constant([[0.9, 0.8, 0.7]]),
        "detection_classes": tf.constant([[7.0, 7.0, 1.0]]),
    }


@pytest.mark.usefixtures("here")
def test_a_saved_model_finds_the_people_wherever_it_lies(photos, settings, tmp_path):
    folder = write_saved_model(tmp_path / "detector", two_people)
    for name in files_within(folder):
        tf.io.gfile.makedirs(f"ram://batch_detector/detector/{name}".rpartition("/")[0])
        tf.io.gfile.copy(str(folder / name), f"ram://batch_detector/detector/{name}", overwrite=True)
    for place, detector in (("local", str(folder)), ("remote", "ram://batch_detector/detector")):
        found = replace(settings, detector=detector, person_class=7)
        predict_batch(photos, tmp_path / place, found, progress=False)
        boxes = [[person["box"] for person in row["people"]] for row in rows_of(tmp_path / place)]
        assert boxes == [[[0, 0, 30, 20], [0, 20, 30, 20]]] * 8
    # The same files elsewhere are the same detector; others are not.
    predict_batch(photos, tmp_path / "local", found, progress=False, resume=True)
    predict_batch(photos, tmp_path / "local", replace(found, detector=f"{folder}/"), progress=False, resume=True)
    (folder / "variables" / "more").write_bytes(b"other")
    with pytest.raises(KposeError, match=r"was begun with networks .*detector \(SHA-256 \w{16}\).*, now it is"):
        predict_batch(photos, tmp_path / "local", replace(found, detector=str(folder)), progress=False, resume=True)


@pytest.mark.parametrize(
    ("detector", "message"),
    [
        ("found.json", "found.json lists detections; give it as --boxes, or a detector that looks"),
        ("photos", "there is no SavedModel in .*photos: it has no saved_model.pb"),
        ("detector.pb", "detector.pb is no detector that kpose knows"),
        ("damaged.tflite", "damaged.tflite is not a TFLite file"),
    ],
)
def test_what_is_no_detector_is_refused_before_anything_is_written(photos, settings, tmp_path, detector, message):
    (tmp_path / "found.json").write_text("[]")
    (tmp_path / "damaged.tflite").write_bytes(b"no network")
    with pytest.raises(KposeError, match=message):
        predict_batch(photos, tmp_path / "out", replace(settings, detector=str(tmp_path / detector)))
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("here")
def test_two_networks_of_the_same_name_elsewhere_answer_together(photos, settings, tmp_path):
    pair = [write_network(tmp_path / name / "best.keras", seed) for name, seed in (("a", 5), ("b", 6))]
    remote = tuple(f"ram://batch_pair/{Path(file).parent.name}/best.keras" for file in pair)
    for file, target in zip(pair, remote, strict=True):
        tf.io.gfile.makedirs(target.rpartition("/")[0])
        tf.io.gfile.copy(file, target, overwrite=True)
    for place, weights in (("local", tuple(pair)), ("remote", remote)):
        predict_batch(photos, tmp_path / place, replace(settings, weights=weights), progress=False)
    (local,) = (tmp_path / "local").glob("poses-*")
    assert local.read_bytes() == (tmp_path / "remote" / local.name).read_bytes()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "there is no folder .*nowhere, or no picture"),
        ("nowhere/*.jpg", "no picture .* matches"),
        (".", "there is no folder|no picture"),
    ],
)
def test_sources_without_pictures_are_refused(tmp_path, settings, source, message):
    with pytest.raises(KposeError, match=message):
        predict_batch(tmp_path / source, tmp_path / "out", settings)
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "options",
    [
        (),
        pytest.param(("--runner=DirectRunner", "--direct_num_workers=2", "--direct_running_mode=multi_processing"), marks=pytest.mark.slow),
    ],
    ids=["one process", "two processes"],
)
def test_beam_writes_the_same_shards(photos, settings, tmp_path, options):
    pytest.importorskip("apache_beam", reason="needs Apache Beam: pip install kpose[beam]")
    predict_batch(photos, tmp_path / "local", settings, shard_size=3, progress=False)
    summary = predict_batch(photos, tmp_path / "beam", settings, shard_size=3, beam=options)
    assert (summary.images, summary.bad) == (8, 2)
    local, beam = ({path.name: path.read_bytes() for path in (tmp_path / name).glob("*.json*")} for name in ("local", "beam"))
    assert len(local) == 7 and local == beam
    (tmp_path / "beam" / "poses-00001-of-00004.jsonl").unlink()
    predict_batch(photos, tmp_path / "beam", settings, beam=options, resume=True)
    assert (tmp_path / "beam" / "poses-00001-of-00004.jsonl").read_bytes() == local["poses-00001-of-00004.jsonl"]


def require_all_once(output: Path, photos: Path, bad: set[str]) -> None:
    names = {path.relative_to(photos).as_posix() for path in photos.rglob("*.jpg")}
    counted = Counter([*(row["image"] for row in rows_of(output)), *bad_of(output)])
    assert set(counted) == names and set(counted.values()) == {1}
    assert set(bad_of(output)) == bad
    assert not [path for path in output.rglob("*") if ".partial" in path.name]


@pytest.mark.slow
def test_a_killed_worker_loses_nothing_and_doubles_nothing(settings, tmp_path, monkeypatch, capsys):
    photos = tmp_path / "photos"
    write_pictures(photos, 3000)
    (photos / "3" / "00010.jpg").write_bytes(b"no picture")
    killed: list[int] = []
    run = batch.run_in_processes

    def kill_one(begin: Any, numbers: Any, processes: int, on_steps: Any, on_done: Any) -> dict[int, str]:
        finished: list[int] = []

        def steps(count: int) -> None:
            # In the middle of a shard, after some were written.
            if len(finished) >= 3 and not killed:
                victim = multiprocessing.active_children()[0]
                victim.kill()
                killed.append(victim.pid)
            on_steps(count)

        def done(number: int) -> None:
            finished.append(number)
            on_done(number)

        return run(begin, numbers, processes, steps, done)

    monkeypatch.setattr(batch, "run_in_processes", kill_one)
    summary = predict_batch(photos, tmp_path / "out", settings, shard_size=100, workers=2, progress=False)
    assert killed and summary.images == 2999
    require_all_once(tmp_path / "out", photos, {"3/00010.jpg"})


@pytest.mark.slow
def test_a_killed_command_is_resumed(settings, tmp_path, capsys):
    photos, output = tmp_path / "photos", tmp_path / "out"
    write_pictures(photos, 3000)
    command = ["predict-batch", str(photos), "--output", str(output), "--weights", *settings.weights, "--whole-image", "--no-flip"]
    arguments = [*command, "--workers", "2", "--shard-size", "100"]
    process = subprocess.Popen([sys.executable, "-m", "kpose.cli", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while process.poll() is None and len(list(output.glob("done/*.json"))) < 3:
        os.sched_yield()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was still at work"
    assert main([*arguments, "--resume"]) == 0
    assert "shards with" in capsys.readouterr().out
    require_all_once(output, photos, set())
