"""Loss, optimizer and schedule of a configuration, on any backend of Keras."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras

from kpose.codecs import decoded_size
from kpose.errors import KposeError, did_you_mean
from kpose.losses import HeatmapMeanSquaredError, HeatmapWeightingLoss, OffsetLoss
from kpose.skeletons import get_skeleton
from kpose.training.schedules import CosineRestarts, WarmupStepDecay, restart_lengths

if TYPE_CHECKING:
    from kpose.config import Config, LossConfig


def freeze(model: keras.Model, names: Sequence[str]) -> None:
    """Take layers out of the training; their normalisation keeps its statistics too.

    Raises:
        KposeError: when a name is no layer's.
    """
    for name in names:
        chosen = [layer for layer in model.layers if layer.name == name or layer.name.startswith(f"{name}_")]
        if not chosen:
            parts = dict.fromkeys(layer.name.rsplit("_", 1)[0] for layer in model.layers if layer.weights)
            raise KposeError(f"model.frozen: {model.name} has no layer {name!r}{did_you_mean(name, parts)}")
        for layer in chosen:
            layer.trainable = False


def make_loss(config: Config, model: keras.Model | None = None) -> keras.losses.Loss | list[keras.losses.Loss]:
    """The loss of a configuration.

    Args:
        config: the experiment.
        model: the network to train; without one it has a single output.

    Returns:
        What `model.compile` takes: a loss, for a network of several outputs a list of one for each, times its `stage_weights`; only
        the last one mines hard keypoints.

    Raises:
        KposeError: when loss, codec, skeleton and network do not fit together.
    """
    settings, skeleton = config.loss, get_skeleton(config.skeleton)
    if (settings.name == "offset") != (config.codec.name == "offset"):
        raise KposeError(f"loss.name={settings.name} does not fit codec.name={config.codec.name}: set both to offset, or neither")
    if settings.hard_keypoints and settings.hard_keypoints > skeleton.num_joints:
        raise KposeError(
            f"loss.hard_keypoints is {settings.hard_keypoints}, but skeleton {skeleton.name!r} has {skeleton.num_joints} joints"
        )
    if model is not None:
        decoded_size(model, skeleton, config.codec)
    outputs = 1 if model is None else len(model.outputs)
    factors = settings.stage_weights or [1.0] * outputs
    if len(factors) != outputs:
        raise KposeError(f"loss.stage_weights has {len(factors)} values, but the network {outputs} outputs; give one value for each output")
    hard_keypoints = [None] * (outputs - 1) + [settings.hard_keypoints]
    losses = [_loss_of_an_output(settings, hardest, factor) for hardest, factor in zip(hard_keypoints, factors, strict=True)]
    return losses if outputs > 1 else losses[0]


def _loss_of_an_output(settings: LossConfig, hard_keypoints: int | None, factor: float) -> keras.losses.Loss:
    if settings.name == "offset":
        return OffsetLoss(settings.offset_error, hard_keypoints=hard_keypoints, factor=factor)
    if settings.name == "mean_squared_error":
        return HeatmapMeanSquaredError(hard_keypoints=hard_keypoints, factor=factor)
    return HeatmapWeightingLoss(settings.weighting, hard_keypoints=hard_keypoints, factor=factor)


def make_schedule(config: Config, steps_per_epoch: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate of a configuration, by step; larger batches than it was given for scale it (`learning_rate_batch_size`)."""
    training = config.training
    # Settings that travel with crops may be older than this one.
    reference = getattr(training, "learning_rate_batch_size", None)
    factor = training.batch_size / reference if reference else 1.0
    if training.schedule == "steps":
        return WarmupStepDecay(
            factor * training.learning_rate,
            training.warmup_steps,
            training.warmup_factor,
            [epoch * steps_per_epoch for epoch in training.drop_epochs],
            training.drop_factor,
        )
    return CosineRestarts(
        factor * training.learning_rate,
        restart_lengths(training.epochs, training.first_restart, training.restart_factor, steps_per_epoch),
        factor * training.lowest_learning_rate,
        training.warmup_steps,
        training.warmup_factor,
    )


def make_optimizer(config: Config, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """The optimizer of a configuration under its schedule."""
    training, schedule = config.training, make_schedule(config, steps_per_epoch)
    if training.optimizer == "adam":
        return keras.optimizers.Adam(schedule)
    if training.optimizer == "adamw":
        return keras.optimizers.AdamW(schedule, weight_decay=training.weight_decay)
    if training.optimizer == "rmsprop":
        # PyTorch's, which the published hourglasses were trained with. It adds its 1e-8 to the root, Keras 1e-16 below it: with the 1e-7
        # that Keras takes by default, the small gradients of a heatmap's mean squared error would hardly be scaled at all.
        return keras.optimizers.RMSprop(schedule, rho=0.99, epsilon=1e-16)
    return keras.optimizers.SGD(schedule, momentum=training.momentum, weight_decay=training.weight_decay or None)
