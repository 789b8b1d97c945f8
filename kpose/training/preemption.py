"""SIGTERM, as clusters send it before they take a machine back: the step in progress ends and the state is saved, before all ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Preempted(Exception):
    """The training was asked to stop, and has saved where it stands.

    Its message is one line; the command line prints it and exits with 143, as a process that SIGTERM ended does.
    """


class StopSignal:
    """Whether SIGTERM has come."""

    def __init__(self) -> None:
        self.has_come = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Within the block SIGTERM is noted instead of ending the process; in other threads than the main one nothing can be caught."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            self.has_come = True

        former = signal.signal(signal.SIGTERM, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, former)
