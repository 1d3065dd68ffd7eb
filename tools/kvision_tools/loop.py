"""The training and evaluation steps, over `strategy.run`.

`Model.fit` fails under `MirroredStrategy` with several steps in one call and with gradient accumulation, and
under `MultiWorkerMirroredStrategy` at all (Keras 3.15); a step of one's own works in all of these.
"""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from kvision.errors import UserError

AUXILIARY_WEIGHT = 0.3  # of the losses of auxiliary heads (GoogLeNet, section 5)
DISTILLED = {"class": 0.5, "distillation": 0.5}  # of a distilled DeiT's heads (DeiT, equation 3)
FIRST_LOSS_SCALE, SCALE_GROWS_AFTER = 2.0**15, 2000  # Micikevicius et al. 2018, as in Keras


class Loop:
    """Trains and evaluates a classifier that returns logits.

    Args:
        model: built under the strategy's scope. Auxiliary heads count in training alone. The two heads of a
            distilled network are trained as equals, and their mean, the predictions, is evaluated.
        optimizer: built for the model.
        strategy: of `tf.distribute`.
        label_smoothing: of the training loss, in [0, 1).
        accumulate: batches whose gradients are averaged to one step.
        clip_norm: largest norm of all gradients together; None for any.
        ema_decay: of the moving average of all weights, below 1; None for no average. It is at most
            (1 + step) / (10 + step), so that the first weights are soon forgotten.
        scale_loss: for float16: the loss is multiplied by a power of two, lowered when gradients overflow,
            and such a step is left out.
        sync_batch_norm: batch norms see the images of all replicas.
        jit_compile: forward and backward pass by XLA.
    """

    def __init__(
        self,
        model,
        optimizer,
        strategy,
        *,
        label_smoothing=0.0,
        accumulate=1,
        clip_norm=None,
        ema_decay=None,
        scale_loss=False,
        sync_batch_norm=False,
        jit_compile=False,
    ):
        self.model, self.optimizer, self.strategy = model, optimizer, strategy
        self.accumulate, self.clip_norm, self.ema_decay = accumulate, clip_norm, ema_decay
        self._train_loss = keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=label_smoothing, reduction=None, dtype="float32"
        )
        self._weights = model.trainable_variables
        self._statistics = []
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = sync_batch_norm
                self._statistics += [layer.moving_mean.value, layer.moving_variance.value]
        self._gradients = (
            tf.function(self._gradients, jit_compile=True, autograph=False)
            if jit_compile
            else self._gradients
        )
        # Gradients are summed over replicas here, where the sum can be clipped; not again by Keras.
        optimizer._all_reduce_sum_gradients = lambda pairs: pairs
        with strategy.scope():
            self._sums = [_local(v) for v in self._weights] if accumulate > 1 else []
            self.loss_scale = _once(FIRST_LOSS_SCALE) if scale_loss else None
            self._good_steps = _once(0.0)
            self._averages = [_once(v.numpy()) for v in self._averaged] if ema_decay else []

    @property
    def _averaged(self):
        return [v.value for v in self.model.variables if v.dtype.startswith("float")]

    @property
    def variables(self) -> dict[str, tf.Variable]:
        """The variables that a checkpoint must hold besides the model and the optimizer."""
        averages = {f"ema/{i}": variable for i, variable in enumerate(self._averages)}
        scale = (
            {"loss_scale": self.loss_scale, "good_steps": self._good_steps}
            if self.loss_scale is not None
            else {}
        )
        return averages | scale

    @tf.function(reduce_retracing=True, autograph=False)
    def train(self, batches, steps, signal=0.0):
        """Takes `steps` steps.

        Args:
            batches: an iterator over distributed batches of images and labels; a step takes `accumulate`.
            steps: a scalar tensor.
            signal: a float that is summed over all workers.

        Returns:
            float32 `(4,)`: the sums of losses and of right answers, the number of images, and the sum of
            `signal`.
        """
        totals = _sum_of(steps, lambda: self._step(batches))
        signals = self.strategy.reduce("SUM", self.strategy.run(lambda: tf.identity(signal)), axis=None)
        return tf.concat([totals, [signals]], 0)

    def _step(self, batches):
        if self.accumulate == 1:
            gradients, sums = self.strategy.run(self._gradients, args=next(batches))
            totals = self._sum(sums)
        else:
            totals = _sum_of(
                self.accumulate,
                lambda: self._sum(self.strategy.run(self._accumulate, args=next(batches))),
            )
            gradients = self.strategy.run(self._take)
        if self.loss_scale is None:
            self._update(gradients)
        else:
            finite = self._sum(self.strategy.run(_infinities, args=(gradients,))) == 0
            tf.cond(finite, lambda: self._update(gradients), lambda: None)
            self._rescale(finite)
        return totals

    def _sum(self, values):
        return self.strategy.reduce("SUM", values, axis=None)

    def _gradients(self, images, labels):
        replicas = self.strategy.num_replicas_in_sync
        with tf.GradientTape() as tape:
            outputs = _in_float32(self.model(images, training=True))
            logits = outputs["predictions"]
            targets = tf.one_hot(labels, logits.shape[-1])
            losses = {key: self._train_loss(targets, output) for key, output in outputs.items()}
            weighted = [
                weight * tf.reduce_mean(losses[key]) for key, weight in _loss_weights(outputs).items()
            ]
            # Every replica has an equal share of the batch, and gradients are summed over replicas.
            loss = tf.add_n([*weighted, *self.model.losses]) / (replicas * self.accumulate)
            loss *= 1.0 if self.loss_scale is None else self.loss_scale
        return tape.gradient(loss, self._weights), _sums(losses["predictions"], labels, logits)

    def _accumulate(self, images, labels):
        gradients, sums = self._gradients(images, labels)
        for total, gradient in zip(self._sums, gradients, strict=True):
            total.assign_add(gradient)
        return sums

    def _take(self):
        gradients = [tf.identity(total) for total in self._sums]
        with tf.control_dependencies(gradients):
            for total in self._sums:
                total.assign(tf.zeros_like(total))
        return gradients

    def _update(self, gradients):
        self.strategy.run(self._apply, args=(gradients,))
        if self.ema_decay:
            step = tf.cast(self.optimizer.iterations.value, tf.float32)
            rest = 1 - tf.minimum(self.ema_decay, (1 + step) / (10 + step))
            for average, variable in zip(self._averages, self._averaged, strict=True):
                self.strategy.extended.update(
                    average, lambda a, v: a.assign_sub(rest * (a - v)), args=(variable,), group=False
                )

    def _apply(self, gradients):
        gradients = tf.distribute.get_replica_context().all_reduce("SUM", gradients)
        if self.loss_scale is not None:
            gradients = [gradient / self.loss_scale for gradient in gradients]
        if self.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self.clip_norm)
        self.optimizer.apply(gradients, self._weights)

    def _rescale(self, finite):
        good = tf.where(finite, self._good_steps + 1, 0.0)
        grown = tf.where(good >= SCALE_GROWS_AFTER, 2 * self.loss_scale, self.loss_scale)
        self.loss_scale.assign(tf.where(finite, grown, tf.maximum(self.loss_scale / 2, 1.0)))
        self._good_steps.assign(tf.where(good >= SCALE_GROWS_AFTER, 0.0, good))

    def swap_average(self):
        """Exchanges the weights and their moving average; a second call undoes the first."""
        for average, variable in zip(self._averages, self._averaged, strict=True):
            values = average.numpy(), variable.numpy()
            variable.assign(values[0])
            average.assign(values[1])

    @tf.function(reduce_retracing=True, autograph=False)
    def evaluate_batch(self, batch, signal=0.0):
        """Like `train`, for one batch in inference mode, without label smoothing."""
        return self._sum(self.strategy.run(self._evaluation_step, args=(*batch, signal)))

    def evaluate(self, batches, asked: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
        """Mean loss and accuracy over distributed batches, as many for each replica: see `with_blanks`.

        Batch norms use the first replica's statistics on all replicas.

        Args:
            batches: of images and labels.
            asked: whether this worker was asked to end; once one was, all return None after their batch.
        """
        if self._statistics and self.strategy.num_replicas_in_sync > 1:
            self._share_statistics()
        totals = np.zeros(3)
        for batch in batches:
            *sums, signals = self.evaluate_batch(batch, tf.constant(float(asked()))).numpy()
            if signals:
                return None
            totals += sums
        return means(totals)

    @tf.function(autograph=False)
    def _share_statistics(self):
        """Gives all replicas the first one's statistics of batch norms, which are those that are saved."""

        def share():
            replica = tf.distribute.get_replica_context()
            is_first = tf.equal(replica.replica_id_in_sync_group, 0)
            own = [tf.where(is_first, variable, tf.zeros_like(variable)) for variable in self._statistics]
            for variable, first in zip(self._statistics, replica.all_reduce("SUM", own), strict=True):
                variable.assign(first)

        self.strategy.run(share)

    def _evaluation_step(self, images, labels, signal):
        there = labels >= 0
        outputs = _in_float32(self.model(images, training=False))
        logits = tf.boolean_mask(outputs["predictions"], there)
        labels = tf.boolean_mask(labels, there)
        losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        return tf.concat([_sums(losses, labels, logits), [signal]], 0)


def with_blanks(dataset, count):
    """The first `count` batches; where there are fewer, then one image of label -1, which counts for nothing.

    A replica that has no batch while others have one fails (TensorFlow 2.21, batch norm of no image).
    """
    images, labels = dataset.element_spec
    blank = tf.zeros((1, *images.shape[1:]), images.dtype), -tf.ones((1,), labels.dtype)
    return dataset.concatenate(tf.data.Dataset.from_tensors(blank).repeat()).take(count)


def _sum_of(count, step):
    """The sum of the float32 `(3,)` that `step` returns `count` times; autograph would take a second here."""
    return tf.while_loop(
        lambda i, totals: i < count,
        lambda i, totals: (i + 1, totals + step()),
        (tf.constant(0), tf.zeros(3)),
        parallel_iterations=1,
    )[1]


def _once(value):
    """A variable of which every replica has the same value."""
    return tf.Variable(value, trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)


def _local(variable):
    """Zeros like a variable, of which every replica has its own."""
    return tf.Variable(
        tf.zeros(variable.shape, variable.dtype),
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.SUM,
    )


def _infinities(gradients):
    return tf.add_n([tf.reduce_sum(tf.cast(~tf.math.is_finite(g), tf.float32)) for g in gradients])


def _in_float32(outputs) -> dict:
    """The logits of each head by its name."""
    outputs = outputs if isinstance(outputs, dict) else {"predictions": outputs}
    return {key: tf.cast(value, tf.float32) for key, value in outputs.items()}


def _loss_weights(names) -> dict[str, float]:
    """The weights in the training loss of the heads that are trained."""
    if DISTILLED.keys() <= set(names):
        return DISTILLED
    return {name: 1.0 if name == "predictions" else AUXILIARY_WEIGHT for name in names}


def _sums(losses, labels, logits):
    right = keras.metrics.sparse_categorical_accuracy(labels, logits)
    values = tf.reduce_sum(losses), tf.reduce_sum(right), tf.size(labels)
    return tf.stack([tf.cast(value, tf.float32) for value in values])


def means(totals) -> dict[str, float]:
    """Mean loss and accuracy from the sums that a `Loop` returns."""
    loss, right, images = (float(total) for total in totals[:3])
    if not images:
        raise UserError("No image could be read, so there is no loss and no accuracy.")
    return {"loss": loss / images, "accuracy": right / images}
