"""Where a training stands, in files: all that it takes to go on at a step as if nothing had happened.

`states/step-000001234.npz` holds the weights (and their average), the optimizer's and the loss scale's variables, random seeds, and a
line of JSON: step, losses of the epoch so far, best score. Data and learning rate are functions of the step. Two files are kept, so that
a damaged one is no loss.
"""

from __future__ import annotations

import json
import re
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import keras
import numpy as np

from kpose.checkpoint import ModelCard
from kpose.errors import KposeError
from kpose.training.step import TrainingModel
from kpose.weight_files import load_arrays, save_arrays

KEPT = 2
_NAME = re.compile(r"step-(\d{9})\.npz")
_PROGRESS = "progress.json"


@dataclass(frozen=True)
class Progress:
    """Where a training stands, apart from its variables.

    Attributes:
        step: steps done, all epochs together.
        epoch: epochs done and scored.
        mean_loss: of the steps of the epoch in progress.
        best_score: the highest so far; None without any.
        seconds: that the training has taken.
        steps_per_epoch, batch_size, seed: what the order of the people depends on.
        card: `ModelCard` of the network, as JSON.
    """

    step: int
    epoch: int
    mean_loss: float
    best_score: float | None
    seconds: float
    steps_per_epoch: int
    batch_size: int
    seed: int
    card: str

    @property
    def steps_within_epoch(self) -> int:
        """Steps done of the epoch in progress."""
        return self.step - self.epoch * self.steps_per_epoch


def write_state(folder: Path, model: TrainingModel, progress: Progress) -> Path:
    """Write the state of a compiled network, whole or not at all; the oldest files go.

    Raises:
        KposeError: when the file cannot be written, or a variable is not finite: no training can go on from there.
    """
    arrays = {name: variable.numpy() for name, variable in _variables(model).items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise KposeError(
                f"{name} is not finite after step {progress.step}; lower training.learning_rate (the states in {folder} are good)"
            )
    path = folder / f"step-{progress.step:09d}.npz"
    content = json.dumps(asdict(progress)).encode()
    save_arrays(path, arrays | {_PROGRESS: np.frombuffer(content, np.uint8)})
    for old in sorted(list_states(folder))[:-KEPT]:
        with suppress(OSError):
            old.unlink()
    return path


def list_states(folder: Path) -> list[Path]:
    """The states in a folder, the newest first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)


@dataclass(frozen=True)
class State:
    """A state that was read: where the training stands, its variables, and the file."""

    progress: Progress
    arrays: dict[str, np.ndarray]
    path: Path

    def restore(self, model: TrainingModel) -> None:
        """Give a compiled network the variables.

        Raises:
            KposeError: when they are of another network or optimizer.
        """
        variables = _variables(model)
        unlike = [name for name, variable in variables.items() if self._shape(name) != tuple(variable.shape)]
        unlike += [name for name in self.arrays if name not in variables]
        if unlike:
            raise KposeError(
                f"{self.path} is of another network, optimizer or precision, or without the average of the weights ({unlike[0]}); set "
                "model and training back to what they were"
            )
        for name, variable in variables.items():
            variable.assign(self.arrays[name])

    def _shape(self, name: str) -> tuple[int, ...] | None:
        return self.arrays[name].shape if name in self.arrays else None


def read_newest_state(folder: Path) -> State:
    """The newest state that is whole; of each newer one that is not, standard error tells.

    What an interrupt left half written is removed.

    Raises:
        KposeError: when there is none.
    """
    paths = list_states(folder)
    if not paths:
        raise KposeError(f"there is no state in {folder} to resume from; leave out --resume")
    for number, path in enumerate(paths):
        try:
            state = _read_state(path)
        except KposeError as error:
            print(f"kpose: warning: {error}", file=sys.stderr)
            continue
        if number:
            print(f"kpose: warning: going on from the state before it, {path}", file=sys.stderr)
        return state
    raise KposeError(f"no state in {folder} is whole; start anew in another folder, from the last.keras there as model.initial_weights")


def remove_partial_states(folder: Path) -> None:
    """Remove what a killed process left half written."""
    for partial in folder.glob(".step-*.partial.npz"):
        with suppress(OSError):
            partial.unlink()


def _read_state(path: Path) -> State:
    arrays = load_arrays(path)
    try:
        values = json.loads(arrays.pop(_PROGRESS).tobytes())
        kinds = {field.name: field.type for field in fields(Progress)}
        if set(values) != set(kinds):
            raise ValueError("it is of another version of kpose")
        progress = Progress(**values)
        ModelCard.model_validate_json(progress.card)
        if not 0 <= progress.steps_within_epoch <= progress.steps_per_epoch:
            raise ValueError(f"step {progress.step} is not in epoch {progress.epoch}")
    except (KeyError, ValueError, TypeError) as error:
        raise KposeError(f"{path} does not say where its training stands: {' '.join(str(error).split())[:200]}") from error
    return State(progress, arrays, path)


def _variables(model: TrainingModel) -> dict[str, keras.Variable]:
    """All that changes in a training, by names that are the same in every process."""
    groups = {"model": model.variables, "optimizer": model.optimizer.variables}
    if model.average is not None:
        groups["average"] = model.average.weights
    if model.loss_scale is not None:
        scale = model.loss_scale
        groups["loss_scale"] = [scale.factor, scale.good_steps, scale.skipped_steps]
    # Keras numbers unnamed layers by how many there were before: positions are what counts.
    return {f"{group}/{number:05d}": variable for group, variables in groups.items() for number, variable in enumerate(variables)}
