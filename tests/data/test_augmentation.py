from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from kpose.config import AugmentationConfig
from kpose.data import augmentation
from kpose.data.augmentation import Plan
from kpose.skeletons import COCO_17, Skeleton

SIZE = (256, 192)
SEED = tf.constant([3, 5], tf.int64)


@pytest.fixture
def plan() -> Plan:
    """2000 people, all joints of whom are visible; joint k of person n stands at (100 + k, 200 + 2 k)."""
    people, joints = 2000, COCO_17.num_joints
    steps = np.arange(joints, dtype=np.float32)
    keypoints = np.stack([100 + steps, 200 + 2 * steps, np.full(joints, 2, np.float32)], axis=-1)
    boxes = tf.constant([[90.0, 190.0, 60.0, 80.0]] * people)
    return augmentation.plan_crops(boxes, tf.constant(np.repeat(keypoints[None], people, axis=0)), SIZE, 1.25)


def test_a_plan_without_augmentation_is_the_padded_box(plan: Plan) -> None:
    assert plan["center"][0].numpy().tolist() == [120, 230]
    np.testing.assert_allclose(plan["size"][0], [75, 100])
    assert not plan["rotation"].numpy().any() and not plan["mirrored"].numpy().any()


def test_scale_is_a_normal_cut_at_its_spread(plan: Plan) -> None:
    factor = (augmentation.random_scale(plan, SEED, 0.5)["size"] / plan["size"]).numpy()
    np.testing.assert_allclose(factor[:, 0], factor[:, 1], rtol=1e-6)
    assert factor.min() == pytest.approx(0.5) and factor.max() == pytest.approx(1.5)
    # A normal is beyond one standard deviation 15.9 % of the time on either side.
    assert np.mean(factor[:, 0] < 0.5001) == pytest.approx(0.159, abs=0.03)
    assert factor.mean() == pytest.approx(1, abs=0.03)


def test_rotation_is_a_normal_cut_at_twice_its_width_and_sometimes_none(plan: Plan) -> None:
    turn = augmentation.random_rotation(plan, SEED, 40.0, 0.6)["rotation"].numpy()
    assert np.abs(turn).max() == pytest.approx(80)
    assert np.mean(turn != 0) == pytest.approx(0.6, abs=0.04)
    assert turn[turn != 0].std() == pytest.approx(40 * 0.96, abs=2)


def quartiles(values: np.ndarray) -> np.ndarray:
    return np.quantile(values, [0.0, 0.25, 0.5, 0.75, 1.0])


def test_a_uniform_scale_fills_its_range_evenly(plan: Plan) -> None:
    factor = (augmentation.random_scale(plan, SEED, 0.25, "uniform")["size"] / plan["size"]).numpy()
    np.testing.assert_allclose(factor[:, 0], factor[:, 1], rtol=1e-6)
    assert factor.min() >= 0.75 and factor.max() <= 1.25
    np.testing.assert_allclose(quartiles(factor), [0.75, 0.875, 1.0, 1.125, 1.25], atol=0.02)
    assert factor.std() == pytest.approx(0.5 / np.sqrt(12), rel=0.03)


def test_a_uniform_rotation_fills_its_range_evenly_and_goes_no_farther(plan: Plan) -> None:
    turn = augmentation.random_rotation(plan, SEED, 30.0, 1.0, "uniform")["rotation"].numpy()
    assert np.abs(turn).max() <= 30
    np.testing.assert_allclose(quartiles(turn), [-30, -15, 0, 15, 30], atol=2)
    assert turn.std() == pytest.approx(60 / np.sqrt(12), rel=0.03)
    sometimes = augmentation.random_rotation(plan, SEED, 30.0, 0.4, "uniform")["rotation"].numpy()
    assert np.mean(sometimes != 0) == pytest.approx(0.4, abs=0.04)


