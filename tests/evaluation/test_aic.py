"""AI Challenger's score: the published steps, person by person, and constructed cases."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpose.errors import KposeError
from kpose.evaluation import aic_map
from kpose.skeletons import AIC_14, MPII_16


def published_score(predictions, prediction_images, truth, truth_images, boxes) -> float:
    """The steps of `keypoint_eval.py`, image by image and person by person."""
    delta = 2 * np.array(AIC_14.oks_sigmas)
    everyone, number = np.zeros(0), 0
    for image in set(truth_images.tolist()):
        people, results = np.flatnonzero(truth_images == image), np.flatnonzero(prediction_images == image)
        similarity = np.zeros((len(people), len(results)))
        for row, person in enumerate(people):
            visible = truth[person, :, 2] == 2
            area = boxes[person, 2] * boxes[person, 3]
            for column, result in enumerate(results):
                if visible.any():
                    squares = ((truth[person, visible, :2] - predictions[result, visible]) ** 2).sum(axis=1)
                    similarity[row, column] = np.mean(np.exp(-squares / 2 / delta[visible] ** 2 / (area + 1)))
        everyone = np.concatenate([everyone, similarity.max(axis=1) if len(results) else np.zeros(len(people))])
        number += max(similarity.shape)
    return float(np.mean([(everyone > threshold).sum() / number for threshold in np.linspace(0.5, 0.95, 10)]))


def people(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    images = np.sort(random.integers(0, 4, 8))
    boxes = np.concatenate([random.uniform(0, 100, (8, 2)), random.uniform(100, 400, (8, 2))], axis=-1)
    points = boxes[:, None, :2] + random.random((8, 14, 2)) * boxes[:, None, 2:]
    chosen = random.integers(0, 8, 10)
    noise = random.normal(size=(10, 14, 2)) * random.choice([0.0, 2.0, 6.0, 20.0], (10, 1, 1))
    return {
        "predictions": points[chosen] + noise,
        "prediction_images": images[chosen],
        "ground_truth": np.concatenate([points, random.integers(0, 3, (8, 14, 1))], axis=-1),
        "ground_truth_images": images,
        "boxes": boxes,
    }


@given(st.integers(0, 2**32 - 1))
def test_equals_the_published_steps(seed):
    everybody = people(seed)
    assert aic_map(**everybody)["mAP"] == pytest.approx(published_score(*everybody.values()), abs=1e-12)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e6]))
def test_joints_that_are_not_visible_do_not_matter(seed, junk):
    original = people(seed)
    hidden = original["ground_truth"][..., 2:] < 2
    spoilt = np.where(hidden & [True, True, False], junk, original["ground_truth"])
    assert aic_map(**(original | {"ground_truth": spoilt})) == aic_map(**original)


def test_the_truth_scores_one_on_real_annotations(shared_data):
    annotations = json.loads((shared_data / "format_samples" / "aic" / "test_aic.json").read_text())["annotations"]
    truth = np.array([person["keypoints"] for person in annotations], np.float64).reshape(-1, 14, 3)
    images = np.array([person["image_id"] for person in annotations])
    boxes = np.array([person["bbox"] for person in annotations])
    assert aic_map(truth[..., :2], images, truth, images, boxes) == {"mAP": 1.0, "AP50": 1.0, "AP75": 1.0}
    # One prediction too many for each of the nine people.
    doubled = np.concatenate([truth[..., :2]] * 2), np.concatenate([images] * 2)
    assert aic_map(*doubled, truth, images, boxes)["mAP"] == pytest.approx(0.5)
    assert aic_map(truth[:3, :, :2], images[:3], truth, images, boxes)["mAP"] < 1
    nothing = np.zeros((0, 14, 2)), np.zeros(0, np.int64)
    assert aic_map(*nothing, truth, images, boxes)["mAP"] == 0


def test_one_prediction_may_serve_several_people():
    one = people(0)
    both = {name: np.repeat(one[name][:1], 2, axis=0) for name in ("ground_truth", "ground_truth_images", "boxes")}
    both["ground_truth"][..., 2] = 2
    scores = aic_map(both["ground_truth"][:1, :, :2], both["ground_truth_images"][:1], **both)
    assert scores["mAP"] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"predictions": np.zeros((10, 16, 2))}, r"predictions has shape \(10, 16, 2\), expected \(10, 14, 2\) .*'aic_14'"),
        ({"boxes": np.zeros((7, 4))}, r"boxes has shape \(7, 4\), expected \(8, 4\)"),
        ({"predictions": np.full((10, 14, 2), math.nan)}, "predictions holds NaN"),
        ({"prediction_images": np.full(10, 77)}, "image 77 has no annotated person"),
        ({"ground_truth_images": np.zeros(0)}, "no annotated person"),
        ({"skeleton": MPII_16}, "'mpii_16' has no 'oks_sigmas'"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(KposeError, match=message):
        aic_map(**(people(0) | changes))
