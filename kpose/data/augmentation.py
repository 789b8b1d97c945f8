"""Augmentation: small named operations on a dictionary of columns, a row for each person.

What changes the geometry is drawn before a picture is decoded, so that one affine map does it all and only what the crop shows needs
decoding. A *plan* has these columns for n people:

    center      (n, 2)     of the region to cut out, image frame
    size        (n, 2)     width and height of that region
    rotation    (n,)       degrees
    mirrored    (n,)       bool
    keypoints   (n, K, 3)  image frame; after a flip left and right have changed places

and, where drawn, `frame (n, 4)`, outside of which a picture is black, `colour (n, 6)` and `cutout (n, 4)`, which are applied to the
crops. Random numbers are stateless: each operation derives its own from `seed`, so that switching one off leaves the others as they were.

The recipe is that of Sun et al. (HRNet, CVPR 2019), which the published weights of this family of networks follow. Papers that print
plain ranges ("rotation from -30 to 30") have the distribution "uniform"; the colour jitter of the hourglasses' codes is a gain of each
channel. Hue is left out: no recipe here turns it.
"""

from __future__ import annotations

from typing import Literal

import tensorflow as tf

from kpose import geometry
from kpose.config import AugmentationConfig
from kpose.skeletons import Skeleton

Plan = dict[str, tf.Tensor]
Distribution = Literal["normal", "uniform"]

# Numbers of the random streams; a new operation takes a new one.
_HALF_BODY, _SCALE, _ROTATION, _FLIP, _COLOUR, _CUTOUT, _GAIN, _TRUNCATION = range(8)

# The published code takes the upper body where a standard normal is below 0.5.
_UPPER_BODY_PROBABILITY = 0.6915

# Photos cut people off at the bottom most of all: up to which number in 0..1 the cut is at the bottom, the top, the left; else the right.
TRUNCATION_SIDES = (0.5, 0.6, 0.8)
# Fewer joints are no person to learn from.
TRUNCATION_FEWEST_JOINTS = 4
# An edge beyond all pictures.
FAR = 1.0e6

# ITU-R BT.601, as tf.image.rgb_to_grayscale has them.
_LUMA = (0.2989, 0.5870, 0.1140)


def plan_crops(boxes: tf.Tensor, keypoints: tf.Tensor, crop_size: geometry.Size, padding: float) -> Plan:
    """The crops without any augmentation.

    Args:
        boxes: `(n, 4)` in the image frame.
        keypoints: `(n, K, 3)` in the image frame.
        crop_size: height and width of the crop.
        padding: factor by which the boxes grow, see `geometry.fit_box_to_aspect`.
    """
    center, size = geometry.fit_box_to_aspect(boxes, crop_size, padding)
    rotation = tf.zeros_like(center[:, 0])
    return {"center": center, "size": size, "rotation": rotation, "mirrored": tf.zeros_like(rotation, tf.bool), "keypoints": keypoints}


def random_plan(
    boxes: tf.Tensor,
    keypoints: tf.Tensor,
    seed: tf.Tensor,
    config: AugmentationConfig,
    skeleton: Skeleton,
    crop_size: geometry.Size,
    padding: float,
) -> Plan:
    """`plan_crops` with all random changes of a configuration, from where the photo ends on. Arguments as there and of `augment_plan`."""
    if not (config.truncation_probability and config.truncation_least_kept < 1):
        return augment_plan(plan_crops(boxes, keypoints, crop_size, padding), seed, config, skeleton, crop_size)
    boxes, keypoints, frame = truncate(boxes, keypoints, seed, config.truncation_probability, config.truncation_least_kept)
    plan = {**plan_crops(boxes, keypoints, crop_size, padding), "frame": frame}
    return augment_plan(plan, seed, config, skeleton, crop_size)


