"""The choice of detections among overlapping boxes, by greedy non-maximum suppression."""

import keras
from keras import ops

from kvision import boxes as box_math
from kvision.errors import UserError

BLOCK = 256  # boxes
NONE = -1  # the place of no box, and the group of one that does not count


def suppress(boxes, iou_threshold, most, groups=None):
    """Greedy non-maximum suppression: the places of the boxes that are kept.

    A box is kept where no kept box before it, of the same group, overlaps it by more than the threshold.
    In a block of boxes this is found as a fixed point: from all boxes kept, each step applies that rule to
    all at once, and after n steps the first n are right. Few steps suffice, as chains of boxes that suppress
    each other are short. One block follows the other, compared with the boxes kept so far, until enough are
    kept or no box is left that counts.

    Args:
        boxes: `(batch, K, 4)`, the best first.
        iou_threshold: in [0, 1].
        most: number of boxes of an image that are kept at most.
        groups: int32 `(batch, K)`; boxes of different ones do not suppress each other, and those of the group
            -1 do not count. By default all are of one group.

    Returns:
        int32 `(batch, most)`, rising; -1 behind the last one.
    """
    if groups is None:
        groups = ops.zeros_like(boxes[..., 0], "int32")
    places = ops.zeros((ops.shape(boxes)[0], most), "int32") + NONE
    count = boxes.shape[1]
    if count is None or count <= BLOCK:
        return _append(places, _kept((boxes, groups), iou_threshold), 0)
    blocks = -(-count // BLOCK)
    filling = (0, blocks * BLOCK - count)
    boxes = ops.pad(boxes, ((0, 0), filling, (0, 0)))
    groups = ops.pad(groups, ((0, 0), filling), constant_values=NONE)
    boxes_of = ops.reshape(boxes, (-1, blocks, BLOCK, 4))
    groups_of = ops.reshape(groups, (-1, blocks, BLOCK))
    behind_last = ops.max(ops.where(groups != NONE, ops.arange(1, blocks * BLOCK + 1, dtype="int32"), 0))

    def is_unfinished(block, places):
        return ops.logical_and(block * BLOCK < behind_last, ops.any(places[:, -1] == NONE))

    def step(block, places):
        own = ops.take(boxes_of, block, 1), ops.take(groups_of, block, 1)
        there = ops.maximum(places, 0)
        earlier = _pick(boxes, there), ops.where(places == NONE, NONE - 1, _pick(groups, there))
        return block + 1, _append(places, _kept(own, iou_threshold, earlier), block * BLOCK)

    places = _append(places, _kept((boxes_of[:, 0], groups_of[:, 0]), iou_threshold), 0)
    return ops.while_loop(is_unfinished, step, (ops.ones((), "int32"), places))[1]


def _kept(own, iou_threshold, earlier=None):
    """Whether each box of a block is kept, given those kept earlier; pairs of boxes and groups."""
    others, kept = own, own[1] != NONE
    if earlier is not None:
        others = [ops.concatenate(parts, 1) for parts in zip(earlier, own, strict=True)]
    overlapping = _overlapping(own, others, iou_threshold)
    if earlier is not None:
        most = earlier[1].shape[1]
        kept = ops.logical_and(kept, ops.logical_not(ops.any(overlapping[..., :most], -1)))
        overlapping = overlapping[..., most:]
    order = ops.arange(ops.shape(overlapping)[-1])
    suppresses = ops.cast(ops.logical_and(overlapping, order[:, None] > order[None, :]), "float32")
    every = ops.cast(kept[..., None], "float32")

    def changes(kept, before):
        return ops.any(kept != before)

    def step(kept, before):
        return every * ops.cast(ops.matmul(suppresses, kept) < 0.5, "float32"), kept

    kept, _ = ops.while_loop(changes, step, (every, every - 1))
    return kept[..., 0] > 0.5


def _append(places, kept, start):
    """The places and, behind them, those of the boxes that a block from `start` on keeps, as many as fit."""
    own = ops.where(kept, ops.arange(ops.shape(kept)[1], dtype="int32") + start, NONE)
    joined = ops.concatenate([places, own], 1)
    order = ops.arange(ops.shape(joined)[1], 0, -1, dtype="int32")
    first = ops.cast(ops.where(joined == NONE, 0, order), "float32")
    _, chosen = ops.top_k(first, places.shape[1])
    return ops.take_along_axis(joined, ops.cast(chosen, "int32"), 1)


def _overlapping(some, others, iou_threshold):
    """Whether boxes overlap others of the same group by more than the threshold, `(batch, N, M)`."""
    (boxes, groups), (other_boxes, other_groups) = some, others
    overlapping = box_math.iou(boxes, other_boxes) > iou_threshold
    return ops.logical_and(overlapping, groups[..., :, None] == other_groups[..., None, :])


@keras.saving.register_keras_serializable("kvision")
class NonMaxSuppression(keras.layers.Layer):
    """Selects detections: the best scores above a threshold, without boxes that overlap better ones.

    Boxes suppress only others of their class. The candidates are the best pairs of box and class, as in
    torchvision's R-CNNs and RetinaNet; or, with `multi_label=False`, the best boxes, each as its best class
    alone, as in YOLOX. torchvision's R-CNN has no limit on candidates; its SSD has one for each class.

    Input:
        boxes: `(batch, N, 4)`, or `(batch, N, classes, 4)` where each class has its own, xyxy.
        scores: `(batch, N, classes)`, not negative.

    Output, a dict; places without a detection are zero:
        boxes: float32 `(batch, max_detections, 4)`, in the unit of the input.
        scores: float32 `(batch, max_detections)`, falling.
        classes: int32 `(batch, max_detections)`.
        count: int32 `(batch,)`, the number of detections.

    Args:
        max_detections: in an image.
        candidates: in an image, before the suppression.
        score_threshold: that scores exceed, at least 0.
        iou_threshold: intersection over union above which the worse box is dropped, in [0, 1].
        multi_label: whether a box may be detected as several classes.
    """

    def __init__(
        self,
        max_detections=100,
        candidates=1000,
        score_threshold=0.05,
        iou_threshold=0.5,
        multi_label=True,
        **keywords,
    ):
        super().__init__(autocast=False, **keywords)  # overlaps need float32 under any policy
        for key, value in (("max_detections", max_detections), ("candidates", candidates)):
            if not isinstance(value, int) or value < 1:
                raise UserError(f"`{key}` must be a positive integer; got {value!r}.")
        if score_threshold < 0:
            raise UserError(f"`score_threshold` must be at least 0; got {score_threshold!r}.")
        if not 0 <= iou_threshold <= 1:
            raise UserError(f"`iou_threshold` must be between 0 and 1; got {iou_threshold!r}.")
        self.max_detections = max_detections
        self.candidates = candidates
        self.score_threshold = score_threshold
        self.iou_threshold = iou_threshold
        self.multi_label = multi_label

    def call(self, boxes, scores):
        shapes = tuple(boxes.shape), tuple(scores.shape)
        if len(shapes[0]) not in (3, 4) or shapes[0][-1] != 4 or len(shapes[1]) != 3:
            raise UserError(
                f"Boxes (batch, N, 4) and scores (batch, N, classes) were expected; got {shapes}."
            )
        if shapes[0][1] != shapes[1][1] and None not in (shapes[0][1], shapes[1][1]):
            raise UserError(f"There must be as many boxes as rows of scores; got {shapes}.")
        boxes, scores = (ops.cast(x, "float32") for x in (boxes, scores))
        if 0 in (shapes[0][1], shapes[1][1]):  # one box that counts as none
            boxes, scores = (
                ops.pad(x, ((0, 0), (0, 1), *[(0, 0)] * (len(x.shape) - 2))) for x in (boxes, scores)
            )
        boxes, scores, classes = self._candidates(boxes, scores)
        groups = ops.where(scores > self.score_threshold, classes, NONE)
        places = suppress(boxes, self.iou_threshold, self.max_detections, groups)
        found, places = places != NONE, ops.maximum(places, 0)
        return {
            "boxes": ops.where(found[..., None], _pick(boxes, places), 0.0),
            "scores": ops.where(found, _pick(scores, places), 0.0),
            "classes": ops.where(found, _pick(classes, places), 0),
            "count": ops.sum(ops.cast(found, "int32"), -1),
        }

    def _candidates(self, boxes, scores):
        """Boxes `(batch, K, 4)`, scores and classes `(batch, K)`, the best first."""
        num_classes = scores.shape[-1]
        if self.multi_label:
            scores, pairs = _largest(ops.reshape(scores, (ops.shape(scores)[0], -1)), self.candidates)
            classes = pairs % num_classes
        else:
            best, rows = _largest(ops.max(scores, -1), self.candidates)
            classes = ops.cast(ops.top_k(_pick(scores, rows), 1)[1][..., 0], "int32")
            scores, pairs = best, rows * num_classes + classes
        if len(boxes.shape) == 4:
            boxes = ops.reshape(boxes, (ops.shape(boxes)[0], -1, 4))
            return _pick(boxes, pairs), scores, classes
        return _pick(boxes, pairs // num_classes), scores, classes

    def compute_output_spec(self, boxes, scores):
        batch = boxes.shape[0]
        row = (batch, self.max_detections)
        return {
            "boxes": keras.KerasTensor((*row, 4), "float32"),
            "scores": keras.KerasTensor(row, "float32"),
            "classes": keras.KerasTensor(row, "int32"),
            "count": keras.KerasTensor((batch,), "int32"),
        }

    def get_config(self):
        return super().get_config() | {
            "max_detections": self.max_detections,
            "candidates": self.candidates,
            "score_threshold": self.score_threshold,
            "iou_threshold": self.iou_threshold,
            "multi_label": self.multi_label,
        }


def _largest(scores, count):
    """The largest of scores `(batch, N)` and their places, `(batch, count)`, with zeros where N is less."""
    if scores.shape[-1] is None or scores.shape[-1] < count:
        missing = count - (scores.shape[-1] or 0)
        scores = ops.pad(scores, ((0, 0), (0, missing)))
    scores, places = ops.top_k(scores, count)
    return scores, ops.cast(places, "int32")


def _pick(rows, places):
    """Of `(batch, N, ...)` the rows at `(batch, K)`; places behind the end give the last one."""
    places = ops.minimum(places, ops.shape(rows)[1] - 1)
    places = ops.reshape(places, (*ops.shape(places), *[1] * (len(rows.shape) - 2)))
    return ops.take_along_axis(rows, places, 1)
