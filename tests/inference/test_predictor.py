from __future__ import annotations

from dataclasses import replace

import cv2
import keras
import numpy as np
import pytest

import kpose
from kpose.checkpoint import ModelCard, save_model
from kpose.config import parse_config
from kpose.data import read_coco
from kpose.errors import KposeError
from kpose.evaluation import pose_test, predict_instances, view_batches
from kpose.inference import Member, Pose, PoseEstimator
from kpose.skeletons import COCO_17
from tests.inference.conftest import card_of, map_picture, oracle, tiny_estimator, tiny_network


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
@pytest.mark.parametrize("options", [{"flip": False}, {}, {"rotations": [-30, 0, 10], "scales": [0.9, 1.2]}], ids=str)
def test_equals_the_evaluation_path_on_the_same_photos(shared_data, alignment, options):
    """Same crop, same normalisation, same decoding: the tiny network answers photo and evaluation crop alike, to the pixel."""
    coco = shared_data / "coco"
    people = read_coco(
        coco / "annotations" / "person_keypoints_val2017.json", coco / "val2017", COCO_17, for_training=False, progress=False
    )
    people = people.select(np.arange(24))
    estimator = tiny_estimator(alignment=alignment, **options)
    batches = list(view_batches(estimator.test, people, 8))
    config = parse_config({"model": {"input_size": [64, 48]}, "codec": {"alignment": alignment}, "evaluation": options})
    expected = predict_instances(pose_test(config, estimator.models), people, batches, progress=False).keypoints
    images = sorted(set(people.image_index.tolist()))
    poses = estimator([people.image_files[image] for image in images], [people.boxes[people.image_index == image] for image in images])
    found = np.stack([pose.keypoints for these in poses for pose in these])
    order = np.concatenate([np.flatnonzero(people.image_index == image) for image in images])
    np.testing.assert_allclose(found, expected[order], atol=0.01)
    image = kpose.inference.read_image(people.image_files[people.image_index[0]])
    (batch,) = batches[0]
    views = estimator.test.views
    crops = estimator._crops(image, batch["matrix"][:views], estimator.test.preparations[0])
    np.testing.assert_allclose(crops, batch["image"][:views], atol=2e-3)


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
    save_model(estimator.models[0], path, estimator.cards[0])
    loaded = kpose.PoseEstimator.from_pretrained(path, batch_size=4)
    assert same(loaded(picture(), BOXES), estimator(picture(), BOXES))


def test_several_checkpoints_are_an_ensemble(tmp_path):
    """Of different input sizes, here: the answer is the mean of what each would have said."""
    paths = [tmp_path / "small.keras", tmp_path / "large.keras"]
    for path, size in zip(paths, [(64, 48), (96, 96)], strict=True):
        save_model(tiny_network(size), path, card_of(size))
    together, *alone = (
        np.stack([pose.keypoints for pose in PoseEstimator.from_pretrained(files)(picture(), BOXES)[0]]) for files in (paths, *paths)
    )
    np.testing.assert_allclose(together, (alone[0] + alone[1]) / 2, atol=1e-3)
    assert np.abs(alone[0] - alone[1]).max() > 10


@pytest.mark.parametrize("ensemble", ["positions", "heatmaps"])
def test_a_network_beside_itself_changes_nothing(estimator, ensemble):
    options = {"rotations": [-20, 0], "scales": [1, 1.1]}
    models, cards = estimator.models * 2, estimator.cards * 2
    doubled = PoseEstimator(models, cards, ensemble=ensemble, **options)(picture(), BOXES)
    assert same(doubled, PoseEstimator(models[0], cards[0], **options)(picture(), BOXES))
    assert not same(doubled, estimator(picture(), BOXES))


@pytest.mark.parametrize("batch_size", [1, 5, 16])
def test_views_are_batched_without_changing_the_answer(estimator, batch_size):
    options = {"rotations": [-20, 0, 20], "scales": [1, 1.1]}
    boxes = [[x, y, 50, 70] for x in (5, 40, 90) for y in (5, 30)]
    expected, found = (PoseEstimator(*estimator.models, *estimator.cards, batch_size=size, **options) for size in (64, batch_size))
    assert same(found([picture(), picture(seed=1)], [boxes, BOXES]), expected([picture(), picture(seed=1)], [boxes, BOXES]))


