"""Losses on heatmaps. Any Keras user can pass them to `model.compile`; joints are masked by `sample_weight`.

A training element is `(image, heatmaps, weights)`: Keras hands `weights`, (B, K), to the loss as `sample_weight`, so a joint of
weight 0 adds neither loss nor gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


@keras.saving.register_keras_serializable(package="kpose")
class HeatmapWeightingLoss(keras.losses.Loss):
    """Squared error in which pixels count the more the nearer they lie to the joint: (F(target) + 1) * (prediction - target)^2.

    Li and Xiang, "Lightweight Human Pose Estimation Using Heatmap-Weighting Loss", 2022, equation 8, in the form of the authors'
    code: per joint the mean over batch and pixels, averaged over the joints, no factor 0.5. With Keras' default reduction that
    mean runs over all B x K joints, masked ones included, as in the authors' code. (There the weight multiplies both heatmaps
    before squaring, so a fractional weight w counts as w squared; weights of 0 and 1 are the same in both.)

    Args:
        weighting: F: "none" (plain mean squared error), "x" (the paper's choice), "2x", "x^2" or "e^x".
        name: Name in the logs.
        **kwargs: `reduction` and `dtype` of `keras.losses.Loss`.

    Call arguments: target and predicted heatmaps, both (B, H, W, K), and optionally `sample_weight` (B, K).

    Raises:
        KposeError: when the weighting is unknown, or the two heatmaps differ in shape.
    """

    def __init__(self, weighting: str = "x", name: str = "heatmap_weighting_loss", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        if weighting not in WEIGHTINGS:
            raise KposeError(
                f"heatmap weighting {weighting!r} is unknown{did_you_mean(weighting, WEIGHTINGS)}; there are: {', '.join(WEIGHTINGS)}"
            )
        self.weighting = weighting

    def call(self, y_true: Any, y_pred: Any) -> Any:
        _check_shapes(y_true, y_pred)
        weights = WEIGHTINGS[self.weighting](y_true) + 1.0
        return ops.mean(weights * ops.square(y_pred - y_true), axis=(1, 2))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "weighting": self.weighting}


@keras.saving.register_keras_serializable(package="kpose")
class HeatmapMeanSquaredError(keras.losses.Loss):
    """Mean squared error of heatmaps, averaged over pixels, joints and batch; `sample_weight` (B, K) masks joints.

    What most heatmap networks train with; public code bases often halve it.

    Call arguments: target and predicted heatmaps, both (B, H, W, K), and optionally `sample_weight` (B, K).

    Raises:
        KposeError: when the two heatmaps differ in shape.
    """

    def __init__(self, name: str = "heatmap_mean_squared_error", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        _check_shapes(y_true, y_pred)
        return ops.mean(ops.square(y_pred - y_true), axis=(1, 2))


def _check_shapes(y_true: Any, y_pred: Any) -> None:
    """Heatmaps of different sizes would broadcast, or fail deep inside the graph."""
    targets, predictions = tuple(y_true.shape), tuple(y_pred.shape)
    same = len(targets) == len(predictions) == 4 and all(
        None in (a, b) or a == b for a, b in zip(targets[1:], predictions[1:], strict=True)
    )
    if not same:
        raise KposeError(
            f"heatmaps of shape {targets} cannot teach a network whose output is {predictions}: both must be (batch, height, width, "
            "joints); check the heatmap size and the skeleton"
        )
