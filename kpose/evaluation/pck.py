"""PCK, the percentage of correct keypoints: how many joints lie within a fraction of the person's torso."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from kpose.errors import KposeError
from kpose.skeletons import LSP_14, Skeleton

TORSO = ("left_shoulder", "right_hip")


def pck(
    predictions: np.ndarray,
    ground_truth: np.ndarray,
    missing: np.ndarray,
    threshold: float = 0.2,
    skeleton: Skeleton = LSP_14,
    torso: tuple[str, str] = TORSO,
) -> dict[str, float]:
    """Percentage of joints that are no further from the truth than `threshold` times the person's torso.

    As the evaluation of LSP measures it, Sapp and Taskar (CVPR 2013) in the code of Yang (`eval_pose`): the torso is the distance between
    the left shoulder and the right hip of the annotation, a distance equal to the limit is correct, and the mean is that of all joints of
    all people together. Left and right are the person's own (person-centric), in both arrays.

    People whose torso is unknown (one of its two joints is missing, or both lie on one point) have no unit to measure in and are left out
    altogether; `torso_diameters` tells who they are. LSP itself has none.

    Args:
        predictions: `(N, K, 2)` x, y in the image frame. What stands at missing joints does not matter.
        ground_truth: `(N, K, 2)` x, y in the same frame and with the same origin: a MATLAB file counts pixels from 1.
        missing: `(N, K)` bool, joints that are not annotated.
        threshold: fraction of the torso.
        skeleton: the joints, in the order of the arrays.
        torso: the two joints whose distance is the unit.

    Returns:
        Percentages: `mean`; those of each joint by its name; of each pair by the name without its side, the mean of left and right; and
        `head`, that of neck and head top, where the skeleton has both. NaN where nobody has the joint.

    Raises:
        KposeError: when the shapes do not fit the skeleton or each other, a number is not finite, or nobody can be scored.
    """
    predictions, ground_truth, missing = check_points(predictions, ground_truth, missing, skeleton)
    units = torso_diameters(ground_truth, missing, skeleton, torso)
    known = ~np.isnan(units)
    if len(known) and not known.any():
        raise KposeError(f"none of {len(known)} people has a torso to measure by: {' and '.join(torso)} are missing or lie on one point")
    groups = pair_groups(skeleton)
    if {"neck", "head_top"} <= set(skeleton.joint_names):
        groups["head"] = ("neck", "head_top")
    return correct_percentages(
        predictions[known], ground_truth[known], missing[known], units[known], threshold, skeleton, skeleton.joint_names, groups
    )


def torso_diameters(
    ground_truth: np.ndarray, missing: np.ndarray, skeleton: Skeleton = LSP_14, torso: tuple[str, str] = TORSO
) -> np.ndarray:
    """The unit of PCK.

    Args:
        ground_truth: `(N, K, 2)` x, y.
        missing: `(N, K)` bool.
        skeleton: the joints, in the order of the arrays.
        torso: the two joints whose distance it is.

    Returns:
        `(N,)` float64 pixels, NaN where one of the joints is missing or both lie on one point.

    Raises:
        KposeError: when the skeleton lacks one of the joints.
    """
    first, second = skeleton.indices(torso)
    points = np.asarray(ground_truth, np.float64)
    flags = np.asarray(missing, bool)
    known = ~(flags[:, first] | flags[:, second])
    # What stands at missing joints may be anything, infinity included.
    difference = np.subtract(points[:, first], points[:, second], out=np.zeros((len(points), 2)), where=known[:, None])
    diameters = np.sqrt((difference**2).sum(axis=-1))
    return np.where(diameters > 0, diameters, np.nan)


def pair_groups(skeleton: Skeleton) -> dict[str, tuple[str, ...]]:
    """Left and right together: `{"shoulder": ("left_shoulder", "right_shoulder"), ...}`."""
    return {left.removeprefix("left_"): (left, right) for left, right in skeleton.left_right_pairs}


def check_points(
    predictions: np.ndarray, ground_truth: np.ndarray, missing: np.ndarray, skeleton: Skeleton
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The arrays of `pck` as float64 and bool.

    Raises:
        KposeError: when their shapes do not fit the skeleton or each other, a flag is neither 0 nor 1, or a number that counts is not
            finite.
    """
    joints, flags = skeleton.num_joints, np.asarray(missing)
    named = {"predictions": np.asarray(predictions), "ground_truth": np.asarray(ground_truth), "missing": flags}
    for name, array in named.items():
        per_person = (joints,) if name == "missing" else (joints, 2)
        if array.ndim == 0 or array.shape[1:] != per_person:
            expected = ", ".join(map(str, per_person))
            raise KposeError(f"{name} has shape {array.shape}, expected (N, {expected}): the {joints} joints of skeleton {skeleton.name!r}")
        if array.dtype.kind not in "biuf":
            raise KposeError(f"{name} holds {array.dtype}, expected numbers")
    lengths = {name: len(array) for name, array in named.items()}
    if len(set(lengths.values())) > 1:
        raise KposeError(f"arrays of different people: {', '.join(f'{name} has {length}' for name, length in lengths.items())}")
    if not np.isin(flags, (0, 1)).all():
        raise KposeError(f"missing holds {flags[~np.isin(flags, (0, 1))][0]}, expected true (1) where a joint is missing, else false (0)")
    flags = flags.astype(bool)
    points = []
    for name in ("predictions", "ground_truth"):
        array = named[name].astype(np.float64)
        bad = ~np.isfinite(array).all(axis=-1) & ~flags
        if bad.any():
            person, joint = np.argwhere(bad)[0]
            raise KposeError(
                f"{name}: {skeleton.joint_names[joint]} of person {person} (from 0) is {array[person, joint].tolist()}; "
                "numbers must be finite where a joint is not missing"
            )
        points.append(array)
    return points[0], points[1], flags


