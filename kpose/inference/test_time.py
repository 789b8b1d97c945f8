"""How a network, or several, are asked for a person's joints when it counts: mirrored, turned, at several scales, and together.

One object, `PoseTest`, composes it all. Evaluation and prediction both use it, so that a score is that of what a user gets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import keras
import numpy as np

from kpose import geometry
from kpose.checkpoint import ModelCard
from kpose.codecs import Codec, decoded_size
from kpose.data.crops import Preparation
from kpose.errors import KposeError
from kpose.skeletons import Skeleton

# Images (B, H, W, 3) in, heatmaps (B, h, w, K) out: a network, or its compiled form.
Forward = Callable[[Any], Any]


@dataclass(frozen=True)
class Member:
    """One network of a test.

    Attributes:
        forward: from normalised crops `(B, H, W, 3)` to heatmaps; where there are many batches, `compile_forward` of the network.
        preparation: the crops it is to see, and the codec of its heatmaps.
    """

    forward: Forward
    preparation: Preparation


@dataclass(frozen=True)
class PoseTest:
    """A test protocol up to the keypoints: the networks, what they are shown of a person, and how their answers become one.

    Each network sees the person's region at each of `rotations` in each of `scales`: the *views*, cut from the photo itself. Heatmaps of
    a view and of its mirror image are averaged (the flip test). The answers of all networks to all views are averaged as positions in the
    image, with equal weights; a joint's score is the mean of its scores. So does Huang and Zhu, "Multi-Stage HRNet", 2019, section
    3.3: "results are obtained by averaging the position in images", with rotation and three scales. On request the networks' heatmaps
    of a view are averaged instead, before they are decoded: who is less sure of a joint then has less of a say in where it is.

    Attributes:
        members: the networks; the first one's crop gives the `areas`.
        skeleton: the joints of all of them.
        flip: also show every crop mirrored, and average the heatmaps.
        shift_heatmap: move those by the pixel that `classic` alignment is off, see `Codec.unmirror`.
        rotations: degrees by which the region is turned, see `geometry.crop_matrix`.
        scales: factors on the region's size; greater than 1 shows more of the surroundings.
        ensemble: what several networks' answers are averaged as.

    Raises:
        KposeError: on construction, when there is no network or no view, a number is of no use, or heatmaps that are to be averaged do
            not correspond.
    """

    members: tuple[Member, ...]
    skeleton: Skeleton
    flip: bool = True
    shift_heatmap: bool = True
    rotations: tuple[float, ...] = (0.0,)
    scales: tuple[float, ...] = (1.0,)
    ensemble: Literal["positions", "heatmaps"] = "positions"

    def __post_init__(self) -> None:
        for name in ("members", "rotations", "scales"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.members:
            raise KposeError("a test needs at least one network")
        if not self.rotations or not np.isfinite(self.rotations).all():
            raise KposeError(f"rotations must be at least one finite number of degrees, found {list(self.rotations)}; [0] looks upright")
        if not self.scales or not all(0 < scale < np.inf for scale in self.scales):
            raise KposeError(f"scales must be at least one finite number above 0, found {list(self.scales)}; [1] is the region itself")
        if self.ensemble not in ("positions", "heatmaps"):
            raise KposeError(f"ensemble must be 'positions' or 'heatmaps', found {self.ensemble!r}")
        if self.ensemble == "heatmaps":
            for position, member in enumerate(self.members[1:], start=2):
                _require_same_heatmaps(self.members[0].preparation, member.preparation, position)

    @property
    def preparations(self) -> tuple[Preparation, ...]:
        """The different kinds of crops that the networks want, in their order."""
        return tuple(dict.fromkeys(member.preparation for member in self.members))

    @property
    def views(self) -> int:
        """How many crops of one kind there are of a person."""
        return len(self.rotations) * len(self.scales)

    def people_at_once(self, batch_size: int) -> int:
        """How many people make batches of no more than `batch_size` crops; at least one."""
        return max(1, batch_size // self.views)

    def crops_at_once(self, batch_size: int) -> int:
        """How many crops of one kind those people have, or `batch_size` where a single person has more."""
        return min(batch_size, self.people_at_once(batch_size) * self.views)

    def keypoints(self, images: Sequence[np.ndarray], matrices: Sequence[np.ndarray]) -> np.ndarray:
        """Where the joints of B people are.

        Args:
            images: for each of `preparations` the normalised crops `(B * V, H, W, 3)`, the V views of a person one after the other, see
                `Preparation.views`.
            matrices: for each the maps `(B * V, 2, 3)` from image to crop.

        Returns:
            `(B, K, 3)` float64 x, y in the image frame, and the score.
        """
        kinds = self.preparations
        answers = []
        for member in self.members:
            kind = kinds.index(member.preparation)
            heatmaps = predict_heatmaps(
                member.forward, images[kind], member.preparation.codec, self.skeleton, self.flip, self.shift_heatmap
            )
            answers.append((kind, heatmaps))
        if self.ensemble == "heatmaps":
            answers = [(0, np.mean([heatmaps for _, heatmaps in answers], axis=0))]
        found = []
        for kind, heatmaps in answers:
            to_image = geometry.invert_affine(np.asarray(matrices[kind], np.float64))
            found.append(geometry.transform_points(kinds[kind].codec.decode(heatmaps), to_image))
        points = np.mean(found, axis=0)
        return points.reshape(-1, self.views, *points.shape[1:]).mean(axis=1)

    def areas(self, matrices: Sequence[np.ndarray]) -> np.ndarray:
        """`(B,)` square image pixels that the first network's crop shows at scale 1; of matrices as `keypoints` takes them."""
        codec = self.preparations[0].codec
        to_image = geometry.invert_affine(np.asarray(matrices[0][:: self.views], np.float64))
        width, height = geometry.crop_extent(codec.input_size, codec.alignment)
        return width * height * np.abs(np.linalg.det(to_image[:, :, :2])) / self.scales[0] ** 2


