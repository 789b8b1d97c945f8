"""A training that is cut off anywhere ends as one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import kpose.training.fit
import kpose.training.state
from kpose.cli import main
from kpose.config import Config, dump_config
from kpose.errors import KposeError
from kpose.files import read_number_table
from kpose.training import Preempted, TrainingResult, train
from kpose.training.state import list_states, read_newest_state
from tests.training.tiny_training import assert_equal_weights, tiny_config, tiny_network

# With a moving average and in float16 there is the most to bring back.
AVERAGED = {"weight_averaging": 0.9, "precision": "float16", "optimizer": "sgd", "learning_rate": 1e-3}


@pytest.fixture(autouse=True)
def _tiny_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kpose.training.fit, "build_model", tiny_network)


@pytest.fixture
def config(people: Path, tmp_path: Path) -> Config:
    return tiny_config(people, tmp_path / "run")


@pytest.fixture(scope="module")
def uninterrupted(people: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kpose.training.fit, "build_model", tiny_network)
        return train(tiny_config(people, tmp_path_factory.mktemp("uninterrupted") / "run"))


class Cut(Exception):
    """As a crash would."""


def run_until(config: Config, step: int, action: Any = None) -> None:
    """Train, and do something at the begin of a step (from 1); by default end there as a crash would."""

    def at_begin(self: Any, batch: int, logs: Any = None) -> None:
        if int(self.model.optimizer.iterations) == step - 1:
            if action:
                action()
            else:
                raise Cut

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.callbacks.TensorBoard, "on_train_batch_begin", at_begin)
        if action:
            train(config)
        else:
            with pytest.raises(Cut):
                train(config)


def assert_same_variables(one: Path, other: Path) -> None:
    """Weights, optimizer, random seeds, moving average, loss scale: bit by bit."""
    mine, theirs = (read_newest_state(folder) for folder in (one, other))
    assert list(mine.arrays) == list(theirs.arrays)
    for name, array in mine.arrays.items():
        np.testing.assert_array_equal(array, theirs.arrays[name], err_msg=name)
    assert mine.progress.step == theirs.progress.step


def assert_same_log(one: Path, other: Path) -> None:
    mine, theirs = (read_number_table(folder / "training.csv") for folder in (one, other))
    for row, expected in zip(mine, theirs, strict=True):
        assert {name: value for name, value in row.items() if name != "seconds"} == pytest.approx(
            {name: value for name, value in expected.items() if name != "seconds"}, rel=1e-6
        )
    whole = [[line.split(",")[:2] for line in (folder / "training.csv").read_text().splitlines()] for folder in (one, other)]
    assert whole[0] == whole[1], "epochs and steps are whole numbers, in old rows and in new ones"


@pytest.mark.parametrize("step", [2, 4, 6], ids=["in the first epoch", "after an epoch", "at an epoch's last step"])
def test_a_training_cut_off_anywhere_ends_as_an_uninterrupted_one(config: Config, uninterrupted: TrainingResult, step: int) -> None:
    run_until(config, step)
    assert read_newest_state(config.output / "states").progress.step == step - 1
    resumed = train(config, resume=True)
    assert_equal_weights(resumed.model, uninterrupted.model)
    assert_same_variables(config.output / "states", uninterrupted.folder / "states")
    assert_same_log(config.output, uninterrupted.folder)
    assert resumed.metrics == uninterrupted.metrics


def test_a_killed_process_is_resumed(config: Config, uninterrupted: TrainingResult, tmp_path: Path, repository: Path) -> None:
    """SIGKILL, in the middle of the second epoch, while a state is being written."""
    settings = tmp_path / "run.yaml"
    settings.write_text(dump_config(config))
    program = f"""
import os, signal
import numpy as np
import kpose.training.fit
from kpose.config import load_config
from tests.training.tiny_training import tiny_network
kpose.training.fit.build_model = tiny_network
written, whole = [], np.savez
def savez(path, **arrays):
    whole(path, **arrays)
    written.append(path)
    if len(written) == 6:  # after steps 1 to 3, after the epoch, after steps 4 and 5
        os.kill(os.getpid(), signal.SIGKILL)
