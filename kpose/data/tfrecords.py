"""TFRecord shards: people and their pictures in a few large files, for disks that are slow with many small ones.

An example is a picture, its bytes as they are in the file, with all its people. Beside the shards lies a manifest: skeleton, counts, and
size and SHA-256 of each shard.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from kpose.config import DatasetConfig
from kpose.data.crops import decode_whole, first_line
from kpose.data.instances import Instances
from kpose.data.joint_mapping import JointMapping
from kpose.errors import KposeError
from kpose.files import address, file_size, find_files, open_binary, read_json, replacing, sha256_of, write_json
from kpose.skeletons import Skeleton

FORMAT = "kpose people 1"
_SHARD = re.compile(r"^(?P<prefix>.+)-\d{5}-of-\d{5}\.tfrecord$")
# Shards that are read at once in training.
_CYCLE = 8
# Pictures that wait to be written into a shard.
_READ_AHEAD = 4
# What a shard is read by at once.
_BUFFER_BYTES = 1 << 20

# What becomes of damaged records: left out and told, a reason to stop, or not looked for.
Damage = Literal["skip", "refuse", "unchecked"]
# Where a stretch of sound records begins, in bytes, and how many there are; -1: all to the end.
Run = tuple[int, int]
_WHOLE: tuple[Run, ...] = ((0, -1),)

Columns = dict[str, tf.Tensor]


@dataclass(frozen=True)
class Records:
    """TFRecord shards as a training source.

    Attributes:
        stored_skeleton: meaning of the keypoints in the shards.
        shards: the files.
        people: how many people they hold together, those in damaged records left out.
        images: how many pictures.
        mapping: from those joints to the network's; None: they are the same.
        sound: of shards with damaged records the stretches of sound ones; the others are sound as a whole.
    """

    stored_skeleton: Skeleton
    shards: tuple[str, ...]
    people: int
    images: int
    mapping: JointMapping | None = None
    sound: Mapping[str, tuple[Run, ...]] = field(default_factory=dict)

    @property
    def skeleton(self) -> Skeleton:
        """Meaning of the keypoints of the people that come out."""
        return self.stored_skeleton if self.mapping is None else self.mapping.target

    def __len__(self) -> int:
        return self.people

    def passes(self, seed: int, first_pass: int, shuffle_buffer: int) -> tf.data.Dataset:
        """The endless stream of people, in an order that is drawn anew for each pass.

        Shards are shuffled and read several at once, people within a buffer.

        Args:
            seed: of the order.
            first_pass: the pass to begin with.
            shuffle_buffer: people.

        Returns:
            Single people: position in the stream, source (the encoded picture), box, keypoints. A damaged shard leaves a gap in
            the positions.
        """
        shards = tf.constant(self.shards)
        runs = tf.ragged.constant([self.sound.get(shard, _WHOLE) for shard in self.shards], tf.int64, ragged_rank=1, inner_shape=(2,))

        def one_pass(number: tf.Tensor) -> tf.data.Dataset:
            seeds = tf.random.fold_in(tf.constant([seed, 1], tf.int64), number)
            order = tf.argsort(tf.random.stateless_uniform([len(self.shards)], seeds), stable=True)
            files = tf.data.Dataset.from_tensor_slices((tf.gather(shards, order), tf.gather(runs, order)))
            examples = files.interleave(_read_runs, cycle_length=_CYCLE, num_parallel_calls=_CYCLE, deterministic=True)
            # The rest of a damaged shard is dropped here, within the pass, so that the gap in the positions tells how much it was.
            parsed = examples.map(self._parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).ignore_errors()
            people = parsed.flat_map(_people_of)
            people = people.shuffle(shuffle_buffer, seed=seeds[0], reshuffle_each_iteration=False)
            return people.enumerate(number * self.people).map(lambda position, person: {"position": position, **person})

        return tf.data.Dataset.range(first_pass, np.iinfo(np.int64).max // max(self.people, 1)).flat_map(one_pass)

    def examples(self) -> tf.data.Dataset:
        """The pictures with their people, in the order of the shards."""
        return tf.data.TFRecordDataset(list(self.shards)).map(self._parse)

    def in_order(self) -> tf.data.Dataset:
        """Single people, in the order of the shards: source and box."""
        return self.examples().flat_map(_people_of).map(lambda person: {"source": person["source"], "box": person["box"]})

    def instances(self, annotation_file: Path | None = None) -> RecordedInstances:
        """Read everything but the pictures' pixels: the columns that a score is computed from.

        Raises:
            KposeError: when a shard is damaged.
        """
        images: dict[str, list[Any]] = {"file": [], "id": [], "size": []}
        columns: dict[str, list[np.ndarray]] = {name: [] for name in ("ids", "boxes", "keypoints", "areas", "box_scores", "image_index")}
        for shard in self.shards:
            try:
                for example in tf.data.TFRecordDataset(shard).map(self._parse).as_numpy_iterator():
                    columns["image_index"].append(np.full(len(example["ids"]), len(images["id"]), np.int32))
                    images["file"].append(example["file_name"].decode("utf-8", "replace"))
                    images["id"].append(example["image_id"])
                    images["size"].append(example["size"])
                    for name in ("ids", "boxes", "keypoints", "areas", "box_scores"):
                        columns[name].append(example[name])
            except tf.errors.OpError as error:
                raise KposeError(f"{shard} is damaged: {first_line(error)}; write the shards again or fetch it") from error
        joined = {name: np.concatenate(parts) for name, parts in columns.items()}
        if len(joined["ids"]) != self.people:
            raise KposeError(f"the shards hold {len(joined['ids'])} people, their manifest says {self.people}; write them again")
        return RecordedInstances(
            skeleton=self.skeleton,
            image_files=tuple(images["file"]),
            image_ids=np.array(images["id"], np.int64),
            image_sizes=np.array(images["size"], np.int32).reshape(-1, 2),
            annotation_file=annotation_file,
            records=self,
            ids=joined["ids"],
            boxes=joined["boxes"],
            keypoints=joined["keypoints"],
            areas=joined["areas"],
            box_scores=joined["box_scores"],
            image_index=joined["image_index"],
        )

    def check_begin(self, shard: str) -> None:
        """Read the first picture's record of a shard.

        Raises:
            KposeError: when it is damaged.
        """
        try:
            for _ in tf.data.TFRecordDataset(shard).take(1).map(self._parse):
                return
        except tf.errors.OpError as error:
            raise KposeError(f"{shard} is damaged: {first_line(error)}; write the shards again or fetch it") from error
        raise KposeError(f"{shard} is empty; write the shards again or fetch it")

    def people_in(self, shard: str, runs: Iterable[Run]) -> int:
        """How many people there are in stretches of sound records."""
        if not (stretches := list(runs)):
            return 0
        examples = _read_runs(tf.constant(shard), tf.constant(stretches, tf.int64)).map(self._parse)
        return sum(len(example["ids"]) for example in examples.as_numpy_iterator())

    def _parse(self, example: tf.Tensor) -> Columns:
        def numbers(dtype: tf.DType) -> tf.io.FixedLenSequenceFeature:
            return tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True)

        joints = self.stored_skeleton.num_joints
        found = tf.io.parse_single_example(
            example,
            {
                "image/encoded": tf.io.FixedLenFeature([], tf.string),
                "image/file_name": tf.io.FixedLenFeature([], tf.string),
                "image/id": tf.io.FixedLenFeature([], tf.int64),
                "image/size": tf.io.FixedLenFeature([2], tf.int64),
                "person/id": numbers(tf.int64),
                "person/box": numbers(tf.float32),
                "person/keypoints": numbers(tf.float32),
                "person/area": numbers(tf.float32),
                "person/box_score": numbers(tf.float32),
            },
        )
        people = tf.shape(found["person/id"])[0]
        keypoints = tf.reshape(found["person/keypoints"], [people, joints, 3])
        return {
            "source": found["image/encoded"],
            "file_name": found["image/file_name"],
            "image_id": found["image/id"],
            "size": tf.cast(found["image/size"], tf.int32),
            "ids": found["person/id"],
            "boxes": tf.reshape(found["person/box"], [people, 4]),
            "keypoints": keypoints if self.mapping is None else self.mapping.to_target(keypoints),
            "areas": tf.reshape(found["person/area"], [people]),
            "box_scores": tf.reshape(found["person/box_score"], [people]),
        }


@dataclass(frozen=True)
class RecordedInstances(Instances):
    """People whose pictures lie in TFRecord shards; `image_files` are the names that they had.

    Attributes:
        records: the shards, which hold the people in the same order.
    """

    records: Records | None = None

    def select(self, chosen: np.ndarray) -> Instances:
        """Refused: shards are read in order. Raises `KposeError`."""
        raise KposeError("people of TFRecord shards cannot be chosen one by one; choose before writing them")


def _read_runs(shard: tf.Tensor, runs: tf.RaggedTensor | tf.Tensor) -> tf.data.Dataset:
    """The records of a shard that lie in its sound stretches."""
    return tf.data.Dataset.from_tensor_slices(runs).flat_map(lambda run: _read_from(shard, run[0]).take(run[1]))


def _read_from(shard: tf.Tensor, start: tf.Tensor) -> tf.data.Dataset:
    """The records of a shard from a byte on, at which one must begin; `tf.data.TFRecordDataset` knows no such start.

    For the inside of another dataset's function alone: TensorFlow forgets the start where it writes such a dataset down as a graph.
    """
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=[shard], compression_type="", buffer_size=_BUFFER_BYTES, byte_offsets=tf.cast([start], tf.int64)
    )
    return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))


def _people_of(example: Columns) -> tf.data.Dataset:
    # The picture is captured, not copied, for each of its people.
    people = tf.data.Dataset.from_tensor_slices({"box": example["boxes"], "keypoints": example["keypoints"]})
    return people.map(lambda person: {"source": example["source"], **person})


def write_tfrecords(
    instances: Instances,
    folder: str | Path,
    prefix: str = "people",
    shards: int = 16,
    seed: int = 0,
    progress: bool = True,
    workers: int | None = None,
) -> Path:
    """Write people and their pictures as TFRecord shards, `PREFIX-00000-of-00016.tfrecord`, and a manifest, `PREFIX.json`.

    Pictures are decoded once, so that broken ones are left out here (and named in the manifest) instead of coming up in every
    epoch; their bytes are copied as they are. Their order is shuffled, so that a training that shuffles within a buffer sees all sources
    mixed. Each shard takes its name when it is whole, the manifest when all are. The same people, shards and seed give the same bytes,
    however many workers write them; `kpose.data.beam_tfrecords` writes them on a cluster.

    Args:
        instances: the people.
        folder: where to write to; made if it is not there.
        prefix: of the files' names.
        shards: how many files; not more than there are pictures with people.
        seed: of the order.
        progress: show a bar with the time to go.
        workers: shards that are written at once, each by a thread; default: one for each processor.

    Returns:
        The manifest.

    Raises:
        KposeError: when there is nobody, no picture can be read, or a file cannot be written.
    """
    if workers is not None and workers < 1:
        raise KposeError(f"cannot write with {workers} workers; give 1 or more")
    plans = plan_shards(instances, folder, prefix, shards, seed)
    with (
        tqdm(total=sum(plan.images for plan in plans), desc=f"writing {folder}", unit="image", disable=not progress, leave=False) as bar,
        ThreadPoolExecutor(workers or os.cpu_count()) as pool,
    ):
        futures = [pool.submit(write_shard, plan, bar.update) for plan in plans]
        try:
            written = [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return write_manifest(written, instances.skeleton, folder, prefix)


@dataclass(frozen=True)
class ShardPlan:
    """What goes into one shard.

    Attributes:
        path: the file to write.
        people: in the order in which they are written, picture by picture; `image_files` are the shard's pictures alone.
    """

    path: str
    people: Instances

    @property
    def images(self) -> int:
        """How many pictures it should hold."""
        return len(self.people.image_files)


def plan_shards(instances: Instances, folder: str | Path, prefix: str, shards: int, seed: int) -> list[ShardPlan]:
    """Who goes into which shard, see `write_tfrecords`.

    Raises:
        KposeError: when there is nobody, or no such shards can be written.
    """
    if not len(instances):
        raise KposeError("there is nobody to write; the dataset is empty")
    if shards < 1:
        raise KposeError(f"cannot write {shards} shards; give 1 or more")
    if os.path.basename(prefix) != prefix or not prefix or glob.escape(prefix) != prefix:
        raise KposeError(f"prefix {prefix!r} cannot begin a file name; use letters and digits")
    by_image = np.argsort(instances.image_index, kind="stable")
    images, starts = np.unique(instances.image_index[by_image], return_index=True)
    people_of = dict(zip(images.tolist(), np.split(by_image, starts[1:]), strict=True))
    shards = min(shards, len(images))
    order = np.random.default_rng(seed).permutation(images)
    plans = []
    for number, part in enumerate(np.array_split(order, shards)):
        chosen = instances.select(np.concatenate([people_of[image] for image in part.tolist()]))
        people = replace(
            chosen,
            image_files=tuple(instances.image_files[image] for image in part),
            image_ids=instances.image_ids[part],
            image_sizes=instances.image_sizes[part],
            image_index=np.repeat(np.arange(len(part), dtype=np.int32), [len(people_of[image]) for image in part.tolist()]),
            notes=(),
        )
        plans.append(ShardPlan(address(Path(folder) / f"{prefix}-{number:05d}-of-{shards:05d}.tfrecord"), people))
    return plans


@dataclass(frozen=True)
class WrittenShard:
    """A shard that lies where it belongs: its entry in the manifest, and the pictures that it was to hold but that cannot be read."""

    entry: dict[str, Any]
    broken: tuple[str, ...]


def write_shard(plan: ShardPlan, update: Callable[[], object] | None = None) -> WrittenShard:
    """Write one shard, whole or not at all; the same plan gives the same bytes anywhere.

    Args:
        plan: what to write.
        update: is called after each picture.

    Raises:
        KposeError: when the file cannot be written.
    """
    path, people = Path(plan.path), plan.people
    bounds = np.searchsorted(people.image_index, np.arange(plan.images + 1))
    pictures = persons = 0
    broken = []
    try:
        with replacing(path) as partial:
            with tf.io.TFRecordWriter(str(partial)) as writer:
                for image, content in enumerate(_read_files(people.image_files)):
                    if content is None:
                        broken.append(people.image_files[image])
                    else:
                        chosen = np.arange(bounds[image], bounds[image + 1])
                        # Without this the order of the fields differs from process to process.
                        writer.write(_example(people, image, chosen, content).SerializeToString(deterministic=True))
                        pictures, persons = pictures + 1, persons + len(chosen)
                    if update is not None:
                        update()
            size, digest = file_size(partial), sha256_of(partial)
    except tf.errors.OpError as error:
        raise KposeError(f"cannot write {plan.path}: {error.message}; is there room, and may you write there?") from error
    entry = {"file": path.name, "images": pictures, "people": persons, "bytes": size, "sha256": digest}
    return WrittenShard(entry, tuple(broken))


def write_manifest(written: Sequence[WrittenShard], skeleton: Skeleton, folder: str | Path, prefix: str) -> Path:
    """Write the manifest of shards, the last of the files, and tell what they hold; returns its path.

    Raises:
        KposeError: when they hold nobody, or the file cannot be written.
    """
    entries = [shard.entry for shard in written]
    broken = [file for shard in written for file in shard.broken]
    totals = {key: sum(entry[key] for entry in entries) for key in ("images", "people")}
    if not totals["people"]:
        raise KposeError(f"not a single picture can be read, first {broken[0]}; check the images of the dataset")
    manifest = write_json(
        {"format": FORMAT, "skeleton": skeleton.to_dict(), **totals, "left_out_broken_images": broken, "shards": entries},
        Path(folder) / f"{prefix}.json",
        indent=1,
    )
    left_out = f", {len(broken)} broken pictures left out, first {broken[0]}" if broken else ""
    print(f"{totals['people']} people in {totals['images']} images{left_out}; {len(entries)} shards and {manifest.name} in {folder}")
    return manifest


def _read_files(files: Sequence[str]) -> Iterator[bytes | None]:
    """The bytes of pictures in their order, None for those that do not decode."""

    def read(position: tf.Tensor, file: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        content = tf.io.read_file(file)
        # The size alone is asked for, so that the picture is decoded and need not come along.
        return position, content, tf.shape(decode_whole(content))[0]

    # All of it in TensorFlow's own threads: from Python's, operations one by one wait for its lock.
    found = tf.data.Dataset.from_tensor_slices(list(files)).enumerate().map(read).ignore_errors().prefetch(_READ_AHEAD)
    expected = 0
    for position, content, _ in found.as_numpy_iterator():
        yield from (None for _ in range(expected, position))
        yield content
        expected = position + 1
    yield from (None for _ in range(expected, len(files)))


def _example(instances: Instances, image: int, chosen: np.ndarray, content: bytes) -> tf.train.Example:
    def texts(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    def integers(values: np.ndarray) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=np.ravel(values)))

    def floats(values: np.ndarray) -> tf.train.Feature:
        return tf.train.Feature(float_list=tf.train.FloatList(value=np.ravel(values)))

    return tf.train.Example(
        features=tf.train.Features(
            feature={
                "image/encoded": texts(content),
                "image/file_name": texts(instances.image_files[image].encode()),
                "image/id": integers(instances.image_ids[image]),
                "image/size": integers(instances.image_sizes[image]),
                "person/id": integers(instances.ids[chosen]),
                "person/box": floats(instances.boxes[chosen]),
                "person/keypoints": floats(instances.keypoints[chosen]),
                "person/area": floats(instances.areas[chosen]),
                "person/box_score": floats(instances.box_scores[chosen]),
            }
        )
    )


def records_from_config(dataset: DatasetConfig, skeleton: Skeleton) -> Records:
    """The shards of a dataset of format `tfrecord`.

    Raises:
        KposeError: see `open_records`; also when no pattern is given, or one asks for what only applies before writing.
    """
    if not dataset.records:
        raise KposeError("a dataset of format 'tfrecord' needs 'records', the pattern of its shards, such as data/people-*.tfrecord")
    if dataset.include or dataset.exclude or dataset.detections:
        raise KposeError(f"{dataset.records}: 'include', 'exclude' and 'detections' apply when shards are written, not when they are read")
    return open_records([dataset.records], skeleton, damaged=dataset.damaged_records)


def open_records(patterns: list[str], skeleton: Skeleton, verify: bool = False, damaged: Damage = "unchecked") -> Records:
    """Find shards and check them against their manifests.

    Args:
        patterns: of the shards, such as `data/people-*.tfrecord`; all shards of a manifest must be there.
        skeleton: what the people must be annotated with.
        verify: compare SHA-256 too: reads every shard to its end.
        damaged: what to do about records whose checksum is wrong. "skip" and "refuse" read every shard to its end: the one leaves such
            records out, and prints how many people that is and where; the other ends with an error. "unchecked" reads the first record of
            each shard alone: a damaged one ends its shard, in each pass anew, and what is missing is counted as unreadable samples.

    Raises:
        KposeError: when nothing matches, a manifest or a shard is missing, damaged or of another size than written, or the joints differ.
    """
    entries: dict[str, dict[str, Any]] = {}
    people = images = 0
    for pattern in patterns:
        found = find_files(pattern)
        if not found:
            raise KposeError(f"no file matches {address(pattern)}; write shards with `kpose prepare-data tfrecords`")
        for path, shard in manifest_entries(found, skeleton).items():
            _check_shard(path, shard, verify)
            entries[path] = shard
            people, images = people + shard["people"], images + shard["images"]
    records = Records(skeleton, tuple(entries), people, images)
    if damaged == "unchecked":
        for path in entries:
            records.check_begin(path)
        return records
    return _without_damaged(records, entries, damaged)


def manifest_entries(found: Sequence[str], skeleton: Skeleton | None = None) -> dict[str, dict[str, Any]]:
    """What the manifests of some shards say of all their shards, by path; its `people`, `images`, `bytes`, `sha256`.

    Args:
        found: paths of shards.
        skeleton: what the people must be annotated with; None: that does not matter.

    Raises:
        KposeError: when a manifest is missing or damaged, has other joints, or does not know one of the shards.
    """
    entries: dict[str, dict[str, Any]] = {}
    for manifest in sorted({_manifest_of(Path(file)) for file in found}):
        for shard in _read_manifest(manifest, skeleton)["shards"]:
            entries[address(manifest.parent / shard["file"])] = shard
    unknown = {address(file) for file in found} - entries.keys()
    if unknown:
        raise KposeError(f"{min(unknown)} is not in its manifest; it is left from another run: remove it")
    return entries


def _without_damaged(records: Records, entries: Mapping[str, dict[str, Any]], damaged: Damage) -> Records:
    """Those records of all shards whose checksums are right; the others are refused, or told and left out."""
    with ThreadPoolExecutor(_CYCLE) as pool:
        runs = dict(zip(entries, pool.map(sound_runs, entries), strict=True))
    sound = {path: found for path, found in runs.items() if sum(count for _, count in found) != entries[path]["images"]}
    if not sound:
        return records
    images, people, places = records.images, records.people, []
    for path, found in sound.items():
        entry, kept = entries[path], sum(count for _, count in found)
        kept_people = records.people_in(path, found)
        images, people = images - entry["images"] + kept, people - entry["people"] + kept_people
        first = found[0][1] if found and found[0][0] == 0 else 0
        places.append(f"{path}: {entry['images'] - kept} of {entry['images']} records, the first is number {first}")
    lost = f"{records.images - images} damaged records with {records.people - people} people"
    if damaged == "refuse":
        raise KposeError(f"{lost} in {len(sound)} shards, {places[0]}; write the shards again or fetch them, or set damaged_records: skip")
    if not people:
        raise KposeError(f"{lost}: not one is sound, {places[0]}; write the shards again or fetch them")
    print(f"{lost} are left out, of {records.images} records with {records.people} people:")
    for place in places:
        print(f"  {place}")
    return replace(records, images=images, people=people, sound=sound)


def sound_runs(shard: str) -> tuple[Run, ...]:
    """The stretches of records of a shard whose checksums are right; reads it to its end, once where all of it is sound.

    A record with a damaged length hides those after it: where they begin is not known.
    """
    counted = int(_count_from(shard, 0))
    try:
        starts = _record_starts(shard)
        if counted == len(starts):
            return ((0, counted),)
        runs, place = [], 0
        while place < len(starts):
            count = int(_count_from(shard, starts[place])) if place else counted
            if count:
                runs.append((starts[place], count))
            place += count + 1
    except OSError as error:
        raise KposeError(f"cannot read {shard}: {error.strerror}") from error
    return tuple(runs)


@dataclass(frozen=True)
class Picture:
    """A picture of a record: its file's name, its bytes, and the boxes `(n, 4)` of its people."""

    name: str
    content: bytes
    boxes: np.ndarray


