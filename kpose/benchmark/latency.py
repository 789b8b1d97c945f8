"""How long calls take, side by side: measured in turns, so that a machine that slows down or is shared slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from kpose.inference.litert import open_interpreter

Key = TypeVar("Key", bound=Hashable)


def milliseconds_in_turns(
    calls: Mapping[Key, Callable[[], object]],
    rounds: int,
    seconds: float = 0.5,
    progress: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Key, list[float]]:
    """The mean time of each call, once a round.

    Args:
        calls: what to measure.
        rounds: how often each has its turn.
        seconds: how long each is called again and again in its turn, after one call that is not counted.
        progress: show a bar.
        clock: seconds; `time.process_time` counts the CPU time of all threads instead, which other work on the machine hardly stretches.

    Returns:
        By key as many milliseconds as there are rounds.
    """
    measured: dict[Key, list[float]] = {key: [] for key in calls}
    with tqdm(total=rounds * len(calls), desc="measuring", unit=" turns", disable=not progress, leave=False) as bar:
        for _ in range(rounds):
            for key, call in calls.items():
                measured[key].append(_milliseconds(call, seconds, clock))
                bar.update()
    return measured


def _milliseconds(call: Callable[[], object], seconds: float, clock: Callable[[], float]) -> float:
    call()
    start, calls, elapsed = clock(), 0, 0.0
    while calls == 0 or elapsed < seconds:
        call()
        calls += 1
        elapsed = clock() - start
    return 1000 * elapsed / calls


def network_alone(path: Any, threads: int) -> Callable[[], object]:
    """A call of a TFLite file in LiteRT on an input of noise, and nothing else.

    Raises:
        KposeError: see `open_interpreter`.
    """
    interpreter = open_interpreter(path, threads, "a network")
    for tensor in interpreter.get_input_details():
        # Of zeros some networks are faster than of pictures.
        noise = np.random.default_rng(0).integers(0, 128, tensor["shape"])
        interpreter.set_tensor(tensor["index"], noise.astype(tensor["dtype"]))
    return interpreter.invoke
