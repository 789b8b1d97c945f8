"""A trained checkpoint into the files that come with kpose: maintainers run it, users do not (`scripts/release_weights.py`)."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import pydantic

from kpose.checkpoint import ModelCard, load_model, save_model
from kpose.errors import KposeError, did_you_mean
from kpose.files import replacing
from kpose.weights import pretrained
from kpose.yaml_files import read_yaml

# What a training does not know about its result, and a user must.
FACTS = ("data", "licence", "intended_use", "score", "score_interval", "protocol")
_TFLITE: tuple[Literal["fp16", "int8"], ...] = ("fp16", "int8")


def release(checkpoint: str | Path, facts: str | Path, samples: np.ndarray | None = None) -> list[Path]:
    """Write a trained network into the folder of those that come with kpose, small and with a complete card.

    It is known by the network's name and input size, such as `lite_mobilenet_v3_256x192`. All that was released under that name before
    goes, so that its files are always those of one training.

    Args:
        checkpoint: the `.keras` file of the training.
        facts: a YAML file with what its card says beyond what the training knows: `data`, `licence`, `intended_use`, `protocol` are text,
            `score` maps metrics to numbers, `score_interval` to the two ends of their 95 % confidence intervals.
        samples: crops as `kpose.export.convert_tflite` takes them, to write the TFLite files too; None writes the `.keras` file alone.

    Returns:
        The files that were written.

    Raises:
        KposeError: when the checkpoint is refused or does not fit into float16, a fact is missing, unknown or invalid, or the network
            cannot be converted.
    """
    model = load_model(checkpoint)
    card = _complete(model.card, Path(facts))
    height, width = card.input_size
    name = f"{card.name}_{height}x{width}"
    folder = pretrained.FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    # Made in full beside them before any of the former files goes.
    with tempfile.TemporaryDirectory(dir=folder) as staging:
        made = [Path(staging, f"{name}{pretrained.ENDINGS['keras']}")]
        save_model(model, made[0], card, half_precision=True)
        if samples is not None:
            from kpose.export import convert_tflite

            for precision in _TFLITE:
                made.append(Path(staging, f"{name}{pretrained.ENDINGS[precision]}"))
                print(convert_tflite(made[0], made[-1], precision, samples, samples_source="training people").summary)
        written = [path.replace(folder / path.name) for path in made]
    _list(written, name)
    for path in written:
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    return written


def _complete(card: ModelCard, facts: Path) -> ModelCard:
    found = read_yaml(facts, "facts of a release")
    if not isinstance(found, dict):
        raise KposeError(f"{facts} must map {', '.join(FACTS)} to what the card says")
    for key in found:
        if key not in FACTS:
            raise KposeError(f"{facts}: a card has no {key!r} to be filled in{did_you_mean(key, FACTS)}")
    missing = [key for key in FACTS if not found.get(key)]
    if missing:
        raise KposeError(f"{facts} does not say {', '.join(missing)}; a network is not passed on without")
    if set(found["score_interval"]) != set(found["score"]):
        raise KposeError(f"{facts}: score and score_interval must be of the same metrics")
    try:
        return ModelCard.model_validate(card.model_dump() | found)
    except pydantic.ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise KposeError(f"{facts}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error


def _list(files: list[Path], name: str) -> None:
    """Bring the list of hashes up to date; of the network `name` exactly `files` remain."""
    checksums = pretrained.read_checksums()
    for ending in pretrained.ENDINGS.values():
        checksums.pop(f"{name}{ending}", None)
    checksums |= {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    with replacing(pretrained.FOLDER / pretrained.CHECKSUMS) as partial:
        partial.write_text("".join(f"{checksums[file]}  {file}\n" for file in sorted(checksums)), encoding="ascii")
    for ending in pretrained.ENDINGS.values():
        former = pretrained.FOLDER / f"{name}{ending}"
        if former not in files:
            former.unlink(missing_ok=True)
