"""Configuration: one YAML file per experiment, checked before anything runs, with dotted overrides from the command line.

    config = load_config("configs/coco/lite_mobilenet_v3_256x192.yaml", ["training.epochs=10"])

Every setting has one place below; its comment is its documentation. Paths in a file are relative to the working directory, but for the
one of `extends`, a file's key of its own: `extends: ../recipes/hrnet_coco.yaml`, relative to the file, names a configuration whose
settings hold where this one is silent. Sections (and other mappings) are merged key by key; a list replaces the list.
"""

from __future__ import annotations

import os
import re
import reprlib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from kpose.errors import KposeError, nearest
from kpose.yaml_files import format_yaml, parse_yaml, read_yaml

# Far more than a row, its recipe and its dataset need.
MOST_EXTENSIONS = 8

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False, protected_namespaces=())

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _refuse_booleans_as_numbers(cls, value: Any, info: pydantic.ValidationInfo) -> Any:
        # pydantic takes yes and no for 1 and 0.
        items = value if isinstance(value, (list, tuple)) else [value]
        if cls.model_fields[str(info.field_name)].annotation is not bool and any(isinstance(item, bool) for item in items):
            raise ValueError("true and false (yes, no, on, off) are not valid here")
        return value


class ModelConfig(_Section):
    """The network."""

    name: str = "lite_mobilenet_v3"  # as `kpose.build_model` knows it
    input_size: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]] = (256, 192)  # height, width
    options: dict[str, Any] = {}  # options of that network, as `build_model` takes them
    trunk_weights: Path | None = None  # of a published trunk: .npz (MobileNetV3; what fits is loaded), .pth or .safetensors (all of it)
    initial_weights: Path | None = None  # a .keras checkpoint of kpose to start from; its crops may have been of another size
    frozen: list[str] = []  # layers that keep their weights while training: those whose name is, or begins with, one of these and "_"


class CodecConfig(_Section):
    """How keypoints become heatmaps and back."""

    name: Literal["gaussian", "offset"] = "gaussian"  # a Gaussian per joint; or a disc and the offsets to the joint inside of it
    sigma: Positive = 2.0  # gaussian: heatmap pixels
    center: Literal["rounded", "exact"] = "rounded"  # gaussian: whether its centre is a whole heatmap pixel, as published, or the joint's
    radius: Positive = 4.0  # offset: of the disc, heatmap pixels
    alignment: Literal["classic", "unbiased"] = "classic"  # classic: crop = heatmap x stride; unbiased: corner pixel on corner pixel
    decoding: Literal["argmax", "quarter_offset", "dark"] = "quarter_offset"  # gaussian: from the maximum to the joint
    stage_spread: list[Positive] = []  # coarse to fine: each output's sigma or radius is times this; default: 1 for all


class DatasetConfig(_Section):
    """One source of annotated people."""

    format: Literal["coco", "mpii", "lsp", "lspet", "aic", "crowdpose", "tfrecord"] = "coco"  # of the annotation: see the guide to datasets
    annotations: Path | None = None  # the dataset's own file; with `tfrecord`, the JSON that the evaluation compares with
    images: Path | None = None  # the folder that file names of the annotation are relative to
    head_boxes: Path | None = None  # mpii: gt_valid.mat, whose people are those of valid.json in its order; PCKh needs their head boxes
    records: str | None = None  # pattern of TFRecord shards, such as data/coco-train-*.tfrecord
    damaged_records: Literal["skip", "refuse", "unchecked"] = "skip"  # tfrecord: leave out and tell, stop, or do not look (saves a reading)
    name: str | None = None  # what scores and reports call it; default: the format
    skeleton: str | None = None  # its own joints; default: those of the format, for `coco` and `tfrecord` the experiment's
    rename: dict[str, str] = {}  # its joints that the experiment's skeleton calls by another name, such as neck: upper_neck
    interpolate: dict[str, list[str]] = {}  # joints it lacks as the mean of some it has, such as pelvis: [left_hip, right_hip]
    people: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(gt=0)]] | None = None  # only those from .. up to, in its order
    repeat: Annotated[int, Field(gt=0)] = 1  # each person is seen so often in an epoch (training)
    weight: Positive | None = None  # share of the training samples beside the other datasets' weights; default: by size
    protocol: Literal["oks", "crowdpose", "pckh", "pck", "pck_box"] | None = None  # its score; default: the one of its format
    detections: Path | None = None  # person boxes to use instead of the ground truth (evaluation)
    minimum_box_score: float = 0.0  # detections below it are left out
    exclude: dict[str, list[str | int]] = {}  # leave out images by a field of the JSON, such as take: [20241207_101929]
    include: dict[str, list[str | int]] = {}  # keep only such images


