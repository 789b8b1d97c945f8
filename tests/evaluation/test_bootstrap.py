"""Bootstrap over images: equal to scoring the drawn images themselves, and as wide as statistics says."""

from __future__ import annotations

import copy
import gzip
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpose.benchmark.scoring import synthetic_results
from kpose.errors import KposeError
from kpose.evaluation import coco_ap, pck
from kpose.evaluation.bootstrap import Bootstrap, Interval, OksScorer, PckScorer, bootstrap
from tests.evaluation.random_people import lsp_people


def some_people(images: int, seed: int) -> dict[str, Any]:
    """Up to three people a photo, of any size, some of them a crowd or without keypoints."""
    random = np.random.default_rng(seed)
    people = []
    for image in range(1, images + 1):
        for _ in range(random.integers(0, 4) if image > 1 else 1):
            size = random.uniform(20, 200)
            points = np.concatenate([random.uniform(0, size, (17, 2)), random.integers(1, 3, (17, 1))], axis=-1).round(1)
            points[random.random(17) < 0.3] = 0
            points[0, 2] = 2
            kind = random.random() if image > 1 else 1.0
            people.append(
                {"id": len(people) + 1, "image_id": image, "category_id": 1, "bbox": [0.0, 0.0, size, size], "area": size**2 / 2}
                | {"keypoints": (points * (kind > 0.1)).ravel().tolist(), "num_keypoints": int((points[:, 2] > 0).sum()) * int(kind > 0.1)}
                | {"iscrowd": int(kind < 0.2)}
            )
    return {
        "images": [{"id": image} for image in range(1, images + 1)],
        "categories": [{"id": 1, "name": "person", "keypoints": ["joint"] * 17}],
        "annotations": people,
    }


