"""Losses on heatmaps and offsets. Any Keras user can pass them to `model.compile`; joints are masked by `sample_weight`.

A training element is `(image, targets, weights)`: Keras hands `weights`, (B, K), to the loss as `sample_weight`, so a joint of
weight 0 adds neither loss nor gradient.

Every loss has one value a person and joint: the error's mean over the pixels, without the factor 0.5 that many public code bases have.
Keras' default reduction takes the mean over all B x K of them, masked ones included, as published code does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import keras
from keras import ops

from kpose.errors import KposeError, did_you_mean

WEIGHTINGS: dict[str, Callable[[Any], Any]] = {
    "none": ops.zeros_like,
    "x": lambda heatmap: heatmap,
    "2x": lambda heatmap: 2.0 * heatmap,
    "x^2": ops.square,
    "e^x": ops.exp,
}
"""The weight generation functions F of Li and Xiang 2022, table IV, by the names used there."""


def _smooth_l1(difference: Any) -> Any:
    """Twice the usual smooth L1 error, so that it is the square near 0: d^2 up to |d| = 1, from there on 2 |d| - 1."""
    size = ops.abs(difference)
    return ops.where(size < 1.0, ops.square(difference), 2.0 * size - 1.0)


OFFSET_ERRORS: dict[str, Callable[[Any], Any]] = {"squared": ops.square, "smooth_l1": _smooth_l1}
"""Errors of the offsets, by name."""


class KeypointLoss(keras.losses.Loss):
    """What the losses here have in common: a value for each person and joint, of which only the worst may count.

    Args:
        hard_keypoints: online hard keypoint mining (Chen et al., "Cascaded Pyramid Network for Multi-Person Pose Estimation", CVPR 2018):
            each person's loss is the mean of so many joints with the greatest loss among those annotated. Masked joints are never among
            them; where fewer are annotated, the rest of the mean is 0, as in the authors' code. None: all joints count.
        factor: multiplies the loss: the weight of an output among several.
        name: Name in the logs.
        **kwargs: `reduction` and `dtype` of `keras.losses.Loss`. With mined joints the reduction runs over B x `hard_keypoints` values.

    Raises:
        KposeError: when `hard_keypoints` is less than 1 or more than there are joints, or the maps do not fit.
    """

    maps_per_joint: ClassVar[int] = 1

    def __init__(self, *, hard_keypoints: int | None = None, factor: float = 1.0, name: str, **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        if hard_keypoints is not None and hard_keypoints < 1:
            raise KposeError(f"hard_keypoints is {hard_keypoints}; a person learns from 1 joint at least, or None for all of them")
        self.hard_keypoints = hard_keypoints
        self.factor = factor

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The reduced loss of maps, with weights `(B, K)` where there are any."""
        if self.hard_keypoints is None:
            return super().__call__(y_true, y_pred, sample_weight)
        # Keras weighs what `call` returns; here the weights must be known before the worst joints are chosen.
        return super().__call__((y_true,) if sample_weight is None else (y_true, sample_weight), y_pred)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """`(B, K)`, or `(B, hard_keypoints)` of `y_true` = (targets,) or (targets, weights)."""
        if self.hard_keypoints is None:
            return self.factor * self._checked_losses(y_true, y_pred)
        targets, *weights = y_true
        losses = self._checked_losses(targets, y_pred)
        if self.hard_keypoints > losses.shape[-1]:
            raise KposeError(f"hard_keypoints is {self.hard_keypoints}, but there are {losses.shape[-1]} joints; ask for fewer")
        if weights:
            # Not a product: a masked joint must not count whatever is predicted there.
            losses = ops.where(weights[0] > 0, losses * weights[0], 0.0)
        return self.factor * ops.top_k(losses, self.hard_keypoints, sorted=False)[0]

    def joint_losses(self, targets: Any, predictions: Any) -> Any:
        """`(B, K)`: the loss of each joint, maps of equal shape given."""
        raise NotImplementedError

    def _checked_losses(self, targets: Any, predictions: Any) -> Any:
        _check_shapes(targets, predictions, self.maps_per_joint)
        return self.joint_losses(targets, predictions)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hard_keypoints": self.hard_keypoints, "factor": self.factor}


