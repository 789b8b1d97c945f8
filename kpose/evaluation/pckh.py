"""PCKh, the score of MPII: how many joints lie within a fraction of the person's head."""

from __future__ import annotations

import numpy as np

from kpose.errors import KposeError
from kpose.evaluation.pck import check_points, correct_percentages, pair_groups
from kpose.skeletons import MPII_16

# Of the head box's diagonal, `SC_BIAS` of the MPII evaluation.
HEAD_SIZE_OF_DIAGONAL = 0.6

# The two that the published mean leaves out: given the person's position, they are too easy.
LEFT_OUT = ("pelvis", "thorax")


def pckh(
    predictions: np.ndarray, ground_truth: np.ndarray, head_boxes: np.ndarray, missing: np.ndarray, threshold: float = 0.5
) -> dict[str, float]:
    """Percentage of MPII's joints that are no further from the truth than `threshold` times the person's head.

    As Andriluka et al. (CVPR 2014) and the validation code of Yang (`pytorch-pose`) and Xiao et al. (ECCV 2018) measure it: the head size
    is 0.6 times the diagonal of the head box, a distance equal to the limit is correct, missing joints are left out, and the mean is that
    of all joints of all people together (each joint weighs by how often it is annotated) without pelvis and thorax.

    That code prints as `Mean@0.1` what it counted at 0.11, the twelfth of its thresholds 0, 0.01, 0.02, ...; with 0.1 this function means
    0.1, and with 0.11 it repeats such a table.

    Args:
        predictions: `(N, 16, 2)` x, y in the image frame. What stands at missing joints does not matter.
        ground_truth: `(N, 16, 2)` x, y in the same frame and with the same origin: a MATLAB file counts pixels from 1, so that one is
            added to predictions that count from 0, or taken from the truth and the head boxes.
        head_boxes: `(N, 2, 2)` two opposite corners, x, y each.
        missing: `(N, 16)` bool, joints that are not annotated.
        threshold: fraction of the head size.

    Returns:
        Percentages: `mean`; those of each joint by its name (`kpose.skeletons.MPII_16`); and the published columns `head` (that of
        head_top), `shoulder`, `elbow`, `wrist`, `hip`, `knee`, `ankle` (the mean of left and right). NaN where nobody has the joint.

    Raises:
        KposeError: when shapes do not fit, a number is not finite, a head box has no extent, or nobody can be scored.
    """
    boxes = np.asarray(head_boxes)
    if boxes.ndim != 3 or boxes.shape[1:] != (2, 2) or boxes.dtype.kind not in "biuf":
        raise KposeError(
            f"head_boxes has shape {boxes.shape} ({boxes.dtype}), expected (N, 2, 2): numbers, two corners of each person's head"
        )
    return pckh_of_head_sizes(predictions, ground_truth, head_sizes_of_boxes(boxes), missing, threshold)


def pckh_of_head_sizes(
    predictions: np.ndarray, ground_truth: np.ndarray, head_sizes: np.ndarray, missing: np.ndarray, threshold: float = 0.5
) -> dict[str, float]:
    """`pckh` where the head sizes themselves are known, as in `Instances.head_sizes`.

    Args:
        predictions: `(N, 16, 2)`.
        ground_truth: `(N, 16, 2)`.
        head_sizes: `(N,)` pixels. NaN, unknown, is refused for whoever has a joint to score: a score that leaves people out without a
            word is not comparable, so the caller does it.
        missing: `(N, 16)` bool.
        threshold: fraction of the head size.

    Returns:
        See `pckh`.

    Raises:
        KposeError: see `pckh`; also when a head size is unknown or not greater than 0.
    """
    predictions, ground_truth, missing = check_points(predictions, ground_truth, missing, MPII_16)
    sizes = np.asarray(head_sizes, np.float64)
    if sizes.shape != (len(missing),):
        raise KposeError(f"there are head sizes of shape {sizes.shape}, expected one for each of {len(missing)} people")
    scored = ~missing.all(axis=1)
    useless = scored & ~((sizes > 0) & np.isfinite(sizes))
    if useless.any():
        person = int(np.flatnonzero(useless)[0])
        raise KposeError(
            f"person {person} (from 0) has head size {sizes[person]} (and {np.count_nonzero(useless) - 1} more); "
            "PCKh needs the head boxes of everybody, so leave such people out"
        )
    pooled = [joint for joint in MPII_16.joint_names if joint not in LEFT_OUT]
    groups = {"head": ("head_top",)} | pair_groups(MPII_16)
    return correct_percentages(
        predictions[scored], ground_truth[scored], missing[scored], sizes[scored], threshold, MPII_16, pooled, groups
    )


def head_sizes_of_boxes(head_boxes: np.ndarray) -> np.ndarray:
    """The unit of PCKh: `(N,)` pixels of head boxes `(N, 2, 2)`, two opposite corners each."""
    corners = np.asarray(head_boxes, np.float64)
    return HEAD_SIZE_OF_DIAGONAL * np.sqrt(((corners[:, 1] - corners[:, 0]) ** 2).sum(axis=-1))
