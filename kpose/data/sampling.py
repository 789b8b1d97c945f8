"""Who comes at which position of the training stream: a pure function of seed and position, so that a training can go on anywhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from kpose.data.shares import CYCLE, shares


def shuffled_index(positions: tf.Tensor, people: tf.Tensor | int, seed: tf.Tensor | int) -> tf.Tensor:
    """Which of several people stands at positions of an endless stream of all of them.

    Args:
        positions: `(n,)` int64.
        people: how many there are; a number, or `(n,)` int64 of one for each position.
        seed: of the order; likewise.

    Returns:
        `(n,)` int64: within each pass of `people` positions a permutation.
    """
    positions = tf.cast(positions, tf.int64)
    people, seed = (tf.broadcast_to(tf.cast(value, tf.int64), tf.shape(positions)) for value in (people, seed))
    passes, index = positions // people, positions % people
    # tf.random.experimental.index_shuffle pads several seeds along the wrong axis.
    return tf.raw_ops.RandomIndexShuffle(index=index, seed=tf.stack([seed, passes, tf.ones_like(passes)], axis=-1), max_index=people - 1)


def drawn_dataset(positions: tf.Tensor, weights: Sequence[float], seed: int) -> tuple[tf.Tensor, tf.Tensor]:
    """From which of several datasets each sample of a weighted stream comes.

    Args:
        positions: `(n,)` int64 in the stream.
        weights: of the datasets, greater than 0.
        seed: of the order.

    Returns:
        `(n,)` int64 the dataset, and `(n,)` int64 the position in its own stream: each comes once, those of a cycle in any order.
    """
    counts = shares(weights)
    ends = np.cumsum(counts)
    cycles = positions // CYCLE
    # Another stream of random numbers than that of the people within a dataset.
    slots = shuffled_index(positions, CYCLE, tf.constant(-1 - seed, tf.int64))
    dataset = tf.searchsorted(tf.constant(ends), slots, side="right", out_type=tf.int64)
    return dataset, cycles * tf.gather(counts, dataset) + slots - tf.gather(ends - counts, dataset)


def drawn_before(position: int, weights: Sequence[float], seed: int) -> np.ndarray:
    """`(D,)` int64: how many samples of each dataset a weighted stream has before a position."""
    cycles, rest = divmod(position, CYCLE)
    dataset, _ = drawn_dataset(cycles * CYCLE + tf.range(rest, dtype=tf.int64), weights, seed)
    return cycles * shares(weights) + np.bincount(dataset.numpy(), minlength=len(weights))


def drawn_people(positions: tf.Tensor, sizes: Sequence[int], weights: Sequence[float], seed: int) -> tf.Tensor:
    """Which person stands at positions of the weighted stream of several datasets.

    Of a dataset everybody comes equally often, pass after pass, each in an order drawn anew; passes overlap within a cycle alone.

    Args:
        positions: `(n,)` int64.
        sizes: how many people each dataset has.
        weights: of the datasets.
        seed: of the order.

    Returns:
        `(n,)` int64: positions in the datasets put one after the other.
    """
    dataset, within = drawn_dataset(positions, weights, seed)
    people = tf.gather(tf.constant(sizes, tf.int64), dataset)
    first = tf.gather(tf.constant(np.cumsum([0, *sizes[:-1]]), tf.int64), dataset)
    return first + shuffled_index(within, people, seed + dataset)