@keras.saving.register_keras_serializable(package="kpose")
class HeatmapWeightingLoss(KeypointLoss):
    """Squared error in which pixels count the more the nearer they lie to the joint: (F(target) + 1) * (prediction - target)^2.

    Li and Xiang, "Lightweight Human Pose Estimation Using Heatmap-Weighting Loss", 2022, equation 8, in the form of the authors'
    code: per joint the mean over batch and pixels, averaged over the joints, no factor 0.5. (There the weight multiplies both heatmaps
    before squaring, so a fractional weight w counts as w squared; weights of 0 and 1 are the same in both.)

    Args:
        weighting: F: "none" (plain mean squared error), "x" (the paper's choice), "2x", "x^2" or "e^x".
        name: Name in the logs.
        **kwargs: those of `KeypointLoss`.

    Call arguments: target and predicted heatmaps, both (B, H, W, K), and optionally `sample_weight` (B, K).

    Raises:
        KposeError: when the weighting is unknown, or the two heatmaps differ in shape.
    """

    def __init__(self, weighting: str = "x", name: str = "heatmap_weighting_loss", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.weighting = _known("heatmap weighting", weighting, WEIGHTINGS)

    def joint_losses(self, targets: Any, predictions: Any) -> Any:
        """`(B, K)`."""
        weights = WEIGHTINGS[self.weighting](targets) + 1.0
        return ops.mean(weights * ops.square(predictions - targets), axis=(1, 2))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "weighting": self.weighting}


@keras.saving.register_keras_serializable(package="kpose")
class HeatmapMeanSquaredError(KeypointLoss):
    """Mean squared error of heatmaps, averaged over pixels, joints and batch; `sample_weight` (B, K) masks joints.

    What most heatmap networks train with; public code bases often halve it.

    Args:
        name: Name in the logs.
        **kwargs: those of `KeypointLoss`.

    Call arguments: target and predicted heatmaps, both (B, H, W, K), and optionally `sample_weight` (B, K).

    Raises:
        KposeError: when the two heatmaps differ in shape.
    """

    def __init__(self, name: str = "heatmap_mean_squared_error", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)

    def joint_losses(self, targets: Any, predictions: Any) -> Any:
        """`(B, K)`."""
        return ops.mean(ops.square(predictions - targets), axis=(1, 2))


@keras.saving.register_keras_serializable(package="kpose")
class OffsetLoss(KeypointLoss):
    """Squared error of the heatmap, and error of the two offset maps inside of the disc that the heatmap's target is.

    Papandreou et al., "Towards Accurate Multi-person Pose Estimation in the Wild", CVPR 2017, section 3.2, in the form of Huang et al.'s
    code ("The Devil is in the Details", CVPR 2020, target "offset"): per joint the mean over batch and ALL pixels of each of the three
    maps' errors, their sum averaged over the joints; that code halves all of it. Offsets are in radii, as `kpose.codecs.OffsetCodec`
    encodes them.

    Args:
        offset_error: "squared", or "smooth_l1": the square d^2 up to a difference of 1, from there on 2 |d| - 1.
        name: Name in the logs.
        **kwargs: those of `KeypointLoss`.

    Call arguments: target and predicted maps, both (B, H, W, 3 * K), of joint k the channels 3k, 3k + 1 and 3k + 2, and optionally
    `sample_weight` (B, K).

    Raises:
        KposeError: when the error is unknown, or the maps differ in shape or are not three for each joint.
    """

    maps_per_joint: ClassVar[int] = 3

    def __init__(self, offset_error: str = "squared", name: str = "offset_loss", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.offset_error = _known("offset error", offset_error, OFFSET_ERRORS)

    def joint_losses(self, targets: Any, predictions: Any) -> Any:
        """`(B, K)`."""
        disc = targets[..., ::3]
        error = ops.square(predictions[..., ::3] - disc)
        for axis in (1, 2):
            error += disc * OFFSET_ERRORS[self.offset_error](predictions[..., axis::3] - targets[..., axis::3])
        return ops.mean(error, axis=(1, 2))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "offset_error": self.offset_error}


def _known(what: str, name: str, known: dict[str, Any]) -> str:
    if name not in known:
        raise KposeError(f"{what} {name!r} is unknown{did_you_mean(name, known)}; there are: {', '.join(known)}")
    return name


def _check_shapes(y_true: Any, y_pred: Any, maps_per_joint: int) -> None:
    """Maps of different sizes would broadcast, or fail deep inside the graph."""
    targets, predictions = tuple(y_true.shape), tuple(y_pred.shape)
    same = len(targets) == len(predictions) == 4 and all(
        None in (a, b) or a == b for a, b in zip(targets[1:], predictions[1:], strict=True)
    )
    if not same or (predictions[-1] or 0) % maps_per_joint:
        joints = "joints" if maps_per_joint == 1 else f"{maps_per_joint} x joints"
        raise KposeError(
            f"heatmaps of shape {targets} cannot teach a network whose output is {predictions}: both must be (batch, height, width, "
            f"{joints}); check the heatmap size, the codec and the skeleton"
        )
