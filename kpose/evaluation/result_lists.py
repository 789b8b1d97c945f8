"""Why two COCO result lists score differently, when nothing is known about how they were made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kpose.evaluation.attribution import Explanation, Row, walk
from kpose.evaluation.coco import coco_ap, person_category
from kpose.files import read_json
from kpose.inference.suppression import oks_similarity
from kpose.skeletons import COCO_17, Skeleton

# Poses of two result lists are taken for one person from this similarity on: joints within about a third of the person's size.
SAME_PERSON_OKS = 0.1
# ... and where the joints are further apart than that, if the regions that they cover are the same.
SAME_PERSON_OVERLAP = 0.5

ONLY_FIRST, ONLY_SECOND, POSITIONS, SCORES = "people only in A", "people only in B", "positions of joints", "order of scores"


@dataclass(frozen=True)
class _People:
    """The people of a result list: `image_ids` `(N,)`, `keypoints` `(N, K, 3)`, `scores` `(N,)`."""

    image_ids: np.ndarray
    keypoints: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, results: list[dict[str, Any]], joints: int) -> _People:
        return cls(
            np.array([result["image_id"] for result in results], np.int64),
            np.array([result["keypoints"] for result in results], np.float64).reshape(-1, joints, 3),
            np.array([result["score"] for result in results], np.float64),
        )


def explain_result_lists(
    first: str | Path, second: str | Path, annotations: str | Path | dict[str, Any], skeleton: Skeleton = COCO_17
) -> Explanation:
    """Attribute the difference in OKS AP between two COCO result lists, of which nothing else is known.

    People of both are matched photo by photo (`match_people`). What is switched from A's to B's, in this order: people whom only A found
    (box source, suppression) are taken out, people whom only B found come in, matched people get B's joints (boxes, network, flip test,
    decoding), and all get B's scores (score rule). Somebody who comes in before that is ranked where a matched person of equal rank is.

    Raises:
        KposeError: when a list is missing or damaged or does not belong to the annotations, see `coco_ap`.
    """
    paths = [Path(first), Path(second)]
    truth = annotations if isinstance(annotations, dict) else read_json(annotations)
    # Scored from the files, so that an error names them, and where they do not fit.
    whole = [coco_ap(path, annotations, skeleton)["AP"] for path in paths]
    one, other = (_People.of(read_json(path), skeleton.num_joints) for path in paths)
    pairs = match_people(one, other, np.array(skeleton.oks_sigmas))
    category = person_category(truth)
    names = [ONLY_FIRST, ONLY_SECOND, POSITIONS, SCORES]

    def score(switched: frozenset[str]) -> float:
        if len(switched) in (0, len(names)):
            return whole[bool(switched)]
        mixed = _substitute(one, other, pairs, switched)
        if not len(mixed.scores):
            return 0.0
        results = [
            {"image_id": image, "category_id": category, "keypoints": points, "score": value}
            for image, points, value in zip(
                mixed.image_ids.tolist(), mixed.keypoints.reshape(len(mixed.scores), -1).tolist(), mixed.scores.tolist(), strict=True
            )
        ]
        return coco_ap(results, truth, skeleton)["AP"]

    steps = walk(names, score)
    settings = _describe_pairs(one, other, pairs)
    rows = tuple(Row.of(step, settings[step.factor]) for step in steps)
    notes = (f"{len(pairs)} people were found in both. Result lists do not say how they were made; protocol cards do.",)
    return Explanation(str(first), str(second), "AP", rows, notes)


def match_people(first: _People, second: _People, sigmas: np.ndarray) -> np.ndarray:
    """Who of two result lists is whom: in each photo the most similar poses first, each person once.

    Similar are poses of an OKS of at least `SAME_PERSON_OKS`; after those, poses that cover the same region.

    Returns:
        `(P, 2)` positions in both lists, in the order of the first.
    """
    corners = [(people.keypoints[..., :2].min(axis=1), people.keypoints[..., :2].max(axis=1)) for people in (first, second)]
    areas = [np.maximum(high - low, 1).prod(axis=-1) for low, high in corners]
    by_image = [_positions_by_image(people.image_ids) for people in (first, second)]
    pairs: list[tuple[int, int]] = []
    for image, mine in by_image[0].items():
        others = by_image[1].get(image)
        if others is None:
            continue
        similarity = oks_similarity(
            first.keypoints[mine][:, None], second.keypoints[others][None], areas[0][mine][:, None], areas[1][others][None], sigmas
        )
        low = np.maximum(corners[0][0][mine][:, None], corners[1][0][others][None])
        high = np.minimum(corners[0][1][mine][:, None], corners[1][1][others][None])
        shared = np.maximum(high - low, 0).prod(axis=-1)
        overlap = shared / (areas[0][mine][:, None] + areas[1][others][None] - shared)
        for measure, least in ((similarity, SAME_PERSON_OKS), (overlap, SAME_PERSON_OVERLAP)):
            for one, other in _greedy_pairs(measure, least):
                pairs.append((int(mine[one]), int(others[other])))
                # Nobody is matched twice.
                similarity[one], similarity[:, other], overlap[one], overlap[:, other] = -1, -1, -1, -1
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def _positions_by_image(image_ids: np.ndarray) -> dict[int, np.ndarray]:
    order = np.argsort(image_ids, kind="stable")
    images, starts = np.unique(image_ids[order], return_index=True)
    return dict(zip(images.tolist(), np.split(order, starts[1:]), strict=True)) if len(order) else {}


def _greedy_pairs(measure: np.ndarray, least: float) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    for place in np.argsort(-measure, axis=None, kind="stable").tolist():
        one, other = divmod(place, measure.shape[1])
        if measure[one, other] < least or len(pairs) == min(measure.shape):
            break
        if all(one != taken and other != also_taken for taken, also_taken in pairs):
            pairs.append((one, other))
    return pairs


def _substitute(first: _People, second: _People, pairs: np.ndarray, switched: frozenset[str]) -> _People:
    """The result list in which the given factors are B's and all others A's, in the order of the list that the scores come from."""
    mine, others = pairs[:, 0], pairs[:, 1]
    placed, found = (second, others) if POSITIONS in switched else (first, mine)
    scored, ranked = (second, others) if SCORES in switched else (first, mine)
    parts = [(placed.image_ids[found], placed.keypoints[found], scored.scores[ranked], ranked)]
    for people, matched, taken in ((first, mine, ONLY_FIRST not in switched), (second, others, ONLY_SECOND in switched)):
        if not taken:
            continue
        alone = np.setdiff1d(np.arange(len(people.scores)), matched)
        if people is scored:
            scores, order = people.scores[alone], alone
        else:
            scores = _same_rank(people.scores[alone], people.scores[matched], scored.scores[ranked])
            # Of equal scores those of the scored list come first.
            order = len(scored.scores) + alone
        parts.append((people.image_ids[alone], people.keypoints[alone], scores, order))
    images, keypoints, scores, order = (np.concatenate(column) for column in zip(*parts, strict=True))
    sequence = np.argsort(order, kind="stable")
    return _People(images[sequence], keypoints[sequence], scores[sequence])


def _same_rank(scores: np.ndarray, own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Scores on another list's scale: a rank among `own` becomes the same rank among `other`; beyond both ends the order is kept."""
    if not len(own):
        return scores
    own, other = np.sort(own), np.sort(other)
    mapped = np.interp(scores, own, other)
    return mapped + np.minimum(scores - own[0], 0) + np.maximum(scores - own[-1], 0)


def _describe_pairs(first: _People, second: _People, pairs: np.ndarray) -> dict[str, tuple[str, str]]:
    """What A and B have of each factor, in a few words."""
    mine, others = pairs[:, 0], pairs[:, 1]
    apart = np.linalg.norm(first.keypoints[mine, :, :2] - second.keypoints[others, :, :2], axis=-1)
    ranks = [np.argsort(np.argsort(scores, kind="stable"), kind="stable") for scores in (first.scores[mine], second.scores[others])]
    alike = np.corrcoef(ranks[0], ranks[1])[0, 1] if len(pairs) > 2 else 1.0
    return {
        ONLY_FIRST: (f"{len(first.scores) - len(pairs)} of {len(first.scores)}", "out"),
        ONLY_SECOND: ("", f"{len(second.scores) - len(pairs)} of {len(second.scores)} in"),
        POSITIONS: ("", f"median {np.median(apart):.1f} px apart" if len(pairs) else ""),
        SCORES: ("", f"rank correlation {alike:.3f}"),
    }
