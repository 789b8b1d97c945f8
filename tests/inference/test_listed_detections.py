from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from kpose.errors import KposeError
from kpose.inference import predict_folder
from kpose.inference.detector_files import open_detector
from kpose.inference.listed_detections import ListedDetections
from tests.inference.conftest import map_picture, tiny_estimator


def write(path: Path, *entries: object) -> Path:
    path.write_text(json.dumps(list(entries)))
    return path


def entry(score: float = 0.9, box=(1, 2, 30, 40), **keys) -> dict:
    return {"category_id": 1, "bbox": list(box), "score": score} | keys


@pytest.mark.parametrize(
    ("listed", "picture"),
    [
        ({"image_id": 785}, "000000000785.jpg"),
        ({"image_id": 785}, "photos/COCO_val2014_000000000785.jpg"),
        ({"image_id": 7}, "7.png"),
        ({"file_name": "a.jpg"}, "a.jpg"),
        ({"file_name": "a.jpg", "image_id": 3}, "photos/a.jpg"),
        ({"file_name": "monday/a.jpg"}, "photos/monday/a.jpg"),
        ({"image_id": "a.jpg"}, "a.jpg"),
    ],
)
def test_a_picture_is_found_by_name_or_number(tmp_path, listed, picture):
    detections = ListedDetections(write(tmp_path / "found.json", entry(**listed), entry(image_id=1), entry(file_name="tuesday/a.jpg")))
    boxes, scores = detections.of(picture, (100, 100))
    assert boxes.tolist() == [[1, 2, 30, 40]] and scores.tolist() == [pytest.approx(0.9)]
    assert detections.lists(picture) and not detections.lists("other.jpg")
    assert detections.of("other.jpg", (100, 100))[0].shape == (0, 4)


def test_people_are_sure_enough_within_the_picture_and_the_surest_first(tmp_path):
    path = write(
        tmp_path / "found.json",
        entry(0.5, (-10, 80, 30, 40), image_id=7),
        entry(0.8, image_id=7),
        entry(0.9, (200, 10, 30, 30), image_id=7),
        entry(0.95, image_id=7, category_id=18),
        entry(0.1, image_id=7),
        entry(0.99, (5, 5, 0, 10), image_id=7),
    )
    boxes, scores = ListedDetections(path).of("7.jpg", (100, 100))
    assert boxes.tolist() == [[1, 2, 30, 40], [0, 80, 20, 20]] and scores.tolist() == [pytest.approx(0.8), 0.5]
    assert open_detector(path, person_class=18).of("7.jpg", (100, 100))[1].tolist() == [pytest.approx(0.95)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a.jpg": [[1, 2, 3, 4]]}, "expected a list of detections, found dict"),
        ([7], "entry 0 is no detection: 7"),
        ([entry(image_id=1), {"image_id": 1, "bbox": [1, 2, 3, 4]}], "entry 1 is no detection"),
        ([entry(image_id=[1])], "entry 0 is no detection"),
        ([entry(image_id=True)], "entry 0 is no detection"),
        ([entry(box=[1, 2, 3], image_id=1)], "entry 0 is no detection"),
        ([entry(box=[1, 2, 3, "4"], image_id=1)], "entry 0 is no detection"),
        ([entry(box=[1, 2, 3, 10**400], image_id=1)], "entry 0 is no detection"),
        ([entry(score=float("nan"), image_id=1)], "entry 0 is no detection"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, content, message):
    (tmp_path / "found.json").write_text(json.dumps(content))
    with pytest.raises(KposeError, match=message):
        ListedDetections(tmp_path / "found.json")


def test_poseestimator_takes_them_for_a_detector(tmp_path):
    path = tmp_path / "12.png"
    cv2.imwrite(str(path), map_picture(100, 120))
    detections = ListedDetections(write(tmp_path / "found.json", entry(0.5, (10, 20, 50, 60), image_id=12), entry(0.8, image_id=13)))
    finds = tiny_estimator(detector=detections)
    (pose,) = finds(path)[0]
    assert pose.box.tolist() == [10, 20, 50, 60]
    # The score is that of the joints, times the box's.
    assert pose.score == pytest.approx(0.5 * tiny_estimator()(path, [[10, 20, 50, 60]])[0][0].score, rel=1e-4)
    # Pixels are nobody's until they are named.
    assert finds(map_picture(100, 120)) == [[]]
    assert len(finds([map_picture(100, 120)], names=["13.jpg"])[0]) == 1
    with pytest.raises(KposeError, match="1 pictures but 2 names"):
        finds([map_picture(100, 120)], names=["a", "b"])
    with pytest.raises(KposeError, match="videos need a detector"):
        detections(map_picture())


def test_a_folder_of_pictures_with_them(tmp_path):
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / "photos" / name), map_picture(100, 120))
    estimator = tiny_estimator(detector=ListedDetections(write(tmp_path / "found.json", entry(file_name="b.png"))))
    predict_folder(estimator, tmp_path / "photos", output=tmp_path / "out", progress=False)
    images = json.loads((tmp_path / "out" / "predictions.json").read_text())["images"]
    assert [len(images[name]["people"]) for name in ("a.png", "b.png")] == [0, 1]
    other = tiny_estimator(detector=ListedDetections(write(tmp_path / "other.json", entry(file_name="c.png"))))
    with pytest.raises(KposeError, match="name none of the pictures in .*'a.png'"):
        predict_folder(other, tmp_path / "photos", output=tmp_path / "out", progress=False)


def test_a_detector_by_its_file(tmp_path):
    with pytest.raises(KposeError, match="no detector that kpose knows"):
        open_detector(tmp_path / "model.onnx")
    assert np.shape(open_detector(write(tmp_path / "x.y.json")).of("a.jpg", (9, 9))[0]) == (0, 4)
