"""SavedModels with the outputs of the Model Garden: made-up ones that find what is bright; one really exported where it is at hand."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from kpose.errors import KposeError
from kpose.inference.detector import PADDING
from kpose.inference.saved_model_detector import SavedModelDetector
from tests.inference.conftest import tiny_estimator
from tests.inference.tiny_saved_model import write_saved_model
from tests.inference.tiny_tflite import bright_box

INPUT = 128


def detections(images: tf.Tensor, boxes: tf.Tensor) -> dict[str, tf.Tensor]:
    """A dog in the same place, the person, somebody doubtful, and what is beyond the count."""
    return {
        "detection_boxes": tf.tile(boxes[None, None], [1, 4, 1]),
        "detection_scores": tf.constant([[0.95, 0.9, 0.1, 0.99]]),
        "detection_classes": tf.constant([[18.0, 1.0, 1.0, 1.0]]),
        "num_detections": tf.constant([3.0]),
    }


def size_of(images: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.shape(images)[1:3], tf.float32)


def where_bright(images: tf.Tensor) -> tf.Tensor:
    """`(4,)` fractions, of a picture of any size."""
    bright = tf.reduce_max(tf.cast(images[0], tf.float32), axis=-1) > PADDING + 40
    places = tf.cast(tf.where(bright), tf.float32)
    return tf.concat([tf.reduce_min(places, axis=0) / size_of(images), (tf.reduce_max(places, axis=0) + 1) / size_of(images)], axis=0)


def fractions(images: tf.Tensor) -> dict[str, tf.Tensor]:
    return detections(images, where_bright(images))


def pixels(images: tf.Tensor) -> dict[str, tf.Tensor]:
    return detections(images, where_bright(images) * tf.tile(size_of(images), [2]))


def pixels_of_the_input(images: tf.Tensor) -> dict[str, tf.Tensor]:
    """As the Model Garden does by default: the picture is scaled into 128 x 128, and boxes are where they are there."""
    scale = INPUT / tf.reduce_max(size_of(images))
    info = tf.stack([size_of(images), tf.constant([128.0, 128.0]), tf.stack([scale, scale]), tf.zeros(2)])[None]
    boxes = where_bright(images) * tf.tile(size_of(images) * scale, [2])
    return detections(images, boxes) | {"image_info": info}


def normalised(images: tf.Tensor) -> dict[str, tf.Tensor]:
    """As the Model Garden does when it is told to normalise: the scale is told, but already taken account of."""
    return pixels_of_the_input(images) | fractions(images)


def fixed_size(images: tf.Tensor) -> dict[str, tf.Tensor]:
    return detections(images, bright_box(images, PADDING + 40))


def picture(height: int, width: int, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[top:bottom, left:right] = 255
    return image


CONVENTIONS = [fractions, pixels, pixels_of_the_input, normalised]


@pytest.mark.parametrize("dtype", [tf.uint8, tf.float32])
@pytest.mark.parametrize("function", CONVENTIONS)
def test_boxes_of_every_convention_are_where_people_are(tmp_path, function, dtype):
    detector = SavedModelDetector(write_saved_model(tmp_path / "detector", function, dtype=dtype))
    for height, width in ((200, 90), (90, 300), (640, 480)):
        left, top, right, bottom = round(0.3 * width), round(0.2 * height), round(0.7 * width), round(0.9 * height)
        boxes, scores = detector(picture(height, width, left, top, right, bottom))
        assert boxes.dtype == scores.dtype == np.float32
        assert boxes.tolist() == [pytest.approx([left, top, right - left, bottom - top], abs=1e-3)]
        assert scores.tolist() == [pytest.approx(0.9)]


def test_a_picture_is_fitted_into_an_input_of_a_fixed_size(tmp_path):
    detector = SavedModelDetector(write_saved_model(tmp_path / "detector", fixed_size, (1, 64, 96, 3)))
    boxes, _ = detector(picture(300, 200, 40, 60, 150, 280))
    assert boxes.tolist() == [pytest.approx([40, 60, 110, 220], abs=2 * 300 / 64)]


def test_the_class_and_the_score_may_be_others(tmp_path):
    folder = write_saved_model(tmp_path / "detector", fractions)
    image = picture(100, 100, 10, 10, 60, 90)
    assert SavedModelDetector(folder, person_class=18)(image)[1].tolist() == [pytest.approx(0.95)]
    assert SavedModelDetector(folder, minimum_score=0.05)(image)[1].tolist() == [pytest.approx(0.9), pytest.approx(0.1)]
    assert SavedModelDetector(folder, minimum_score=0.92)(image)[0].shape == (0, 4)


def test_the_count_may_be_missing(tmp_path):
    def detect(images):
        return {name: value for name, value in fractions(images).items() if name != "num_detections"}

    assert len(SavedModelDetector(write_saved_model(tmp_path / "detector", detect))(picture(90, 90, 9, 9, 60, 80))[1]) == 2


def test_poseestimator_looks_where_it_finds_people(tmp_path):
    detector = SavedModelDetector(write_saved_model(tmp_path / "detector", pixels_of_the_input))
    (pose,) = tiny_estimator(detector=detector)(picture(200, 300, 50, 40, 140, 190))[0]
    assert pose.box.tolist() == pytest.approx([50, 40, 90, 150], abs=1e-3)


def test_what_is_no_detector_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "saved_model.pb").write_bytes(b"broken")
    write_saved_model(tmp_path / "classifier", lambda images: {"logits": tf.zeros((1, 10))})
    write_saved_model(tmp_path / "other", fractions, signature="detect")
    write_saved_model(tmp_path / "many", fractions, (8, None, None, 3))
    write_saved_model(tmp_path / "bytes", lambda images: fractions(tf.zeros((1, 9, 9, 3))), (1,), tf.string)
    for name, message in (
        ("gone", "there is no SavedModel in"),
        ("empty", "it has no saved_model.pb"),
        ("broken", "is damaged"),
        ("classifier", "does not give detection_boxes, detection_classes, detection_scores; it gives logits"),
        ("other", r"has signatures \['detect'\]"),
        ("many", "takes one picture"),
        ("bytes", "input_type image_tensor"),
    ):
        with pytest.raises(KposeError, match=message):
            SavedModelDetector(tmp_path / name)


def test_a_detector_that_fails_on_a_picture_is_named(tmp_path):
    def detect(images):
        with tf.control_dependencies([tf.debugging.Assert(tf.shape(images)[1] < 50, ["too high"])]):
            return fractions(tf.identity(images))

    with pytest.raises(KposeError, match="the detector in .*tall fails"):
        SavedModelDetector(write_saved_model(tmp_path / "tall", detect))(picture(90, 90, 9, 9, 60, 80))
