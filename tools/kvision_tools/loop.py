"""The training and evaluation steps, over `strategy.run`.

`Model.fit` fails under `MirroredStrategy` with several steps in one call and with gradient accumulation, and
under `MultiWorkerMirroredStrategy` at all (Keras 3.15); a step of one's own works in all of these.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

from kvision.errors import UserError
from kvision.keras_internals import leave_gradients
from kvision.tasks import Task, add

FIRST_LOSS_SCALE, SCALE_GROWS_AFTER = 2.0**15, 2000  # Micikevicius et al. 2018, as in Keras


class Loop:
    """Trains and evaluates a network.

    Args:
        model: built under the strategy's scope, with the outputs that the task expects.
        optimizer: built for the model.
        strategy: strategy of `tf.distribute`.
        task: what is learned: its losses and metrics.
        accumulate: number of batches whose gradients are averaged to one step.
        clip_norm: largest norm of all gradients together; None for any.
        ema_decay: decay of the moving average of all weights, below 1; None for no average. It is at most
            (1 + step) / (10 + step), so that the first weights are soon forgotten.
        scale_loss: whether, for float16, the loss is multiplied by a power of two, which is lowered when
            gradients overflow; such a step is left out.
        sync_batch_norm: whether batch norms see the images of all replicas.
        jit_compile: whether XLA compiles the forward and backward pass.
    """

    def __init__(
        self,
        model,
        optimizer,
        strategy,
        task: Task,
        *,
        accumulate=1,
        clip_norm=None,
        ema_decay=None,
        scale_loss=False,
        sync_batch_norm=False,
        jit_compile=False,
    ):
        self.model, self.optimizer, self.strategy, self.task = model, optimizer, strategy, task
        with strategy.scope():
            self.network = task.trained(model)
        self.accumulate, self.clip_norm, self.ema_decay = accumulate, clip_norm, ema_decay
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
        leave_gradients(optimizer)
        with strategy.scope():
            self._totals = [_local(v) for v in self._weights] if accumulate > 1 else []
            self.loss_scale = _once(FIRST_LOSS_SCALE) if scale_loss else None
            self._good_steps = _once(0.0)
            self._averages = [_once(v.numpy()) for v in self._averaged] if ema_decay else []

    @property
    def _averaged(self):
        return [v.value for v in self.model.variables if v.dtype.startswith("float")]

    @property
    def variables(self) -> dict[str, tf.Variable]:
        """The variables that a checkpoint must hold besides the model and the optimizer."""
        own = {id(variable) for variable in self.model.variables}
        others = [variable.value for variable in self.network.variables if id(variable) not in own]
        averages = {f"ema/{i}": variable for i, variable in enumerate(self._averages)}
        scale = (
            {"loss_scale": self.loss_scale, "good_steps": self._good_steps}
            if self.loss_scale is not None
            else {}
        )
        return averages | scale | {f"trained/{i}": variable for i, variable in enumerate(others)}

    @tf.function(reduce_retracing=True, autograph=False)
    def train(self, batches, steps, signal: float | tf.Tensor = 0.0):
        """Takes `steps` steps.

        Args:
            batches: an iterator over distributed batches, see `kvision.tasks.Task`; a step takes
                `accumulate`.
            steps: a scalar tensor.
            signal: a float that is summed over all workers.

        Returns:
            The sums for the metrics: "images", "loss" and what the task adds, float32; and the sum of
            `signal`.
        """
        totals = self._sum_of(steps, batches, self._step)
        signals = self._sum(self.strategy.run(lambda: tf.identity(signal)))
        return totals, signals

    def _step(self, batches):
        if self.accumulate == 1:
            gradients, sums = self.strategy.run(self._gradients, args=(next(batches),))
            totals = self._sum(sums)
        else:
            totals = self._sum_of(self.accumulate, batches, self._accumulate_batch)
            gradients = self.strategy.run(self._take)
        if self.loss_scale is None:
            self._update(gradients)
        else:
            finite = self._sum(self.strategy.run(_infinities, args=(gradients,))) == 0
            applied = finite | (self.loss_scale <= 1.0)  # then float32 would not be finite either
            tf.cond(applied, lambda: self._update(gradients), lambda: None)
            self._rescale(self.loss_scale, finite)
        return totals

    def _sum_of(self, count, batches, step):
        """The sums that `step(batches)` returns, added up over `count` calls."""
        return tf.while_loop(  # autograph would take a second here
            lambda i, totals: i < count,
            lambda i, totals: (i + 1, tf.nest.map_structure(tf.add, totals, step(batches))),
            (tf.constant(0), self._zeros(batches.element_spec)),
            parallel_iterations=1,
        )[1]

    def _zeros(self, element_spec) -> dict:
        """Zeros of the names and shapes that the sums of a training step have."""
        batch = {name: tf.nest.flatten(spec, True)[0] for name, spec in element_spec.items()}  # of a replica
        symbolic = getattr(self.network, "output", None)  # which a Sequential lacks
        symbolic = self.network.outputs[0] if symbolic is None else symbolic
        outputs = tf.nest.map_structure(lambda output: tf.TensorSpec(output.shape, tf.float32), symbolic)

        @tf.function(autograph=False)
        def sums(batch, outputs):
            return self._sums(self.task.losses(outputs, batch, training=True), outputs, batch)

        specs = sums.get_concrete_function(batch, outputs).structured_outputs
        return {name: tf.zeros(spec.shape) for name, spec in specs.items()}

    def _sum(self, values):
        return tf.nest.map_structure(lambda v: self.strategy.reduce("SUM", v, axis=None), values)

    def _gradients(self, batch):
        replicas = self.strategy.num_replicas_in_sync
        with tf.GradientTape() as tape:
            outputs = _in_float32(self.network(self.task.inputs(batch), training=True))
            losses = self.task.losses(outputs, batch, training=True)
            # Every replica has an equal share of the batch, and gradients are summed over replicas.
            loss = tf.add_n([*map(tf.reduce_mean, losses.values()), *self.network.losses])
            loss /= replicas * self.accumulate
            loss *= 1.0 if self.loss_scale is None else self.loss_scale
        return tape.gradient(loss, self._weights), self._sums(losses, outputs, batch)

    def _sums(self, losses, outputs, batch):
        weight = batch["weight"]
        terms = {name: tf.reduce_sum(tf.where(weight > 0, weight * term, 0)) for name, term in losses.items()}
        total = {} if "loss" in terms else {"loss": tf.add_n([*terms.values()])}
        return {"images": tf.reduce_sum(weight)} | total | terms | self.task.sums(outputs, batch)

    def _accumulate_batch(self, batches):
        return self._sum(self.strategy.run(self._accumulate, args=(next(batches),)))

    def _accumulate(self, batch):
        gradients, sums = self._gradients(batch)
        for total, gradient in zip(self._totals, gradients, strict=True):
            total.assign_add(gradient)
        return sums

    def _take(self):
        gradients = [tf.identity(total) for total in self._totals]
        with tf.control_dependencies(gradients):
            for total in self._totals:
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

    def _rescale(self, scale, finite):
        good = tf.where(finite, self._good_steps + 1, 0.0)
        grown = tf.where(good >= SCALE_GROWS_AFTER, 2 * scale, scale)
        scale.assign(tf.where(finite, grown, tf.maximum(scale / 2, 1.0)))
        self._good_steps.assign(tf.where(good >= SCALE_GROWS_AFTER, 0.0, good))

    def swap_average(self):
        """Exchanges the weights and their moving average; a second call undoes the first."""
        for average, variable in zip(self._averages, self._averaged, strict=True):
            values = average.numpy(), variable.numpy()
            variable.assign(values[0])
            average.assign(values[1])

    @tf.function(reduce_retracing=True, autograph=False)
    def evaluate_batch(self, batch, signal: float | tf.Tensor = 0.0):
        """Like `train`, for one batch in inference mode, with the losses of evaluation.

        Returns:
            What `train` does, and what the task keeps of each image, of all replicas.
        """
        sums, signals, kept = self.strategy.run(self._evaluation_step, args=(batch, signal))
        gathered = tf.nest.map_structure(lambda part: self.strategy.gather(part, axis=0), kept)
        return self._sum(sums), self._sum(signals), gathered

    def evaluate(self, batches, asked: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
        """The task's metrics over distributed batches, as many for each replica: see `with_blanks`.

        Batch norms use the first replica's statistics on all replicas.

        Args:
            batches: see `kvision.tasks.Task`.
            asked: whether this worker was asked to end; once one was, all return None after their batch.

        Raises:
            UserError: no image could be read.
        """
        if self._statistics and self.strategy.num_replicas_in_sync > 1:
            self._share_statistics()
        totals = {}
        for batch in batches:
            sums, signals, kept = self.evaluate_batch(batch, tf.constant(float(asked())))
            if signals:
                return None
            add(totals, sums | {name: [*part.numpy()] for name, part in kept.items()})
        if not totals.get("images"):
            raise UserError("No image could be read, so there is no loss and no accuracy.")
        return self.task.metrics(totals)

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

    def _evaluation_step(self, batch, signal):
        outputs = _in_float32(self.network(self.task.inputs(batch), training=False))
        losses = self.task.losses(outputs, batch, training=False)
        sums, kept = self._sums(losses, outputs, batch), self.task.kept(outputs, batch)
        return sums, tf.identity(signal), kept


def with_blanks(dataset, count):
    """The first `count` batches; where there are fewer, one image of weight 0 each, which counts for nothing.

    A replica that has no batch while others have one fails (TensorFlow 2.21, batch norm of no image).
    """
    blank = tf.nest.map_structure(
        lambda spec: tf.zeros((1, *spec.shape[1:]), spec.dtype), dataset.element_spec
    )
    return dataset.concatenate(tf.data.Dataset.from_tensors(blank).repeat()).take(count)


def _blank(spec):
    return tf.zeros((1, *spec.shape[1:]), spec.dtype)


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


def _in_float32(outputs):
    return tf.nest.map_structure(lambda output: tf.cast(output, tf.float32), outputs)
