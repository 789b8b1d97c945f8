"""What a training costs before it is begun: hours, cores, bytes, from what one step and one core do on this machine.

The model is short. With W and C the wall and CPU time of a step whose batch is in memory, D the CPU time of a batch of data, S the steps of
an epoch:

    on CPU alone             S * W * (1 + D / C)        data and network share the cores
    with an accelerator      S * max(W, D / cores)      data is made while the accelerator computes

Compiling the first step, scores and checkpoints come on top. A TFRecord holds a picture's bytes and `RECORD_BYTES_A_PICTURE` more, and
`4 * (3 * joints + 8)` for each of its people. `check_costs` trains a little and writes records, and says how far both are off.
"""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kpose.benchmark.data import measure_pipeline
from kpose.benchmark.training import STEP, compiled_calls
from kpose.config import Config
from kpose.data.datasets import training_instances
from kpose.data.instances import Instances
from kpose.data.pipeline import steps_per_epoch
from kpose.data.tfrecords import write_tfrecords
from kpose.errors import KposeError
from kpose.models import build_model, count
from kpose.skeletons import get_skeleton

# Names of the features and TFRecord's own framing, for a path of some fifty letters.
RECORD_BYTES_A_PICTURE = 330

# Trainings are not predicted from the first steps, which compile.
WARM_UP_STEPS, MEASURED_STEPS = 2, 5


@dataclass(frozen=True)
class Costs:
    """What was measured on this machine.

    Attributes:
        step_seconds: wall time of a step whose batch is in memory.
        step_cpu_seconds: its CPU time, all threads.
        people_per_cpu_second: that the data pipeline makes; what one core gives.
        batch_size: people in a step.
        picture_bytes: of an encoded picture, mean over those of the training set.
        parameters: of the network.
        joints: of the skeleton.
        accelerated: whether the network has a device of its own.
    """

    step_seconds: float
    step_cpu_seconds: float
    people_per_cpu_second: float
    batch_size: int
    picture_bytes: float
    parameters: int
    joints: int
    accelerated: bool

    def seconds_per_step(self, cores: int) -> float:
        """Of a training, data included; see the module."""
        data = self.batch_size / self.people_per_cpu_second
        if self.accelerated:
            return max(self.step_seconds, data / cores)
        return self.step_seconds * (1.0 + data / self.step_cpu_seconds)

    @property
    def cpu_seconds_per_step(self) -> float:
        """Of a training, data included."""
        return self.step_cpu_seconds + self.batch_size / self.people_per_cpu_second

    def record_bytes(self, people: int, pictures: int) -> float:
        """Of TFRecord shards."""
        return pictures * (self.picture_bytes + RECORD_BYTES_A_PICTURE) + people * 4.0 * (3 * self.joints + 8)

    @property
    def checkpoint_bytes(self) -> float:
        """Weights and Adam's two moments in float32."""
        return 3.0 * 4.0 * self.parameters


@dataclass(frozen=True)
class Prediction:
    """Of a whole training.

    Attributes:
        people: in the training set.
        pictures: they are in.
        steps: of all epochs.
        hours: of all steps.
        record_bytes: the training set as TFRecords.
    """

    people: int
    pictures: int
    steps: int
    hours: float
    record_bytes: float


def benchmark_cost(
    config: Config, people: int | None = None, pictures: int | None = None, cores: int | None = None, check_steps: int = 0
) -> Prediction:
    """Measure a configuration on this machine and print what its training will cost.

    Args:
        config: the experiment; its training set must be files, a sample of the real one will do.
        people: in the whole training set; default: those of the configuration.
        pictures: they are in; likewise.
        cores: CPU cores; default: those of this machine.
        check_steps: train so many steps and write the sample as TFRecords, to compare; 0: do not.

    Raises:
        KposeError: when the data or a number is refused.
    """
    for name, number in (("people", people), ("pictures", pictures), ("cores", cores)):
        if number is not None and number < 1:
            raise KposeError(f"{name} must be at least 1, found {number}")
    instances = training_instances(config)
    costs = measure_costs(config, instances)
    cores = cores or os.cpu_count() or 1
    prediction = predict(costs, config, people or len(instances), pictures or len(_picture_files(instances)), cores)
    print(format_prediction(costs, prediction, config, cores))
    if check_steps:
        print(check_costs(config, instances, costs, check_steps))
    return prediction


def measure_costs(config: Config, instances: Instances) -> Costs:
    """Time steps and data of a configuration, and weigh its pictures.

    Args:
        config: the experiment.
        instances: people of its training set.

    Raises:
        KposeError: when the network or the data is refused.
    """
    skeleton, batch = get_skeleton(config.skeleton), config.training.batch_size
    model = build_model(config.model.name, skeleton.num_joints, config.model.input_size, **config.model.options)
    step = compiled_calls(model, batch)[STEP]
    for _ in range(WARM_UP_STEPS):
        step()
    walls, cpus = [], []
    for _ in range(MEASURED_STEPS):
        start, cpu_start = time.perf_counter(), time.process_time()
        step()
        walls.append(time.perf_counter() - start)
        cpus.append(time.process_time() - cpu_start)
    return Costs(
        step_seconds=statistics.median(walls),
        step_cpu_seconds=statistics.median(cpus),
        people_per_cpu_second=measure_pipeline(config, instances).images_per_cpu_second,
        batch_size=batch,
        picture_bytes=float(np.mean([os.path.getsize(file) for file in _picture_files(instances)])),
        parameters=count(model).params,
        joints=skeleton.num_joints,
        accelerated=bool(tf.config.list_logical_devices("GPU")),
    )


