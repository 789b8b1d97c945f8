"""Keras callbacks: scores on the validation set, the training log, checkpoints, states to resume from, and the time to go.

Their order matters: the score comes first, for the log and the checkpoints read it; the state last, for what it says is done must be.
`kpose.training.make_callbacks` keeps to it.
"""

from __future__ import annotations

import csv
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
from tqdm import tqdm

from kpose.checkpoint import ModelCard, save_model
from kpose.errors import KposeError
from kpose.files import read_number_table, replacing
from kpose.training.distribution import Workplace
from kpose.training.preemption import Preempted, StopSignal
from kpose.training.state import Progress, write_state
from kpose.training.step import TrainingModel

Scorer = Callable[[keras.Model], dict[str, float]]


class ValidationScore(keras.callbacks.Callback):
    """Scores the network every few epochs, and after the last; the metrics join the epoch's logs.

    Args:
        scorer: network in, metrics by name out.
        every: epochs between scores; 0 for the last epoch alone.
    """

    def __init__(self, scorer: Scorer, every: int) -> None:
        super().__init__()
        self.scorer = scorer
        self.every = every

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the metrics to `logs` when a score is due."""
        last = epoch + 1 == self.params["epochs"]
        if last or (self.every and (epoch + 1) % self.every == 0):
            assert logs is not None
            logs.update(self.scorer(_finished(self.model)))


def _finished(model: keras.Model) -> keras.Model:
    """The network that is scored and saved: of a `TrainingModel` not always the one that is trained."""
    return model.finish() if isinstance(model, TrainingModel) else model


class TrainingLog(keras.callbacks.Callback):
    """One row an epoch in a CSV file: epoch, step, seconds, learning rate, loss, metrics.

    The file is rewritten whole each time, so it is never half a row; a resumed training goes on where its checkpoint stands.

    Args:
        path: the CSV file.
        metrics: names of the metrics that an epoch may have.
        start_epoch: rows of later epochs are dropped (an interrupt may have left them).
        seconds: that a former run has trained.
    """

    def __init__(self, path: Path, metrics: Sequence[str], start_epoch: int = 0, seconds: float = 0.0) -> None:
        super().__init__()
        self.path = path
        self.columns = ["epoch", "step", "seconds", "learning_rate", "loss", *metrics]
        former = [row for row in read_number_table(path) if row["epoch"] <= start_epoch] if start_epoch else []
        self.rows: list[dict[str, Any]] = [row | {name: int(row[name]) for name in ("epoch", "step")} for row in former]
        self._seconds_before = seconds
        self._start = 0.0

    @property
    def seconds(self) -> float:
        """That the training has taken so far, former runs included."""
        return self._seconds_before + time.monotonic() - self._start

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock."""
        self._start = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the epoch's row."""
        row: dict[str, Any] = {
            "epoch": epoch + 1,
            "step": int(self.model.optimizer.iterations.numpy()),
            "seconds": round(self.seconds, 1),
            "learning_rate": float(self.model.optimizer.learning_rate),
        }
        row |= {name: value for name, value in (logs or {}).items() if name in self.columns and math.isfinite(value)}
        self.rows.append(row)
        with replacing(self.path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(self.rows)


class Checkpoints(keras.callbacks.Callback):
    """Writes `last.keras` after every epoch and `best.keras` when the watched metric is at its highest.

    A loss that is no number ends the training: weights that are lost must not take the place of the last good ones.

    Args:
        folder: where to.
        card: of the network; score and the state of the training are filled in.
        metric: name of the watched metric.
        best_score: the highest so far, of a resumed training.
    """

    def __init__(self, folder: Path, card: ModelCard, metric: str, best_score: float = -math.inf) -> None:
        super().__init__()
        self.folder = folder
        self.card = card
        self.metric = metric
        self.best_score = best_score
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Remembers the epoch's number."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Raises `KposeError` when the loss is NaN or infinite."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise KposeError(
                f"the loss became {loss} in epoch {self._epoch + 1}, step {batch + 1}; lower training.learning_rate or raise "
                f"training.warmup_steps (what is in {self.folder} is from before)"
            )
        if isinstance(self.model, TrainingModel):
            self.model.require_sound_loss_scale()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the files."""
        logs = logs or {}
        improved = self.metric in logs and logs[self.metric] > self.best_score
        if improved:
            self.best_score = logs[self.metric]
        # A metric without anybody of its kind (APL where nobody is large) is NaN, which JSON does not have.
        score = {name: float(value) for name, value in logs.items() if not name.endswith("loss") and math.isfinite(value)}
        state = {
            "epoch": epoch + 1,
            "step": int(self.model.optimizer.iterations.numpy()),
            "best_score": self.best_score if math.isfinite(self.best_score) else None,
        }
        card = self.card.model_copy(update={"score": score, "training": {**self.card.training, **state}})
        if improved:
            save_model(_finished(self.model), self.folder / "best.keras", card)
        save_model(_finished(self.model), self.folder / "last.keras", card)


class States(keras.callbacks.Callback):
    """Writes where the training stands: every few minutes, after every epoch, and when the process is asked to end.

    All workers have this callback, for they must end at the same step; the chief writes.

    Args:
        folder: where to.
        begin: where the training stands at its begin.
        checkpoints: know the best score.
        log: knows how long it took.
        every_minutes: between two states within an epoch; 0 for one after each step.
        stop: whether to end.
        workplace: who else trains.
    """

    def __init__(
        self,
        folder: Path,
        begin: Progress,
        checkpoints: Checkpoints,
        log: TrainingLog,
        every_minutes: float,
        stop: StopSignal,
        workplace: Workplace,
    ) -> None:
        super().__init__()
        self.folder = folder
        self.checkpoints = checkpoints
        self.log = log
        self.every_minutes = every_minutes
        self.stop = stop
        self.workplace = workplace
        self._begin = begin
        self._epoch = begin.epoch
        self._written = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Remembers the epoch's number."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes a state when one is due.

        Raises:
            Preempted: when a worker was asked to end; then the state has been written.
        """
        step = self._epoch * self._begin.steps_per_epoch + batch + 1
        if step <= self._begin.step:
            return
        # The workers ask one another at every step: who ended alone would leave the others waiting for ever.
        ending = self.workplace.greatest(float(self.stop.has_come)) > 0
        due = time.monotonic() - self._written >= 60 * self.every_minutes
        if ending or due:
            self._write(step, self._epoch, (logs or {}).get("loss", 0.0))
        if ending:
            raise Preempted(f"asked to end after step {step}; the state is in {self.folder}, --resume goes on from there")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes a state; nothing of the epoch remains to be done."""
        self._write((epoch + 1) * self._begin.steps_per_epoch, epoch + 1, 0.0)

    def _write(self, step: int, epoch: int, mean_loss: float) -> None:
        if self.workplace.is_chief:
            best = self.checkpoints.best_score
            progress = replace(
                self._begin,
                step=step,
                epoch=epoch,
                mean_loss=float(mean_loss),
                best_score=best if math.isfinite(best) else None,
                seconds=self.log.seconds,
            )
            write_state(self.folder, self.model, progress)
        self._written = time.monotonic()


class ProgressBar(keras.callbacks.Callback):
    """A bar over the whole training with the time to go, and a line an epoch.

    Args:
        epochs: of the whole training.
        start_epoch: epochs that a former run did.
        metric: the metric that the line shows.
        skipped: asks the data for samples that could not be read; what is new is reported after an epoch.
    """

    def __init__(self, epochs: int, steps_per_epoch: int, start_epoch: int, metric: str, skipped: Callable[[], str] | None = None) -> None:
        super().__init__()
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch
        self.start_epoch = start_epoch
        self.metric = metric
        self.skipped = skipped
        self._best = -math.inf
        self._reported = ""
        self._bar: tqdm | None = None
        self._epoch_start = 0.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Opens the bar."""
        self._bar = tqdm(
            total=self.epochs * self.steps_per_epoch,
            initial=self.start_epoch * self.steps_per_epoch,
            desc="training",
            unit="step",
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
            dynamic_ncols=True,
        )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the epoch's clock."""
        self._epoch_start = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Moves the bar."""
        assert self._bar is not None
        self._bar.update(1)
        if logs and "loss" in logs:
            self._bar.set_postfix(loss=f"{logs['loss']:.3g}", refresh=False)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Prints the epoch's line."""
        logs = logs or {}
        line = f"epoch {epoch + 1}/{self.epochs}  loss {logs.get('loss', math.nan):.4g}  lr {float(self.model.optimizer.learning_rate):.2g}"
        if self.metric in logs:
            self._best = max(self._best, logs[self.metric])
            line += f"  {self.metric} {logs[self.metric]:.3f} (best {self._best:.3f})"
        line += f"  {time.monotonic() - self._epoch_start:.0f} s"
        tqdm.write(line, file=sys.stderr)
        report = self.skipped() if self.skipped else ""
        if report and report != self._reported:
            self._reported = report
            tqdm.write(report, file=sys.stderr)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes the bar."""
        if self._bar is not None:
            self._bar.close()
