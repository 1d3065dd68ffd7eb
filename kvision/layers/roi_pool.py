"""Pooling of regions, and of whole maps, into a fixed number of bins.

Bin i of n over a length L reaches from floor(i L / n) up to, but not including, ceil((i + 1) L / n), in
integer arithmetic: in floating point the rounding up may go a place too far.
"""

import functools
import itertools

import keras
import numpy as np
from keras import ops

LONGEST = 64  # places of a bin, on maps of a size that is not known beforehand


def _bin(place, length, count):
    """Start and end of a bin of `count`."""
    return place * length // count, ((place + 1) * length + count - 1) // count


@keras.saving.register_keras_serializable("kvision")
class SpatialPyramidPooling(keras.layers.Layer):
    """Maxima of bins at several levels (He et al. 2014, https://arxiv.org/abs/1406.4729).

    Input: `(batch, height, width, channels)`. Output: `(batch, bins, channels)`: level by level, row by row.

    Args:
        levels: bins of each level, in each direction.
    """

    def __init__(self, levels=(6, 3, 2, 1), **keywords):
        super().__init__(**keywords)
        self.levels = tuple(levels)

    def call(self, x):
        height, width = ops.shape(x)[1:3]
        maxima = []
        for count in self.levels:
            columns = [_bin(place, width, count) for place in range(count)]
            for place in range(count):
                top, bottom = _bin(place, height, count)
                row = ops.max(x[:, top:bottom], 1)
                maxima += [ops.max(row[:, left:right], 1) for left, right in columns]
        return ops.stack(maxima, 1)

    def compute_output_shape(self, shape):
        return (shape[0], sum(count**2 for count in self.levels), shape[-1])

    def get_config(self):
        return super().get_config() | {"levels": self.levels}


@keras.saving.register_keras_serializable("kvision")
class RoIPool(keras.layers.Layer):
    """Maxima of regions of a map in bins (Girshick 2015, https://arxiv.org/abs/1504.08083, section 2.1).

    A region's edges are rounded to places of the map, of which it has those at both edges. Bins outside of
    the map are 0. The maximum of a bin is that of four rectangles that cover it, whose sides are powers of
    two and which are looked up in tables.

    Input: the map `(batch, height, width, channels)`, and boxes `(batch, regions, 4)` in pixels, inside the
    image. Output: `(batch, regions, size, size, channels)`. On maps of a size that is not known beforehand a
    bin has at most 127 places in each direction.

    Args:
        size: bins of a region, in each direction.
        stride: of the map, in pixels.
    """

    def __init__(self, size=7, *, stride=16, **keywords):
        super().__init__(autocast=False, **keywords)  # boxes need float32 under any policy
        self.size = size
        self.stride = stride

    def call(self, x, boxes):
        regions = ops.cast(ops.floor(ops.cast(boxes, "float32") / self.stride + 0.5), "int32")
        (height, width), channels = ops.shape(x)[1:3], x.shape[-1]
        rows = self._edges(regions[..., 1], regions[..., 3], height)
        columns = self._edges(regions[..., 0], regions[..., 2], width)
        powers = [_powers(length, self.size) for length in x.shape[1:3]]
        counts = [len(of_axis) for of_axis in powers]
        tables = [x]
        for power in powers[0][:-1]:
            tables.append(_maximum_ahead(tables[-1], power, axis=1))
        for power in powers[1][:-1]:
            tables += [_maximum_ahead(table, power, axis=2) for table in tables[-counts[0] :]]
        tables = ops.reshape(ops.stack(tables, 1), (-1, channels))
        first = (ops.arange(ops.shape(regions)[0]) * counts[0] * counts[1])[:, None, None, None]
        corners = []
        for (row_table, row), (column_table, column) in itertools.product(
            _halves(*rows, counts[0]), _halves(*columns, counts[1])
        ):
            table = first + (column_table * counts[0])[..., None, :] + row_table[..., :, None]
            index = (table * height + row[..., :, None]) * width + column[..., None, :]
            corners.append(ops.take(tables, index, 0))
        maxima = functools.reduce(ops.maximum, corners)
        full = ops.logical_and((rows[1] > rows[0])[..., None], (columns[1] > columns[0])[..., None, :])
        return ops.where(full[..., None], maxima, ops.zeros_like(maxima))

    def compute_output_shape(self, x_shape, boxes_shape):
        return (*boxes_shape[:2], self.size, self.size, x_shape[-1])

    def compute_output_spec(self, x, boxes):
        return keras.KerasTensor(self.compute_output_shape(x.shape, boxes.shape), x.dtype)

    def _edges(self, first, last, map_length):
        """Starts and ends `(batch, regions, size)` of the bins along one axis of the map."""
        length = ops.maximum(last - first + 1, 1)[..., None]
        start, end = _bin(np.arange(self.size, dtype="int32"), length, self.size)
        # Counted from 1, as integers that are clipped to [0, 6] would become a ReLU6, which TFLite lacks.
        first = first[..., None] + 1
        start, end = (ops.clip(edge + first, 1, map_length + 1) - 1 for edge in (start, end))
        return start, end

    def get_config(self):
        return super().get_config() | {"size": self.size, "stride": self.stride}


