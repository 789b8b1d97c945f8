from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from kpose.cli import main
from kpose.errors import KposeError
from kpose.geometry import box_overlap
from kpose.inference import Pose, VideoPoses, predict_video
from kpose.skeletons import COCO_17
from tests.inference.conftest import tiny_estimator

BODY = np.random.default_rng(3).uniform([4, 4], [56, 116], (17, 2))
IMAGE = np.zeros((240, 640, 3), np.uint8)


def box_at(x: float) -> np.ndarray:
    return np.array([x, 60, 60, 120], np.float32)


class Seer:
    """Stands for an estimator: in a box that overlaps a person it finds them, elsewhere nobody; it remembers every look."""

    skeleton = COCO_17
    largest_number = 10

    def __init__(self, detector=None) -> None:
        self.detector, self.people, self.looks = detector, [], []

    def __call__(self, image, boxes=None):
        self.looks.append(boxes)
        return [[self._find(box) for box in ([np.array([0, 0, 640, 240])] if boxes is None else boxes)]]

    def without_doubles(self, poses):
        return list({tuple(pose.keypoints[0]): pose for pose in poses}.values())

    def _find(self, box) -> Pose:
        near = [x for x in self.people if box_overlap(np.asarray(box), box_at(x)) > 0.01]
        score = 0.9 if near else 0.05
        joints = BODY + np.array([near[0] if near else 0, 60])
        return Pose(np.concatenate([joints, np.full((17, 1), score)], axis=1).astype(np.float32), score, np.asarray(box, np.float32))


def walk(poses: VideoPoses, seer: Seer, frames: int, *paths) -> list[list[tuple[int, float]]]:
    """Of each frame the number and place of everybody found."""
    found = []
    for frame in range(frames):
        seer.people = [path(frame) for path in paths]
        people = poses(IMAGE, frame / 30)
        found.append([(person.identity, float(person.pose.keypoints[0, 0] - BODY[0, 0])) for person in people])
    return found


def test_the_detector_looks_now_and_then_and_poses_carry_on():
    looked = []

    def detector(image):
        looked.append(len(seer.looks))
        return np.stack([box_at(x) for x in seer.people]), np.full(len(seer.people), 0.8)

    seer = Seer(detector)
    found = walk(VideoPoses(seer, detect_every=5, smoothing=False), seer, 23, lambda frame: 20 + 3 * frame, lambda frame: 500 - 2 * frame)
    assert looked == [0, 5, 10, 15, 20]
    for frame, people in enumerate(found):
        assert sorted(people) == [(1, pytest.approx(20 + 3 * frame, abs=1e-3)), (2, pytest.approx(500 - 2 * frame, abs=1e-3))]


def test_somebody_whom_the_detector_misses_stays():
    seer = Seer(lambda image: (np.zeros((0, 4)), np.zeros(0)) if len(seer.looks) > 3 else (box_at(20)[None], np.ones(1)))
    found = walk(VideoPoses(seer, detect_every=3), seer, 12, lambda frame: 20 + frame)
    assert all([identity for identity, _ in people] == [1] for people in found)


def test_somebody_new_is_found_when_the_detector_looks_again():
    seer = Seer(lambda image: (np.stack([box_at(x) for x in seer.people]), np.ones(len(seer.people))))
    poses = VideoPoses(seer, detect_every=4)
    assert [identity for identity, _ in walk(poses, seer, 6, lambda frame: 20)[-1]] == [1]
    later = walk(poses, seer, 4, lambda frame: 20, lambda frame: 400)
    assert [len(people) for people in later] == [1, 1, 2, 2]


def test_without_a_detector_one_person_is_followed_and_looked_for_again_when_lost():
    seer = Seer()
    poses = VideoPoses(seer)
    walk(poses, seer, 5, lambda frame: 100 + 4 * frame)
    assert seer.looks[0] is None and all(len(look) == 1 for look in seer.looks[1:])
    assert walk(poses, seer, 1) == [[]]
    seer.looks.clear()
    for frame in range(60):  # longer than a tracker's patience
        seer.people = []
        poses(IMAGE, 1 + frame / 30)
    assert seer.looks[-1] is None
    # Nothing is kept of somebody who left.
    assert not poses.tracker.identities and not poses._smoothers


