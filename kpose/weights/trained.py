"""Weights that were trained on crops, on another backend, into a `.keras` file that explains itself."""

from __future__ import annotations

from pathlib import Path

from kpose.checkpoint import ModelCard, save_model
from kpose.config import Config, parse_config
from kpose.errors import KposeError
from kpose.models import build_model, count
from kpose.skeletons import get_skeleton
from kpose.training.crops import read_state
from kpose.weight_files import load_weights


def import_trained(source: str | Path, output: str | Path, config: Config | None = None) -> ModelCard:
    """Write the network of a training on crops as a checkpoint of kpose.

    Args:
        source: the output folder of `kpose.training.crops.train_on_crops`; or one of its files of weights, or a `.weights.h5`.
        output: the `.keras` file to write; written whole or not at all.
        config: what the network was trained for; by default what the folder says, a file alone needs it.

    Returns:
        Its card.

    Raises:
        KposeError: when source or configuration is refused, or they do not fit.
    """
    source = Path(source)
    data, training = f"weights of {source.name}", {}
    if source.is_dir():
        state = read_state(source)
        weights = source / state["weights"]
        config = config or parse_config(state["settings"], str(source))
        data = f"crops: {state['data']}"
        training = {"step": state["step"], "planned_steps": state["planned_steps"], "backend": state["backend"]}
    else:
        weights = source
    if config is None:
        raise KposeError(
            f"{source} does not say what it was trained for; give its configuration, or the whole folder that it was written to"
        )
    model = build_model(config.model.name, get_skeleton(config.skeleton).num_joints, config.model.input_size, **config.model.options)
    load_weights(model, weights)
    card = ModelCard.from_config(config, data=data, training={**training, "seed": config.seed})
    save_model(model, output, card)
    print(f"{weights}: {count(model).params / 1e6:.2f} M parameters of {config.model.name} written to {output}")
    return card
