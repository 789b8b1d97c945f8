from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpose.errors import KposeError
from kpose.inference import Pose, PoseSmoother
from kpose.inference.smoothing import OneEuroFilter

BOX = np.array([0, 0, 100, 200], np.float32)


def pose(joints: np.ndarray, scores: float | np.ndarray = 0.9) -> Pose:
    scores = np.broadcast_to(scores, joints.shape[:1])
    return Pose(np.concatenate([joints, scores[:, None]], axis=1).astype(np.float32), 0.9, BOX)


def reference(values: np.ndarray, rate: float, cutoff: float, beta: float) -> np.ndarray:
    """The filter of the paper's appendix, a value at a time."""

    def alpha(cutoff: float) -> float:
        return 1 / (1 + (1 / (2 * np.pi * cutoff)) * rate)

    smoothed, speed, result = values[0], 0.0, [values[0]]
    for value in values[1:]:
        derivative = (value - smoothed) * rate
        speed = alpha(1.0) * derivative + (1 - alpha(1.0)) * speed
        share = alpha(cutoff + beta * abs(speed))
        smoothed = share * value + (1 - share) * smoothed
        result.append(smoothed)
    return np.array(result)


@given(st.integers(0, 1000), st.floats(10, 120), st.floats(0.1, 5), st.floats(0, 1))
def test_it_is_the_filter_of_the_paper(seed, rate, cutoff, beta):
    values = np.random.default_rng(seed).normal(size=20).cumsum()
    smooth = OneEuroFilter(cutoff, beta)
    found = [float(smooth(value, frame / rate)) for frame, value in enumerate(values, 1)]
    np.testing.assert_allclose(found, reference(values, rate, cutoff, beta), rtol=1e-6, atol=1e-9)


def test_what_trembles_rests_and_what_moves_does_not_lag():
    rng, smooth = np.random.default_rng(0), PoseSmoother()
    still = np.full((17, 2), 50.0)
    errors = [smooth(pose(still + rng.normal(size=still.shape)), frame / 30).keypoints[:, :2] - still for frame in range(90)]
    assert np.std(errors[30:]) < 0.5
    smooth.reset()
    # A person's size in a second.
    moving = [still + 200 * frame / 30 for frame in range(60)]
    lags = [moving[frame] - smooth(pose(moving[frame]), frame / 30).keypoints[:, :2] for frame in range(60)]
    assert np.max(lags[30:]) < 200 / 30


def test_settings_do_not_depend_on_the_distance():
    path = np.random.default_rng(1).normal(size=(30, 17, 2)).cumsum(axis=0)
    near, far = PoseSmoother(), PoseSmoother()
    for frame, joints in enumerate(path):
        found = near(pose(joints), frame / 30)
        small = pose(joints / 4)
        other = far(Pose(small.keypoints, 0.9, BOX / 4), frame / 30)
        np.testing.assert_allclose(found.keypoints[:, :2], 4 * other.keypoints[:, :2], rtol=1e-4, atol=1e-4)


def test_a_joint_that_was_lost_begins_anew():
    smooth, far = PoseSmoother(), np.full((2, 2), 300.0)
    smooth(pose(np.zeros((2, 2))), 0.0)
    lost = smooth(pose(far, np.array([0.1, 0.9])), 0.1)
    assert (lost.keypoints[0, :2] == 300).all() and (lost.keypoints[1, :2] < 300).all()
    again = smooth(pose(far + 10), 0.2)
    assert (again.keypoints[0, :2] == 310).all() and (again.keypoints[1, :2] < 310).all()


def test_time_that_stands_still_begins_anew():
    smooth = PoseSmoother()
    smooth(pose(np.zeros((1, 2))), 1.0)
    assert (smooth(pose(np.full((1, 2), 8.0)), 1.0).keypoints[0, :2] == 8).all()


@pytest.mark.parametrize(("cutoff", "beta"), [(0, 1), (1, -1), (float("nan"), 1)])
def test_values_that_make_no_filter_are_refused(cutoff, beta):
    with pytest.raises(KposeError, match="cutoffs of a filter must be above 0 and beta at least 0"):
        PoseSmoother(cutoff, beta)
