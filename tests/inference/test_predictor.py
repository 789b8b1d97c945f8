from __future__ import annotations

import cv2
import keras
import numpy as np
import pytest

import kpose
from kpose.checkpoint import ModelCard, save_model
from kpose.config import parse_config
from kpose.data import evaluation_batches, read_coco
from kpose.errors import KposeError
from kpose.evaluation import predict_instances
from kpose.inference import Pose, PoseEstimator
from kpose.skeletons import COCO_17
from tests.inference.conftest import tiny_estimator


def picture(height: int = 120, width: int = 160, seed: int = 0) -> np.ndarray:
    return cv2.GaussianBlur(np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8), (5, 5), 0)


BOXES = [[10, 10, 60, 90], [70, 20, 80, 80]]


def same(first: list[list[Pose]], second: list[list[Pose]]) -> bool:
    return [len(poses) for poses in first] == [len(poses) for poses in second] and all(
        np.allclose(a.keypoints, b.keypoints, atol=1e-3) and np.array_equal(a.box, b.box) and a.score == pytest.approx(b.score, abs=1e-5)
        for these, those in zip(first, second, strict=True)
        for a, b in zip(these, those, strict=True)
    )


def test_poses_come_by_picture_and_in_the_order_of_the_boxes(estimator):
    poses = estimator([picture(), picture(seed=1), picture(seed=2)], [BOXES, [], None])
    assert [len(found) for found in poses] == [2, 0, 1]
    assert [pose.box.tolist() for pose in poses[0]] == BOXES
    assert poses[2][0].box.tolist() == [0, 0, 160, 120]
    for pose in poses[0]:
        assert pose.keypoints.shape == (17, 3)
        x, _, width, height = pose.box
        # The crop is the box grown to the aspect ratio of the network and by a quarter: no joint lies further out.
        reach = 1.25 * max(width, height * 0.75) + 1
        assert (np.abs(pose.keypoints[:, 0] - x - width / 2) <= reach / 2).all()


def test_one_picture_is_a_list_of_one(estimator, tmp_path):
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), picture()[..., ::-1])
    expected = estimator([picture()], [BOXES])
    for image in (picture(), path, str(path)):
        assert same(estimator(image, BOXES), expected)
    assert same(estimator(np.stack([picture(), picture()]), [BOXES, BOXES]), expected * 2)


def test_batches_do_not_change_the_answer(estimator):
    boxes = [[x, y, 50, 70] for x in (5, 40, 90) for y in (5, 30, 45)]
    together = estimator(picture(), boxes)
    assert same([[pose for box in boxes for pose in estimator(picture(), [box])[0]]], together)


@pytest.mark.parametrize("alignment", ["classic", "unbiased"])
@pytest.mark.parametrize("flip", [False, True])
def test_equals_the_evaluation_path_on_the_same_photos(shared_data, alignment, flip):
    """Same crop, same normalisation, same decoding: the tiny network answers photo and evaluation crop alike, to the pixel."""
    coco = shared_data / "coco"
    people = read_coco(
        coco / "annotations" / "person_keypoints_val2017.json", coco / "val2017", COCO_17, for_training=False, progress=False
    )
    people = people.select(np.arange(24))
    estimator = tiny_estimator(alignment=alignment, flip=flip)
    preparation = estimator._preparation
    batches = list(evaluation_batches(people, preparation, 8))
    evaluation = parse_config({"evaluation": {"flip": flip}}).evaluation
    expected = predict_instances(estimator.model, people, batches, preparation.codec, evaluation, progress=False).keypoints
    images = sorted(set(people.image_index.tolist()))
    poses = estimator([people.image_files[image] for image in images], [people.boxes[people.image_index == image] for image in images])
    found = np.stack([pose.keypoints for these in poses for pose in these])
    order = np.concatenate([np.flatnonzero(people.image_index == image) for image in images])
    np.testing.assert_allclose(found, expected[order], atol=0.01)
    crops = np.concatenate([batch["image"] for batch in batches])
    image = kpose.inference.read_image(people.image_files[people.image_index[0]])
    matrix = estimator._matrices(people.boxes[:1])[0]
    np.testing.assert_allclose(estimator._crop(image, matrix), crops[0], atol=2e-3)


