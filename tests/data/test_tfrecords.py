from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kpose.codecs.gaussian import GaussianCodec
from kpose.config import AugmentationConfig, DatasetConfig
from kpose.data import Instances, Preparation, SkippedSamples, evaluation_dataset, read_coco, training_dataset
from kpose.data.tfrecords import open_records, records_from_config, write_tfrecords
from kpose.errors import KposeError
from kpose.skeletons import COCO_17, Skeleton

Make = Callable[..., tuple[Path, Path]]
PREPARATION = Preparation(GaussianCodec((64, 48), (16, 12)))


@pytest.fixture
def people(make_dataset: Make, cross: Skeleton) -> Instances:
    """Eight people in seven pictures: the last two share one."""

    def change(content: dict) -> None:
        content["annotations"][7]["image_id"] = 7

    return read_coco(*make_dataset(8, change=change), cross, for_training=True)


@pytest.fixture
def shards(people: Instances, tmp_path: Path) -> str:
    """The pattern of three shards."""
    write_tfrecords(people, tmp_path / "records", shards=3, progress=False)
    return str(tmp_path / "records" / "people-*.tfrecord")


def test_shards_hold_what_was_written(people: Instances, shards: str, cross: Skeleton) -> None:
    records = open_records([shards], cross, verify=True)
    assert (len(records), records.images, len(records.shards)) == (8, 7, 3)
    back = records.instances()
    order = np.argsort(back.ids)
    np.testing.assert_array_equal(back.ids[order], people.ids)
    np.testing.assert_array_equal(back.boxes[order], people.boxes)
    np.testing.assert_array_equal(back.keypoints[order], people.keypoints)
    np.testing.assert_array_equal(back.areas[order], people.areas)
    np.testing.assert_array_equal(back.image_ids[back.image_index][order], people.image_ids[people.image_index])
    assert [back.image_files[i] for i in back.image_index[order]] == [people.image_files[i] for i in people.image_index]


def test_evaluation_from_shards_sees_the_same_crops(people: Instances, shards: str, cross: Skeleton) -> None:
    back = open_records([shards], cross).instances()
    from_shards, from_files = (next(iter(evaluation_dataset(part, PREPARATION, 8))) for part in (back, people))
    order = np.argsort(back.ids)
    assert from_shards["index"].numpy().tolist() == list(range(8))
    np.testing.assert_array_equal(from_shards["image"].numpy()[order], from_files["image"])


def test_training_from_shards_sees_everybody_once_and_resumes_exactly(shards: str, cross: Skeleton) -> None:
    records = open_records([shards], cross)

    def stream(start_step: int = 0, seed: int = 0, config: AugmentationConfig = AugmentationConfig()) -> tf.data.Dataset:  # noqa: B008
        return training_dataset(records, PREPARATION, config, batch_size=4, seed=seed, start_step=start_step, shuffle_buffer=5)

    whole = list(stream().take(30).as_numpy_iterator())
    for step in (1, 18):  # in the first and the second block of random numbers
        for resumed, expected in zip(stream(step).take(3).as_numpy_iterator(), whole[step:], strict=False):
            for one, other in zip(resumed, expected, strict=True):
                np.testing.assert_array_equal(one, other)
    assert not np.array_equal(next(stream(seed=1).as_numpy_iterator())[0], whole[0][0])
    off = AugmentationConfig(flip_probability=0, rotation_degrees=0, scale=0, half_body_probability=0)
    heatmaps = np.concatenate([batch[1] for batch in stream(config=off).take(4).as_numpy_iterator()])
    passes = [{person.tobytes() for person in half} for half in (heatmaps[:8], heatmaps[8:])]
    assert len(passes[0]) == 8 and passes[0] == passes[1]
    assert not np.array_equal(heatmaps[:8], heatmaps[8:])


