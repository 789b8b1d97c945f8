from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kpose.data import read_coco
from kpose.errors import KposeError
from kpose.evaluation.pck import pck
from kpose.geometry import box_overlap
from kpose.inference import Member, Pose, PoseEstimator, Refinement
from kpose.skeletons import COCO_17
from kpose.weights.pretrained import DEFAULT, list_pretrained
from tests.inference.conftest import card_of, map_picture, oracle, tiny_network

WHOLE = np.array([0, 0, 400, 300], np.float32)
JOINTS = np.random.default_rng(1).uniform([180, 90], [240, 190], (17, 2))


def pose(joints: np.ndarray, box: np.ndarray = WHOLE, score: float = 0.9) -> Pose:
    return Pose(np.concatenate([joints, np.full((len(joints), 1), score)], axis=1).astype(np.float32), score, box)


class Eyes:
    """Finds the joints the better the closer it looks, and remembers every look."""

    def __init__(self, blur: float = 0.05) -> None:
        self.blur, self.looks = blur, []

    def __call__(self, box: np.ndarray) -> Pose:
        self.looks.append(box)
        error = np.random.default_rng(len(self.looks)).normal(size=JOINTS.shape) * self.blur * box[2:].max()
        return pose(JOINTS + error, box)

    def refine(self, refinement: Refinement, pictures: int = 1) -> list[Pose]:
        return refinement.refine([self(WHOLE) for _ in range(pictures)], lambda chosen, boxes: [self(box) for box in boxes])


keypoints = arrays(np.float32, (17, 3), elements=st.floats(-100, 500, width=32))


@given(keypoints, st.floats(0, 1))
def test_the_box_holds_the_sure_joints_and_stays_in_the_picture(points, margin):
    points[:, 2] = np.abs(points[:, 2]) % 1
    box = Refinement(margin=margin).next_box(points, WHOLE)
    sure = points[points[:, 2] > 0.2, :2]
    if box is None:
        spanned = np.ptp(np.clip(sure, 0, WHOLE[2:]), axis=0) if len(sure) else np.zeros(2)
        assert len(sure) < 5 or spanned.min() <= 1 + 1e-3
        return
    assert (box[2:] > 0).all()
    assert (box[:2] >= 0).all() and (box[:2] + box[2:] <= WHOLE[2:] + 1e-3).all()
    inside = np.clip(sure, 0, WHOLE[2:])
    assert (inside >= box[:2] - 1e-3).all() and (inside <= box[:2] + box[2:] + 1e-3).all()


def test_the_margin_is_a_fraction_of_the_longer_side():
    points = pose(np.array([[100, 50], [140, 50], [100, 250], [140, 250], [120, 150]])).keypoints
    np.testing.assert_allclose(Refinement(margin=0.1).next_box(points, WHOLE), [80, 30, 80, 240])


def test_joints_that_are_not_sure_make_no_box():
    points = pose(JOINTS).keypoints
    points[0] = [5, 5, 0.1]
    assert Refinement(minimum_score=0.2).next_box(points, WHOLE)[0] > 100
    points[4:, 2] = 0.1
    assert Refinement(minimum_joints=5).next_box(points, WHOLE) is None
    points[4, 2] = 0.9
    assert Refinement(minimum_joints=4).next_box(points, WHOLE) is not None


def test_it_comes_closer_until_the_box_settles():
    eyes = Eyes()
    (found,) = eyes.refine(Refinement(passes=20, settled=0.8))
    assert 2 < len(eyes.looks) < 20
    assert np.abs(found.keypoints[:, :2] - JOINTS).mean() < 0.5 * np.abs(Eyes()(WHOLE).keypoints[:, :2] - JOINTS).mean()
    assert box_overlap(Refinement().next_box(found.keypoints, WHOLE), found.box) >= 0.8
    np.testing.assert_array_equal(found.box, eyes.looks[-1])


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_it_never_looks_more_often_than_allowed(passes):
    eyes = Eyes(blur=0.1)
    eyes.refine(Refinement(passes=passes, settled=1.0))
    assert len(eyes.looks) == passes


def test_a_sure_answer_needs_one_more_look_and_a_full_picture_none():
    eyes = Eyes(blur=0)
    eyes.refine(Refinement())
    assert len(eyes.looks) == 2
    looks = []
    filling = pose(np.random.default_rng(0).uniform([0, 0], [400, 300], (200, 2)))
    assert Refinement().refine([filling], lambda chosen, boxes: looks.append(chosen)) == [filling]
    assert looks == []


