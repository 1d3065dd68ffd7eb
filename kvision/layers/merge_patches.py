"""Merging of neighbouring patches (Liu et al. 2021, https://arxiv.org/abs/2103.14030, section 3.1)."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("kvision")
class MergePatches(keras.layers.Layer):
    """Concatenates each 2 x 2 patch along the channels: left column first, from top to bottom.

    Input: `(batch, height, width, channels)`. Odd sides are padded at the end where the size is fixed, and
    are an error where it is not. Output: `(batch, ceil(height / 2), ceil(width / 2), 4 * channels)`.
    """

    def call(self, x):
        _, height, width, channels = ops.shape(x)
        odd = [side % 2 if isinstance(side, int) else 0 for side in (height, width)]
        if any(odd):
            x = ops.pad(x, ((0, 0), (0, odd[0]), (0, odd[1]), (0, 0)))
        rows, columns = (height + 1) // 2, (width + 1) // 2
        x = ops.reshape(x, (-1, rows, 2, columns, 2, channels))
        return ops.reshape(ops.transpose(x, (0, 1, 3, 4, 2, 5)), (-1, rows, columns, 4 * channels))
