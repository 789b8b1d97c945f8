"""People to batches: the tf.data pipeline, all of it in the graph.

The training stream is a pure function of a seed and a position: sample number p of the stream is the same whatever the parallelism,
and a training that resumes at step s sees exactly what it would have seen without the interrupt. A stage plans crops for a whole block of
people at once (what is drawn at random, the affine map, the moved keypoints), then pictures are read, decoded only where the crop
shows them, and warped once, person by person and in parallel; heatmaps are made for the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kpose import geometry
from kpose.codecs.gaussian import GaussianCodec
from kpose.config import AugmentationConfig, Config
from kpose.data import augmentation
from kpose.data.coco import dataset_from_config
from kpose.data.instances import Instances
from kpose.errors import KposeError
from kpose.skeletons import Skeleton, get_skeleton

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
        return f"{self.count} samples skipped because their picture cannot be read: {', '.join(self.first)}"

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
class Preparation:
    """How a person becomes a crop: what training and evaluation share.

    Attributes:
        codec: crop size, heatmap size and alignment.
        box_padding: factor by which boxes grow once they have the crop's aspect ratio.
        mean, std: of RGB in 0..1, for the normalisation.
    """

    codec: GaussianCodec
    box_padding: float = 1.25
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def matrix(self, plan: augmentation.Plan) -> tf.Tensor:
        """`(n, 2, 3)`: the maps from image to crop of a plan."""
        return geometry.crop_matrix(
            plan["center"], plan["size"], self.codec.input_size, plan["rotation"], plan["mirrored"], self.codec.alignment
        )

    def normalise(self, crop: tf.Tensor) -> tf.Tensor:
        """Crops `(..., H, W, 3)` of 0..255 to mean 0 and standard deviation 1."""
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        return crop * (1.0 / (255.0 * std)) - mean / std

    def denormalise(self, crop: np.ndarray) -> np.ndarray:
        """The uint8 picture of a normalised crop."""
        return np.clip(np.rint((crop * np.asarray(self.std, np.float32) + np.asarray(self.mean, np.float32)) * 255.0), 0, 255).astype(
            np.uint8
        )


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
        model: the network to train, for the size of its heatmaps; without one they are a quarter of the crop.
        start_epoch: epochs that a former run has seen.

    Raises:
        KposeError: when the data is refused, see `kpose.data.coco.read_coco` and `training_dataset`.
    """
    instances = training_instances(config)
    heatmap_size = None if model is None else (model.output_shape[1], model.output_shape[2])
    steps = config.training.steps_per_epoch or steps_per_epoch(len(instances), config.training.batch_size)
    skipped = SkippedSamples()
    dataset = training_dataset(
        instances,
        preparation_from_config(config, heatmap_size),
        config.augmentation,
        batch_size=config.training.batch_size,
        seed=config.seed,
        start_step=start_epoch * steps,
        skipped=skipped,
    )
    return TrainingData(dataset, steps, describe(instances, config), skipped)


def training_instances(config: Config) -> Instances:
    """The people of all training sets of a configuration; what was left out is printed.

    Raises:
        KposeError: when there is none, or one is refused.
    """
    skeleton = get_skeleton(config.skeleton)
    instances = Instances.concatenate([dataset_from_config(part, skeleton, for_training=True) for part in config.data.train])
    _print_notes(instances)
    return instances


def validation_instances(config: Config) -> Instances:
    """The people of the validation set of a configuration; what was left out is printed.

    Raises:
        KposeError: when there is none, or it is refused.
    """
    if config.data.validation is None:
        raise KposeError("the configuration has no validation set; give 'data.validation'")
    instances = dataset_from_config(config.data.validation, get_skeleton(config.skeleton), for_training=False)
    _print_notes(instances)
    return instances


