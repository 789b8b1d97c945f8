"""Training on crop shards, on whichever backend Keras runs: JAX, PyTorch or TensorFlow, on a machine that needs neither photos nor tf.data.

    KERAS_BACKEND=jax kpose train-on-crops --crops data/crops --output runs/elsewhere
    kpose import-weights runs/elsewhere --output pose.keras          # where TensorFlow is

The network is `kpose.build_model`'s; loss, optimizer and schedule are those of `kpose.training.recipe`. All crops are decoded at the start
and stay on the device; a step sends it a few hundred bytes a person. The output folder holds `weights-STEP.npz`, `optimizer-STEP-N.npz`
and, written last, `state.json`, which names them: a training that was cut off goes on from there.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from kpose.codecs import GaussianCodec, make_codecs
from kpose.data.crop_shards import CropShards, describe, read_crop_shards
from kpose.errors import KposeError, did_you_mean
from kpose.files import read_json, write_json
from kpose.models import build_model
from kpose.skeletons import get_skeleton
from kpose.training.crop_batches import CropStream, DevicePixels, network_batch
from kpose.training.recipe import freeze, make_loss, make_optimizer, make_schedule
from kpose.weight_files import load_arrays, load_weights, save_arrays, save_weights, split_arrays

if TYPE_CHECKING:
    from kpose.config import Config

STATE, LOG = "state.json", "log.jsonl"
# So that each file passes where only small ones do.
OPTIMIZER_FILE_BYTES = 12 << 20
# The host may be so many steps ahead of the device: enough that neither waits, few enough that its clock is true.
STEPS_AHEAD = 4

Columns = dict[str, Any]


@dataclass(frozen=True)
class CropTrainingResult:
    """What a training left behind: the network, the step it stands at, its mean loss at the end, samples a second, and the folder."""

    model: keras.Model
    step: int
    loss: float
    crops_per_second: float
    folder: Path


def train_on_crops(
    crops: CropShards | str | Path,
    output: str | Path,
    overrides: Sequence[str] = (),
    *,
    config: Config | None = None,
    initial_weights: str | Path | None = None,
    minutes: float | None = None,
    checkpoint_minutes: float = 3.0,
    log_seconds: float = 5.0,
    bfloat16: bool = False,
    resume: bool = False,
) -> CropTrainingResult:
    """Train a network on decoded crops.

    Args:
        crops: the shards, or their folder.
        output: the folder for weights, state and log.
        overrides: `dotted.key=value` settings over those that the shards were written for.
        config: settings to take instead of those.
        initial_weights: to start from, see `kpose.weight_files.load_weights`. The configuration's own files are not looked for.
        minutes: stop after so many, wherever the schedule stands; `resume` goes on.
        checkpoint_minutes: between files of weights.
        log_seconds: between lines of the log.
        bfloat16: compute in bfloat16, keep weights, normalisation and loss in float32.
        resume: go on from the output folder's state. The samples are those of a training without interrupt.

    Raises:
        KposeError: when shards, settings, weights or state are refused, or the folder already holds a training and `resume` is not set.
    """
    begin = time.monotonic()
    folder = Path(output)
    state = _read_state(folder, resume)
    crops = crops if isinstance(crops, CropShards) else read_crop_shards(crops)
    settings = config if config is not None else settings_of(crops.settings, overrides)
    _require_known(settings)
    if crops.skeleton != get_skeleton(settings.skeleton):
        raise KposeError(
            f"the crops are annotated for skeleton {crops.skeleton.name!r}, 'skeleton' is {settings.skeleton!r}; make them equal"
        )
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if bfloat16 else "float32")
    try:
        keras.utils.set_random_seed(settings.seed)
        size = settings.model.input_size
        model = build_model(settings.model.name, crops.skeleton.num_joints, (size[0], size[1]), **settings.model.options)
    finally:
        keras.config.set_dtype_policy(policy)
    if initial_weights and state is None:
        load_weights(model, initial_weights)
    freeze(model, settings.model.frozen)
    codecs = _codecs(settings, model)
    steps_per_epoch = settings.training.steps_per_epoch or max(1, len(crops) // settings.training.batch_size)
    planned = settings.training.epochs * steps_per_epoch
    losses = make_loss(settings, model)
    optimizer = make_optimizer(settings, steps_per_epoch)
    optimizer.build(model.trainable_variables)
    step = 0 if state is None else _restore(folder, state, model, optimizer, crops)
    if step >= planned:
        raise KposeError(f"{folder} has finished its {planned} steps; raise training.epochs to go on")

    stored = DevicePixels.of(crops.decode())
    ready = time.monotonic() - begin
    trainer = _TRAINERS[keras.backend.backend()](model, optimizer, _objective(settings, codecs, losses), stored)
    stream, schedule = CropStream(crops, settings), make_schedule(settings, steps_per_epoch)
    print(
        f"{describe(crops)}\ntraining {settings.model.name} at {size[0]}x{size[1]} on {keras.backend.backend()}: steps {step + 1} to "
        f"{planned} of {settings.training.batch_size} people; {stored.pixels.shape[0] / 1e6:.0f} M pixels decoded after {ready:.0f} s",
        flush=True,
    )
    log = _Log(folder / LOG, settings.training.batch_size, steps_per_epoch, schedule, log_seconds, step)
    saved = time.monotonic()
    while step < planned and (minutes is None or time.monotonic() - begin < 60 * minutes):
        log.add(trainer.step(stream.batch(step).columns()))
        step += 1
        if time.monotonic() - saved > 60 * checkpoint_minutes:
            log.write()
            _save(folder, trainer, step, planned, settings, crops, log.loss)
            log.restart()
            saved = time.monotonic()
    log.write()
    _save(folder, trainer, step, planned, settings, crops, log.loss)
    print(f"step {step} of {planned}, loss {log.loss:.4g}, {log.crops_per_second:.0f} crops a second; weights and state in {folder}")
    return CropTrainingResult(model, step, log.loss, log.crops_per_second, folder)


# --- settings ------------------------------------------------------------------------------------------------------------------------


def settings_of(values: dict[str, Any], overrides: Sequence[str] = ()) -> Config:
    """The settings that travel with crops, with some of them replaced.

    Args:
        values: a whole configuration as plain values, defaults included.
        overrides: `dotted.key=value` each, the value in JSON or plain text; the key must be there.

    Returns:
        A `Config`; where pydantic is not installed, something with the same attributes, whose values were checked when they were written.

    Raises:
        KposeError: when a key is unknown or a value is refused.
    """
    values = json.loads(json.dumps(values))
    for override in overrides:
        key, _, text = override.partition("=")
        *sections, name = key.split(".")
        target: Any = values
        for section in sections:
            target = target.get(section) if isinstance(target, dict) else None
        if not isinstance(target, dict) or (name not in target and sections[-1:] != ["options"]):
            near = did_you_mean(name, target) if isinstance(target, dict) else ""
            raise KposeError(f"override {override!r}: the settings of the crops have no {key!r}{near}")
        try:
            target[name] = json.loads(text)
        except ValueError:
            target[name] = text
    try:
        from kpose.config import parse_config
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "pydantic":
            raise
        sections_by_name = {name: SimpleNamespace(**value) if isinstance(value, dict) else value for name, value in values.items()}
        return SimpleNamespace(**sections_by_name)  # type: ignore[return-value]
    return parse_config(values, "the settings of the crops")


# What only `kpose train` does, and what it is where nobody asks for it.
_NOT_HERE: dict[str, Any] = {
    "batch_size_of": "all_replicas",
    "accumulation_steps": 1,
    "gradient_clipping": None,
    "weight_averaging": None,
    "precision": "float32",
    "jit_compile": False,
    "synchronized_batch_norm": False,
}


def _require_known(settings: Config) -> None:
    """Refuse settings that would be without any effect."""
    for name, default in _NOT_HERE.items():
        value = getattr(settings.training, name, default)
        if value != default:
            raise KposeError(f"training on crops knows no training.{name} (it is {value!r}); leave it out, or train with `kpose train`")


def _codecs(settings: Config, model: keras.Model) -> list[GaussianCodec]:
    size = settings.model.input_size
    codecs = make_codecs(settings.codec, (size[0], size[1]), [output.shape[1:3] for output in model.outputs])
    gaussian = [codec for codec in codecs if isinstance(codec, GaussianCodec)]
    if len(gaussian) < len(codecs):
        raise KposeError(
            f"training on crops knows no codec {settings.codec.name!r}; set codec.name to gaussian, or train with `kpose train`"
        )
    return gaussian


# --- one step, on each backend -------------------------------------------------------------------------------------------------------

Objective = Callable[[Callable[[Any], Any], DevicePixels, Columns], Any]
"""The loss, of what the network makes of images, all crops, and the columns of a batch."""


def _objective(settings: Config, codecs: Sequence[GaussianCodec], losses: Any) -> Objective:
    parts = losses if isinstance(losses, list) else [losses]

    def objective(network: Callable[[Any], Any], stored: DevicePixels, columns: Columns) -> Any:
        image, heatmaps, weights = network_batch(stored, columns, settings, codecs)
        outputs = network(image)
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        return sum(loss(target, output, weight) for loss, target, output, weight in zip(parts, heatmaps, outputs, weights, strict=True))

    return objective


class _TorchTrainer:
    def __init__(self, model: keras.Model, optimizer: keras.optimizers.Optimizer, objective: Objective, stored: DevicePixels) -> None:
        self.model, self.optimizer, self.objective, self.stored = model, optimizer, objective, stored
        self.trained = model.trainable_variables  # looked up once: Keras walks through all layers for them

    def step(self, columns: Columns) -> Any:
        """One step of descent on a batch in NumPy; returns its loss, which may still be in the making."""
        import torch

        tensors = {name: ops.convert_to_tensor(column) for name, column in columns.items()}
        self.model.zero_grad()
        loss = self.objective(lambda image: self.model(image, training=True), self.stored, tensors)
        loss.backward()
        with torch.no_grad():
            self.optimizer.apply([variable.value.grad for variable in self.trained], self.trained)
        return loss.detach()

    def settle(self) -> None:
        """Bring the weights and the optimizer's state into the variables."""


