"""Leeds Sports Pose and its extended training set (Johnson and Everingham, BMVC 2010 and CVPR 2011): `joints.mat` and `images/`.

One person a picture. The two files differ in their order of axes and in what their flag means:

* LSP, 3 x 14 x 2,000: all joints have coordinates; the flag is 1 where a joint is hidden. (It is set for 7 % of the joints: 16 % of the
  left shoulders, 0.4 % of the heads.) Coordinates count from 1: undoing the scale that a picture was resized by puts all joints on the
  grid of whole pixels only if they do, for MATLAB keeps the edge of the picture, 0.5, in its place.
* LSP-Extended, 14 x 3 x 10,000: the flag is 1 where a joint is annotated; elsewhere the coordinates mean nothing. They are whole clicks
  times the scale of the picture, down to 0, and are taken as they are: where they count from is open by less than a pixel.

Left and right are the person's own: in LSP as its authors annotated it, in LSP-Extended by looking at its pictures, in some of which the
crowd swapped them.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from kpose.data.entries import MAXIMUM_COORDINATE, Span, check_span, with_pictures
from kpose.data.instances import Instances
from kpose.data.matlab import array_shapes, read_arrays
from kpose.errors import KposeError
from kpose.skeletons import LSP_14

_JOINTS = LSP_14.num_joints


def read_lsp(annotations: str | Path, images: str | Path, *, people: Span | None = None, partial: bool = False) -> Instances:
    """Read the Leeds Sports Pose dataset: the first 1,000 people are its training set, the others its test set.

    A box is the tight one of all joints; areas are those of the boxes. Image and person numbers are those in the pictures' names.

    Args:
        annotations: `joints.mat`, 3 x 14 x N: x and y counted from 1, and 1 where the joint is hidden.
        images: the folder of `im0001.jpg` and so on.
        people: only these of the file, from .. up to.
        partial: leave out people whose picture is missing instead of refusing the file.

    Raises:
        KposeError: when a file is missing, malformed, or of the other set, or a flag is neither 0 nor 1.
    """
    annotations = Path(annotations)
    joints = _read_joints(annotations, (3, _JOINTS, None), "lspet").transpose(2, 1, 0)
    hidden = _flags(joints, annotations)
    keypoints = np.concatenate([joints[..., :2] - 1, np.where(hidden, 1.0, 2.0)[..., None]], axis=-1)
    return _instances(keypoints, annotations, Path(images), people, partial)


def read_lspet(annotations: str | Path, images: str | Path, *, people: Span | None = None, partial: bool = False) -> Instances:
    """Read the extended training set of Leeds Sports Pose.

    A box is the tight one of the annotated joints; areas are those of the boxes. People with fewer than 2 annotated joints, or whose
    joints lie on one line along an axis, are left out. Image and person numbers are those in the pictures' names.

    Args:
        annotations: `joints.mat`, 14 x 3 x N: x, y, and 1 where the joint is annotated.
        images: the folder of `im00001.jpg` and so on.
        people: only these of the file, from .. up to.
        partial: leave out people whose picture is missing instead of refusing the file.

    Raises:
        KposeError: when a file is missing, malformed, or of the other set, or a flag is neither 0 nor 1.
    """
    annotations = Path(annotations)
    joints = _read_joints(annotations, (_JOINTS, 3, None), "lsp").transpose(2, 0, 1)
    annotated = _flags(joints, annotations)
    keypoints = np.where(annotated[..., None], np.concatenate([joints[..., :2], np.full((*annotated.shape, 1), 2.0)], axis=-1), 0.0)
    return _instances(keypoints, annotations, Path(images), people, partial)


def _read_joints(path: Path, shape: tuple[int | None, ...], other: str) -> np.ndarray:
    found = array_shapes(path).get("joints", ())
    if found[:2] == (shape[1], shape[0]):
        raise KposeError(f"{path}: 'joints' is {found[0]}x{found[1]}xN, the form of format {other!r}; set 'format' to it")
    return read_arrays(path, {"joints": shape})["joints"]


def _flags(joints: np.ndarray, source: Path) -> np.ndarray:
    flags = joints[..., 2]
    wrong = np.argwhere((flags != 0) & (flags != 1))
    if len(wrong):
        person, joint = wrong[0]
        raise KposeError(
            f"{source}: person {person} has the flag {flags[person, joint]:g} for {LSP_14.joint_names[joint]}, expected 0 or 1"
        )
    return flags == 1


def _instances(keypoints: np.ndarray, source: Path, images: Path, people: Span | None, partial: bool) -> Instances:
    """People from keypoints `(N, 14, 3)` of the image frame, in the file's order."""
    first, end = check_span(people, len(keypoints), source)
    numbers = np.arange(first + 1, end + 1)
    keypoints = keypoints[first:end]
    annotated = keypoints[..., 2] > 0
    wrong = np.argwhere(annotated & ~(np.abs(keypoints[..., :2]) <= MAXIMUM_COORDINATE).all(-1))
    if len(wrong):
        person, joint = wrong[0]
        x, y = keypoints[person, joint, :2]
        raise KposeError(f"{source}: person {first + person} has {LSP_14.joint_names[joint]} at {x:g}, {y:g}; mend or remove it")
    low = np.where(annotated[..., None], keypoints[..., :2], np.inf).min(axis=1)
    sizes = np.where(annotated[..., None], keypoints[..., :2], -np.inf).max(axis=1) - low
    usable = (annotated.sum(axis=1) >= 2) & (sizes > 0).all(axis=1)
    boxes = np.concatenate([low, sizes], axis=1)[usable]
    count = len(boxes)
    left_out = len(usable) - count
    return with_pictures(
        Instances(
            skeleton=LSP_14,
            image_files=_image_files(images, numbers[usable]),
            image_ids=numbers[usable].astype(np.int64),
            image_sizes=np.zeros((count, 2), np.int32),
            image_index=np.arange(count, dtype=np.int32),
            ids=numbers[usable].astype(np.int64),
            boxes=boxes.astype(np.float32),
            keypoints=keypoints[usable].astype(np.float32),
            areas=(boxes[:, 2] * boxes[:, 3]).astype(np.float32),
            box_scores=np.ones(count, np.float32),
            annotation_file=source,
            notes=(f"{source}: {left_out} people left out: their annotated joints span no box",) if left_out else (),
        ),
        images,
        source,
        partial,
    )


def _image_files(folder: Path, numbers: np.ndarray) -> tuple[str, ...]:
    """Copies of the sets differ in whether the numbers in the names have 4 or 5 digits."""
    digits = 5 if next(folder.glob(f"im{'[0-9]' * 5}.jpg"), None) else 4
    return tuple(os.path.join(folder, f"im{number:0{digits}d}.jpg") for number in numbers)