def read_pictures(shard: str, images: int) -> Iterator[Picture | str]:
    """The pictures of a shard in its order; in place of those in damaged records what such a record is called.

    Args:
        shard: the file.
        images: how many records it should have.

    Raises:
        KposeError: when it cannot be read.
    """

    def parse(example: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        columns = {
            "image/encoded": tf.io.FixedLenFeature([], tf.string),
            "image/file_name": tf.io.FixedLenFeature([], tf.string),
            "person/box": tf.io.FixedLenSequenceFeature([], tf.float32, allow_missing=True),
        }
        found = tf.io.parse_single_example(example, columns)
        return found["image/file_name"], found["image/encoded"], tf.reshape(found["person/box"], [-1, 4])

    number = 0
    try:
        starts = _record_starts(shard)
        for start, count in sound_runs(shard):
            position = starts.index(start, number)
            yield from (f"{shard}, record {damaged}" for damaged in range(number, position))
            examples = _read_runs(tf.constant(shard), tf.constant([[start, count]], tf.int64)).map(parse)
            for name, content, boxes in examples.as_numpy_iterator():
                yield Picture(name.decode("utf-8", "replace"), content, boxes)
            number = position + count
    except (OSError, tf.errors.OpError) as error:
        raise KposeError(f"cannot read {shard}: {getattr(error, 'strerror', None) or first_line(error)}") from error
    yield from (f"{shard}, record {damaged}" for damaged in range(number, images))


@tf.function(input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int64)], autograph=False)
def _count_from(shard: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """How many records from a byte on are sound, up to the first that is not."""
    records = _read_runs(shard, tf.stack([start, tf.constant(-1, tf.int64)])[None])
    counted = records.map(lambda _: tf.constant(1, tf.int64)).ignore_errors()
    return counted.reduce(tf.constant(0, tf.int64), lambda total, one: total + one)


def _record_starts(shard: str) -> list[int]:
    """Where the records of a shard begin, going by their lengths."""
    size, place, starts = file_size(shard), 0, []
    # A length of eight bytes, its checksum of four, the record, its checksum of four.
    with open_binary(shard) as file:
        while place < size:
            starts.append(place)
            file.seek(place)
            length = file.read(8)
            place += 16 + int.from_bytes(length, "little") if len(length) == 8 else size
    return starts


def _manifest_of(shard: Path) -> Path:
    match = _SHARD.match(shard.name)
    if not match:
        raise KposeError(f"{shard} is no shard of kpose: its name does not end in -00000-of-00016.tfrecord or the like")
    return shard.with_name(f"{match['prefix']}.json")


def _read_manifest(path: Path, skeleton: Skeleton | None) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise KposeError(f"{path} is no manifest of shards ({FORMAT!r}); write them again with `kpose prepare-data tfrecords`")
    shards = content.get("shards")
    counted = (content, *shards) if isinstance(shards, list) and all(isinstance(shard, dict) for shard in shards) else ()
    well_formed = bool(counted) and all(
        isinstance(part.get(key), int) and part[key] >= 0 for part in counted for key in ("people", "images")
    )
    well_formed = well_formed and all(
        isinstance(shard.get("file"), str)
        and _SHARD.match(shard["file"])
        and os.path.basename(shard["file"]) == shard["file"]
        and isinstance(shard.get("bytes"), int)
        and isinstance(shard.get("sha256"), str)
        for shard in counted[1:]
    )
    if not well_formed:
        raise KposeError(f"{path} is damaged; write the shards again with `kpose prepare-data tfrecords`")
    written = Skeleton.from_dict(content.get("skeleton"), source=str(path))  # type: ignore[arg-type]
    if skeleton is not None and written.joint_names != skeleton.joint_names:
        raise KposeError(
            f"{path}: the shards have the {written.num_joints} joints of {written.name!r}, the configuration's skeleton is "
            f"{skeleton.name!r} with {skeleton.num_joints}; set 'skeleton' to {written.name!r}"
        )
    return content


def _check_shard(path: str, expected: dict[str, Any], verify: bool) -> None:
    try:
        size = file_size(path)
    except OSError as error:
        raise KposeError(f"the shard {path} is missing; write the shards again or fetch it") from error
    if size != expected["bytes"]:
        raise KposeError(f"the shard {path} has {size} bytes, its manifest says {expected['bytes']}; it is cut off or of another run")
    if verify and sha256_of(path) != expected["sha256"]:
        raise KposeError(f"the shard {path} is damaged: its SHA-256 differs from the manifest's; write the shards again or fetch it")