def test_pictures_settle_by_themselves():
    """Only those that have not settled are looked at again, and each gets its own box and answer."""
    wandering = [JOINTS + np.array([step, 0]) for step in (90, 60, 30, 0, 0)]
    chosen_before = []

    def look(chosen, boxes):
        chosen_before.append(list(chosen))
        answers = {0: JOINTS, 2: wandering[len(chosen_before)]}
        return [pose(answers[picture], box) for picture, box in zip(chosen, boxes, strict=True)]

    first = [pose(JOINTS), pose(JOINTS, score=0.1), pose(wandering[0])]
    steady, unsure, arrived = Refinement(passes=10).refine(first, look)
    assert chosen_before == [[0, 2], [2], [2], [2]]
    assert unsure is first[1]
    np.testing.assert_allclose(steady.keypoints[:, :2], JOINTS, atol=1e-3)
    np.testing.assert_allclose(arrived.keypoints[:, :2], JOINTS, atol=1e-3)


@pytest.mark.parametrize("passes", [2, 3, 5])
def test_the_answer_to_the_whole_picture_stands_where_a_closer_look_finds_nobody(passes):
    first = pose(JOINTS)
    looks = []

    def look(chosen, boxes):
        looks.append(chosen)
        return [pose(JOINTS, box, score=0.05) for box in boxes]

    assert Refinement(passes=passes).refine([first], look) == [first]
    assert looks == [[0]]


@pytest.mark.parametrize(
    "options", [{"passes": 0}, {"margin": -0.1}, {"margin": float("nan")}, {"minimum_joints": 1}, {"settled": 0}, {"settled": 1.1}], ids=str
)
def test_values_out_of_range_are_refused(options):
    with pytest.raises(KposeError, match=f"{next(iter(options))} of a refinement must be"):
        Refinement(**options)


def always_right(joints: np.ndarray, **options) -> PoseEstimator:
    card = card_of((128, 96), "unbiased", codec={"center": "exact", "decoding": "dark"})
    estimator = PoseEstimator(tiny_network(card.input_size), card, **options)
    members = [Member(oracle(preparation, joints), preparation) for preparation in estimator.test.preparations]
    estimator.test = replace(estimator.test, members=members)
    return estimator


def test_the_estimator_finds_the_box_of_a_small_person():
    joints = np.random.default_rng(4).uniform([98, 76], [142, 126], (17, 2))
    estimator = always_right(joints)
    ((found,),) = estimator(map_picture())
    np.testing.assert_allclose(found.keypoints[:, :2], joints, atol=0.5)
    # The joints span 44 by 50 pixels of 240 by 200.
    assert found.box[2] * found.box[3] < 80 * 80
    assert (found.box[:2] < joints.min(axis=0)).all() and (found.box[:2] + found.box[2:] > joints.max(axis=0)).all()


def test_given_boxes_are_taken_as_they_are():
    joints = np.random.default_rng(4).uniform([98, 76], [142, 126], (17, 2))
    boxes = [[60, 36, 120, 130], [0, 0, 240, 200]]
    refining, plain = always_right(joints), always_right(joints, refinement=None)
    with_boxes, alone, whole = refining([map_picture(), map_picture(), map_picture()], [boxes, None, boxes[1:]])
    assert [found.box.tolist() for found in with_boxes] == boxes
    assert [found.box.tolist() for found in whole] == boxes[1:]
    assert alone[0].box.tolist() not in boxes
    ((unrefined,),) = plain(map_picture())
    assert unrefined.box.tolist() == [0, 0, 240, 200]
    np.testing.assert_array_equal(unrefined.keypoints, whole[0].keypoints)


def test_a_picture_may_be_a_file(tmp_path):
    import cv2

    path = tmp_path / "map.png"
    cv2.imwrite(str(path), map_picture()[..., ::-1])
    estimator = always_right(np.random.default_rng(4).uniform([98, 76], [142, 126], (17, 2)))
    from_file, from_array = estimator([path, map_picture()])
    np.testing.assert_array_equal(from_file[0].keypoints, from_array[0].keypoints)


@pytest.mark.skipif(DEFAULT not in list_pretrained(), reason="no trained network is released yet")
def test_the_shipped_network_finds_single_people_better_that_way(shared_data):
    """Fencers of takes that nothing is trained on, the whole picture twice as high as they are (docs/decisions/shipped-weights.md)."""
    fencing = shared_data / "fencing"
    takes = {"take": ["20250322_115525", "20250322_111357", "20250322_112438", "20250322_115207"]}
    people = read_coco(fencing / "coco_keypoints.json", fencing / "images", COCO_17, for_training=False, include=takes, progress=False)
    people = people.select(np.arange(0, len(people), 8))
    assert len(people) >= 10
    estimator = PoseEstimator.from_pretrained(DEFAULT, flip=False)
    pictures = [people.image_files[image] for image in people.image_index]
    correct = {}
    for refinement in (None, Refinement()):
        estimator.refinement = refinement
        found = np.stack([pose.keypoints[:, :2] for (pose,) in estimator(pictures)])
        correct[refinement] = pck(found, people.keypoints[..., :2], people.keypoints[..., 2] == 0, skeleton=COCO_17)["mean"]
    assert correct[Refinement()] > correct[None] + 15