def test_finds_a_joint_where_the_network_points():
    """A network that answers with the red channel finds a red dot in the photo."""
    images = keras.Input((64, 48, 3))
    red = keras.layers.AveragePooling2D(4)(keras.layers.Lambda(lambda x: x[..., :1], output_shape=(64, 48, 1))(images))
    model = keras.Model(images, keras.layers.Concatenate()([red] * 17))
    card = ModelCard.from_config(parse_config({"model": {"input_size": [64, 48]}, "data": {"mean": [0, 0, 0], "std": [1, 1, 1]}}))
    photo = np.zeros((300, 400, 3), np.uint8)
    cv2.circle(photo, (230, 140), 9, (255, 0, 0), -1)
    pose = PoseEstimator(model, card, flip=False)(photo, [[170, 70, 120, 160]])[0][0]
    # One heatmap pixel is 200 / 16 image pixels; pooling moves its centre by 1.5 crop pixels.
    assert np.abs(pose.keypoints[:, :2] - [230, 140]).max() < 12.5
    assert pose.score == pytest.approx(pose.keypoints[:, 2].mean())
    assert pose.score > 0.5


def test_a_checkpoint_is_all_that_is_needed(tmp_path, estimator):
    path = tmp_path / "pose.keras"
    save_model(estimator.model, path, estimator.card)
    loaded = kpose.PoseEstimator.from_pretrained(path, batch_size=4)
    assert same(loaded(picture(), BOXES), estimator(picture(), BOXES))


def test_a_missing_checkpoint_and_a_network_without_card_are_refused(tmp_path, estimator):
    with pytest.raises(KposeError, match=r"no checkpoint .*gone\.keras"):
        PoseEstimator.from_pretrained(tmp_path / "gone.keras")
    with pytest.raises(KposeError, match="has no card"):
        PoseEstimator(keras.models.clone_model(estimator.model))
    with pytest.raises(KposeError, match="batch_size must be at least 1"):
        PoseEstimator(estimator.model, estimator.card, batch_size=0)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (picture().astype(np.float32) / 255, "of type float32; expected uint8 RGB"),
        (picture()[..., 0], r"is grey, of shape \(120, 160\); repeat its channel"),
        (picture()[..., :1], "is grey"),
        (np.zeros((10, 10, 4), np.uint8), r"shape \(10, 10, 4\); expected RGB"),
        (np.zeros((0, 10, 3), np.uint8), "expected RGB"),
        ("gone.jpg", r"cannot read picture gone\.jpg"),
    ],
)
def test_pictures_that_are_none_are_refused_with_the_remedy(estimator, image, message):
    with pytest.raises(KposeError, match=message):
        estimator([picture(), image])


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[10, 10, 0, 40]], r"box \[10, 10, 0, 40\] has no area"),
        ([[10, 10, 40, -3]], "has no area"),
        ([[10, 10, float("nan"), 40]], "NaN or infinity"),
        ([[160, 10, 20, 20]], "outside of the picture of 160 x 120"),
        ([[-30, 10, 20, 20]], "outside of the picture"),
        ([10, 10, 40, 40], r"shape \(4,\); expected \(n, 4\)"),
        ([[10, 10, 40]], r"expected \(n, 4\)"),
        ([["left", 10, 40, 40]], "must be lists of four numbers"),
    ],
)
def test_boxes_that_are_none_are_refused(estimator, boxes, message):
    with pytest.raises(KposeError, match=message) as refusal:
        estimator(picture(), boxes)
    assert "\n" not in str(refusal.value)


def test_a_box_list_for_each_picture_is_asked_for(estimator):
    with pytest.raises(KposeError, match="2 pictures but boxes for 1"):
        estimator([picture(), picture()], [BOXES])


def test_a_box_that_sticks_out_of_the_picture_is_fine(estimator):
    pose = estimator(picture(), [[-20, -20, 100, 200]])[0][0]
    assert np.isfinite(pose.keypoints).all()


def test_whole_picture_equals_its_box(estimator):
    assert same(estimator(picture()), estimator(picture(), [[0, 0, 160, 120]]))