class DataConfig(_Section):
    """Where people come from and how they are cut out."""

    train: list[DatasetConfig] = []  # learnt from, mixed
    validation: list[DatasetConfig] = []  # each is scored under its own protocol, the first decides which checkpoint is the best
    box_padding: Positive = 1.25  # the box is grown to the crop's aspect ratio, then by this factor
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of RGB in 0..1
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)  # of RGB in 0..1, after the mean is taken off
    shuffle_buffer: Annotated[int, Field(gt=0)] = 2048  # people; TFRecords only, files are shuffled over the whole set

    @pydantic.field_validator("validation", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [] if value is None else [value] if isinstance(value, (dict, DatasetConfig)) else value


class AugmentationConfig(_Section):
    """Random changes of a training sample; the defaults are those of HRNet and SimpleBaseline. 0 turns a change off."""

    flip_probability: Fraction = 0.5  # of mirroring
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 45.0  # standard deviation of a normal, clipped at twice this
    rotation_probability: Fraction = 0.6  # of turning at all
    rotation_distribution: Literal["normal", "uniform"] = "normal"  # uniform: in -rotation_degrees .. rotation_degrees
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.35  # 1 + normal times this, clipped to 1 - scale .. 1 + scale
    scale_distribution: Literal["normal", "uniform"] = "normal"  # uniform: in 1 - scale .. 1 + scale
    half_body_probability: Fraction = 0.3  # of showing the upper or lower body alone
    half_body_minimum_joints: Annotated[int, Field(ge=0)] = 8  # only people with more visible joints
    half_body_padding: Positive = 1.5  # factor on the box of its joints
    cutout_probability: Fraction = 0.0  # of covering a rectangle
    cutout_size: Fraction = 0.25  # largest side, as a fraction of the crop
    cutout_content: Literal["mean_colour", "another_person"] = "mean_colour"  # or of the sample before it in the batch, same place
    brightness: Annotated[float, Field(ge=0, le=1)] = 0.0  # added, uniform in -b .. b, of an image in 0..1
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.0  # factor, uniform in 1 - c .. 1 + c
    saturation: Annotated[float, Field(ge=0, le=1)] = 0.0  # factor, uniform in 1 - s .. 1 + s
    truncation_probability: Fraction = 0.0  # the photo ends within the box
    truncation_least_kept: Annotated[float, Field(gt=0, le=1)] = 0.4  # share of the box's width or height, uniform from this to 1
    channel_gain: Annotated[float, Field(ge=0, lt=1)] = 0.0  # factor of each of red, green, blue, uniform in 1 - g .. 1 + g


class LossConfig(_Section):
    """What is minimised."""

    name: Literal["heatmap_weighting", "mean_squared_error", "offset"] = "heatmap_weighting"  # offset: for the codec of that name
    weighting: Literal["none", "x", "2x", "x^2", "e^x"] = "x"  # F of the heatmap-weighting loss
    offset_error: Literal["squared", "smooth_l1"] = "squared"  # of the offsets inside of the disc
    hard_keypoints: Annotated[int, Field(gt=0)] | None = None  # the last output learns from its worst joints alone, so many a person
    stage_weights: list[Annotated[float, Field(ge=0)]] = []  # of the outputs' losses; default: 1 for all


# Settings that only some optimizers and schedules heed. With another one they must stay as they are by default: a setting without any
# effect would make a recipe look like one that it is not.
_HEEDED_BY: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = {
    ("optimizer", ("adamw", "sgd")): ("weight_decay",),
    ("optimizer", ("sgd",)): ("momentum",),
    ("schedule", ("steps",)): ("drop_epochs", "drop_factor"),
    ("schedule", ("restarts",)): ("first_restart", "restart_factor", "lowest_learning_rate"),
}


class TrainingConfig(_Section):
    """The recipe."""

    epochs: Annotated[int, Field(gt=0)] = 210  # passes over the training set, or `steps_per_epoch` each
    batch_size: Annotated[int, Field(gt=0)] = 64  # people of a step, over all replicas; or of each, see the next line
    batch_size_of: Literal["all_replicas", "each_replica"] = "all_replicas"  # what `batch_size` counts
    accumulation_steps: Annotated[int, Field(gt=0)] = 1  # a replica takes its people in so many parts, one after the other: less memory
    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"] = "adam"  # Keras' own
    weight_decay: Annotated[float, Field(ge=0)] = 0.0  # adamw, sgd: decoupled, times the learning rate
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # sgd
    learning_rate: Positive = 5e-4  # after the warm-up
    learning_rate_batch_size: Annotated[int, Field(gt=0)] | None = None  # the rates are for such a batch, and grow with it; default: fixed
    schedule: Literal["steps", "restarts"] = "steps"  # drops at epochs; or cosine descents with restarts (SGDR)
    warmup_steps: Annotated[int, Field(ge=0)] = 500  # in which the learning rate rises linearly
    warmup_factor: Annotated[float, Field(gt=0, le=1)] = 0.001  # of the learning rate, at the first step
    drop_epochs: list[Annotated[int, Field(gt=0)]] = [170, 200]  # steps: the learning rate is multiplied by `drop_factor` after each
    drop_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1  # steps
    first_restart: Annotated[int, Field(gt=0)] = 16  # restarts: epochs of the first descent
    restart_factor: Annotated[float, Field(ge=1, le=100)] = 2.0  # restarts: each descent is longer than the one before by this
    lowest_learning_rate: Annotated[float, Field(ge=0)] = 0.0  # restarts: at the end of each descent
    validate_every: Annotated[int, Field(ge=0)] = 10  # epochs between scores on the validation set; 0: only at the end
    steps_per_epoch: Annotated[int, Field(gt=0)] | None = None  # default: the training set once
    gradient_clipping: Positive | None = None  # the most that the norm of all gradients together may be; default: no limit
    weight_averaging: Annotated[float, Field(gt=0, lt=1)] | None = None  # decay of a moving average of the weights; it is scored and saved
    precision: Literal["float32", "bfloat16", "float16"] = "float32"  # of the layers; weights, targets and losses are always float32
    jit_compile: bool = False  # forward and backward pass by XLA: slow to start; for a GPU or TPU, never for a CPU
    synchronized_batch_norm: bool = False  # normalise over the people of all replicas instead of each one's own
    save_every_minutes: Annotated[float, Field(ge=0)] = 10.0  # between states to resume from, beside that of each epoch's end; 0: each step

    @pydantic.field_validator(*(setting for settings in _HEEDED_BY.values() for setting in settings))
    @classmethod
    def _refuse_what_is_ignored(cls, value: Any, info: pydantic.ValidationInfo) -> Any:
        # A choice that was refused itself is not in `info.data`.
        for (choice, heeding), settings in _HEEDED_BY.items():
            ignored = info.field_name in settings and info.data.get(choice, heeding[0]) not in heeding
            if ignored and value not in (cls.model_fields[str(info.field_name)].default, []):
                raise ValueError(f"{choice} {info.data[choice]!r} ignores it; leave it out, or set {choice} to {' or '.join(heeding)}")
        return value

    @pydantic.field_validator("lowest_learning_rate")
    @classmethod
    def _lower_than_the_highest(cls, value: float, info: pydantic.ValidationInfo) -> float:
        if value >= info.data.get("learning_rate", float("inf")):
            raise ValueError(f"it must be lower than the learning_rate, {info.data['learning_rate']}")
        return value


class DistributionConfig(_Section):
    """On what a training runs; see docs/guides/scaling.md."""

    # mirrored: several devices of this machine; multi_worker: the machines that TF_CONFIG names.
    strategy: Literal["single", "mirrored", "multi_worker", "tpu"] = "single"  # one device, or several
    devices: list[str] = []  # mirrored: such as GPU:0, GPU:1; default: all GPUs. CPU:0, CPU:1 divide the processor
    tpu: str = "local"  # tpu: its name or address; local: that of the machine itself

    @pydantic.field_validator("devices", "tpu")
    @classmethod
    def _refuse_what_is_ignored(cls, value: Any, info: pydantic.ValidationInfo) -> Any:
        heeding = {"devices": "mirrored", "tpu": "tpu"}[str(info.field_name)]
        if info.data.get("strategy", heeding) != heeding and value != cls.model_fields[str(info.field_name)].default:
            raise ValueError(f"strategy {info.data['strategy']!r} ignores it; leave it out, or set strategy to {heeding}")
        return value

    @pydantic.field_validator("devices")
    @classmethod
    def _name_devices(cls, value: list[str]) -> list[str]:
        kinds = {device.partition(":")[0] for device in value}
        if not all(re.fullmatch(r"(CPU|GPU):[0-9]{1,3}", device) for device in value) or len(kinds) > 1 or len(set(value)) < len(value):
            raise ValueError("expected different devices of one kind, such as [GPU:0, GPU:1] or [CPU:0, CPU:1]")
        return value


class EvaluationConfig(_Section):
    """The protocol of a score."""

    batch_size: Annotated[int, Field(gt=0)] = 32  # crops that go through the network at once
    flip: bool = True  # average with the mirrored crop's heatmaps
    shift_heatmap: bool = True  # move the mirrored heatmaps by a pixel (classic alignment)
    rotations: list[Annotated[float, Field(ge=-180, le=180)]] = Field([0.0], min_length=1)  # degrees; the crop is looked at in each of them
    scales: list[Positive] = Field([1.0], min_length=1)  # of the region that is cut out; every rotation at every scale
    ensemble: Literal["positions", "heatmaps"] = "positions"  # what several networks' answers are averaged as
    suppression_threshold: Fraction | None = 0.9  # OKS-NMS; null: off. Ground-truth boxes are never suppressed
    keypoint_threshold: float = 0.2  # joints above it take part in the instance's score
    box_rescoring: bool = True  # instance score = box score x mean joint score; false: the mean joint score alone


class Config(_Section):
    """A whole experiment."""

    skeleton: str = "coco_17"  # a built-in one or the path of a skeleton YAML
    model: ModelConfig = ModelConfig()
    codec: CodecConfig = CodecConfig()
    data: DataConfig = DataConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    loss: LossConfig = LossConfig()
    training: TrainingConfig = TrainingConfig()
    distribution: DistributionConfig = DistributionConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    output: Path = Path("runs/default")  # folder for checkpoints, curves and scores
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0  # of all that is random


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read and check a configuration.

    Args:
        path: a YAML file with (some of) the keys of `Config`, and perhaps `extends`, see the module.
        overrides: `dotted.key=value` each, the value in YAML, such as `training.epochs=10` or `model.input_size=[128, 96]`.

    Raises:
        KposeError: when the file, or one that it extends, is missing or no YAML, when they extend one another in a circle, a key is
            unknown (the nearest valid one is named) or a value is refused.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for file, settings in _read_with_bases(Path(path)):
        try:
            values = _merge(values, settings, str(file), sources)
        except RecursionError as error:
            raise KposeError(f"{file}: a section contains itself") from error
    for override in overrides:
        _apply_override(values, override, sources)
    return parse_config(values, str(path), sources)


def parse_config(values: dict[str, Any], source: str = "configuration", sources: dict[str, str] | None = None) -> Config:
    """Check settings given as nested dictionaries.

    Args:
        values: (some of) the keys of `Config`.
        source: where they come from, named in errors.
        sources: other origins by dotted key (command-line overrides).

    Raises:
        KposeError: see `load_config`.
    """
    if "extends" in values:
        raise KposeError(f"{(sources or {}).get('extends', source)}: 'extends' is a key of configuration files alone")
    try:
        return Config.model_validate(values)
    except pydantic.ValidationError as error:
        data = values.get("data")
        single_validation = isinstance(data, dict) and isinstance(data.get("validation"), dict)
        raise KposeError(_describe(error, source, sources or {}, single_validation)) from error


def dump_config(config: Config) -> str:
    """The whole configuration, defaults included, as YAML that `load_config` reads back."""
    return format_yaml(config.model_dump(mode="json"))


def parse_options(assignments: Sequence[str]) -> dict[str, Any]:
    """Options of a network given as `key=value` each, the value in YAML, such as `stages=2`.

    Raises:
        KposeError: when one is not of that form.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        _apply_override(values, assignment, {})
    return values


def _read_with_bases(path: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The settings of a configuration and of those that it extends, the most general one first."""
    files: list[tuple[Path, dict[str, Any]]] = []
    while True:
        what = f"configuration, which {files[-1][0]} extends," if files else "configuration"
        settings = read_yaml(path, what)
        if settings is None:
            settings = {}
        if not isinstance(settings, dict):
            raise KposeError(f"{path}: expected a mapping of settings, found {type(settings).__name__}")
        files.append((path, settings))
        if "extends" not in settings:
            return files[::-1]
        base = settings.pop("extends")
        if not isinstance(base, str):
            raise KposeError(f"{path}: 'extends' is {_short(base)}; expected the path of one configuration, relative to this file")
        path = Path(os.path.normpath(path.parent / base))
        if any(path.resolve() == file.resolve() for file, _ in files):
            circle = " extends ".join(str(file) for file, _ in files)
            raise KposeError(f"{circle} extends {path}: a circle; take 'extends' out of one of them")
        if len(files) > MOST_EXTENSIONS:
            raise KposeError(f"{files[0][0]} extends a file that extends another, and so on, more than {MOST_EXTENSIONS} times")


def _merge(values: dict[str, Any], settings: dict[str, Any], file: str, sources: dict[str, str], above: str = "") -> dict[str, Any]:
    """The settings of a file over those of the files it extends; notes in `sources` where each comes from."""
    merged = dict(values)  # YAML's aliases may have put it in several places
    for name, value in settings.items():
        key = f"{above}{name}"
        if isinstance(value, dict) and isinstance(values.get(name), dict):
            merged[name] = _merge(values[name], value, file, sources, f"{key}.")
            continue
        merged[name] = value
        for replaced in [source for source in sources if source == key or source.startswith(f"{key}.")]:
            del sources[replaced]
        sources[key] = file
    return merged


def _apply_override(values: dict[str, Any], override: str, sources: dict[str, str]) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise KposeError(f"override {override!r} is not of the form key=value, such as training.epochs=10")
    value = parse_yaml(text, f"the value of override {override!r}")
    target: Any = values
    for depth, part in enumerate(parts):
        above = ".".join(parts[:depth])
        if isinstance(target, list):
            if not part.isascii() or not part.isdigit() or int(part) >= len(target):
                raise KposeError(f"override {override!r}: {part!r} is not a position in {above!r}, a list of {len(target)} (from 0)")
            place: Any = int(part)
        elif isinstance(target, dict):
            place = part
        else:
            raise KposeError(f"override {override!r}: {above!r} is {_short(target)}, which has no {part!r}")
        if depth == len(parts) - 1:
            target[place] = value
        else:
            if isinstance(target, dict) and target.get(place) is None:
                target[place] = _default_container(parts[: depth + 1])
            target = target[place]
    # The last of several overrides of a key is the one that an error names.
    sources.pop(".".join(parts), None)
    sources[".".join(parts)] = f"override {override!r}"


def _default_container(location: Sequence[str]) -> list[Any] | dict[str, Any]:
    """What an override changes inside of where the file is silent: a copy of the default list, or an empty section."""
    if list(location) == ["data", "validation"]:
        return {}  # a single validation set needs no list
    value: Any = Config()
    for part in location:
        value = getattr(value, part, None) if isinstance(value, _Section) else None
    return list(value) if isinstance(value, (list, tuple)) else {}


def _short(value: Any) -> str:
    text = reprlib.repr(value)  # bounded, however large or deep the value
    return text if len(text) <= 80 else text[:77] + "..."


def _describe(error: pydantic.ValidationError, source: str, sources: dict[str, str], single_validation: bool) -> str:
    """The first problem in one line: which key, where it was set, what is valid."""
    problem = error.errors(include_url=False)[0]
    location = [str(part) for part in problem["loc"]]
    if single_validation and location[:3] == ["data", "validation", "0"]:
        del location[2]  # a single validation set needs no list
    if location[-1] in ("str", "int"):  # pydantic names the branch of a union as if it were a key
        location.pop()
    key = ".".join(location)
    origin = source
    for changed, override in sources.items():
        if f"{key}.".startswith(f"{changed}.") or f"{changed}.".startswith(f"{key}."):
            origin = override
    others = error.error_count() - 1
    more = f" (and {others} more)" if others else ""
    if problem["type"] == "extra_forbidden":
        known = _known_keys(location[:-1]) + ["extends"] * (len(location) == 1)
        near = nearest(location[-1], known)
        # A key may be spelt well but stand in the wrong section.
        elsewhere = {full.rsplit(".", 1)[-1]: full for full in reversed(_all_keys())}
        suggestion = ".".join([*location[:-1], near]) if near else elsewhere.get(nearest(location[-1], elsewhere) or "")
        hint = f"did you mean {suggestion!r}?" if suggestion else f"valid here: {', '.join(known)}"
        return f"{origin}: unknown key {key!r}; {hint}{more}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "missing":
        return f"{origin}: {key!r} is missing{more}"
    if problem["type"] == "model_type":
        message = f"expected a section with {', '.join(_known_keys(location))}, or leave it out"
    return f"{origin}: {key!r} is {_short(problem['input'])}: {message[0].lower()}{message[1:]}{more}"


def _section_of(annotation: Any) -> type[_Section] | None:
    """The section class inside an annotation such as `list[DatasetConfig]` or `DatasetConfig | None`."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias) and issubclass(annotation, _Section):
        return annotation
    if get_origin(annotation) in (list, typing.Union, types.UnionType):
        for argument in get_args(annotation):
            section = _section_of(argument)
            if section is not None:
                return section
    return None


def _known_keys(location: Sequence[str]) -> list[str]:
    section: type[_Section] | None = Config
    for part in location:
        if section is None or part.isdigit():
            continue
        field = section.model_fields.get(part)
        section = _section_of(field.annotation) if field else None
    return list(section.model_fields) if section else []


def _all_keys(section: type[_Section] = Config, prefix: str = "") -> list[str]:
    keys = []
    for name, field in section.model_fields.items():
        inner = _section_of(field.annotation)
        keys += _all_keys(inner, f"{prefix}{name}.") if inner else [f"{prefix}{name}"]
    return keys
