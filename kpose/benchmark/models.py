"""How long the networks take for one person, side by side with one of them as the yardstick.

The yardstick is measured anew beside every network, in turns, so that a machine that slows down or is shared slows both alike; a ratio is
the median over the turns.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from kpose.inference.test_time import Forward, compile_forward
from kpose.models import build_model, count, list_models

YARDSTICK = "lite_mobilenet_v3"


@dataclass(frozen=True)
class Latency:
    """A measured network.

    Attributes:
        name: of the network.
        parameters: trainable.
        multiply_adds: for one person.
        milliseconds: for one person, median over the turns.
        ratio: to the yardstick's time in the same turn, median.
    """

    name: str
    parameters: int
    multiply_adds: int
    milliseconds: float
    ratio: float


def benchmark_models(
    names: Sequence[str] = (), input_size: tuple[int, int] = (256, 192), num_keypoints: int = 17, seconds: float = 1.0, turns: int = 5
) -> list[Latency]:
    """Measure and print the networks, the fastest first.

    Args:
        names: Of `list_models()`; none: all of them.
        input_size: (height, width) of the crop.
        num_keypoints: Number of joints.
        seconds: How long each is measured in each turn.
        turns: How often.

    Raises:
        KposeError: when a name is unknown or the size does not fit a network.
    """
    yardstick = build_model(YARDSTICK, num_keypoints, input_size)
    forward = compile_forward(yardstick, batch_size=1)
    measured = []
    for name in tqdm(names or list_models(), desc="measuring", unit="network", leave=False):
        model = yardstick if name == YARDSTICK else build_model(name, num_keypoints, input_size)
        measured.append(measure(model, forward, seconds, turns))
        del model
        keras.backend.clear_session()
    measured.sort(key=lambda latency: latency.ratio)
    print(format_latencies(measured))
    machine = f"{os.cpu_count()} CPU threads, {platform.machine()}, TensorFlow {tf.__version__}"
    print(f"one person, {input_size[0]}x{input_size[1]}, {num_keypoints} joints, float32, compiled by tf.function; {machine}")
    print(f"median of {turns} x {seconds:g} s; ratios to {YARDSTICK} in the same turn")
    return measured


def measure(model: keras.Model, yardstick: Forward, seconds: float, turns: int) -> Latency:
    """One network beside the yardstick, which takes crops of the same size."""
    crop = np.zeros((1, *model.input_shape[1:]), np.float32)
    forward = compile_forward(model, batch_size=1)
    times, ratios = [], []
    for _ in range(turns):
        reference = _milliseconds(yardstick, crop, seconds)
        times.append(_milliseconds(forward, crop, seconds))
        ratios.append(times[-1] / reference)
    counts = count(model)
    return Latency(model.name, counts.params, counts.macs, statistics.median(times), statistics.median(ratios))


def _milliseconds(forward: Forward, crop: np.ndarray, seconds: float) -> float:
    """Mean time of a call, after one that may compile."""
    forward(crop)
    start, calls, elapsed = time.perf_counter(), 0, 0.0
    while calls == 0 or elapsed < seconds:
        forward(crop)
        calls += 1
        elapsed = time.perf_counter() - start
    return 1000 * elapsed / calls


def format_latencies(latencies: Sequence[Latency]) -> str:
    """The networks as a Markdown table."""
    rows = ["| network | parameters, M | multiply-adds, 10^9 | ms | ratio |", "|---|---|---|---|---|"]
    return "\n".join(
        rows
        + [
            f"| `{one.name}` | {one.parameters / 1e6:.2f} | {one.multiply_adds / 1e9:.3f} | {one.milliseconds:.1f} | {one.ratio:.2f} |"
            for one in latencies
        ]
    )
