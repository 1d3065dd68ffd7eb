"""Maps of regions by interpolation (He et al. 2017, https://arxiv.org/abs/1703.06870, section 3)."""

import keras
import numpy as np
from keras import ops

NEARLY = 1e-6  # a region that is so near to the next level belongs there, as in torchvision


def weighted_places(x, rows, columns):
    """Sums of a map's places with separable weights, as two matrix products.

    Args:
        x: the map, `(batch, height, width, channels)`.
        rows: weights of its rows, `(batch, regions, size, height)`.
        columns: weights of its columns, `(batch, regions, size, width)`.

    Returns:
        `(batch, regions, size, size, channels)`, of the map's dtype.
    """
    rows, columns = ops.cast(rows, x.dtype), ops.cast(columns, x.dtype)
    height, width = ops.shape(x)[1:3]
    channels, regions, size = x.shape[-1], ops.shape(rows)[1], rows.shape[2]
    x = ops.matmul(
        ops.reshape(rows, (-1, regions * size, height)), ops.reshape(x, (-1, height, width * channels))
    )
    x = ops.reshape(x, (-1, regions, size, width, channels))
    return ops.matmul(columns[:, :, None], x)


@keras.saving.register_keras_serializable("kvision")
class RoIAlign(keras.layers.Layer):
    """Regions of feature maps in one size, sampled bilinearly and averaged, as torchvision does.

    With maps of several strides each region is taken from one: the finest for the smallest regions, and
    where a region is 224 pixels wide and high, that of stride 16 (Lin et al. 2016,
    https://arxiv.org/abs/1612.03144, equation 1).

    On one map the samples are two matrix products with the weights of its rows and columns. On several,
    whose finest has too many places for that, they are gathered.

    Input: maps, a list of `(batch, height, width, channels)`, the finest first; boxes `(batch, regions, 4)`
    in pixels of the image. Of maps with equal strides the first is taken. Output:
    `(batch, regions, size, size, channels)`. Samples more than a pixel outside a map are 0.

    Args:
        size: height and width of a region's map.
        strides: of the maps, in pixels: powers of two.
        sampling_ratio: samples of each place of the output, in each direction.
        aligned: whether the centre of a map's first place is half a place from its edge, as in Detectron2,
            and not on it.
    """

    def __init__(self, size=7, *, strides, sampling_ratio=2, aligned=False, **keywords):
        super().__init__(autocast=False, **keywords)  # boxes need float32 under any policy
        self.size = size
        self.strides = tuple(strides)
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def call(self, maps, boxes):
        boxes = ops.cast(boxes, "float32")
        used = [place for place, stride in enumerate(self.strides) if stride not in self.strides[:place]]
        maps, strides = [maps[place] for place in used], [self.strides[place] for place in used]
        if len(maps) == 1:
            return self._by_products(maps[0], boxes / strides[0])
        return self._by_gathering(maps, strides, boxes)

    def compute_output_shape(self, maps_shapes, boxes_shape):
        return (*boxes_shape[:2], self.size, self.size, maps_shapes[0][-1])

    def compute_output_spec(self, maps, boxes):
        shape = self.compute_output_shape([x.shape for x in maps], boxes.shape)
        return keras.KerasTensor(shape, maps[0].dtype)

    def _positions(self, start, end):
        """Positions `(batch, regions, size * sampling_ratio)` of the samples along one axis of the map."""
        count = self.size * self.sampling_ratio
        shares = (np.arange(count, dtype="float32") + 0.5) / count
        if self.aligned:
            return (start - 0.5)[..., None] + (end - start)[..., None] * shares
        return start[..., None] + ops.maximum(end - start, 1.0)[..., None] * shares

    def _by_products(self, x, boxes):
        height, width = ops.shape(x)[1:3]
        rows = self._weights(boxes[..., 1], boxes[..., 3], height)
        columns = self._weights(boxes[..., 0], boxes[..., 2], width)
        return weighted_places(x, rows, columns)

    def _weights(self, start, end, count):
        """Weights `(batch, regions, size, count)` of the rows or columns of a map."""
        positions = self._positions(start, end)
        most = ops.cast(count, "float32")
        inside = ops.logical_and(positions >= -1.0, positions <= most)
        positions = ops.clip(positions, 0.0, most - 1)[..., None]
        places = ops.cast(ops.arange(count), "float32")
        weights = ops.maximum(1 - ops.abs(positions - places), 0.0) * ops.cast(inside, "float32")[..., None]
        shape = (-1, ops.shape(start)[1], self.size, self.sampling_ratio, count)
        return ops.mean(ops.reshape(weights, shape), 3)

    def _by_gathering(self, maps, strides, boxes):
        level = self._levels(boxes, strides)

        def of_level(values):
            return ops.take(ops.convert_to_tensor(values), level)

        sizes = [ops.shape(x)[1:3] for x in maps]
        heights, widths = (of_level([size[axis] for size in sizes]) for axis in (0, 1))
        counts = [height * width for height, width in sizes]
        starts = of_level([sum(counts[:place]) for place in range(len(counts))])
        starts += sum(counts) * ops.arange(ops.shape(boxes)[0])[:, None]
        channels = maps[0].shape[-1]
        rows = [ops.reshape(x, (-1, n, channels)) for x, n in zip(maps, counts, strict=True)]
        places = ops.reshape(ops.concatenate(rows, 1), (-1, channels))
        boxes = boxes / of_level(np.array(strides, "float32"))[..., None]
        rows = self._neighbours(boxes[..., 1], boxes[..., 3], heights)
        columns = self._neighbours(boxes[..., 0], boxes[..., 2], widths)
        total = 0.0
        for row, row_weight in rows:
            first = starts[..., None] + row * widths[..., None]
            for column, column_weight in columns:
                index = first[..., :, None] + column[..., None, :]
                weight = row_weight[..., :, None] * column_weight[..., None, :]
                total += ops.take(places, index, 0) * ops.cast(weight, places.dtype)[..., None]
        return total

    def _levels(self, boxes, strides):
        """The map `(batch, regions)` that each region is taken from."""
        sides = ops.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
        # equation 1 without a logarithm: the last map whose smallest region is not larger
        smallest = np.array([(stride * 14 * 2**-NEARLY) ** 2 for stride in strides[1:]], "float32")
        area = sides[..., 0] * sides[..., 1]
        return ops.sum(ops.cast(area[..., None] >= smallest, "int32"), -1)

    def _neighbours(self, start, end, counts):
        """Indices and weights `(batch, regions, size)` of the neighbours of each place's samples."""
        positions = self._positions(start, end)
        counts = counts[..., None]
        most = ops.cast(counts, "float32")
        inside = ops.logical_and(positions >= -1.0, positions <= most)
        positions = ops.clip(positions, 0.0, most - 1)
        below = ops.floor(positions)
        share = positions - below
        scale = ops.cast(inside, "float32") / self.sampling_ratio
        below = ops.cast(below, "int32")
        pairs = [(below, (1 - share) * scale), (ops.minimum(below + 1, counts - 1), share * scale)]
        samples = range(self.sampling_ratio)
        step = self.sampling_ratio
        return [(index[..., i::step], weight[..., i::step]) for index, weight in pairs for i in samples]

    def get_config(self):
        return super().get_config() | {
            "size": self.size,
            "strides": self.strides,
            "sampling_ratio": self.sampling_ratio,
            "aligned": self.aligned,
        }
