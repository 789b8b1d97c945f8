"""Videos and cameras: `predict_video` finds, follows and smooths the people of every frame."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np
from tqdm import tqdm

from kpose.errors import KposeError
from kpose.geometry import box_overlap
from kpose.inference.detector import Detector
from kpose.inference.predictor import Pose, PoseEstimator
from kpose.inference.smoothing import PoseSmoother
from kpose.inference.tracking import PoseTracker
from kpose.visualize import draw_box, draw_poses

SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
# Of a frame: 8K video has 33 million.
LARGEST_FRAME_PIXELS = 40_000_000
# Where a file does not say, and what no camera exceeds.
_FRAMES_PER_SECOND, _MOST_FRAMES_PER_SECOND = 25.0, 1000.0
# A detection that overlaps somebody's expected box so much is that person.
_SAME_PERSON_OVERLAP = 0.5


@dataclass(frozen=True)
class TrackedPose:
    """A person in a frame.

    Attributes:
        identity: number of the person, from 1, the same in all frames.
        pose: in the frame's own pixels, smoothed where that was asked for.
    """

    identity: int
    pose: Pose


@dataclass(frozen=True)
class VideoSummary:
    """What came of a video.

    Attributes:
        frames: that were read.
        people: different ones that were seen.
        seconds: that it took.
        video: the annotated video.
        poses: JSON lines: first joint names, skeleton, frames a second, width and height, then a line for each frame.
    """

    frames: int
    people: int
    seconds: float
    video: Path
    poses: Path


class VideoPoses:
    """Finds the people of one frame after the other.

    If the estimator has no detector it is one person, who is looked for in the whole of the frame and then followed by their own joints. A
    detector looks at every `detect_every`-th frame, and whenever nobody is followed; in between, people are looked for where their last
    poses, moved at constant velocity, are.

    Args:
        estimator: finds people, and the joints in boxes.
        detect_every: frames from one look of the detector to the next.
        minimum_score: poses with a lower score are nobody; joints with a greater one are sure.
        smoothing: whether joints are smoothed over time, see `PoseSmoother`.

    Raises:
        KposeError: when a value is out of range, or see `PoseTracker`.
    """

    def __init__(self, estimator: PoseEstimator, *, detect_every: int = 10, minimum_score: float = 0.2, smoothing: bool = True) -> None:
        if detect_every < 1:
            raise KposeError(f"detect_every must be at least 1, found {detect_every}")
        self.estimator = estimator
        self.detect_every, self.minimum_score, self.smoothing = detect_every, minimum_score, smoothing
        self.tracker = PoseTracker(estimator.skeleton, minimum_score=minimum_score)
        self._smoothers: dict[int, PoseSmoother] = {}
        self._frame = 0

    def __call__(self, image: np.ndarray, seconds: float) -> list[TrackedPose]:
        """The people in the next frame.

        Args:
            image: `(H, W, 3)` uint8 RGB, of the same size as the last.
            seconds: when it was taken, of a clock that only goes forward.
        """
        boxes = self.tracker.boxes(seconds, image.shape[:2])
        detector = self.estimator.detector
        if detector is None:
            poses = self.estimator(image, boxes[:1] if len(boxes) else None)[0]
        else:
            if self._frame % self.detect_every == 0 or not len(boxes):
                boxes = _detected(detector, image, boxes)
            poses = self.estimator.without_doubles(self.estimator(image, boxes[: self.estimator.largest_number])[0])
        self._frame += 1
        identities = self.tracker.update(poses, seconds)
        # A camera may run for days: whoever left takes their smoother along.
        self._smoothers = {identity: self._smoothers[identity] for identity in self.tracker.identities & self._smoothers.keys()}
        people = [TrackedPose(identity, pose) for identity, pose in zip(identities, poses, strict=True) if identity is not None]
        return [TrackedPose(one.identity, self._smoothed(one, seconds)) for one in people] if self.smoothing else people

    def _smoothed(self, person: TrackedPose, seconds: float) -> Pose:
        smoother = self._smoothers.setdefault(person.identity, PoseSmoother(minimum_score=self.minimum_score))
        return smoother(person.pose, seconds)


def _detected(detector: Detector, image: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The detector's boxes, the surest first, then those of expected people whom it missed."""
    boxes, scores = detector(image)
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)[np.argsort(-np.asarray(scores), kind="stable")]
    missed = [box for box in expected if not len(boxes) or box_overlap(box, boxes).max() < _SAME_PERSON_OVERLAP]
    return np.concatenate([boxes, np.array(missed, np.float32).reshape(-1, 4)])


