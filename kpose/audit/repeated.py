"""OKS sigmas from repeated annotations: how far annotators lie from where a joint is.

COCO defines `sigma_i^2 = E[d_i^2 / s^2]` with d the distance (x and y together) of an annotator's joint from its true place and s the root
of the person's area. The true place is unknown; two annotators a and b who err independently and alike differ by

    E[|a - b|^2] = E[|a - t|^2] + E[|b - t|^2] = 2 sigma^2 s^2,

so sigma is the root of half the mean squared distance between two annotators. (Along one axis they then scatter by sigma s / sqrt(2).)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kpose.audit.duplicates import doubled_people
from kpose.data.instances import Instances
from kpose.errors import KposeError
from kpose.geometry import box_overlap
from kpose.skeletons import Skeleton

# Boxes of one person by two annotators in two files.
SAME_PERSON_OVERLAP = 0.5
MINIMUM_PAIRS = 20
_REPLICATES = 1000
# A squared distance beyond so many times its mean is chance in one case of ten million (e^-16): another person, or the other side.
_GROSS = 16.0


@dataclass(frozen=True)
class JointSigma:
    """Estimate for one joint: sigma, the interval that holds it in 95 of 100 cases, pairs used, and pairs left out as gross mistakes."""

    joint: str
    sigma: float
    low: float
    high: float
    pairs: int
    gross: int


def sigmas_of_pairs(
    keypoints: np.ndarray, others: np.ndarray, areas: np.ndarray, skeleton: Skeleton, clusters: np.ndarray | None = None, seed: int = 0
) -> list[JointSigma]:
    """Estimate sigmas from two annotations of each person.

    Args:
        keypoints: `(P, K, 3)` x, y, visibility by one annotator.
        others: `(P, K, 3)` by another; pairs count where both annotated the joint.
        areas: `(P,)` square pixels.
        skeleton: the joints.
        clusters: `(P,)` whole numbers, equal for pairs of the same person (several annotators make several pairs, which are no
            independent evidence); default: every pair is another person.
        seed: of the bootstrap, which draws people.

    Returns:
        One estimate for each joint with at least 20 pairs.
    """
    # Annotations that agree in every digit are copies, no second opinion.
    copied = (keypoints == others).all(axis=(1, 2))
    both = (keypoints[..., 2] > 0) & (others[..., 2] > 0) & ~copied[:, None]
    halves = ((keypoints[..., :2].astype(np.float64) - others[..., :2]) ** 2).sum(axis=-1) / areas[:, None].astype(np.float64) / 2
    _, cluster = np.unique(np.arange(len(halves)) if clusters is None else clusters, return_inverse=True)
    random = np.random.default_rng(seed)
    estimates = []
    for joint, name in enumerate(skeleton.joint_names):
        values, person = halves[both[:, joint], joint], cluster[both[:, joint]]
        # The median of an exponential distribution, which the squared distance of a normal one has, is ln 2 of its mean.
        usual = values <= _GROSS * np.median(values) / np.log(2) if len(values) else np.zeros(0, bool)
        values, person = values[usual], person[usual]
        if len(values) < MINIMUM_PAIRS:
            continue
        _, person = np.unique(person, return_inverse=True)
        sums, counts = np.bincount(person, values), np.bincount(person).astype(np.float64)
        replicates = []
        for _ in range(_REPLICATES):
            drawn = np.bincount(random.integers(len(sums), size=len(sums)), minlength=len(sums))
            replicates.append((drawn @ sums) / (drawn @ counts))
        low, high = np.sqrt(np.quantile(replicates, (0.025, 0.975)))
        estimates.append(JointSigma(name, float(values.mean() ** 0.5), float(low), float(high), len(values), int((~usual).sum())))
    return estimates


def sigmas_within(people: Instances) -> list[JointSigma]:
    """Sigmas from people who are annotated several times in the same picture (see `doubled_people`)."""
    first, second, _ = doubled_people(people)
    person = np.arange(len(people))
    for a, b in sorted(zip(first.tolist(), second.tolist(), strict=True)):
        person[max(a, b)] = min(person[a], person[b])
    areas = (people.areas[first] + people.areas[second]) / 2
    return sigmas_of_pairs(people.keypoints[first], people.keypoints[second], areas, people.skeleton, person[first])


def sigmas_between(people: Instances, repeated: Instances) -> list[JointSigma]:
    """Sigmas from a second annotation of the same pictures.

    Pictures are matched by their ids, people by their boxes, the largest overlap first.

    Raises:
        KposeError: when the files annotate different joints, have nobody in common, or one is a copy of the other.
    """
    if people.skeleton.joint_names != repeated.skeleton.joint_names:
        raise KposeError(f"{repeated.annotation_file}: other joints than {people.annotation_file}; annotate both with one skeleton")
    pairs = list(_matches(people, repeated))
    if not pairs:
        raise KposeError(f"{repeated.annotation_file} and {people.annotation_file} have nobody in common; image ids must agree")
    first, second = np.array(pairs).T
    if np.array_equal(people.keypoints[first], repeated.keypoints[second]):
        raise KposeError(f"{repeated.annotation_file} is a copy of {people.annotation_file}; sigmas need a second opinion")
    areas = (people.areas[first] + repeated.areas[second]) / 2
    return sigmas_of_pairs(people.keypoints[first], repeated.keypoints[second], areas, people.skeleton)


def _matches(people: Instances, repeated: Instances) -> Iterator[tuple[int, int]]:
    by_image: dict[int, list[int]] = {}
    for position, image in enumerate(repeated.image_ids[repeated.image_index].tolist()):
        by_image.setdefault(image, []).append(position)
    mine: dict[int, list[int]] = {}
    for position, image in enumerate(people.image_ids[people.image_index].tolist()):
        mine.setdefault(image, []).append(position)
    for image, here in mine.items():
        there = by_image.get(image, [])
        if not there:
            continue
        overlaps = box_overlap(people.boxes[here][:, None], repeated.boxes[there][None])
        for _ in range(min(overlaps.shape)):
            a, b = np.unravel_index(int(overlaps.argmax()), overlaps.shape)
            if overlaps[a, b] < SAME_PERSON_OVERLAP:
                break
            yield here[a], there[b]
            overlaps[a], overlaps[:, b] = -1, -1


def yaml_lines(estimates: list[JointSigma], skeleton: Skeleton) -> str:
    """The line for the skeleton YAML; a joint without an estimate keeps its sigma; without one it gets null, which skeletons refuse."""
    found = {estimate.joint: estimate.sigma for estimate in estimates}
    former = dict(zip(skeleton.joint_names, skeleton.oks_sigmas or (), strict=False))
    values = [found.get(joint, former.get(joint)) for joint in skeleton.joint_names]
    return "oks_sigmas: [" + ", ".join("null" if value is None else f"{value:.3f}" for value in values) + "]"
