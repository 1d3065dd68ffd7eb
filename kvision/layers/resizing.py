"""Maps in the size of others, also where sizes are only known when the network runs."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("kvision")
class ResizeLike(keras.layers.Layer):
    """Resizes a map to the height and width of another tensor, as PyTorch's `interpolate`.

    With "bilinear" the centres of the corner pixels are half a pixel inside (`align_corners=False`); without
    antialiasing.

    Input: the map `(batch, height, width, channels)`, and the tensor of the wanted size. Output:
    `(batch, its height, its width, channels)`.

    Args:
        interpolation: "bilinear" or "nearest".
    """

    def __init__(self, interpolation="bilinear", **keywords):
        super().__init__(**keywords)
        self.interpolation = interpolation

    def call(self, x, like):
        sizes = ops.shape(like)[1:3]
        if self.interpolation == "nearest":
            for axis, size in enumerate(sizes, start=1):
                x = _repeat(x, size, axis)
            return x
        if all(isinstance(size, int) for size in (*sizes, *ops.shape(x)[1:3])):
            return ops.image.resize(x, sizes, interpolation="bilinear")
        for axis, size in enumerate(sizes, start=1):  # Keras resizes to sizes that are known beforehand only
            x = _interpolate(x, size, axis)
        return x

    def compute_output_shape(self, x_shape, like_shape):
        return (x_shape[0], *like_shape[1:3], x_shape[-1])

    def get_config(self):
        return super().get_config() | {"interpolation": self.interpolation}


def _repeat(x, size, axis):
    """`x` with another size of one axis, of the values that are there."""
    given = ops.shape(x)[axis]
    if isinstance(size, int) and isinstance(given, int) and size % given == 0:
        return ops.repeat(x, size // given, axis) if size > given else x
    return ops.take(x, ops.arange(size) * given // size, axis)


def _interpolate(x, size, axis):
    """`x` with another size of one axis."""
    last = ops.shape(x)[axis] - 1
    scale = ops.cast(last + 1, "float32") / ops.cast(size, "float32")
    places = (ops.cast(ops.arange(size), "float32") + 0.5) * scale - 0.5
    places = ops.clip(places, 0.0, ops.cast(last, "float32"))
    below = ops.floor(places)
    share = ops.cast(places - below, x.dtype)
    share = ops.expand_dims(share, (1, 2) if axis == 1 else (0, 2))
    below = ops.cast(below, "int32")
    above = ops.minimum(below + 1, last)
    return ops.take(x, below, axis) * (1 - share) + ops.take(x, above, axis) * share


@keras.saving.register_keras_serializable("kvision")
class PadToMultiple(keras.layers.Layer):
    """Adds zeros at the bottom and at the right, up to the next multiple of a number.

    Input: `(batch, height, width, channels)`.

    Args:
        multiple: of which height and width are multiples then.
    """

    def __init__(self, multiple=32, **keywords):
        super().__init__(**keywords)
        self.multiple = multiple

    def call(self, x):
        sides = ops.shape(x)[1:3]
        height, width = (-(-side // self.multiple) * self.multiple for side in sides)
        if all(isinstance(side, int) and side % self.multiple == 0 for side in sides):
            return x
        most = self.multiple - 1
        return ops.pad(x, ((0, 0), (0, most), (0, most), (0, 0)))[:, :height, :width]

    def compute_output_shape(self, shape):
        sides = (side and -(-side // self.multiple) * self.multiple for side in shape[1:3])
        return (shape[0], *sides, shape[-1])

    def get_config(self):
        return super().get_config() | {"multiple": self.multiple}


@keras.saving.register_keras_serializable("kvision")
class CropLike(keras.layers.Layer):
    """Cuts a map at the bottom and at the right to the height and width of another tensor.

    Input: the map `(batch, height, width, channels)`, and the tensor of the wanted size. A side that is no
    longer than the other's stays as it is.
    """

    def call(self, x, like):
        height, width = ops.shape(like)[1:3]
        return x[:, :height, :width]

    def compute_output_shape(self, x_shape, like_shape):
        sides = zip(x_shape[1:3], like_shape[1:3], strict=True)
        sides = (wanted if None in (side, wanted) else min(side, wanted) for side, wanted in sides)
        return (x_shape[0], *sides, x_shape[-1])
