"""PCKh: the published figures, and what may and may not change them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.io import loadmat

from kpose.errors import KposeError
from kpose.evaluation import pckh, pckh_of_head_sizes
from kpose.skeletons import MPII_16
from tests.evaluation.random_people import mpii_people

COLUMNS = ("head", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")


@pytest.fixture(scope="module")
def hourglass(shared_data) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Predictions, truth, head boxes and missing joints of the 2,958 people of the MPII validation set."""
    truth = loadmat(shared_data / "mpii" / "detections_our_format.mat")
    predictions = loadmat(shared_data / "mpii" / "predictions_hourglass_8stack.mat")["preds"]
    points, boxes = (truth[name].transpose(2, 0, 1) for name in ("pos_gt_src", "headboxes_src"))
    return predictions, points, boxes, truth["jnt_missing"].T


def test_the_published_figures_of_an_eight_stack_hourglass(hourglass):
    """Golden: as the data's README gives them, from the published validation code."""
    scores = pckh(*hourglass)
    assert {name: round(scores[name], 2) for name in ("mean", *COLUMNS)} == {
        "mean": 89.09,
        "head": 96.79,
        "shoulder": 95.19,
        "elbow": 90.08,
        "wrist": 85.32,
        "hip": 87.48,
        "knee": 84.26,
        "ankle": 80.73,
    }


def published_figures(predictions, truth, boxes, missing, threshold):
    """The published validation code's steps: percentages per joint, and their mean weighted by how often each is annotated."""
    visible = 1 - missing.T.astype(np.float64)
    error = np.linalg.norm(predictions.transpose(1, 2, 0) - truth.transpose(1, 2, 0), axis=1)
    head = np.linalg.norm(boxes[:, 1] - boxes[:, 0], axis=1) * 0.6
    correct = (error / head <= threshold) * visible
    percent = 100.0 * correct.sum(axis=1) / visible.sum(axis=1)
    weights = np.ma.array(visible.sum(axis=1), mask=False)
    weights.mask[6:8] = True
    return percent, float(np.sum(percent * (weights / weights.sum())))


@pytest.mark.parametrize("threshold", [0.05, 0.1, 0.11, 0.5])
def test_equals_the_published_steps_at_any_threshold(hourglass, threshold):
    percent, mean = published_figures(*hourglass, threshold)
    scores = pckh(*hourglass, threshold=threshold)
    assert scores["mean"] == pytest.approx(mean, abs=1e-9)
    assert [scores[name] for name in MPII_16.joint_names] == pytest.approx(percent.tolist(), abs=1e-9)


def test_a_tenth_is_a_tenth(hourglass):
    """Golden: of these predictions by the published code's steps; its column `Mean@0.1` shows what it counts at 0.11."""
    assert round(pckh(*hourglass, threshold=0.1)["mean"], 2) == 24.49
    assert round(pckh(*hourglass, threshold=0.11)["mean"], 2) == 28.90


def test_another_origin_of_the_predictions_is_another_score(hourglass):
    predictions, *rest = hourglass
    assert abs(pckh(predictions - 1, *rest)["mean"] - 89.09) > 0.1
    moved = [predictions - 1, rest[0] - 1, rest[1] - 1, rest[2]]
    assert pckh(*moved)["mean"] == pytest.approx(pckh(*hourglass)["mean"], abs=0.01)


def one_person() -> dict[str, np.ndarray]:
    truth = np.arange(32, dtype=np.float64).reshape(1, 16, 2) * 10
    return {
        "predictions": truth.copy(),
        "ground_truth": truth,
        "head_boxes": np.array([[[0.0, 0.0], [30.0, 40.0]]]),  # head size 0.6 x 50 = 30
        "missing": np.zeros((1, 16), bool),
    }


@pytest.mark.parametrize(("distance", "correct"), [(14.9, True), (15.0, True), (15.1, False)])
def test_half_a_head_is_just_correct(distance, correct):
    person = one_person()
    person["predictions"][0, MPII_16.index("left_wrist"), 0] += distance
    scores = pckh(**person)
    assert scores["left_wrist"] == (100 if correct else 0)
    assert scores["wrist"] == (100 if correct else 50)
    assert scores["mean"] == pytest.approx(100 if correct else 100 * 13 / 14)


@pytest.mark.parametrize("joint", MPII_16.joint_names)
def test_pelvis_and_thorax_alone_are_outside_of_the_mean(joint):
    person = one_person()
    person["predictions"][0, MPII_16.index(joint)] += 100
    assert (pckh(**person)["mean"] == 100) == (joint in ("pelvis", "thorax"))