def test_a_configuration_chooses_the_distributions(plan: Plan) -> None:
    off = AugmentationConfig(flip_probability=0, half_body_probability=0, scale=0.25, rotation_degrees=30.0, rotation_probability=1.0)
    factors, turns = {}, {}
    for name, change in {"normal": {}, "scale": {"scale_distribution": "uniform"}, "turn": {"rotation_distribution": "uniform"}}.items():
        changed = augmentation.augment_plan(plan, SEED, off.model_copy(update=change), COCO_17, SIZE)
        factors[name], turns[name] = (changed["size"] / plan["size"]).numpy()[:, 0], changed["rotation"].numpy()
    # A third of a clipped normal stands at its bounds, next to nothing of a uniform distribution.
    assert np.mean(np.isclose(factors["normal"], [[0.75], [1.25]], atol=1e-3)) > 0.1
    assert np.mean(np.isclose(factors["scale"], [[0.75], [1.25]], atol=1e-3)) < 0.01
    assert np.abs(turns["normal"]).max() > 45 and np.abs(turns["turn"]).max() <= 30
    np.testing.assert_array_equal(turns["normal"], turns["scale"])
    np.testing.assert_array_equal(factors["normal"], factors["turn"])


def test_a_flip_swaps_left_and_right_joints_and_leaves_their_place(plan: Plan) -> None:
    flipped = augmentation.random_flip(plan, SEED, COCO_17, 0.5)
    mirrored = flipped["mirrored"].numpy()
    assert mirrored.mean() == pytest.approx(0.5, abs=0.04)
    before, after = plan["keypoints"].numpy(), flipped["keypoints"].numpy()
    left, right = COCO_17.index("left_wrist"), COCO_17.index("right_wrist")
    np.testing.assert_array_equal(after[mirrored][:, left], before[mirrored][:, right])
    np.testing.assert_array_equal(after[mirrored][:, right], before[mirrored][:, left])
    np.testing.assert_array_equal(after[~mirrored], before[~mirrored])
    np.testing.assert_array_equal(after[:, COCO_17.index("nose")], before[:, COCO_17.index("nose")])


def test_half_body_zooms_in_on_the_mean_of_the_upper_or_lower_joints(plan: Plan) -> None:
    changed = augmentation.half_body(plan, SEED, COCO_17, SIZE, 0.3, 8, 1.5)
    points = plan["keypoints"].numpy()[0, :, :2]
    upper, lower = (points[list(COCO_17.indices(joints))].mean(axis=0) for joints in (COCO_17.upper_body, COCO_17.lower_body))
    center = changed["center"].numpy()
    is_upper, is_lower = (np.isclose(center, half, atol=1e-3).all(axis=-1) for half in (upper, lower))
    untouched = (center == plan["center"].numpy()).all(axis=-1)
    assert (is_upper | is_lower | untouched).all()
    assert np.mean(~untouched) == pytest.approx(0.3, abs=0.04)
    assert is_upper.sum() / (~untouched).sum() == pytest.approx(0.69, abs=0.06)
    # The upper body spans 10 x 20 pixels: 15 x 20 at the crop's aspect ratio, then times 1.5.
    np.testing.assert_allclose(changed["size"].numpy()[is_upper][0], [22.5, 30], rtol=1e-5)
    np.testing.assert_array_equal(changed["keypoints"], plan["keypoints"])


@pytest.mark.parametrize(
    ("visible", "applies"),
    [
        (tuple(range(17)), True),
        (tuple(range(9)), True),
        (tuple(range(8)), False),  # not more than 8
        ((0, 1, 2, 3, 4, 5, 6, 7, 16), True),  # one joint of the lower body: the upper one is taken
    ],
)
def test_half_body_needs_enough_visible_joints(plan: Plan, visible: tuple[int, ...], applies: bool) -> None:
    keypoints = plan["keypoints"].numpy().copy()
    keypoints[..., 2] = np.isin(np.arange(17), visible) * 2
    keypoints[keypoints[..., 2] == 0] = 0  # as COCO has absent joints
    changed = augmentation.half_body({**plan, "keypoints": tf.constant(keypoints)}, SEED, COCO_17, SIZE, 1.0, 8, 1.5)
    moved = (changed["size"].numpy() != plan["size"].numpy()).any(axis=-1)
    assert moved.all() if applies else not moved.any()
    assert np.isfinite(changed["size"]).all() and (changed["size"].numpy() > 0).all()


