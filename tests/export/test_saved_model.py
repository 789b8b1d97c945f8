"""The SavedModel, loaded again: the same answers as PoseEstimator's, and what it says to requests that are wrong."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf

from kpose import PoseEstimator, load_model
from kpose.checkpoint import ModelCard
from kpose.data.synthetic.scene import compose_scene
from kpose.errors import KposeError
from kpose.export import TFLiteRunner, convert_tflite, export_saved_model
from kpose.export.saved_model import CARD, EXTRA_FOLDER, WARM_UP, latest_version, next_version, versions
from kpose.inference.test_time import predict_heatmaps
from tests.export.conftest import SIZE

pytest.importorskip("tensorflow_serving", reason="needs tensorflow-serving-api, of the extra `serving`")

LARGEST = 300_000


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory) -> Path:
    """Two versions: one as by default, but for a limit that tests reach, and a plain one."""
    folder = tmp_path_factory.mktemp("served") / "pose"
    export_saved_model(network, folder, batch_size=8, largest_pixels=LARGEST)
    export_saved_model(network, folder, batch_size=8, largest_pixels=LARGEST, flip=False, warm_up=False)
    return folder


@pytest.fixture(scope="module")
def signatures(folder):
    return tf.saved_model.load(str(folder / "1")).signatures


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> list[Path]:
    """JPEG, one of them lying on its side, and PNG, of different sizes."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(1)
    files = []
    for name, height, width in (("a.jpg", 200, 300), ("b.png", 150, 90), ("turned.jpg", 120, 260)):
        image = compose_scene(rng, height, width, num_people=2).image
        content = cv2.imencode(Path(name).suffix, image[..., ::-1])[1].tobytes()
        if name == "turned.jpg":
            block = b"Exif\0\0MM" + struct.pack(">HIHHHIHH", 42, 8, 1, 0x0112, 3, 1, 6, 0)
            content = content[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + content[2:]
        files.append(folder / name)
        files[-1].write_bytes(content)
    return files


BOXES = np.array(
    [
        [[20, 10, 150, 180], [140, 5, 155, 190], [-30, -20, 90, 400]],
        [[0, 0, 90, 150], [0, 0, 0, 0], [10, 12.5, 33.3, 71.9]],
        [[5, 30, 110, 200], [0, 0, 0, 0], [0, 0, 0, 0]],
    ],
    np.float32,
)


def ask(signatures, images: list[bytes], boxes) -> dict[str, np.ndarray]:
    found = signatures["serving_default"](images=tf.constant(images, tf.string), boxes=tf.constant(boxes, tf.float32))
    return {name: value.numpy() for name, value in found.items()}


def refusal(signatures, images: list[bytes], boxes) -> str:
    with pytest.raises(tf.errors.InvalidArgumentError) as refused:
        ask(signatures, images, boxes)
    return str(refused.value)


def compare(found: dict[str, np.ndarray], poses: list, boxes: np.ndarray) -> None:
    for picture, expected in enumerate(poses):
        asked = boxes[picture].any(axis=-1)
        keypoints = np.stack([pose.keypoints for pose in expected])
        assert np.abs(found["keypoints"][picture, asked] - keypoints)[..., :2].max() < 1e-3
        np.testing.assert_allclose(found["keypoints"][picture, asked, :, 2], keypoints[..., 2], atol=1e-4)
        np.testing.assert_allclose(found["scores"][picture, asked], [pose.score for pose in expected], atol=1e-4)
        assert not found["keypoints"][picture, ~asked].any() and not found["scores"][picture, ~asked].any()


def asked(boxes: np.ndarray) -> list[np.ndarray]:
    return [own[own.any(axis=-1)] for own in boxes]


def test_the_same_picture_and_box_give_the_same_keypoints_in_keras_saved_model_and_tflite(network, signatures, photos, tmp_path):
    pytest.importorskip("ai_edge_litert", reason="needs LiteRT, of the extra `lite`")
    found = ask(signatures, [photo.read_bytes() for photo in photos], BOXES)
    assert found["keypoints"].shape == (3, 3, 17, 3) and found["scores"].shape == (3, 3)
    compare(found, PoseEstimator(network)(photos, asked(BOXES)), BOXES)
    convert_tflite(network, tmp_path / "fp32.tflite")
    compare(found, TFLiteRunner(tmp_path / "fp32.tflite")(photos, asked(BOXES)), BOXES)


@pytest.mark.slow
def test_the_released_network_says_the_same_on_real_people(shared_data, tmp_path):
    """Its joints are decoded by DARK, which tells more of the noise of float32 the less sure a joint is."""
    pytest.importorskip("ai_edge_litert", reason="needs LiteRT, of the extra `lite`")
    root = shared_data / "coco"
    content = json.loads((root / "annotations" / "person_keypoints_train2017.json").read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    people = [one for one in content["annotations"] if one["num_keypoints"] > 8 and not one["iscrowd"]][:16]
    files = [root / "train2017" / names[one["image_id"]] for one in people]
    boxes = np.array([[one["bbox"]] for one in people], np.float32)
    model = load_model("lite_mobilenet_v3_256x192")
    exported = export_saved_model(model, tmp_path / "served", warm_up=False)
    found = ask(tf.saved_model.load(str(exported.path)).signatures, [file.read_bytes() for file in files], boxes)
    compare(found, PoseEstimator(model)(files, list(boxes)), boxes)
    convert_tflite(model, tmp_path / "fp32.tflite")
    compare(found, TFLiteRunner(tmp_path / "fp32.tflite")(files, list(boxes)), boxes)


def test_without_flip_as_without_flip(network, folder, photos):
    found = ask(tf.saved_model.load(str(folder / "2")).signatures, [photo.read_bytes() for photo in photos], BOXES)
    compare(found, PoseEstimator(network, flip=False)(photos, asked(BOXES)), BOXES)


def test_crops_and_their_heatmaps(network, signatures, crops):
    card = network.card
    skeleton, codec = card.make_skeleton(), card.make_codec(network.output_shape[1:3])
    normalised = (crops / np.float32(255) - np.float32(card.mean)) / np.float32(card.std)
    expected = predict_heatmaps(network, normalised, codec, skeleton)
    heatmaps = signatures["heatmaps"](crops=tf.constant(crops))["heatmaps"].numpy()
    np.testing.assert_allclose(heatmaps, expected, atol=1e-4 * np.ptp(expected))
    found = signatures["crops"](crops=tf.constant(crops))
    np.testing.assert_allclose(found["keypoints"], codec.decode(heatmaps), atol=1e-4)
    assert found["scores"].shape == (len(crops),)


def test_nobody_is_asked_for(signatures, photos):
    content = photos[0].read_bytes()
    assert ask(signatures, [], np.zeros((0, 2, 4)))["keypoints"].shape == (0, 2, 17, 3)
    assert ask(signatures, [content], np.zeros((1, 0, 4)))["keypoints"].shape == (1, 0, 17, 3)
    assert not ask(signatures, [content], np.zeros((1, 2, 4)))["keypoints"].any()
    assert signatures["crops"](crops=tf.zeros((0, *SIZE, 3), tf.uint8))["keypoints"].shape == (0, 17, 3)
    assert signatures["heatmaps"](crops=tf.zeros((0, *SIZE, 3), tf.uint8))["heatmaps"].shape[0] == 0


def test_ten_thousand_boxes_are_answered_batch_after_batch(network, signatures, photos):
    boxes = np.tile(BOXES[:1, :1], (1, 10_000, 1))
    boxes[0, ::2] = BOXES[0, 1]
    keypoints = ask(signatures, [photos[0].read_bytes()], boxes)["keypoints"][0]
    few = ask(signatures, [photos[0].read_bytes()], BOXES[:1, [1, 0]])["keypoints"][0]
    np.testing.assert_allclose(keypoints, np.tile(few, (5000, 1, 1)), atol=1e-3)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([np.nan, 0, 10, 10], "box 1 of picture 0, .*holds NaN or infinity"),
        ([1, 1, np.inf, 10], "box 1 of picture 0, .*holds NaN or infinity"),
        ([1, 1, 0, 10], "box 1 of picture 0, .*has no area"),
        ([1, 1, 10, -2], "box 1 of picture 0, .*has no area"),
        ([300, 1, 10, 10], r"box 1 of picture 0, .*lies outside of the picture of \[height, width\] \[200 300\]"),
        ([1, -11, 10, 10], "box 1 of picture 0, .*lies outside"),
    ],
)
def test_boxes_that_poseestimator_refuses_are_refused(network, signatures, photos, box, message):
    boxes = np.array([[BOXES[0, 0], box]], np.float32)
    assert re.search(message, refusal(signatures, [photos[0].read_bytes()], boxes))
    with pytest.raises(KposeError):
        PoseEstimator(network)(photos[0], boxes[0])