def predict(costs: Costs, config: Config, people: int, pictures: int, cores: int) -> Prediction:
    """The cost of all epochs of a configuration with so many people.

    Args:
        costs: what was measured.
        config: the experiment.
        people: in the training set.
        pictures: they are in.
        cores: CPU cores.
    """
    steps = config.training.epochs * (config.training.steps_per_epoch or steps_per_epoch(people, costs.batch_size))
    return Prediction(people, pictures, steps, steps * costs.seconds_per_step(cores) / 3600, costs.record_bytes(people, pictures))


def format_prediction(costs: Costs, prediction: Prediction, config: Config, cores: int) -> str:
    """What was measured and what follows from it, as Markdown tables."""
    training = config.training
    step, network = costs.seconds_per_step(cores), costs.batch_size / costs.step_seconds
    crop = config.model.input_size[0] * config.model.input_size[1]
    batch_bytes = 4 * costs.batch_size * (3 * crop + costs.joints * crop // 16)
    device = "an accelerator" if costs.accelerated else f"{cores} CPU cores"
    measured = [
        ("network alone", f"{costs.step_seconds:.3f} s a step of {costs.batch_size} people: {network:.1f} people a second"),
        ("data", f"{costs.people_per_cpu_second:.0f} people a second for each core"),
        ("picture", f"{costs.picture_bytes / 1e3:.0f} kB, mean"),
    ]
    predicted = [
        ("step with its data", f"{step:.3f} s"),
        ("whole training", f"{prediction.steps} steps ({training.epochs} epochs), {prediction.hours:.1f} hours on {device}"),
        ("pictures", f"{prediction.pictures * costs.picture_bytes / 1e9:.2f} GB ({prediction.pictures} of them)"),
        ("as TFRecords", f"{prediction.record_bytes / 1e9:.2f} GB ({prediction.people} people)"),
        ("read for each epoch, from files", f"{prediction.people * costs.picture_bytes / 1e9:.1f} GB: a picture for each of its people"),
        ("checkpoint with optimizer", f"{costs.checkpoint_bytes / 1e6:.0f} MB"),
        ("a batch in memory", f"{batch_bytes / 1e6:.0f} MB"),
    ]
    for speed in (100, 1000, 10_000):
        needed = -(-speed // costs.people_per_cpu_second)
        reading = speed * costs.picture_bytes / 1e6
        predicted.append((f"to feed {speed} people a second", f"{needed:.0f} cores for data, {reading:.0f} MB a second from files"))
    lines = ["| measured here | |", "|---|---|", *(f"| {name} | {value} |" for name, value in measured), ""]
    lines += ["| predicted | |", "|---|---|", *(f"| {name} | {value} |" for name, value in predicted), ""]
    machine = f"{os.cpu_count()} CPU threads, {platform.machine()}, TensorFlow {tf.__version__}"
    return "\n".join(
        [*lines, f"{config.model.name} {config.model.input_size[0]}x{config.model.input_size[1]}; {machine}; scores not included"]
    )


class _SecondEpoch(keras.callbacks.Callback):
    """Wall and CPU seconds of the second epoch: in the first one TensorFlow compiles and buffers fill."""

    def __init__(self) -> None:
        super().__init__()
        self.wall = self.cpu = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the clocks."""
        self._start = time.perf_counter(), time.process_time()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Stops them; what stays is the last epoch's."""
        self.wall, self.cpu = time.perf_counter() - self._start[0], time.process_time() - self._start[1]


def check_costs(config: Config, instances: Instances, costs: Costs, steps: int) -> str:
    """Train a little and write TFRecords; a line that sets what was predicted beside what came.

    Args:
        config: the experiment.
        instances: people of its training set.
        costs: measured before; they are measured once more afterwards, and the mean of both predicts.
        steps: of an epoch; two are trained, the second is timed.

    Returns:
        Wall seconds, which other work on the machine stretches; CPU seconds, which it hardly does; bytes.

    Raises:
        KposeError: when the training or the writing is refused.
    """
    from kpose.data import training_data
    from kpose.training import make_loss, make_model, make_optimizer

    model, clock = make_model(config), _SecondEpoch()
    model.compile(make_optimizer(config, steps), make_loss(config, model), jit_compile=False)
    model.fit(training_data(config, model).dataset, epochs=2, steps_per_epoch=steps, callbacks=[clock], shuffle=False, verbose=0)
    again, cores = measure_costs(config, instances), os.cpu_count() or 1
    wall = steps * (costs.seconds_per_step(cores) + again.seconds_per_step(cores)) / 2
    cpu = steps * (costs.cpu_seconds_per_step + again.cpu_seconds_per_step) / 2
    with tempfile.TemporaryDirectory(prefix="kpose-cost-") as folder:
        manifest = write_tfrecords(instances, folder, progress=False)
        written = sum(path.stat().st_size for path in manifest.parent.glob("*.tfrecord"))
    expected = costs.record_bytes(len(instances), len(_picture_files(instances)))
    return (
        f"checked: {steps} steps predicted {wall:.1f} s, took {clock.wall:.1f} s ({clock.wall / wall - 1:+.0%}); of CPU time "
        f"predicted {cpu:.1f} s, took {clock.cpu:.1f} s ({clock.cpu / cpu - 1:+.0%}); "
        f"records predicted {expected:.0f} bytes, have {written} ({written / expected - 1:+.2%})"
    )


def _picture_files(instances: Instances) -> list[str]:
    return [instances.image_files[index] for index in np.unique(instances.image_index)]
