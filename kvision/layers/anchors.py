"""Anchor boxes of feature maps, as torchvision makes them."""

import keras
import numpy as np
from keras import ops


class _Boxes(keras.layers.Layer):
    """Boxes around each place of feature maps, in pixels.

    Input: a list of maps `(batch, height, width, channels)`, the finest first, and the image.
    Output: float32 `(batch, boxes, 4)`: map by map, row by row, place by place.
    """

    def call(self, maps, image):
        boxes = [self._of_map(*place, image) for place in enumerate(maps)]
        boxes = ops.concatenate([ops.reshape(level, (-1, 4)) for level in boxes])
        return ops.broadcast_to(boxes[None], (ops.shape(image)[0], *ops.shape(boxes)))

    def compute_output_spec(self, maps, image):
        sizes = [None if None in x.shape[1:3] else x.shape[1] * x.shape[2] for x in maps]
        places = zip(sizes, self.boxes_per_place, strict=True)
        count = None if None in sizes else sum(size * boxes for size, boxes in places)
        return keras.KerasTensor((image.shape[0], count, 4), "float32")

    def _shifted(self, boxes, x, y):
        """Boxes `(count, 4)` around the places of `x` `(width,)` and `y` `(height,)`."""
        shape = (ops.shape(y)[0], ops.shape(x)[0])
        x, y = ops.broadcast_to(x[None, :], shape), ops.broadcast_to(y[:, None], shape)
        return ops.stack([x, y, x, y], -1)[:, :, None] + boxes


@keras.saving.register_keras_serializable("kvision")
class AnchorBoxes(_Boxes):
    """Anchors of region proposal networks (Ren et al. 2015, https://arxiv.org/abs/1506.01497).

    The centre of a place's anchors is its row and column times the stride, which is the image's size divided
    by the map's, rounded down. Sides are rounded to even pixels.

    Args:
        sizes: for each map, the sides of its square anchors in pixels.
        aspect_ratios: heights by widths; anchors of a size have the same area.
    """

    def __init__(self, sizes, aspect_ratios=(0.5, 1.0, 2.0), **keywords):
        super().__init__(autocast=False, **keywords)
        self.sizes = tuple(map(tuple, sizes))
        self.aspect_ratios = tuple(aspect_ratios)

    @property
    def boxes_per_place(self) -> list[int]:
        """Anchors at each place of each map."""
        return [len(sizes) * len(self.aspect_ratios) for sizes in self.sizes]

    def _of_map(self, level, x, image):
        roots = np.sqrt(np.array(self.aspect_ratios, "float32"))[:, None]
        sizes = np.array(self.sizes[level], "float32")
        half = np.stack([(sizes / roots).ravel(), (sizes * roots).ravel()], -1) / 2
        centres = [
            ops.cast(ops.arange(count) * (side // count), "float32")
            for count, side in zip(ops.shape(x)[1:3], ops.shape(image)[1:3], strict=True)
        ]
        return self._shifted(np.round(np.concatenate([-half, half], -1)), *reversed(centres))

    def get_config(self):
        return super().get_config() | {"sizes": self.sizes, "aspect_ratios": self.aspect_ratios}


@keras.saving.register_keras_serializable("kvision")
class DefaultBoxes(_Boxes):
    """Default boxes of single-shot detectors (Liu et al. 2015, https://arxiv.org/abs/1512.02325).

    Each place has two squares, of its map's scale and of the geometric mean of it and the next, and for each
    aspect ratio a lying and a standing box.

    Args:
        scales: sides of the squares as shares of the image's, one a map and one more.
        aspect_ratios: of the longer side to the shorter.
    """

    def __init__(self, scales, aspect_ratios=(2.0, 3.0), **keywords):
        super().__init__(autocast=False, **keywords)
        self.scales = tuple(scales)
        self.aspect_ratios = tuple(aspect_ratios)

    @property
    def boxes_per_place(self) -> list[int]:
        """Default boxes at each place of each map."""
        return [2 + 2 * len(self.aspect_ratios)] * (len(self.scales) - 1)

    def _of_map(self, level, x, image):
        scale, following = self.scales[level : level + 2]
        sides = [(scale, scale), (np.sqrt(scale * following),) * 2]
        for root in np.sqrt(self.aspect_ratios):
            sides += [(scale * root, scale / root), (scale / root, scale * root)]
        half = np.clip(sides, 0, 1).astype("float32") / 2
        centres = [
            (ops.cast(ops.arange(n), "float32") + 0.5) / ops.cast(n, "float32") for n in ops.shape(x)[1:3]
        ]
        boxes = self._shifted(np.concatenate([-half, half], -1), *reversed(centres))
        height, width = (ops.cast(side, "float32") for side in ops.shape(image)[1:3])
        return boxes * ops.stack([width, height, width, height])

    def get_config(self):
        return super().get_config() | {"scales": self.scales, "aspect_ratios": self.aspect_ratios}