def _require_same_heatmaps(first: Preparation, other: Preparation, position: int) -> None:
    """Refuse heatmaps whose pixels are not of the same places, or mean other things."""

    def described(preparation: Preparation) -> dict[str, Any]:
        codec: Any = preparation.codec
        settings = {field.name: getattr(codec, field.name) for field in fields(codec) if field.name != "input_size"}
        height, width = codec.input_size
        return {"codec": type(codec).__name__, **settings, "aspect ratio": width / height, "box_padding": preparation.box_padding}

    mine, others = described(first), described(other)
    for name in mine:
        if mine[name] != others.get(name):
            raise KposeError(
                f"the heatmaps of network 1 and network {position} cannot be averaged: {name} is {mine[name]} and {others.get(name)}; "
                "average positions instead (ensemble: positions)"
            )


def preparation_from_card(model: keras.Model, card: ModelCard, skeleton: Skeleton) -> Preparation:
    """The crops that a network expects.

    Raises:
        KposeError: when it has not as many maps as skeleton and codec ask for.
    """
    return Preparation(card.make_codec(decoded_size(model, skeleton, card.codec)), card.box_padding, card.mean, card.std)


def common_skeleton(cards: Sequence[ModelCard], names: Sequence[Any]) -> Skeleton:
    """The skeleton of several networks.

    Args:
        cards: of the networks.
        names: what errors call them, such as their files.

    Raises:
        KposeError: when there is none, or they do not have the same joints in the same order.
    """
    if not cards:
        raise KposeError("no network given; name at least one")
    skeletons = [card.make_skeleton() for card in cards]
    first = skeletons[0]
    for name, other in zip(names, skeletons, strict=True):
        if other.joint_names != first.joint_names:
            raise KposeError(
                f"an ensemble needs networks of the same joints: {names[0]} has skeleton {first.name!r} ({first.num_joints} joints), "
                f"{name} has {other.name!r} ({other.num_joints} joints); leave one out"
            )
    return first


