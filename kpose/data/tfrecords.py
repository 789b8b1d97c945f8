"""TFRecord shards: people and their pictures in a few large files, for disks that are slow with many small ones.

An example is a picture, its bytes as they are in the file, with all its people. Beside the shards lies a manifest: skeleton, counts, and
size and SHA-256 of each shard.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from kpose.config import DatasetConfig
from kpose.data.crops import check_image, first_line
from kpose.data.instances import Instances
from kpose.data.joint_mapping import JointMapping
from kpose.errors import KposeError
from kpose.files import read_json, replacing, write_json
from kpose.skeletons import Skeleton

FORMAT = "kpose people 1"
_SHARD = re.compile(r"^(?P<prefix>.+)-\d{5}-of-\d{5}\.tfrecord$")
# Shards that are read at once in training.
_CYCLE = 8

Columns = dict[str, tf.Tensor]


@dataclass(frozen=True)
class Records:
    """TFRecord shards as a training source.

    Attributes:
        stored_skeleton: meaning of the keypoints in the shards.
        shards: the files.
        people: how many people they hold together.
        images: how many pictures.
        mapping: from those joints to the network's; None: they are the same.
    """

    stored_skeleton: Skeleton
    shards: tuple[str, ...]
    people: int
    images: int
    mapping: JointMapping | None = None

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

        def one_pass(number: tf.Tensor) -> tf.data.Dataset:
            seeds = tf.random.fold_in(tf.constant([seed, 1], tf.int64), number)
            order = tf.argsort(tf.random.stateless_uniform([len(self.shards)], seeds), stable=True)
            files = tf.data.Dataset.from_tensor_slices(tf.gather(shards, order))
            examples = files.interleave(tf.data.TFRecordDataset, cycle_length=_CYCLE, num_parallel_calls=_CYCLE, deterministic=True)
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


def _people_of(example: Columns) -> tf.data.Dataset:
    # The picture is captured, not copied, for each of its people.
    people = tf.data.Dataset.from_tensor_slices({"box": example["boxes"], "keypoints": example["keypoints"]})
    return people.map(lambda person: {"source": example["source"], **person})


def write_tfrecords(
    instances: Instances, folder: str | Path, prefix: str = "people", shards: int = 16, seed: int = 0, progress: bool = True
) -> Path:
    """Write people and their pictures as TFRecord shards, `PREFIX-00000-of-00016.tfrecord`, and a manifest, `PREFIX.json`.

    Pictures are decoded once, so that broken ones are left out here (and named in the manifest) instead of coming up in every
    epoch. Their order is shuffled, so that a training that shuffles within a buffer sees all sources mixed. Each shard takes its
    name when it is whole, the manifest when all are.

    Args:
        instances: the people.
        folder: where to write to; made if it is not there.
        prefix: of the files' names.
        shards: how many files; not more than there are pictures with people.
        seed: of the order.
        progress: show a bar with the time to go.

    Returns:
        The manifest.

    Raises:
        KposeError: when there is nobody, no picture can be read, or a file cannot be written.
    """
    if not len(instances):
        raise KposeError("there is nobody to write; the dataset is empty")
    folder = Path(folder)
    by_image = np.argsort(instances.image_index, kind="stable")
    images, starts = np.unique(instances.image_index[by_image], return_index=True)
    people_of = dict(zip(images.tolist(), np.split(by_image, starts[1:]), strict=True))
    if shards < 1:
        raise KposeError(f"cannot write {shards} shards; give 1 or more")
    if os.path.basename(prefix) != prefix or not prefix or glob.escape(prefix) != prefix:
        raise KposeError(f"prefix {prefix!r} cannot begin a file name; use letters and digits")
    shards = min(shards, len(images))
    order = np.random.default_rng(seed).permutation(images)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KposeError(f"cannot make the folder {folder}: {error.strerror}") from error
    written: list[dict[str, Any]] = []
    broken: list[str] = []
    with tqdm(total=len(order), desc=f"writing {folder}", unit="image", disable=not progress, leave=False) as bar:
        for number, part in enumerate(np.array_split(order, shards)):
            name = f"{prefix}-{number:05d}-of-{shards:05d}.tfrecord"
            written.append(_write_shard(instances, [(int(image), people_of[int(image)]) for image in part], folder / name, broken, bar))
    totals = {key: sum(shard[key] for shard in written) for key in ("images", "people")}
    if not totals["people"]:
        raise KposeError(f"not a single picture can be read, first {broken[0]}; check the images of the dataset")
    manifest = write_json(
        {"format": FORMAT, "skeleton": instances.skeleton.to_dict(), **totals, "left_out_broken_images": broken, "shards": written},
        folder / f"{prefix}.json",
        indent=1,
    )
    left_out = f", {len(broken)} broken pictures left out, first {broken[0]}" if broken else ""
    print(f"{totals['people']} people in {totals['images']} images{left_out}; {shards} shards and {manifest.name} in {folder}")
    return manifest


def _write_shard(instances: Instances, images: list[tuple[int, np.ndarray]], path: Path, broken: list[str], bar: tqdm) -> dict[str, Any]:
    pictures = people = 0
    try:
        with replacing(path) as partial:
            with tf.io.TFRecordWriter(str(partial)) as writer:
                for (image, chosen), content in zip(images, _read_pictures([instances.image_files[i] for i, _ in images]), strict=True):
                    bar.update()
                    if content is None:
                        broken.append(instances.image_files[image])
                        continue
                    writer.write(_example(instances, image, chosen, content).SerializeToString())
                    pictures, people = pictures + 1, people + len(chosen)
            size, digest = partial.stat().st_size, _sha256(partial)
    except tf.errors.OpError as error:
        raise KposeError(f"cannot write {path}: {error.message}; is there room, and may you write there?") from error
    return {"file": path.name, "images": pictures, "people": people, "bytes": size, "sha256": digest}


def _read_pictures(files: list[str]) -> Iterator[bytes | None]:
    """The bytes of files in order, None for those that do not decode; a few are read ahead."""

    def read(file: str) -> bytes | None:
        try:
            check_image(file)
            return Path(file).read_bytes()
        except (KposeError, OSError):
            return None

    ahead = 4 * (os.cpu_count() or 1)
    with ThreadPoolExecutor() as pool:
        pending = [pool.submit(read, file) for file in files[:ahead]]
        for file in files[ahead:]:
            yield pending.pop(0).result()
            pending.append(pool.submit(read, file))
        for future in pending:
            yield future.result()


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


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def records_from_config(dataset: DatasetConfig, skeleton: Skeleton) -> Records:
    """The shards of a dataset of format `tfrecord`.

    Raises:
        KposeError: see `open_records`; also when no pattern is given, or one asks for what only applies before writing.
    """
    if not dataset.records:
        raise KposeError("a dataset of format 'tfrecord' needs 'records', the pattern of its shards, such as data/people-*.tfrecord")
    if dataset.include or dataset.exclude or dataset.detections:
        raise KposeError(f"{dataset.records}: 'include', 'exclude' and 'detections' apply when shards are written, not when they are read")
    return open_records([dataset.records], skeleton)


def open_records(patterns: list[str], skeleton: Skeleton, verify: bool = False) -> Records:
    """Find shards and check them against their manifests.

    Args:
        patterns: of the shards, such as `data/people-*.tfrecord`; all shards of a manifest must be there.
        skeleton: what the people must be annotated with.
        verify: compare SHA-256 too: reads every shard to its end.

    Raises:
        KposeError: when nothing matches, a manifest or a shard is missing, damaged or of another size than written, or the joints differ.
    """
    shards: list[str] = []
    people = images = 0
    for pattern in patterns:
        found = sorted(glob.glob(str(pattern)))
        if not found:
            raise KposeError(f"no file matches {pattern}; write shards with `kpose prepare-data tfrecords`")
        manifests = {_manifest_of(Path(file)) for file in found}
        for manifest in sorted(manifests):
            content = _read_manifest(manifest, skeleton)
            for shard in content["shards"]:
                _check_shard(manifest.parent / shard["file"], shard, verify)
                shards.append(str(manifest.parent / shard["file"]))
            people, images = people + content["people"], images + content["images"]
        unknown = set(found) - set(shards)
        if unknown:
            raise KposeError(f"{min(unknown)} is not in its manifest; it is left from another run: remove it")
    records = Records(skeleton, tuple(shards), people, images)
    for shard in shards:
        records.check_begin(shard)
    return records


def _manifest_of(shard: Path) -> Path:
    match = _SHARD.match(shard.name)
    if not match:
        raise KposeError(f"{shard} is no shard of kpose: its name does not end in -00000-of-00016.tfrecord or the like")
    return shard.with_name(f"{match['prefix']}.json")


def _read_manifest(path: Path, skeleton: Skeleton) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise KposeError(f"{path} is no manifest of shards ({FORMAT!r}); write them again with `kpose prepare-data tfrecords`")
    shards = content.get("shards")
    well_formed = (
        isinstance(shards, list)
        and all(isinstance(content.get(key), int) and content[key] >= 0 for key in ("people", "images"))
        and all(
            isinstance(shard, dict)
            and isinstance(shard.get("file"), str)
            and _SHARD.match(shard["file"])
            and os.path.basename(shard["file"]) == shard["file"]
            and isinstance(shard.get("bytes"), int)
            and isinstance(shard.get("sha256"), str)
            for shard in shards
        )
    )
    if not well_formed:
        raise KposeError(f"{path} is damaged; write the shards again with `kpose prepare-data tfrecords`")
    written = Skeleton.from_dict(content.get("skeleton"), source=str(path))  # type: ignore[arg-type]
    if written.joint_names != skeleton.joint_names:
        raise KposeError(
            f"{path}: the shards have the {written.num_joints} joints of {written.name!r}, the configuration's skeleton is "
            f"{skeleton.name!r} with {skeleton.num_joints}; set 'skeleton' to {written.name!r}"
        )
    return content


def _check_shard(path: Path, expected: dict[str, Any], verify: bool) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise KposeError(f"the shard {path} is missing; write the shards again or fetch it") from error
    if size != expected["bytes"]:
        raise KposeError(f"the shard {path} has {size} bytes, its manifest says {expected['bytes']}; it is cut off or of another run")
    if verify and _sha256(path) != expected["sha256"]:
        raise KposeError(f"the shard {path} is damaged: its SHA-256 differs from the manifest's; write the shards again or fetch it")
