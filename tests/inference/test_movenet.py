"""MoveNet: from the image to its square crop and back. Made-up networks tell what they saw; the real ones run where they are at hand."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf

from kpose import geometry
from kpose.errors import KposeError
from kpose.inference.movenet import MoveNet
from kpose.skeletons import COCO_17
from tests.inference.tiny_tflite import bright_box, write_tflite

pytest.importorskip("ai_edge_litert", reason="needs LiteRT, of the extra `lite`")


def all_on_the_bright_spot(images: tf.Tensor) -> tf.Tensor:
    top, left, bottom, right = tf.unstack(bright_box(images, 100))
    # The middle between the outer edges; pixel centres are half a pixel before those.
    place = tf.stack([(top + bottom) / 2 - 0.5 / images.shape[1], (left + right) / 2 - 0.5 / images.shape[2], 0.75])
    return tf.reshape(tf.tile(place, [17]), [1, 1, 17, 3])


def in_a_row(images: tf.Tensor) -> tf.Tensor:
    """Joint k in column 2k + 20 of the crop, with score k / 100."""
    joints = tf.range(17.0) + 0.0 * tf.cast(images[0, 0, 0, 0], tf.float32)
    points = [tf.fill([17], 0.5), (2 * joints + 20) / images.shape[2], joints / 100]
    return tf.reshape(tf.stack(points, axis=-1), [1, 1, 17, 3])


@pytest.fixture(scope="module")
def finder(tmp_path_factory) -> MoveNet:
    """Every joint is where the crop is bright."""
    return MoveNet(write_tflite(tmp_path_factory.mktemp("movenet") / "finder.tflite", all_on_the_bright_spot, (1, 96, 96, 3)), threads=1)


@pytest.fixture(scope="module")
def row(tmp_path_factory) -> MoveNet:
    path = write_tflite(tmp_path_factory.mktemp("movenet") / "row.tflite", in_a_row, (1, 96, 96, 3), tf.float32)
    return MoveNet(path, threads=1)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0.0, 30.0, -140.0])
@pytest.mark.parametrize("box", [[60, 40, 40, 120], [30.5, 90.25, 150, 50], [-30, 60, 200, 130]], ids=["tall", "wide", "beyond the edge"])
def test_what_it_finds_is_where_it_is_in_the_image(finder, box, rotation, mirrored):
    image = np.zeros((240, 320, 3), np.uint8)
    spot = np.array([90, 120])
    cv2.circle(image, spot.tolist(), 6, (255, 255, 255), -1)
    found = finder(image, np.array(box), rotation, mirrored)
    assert found.shape == (17, 3) and found.dtype == np.float32
    pixel = max(box[2:]) * 1.25 / 96
    assert found[:, :2] == pytest.approx(np.tile(spot, (17, 1)), abs=1.1 * pixel), "within a pixel of the crop"
    assert (found[:, 2] == 0.75).all()


def test_the_crop_is_the_square_round_the_box_and_a_quarter_larger(row):
    found = row(np.zeros((100, 200, 3), np.uint8), np.array([40, 10, 48, 76.8]))
    # The square of 96 image pixels about (64, 48.4): crop and image pixels are of one size.
    assert found[:, 0] == pytest.approx(2 * np.arange(17) + 20 + 16, abs=1e-3)
    assert found[:, 1] == pytest.approx(48.4, abs=1e-3)


def test_left_and_right_are_changed_back_after_mirroring(row):
    box, image = np.array([40, 10, 48, 76.8]), np.zeros((100, 200, 3), np.uint8)
    plain, mirrored = row(image, box), row(image, box, mirrored=True)
    assert mirrored[:, 2] == pytest.approx(plain[COCO_17.flip_permutation, 2])
    assert mirrored[:, 0] == pytest.approx(2 * 64 - plain[COCO_17.flip_permutation, 0], abs=1e-3), "about the middle of the box"
    assert mirrored[:, 1] == pytest.approx(plain[:, 1], abs=1e-3)


def test_the_matrix_is_that_of_the_crop(row):
    box = np.array([40, 10, 48, 76.8])
    corners = geometry.transform_points(np.array([[16, 0.4], [112, 96.4]]), row.crop_matrix(box))
    assert corners == pytest.approx(np.array([[0, 0], [96, 96]]), abs=1e-3)


def test_another_network_is_refused(tmp_path):
    path = write_tflite(tmp_path / "other.tflite", lambda images: tf.cast(images, tf.float32) * 2.0, (1, 8, 8, 3))
    with pytest.raises(KposeError, match=r"other\.tflite has outputs .*MoveNet \(single pose\) has .*another network"):
        MoveNet(path)


def files(shared_models: Path) -> list[Path]:
    return [shared_models / f"movenet_{name}_fp16.tflite" for name in ("lightning", "thunder")]


@pytest.mark.parametrize("which", [0, 1], ids=["lightning", "thunder"])
def test_the_real_ones_find_people_in_any_view(shared_models, shared_data, which):
    """A person of COCO train2017 who stands free, by the photo's own annotation."""
    from kpose.data import read_coco
    from kpose.inference.detector import read_as_annotated

    coco = shared_data / "coco"
    people = read_coco(
        coco / "annotations" / "person_keypoints_train2017.json", coco / "train2017", COCO_17, for_training=True, progress=False
    )
    person = int(np.argmax((people.keypoints[..., 2] == 2).sum(axis=1) * 1e6 + people.areas))
    network = MoveNet(files(shared_models)[which])
    image = read_as_annotated(people.image_files[people.image_index[person]])
    for rotation, mirrored in ((0.0, False), (0.0, True), (15.0, False)):
        found = network(image, people.boxes[person], rotation, mirrored)
        annotated = people.keypoints[person, :, 2] > 0
        error = np.linalg.norm(found[annotated, :2] - people.keypoints[person, annotated, :2], axis=-1)
        assert np.median(error) < 0.04 * people.boxes[person, 2:].max()
