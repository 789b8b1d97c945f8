"""People to batches: the tf.data pipeline, all of it in the graph.

The training stream is a pure function of a seed and a position: sample number p of the stream is the same whatever the parallelism,
and a training that resumes at step s sees exactly what it would have seen without the interrupt. A stage plans crops for a whole block of
people at once (what is drawn at random, the affine map, the moved keypoints), then pictures are read, decoded only where the crop
shows them, and warped once, person by person and in parallel; heatmaps are made for the whole batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kpose import geometry
from kpose.config import AugmentationConfig, Config
from kpose.data import augmentation
from kpose.data.coco import dataset_from_config
from kpose.data.crops import Preparation, check_image, first_line, load_crop, preparation_from_config
from kpose.data.instances import Instances
from kpose.data.tfrecords import RecordedInstances, Records, records_from_config
from kpose.errors import KposeError
from kpose.skeletons import get_skeleton

Columns = dict[str, tf.Tensor]

# Random numbers are drawn for so many people at once, whatever the batch size; changing it changes every training run.
BLOCK = 64

NO_AUGMENTATION = AugmentationConfig(flip_probability=0, rotation_degrees=0, scale=0, half_body_probability=0)


class SkippedSamples:
    """Counts the samples whose picture could not be read or decoded, and remembers the first of them.

    Hand one to `training_dataset`; it keeps counting while the data flows, a little ahead of the training because of prefetching.
    """

    def __init__(self, remembered: int = 5) -> None:
        with tf.device("CPU:0"):
            self._count = tf.Variable(0, dtype=tf.int64, trainable=False, name="skipped_samples")
            self._first = tf.Variable(tf.fill([remembered], tf.constant(-1, tf.int64)), trainable=False, name="first_skipped_samples")
        self._name_of: Callable[[int], str] = str

    @property
    def count(self) -> int:
        """How many samples were left out so far; one broken picture counts each time it comes up."""
        return int(self._count.numpy())

    @property
    def first(self) -> list[str]:
        """The files of the first of them, each once."""
        return list(dict.fromkeys(self._name_of(int(position)) for position in self._first.numpy() if position >= 0))

    def report(self) -> str:
        """One line, empty when nothing was left out."""
        if not self.count:
            return ""
        return f"{self.count} samples left out because they cannot be read, first {', '.join(self.first)}"

    def watch(self, batches: tf.data.Dataset, start: int, name_of: Callable[[int], str]) -> tf.data.Dataset:
        """Count the gaps in the `position` column of batches; the column is taken out."""
        self._name_of = name_of

        def check(expected: tf.Tensor, batch: Columns) -> tuple[tf.Tensor, Columns]:
            positions = batch.pop("position")
            previous = tf.concat([expected[None], positions[:-1] + 1], axis=0)
            gaps = positions - previous
            missing = tf.reduce_sum(gaps)

            def note() -> tf.Tensor:
                known = tf.cast(tf.math.count_nonzero(self._first >= 0), tf.int32)
                room = tf.size(self._first) - known
                found = tf.ragged.range(previous, positions).values[:room]
                places = known + tf.range(tf.size(found))
                with tf.control_dependencies(
                    [self._first.scatter_update(tf.IndexedSlices(found, places)), self._count.assign_add(missing)]
                ):
                    return tf.identity(missing)

            with tf.control_dependencies([tf.cond(missing > 0, note, lambda: missing)]):
                return positions[-1] + 1, {name: tf.identity(column) for name, column in batch.items()}

        return batches.scan(tf.constant(start, tf.int64), check)


@dataclass(frozen=True)
class TrainingData:
    """What `model.fit` needs: the endless stream, how many of its batches are an epoch, and words about it.

    Attributes:
        dataset: batches of image, heatmaps, weights.
        steps_per_epoch: batches in an epoch.
        description: how many people in how many images of which files.
        skipped: counts broken pictures.
    """

    dataset: tf.data.Dataset
    steps_per_epoch: int
    description: str
    skipped: SkippedSamples

    def skipped_report(self) -> str:
        """One line about broken pictures, empty when there is none."""
        return self.skipped.report()


def training_data(config: Config, model: keras.Model | None = None, start_epoch: int = 0) -> TrainingData:
    """The training stream of a configuration.

    Args:
        config: the experiment.
        model: the network to train, for the size of its heatmaps and how many of its outputs are supervised: of several, each gets
            the same heatmaps. Without one there is one, of a quarter of the crop.
        start_epoch: epochs that a former run has seen.

    Raises:
        KposeError: when the data is refused, see `kpose.data.coco.read_coco` and `training_dataset`.
    """
    skeleton = get_skeleton(config.skeleton)
    formats = {part.format for part in config.data.train}
    people: Instances | Records
    if formats == {"tfrecord"}:
        parts = [records_from_config(part, skeleton) for part in config.data.train for _ in range(part.repeat)]
        people = Records(skeleton, sum((part.shards for part in parts), ()), sum(map(len, parts)), sum(part.images for part in parts))
        images = people.images
    else:
        people = training_instances(config)
        images = len({people.image_files[index] for index in np.unique(people.image_index)})
    outputs = [] if model is None else model.outputs
    heatmap_size = (outputs[-1].shape[1], outputs[-1].shape[2]) if outputs else None
    steps = config.training.steps_per_epoch or steps_per_epoch(len(people), config.training.batch_size)
    skipped = SkippedSamples()
    dataset = training_dataset(
        people,
        preparation_from_config(config, heatmap_size),
        config.augmentation,
        batch_size=config.training.batch_size,
        seed=config.seed,
        start_step=start_epoch * steps,
        shuffle_buffer=config.data.shuffle_buffer,
        skipped=skipped,
    )
    if len(outputs) > 1:
        dataset = dataset.map(functools.partial(_for_every_output, len(outputs)))
    # Names without folders: the line travels inside of the checkpoint.
    names = dict.fromkeys(Path(str(part.records or part.annotations)).name for part in config.data.train)
    return TrainingData(dataset, steps, f"{len(people)} people in {images} images ({', '.join(names)})", skipped)


def _for_every_output(outputs: int, image: tf.Tensor, heatmaps: tf.Tensor, weights: tf.Tensor) -> tuple[Any, Any, Any]:
    """A training element for a network of several supervised stages: each is to give the same heatmaps."""
    return image, (heatmaps,) * outputs, (weights,) * outputs


def training_instances(config: Config) -> Instances:
    """The people of all training sets of a configuration; what was left out is printed.

    Raises:
        KposeError: when there is none, or one is refused.
    """
    formats = {part.format for part in config.data.train}
    if len(formats) > 1:
        raise KposeError("'data.train' mixes files and TFRecord shards; write all of it as shards, or none")
    if formats == {"tfrecord"}:
        raise KposeError("'data.train' already is TFRecord shards; give the datasets that they were written from")
    skeleton = get_skeleton(config.skeleton)
    parts = []
    for dataset in config.data.train:
        part = dataset_from_config(dataset, skeleton, for_training=True)
        _print_notes(part)
        parts += [part] * dataset.repeat
    return Instances.concatenate(parts)


def validation_instances(config: Config) -> Instances:
    """The people of the validation set of a configuration; what was left out is printed.

    Raises:
        KposeError: when there is none, or it is refused.
    """
    if not config.data.validation:
        raise KposeError("the configuration has no validation set; give 'data.validation'")
    part, skeleton = config.data.validation[0], get_skeleton(config.skeleton)
    if part.format == "tfrecord":
        return records_from_config(part, skeleton).instances(part.annotations)
    instances = dataset_from_config(part, skeleton, for_training=False)
    _print_notes(instances)
    return instances


def _print_notes(instances: Instances) -> None:
    for note in instances.notes:
        print(note)


def steps_per_epoch(people: int, batch_size: int) -> int:
    """Batches that see a training set once; what does not fill the last one comes first in the next epoch."""
    return max(1, people // batch_size)


def training_dataset(
    people: Instances | Records,
    preparation: Preparation,
    augmentation_config: AugmentationConfig = NO_AUGMENTATION,
    *,
    batch_size: int,
    seed: int = 0,
    start_step: int = 0,
    shuffle_buffer: int = 2048,
    skipped: SkippedSamples | None = None,
) -> tf.data.Dataset:
    """The endless training stream: every person once per pass, in an order that is drawn anew over the whole set each time.

    Args:
        people: whom to learn from, in picture files or TFRecord shards.
        preparation: crop, codec and normalisation.
        augmentation_config: random changes.
        batch_size: samples per batch; all batches are full.
        seed: of order and augmentation.
        start_step: batches that a former run has seen; the stream goes on after them.
        shuffle_buffer: people among whom the order of shards is mixed; files are shuffled over the whole set.
        skipped: counts the people whose picture is broken; they are left out, the next ones take their place.

    Returns:
        Batches of image `(B, H, W, 3)` float32 normalised, heatmaps `(B, h, w, K)` and weights `(B, K)`.

    Raises:
        KposeError: when there is nobody or not a single picture can be read.
    """
    if not len(people):
        raise KposeError("the training set has no person; check 'data.train' and its filters")
    codec = preparation.codec
    start = start_step * batch_size
    read, name_of = _reader(people, seed)

    def load(person: Columns) -> Columns:
        image = load_crop(read(person["source"]), person["matrix"], preparation, person.get("colour"), person.get("cutout"))
        return {"position": person["position"], "image": image, "keypoints": person["keypoints"]}

    def finish(batch: Columns) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        heatmaps, weights = codec.encode(batch["keypoints"])
        return batch["image"], heatmaps, weights

    planned = planned_people(people, preparation, augmentation_config, seed=seed, start=start, shuffle_buffer=shuffle_buffer)
    loaded = planned.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    _require_readable(loaded, min(len(people), BLOCK), name_of(start))
    # Errors are dropped here and only here, sample by sample; the gap in the positions tells.
    batches = loaded.ignore_errors().batch(batch_size, drop_remainder=True)
    batches = (skipped or SkippedSamples()).watch(batches, start, name_of)
    return batches.map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE).with_options(_options())


def planned_people(
    people: Instances | Records,
    preparation: Preparation,
    augmentation_config: AugmentationConfig,
    *,
    seed: int = 0,
    start: int = 0,
    shuffle_buffer: int = 2048,
) -> tf.data.Dataset:
    """The training stream up to where pictures are read: who comes, and how each is cut out. Arguments as for `training_dataset`.

    Returns:
        Single people from position `start` on: position, source (file name or bytes of the picture), matrix `(2, 3)` from image to crop,
        keypoints `(K, 3)` in the crop frame, and `colour` and `cutout` where they are on.
    """
    size, skeleton = preparation.codec.input_size, people.skeleton

    def plan(block: tf.Tensor, columns: Columns) -> Columns:
        crops = augmentation.plan_crops(columns["box"], columns["keypoints"], size, preparation.box_padding)
        block_seed = tf.random.fold_in(tf.constant([seed, 0], tf.int64), block)
        crops = augmentation.augment_plan(crops, block_seed, augmentation_config, skeleton, size)
        matrix = preparation.matrix(crops)
        planned = {
            "position": columns["position"],
            "source": columns["source"],
            "matrix": matrix,
            "keypoints": geometry.transform_points(crops["keypoints"], matrix),
        }
        return planned | {name: crops[name] for name in ("colour", "cutout") if name in crops}

    first_block = start // BLOCK
    if isinstance(people, Records):
        blocks = _record_blocks(people, first_block, seed, shuffle_buffer)
    else:
        blocks = _file_blocks(people, first_block, seed)
    return blocks.enumerate(first_block).map(plan).unbatch().skip(start % BLOCK)


def _reader(people: Instances | Records, seed: int) -> tuple[Callable[[tf.Tensor], tf.Tensor], Callable[[int], str]]:
    """How the picture of a source is read, and how the sample at a position is named in reports."""
    if isinstance(people, Records):
        return tf.identity, lambda position: f"sample {position % len(people)} of pass {position // len(people)} of {people.shards[0]} ..."

    def name_of(position: int) -> str:
        chosen = int(shuffled_index(tf.constant([position], tf.int64), len(people), seed)[0])
        return people.image_files[int(people.image_index[chosen])]

    return tf.io.read_file, name_of


def _file_blocks(people: Instances, first_block: int, seed: int) -> tf.data.Dataset:
    """Columns of `BLOCK` people each: position, source (a file), box, keypoints."""
    files, image_index, boxes, keypoints = _columns(people)

    def draw(block: tf.Tensor) -> Columns:
        positions = block * BLOCK + tf.range(BLOCK, dtype=tf.int64)
        chosen = shuffled_index(positions, len(people), seed)
        return {
            "position": positions,
            "source": tf.gather(files, tf.gather(image_index, chosen)),
            "box": tf.gather(boxes, chosen),
            "keypoints": tf.gather(keypoints, chosen),
        }

    return tf.data.Dataset.range(first_block, np.iinfo(np.int64).max // BLOCK).map(draw)


def _record_blocks(people: Records, first_block: int, seed: int, shuffle_buffer: int) -> tf.data.Dataset:
    """Columns of `BLOCK` people each: position, source (the bytes of a picture), box, keypoints."""
    first_pass, offset = divmod(first_block * BLOCK, len(people))
    return people.passes(seed, first_pass, shuffle_buffer).skip(offset).batch(BLOCK, drop_remainder=True)


def evaluation_dataset(instances: Instances, preparation: Preparation, batch_size: int) -> tf.data.Dataset:
    """People in order, without any augmentation; the last batch may be smaller.

    A score must not hide what could not be read, so a broken picture is an error here; `evaluation_batches` names it.

    Returns:
        Batches of a dictionary: image `(B, H, W, 3)` float32 normalised, matrix `(B, 2, 3)` from image to crop, box `(B, 4)` and index
        `(B,)` int64, positions in `instances`.
    """

    def plan(index: tf.Tensor, columns: Columns) -> Columns:
        box = columns["box"]
        crops = augmentation.plan_crops(box, tf.zeros([tf.shape(index)[0], 1, 3]), preparation.codec.input_size, preparation.box_padding)
        return {"index": index, "source": columns["source"], "box": box, "matrix": preparation.matrix(crops)}

    def load(person: Columns) -> Columns:
        image = load_crop(read(person.pop("source")), person["matrix"], preparation)
        return {"image": image, **person}

    if isinstance(instances, RecordedInstances) and instances.records is not None:
        read = tf.identity
        people = instances.records.in_order()
    else:
        read = tf.io.read_file
        files, image_index, boxes, _ = _columns(instances)
        people = tf.data.Dataset.range(len(instances)).map(
            lambda index: {"source": tf.gather(files, tf.gather(image_index, index)), "box": tf.gather(boxes, index)}
        )
    people = people.enumerate().batch(BLOCK).map(plan).unbatch()
    batches = people.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).batch(batch_size)
    return batches.prefetch(tf.data.AUTOTUNE).with_options(_options())


def evaluation_batches(instances: Instances, preparation: Preparation, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    """`evaluation_dataset`, batch by batch in numpy.

    Raises:
        KposeError: when a picture cannot be read, naming it.
    """
    dataset = evaluation_dataset(instances, preparation, batch_size)
    try:
        yield from dataset.as_numpy_iterator()
    except tf.errors.OpError as error:
        for file in dict.fromkeys(instances.image_files[index] for index in instances.image_index):
            check_image(file)
        raise KposeError(f"a picture of {instances.annotation_file} cannot be read: {first_line(error)}") from error


def shuffled_index(positions: tf.Tensor, people: int, seed: int) -> tf.Tensor:
    """Which person stands at positions of the training stream.

    Args:
        positions: `(n,)` int64.
        people: how many there are.
        seed: of the order.

    Returns:
        `(n,)` int64: within each pass of `people` positions a permutation.
    """
    passes, index = positions // people, positions % people
    seeds = tf.stack([tf.fill(tf.shape(passes), tf.constant(seed, tf.int64)), passes, tf.ones_like(passes)], axis=-1)
    # tf.random.experimental.index_shuffle pads several seeds along the wrong axis.
    return tf.raw_ops.RandomIndexShuffle(index=index, seed=seeds, max_index=tf.constant(people - 1, tf.int64))


def _columns(instances: Instances) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Files, image index, boxes and keypoints as eager tensors: datasets capture them, so that no graph carries them as constants."""
    with tf.device("CPU:0"):
        return (
            tf.constant(instances.image_files, tf.string),
            tf.constant(instances.image_index, tf.int32),
            tf.constant(instances.boxes, tf.float32),
            tf.constant(instances.keypoints, tf.float32),
        )


def _require_readable(samples: tf.data.Dataset, tried: int, first: str) -> None:
    """Refuse a set of which the first samples cannot be read, not one of them: the stream would look for a good one for ever."""
    iterator = iter(samples)
    failures = []
    for _ in range(tried):
        try:
            next(iterator)
            return
        except tf.errors.OpError as error:
            failures.append(error)
    raise KposeError(
        f"none of {tried} pictures of the training set can be read, first {first}: {first_line(failures[0])}; check the files"
    ) from failures[0]


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    # Splitting by file makes no sense for a generated order; a distribution strategy splits by batch.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return options
