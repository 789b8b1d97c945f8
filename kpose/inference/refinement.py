"""One person in a picture, and no box: look at the whole of it, then at what the found joints ask for, until that settles.

The idea, from one frame of a video to the next, is that of MoveNet's `determine_crop_region`; here within one picture, with the boxes that
kpose's networks are trained for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kpose.errors import KposeError
from kpose.geometry import box_overlap

if TYPE_CHECKING:
    from kpose.inference.predictor import Pose


@dataclass(frozen=True)
class Refinement:
    """How the box of a single person follows from the joints that were found.

    Attributes:
        passes: looks at a picture, at most; the first is at the whole of it.
        margin: what the box of the joints is grown by on every side, as a fraction of its longer side: a body is larger than its joints.
        minimum_score: joints with a greater score make the box.
        minimum_joints: where there are fewer, the answer to the whole picture stands.
        settled: the next box overlaps the one before by so much (intersection over union): another look would tell nothing new.

    Raises:
        KposeError: when a value is out of range.
    """

    passes: int = 6
    margin: float = 0.1
    minimum_score: float = 0.2
    minimum_joints: int = 5
    settled: float = 0.9

    def __post_init__(self) -> None:
        for name, allowed, range_ in (
            ("passes", self.passes >= 1, "at least 1"),
            ("margin", 0 <= self.margin < float("inf"), "at least 0"),
            ("minimum_joints", self.minimum_joints >= 2, "at least 2"),
            ("settled", 0 < self.settled <= 1, "above 0, at most 1"),
        ):
            if not allowed:
                raise KposeError(f"{name} of a refinement must be {range_}, found {getattr(self, name)}")

    def next_box(self, keypoints: np.ndarray, within: np.ndarray) -> np.ndarray | None:
        """The box of the joints, for a closer look.

        Args:
            keypoints: `(K, 3)` x, y in the image frame, and the score of each joint.
            within: `(4,)` x, y, width, height: the box does not leave this one.

        Returns:
            `(4,)` float32 x, y, width, height; None where too few joints are sure, or what they span has no area.
        """
        sure = keypoints[keypoints[:, 2] > self.minimum_score, :2].astype(np.float64)
        if len(sure) < self.minimum_joints:
            return None
        low, high = sure.min(axis=0), sure.max(axis=0)
        grown = self.margin * (high - low).max()
        low, high = np.maximum(low - grown, within[:2]), np.minimum(high + grown, within[:2] + within[2:])
        return np.concatenate([low, high - low]).astype(np.float32) if (high > low + 1).all() else None

    def refine(self, poses: Sequence[Pose], look: Callable[[list[int], list[np.ndarray]], Sequence[Pose]]) -> list[Pose]:
        """Look again until the boxes settle.

        Args:
            poses: of each picture the one that was found in the whole of it.
            look: finds them again, in the boxes of the pictures of these numbers.

        Returns:
            The pose of each picture as last found; that of the whole picture where closer looks found too few joints to go by.
        """
        found = list(poses)
        unsettled = list(range(len(poses)))
        for _ in range(self.passes - 1):
            boxes = {}
            for picture in unsettled:
                box = self.next_box(found[picture].keypoints, poses[picture].box)
                if box is not None and box_overlap(box, found[picture].box) < self.settled:
                    boxes[picture] = box
            if not boxes:
                break
            unsettled = list(boxes)
            for picture, pose in zip(unsettled, look(unsettled, list(boxes.values())), strict=True):
                found[picture] = pose
        return [whole if self.next_box(pose.keypoints, whole.box) is None else pose for pose, whole in zip(found, poses, strict=True)]