def correct_percentages(
    predictions: np.ndarray,
    ground_truth: np.ndarray,
    missing: np.ndarray,
    units: np.ndarray,
    threshold: float,
    skeleton: Skeleton,
    pooled: Sequence[str],
    groups: dict[str, tuple[str, ...]],
) -> dict[str, float]:
    """Percentages of joints no further from the truth than `threshold` times the person's unit.

    Args:
        predictions: `(N, K, 2)` float64, see `check_points`.
        ground_truth: `(N, K, 2)` float64.
        missing: `(N, K)` bool.
        units: `(N,)` pixels, greater than 0.
        threshold: in units.
        skeleton: the joints.
        pooled: those that `mean` is taken of, all people together.
        groups: names for the mean of several joints' percentages.

    Raises:
        KposeError: when no joint can be scored, or the threshold is no number of at least 0.
    """
    if not 0 <= threshold < math.inf:
        raise KposeError(f"the threshold is {threshold}; expected a number of at least 0, such as 0.5")
    counts = (~missing).sum(axis=0)
    chosen = list(skeleton.indices(pooled))
    if not counts[chosen].any():
        raise KposeError(f"no joint to score: of {len(missing)} people every joint that counts is missing")
    # Missing joints may hold anything, infinity included.
    difference = np.subtract(predictions, ground_truth, out=np.zeros_like(predictions), where=~missing[..., None])
    distances = np.sqrt((difference**2).sum(axis=-1)) / units[:, None]
    correct = ((distances <= threshold) & ~missing).sum(axis=0)
    with np.errstate(invalid="ignore"):
        percentages = dict(zip(skeleton.joint_names, (100.0 * correct / counts).tolist(), strict=True))
    means = {name: _mean([percentages[joint] for joint in joints]) for name, joints in groups.items()}
    return {"mean": float(100.0 * correct[chosen].sum() / counts[chosen].sum())} | means | percentages


def _mean(values: Sequence[float]) -> float:
    """Of those that are known."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
