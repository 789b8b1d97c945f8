"""Work for several processes on one machine, none of it lost when a process is killed."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, NoReturn

from kpose.errors import KposeError
from kpose.start_up import import_tensorflow_quietly

# A piece of work that so many processes died of will kill the next one too.
MOST_ATTEMPTS = 3

# Does a piece of work, by its number; what it is given counts the steps of it that are done.
Work = Callable[[int, Callable[[int], None]], None]


@dataclass
class _Process:
    """A process, the near end of its connection, the piece that it works on, and how many steps of that are done."""

    process: SpawnProcess
    connection: Connection
    number: int | None = None
    steps: int = 0
    ready: bool = field(default=False)


def run_in_processes(
    begin: Callable[[], Work],
    numbers: Sequence[int],
    processes: int,
    on_steps: Callable[[int], None] = lambda steps: None,
    on_done: Callable[[int], None] = lambda number: None,
) -> dict[int, str]:
    """Have processes work off numbered pieces.

    A process that dies, by the kernel for its memory or by whomever, is replaced, and its piece is given out again; so the work must be
    such that doing a piece twice does no harm.

    Args:
        begin: is called once in each process, which starts afresh (the main program needs `if __name__ == "__main__"`); gives what works.
        numbers: of the pieces.
        processes: how many, at most.
        on_steps: is called with the steps of all pieces that are being worked on.
        on_done: is called after each piece.

    Returns:
        Why a piece was given up: `MOST_ATTEMPTS` processes died of it. Empty when all are done.

    Raises:
        KposeError: of the work itself; or when processes die before they are ready to work.
    """
    context = multiprocessing.get_context("spawn")
    waiting, given_up, attempts = deque(numbers), dict[int, str](), Counter[int]()
    running: dict[Connection, _Process] = {}
    died_early = 0

    def start() -> None:
        near, far = context.Pipe()
        process = context.Process(target=_serve, args=(far, pickle.dumps(begin)), daemon=True)
        process.start()
        # The process has its own copy; with this one open its end would not be seen.
        far.close()
        running[near] = _Process(process, near)

    def hand_out(worker: _Process) -> None:
        worker.steps, worker.number = 0, waiting.popleft() if waiting else None
        worker.connection.send(worker.number)

    try:
        for _ in range(min(processes, len(waiting))):
            start()
        while running:
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                worker = running[connection]
                try:
                    kind, value = connection.recv()
                    if kind == "failed":
                        raise KposeError(value)
                    if kind == "steps":
                        worker.steps = value
                        on_steps(sum(other.steps for other in running.values()))
                        continue
                    if kind == "done":
                        done, worker.number, worker.steps = worker.number, None, 0
                        assert done is not None
                        on_done(done)
                    worker.ready = True
                    hand_out(worker)
                except (EOFError, OSError):
                    del running[connection]
                    connection.close()
                    worker.process.join()
                    how = _describe_end(worker.process.exitcode)
                    if worker.number is not None:
                        attempts[worker.number] += 1
                        if attempts[worker.number] < MOST_ATTEMPTS:
                            waiting.appendleft(worker.number)
                        else:
                            given_up[worker.number] = f"{MOST_ATTEMPTS} processes ended in it, the last {how}"
                    elif not worker.ready:
                        died_early += 1
                        if died_early >= MOST_ATTEMPTS:
                            raise KposeError(f"processes end before they can work, the last {how}") from None
                    if len(running) < min(processes, len(waiting) + sum(other.number is not None for other in running.values())):
                        start()
    finally:
        for worker in running.values():
            worker.process.kill()
        for worker in running.values():
            worker.process.join()
            worker.connection.close()
    return given_up


def _serve(connection: Connection, pickled_begin: bytes) -> None:
    """The life of a process: take a number, do the work, tell, until there is none or the main process is gone."""
    # Ctrl-C reaches all of them; the main process decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Ahead of what the work brings along, which would import it with all that it has to say.
    import_tensorflow_quietly()
    begin: Callable[[], Work] = pickle.loads(pickled_begin)

    def tell(kind: str, value: Any = None) -> None:
        try:
            connection.send((kind, value))
        except OSError:
            _leave()

    def ask() -> int | None:
        try:
            return connection.recv()
        except (EOFError, OSError):
            _leave()

    try:
        work = begin()
        tell("ready")
        while (number := ask()) is not None:
            work(number, lambda steps: tell("steps", steps))
            tell("done")
    except KposeError as error:
        tell("failed", str(error))


def _leave() -> NoReturn:
    # The main process is gone, nobody is there to tell. Threads of TensorFlow would keep this one.
    os._exit(1)


def _describe_end(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        memory = ", which the kernel does when memory is short" if -exit_code == signal.SIGKILL else ""
        return f"killed by {signal.Signals(-exit_code).name}{memory}"
    return f"with exit status {exit_code}"
