"""A served model under load: requests a second, how long they take, errors and memory, beside the network and the JPEG decoder alone.

Without an address a server is started in a process of its own: the stand-in of `kpose.benchmark.prediction_service`, not TensorFlow
Serving.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import platform
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from kpose.benchmark.peers import markdown_table
from kpose.benchmark.prediction_service import LARGEST_MESSAGE_BYTES, PredictionService, ServedModel
from kpose.errors import KposeError
from kpose.inference.images import SUFFIXES

# Every so many requests one carries a broken picture, which must be refused without harm to the others.
_BROKEN_EVERY = 50
_DEADLINE_SECONDS = 600.0
_START_SECONDS = 600.0
# Load, network and decoder have their turns so many times: what else runs on the machine, and changes, slows all of them alike.
_ROUNDS = 8
_STREAM_OPTIONS = [(f"grpc.max_{way}_message_length", LARGEST_MESSAGE_BYTES) for way in ("receive", "send")]


@dataclass
class ServingLoad:
    """What came of a load.

    Attributes:
        clients: that asked at the same time.
        people: boxes in a request.
        seconds: that it took.
        latencies: seconds of each good request that was answered.
        errors: of good requests, by what they said.
        refused: broken requests that were refused, of `broken`.
        broken: broken requests.
        peak_bytes: the most memory that the server ever had; None where it is not this program's.
        idle_bytes: what it had before the load.
        network_alone: good requests a second, if nothing but the network had to run, asked for by as many threads.
        decode_alone: good requests a second, if nothing but the JPEG decoder had to run, likewise.
    """

    clients: int
    people: int
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    broken: int = 0
    peak_bytes: int | None = None
    idle_bytes: int | None = None
    network_alone: float = 0.0
    decode_alone: float = 0.0

    @property
    def requests_per_second(self) -> float:
        """Good requests that were answered."""
        return len(self.latencies) / self.seconds

    @property
    def floor(self) -> float:
        """Requests a second, if decoding and the network were all that costs."""
        return 1 / (1 / self.network_alone + 1 / self.decode_alone)


def benchmark_serving(
    folder: str | Path,
    images: str | Path,
    *,
    clients: Sequence[int] = (1, 4, 16),
    people: int = 1,
    seconds: float = 20.0,
    address: str | None = None,
    name: str = "pose",
) -> list[ServingLoad]:
    """Ask a served model by gRPC, and print a table.

    Args:
        folder: of the served model, see `export_saved_model`.
        images: folder of the JPEG files that clients send in turn; each person's box is the whole picture.
        clients: how many ask at the same time, one load each; every client asks again as soon as it is answered.
        people: boxes in a request.
        seconds: of each load.
        address: host and port of a server that serves the same model; by default one is started.
        name: of the model there.

    Raises:
        KposeError: when a value is out of range, there is no model or picture, or the server does not answer.
    """
    if min(*clients, people) < 1 or not 0 < seconds < math.inf:
        raise KposeError("clients, people and seconds must be greater than 0")
    requests = _make_requests(images, people, name)
    model, loads = ServedModel(folder, name), []
    with _started(folder, name) if address is None else _running(address) as (where, memory):
        for number in clients:
            loads.append(_load_in_turns(where, model, requests, number, people, seconds, memory))
    print(format_loads(loads))
    print(
        f"\n{len(requests)} pictures; {'a Python server' if address is None else address}; "
        f"one request in {_BROKEN_EVERY} is broken on purpose; {os.cpu_count()} CPU threads, {platform.machine()}"
    )
    return loads


def format_loads(loads: Sequence[ServingLoad]) -> str:
    """Loads as a Markdown table."""
    head = [
        "clients",
        "people",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "errors",
        "refused",
        "memory MB, idle / peak",
        "network alone",
        "decode alone",
    ]
    rows = [[*head, "of both"]]
    for load in loads:
        p50, p99 = (1000 * np.quantile(load.latencies, share) if load.latencies else math.nan for share in (0.5, 0.99))
        memory = "-" if load.peak_bytes is None or load.idle_bytes is None else f"{load.idle_bytes / 1e6:.0f} / {load.peak_bytes / 1e6:.0f}"
        row = [load.clients, load.people, f"{load.requests_per_second:.1f}", f"{p50:.0f}", f"{p99:.0f}", load.errors.total()]
        row += [f"{load.refused} of {load.broken}", memory, f"{load.network_alone:.1f}", f"{load.decode_alone:.1f}"]
        rows.append([str(cell) for cell in (*row, f"{load.requests_per_second / load.floor:.2f}")])
    lines = [markdown_table(rows)]
    lines += [f"{count} x {message}" for load in loads for message, count in load.errors.items()]
    return "\n".join(lines)


@dataclass(frozen=True)
class _Request:
    content: bytes
    boxes: np.ndarray
    message: Any


def _make_requests(images: str | Path, people: int, name: str) -> list[_Request]:
    from kpose.inference.images import read_image

    paths = sorted(path for path in Path(images).glob("*") if path.suffix.lower() in SUFFIXES[:2])[:64]
    if not paths:
        raise KposeError(f"there is no JPEG picture in {images}")
    requests = []
    for path in paths:
        height, width = read_image(path).shape[:2]
        boxes = np.tile(np.array([0, 0, width, height], np.float32), (1, people, 1))
        content = path.read_bytes()
        requests.append(_Request(content, boxes, predict_request(name, content, boxes)))
    return requests


def predict_request(name: str, content: bytes, boxes: np.ndarray) -> Any:
    """The gRPC message that asks for the people in boxes `(1, N, 4)` of one encoded picture.

    Raises:
        KposeError: when tensorflow-serving-api is not installed.
    """
    import tensorflow as tf

    try:
        from tensorflow_serving.apis import predict_pb2
    except ImportError as error:
        raise KposeError("serving needs tensorflow-serving-api, which is not installed; run: pip install 'kpose[serving]'") from error
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.inputs["images"].CopyFrom(tf.make_tensor_proto([content]))
    request.inputs["boxes"].CopyFrom(tf.make_tensor_proto(boxes))
    return request


@contextmanager
def _started(folder: str | Path, name: str) -> Iterator[tuple[str, Callable[[], tuple[int, int]]]]:
    """Address and memory (now, and the most ever) of a server in a process of its own, so that it is the server's alone."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, str(folder), name), daemon=True)
    process.start()
    try:
        if not ours.poll(_START_SECONDS):
            raise KposeError(f"the server of {folder} has not started within {_START_SECONDS:g} seconds")
        answer = ours.recv()
        if isinstance(answer, KposeError):
            raise answer
        yield answer, lambda: _memory(process.pid or 0)
    except EOFError as error:
        raise KposeError(f"the server of {folder} has ended before it started") from error
    finally:
        process.terminate()
        process.join()