def augment_plan(plan: Plan, seed: tf.Tensor, config: AugmentationConfig, skeleton: Skeleton, crop_size: geometry.Size) -> Plan:
    """All random changes of where and how a person is cut out; those that a configuration turns off cost nothing.

    Args:
        plan: see the module.
        seed: `(2,)` integers.
        config: strengths and probabilities.
        skeleton: halves of the body and left-right pairs.
        crop_size: height and width of the crop.
    """
    if config.half_body_probability and (skeleton.upper_body or skeleton.lower_body):
        plan = half_body(
            plan,
            seed,
            skeleton,
            crop_size,
            config.half_body_probability,
            config.half_body_minimum_joints,
            config.half_body_padding,
        )
    if config.scale:
        plan = random_scale(plan, seed, config.scale, config.scale_distribution)
    if config.rotation_degrees and config.rotation_probability:
        plan = random_rotation(plan, seed, config.rotation_degrees, config.rotation_probability, config.rotation_distribution)
    if config.flip_probability:
        plan = random_flip(plan, seed, skeleton, config.flip_probability)
    if config.brightness or config.contrast or config.saturation or config.channel_gain:
        plan = random_colour(plan, seed, config.brightness, config.contrast, config.saturation, config.channel_gain)
    if config.cutout_probability and config.cutout_size:
        plan = random_cutout(plan, seed, crop_size, config.cutout_probability, config.cutout_size)
    return plan


