from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf

from kpose import geometry
from kpose.codecs.gaussian import GaussianCodec
from kpose.config import AugmentationConfig, parse_config
from kpose.data import (
    Instances,
    Preparation,
    SkippedSamples,
    evaluation_batches,
    evaluation_dataset,
    read_coco,
    steps_per_epoch,
    training_data,
    training_dataset,
    training_instances,
    validation_sets,
)
from kpose.data.pipeline import BLOCK, NO_AUGMENTATION
from kpose.data.sampling import shuffled_index
from kpose.errors import KposeError
from kpose.skeletons import COCO_17, Skeleton

Make = Callable[..., tuple[Path, Path]]

PREPARATION = Preparation(GaussianCodec((128, 96), (32, 24), sigma=1.0))
EVERYTHING = AugmentationConfig(rotation_probability=1, half_body_minimum_joints=3, half_body_probability=0.5)
STRONG = EVERYTHING.model_copy(update={"cutout_probability": 0.5, "brightness": 0.2, "contrast": 0.2, "saturation": 0.2})


@pytest.fixture
def people(make_dataset: Make, cross: Skeleton) -> Instances:
    """Six people, each alone in a picture of dots at the joints."""
    return read_coco(*make_dataset(6), cross, for_training=True)


def collect(dataset: tf.data.Dataset, batches: int) -> list[tuple[np.ndarray, ...]]:
    return list(dataset.take(batches).as_numpy_iterator())