def test_half_body_leaves_people_whose_joints_coincide(plan: Plan) -> None:
    keypoints = plan["keypoints"].numpy().copy()
    keypoints[..., :2] = 50
    changed = augmentation.half_body({**plan, "keypoints": tf.constant(keypoints)}, SEED, COCO_17, SIZE, 1.0, 8, 1.5)
    np.testing.assert_array_equal(changed["size"], plan["size"])


def test_half_body_does_nothing_without_halves(plan: Plan) -> None:
    skeleton = Skeleton("coco_17_whole", COCO_17.joint_names, COCO_17.left_right_pairs)
    config = AugmentationConfig(half_body_probability=1, scale=0, rotation_degrees=0, flip_probability=0)
    changed = augmentation.augment_plan(plan, SEED, config, skeleton, SIZE)
    np.testing.assert_array_equal(changed["center"], plan["center"])


def test_operations_draw_independently(plan: Plan) -> None:
    """Switching one operation off leaves what the others draw."""
    everything = AugmentationConfig(brightness=0.1, channel_gain=0.4, cutout_probability=0.5)
    full = augmentation.augment_plan(plan, SEED, everything, COCO_17, SIZE)
    for off, column in (("rotation_degrees", "mirrored"), ("flip_probability", "rotation"), ("half_body_probability", "cutout")):
        part = augmentation.augment_plan(plan, SEED, everything.model_copy(update={off: 0.0}), COCO_17, SIZE)
        np.testing.assert_array_equal(part[column], full[column])
    without_gain = augmentation.augment_plan(plan, SEED, everything.model_copy(update={"channel_gain": 0.0}), COCO_17, SIZE)
    np.testing.assert_array_equal(without_gain["colour"][:, :3], full["colour"][:, :3])
    np.testing.assert_array_equal(without_gain["colour"][:, 3:], 1)


def test_all_off_changes_nothing(plan: Plan) -> None:
    config = AugmentationConfig(flip_probability=0, rotation_degrees=0, scale=0, half_body_probability=0)
    changed = augmentation.augment_plan(plan, SEED, config, COCO_17, SIZE)
    assert changed.keys() == plan.keys()
    for name, column in plan.items():
        np.testing.assert_array_equal(changed[name], column)


def test_a_photo_that_ends_within_the_person_leaves_its_part_of_the_box(plan: Plan) -> None:
    people = 2000
    boxes = tf.constant([[100.0, 200.0, 60.0, 80.0]] * people)
    grid = np.stack(np.meshgrid(np.linspace(101, 158, 5), np.linspace(201, 278, 5)), axis=-1).reshape(-1, 2)
    keypoints = tf.constant(np.repeat(np.concatenate([grid, np.full((25, 1), 2)], axis=1)[None], people, axis=0), tf.float32)
    left, kept, frame = (part.numpy() for part in augmentation.truncate(boxes, keypoints, SEED, 0.6, 0.5))
    cut = np.abs(frame) < augmentation.FAR
    assert 0.57 < cut.any(axis=1).mean() < 0.63 and cut.sum(axis=1).max() == 1
    assert 0.45 < cut[:, 3].sum() / cut.sum() < 0.55  # at the bottom most of all
    np.testing.assert_array_equal(frame[cut], np.round(frame[cut]))
    whole = ~cut.any(axis=1)
    np.testing.assert_array_equal(left[whole], boxes[whole])
    np.testing.assert_array_equal(kept[whole], keypoints[whole])
    share = left[:, 2] * left[:, 3] / (60 * 80)
    assert share[~whole].min() > 0.48 and share.max() <= 1
    # What is annotated still lies within the box, the rest beyond the edge.
    there = kept[..., 2] > 0
    beyond = (keypoints[..., :2] + 0.5 < frame[:, None, :2]) | (keypoints[..., :2] + 0.5 >= frame[:, None, 2:])
    np.testing.assert_array_equal(there, ~beyond.numpy().any(axis=-1))


def test_nobody_is_cut_off_of_whom_too_little_would_be_left() -> None:
    keypoints = np.zeros((500, 17, 3), np.float32)
    keypoints[:, :5] = [[10, 2, 2], [12, 2, 2], [14, 2, 2], [10, 95, 2], [12, 95, 2]]
    boxes = tf.constant([[0.0, 0, 30, 100]] * 500)
    _, kept, frame = (part.numpy() for part in augmentation.truncate(boxes, tf.constant(keypoints), SEED, 1.0, 0.3))
    changed = (kept != keypoints).any(axis=(1, 2))
    # Three joints lie in the upper half, two in the lower: only an edge at the side leaves four, or all.
    assert not changed.any() or (np.abs(frame[changed][:, ::2]) < augmentation.FAR).any(axis=1).all()
    assert (np.count_nonzero(kept[..., 2], axis=1) >= augmentation.TRUNCATION_FEWEST_JOINTS).all()