def preparation_from_config(config: Config, heatmap_size: geometry.Size | None = None) -> Preparation:
    """How a configuration cuts people out; heatmaps are a quarter of the crop where no size is given."""
    size = config.model.input_size
    codec = GaussianCodec(size, heatmap_size or (size[0] // 4, size[1] // 4), config.codec.sigma, config.codec.alignment)
    return Preparation(codec, config.data.box_padding, config.data.mean, config.data.std)


def describe(instances: Instances, config: Config) -> str:
    """A line about a training set."""
    sources = ", ".join(str(part.annotations or part.records) for part in config.data.train)
    return f"{len(instances)} people in {len(set(instances.image_index.tolist()))} images ({sources})"


def _print_notes(instances: Instances) -> None:
    for note in instances.notes:
        print(note)


def steps_per_epoch(people: int, batch_size: int) -> int:
    """Batches that see a training set once; what does not fill the last one comes first in the next epoch."""
    return max(1, people // batch_size)


def training_dataset(
    instances: Instances,
    preparation: Preparation,
    augmentation_config: AugmentationConfig = NO_AUGMENTATION,
    *,
    batch_size: int,
    seed: int = 0,
    start_step: int = 0,
    skipped: SkippedSamples | None = None,
) -> tf.data.Dataset:
    """The endless training stream: every person once per pass, in an order that is drawn anew over the whole set each time.

    Args:
        instances: the people.
        preparation: crop, codec and normalisation.
        augmentation_config: random changes.
        batch_size: samples per batch; all batches are full.
        seed: of order and augmentation.
        start_step: batches that a former run has seen; the stream goes on after them.
        skipped: counts the people whose picture is broken; they are left out, the next ones take their place.

    Returns:
        Batches of image `(B, H, W, 3)` float32 normalised, heatmaps `(B, h, w, K)` and weights `(B, K)`.

    Raises:
        KposeError: when there is nobody or not a single picture can be read.
    """
    people = len(instances)
    if not people:
        raise KposeError("the training set has no person; check 'data.train' and its filters")
    files, image_index, boxes, keypoints = _columns(instances)
    start = start_step * batch_size
    first_block = start // BLOCK

    def draw(block: tf.Tensor) -> Columns:
        positions = block * BLOCK + tf.range(BLOCK, dtype=tf.int64)
        chosen = shuffled_index(positions, people, seed)
        return {
            "position": positions,
            "source": tf.gather(files, tf.gather(image_index, chosen)),
            "box": tf.gather(boxes, chosen),
            "keypoints": tf.gather(keypoints, chosen),
        }

    def name_of(position: int) -> str:
        chosen = int(shuffled_index(tf.constant([position], tf.int64), people, seed)[0])
        return instances.image_files[int(instances.image_index[chosen])]

    blocks = tf.data.Dataset.range(first_block, np.iinfo(np.int64).max // BLOCK).map(draw).enumerate(first_block)
    return training_stream(
        blocks,
        tf.io.read_file,
        name_of,
        instances.skeleton,
        preparation,
        augmentation_config,
        batch_size=batch_size,
        seed=seed,
        start=start,
        people=people,
        skipped=skipped,
    )


def training_stream(
    blocks: tf.data.Dataset,
    read: Callable[[tf.Tensor], tf.Tensor],
    name_of: Callable[[int], str],
    skeleton: Skeleton,
    preparation: Preparation,
    augmentation_config: AugmentationConfig,
    *,
    batch_size: int,
    seed: int,
    start: int,
    people: int,
    skipped: SkippedSamples | None,
) -> tf.data.Dataset:
    """What file and TFRecord training share: numbered blocks of people to batches.

    Args:
        blocks: `(number, columns)`, columns of `BLOCK` people: position, source, box, keypoints.
        read: the encoded picture of a source.
        name_of: names the source of a position in reports.
        skeleton: of the keypoints.
        preparation: crop, codec and normalisation.
        augmentation_config: random changes.
        batch_size: samples per batch.
        seed: of the augmentation.
        start: position of the first sample to give out.
        people: how many there are, at most so many are tried before a set without a readable picture is refused.
        skipped: counts broken pictures.
    """
    codec = preparation.codec

    def plan(number: tf.Tensor, columns: Columns) -> Columns:
        crops = augmentation.plan_crops(columns["box"], columns["keypoints"], codec.input_size, preparation.box_padding)
        block_seed = tf.random.fold_in(tf.constant([seed, 0], tf.int64), number)
        crops = augmentation.augment_plan(crops, block_seed, augmentation_config, skeleton, codec.input_size)
        matrix = preparation.matrix(crops)
        planned = {
            "position": columns["position"],
            "source": columns["source"],
            "matrix": matrix,
            "keypoints": geometry.transform_points(crops["keypoints"], matrix),
        }
        return planned | {name: crops[name] for name in ("colour", "cutout") if name in crops}

    def load(person: Columns) -> Columns:
        image = preparation_image(read(person["source"]), person["matrix"], preparation, person.get("colour"), person.get("cutout"))
        return {"position": person["position"], "image": image, "keypoints": person["keypoints"]}

    def finish(batch: Columns) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        heatmaps, weights = codec.encode(batch["keypoints"])
        return batch["image"], heatmaps, weights

    planned = blocks.map(plan).unbatch().skip(start % BLOCK)
    _require_readable(planned, load, people, name_of)
    samples = planned.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).ignore_errors()
    batches = samples.batch(batch_size, drop_remainder=True)
    batches = (skipped or SkippedSamples()).watch(batches, start, name_of)
    return batches.map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE).with_options(_options())


def evaluation_dataset(instances: Instances, preparation: Preparation, batch_size: int) -> tf.data.Dataset:
    """People in order, without any augmentation; the last batch may be smaller.

    A score must not hide what could not be read, so a broken picture is an error here; `evaluation_batches` names it.

    Returns:
        Batches of a dictionary: image `(B, H, W, 3)` float32 normalised, matrix `(B, 2, 3)` from image to crop, box `(B, 4)` and index
        `(B,)` int64, positions in `instances`.
    """
    files, image_index, boxes, _ = _columns(instances)

    def plan(index: tf.Tensor) -> Columns:
        box = tf.gather(boxes, index)
        crops = augmentation.plan_crops(box, tf.zeros([tf.shape(index)[0], 1, 3]), preparation.codec.input_size, preparation.box_padding)
        source = tf.gather(files, tf.gather(image_index, index))
        return {"index": index, "source": source, "box": box, "matrix": preparation.matrix(crops)}

    def load(person: Columns) -> Columns:
        image = preparation_image(tf.io.read_file(person.pop("source")), person["matrix"], preparation)
        return {"image": image, **person}

    people = tf.data.Dataset.range(len(instances)).batch(BLOCK).map(plan).unbatch()
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
        raise KposeError(f"a picture of {instances.annotation_file} cannot be read: {_first_line(error)}") from error


def check_image(file: str) -> None:
    """Decode a picture whole.

    Raises:
        KposeError: when it cannot be read or decoded.
    """
    try:
        decode_region(tf.io.read_file(file), lambda size: tf.stack([0, 0, size[0], size[1]]))
    except tf.errors.OpError as error:
        raise KposeError(f"cannot read the picture {file}: {_first_line(error)}; replace it or leave it out") from error


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


def preparation_image(
    content: tf.Tensor, matrix: tf.Tensor, preparation: Preparation, colour: tf.Tensor | None = None, cutout: tf.Tensor | None = None
) -> tf.Tensor:
    """The normalised crop `(H, W, 3)` of an encoded picture.

    Args:
        content: the bytes of a JPEG, PNG, BMP or GIF file.
        matrix: `(2, 3)` from image to crop.
        preparation: crop and normalisation.
        colour: see `augmentation.random_colour`.
        cutout: see `augmentation.random_cutout`.
    """
    size = preparation.codec.input_size
    region, offset = decode_region(content, lambda image_size: geometry.visible_region(matrix, size, image_size))
    crop = sample_crop(region, geometry.translate_source(matrix, offset), size)
    if colour is not None:
        crop = augmentation.adjust_colour(crop, colour)
    crop = preparation.normalise(crop)
    return crop if cutout is None else augmentation.cut_out(crop, cutout)


def decode_region(content: tf.Tensor, choose: Callable[[tf.Tensor], tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode a part of a picture.

    Args:
        content: the bytes of the file. Of a JPEG only the part is decoded.
        choose: y, x, height, width `(4,)` of the part, from the picture's height and width `(2,)` int32.

    Returns:
        The part `(h, w, 3)` uint8 RGB, and its offset `(2,)` x, y.
    """

    def from_jpeg() -> tuple[tf.Tensor, tf.Tensor]:
        region = choose(tf.image.extract_jpeg_shape(content)[:2])
        return tf.image.decode_and_crop_jpeg(content, region, channels=3), region

    def from_other() -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.io.decode_image(content, channels=3, expand_animations=False)
        region = choose(tf.shape(image)[:2])
        return tf.slice(image, [region[0], region[1], 0], [region[2], region[3], 3]), region

    part, region = tf.cond(tf.io.is_jpeg(content), from_jpeg, from_other)
    part.set_shape([None, None, 3])
    return part, tf.stack([region[1], region[0]])


def sample_crop(image: tf.Tensor, matrix: tf.Tensor, crop_size: geometry.Size) -> tf.Tensor:
    """`geometry.warp_image` of one uint8 picture, to within 0.02 grey levels and about three times as fast.

    CropAndResize is asked for crops of one pixel: it then samples single points, takes uint8 as it is, and works out the place once for
    all channels, where ImageProjectiveTransformV3 does so for each.

    Args:
        image: `(H, W, 3)` uint8.
        matrix: `(2, 3)` from image to crop.
        crop_size: height and width of the crop.

    Returns:
        `(height, width, 3)` float32 in 0..255, black outside of the picture.
    """
    height, width = crop_size
    # A black margin, so that the picture fades out over one pixel as in the other implementation.
    padded = tf.pad(image, [[1, 1], [1, 1], [0, 0]])
    extent = tf.cast(tf.shape(padded)[:2] - 1, tf.float32)
    inverse = geometry.invert_affine(matrix) + tf.constant([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    x, y = inverse[0] / extent[1], inverse[1] / extent[0]
    pixels = np.stack(np.broadcast_arrays(np.arange(width)[None, :], np.arange(height)[:, None], 1), axis=-1)
    points = tf.matmul(tf.constant(pixels.reshape(-1, 3), tf.float32), tf.stack([y, x, y, x], axis=-1))
    samples = tf.raw_ops.CropAndResize(
        image=padded[None], boxes=points, box_ind=tf.zeros([height * width], tf.int32), crop_size=[1, 1], extrapolation_value=0.0
    )
    return tf.reshape(samples, [height, width, 3])


def _columns(instances: Instances) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Files, image index, boxes and keypoints as eager tensors: datasets capture them, so that no graph carries them as constants."""
    with tf.device("CPU:0"):
        return (
            tf.constant(instances.image_files, tf.string),
            tf.constant(instances.image_index, tf.int32),
            tf.constant(instances.boxes, tf.float32),
            tf.constant(instances.keypoints, tf.float32),
        )


def _require_readable(planned: tf.data.Dataset, load: Callable[[Columns], Any], people: int, name_of: Callable[[int], str]) -> None:
    """Refuse a set of which the first samples cannot be read, not one of them: the stream would look for a good one for ever."""
    tried = min(people, BLOCK)
    probe = planned.take(tried).map(load)
    try:
        for _ in probe.ignore_errors().take(1):
            return
        next(iter(probe))
    except tf.errors.OpError as error:
        first = next(iter(planned))["position"]
        raise KposeError(
            f"none of {tried} pictures of the training set can be read, first {name_of(int(first))}: {_first_line(error)}; check them"
        ) from error


def _first_line(error: tf.errors.OpError) -> str:
    return str(error.message).strip().splitlines()[0].split("{{")[-1].split("}} ")[-1]


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    # Splitting by file makes no sense for a generated order; a distribution strategy splits by batch.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return options
