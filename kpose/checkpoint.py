"""Checkpoints that explain themselves: a `.keras` file with a `ModelCard` inside, written whole or not at all.

kpose.save_model(model, "pose.keras", card)
model = kpose.load_model("pose.keras")
model.card.skeleton["joint_names"]
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pydantic
from pydantic import BaseModel, ConfigDict, Field

from kpose.config import CodecConfig, Config, Positive
from kpose.errors import KposeError
from kpose.files import replacing
from kpose.skeletons import Skeleton, get_skeleton
from kpose.weights.pretrained import find_checkpoint

if TYPE_CHECKING:
    import keras

    from kpose.codecs import Codec

CARD_NAME = "card.json"
# What Keras calls the parts of a file.
_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
# Kernels of so many values or more are halved. In lite_mobilenet_v3 those are 20 of 73, with 84 % of the weights; rounding the small ones
# would save little and change the heatmaps eight times as much (docs/decisions/shipped-weights.md).
HALVED_KERNEL_VALUES = 1 << 16
# Far above any real file, far below what would harm a machine that opens a hostile one.
LARGEST_CARD_BYTES = 1 << 20
LARGEST_CONFIG_BYTES = 64 << 20
LARGEST_WEIGHTS_BYTES = 8 << 30

Side = Annotated[int, Field(gt=0, le=8192)]


class ModelCard(BaseModel):
    """All that it takes to use a network: it travels inside the checkpoint.

    Attributes:
        name: name of the network, as `kpose.build_model` takes it.
        options: its options.
        skeleton: `Skeleton.to_dict()`.
        input_size: height and width of the crop.
        mean, std: of RGB in 0..1; the network's input is `(rgb / 255 - mean) / std`.
        codec: how its heatmaps become keypoints.
        box_padding: factor by which a person's box is grown before it is cut out.
        data: what it was trained with, and under which licences that is.
        licence: of the weights, as far as known, and what they may be used for.
        intended_use: what it is good for, and what it is not.
        score: the best score on the validation set, by metric.
        score_interval: lower and upper end of the 95 % confidence interval of scores, by metric.
        protocol: how the score was measured: people, boxes, test-time augmentation.
        training: where the training stands: epoch, step, seed, best score.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    name: str
    options: dict[str, Any] = {}
    skeleton: dict[str, Any]
    input_size: tuple[Side, Side]
    mean: tuple[float, float, float]
    std: tuple[Positive, Positive, Positive]
    codec: CodecConfig
    box_padding: Positive
    data: str = ""
    licence: str = ""
    intended_use: str = ""
    score: dict[str, float] = {}
    score_interval: dict[str, tuple[float, float]] = {}
    protocol: str = ""
    training: dict[str, Any] = {}

    @classmethod
    def from_config(cls, config: Config, **fields: Any) -> ModelCard:
        """The card of a network that `config` describes; further `fields` as in the class."""
        return cls(
            name=config.model.name,
            options=config.model.options,
            skeleton=get_skeleton(config.skeleton).to_dict(),
            input_size=config.model.input_size,
            mean=config.data.mean,
            std=config.data.std,
            codec=config.codec,
            box_padding=config.data.box_padding,
            **fields,
        )

    def make_skeleton(self) -> Skeleton:
        """The skeleton that the card describes."""
        return Skeleton.from_dict(self.skeleton, source="card")

    def make_codec(self, heatmap_size: tuple[int, int]) -> Codec:
        """The codec for heatmaps of this height and width."""
        from kpose.codecs import make_codec

        return make_codec(self.codec, self.input_size, heatmap_size)

    def require_match(self, config: Config, source: str | Path, start: bool = False) -> None:
        """Refuse a checkpoint that another configuration made.

        Args:
            config: the experiment.
            source: the checkpoint's file, for messages.
            start: whether the weights only start another training, which may have crops of another size and scale, and maps of the same
                kind that are made otherwise.

        Raises:
            KposeError: when joints, the codec's name, normalisation or, unless `start`, the codec, input size or box padding differ.
        """
        wanted = ModelCard.from_config(config)
        mine, other = self.make_skeleton(), wanted.make_skeleton()
        if mine.joint_names != other.joint_names:
            raise KposeError(
                f"{source} was trained for skeleton {mine.name!r} ({mine.num_joints} joints), the configuration asks for "
                f"{other.name!r} ({other.num_joints} joints); set 'skeleton' to the checkpoint's"
            )
        for field, key in (
            ("input_size", "model.input_size"),
            ("codec", "codec"),
            ("mean", "data.mean"),
            ("std", "data.std"),
            ("box_padding", "data.box_padding"),
        ):
            if start and field in ("input_size", "box_padding"):
                continue
            trained, asked = getattr(self, field), getattr(wanted, field)
            if field == "codec":
                # Another decoding, of the same maps, is a choice of the test; any change that leaves a peak at the joint is soon learned.
                free = set(CodecConfig.model_fields) - {"name"} if start else {"decoding"}
                asked = asked.model_copy(update={key: getattr(trained, key) for key in free})
            if trained != asked:
                raise KposeError(f"{source} was trained with {key} = {trained}, the configuration says {asked}; make them equal")


