"""Training: `train(config)` is plain `model.compile` and `model.fit` with kpose's data, loss, optimizer and callbacks.

In a notebook the same parts give the same result:

    config = kpose.load_config("configs/synthetic/lite_mobilenet_v3_128x96.yaml")
    model = make_model(config)
    data = training_data(config, model)
    model.compile(make_optimizer(config, data.steps_per_epoch), make_loss(config, model), jit_compile=False)
    model.fit(data.dataset, epochs=config.training.epochs, steps_per_epoch=data.steps_per_epoch)
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from kpose.checkpoint import ModelCard, load_model
from kpose.config import Config, dump_config
from kpose.data import TrainingData, ValidationSet, training_data, validation_sets
from kpose.errors import KposeError
from kpose.evaluation import evaluate
from kpose.evaluation.metrics import metric_of
from kpose.files import replacing
from kpose.models import build_model, count
from kpose.skeletons import get_skeleton
from kpose.training.callbacks import Checkpoints, ProgressBar, TrainingLog, ValidationScore
from kpose.training.recipe import freeze, make_loss, make_optimizer
from kpose.visualize import draw_training_curve
from kpose.weights import load_torch, load_trunk

LAST, BEST, LOG, CURVE, SETTINGS = "last.keras", "best.keras", "training.csv", "curve.png", "config.yaml"


@dataclass(frozen=True)
class TrainingResult:
    """What a training left behind: the network as it ended, its metrics, the folder with checkpoints, log and curve."""

    model: keras.Model
    metrics: dict[str, float]
    folder: Path


def make_model(config: Config) -> keras.Model:
    """The network of a configuration, with the weights it is to start from.

    Raises:
        KposeError: when the network, its options or a weights file is refused.
    """
    keras.utils.set_random_seed(config.seed)
    skeleton = get_skeleton(config.skeleton)
    model = build_model(config.model.name, skeleton.num_joints, config.model.input_size, **config.model.options)
    trunk = config.model.trunk_weights
    if trunk and trunk.suffix == ".npz":
        print(load_trunk(model, trunk, config.data.mean, config.data.std))
    elif trunk:
        print(f"trunk: {load_torch(model, trunk, trunk_only=True).summary}")
    if config.model.initial_weights:
        start = load_model(config.model.initial_weights)
        start.card.require_match(config, config.model.initial_weights, start=True)
        if [weight.shape for weight in start.weights] != [weight.shape for weight in model.weights]:
            raise KposeError(
                f"{config.model.initial_weights} holds another network ({start.card.name}); set model.name and model.options to its"
            )
        model.set_weights(start.get_weights())
    freeze(model, config.model.frozen)
    return model


def train(config: Config, resume: bool = False) -> TrainingResult:
    """Train as the configuration says; everything goes to its output folder.

    Args:
        config: the experiment.
        resume: go on from the folder's `last.keras`. The samples and the result are those of a training without interrupt, to
            the last digit where the machine's arithmetic is deterministic.

    Returns:
        The network after the last epoch, its metrics and the folder.

    Raises:
        KposeError: when data, settings or the checkpoint are refused, or the folder already holds a training and `resume` is not set.
    """
    folder = config.output
    last = folder / LAST
    if last.exists() and not resume:
        raise KposeError(f"{folder} already holds a training; add --resume to go on with it, or set another 'output'")
    if resume and not last.exists():
        raise KposeError(f"there is no {last} to resume from; leave out --resume")
    model = make_model(config)
    start_epoch, best_score = 0, float("-inf")
    saved = None
    if resume:
        saved = load_model(last, compile=True)
        saved.card.require_match(config, last)
        state = saved.card.training
        if getattr(saved, "optimizer", None) is None or not isinstance(state.get("epoch"), int):
            raise KposeError(f"{last} does not say where its training stands: it was not written by one; set it as model.initial_weights")
        start_epoch = state["epoch"]
        best_score = best_score if state.get("best_score") is None else float(state["best_score"])
        if start_epoch >= config.training.epochs:
            raise KposeError(f"{last} has finished its {start_epoch} epochs; raise training.epochs to go on")
    loss = make_loss(config, model)
    data = training_data(config, model, start_epoch)
    optimizer = make_optimizer(config, data.steps_per_epoch)
    model.compile(optimizer, loss, jit_compile=False)
    # Built here and not inside of the first step, which TensorFlow would then trace twice.
    optimizer.build(model.trainable_variables)
    if saved is not None:
        _restore(model, saved, last, start_epoch * data.steps_per_epoch)
    scorer = make_scorer(config) if config.data.validation else None
    with replacing(folder / SETTINGS) as partial:
        partial.write_text(dump_config(config), encoding="utf-8")
    callbacks = make_callbacks(config, data, scorer, start_epoch, best_score)
    _print_plan(config, data, model, start_epoch)
    start = time.monotonic()
    model.fit(
        data.dataset,
        epochs=config.training.epochs,
        initial_epoch=start_epoch,
        steps_per_epoch=data.steps_per_epoch,
        callbacks=callbacks,
        shuffle=False,  # the stream is in its order already
        verbose=0,
    )
    log = next(callback for callback in callbacks if isinstance(callback, TrainingLog))
    names = scorer.metrics if scorer else ()
    metrics = {name: value for name, value in log.rows[-1].items() if name in names}
    draw_training_curve(log.path, folder / CURVE, metric=names[0] if names else "AP")
    minutes = (time.monotonic() - start) / 60
    summary = f"trained {config.training.epochs - start_epoch} epochs in {minutes:.1f} min, loss {log.rows[-1]['loss']:.4g}"
    if metrics:
        watched = names[0]
        best = max(row[watched] for row in log.rows if watched in row)
        summary += f", {watched} {metrics[watched]:.3f} (best {best:.3f})"
    print(f"{summary}; checkpoints, {LOG} and {CURVE} in {folder}")
    return TrainingResult(model, metrics, folder)


def make_callbacks(
    config: Config, data: TrainingData, scorer: Scorer | None, start_epoch: int = 0, best_score: float = float("-inf")
) -> list[keras.callbacks.Callback]:
    """The callbacks of a training, in the order in which they rely on one another."""
    card = ModelCard.from_config(
        config,
        data=data.description,
        training={"seed": config.seed, "epochs": config.training.epochs, "steps_per_epoch": data.steps_per_epoch},
    )
    callbacks: list[keras.callbacks.Callback] = []
    metrics: tuple[str, ...] = ()
    if scorer:
        metrics = scorer.metrics
        callbacks.append(ValidationScore(scorer, config.training.validate_every))
    # `best.keras` is the network with the highest score of the first set; without a validation set there is none.
    watched = metrics[0] if metrics else ""
    callbacks += [
        TrainingLog(config.output / LOG, metrics, start_epoch),
        Checkpoints(config.output, card, watched, best_score),
        keras.callbacks.TensorBoard(config.output / "tensorboard", write_graph=False),
        ProgressBar(config.training.epochs, data.steps_per_epoch, start_epoch, watched, data.skipped_report),
    ]
    return callbacks


def _restore(model: keras.Model, saved: keras.Model, source: Path, expected_step: int) -> None:
    """Weights and optimizer state of a checkpoint into a compiled network."""
    if [weight.shape for weight in saved.weights] != [weight.shape for weight in model.weights]:
        raise KposeError(f"{source} holds another network ({saved.card.name}); set model.name and model.options to its")
    step = int(saved.optimizer.iterations)
    if step != expected_step:
        raise KposeError(
            f"{source} stands at step {step}, the configuration's epochs end at {expected_step}: "
            "the data, training.batch_size or training.steps_per_epoch changed; set them back"
        )
    model.set_weights(saved.get_weights())
    for mine, theirs in zip(model.optimizer.variables, saved.optimizer.variables, strict=True):
        mine.assign(theirs)


@dataclass(frozen=True)
class Scorer:
    """Scores a network on every validation set, each under its own protocol.

    Attributes:
        config: crops, codec and protocol.
        sets: whom to find.
    """

    config: Config
    sets: tuple[ValidationSet, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics, that which counts first; those of further sets begin with the set's name, such as `lspet/PCK`."""
        return tuple(self._label(number, name) for number, part in enumerate(self.sets) for name in metric_of(part.dataset).logged)

    def __call__(self, model: keras.Model) -> dict[str, float]:
        """The metrics of a network."""
        found: dict[str, float] = {}
        for number, part in enumerate(self.sets):
            score = evaluate(model, part, self.config).metrics
            found |= {self._label(number, name): score[name] for name in metric_of(part.dataset).logged}
        return found

    def _label(self, number: int, name: str) -> str:
        return name if number == 0 else f"{self.sets[number].name}/{name}"


def make_scorer(config: Config) -> Scorer:
    """The scorer of a configuration's validation sets.

    Raises:
        KposeError: when one is refused or cannot be scored under its protocol: better now than after the first epochs.
    """
    sets = validation_sets(config)
    for part in sets:
        metric_of(part.dataset).require(part)
    return Scorer(config, tuple(sets))


def _print_plan(config: Config, data: TrainingData, model: keras.Model, start_epoch: int) -> None:
    threads = os.cpu_count() or 1
    devices = [device.name for device in tf.config.list_logical_devices("GPU")] or [f"{threads} CPU threads"]
    print(f"data: {data.description}")
    print(
        f"training {config.model.name} ({count(model).params / 1e6:.2f} M parameters) on "
        f"{', '.join(devices)}: epochs {start_epoch + 1} to {config.training.epochs}, {data.steps_per_epoch} steps of "
        f"{config.training.batch_size} each; output in {config.output}"
    )
