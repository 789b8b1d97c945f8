from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from kpose.data.sampling import CYCLE, drawn_before, drawn_dataset, drawn_people, shares

WEIGHTS = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6)


def positions(start: int, stop: int) -> tf.Tensor:
    return tf.range(start, stop, dtype=tf.int64)


@given(WEIGHTS)
def test_the_shares_make_up_a_cycle_and_follow_the_weights(weights):
    counts = shares(weights)
    exact = np.array(weights) / np.sum(weights) * CYCLE
    assert counts.sum() == CYCLE
    assert counts.min() >= 1
    # Those that would get less than one sample take theirs from the largest.
    assert np.all(np.abs(counts - exact) <= len(weights))
    large = exact >= 1
    assert np.all(np.abs(counts - exact)[large] < 1) or not large.all()


def test_every_cycle_holds_the_shares_in_another_order():
    dataset = drawn_dataset(positions(0, 3 * CYCLE), [2, 1, 1], seed=5)[0].numpy().reshape(3, CYCLE)
    for cycle in dataset:
        np.testing.assert_array_equal(np.bincount(cycle), [500, 250, 250])
    assert (dataset[0] != dataset[1]).any()
    other = drawn_dataset(positions(0, CYCLE), [2, 1, 1], seed=6)[0].numpy()
    assert (dataset[0] != other).mean() > 0.3


def test_the_positions_within_a_dataset_leave_none_out():
    dataset, within = (column.numpy() for column in drawn_dataset(positions(0, 2 * CYCLE), [3, 1], seed=0))
    for number in (0, 1):
        assert sorted(within[dataset == number]) == list(range((dataset == number).sum()))


@given(st.integers(0, 5000), WEIGHTS)
def test_what_was_drawn_before_a_position_is_counted(position, weights):
    dataset = drawn_dataset(positions(0, position), weights, seed=2)[0].numpy()
    np.testing.assert_array_equal(drawn_before(position, weights, seed=2), np.bincount(dataset, minlength=len(weights)))


@given(st.integers(0, 10**12))
def test_a_sample_depends_on_its_position_alone(start):
    sizes, weights = [7, 1000, 50], [1, 2, 3]
    block = drawn_people(positions(start, start + 64), sizes, weights, seed=1).numpy()
    alone = [int(drawn_people(positions(start + i, start + i + 1), sizes, weights, seed=1)[0]) for i in (0, 17, 63)]
    assert [block[i] for i in (0, 17, 63)] == alone


def test_of_a_dataset_everybody_comes_equally_often():
    sizes = [10, 1500]
    found = drawn_people(positions(0, 2 * CYCLE), sizes, [1, 3], seed=4).numpy()
    counts = np.bincount(found, minlength=1510)
    np.testing.assert_array_equal(counts[:10], 50)
    np.testing.assert_array_equal(counts[10:], 1)
    again = drawn_people(positions(2 * CYCLE, 4 * CYCLE), sizes, [1, 3], seed=4).numpy()
    assert (found != again).mean() > 0.5


@pytest.mark.parametrize("weights", [[1.0], [1e-9, 1.0]])
def test_lonely_and_tiny_datasets_are_drawn_from(weights):
    found = drawn_people(positions(0, CYCLE), [5] * len(weights), weights, seed=0).numpy()
    assert found.min() < 5
    assert found.max() == 5 * len(weights) - 1
