"""Training of Fast R-CNN (Girshick 2015, https://arxiv.org/abs/1504.08083) and Faster R-CNN (Ren et al. 2015,
https://arxiv.org/abs/1506.01497), the latter also as in torchvision."""

from typing import NamedTuple

import keras
from keras import ops

from kvision import boxes as box_math
from kvision._nested import check_model
from kvision.detection._decoding import Proposals
from kvision.detection._family import raw
from kvision.detection._faster_rcnn import HEAD, PREDICTORS
from kvision.detection._matching import NO_MATCH, best_objects, overlaps_of, per_image, smooth_l1, targets_of
from kvision.errors import UserError
from kvision.keras_internals import inputs_of
from kvision.layers import RoIPool
from kvision.networks import image_of

BETA = 1 / 9  # of the smooth L1 losses
ANCHORS = 256  # sampled in an image
POSITIVE_ANCHORS = 0.5  # at most, as a share
POSITIVE_ANCHOR, NEGATIVE_ANCHOR = 0.7, 0.3  # overlaps from which, and below which
POSITIVE_REGIONS = 0.25
POSITIVE_REGION = 0.5
WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the box head's deltas, as in `DecodeBoxes`
PROPOSALS = 2000  # that Faster R-CNN learns from, however many it detects with


class Regions(NamedTuple):
    """How a box head learns from regions.

    Attributes:
        count: sampled in an image.
        least: overlap with an object that the background has, where there is an object.
        beta: of the smooth L1 loss.
    """

    count: int
    least: float
    beta: float


FAST_RCNN = Regions(64, 0.1, 1.0)
FASTER_RCNN = Regions(128, NO_MATCH, 1.0)
TORCHVISION = Regions(512, NO_MATCH, BETA)


def rcnn_training(model: keras.Model, seed: int | None = None) -> keras.Model:
    """The network that trains a Fast or Faster R-CNN: its layers, and the losses of its stages.

    An anchor is positive where it overlaps an object by at least 0.7 or no other overlaps an object more,
    negative where it overlaps none by 0.3. A region, a proposal or an object's own box, is positive from 0.5.
    Of an image's 256 anchors at most a half are positive, of its regions a quarter: of 512 in torchvision's
    networks, of 128 in `faster_rcnn_vgg16`, of 64 in `fast_rcnn_vgg16`, whose background overlaps an object
    by 0.1. They are drawn at random in training; with `training=False` those that overlap objects most are
    taken. `faster_rcnn_vgg16` learns from 2000 proposals. That of others is the network's own number;
    torchvision's networks have 2000 in training.

    In training, the detections are those of a box head in inference mode: they leave its batch norms alone.

    Args:
        model: a Fast or Faster R-CNN of kvision, with its top. The weights are shared with it.
        seed: of the sampling.

    Returns:
        See `with_losses`; the terms are "class_loss" and "box_loss", and of a Faster R-CNN "rpn_class_loss"
        and "rpn_box_loss".

    Raises:
        ValueError: the model is no Fast or Faster R-CNN of kvision.
    """
    check_model(model)
    if "roi_heads.box_roi_pool" not in {layer.name for layer in model.layers}:
        raise UserError(f"`model` must be a Fast or Faster R-CNN of kvision; got {model.name}.")
    boxes = keras.Input((None, 4), dtype="float32", name="true_boxes")
    classes = keras.Input((None,), dtype="int32", name="true_classes")
    outputs, losses = raw(model).output, {}
    pool = model.get_layer("roi_heads.box_roi_pool")
    *maps, proposals = inputs_of(pool, 0)
    settings, learned = TORCHVISION, proposals
    if isinstance(pool, RoIPool):
        (maps,), settings = maps, FAST_RCNN
    if "rpn_logits" in outputs:
        anchors = [outputs[key] for key in ("rpn_logits", "rpn_deltas", "anchors")]
        rpn_losses = _AnchorLosses(seed, name="anchor_losses")(*anchors, boxes, classes)
        losses = dict(zip(("rpn_class_loss", "rpn_box_loss"), rpn_losses, strict=True))
        if isinstance(pool, RoIPool):
            settings, learned = FASTER_RCNN, _more_proposals(model.get_layer("proposals"))
    first = next(layer for layer in model.layers if layer.name.startswith(f"{HEAD}."))
    (of_proposals,) = inputs_of(first, 0)
    predictors = [model.get_layer(f"roi_heads.box_predictor.{name}") for name in PREDICTORS.values()]
    head = keras.Model(of_proposals, [layer.output for layer in predictors], name="head")
    sampled, labels, targets = SampledRegions(settings, seed, name="sampled_regions")(learned, boxes, classes)
    regions = pool(maps, sampled)
    answers = head(ops.reshape(regions, (-1, *regions.shape[2:])))
    class_loss, box_loss = _RegionLosses(settings.beta, name="region_losses")(*answers, labels, targets)

    answers = {
        key: ops.reshape(x, (-1, *outputs[key].shape[1:]))
        for key, x in zip(PREDICTORS, _InInference(head, name="detecting_head")(of_proposals), strict=True)
    }
    scored = model.get_layer("decode")(answers | {"proposals": proposals}, image_of(model))
    losses |= {"class_loss": class_loss, "box_loss": box_loss}
    inputs = model.input if isinstance(model.input, dict) else {"image": model.input}
    return keras.Model(
        inputs | {"true_boxes": boxes, "true_classes": classes},
        losses | model.get_layer("detections")(*scored),
        name=model.name,
    )


