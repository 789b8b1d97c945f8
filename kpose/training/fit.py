"""Training: `train(config)` is plain `model.compile` and `model.fit` with kpose's data, loss, optimizer, step and callbacks.

In a notebook the same parts, without what `kpose.training.step` adds, give the same result:

    config = kpose.load_config("configs/synthetic/lite_mobilenet_v3_128x96.yaml")
    model = make_model(config)
    data = training_data(config, model)
    model.compile(make_optimizer(config, data.steps_per_epoch), make_loss(config, model), jit_compile=False)
    model.fit(data.dataset, epochs=config.training.epochs, steps_per_epoch=data.steps_per_epoch)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras

from kpose.checkpoint import ModelCard, load_model
from kpose.config import Config, dump_config
from kpose.data import TrainingData, ValidationSet, training_data, validation_sets
from kpose.errors import KposeError
from kpose.evaluation import evaluate
from kpose.evaluation.metrics import metric_of
from kpose.files import replacing
from kpose.models import build_model, count
from kpose.skeletons import get_skeleton
from kpose.training.bottleneck import BottleneckReport, DataWait, Trace
from kpose.training.callbacks import Checkpoints, ProgressBar, States, TrainingLog, ValidationScore
from kpose.training.distribution import Workplace, describe, distribute, make_workplace, shared_batch
from kpose.training.preemption import StopSignal
from kpose.training.recipe import freeze, make_loss, make_optimizer
from kpose.training.state import Progress, State, list_states, read_newest_state, remove_partial_states
from kpose.training.step import StepSettings, TrainingModel
from kpose.visualize import draw_training_curve
from kpose.weights import load_torch, load_trunk

LAST, BEST, LOG, CURVE, SETTINGS, STATES = "last.keras", "best.keras", "training.csv", "curve.png", "config.yaml", "states"

Builder = Callable[..., keras.Model]


@dataclass(frozen=True)
class TrainingResult:
    """What a training left behind: the network as it ended, its metrics, the folder with checkpoints, log and curve."""

    model: keras.Model
    metrics: dict[str, float]
    folder: Path


def make_model(config: Config, build: Builder | None = None) -> keras.Model:
    """The network of a configuration, with the weights it is to start from.

    Args:
        config: the experiment.
        build: makes the network, as `kpose.build_model` does, from `model.name`, the number of joints, `model.input_size` and
            `model.options`; default: `kpose.build_model` itself.

    Raises:
        KposeError: when the network, its options or a weights file is refused.
    """
    model = _build(config, build)
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


def _build(config: Config, build: Builder | None) -> keras.Model:
    """The network with fresh weights: the same ones each time."""
    keras.utils.set_random_seed(config.seed)
    skeleton = get_skeleton(config.skeleton)
    return (build or build_model)(config.model.name, skeleton.num_joints, config.model.input_size, **config.model.options)


def make_training_model(config: Config, network: keras.Model, build: Builder | None = None) -> TrainingModel:
    """A network as a configuration wants it trained: its precision, and what a step does.

    Args:
        config: the experiment.
        network: of `make_model`. It is what is scored and saved: trained itself, or, where precision or averaging want another one,
            kept up to date.
        build: see `make_model`.
    """
    training = config.training
    trained = network
    if training.precision != "float32" or training.weight_averaging:
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy("float32" if training.precision == "float32" else f"mixed_{training.precision}")
        try:
            trained = _build(config, build)
        finally:
            keras.config.set_dtype_policy(policy)
        trained.set_weights(network.get_weights())
        freeze(trained, config.model.frozen)
    if training.synchronized_batch_norm:
        for layer in trained.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True
    settings = StepSettings(
        training.accumulation_steps,
        training.gradient_clipping,
        training.weight_averaging,
        training.precision == "float16",
        training.jit_compile,
    )
    return TrainingModel(trained, network, settings)


def train(config: Config, resume: bool = False, build: Builder | None = None, profile: bool = False) -> TrainingResult:
    """Train as the configuration says; everything goes to its output folder.

    Args:
        config: the experiment.
        resume: go on from the folder's newest state, wherever the training was cut off. Samples and result are those of a training
            without interrupt, to the last digit where the machine's arithmetic is deterministic.
        build: makes the network, for one of your own; see `make_model`.
        profile: record a few steps for TensorBoard's profiler.

    Returns:
        The network after the last epoch, its metrics and the folder.

    Raises:
        KposeError: when data, settings or the state are refused, or the folder already holds a training and `resume` is not set.
        Preempted: when SIGTERM came; the state has been saved.
    """
    folder = config.output
    if not resume and ((folder / LAST).exists() or list_states(folder / STATES)):
        raise KposeError(f"{folder} already holds a training; add --resume to go on with it, or set another 'output'")
    state = _read_state(config, folder) if resume else None
    workplace = make_workplace(config.distribution)
    config = shared_batch(config, workplace)
    begin = state.progress if state else None
    start_step = begin.step if begin else 0
    workplace.require_agreement(start_step, f"the workers find different states in {folder}; it must be a folder that they share")
    with workplace.strategy.scope():
        network = make_model(config, build)
        loss = make_loss(config, network)
        data = training_data(config, network, start_step, workplace.worker, workplace.workers)
        model = make_training_model(config, network, build)
        optimizer = make_optimizer(config, data.steps_per_epoch)
        model.compile(optimizer, loss, jit_compile=False, auto_scale_loss=False)
        model.build_losses()
        # Built here and not inside of the first step, which TensorFlow would then trace twice.
        optimizer.build(model.trainable_variables)
        if state:
            _restore(model, state, config, data)
    if begin is None:
        card = ModelCard.from_config(config).model_dump_json()
        begin = Progress(0, 0, 0.0, None, 0.0, data.steps_per_epoch, config.training.batch_size, config.seed, card)
    model.go_on_within_epoch(begin.steps_within_epoch, begin.mean_loss)
    scorer = make_scorer(config) if config.data.validation else None
    stop = StopSignal()
    callbacks = make_callbacks(config, data, scorer, begin, stop, workplace)
    dataset = data.dataset
    if config.distribution.strategy == "single":
        # Under a strategy it is the strategy's own buffer that waits, which says little about the steps.
        wait = DataWait()
        dataset = wait.watch(dataset)
        callbacks.append(BottleneckReport(wait, config.training.batch_size))
    if profile and workplace.is_chief:
        callbacks.append(Trace(folder / "tensorboard"))
    if workplace.is_chief:
        remove_partial_states(folder / STATES)
        with replacing(folder / SETTINGS) as partial:
            partial.write_text(dump_config(config), encoding="utf-8")
        _print_plan(config, data, network, begin, workplace)
    start = time.monotonic()
    with stop.caught():
        model.fit(
            distribute(dataset, config, workplace),
            epochs=config.training.epochs,
            initial_epoch=begin.epoch,
            steps_per_epoch=data.steps_per_epoch,
            callbacks=callbacks,
            shuffle=False,  # the stream is in its order already
            verbose=0,
        )
    metrics = _finish(config, callbacks, scorer, begin, time.monotonic() - start) if workplace.is_chief else {}
    # Who left before the chief has written everything would end the others too.
    workplace.greatest(0.0)
    return TrainingResult(model.finish(), metrics, folder)


def _finish(
    config: Config, callbacks: list[keras.callbacks.Callback], scorer: Scorer | None, begin: Progress, seconds: float
) -> dict[str, float]:
    """The curve and the last line; the metrics of the last epoch."""
    log = next(callback for callback in callbacks if isinstance(callback, TrainingLog))
    names = scorer.metrics if scorer else ()
    metrics = {name: value for name, value in log.rows[-1].items() if name in names}
    draw_training_curve(log.path, config.output / CURVE, metric=names[0] if names else "AP")
    done = config.training.epochs - begin.epoch - begin.steps_within_epoch / begin.steps_per_epoch
    summary = f"trained {done:.4g} epochs in {seconds / 60:.1f} min, loss {log.rows[-1]['loss']:.4g}"
    if metrics:
        watched = names[0]
        best = max(row[watched] for row in log.rows if watched in row)
        summary += f", {watched} {metrics[watched]:.3f} (best {best:.3f})"
    print(f"{summary}; checkpoints, {LOG} and {CURVE} in {config.output}")
    return metrics


def make_callbacks(
    config: Config, data: TrainingData, scorer: Scorer | None, begin: Progress, stop: StopSignal, workplace: Workplace
) -> list[keras.callbacks.Callback]:
    """The callbacks of a training, in the order in which they rely on one another; of a worker that is not the chief few."""
    card = ModelCard.from_config(
        config,
        data=data.description,
        training={"seed": config.seed, "epochs": config.training.epochs, "steps_per_epoch": data.steps_per_epoch},
    )
    metrics = scorer.metrics if scorer else ()
    # `best.keras` is the network with the highest score of the first set; without a validation set there is none.
    watched = metrics[0] if metrics else ""
    log = TrainingLog(config.output / LOG, metrics, begin.epoch, begin.seconds)
    checkpoints = Checkpoints(config.output, card, watched, float("-inf") if begin.best_score is None else begin.best_score)
    states = States(config.output / STATES, begin, checkpoints, log, config.training.save_every_minutes, stop, workplace)
    if not workplace.is_chief:
        return [states]
    callbacks: list[keras.callbacks.Callback] = []
    if scorer:
        callbacks.append(ValidationScore(scorer, config.training.validate_every))
    return [
        *callbacks,
        log,
        checkpoints,
        keras.callbacks.TensorBoard(config.output / "tensorboard", write_graph=False),
        ProgressBar(config.training.epochs, data.steps_per_epoch, begin.epoch, watched, data.skipped_report),
        states,
    ]


def _read_state(config: Config, folder: Path) -> State:
    """The newest state, if it is one of this configuration's."""
    state = read_newest_state(folder / STATES)
    ModelCard.model_validate_json(state.progress.card).require_match(config, state.path)
    if state.progress.epoch >= config.training.epochs:
        raise KposeError(f"{folder} has finished its {state.progress.epoch} epochs; raise training.epochs to go on")
    return state


def _restore(model: TrainingModel, state: State, config: Config, data: TrainingData) -> None:
    """Weights and optimizer state of a former run into a compiled network."""
    for name, now in (("steps_per_epoch", data.steps_per_epoch), ("batch_size", config.training.batch_size), ("seed", config.seed)):
        then = getattr(state.progress, name)
        if then != now:
            raise KposeError(
                f"{state.path} is of a training with {name} {then}, the configuration and its data make it {now}: the people would come in "
                "another order; set them back"
            )
    state.restore(model)


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


def _print_plan(config: Config, data: TrainingData, network: keras.Model, begin: Progress, workplace: Workplace) -> None:
    training = config.training
    print(f"data: {data.description}")
    precision = "" if training.precision == "float32" else f" in {training.precision}"
    first = begin.epoch + 1
    within = f" (step {begin.steps_within_epoch + 1})" if begin.steps_within_epoch else ""
    print(
        f"training {config.model.name} ({count(network).params / 1e6:.2f} M parameters){precision} on {describe(config, workplace)}; "
        f"epochs {first}{within} to {training.epochs}, {data.steps_per_epoch} steps each; output in {config.output}"
    )