class _TensorFlowTrainer(_TorchTrainer):
    def __init__(self, *arguments: Any) -> None:
        import tensorflow as tf

        super().__init__(*arguments)

        def step(columns: Columns) -> Any:
            with tf.GradientTape() as tape:
                loss = self.objective(lambda image: self.model(image, training=True), self.stored, columns)
            self.optimizer.apply(tape.gradient(loss, self.trained), self.trained)
            return loss

        self._step = tf.function(step, autograph=False)

    def step(self, columns: Columns) -> Any:
        return self._step({name: ops.convert_to_tensor(column) for name, column in columns.items()})


class _JaxTrainer(_TorchTrainer):
    def __init__(self, *arguments: Any) -> None:
        import jax  # type: ignore[import-not-found,unused-ignore]

        super().__init__(*arguments)
        model, optimizer = self.model, self.optimizer

        def step(state: Any, stored: DevicePixels, columns: Columns) -> Any:
            trained, others, moments = state

            def loss_of(trained: Any, others: Any) -> Any:
                updated = others

                def network(image: Any) -> Any:
                    nonlocal updated
                    outputs, updated = model.stateless_call(trained, others, image, training=True)
                    return outputs

                return self.objective(network, stored, columns), updated

            (loss, others), gradients = jax.value_and_grad(loss_of, has_aux=True)(trained, others)
            trained, moments = optimizer.stateless_apply(moments, gradients, trained)
            return (trained, others, moments), loss

        self._variables = [self.trained, model.non_trainable_variables, optimizer.variables]
        # Copies, because a step takes the memory of the state that it is given.
        self._state = [[jax.numpy.array(variable.value) for variable in part] for part in self._variables]
        self._step = jax.jit(step, donate_argnums=0)

    def step(self, columns: Columns) -> Any:
        self._state, loss = self._step(self._state, self.stored, columns)
        return loss

    def settle(self) -> None:
        import jax

        for variables, values in zip(self._variables, self._state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(jax.numpy.array(value))


_TRAINERS: dict[str, type[_TorchTrainer]] = {"torch": _TorchTrainer, "jax": _JaxTrainer, "tensorflow": _TensorFlowTrainer}


# --- log and state -------------------------------------------------------------------------------------------------------------------


class _Log:
    """A line of JSON every few seconds, on the screen and in a file; keeps the host from running far ahead of the device."""

    def __init__(self, path: Path, batch_size: int, steps_per_epoch: int, schedule: Any, seconds: float, step: int) -> None:
        self.path, self.batch_size, self.steps_per_epoch, self.schedule, self.seconds = path, batch_size, steps_per_epoch, schedule, seconds
        self.step = step
        self.loss = self.crops_per_second = float("nan")
        self._pending: deque[Any] = deque()
        self._sum, self._count = 0.0, 0
        self._begin = self._since = time.monotonic()
        path.parent.mkdir(parents=True, exist_ok=True)

    def add(self, loss: Any) -> None:
        """Take note of a step whose loss the device may still be working on."""
        self._pending.append(loss)
        if len(self._pending) > STEPS_AHEAD:
            self._read()
        if time.monotonic() - self._since > self.seconds:
            self.write()

    def write(self) -> None:
        """A line on all steps since the last one, once the device is done with them."""
        while self._pending:
            self._read()
        if not self._count:
            return
        now = time.monotonic()
        self.loss = self._sum / self._count
        self.crops_per_second = self._count * self.batch_size / (now - self._since)
        line = {
            "step": self.step,
            "epoch": round(self.step / self.steps_per_epoch, 3),
            "loss": self.loss,
            "learning_rate": float(ops.convert_to_numpy(self.schedule(self.step))),
            "crops_per_second": round(self.crops_per_second, 1),
            "seconds": round(now - self._begin, 1),
        }
        if not np.isfinite(self.loss):
            raise KposeError(f"the loss is no longer a number at step {self.step}; lower training.learning_rate, or leave out --bfloat16")
        print(json.dumps(line), flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._sum, self._count, self._since = 0.0, 0, now

    def restart(self) -> None:
        """Leave the time since the last line out of the next one's speed."""
        self._since = time.monotonic()

    def _read(self) -> None:
        self._sum += float(ops.convert_to_numpy(self._pending.popleft()))
        self._count += 1
        self.step += 1


def _save(folder: Path, trainer: _TorchTrainer, step: int, planned: int, settings: Config, crops: CropShards, loss: float) -> None:
    """Weights and optimizer under names of their own, then the state that names them, then away with the former ones."""
    trainer.settle()
    weights = f"weights-{step:07d}.npz"
    save_weights(trainer.model, folder / weights)
    groups = split_arrays([ops.convert_to_numpy(variable) for variable in trainer.optimizer.variables], OPTIMIZER_FILE_BYTES)
    files = [f"optimizer-{step:07d}-{number}.npz" for number in range(len(groups))]
    for file, arrays in zip(files, groups, strict=True):
        save_arrays(folder / file, arrays)
    values = settings.model_dump(mode="json") if hasattr(settings, "model_dump") else _plain(settings)
    state = {
        "step": step,
        "planned_steps": planned,
        "loss": loss if np.isfinite(loss) else None,
        "backend": keras.backend.backend(),
        "data": describe(crops),
        "crops": crops.digest,
        "weights": weights,
        "optimizer": files,
        "settings": values,
    }
    write_json(state, folder / STATE, indent=1)
    for pattern in ("weights-*.npz", "optimizer-*.npz"):
        for path in folder.glob(pattern):
            if path.name != weights and path.name not in files:
                with suppress(OSError):
                    path.unlink()


def _plain(settings: Any) -> dict[str, Any]:
    return {name: vars(value) if isinstance(value, SimpleNamespace) else value for name, value in vars(settings).items()}


def read_state(folder: str | Path) -> dict[str, Any]:
    """Where the training of a folder stands: step, files of its weights and optimizer (by name, in the folder), settings.

    Raises:
        KposeError: when there is none or the file is damaged.
    """
    path = Path(folder) / STATE
    if not path.is_file():
        raise KposeError(f"there is no training on crops in {folder}: {STATE} is missing")
    state = read_json(path)
    kinds = {
        "step": int,
        "planned_steps": int,
        "backend": str,
        "data": str,
        "crops": str,
        "weights": str,
        "optimizer": list,
        "settings": dict,
    }
    if not isinstance(state, dict) or not all(isinstance(state.get(name), kind) for name, kind in kinds.items()):
        raise KposeError(f"{path} is damaged; copy it anew, or start from weights by --initial-weights")
    for name in (state["weights"], *state["optimizer"]):
        if not isinstance(name, str) or name != Path(name).name or not name.endswith(".npz"):
            raise KposeError(f"{path} names {name!r}, which is no .npz file of its folder")
    return state


def _read_state(folder: Path, resume: bool) -> dict[str, Any] | None:
    exists = (folder / STATE).exists()
    if exists and not resume:
        raise KposeError(f"{folder} already holds a training; add --resume to go on with it, or give another folder")
    if resume and not exists:
        raise KposeError(f"there is no {folder / STATE} to resume from; leave out --resume")
    return read_state(folder) if resume else None


def _restore(folder: Path, state: dict[str, Any], model: keras.Model, optimizer: keras.optimizers.Optimizer, crops: CropShards) -> int:
    """Weights and optimizer as they stood; returns the step."""
    if state["crops"] != crops.digest:
        raise KposeError(f"{folder} was trained on other crops; go on with those, or start from its weights by --initial-weights")
    load_weights(model, folder / state["weights"])
    arrays = [array for file in state["optimizer"] for _, array in sorted(load_arrays(folder / file).items())]
    if [array.shape for array in arrays] != [tuple(variable.shape) for variable in optimizer.variables]:
        raise KposeError(
            f"the optimizer files of {folder} are those of another optimizer or network; set training.optimizer and model to its"
        )
    for variable, array in zip(optimizer.variables, arrays, strict=True):
        variable.assign(array)
    if int(ops.convert_to_numpy(optimizer.iterations)) != state["step"]:
        raise KposeError(f"{folder / STATE} says step {state['step']}, its optimizer another; copy the folder anew")
    return int(state["step"])