def save_model(model: keras.Model, path: str | Path, card: ModelCard, *, half_precision: bool = False) -> None:
    """Write network, optimizer state (where compiled) and card as one `.keras` file.

    An interrupt or a full disk leaves the former file as it was.

    Args:
        model: the network.
        path: the file, `.keras`.
        card: what it takes to use the network.
        half_precision: write a small file to be passed on, not to be trained further: large kernels as float16 (see
            `HALVED_KERNEL_VALUES`), all else as it is, no loss, optimizer or date, compressed. `load_model`, and Keras alone, read it as
            any other; the network computes in float32. The same network and versions give the same bytes.

    Raises:
        KposeError: when the name does not end in `.keras`, the file cannot be written, or a kernel does not fit into float16.
    """
    import keras

    path = Path(path)
    if path.suffix != ".keras":
        raise KposeError(f"cannot save to {path}: a checkpoint's name ends in .keras")
    with replacing(path) as partial:
        keras.saving.save_model(model, partial)
        if half_precision:
            _condense(partial, path)
        with zipfile.ZipFile(partial, "a") as archive:
            _write_entry(archive, CARD_NAME, card.model_dump_json(indent=2).encode())


def _write_entry(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    # An entry of one's own making has no date but 1980: the same content gives the same bytes.
    archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


def _condense(partial: Path, path: Path) -> None:
    """Rewrite Keras' file `partial`, on its way to `path`, as `save_model` describes `half_precision`."""
    with zipfile.ZipFile(partial) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    config, metadata = json.loads(contents[_CONFIG]), json.loads(contents[_METADATA])
    config.pop("compile_config", None)
    metadata.pop("date_saved", None)
    contents |= {_CONFIG: json.dumps(config).encode(), _METADATA: json.dumps(metadata).encode()}
    contents[_WEIGHTS] = _halve_kernels(contents[_WEIGHTS], path)
    with zipfile.ZipFile(partial, "w") as archive:
        for name, content in contents.items():
            _write_entry(archive, name, content)


def _halve_kernels(weights: bytes, path: Path) -> bytes:
    """Keras' HDF5 file of weights, without the optimizer's, with large kernels as float16: Keras assigns what it reads, of any type."""
    import h5py

    largest = np.finfo(np.float16).max
    result = io.BytesIO()
    with h5py.File(io.BytesIO(weights)) as source, h5py.File(result, "w") as target:

        def copy(name: str, node: h5py.Group | h5py.Dataset) -> None:
            if name.split("/", 1)[0] == "optimizer":
                return
            if isinstance(node, h5py.Group):
                copied = target.require_group(name)
            else:
                values = node[()]
                if values.ndim >= 2 and values.size >= HALVED_KERNEL_VALUES and np.issubdtype(values.dtype, np.floating):
                    if not (np.abs(values) <= largest).all():
                        raise KposeError(
                            f"cannot save {path} in half precision: {name} holds values beyond {largest:.0f}, where float16 ends, or "
                            "that are not finite; save it in full precision"
                        )
                    values = values.astype(np.float16)
                copied = target.create_dataset(name, data=values)
            copied.attrs.update(node.attrs)

        source.visititems(copy)
    return result.getvalue()


def read_card(source: str | Path) -> ModelCard:
    """The card of a checkpoint, without loading its weights.

    Args:
        source: a file of `save_model`, or the name of a network that comes with kpose.

    Raises:
        KposeError: when the file is missing, truncated, too large, or not one of kpose's.
    """
    path = find_checkpoint(source)
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
            if CARD_NAME not in sizes:
                raise KposeError(f"{path} has no {CARD_NAME} inside: it was not written by kpose.save_model")
            limits = {CARD_NAME: LARGEST_CARD_BYTES, _CONFIG: LARGEST_CONFIG_BYTES, _METADATA: LARGEST_CARD_BYTES}
            for name, size in sizes.items():
                if size > limits.get(name, LARGEST_WEIGHTS_BYTES):
                    raise KposeError(f"{path}: {name} inside claims {size} bytes, more than any checkpoint of kpose has; file refused")
            _require_known_classes(json.loads(archive.read(_CONFIG)), path)
            return ModelCard.model_validate_json(archive.read(CARD_NAME))
    except (zipfile.BadZipFile, KeyError, EOFError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise KposeError(f"{path} is truncated or not a .keras file: {error}") from error
    except pydantic.ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise KposeError(f"{path}: its card is not valid: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error


def _require_known_classes(node: Any, path: Path) -> None:
    """A model file names the Python classes to build: let it name those of Keras and kpose only."""
    if isinstance(node, dict):
        module, registered = node.get("module"), node.get("registered_name")
        if isinstance(module, str) and "class_name" in node:
            from_keras = module == "keras" or module.startswith("keras.") or module == "builtins"
            from_kpose = isinstance(registered, str) and registered.startswith("kpose>")
            if not (from_keras or from_kpose) or node["class_name"] == "__lambda__":
                raise KposeError(
                    f"{path} asks for the class {node['class_name']!r} of {module!r}, which is not Keras' or kpose's; file refused"
                )
        for value in node.values():
            _require_known_classes(value, path)
    elif isinstance(node, list):
        for value in node:
            _require_known_classes(value, path)


def load_model(source: str | Path, compile: bool = False) -> keras.Model:
    """Read a checkpoint.

    Args:
        source: a file of `save_model`, or the name of a network that comes with kpose, see `kpose.list_pretrained`.
        compile: also restore loss, optimizer and its state.

    Returns:
        The network, with its `ModelCard` as `.card`.

    Raises:
        KposeError: see `read_card`; also when the weights are damaged.
    """
    import keras

    # Registers the classes that a checkpoint may name.
    import kpose.losses
    import kpose.models
    import kpose.training.schedules  # noqa: F401

    path = find_checkpoint(source)
    card = read_card(path)
    try:
        model = keras.saving.load_model(path, compile=compile, safe_mode=True)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError) as error:
        raise KposeError(f"{path} cannot be read, it is damaged: {' '.join(str(error).split())[:200]}") from error
    model.card = card
    return model