def drawn(annotations: dict[str, Any], results: list[dict[str, Any]], counts: np.ndarray) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The files of a dataset that has each image so often."""
    images, people, found = [], [], []
    for image, count in zip(annotations["images"], counts.tolist(), strict=True):
        for _ in range(count):
            number = len(images) + 1
            images.append({"id": number})
            people += [copy.copy(one) | {"image_id": number} for one in annotations["annotations"] if one["image_id"] == image["id"]]
            found += [copy.copy(one) | {"image_id": number} for one in results if one["image_id"] == image["id"]]
    people = [one | {"id": position + 1} for position, one in enumerate(people)]
    return annotations | {"images": images, "annotations": people}, found


def same(score: dict[str, float], expected: dict[str, float], tolerance: float = 1e-12) -> bool:
    return score == {name: pytest.approx(value, abs=tolerance, nan_ok=True) for name, value in expected.items()}


def test_every_image_once_is_the_plain_score_to_the_last_digit(shared_data):
    """On real annotations: 512 photos of COCO val2017, with made-up results."""
    with gzip.open(shared_data / "coco" / "annotations" / "person_keypoints_val2017_512images.json.gz") as file:
        annotations = json.load(file)
    results = synthetic_results(annotations, 3)
    scorer = OksScorer(results, annotations)
    score = scorer(np.ones(len(scorer.images), np.int64))
    assert score == coco_ap(results, annotations)
    assert 0.1 < score["AP"] < 0.9


@given(seed=st.integers(0, 2**32 - 1), images=st.integers(2, 6), per_image=st.integers(0, 4))
@settings(max_examples=60)
def test_a_draw_is_the_score_of_a_dataset_that_has_each_image_so_often(seed, images, per_image):
    annotations = some_people(images, seed)
    results = synthetic_results(annotations, per_image, seed) if per_image else []
    counts = np.random.default_rng(seed).integers(0, 4, images)
    counts[0] += 1  # whose person can be found
    with pytest.warns(UserWarning, match="no result") if not results else _nothing():
        scorer = OksScorer(results, annotations)
        drawn_annotations, drawn_results = drawn(annotations, results, counts)
        assert same(scorer(counts), coco_ap(drawn_results, drawn_annotations))


def _nothing():
    import contextlib

    return contextlib.nullcontext()


def test_a_draw_without_people_of_a_size_has_no_score_of_it():
    annotations = some_people(4, 3)
    for person in annotations["annotations"]:
        person["area"] = 5000.0 if person["image_id"] == 1 else 20000.0
    scorer = OksScorer(synthetic_results(annotations, 2), annotations)
    without = scorer(np.array([0, 1, 1, 1]))
    assert math.isnan(without["APM"]) and math.isnan(without["ARM"]) and without["APL"] == without["AP"]
    draws = bootstrap(scorer, 50, progress=False)
    assert np.isnan(draws.draws["APM"]).any()
    assert np.isfinite([draws.interval("APM").low, draws.interval("APM").high]).all()


def test_only_the_chosen_images_are_drawn():
    annotations = some_people(6, 1)
    results = synthetic_results(annotations, 3)
    scorer = OksScorer(results, annotations, image_ids=[1, 3, 4])
    assert scorer.images.tolist() == [1, 3, 4]
    assert scorer(np.ones(3, np.int64)) == coco_ap(results, annotations, image_ids=[1, 3, 4])


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_pck_of_a_draw_is_that_of_the_people_of_its_images(seed):
    people = lsp_people(seed)
    images = np.random.default_rng(seed).permutation([7, 7, 2, 3, 3, 3, 9, 9, 4])
    known = ~people["missing"][:, 8:10].any(axis=1) & ~people["missing"][:, 2:4].any(axis=1)
    scorer = PckScorer(images, **people)
    assert set(images[known]) <= set(scorer.images.tolist()) <= set(images.tolist())
    plain = scorer(np.ones(len(scorer.images), np.int64))
    assert plain.pop("PCK") == pck(**people)["mean"]
    counts = np.random.default_rng(seed).integers(0, 3, len(scorer.images))
    counts[np.searchsorted(scorer.images, images[0])] += 1  # of whom everything is annotated
    often = np.array([counts[scorer.images == image].sum() for image in images])
    expected = pck(**{name: np.repeat(column, often, axis=0) for name, column in people.items()})
    assert same(scorer(counts), {"PCK": expected.pop("mean"), **expected}, 1e-9)


def test_image_numbers_must_be_those_of_the_people():
    with pytest.raises(KposeError, match="3 image numbers for 9 people"):
        PckScorer(np.arange(3), **lsp_people(0))


class Share:
    """The share of images that are right: its distribution is known."""

    def __init__(self, right: np.ndarray) -> None:
        self.right, self.images = right, np.arange(len(right))

    def __call__(self, counts: np.ndarray) -> dict[str, float]:
        return {"share": float(counts @ self.right / counts.sum())}


@pytest.mark.parametrize(("images", "share"), [(100, 0.5), (400, 0.9)])
def test_the_interval_of_a_share_is_that_of_the_binomial_distribution(images, share):
    right = np.arange(images) < share * images
    found = bootstrap(Share(right), 4000, progress=False).interval("share")
    half_width = 1.96 * math.sqrt(share * (1 - share) / images)
    assert found.value == share
    # The limits of 4,000 draws scatter by about 2 % of the width, and shares come in steps of one image.
    assert found.low == pytest.approx(share - half_width, abs=0.08 * half_width + 1 / images)
    assert found.high == pytest.approx(share + half_width, abs=0.08 * half_width + 1 / images)


def test_the_same_seed_gives_the_same_draws():
    scorer = Share(np.arange(30) < 20)
    first, again, other = (bootstrap(scorer, 40, seed, progress=False) for seed in (5, 5, 6))
    assert first.draws["share"].tolist() == again.draws["share"].tolist() != other.draws["share"].tolist()


def test_a_difference_on_the_same_draws_is_surer_than_two_intervals_say():
    """Of two systems one is right wherever the other is, and in one image more: never better, however much both scatter."""
    right = np.arange(60) < 30
    better = right.copy()
    better[[40, 41, 42]] = True
    one, other = (bootstrap(Share(answers), 1000, progress=False) for answers in (better, right))
    difference = one.difference(other, "share")
    assert difference.value == pytest.approx(3 / 60) and 0 <= difference.low <= difference.value <= difference.high < 0.13
    assert one.interval("share").low < other.interval("share").high, "the intervals themselves overlap"
    assert other.difference(one, "share") == Interval(-difference.value, -difference.high, -difference.low)
    assert one.difference(one, "share") == Interval(0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"images": np.arange(1, 31)}, {"draws": {"share": np.zeros(7)}}], ids=["seed", "images", "resamples"]
)
def test_other_draws_are_not_compared(change: dict[str, Any]):
    found = bootstrap(Share(np.arange(30) < 20), 40, progress=False)
    with pytest.raises(KposeError, match="same draws"):
        found.difference(replace(found, **change), "share")


def test_draws_without_a_value_are_left_out_of_the_interval():
    draws = np.concatenate([np.full(50, math.nan), np.linspace(0, 1, 101)])
    found = Bootstrap({"APM": 0.5}, {"APM": draws}, np.arange(2), 0)
    assert found.interval("APM") == Interval(0.5, pytest.approx(0.025), pytest.approx(0.975))
    nobody = Bootstrap({"APM": math.nan}, {"APM": np.full(9, math.nan)}, np.arange(2), 0).interval("APM")
    assert all(math.isnan(value) for value in (nobody.value, nobody.low, nobody.high))


@pytest.mark.parametrize(("images", "resamples"), [(1, 10), (5, 0)])
def test_what_cannot_be_drawn_from_is_refused(images: int, resamples: int):
    with pytest.raises(KposeError, match="at least 2 images and 1 resample"):
        bootstrap(Share(np.ones(images)), resamples, progress=False)