def test_a_broken_picture_is_left_out_when_writing(people: Instances, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path(people.image_files[0]).write_bytes(b"no picture")
    manifest = write_tfrecords(people, tmp_path / "records", shards=2, progress=False)
    content = json.loads(manifest.read_text())
    assert (content["people"], content["images"]) == (7, 6)
    assert content["left_out_broken_images"] == [people.image_files[0]]
    assert "1 broken pictures left out" in capsys.readouterr().out


def test_a_set_without_a_readable_picture_is_not_written(people: Instances, tmp_path: Path) -> None:
    for file in people.image_files:
        Path(file).write_bytes(b"no picture")
    with pytest.raises(KposeError, match="not a single picture can be read"):
        write_tfrecords(people, tmp_path / "records", progress=False)


def test_an_interrupt_leaves_no_half_written_shard(people: Instances, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kpose.data.tfrecords._example", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_tfrecords(people, tmp_path / "records", progress=False)
    assert list((tmp_path / "records").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"), [({"shards": 0}, "cannot write 0 shards"), ({"prefix": "../people"}, "cannot begin a file name")]
)
def test_impossible_requests_are_refused(people: Instances, tmp_path: Path, arguments: dict, message: str) -> None:
    with pytest.raises(KposeError, match=message):
        write_tfrecords(people, tmp_path, progress=False, **arguments)


def test_nobody_is_not_written(people: Instances, tmp_path: Path) -> None:
    with pytest.raises(KposeError, match="nobody to write"):
        write_tfrecords(people.select(np.zeros(8, bool)), tmp_path, progress=False)


def first_shard(pattern: str) -> Path:
    return min(Path(pattern).parent.glob("*.tfrecord"))


def edit(pattern: str, **values: object) -> None:
    path = Path(pattern).parent / "people.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda pattern: first_shard(pattern).write_bytes(first_shard(pattern).read_bytes()[:-7]), "its manifest says .* cut off"),
        (lambda pattern: first_shard(pattern).unlink(), r"00000-of-00003.tfrecord is missing"),
        (lambda pattern: (Path(pattern).parent / "people.json").unlink(), r"cannot read .*people.json"),
        (lambda pattern: edit(pattern, format="other"), "is no manifest of shards"),
        (lambda pattern: edit(pattern, people="many"), "people.json is damaged"),
        (lambda pattern: edit(pattern, shards=[{"file": "../x-00000-of-00001.tfrecord", "bytes": 1, "sha256": ""}]), "is damaged"),
        (lambda pattern: edit(pattern, skeleton=COCO_17.to_dict()), "the 17 joints of 'coco_17'"),
        (lambda pattern: (Path(pattern).parent / "people-00000-of-00099.tfrecord").write_bytes(b""), "not in its manifest"),
        (lambda pattern: (Path(pattern).parent / "people-x.tfrecord").write_bytes(b""), "is no shard of kpose"),
    ],
)
def test_shards_that_do_not_fit_are_refused_in_one_line(shards: str, cross: Skeleton, spoil: Callable[[str], object], message: str) -> None:
    spoil(shards)
    with pytest.raises(KposeError, match=message) as error:
        open_records([shards], cross)
    assert "\n" not in str(error.value)


def test_a_damaged_shard_is_told(shards: str, cross: Skeleton) -> None:
    path = first_shard(shards)
    content = bytearray(path.read_bytes())
    content[-20] ^= 255  # in its last record
    path.write_bytes(content)
    with pytest.raises(KposeError, match="SHA-256 differs"):
        open_records([shards], cross, verify=True)
    records = open_records([shards], cross)
    with pytest.raises(KposeError, match="tfrecord is damaged: corrupted record"):
        records.instances()
    skipped = SkippedSamples()
    list(training_dataset(records, PREPARATION, batch_size=2, skipped=skipped).take(8))
    assert skipped.count > 0 and "of pass 0" in skipped.report()


def test_a_shard_that_does_not_begin_with_a_record_is_refused(shards: str, cross: Skeleton) -> None:
    path = first_shard(shards)
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(KposeError, match="00000-of-00003.tfrecord is damaged: corrupted record at 0"):
        open_records([shards], cross)


def test_a_dataset_of_shards_needs_a_pattern_that_matches(tmp_path: Path, cross: Skeleton) -> None:
    with pytest.raises(KposeError, match="needs 'records'"):
        records_from_config(DatasetConfig(format="tfrecord"), cross)
    with pytest.raises(KposeError, match="no file matches"):
        records_from_config(DatasetConfig(format="tfrecord", records=str(tmp_path / "*.tfrecord")), cross)
    with pytest.raises(KposeError, match="apply when shards are written"):
        records_from_config(DatasetConfig(format="tfrecord", records="x", include={"take": ["1"]}), cross)
