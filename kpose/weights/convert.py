"""A published PyTorch checkpoint into a `.keras` file that explains itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kpose.checkpoint import ModelCard, save_model
from kpose.config import parse_config
from kpose.models import build_model, count
from kpose.skeletons import get_skeleton
from kpose.weights.torch_import import ImportReport, load_torch


def import_checkpoint(
    path: str | Path,
    name: str,
    output: str | Path,
    *,
    skeleton: str = "coco_17",
    input_size: tuple[int, int] = (256, 192),
    options: Mapping[str, Any] | None = None,
    trunk_only: bool = False,
    licence: str = "",
) -> ImportReport:
    """Builds a network, loads a published checkpoint and writes both, with a card, as a file of kpose.

    Args:
        path: The `.pth` or `.safetensors` file.
        name: The network, as `build_model` takes it.
        output: The `.keras` file to write; written whole or not at all.
        skeleton: The joints it was trained for: a built-in skeleton or the path of a skeleton YAML.
        input_size: (height, width) of its crops.
        options: Of the network.
        trunk_only: See `load_torch`.
        licence: Of the weights, for the card.

    Returns:
        What was loaded from where.

    Raises:
        KposeError: when the file, the network or an option is refused, or the two do not fit; see `load_torch`.
    """
    model = build_model(name, get_skeleton(skeleton).num_joints, input_size, **(options or {}))
    report = load_torch(model, path, trunk_only=trunk_only)
    settings = {"skeleton": skeleton, "model": {"name": name, "input_size": list(input_size), "options": dict(options or {})}}
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    what = "trunk imported" if trunk_only else "imported"
    card = ModelCard.from_config(parse_config(settings), data=f"{what} from {Path(path).name} (SHA-256 {digest})", licence=licence)
    save_model(model, output, card)
    print(f"{report.summary}\n{name}, {count(model).params / 1e6:.2f} M parameters: {output}")
    return report
