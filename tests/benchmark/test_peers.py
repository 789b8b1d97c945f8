"""Networks side by side: the score is that of `kpose evaluate`, for MoveNet, too."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from kpose import save_model
from kpose.benchmark import benchmark_peers, peers
from kpose.checkpoint import ModelCard
from kpose.config import Config, parse_config
from kpose.data import validation_sets
from kpose.errors import KposeError
from kpose.evaluation import evaluate
from kpose.export import convert_tflite
from kpose.skeletons import COCO_17, LSP_14
from tests.inference.tiny_tflite import bright_box, write_tflite

pytest.importorskip("ai_edge_litert", reason="needs LiteRT, of the extra `lite`")

FAR = COCO_17.index("right_hip")


def on_the_bright_spot(images: tf.Tensor) -> tf.Tensor:
    """A MoveNet that finds every joint in the middle of what is bright; its scores rise from joint to joint."""
    top, left, bottom, right = tf.unstack(bright_box(images, 100))
    y, x = (top + bottom) / 2 - 0.5 / images.shape[1], (left + right) / 2 - 0.5 / images.shape[2]
    return tf.stack([tf.fill([17], y), tf.fill([17], x), 0.5 + tf.range(17.0) / 100], axis=-1)[None, None]


def bright_people(images: tf.Tensor) -> list[tf.Tensor]:
    """A detector that finds one person: a wide box round what is bright."""
    box = bright_box(images, 160) + np.float32([-0.2, -0.2, 0.2, 0.2])
    nothing = 0.0 * box[0]
    return [box[None, None], tf.zeros([1, 1]) + nothing, tf.constant([[0.75]]) + nothing, tf.reshape(1.0 + nothing, [1])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three photos of one bright dot each, where all joints of a person are, but the right hip; a network, a MoveNet and a detector."""
    folder = tmp_path_factory.mktemp("peers")
    images, people = [], []
    for number, (x, y) in enumerate([(80, 60), (120, 90), (60, 120)], start=1):
        picture = np.zeros((200, 200, 3), np.uint8)
        cv2.circle(picture, (x, y), 5, (255, 255, 255), -1)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
        keypoints = np.tile([float(x), float(y), 2.0], (17, 1))
        keypoints[FAR, 0] += 60
        person = {"id": number, "image_id": number, "category_id": 1, "bbox": [x - 40, y - 50, 80, 100], "area": 8000.0, "iscrowd": 0}
        people.append(person | {"keypoints": keypoints.ravel().tolist(), "num_keypoints": 17})
        images.append({"id": number, "file_name": f"{number}.png", "height": 200, "width": 200})
    category = {"id": 1, "name": "person", "keypoints": list(COCO_17.joint_names)}
    (folder / "truth.json").write_text(json.dumps({"images": images, "annotations": people, "categories": [category]}))
    save_network(folder / "last.keras")
    convert_tflite(folder / "last.keras", folder / "phone.tflite")
    write_tflite(folder / "finder.tflite", on_the_bright_spot, (1, 96, 96, 3))
    write_tflite(folder / "detector.tflite", bright_people, (1, 64, 64, 3))
    return folder


def save_network(path: Path, skeleton: str = "coco_17") -> None:
    """An untrained network whose crops are smaller than the configuration's."""
    joints = {"coco_17": 17, "lsp_14": 14}[skeleton]
    keras.utils.set_random_seed(5)
    images = keras.Input((64, 48, 3))
    model = keras.Model(images, keras.layers.Conv2D(joints, 5, strides=4, padding="same")(images))
    config = parse_config({"model": {"input_size": [64, 48]}, "skeleton": skeleton})
    save_model(model, path, ModelCard.from_config(config))


def config_of(folder: Path, *sets: dict[str, Any], **settings: Any) -> Config:
    entry = {"annotations": str(folder / "truth.json"), "images": str(folder)}
    return parse_config({"data": {"validation": [entry | one for one in (sets or ({},))]}, **settings})


@pytest.fixture(scope="module")
def compared(folder, tmp_path_factory) -> tuple[dict[str, Any], str, Path]:
    """The report, the tables and the folder of a comparison with everything."""
    output = tmp_path_factory.mktemp("output")
    config = config_of(folder, {"name": "spots"}, {"name": "torsos", "protocol": "pck"})
    movenet, detector = folder / "finder.tflite", folder / "detector.tflite"
    with pytest.MonkeyPatch.context() as patch:
        # Its card names no network that kpose could build and count.
        patch.setattr(peers.Peer, "costs", lambda peer: (10**6, 10**8) if peer.card else (None, None))
        benchmark_peers(config, [folder / "last.keras"], [folder / "phone.tflite"], [movenet], detector, output, rounds=1, resamples=20)
    return json.loads((output / peers.REPORT).read_text()), (output / peers.TABLES).read_text(), output