def test_colour_follows_its_definition() -> None:
    image = np.random.default_rng(0).uniform(60, 180, (9, 7, 3)).astype(np.float32)
    brightness, contrast, saturation, gain = 0.05, 1.2, 0.7, [1.1, 0.8, 0.9]
    colour = tf.constant([brightness, contrast, saturation, *gain])
    found = augmentation.adjust_colour(tf.constant(image), colour)
    image = image * np.array(gain, np.float32)
    grey = image @ np.array([0.2989, 0.587, 0.114], np.float32)
    expected = grey.mean() + contrast * (image - grey.mean()) + 255 * brightness
    expected_grey = (expected @ np.array([0.2989, 0.587, 0.114], np.float32))[..., None]
    expected = expected_grey + saturation * (expected - expected_grey)
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_colour_stays_within_the_range_of_an_image() -> None:
    image = tf.constant(np.random.default_rng(0).uniform(0, 255, (9, 7, 3)), tf.float32)
    found = augmentation.adjust_colour(image, tf.constant([0.5, 1.9, 1.9, 1.4, 1.4, 1.4])).numpy()
    assert found.min() >= 0 and found.max() == 255
    np.testing.assert_allclose(augmentation.adjust_colour(image, tf.constant([0.0, *[1.0] * 5])), image, atol=1e-3)


def test_colour_is_drawn_within_its_ranges(plan: Plan) -> None:
    colour = augmentation.random_colour(plan, SEED, 0.1, 0.2, 0.3, 0.4)["colour"].numpy()
    for column, (middle, spread) in enumerate(((0, 0.1), (1, 0.2), (1, 0.3), (1, 0.4), (1, 0.4), (1, 0.4))):
        assert np.abs(colour[:, column] - middle).max() == pytest.approx(spread, rel=0.05)
    # Each number is drawn for itself.
    assert np.abs(np.corrcoef(colour.T) - np.eye(6)).max() < 0.1


def test_a_gain_changes_its_channel_alone() -> None:
    image = tf.constant(np.random.default_rng(0).uniform(0, 150, (9, 7, 3)), tf.float32)
    found = augmentation.adjust_colour(image, tf.constant([0.0, 1.0, 1.0, 1.4, 0.6, 1.0]))
    np.testing.assert_allclose(found, image * [1.4, 0.6, 1.0], atol=1e-3)


def test_a_cutout_is_the_mean_colour_in_its_rectangle_alone(plan: Plan) -> None:
    drawn = augmentation.random_cutout(plan, SEED, SIZE, 0.5, 0.25)["cutout"].numpy()
    sides = drawn[:, 2:]
    assert np.mean((sides > 0).all(axis=-1)) == pytest.approx(0.5, abs=0.04)
    assert (sides <= np.array(SIZE) * 0.25).all()
    image = tf.ones([10, 8, 3])
    expected = np.ones((10, 8, 3))
    expected[2:5, 3:8] = 0
    np.testing.assert_array_equal(augmentation.cut_out(image, tf.constant([2.0, 3.0, 3.0, 9.0])), expected)
    np.testing.assert_array_equal(augmentation.cut_out(image, tf.constant([2.0, 3.0, 0.0, 0.0])), image)


def test_another_person_is_pasted_at_the_same_place() -> None:
    images = tf.constant(np.random.default_rng(0).normal(size=(3, 10, 8, 3)), tf.float32)
    found = augmentation.paste_other_people(images, tf.constant([[2.0, 3, 3, 9], [0, 0, 0, 0], [-4, -4, 5, 5]])).numpy()
    expected = images.numpy()
    expected[0, 2:5, 3:8] = images[2, 2:5, 3:8]
    expected[2, :1, :1] = images[1, :1, :1]
    np.testing.assert_array_equal(found, expected)
