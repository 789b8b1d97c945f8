from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpose.evaluation import oks_nms, oks_similarity, rescore
from kpose.skeletons import COCO_17

SIGMAS = np.array(COCO_17.oks_sigmas)


def reference_similarity(first, second, first_area, second_area):
    """The published formula, joint by joint."""
    total = 0.0
    for (x1, y1), (x2, y2), sigma in zip(first[:, :2], second[:, :2], SIGMAS, strict=True):
        variance = (2 * sigma) ** 2
        total += math.exp(-((x1 - x2) ** 2 + (y1 - y2) ** 2) / variance / ((first_area + second_area) / 2 + np.spacing(1)) / 2)
    return total / len(SIGMAS)


def reference_nms(keypoints, scores, areas, threshold):
    remaining = sorted(range(len(scores)), key=lambda person: -scores[person])
    kept = []
    while remaining:
        best = remaining.pop(0)
        kept.append(best)
        remaining = [
            other for other in remaining if reference_similarity(keypoints[best], keypoints[other], areas[best], areas[other]) <= threshold
        ]
    return kept


@st.composite
def crowds(draw):
    """Poses of an image, many of them near to one another."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(0, 12))
    base = random.uniform(0, 300, (3, 17, 2))
    points = base[random.integers(0, 3, count)] + random.normal(size=(count, 17, 2)) * draw(st.sampled_from([0.5, 5.0, 50.0]))
    keypoints = np.concatenate([points, random.random((count, 17, 1))], axis=-1)
    return keypoints, random.permutation(count) / 12.0, random.uniform(100, 90000, count)


@settings(deadline=None)
@given(crowds(), st.sampled_from([0.0, 0.3, 0.5, 0.9]))
def test_suppression_equals_the_reference(crowd, threshold):
    keypoints, scores, areas = crowd
    assert oks_nms(keypoints, scores, areas, SIGMAS, threshold).tolist() == reference_nms(keypoints, scores, areas, threshold)


@settings(deadline=None)
@given(crowds(), st.integers(0, 100))
def test_the_order_of_the_people_does_not_matter(crowd, seed):
    keypoints, scores, areas = crowd
    shuffled = np.random.default_rng(seed).permutation(len(scores))
    kept = oks_nms(keypoints[shuffled], scores[shuffled], areas[shuffled], SIGMAS, 0.5)
    assert shuffled[kept].tolist() == oks_nms(keypoints, scores, areas, SIGMAS, 0.5).tolist()


@settings(deadline=None)
@given(crowds())
def test_threshold_one_keeps_everybody(crowd):
    keypoints, scores, areas = crowd
    assert sorted(oks_nms(keypoints, scores, areas, SIGMAS, 1.0)) == list(range(len(scores)))


@settings(deadline=None)
@given(crowds())
def test_duplicates_are_dropped_in_favour_of_the_better_score(crowd):
    keypoints, scores, areas = crowd
    doubled = oks_nms(np.concatenate([keypoints, keypoints]), np.concatenate([scores - 2.0, scores]), np.tile(areas, 2), SIGMAS, 0.9)
    assert (doubled >= len(scores)).all()
    assert (doubled - len(scores)).tolist() == oks_nms(keypoints, scores, areas, SIGMAS, 0.9).tolist()


def test_nobody_and_one_person():
    assert oks_nms(np.zeros((0, 17, 3)), np.zeros(0), np.zeros(0), SIGMAS, 0.9).tolist() == []
    assert oks_nms(np.zeros((1, 17, 3)), np.ones(1), np.ones(1), SIGMAS, 0.0).tolist() == [0]


@settings(deadline=None)
@given(crowds())
def test_similarity_is_symmetric_and_one_for_oneself(crowd):
    keypoints, _, areas = crowd
    similarity = oks_similarity(keypoints[:, None], keypoints[None], areas[:, None], areas[None], SIGMAS)
    np.testing.assert_allclose(similarity, similarity.T)
    np.testing.assert_array_equal(np.diagonal(similarity), 1.0)


def test_rescoring_takes_the_mean_of_joints_above_the_threshold():
    keypoints = np.zeros((3, 4, 3), np.float32)
    keypoints[0, :, 2] = [0.1, 0.2, 0.6, 0.8]
    keypoints[1, :, 2] = [0.1, 0.1, 0.2, -1.0]
    keypoints[2, :, 2] = 1.0
    box_scores = np.array([0.5, 0.9, 0.25])
    assert rescore(box_scores, keypoints, 0.2) == pytest.approx([0.35, 0.0, 0.25])
    assert rescore(box_scores, keypoints, 0.2, box_rescoring=False) == pytest.approx([0.7, 0.0, 1.0])