def score_of(report: dict[str, Any], network: str, flip: bool, name: str, boxes: str = "annotated") -> dict[str, Any]:
    wanted = (network, flip, name, boxes)
    return next(one for one in report["scores"] if (one["network"], one["flip"], one["set"], one["boxes"]) == wanted)


@pytest.mark.parametrize("flip", [False, True])
def test_a_movenet_that_finds_all_joints_but_one(compared, flip):
    report, *_ = compared
    spots = score_of(report, "finder", flip, "spots")
    # 16 of 17 joints: an OKS of 0.94, above all thresholds but 0.95.
    assert spots["metrics"]["AP"] == spots["metrics"]["AR"] == pytest.approx(0.9)
    assert spots["intervals"]["AP"] == {"value": pytest.approx(0.9), "low": pytest.approx(0.9), "high": pytest.approx(0.9)}
    assert spots["joints"]["right_hip"] < 0.1 < 0.98 < spots["joints"]["nose"]
    torsos = score_of(report, "finder", flip, "torsos")
    assert torsos["metrics"]["PCK"] == pytest.approx(100 * 16 / 17)
    assert torsos["joints"]["right_hip"] == 0 and torsos["joints"]["left_hip"] == 100
    assert score_of(report, "finder", flip, "spots", "detected")["metrics"]["AP"] == pytest.approx(0.9)


@pytest.mark.parametrize("flip", [False, True])
def test_our_network_scores_as_evaluate_says(compared, folder, flip):
    report, _, output = compared
    for boxes, detections in (("annotated", {}), ("detected", {"detections": str(output / "spots_detections.json")})):
        config = config_of(folder, {"name": "spots"} | detections, model={"input_size": [64, 48]}, evaluation={"flip": flip})
        expected = evaluate(keras_network(folder), validation_sets(config)[0], config, progress=False).metrics
        found = score_of(report, "last", flip, "spots", boxes)["metrics"]
        assert {name: value for name, value in found.items() if value is not None} == {
            name: pytest.approx(value) for name, value in expected.items() if not np.isnan(value)
        }


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("name", ["spots", "torsos"])
def test_a_tflite_file_scores_as_the_network_it_was_made_of(compared, name, flip):
    report, *_ = compared
    ours, phone = (score_of(report, network, flip, name) for network in ("last", "phone"))
    assert phone["joints"] == {joint: pytest.approx(value, abs=1e-3) for joint, value in ours["joints"].items()}
    assert any(ours["joints"].values())


def keras_network(folder: Path) -> keras.Model:
    from kpose import load_model

    return load_model(folder / "last.keras")


def test_differences_are_to_the_first_movenet_asked_the_same_way(compared):
    report, *_ = compared
    assert report["reference"] == "finder"
    for one in report["scores"]:
        if one["network"] == "finder":
            assert one["differences"] is None
        else:
            other = score_of(report, "finder", one["flip"], one["set"], one["boxes"])
            for name, difference in one["differences"].items():
                if difference["value"] is not None:
                    assert difference["value"] == pytest.approx(one["metrics"][name] - other["metrics"][name])
                    assert difference["low"] <= difference["value"] <= difference["high"]


def test_files_are_measured_and_described(compared, folder):
    report, *_ = compared
    ours, phone, movenet = report["networks"]
    assert (ours["file"], ours["parameters"], ours["milliseconds"]) == ("last.keras", 10**6, [])
    assert movenet["bytes"] == (folder / "finder.tflite").stat().st_size and movenet["parameters"] is None
    for timed in (phone, movenet):
        parts = [(entry["threads"], entry["of"]) for entry in timed["milliseconds"]]
        assert parts == [(1, "network"), (1, "person"), (2, "network"), (2, "person")]
        assert all(entry["median"] > 0 and len(entry["rounds"]) == 1 for entry in timed["milliseconds"])
    assert str(folder) not in json.dumps(report), "files are named without their folders"


def test_tables_hold_every_score(compared):
    tables = compared[1]
    assert "### spots, annotated boxes: 3 images, 3 people" in tables and "### spots, detected boxes: 3 images, 3 boxes" in tables
    assert "| network | flip | AP | AP50 | AP75 | APM | APL | AR | AP - finder |" in tables
    assert "| finder | no | 90.0 (90.0 to 90.0) | 100.0 | 100.0 | 90.0 | - | 90.0 |  |" in tables
    assert "| network | flip | PCK | PCK - finder |" in tables and "| finder | yes | 94.1 (94.1 to 94.1) |  |" in tables
    assert "| right hip |" in tables and "1.00 | 0.100 |" in tables
    assert "20 bootstrap resamples of the images" in tables and "times the box's: last 0.2, phone 0.2, finder 0." in tables
    rows = [line for line in tables.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)


