"""How long a training step takes: beside inference, beside Keras' own batch normalisation, and above what arithmetic and memory allow.

Everything is measured in turns within one run, so that a machine that slows down or is shared slows all alike; a ratio is the median over
the rounds. Two floors are measured in the same turns:

* *multiply-adds*: a step needs those of inference three times (outputs, gradients of inputs, gradients of kernels); the machine does them
  at the speed of a large matrix product.
* *bytes*: the outputs of the convolutions are written and read on the way forward, read, and their gradients written and read, on the
  way back: five times, however much else is fused; the machine moves them at the speed of adding a number to a large array.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from kpose.benchmark.latency import milliseconds_in_turns
from kpose.errors import KposeError
from kpose.losses import HeatmapWeightingLoss
from kpose.models import build_model, count
from kpose.models.counting import count_activations
from kpose.models.layers import BatchNormalization

STEP, INFERENCE, PLAIN_STEP = "training step", "inference", "training step, Keras' batch normalisation"
PRODUCT, MOVE = "matrix product", "moving bytes"

# The matrix product and the array of the floors: large enough to be at full speed, small enough to be done in a moment.
PRODUCT_SIZE, MOVED_NUMBERS = 1024, 16 << 20

PASSES, MOVES = 3, 5


@dataclass(frozen=True)
class TrainingSpeed:
    """A measured network; times are for a batch, in milliseconds.

    Attributes:
        name: of the network.
        batch_size: people in a step.
        inference: median.
        step: median.
        step_over_inference: median ratio.
        plain_over_fused: the step with Keras' own batch normalisation to that with kpose's, median ratio.
        gradient_difference: of those two networks' gradients from the same weights and batch: the norm of the difference, relative.
        floor_multiply_adds: see the module.
        floor_bytes: see the module.
        inference_megabytes: resident memory that building and running the network adds at its highest; None where it cannot be measured.
        step_megabytes: likewise with training steps.
    """

    name: str
    batch_size: int
    inference: float
    step: float
    step_over_inference: float
    plain_over_fused: float
    gradient_difference: float
    floor_multiply_adds: float
    floor_bytes: float
    inference_megabytes: float | None
    step_megabytes: float | None


def benchmark_training(
    names: Sequence[str] = ("lite_mobilenet_v3",),
    input_size: tuple[int, int] = (256, 192),
    batch_size: int = 16,
    rounds: int = 5,
    num_keypoints: int = 17,
    memory: bool = True,
    cpu_time: bool = False,
) -> list[TrainingSpeed]:
    """Measure and print training steps.

    Args:
        names: of `list_models()`.
        input_size: (height, width) of the crop.
        batch_size: people in a step.
        rounds: how often each has its turn.
        num_keypoints: number of joints.
        memory: measure peak memory too, each network in a process of its own.
        cpu_time: count the CPU time of all threads instead of the time that passes: for a machine that others use too.

    Raises:
        KposeError: when a name is unknown, the size does not fit a network, or a number is less than 1.
    """
    if batch_size < 1 or rounds < 1:
        raise KposeError(f"a batch of {batch_size} and {rounds} rounds measure nothing; ask for 1 or more of each")
    measured = []
    for name in tqdm(names, desc="measuring", unit="network", leave=False):
        peaks = measure_peak_memory(name, input_size, batch_size, num_keypoints) if memory else (None, None)
        measured.append(_measure(build_model(name, num_keypoints, input_size), batch_size, rounds, peaks, cpu_time))
        keras.backend.clear_session()
    print(format_table(measured))
    print(
        f"{input_size[0]}x{input_size[1]}, {num_keypoints} joints, float32, Adam, a batch that is in memory already; {os.cpu_count()} CPU "
        f"threads, {platform.machine()}, TensorFlow {tf.__version__}; medians of {rounds} rounds in turns"
        + (", CPU time of all threads" if cpu_time else "")
    )
    print(f"gradients of both normalisations differ by at most {max(one.gradient_difference for one in measured):.1e} of their norm")
    return measured


def format_table(speeds: Sequence[TrainingSpeed]) -> str:
    """The networks as a Markdown table."""
    columns = (
        "network",
        "batch",
        "inference, ms",
        "step, ms",
        "step / inference",
        "Keras' normalisation / fused",
        "floor: multiply-adds, ms",
        "floor: bytes, ms",
        "peak MB, inference",
        "peak MB, step",
    )
    rows = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for one in speeds:
        memory = " | ".join("-" if peak is None else f"{peak:.0f}" for peak in (one.inference_megabytes, one.step_megabytes))
        rows.append(
            f"| `{one.name}` | {one.batch_size} | {one.inference:.0f} | {one.step:.0f} | {one.step_over_inference:.2f} | "
            f"{one.plain_over_fused:.2f} | {one.floor_multiply_adds:.0f} | {one.floor_bytes:.0f} | {memory} |"
        )
    return "\n".join(rows)


def batch_for(model: keras.Model, batch_size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise that a network of one output can be trained on: images, heatmaps in 0..1, weights of which a fifth is 0."""
    random = np.random.default_rng(seed)
    images = random.normal(size=(batch_size, *model.input_shape[1:])).astype(np.float32)
    heatmaps = random.random((batch_size, *model.outputs[-1].shape[1:]), np.float32)
    weights = (random.random(heatmaps.shape[::3]) < 0.8).astype(np.float32)
    return images, heatmaps, weights


