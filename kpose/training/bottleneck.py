"""What holds a training back, data or network: measured from how long each step waits for its batch; and a trace for TensorBoard."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tqdm import tqdm

# Of the time of the steps; what a step waits beyond it could be had back by faster data.
NOTICEABLE_WAIT = 0.1

# Batches of a trace, and how many go before it: the first ones compile and fill buffers.
TRACED_BATCHES, BATCHES_BEFORE_TRACE = 10, 5


class DataWait:
    """Measures how long the one who takes batches from a dataset waits for them."""

    def __init__(self) -> None:
        with tf.device("CPU:0"):
            self._seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False, name="data_wait_seconds")

    @property
    def seconds(self) -> float:
        """Waited so far, all batches together."""
        return float(self._seconds.numpy())

    def watch(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """The same batches, with a clock that runs while the next one is not there yet.

        What is measured is the wait of the thread that asks. Nothing may read ahead between it and the training, so TensorFlow is kept
        from adding a buffer at the end; the dataset's own buffers stay. Where a distribution strategy has a buffer of its own, its
        thread's wait is what is measured: next to nothing where the network is slower, all of the step where the data is.
        """
        # Of zipped datasets one is asked after the other: first the clock, then the batch.
        asked = tf.data.Dataset.counter().map(lambda _: tf.timestamp())

        def note(start: tf.Tensor, batch: Any) -> Any:
            waited = self._seconds.assign_add(tf.timestamp() - start)
            with tf.control_dependencies([waited]):
                return tf.nest.map_structure(tf.identity, batch)

        options = tf.data.Options()
        options.experimental_optimization.inject_prefetch = False
        return tf.data.Dataset.zip(asked, batches).map(note).with_options(options)


class BottleneckReport(keras.callbacks.Callback):
    """Says after each epoch, and at the end, what share of the steps' time was spent waiting for data.

    The first step of a run, which compiles and waits for buffers to fill, does not count, nor does what happens between epochs.

    Args:
        wait: watches the dataset.
        batch_size: people in a batch.
    """

    def __init__(self, wait: DataWait, batch_size: int) -> None:
        super().__init__()
        self.wait = wait
        self.batch_size = batch_size
        self.total = (0, 0.0, 0.0)
        self._epoch = (0, 0.0, 0.0)
        self._counts = False
        self._start = self._waited = 0.0

    @property
    def share(self) -> float:
        """Of the time of all steps, what was spent waiting."""
        _, seconds, waited = self.total
        return min(1.0, waited / seconds) if seconds else 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the clocks."""
        self._epoch = (0, 0.0, 0.0)
        self._restart()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds a step."""
        steps, seconds, waited = self._epoch
        if self._counts:
            self._epoch = (steps + 1, seconds + time.perf_counter() - self._start, waited + self.wait.seconds - self._waited)
        self._counts = True
        self._restart()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Prints the epoch's line where data held the epoch back; that it did not is said once, at the end."""
        self.total = tuple(one + other for one, other in zip(self.total, self._epoch, strict=True))  # type: ignore[assignment]
        _, seconds, waited = self._epoch
        if seconds and waited / seconds > NOTICEABLE_WAIT:
            tqdm.write(describe_bottleneck(*self._epoch, self.batch_size), file=sys.stderr)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Prints the line of the whole training."""
        if self.total[0]:
            print(describe_bottleneck(*self.total, self.batch_size))

    def _restart(self) -> None:
        self._start, self._waited = time.perf_counter(), self.wait.seconds


def describe_bottleneck(steps: int, seconds: float, waited: float, batch_size: int) -> str:
    """One line about so many steps: how fast they were, and whether data or the network held them back.

    Args:
        steps: how many.
        seconds: they took together.
        waited: of these, for data.
        batch_size: people in a step.
    """
    share = min(1.0, waited / seconds)
    line = f"{steps * batch_size / seconds:.1f} people a second, {100 * share:.1f} % of the time waiting for data: "
    if share <= NOTICEABLE_WAIT:
        return line + "the network sets the pace"
    working = seconds - min(waited, seconds)
    alone = f"{steps * batch_size / working:.0f} a second" if working > 0.001 * seconds else "far more"
    return line + f"data holds the training back, the network alone would do {alone}; `kpose benchmark data` shows where its time goes"


class Trace(keras.callbacks.Callback):
    """Records a few steps, data pipeline and network, for TensorBoard's profiler.

    Args:
        folder: TensorBoard's; the trace goes to `plugins/profile` in it.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self._seen = 0
        self._running = False

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Begins once the first batches are through."""
        if self._seen == BATCHES_BEFORE_TRACE:
            tf.profiler.experimental.start(str(self.folder))
            self._running = True

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Ends after its batches."""
        self._seen += 1
        if self._running and self._seen == BATCHES_BEFORE_TRACE + TRACED_BATCHES:
            self._stop()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Ends with a training that is shorter."""
        if self._running:
            self._stop()
        elif self._seen <= BATCHES_BEFORE_TRACE:
            print(f"no trace: the training has {self._seen} steps, the first {BATCHES_BEFORE_TRACE} of which are not recorded")

    def _stop(self) -> None:
        tf.profiler.experimental.stop()
        self._running = False
        tqdm.write(
            f"trace of {self._seen - BATCHES_BEFORE_TRACE} steps in {self.folder}/plugins/profile, for TensorBoard's profiler",
            file=sys.stderr,
        )
