"""Batches of prepared examples: their order, their filling, and what becomes of examples that fail."""

from typing import Any

import numpy as np
import tensorflow as tf


@tf.autograph.experimental.do_not_convert  # which takes longer than all else that is done here
def make_batches(prepare, first, stop, step, size, note, *, fill) -> tf.data.Dataset:
    """Batches of what `prepare` makes of each `step`-th position from `first` up to `stop`.

    Positions at which it fails are noted and left out, unless `note` raises an error. With `fill`, what comes
    next in the batch (or the whole next batch) takes their places: so a batch follows from its positions
    alone, wherever a pass begins.
    """

    def end_of(begin):
        return tf.minimum(begin + size * step, stop)

    def batch_at(begin):
        positions = tf.data.Dataset.range(begin, end_of(begin), step)
        batch = positions.map(prepare, tf.data.AUTOTUNE).ignore_errors().batch(size)
        empty = tf.nest.map_structure(
            lambda part: tf.zeros([0, *(side or 0 for side in part.shape[1:])], part.dtype),
            batch.element_spec,
        )
        batch = batch.concatenate(tf.data.Dataset.from_tensors(empty)).take(1)  # an empty one if all failed
        return batch.map(lambda present, batch: (begin, present, batch))

    def note_all(begin, end, present):
        try:
            for missing in sorted({*range(begin, end, step)} - set(present.tolist())):
                note(missing)
        except Exception:  # kept in `Skipped.failure`; TensorFlow would print its traceback
            return np.int64(-1)
        return np.int64(0)

    def check(empty_before, parts):
        """Notes what is missing, and counts how many empty batches there are up to this one."""
        begin, present, _ = parts
        end = end_of(begin)
        count = (end - begin + step - 1) // step
        nothing = tf.constant(0, tf.int64)
        noted = tf.cond(
            tf.size(present, tf.int64) == count,
            lambda: nothing,
            lambda: tf.numpy_function(note_all, (begin, end, present), tf.int64),
        )
        with tf.control_dependencies([tf.debugging.Assert(noted >= 0, ["The reading of images ended."])]):
            empty = tf.cast(tf.size(present) == 0, tf.int64) + tf.ensure_shape(noted, ())
        return (empty_before + 1) * empty, (empty_before, *parts)

    def filled(empty_before, begin, present, batch):
        takers = tf.searchsorted(present, begin + step * tf.range(size, dtype=tf.int64))
        takers = tf.minimum(takers, tf.size(present) - 1)
        batch = tf.cond(
            tf.size(present) == size,
            lambda: batch,
            lambda: tf.nest.map_structure(lambda part: tf.gather(part, takers), batch),
        )
        batch = tf.nest.map_structure(lambda part: tf.ensure_shape(part, (size, *part.shape[1:])), batch)
        return tf.data.Dataset.from_tensors(batch).repeat(empty_before + 1)

    starts = tf.data.Dataset.range(first, stop, size * step)
    batches: Any = starts.interleave(  # in TensorFlow's stubs no element is a tuple
        batch_at, cycle_length=3, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    batches = batches.scan(tf.constant(0, tf.int64), check)
    batches = batches.filter(lambda empty_before, begin, present, batch: tf.size(present) > 0)
    return batches.flat_map(filled) if fill else batches.map(lambda _, __, ___, batch: batch)
