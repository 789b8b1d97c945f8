"""Who is who from frame to frame: `PoseTracker`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kpose.errors import KposeError
from kpose.geometry import box_overlap
from kpose.inference.refinement import Refinement

if TYPE_CHECKING:
    from kpose.inference.predictor import Pose
    from kpose.skeletons import Skeleton

# How fast a track takes over a new velocity; 1 would follow every tremble.
_VELOCITY_SHARE = 0.5


@dataclass
class _Track:
    """A person who was seen: last pose, when, velocity `(2,)` of all joints together in pixels a second, and how often in a row found."""

    identity: int
    pose: Pose
    seconds: float
    velocity: np.ndarray
    sightings: int = 1

    def moved(self, seconds: float) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints `(K, 3)` and box `(4,)` where they should be by now."""
        shift = self.velocity * (seconds - self.seconds)
        keypoints, box = self.pose.keypoints.astype(np.float64), self.pose.box.astype(np.float64)
        keypoints[:, :2] += shift
        box[:2] += shift
        return keypoints, box


class PoseTracker:
    """Gives the people of a video numbers that stay with them.

    A person is expected where their last pose, moved at constant velocity, is. Greedily, the most similar pair of an expected and a found
    pose first, everybody found becomes somebody who was expected, or somebody new. Similarity is the mean of OKS (over the joints that are
    sure in both) and the overlap of the boxes: OKS tells people in a crowd apart, the overlap still holds when a limb has moved far.

    Args:
        skeleton: whose OKS sigmas say how exact joints are.
        minimum_similarity: below it a found pose is nobody who was expected.
        minimum_score: poses with a lower score are nobody; and joints with a greater one are sure.
        patience: seconds that somebody may be out of sight and still be the same person.

    Raises:
        KposeError: when the skeleton has no sigmas or a value is out of range.
    """

    def __init__(self, skeleton: Skeleton, minimum_similarity: float = 0.2, minimum_score: float = 0.2, patience: float = 1.0) -> None:
        if skeleton.oks_sigmas is None:
            raise KposeError(f"skeleton {skeleton.name!r} has no OKS sigmas, by which poses are compared; add 'oks_sigmas'")
        if not (0 < minimum_similarity < 1 and patience >= 0):
            raise KposeError(
                f"minimum_similarity must lie between 0 and 1 and patience be at least 0, found {minimum_similarity} and {patience}"
            )
        self._variances = (2.0 * np.asarray(skeleton.oks_sigmas, np.float64)) ** 2
        self._minimum_similarity = minimum_similarity
        self._minimum_score = minimum_score
        self._patience = patience
        self._refinement = Refinement(minimum_score=minimum_score)
        self._tracks: list[_Track] = []
        self._next_identity = 1

    @property
    def identities(self) -> set[int]:
        """The numbers of those who are in sight, or were within `patience`."""
        return {track.identity for track in self._tracks}

    def boxes(self, seconds: float, image_size: tuple[int, int]) -> np.ndarray:
        """Where the people who were seen last are to be looked for now, without a detector.

        Args:
            seconds: time of the frame.
            image_size: height and width of the frame.

        Returns:
            `(n, 4)` float32 x, y, width, height, of everybody whose joints make a box within the frame.
        """
        whole = np.array([0, 0, image_size[1], image_size[0]], np.float32)
        found = [self._refinement.next_box(track.moved(seconds)[0], whole) for track in self._tracks]
        return np.array([box for box in found if box is not None], np.float32).reshape(-1, 4)

    def update(self, poses: Sequence[Pose], seconds: float) -> list[int | None]:
        """Take note of what a frame shows.

        Args:
            poses: found in it.
            seconds: time of the frame, of a clock that only goes forward.

        Returns:
            The number of each person, from 1; None for poses that are nobody's, of too low a score.
        """
        self._tracks = [track for track in self._tracks if seconds - track.seconds <= self._patience]
        identities: list[int | None] = [None] * len(poses)
        found = [position for position, pose in enumerate(poses) if pose.score >= self._minimum_score]
        similarity = np.array([[self._similarity(track, poses[position], seconds) for position in found] for track in self._tracks])
        unknown = list(found)
        while similarity.size and similarity.max() >= self._minimum_similarity:
            row, column = map(int, np.unravel_index(similarity.argmax(), similarity.shape))
            track, position = self._tracks[row], found[column]
            self._follow(track, poses[position], seconds)
            identities[position] = track.identity
            unknown.remove(position)
            similarity[row], similarity[:, column] = -1.0, -1.0
        for position in unknown:
            self._tracks.append(_Track(self._next_identity, poses[position], seconds, np.zeros(2)))
            identities[position] = self._next_identity
            self._next_identity += 1
        return identities

    def _similarity(self, track: _Track, pose: Pose, seconds: float) -> float:
        expected, expected_box = track.moved(seconds)
        sure = np.minimum(expected[:, 2], pose.keypoints[:, 2]) > self._minimum_score
        overlap = float(box_overlap(expected_box, pose.box))
        if not sure.any():
            return overlap / 2
        distances = ((expected[sure, :2] - pose.keypoints[sure, :2]) ** 2).sum(axis=-1)
        area = max(float(np.prod(expected_box[2:]) + np.prod(pose.box[2:], dtype=np.float64)) / 2, 1e-12)
        return (float(np.exp(-distances / self._variances[sure] / area / 2).mean()) + overlap) / 2

    def _follow(self, track: _Track, pose: Pose, seconds: float) -> None:
        step = seconds - track.seconds
        sure = np.minimum(track.pose.keypoints[:, 2], pose.keypoints[:, 2]) > self._minimum_score
        if step > 0 and sure.any():
            # The median: a joint that was found elsewhere does not move the person.
            change = np.median(pose.keypoints[sure, :2].astype(np.float64) - track.pose.keypoints[sure, :2], axis=0)
            share = _VELOCITY_SHARE if track.sightings > 1 else 1.0
            track.velocity = track.velocity + share * (change / step - track.velocity)
        track.pose, track.seconds = pose, seconds
        track.sightings += 1