def predict_video(
    poses: VideoPoses,
    source: str | Path | int,
    output: str | Path = "predictions",
    *,
    minimum_score: float = 0.2,
    frames: int | None = None,
    progress: bool = True,
) -> VideoSummary:
    """Find the people in a video, draw them and write them down, frame by frame.

    What was found until an interrupt (Ctrl-C) stays.

    Args:
        poses: finds and follows them.
        source: a video file, or the number of a camera.
        output: a folder for `NAME.mp4` and `NAME.jsonl`.
        minimum_score: joints below it are not drawn.
        frames: how many, at most; None: all, of a camera until the interrupt.
        progress: show a bar.

    Raises:
        KposeError: when the source cannot be read, shows no frame, or would be overwritten, or `output` cannot be written.
    """
    output = Path(output)
    name = f"camera_{source}" if isinstance(source, int) else Path(source).stem
    video, lines = output / f"{name}.mp4", output / f"{name}.jsonl"
    if not isinstance(source, int) and video.resolve() == Path(source).resolve():
        raise KposeError(f"{video} is the video to read and would be overwritten; choose another output")
    start, count, seen = time.monotonic(), 0, set[int]()
    with ExitStack() as stack:
        capture = stack.enter_context(_opened(source))
        rate = capture.get(cv2.CAP_PROP_FPS)
        rate = rate if 0 < rate <= _MOST_FRAMES_PER_SECOND else _FRAMES_PER_SECOND
        known = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if not isinstance(source, int) else 0
        total = min((number for number in (known, frames) if number and number > 0), default=None)
        bar = stack.enter_context(tqdm(total=total, desc="predicting", unit=" frames", disable=not progress, leave=False))
        writers: _Writers | None = None
        try:
            for image in _frames(capture, frames, str(source)):
                seconds = time.monotonic() - start if isinstance(source, int) else count / rate
                if writers is None:
                    header = poses.estimator.skeleton.to_dict()
                    size = {"frames_per_second": rate, "height": image.shape[0], "width": image.shape[1]}
                    writers = stack.enter_context(
                        _written(video, lines, rate, image.shape[:2], {"joint_names": header["joint_names"], "skeleton": header, **size})
                    )
                people = poses(image, seconds)
                seen.update(person.identity for person in people)
                writers.write(count, seconds, _drawn(image, people, poses, minimum_score), people)
                count += 1
                bar.update()
        except KeyboardInterrupt:
            if not count:
                raise
    seconds = time.monotonic() - start
    if not count:
        raise KposeError(f"video {source} shows no frame; is it damaged?")
    print(f"{len(seen)} people in {count} frames in {seconds:.1f} s ({count / seconds:.1f} frames/s): {video}, {lines}")
    return VideoSummary(count, len(seen), seconds, video, lines)


@contextmanager
def _opened(source: str | Path | int) -> Iterator[cv2.VideoCapture]:
    if not isinstance(source, int):
        # OpenCV takes addresses and patterns of file names, too.
        if not Path(source).is_file():
            raise KposeError(f"there is no video {source}")
        capture = cv2.VideoCapture(str(Path(source).resolve()), cv2.CAP_FFMPEG)
    else:
        capture = cv2.VideoCapture(source)
    try:
        if not capture.isOpened():
            kind = f"camera {source} cannot be opened; is it connected and free" if isinstance(source, int) else f"{source} is no video"
            raise KposeError(f"{kind}{'?' if isinstance(source, int) else ' that OpenCV reads, or damaged; convert it'}")
        width, height = (int(capture.get(property_)) for property_ in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > LARGEST_FRAME_PIXELS:
            limit = LARGEST_FRAME_PIXELS // 10**6
            raise KposeError(f"video {source} claims frames of {width} x {height} pixels, more than {limit} million; make it smaller")
        yield capture
    finally:
        capture.release()


def _frames(capture: cv2.VideoCapture, most: int | None, name: str) -> Iterator[np.ndarray]:
    """RGB frames of one size."""
    shape, count = None, 0
    while most is None or count < most:
        there, frame = capture.read()
        if not there:
            return
        shape = shape or frame.shape
        if frame.shape != shape:
            raise KposeError(
                f"video {name} changes its size from {shape[1]} x {shape[0]} to {frame.shape[1]} x {frame.shape[0]}; convert it"
            )
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        count += 1


@dataclass(frozen=True)
class _Writers:
    video: cv2.VideoWriter
    lines: TextIO

    def write(self, frame: int, seconds: float, image: np.ndarray, people: list[TrackedPose]) -> None:
        self.video.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        entry = {"frame": frame, "seconds": round(seconds, 6), "people": [_to_json(person) for person in people]}
        self.lines.write(json.dumps(entry) + "\n")


@contextmanager
def _written(video: Path, lines: Path, rate: float, size: tuple[int, int], header: dict[str, Any]) -> Iterator[_Writers]:
    """Both files, under other names until they are closed; after an interrupt too."""
    partial = video.with_name(f".{video.name}.partial.mp4"), lines.with_name(f".{lines.name}.partial")
    try:
        video.parent.mkdir(parents=True, exist_ok=True)
        text = partial[1].open("w", encoding="utf-8")
    except OSError as error:
        raise KposeError(f"cannot write to {video.parent}: {error.strerror}") from error
    writer = cv2.VideoWriter(str(partial[0]), cv2.VideoWriter.fourcc(*"mp4v"), rate, (size[1], size[0]))
    with text:
        text.write(json.dumps(header) + "\n")
        try:
            if not writer.isOpened():
                raise KposeError(f"cannot write video {video}: OpenCV was built without MPEG-4")
            yield _Writers(writer, text)
        except Exception:
            writer.release()
            for path in partial:
                path.unlink(missing_ok=True)
            raise
        writer.release()
    for path, target in zip(partial, (video, lines), strict=True):
        path.replace(target)


def _drawn(image: np.ndarray, people: list[TrackedPose], poses: VideoPoses, minimum_score: float) -> np.ndarray:
    drawn = draw_poses(image, [person.pose.keypoints for person in people], poses.estimator.skeleton, minimum_score)
    for person in people:
        if poses.estimator.detector is not None:
            drawn = draw_box(drawn, person.pose.box, str(person.identity))
    return drawn


def _to_json(person: TrackedPose) -> dict[str, Any]:
    pose = person.pose
    return {
        "identity": person.identity,
        "score": round(pose.score, 4),
        "box": np.round(pose.box.astype(np.float64), 2).tolist(),
        "keypoints": np.round(pose.keypoints.astype(np.float64), 3).tolist(),
    }