def test_the_summary_says_where_it_went(folder, tmp_path, capsys):
    benchmark_peers(config_of(folder), movenet=[folder / "finder.tflite"], output=tmp_path, rounds=0, resamples=5)
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == f"1 networks on 1 sets: peers.md and peers.json in {tmp_path}"
    assert "ms |" not in printed and "LiteRT" not in printed


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a/last.keras"], ["last"]),
        (["a/last.keras", "b/last.keras"], ["a/last", "b/last"]),
        (["x/a/last.keras", "y/a/last.keras", "x/b/best.keras"], ["x/a/last", "y/a/last", "x/b/best"]),
        (["last.keras", "b/last.keras"], ["last", "b/last"]),
    ],
)
def test_networks_are_called_by_what_tells_them_apart(files, names):
    assert peers._names([Path(file) for file in files]) == names


def test_a_tenth_of_the_size_costs_a_known_similarity(folder):
    validation = validation_sets(config_of(folder))[0]
    people = validation.instances
    # One standard deviation of the annotators, sigma times the square root of the area, twice: as OKS has it.
    away = 2 * np.array(COCO_17.oks_sigmas) * np.sqrt(8000.0)
    keypoints = people.keypoints.copy()
    keypoints[..., 0] += away
    found = peers.joint_similarities(keypoints, validation)
    assert list(found) == list(COCO_17.joint_names)
    assert list(found.values()) == [pytest.approx(np.exp(-0.5), abs=1e-5)] * 17
    nobody = validation_sets(config_of(folder))[0]
    nobody.instances.keypoints[:, 3, 2] = 0
    assert np.isnan(peers.joint_similarities(keypoints, nobody)["left_ear"])


def test_without_a_network_there_is_nothing_to_compare(folder, tmp_path):
    with pytest.raises(KposeError, match="no network given"):
        benchmark_peers(config_of(folder), output=tmp_path)


def test_a_file_given_twice_is_refused(folder, tmp_path):
    with pytest.raises(KposeError, match="given twice"):
        benchmark_peers(config_of(folder), movenet=[folder / "finder.tflite"] * 2, output=tmp_path)


def test_networks_of_other_joints_are_refused(folder, tmp_path):
    save_network(tmp_path / "other.keras", LSP_14.name)
    with pytest.raises(KposeError, match=r"other\.keras has the joints of skeleton 'lsp_14'.*'coco_17'"):
        benchmark_peers(config_of(folder), weights=[tmp_path / "other.keras"], output=tmp_path)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"protocol": "pck_box"}, "compared by OKS AP and PCK@0.2, its score is PCK@0.2 of the box"),
        ({"detections": "detections.json"}, "leave out its 'detections'"),
    ],
)
def test_other_scores_are_refused(folder, tmp_path, entry, problem):
    if "detections" in entry:
        entry = {"detections": str(tmp_path / "detections.json")}
        (tmp_path / "detections.json").write_text('[{"image_id": 1, "category_id": 1, "bbox": [1, 1, 50, 50], "score": 1}]')
    with pytest.raises(KposeError, match=problem):
        benchmark_peers(config_of(folder, entry), movenet=[folder / "finder.tflite"], output=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "expected"), [("lightning", 0.441), ("thunder", 0.525)])
def test_movenet_scores_as_known(shared_models, shared_data, name, expected):
    """The figures are those of the table that comes with the weights: COCO val2017, 48 photos, the annotation's own boxes.

    kpose's reader makes boxes a pixel smaller, as HRNet's does, which costs a point of the 153 people's AP.
    """
    coco = shared_data / "coco"
    annotations = coco / "annotations" / "person_keypoints_val2017.json"
    config = parse_config({"data": {"validation": [{"annotations": str(annotations), "images": str(coco / "val2017")}]}})
    validation = validation_sets(config)[0]
    boxes = {person["id"]: person["bbox"] for person in json.loads(annotations.read_text())["annotations"]}
    own = np.array([boxes[number] for number in validation.instances.ids.tolist()], np.float32)
    validation = replace(validation, instances=replace(validation.instances, boxes=own))
    peer = peers._movenet_peer(name, shared_models / f"movenet_{name}_fp16.tflite")
    assert peers.score_peer(peer, False, validation, config, 10).metrics["AP"] == pytest.approx(expected, abs=0.0006)
