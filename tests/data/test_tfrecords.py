from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kpose.codecs.gaussian import GaussianCodec
from kpose.config import AugmentationConfig, DatasetConfig, parse_config
from kpose.data import Instances, Preparation, SkippedSamples, evaluation_dataset, read_coco, read_dataset, training_dataset
from kpose.data.datasets import training_sets
from kpose.data.tfrecords import Records, open_records, records_from_config, sound_runs, write_tfrecords
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


def test_shards_have_the_same_bytes_however_many_workers_write_them(people: Instances, tmp_path: Path) -> None:
    for workers in (1, 3):
        write_tfrecords(people, tmp_path / str(workers), shards=4, progress=False, workers=workers)
    one, three = (sorted((tmp_path / name).iterdir()) for name in ("1", "3"))
    assert [file.name for file in one] == [file.name for file in three] and len(one) == 5
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in three]


def spoil_record(path: Path, number: int, place: int) -> None:
    """Change a byte of a record: of its content (`place` 12 or more) or of its length (0 to 7)."""
    content, start = bytearray(path.read_bytes()), 0
    for _ in range(number):
        start += 16 + int.from_bytes(content[start : start + 8], "little")
    content[start + place] ^= 255
    path.write_bytes(content)


@pytest.fixture
def one_shard(people: Instances, tmp_path: Path) -> Path:
    """Seven records, the pictures in the order of the manifest's seed."""
    write_tfrecords(people, tmp_path / "one", shards=1, progress=False)
    return tmp_path / "one" / "people-00000-of-00001.tfrecord"


def people_of_pass(records: Records) -> list[bytes]:
    """The people of the stream's first pass, and of its second as many."""
    found = records.passes(seed=0, first_pass=0, shuffle_buffer=4).take(2 * len(records)).as_numpy_iterator()
    return [person["keypoints"].tobytes() for person in found]


def test_damaged_records_are_left_out_alone_and_told(one_shard: Path, cross: Skeleton, capsys: pytest.CaptureFixture[str]) -> None:
    whole = open_records([str(one_shard)], cross).instances()
    for number in (2, 3, 5):
        spoil_record(one_shard, number, place=60)
    capsys.readouterr()
    records = open_records([str(one_shard)], cross, damaged="skip")
    lost = np.isin(whole.image_index, (2, 3, 5))
    assert (records.images, len(records)) == (4, 8 - lost.sum())
    told = capsys.readouterr().out
    assert f"3 damaged records with {lost.sum()} people are left out, of 7 records with 8 people" in told
    assert f"{one_shard}: 3 of 7 records, the first is number 2" in told
    seen = people_of_pass(records)
    expected = sorted(person.tobytes() for person in whole.keypoints[~lost])
    assert sorted(seen[: len(records)]) == sorted(seen[len(records) :]) == expected


@pytest.mark.parametrize(("number", "sound"), [(0, 0), (4, 4)])
def test_a_damaged_length_hides_the_records_behind_it(one_shard: Path, number: int, sound: int) -> None:
    spoil_record(one_shard, number, place=1)
    assert sum(count for _, count in sound_runs(str(one_shard))) == sound


def test_damaged_records_are_refused_where_they_must_not_be(shards: str, cross: Skeleton) -> None:
    assert len(open_records([shards], cross, damaged="refuse")) == 8
    spoil_record(first_shard(shards), 1, place=60)
    dataset = DatasetConfig(format="tfrecord", records=shards, damaged_records="refuse")
    with pytest.raises(KposeError, match=r"1 damaged records with \d people in 1 shards, .*00000-of-00003.tfrecord: 1 of 3"):
        records_from_config(dataset, cross)


def test_damage_is_left_out_of_training_sets_too(shards: str, cross: Skeleton, tmp_path: Path) -> None:
    skeleton = tmp_path / "cross.yaml"
    skeleton.write_text(json.dumps(cross.to_dict()))
    spoil_record(first_shard(shards), 1, place=60)
    train = [{"format": "tfrecord", "records": shards, "repeat": 2}, {"format": "tfrecord", "records": shards}]
    (part,) = training_sets(parse_config({"skeleton": str(skeleton), "data": {"train": train}})).parts
    assert isinstance(part, Records)
    skipped = SkippedSamples()
    list(training_dataset(part, PREPARATION, batch_size=3, skipped=skipped).take(12))
    assert len(part) % 3 == 0 and len(part) < 24 and skipped.count == 0


def test_records_annotations_and_pictures_may_lie_in_another_file_system(make_dataset: Make, cross: Skeleton, tmp_path: Path) -> None:
    annotations, images = make_dataset(4)
    for file in images.iterdir():
        tf.io.gfile.makedirs("ram://bucket/images")
        tf.io.gfile.copy(str(file), f"ram://bucket/images/{file.name}", overwrite=True)
    tf.io.gfile.copy(str(annotations), "ram://bucket/people.json", overwrite=True)
    dataset = parse_config({"data": {"train": [{"annotations": "ram://bucket/people.json", "images": "ram://bucket/images"}]}}).data.train[
        0
    ]
    people = read_dataset(dataset, cross, for_training=True)
    write_tfrecords(people, "ram://bucket/records", shards=2, progress=False)
    local = write_tfrecords(read_coco(annotations, images, cross, for_training=True), tmp_path / "records", shards=2, progress=False)
    assert sorted(tf.io.gfile.listdir("ram://bucket/records")) == sorted(file.name for file in local.parent.iterdir())
    records = open_records(["ram://bucket/records/people-*.tfrecord"], cross, verify=True, damaged="skip")
    assert len(records) == 4
    batch = next(iter(training_dataset(records, PREPARATION, batch_size=4)))
    assert batch[0].shape == (4, 64, 48, 3)
    by_url = open_records([f"file://{tmp_path}/records/people-*.tfrecord"], cross, damaged="skip")
    assert by_url.shards[0] == str(tmp_path / "records" / "people-00000-of-00002.tfrecord")
    with pytest.raises(KposeError, match="cannot look for nowhere://bucket/.*: File system scheme 'nowhere' not implemented"):
        open_records(["nowhere://bucket/people-*.tfrecord"], cross)
