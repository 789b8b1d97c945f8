"""The datasets of a configuration: read, and brought together by joint name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kpose.config import Config, DatasetConfig
from kpose.data.instances import Instances
from kpose.data.joint_mapping import JointMapping
from kpose.data.readers import read_dataset
from kpose.data.tfrecords import Records, records_from_config
from kpose.errors import KposeError
from kpose.skeletons import Skeleton, get_skeleton


@dataclass(frozen=True)
class TrainingSets:
    """Whom to learn from, all annotated with the joints of the network.

    Attributes:
        parts: one for each entry of `data.train`: people in picture files, or TFRecord shards; not both.
        weights: of the parts, the shares of the samples that come from each; None: everybody equally often.
    """

    parts: tuple[Instances, ...] | tuple[Records, ...]
    weights: tuple[float, ...] | None = None


@dataclass(frozen=True)
class ValidationSet:
    """One set to score, under its own protocol.

    Attributes:
        name: what scores and files call it.
        dataset: its entry in `data.validation`.
        instances: the people, annotated with the dataset's own joints.
        mapping: from those to the network's.
    """

    name: str
    dataset: DatasetConfig
    instances: Instances
    mapping: JointMapping


def training_sets(config: Config) -> TrainingSets:
    """The training sets of a configuration; what was left out is printed.

    Raises:
        KposeError: when there is none, one is refused, files and shards are mixed, or only some have a weight.
    """
    entries, target = config.data.train, get_skeleton(config.skeleton)
    if not entries:
        raise KposeError("no dataset given; list at least one under 'data.train'")
    weighted = [entry for entry in entries if entry.weight is not None]
    if weighted and len(weighted) < len(entries):
        raise KposeError(f"'data.train': {len(weighted)} of {len(entries)} datasets have a 'weight'; give one to all of them or to none")
    if any(entry.repeat > 1 for entry in weighted):
        raise KposeError("'data.train': a dataset has both 'weight' and 'repeat'; the weight alone decides how often its people come")
    shards = [entry.format == "tfrecord" for entry in entries]
    if any(shards) and not all(shards):
        raise KposeError("'data.train' mixes files and TFRecord shards; write all of it as shards, or none")
    if all(shards):
        return _recorded_sets(entries, target)
    parts = []
    for entry in entries:
        instances = read_dataset(entry, target, for_training=True)
        mapping = _mapping(entry, instances.skeleton, target)
        part = _learnable(mapping.apply(instances), mapping)
        _print_notes(part, mapping)
        parts += [part] * entry.repeat
    return TrainingSets(tuple(parts), tuple(entry.weight for entry in weighted if entry.weight) or None)


def training_instances(config: Config) -> Instances:
    """The people of all training sets of a configuration one after the other; what was left out is printed.

    Raises:
        KposeError: see `training_sets`; also when they are TFRecord shards.
    """
    if config.data.train and all(entry.format == "tfrecord" for entry in config.data.train):
        raise KposeError("'data.train' already is TFRecord shards; give the datasets that they were written from")
    parts = [part for part in training_sets(config).parts if isinstance(part, Instances)]
    return Instances.concatenate(parts)


def validation_sets(config: Config) -> list[ValidationSet]:
    """The validation sets of a configuration, in its order; what was left out is printed.

    Raises:
        KposeError: when there is none, one is refused, or two have the same name.
    """
    if not config.data.validation:
        raise KposeError("the configuration has no validation set; give 'data.validation'")
    target = get_skeleton(config.skeleton)
    sets: list[ValidationSet] = []
    for entry in config.data.validation:
        if entry.weight is not None or entry.repeat > 1:
            raise KposeError("'data.validation': 'weight' and 'repeat' are for training sets; take them out")
        if entry.format == "tfrecord":
            own = get_skeleton(entry.skeleton) if entry.skeleton else target
            # All of it is read here, and nothing may be missing from a score.
            unchecked = entry.model_copy(update={"damaged_records": "unchecked"})
            instances: Instances = records_from_config(unchecked, own).instances(entry.annotations)
        else:
            instances = read_dataset(entry, target, for_training=False)
        name = label_of(entry)
        if name in [other.name for other in sets]:
            raise KposeError(f"two validation sets are called {name!r}; give each its own 'name'")
        mapping = _mapping(entry, instances.skeleton, target)
        _print_notes(instances, mapping)
        sets.append(ValidationSet(name, entry, instances, mapping))
    return sets


def label_of(entry: DatasetConfig) -> str:
    """What scores and reports call a dataset."""
    return entry.name or entry.format


def _recorded_sets(entries: Sequence[DatasetConfig], target: Skeleton) -> TrainingSets:
    parts: list[Records] = []
    for entry in entries:
        own = get_skeleton(entry.skeleton) if entry.skeleton else target
        records = records_from_config(entry, own)
        mapping = _mapping(entry, own, target)
        if note := mapping.note:
            print(note)
        records = replace(records, mapping=mapping)
        parts.append(replace(records, shards=records.shards * entry.repeat, people=len(records) * entry.repeat))
    weights = tuple(entry.weight for entry in entries if entry.weight)
    if not weights and all(part.mapping == parts[0].mapping for part in parts):
        # Shards of one kind are one set: their people mix within the buffer.
        joined = replace(
            parts[0],
            shards=sum((part.shards for part in parts), ()),
            people=sum(map(len, parts)),
            images=sum(part.images for part in parts),
            sound={shard: runs for part in parts for shard, runs in part.sound.items()},
        )
        return TrainingSets((joined,))
    return TrainingSets(tuple(parts), weights or tuple(float(len(part)) for part in parts))


def _mapping(entry: DatasetConfig, own: Skeleton, target: Skeleton) -> JointMapping:
    return JointMapping(own, target, entry.rename, entry.interpolate, label_of(entry))


def _learnable(people: Instances, mapping: JointMapping) -> Instances:
    """Those of whom the network's skeleton has a joint that is annotated."""
    learnable = np.asarray((people.keypoints[..., 2] > 0).any(axis=1))
    if learnable.all():
        return people
    if not learnable.any():
        raise KposeError(f"{mapping.label}: nobody has an annotated joint of skeleton {mapping.target.name!r}; check 'rename'")
    note = f"{mapping.label}: {np.count_nonzero(~learnable)} people left out: none of their annotated joints is one of the network's"
    return replace(people.select(learnable), notes=(*people.notes, note))


def _print_notes(instances: Instances, mapping: JointMapping) -> None:
    for note in (*instances.notes, mapping.note):
        if note:
            print(note)
