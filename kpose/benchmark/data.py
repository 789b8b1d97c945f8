"""Speed of the training pipeline against the ceiling of decoding the same files.

The ceiling is `tf.io.read_file` and `tf.io.decode_jpeg` of the whole picture, in parallel, and nothing else: what the fastest conceivable
loader that decodes whole pictures could reach. Stages are measured cumulatively, interleaved with the ceiling in every repeat, so that
a machine that slows down or is shared slows all of them alike; a ratio is the median over the repeats.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf
from tqdm import tqdm

from kpose import geometry
from kpose.config import AugmentationConfig, Config
from kpose.data.crops import decode_region, preparation_from_config, sample_crop
from kpose.data.datasets import training_instances
from kpose.data.instances import Instances
from kpose.data.pipeline import NO_AUGMENTATION, planned_people, training_dataset

CEILING = "read + decode, whole picture"

# What each augmentation stage adds to the one before; stages whose settings are 0 in the configuration are left out.
_AUGMENTATIONS: dict[str, tuple[str, ...]] = {
    "+ half body": ("half_body_probability", "half_body_minimum_joints", "half_body_padding"),
    "+ scale": ("scale",),
    "+ rotation": ("rotation_degrees", "rotation_probability"),
    "+ flip": ("flip_probability",),
    "+ colour": ("brightness", "contrast", "saturation", "channel_gain"),
    "+ cutout": ("cutout_probability", "cutout_size"),
}


@dataclass(frozen=True)
class Stage:
    """A measured stage.

    Attributes:
        name: what it adds.
        images_per_second: median over the repeats.
        ratio: of the ceiling's speed in the same repeat, median.
    """

    name: str
    images_per_second: float
    ratio: float


def benchmark_data(config: Config, seconds: float = 3.0, repeats: int = 5) -> list[Stage]:
    """Measure and print the stages of the training pipeline.

    Args:
        config: the experiment; its training set must be files.
        seconds: how long each stage is measured in each repeat.
        repeats: of all stages in turn.

    Raises:
        KposeError: when the data is refused.
    """
    instances = training_instances(config)
    stages, batch = _stages(config, instances), config.training.batch_size
    speeds: dict[str, list[float]] = {name: [] for name in stages}
    with tqdm(total=repeats * len(stages), desc="measuring", unit="stage", leave=False) as bar:
        for _ in range(repeats):
            for name, dataset in stages.items():
                speeds[name].append(_speed(dataset, batch, seconds))
                bar.update()
    measured = [
        Stage(
            name,
            statistics.median(found),
            statistics.median(speed / ceiling for speed, ceiling in zip(found, speeds[CEILING], strict=True)),
        )
        for name, found in speeds.items()
    ]
    print(format_table(measured))
    print(
        f"{len(instances)} people in {len(set(instances.image_index.tolist()))} images, crops {config.model.input_size[0]}x"
        f"{config.model.input_size[1]}, batches of {config.training.batch_size}; median of {repeats} x {seconds:g} s; {os.cpu_count()} CPU "
        f"threads, {platform.machine()}, TensorFlow {tf.__version__}"
    )
    return measured


def format_table(stages: list[Stage]) -> str:
    """The stages as a Markdown table."""
    rows = ["| stage (each with all before it) | images/s | of the ceiling |", "|---|---|---|"]
    return "\n".join(rows + [f"| {stage.name} | {stage.images_per_second:.0f} | {stage.ratio:.2f} |" for stage in stages])


def _speed(dataset: tf.data.Dataset, batch: int, seconds: float) -> float:
    """Images a second, once the pipeline is full."""
    iterator = iter(dataset)
    for _ in range(max(3, 256 // batch)):
        next(iterator)
    start, images, elapsed = time.perf_counter(), 0, 0.0
    while elapsed < seconds:
        next(iterator)
        images += batch
        elapsed = time.perf_counter() - start
    return images / elapsed


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
        "+ normalise, heatmaps, batch: no augmentation": training(NO_AUGMENTATION),
    }
    augmentation = NO_AUGMENTATION
    for name, fields in _AUGMENTATIONS.items():
        if _is_on(config.augmentation, fields):
            augmentation = augmentation.model_copy(update={field: getattr(config.augmentation, field) for field in fields})
            stages[name] = training(augmentation)
    return stages


def _is_on(config: AugmentationConfig, fields: tuple[str, ...]) -> bool:
    switches = [getattr(config, field) for field in fields if not field.endswith(("_joints", "_padding", "_size"))]
    # A probability of 0 or a strength of 0 turns a change off; the strengths of colour do so one by one.
    return any(switches) if fields[0] == "brightness" else all(switches)