def _more_proposals(layer):
    """Proposals of a layer `Proposals`, as many as training learns from."""
    *maps, anchors, image = inputs_of(layer, 0)
    logits, deltas = maps[: len(maps) // 2], maps[len(maps) // 2 :]
    config = layer.get_config() | {"count": PROPOSALS, "name": "learned_proposals"}
    return Proposals.from_config(config)(logits, deltas, anchors, image)


class _Sampling(keras.layers.Layer):
    """A layer that draws positive and negative boxes at random."""

    def __init__(self, seed, **keywords):
        super().__init__(autocast=False, **keywords)  # boxes need float32 under any policy
        self.seed_generator = keras.random.SeedGenerator(seed)

    def sample(self, positive, negative, overlaps, count, share, training):
        """Draws at most `count` boxes of each image, of which `share` may be positive.

        Args:
            positive, negative: booleans `(batch, N)`.
            overlaps: `(batch, N)`, the largest of which are preferred in inference mode.

        Returns:
            Places `(batch, slots)` and booleans, which are False behind the last box drawn. There the places
            start again, so that batch norms see these boxes alone. There are `count` slots, or N where that
            is known and less.
        """
        length = positive.shape[1]
        slots = count if length is None else min(count, length)
        order = ops.maximum(overlaps, 0.0)
        if training:
            order = keras.random.uniform(ops.shape(overlaps), seed=self.seed_generator)
        some, which = _first(positive, order, int(count * share))
        left = count - ops.sum(ops.cast(some, "int32"), 1, keepdims=True)
        others, which_others = _first(negative, order, count)
        others = ops.logical_and(others, ops.arange(count) < left)
        drawn, order = ops.top_k(ops.cast(ops.concatenate([some, others], 1), "float32"), slots)
        places = ops.take_along_axis(ops.concatenate([which, which_others], 1), ops.cast(order, "int32"), 1)
        drawn = drawn > 0
        total = ops.maximum(ops.sum(ops.cast(drawn, "int32"), 1, keepdims=True), 1)
        places = ops.take_along_axis(places, ops.arange(slots, dtype="int32")[None] % total, 1)
        return ops.minimum(places, ops.shape(positive)[1] - 1), drawn


class _AnchorLosses(_Sampling):
    """Losses of the region proposal network, of classes and of boxes, each `(batch,)`."""

    def call(self, logits, deltas, anchors, boxes, classes, training=False):
        logits, deltas = ops.cast(logits, "float32"), ops.cast(deltas, "float32")
        overlaps = overlaps_of(boxes, classes, anchors)
        best, objects = best_objects(overlaps)
        most = ops.max(overlaps, 2, keepdims=True)  # of each object
        favoured = ops.any(ops.logical_and(overlaps == most, most > 0), 1)
        positive = ops.logical_or(best >= POSITIVE_ANCHOR, favoured)
        negative = ops.logical_and(best < NEGATIVE_ANCHOR, ops.logical_not(favoured))
        places, drawn = self.sample(positive, negative, best, ANCHORS, POSITIVE_ANCHORS, training)
        logits, positive, objects = (ops.take_along_axis(x, places, 1) for x in (logits, positive, objects))
        deltas, anchors = (ops.take_along_axis(x, places[..., None], 1) for x in (deltas, anchors))
        positive = ops.logical_and(positive, drawn)
        targets = targets_of(boxes, objects, anchors, positive)
        counts = ops.sum(ops.cast(drawn, "int32"), 1)
        class_losses = ops.binary_crossentropy(ops.cast(positive, "float32"), logits, from_logits=True)
        return (
            per_image(class_losses, drawn, counts),
            per_image(smooth_l1(deltas, targets, BETA), positive, counts),
        )

    def compute_output_spec(self, logits, deltas, anchors, boxes, classes, training=False):
        return _of_images()


class SampledRegions(_Sampling):
    """Regions that the box head learns from.

    Output: boxes `(batch, at most count, 4)`; labels `(batch, at most count)`, which are 0 for the background
    and -1 for regions that do not count; targets of the deltas, `(batch, at most count, 4)`.
    """

    def __init__(self, settings, seed, **keywords):
        super().__init__(seed, **keywords)
        self.count, self.least, _ = settings

    def call(self, proposals, boxes, classes, training=False):
        regions = ops.concatenate([proposals, boxes], 1)
        there = ops.concatenate([ops.ones_like(proposals[..., 0], "bool"), classes >= 0], 1)
        there = ops.logical_and(there, box_math.area(regions) > 0)
        best, objects = best_objects(overlaps_of(boxes, classes, regions))
        positive = ops.logical_and(there, best >= POSITIVE_REGION)
        least = ops.where(ops.any(classes >= 0, 1, keepdims=True), self.least, NO_MATCH)
        negative = ops.logical_and(there, ops.logical_and(best < POSITIVE_REGION, best >= least))
        places, drawn = self.sample(positive, negative, best, self.count, POSITIVE_REGIONS, training)
        regions = ops.take_along_axis(regions, places[..., None], 1)
        positive, objects = (ops.take_along_axis(x, places, 1) for x in (positive, objects))
        positive = ops.logical_and(positive, drawn)
        labels = ops.where(positive, ops.take_along_axis(classes, objects, 1) + 1, 0)
        targets = targets_of(boxes, objects, regions, positive, WEIGHTS)
        return regions, ops.where(drawn, labels, -1), targets

    def compute_output_spec(self, proposals, boxes, classes, training=False):
        shape = (proposals.shape[0], None)  # as many as in the boxes of a call
        return (
            keras.KerasTensor((*shape, 4), "float32"),
            keras.KerasTensor(shape, "int32"),
            keras.KerasTensor((*shape, 4), "float32"),
        )


class _RegionLosses(keras.layers.Layer):
    """Losses of the box head, of classes and of boxes, each `(batch,)`.

    Input: logits and deltas, with a row for each region of each image; labels and targets, see
    `SampledRegions`.
    """

    def __init__(self, beta, **keywords):
        super().__init__(autocast=False, **keywords)
        self.beta = beta

    def call(self, logits, deltas, labels, targets):
        logits = ops.reshape(ops.cast(logits, "float32"), (*ops.shape(labels), logits.shape[-1]))
        deltas = ops.reshape(ops.cast(deltas, "float32"), (*ops.shape(logits), 4))
        drawn = labels >= 0
        labels = ops.maximum(labels, 0)
        deltas = ops.take_along_axis(deltas, labels[..., None, None], 2)[:, :, 0]  # of the region's class
        counts = ops.sum(ops.cast(drawn, "int32"), 1)
        class_losses = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        return (
            per_image(class_losses, drawn, counts),
            per_image(smooth_l1(deltas, targets, self.beta), labels > 0, counts),
        )

    def compute_output_spec(self, logits, deltas, labels, targets):
        return _of_images()


class _InInference(keras.layers.Layer):
    """A model that stays in inference mode, which an argument in a functional model cannot say."""

    def __init__(self, model, **keywords):
        super().__init__(autocast=False, **keywords)
        self.model = model

    def call(self, x):
        return self.model(x, training=False)


def _of_images():
    """Two losses `(batch,)`."""
    return keras.KerasTensor((None,), "float32"), keras.KerasTensor((None,), "float32")


def _first(mask, order, count):
    """Whether there are so many places in the mask, and these, those of the highest order first."""
    order = ops.pad(ops.where(mask, order, -1.0), ((0, 0), (0, count)), constant_values=-1.0)
    best, places = ops.top_k(order, count)
    return best >= 0, ops.cast(places, "int32")
