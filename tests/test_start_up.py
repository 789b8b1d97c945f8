"""What a command says before it says anything of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def said(code: str, **environment: str) -> str:
    """The standard error of a Python process."""
    variables = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"} | environment
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables, check=True).stderr


START = "import os, sys; from kpose.start_up import import_tensorflow_quietly; import_tensorflow_quietly(); "


def test_nothing_comes_before_what_a_command_says_itself() -> None:
    assert said(START + "assert 'tensorflow' in sys.modules; os.write(2, b'of its own')") == "of its own"


def test_processes_that_it_starts_are_quiet_too() -> None:
    child = "from kpose.start_up import import_tensorflow_quietly; import_tensorflow_quietly()"
    assert said(START + f"import subprocess; subprocess.run([sys.executable, '-c', {child!r}], check=True)") == ""


def test_whoever_sets_the_level_hears_it_all() -> None:
    assert said(START + "assert 'tensorflow' not in sys.modules; import tensorflow", TF_CPP_MIN_LOG_LEVEL="0") != ""


@pytest.mark.parametrize("broken", ["raise ImportError", "1 / 0"])
def test_a_broken_tensorflow_is_left_to_who_needs_it_and_standard_error_returns(tmp_path, broken: str) -> None:
    (tmp_path / "tensorflow.py").write_text(broken)
    attempt = "import os\nfrom kpose.start_up import import_tensorflow_quietly\n"
    attempt += "try:\n    import_tensorflow_quietly()\nexcept ZeroDivisionError:\n    pass\nos.write(2, b'back')"
    folders = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    assert said(attempt, PYTHONPATH=folders) == "back"