def _serve(connection: Connection, folder: str, name: str) -> None:
    try:
        with PredictionService(folder, name) as service:
            connection.send(service.grpc_address)
            # Nothing comes, but the end of the other side, however that ends: no server is left behind.
            connection.poll(None)
    except KposeError as error:
        connection.send(error)


@contextmanager
def _running(address: str) -> Iterator[tuple[str, None]]:
    yield address, None


def _memory(process: int) -> tuple[int, int]:
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    now, most = (int(re.findall(rf"{key}:\s+(\d+) kB", status)[0]) << 10 for key in ("VmRSS", "VmHWM"))
    return now, most


def _load_in_turns(
    address: str,
    model: ServedModel,
    requests: Sequence[_Request],
    clients: int,
    people: int,
    seconds: float,
    memory: Callable[[], tuple[int, int]] | None,
) -> ServingLoad:
    load = ServingLoad(clients, people)
    if memory:
        load.idle_bytes = memory()[0]
    alone = []
    for turn in range(_ROUNDS):
        _load(load, address, requests, turn, seconds / _ROUNDS)
        alone.append(_alone(model, requests, clients, people, seconds / _ROUNDS / 2))
    load.network_alone, load.decode_alone = np.mean(alone, axis=0).tolist()
    if memory:
        load.peak_bytes = memory()[1]
    return load


def _load(load: ServingLoad, address: str, requests: Sequence[_Request], turn: int, seconds: float) -> None:
    """Ask for so many seconds, and add what comes of it to `load`."""
    import grpc
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    lock, clients = threading.Lock(), load.clients
    broken = predict_request(requests[0].message.model_spec.name, requests[0].content[:64], requests[0].boxes)
    start = time.perf_counter()
    stop = start + seconds

    def ask(client: int) -> None:
        with grpc.insecure_channel(address, options=[*_STREAM_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            # Every turn begins with other pictures.
            number = client + turn * len(requests) // _ROUNDS
            while time.perf_counter() < stop:
                number += clients
                harmful = number % _BROKEN_EVERY == 0
                message = broken if harmful else requests[number % len(requests)].message
                began, error = time.perf_counter(), None
                try:
                    stub.Predict(message, _DEADLINE_SECONDS)
                except grpc.RpcError as refused:
                    error = refused
                took = time.perf_counter() - began
                with lock:
                    if harmful:
                        load.broken += 1
                        load.refused += error is not None and error.code() == grpc.StatusCode.INVALID_ARGUMENT
                    elif error is not None:
                        load.errors[f"{error.code().name}: {error.details()}"[:160]] += 1
                    else:
                        load.latencies.append(took)

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load.seconds += time.perf_counter() - start


def _alone(model: ServedModel, requests: Sequence[_Request], threads: int, people: int, seconds: float) -> tuple[float, float]:
    """Requests a second of the network alone, and of the JPEG decoder alone, in this process."""
    import tensorflow as tf

    heatmaps = model.signature("heatmaps")
    shape = heatmaps.structured_input_signature[1]["crops"].shape[1:]
    crops = tf.constant(np.random.default_rng(0).integers(0, 256, (people, *shape), np.uint8))
    contents = [tf.constant(request.content) for request in requests]
    return (
        _calls_a_second(lambda _: heatmaps(crops=crops), threads, seconds),
        _calls_a_second(lambda number: tf.io.decode_jpeg(contents[number % len(contents)], channels=3), threads, seconds),
    )


def _calls_a_second(call: Callable[[int], object], threads: int, seconds: float) -> float:
    call(0)
    counts = [0] * threads
    start = time.perf_counter()

    def run(thread: int) -> None:
        while time.perf_counter() - start < seconds:
            call(thread + counts[thread])
            counts[thread] += 1

    workers = [threading.Thread(target=run, args=(thread,)) for thread in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts) / (time.perf_counter() - start)