def assert_equal(first: list[tuple[np.ndarray, ...]], second: list[tuple[np.ndarray, ...]]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def dot_centres(crop: np.ndarray) -> np.ndarray:
    """`(5, 2)` x, y: the centroid of each joint's colour in a crop of dots, NaN where there is too little of it."""
    colour = crop.astype(np.float64) / 255
    red, green, blue = np.moveaxis(colour, -1, 0)
    low = np.minimum(np.minimum(red, green), blue)
    shares = [
        low,
        red - np.maximum(green, blue),
        green - np.maximum(red, blue),
        blue - np.maximum(red, green),
        np.minimum(red, green) - blue,
    ]
    y, x = np.mgrid[: crop.shape[0], : crop.shape[1]]
    found = []
    for share in shares:
        share = np.where(share > 0.25, share, 0)
        total = share.sum()
        found.append([(share * x).sum() / total, (share * y).sum() / total] if total > 3 else [np.nan, np.nan])
    return np.array(found)


def is_mirrored(dots: np.ndarray) -> bool:
    """Whether top, left hand and right hand of a crop go round the other way than in the photos."""
    (a, b), (c, d) = dots[1] - dots[0], dots[2] - dots[0]
    return bool(a * d - b * c < 0)


@pytest.mark.parametrize(
    ("config", "alignment"),
    [(NO_AUGMENTATION, "classic"), (EVERYTHING, "classic"), (EVERYTHING, "unbiased")],
    ids=["plain", "classic", "unbiased"],
)
def test_heatmaps_point_at_what_the_picture_shows(people: Instances, config: AugmentationConfig, alignment: geometry.Alignment) -> None:
    """The truth of the whole geometry: a dot drawn at each joint of the photo is found, in its colour, where the heatmap says.

    In a mirrored crop the colours of left and right have changed places.
    """
    codec = GaussianCodec((128, 96), (32, 24), sigma=1.0, alignment=alignment)
    preparation = Preparation(codec)
    distances, mirrored_samples = [], 0
    for images, heatmaps, weights in collect(training_dataset(people, preparation, config, batch_size=32, seed=5), 4):
        for image, keypoints, weight in zip(preparation.denormalise(images), codec.decode(heatmaps), weights, strict=True):
            dots = dot_centres(image)
            if np.isnan(dots[:3]).any():
                continue
            if is_mirrored(dots):
                mirrored_samples += 1
                dots = dots[people.skeleton.flip_permutation]
            # Dots at the border are cut, their centroid is off.
            whole = ((dots > 8) & (dots < (88, 120))).all(axis=-1)
            assert (weight[whole] == 1).all()
            distances.append(np.abs(dots - keypoints[:, :2])[whole])
    distances = np.concatenate(distances)
    assert len(distances) > 150
    assert (mirrored_samples > 10) == (config is EVERYTHING)
    # Encoding rounds to the heatmap's grid: up to 2 crop pixels, 1 on average, either way; the quarter offset adds nothing to a
    # symmetric peak. Rounding has no preferred side, so the mean of the signed error would show any shift between the frames.
    assert distances.max() < 2.6
    assert distances.mean() < 1.2


def test_a_flip_shows_a_mirrored_picture_with_the_joints_exchanged(people: Instances) -> None:
    config = NO_AUGMENTATION.model_copy(update={"flip_probability": 1.0})
    (plain, plain_maps, _), (flipped, flipped_maps, _) = (
        collect(training_dataset(people, PREPARATION, augmentation, batch_size=6, seed=1), 1)[0]
        for augmentation in (NO_AUGMENTATION, config)
    )
    # classic alignment: the mirror axis lies half a pixel off the middle, pixel x becomes width - x.
    np.testing.assert_allclose(flipped[:, :, 1:], plain[:, :, :0:-1], atol=2e-2)
    permutation = people.skeleton.flip_permutation
    left = people.skeleton.index("left_hand")
    # In the flipped crop the picture's right hand (x 35 in the photo) is the left one.
    assert flipped_maps[0, ..., left].max(0).argmax() == 24 - plain_maps[0, ..., permutation[left]].max(0).argmax()


def test_the_same_seed_gives_the_same_stream_and_another_another(people: Instances) -> None:
    first, again, other = (collect(training_dataset(people, PREPARATION, STRONG, batch_size=4, seed=seed), 5) for seed in (1, 1, 2))
    assert_equal(first, again)
    assert not np.array_equal(first[0][0], other[0][0])


@pytest.mark.parametrize("batch_size", [5, 64])
def test_the_stream_does_not_depend_on_the_batch_size(people: Instances, batch_size: int) -> None:
    reference = np.concatenate([images for images, _, _ in collect(training_dataset(people, PREPARATION, STRONG, batch_size=16), 8)])
    found = np.concatenate(
        [images for images, _, _ in collect(training_dataset(people, PREPARATION, STRONG, batch_size=batch_size), 128 // batch_size)]
    )
    np.testing.assert_array_equal(found, reference[: len(found)])


@pytest.mark.parametrize("step", [7, 16, 23])
def test_a_stream_resumes_exactly_at_any_step(people: Instances, step: int) -> None:
    """Within a block of random numbers, at its border, and beyond."""
    batch = BLOCK // 16
    whole = collect(training_dataset(people, PREPARATION, STRONG, batch_size=batch, seed=3), step + 4)
    resumed = collect(training_dataset(people, PREPARATION, STRONG, batch_size=batch, seed=3, start_step=step), 4)
    assert_equal(resumed, whole[step:])


def test_a_stream_that_pastes_resumes_exactly_and_keeps_its_targets(people: Instances) -> None:
    def stream(probability: float, start: int = 0) -> list[tuple[np.ndarray, ...]]:
        pasting = {"cutout_content": "another_person", "cutout_size": 0.9, "cutout_probability": probability}
        changes = STRONG.model_copy(update=pasting)
        return collect(training_dataset(people, PREPARATION, changes, batch_size=4, start_step=start, seed=3), 6 - start)

    pasted, untouched = stream(0.5), stream(0)
    assert_equal(stream(0.5, start=2), pasted[2:])
    pixels = 0
    for (image, *targets), (original, *same) in zip(pasted, untouched, strict=True):
        assert_equal([tuple(targets)], [tuple(same)])
        changed = (image != original).any(axis=-1)
        pixels += np.count_nonzero(changed)
        np.testing.assert_array_equal(image[changed], np.roll(original, 1, axis=0)[changed])
    assert pixels > 1000


@pytest.mark.parametrize("count", [1, 2, 6, 139, 1000])
def test_every_pass_sees_everybody_once_in_another_order(count: int) -> None:
    order = shuffled_index(tf.range(3 * count, dtype=tf.int64), count, seed=4).numpy().reshape(3, count)
    for one_pass in order:
        assert sorted(one_pass) == list(range(count))
    if count > 100:
        assert (order[0] == order[1]).mean() < 0.05
        assert abs(np.corrcoef(order[0], np.arange(count))[0, 1]) < 0.2
        assert (order[0] != shuffled_index(tf.range(count, dtype=tf.int64), count, seed=5).numpy()).mean() > 0.9


def test_weights_follow_visibility(make_dataset: Make, cross: Skeleton) -> None:
    def change(content: dict) -> None:
        content["annotations"][0]["keypoints"][3:6] = [0, 0, 0]
        content["annotations"][0]["keypoints"][6:8] = [-500, 900]
        content["annotations"][0]["keypoints"][11] = 1

    people = read_coco(*make_dataset(1, change=change), cross, for_training=True)
    _, heatmaps, weights = collect(training_dataset(people, PREPARATION, batch_size=1), 1)[0]
    assert weights[0].tolist() == [1, 0, 0, 1, 1]  # absent, outside of the crop, hidden
    assert (heatmaps[0].max((0, 1)) > 0).tolist() == [True, False, False, True, True]


def test_without_augmentation_training_feeds_the_crops_of_evaluation(people: Instances) -> None:
    evaluated = next(iter(evaluation_dataset(people, PREPARATION, 6)))
    trained = collect(training_dataset(people, PREPARATION, batch_size=6), 1)[0][0]
    order = shuffled_index(tf.range(6, dtype=tf.int64), 6, seed=0).numpy()
    np.testing.assert_array_equal(trained, evaluated["image"].numpy()[order])


def test_evaluation_keeps_the_order_and_ends_with_a_smaller_batch(people: Instances) -> None:
    batches = list(evaluation_batches(people, PREPARATION, 4))
    assert [len(batch["image"]) for batch in batches] == [4, 2]
    assert np.concatenate([batch["index"] for batch in batches]).tolist() == list(range(6))
    np.testing.assert_array_equal(np.concatenate([batch["box"] for batch in batches]), people.boxes)
    matrix = np.concatenate([batch["matrix"] for batch in batches])
    for batch_matrix, box in zip(matrix, people.boxes, strict=True):
        np.testing.assert_allclose(batch_matrix @ [*(box[:2] + box[2:] / 2), 1], [48, 64], atol=1e-3)


def test_evaluation_shows_the_views_of_a_person_one_after_the_other(people: Instances) -> None:
    rotations, scales = [0.0, 90.0], [1.0, 0.5, 2.0]
    plain = list(evaluation_batches(people, PREPARATION, 4))
    turned = list(evaluation_batches(people, PREPARATION, 4, rotations, scales))
    assert [batch["image"].shape for batch in turned] == [(24, 128, 96, 3), (12, 128, 96, 3)]
    for one, several in zip(plain, turned, strict=True):
        np.testing.assert_array_equal(several["index"], np.repeat(one["index"], 6))
        np.testing.assert_array_equal(several["box"], np.repeat(one["box"], 6, axis=0))
        np.testing.assert_array_equal(several["matrix"].reshape(-1, 6, 2, 3), PREPARATION.views(tf.constant(one["box"]), rotations, scales))
        # The first view is the plain one; a larger part of the picture is decoded for it.
        np.testing.assert_array_equal(several["matrix"][::6], one["matrix"])
        np.testing.assert_allclose(several["image"][::6], one["image"], atol=2e-3)


def test_static_shapes_reach_the_network(people: Instances) -> None:
    image, heatmaps, weights = training_dataset(people, PREPARATION, STRONG, batch_size=4).element_spec
    assert (image.shape, heatmaps.shape, weights.shape) == ((4, 128, 96, 3), (4, 32, 24, 5), (4, 5))
    assert {image.dtype, heatmaps.dtype, weights.dtype} == {tf.float32}


def spoil(people: Instances, *positions: int) -> None:
    for position in positions:
        Path(people.image_files[position]).write_bytes(b"\xff\xd8\xff\xe0 broken")


def test_a_broken_picture_is_skipped_counted_and_named(people: Instances) -> None:
    spoil(people, 2)
    skipped = SkippedSamples()
    batches = collect(training_dataset(people, PREPARATION, batch_size=5, skipped=skipped), 4)
    assert all(images.shape[0] == 5 for images, _, _ in batches)
    # Five of six people are left: each pass gives one full batch. Prefetching counts a little ahead.
    assert skipped.count >= 4
    assert skipped.first == [people.image_files[2]]
    assert skipped.report() == f"{skipped.count} samples left out because they cannot be read, first {people.image_files[2]}"
    assert SkippedSamples().report() == ""


def test_a_missing_picture_is_skipped_too(people: Instances) -> None:
    Path(people.image_files[0]).unlink()
    skipped = SkippedSamples()
    collect(training_dataset(people, PREPARATION, batch_size=5, skipped=skipped), 2)
    assert skipped.first == [people.image_files[0]]


def test_a_set_without_a_readable_picture_is_refused_instead_of_hanging(people: Instances) -> None:
    spoil(people, *range(6))
    with pytest.raises(KposeError, match=r"none of 6 pictures of the training set can be read, first .*\.png: .*") as error:
        training_dataset(people, PREPARATION, batch_size=2)
    assert "\n" not in str(error.value)


def test_evaluation_names_a_broken_picture(people: Instances) -> None:
    spoil(people, 4)
    with pytest.raises(KposeError, match=r"cannot read the picture .*000000000005.png"):
        list(evaluation_batches(people, PREPARATION, 2))


def test_an_empty_training_set_is_refused(people: Instances) -> None:
    with pytest.raises(KposeError, match="the training set has no person"):
        training_dataset(people.select(np.zeros(6, bool)), PREPARATION, batch_size=2)


@pytest.mark.parametrize(("count", "batch", "steps"), [(6, 2, 3), (7, 2, 3), (3, 64, 1)])
def test_steps_per_epoch(count: int, batch: int, steps: int) -> None:
    assert steps_per_epoch(count, batch) == steps


def test_a_configuration_becomes_a_stream(make_dataset: Make, tmp_path: Path, cross: Skeleton, capsys: pytest.CaptureFixture[str]) -> None:
    def change(content: dict) -> None:
        content["annotations"][5]["num_keypoints"] = 0

    skeleton = tmp_path / "cross.yaml"
    skeleton.write_text(json.dumps(cross.to_dict()))
    sets = [dict(zip(("annotations", "images"), map(str, make_dataset(6, change=change, name=name)), strict=True)) for name in "ab"]
    config = parse_config(
        {
            "skeleton": str(skeleton),
            "model": {"input_size": [64, 48]},
            "data": {"train": sets, "validation": sets[0]},
            "training": {"batch_size": 4},
        }
    )
    data = training_data(config)
    assert data.steps_per_epoch == 2
    assert data.description.startswith("10 people in 10 images (") and data.description.endswith("b.json)")
    assert data.skipped_report() == ""
    assert capsys.readouterr().out.count("1 people left out: no keypoint is annotated") == 2
    first_epoch = collect(data.dataset, 3)
    assert first_epoch[0][1].shape == (4, 16, 12, 5)
    assert_equal(collect(training_data(config, start_step=2).dataset, 1), first_epoch[2:])
    assert len(validation_sets(config)[0].instances) == 5


def test_people_of_a_repeated_dataset_come_so_often(make_dataset: Make, tmp_path: Path, cross: Skeleton) -> None:
    skeleton = tmp_path / "cross.yaml"
    skeleton.write_text(json.dumps(cross.to_dict()))
    often, once = (dict(zip(("annotations", "images"), map(str, make_dataset(2, name=name)), strict=True)) for name in "ab")
    config = parse_config({"skeleton": str(skeleton), "data": {"train": [often | {"repeat": 3}, once]}})
    people = training_instances(config)
    seen = Counter(people.image_files[index] for index in people.image_index)
    assert sorted(seen.values()) == [1, 1, 3, 3]
    assert {Path(file).parent for file, count in seen.items() if count == 3} == {Path(often["images"])}


def test_real_people_are_fed_where_they_stand(shared_data: Path) -> None:
    folder = shared_data / "coco"
    people = read_coco(folder / "annotations/person_keypoints_train2017.json", folder / "train2017", COCO_17, for_training=True)
    preparation = Preparation(GaussianCodec((256, 192), (64, 48)))
    batch = next(iter(evaluation_dataset(people, preparation, 139)))
    for index in (0, 50, 100):
        file = people.image_files[people.image_index[index]]
        expected = cv2.warpAffine(
            cv2.imread(file)[..., ::-1], batch["matrix"][index].numpy().astype(np.float64), (192, 256), flags=cv2.INTER_LINEAR
        )
        crop = preparation.denormalise(batch["image"][index].numpy())
        np.testing.assert_allclose(crop, expected, atol=1)
