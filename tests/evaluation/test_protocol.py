from __future__ import annotations

import getpass
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

import kpose
from kpose.checkpoint import ModelCard
from kpose.config import parse_config
from kpose.data import validation_instances
from kpose.errors import KposeError
from kpose.evaluation import protocol_card


@pytest.fixture
def weights(small_coco) -> Path:
    path = small_coco / "weights.keras"
    path.write_bytes(b"weights")
    return path


def config_of(folder: Path, **changes):
    validation = {"annotations": str(folder / "truth.json"), "images": str(folder / "images")}
    if changes.pop("detections", False):
        validation |= {"detections": str(folder / "detections.json"), "minimum_box_score": 0.5}
    return parse_config({"data": {"validation": validation}, **changes})


def card_of(config, weights):
    return protocol_card(config, validation_instances(config), {"AP": 0.5, "APM": float("nan")}, ModelCard.from_config(config), weights)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_names_every_file_with_its_hash(small_coco, weights):
    card = card_of(config_of(small_coco, detections=True), weights)
    assert card["dataset"]["annotations"] == {"file": "truth.json", "sha256": sha256(small_coco / "truth.json")}
    assert card["model"]["weights"] == {"file": "weights.keras", "sha256": sha256(weights)}
    assert card["boxes"] == {
        "source": "detections",
        "file": "detections.json",
        "sha256": sha256(small_coco / "detections.json"),
        "minimum_score": 0.5,
        "padding": 1.25,
    }
    assert (card["dataset"]["images"], card["dataset"]["people"]) == (2, 3)


def test_ground_truth_boxes_are_never_suppressed_and_the_card_says_so(small_coco, weights):
    card = card_of(config_of(small_coco, evaluation={"suppression_threshold": 0.5}), weights)
    assert card["boxes"] == {"source": "ground truth", "padding": 1.25}
    assert card["test"]["oks_suppression_threshold"] is None


@pytest.mark.parametrize(
    ("settings", "shifted"),
    [
        ({}, True),
        ({"evaluation": {"flip": False}}, False),
        ({"evaluation": {"shift_heatmap": False}}, False),
        ({"codec": {"alignment": "unbiased"}}, False),
    ],
)
def test_tells_what_was_done_to_the_heatmaps(small_coco, weights, settings, shifted):
    card = card_of(config_of(small_coco, **settings), weights)
    assert card["test"]["shift_heatmap"] is shifted
    assert card["test"]["flip"] is settings.get("evaluation", {}).get("flip", True)
    assert card["test"]["codec"]["alignment"] == settings.get("codec", {}).get("alignment", "classic")


def test_says_when_and_with_which_versions(small_coco, weights):
    card = card_of(config_of(small_coco), weights)
    age = datetime.now(UTC) - datetime.fromisoformat(card["date"])
    assert 0 <= age.total_seconds() + 1 < 60
    assert set(card["versions"]) == {"kpose", "tensorflow", "keras", "numpy", "opencv", "pycocotools"}
    assert card["versions"]["kpose"] == kpose.__version__


def test_is_json_and_holds_no_folder_and_no_user_name(small_coco, weights):
    text = json.dumps(card_of(config_of(small_coco, detections=True), weights), allow_nan=False)
    assert json.loads(text)["metrics"] == {"AP": 0.5, "APM": None}
    for private in (str(small_coco), str(Path.home()) + "/", str(Path.cwd()), f"/{getpass.getuser()}/"):
        assert private not in text


def test_a_missing_file_is_told_in_one_line(small_coco, tmp_path):
    with pytest.raises(KposeError, match=r"cannot read .*gone\.keras to take its hash"):
        card_of(config_of(small_coco), tmp_path / "gone.keras")
