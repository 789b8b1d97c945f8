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
from kpose.data import validation_sets
from kpose.errors import KposeError
from kpose.evaluation import protocol_card
from kpose.evaluation.protocol import CARD_VERSION, read_protocol_card


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


def card_of(config, *weights, **fields):
    (validation,) = validation_sets(config)
    networks = [(ModelCard.from_config(config), file) for file in weights]
    metrics = {"AP": 0.5, "APM": float("nan")}
    return protocol_card(config, validation.dataset, validation.instances, metrics, networks, protocol="OKS AP", **fields)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_names_every_file_with_its_hash(small_coco, weights):
    card = card_of(config_of(small_coco, detections=True), weights)
    assert card["dataset"]["annotations"] == {"file": "truth.json", "sha256": sha256(small_coco / "truth.json")}
    assert [network["weights"] for network in card["networks"]] == [{"file": "weights.keras", "sha256": sha256(weights)}]
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


def test_names_every_network_of_an_ensemble_and_what_was_averaged(small_coco, weights):
    other = small_coco / "other.keras"
    other.write_bytes(b"other weights")
    config = config_of(small_coco, evaluation={"ensemble": "heatmaps"})
    card = card_of(config, weights, other)
    assert [network["weights"]["sha256"] for network in card["networks"]] == [sha256(weights), sha256(other)]
    assert card["test"]["ensemble"] == "heatmaps"
    assert card_of(config, weights)["test"]["ensemble"] is None, "one network is averaged with nothing"


def test_says_who_was_scored_and_how_they_were_looked_at(small_coco, weights):
    config = config_of(small_coco, evaluation={"rotations": [-10, 0, 10], "scales": [0.9, 1]})
    config = config.model_copy(
        update={"data": config.data.model_copy(update={"validation": [config.data.validation[0].model_copy(update={"people": (0, 2)})]})}
    )
    card = card_of(config, weights, joints_left_out=["nose"])
    assert (card["test"]["rotations"], card["test"]["scales"]) == ([-10, 0, 10], [0.9, 1])
    assert card["dataset"]["people_range"] == [0, 2]
    assert card["dataset"]["joints_left_out"] == ["nose"]
    assert card["dataset"]["format"] == "coco"
    assert card["protocol"] == "OKS AP"


def write_card(folder, weights, **changes) -> Path:
    card = card_of(config_of(folder, detections=True), weights) | changes
    path = folder / "protocol.json"
    path.write_text(json.dumps(card))
    return path


def test_is_read_back(small_coco, weights):
    card = read_protocol_card(write_card(small_coco, weights))
    assert card.boxes.file == "detections.json"
    assert card.networks[0].weights.sha256 == sha256(weights)
    assert card.test.codec.decoding == "quarter_offset"


@pytest.mark.parametrize("version", [1, CARD_VERSION + 1, "2"])
def test_a_card_of_another_version_is_refused(small_coco, weights, version):
    path = write_card(small_coco, weights, card_version=version)
    with pytest.raises(KposeError, match=rf"card of version {version}, this kpose reads version {CARD_VERSION}; evaluate .* again"):
        read_protocol_card(path)


def test_a_card_without_a_version_is_one_of_the_first_kpose(small_coco, weights):
    card = card_of(config_of(small_coco), weights)
    del card["card_version"]
    (small_coco / "protocol.json").write_text(json.dumps(card))
    with pytest.raises(KposeError, match="card of version 1"):
        read_protocol_card(small_coco / "protocol.json")


@pytest.mark.parametrize("content", [[], {}, {"AP": 0.5}, "text"])
def test_another_json_is_no_card(small_coco, content):
    (small_coco / "protocol.json").write_text(json.dumps(content))
    with pytest.raises(KposeError, match=r"protocol\.json is no protocol card"):
        read_protocol_card(small_coco / "protocol.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"networks": []}, r"networks: tuple should have at least 1 item"),
        ({"metrics": {"AP": "much"}}, r"metrics\.AP: input should be a valid number"),
        ({"boxes": {"source": "guessed", "padding": 1.25}}, r"boxes\.source: input should be 'ground truth' or 'detections'"),
        ({"test": {}}, r"test\.flip: field required"),
    ],
)
def test_a_wrong_value_is_named(small_coco, weights, changes, message):
    with pytest.raises(KposeError, match=message):
        read_protocol_card(write_card(small_coco, weights, **changes))
