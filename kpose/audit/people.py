"""Checks of single people: sides, limbs, places, flags."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kpose.audit.findings import AuditedSet, Finding, about_person
from kpose.audit.sides import SideVerdicts, judge_sides
from kpose.skeletons import Skeleton

# From this probability on sides are reported as exchanged, and a pair as one of those.
SUSPICION = 0.5
# A limb is impossible from so many spreads above the usual length, and so many times the usual length.
LIMB_SPREADS = 6.0
LIMB_RATIO = 3.0
# Joints of the hand-drawn box's edge are no fault: a pixel and this share of its longer side are allowed.
BOX_TOLERANCE = 0.05
# Standard deviations of a coin that falls left or right.
UNEVEN_DEVIATIONS = 5.0
_LEAST_LIMBS = 4
_LEAST_PEOPLE = 50


def check_sides(sets: Sequence[AuditedSet], verdicts: Sequence[SideVerdicts | None]) -> list[Finding]:
    """People whose left and right are probably exchanged; `verdicts` are those of `side_verdicts`."""
    findings = []
    for audited, verdict in zip(sets, verdicts, strict=True):
        if verdict is None:
            continue
        pairs = audited.people.skeleton.left_right_pairs
        for person in np.flatnonzero(verdict.probabilities >= SUSPICION).tolist():
            chosen = np.flatnonzero(verdict.likeliest[person])
            joints = [joint for pair in chosen for joint in audited.people.skeleton.indices(pairs[pair])]
            whole = len(chosen) > 1 and len(chosen) == (verdict.pairs[person] > 0).sum()
            what = "the whole body" if whole else ", ".join(_plain(*pairs[pair]) for pair in chosen)
            probability = verdict.probabilities[person]
            findings.append(
                about_person(audited, "swapped_sides", person, joints, probability, f"left and right exchanged: {what} ({probability:.0%})")
            )
    return findings


def side_verdicts(sets: Sequence[AuditedSet]) -> list[SideVerdicts | None]:
    """Verdicts on each set; sets of one skeleton are learned from together."""
    result: list[SideVerdicts | None] = [None] * len(sets)
    for skeleton in {audited.people.skeleton for audited in sets}:
        members = [position for position, audited in enumerate(sets) if audited.people.skeleton == skeleton]
        verdict = judge_sides(np.concatenate([sets[position].people.keypoints for position in members]), skeleton)
        if verdict is None:
            continue
        ends = np.cumsum([len(sets[position].people) for position in members])[:-1]
        parts = [np.split(column, ends) for column in (verdict.probabilities, verdict.pairs, verdict.likeliest)]
        for position, *columns in zip(members, *parts, strict=True):
            result[position] = SideVerdicts(*columns)
    return result


def _plain(left: str, right: str) -> str:
    """`left_knee`, `right_knee` -> `knee`."""
    a, b = left.split("_"), right.split("_")
    common = [word for word in a if word in b]
    return " ".join(common) or f"{left} and {right}"


def check_limbs(sets: Sequence[AuditedSet]) -> list[Finding]:
    """Limbs far longer than those of others, and joints that lie on one another."""
    findings = []
    for skeleton in {audited.people.skeleton for audited in sets}:
        members = [audited for audited in sets if audited.people.skeleton == skeleton]
        ratios, spreads = limb_excess(np.concatenate([audited.people.keypoints for audited in members]), skeleton)
        start = 0
        for audited in members:
            end = start + len(audited.people)
            findings += _long_limbs(audited, ratios[start:end], spreads[start:end])
            findings += _coincident(audited)
            start = end
    return findings


def limb_excess(keypoints: np.ndarray, skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray]:
    """How much longer limbs are than usual for the person's size.

    The size is the median of a person's limbs, each in units of what is usual for it, so that one wrong joint does not alter it. A limb
    may look as short as you like when it points at the camera; long is what it cannot be. The spread is that above the median.

    Args:
        keypoints: `(N, K, 3)` x, y, visibility.
        skeleton: its limbs.

    Returns:
        `(N, L)` the ratio to the usual length, and `(N, L)` the excess of its logarithm in spreads; NaN where the limb is not annotated or
        has no length, the person has fewer than 4 limbs, or fewer than 50 people have that limb.
    """
    limbs = np.array(skeleton.limb_indices, int).reshape(-1, 2)
    present = keypoints[..., 2] > 0
    a, b = limbs.T
    lengths = np.linalg.norm(keypoints[:, a, :2].astype(np.float64) - keypoints[:, b, :2], axis=-1)
    lengths = np.where(present[:, a] & present[:, b] & (lengths > 0), lengths, np.nan)
    logarithms = np.log(lengths)
    known = np.isfinite(logarithms)
    judged = known.sum(axis=1) >= _LEAST_LIMBS
    frequent = known[judged].sum(axis=0) >= _LEAST_PEOPLE
    excess = np.full_like(logarithms, np.nan)
    if not judged.any() or not frequent.any():
        return excess, excess.copy()
    values = np.where(frequent, logarithms, np.nan)[judged]
    values = values[np.isfinite(values).any(axis=1)]
    rows = np.flatnonzero(judged)[np.isfinite(np.where(frequent, logarithms, np.nan)[judged]).any(axis=1)]
    usual = np.zeros(len(limbs))
    for _ in range(3):
        size = np.nanmedian(values - usual, axis=1, keepdims=True)
        usual[frequent] = np.nanmedian(values[:, frequent] - size, axis=0)
    above = values - usual - np.nanmedian(values - usual, axis=1, keepdims=True)
    upper = np.full(len(limbs), np.nan)
    # 84 % of a normal distribution lie below one deviation.
    upper[frequent] = np.nanquantile(above[:, frequent], 0.841, axis=0)
    excess[rows] = above
    return np.exp(excess), excess / np.maximum(upper, 0.08)


def _long_limbs(audited: AuditedSet, ratios: np.ndarray, spreads: np.ndarray) -> list[Finding]:
    findings = []
    limbs = audited.people.skeleton.limbs
    with np.errstate(invalid="ignore"):
        wrong = (spreads > LIMB_SPREADS) & (ratios > LIMB_RATIO)
    for person in np.flatnonzero(wrong.any(axis=1)).tolist():
        worst = int(np.nanargmax(np.where(wrong[person], ratios[person], np.nan)))
        concerned = dict.fromkeys(joint for limb in np.flatnonzero(wrong[person]) for joint in audited.people.skeleton.limb_indices[limb])
        text = f"{limbs[worst][0]} to {limbs[worst][1]} is {ratios[person, worst]:.1f} times as long as usual"
        more = int(wrong[person].sum()) - 1
        findings.append(
            about_person(
                audited, "impossible_limb", person, list(concerned), ratios[person, worst], text + (f", and {more} more" if more else "")
            )
        )
    return findings


def _coincident(audited: AuditedSet) -> list[Finding]:
    keypoints = audited.people.keypoints
    joints = keypoints.shape[1]
    together = np.zeros(keypoints.shape[:2], bool)
    for a in range(joints):
        for b in range(a + 1, joints):
            same = (keypoints[:, a, :2] == keypoints[:, b, :2]).all(axis=1) & (keypoints[:, a, 2] > 0) & (keypoints[:, b, 2] > 0)
            together[:, a] |= same
            together[:, b] |= same
    return [
        about_person(audited, "coincident_joints", person, where, len(where), f"{len(where)} joints lie exactly upon another")
        for person in np.flatnonzero(together.any(axis=1)).tolist()
        for where in [np.flatnonzero(together[person]).tolist()]
    ]


def check_places(audited: AuditedSet) -> list[Finding]:
    """Joints outside of the box or the picture. Boxes are as the reader gives them, cut to the picture."""
    people = audited.people
    present = people.keypoints[..., 2] > 0
    boxes, points = people.boxes.astype(np.float64), people.keypoints[..., :2].astype(np.float64)
    beyond = np.maximum(boxes[:, None, :2] - points, points - boxes[:, None, :2] - boxes[:, None, 2:]).max(axis=-1)
    beyond = np.where(present, beyond, 0)
    side = np.maximum(boxes[:, 2:].max(axis=1), 1e-6)
    findings = []
    wrong = beyond > 1 + BOX_TOLERANCE * side[:, None]
    for person in np.flatnonzero(wrong.any(axis=1)).tolist():
        joints = np.flatnonzero(wrong[person]).tolist()
        furthest = beyond[person].max()
        text = f"up to {furthest:.0f} px outside of the box, {furthest / side[person]:.0%} of its longer side"
        findings.append(about_person(audited, "outside_box", person, joints, furthest / side[person], text))
    sizes = people.image_sizes[people.image_index][:, ::-1].astype(np.float64)
    beyond = np.where(present & (sizes > 0).all(axis=1)[:, None], np.maximum(-points, points - (sizes[:, None] - 1)).max(axis=-1), 0)
    wrong = beyond > 1
    for person in np.flatnonzero(wrong.any(axis=1)).tolist():
        furthest = beyond[person].max()
        text = f"up to {furthest:.0f} px outside of the picture"
        findings.append(about_person(audited, "outside_image", person, np.flatnonzero(wrong[person]).tolist(), furthest, text))
    return findings


def check_flags(audited: AuditedSet) -> list[Finding]:
    """Visibilities other than 0, 1 and 2, people with few joints, and sides annotated unevenly."""
    people = audited.people
    flags, skeleton = people.keypoints[..., 2], people.skeleton
    findings = []
    wrong = ~np.isin(flags, (0, 1, 2))
    for person in np.flatnonzero(wrong.any(axis=1)).tolist():
        joints = np.flatnonzero(wrong[person]).tolist()
        values = ", ".join(f"{flag:g}" for flag in np.unique(flags[person, joints])[:4])
        findings.append(about_person(audited, "invalid_flag", person, joints, len(joints), f"visibility {values}; 0, 1 and 2 are known"))
    seen = (flags > 0).sum(axis=1)
    for person in np.flatnonzero(seen < skeleton.num_joints / 4).tolist():
        text = f"{seen[person]} of {skeleton.num_joints} joints"
        findings.append(about_person(audited, "few_joints", person, (), skeleton.num_joints - seen[person], text))
    for left, right in skeleton.left_right_pairs:
        a, b = flags[:, skeleton.index(left)] > 0, flags[:, skeleton.index(right)] > 0
        only_left, only_right = int((a & ~b).sum()), int((b & ~a).sum())
        deviations = abs(only_left - only_right) / max(only_left + only_right, 1) ** 0.5
        if deviations >= UNEVEN_DEVIATIONS:
            text = f"{left} alone {only_left} times, {right} alone {only_right} times: {deviations:.1f} deviations from chance"
            findings.append(Finding("uneven_sides", audited.name, deviations, text, joints=(left, right)))
    return findings
