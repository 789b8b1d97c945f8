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
from pathlib import Path

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
from kpose.files import read_number_table
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


def check_costs(config: Config, instances: Instances, costs: Costs, steps: int) -> str:
    """Train a little and write TFRecords; two lines that set what was predicted beside what came.

    Args:
        config: the experiment.
        instances: people of its training set.
        costs: measured before; they are measured once more afterwards, and the mean of both predicts.
        steps: of an epoch; two are trained, the second is timed.

    Raises:
        KposeError: when the training or the writing is refused.
    """
    from kpose.training import train
    from kpose.training.fit import LOG

    with tempfile.TemporaryDirectory(prefix="kpose-cost-") as folder:
        output = Path(folder) / "training"
        update = {"epochs": 2, "steps_per_epoch": steps, "validate_every": 0, "drop_epochs": []}
        if config.training.schedule == "restarts":
            del update["drop_epochs"]
        short = config.model_copy(
            update={
                "training": config.training.model_copy(update=update),
                "data": config.data.model_copy(update={"validation": []}),
                "output": output,
            }
        )
        train(short)
        rows = read_number_table(output / LOG)
        taken = rows[1]["seconds"] - rows[0]["seconds"]
        again = measure_costs(config, instances)
        cores = os.cpu_count() or 1
        expected = steps * (costs.seconds_per_step(cores) + again.seconds_per_step(cores)) / 2
        manifest = write_tfrecords(instances, Path(folder) / "records", progress=False)
        written = sum(path.stat().st_size for path in manifest.parent.glob("*.tfrecord"))
        bytes_expected = costs.record_bytes(len(instances), len(_picture_files(instances)))
    return (
        f"checked: {steps} steps predicted {expected:.1f} s, took {taken:.1f} s ({taken / expected - 1:+.0%}); "
        f"records predicted {bytes_expected:.0f} bytes, have {written} ({written / bytes_expected - 1:+.2%})"
    )


def _picture_files(instances: Instances) -> list[str]:
    return [instances.image_files[index] for index in np.unique(instances.image_index)]
