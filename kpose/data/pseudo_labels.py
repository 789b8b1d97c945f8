"""Joints that a dataset lacks, filled by a network that knows them; and annotations that it contradicts, taken out.

A *teacher* looks at every annotated person twice, as it is and mirrored. Only where both answers agree is it trusted, and only of
people on whom it agrees with most of what was annotated by hand. Of these it

* exchanges left and right of the upper half of the body, of the lower one or of both, where the annotation fits it much better that way
  round and does not twist the torso,
* masks single annotated joints that lie elsewhere,
* fills joints that are not annotated.

Everybody else stays as annotated. Distances are measured as the object keypoint similarity (OKS) of a single joint, so that what counts
as near depends on the joint and on the person's size as it does in COCO's score. What was annotated by hand is never moved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

import cv2
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from kpose.data.coco import write_coco
from kpose.data.crops import decode_whole, first_line
from kpose.data.instances import Instances
from kpose.data.joint_mapping import JointMapping
from kpose.errors import KposeError
from kpose.geometry import crop_matrix, fit_box_to_aspect, transform_points
from kpose.skeletons import Skeleton
from kpose.visualize import contact_sheet, draw_pose, mark_joints, write_image

# Chosen on the first 1,000 people of LSP-Extended by looking at what changed; docs/decisions/pseudo-labels.md.
CONSISTENT_OKS = 0.3
TRUSTED_SCORE = 0.35
AGREEING_OKS = 0.5
AGREEING_SHARE = 0.6
FEWEST_WITNESSES = 4
CONTRADICTING_OKS = 0.02
# Of a half whose sides are exchanged: the mean OKS that it must reach, and gain.
EXCHANGED_OKS = 0.6
EXCHANGED_GAIN = 0.5
# COCO's areas are those of segments, on average about this part of the box.
SEGMENT_SHARE = 0.53
# A body turned by less is left as it is: networks know leaning people.
UPRIGHT_DEGREES = 30.0
# A hand-made label may be hidden too; visibility 1 makes the filled ones recognisable in a dataset that, like LSP-Extended, has none.
FILLED_VISIBILITY = 1.0

# Of the sheet: cells, margin about the box, how many people of each kind of change.
_CELL = (260, 200)
_COLUMNS = 8
_MARGIN = 1.35
_PEOPLE_OF_A_KIND = 8

ReadPicture = Callable[[str], np.ndarray]


class Teacher(Protocol):
    """What finds the joints of a person in a picture, such as `kpose.inference.movenet.MoveNet`."""

    @property
    def skeleton(self) -> Skeleton:
        """The joints it knows."""
        ...

    def __call__(self, image: np.ndarray, box: np.ndarray, rotation: float = 0.0, mirrored: bool = False) -> np.ndarray:
        """`(K, 3)` x, y in the image frame, and a score in 0..1; the arguments are those of `MoveNet`."""
        ...


@dataclass(frozen=True, eq=False)
class FilledJoints:
    """What became of the annotations of N people.

    Attributes:
        people: with the K joints of the teacher; visibility `FILLED_VISIBILITY` where filled, all else as annotated.
        agreeing: `(N,)` bool: people on whom teacher and annotation agree.
        exchanged: `(N, K)` bool: joints that changed sides.
        masked: `(N, K)` bool: annotated joints that were taken out.
        filled: `(N, K)` bool.
    """

    people: Instances
    agreeing: np.ndarray
    exchanged: np.ndarray
    masked: np.ndarray
    filled: np.ndarray

    @property
    def summary(self) -> str:
        """One line of figures."""
        return (
            f"{len(self.people)} people, teacher and annotation agree on {self.agreeing.sum()}; joints filled {self.filled.sum()}, masked "
            f"{self.masked.sum()}, exchanged left for right {self.exchanged.sum()} (of {self.exchanged.any(axis=1).sum()} people)"
        )


def write_pseudo_labels(
    people: Instances, images: str | Path, teachers: Sequence[Teacher], path: str | Path, sheet: str | Path | None = None
) -> FilledJoints:
    """Ask a teacher about annotated people, and write what comes of it as a COCO-style JSON file, whole or not at all.

    Args:
        people: as read for training.
        images: the folder of their pictures, which the file's names are relative to.
        teachers: see `ask_teacher`.
        path: the `.json` file.
        sheet: a picture to draw some of the changed people on.

    Returns:
        What became of the annotations.

    Raises:
        KposeError: when the file is to take the place of the annotation, or cannot be written; when the skeletons do not fit.
    """
    path = Path(path)
    if path.suffix != ".json":
        raise KposeError(f"pseudo-labels are written as JSON, not as {path.name!r}; choose a name that ends in .json")
    if people.annotation_file is not None and path.resolve() == people.annotation_file.resolve():
        raise KposeError(f"{path} is the annotation itself, which must not be lost; choose another file for the pseudo-labels")
    skeleton = teachers[0].skeleton
    mapping = JointMapping(people.skeleton, skeleton, label=str(people.annotation_file or "the dataset"))
    for note in filter(None, (*people.notes, mapping.note)):
        print(note)
    views = ask_teacher(people, teachers)
    result = fill_joints(people, views, skeleton)
    source = people.annotation_file.name if people.annotation_file else "people"
    description = f"{source}, corrected and completed by a network (visibility {FILLED_VISIBILITY:g} where it filled): {result.summary}"
    write_coco(result.people, images, path, description)
    print(f"{result.summary}; written to {path}")
    if sheet is not None:
        write_image(sheet, changes_sheet(people, views, result))
        print(f"some of the changed people: {sheet}")
    return result


def ask_teacher(people: Instances, teachers: Sequence[Teacher], read: ReadPicture | None = None, progress: bool = True) -> np.ndarray:
    """What the teacher finds of each person, first as it is, then mirrored (sides changed back).

    People whose shoulders and hips are annotated are turned upright first: networks do not know people on their heads. A person whose
    picture cannot be read has nothing but zeros, scores included, and the first such picture is told of.

    Args:
        people: whom to look at, with any skeleton.
        teachers: the same network once or several times; each works in a thread of its own.
        read: gives the `(H, W, 3)` uint8 RGB picture of a file, by default as training decodes it, or raises `KposeError`.
        progress: show a bar.

    Returns:
        `(N, 2, K, 3)` float32 x, y in the image frame, and a score in 0..1.
    """
    read = read or _read_picture
    rotations = upright_rotations(people.keypoints, people.skeleton)
    found = np.zeros((len(people), 2, teachers[0].skeleton.num_joints, 3), np.float32)
    idle: SimpleQueue[Teacher] = SimpleQueue()
    for teacher in teachers:
        idle.put(teacher)

    def look(index: int) -> KposeError | None:
        try:
            image = read(people.image_files[people.image_index[index]])
        except KposeError as error:
            return error
        teacher = idle.get()
        try:
            for view, mirrored in enumerate((False, True)):
                found[index, view] = teacher(image, people.boxes[index], float(rotations[index]), mirrored)
        finally:
            idle.put(teacher)
        return None

    # Threads are enough: TensorFlow, OpenCV and LiteRT let the others run while they work.
    with ThreadPoolExecutor(len(teachers)) as pool:
        try:
            answers = pool.map(look, range(len(people)))
            errors = [error for error in tqdm(answers, "asking the teacher", len(people), unit="person", disable=not progress) if error]
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    if errors and progress:
        print(f"{errors[0]} (people who stay as annotated for such a reason: {len(errors)})")
    return found


def _read_picture(file: str) -> np.ndarray:
    try:
        return np.asarray(decode_whole(tf.io.read_file(file)).numpy())
    except tf.errors.OpError as error:
        raise KposeError(f"cannot read the picture {file}: {first_line(error)}; replace it or leave it out") from error


def upright_rotations(keypoints: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """By how much to turn the regions of people for their torsos to stand upright in the crop.

    Args:
        keypoints: `(N, K, 3)` x, y, visibility in the image frame.
        skeleton: which joints they are.

    Returns:
        `(N,)` degrees as `geometry.crop_matrix` takes them; 0 where the torso leans by less than `UPRIGHT_DEGREES`, or is not annotated.
    """
    torso = _torso(keypoints, skeleton)
    if torso is None:
        return np.zeros(len(keypoints))
    up = torso[:, :2, :2].mean(axis=1) - torso[:, 2:, :2].mean(axis=1)
    degrees = np.degrees(np.arctan2(up[:, 0], -up[:, 1]))
    return np.where((torso[..., 2] > 0).all(axis=1) & (np.abs(degrees) >= UPRIGHT_DEGREES), degrees, 0.0)


def fill_joints(people: Instances, views: np.ndarray, skeleton: Skeleton) -> FilledJoints:
    """The annotation as corrected and completed by a teacher, see the module.

    Args:
        people: annotated people, of any skeleton; joints are matched by name.
        views: `(N, 2, K, 3)` of `ask_teacher`.
        skeleton: the teacher's, with OKS sigmas.

    Raises:
        KposeError: when the teacher's skeleton has no sigmas, or no joint in common with the people's.
    """
    if skeleton.oks_sigmas is None:
        raise KposeError(f"skeleton {skeleton.name!r} has no oks_sigmas, which say how near is near; add them")
    labels = JointMapping(people.skeleton, skeleton).to_target(people.keypoints)
    # A box may be flat, of joints in a row.
    width, height = np.maximum(people.boxes[:, 2:], 1).T
    tolerance = 2.0 * np.asarray(skeleton.oks_sigmas) * np.sqrt(SEGMENT_SHARE * width * height)[:, None]
    taught = views.mean(axis=1)
    trusted = (_similarity(views[:, 0], views[:, 1], tolerance) >= CONSISTENT_OKS) & (taught[..., 2] >= TRUSTED_SCORE)

    exchanged = _exchanged_sides(labels, taught, trusted, tolerance, skeleton)
    righted = np.where(exchanged[..., None], labels[:, skeleton.flip_permutation], labels)
    same = _similarity(righted, taught, tolerance)
    witnesses = trusted & (righted[..., 2] > 0)
    count = witnesses.sum(axis=1)
    agreeing = (count >= FEWEST_WITNESSES) & ((witnesses & (same >= AGREEING_OKS)).sum(axis=1) >= AGREEING_SHARE * count)

    labels = np.where(agreeing[:, None, None], righted, labels)
    annotated = labels[..., 2] > 0
    exchanged &= agreeing[:, None] & annotated
    masked = agreeing[:, None] & witnesses & (same < CONTRADICTING_OKS)
    filled = agreeing[:, None] & trusted & ~annotated
    taught[..., 2] = FILLED_VISIBILITY
    keypoints = np.where(filled[..., None], taught, np.where(masked[..., None], 0.0, labels)).astype(np.float32)
    return FilledJoints(replace(people, skeleton=skeleton, keypoints=keypoints), agreeing, exchanged, masked, filled)


def _similarity(a: np.ndarray, b: np.ndarray, tolerance: np.ndarray) -> np.ndarray:
    """`(N, K)` OKS of single joints `(N, K, 2 or more)`; `tolerance` `(N, K)` is the distance, in pixels, of one standard deviation."""
    return np.exp(-0.5 * np.square(np.linalg.norm(a[..., :2] - b[..., :2], axis=-1) / tolerance))


def _exchanged_sides(labels: np.ndarray, taught: np.ndarray, trusted: np.ndarray, tolerance: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """`(N, K)` bool: the paired joints of each half of the body that fits the teacher much better with its sides exchanged."""
    mirror = skeleton.flip_permutation
    paired = mirror != np.arange(skeleton.num_joints)
    same, other = _similarity(labels, taught, tolerance), _similarity(labels, taught[:, mirror], tolerance)
    # Both sides of a pair, or neither: an exchange moves them together.
    seen = paired & trusted & (labels[..., 2] > 0)
    seen &= seen[:, mirror]
    halves = np.array([[joint in half for joint in skeleton.joint_names] for half in (skeleton.upper_body, skeleton.lower_body)]) & paired
    exchanged = np.zeros((len(labels), len(halves)), bool)
    for number, half in enumerate(halves):
        count = (seen & half).sum(axis=1)
        reached = np.where(seen & half, other, 0.0).sum(axis=1)
        gained = reached - np.where(seen & half, same, 0.0).sum(axis=1)
        exchanged[:, number] = (count >= FEWEST_WITNESSES) & (reached > EXCHANGED_OKS * count) & (gained > EXCHANGED_GAIN * count)
    # Where one half alone would twist a straight body, the teacher has mixed up that half, or the annotation both: nothing is sure.
    exchanged[(exchanged.sum(axis=1) == 1) & _is_straight(labels, skeleton)] = False
    return np.asarray((exchanged[:, :, None] & halves).any(axis=1))


def _is_straight(keypoints: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """`(N,)` bool: shoulders and hips are annotated, and those of the left are on the same side of the torso."""
    torso = _torso(keypoints, skeleton)
    if torso is None:
        return np.zeros(len(keypoints), bool)
    across = torso[:, 0::2, :2] - torso[:, 1::2, :2]
    return (torso[..., 2] > 0).all(axis=1) & (across.prod(axis=1).sum(axis=1) > 0)


def _torso(keypoints: np.ndarray, skeleton: Skeleton) -> np.ndarray | None:
    """`(N, 4, 3)`: left and right shoulder, left and right hip, where the skeleton has them."""
    names = ("left_shoulder", "right_shoulder", "left_hip", "right_hip")
    return keypoints[:, list(skeleton.indices(names))] if set(names) <= set(skeleton.joint_names) else None


def changes_sheet(people: Instances, views: np.ndarray, result: FilledJoints, read: ReadPicture | None = None) -> np.ndarray:
    """Draw some people of each kind of change: the picture, the annotation with masked joints ringed, the teacher, what came of it.

    In the result, filled joints are hollow. Arguments as of `ask_teacher` and `fill_joints`.

    Returns:
        `(height, width, 3)` uint8 RGB.

    Raises:
        KposeError: when nobody was changed, or a picture cannot be read.
    """
    chosen: dict[int, str] = {}
    for what, joints in (("exchanged", result.exchanged), ("masked", result.masked), ("filled", result.filled)):
        others = np.setdiff1d(np.flatnonzero(joints.any(axis=1)), list(chosen))
        chosen |= dict.fromkeys(others[np.linspace(0, len(others) - 1, min(len(others), _PEOPLE_OF_A_KIND)).astype(int)].tolist(), what)
    if not chosen:
        raise KposeError("no person was changed: there is nothing to draw on the sheet")
    cells = [cell for person in chosen for cell in _cells(people, views, result, person, read or _read_picture)]
    titles = [title for person, what in chosen.items() for title in (f"{people.ids[person]} {what}", "annotation", "teacher", "result")]
    return contact_sheet(cells, _COLUMNS, titles)


def _cells(people: Instances, views: np.ndarray, result: FilledJoints, person: int, read: ReadPicture) -> list[np.ndarray]:
    center, size = fit_box_to_aspect(people.boxes[person].astype(np.float64), _CELL, _MARGIN)
    matrix = np.asarray(crop_matrix(center, size, _CELL), np.float64)
    # A large person is drawn down in steps, or thin lines of the picture would break up.
    how = cv2.INTER_AREA if matrix[0, 0] < 0.5 else cv2.INTER_LINEAR
    crop = cv2.warpAffine(read(people.image_files[people.image_index[person]]), matrix, _CELL[::-1], flags=how)
    skeleton = result.people.skeleton
    annotation, taught, filled = (
        np.asarray(transform_points(points.astype(np.float64), matrix))
        for points in (people.keypoints[person], views[person].mean(axis=0), result.people.keypoints[person])
    )
    labels = JointMapping(people.skeleton, skeleton).to_target(annotation)
    if result.exchanged[person].any():
        labels = np.where(result.exchanged[person, :, None], labels[skeleton.flip_permutation], labels)
    return [
        crop,
        mark_joints(draw_pose(crop, annotation, people.skeleton), labels[result.masked[person], :2]),
        draw_pose(crop, taught, skeleton, TRUSTED_SCORE),
        draw_pose(crop, filled, skeleton),
    ]
