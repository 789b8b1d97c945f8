"""The network as it is trained: a step of `fit` that is the same on one replica and on many, in float32 and with less.

A step takes a batch; each replica its share of it, in one part or several (gradient accumulation). The gradients are summed over the
replicas first; loss scaling, the check for overflow and clipping come after, so that they see the gradients of the whole batch, as on a
single device. Keras' own options do these before the sum, on each replica for itself (docs/decisions/training-step.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from kpose.errors import KposeError

# Dynamic loss scaling as in Micikevicius et al., "Mixed Precision Training", ICLR 2018, and all frameworks since: halved at an overflow,
# doubled after so many steps without one.
INITIAL_LOSS_SCALE = 2.0**15
LOSS_SCALE_PATIENCE = 2000
# A loss that overflows without any scale is no rounding matter.
LOWEST_LOSS_SCALE = 1.0

Logs = dict[str, Any]


@dataclass(frozen=True)
class StepSettings:
    """What a step does besides the network's own.

    Attributes:
        accumulation_steps: parts in which a replica takes its share of a batch.
        gradient_clipping: the greatest norm of all gradients together.
        weight_averaging: decay of the moving average of the weights.
        scale_loss: whether the loss is scaled so that small gradients do not vanish in float16.
        jit_compile: forward and backward pass by XLA.
    """

    accumulation_steps: int = 1
    gradient_clipping: float | None = None
    weight_averaging: float | None = None
    scale_loss: bool = False
    jit_compile: bool = False


@dataclass
class LossScale:
    """The factor on a loss in float16, as variables: the factor, the steps since it changed, the steps lost to overflow."""

    factor: keras.Variable
    good_steps: keras.Variable
    skipped_steps: keras.Variable

    @classmethod
    def make(cls) -> LossScale:
        """At its beginning; inside of the strategy's scope."""

        def variable(value: float, dtype: str, name: str) -> keras.Variable:
            return keras.Variable(value, dtype=dtype, trainable=False, name=name)

        return cls(
            variable(INITIAL_LOSS_SCALE, "float32", "loss_scale"),
            variable(0, "int64", "good_steps"),
            variable(0, "int64", "skipped_steps"),
        )

    def grow(self) -> None:
        """After a step without overflow; inside of the graph."""
        grown = self.good_steps.value + 1 >= LOSS_SCALE_PATIENCE
        self.factor.assign(tf.where(grown, 2.0 * self.factor.value, self.factor.value))
        self.good_steps.assign(tf.where(grown, tf.zeros_like(self.good_steps.value), self.good_steps.value + 1))

    def shrink(self) -> None:
        """After an overflow; inside of the graph."""
        self.factor.assign(0.5 * self.factor.value)
        self.good_steps.assign(tf.zeros_like(self.good_steps.value))
        self.skipped_steps.assign(self.skipped_steps.value + 1)


