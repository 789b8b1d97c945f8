"""Annotators of known sigma draw; the estimate must come back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml

from kpose.audit.repeated import sigmas_between, sigmas_of_pairs, sigmas_within, yaml_lines
from kpose.errors import KposeError
from kpose.skeletons import COCO_17, LSP_14, Skeleton
from tests.audit.conftest import bodies

SIGMAS = np.linspace(0.02, 0.1, LSP_14.num_joints)


def drawn(keypoints: np.ndarray, areas: np.ndarray, seed: int) -> np.ndarray:
    """What an annotator of `SIGMAS` makes of true joints: E[d^2] = sigma^2 area, half of it along each axis."""
    noise = np.random.default_rng(seed).normal(size=(*keypoints.shape[:2], 2))
    result = keypoints.copy()
    result[..., :2] += noise * SIGMAS[:, None] / np.sqrt(2) * np.sqrt(areas)[:, None, None]
    return result


@pytest.fixture
def truth():
    keypoints = bodies(800)
    extent = np.ptp(keypoints[..., :2], axis=1)
    return keypoints, extent.prod(axis=-1)


def test_the_sigmas_of_two_annotators_come_back(truth):
    keypoints, areas = truth
    found = sigmas_of_pairs(drawn(keypoints, areas, 1), drawn(keypoints, areas, 2), areas, LSP_14)
    assert [estimate.joint for estimate in found] == list(LSP_14.joint_names)
    np.testing.assert_allclose([estimate.sigma for estimate in found], SIGMAS, rtol=0.08)
    inside = [estimate.low <= sigma <= estimate.high for estimate, sigma in zip(found, SIGMAS, strict=True)]
    # 95 % intervals of 14 joints: over 60 seeds they hold 94.3 % of the sigmas.
    assert sum(inside) >= 11
    assert all(estimate.pairs == 800 and estimate.gross == 0 for estimate in found)


def test_gross_mistakes_are_counted_and_left_out(truth):
    keypoints, areas = truth
    other = drawn(keypoints, areas, 2)
    other[:40, 3, :2] += 3 * np.sqrt(areas[:40, None])
    found = sigmas_of_pairs(drawn(keypoints, areas, 1), other, areas, LSP_14)
    assert found[3].gross == 40
    assert found[3].sigma == pytest.approx(SIGMAS[3], rel=0.1)


def test_joints_that_only_one_annotated_are_no_pair(truth):
    keypoints, areas = truth
    other = drawn(keypoints, areas, 2)
    other[:, 0, 2] = 0
    other[:785, 1, 2] = 0
    found = {estimate.joint for estimate in sigmas_of_pairs(drawn(keypoints, areas, 1), other, areas, LSP_14)}
    assert found == set(LSP_14.joint_names[2:])


def test_a_second_file_is_matched_by_picture_and_box(make_people, truth):
    keypoints, areas = truth
    first, second = drawn(keypoints, areas, 1), drawn(keypoints, areas, 2)
    order = np.random.default_rng(0).permutation(len(first))
    people, repeated = make_people(first), make_people(second[order])
    repeated = replace(repeated, image_ids=people.image_ids[order])
    found = sigmas_between(replace(people, areas=areas.astype(np.float32)), replace(repeated, areas=areas[order].astype(np.float32)))
    np.testing.assert_allclose([estimate.sigma for estimate in found], SIGMAS, rtol=0.1)


def test_people_annotated_twice_in_one_file_make_pairs(make_people, truth):
    keypoints, areas = truth
    both = np.concatenate([drawn(keypoints, areas / 9, 1), drawn(keypoints, areas / 9, 2)])
    people = make_people(both, image_index=np.tile(np.arange(len(keypoints)), 2))
    people = replace(people, areas=np.tile(areas, 2).astype(np.float32))
    found = sigmas_within(people)
    assert found[0].pairs > 700
    np.testing.assert_allclose([estimate.sigma for estimate in found], SIGMAS / 3, rtol=0.1)


def test_files_with_nobody_in_common_or_other_joints_are_refused(make_people):
    people = make_people(bodies(30))
    with pytest.raises(KposeError, match="have nobody in common; image ids must agree"):
        sigmas_between(people, replace(people, image_ids=people.image_ids + 1000))
    with pytest.raises(KposeError, match="other joints"):
        sigmas_between(people, make_people(np.zeros((3, 17, 3)), skeleton=COCO_17))


def test_the_line_for_the_skeleton_is_yaml(truth):
    keypoints, areas = truth
    found = sigmas_of_pairs(drawn(keypoints, areas, 1), drawn(keypoints, areas, 2), areas, LSP_14)
    values = yaml.safe_load(yaml_lines(found, LSP_14))["oks_sigmas"]
    np.testing.assert_allclose(values, [estimate.sigma for estimate in found], atol=6e-4)
    without = yaml.safe_load(yaml_lines(found[1:], LSP_14))
    assert without["oks_sigmas"][0] is None
    with pytest.raises(KposeError, match="must be a list of numbers"):
        Skeleton.from_dict({"name": "mine", "joint_names": list(LSP_14.joint_names)} | without)


def test_copies_are_no_second_opinion(truth, make_people):
    keypoints, areas = truth
    first, second = drawn(keypoints, areas, 1), drawn(keypoints, areas, 2)
    second[:100] = first[:100]
    assert all(estimate.pairs == 700 for estimate in sigmas_of_pairs(first, second, areas, LSP_14))
    people = make_people(first)
    with pytest.raises(KposeError, match="is a copy of"):
        sigmas_between(people, people)