def test_a_picture_that_is_wrong_is_refused(signatures, photos):
    good = photos[0].read_bytes()
    assert "picture 1 is neither a JPEG nor a PNG file" in refusal(signatures, [good, b"broken"], BOXES[:2])
    assert "Invalid JPEG data" in refusal(signatures, [good[: len(good) // 2]], BOXES[:1])
    assert "there are 2 images but boxes for 1" in refusal(signatures, [good, good], BOXES[:1])


def test_a_picture_of_a_hundred_megapixels_is_refused_before_it_is_decoded(signatures):
    """The file is a kilobyte that claims them: had it been decoded, it would have been found to be cut off."""
    content = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    frame = content.index(b"\xff\xc0") + 5
    content = content[:frame] + struct.pack(">HH", 10_000, 10_000) + content[frame + 4 :]
    message = refusal(signatures, [content], [[[0, 0, 10, 10]]])
    assert "picture 0 claims 10000 x 10000 pixels; from 1 to 300000 are answered: make it smaller" in message


def test_versions_count_on_and_are_not_written_over(network, folder, tmp_path):
    assert versions(folder) == [1, 2] and next_version(folder) == 3 and latest_version(folder) == folder / "2"
    with pytest.raises(KposeError, match=r"pose/2 is already there"):
        export_saved_model(network, folder, 2, warm_up=False)
    for name in ("9", "10", "x11", "12.5"):
        (tmp_path / name).mkdir()
    (tmp_path / "99").write_text("a file")
    assert versions(tmp_path) == [9, 10] and next_version(tmp_path) == 11
    with pytest.raises(KposeError, match="there is no version in"):
        latest_version(tmp_path / "gone")


def test_nothing_is_left_where_the_export_fails(network, tmp_path, monkeypatch):
    monkeypatch.setattr("kpose.export.saved_model._write_warm_up", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(KposeError, match="No space left on device"):
        export_saved_model(network, tmp_path / "pose")
    assert not list((tmp_path / "pose").iterdir())


def test_the_card_travels_along(network, folder):
    card = ModelCard.model_validate_json((folder / "1" / EXTRA_FOLDER / CARD).read_text(encoding="utf-8"))
    assert card == network.card


def test_warm_up_requests_are_answered(folder, signatures):
    from tensorflow_serving.apis import prediction_log_pb2

    assert not (folder / "2" / EXTRA_FOLDER / WARM_UP).exists()
    asked_for = []
    for record in tf.data.TFRecordDataset(str(folder / "1" / EXTRA_FOLDER / WARM_UP)):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        function = signatures[request.model_spec.signature_name]
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        found = function(**inputs)
        asked_for.append((request.model_spec.signature_name, next(iter(found.values())).shape[:2].num_elements()))
    assert [name for name, _ in asked_for] == ["serving_default", "crops", "heatmaps"] * 2
    assert [number for name, number in asked_for if name == "serving_default"] == [1, 4]  # a batch of 8 is four people, and mirrored


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"largest_pixels": 0}, {"version": 0}])
def test_values_out_of_range_are_refused(network, tmp_path, options):
    with pytest.raises(KposeError, match="must be at least 1, found 0"):
        export_saved_model(network, tmp_path / "pose", **options)
    assert not list(tmp_path.iterdir())
