"""A network's weights as plain numbers: `.npz` files by which they travel between Keras' backends, without a card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kpose.errors import KposeError
from kpose.files import replacing
from kpose.npz_files import read_npz

if TYPE_CHECKING:
    import keras

LARGEST_WEIGHTS_BYTES = 8 << 30


def save_weights(model: keras.Model, path: str | Path) -> None:
    """Write the weights of a network by name, whole or not at all.

    Raises:
        KposeError: when the name does not end in `.npz` or the file cannot be written.
    """
    from keras import ops

    path = Path(path)
    if path.suffix != ".npz":
        raise KposeError(f"cannot save to {path}: the name of a file of weights ends in .npz")
    save_arrays(path, {weight.path: ops.convert_to_numpy(weight) for weight in model.weights})


def load_weights(model: keras.Model, path: str | Path) -> None:
    """Give a network the weights of a file; its crops may have been of another size.

    Args:
        model: the network that was saved, by name and options.
        path: `.npz` of `save_weights`, `.weights.h5` of Keras, or a `.keras` checkpoint.

    Raises:
        KposeError: when the file is missing, damaged or of another network.
    """
    path = Path(path)
    if not path.is_file():
        raise KposeError(f"there are no weights {path}")
    if path.suffix != ".npz":
        if not path.name.endswith((".weights.h5", ".keras")):
            raise KposeError(f"{path} is no file of weights: .npz, .weights.h5 and .keras are")
        try:
            model.load_weights(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise KposeError(f"{path} does not fit {model.name}, or is damaged: {' '.join(str(error).split())[:200]}") from error
        return
    arrays = load_arrays(path)
    wanted = {weight.path: weight for weight in model.weights}
    if sorted(arrays) != sorted(wanted) or any(arrays[name].shape != tuple(weight.shape) for name, weight in wanted.items()):
        raise KposeError(f"{path} holds another network than {model.name} with these options; set model.name and model.options to its")
    for name, weight in wanted.items():
        weight.assign(arrays[name])


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays by name as `.npz`, whole or not at all."""
    with replacing(path) as partial:
        np.savez(partial, **arrays)  # type: ignore[arg-type]


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of `save_arrays`, by name.

    Raises:
        KposeError: see `kpose.npz_files.read_npz`.
    """
    return read_npz(path, LARGEST_WEIGHTS_BYTES, missing=f"there are no weights {path}", remedy="copy or write it anew")


def split_arrays(arrays: Sequence[Any], largest_bytes: int) -> list[dict[str, Any]]:
    """Arrays in their order, named by it, in groups of at most so many bytes (or a single array)."""
    groups: list[dict[str, Any]] = []
    filled = largest_bytes + 1
    for number, array in enumerate(arrays):
        if filled + array.nbytes > largest_bytes:
            groups.append({})
            filled = 0
        groups[-1][f"{number:06d}"] = array
        filled += array.nbytes
    return groups