def test_joints_are_smoothed_over_time():
    def trembling(frame: int) -> float:
        return 100 + (1 if frame % 2 else -1)

    places = {}
    for smoothing in (True, False):
        seer = Seer()
        places[smoothing] = [people[0][1] for people in walk(VideoPoses(seer, smoothing=smoothing), seer, 40, trembling)]
    assert np.std(places[True][20:]) < 0.5 * np.std(places[False][20:])


# --- files -----------------------------------------------------------------------------------------------------------------------------


def write_video(path: Path, frames: int = 6, size: tuple[int, int] = (96, 128)) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 12.5, size[::-1])
    for frame in range(frames):
        writer.write(np.random.default_rng(frame).integers(0, 255, (*size, 3), np.uint8))
    writer.release()
    return path


@pytest.fixture(scope="module")
def poses():
    return lambda: VideoPoses(tiny_estimator(batch_size=4, flip=False), minimum_score=0.0)


def test_a_video_becomes_a_video_and_lines(poses, tmp_path, capsys):
    summary = predict_video(poses(), write_video(tmp_path / "walk.mp4"), tmp_path / "out", progress=False)
    assert (summary.frames, summary.video, summary.poses) == (6, tmp_path / "out/walk.mp4", tmp_path / "out/walk.jsonl")
    header, *lines = [json.loads(line) for line in summary.poses.read_text().splitlines()]
    assert (header["frames_per_second"], header["height"], header["width"]) == (12.5, 96, 128)
    assert header["joint_names"] == list(COCO_17.joint_names)
    assert [line["frame"] for line in lines] == list(range(6))
    assert lines[2]["seconds"] == pytest.approx(2 / 12.5)
    assert all(len(person["keypoints"]) == 17 for line in lines for person in line["people"])
    capture = cv2.VideoCapture(str(summary.video))
    assert (capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)) == (6, 12.5)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["walk.jsonl", "walk.mp4"]
    assert "6 frames" in capsys.readouterr().out


def test_as_many_frames_as_asked_for(poses, tmp_path):
    assert predict_video(poses(), write_video(tmp_path / "walk.mp4"), tmp_path / "out", frames=2, progress=False).frames == 2


def test_what_was_found_until_an_interrupt_stays(poses, tmp_path):
    find, calls = poses(), []

    class Interrupted(VideoPoses):
        def __call__(self, image, seconds):
            calls.append(seconds)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return find(image, seconds)

    summary = predict_video(Interrupted(find.estimator), write_video(tmp_path / "walk.mp4"), tmp_path / "out", progress=False)
    assert summary.frames == 3
    assert len(summary.poses.read_text().splitlines()) == 4


def test_a_failure_leaves_nothing_half_written(poses, tmp_path):
    find = poses()

    class Failing(VideoPoses):
        def __call__(self, image, seconds):
            if seconds > 0.1:
                raise KposeError("no more")
            return find(image, seconds)

    with pytest.raises(KposeError, match="no more"):
        predict_video(Failing(find.estimator), write_video(tmp_path / "walk.mp4"), tmp_path / "out", progress=False)
    assert not list((tmp_path / "out").iterdir())


def test_sources_that_are_no_video_are_refused(poses, tmp_path):
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(4096))
    (tmp_path / "empty.mp4").touch()
    for name in ("noise.mp4", "empty.mp4"):
        with pytest.raises(KposeError, match=f"{name} is no video that OpenCV reads, or damaged"):
            predict_video(poses(), tmp_path / name, tmp_path / "out", progress=False)
    for name in ("missing.mp4", "picture_%02d.jpg", "http://localhost/walk.mp4"):
        with pytest.raises(KposeError, match="there is no video"):
            predict_video(poses(), name, tmp_path / "out", progress=False)
    walk = write_video(tmp_path / "walk.mp4")
    with pytest.raises(KposeError, match="would be overwritten"):
        predict_video(poses(), walk, tmp_path, progress=False)
    with pytest.raises(KposeError, match="detect_every must be at least 1"):
        VideoPoses(tiny_estimator(), detect_every=0)


def test_the_command_refuses_what_does_not_go_with_a_video(tmp_path, capsys):
    for arguments, message in (
        (["walk.mp4", "--boxes", "boxes.json"], "--boxes and --whole-image are for pictures"),
        (["0", "--whole-image"], "--boxes and --whole-image are for pictures"),
        (["walk.mp4", "--frames", "0"], "--frames must be at least 1"),
    ):
        assert main(["predict", *arguments]) == 2
        assert message in capsys.readouterr().err
