"""On what a training runs: one device, several, several machines, a TPU. `Workplace` is what the rest of the training asks about it."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from kpose.config import Config, DistributionConfig
from kpose.errors import KposeError


@dataclass(frozen=True)
class Workplace:
    """Where a training runs.

    Attributes:
        strategy: TensorFlow's; variables are made inside of its scope.
        workers: processes that train together.
        worker: the position of this one among them, from 0.
    """

    strategy: tf.distribute.Strategy
    workers: int = 1
    worker: int = 0

    @property
    def replicas(self) -> int:
        """How many copies of the network take a share of each batch, over all workers."""
        return int(self.strategy.num_replicas_in_sync)

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that scores, writes files and tells how it goes."""
        return self.worker == 0

    def greatest(self, value: float) -> float:
        """The greatest of the workers' values, for each of them; every worker must ask, and waits until all have."""
        if self.workers == 1:
            return value
        return float(self._gather_greatest(tf.constant(value, tf.float32)))

    @functools.cached_property
    def _gather_greatest(self) -> Callable[[tf.Tensor], tf.Tensor]:
        def greatest_of_all(value: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            own = value * tf.one_hot(context.replica_id_in_sync_group, context.num_replicas_in_sync)
            return tf.reduce_max(context.all_reduce(tf.distribute.ReduceOp.SUM, own))

        @tf.function(autograph=False)
        def gather(value: tf.Tensor) -> tf.Tensor:
            return self.strategy.experimental_local_results(self.strategy.run(greatest_of_all, args=(value,)))[0]

        return gather

    def require_agreement(self, value: float, message: str) -> None:
        """Refuse what is not the same for all workers.

        Raises:
            KposeError: on every worker, with `message`.
        """
        if self.greatest(value) != -self.greatest(-value):
            raise KposeError(message)


def make_workplace(settings: DistributionConfig) -> Workplace:
    """Set up what a configuration asks for. Before TensorFlow has done anything else, unless that is a single device.

    Raises:
        KposeError: when devices, `TF_CONFIG` or the TPU are not there, or TensorFlow is already running.
    """
    make = {"single": _single, "mirrored": _mirrored, "multi_worker": _multi_worker, "tpu": _tpu}[settings.strategy]
    try:
        return make(settings)
    except RuntimeError as error:
        raise KposeError(
            f"distribution.strategy={settings.strategy} must be set up before TensorFlow is used; start a new process "
            f"({_first_line(error)})"
        ) from error


def _single(settings: DistributionConfig) -> Workplace:
    return Workplace(tf.distribute.get_strategy())


def _mirrored(settings: DistributionConfig) -> Workplace:
    devices = settings.devices
    if devices and devices[0].startswith("CPU"):
        needed = 1 + max(int(device.partition(":")[2]) for device in devices)
        (processor,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * needed)
        # Summed without collectives, of which a process has one group only.
        return Workplace(tf.distribute.MirroredStrategy(devices, cross_device_ops=tf.distribute.ReductionToOneDevice()))
    there = [device.name.removeprefix("/physical_device:") for device in tf.config.list_physical_devices("GPU")]
    missing = [device for device in devices if device not in there]
    if missing or not there:
        raise KposeError(
            f"distribution.strategy=mirrored: this machine has no {', '.join(missing) or 'GPU'} (it has {', '.join(there) or 'none'}); "
            "`kpose doctor` says why"
        )
    return Workplace(tf.distribute.MirroredStrategy(devices or None))


def _multi_worker(settings: DistributionConfig) -> Workplace:
    try:
        cluster = json.loads(os.environ["TF_CONFIG"])
        task, jobs = cluster["task"], cluster["cluster"]
        names = [(job, index) for job in ("chief", "worker") for index in range(len(jobs.get(job, ())))]
        worker = names.index((task["type"], int(task["index"])))
    except KeyError as error:
        if error.args == ("TF_CONFIG",):
            raise KposeError(
                "distribution.strategy=multi_worker needs the environment variable TF_CONFIG, which names all workers and which of them "
                "this one is; see docs/guides/scaling.md"
            ) from error
        raise KposeError(f"TF_CONFIG has no {error}; see docs/guides/scaling.md") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise KposeError(f"TF_CONFIG is not understood ({_first_line(error)}); see docs/guides/scaling.md") from error
    if set(jobs) - {"chief", "worker"}:
        raise KposeError(f"TF_CONFIG has the jobs {', '.join(jobs)}; a training knows chief and worker only")
    return Workplace(tf.distribute.MultiWorkerMirroredStrategy(), len(names), worker)


def _tpu(settings: DistributionConfig) -> Workplace:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(settings.tpu)
        return Workplace(tf.distribute.TPUStrategy(resolver))
    except (ValueError, tf.errors.OpError) as error:
        raise KposeError(f"distribution.tpu={settings.tpu}: there is no such TPU ({_first_line(error)})") from error


def shared_batch(config: Config, workplace: Workplace) -> Config:
    """The configuration with `training.batch_size` as that of all replicas together.

    Raises:
        KposeError: when it cannot be divided evenly among replicas and accumulation steps.
    """
    training = config.training
    if training.batch_size_of == "each_replica":
        training = training.model_copy(update={"batch_size": training.batch_size * workplace.replicas, "batch_size_of": "all_replicas"})
    parts = workplace.replicas * training.accumulation_steps
    if training.batch_size % parts:
        raise KposeError(
            f"training.batch_size is {training.batch_size}, which cannot be divided among {workplace.replicas} replicas in "
            f"{training.accumulation_steps} accumulation steps each; make it a multiple of {parts}"
        )
    if training.jit_compile and training.synchronized_batch_norm and workplace.replicas > 1:
        raise KposeError("training.jit_compile and training.synchronized_batch_norm exclude one another on several replicas; turn one off")
    if training.accumulation_steps > 1 and training.synchronized_batch_norm and workplace.replicas > 1:
        raise KposeError(
            "training.accumulation_steps and training.synchronized_batch_norm exclude one another on several replicas; turn one off"
        )
    return config.model_copy(update={"training": training})


def describe(config: Config, workplace: Workplace) -> str:
    """Devices, and how a batch is divided among them, in words."""
    gpus = [device.name.rpartition("device:")[2] for device in tf.config.list_logical_devices("GPU")]
    devices = ", ".join(gpus) or f"{os.cpu_count() or 1} CPU threads"
    training = config.training
    batch = f"{training.batch_size} people a step"
    if workplace.replicas > 1:
        batch += f", {training.batch_size // workplace.replicas} on each of {workplace.replicas} replicas"
    if workplace.workers > 1:
        batch += f" of {workplace.workers} workers"
    if training.accumulation_steps > 1:
        batch += f", {training.batch_size // workplace.replicas // training.accumulation_steps} at a time"
    return f"{devices}: {batch}"


def distribute(batches: tf.data.Dataset, config: Config, workplace: Workplace) -> tf.data.Dataset:
    """A worker's share of the batches, for the replicas it has.

    Args:
        batches: of `training_data` for this worker.
        config: with the batch size of all replicas together.
        workplace: of the training.
    """
    if workplace.workers == 1:
        return batches  # `fit` divides them among replicas, in order
    per_replica = config.training.batch_size // workplace.replicas
    return workplace.strategy.distribute_datasets_from_function(lambda context: batches.rebatch(per_replica, drop_remainder=True))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