def compiled_calls(model: keras.Model, batch_size: int) -> dict[str, Callable[[], Any]]:
    """`INFERENCE` and `STEP` of a network, each a call on a batch of noise; a step is what `kpose train` does, without its data."""
    images, heatmaps, weights = (tf.constant(part) for part in batch_for(model, batch_size))
    outputs = len(model.outputs)
    model.compile(keras.optimizers.Adam(1e-4), [HeatmapWeightingLoss() for _ in range(outputs)], jit_compile=False)
    batch = (images, [heatmaps] * outputs, [weights] * outputs) if outputs > 1 else (images, heatmaps, weights)
    model.optimizer.build(model.trainable_variables)
    model.make_train_function()
    iterator = iter(tf.data.Dataset.from_tensors(tuple(map(_as_tuple, batch))).repeat())
    forward = tf.function(lambda: model(images, training=False), jit_compile=False)

    def step() -> float:
        logs = model.train_function(iterator)
        return float(logs["loss"])

    def infer() -> float:
        # Reading a number waits for the device.
        return float(tf.reshape(forward()[-1] if outputs > 1 else forward(), [-1])[0])

    return {INFERENCE: infer, STEP: step}


def _as_tuple(part: Any) -> Any:
    return tuple(part) if isinstance(part, list) else part


def with_plain_normalisation(model: keras.Model) -> keras.Model:
    """The same network, with the same weights, normalised by Keras' own layer."""

    def replace(layer: Any) -> Any:
        if isinstance(layer, BatchNormalization):
            return keras.layers.BatchNormalization.from_config(layer.get_config())
        return layer.__class__.from_config(layer.get_config())

    plain = keras.models.clone_model(model, clone_function=replace)
    plain.set_weights(model.get_weights())
    return plain


def gradient_difference(model: keras.Model, other: keras.Model, batch_size: int) -> float:
    """How far two networks' gradients of one training step are apart: the norm of the difference as a part of the norm.

    Statistics of normalisation are those of the batch, as in training; both networks keep their weights, not their moving statistics.
    """
    images, heatmaps, weights = batch_for(model, batch_size)
    found = []
    for network in (model, other):
        with tf.GradientTape() as tape:
            outputs = network(images, training=True)
            outputs = outputs if isinstance(outputs, list) else [outputs]
            loss = sum(HeatmapWeightingLoss()(heatmaps, output, sample_weight=weights) for output in outputs)
        gradients = tape.gradient(loss, network.trainable_variables)
        found.append(np.concatenate([np.ravel(gradient) for gradient in gradients]))
    return float(np.linalg.norm(found[0] - found[1]) / np.linalg.norm(found[1]))


def floor_calls() -> dict[str, Callable[[], Any]]:
    """`PRODUCT` and `MOVE`: what the machine does at its best."""
    matrix = tf.random.normal([PRODUCT_SIZE, PRODUCT_SIZE])
    array = tf.zeros([MOVED_NUMBERS])
    product = tf.function(lambda: tf.matmul(matrix, matrix))
    move = tf.function(lambda number: array + number)
    return {PRODUCT: lambda: float(product()[0, 0]), MOVE: lambda: float(move(tf.constant(1.0))[0])}


def floors(model: keras.Model, batch_size: int, product: float, move: float) -> tuple[float, float]:
    """Milliseconds that multiply-adds and bytes of a training step need at least.

    Args:
        model: the network.
        batch_size: people in a step.
        product: milliseconds of `PRODUCT`.
        move: milliseconds of `MOVE`, which reads and writes its array.
    """
    multiply_adds = PASSES * batch_size * count(model).macs
    numbers = MOVES * batch_size * count_activations(model)
    return multiply_adds / PRODUCT_SIZE**3 * product, numbers / (2 * MOVED_NUMBERS) * move


def _measure(model: keras.Model, batch_size: int, rounds: int, peaks: tuple[float | None, float | None], cpu_time: bool) -> TrainingSpeed:
    plain = with_plain_normalisation(model)
    difference = gradient_difference(model, plain, batch_size)
    calls, plain_calls = compiled_calls(model, batch_size), compiled_calls(plain, batch_size)
    clock = time.process_time if cpu_time else time.perf_counter
    times = milliseconds_in_turns({**calls, PLAIN_STEP: plain_calls[STEP], **floor_calls()}, rounds, seconds=0.0, clock=clock)
    found = {name: statistics.median(those) for name, those in times.items()}
    multiply_adds, moved = floors(model, batch_size, found[PRODUCT], found[MOVE])
    return TrainingSpeed(
        model.name,
        batch_size,
        found[INFERENCE],
        found[STEP],
        _median_ratio(times[STEP], times[INFERENCE]),
        _median_ratio(times[PLAIN_STEP], times[STEP]),
        difference,
        multiply_adds,
        moved,
        *peaks,
    )


def _median_ratio(times: Sequence[float], others: Sequence[float]) -> float:
    return statistics.median(one / other for one, other in zip(times, others, strict=True))


def measure_peak_memory(
    name: str, input_size: tuple[int, int], batch_size: int, num_keypoints: int = 17
) -> tuple[float | None, float | None]:
    """Megabytes of resident memory that a network adds at its highest, for inference and with training steps.

    Measured in a fresh process, as memory once given back stays the process's; None where the system does not tell (Linux does).
    """
    if not Path("/proc/self/status").exists():
        return None, None
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peaks, name, input_size, batch_size, num_keypoints).result()


def _peaks(name: str, input_size: tuple[int, int], batch_size: int, num_keypoints: int) -> tuple[float, float]:
    before = _resident_megabytes("VmRSS")
    calls = compiled_calls(build_model(name, num_keypoints, input_size), batch_size)
    peaks = []
    for call in (calls[INFERENCE], calls[STEP]):
        for _ in range(2):
            call()
        peaks.append(_resident_megabytes("VmHWM") - before)
    return peaks[0], peaks[1]


def _resident_megabytes(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024