np.savez = savez
kpose.training.fit.train(load_config({str(settings)!r}))
"""
    environment = os.environ | {"PYTHONPATH": str(repository)}
    killed = subprocess.run([sys.executable, "-c", program], cwd=repository, env=environment, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    states = config.output / "states"
    assert list(states.glob(".*.partial.npz")), "killed while it wrote"
    assert read_newest_state(states).progress.step == 4
    resumed = train(config, resume=True)
    assert_equal_weights(resumed.model, uninterrupted.model)
    assert_same_log(config.output, uninterrupted.folder)
    assert not list(states.glob(".*")), "what was half written is gone"


def test_average_and_loss_scale_are_resumed_too(people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # So that the scale changes within a few steps.
    monkeypatch.setattr("kpose.training.step.LOSS_SCALE_PATIENCE", 2)
    whole, cut = (tiny_config(people, tmp_path / name, training=AVERAGED) for name in ("whole", "cut"))
    expected = train(whole)
    run_until(cut, 5)
    resumed = train(cut, resume=True)
    assert_equal_weights(resumed.model, expected.model)
    assert_same_variables(cut.output / "states", whole.output / "states")


def test_a_request_to_end_saves_first(config: Config, uninterrupted: TrainingResult) -> None:
    config = config.model_copy(update={"training": config.training.model_copy(update={"save_every_minutes": 60.0})})
    former = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted, match="asked to end after step 5; the state is in .*states, --resume goes on from there"):
        run_until(config, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert signal.getsignal(signal.SIGTERM) == former
    assert [path.name for path in list_states(config.output / "states")] == ["step-000000005.npz", "step-000000003.npz"]
    assert_equal_weights(train(config, resume=True).model, uninterrupted.model)


def test_the_command_ends_as_a_process_that_was_asked_to(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def preempted(*arguments: Any, **options: Any) -> None:
        raise Preempted("asked to end after step 7")

    monkeypatch.setattr("kpose.training.train", preempted)
    assert main(["train", "--config", "configs/synthetic/lite_mobilenet_v3_128x96.yaml"]) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "kpose: asked to end after step 7\n"


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        middle = content.index(b"model/00000.npy") + 300  # within the first kernel
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])


@pytest.mark.parametrize("how", ["truncated", "empty", "one bit changed"])
def test_a_damaged_state_is_no_loss(config: Config, uninterrupted: TrainingResult, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_until(config, 6)
    newest, before = list_states(config.output / "states")
    damage(newest, how)
    resumed = train(config, resume=True)
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("kpose: warning:")]
    assert len(warnings) == 2 and str(newest) in warnings[0] and f"going on from the state before it, {before}" in warnings[1]
    assert_equal_weights(resumed.model, uninterrupted.model)


def test_without_a_whole_state_there_is_nothing_to_resume(config: Config) -> None:
    run_until(config, 3)
    for path in list_states(config.output / "states"):
        damage(path, "truncated")
    with pytest.raises(KposeError, match=r"no state in .*states is whole; start anew in another folder"):
        train(config, resume=True)


def test_a_training_cut_off_before_its_first_checkpoint_is_not_overwritten(config: Config) -> None:
    run_until(config, 2)
    assert not (config.output / "last.keras").exists()
    with pytest.raises(KposeError, match="already holds a training; add --resume"):
        train(config)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"batch_size": 2}, "is of a training with batch_size 4, the configuration and its data make it 2"),
        ({"optimizer": "sgd"}, "is of another network, optimizer or precision"),
        ({"weight_averaging": 0.9}, "is of another network, optimizer or precision, or without the average of the weights"),
    ],
)
def test_a_state_of_other_settings_is_refused(config: Config, section: dict[str, Any], message: str) -> None:
    run_until(config, 2)
    with pytest.raises(KposeError, match=message):
        train(config.model_copy(update={"training": config.training.model_copy(update=section)}), resume=True)


def test_weights_that_are_lost_do_not_take_the_place_of_good_ones(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight becomes infinite a step before the loss tells."""
    run_until(config, 3)
    good = read_newest_state(config.output / "states").path
    seen = kpose.training.state._variables

    def lost(model: Any) -> dict[str, Any]:
        variables = seen(model)
        variables["model/00000"].assign(variables["model/00000"].value * np.inf)
        return variables

    monkeypatch.setattr(
        "kpose.training.callbacks.write_state", lambda *arguments: (lost(arguments[1]), kpose.training.state.write_state(*arguments))
    )
    with pytest.raises(KposeError, match=r"model/00000 is not finite after step 3; lower training\.learning_rate"):
        train(config, resume=True)
    assert read_newest_state(config.output / "states").path == good
