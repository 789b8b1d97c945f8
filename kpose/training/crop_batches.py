"""Batches out of decoded crops: plans drawn in NumPy for a thousand people at once, pixels and heatmaps made where the network is.

The augmentation is that of `kpose.data.augmentation`, the targets are those of `kpose.codecs.GaussianCodec`, the geometry is
`kpose.geometry`; here they run on any backend of Keras and without a single step a person. As there, the stream is a function of seed and
position alone, whatever the backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from keras import ops

from kpose import geometry
from kpose.data.crop_shards import CropPixels, CropShards
from kpose.data.shares import CYCLE, shares
from kpose.skeletons import Skeleton

if TYPE_CHECKING:
    from kpose.codecs import GaussianCodec
    from kpose.config import AugmentationConfig, Config

# The published code takes the upper body where a standard normal is below 0.5.
UPPER_BODY_PROBABILITY = 0.6915
# Which side a photo ends at, and how many joints must be left, see kpose.data.augmentation, which needs TensorFlow.
TRUNCATION_SIDES, TRUNCATION_FEWEST_JOINTS, FAR = (0.5, 0.6, 0.8), 4, 1.0e6
# ITU-R BT.601.
_LUMA = np.array([0.2989, 0.5870, 0.1140], np.float32)

# Numbers of the random streams.
_ORDER, _PEOPLE, _CHANGES = range(3)


@dataclass(frozen=True, eq=False)
class Draws:
    """The random numbers of n people, from which all that is random follows.

    Attributes:
        truncation: `(n, 3)` uniform in 0..1: which side, how much is left, whether at all.
        half_body: `(n, 2)` uniform in 0..1: which half, whether at all.
        scale: `(n,)`, turn: `(n,)`: standard normal, or uniform in -1..1 where the configuration says so.
        turns, flips: `(n,)` uniform in 0..1.
        colour, gain: `(n, 3)` uniform in -1..1.
        cutout: `(n, 5)` uniform in 0..1: centre, sides, whether at all.
    """

    truncation: np.ndarray
    half_body: np.ndarray
    scale: np.ndarray
    turn: np.ndarray
    turns: np.ndarray
    flips: np.ndarray
    colour: np.ndarray
    gain: np.ndarray
    cutout: np.ndarray


def draw(random: np.random.Generator, people: int, config: AugmentationConfig) -> Draws:
    """Random numbers for so many people."""

    def deviation(distribution: str) -> np.ndarray:
        return random.uniform(-1, 1, people) if distribution == "uniform" else random.standard_normal(people)

    return Draws(
        truncation=random.uniform(size=(people, 3)),
        half_body=random.uniform(size=(people, 2)),
        scale=deviation(config.scale_distribution),
        turn=deviation(config.rotation_distribution),
        turns=random.uniform(size=people),
        flips=random.uniform(size=people),
        colour=random.uniform(-1, 1, (people, 3)),
        gain=random.uniform(-1, 1, (people, 3)),
        cutout=random.uniform(size=(people, 5)),
    )


class Plan(NamedTuple):
    """How n people are cut out.

    Attributes:
        matrix: `(n, 2, 3)` float32 from the frame of boxes and keypoints to the crop.
        frame: `(n, 4)` float32, see `kpose.data.augmentation.truncate`; in the frame of boxes and keypoints.
        keypoints: `(n, K, 3)` float32 in the crop frame; after a flip left and right have changed places.
        colour: `(n, 6)` float32, see `kpose.data.augmentation.random_colour`.
        cutout: `(n, 4)` float32, see `kpose.data.augmentation.random_cutout`.
    """

    matrix: np.ndarray
    frame: np.ndarray
    keypoints: np.ndarray
    colour: np.ndarray
    cutout: np.ndarray


def plan(
    boxes: np.ndarray,
    keypoints: np.ndarray,
    draws: Draws,
    config: AugmentationConfig,
    skeleton: Skeleton,
    crop_size: geometry.Size,
    padding: float,
    alignment: geometry.Alignment,
) -> Plan:
    """All changes of a configuration, `kpose.data.augmentation.truncate` and `augment_plan` in NumPy.

    Args:
        boxes: `(n, 4)` x, y, width, height in any frame.
        keypoints: `(n, K, 3)` in the same frame.
        draws: what is random.
        config: strengths and probabilities.
        skeleton: halves of the body and left-right pairs.
        crop_size: height and width of the crop.
        padding: factor by which the boxes grow.
        alignment: see `kpose.geometry`.
    """
    boxes, keypoints, frame = _truncate(boxes, keypoints, draws, config)
    center, size = geometry.fit_box_to_aspect(boxes, crop_size, padding)
    if config.half_body_probability and (skeleton.upper_body or skeleton.lower_body):
        applies, half_center, half_size = _half_body(keypoints, draws, config, skeleton, crop_size)
        center, size = np.where(applies[:, None], half_center, center), np.where(applies[:, None], half_size, size)
    size = size * (1.0 + config.scale * np.clip(draws.scale, -1.0, 1.0))[:, None]
    turn = config.rotation_degrees * np.clip(draws.turn, -2.0, 2.0)
    rotation = np.where(draws.turns < config.rotation_probability, turn, 0.0)
    mirrored = draws.flips < config.flip_probability
    keypoints = np.where(mirrored[:, None, None], keypoints[:, skeleton.flip_permutation], keypoints)
    matrix = geometry.crop_matrix(center, size, crop_size, rotation, mirrored, alignment)
    strengths = np.array([config.brightness, config.contrast, config.saturation])
    colour = np.concatenate([np.array([0.0, 1.0, 1.0]) + draws.colour * strengths, 1.0 + config.channel_gain * draws.gain], axis=1)
    extent = np.array(crop_size, np.float64)
    sides = draws.cutout[:, 2:4] * config.cutout_size * extent * (draws.cutout[:, 4:] < config.cutout_probability)
    cutout = np.concatenate([draws.cutout[:, :2] * extent - sides / 2, sides], axis=1)
    moved = geometry.transform_points(keypoints, matrix)
    return Plan(*(part.astype(np.float32) for part in (matrix, frame, moved, colour, cutout)))


def _truncate(
    boxes: np.ndarray, keypoints: np.ndarray, draws: Draws, config: AugmentationConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, keypoints and frame of `kpose.data.augmentation.truncate`."""
    nowhere = np.array([-FAR, -FAR, FAR, FAR])
    x, y, width, height = np.moveaxis(boxes, -1, 0)
    kept = config.truncation_least_kept + (1.0 - config.truncation_least_kept) * draws.truncation[:, 1]
    side = np.searchsorted(TRUNCATION_SIDES, draws.truncation[:, 0], side="right")
    edges = [x + (1.0 - kept) * width, y + (1.0 - kept) * height, x + kept * width, y + kept * height]
    frame = np.where(side[:, None] == np.array([2, 1, 3, 0]), np.round(np.stack(edges, axis=-1)), nowhere)
    points = keypoints[..., :2] + 0.5
    inside = ((points >= frame[:, None, :2]) & (points < frame[:, None, 2:])).all(axis=-1)
    left = (inside & (keypoints[..., 2] > 0)).sum(axis=1)
    applies = ((draws.truncation[:, 2] < config.truncation_probability) & (left >= TRUNCATION_FEWEST_JOINTS))[:, None]
    first, last = np.maximum(boxes[:, :2], frame[:, :2]), np.minimum(boxes[:, :2] + boxes[:, 2:], frame[:, 2:])
    boxes = np.where(applies, np.concatenate([first, last - first], axis=-1), boxes)
    keypoints = np.where((applies & ~inside)[..., None], 0.0, keypoints)
    return boxes, keypoints, np.where(applies, frame, nowhere)


