"""The notebooks are as their last run left them, small, and run again from an empty kernel."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
LARGEST_BYTES = 300 << 10


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def outputs(cell: dict[str, Any]) -> list[tuple[str, str]]:
    """Type and text of what a cell shows; pictures in base64."""
    found = []
    for output in cell["outputs"]:
        data = output.get("data", {"text/plain": output.get("text", "")})
        found += [(kind, "".join(value)) for kind, value in data.items()]
    return found


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} >= {"quick_start", "own_joints", "export_and_quantise", "read_results"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_was_run_in_order_without_an_error(path):
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert {output["output_type"] for cell in code for output in cell["outputs"]} <= {"stream", "display_data", "execute_result"}
    assert {output.get("name", "stdout") for cell in code for output in cell["outputs"]} == {"stdout"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_it_shows_is_small_and_holds_no_path_of_a_machine(path):
    assert path.stat().st_size <= LARGEST_BYTES
    shown = [output for cell in cells(path, "code") for output in outputs(cell)]
    assert any(kind.startswith("image/") for kind, _ in shown)
    for kind, text in shown:
        assert kind.startswith("image/") or not re.search(r"/(tmp|home|root|work|Users)/", text), text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_lead_somewhere(path):
    for cell in cells(path, "markdown"):
        for target in re.findall(r"\]\(([^)#]+)", "".join(cell["source"])):
            assert target.startswith("http") or (path.parent / target).exists(), target


@pytest.mark.slow  # minutes
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_from_an_empty_kernel(path, monkeypatch):
    from scripts.run_notebooks import run

    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    before, after = cells(path, "code"), [cell for cell in run(path)["cells"] if cell["cell_type"] == "code"]
    # Figures differ from machine to machine; what is shown does not.
    kinds = [[sorted(kind for kind, _ in outputs(cell)) for cell in shown] for shown in (before, after)]
    assert kinds[0] == kinds[1]
