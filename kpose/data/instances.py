"""Instances: annotated people as columns, the one record that every reader returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from kpose.errors import KposeError
from kpose.skeletons import Skeleton


@dataclass(frozen=True, eq=False)  # columns have no single truth value to compare by
class Instances:
    """N people in M images, stored by column: millions fit into memory and go to TensorFlow as they are.

    Attributes:
        skeleton: meaning of the keypoints.
        image_files: `M` paths of images.
        image_ids: `(M,)` int64, the dataset's own numbers.
        image_sizes: `(M, 2)` int32 height and width, 0 where the annotation does not say.
        image_index: `(N,)` int32, the image of each person: a position in `image_files`.
        ids: `(N,)` int64, the annotation's own number; 0 for detections.
        boxes: `(N, 4)` float32 x, y, width, height in the image frame.
        keypoints: `(N, K, 3)` float32 x, y, visibility in the image frame; visibility 0 for detections.
        areas: `(N,)` float32 square pixels, as OKS takes them.
        box_scores: `(N,)` float32, 1 for ground truth.
        head_sizes: `(N,)` float32 image pixels, the unit of PCKh; NaN where unknown (every dataset but MPII).
        annotation_file: the file that the evaluation compares with, if there is one.
        notes: what the reader left out or mended, one line each; printed once.

    Raises:
        KposeError: on construction, when columns do not fit each other or the skeleton.
    """

    skeleton: Skeleton
    image_files: tuple[str, ...]
    image_ids: np.ndarray
    image_sizes: np.ndarray
    image_index: np.ndarray
    ids: np.ndarray
    boxes: np.ndarray
    keypoints: np.ndarray
    areas: np.ndarray
    box_scores: np.ndarray
    head_sizes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    annotation_file: Path | None = None
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not len(self.head_sizes) and len(self.image_index):
            object.__setattr__(self, "head_sizes", np.full(len(self.image_index), np.nan, np.float32))
        people, joints = len(self.image_index), self.skeleton.num_joints
        expected: dict[str, tuple[int, ...]] = {
            "image_index": (people,),
            "ids": (people,),
            "boxes": (people, 4),
            "keypoints": (people, joints, 3),
            "areas": (people,),
            "box_scores": (people,),
            "head_sizes": (people,),
            "image_ids": (len(self.image_files),),
            "image_sizes": (len(self.image_files), 2),
        }
        for name, shape in expected.items():
            found = getattr(self, name).shape
            if found != shape:
                raise KposeError(f"instances: {name} has shape {found}, expected {shape} (skeleton {self.skeleton.name!r})")
        outside = (self.image_index < 0) | (self.image_index >= len(self.image_files))
        if outside.any():
            raise KposeError(f"instances: image_index {self.image_index[outside][0]} is no position in {len(self.image_files)} image files")

    def __len__(self) -> int:
        return len(self.image_index)

    def select(self, chosen: np.ndarray) -> Instances:
        """Those people alone that a boolean mask `(N,)` or an array of positions chooses, in its order; images stay listed.

        Example:
            >>> adults = instances.select(instances.areas > 32**2)  # doctest: +SKIP
        """
        columns = ("image_index", "ids", "boxes", "keypoints", "areas", "box_scores", "head_sizes")
        return replace(self, **{name: getattr(self, name)[chosen] for name in columns})

    @staticmethod
    def concatenate(parts: Sequence[Instances]) -> Instances:
        """Several datasets of one skeleton as one.

        The annotation file is kept only where there is a single part: image numbers of different files may clash.

        Raises:
            KposeError: when there is no part or the skeletons differ.
        """
        if not parts:
            raise KposeError("no dataset given; list at least one")
        if len(parts) == 1:
            return parts[0]
        for part in parts[1:]:
            if part.skeleton != parts[0].skeleton:
                raise KposeError(
                    f"datasets of skeletons {parts[0].skeleton.name!r} and {part.skeleton.name!r} cannot be joined as they are"
                )
        offsets = np.cumsum([0] + [len(part.image_files) for part in parts[:-1]])

        def joined(name: str) -> np.ndarray:
            return np.concatenate([getattr(part, name) for part in parts])

        return Instances(
            skeleton=parts[0].skeleton,
            image_files=tuple(file for part in parts for file in part.image_files),
            image_index=np.concatenate([part.image_index + offset for part, offset in zip(parts, offsets, strict=True)]).astype(np.int32),
            image_ids=joined("image_ids"),
            image_sizes=joined("image_sizes"),
            ids=joined("ids"),
            boxes=joined("boxes"),
            keypoints=joined("keypoints"),
            areas=joined("areas"),
            box_scores=joined("box_scores"),
            head_sizes=joined("head_sizes"),
            notes=tuple(note for part in parts for note in part.notes),
        )