def truncate(
    boxes: tf.Tensor, keypoints: tf.Tensor, seed: tf.Tensor, probability: float, least_kept: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Sometimes let the photo end within the person, as photos do: beyond an edge it is black, and joints there are not annotated.

    Half a body alone is another thing: the rest of it is still seen. The box is cut off too, so the crop shows what is left.

    Args:
        boxes: `(n, 4)` x, y, width, height in the image frame.
        keypoints: `(n, K, 3)` in the image frame.
        seed: `(2,)`.
        probability: of an edge, for people of whom `TRUNCATION_FEWEST_JOINTS` are left.
        least_kept: of the box's height or width a share that is uniform from this to 1 is left.

    Returns:
        Boxes, keypoints, and `frame (n, 4)`: the left, top, right and bottom edge in whole pixels; pixel i lies between edges i and i + 1.
    """
    uniform = tf.random.stateless_uniform([tf.shape(boxes)[0], 3], _stream(seed, _TRUNCATION))
    x, y, width, height = tf.unstack(boxes, axis=-1)
    kept = least_kept + (1.0 - least_kept) * uniform[:, 1]
    side = tf.searchsorted(tf.constant(TRUNCATION_SIDES), uniform[:, 0], side="right")
    far = tf.fill(tf.shape(x), FAR)
    frame = tf.stack(
        [
            tf.where(side == 2, tf.round(x + (1.0 - kept) * width), -far),
            tf.where(side == 1, tf.round(y + (1.0 - kept) * height), -far),
            tf.where(side == 3, tf.round(x + kept * width), far),
            tf.where(side == 0, tf.round(y + kept * height), far),
        ],
        axis=-1,
    )
    points = keypoints[..., :2] + 0.5
    inside = tf.reduce_all((points >= frame[:, None, :2]) & (points < frame[:, None, 2:]), axis=-1)
    left = _count(inside & (keypoints[..., 2] > 0))
    applies = ((uniform[:, 2] < probability) & (left >= TRUNCATION_FEWEST_JOINTS))[:, None]
    first = tf.maximum(boxes[:, :2], frame[:, :2])
    last = tf.minimum(boxes[:, :2] + boxes[:, 2:], frame[:, 2:])
    boxes = tf.where(applies, tf.concat([first, last - first], axis=-1), boxes)
    keypoints = tf.where((applies & ~inside)[..., None], 0.0, keypoints)
    nowhere = tf.constant([-FAR, -FAR, FAR, FAR])
    return boxes, keypoints, tf.where(applies, frame, nowhere)


def half_body(
    plan: Plan,
    seed: tf.Tensor,
    skeleton: Skeleton,
    crop_size: geometry.Size,
    probability: float,
    minimum_joints: int,
    padding: float,
) -> Plan:
    """Sometimes zoom in on the upper or the lower body (Wang et al., arXiv 1901.00148).

    The region is centred on the mean of the half's joints, as large as their bounding box at the crop's aspect ratio, times `padding`. No
    keypoint is dropped: those that leave the crop lose their weight when encoded.

    Args:
        plan: see the module.
        seed: `(2,)`.
        skeleton: which joints are the upper and the lower body.
        crop_size: height and width of the crop.
        probability: of the change, among those to whom it applies.
        minimum_joints: it applies to people with more visible joints than this.
        padding: factor by which the region grows.
    """
    keypoints = plan["keypoints"]
    chance = tf.random.stateless_uniform([2, tf.shape(keypoints)[0]], _stream(seed, _HALF_BODY))
    visible = keypoints[..., 2] > 0
    upper, lower = (visible & _joint_mask(skeleton, joints) for joints in (skeleton.upper_body, skeleton.lower_body))
    upper_count, lower_count = _count(upper), _count(lower)
    take_upper = ((chance[0] < _UPPER_BODY_PROBABILITY) & (upper_count > 2)) | (lower_count <= 2)
    chosen = tf.where(take_upper[:, None], upper, lower)
    count = _count(chosen)
    points = keypoints[..., :2]
    far = points.dtype.max
    first = tf.reduce_min(tf.where(chosen[..., None], points, far), axis=1)
    last = tf.reduce_max(tf.where(chosen[..., None], points, -far), axis=1)
    center = tf.reduce_sum(tf.where(chosen[..., None], points, 0.0), axis=1) / tf.cast(tf.maximum(count, 1), tf.float32)[:, None]
    extent = last - first
    applies = (_count(visible) > minimum_joints) & (count >= 2) & (tf.reduce_max(extent, axis=-1) > 0) & (chance[1] < probability)
    # Where it does not apply `extent` may be anything, even infinite; it is not used then.
    _, size = geometry.fit_box_to_aspect(tf.concat([first, extent], axis=-1), crop_size, padding)
    return {
        **plan,
        "center": tf.where(applies[:, None], center, plan["center"]),
        "size": tf.where(applies[:, None], size, plan["size"]),
    }


def random_scale(plan: Plan, seed: tf.Tensor, spread: float, distribution: Distribution = "normal") -> Plan:
    """Multiply the region by a factor.

    Args:
        plan: see the module.
        seed: `(2,)`.
        spread: the factor lies in 1 - spread .. 1 + spread.
        distribution: "normal", 1 + normal x spread, clipped; or "uniform".
    """
    deviation = _draw(tf.shape(plan["rotation"]), _stream(seed, _SCALE), distribution)
    factor = 1.0 + spread * tf.clip_by_value(deviation, -1.0, 1.0)
    return {**plan, "size": plan["size"] * factor[:, None]}


def random_rotation(plan: Plan, seed: tf.Tensor, degrees: float, probability: float, distribution: Distribution = "normal") -> Plan:
    """Sometimes turn.

    Args:
        plan: see the module.
        seed: `(2,)`.
        degrees: how far.
        probability: of a turn.
        distribution: "normal", normal x degrees, clipped at twice this; or "uniform" in -degrees .. degrees.
    """
    seeds = tf.random.split(_stream(seed, _ROTATION))
    shape = tf.shape(plan["rotation"])
    turn = degrees * tf.clip_by_value(_draw(shape, seeds[0], distribution), -2.0, 2.0)
    applies = tf.random.stateless_uniform(shape, seeds[1]) < probability
    return {**plan, "rotation": plan["rotation"] + tf.where(applies, turn, 0.0)}


def random_flip(plan: Plan, seed: tf.Tensor, skeleton: Skeleton, probability: float) -> Plan:
    """Sometimes mirror the crop: left and right joints change places (their coordinates follow with the map)."""
    applies = tf.random.stateless_uniform(tf.shape(plan["rotation"]), _stream(seed, _FLIP)) < probability
    swapped = tf.gather(plan["keypoints"], skeleton.flip_permutation, axis=1)
    keypoints = tf.where(applies[:, None, None], swapped, plan["keypoints"])
    return {**plan, "mirrored": plan["mirrored"] ^ applies, "keypoints": keypoints}


def random_colour(plan: Plan, seed: tf.Tensor, brightness: float, contrast: float, saturation: float, channel_gain: float = 0.0) -> Plan:
    """Draw `colour (n, 6)`: what is added to an image in 0..1, the factors on its contrast, its saturation, its red, green and blue."""
    people = tf.shape(plan["rotation"])[0]
    uniform = tf.random.stateless_uniform([people, 3], _stream(seed, _COLOUR), -1.0, 1.0)
    colour = tf.constant([0.0, 1.0, 1.0]) + uniform * tf.constant([brightness, contrast, saturation])
    gain = 1.0 + channel_gain * tf.random.stateless_uniform([people, 3], _stream(seed, _GAIN), -1.0, 1.0)
    return {**plan, "colour": tf.concat([colour, gain], axis=-1)}


def random_cutout(plan: Plan, seed: tf.Tensor, crop_size: geometry.Size, probability: float, largest: float) -> Plan:
    """Draw `cutout (n, 4)`: a rectangle y, x, height, width of the crop (DeVries and Taylor, arXiv 1708.04552); of size 0 where none.

    Its centre is uniform over the crop, its sides uniform up to `largest` of the crop's.
    """
    uniform = tf.random.stateless_uniform([tf.shape(plan["rotation"])[0], 5], _stream(seed, _CUTOUT))
    extent = tf.constant(crop_size, tf.float32)
    applies = tf.cast(uniform[:, 4:] < probability, tf.float32)
    sides = uniform[:, 2:4] * largest * extent * applies
    return {**plan, "cutout": tf.concat([uniform[:, :2] * extent - sides / 2, sides], axis=-1)}


def adjust_colour(image: tf.Tensor, colour: tf.Tensor) -> tf.Tensor:
    """Multiply the channels, then change contrast about the mean grey, saturation and brightness: one linear map of each pixel.

    Args:
        image: `(H, W, 3)` float32 in 0..255.
        colour: `(6,)`, see `random_colour`.

    Returns:
        Of the same shape, cut to 0..255.
    """
    luma = tf.constant(_LUMA)
    brightness, contrast, saturation, gain = colour[0], colour[1], colour[2], colour[3:]
    grey = tf.tensordot(tf.reduce_mean(image, axis=(0, 1)) * gain, luma, 1)
    mix = contrast * gain[:, None] * (saturation * tf.eye(3) + (1.0 - saturation) * tf.repeat(luma[:, None], 3, axis=1))
    shape = image.shape
    flat = tf.matmul(tf.reshape(image, [-1, 3]), mix) + ((1.0 - contrast) * grey + 255.0 * brightness)
    return tf.reshape(tf.clip_by_value(flat, 0.0, 255.0), shape)


def cut_out(image: tf.Tensor, cutout: tf.Tensor) -> tf.Tensor:
    """Blank a rectangle of a normalised image: 0 is the mean colour.

    Args:
        image: `(H, W, 3)` float32, normalised.
        cutout: `(4,)` y, x, height, width; pixels whose centres lie inside are set to 0.
    """
    return image * tf.cast(~_inside(cutout, image.shape[:2]), tf.float32)[..., None]


def paste_other_people(images: tf.Tensor, cutouts: tf.Tensor) -> tf.Tensor:
    """Cover a rectangle of each crop by the same place of the one before it, that of the first by the last's.

    CutMix (Yun et al., ICCV 2019) of people: limbs of somebody else lie where this person's may be, as in a crowd, and a joint behind
    them keeps its label, as annotators give it. What is pasted comes from the samples that are there anyhow, so it costs nothing.

    Args:
        images: `(B, H, W, 3)`.
        cutouts: `(B, 4)`, as in `cut_out`.
    """
    return tf.where(_inside(cutouts, images.shape[1:3])[..., None], tf.roll(images, 1, axis=0), images)


def _inside(cutout: tf.Tensor, size: geometry.Size) -> tf.Tensor:
    """`(..., H, W)` bool of rectangles `(..., 4)`."""
    rows, columns = (
        (tf.range(length, dtype=tf.float32) >= cutout[..., axis, None])
        & (tf.range(length, dtype=tf.float32) < cutout[..., axis, None] + cutout[..., axis + 2, None])
        for axis, length in enumerate(size)
    )
    return rows[..., :, None] & columns[..., None, :]


def _draw(shape: tf.Tensor, seed: tf.Tensor, distribution: Distribution) -> tf.Tensor:
    """A standard normal, or uniform in -1 .. 1."""
    if distribution == "uniform":
        return tf.random.stateless_uniform(shape, seed, -1.0, 1.0)
    return tf.random.stateless_normal(shape, seed)


def _stream(seed: tf.Tensor, operation: int) -> tf.Tensor:
    return tf.random.fold_in(seed, operation)


def _joint_mask(skeleton: Skeleton, joints: tuple[str, ...]) -> tf.Tensor:
    return tf.constant([joint in joints for joint in skeleton.joint_names])


def _count(chosen: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(chosen, tf.int32), axis=-1)
