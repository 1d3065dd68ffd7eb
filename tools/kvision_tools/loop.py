"""The training and evaluation steps, over `strategy.run`.

`Model.fit` fails under `MirroredStrategy` with several steps in one call, and under
`MultiWorkerMirroredStrategy` at all (Keras 3.15); a step of one's own works in both.
"""

import keras
import tensorflow as tf

SIDE_WEIGHT = 0.3  # of the losses of side classifiers (GoogLeNet, section 5)


class Loop:
    """Trains and evaluates a classifier that returns logits.

    Args:
        model: built under the strategy's scope. Side classifiers count in training alone.
        optimizer: built for the model.
        strategy: of `tf.distribute`.
        label_smoothing: of the training loss, in [0, 1).
    """

    def __init__(self, model, optimizer, strategy, *, label_smoothing=0.0):
        self.model = model
        self.optimizer = optimizer
        self.strategy = strategy
        self._train_loss = keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=label_smoothing, reduction=None
        )

    @tf.function(reduce_retracing=True)
    def train(self, batches, steps):
        """Takes `steps` steps.

        Args:
            batches: an iterator over distributed batches of images and labels.
            steps: a scalar tensor.

        Returns:
            float32 `(3,)`: the sums of losses and of right answers, and the number of images.
        """
        totals = tf.zeros(3)
        for _ in tf.range(steps):
            totals += self._run(self._train_step, next(batches))
        return totals

    @tf.function(reduce_retracing=True)
    def evaluate_batch(self, batch):
        """Like `train`, for one batch in inference mode, without label smoothing."""
        return self._run(self._evaluation_step, batch)

    def evaluate(self, dataset) -> dict[str, float]:
        """Mean loss and accuracy over a dataset of batches."""
        totals = tf.zeros(3)
        for batch in self.strategy.experimental_distribute_dataset(dataset):
            totals += self.evaluate_batch(batch)
        return means(totals)

    def _run(self, step, batch):
        return self.strategy.reduce("SUM", self.strategy.run(step, args=batch), axis=None)

    def _train_step(self, images, labels):
        replicas = self.strategy.num_replicas_in_sync
        with tf.GradientTape() as tape:
            logits, sides = _split(self.model(images, training=True))
            targets = tf.one_hot(labels, logits.shape[-1])
            losses = self._train_loss(targets, logits)
            extra = [SIDE_WEIGHT * tf.reduce_mean(self._train_loss(targets, side)) for side in sides]
            # Every replica has an equal share of the batch, and gradients are summed over replicas.
            loss = tf.add_n([tf.reduce_mean(losses), *extra, *self.model.losses]) / replicas
        gradients = tape.gradient(loss, self.model.trainable_variables)
        self.optimizer.apply(gradients, self.model.trainable_variables)
        return _sums(losses, labels, logits)

    def _evaluation_step(self, images, labels):
        logits, _ = _split(self.model(images, training=False))
        return _sums(
            keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True), labels, logits
        )


def _split(outputs):
    """The logits that count, and those of the side classifiers."""
    if not isinstance(outputs, dict):
        return outputs, []
    return outputs["predictions"], [value for key, value in outputs.items() if key != "predictions"]


def _sums(losses, labels, logits):
    right = keras.metrics.sparse_categorical_accuracy(labels, logits)
    return tf.stack([tf.reduce_sum(losses), tf.reduce_sum(right), tf.cast(tf.size(labels), tf.float32)])


def means(totals) -> dict[str, float]:
    """Mean loss and accuracy from the sums that a `Loop` returns."""
    loss, right, images = totals.numpy().tolist()
    return {"loss": loss / max(images, 1), "accuracy": right / max(images, 1)}
