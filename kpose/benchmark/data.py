"""Speed of the training pipeline against the ceiling of decoding the same files, and against a loader of the field's usual kind.

The ceiling is `tf.io.read_file` and `tf.io.decode_jpeg` of the whole picture, in parallel, and nothing else: what the fastest conceivable
loader that decodes whole pictures could reach. Stages are measured cumulatively, interleaved with the ceiling in every repeat, so that
a machine that slows down or is shared slows all of them alike; a ratio is the median over the repeats. Beside images a second, which
depend on the cores that are free, stand images for each second of CPU time, over all threads: what one core gives.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import tensorflow as tf
from tqdm import tqdm

from kpose import geometry
from kpose.benchmark.opencv_loader import OpenCVLoader
from kpose.config import AugmentationConfig, Config
from kpose.data.crops import decode_region, preparation_from_config, sample_crop
from kpose.data.datasets import training_instances
from kpose.data.instances import Instances
from kpose.data.pipeline import NO_AUGMENTATION, planned_people, training_dataset
from kpose.errors import KposeError

CEILING = "read + decode, whole picture"
UNCHANGED = "+ normalise, heatmaps, batch: no augmentation"
USUAL = "a loader in NumPy and OpenCV, one thread"

# What the usual loader does too.
_GEOMETRY = ("+ half body", "+ scale", "+ rotation", "+ flip")

# What each augmentation stage adds to the one before; stages whose settings are 0 in the configuration are left out.
_AUGMENTATIONS: dict[str, tuple[str, ...]] = {
    "+ half body": ("half_body_probability", "half_body_minimum_joints", "half_body_padding"),
    "+ scale": ("scale", "scale_distribution"),
    "+ rotation": ("rotation_degrees", "rotation_probability", "rotation_distribution"),
    "+ flip": ("flip_probability",),
    "+ colour": ("brightness", "contrast", "saturation", "channel_gain"),
    "+ cutout": ("cutout_probability", "cutout_size", "cutout_content"),
    "+ truncation": ("truncation_probability", "truncation_least_kept"),
}


@dataclass(frozen=True)
class Stage:
    """A measured stage.

    Attributes:
        name: what it adds.
        images_per_second: median over the repeats.
        images_per_cpu_second: likewise, of the CPU time of all threads: what one core gives.
        ratio: of the ceiling's speed in the same repeat, median.
        core_ratio: likewise of the ceiling's images for each second of CPU time.
    """

    name: str
    images_per_second: float
    images_per_cpu_second: float
    ratio: float
    core_ratio: float


@dataclass(frozen=True)
class Speed:
    """Images a second, and for each second of CPU time."""

    images_per_second: float
    images_per_cpu_second: float


def benchmark_data(config: Config, seconds: float = 3.0, repeats: int = 5) -> list[Stage]:
    """Measure and print the stages of the training pipeline, and the usual loader beside them.

    Args:
        config: the experiment; its training set must be files.
        seconds: how long each stage is measured in each repeat.
        repeats: of all stages in turn.

    Returns:
        The stages; the usual loader last, if it can make what the configuration asks for.

    Raises:
        KposeError: when the data is refused.
    """
    if repeats < 1:
        raise KposeError(f"{repeats} repeats measure nothing; ask for 1 or more")
    instances = training_instances(config)
    batch = config.training.batch_size
    stages: dict[str, Iterable[Any]] = _stages(config, instances)
    # The stage that changes samples as the usual loader does.
    equal = [name for name in stages if name in (UNCHANGED, *_GEOMETRY)][-1]
    try:
        stages[USUAL] = OpenCVLoader(instances, preparation_from_config(config), _geometric(config.augmentation), batch, config.seed)
    except KposeError as error:
        print(f"not compared with the usual loader: {error}")
    speeds: dict[str, list[Speed]] = {name: [] for name in stages}
    with tqdm(total=repeats * len(stages), desc="measuring", unit="stage", leave=False) as bar:
        for _ in range(repeats):
            for name, batches in stages.items():
                speeds[name].append(_speed(batches, batch, seconds, fill=name != USUAL))
                bar.update()
    measured = [
        Stage(
            name,
            statistics.median(speed.images_per_second for speed in found),
            statistics.median(speed.images_per_cpu_second for speed in found),
            _median_ratio(found, speeds[CEILING], "images_per_second"),
            _median_ratio(found, speeds[CEILING], "images_per_cpu_second"),
        )
        for name, found in speeds.items()
    ]
    print(format_table(measured))
    if USUAL in speeds:
        times = _median_ratio(speeds[equal], speeds[USUAL], "images_per_cpu_second")
        print(f"a core gives {times:.2f} times as many images as with the loader in NumPy and OpenCV, at equal augmentation ({equal!r})")
    print(
        f"{len(instances)} people in {len(set(instances.image_index.tolist()))} images, crops {config.model.input_size[0]}x"
        f"{config.model.input_size[1]}, batches of {config.training.batch_size}; median of {repeats} x {seconds:g} s; {os.cpu_count()} CPU "
        f"threads, {platform.machine()}, TensorFlow {tf.__version__}"
    )
    return measured


def format_table(stages: list[Stage]) -> str:
    """The stages as a Markdown table."""
    rows = [
        "| stage (each with all before it) | images/s | of the ceiling | images per CPU second | of the ceiling |",
        "|---|" + 4 * "---|",
    ]
    return "\n".join(
        rows
        + [
            f"| {one.name} | {one.images_per_second:.0f} | {one.ratio:.2f} | {one.images_per_cpu_second:.0f} | {one.core_ratio:.2f} |"
            for one in stages
        ]
    )


def measure_pipeline(config: Config, instances: Instances, seconds: float = 3.0) -> Speed:
    """The whole training pipeline of a configuration, once.

    Args:
        config: the experiment.
        instances: its people.
        seconds: how long.
    """
    batch = config.training.batch_size
    dataset = training_dataset(instances, preparation_from_config(config), config.augmentation, batch_size=batch, seed=config.seed)
    return _speed(dataset, batch, seconds)


def _median_ratio(speeds: list[Speed], others: list[Speed], what: str) -> float:
    return statistics.median(getattr(one, what) / getattr(other, what) for one, other in zip(speeds, others, strict=True))


def _speed(batches: Iterable[Any], batch: int, seconds: float, fill: bool = True) -> Speed:
    """Once a pipeline is full; what fills no buffers ahead is measured after its first batch."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        iterator = iter(batches)
        for _ in range(max(3, 256 // batch) if fill else 1):
            next(iterator)
        start, cpu_start, images, elapsed = time.perf_counter(), time.process_time(), 0, 0.0
        while elapsed < seconds:
            next(iterator)
            images += batch
            elapsed = time.perf_counter() - start
        return Speed(images / elapsed, images / (time.process_time() - cpu_start))
    finally:
        cv2.setNumThreads(threads)


def _geometric(config: AugmentationConfig) -> AugmentationConfig:
    """What the usual loader does of an augmentation."""
    fields = [field for name in _GEOMETRY for field in _AUGMENTATIONS[name]]
    return NO_AUGMENTATION.model_copy(update={field: getattr(config, field) for field in fields})


def _stages(config: Config, instances: Instances) -> dict[str, tf.data.Dataset]:
    """Batches of each stage."""
    preparation, batch = preparation_from_config(config), config.training.batch_size
    size = preparation.codec.input_size
    planned = planned_people(instances, preparation, NO_AUGMENTATION, seed=config.seed)

    def whole(person: dict[str, tf.Tensor]) -> tf.Tensor:
        return tf.io.decode_jpeg(tf.io.read_file(person["source"]), channels=3)

    def part(person: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        content = tf.io.read_file(person["source"])
        return decode_region(content, lambda image_size: geometry.visible_region(person["matrix"], size, image_size))

    def crop(person: dict[str, tf.Tensor]) -> tf.Tensor:
        region, offset = part(person)
        return sample_crop(region, geometry.translate_source(person["matrix"], offset), size)

    def parallel(image: Callable[[dict[str, tf.Tensor]], tf.Tensor]) -> tf.data.Dataset:
        # One pixel of each picture leaves the stage, so that copying pictures is counted where it belongs, in batching.
        pixels = planned.map(lambda person: image(person)[0, 0, 0], num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return pixels.batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE)

    def training(augmentation: AugmentationConfig) -> tf.data.Dataset:
        return training_dataset(instances, preparation, augmentation, batch_size=batch, seed=config.seed)

    stages = {
        CEILING: parallel(whole),
        "read + decode, what the crop shows": parallel(lambda person: part(person)[0]),
        "+ warp": parallel(crop),
        UNCHANGED: training(NO_AUGMENTATION),
    }
    augmentation = NO_AUGMENTATION
    for name, fields in _AUGMENTATIONS.items():
        if _is_on(config.augmentation, fields):
            augmentation = augmentation.model_copy(update={field: getattr(config.augmentation, field) for field in fields})
            stages[name] = training(augmentation)
    return stages


def _is_on(config: AugmentationConfig, fields: tuple[str, ...]) -> bool:
    details = ("_joints", "_padding", "_size", "_distribution", "_content", "_kept")
    switches = [getattr(config, field) for field in fields if not field.endswith(details)]
    # A probability of 0 or a strength of 0 turns a change off; the strengths of colour do so one by one.
    return any(switches) if fields[0] == "brightness" else all(switches)