def test_joints_count_by_how_often_they_are_annotated():
    """Three of four annotated joints are right: 75, though the mean of the joints' percentages is 50."""
    both = {name: np.repeat(array, 3, axis=0) for name, array in one_person().items()}
    both["missing"][:] = True
    both["missing"][:, MPII_16.index("left_knee")] = False
    both["missing"][0, MPII_16.index("right_elbow")] = False
    both["predictions"][0, MPII_16.index("right_elbow")] += 100
    scores = pckh(**both)
    assert scores["mean"] == 75
    assert (scores["knee"], scores["elbow"]) == (100, 0)
    assert math.isnan(scores["head"]) and math.isnan(scores["right_knee"])


def test_head_sizes_in_place_of_boxes():
    original = mpii_people(3)
    sizes = 0.6 * np.linalg.norm(original["head_boxes"][:, 1] - original["head_boxes"][:, 0], axis=-1)
    arguments = {name: original[name] for name in ("predictions", "ground_truth", "missing")}
    assert pckh_of_head_sizes(head_sizes=sizes, **arguments) == pckh(**original)


@pytest.mark.parametrize("size", [math.nan, 0.0, -1.0, math.inf])
def test_an_unknown_head_size_is_refused_unless_nothing_is_scored(size):
    original = mpii_people(4)
    sizes = np.full(9, 20.0)
    sizes[5] = size
    arguments = {name: original[name] for name in ("predictions", "ground_truth", "missing")}
    with pytest.raises(KposeError, match=r"person 5 \(from 0\) has head size .*leave such people out"):
        pckh_of_head_sizes(head_sizes=sizes, **arguments)
    arguments["missing"][5] = True
    without = {name: np.delete(array, 5, axis=0) for name, array in arguments.items()}
    expected = pckh_of_head_sizes(head_sizes=np.delete(sizes, 5), **without)
    assert pckh_of_head_sizes(head_sizes=sizes, **arguments) == expected


def changed(name, change):
    person = one_person()
    person[name] = change(person[name])
    return person


def with_value(array, value):
    array = array.astype(np.float64)
    array[0, 8] = value
    return array


@pytest.mark.parametrize(
    ("person", "message"),
    [
        (
            changed("predictions", lambda a: a[:, :14]),
            r"predictions has shape \(1, 14, 2\), expected \(N, 16, 2\): the 16 joints of .*'mpii_16'",
        ),
        (
            changed("predictions", lambda a: np.repeat(a, 2, axis=0)),
            "different people: predictions has 2, ground_truth has 1, missing has 1",
        ),
        (changed("predictions", lambda a: np.concatenate([a, a[..., :1]], axis=-1)), r"predictions has shape \(1, 16, 3\)"),
        (changed("ground_truth", lambda a: a.transpose(1, 2, 0)), r"ground_truth has shape \(16, 2, 1\), expected \(N, 16, 2\)"),
        (changed("missing", lambda a: a[0]), r"missing has shape \(16,\), expected \(N, 16\)"),
        (changed("missing", lambda a: np.array(True)), r"missing has shape \(\)"),
        (changed("missing", lambda a: a + 2), "missing holds 2, expected true"),
        (changed("head_boxes", lambda a: a.reshape(1, 4)), r"head_boxes has shape \(1, 4\).*expected \(N, 2, 2\)"),
        (changed("head_boxes", lambda a: np.repeat(a, 2, axis=0)), r"head sizes of shape \(2,\), expected one for each of 1"),
        (changed("head_boxes", lambda a: a * 0), r"person 0 \(from 0\) has head size 0"),
        (changed("head_boxes", lambda a: a * math.nan), "has head size nan"),
        (changed("predictions", lambda a: with_value(a, math.nan)), r"predictions: upper_neck of person 0 \(from 0\) is \[nan, nan\]"),
        (changed("ground_truth", lambda a: with_value(a, math.inf)), "ground_truth: upper_neck of person 0"),
        (changed("predictions", lambda a: a.astype(str)), "predictions holds <U.*expected numbers"),
        (changed("missing", np.ones_like), "no joint to score"),
        ({name: array[:0] for name, array in one_person().items()}, "no joint to score: of 0 people"),
        (one_person() | {"threshold": -0.1}, "the threshold is -0.1"),
        (one_person() | {"threshold": math.nan}, "the threshold is nan"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(person, message):
    with pytest.raises(KposeError, match=message) as refusal:
        pckh(**person)
    assert "\n" not in str(refusal.value)
