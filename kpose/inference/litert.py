"""Opening TFLite files with LiteRT, the interpreter of the `lite` extra."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kpose.errors import KposeError

Interpreter = Any
Shape = tuple[int | None, ...]

# The largest network here has 60 million parameters.
LARGEST_FILE_BYTES = 512 << 20
# Where the flatbuffer of a TFLite file says what it is.
_IDENTIFIER = slice(4, 8)


def open_interpreter(
    path: str | Path, threads: int, what: str, inputs: Sequence[Shape] | None = None, outputs: Sequence[Shape] | None = None
) -> Interpreter:
    """An interpreter of a TFLite file with its tensors allocated.

    Args:
        path: the file.
        threads: of the CPU.
        what: the network that is expected, for messages.
        inputs: shapes that its inputs must have, in order; None for any side. By default any.
        outputs: likewise.

    Raises:
        KposeError: when LiteRT is not installed, the file is missing, damaged or too large, or its tensors have other shapes.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter as LiteRT
    except ImportError as error:
        raise KposeError(f"{path} needs LiteRT, which is not installed; run: pip install 'kpose[lite]'") from error
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_IDENTIFIER.stop)
    except OSError as error:
        raise KposeError(f"cannot read {path}: {error.strerror}; expected the TFLite file of {what}") from error
    if size > LARGEST_FILE_BYTES:
        raise KposeError(f"{path} has {size} bytes, more than any network kpose runs; file refused")
    if head[_IDENTIFIER] != b"TFL3":
        raise KposeError(f"{path} is not a TFLite file; expected {what}")
    try:
        interpreter = LiteRT(str(path), num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise KposeError(f"{path} is damaged, LiteRT cannot open it: {str(error).splitlines()[0][:160]}") from error
    for kind, wanted, details in (
        ("inputs", inputs, interpreter.get_input_details()),
        ("outputs", outputs, interpreter.get_output_details()),
    ):
        found = [tuple(map(int, tensor["shape"])) for tensor in details]
        if wanted is not None and not _fit(found, wanted):
            raise KposeError(f"{path} has {kind} {found}, {what} has {list(wanted)}: it is another network")
    return interpreter


def _fit(found: Sequence[tuple[int, ...]], wanted: Sequence[Shape]) -> bool:
    return len(found) == len(wanted) and all(
        len(shape) == len(expected) and all(side in (other, None) or other is None for side, other in zip(shape, expected, strict=True))
        for shape, expected in zip(found, wanted, strict=True)
    )
