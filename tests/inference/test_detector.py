"""Person detectors: a made-up one that finds what is bright, in any order of its outputs; a real one where it is at hand."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from kpose.data import read_coco
from kpose.errors import KposeError
from kpose.inference.detector import PADDING, PersonDetector, fit_picture, read_as_annotated, write_detections
from kpose.skeletons import COCO_17
from tests.inference.tiny_tflite import bright_box, write_tflite

pytest.importorskip("ai_edge_litert", reason="needs LiteRT, of the extra `lite`")

NAMES = ("boxes", "classes", "scores", "count")


def network(order: tuple[int, ...], classes: list[float], scores: list[float], count: int | None = None) -> Callable[[tf.Tensor], list]:
    """As many boxes as there are classes: the first round what is bright, the others larger and larger, until beyond the picture."""

    def detect(images: tf.Tensor) -> list[tf.Tensor]:
        box = bright_box(images, PADDING + 40)
        # What does not depend on the input would be no tensor of the file.
        nothing = 0.0 * box[0]
        boxes = [box + np.float32([-1, -1, 1, 1]) * 0.3 * rank for rank in range(len(classes))]
        outputs = [
            tf.stack(boxes)[None],
            tf.constant([classes]) + nothing,
            tf.constant([scores]) + nothing,
            tf.reshape(tf.constant(float(len(classes) if count is None else count)) + nothing, [1]),
        ]
        return [tf.identity(outputs[place], name=NAMES[place]) for place in order]

    return detect


def detector(folder: Path, classes: list[float], scores: list[float], count: int | None = None, order=(0, 1, 2, 3), **options):
    path = write_tflite(folder / "detector.tflite", network(order, classes, scores, count), (1, 64, 96, 3))
    return PersonDetector(path, threads=1, **options)


def picture(height: int, width: int, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[top:bottom, left:right] = 255
    return image


@pytest.fixture(scope="module")
def one_person(tmp_path_factory) -> PersonDetector:
    return detector(tmp_path_factory.mktemp("detector"), [0.0], [0.8])


@pytest.mark.parametrize(("height", "width"), [(64, 96), (200, 90), (90, 300), (640, 480), (33, 21)])
def test_boxes_are_where_people_are_in_the_image(one_person, height, width):
    left, top, right, bottom = round(0.3 * width), round(0.2 * height), round(0.7 * width), round(0.9 * height)
    boxes, scores = one_person(picture(height, width, left, top, right, bottom))
    assert boxes.dtype == scores.dtype == np.float32
    pixel = max(height / 64, width / 96)
    assert boxes.tolist() == [pytest.approx([left, top, right - left, bottom - top], abs=2 * pixel)]
    assert scores.tolist() == [pytest.approx(0.8)]


@pytest.mark.parametrize("order", [*itertools.islice(itertools.permutations(range(4)), 0, 24, 5)])
def test_outputs_come_in_any_order(tmp_path, order):
    found = detector(tmp_path, [2.0, 0.0, 0.0], [0.9, 0.75, 0.5], order=order)
    boxes, scores = found(picture(64, 96, 40, 30, 50, 40))
    assert scores.tolist() == [0.75, 0.5] and boxes.shape == (2, 4)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0)])
@pytest.mark.parametrize(("classes", "scores"), [([0.0], [0.5]), ([0.0, 17.0], [1.0, 1.0]), ([0.0, 0.0], [1.0, 0.5])])
def test_few_boxes_are_enough_to_tell_classes_from_scores(tmp_path, order, classes, scores):
    _, found = detector(tmp_path, classes, scores, order=order)(picture(64, 96, 40, 30, 50, 40))
    assert found.tolist() == [score for score, number in zip(scores, classes, strict=True) if number == 0]


def test_what_counts_is_a_person_sure_enough_and_within_the_count(tmp_path):
    classes, scores = [0.0, 1.0, 0.0, 0.0, 0.0], [0.4, 0.95, 0.9, 0.2, 0.99]
    image = picture(64, 96, 40, 30, 50, 40)
    assert detector(tmp_path, classes, scores, count=4)(image)[1].tolist() == [pytest.approx(0.9), pytest.approx(0.4)]
    assert detector(tmp_path, classes, scores, count=4, minimum_score=0.5)(image)[1].tolist() == [pytest.approx(0.9)]
    assert detector(tmp_path, classes, scores, count=4, person_class=1)(image)[1].tolist() == [pytest.approx(0.95)]
    boxes, sure = detector(tmp_path, classes, scores, count=0)(image)
    assert boxes.shape == (0, 4) and sure.shape == (0,)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (300, 100), (50, 400)])
def test_boxes_are_cut_to_the_picture(tmp_path, height, width):
    boxes, _ = detector(tmp_path, [0.0] * 5, [0.9, 0.8, 0.7, 0.6, 0.5])(picture(height, width, width // 2, height // 2, width, height))
    assert len(boxes) == 5 and (boxes[:, :2] >= 0).all() and (boxes[:, 2:] > 0).all()
    assert (boxes[:, 0] + boxes[:, 2] <= width + 1e-3).all() and (boxes[:, 1] + boxes[:, 3] <= height + 1e-3).all()
    assert boxes[-1] == pytest.approx([0, 0, width, height], abs=1e-3)


@pytest.mark.parametrize(
    "limits", [[0.5, 0.5, 0.5, 0.9], [0.6, 0.2, 0.4, 0.9], [1.2, 1.2, 1.5, 1.5], [np.nan, 0.1, 0.9, 0.9], [-np.inf, 0, -1, 1]]
)
def test_boxes_without_an_area_in_the_picture_are_left_out(tmp_path, limits):
    def detect(images: tf.Tensor) -> list[tf.Tensor]:
        nothing = 0.0 * tf.cast(images[0, 0, 0, 0], tf.float32)
        boxes = tf.constant([[limits, [0.25, 0.25, 0.75, 0.75]]], tf.float32)
        return [boxes + nothing, tf.zeros([1, 2]) + nothing, tf.constant([[0.9, 0.8]]) + nothing, tf.reshape(nothing + 2, [1])]

    boxes, scores = PersonDetector(write_tflite(tmp_path / "a.tflite", detect, (1, 64, 64, 3)))(np.zeros((128, 128, 3), np.uint8))
    assert boxes.tolist() == [[32, 32, 64, 64]] and scores.tolist() == [pytest.approx(0.8)]


@given(height=st.integers(1, 500), width=st.integers(1, 500))
def test_a_picture_keeps_its_shape(height, width):
    fitted, shown = fit_picture(np.full((height, width, 3), 255, np.uint8), (64, 96))
    assert fitted.shape == (64, 96, 3) and (shown[0] == 64 or shown[1] == 96)
    assert (fitted[: shown[0], : shown[1]] == 255).all()
    assert (fitted[shown[0] :] == PADDING).all() and (fitted[:, shown[1] :] == PADDING).all()
    scale = min(64 / height, 96 / width)
    assert shown[0] == pytest.approx(height * scale, abs=1) and shown[1] == pytest.approx(width * scale, abs=1)


def outputs_of(*shapes: tuple[int, ...]) -> Callable[[tf.Tensor], list[tf.Tensor]]:
    return lambda images: [tf.fill(shape, 0.0) + 0.0 * tf.cast(images[0, 0, 0, 0], tf.float32) for shape in shapes]


@pytest.mark.parametrize(
    "shapes",
    [
        [(1, 17, 3)],
        [(1, 5, 4), (1, 5), (1,)],
        [(1, 5, 4), (1, 5), (1, 6), (1,)],
        [(1, 5, 4), (1, 5), (1, 5), (1,), (1, 5)],
        [(1, 5, 3), (1, 5), (1, 5), (1,)],
    ],
)
def test_another_network_is_refused(tmp_path, shapes):
    path = write_tflite(tmp_path / "other.tflite", outputs_of(*shapes), (1, 8, 8, 3))
    with pytest.raises(KposeError, match=r"other\.tflite has outputs .*boxes \(1, N, 4\)"):
        PersonDetector(path)


def test_a_float_input_is_refused(tmp_path):
    path = write_tflite(tmp_path / "float.tflite", network((0, 1, 2, 3), [0.0], [0.5]), (1, 64, 96, 3), tf.float32)
    with pytest.raises(KposeError, match="takes float32; .* uint8"):
        PersonDetector(path)


def test_detections_are_read_back_for_a_score(one_person, tmp_path):
    """Also of a picture without annotated people, and under the numbers of the dataset."""
    pictures = {"a.png": picture(120, 100, 20, 30, 60, 90), "b.png": picture(60, 100, 50, 10, 90, 50)}
    for name, image in pictures.items():
        cv2.imwrite(str(tmp_path / name), image)
    keypoints = [30.0, 40.0, 2.0] * 17
    person = {"id": 5, "image_id": 71, "category_id": 3, "bbox": [20, 30, 40, 60], "area": 900, "keypoints": keypoints, "num_keypoints": 17}
    content = {
        "images": [{"id": 71, "file_name": "a.png"}, {"id": 72, "file_name": "b.png"}],
        "annotations": [person],
        "categories": [{"id": 3, "name": "person", "keypoints": list(COCO_17.joint_names)}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    people = read_coco(tmp_path / "truth.json", tmp_path, COCO_17, for_training=False)
    path = write_detections(one_person, people, tmp_path / "found.json", category_id=3, progress=False)
    detected = read_coco(tmp_path / "truth.json", tmp_path, COCO_17, detections=path, for_training=False)
    assert detected.image_index.tolist() == [0, 1] and detected.box_scores == pytest.approx([0.8, 0.8])
    assert detected.boxes == pytest.approx(np.array([[20, 30, 40, 60], [50, 10, 40, 50 - 10]], np.float32), abs=4)


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    for name in ("broken.jpg", "gone.jpg"):
        with pytest.raises(KposeError, match=rf"cannot read the picture .*{name}"):
            read_as_annotated(tmp_path / name)


def test_a_real_detector_finds_people(shared_models, shared_data):
    """On the photos of COCO train2017 on which its threshold was chosen: F1 0.69 of all annotated people, crowds left out."""
    from pycocotools import mask

    detect = PersonDetector(shared_models / "efficientdet_lite0.tflite")
    annotations = json.loads((shared_data / "coco" / "annotations" / "person_keypoints_train2017.json").read_text())
    found = missed = wrong = 0
    for image in annotations["images"][:20]:
        people = [one for one in annotations["annotations"] if one["image_id"] == image["id"]]
        truth = np.array([one["bbox"] for one in people], np.float64).reshape(-1, 4)
        crowds = [int(one["iscrowd"]) for one in people]
        boxes, scores = detect(read_as_annotated(shared_data / "coco" / "train2017" / image["file_name"]))
        assert (scores >= 0.3).all() and (np.diff(scores) <= 0).all()
        overlap = np.asarray(mask.iou(boxes.astype(np.float64), truth, crowds)).reshape(len(boxes), len(truth)) >= 0.5
        hit = overlap[:, np.array(crowds, bool) == 0]
        found += int(hit.any(axis=0).sum())
        missed += int((~hit.any(axis=0)).sum())
        wrong += int((~overlap.any(axis=1)).sum())
    assert found / (found + (missed + wrong) / 2) > 0.6
