from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kpose.errors import KposeError
from kpose.inference import Pose, PoseTracker
from kpose.skeletons import COCO_17

BODY = np.random.default_rng(3).uniform([0, 0], [60, 160], (17, 2))
SIZE = (480, 640)


def person(x: float, y: float, score: float = 0.9, tremble: float = 0.0, seed: int = 0) -> Pose:
    joints = BODY + [x, y] + np.random.default_rng(seed).normal(size=BODY.shape) * tremble
    box = np.concatenate([joints.min(axis=0), np.ptp(joints, axis=0)]).astype(np.float32)
    return Pose(np.concatenate([joints, np.full((17, 1), score)], axis=1).astype(np.float32), score, box)


def test_people_keep_their_numbers_whatever_the_order():
    tracker = PoseTracker(COCO_17)
    for frame in range(40):
        people = [person(20 + 5 * frame, 40, tremble=2, seed=frame), person(300, 200 + frame, tremble=2, seed=frame)]
        order = 1 if frame % 2 == 0 else -1
        assert tracker.update(people[::order], frame / 30) == [1, 2][::order]


def test_people_who_pass_one_another_keep_their_numbers():
    """At the crossing both are nearer to the other's last place than to their own: the velocity tells."""
    tracker = PoseTracker(COCO_17)
    for frame in range(60):
        left, right = person(20 + 8 * frame, 100), person(492 - 8 * frame, 110)
        assert tracker.update([left, right], frame / 30) == [1, 2], frame


def test_somebody_who_was_hidden_comes_back_as_the_same_within_patience():
    for hidden, same in ((20, True), (40, False)):
        tracker = PoseTracker(COCO_17, patience=1.0)
        for frame in range(10):
            tracker.update([person(50 + 2 * frame, 40)], frame / 30)
        frame = 9 + hidden
        assert (tracker.update([person(50 + 2 * frame, 40)], frame / 30) == [1]) == same


def test_doubtful_poses_are_nobody():
    tracker = PoseTracker(COCO_17)
    assert tracker.update([person(10, 10, score=0.1), person(200, 10)], 0.0) == [None, 1]
    assert tracker.update([], 0.1) == []


def test_somebody_far_away_is_somebody_else():
    tracker = PoseTracker(COCO_17)
    tracker.update([person(10, 10)], 0.0)
    assert tracker.update([person(400, 200)], 1 / 30) == [2]


def test_boxes_follow_the_people():
    tracker = PoseTracker(COCO_17)
    for frame in range(10):
        tracker.update([person(100 + 10 * frame, 50), person(300, 200)], frame / 30)
    boxes = tracker.boxes(10 / 30, SIZE)
    assert boxes.shape == (2, 4)
    for box, pose in zip(boxes, (person(200, 50), person(300, 200)), strict=True):
        centre = box[:2] + box[2:] / 2
        np.testing.assert_allclose(centre, pose.box[:2] + pose.box[2:] / 2, atol=2)
        assert (box[2:] > pose.box[2:]).all()
    assert PoseTracker(COCO_17).boxes(0.0, SIZE).shape == (0, 4)


def test_somebody_who_left_the_frame_is_not_looked_for():
    tracker = PoseTracker(COCO_17)
    for frame in range(10):
        tracker.update([person(560 + 10 * frame, 50)], frame / 30)
    assert tracker.boxes(10 / 30, SIZE).shape == (0, 4)


def test_what_makes_no_tracker_is_refused():
    with pytest.raises(KposeError, match="no OKS sigmas"):
        PoseTracker(replace(COCO_17, oks_sigmas=None))
    with pytest.raises(KposeError, match="minimum_similarity must lie between 0 and 1"):
        PoseTracker(COCO_17, minimum_similarity=0)
