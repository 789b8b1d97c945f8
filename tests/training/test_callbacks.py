"""Callbacks: what they keep of a training that goes wrong."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from kpose.checkpoint import ModelCard, read_card
from kpose.config import parse_config
from kpose.errors import KposeError
from kpose.files import read_number_table
from kpose.training.callbacks import Checkpoints, TrainingLog, ValidationScore


@pytest.fixture
def network() -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(17, 1)(inputs))
    model.compile("sgd", "mse", jit_compile=False, run_eagerly=True)
    return model


@pytest.fixture
def card() -> ModelCard:
    return ModelCard.from_config(parse_config({"model": {"input_size": [8, 8]}}))


def fit(model: keras.Model, callbacks: list[keras.callbacks.Callback], epochs: int = 1, heatmap: float = 0.5) -> None:
    model.fit(np.ones((2, 8, 8, 3)), np.full((2, 8, 8, 17), heatmap), epochs=epochs, verbose=0, callbacks=callbacks)


def test_best_is_that_of_the_highest_score_and_last_that_of_the_last_epoch(tmp_path: Path, network: keras.Model, card: ModelCard) -> None:
    scores = iter([0.1, 0.3, 0.2])
    fit(network, [ValidationScore(lambda _: {"AP": next(scores)}, 1), Checkpoints(tmp_path, card, "AP")], epochs=3)
    best, last = (read_card(tmp_path / name) for name in ("best.keras", "last.keras"))
    assert (best.training["epoch"], best.score["AP"]) == (2, 0.3)
    assert (last.training["epoch"], last.score["AP"], last.training["best_score"]) == (3, 0.2, 0.3)


def test_a_score_is_due_every_few_epochs_and_after_the_last(tmp_path: Path, network: keras.Model) -> None:
    log = TrainingLog(tmp_path / "training.csv", ["AP"])
    fit(network, [ValidationScore(lambda _: {"AP": 0.5}, 2), log], epochs=5)
    assert ["AP" in row for row in read_number_table(log.path)] == [False, True, False, True, True]


def test_a_loss_that_is_no_number_ends_the_training_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, network: keras.Model, card: ModelCard
) -> None:
    checkpoints = Checkpoints(tmp_path, card, "AP")
    fit(network, [checkpoints])
    before = (tmp_path / "last.keras").read_bytes()
    with pytest.raises(KposeError, match=r"loss became nan in epoch 1, step 1; lower training\.learning_rate"):
        fit(network, [checkpoints], heatmap=np.nan)
    assert (tmp_path / "last.keras").read_bytes() == before
