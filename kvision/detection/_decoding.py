"""From the raw outputs of detectors with anchors to boxes and their scores."""

import keras
from keras import ops

from kvision import boxes as box_math
from kvision.layers.nms import NONE, suppress

SMALLEST_PROPOSAL = 1e-3  # side in pixels, as in torchvision
LEAST = -1e9  # logit of what is no box


@keras.saving.register_keras_serializable("kvision")
class DecodeBoxes(keras.layers.Layer):
    """Boxes and scores of classes from logits and deltas.

    Input: a dict with `logits` `(batch, N, 1 + classes)`, the background first; `deltas` `(batch, N, 4)`, or
    `(batch, N, 4 (1 + classes))` where each class has its own; `references` `(batch, N, 4)`, the boxes that
    the deltas start from. What else is in it, for training, is passed over. And the image.

    Output: boxes `(batch, N, 4)` or `(batch, N, classes, 4)` in pixels, clipped to the image, and
    probabilities `(batch, N, classes)`, which are 0 where a box is too small.

    Args:
        logits, deltas, references: the keys of these in the dict.
        weights: factors of the deltas, see `kvision.boxes.encode`.
        smallest: the least side of a box in pixels; None for any.
    """

    def __init__(self, logits, deltas, references, weights=(10.0, 10.0, 5.0, 5.0), smallest=None, **keywords):
        super().__init__(autocast=False, **keywords)  # boxes need float32 under any policy
        self.logits, self.deltas, self.references = logits, deltas, references
        self.weights_of_deltas = tuple(weights)
        self.smallest = smallest

    def call(self, raw, image):
        logits, deltas, references = (
            ops.cast(raw[key], "float32") for key in (self.logits, self.deltas, self.references)
        )
        if deltas.shape[-1] > 4:
            deltas = ops.reshape(deltas, (*ops.shape(deltas)[:2], -1, 4))[:, :, 1:]
            references = references[:, :, None]
        scores = ops.softmax(logits)[..., 1:]
        boxes = box_math.decode(deltas, references, self.weights_of_deltas)
        boxes = box_math.clip(boxes, *ops.shape(image)[1:3])
        if self.smallest is not None:
            large = _are_large(boxes, self.smallest)
            scores = ops.where(large if len(boxes.shape) == 4 else large[..., None], scores, 0.0)
        return boxes, scores

    def compute_output_spec(self, raw, image):
        batch, count, classes = raw[self.logits].shape
        each = (classes - 1,) if raw[self.deltas].shape[-1] > 4 else ()
        return (
            keras.KerasTensor((batch, count, *each, 4), "float32"),
            keras.KerasTensor((batch, count, classes - 1), "float32"),
        )

    def get_config(self):
        return super().get_config() | {
            "logits": self.logits,
            "deltas": self.deltas,
            "references": self.references,
            "weights": self.weights_of_deltas,
            "smallest": self.smallest,
        }


@keras.saving.register_keras_serializable("kvision")
class Proposals(keras.layers.Layer):
    """The boxes of a region proposal network that seem to hold an object (Ren et al. 2015, section 3.1).

    Of each map the best candidates are clipped, and those that overlap a better one of their map are left
    out.

    Input: lists with one entry a map, of logits `(batch, n)` and deltas `(batch, n, 4)`; the anchors of all
    maps in turn, `(batch, N, 4)`; the image. Output: `(batch, count, 4)` in pixels, the best first, without a
    gradient; rows without a proposal are 0.

    Args:
        count: of proposals.
        candidates: of each map.
        score_threshold: the least probability of an object.
        iou_threshold: intersection over union above which the worse box is left out.
    """

    def __init__(self, count=1000, candidates=1000, score_threshold=0.0, iou_threshold=0.7, **keywords):
        super().__init__(autocast=False, **keywords)
        self.count = count
        self.candidates = candidates
        self.score_threshold = score_threshold
        self.iou_threshold = iou_threshold

    def call(self, logits, deltas, anchors, image):
        start, all_boxes, scores = 0, [], []
        for of_map, deltas_of_map in zip(logits, deltas, strict=True):
            length = ops.shape(of_map)[1]
            best, places = self._best(ops.cast(of_map, "float32"), self.candidates)
            boxes = box_math.decode(
                _pick(ops.cast(deltas_of_map, "float32"), places), _pick(anchors, places + start)
            )
            boxes = box_math.clip(boxes, *ops.shape(image)[1:3])
            probability = ops.sigmoid(best)
            kept = ops.logical_and(probability >= self.score_threshold, best > LEAST)
            kept = ops.logical_and(kept, _are_large(boxes, SMALLEST_PROPOSAL))
            places = suppress(boxes, self.iou_threshold, self.count, ops.where(kept, 0, NONE))
            found, places = places != NONE, ops.maximum(places, 0)
            all_boxes.append(_pick(boxes, places))
            scores.append(ops.where(found, ops.take_along_axis(best, places, 1), LEAST))
            start += length
        best, places = self._best(ops.concatenate(scores, 1), self.count)
        boxes = _pick(ops.concatenate(all_boxes, 1), places)
        boxes = ops.where((best > LEAST)[..., None], boxes, 0.0)
        return ops.stop_gradient(boxes)

    def _best(self, logits, count):
        """The largest logits `(batch, at most count)` and their places."""
        if logits.shape[1] is None:
            logits = ops.pad(logits, ((0, 0), (0, count)), constant_values=LEAST)
        else:
            count = min(count, logits.shape[1])
        best, places = ops.top_k(logits, count)  # pyright: ignore
        return best, ops.cast(places, "int32")

    def compute_output_spec(self, logits, deltas, anchors, image):
        return keras.KerasTensor((image.shape[0], self.count, 4), "float32")

    def get_config(self):
        return super().get_config() | {
            "count": self.count,
            "candidates": self.candidates,
            "score_threshold": self.score_threshold,
            "iou_threshold": self.iou_threshold,
        }


def _pick(rows, places):
    """Of `(batch, N, 4)` the rows at `(batch, K)`; places behind the end give the last one."""
    places = ops.minimum(places, ops.shape(rows)[1] - 1)
    return ops.take_along_axis(rows, places[..., None], 1)


def _are_large(boxes, smallest):
    return ops.min(boxes[..., 2:] - boxes[..., :2], -1) >= smallest