class TrainingModel(keras.Model):
    """A network as `fit` trains it.

    Args:
        trained: the network whose weights `fit` changes; its layers are shared.
        finished: the network that is scored and saved, always in float32. It may be `trained`; another one, of the same weights, holds
            their moving average where there is one, or else takes their values in `finish`.
        settings: of the step.
    """

    def __init__(self, trained: keras.Model, finished: keras.Model, settings: StepSettings) -> None:
        super().__init__(trained.input, trained.output, name=trained.name)
        self.train_function: Callable[[Any], Logs] | None = None
        # In plain objects, for Keras counts the weights of networks that are attributes as this one's own.
        self._step = _Step(settings, finished, LossScale.make() if settings.scale_loss else None)

    @property
    def settings(self) -> StepSettings:
        """What a step does besides the network's own."""
        return self._step.settings

    @property
    def loss_scale(self) -> LossScale | None:
        """The factor on a loss in float16."""
        return self._step.loss_scale

    @property
    def average(self) -> keras.Model | None:
        """The network of the averaged weights."""
        return self._step.finished if self.settings.weight_averaging else None

    def finish(self) -> keras.Model:
        """The network as it is to be scored and saved now."""
        finished = self._step.finished
        if self.average is None and finished.weights[0] is not self.weights[0]:
            for target, source in zip(finished.weights, self.weights, strict=True):
                target.assign(source.value)
        return finished

    def go_on_within_epoch(self, steps: int, mean_loss: float) -> None:
        """Let the next call of `fit` begin after some steps of its first epoch, which a former run has done.

        Args:
            steps: how many; the dataset begins after them.
            mean_loss: of them.
        """
        self._step.done, self._step.mean_loss = steps, mean_loss

    def make_train_function(self, force: bool = False) -> None:
        """The function of an iterator that `fit` calls for each step; it returns the mean loss of the epoch so far."""
        if self.train_function is not None and not force:
            return
        strategy = self.distribute_strategy
        optimizer: Any = self.optimizer
        # Gradients are summed before the optimizer sees them; it must not do so again. There is no public switch for it, and
        # tests/training/test_distribution.py would see a sum too many.
        optimizer._all_reduce_sum_gradients = list
        compute = self._share_of_step
        if self.settings.jit_compile:
            compute = tf.function(compute, autograph=False, jit_compile=True)
        mean_loss = next(metric for metric in self.metrics if metric.name == "loss")

        def compute_and_sum(batch: Any) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor], list[tf.Tensor]]:
            before = [tf.identity(statistic.value) for statistic in self.non_trainable_weights] if self.loss_scale else []
            loss, gradients = compute(batch)
            return *self._sum_over_replicas(loss, gradients), before

        def note(loss: tf.Tensor, finite: tf.Tensor) -> tf.Tensor:
            # A loss that is no number must be seen, but in float16, where the step has been skipped.
            if self.loss_scale is None:
                mean_loss.update_state(loss)
            else:
                mean_loss.update_state(tf.where(finite, loss, tf.zeros_like(loss)), sample_weight=tf.cast(finite, tf.float32))
            return mean_loss.result()

        @tf.function(autograph=False, reduce_retracing=True)
        def step(iterator: Any) -> Logs:
            loss, finite, gradients, before = strategy.run(compute_and_sum, args=(next(iterator),))
            if self.loss_scale is None:
                strategy.run(self._apply, args=(gradients,))
            else:
                # The condition stands outside of the replicas' own code, inside of which the optimizer could not be called from a branch.
                tf.cond(
                    strategy.experimental_local_results(finite)[0],
                    lambda: _then(strategy.run(self._apply, args=(gradients,))),
                    lambda: _then(strategy.run(self._skip, args=(before,))),
                )
            return {"loss": strategy.reduce("MEAN", strategy.run(note, args=(loss, finite)), axis=None)}

        self.train_function = self._skipping_done_steps(step, mean_loss)

    def _skipping_done_steps(self, step: Callable[[Any], Logs], mean_loss: keras.metrics.Metric) -> Callable[[Any], Logs]:
        left = self._step.done

        def train_function(iterator: Any) -> Logs:
            nonlocal left
            if left == 0:
                return step(iterator)
            left -= 1
            if left == 0:
                # What these steps would have left behind.
                with self.distribute_strategy.scope():
                    mean_loss.total.assign(self._step.mean_loss * self._step.done)
                    mean_loss.count.assign(float(self._step.done))
            return {"loss": tf.constant(self._step.mean_loss)}

        return train_function

    def _share_of_step(self, batch: Any) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Loss (not scaled) and gradients (scaled) of a replica's share; of the whole batch they are the sums over replicas."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        parts = self.settings.accumulation_steps
        if parts == 1:
            return self._loss_and_gradients(x, y, sample_weight)
        divided = tf.nest.map_structure(lambda tensor: tf.reshape(tensor, [parts, -1, *tensor.shape[1:]]), (x, y, sample_weight))

        def add_part(part: tf.Tensor, loss: tf.Tensor, gradients: list[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
            further, further_gradients = self._loss_and_gradients(*tf.nest.map_structure(lambda tensor: tensor[part], divided))
            added = [one + other / parts for one, other in zip(gradients, further_gradients, strict=True)]
            return part + 1, loss + further / parts, added

        start = (tf.constant(0), tf.constant(0.0), [tf.zeros(variable.shape, tf.float32) for variable in self.trainable_variables])
        # One part after the other: that they do not lie in memory together is the point.
        _, loss, gradients = tf.while_loop(lambda part, *_: part < parts, add_part, start, parallel_iterations=1, maximum_iterations=parts)
        return loss, gradients

    def _loss_and_gradients(self, x: Any, y: Any, sample_weight: Any) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x=x, y=y, y_pred=self(x, training=True), sample_weight=sample_weight, training=True)
            scaled = loss if self.loss_scale is None else loss * self.loss_scale.factor.value
        variables = [variable.value for variable in self.trainable_variables]
        return loss, tape.gradient(scaled, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    def _sum_over_replicas(self, loss: tf.Tensor, gradients: list[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        """The replica's loss as a mean of its own, whether all gradients are finite, and the gradients of the whole batch."""
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync > 1:
            gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
            loss = loss * context.num_replicas_in_sync
            # Each replica's normalisation has seen people of its own; the statistics kept are their mean, on all replicas the same.
            statistics = self.non_trainable_weights
            means = (
                context.all_reduce(tf.distribute.ReduceOp.MEAN, [tf.identity(statistic.value) for statistic in statistics])
                if statistics
                else []
            )
            for statistic, mean in zip(statistics, means, strict=True):
                statistic.assign(mean)
        finite = tf.constant(True)
        if self.loss_scale is not None:
            finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients])
            gradients = [gradient / self.loss_scale.factor.value for gradient in gradients]
        return loss, finite, gradients

    def _apply(self, gradients: list[tf.Tensor]) -> None:
        """Change the weights, their average and the loss scale; on every replica alike."""
        if self.settings.gradient_clipping is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, self.settings.gradient_clipping)
        self.optimizer.apply(gradients, self.trainable_variables)
        if self.average is not None and self.settings.weight_averaging is not None:
            # Short of many steps, an average over few: else it would remember the random weights it began with.
            steps = tf.cast(self.optimizer.iterations.value, tf.float32)
            decay = tf.minimum(self.settings.weight_averaging, (1.0 + steps) / (10.0 + steps))
            for average, weight in zip(self.average.weights, self.weights, strict=True):
                average.assign(average.value + (1.0 - decay) * (weight.value - average.value))
        if self.loss_scale is not None:
            self.loss_scale.grow()

    def _skip(self, before: list[tf.Tensor]) -> None:
        """After an overflow: lower the loss scale, and undo what a forward pass that overflowed too has left in the statistics."""
        for statistic, former in zip(self.non_trainable_weights, before, strict=True):
            statistic.assign(tf.where(tf.reduce_all(tf.math.is_finite(statistic.value)), statistic.value, former))
        if self.loss_scale is not None:
            self.loss_scale.shrink()

    def require_sound_loss_scale(self) -> None:
        """Refuse to go on where float16 overflows whatever the scale.

        Raises:
            KposeError: then.
        """
        scale = None if self.loss_scale is None else float(self.loss_scale.factor.numpy())
        if scale is not None and scale < LOWEST_LOSS_SCALE:
            raise KposeError(
                f"the gradients overflow float16 even with a loss scale of {scale:g}; set training.precision to bfloat16, or lower "
                "training.learning_rate"
            )

    def build_losses(self) -> None:
        """Let Keras make the variables of the losses, which it would else do inside of a replica."""
        maps = [tf.zeros([1, *output.shape[1:]]) for output in self.outputs]
        with self.distribute_strategy.scope():
            targets: Any = maps if len(maps) > 1 else maps[0]
            self.compute_loss(y=targets, y_pred=targets)

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Nothing: all is built. Keras' own method, which takes a batch for it, breaks where there are several workers (keras#20585)."""


@dataclass
class _Step:
    settings: StepSettings
    finished: keras.Model
    loss_scale: LossScale | None
    done: int = 0
    mean_loss: float = 0.0


def _then(result: Any) -> tf.Tensor:
    """A branch's value, so that both have one."""
    del result
    return tf.constant(0)
