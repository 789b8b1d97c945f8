"""PCK: known answers, and what may and may not change them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.io import loadmat

from kpose.errors import KposeError
from kpose.evaluation import pck, torso_diameters
from kpose.skeletons import COCO_17, LSP_14, MPII_16


@pytest.fixture(scope="module")
def lsp(shared_data) -> np.ndarray:
    """The 1,000 test persons of LSP, `(1000, 14, 2)`."""
    return loadmat(shared_data / "lsp" / "joints.mat")["joints"].transpose(2, 1, 0)[1000:, :, :2]


def published_figures(predictions, truth, threshold):
    """The steps of `eval_pck.m`: distances over the one between the tenth and the third joint; left and right averaged; one pooled mean."""
    unit = np.linalg.norm(truth[:, 9] - truth[:, 2], axis=-1)
    distances = np.sqrt(((predictions - truth) ** 2).sum(axis=-1)) / unit[:, None]
    percent = 100 * (distances <= threshold).mean(axis=0)
    other_side = [5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 13, 12]
    names = ("ankle", "knee", "hip", "wrist", "elbow", "shoulder")
    averaged = (percent + percent[other_side]) / 2
    groups = dict(zip((*names, "head"), averaged[[0, 1, 2, 6, 7, 8, 12]].tolist(), strict=True))
    return groups | {"mean": float(100 * (distances <= threshold).mean())}


@pytest.mark.parametrize("noise", [3.0, 10.0, 40.0])
@pytest.mark.parametrize("threshold", [0.1, 0.2])
def test_equals_the_published_steps_on_lsp(lsp, noise, threshold):
    predictions = lsp + np.random.default_rng(0).normal(size=lsp.shape) * noise
    scores = pck(predictions, lsp, np.zeros(lsp.shape[:2], bool), threshold)
    expected = published_figures(predictions, lsp, threshold)
    assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert 0 < scores["mean"] < 100


def test_left_and_right_are_the_persons_own(lsp):
    """Who names sides as the observer sees them gets most joints of people who face the camera wrong."""
    swapped = lsp[:, LSP_14.flip_permutation]
    assert pck(swapped, lsp, np.zeros(lsp.shape[:2], bool))["mean"] < 60


def one_person(skeleton=LSP_14) -> dict[str, np.ndarray]:
    """All joints on one point but the left shoulder, 100 pixels from the right hip."""
    truth = np.full((1, skeleton.num_joints, 2), 50.0)
    truth[0, skeleton.index("left_shoulder")] += [60, -80]
    return {"predictions": truth.copy(), "ground_truth": truth, "missing": np.zeros(truth.shape[:2], bool)}


@pytest.mark.parametrize(("distance", "correct"), [(19.9, True), (20.0, True), (20.1, False)])
def test_a_fifth_of_the_torso_is_just_correct(distance, correct):
    person = one_person()
    person["predictions"][0, LSP_14.index("neck"), 1] += distance
    scores = pck(**person)
    assert scores["neck"] == (100 if correct else 0)
    assert scores["head"] == (100 if correct else 50)
    assert scores["mean"] == pytest.approx(100 if correct else 100 * 13 / 14)


@pytest.mark.parametrize(("skeleton", "has_head"), [(LSP_14, True), (MPII_16, False), (COCO_17, False)])
def test_any_skeleton_with_a_torso_is_scored(skeleton, has_head):
    person = one_person(skeleton)
    person["predictions"][0, skeleton.index("right_knee"), 0] += 21
    scores = pck(**person, skeleton=skeleton)
    assert scores["knee"] == 50
    assert set(skeleton.joint_names) <= set(scores)
    assert ("head" in scores) == has_head


def test_another_torso_may_be_named():
    person = one_person()
    person["ground_truth"][0, LSP_14.index("right_shoulder")] += [30, -40]
    person["predictions"] = person["ground_truth"] + [15.0, 0.0]
    assert pck(**person)["mean"] == 100
    assert pck(**person, torso=("right_shoulder", "left_hip"))["mean"] == 0
    with pytest.raises(KposeError, match="no joint 'left_hips'"):
        pck(**person, torso=("right_shoulder", "left_hips"))


@pytest.mark.parametrize("why", ["missing", "one point"])
def test_people_without_a_torso_are_left_out(why):
    first, second = one_person(), one_person()
    second["predictions"] += 1000.0
    if why == "missing":
        second["missing"][0, LSP_14.index("right_hip")] = True
    else:
        second["ground_truth"][0, LSP_14.index("left_shoulder")] = second["ground_truth"][0, LSP_14.index("right_hip")]
    both = {name: np.concatenate([first[name], second[name]]) for name in first}
    assert pck(**both)["mean"] == 100
    diameters = torso_diameters(both["ground_truth"], both["missing"])
    assert diameters[0] == pytest.approx(100) and math.isnan(diameters[1])
    with pytest.raises(KposeError, match="none of 1 people has a torso to measure by: left_shoulder and right_hip"):
        pck(**second)


def test_lspet_people_with_a_torso_joint_that_is_not_annotated(shared_data):
    """The last 500 persons, on which the documentation reports: 138 lack a joint of the torso."""
    joints = loadmat(shared_data / "lspet" / "joints.mat")["joints"].transpose(2, 0, 1)[-500:]
    assert np.isnan(torso_diameters(joints[..., :2], joints[..., 2] == 0)).sum() == 138
    assert pck(joints[..., :2], joints[..., :2], joints[..., 2] == 0)["mean"] == 100


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"predictions": np.zeros((1, 16, 2))}, r"predictions has shape \(1, 16, 2\), expected \(N, 14, 2\): the 14 joints of .*'lsp_14'"),
        ({"missing": np.ones((1, 14), bool)}, "none of 1 people has a torso"),
        ({"missing": np.full((1, 14), 0.5)}, "missing holds 0.5"),
        ({"predictions": np.full((1, 14, 2), math.nan)}, r"predictions: right_ankle of person 0 \(from 0\) is \[nan, nan\]"),
        ({"threshold": math.inf}, "the threshold is inf"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(changes, message):
    with pytest.raises(KposeError, match=message) as refusal:
        pck(**(one_person() | changes))
    assert "\n" not in str(refusal.value)


def test_nobody_is_refused():
    with pytest.raises(KposeError, match="no joint to score: of 0 people"):
        pck(np.zeros((0, 14, 2)), np.zeros((0, 14, 2)), np.zeros((0, 14), bool))
