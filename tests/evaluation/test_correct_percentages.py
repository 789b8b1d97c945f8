"""What may and may not change PCK and PCKh."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpose.evaluation import pck, pckh
from tests.evaluation.random_people import lsp_people, mpii_people

SEEDS = st.integers(0, 2**32 - 1)
both_scores = pytest.mark.parametrize(("score", "people"), [(pck, lsp_people), (pckh, mpii_people)], ids=["pck", "pckh"])


@both_scores
@given(seed=SEEDS, scale=st.floats(0.1, 10), shift=st.floats(-500, 500))
def test_neither_size_nor_place_of_the_picture_matters(score, people, seed, scale, shift):
    original = people(seed)
    moved = {name: array if name == "missing" else array * scale + shift for name, array in original.items()}
    assert score(**moved) == pytest.approx(score(**original), abs=1e-6)


@both_scores
@given(seed=SEEDS)
def test_the_order_of_the_people_does_not_matter(score, people, seed):
    original = people(seed)
    order = np.random.default_rng(seed).permutation(len(original["missing"]))
    assert score(**{name: array[order] for name, array in original.items()}) == score(**original)


@both_scores
@given(seed=SEEDS, junk=st.sampled_from([0.0, 1e9, math.nan, math.inf]))
def test_what_stands_at_missing_joints_does_not_matter(score, people, seed, junk):
    original = people(seed)
    spoilt = dict(original)
    for name in ("predictions", "ground_truth"):
        spoilt[name] = np.where(original["missing"][..., None], junk, original[name])
    assert score(**spoilt) == score(**original)


@both_scores
@given(seed=SEEDS, first=st.floats(0, 1), second=st.floats(0, 1))
def test_a_larger_threshold_never_scores_less(score, people, seed, first, second):
    small, large = (score(**people(seed), threshold=threshold) for threshold in sorted((first, second)))
    assert all(small[name] <= large[name] for name in small)


@both_scores
@given(seed=SEEDS)
def test_the_truth_scores_a_hundred_at_any_threshold(score, people, seed):
    perfect = people(seed)
    perfect["predictions"] = perfect["ground_truth"]
    assert set(score(**perfect, threshold=0.0).values()) == {100.0}
