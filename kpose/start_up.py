"""The first moments of a command."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
# Tells processes that this one starts who chose the level.
_CHOSEN_HERE = "KPOSE_CHOSE_LOG_LEVEL"


def import_tensorflow_quietly() -> None:
    """Import TensorFlow without its start-up lines, which would bury those that matter; whoever sets its log level gets them.

    Some of them are written before any level counts, by its libraries themselves, so that file descriptor 2 is closed to them meanwhile.
    What goes wrong is left to whatever needs TensorFlow.
    """
    if LOG_LEVEL in os.environ and _CHOSEN_HERE not in os.environ:
        return
    os.environ |= {LOG_LEVEL: "2", _CHOSEN_HERE: "1"}
    sys.stderr.flush()
    standard_error = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere, suppress(ImportError):
            os.dup2(nowhere.fileno(), 2)
            import tensorflow  # noqa: F401
    finally:
        os.dup2(standard_error, 2)
        os.close(standard_error)