def _half_body(
    keypoints: np.ndarray, draws: Draws, config: AugmentationConfig, skeleton: Skeleton, crop_size: geometry.Size
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """To whom it applies `(n,)`, and the centre `(n, 2)` and size `(n, 2)` of the region, as `kpose.data.augmentation.half_body`."""
    visible = keypoints[..., 2] > 0
    upper, lower = (
        visible & np.array([joint in joints for joint in skeleton.joint_names]) for joints in (skeleton.upper_body, skeleton.lower_body)
    )
    upper_count, lower_count = upper.sum(axis=1), lower.sum(axis=1)
    take_upper = ((draws.half_body[:, 0] < UPPER_BODY_PROBABILITY) & (upper_count > 2)) | (lower_count <= 2)
    chosen = np.where(take_upper[:, None], upper, lower)
    count = chosen.sum(axis=1)
    points, some = keypoints[..., :2], count > 0
    # Where nobody is chosen any number will do; infinite ones would warn.
    first = np.where(some[:, None], np.where(chosen[..., None], points, np.inf).min(axis=1), 0.0)
    last = np.where(some[:, None], np.where(chosen[..., None], points, -np.inf).max(axis=1), 0.0)
    center = np.where(chosen[..., None], points, 0.0).sum(axis=1) / np.maximum(count, 1)[:, None]
    extent = last - first
    applies = (visible.sum(axis=1) > config.half_body_minimum_joints) & (count >= 2) & (extent.max(axis=1) > 0)
    applies &= draws.half_body[:, 1] < config.half_body_probability
    _, size = geometry.fit_box_to_aspect(np.concatenate([first, extent], axis=1), crop_size, config.half_body_padding)
    return applies, center, size


@dataclass(frozen=True, eq=False)
class CropBatch:
    """B people of a batch: a few kilobytes each, all that goes to the device in every step.

    Attributes:
        person: `(B,)` int32 position among the crops.
        source: `(B, 2, 3)` float32 from the network's crop to the stored one.
        frame: `(B, 4)` int32 left, top, right and bottom edge, in whole pixels of the stored crop, outside of which it is black.
        keypoints, colour, cutout: see `Plan`.
    """

    person: np.ndarray
    source: np.ndarray
    frame: np.ndarray
    keypoints: np.ndarray
    colour: np.ndarray
    cutout: np.ndarray

    def columns(self) -> dict[str, np.ndarray]:
        """The columns by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class CropStream:
    """The endless stream of samples: who comes, and how each is cut out.

    Of every `CYCLE` samples each dataset has its share, in an order drawn anew; of a dataset everybody comes equally often, pass after
    pass, each in an order drawn anew.

    Args:
        crops: the people.
        config: crop, augmentation, batch size and seed.
    """

    def __init__(self, crops: CropShards, config: Config) -> None:
        self.crops = crops
        self.config = config
        self._counts = shares([entry.weight for entry in crops.datasets])
        self._first = np.cumsum([0, *(entry.people for entry in crops.datasets[:-1])])
        self._blocks: dict[int, CropBatch] = {}
        self._passes: dict[tuple[int, int], np.ndarray] = {}

    def batch(self, step: int) -> CropBatch:
        """The samples of a step."""
        size = self.config.training.batch_size
        start, stop = step * size, (step + 1) * size
        parts = []
        for number in range(start // CYCLE, (stop - 1) // CYCLE + 1):
            chosen = slice(max(start - number * CYCLE, 0), stop - number * CYCLE)
            parts.append({name: column[chosen] for name, column in self._block(number).columns().items()})
        return CropBatch(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})

    def people(self, block: int) -> np.ndarray:
        """`(CYCLE,)` int64: who comes in a block of the stream."""
        chosen = []
        for dataset, (count, first) in enumerate(zip(self._counts, self._first, strict=True)):
            size = self.crops.datasets[dataset].people
            passes, within = np.divmod(np.arange(block * count, (block + 1) * count), size)
            for number in np.unique(passes):
                chosen.append(first + self._pass(dataset, int(number), size)[within[passes == number]])
        return self._random(_ORDER, block).permutation(np.concatenate(chosen))

    def _block(self, number: int) -> CropBatch:
        if number not in self._blocks:
            person = self.people(number)
            config, crops = self.config, self.crops
            drawn = draw(self._random(_CHANGES, number), CYCLE, config.augmentation)
            crop_size = (config.model.input_size[0], config.model.input_size[1])
            planned = plan(
                crops.boxes[person],
                crops.keypoints[person],
                drawn,
                config.augmentation,
                crops.skeleton,
                crop_size,
                config.data.box_padding,
                config.codec.alignment,
            )
            source = stored_source(planned.matrix, crops.shrink[person])
            frame = stored_frame(planned.frame, crops.shrink[person])
            batch = CropBatch(person.astype(np.int32), source, frame, planned.keypoints, planned.colour, planned.cutout)
            self._blocks = {number: batch, **{kept: old for kept, old in self._blocks.items() if kept == number - 1}}
        return self._blocks[number]

    def _pass(self, dataset: int, number: int, size: int) -> np.ndarray:
        key = (dataset, number)
        if key not in self._passes:
            # The former pass and this one at most: a block may see the end of the one and the begin of the other.
            self._passes = {kept: order for kept, order in self._passes.items() if kept[0] != dataset or kept[1] >= number - 1}
            self._passes[key] = self._random(_PEOPLE, dataset, number).permutation(size)
        return self._passes[key]

    def _random(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self.config.seed, *stream])


def stored_source(matrix: np.ndarray, shrink: np.ndarray) -> np.ndarray:
    """The maps `(n, 2, 3)` from the network's crop to the stored one.

    Args:
        matrix: `(n, 2, 3)` from the region to the network's crop.
        shrink: `(n, 2)`, see `kpose.data.crop_shards`.
    """
    source = geometry.invert_affine(matrix.astype(np.float64)) * shrink[:, :, None]
    source[..., 2] += 0.5 * shrink - 0.5
    return source.astype(np.float32)


def stored_frame(frame: np.ndarray, shrink: np.ndarray) -> np.ndarray:
    """The edges `(n, 4)` int32 in pixels of the stored crop, of edges of the region; `shrink` as in `stored_source`."""
    return np.asarray(np.round(frame * np.tile(shrink, 2)).astype(np.int32))


# --- on the device: keras.ops, whole batches -----------------------------------------------------------------------------------------


class DevicePixels(NamedTuple):
    """`CropPixels` as tensors of the backend: pixels `(P, 3)` uint8, first `(N,)` and sizes `(N, 2)` int32."""

    pixels: Any
    first: Any
    sizes: Any

    @classmethod
    def of(cls, crops: CropPixels) -> DevicePixels:
        """The tensors of decoded crops, on the backend's default device."""
        return cls(
            ops.convert_to_tensor(crops.pixels),
            ops.convert_to_tensor(crops.first.astype(np.int32)),
            ops.convert_to_tensor(crops.sizes.astype(np.int32)),
        )


def cut_crops(stored: DevicePixels, person: Any, source: Any, frame: Any, crop_size: geometry.Size) -> Any:
    """Crops by bilinear interpolation, black outside of what is stored, as `kpose.geometry.warp_image`.

    Args:
        stored: all decoded crops.
        person: `(B,)` int32.
        source: `(B, 2, 3)` float32 from the network's crop to the stored one.
        frame: `(B, 4)` int32, see `CropBatch`.
        crop_size: height and width of the network's crop.

    Returns:
        `(B, height, width, 3)` float32 in 0..255.
    """
    height, width = crop_size
    column = ops.reshape(ops.arange(width, dtype="float32"), (1, 1, width))
    row = ops.reshape(ops.arange(height, dtype="float32"), (1, height, 1))
    x, y = (
        source[:, axis, 0, None, None] * column + source[:, axis, 1, None, None] * row + source[:, axis, 2, None, None] for axis in (0, 1)
    )
    first = ops.take(stored.first, person, axis=0)[:, None, None]
    sizes = ops.take(stored.sizes, person, axis=0)
    columns = sizes[:, 1, None, None]
    first_x, first_y = (ops.maximum(frame[:, axis, None, None], 0) for axis in (0, 1))
    last_x, last_y = (ops.minimum(frame[:, axis + 2, None, None], sizes[:, 1 - axis, None, None]) for axis in (0, 1))
    left, top = ops.floor(x), ops.floor(y)
    right_share, bottom_share = x - left, y - top
    # Far outside no number of pixels may overflow.
    left, top = (ops.cast(ops.clip(edge, -2.0, 1.0e6), "int32") for edge in (left, top))
    crop: Any = 0.0
    for down in (0, 1):
        for across in (0, 1):
            near_x, near_y = left + across, top + down
            inside = (near_x >= first_x) & (near_x < last_x) & (near_y >= first_y) & (near_y < last_y)
            index = first + ops.where(inside, near_y * columns + near_x, 0)
            share = (right_share if across else 1.0 - right_share) * (bottom_share if down else 1.0 - bottom_share)
            share = ops.where(inside, share, 0.0)
            crop = crop + ops.cast(ops.take(stored.pixels, index, axis=0), "float32") * share[..., None]
    return crop


def adjust_colours(crops: Any, colour: Any) -> Any:
    """`kpose.data.augmentation.adjust_colour` of a batch: crops `(B, H, W, 3)` float32 in 0..255, colour `(B, 6)`."""
    luma = ops.convert_to_tensor(_LUMA)
    brightness, contrast, saturation, gain = colour[:, 0], colour[:, 1], colour[:, 2], colour[:, 3:]
    grey = ops.sum(ops.mean(crops, axis=(1, 2)) * gain * luma, axis=-1)
    kept = saturation[:, None, None] * ops.eye(3, dtype="float32") + (1.0 - saturation)[:, None, None] * luma[:, None]
    mix = contrast[:, None, None] * gain[:, :, None] * kept
    batch, height, width, _ = crops.shape
    flat = ops.matmul(ops.reshape(crops, (batch, height * width, 3)), mix)
    flat = flat + ((1.0 - contrast) * grey + 255.0 * brightness)[:, None, None]
    return ops.reshape(ops.clip(flat, 0.0, 255.0), crops.shape)


def cut_out(crops: Any, cutout: Any, content: str) -> Any:
    """`kpose.data.augmentation.cut_out` and `paste_other_people`: normalised crops `(B, H, W, 3)`, cutout `(B, 4)`."""
    rows, columns = (
        (line >= cutout[:, axis, None]) & (line < cutout[:, axis, None] + cutout[:, axis + 2, None])
        for axis, line in enumerate(ops.arange(length, dtype="float32")[None, :] for length in crops.shape[1:3])
    )
    filling = ops.roll(crops, 1, axis=0) if content == "another_person" else 0.0
    return ops.where((rows[:, :, None] & columns[:, None, :])[..., None], filling, crops)


def encode(keypoints: Any, codec: GaussianCodec) -> tuple[Any, Any]:
    """`GaussianCodec.encode` on any backend.

    Args:
        keypoints: `(B, K, 3)` float32 in the crop frame.
        codec: sizes, sigma, centre and alignment.

    Returns:
        Heatmaps `(B, height, width, K)` and weights `(B, K)`, float32.
    """
    stride = geometry.heatmap_stride(codec.input_size, codec.heatmap_size, codec.alignment)
    points = [keypoints[..., axis] * (1.0 / stride[axis]) for axis in (0, 1)]
    rounded = [ops.sign(value + 0.5) * ops.floor(ops.abs(value + 0.5)) for value in points]
    centers = rounded if codec.center == "rounded" else points
    reach = 3.0 * codec.sigma
    height, width = codec.heatmap_size
    annotated = keypoints[..., 2] > 0
    for value, length in zip(rounded, (width, height), strict=True):
        annotated = annotated & (value >= -reach) & (value < length + reach)
    weights = ops.cast(annotated, "float32")
    across, down = (
        _profile(center, value, length, reach, codec.sigma) * weights[:, None, :]
        for center, value, length in zip(centers, rounded, (width, height), strict=True)
    )
    return down[:, :, None, :] * across[:, None, :, :], weights


def _profile(center: Any, rounded: Any, length: int, reach: float, sigma: float) -> Any:
    """`(B, length, K)`: the Gaussian about `center (B, K)`, cut off at `reach` from `rounded (B, K)`."""
    pixels = ops.arange(length, dtype="float32")[None, :, None]
    kept = ops.abs(pixels - rounded[:, None, :]) <= reach
    return ops.where(kept, ops.exp(-ops.square(pixels - center[:, None, :]) / (2.0 * sigma**2)), 0.0)


def network_batch(
    stored: DevicePixels, batch: dict[str, Any], config: Config, codecs: Sequence[GaussianCodec]
) -> tuple[Any, list[Any], list[Any]]:
    """What a step trains on.

    Args:
        stored: all decoded crops.
        batch: the columns of a `CropBatch`, as tensors.
        config: normalisation, and which changes are on.
        codecs: of the network's outputs.

    Returns:
        Images `(B, H, W, 3)` float32 normalised, and of each output heatmaps `(B, h, w, K)` and weights `(B, K)`.
    """
    changes = config.augmentation
    image = cut_crops(stored, batch["person"], batch["source"], batch["frame"], codecs[0].input_size)
    if changes.brightness or changes.contrast or changes.saturation or changes.channel_gain:
        image = adjust_colours(image, batch["colour"])
    mean, std = (np.asarray(value, np.float32) for value in (config.data.mean, config.data.std))
    image = image * ops.convert_to_tensor(1.0 / (255.0 * std)) - ops.convert_to_tensor(mean / std)
    if changes.cutout_probability and changes.cutout_size:
        image = cut_out(image, batch["cutout"], changes.cutout_content)
    heatmaps, weights = zip(*(encode(batch["keypoints"], codec) for codec in codecs), strict=True)
    return image, list(heatmaps), list(weights)