def compile_forward(model: keras.Model, batch_size: int) -> Forward:
    """The network in inference mode, compiled once for one batch size.

    TensorFlow compiles anew for every other batch size, which takes some ten seconds on a large network; here a smaller batch (the last one
    of a dataset) is filled up with zeros instead, and a larger one is cut into several. A network that lies on several devices of this
    machine (`distribution.strategy`) takes a share of the batch on each.

    Args:
        model: from images to heatmaps; of several outputs the last, the finest stage, counts.
        batch_size: of the compiled network.

    Returns:
        A function from images `(B, H, W, 3)`, any B, to heatmaps `(B, h, w, K)` float32.
    """
    import tensorflow as tf

    strategy = model.distribute_strategy
    replicas = strategy.num_replicas_in_sync
    # Of several workers each has a copy of the network; who asks, asks its own.
    divided = replicas > 1 and replicas == len(strategy.extended.worker_devices)
    if divided:
        batch_size = -(-batch_size // replicas) * replicas

    def compute(images: tf.Tensor) -> tf.Tensor:
        return tf.cast(_finest(model(images, training=False)), tf.float32)

    # Under XLA, which Model.predict would choose, convolutions on the CPU take many times longer.
    @tf.function(autograph=False, jit_compile=False)
    def run(images: Any) -> Any:
        return strategy.run(compute, args=(images,)) if divided else compute(images)

    def run_divided(images: np.ndarray) -> np.ndarray:
        shares = np.split(images, replicas)
        values = strategy.experimental_distribute_values_from_function(
            lambda replica: tf.constant(shares[replica.replica_id_in_sync_group])
        )
        return np.concatenate([share.numpy() for share in strategy.experimental_local_results(run(values))])

    def forward(images: Any) -> np.ndarray:
        images = np.asarray(images, np.float32)
        parts = []
        for start in range(0, len(images), batch_size):
            part = images[start : start + batch_size]
            missing = batch_size - len(part)
            filled = np.concatenate([part, np.zeros((missing, *part.shape[1:]), np.float32)]) if missing else part
            heatmaps = run_divided(filled) if divided else run(tf.constant(filled)).numpy()
            parts.append(heatmaps[: len(part)])
        return np.concatenate(parts)

    return forward


def predict_heatmaps(
    model: keras.Model | Forward,
    images: Any,
    codec: Codec,
    skeleton: Skeleton,
    flip: bool = True,
    shift_heatmap: bool = True,
) -> np.ndarray:
    """Heatmaps of a batch of crops.

    Args:
        model: the network; where there are many batches, its compiled form from `compile_forward`.
        images: `(B, H, W, 3)` normalised crops.
        codec: brings the heatmaps of mirrored crops back.
        skeleton: which joints change places in a mirrored crop.
        flip: average with the mirrored crops' heatmaps (the flip test).
        shift_heatmap: move those by the pixel that `classic` alignment is off, see `Codec.unmirror`.

    Returns:
        `(B, h, w, K)` float32.
    """
    images = np.asarray(images, np.float32)
    heatmaps = _forward(model, images)
    if not flip:
        return heatmaps
    mirrored = _forward(model, np.ascontiguousarray(images[:, :, ::-1]))
    return 0.5 * (heatmaps + codec.unmirror(mirrored, skeleton.flip_permutation, shift_heatmap))


def _forward(model: keras.Model | Forward, images: np.ndarray) -> np.ndarray:
    outputs = model(images, training=False) if isinstance(model, keras.Model) else model(images)
    return np.asarray(_finest(outputs), np.float32)


def _finest(outputs: Any) -> Any:
    return outputs[-1] if isinstance(outputs, (list, tuple)) else outputs
