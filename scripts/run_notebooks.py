"""Run the notebooks from an empty kernel, and keep what they show.

python scripts/run_notebooks.py                              # all of notebooks/
python scripts/run_notebooks.py notebooks/quick_start.ipynb
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from kpose.errors import KposeError
from kpose.files import replacing

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
# Two CPU cores take less than three minutes for each; one cell never takes more than this.
_SECONDS_A_CELL = 900


def run(path: Path) -> nbformat.NotebookNode:
    """The notebook as it is after all of its cells were run, in order, in a fresh kernel.

    Raises:
        KposeError: when a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    # No times of execution, and what a cell prints in one piece, however it arrives: only what is shown shall differ from run to run.
    client = NotebookClient(
        notebook,
        timeout=_SECONDS_A_CELL,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute()
    except CellExecutionError as error:
        raise KposeError(f"{path}: {error.ename}: {error.evalue}\n{error.traceback}") from error
    for cell in notebook.cells:
        if cell.cell_type == "code":
            # There libraries tell about the machine.
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def main() -> None:
    """Run and rewrite them one by one."""
    parser = argparse.ArgumentParser(description="Run the notebooks from an empty kernel, and keep what they show.")
    parser.add_argument("notebooks", metavar="FILE", nargs="*", type=Path, help="default: all of notebooks/")
    for path in parser.parse_args().notebooks or sorted(NOTEBOOKS.glob("*.ipynb")):
        start = time.monotonic()
        notebook = run(path)
        with replacing(path) as partial:
            nbformat.write(notebook, partial)
        print(f"{path.name}: {time.monotonic() - start:.0f} s, {path.stat().st_size >> 10} KiB", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KposeError as error:
        sys.exit(f"kpose: {error}")
