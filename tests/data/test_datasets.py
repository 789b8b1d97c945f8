"""Joint training: datasets of different joints, in files and in shards, as one stream."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kpose.codecs import GaussianCodec
from kpose.config import Config, parse_config
from kpose.data import Preparation, SkippedSamples, training_data, training_dataset, training_instances, training_sets, validation_sets
from kpose.data.pipeline import NO_AUGMENTATION
from kpose.data.sampling import CYCLE
from kpose.data.tfrecords import write_tfrecords
from kpose.errors import KposeError
from kpose.skeletons import Skeleton

Make = Callable[..., tuple[Path, Path]]
PREPARATION = Preparation(GaussianCodec((32, 32), (8, 8), sigma=1.0))

# Another annotation of the same five dots: "top" is called "head", the feet are not annotated, and the hands come in another order.
STAR = Skeleton("star_3", ("right_hand", "left_hand", "head"), left_right_pairs=(("left_hand", "right_hand"),), oks_sigmas=(0.1, 0.1, 0.1))


def as_star(content: dict[str, Any]) -> None:
    content["categories"][0]["keypoints"] = list(STAR.joint_names)
    for person in content["annotations"]:
        top, left, right = np.array(person["keypoints"]).reshape(5, 3)[:3].tolist()
        person["keypoints"] = [*right, *left, *top]
        person["num_keypoints"] = 3


@pytest.fixture
def make_config(make_dataset: Make, tmp_path: Path, cross: Skeleton) -> Callable[..., Config]:
    """A configuration that trains on 6 people of cross_5 and 3 of star_3, with further settings for each."""
    paths = {}
    for skeleton in (cross, STAR):
        paths[skeleton.name] = str(tmp_path / f"{skeleton.name}.yaml")
        Path(paths[skeleton.name]).write_text(json.dumps(skeleton.to_dict()))
    files = [make_dataset(6, name="cross"), make_dataset(3, name="star", change=as_star)]
    entries = [{"annotations": str(annotations), "images": str(images)} for annotations, images in files]

    def make(first: dict[str, Any] | None = None, second: dict[str, Any] | None = None, **data: Any) -> Config:
        sets = [
            entries[0] | {"name": "cross"} | (first or {}),
            entries[1] | {"name": "star", "skeleton": paths["star_3"], "rename": {"head": "top"}} | (second or {}),
        ]
        return parse_config(
            {
                "skeleton": paths["cross_5"],
                "model": {"input_size": [32, 32]},
                "data": {"train": sets, "validation": sets, **data},
                "training": {"batch_size": 4},
            }
        )

    return make


def test_joints_come_by_their_names_and_those_that_a_dataset_lacks_have_no_weight(make_config, cross, capsys):
    people = training_instances(make_config())
    assert people.skeleton == cross
    assert len(people) == 9
    assert "star for cross_5: does not annotate left_foot, right_foot" in capsys.readouterr().out
    # The dots of both datasets were drawn from the same numbers, whatever they are called.
    np.testing.assert_array_equal(people.keypoints[6:, :3], people.keypoints[:3, :3])
    assert not people.keypoints[6:, 3:].any()
    batches = list(training_dataset(people, PREPARATION, batch_size=9).take(1).as_numpy_iterator())
    weights = batches[0][2]
    assert sorted(weights.sum(axis=1).tolist()) == [3, 3, 3, 5, 5, 5, 5, 5, 5]
    assert np.all(weights[:, :3] == 1)


def shares_of(dataset, samples: int) -> float:
    """The share of people without feet: those of star_3."""
    found = np.concatenate([weights for _, _, weights in dataset.unbatch().batch(100).take(samples // 100).as_numpy_iterator()])
    return float((found[:, 3] == 0).mean())


def test_without_weights_everybody_comes_equally_often(make_config):
    data = training_data(make_config())
    assert data.steps_per_epoch == 2
    assert shares_of(data.dataset, 900) == pytest.approx(1 / 3)


def test_weights_are_the_shares_of_the_samples(make_config):
    config = make_config({"weight": 1}, {"weight": 3})
    off = config.model_copy(update={"augmentation": NO_AUGMENTATION})
    assert shares_of(training_data(off).dataset, CYCLE) == 0.75


def test_a_weighted_stream_resumes_exactly(make_config):
    sets = training_sets(make_config({"weight": 1}, {"weight": 3}))
    whole = list(training_dataset(sets.parts, PREPARATION, weights=sets.weights, batch_size=4).take(40).as_numpy_iterator())
    for step in (1, 17, 35):
        stream = training_dataset(sets.parts, PREPARATION, weights=sets.weights, batch_size=4, start_step=step)
        for resumed, expected in zip(stream.take(3).as_numpy_iterator(), whole[step:], strict=False):
            for one, other in zip(resumed, expected, strict=True):
                np.testing.assert_array_equal(one, other)


def test_a_broken_picture_of_a_weighted_stream_is_counted_and_named(make_config, tmp_path):
    sets = training_sets(make_config({"weight": 1}, {"weight": 1}))
    broken = Path(sets.parts[1].image_files[0])
    broken.write_bytes(b"no picture")
    skipped = SkippedSamples()
    list(training_dataset(sets.parts, PREPARATION, weights=sets.weights, batch_size=5, skipped=skipped).take(6))
    assert skipped.count > 0
    assert skipped.first == [str(broken)]


@pytest.fixture
def shards(make_config, tmp_path):
    """Both sets as shards, each with its own joints."""
    config = make_config()
    entries = []
    for part in validation_sets(config):
        write_tfrecords(part.instances, tmp_path / "records", prefix=part.name, shards=2, progress=False)
        entries.append({"format": "tfrecord", "records": str(tmp_path / "records" / f"{part.name}-*.tfrecord")})
    entries[1] |= {"skeleton": config.data.train[1].skeleton, "rename": {"head": "top"}}

    def make(*weights: float) -> Config:
        sets = [entry | {"weight": weight} for entry, weight in zip(entries, weights, strict=True)] if weights else entries
        return parse_config(
            {
                "skeleton": config.skeleton,
                "model": {"input_size": [32, 32]},
                "data": {"train": sets},
                "augmentation": NO_AUGMENTATION.model_dump(),
                "training": {"batch_size": 4},
            }
        )

    return make


def test_shards_of_different_joints_come_together_by_size(shards, cross):
    sets = training_sets(shards())
    assert {part.skeleton for part in sets.parts} == {cross}
    assert sets.weights == (6, 3)
    assert shares_of(training_data(shards()).dataset, CYCLE) == pytest.approx(1 / 3, abs=0.001)


def test_weighted_shards_keep_their_shares_and_resume_exactly(shards):
    config = shards(1, 4)
    assert shares_of(training_data(config).dataset, CYCLE) == 0.8
    whole = list(training_data(config).dataset.take(30).as_numpy_iterator())
    per_epoch = training_data(config).steps_per_epoch
    for epoch in (1, 9):
        resumed = training_data(config, start_step=epoch * per_epoch).dataset.take(2).as_numpy_iterator()
        for one, other in zip(resumed, whole[epoch * per_epoch :], strict=False):
            # Pictures, targets and weights; the order within a cycle of weights is part of the stream.
            for a, b in zip(one, other, strict=True):
                np.testing.assert_array_equal(a, b)


def test_a_damaged_shard_of_a_weighted_stream_is_told(shards, tmp_path):
    shard = sorted((tmp_path / "records").glob("cross-*.tfrecord"))[1]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    sets = training_sets(shards(1, 1))
    shard.write_bytes(content)
    skipped = SkippedSamples()
    list(training_dataset(sets.parts, PREPARATION, weights=sets.weights, batch_size=4, skipped=skipped).take(10))
    assert skipped.count > 0
    assert "of the stream from" in skipped.report()


def test_each_validation_set_keeps_its_own_joints(make_config, cross):
    first, second = validation_sets(make_config())
    assert (first.name, first.instances.skeleton, first.mapping.is_identity) == ("cross", cross, True)
    assert (second.name, second.instances.skeleton) == ("star", STAR)
    assert second.mapping.known.all()
    assert second.mapping.missing == ("left_foot", "right_foot")


def test_people_of_whom_no_joint_is_known_are_left_out_with_a_note(make_config, make_dataset, capsys):
    def first_shows_a_head_only(content: dict[str, Any]) -> None:
        as_star(content)
        content["annotations"][0]["keypoints"][2::3] = [0, 0, 2]

    annotations, images = make_dataset(3, name="few", change=first_shows_a_head_only)
    entry = {"annotations": str(annotations), "images": str(images)}
    assert len(training_instances(make_config(second=entry))) == 9
    assert len(training_instances(make_config(second=entry | {"rename": {}}))) == 8
    assert "star: 1 people left out: none of their annotated joints is one of the network's" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"weight": 1}, {}, "1 of 2 datasets have a 'weight'; give one to all of them or to none"),
        ({"weight": 1, "repeat": 2}, {"weight": 1}, "both 'weight' and 'repeat'"),
        ({}, {"rename": {"hed": "top"}}, "star: 'rename' names 'hed'"),
        ({}, {"format": "tfrecord", "records": "x"}, "mixes files and TFRecord shards"),
    ],
)
def test_sets_that_do_not_go_together_are_refused(make_config, first, second, message):
    with pytest.raises(KposeError, match=message) as refusal:
        training_sets(make_config(first, second))
    assert "\n" not in str(refusal.value)


def test_two_validation_sets_of_one_name_are_refused(make_config):
    with pytest.raises(KposeError, match=r"two validation sets are called 'cross'; give each its own 'name'"):
        validation_sets(make_config(second={"name": "cross"}))
