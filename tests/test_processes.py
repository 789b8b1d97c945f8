"""Processes may be killed: no piece of work is lost."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from kpose.errors import KposeError
from kpose.processes import Work, run_in_processes


def begin(folder: Path, deadly: dict[int, int], refused: int = -1) -> Work:
    """Work that leaves a file, and kills its process in the middle of some pieces so many times."""

    def work(number: int, update: Callable[[int], None]) -> None:
        if number == refused:
            raise KposeError(f"number {number} is refused")
        update(1)
        deaths = folder / f"{number}.deaths"
        died = len(deaths.read_bytes()) if deaths.exists() else 0
        if died < deadly.get(number, 0):
            deaths.write_bytes(b"x" * (died + 1))
            os.kill(os.getpid(), signal.SIGKILL)
        update(2)
        with (folder / f"{number}.done").open("a") as file:
            file.write("done ")

    return work


def done(folder: Path) -> dict[str, str]:
    return {file.stem: file.read_text() for file in folder.glob("*.done")}


def test_killed_processes_are_replaced_and_their_work_is_done_again(tmp_path: Path) -> None:
    steps: list[int] = []
    finished: list[int] = []
    given_up = run_in_processes(functools.partial(begin, tmp_path, {1: 1, 4: 2, 5: 1}), range(6), 2, steps.append, finished.append)
    assert given_up == {}
    assert sorted(finished) == list(range(6))
    assert done(tmp_path) == {str(number): "done " for number in range(6)}
    assert max(steps) <= 4, "the steps of a killed process do not count on"


def test_work_that_kills_every_process_is_given_up_and_the_rest_is_done(tmp_path: Path) -> None:
    given_up = run_in_processes(functools.partial(begin, tmp_path, {2: 99}), range(4), 1)
    assert given_up.keys() == {2} and "killed by SIGKILL, which the kernel does when memory is short" in given_up[2]
    assert done(tmp_path).keys() == {"0", "1", "3"}


def test_what_the_work_refuses_ends_all_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(KposeError, match=r"^number 1 is refused$"):
        run_in_processes(functools.partial(begin, tmp_path, {}, refused=1), range(4), 2)


def die() -> Work:
    os._exit(3)


def test_processes_that_cannot_begin_are_not_started_for_ever() -> None:
    with pytest.raises(KposeError, match="processes end before they can work, the last with exit status 3"):
        run_in_processes(die, range(4), 2)