@keras.saving.register_keras_serializable("kvision")
class RoIPyramidPool(keras.layers.Layer):
    """Maxima of regions of a map in bins at several levels (He et al. 2014, section 4.1).

    Each level is a `RoIPool`, whose rounding of a region's edges it has.

    Input: as `RoIPool`. Output: `(batch, regions, bins, channels)`: level by level, row by row.

    Args:
        levels: bins of each level, in each direction.
        stride: of the map, in pixels.
    """

    def __init__(self, levels=(6, 3, 2, 1), *, stride=16, **keywords):
        super().__init__(autocast=False, **keywords)  # boxes need float32 under any policy
        self.levels = tuple(levels)
        self.stride = stride
        self.pools = [RoIPool(size, stride=stride, dtype=self.dtype_policy) for size in self.levels]

    def build(self, x_shape, boxes_shape):
        for pool in self.pools:
            pool.build(x_shape)

    def call(self, x, boxes):
        shape = *ops.shape(boxes)[:2], -1, x.shape[-1]
        return ops.concatenate([ops.reshape(pool(x, boxes), shape) for pool in self.pools], 2)

    def compute_output_shape(self, x_shape, boxes_shape):
        return (*boxes_shape[:2], sum(size**2 for size in self.levels), x_shape[-1])

    def compute_output_spec(self, x, boxes):
        return keras.KerasTensor(self.compute_output_shape(x.shape, boxes.shape), x.dtype)

    def get_config(self):
        return super().get_config() | {"levels": self.levels, "stride": self.stride}


def _powers(length, size) -> list[int]:
    """The powers of two up to the places of a bin, on a map that is `length` places long."""
    longest = LONGEST if length is None else min(length, length // size + 2)
    return [2**exponent for exponent in range(longest.bit_length())]


def _maximum_ahead(x, distance, axis):
    """The larger of each place and the one that is so far ahead, or last."""
    last = ops.shape(x)[axis] - 1
    return ops.maximum(x, ops.take(x, ops.minimum(ops.arange(last + 1) + distance, last), axis))


def _halves(start, end, tables):
    """For each bin, the number of the largest table that fits into it, and the two places to look it up."""
    length = ops.maximum(end - start, 1)
    exponent = sum(ops.cast(length >= 2**power, "int32") for power in range(1, tables)) + 0 * length
    sides = ops.take(ops.convert_to_tensor(2 ** np.arange(tables, dtype="int32")), exponent)
    last = ops.maximum(end - sides, 0)
    return [(exponent, ops.minimum(start, last)), (exponent, last)]
