"""Whether data or network holds a training back, on clocks that the tests set; and what the trace of a training holds."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kpose.training import bottleneck
from kpose.training.bottleneck import BottleneckReport, DataWait, Trace, describe_bottleneck


def test_watched_batches_are_the_same_in_structure_and_content():
    batches = tf.data.Dataset.range(6).map(lambda i: (i, (tf.fill([2], i), {"weights": -i}))).batch(2)
    watched = DataWait().watch(batches)
    assert watched.element_spec == batches.element_spec
    for one, other in zip(watched, batches, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, one, other)


def test_the_wait_ends_with_the_batch():
    """A batch that a gate holds back is waited for as long as the gate is closed; one that is there already, next to nothing."""
    gate, clock = threading.Event(), tf.timestamp

    def pass_gate(value: np.ndarray) -> np.ndarray:
        assert gate.wait(60)
        return value

    batches = tf.data.Dataset.range(3).map(lambda i: tf.ensure_shape(tf.numpy_function(pass_gate, [i], tf.int64), []))
    wait = DataWait()
    iterator = iter(wait.watch(batches))
    opened: list[float] = []
    begin = float(clock())

    def open_gate() -> None:
        opened.append(float(clock()))
        gate.set()

    threading.Timer(0.2, open_gate).start()
    next(iterator)
    assert opened[0] - begin - 0.1 < wait.seconds <= float(clock()) - begin


def test_nothing_reads_ahead_of_the_clock():
    """What is asked for late is counted late: no buffer between the clock and the one who asks."""
    asked: list[int] = []

    def note(value: np.ndarray) -> np.ndarray:
        asked.append(int(value))
        return value

    batches = tf.data.Dataset.range(100).map(lambda i: tf.ensure_shape(tf.numpy_function(note, [i], tf.int64), []))
    iterator = iter(DataWait().watch(batches))
    next(iterator)
    next(iterator)
    assert asked == [0, 1]


class Clock:
    """Stands for the two clocks."""

    def __init__(self) -> None:
        self.now = self.seconds = 0.0

    def perf_counter(self) -> float:
        return self.now

    def step(self, seconds: float, waited: float) -> None:
        self.now += seconds
        self.seconds += waited


def run(report: BottleneckReport, clock: Clock, epochs: list[list[tuple[float, float]]]) -> None:
    for number, steps in enumerate(epochs):
        report.on_epoch_begin(number)
        for index, step in enumerate(steps):
            clock.step(*step)
            report.on_train_batch_end(index)
        report.on_epoch_end(number)
        clock.step(100.0, 0.0)  # a validation
    report.on_train_end()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(bottleneck, "time", clock)
    return clock


def test_a_slow_network_is_named_once(clock: Clock, capsys: pytest.CaptureFixture[str]):
    report = BottleneckReport(clock, batch_size=8)  # type: ignore[arg-type]
    # The first step compiles: 50 seconds, of which it waits 40 for the buffers to fill.
    run(report, clock, [[(50.0, 40.0), (2.0, 0.02), (2.0, 0.0)], [(2.0, 0.02), (2.0, 0.0), (2.0, 0.0)]])
    printed = capsys.readouterr()
    assert printed.out == "4.0 people a second, 0.4 % of the time waiting for data: the network sets the pace\n"
    assert printed.err == ""
    assert report.total[0] == 5 and report.share == pytest.approx(0.004)


def test_slow_data_is_named_in_each_epoch_that_it_holds_back(clock: Clock, capsys: pytest.CaptureFixture[str]):
    report = BottleneckReport(clock, batch_size=8)  # type: ignore[arg-type]
    run(report, clock, [[(50.0, 40.0), (2.0, 1.5), (2.0, 1.5)], [(1.0, 0.0), (1.0, 0.0)]])
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("4.0 people a second, 75.0 % of the time waiting for data: data holds the training back")
    assert "the network alone would do 16 a second" in printed.err
    assert "50.0 % of the time" in printed.out and "data holds the training back" in printed.out


def test_a_training_of_one_step_says_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]):
    run(BottleneckReport(clock, 8), clock, [[(50.0, 40.0)]])  # type: ignore[arg-type]
    assert capsys.readouterr().out == ""


def test_waiting_alone_divides_by_nothing():
    assert "far more" in describe_bottleneck(4, 2.0, 2.1, 8)
    assert "100.0 %" in describe_bottleneck(4, 2.0, 2.1, 8)


def fit(trace: Trace, steps: int) -> None:
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 3, name="traced_convolution")(inputs))
    model.compile("sgd", "mse", jit_compile=False)
    data = tf.data.Dataset.from_tensors((tf.zeros([2, 8, 8, 3]), tf.zeros([2, 6, 6, 2]))).repeat()
    model.fit(data, steps_per_epoch=steps, callbacks=[trace], verbose=0)


def test_the_trace_holds_the_steps_and_no_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    fit(Trace(tmp_path), steps=bottleneck.BATCHES_BEFORE_TRACE + bottleneck.TRACED_BATCHES + 3)
    files = [*tmp_path.glob("plugins/profile/*/*.xplane.pb")]
    assert len(files) == 1 and "trace of 10 steps" in capsys.readouterr().err
    events = read_events(files[0])
    # One gradient of the convolution's kernel in each step.
    assert sum("Conv2DBackpropFilter" in name for name in events) == bottleneck.TRACED_BATCHES
    assert any("Iterator" in name for name in events), "the data pipeline is in the trace too"


def test_a_training_that_ends_first_still_has_its_trace(tmp_path: Path):
    fit(Trace(tmp_path), steps=bottleneck.BATCHES_BEFORE_TRACE + 2)
    assert len([*tmp_path.glob("plugins/profile/*/*.xplane.pb")]) == 1


def test_a_training_too_short_for_a_trace_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    fit(Trace(tmp_path), steps=2)
    assert "no trace: the training has 2 steps" in capsys.readouterr().out
    assert not [*tmp_path.rglob("*.pb")]


def read_events(path: Path) -> list[str]:
    """Names of everything that happened, as TensorBoard's profiler reads them."""
    xplane: Any = pytest.importorskip("tensorflow.tsl.profiler.protobuf.xplane_pb2", reason="needs TensorFlow's description of the file")
    space = xplane.XSpace()
    space.ParseFromString(path.read_bytes())
    return [plane.event_metadata[event.metadata_id].name for plane in space.planes for line in plane.lines for event in line.events]
