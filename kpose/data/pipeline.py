"""People to batches: the tf.data pipeline, all of it in the graph.

The training stream is a pure function of a seed and a position: sample number p of the stream is the same whatever the parallelism,
and a training that resumes at step s sees exactly what it would have seen without the interrupt. A stage plans crops for a whole block of
people at once (what is drawn at random, the affine map, the moved keypoints), then pictures are read, decoded only where the crop
shows them, and warped once, person by person and in parallel; heatmaps are made for the whole batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kpose import geometry
from kpose.codecs import Codec, make_codecs
from kpose.config import AugmentationConfig, Config
from kpose.data import augmentation
from kpose.data.crops import Preparation, check_image, first_line, load_crop, load_views, preparation_from_config
from kpose.data.datasets import training_sets
from kpose.data.instances import Instances
from kpose.data.sampling import drawn_before, drawn_dataset, drawn_people, shuffled_index
from kpose.data.tfrecords import RecordedInstances, Records
from kpose.errors import KposeError

Columns = dict[str, tf.Tensor]
People = Instances | Records | Sequence[Instances] | Sequence[Records]

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


def training_data(config: Config, model: keras.Model | None = None, start_step: int = 0, worker: int = 0, workers: int = 1) -> TrainingData:
    """The training stream of a configuration.

    Args:
        config: the experiment.
        model: the network to train, for the size of its heatmaps and how many of its outputs are supervised; of several, each gets
            heatmaps of its own (`codec.stage_spread`). Without one there is one, of a quarter of the crop.
        start_step: batches that a former run has seen.
        worker: the position of this process among several that train together, of which each sees its share of every batch.
        workers: how many there are.

    Raises:
        KposeError: when the data is refused, see `kpose.data.coco.read_coco` and `training_dataset`, or `stage_spread` does not fit.
    """
    codecs = [] if model is None else make_codecs(config.codec, config.model.input_size, [output.shape[1:3] for output in model.outputs])
    sets = training_sets(config)
    people = sum(map(len, sets.parts))
    images = sum(part.images if isinstance(part, Records) else 0 for part in sets.parts)
    images += len({part.image_files[index] for part in sets.parts if isinstance(part, Instances) for index in np.unique(part.image_index)})
    steps = config.training.steps_per_epoch or steps_per_epoch(people, config.training.batch_size)
    skipped = SkippedSamples()
    dataset = training_dataset(
        sets.parts,
        preparation_from_config(config, codecs[-1].heatmap_size if codecs else None),
        config.augmentation,
        codecs=codecs,
        weights=sets.weights,
        batch_size=config.training.batch_size,
        seed=config.seed,
        start_step=start_step,
        worker=worker,
        workers=workers,
        shuffle_buffer=config.data.shuffle_buffer,
        skipped=skipped,
    )
    # Names without folders: the line travels inside of the checkpoint.
    names = dict.fromkeys(Path(str(part.records or part.annotations)).name for part in config.data.train)
    return TrainingData(dataset, steps, f"{people} people in {images} images ({', '.join(names)})", skipped)


def _targets(codecs: Sequence[Codec], keypoints: tf.Tensor) -> tuple[Any, Any]:
    """Heatmaps and weights for the outputs of a network, as tuples where there are several; what is the same for some is made once."""
    made = {codec: codec.encode(keypoints) for codec in codecs}
    heatmaps, weights = zip(*(made[codec] for codec in codecs), strict=True)
    return (heatmaps, weights) if len(codecs) > 1 else (heatmaps[0], weights[0])


def steps_per_epoch(people: int, batch_size: int) -> int:
    """Batches that see a training set once; what does not fill the last one comes first in the next epoch."""
    return max(1, people // batch_size)


def training_dataset(
    people: People,
    preparation: Preparation,
    augmentation_config: AugmentationConfig = NO_AUGMENTATION,
    *,
    batch_size: int,
    codecs: Sequence[Codec] = (),
    weights: Sequence[float] | None = None,
    seed: int = 0,
    start_step: int = 0,
    worker: int = 0,
    workers: int = 1,
    shuffle_buffer: int = 2048,
    skipped: SkippedSamples | None = None,
) -> tf.data.Dataset:
    """The endless training stream: every person once per pass, in an order that is drawn anew over the whole set each time.

    Args:
        people: whom to learn from, in picture files or TFRecord shards; or several such sets of one kind and one skeleton.
        preparation: crop, codec and normalisation.
        augmentation_config: random changes.
        batch_size: samples per batch, over all workers; all batches are full.
        codecs: of the outputs of a network that has several; by default there is one, of `preparation`.
        weights: of several sets: the shares of the samples that come from each, kept to within a thousandth; None: everybody equally
            often (picture files only).
        seed: of order and augmentation.
        start_step: batches that a former run has seen; the stream goes on after them.
        worker: which of several processes that train together this is; it reads and gets its share of each batch only. Together they see
            what a single one would, but that a broken picture moves those after it within the share alone, and that `another_person`
            is one of the share.
        workers: how many there are; they divide `batch_size`.
        shuffle_buffer: people among whom the order of shards is mixed; files are shuffled over the whole set.
        skipped: counts the people whose picture is broken; they are left out, the next ones take their place.

    Returns:
        Batches of image `(B, H, W, 3)` float32 normalised, heatmaps `(B, h, w, K)` (as many channels as the codec has) and weights
        `(B, K)`; of several codecs tuples of both.

    Raises:
        KposeError: when there is nobody or not a single picture can be read.
    """
    parts = _parts(people, weights)
    if not all(map(len, parts)):
        raise KposeError("the training set has no person; check 'data.train' and its filters")
    start = start_step * batch_size
    read, name_of = _reader(parts, weights, seed)
    if batch_size % workers:
        raise KposeError(f"a batch of {batch_size} people cannot be divided among {workers} workers; make it a multiple")
    share = batch_size // workers

    paste = augmentation_config.cutout_content == "another_person"

    def load(person: Columns) -> Columns:
        kept = {name: person[name] for name in ("position", "keypoints", "cutout") if name in person and (paste or name != "cutout")}
        cutout = None if paste else person.get("cutout")
        changes = {"colour": person.get("colour"), "cutout": cutout, "frame": person.get("frame")}
        return kept | {"image": load_crop(read(person["source"]), person["matrix"], preparation, **changes)}

    def finish(batch: Columns) -> tuple[Any, Any, Any]:
        image = augmentation.paste_other_people(batch["image"], batch["cutout"]) if "cutout" in batch else batch["image"]
        return image, *_targets(codecs or [preparation.codec], batch["keypoints"])

    planned = planned_people(
        people, preparation, augmentation_config, weights=weights, seed=seed, start=start, shuffle_buffer=shuffle_buffer
    )
    if workers > 1:
        # From here on a position is one among the worker's own people.
        planned = planned.filter(lambda person: person["position"] % batch_size // share == worker).map(
            lambda person: person | {"position": person["position"] // batch_size * share + person["position"] % share}
        )

    def name_of_own(position: int) -> str:
        return name_of(position // share * batch_size + worker * share + position % share)

    loaded = planned.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    _require_readable(loaded, min(sum(map(len, parts)), BLOCK), name_of_own(start_step * share))
    # Errors are dropped here and only here, sample by sample; the gap in the positions tells.
    batches = loaded.ignore_errors().batch(share, drop_remainder=True)
    batches = (skipped or SkippedSamples()).watch(batches, start_step * share, name_of_own)
    return batches.map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE).with_options(_options())


def planned_people(
    people: People,
    preparation: Preparation,
    augmentation_config: AugmentationConfig,
    *,
    weights: Sequence[float] | None = None,
    seed: int = 0,
    start: int = 0,
    shuffle_buffer: int = 2048,
) -> tf.data.Dataset:
    """The training stream up to where pictures are read: who comes, and how each is cut out. Arguments as for `training_dataset`.

    Returns:
        Single people from position `start` on: position, source (file name or bytes of the picture), matrix `(2, 3)` from image to crop,
        keypoints `(K, 3)` in the crop frame, and `frame`, `colour` and `cutout` where they are on.
    """
    parts = _parts(people, weights)
    size, skeleton = preparation.codec.input_size, parts[0].skeleton

    def plan(block: tf.Tensor, columns: Columns) -> Columns:
        block_seed = tf.random.fold_in(tf.constant([seed, 0], tf.int64), block)
        crops = augmentation.random_plan(
            columns["box"], columns["keypoints"], block_seed, augmentation_config, skeleton, size, preparation.box_padding
        )
        matrix = preparation.matrix(crops)
        planned = {
            "position": columns["position"],
            "source": columns["source"],
            "matrix": matrix,
            "keypoints": geometry.transform_points(crops["keypoints"], matrix),
        }
        return planned | {name: crops[name] for name in ("frame", "colour", "cutout") if name in crops}

    first_block = start // BLOCK
    recorded = [part for part in parts if isinstance(part, Records)]
    if recorded:
        blocks = _record_blocks(recorded, weights, first_block, seed, shuffle_buffer)
    else:
        instances = [part for part in parts if isinstance(part, Instances)]
        blocks = _file_blocks(instances, weights, first_block, seed)
    return blocks.enumerate(first_block).map(plan).unbatch().skip(start % BLOCK)


def _parts(people: People, weights: Sequence[float] | None) -> Sequence[Instances | Records]:
    """Several sets, checked: they must go together."""
    parts: list[Instances | Records] = [people] if isinstance(people, (Instances, Records)) else [*people]
    if not parts:
        raise KposeError("the training set has no person; check 'data.train' and its filters")
    if weights is not None and (len(weights) != len(parts) or not all(0 < weight < np.inf for weight in weights)):
        raise KposeError(f"{len(parts)} training sets but the weights {list(weights)}; give each set a weight greater than 0")
    if len({isinstance(part, Records) for part in parts}) > 1:
        raise KposeError("people in files and TFRecord shards cannot be mixed; write all of them as shards, or none")
    if weights is None and len(parts) > 1 and isinstance(parts[0], Records):
        raise KposeError("several sets of TFRecord shards need weights")
    for part in parts[1:]:
        if part.skeleton != parts[0].skeleton:
            raise KposeError(
                f"training sets of skeletons {parts[0].skeleton.name!r} and {part.skeleton.name!r}; bring them together by a JointMapping"
            )
    return parts


def _reader(
    parts: Sequence[Instances | Records], weights: Sequence[float] | None, seed: int
) -> tuple[Callable[[tf.Tensor], tf.Tensor], Callable[[int], str]]:
    """How the picture of a source is read, and how the sample at a position is named in reports."""
    shards = [f"{part.shards[0]} ..." for part in parts if isinstance(part, Records)]
    if len(shards) == 1:
        size = len(parts[0])
        return tf.identity, lambda position: f"sample {position % size} of pass {position // size} of {shards[0]}"
    if shards:
        return tf.identity, lambda position: f"sample {position} of the stream from {', '.join(shards)}"
    people = Instances.concatenate([part for part in parts if isinstance(part, Instances)])

    def name_of(position: int) -> str:
        chosen = int(_chosen(tf.constant([position], tf.int64), list(map(len, parts)), weights, seed)[0])
        return people.image_files[int(people.image_index[chosen])]

    return tf.io.read_file, name_of


def _chosen(positions: tf.Tensor, sizes: Sequence[int], weights: Sequence[float] | None, seed: int) -> tf.Tensor:
    """`(n,)` int64: who stands at positions of the stream, a position among the people of all sets."""
    if weights is None:
        return shuffled_index(positions, sum(sizes), seed)
    return drawn_people(positions, sizes, weights, seed)


def _file_blocks(parts: Sequence[Instances], weights: Sequence[float] | None, first_block: int, seed: int) -> tf.data.Dataset:
    """Columns of `BLOCK` people each: position, source (a file), box, keypoints."""
    files, image_index, boxes, keypoints = _columns(Instances.concatenate(parts))
    sizes = list(map(len, parts))

    def draw(block: tf.Tensor) -> Columns:
        positions = block * BLOCK + tf.range(BLOCK, dtype=tf.int64)
        chosen = _chosen(positions, sizes, weights, seed)
        return {
            "position": positions,
            "source": tf.gather(files, tf.gather(image_index, chosen)),
            "box": tf.gather(boxes, chosen),
            "keypoints": tf.gather(keypoints, chosen),
        }

    return tf.data.Dataset.range(first_block, np.iinfo(np.int64).max // BLOCK).map(draw)


def _record_blocks(
    parts: Sequence[Records], weights: Sequence[float] | None, first_block: int, seed: int, shuffle_buffer: int
) -> tf.data.Dataset:
    """Columns of `BLOCK` people each: position, source (the bytes of a picture), box, keypoints."""
    start = first_block * BLOCK
    if weights is None:
        people = _record_stream(parts[0], seed, start, shuffle_buffer)
    else:
        people = _weighted_records(parts, weights, seed, start, shuffle_buffer)
    return people.batch(BLOCK, drop_remainder=True)


def _record_stream(part: Records, seed: int, start: int, shuffle_buffer: int) -> tf.data.Dataset:
    """The people of one set of shards from position `start` of its stream on."""
    first_pass, offset = divmod(start, len(part))
    return part.passes(seed, first_pass, shuffle_buffer).skip(offset)


def _weighted_records(parts: Sequence[Records], weights: Sequence[float], seed: int, start: int, shuffle_buffer: int) -> tf.data.Dataset:
    """The people of several sets of shards in their shares, from position `start` of the joint stream on."""
    starts = drawn_before(start, weights, seed)
    streams = [
        _record_stream(part, seed + number, int(begin), shuffle_buffer).map(functools.partial(_with_set, number))
        for number, (part, begin) in enumerate(zip(parts, starts, strict=True))
    ]
    positions = tf.data.Dataset.range(start, np.iinfo(np.int64).max)
    choice = positions.batch(BLOCK).map(lambda block: drawn_dataset(block, weights, seed)[0]).unbatch()

    def count_gaps(state: tuple[tf.Tensor, tf.Tensor], person: Columns) -> tuple[tuple[tf.Tensor, tf.Tensor], Columns]:
        # A damaged shard leaves a gap in the positions of its set; it becomes one in those of the joint stream.
        expected, position = state
        number, own = person["set"], person["position"]
        position += own - expected[number]
        expected = tf.tensor_scatter_nd_update(expected, [[number]], [own + 1])
        return (expected, position + 1), {**{name: person[name] for name in ("source", "box", "keypoints")}, "position": position}

    joint = tf.data.Dataset.choose_from_datasets(streams, choice, stop_on_empty_dataset=True)
    return joint.scan((tf.constant(starts, tf.int64), tf.constant(start, tf.int64)), count_gaps)


def _with_set(number: int, person: Columns) -> Columns:
    return {**person, "set": tf.constant(number, tf.int64)}


def evaluation_dataset(
    instances: Instances,
    preparation: Preparation,
    batch_size: int,
    rotations: Sequence[float] = (0.0,),
    scales: Sequence[float] = (1.0,),
) -> tf.data.Dataset:
    """People in order, without any augmentation; the last batch may be smaller.

    A score must not hide what could not be read, so a broken picture is an error here; `evaluation_batches` names it.

    Args:
        instances: whom to look at.
        preparation: crop and normalisation.
        batch_size: people per batch.
        rotations: degrees; every person is shown turned by each, see `Preparation.views`.
        scales: of the region; every rotation at every scale, V views in all. By default there is one, upright.

    Returns:
        Batches of B people as a dictionary with a row for each crop, the V of a person one after the other: image `(B * V, H, W, 3)`
        float32 normalised, matrix `(B * V, 2, 3)` from image to crop, box `(B * V, 4)`, index `(B * V,)` int64, positions in `instances`.
    """
    views = len(rotations) * len(scales)

    def plan(index: tf.Tensor, columns: Columns) -> Columns:
        matrix = preparation.views(columns["box"], rotations, scales)
        return {"index": index, "source": columns["source"], "box": columns["box"], "matrix": matrix}

    def load(person: Columns) -> Columns:
        return {"image": load_views(read(person.pop("source")), person["matrix"], preparation), **person}

    def one_row_a_crop(batch: Columns) -> Columns:
        crops = {name: tf.reshape(batch[name], [-1, *batch[name].shape[2:]]) for name in ("image", "matrix")}
        return crops | {name: tf.repeat(batch[name], views, axis=0) for name in ("box", "index")}

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
    batches = people.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).batch(batch_size).map(one_row_a_crop)
    return batches.prefetch(tf.data.AUTOTUNE).with_options(_options())


def evaluation_batches(
    instances: Instances,
    preparation: Preparation,
    batch_size: int,
    rotations: Sequence[float] = (0.0,),
    scales: Sequence[float] = (1.0,),
) -> Iterator[dict[str, np.ndarray]]:
    """`evaluation_dataset`, batch by batch in numpy.

    Raises:
        KposeError: when a picture cannot be read, naming it.
    """
    dataset = evaluation_dataset(instances, preparation, batch_size, rotations, scales)
    try:
        yield from dataset.as_numpy_iterator()
    except tf.errors.OpError as error:
        for file in dict.fromkeys(instances.image_files[index] for index in instances.image_index):
            check_image(file)
        raise KposeError(f"a picture of {instances.annotation_file} cannot be read: {first_line(error)}") from error


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