@pytest.mark.parametrize("options", [{}, {"rotations": [-20, 0, 20], "scales": [0.95, 1, 1.15]}], ids=str)
def test_networks_that_are_right_find_the_joints(options):
    """From photo and box to joints, whatever the network is shown."""
    joints = np.random.default_rng(4).uniform([98, 76], [142, 126], (17, 2))
    cards = [card_of(size, "unbiased", codec={"center": "exact", "decoding": "dark"}) for size in ((128, 96), (96, 128))]
    estimator = PoseEstimator([tiny_network(card.input_size) for card in cards], cards, **options)
    members = [Member(oracle(preparation, joints), preparation) for preparation in estimator.test.preparations]
    estimator.test = replace(estimator.test, members=members)
    boxes = [[60, 36, 120, 130], [70, 40, 100, 124]]
    for pose in estimator(map_picture(), boxes)[0]:
        # The regions are at most 217 image pixels wide at 24 heatmap pixels, times 1.15.
        assert np.abs(pose.keypoints[:, :2] - joints).max() < 0.01 * 217 * 1.15 / 24


def test_networks_that_do_not_belong_together_are_refused(tmp_path, estimator):
    other = tiny_network(joints=16), card_of(skeleton="mpii_16")
    with pytest.raises(KposeError, match=r"networks of the same joints: .* 'coco_17' \(17 joints\), .* 'mpii_16' \(16 joints\)"):
        PoseEstimator([*estimator.models, other[0]], [*estimator.cards, other[1]])
    save_model(estimator.models[0], tmp_path / "coco.keras", estimator.cards[0])
    save_model(*other[:1], tmp_path / "mpii.keras", other[1])
    with pytest.raises(KposeError, match=r"coco\.keras has skeleton 'coco_17' .*mpii\.keras has 'mpii_16'"):
        PoseEstimator.from_pretrained([tmp_path / "coco.keras", tmp_path / "mpii.keras"])
    with pytest.raises(KposeError, match=r"expected a network, found 'coco\.keras'; read a checkpoint by kpose\.load_model"):
        PoseEstimator("coco.keras")
    with pytest.raises(KposeError, match="no network given"):
        PoseEstimator.from_pretrained([])
    with pytest.raises(KposeError, match="2 networks but 1 cards"):
        PoseEstimator(estimator.models * 2, estimator.cards)
    with pytest.raises(KposeError, match=r"average positions instead \(ensemble: positions\)"):
        PoseEstimator([*estimator.models, tiny_network((96, 96))], [*estimator.cards, card_of((96, 96))], ensemble="heatmaps")


def test_a_missing_checkpoint_and_a_network_without_card_are_refused(tmp_path, estimator):
    with pytest.raises(KposeError, match=r"no checkpoint .*gone\.keras"):
        PoseEstimator.from_pretrained(tmp_path / "gone.keras")
    with pytest.raises(KposeError, match="has no card"):
        PoseEstimator(keras.models.clone_model(estimator.models[0]))
    with pytest.raises(KposeError, match="batch_size must be at least 1"):
        PoseEstimator(estimator.models, estimator.cards, batch_size=0)


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


def test_a_detector_finds_the_people_of_pictures_without_boxes(estimator):
    boxes, scores = np.array([[5, 5, 60, 90], [80, 20, 50, 120], [10, 100, 90, 40]], np.float32), np.array([0.4, 0.9, 0.6], np.float32)
    seen = []

    def detector(image):
        seen.append(image)
        return boxes, scores

    finds = tiny_estimator(detector=detector, suppression_threshold=1.0)
    picture, given = map_picture(), map_picture()[::-1].copy()
    found, other = finds([picture, given], [None, boxes[:1]])
    assert len(seen) == 1 and (seen[0] == picture).all()
    # As if the boxes had been given; but a person is only as sure as the box.
    expected = estimator(picture, boxes)[0]
    assert len(found) == 3 and len(other) == 1
    for pose in found:
        ((position, same),) = [(index, one) for index, one in enumerate(expected) if (one.box == pose.box).all()]
        np.testing.assert_allclose(pose.keypoints, same.keypoints, atol=1e-4)
        assert pose.score == pytest.approx(same.score * scores[position], rel=1e-4)
    assert [pose.score for pose in found] == sorted((pose.score for pose in found), reverse=True)
    (alone,) = tiny_estimator(detector=detector, largest_number=1)(picture)[0]
    assert (alone.box == boxes[1]).all()


def test_two_boxes_of_one_person_are_one_pose():
    box = np.array([[20, 20, 60, 90]] * 2, np.float32)
    (pose,) = tiny_estimator(detector=lambda image: (box, np.array([0.5, 0.7])))(map_picture())[0]
    assert pose.score > 0


def test_a_detector_may_find_nobody():
    nobody = tiny_estimator(detector=lambda image: (np.zeros((0, 4)), np.zeros(0)))
    assert nobody([map_picture()] * 2) == [[], []]
