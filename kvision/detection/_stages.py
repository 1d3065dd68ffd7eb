"""How R-CNN (Girshick et al. 2014, https://arxiv.org/abs/1311.2524) and SPPNet learn: the stages.

1. Fine-tuning: the classifier with a class for the background, as any network of the trainer.
2. A linear SVM for each class. Its positives are the objects' own boxes, its negatives all boxes that overlap
   no object of the class by 0.3, of which hard ones are mined in one pass over the images (appendix B).
3. Ridge regression of the boxes for each class, from proposals that overlap an object by 0.6 (appendix C).

The figures that the paper leaves out are those of its authors' code.
"""

from collections.abc import Callable, Iterable

import keras
import numpy as np
from keras import ops

from kvision import boxes as box_math
from kvision.detection._faster_rcnn_loss import Regions, SampledRegions
from kvision.detection._linear import MinedSVM, fit_ridge
from kvision.detection._matching import NO_MATCH, per_image
from kvision.detection._staged import CLASSIFIER, DecodeStages
from kvision.errors import UserError
from kvision.keras_internals import inputs_of
from kvision.layers import RoIWarp
from kvision.networks import image_of

COUNT = 32  # regions of an image, a quarter of them positive: with four images the paper's 32 and 96
RCNN = Regions(COUNT, NO_MATCH, 1.0)
SPPNET = Regions(COUNT, 0.1, 1.0)
NEGATIVE = 0.3  # overlap with an object below which boxes are negatives
NORM = 20.0  # mean norm to which features are scaled
NEAR, RIDGE = 0.6, 1000.0  # overlap of proposals whose boxes are regressed, and the regression's penalty


class _ClassLoss(keras.layers.Layer):
    """Loss of fine-tuning, `(batch,)`, from logits of each region and labels `(batch, regions)`."""

    def __init__(self, **keywords):
        super().__init__(autocast=False, **keywords)

    def call(self, logits, labels):
        logits = ops.reshape(ops.cast(logits, "float32"), (*ops.shape(labels), logits.shape[-1]))
        drawn = labels >= 0
        losses = ops.sparse_categorical_crossentropy(ops.maximum(labels, 0), logits, from_logits=True)
        return per_image(losses, drawn, ops.sum(ops.cast(drawn, "int32"), 1))

    def compute_output_spec(self, logits, labels):
        return keras.KerasTensor((None,), "float32")


def finetuning(model: keras.Model, seed: int | None = None) -> keras.Model:
    """The network of the first stage: see `with_losses`; the term is "class_loss".

    A region, a proposal or an object's own box, is positive where it overlaps an object by at least 0.5. Of
    the 32 regions of an image at most a quarter are positive; SPPNet's negatives overlap an object by 0.1.

    Args:
        model: `rcnn_alexnet` or `sppnet_zf5`. The weights are shared with it.
        seed: of the sampling.
    """
    boxes = keras.Input((None, 4), dtype="float32", name="true_boxes")
    classes = keras.Input((None,), dtype="int32", name="true_classes")
    regions = model.get_layer("regions")
    x, proposals = inputs_of(regions, 0)
    settings = RCNN if isinstance(regions, RoIWarp) else SPPNET
    sampled, labels, _ = SampledRegions(settings, seed, name="sampled_regions")(proposals, boxes, classes)
    logits = _on_regions(model, x, sampled, model.get_layer(CLASSIFIER).output)
    loss = _ClassLoss(name="losses")(logits, labels)
    inputs = model.input | {"true_boxes": boxes, "true_classes": classes}
    return keras.Model(inputs, {"class_loss": loss} | model.output, name=model.name)


def _on_regions(model, x, boxes, outputs):
    """Tensors behind the regions, for other boxes, with a row for each."""
    head = keras.Model(model.get_layer("each_region").output, outputs, name="head")
    regions = model.get_layer("regions")(x, boxes)
    return head(ops.reshape(regions, (-1, *regions.shape[2:])))


def last_stages(model: keras.Model) -> Callable | None:
    """`fit_stages` for networks that learn in stages."""
    fits = any(isinstance(layer, DecodeStages) for layer in model.layers)
    return fit_stages if fits else None


def fit_stages(model: keras.Model, images: Callable[[], Iterable[dict]]) -> bool:
    """The stages behind fine-tuning: fits the SVMs and the regression of boxes, whose scores then count.

    The images are gone through twice, in inference mode. The features of the proposals whose boxes are
    regressed and those of the hard negatives are held in memory. The same images give the same weights.

    Args:
        model: `rcnn_alexnet` or `sppnet_zf5` after fine-tuning. Its weights are changed.
        images: gives batches of the training images, see `kvision.tasks.Detection`.

    Returns:
        Whether there was something to fit: False where the model has its SVMs already.
    """
    decode = model.get_layer("decode")
    if float(decode.fitted.numpy()):
        return False
    boxes = keras.Input((None, 4), dtype="float32", name="boxes")
    x, _ = inputs_of(model.get_layer("regions"), 0)
    outputs = [model.get_layer(name).output for name in ("svm_features", "box_features")]
    features = _on_regions(model, x, boxes, outputs)
    features = keras.Model([image_of(model), boxes], features)
    num_classes = model.get_layer("svm").units

    norms, of_objects, pairs = [], [[] for _ in range(num_classes)], [[] for _ in range(num_classes)]
    for image, objects, classes, proposals in _each_image(images()):
        if not len(objects):
            continue
        near, nearest = _near(proposals, objects)
        boxes = np.concatenate([objects, proposals[near]])
        hidden, pooled = features.predict_on_batch([image, boxes[None]])
        norms.append([np.linalg.norm(part, axis=1).mean() for part in (hidden, pooled)])
        deltas = ops.convert_to_numpy(box_math.encode(objects[nearest], proposals[near]))
        for number in range(num_classes):
            of_objects[number].append(hidden[: len(objects)][classes == number])
            of_class = classes[nearest] == number
            pairs[number].append((pooled[len(objects) :][of_class], deltas[of_class]))
    if not norms:
        raise UserError("The training images have no object, so there is nothing to fit.")
    scales = NORM / np.maximum(np.mean(norms, 0), 1e-9)

    kernel, bias = [], []
    for of_class in pairs:
        x, y = (np.concatenate(parts) for parts in zip(*of_class, strict=True))
        weights, constants = fit_ridge(x * scales[1], y, RIDGE)
        kernel.append(weights * scales[1])
        bias.append(constants)
    model.get_layer("box_regressor").set_weights([np.concatenate(kernel, 1), np.concatenate(bias)])

    svms = [MinedSVM(np.concatenate(parts) * scales[0]) for parts in of_objects]
    for image, objects, classes, proposals in _each_image(images()):
        boxes = np.concatenate([objects, proposals])
        if len(boxes):
            hidden = features.predict_on_batch([image, boxes[None]])[0] * scales[0]
        for number, svm in enumerate(svms):
            of_class = objects[classes == number]
            negative = np.ones(len(boxes), bool)
            if len(of_class):
                negative = _overlaps(boxes, of_class).max(1) < NEGATIVE
            if negative.any():
                svm.add(hidden[negative])
    for svm in svms:
        svm.fit()
    kernel = np.stack([svm.weights * scales[0] for svm in svms], 1)
    model.get_layer("svm").set_weights([kernel, np.array([svm.bias for svm in svms])])
    decode.fitted.assign(1.0)
    return True


def _each_image(batches):
    """Image `(1, ...)`, boxes and classes of the objects that count, and proposals, of each image."""
    for batch in batches:
        batch = {name: ops.convert_to_numpy(part) for name, part in batch.items()}
        for place in np.flatnonzero(batch["weight"] > 0):
            counts = (batch["classes"][place] >= 0) & (batch["crowd"][place] == 0)
            proposals = batch["proposals"][place]
            yield (
                batch["image"][place : place + 1],
                batch["boxes"][place][counts],
                batch["classes"][place][counts],
                proposals[(proposals[:, 2:] > proposals[:, :2]).all(1)],
            )


def _overlaps(boxes, others):
    return ops.convert_to_numpy(box_math.iou(boxes, others))


def _near(proposals, objects):
    """The places of proposals whose boxes are regressed, and those of their objects."""
    overlaps = _overlaps(proposals, objects)
    near = np.flatnonzero(overlaps.max(1) > NEAR) if len(proposals) else np.zeros(0, int)
    return near, overlaps[near].argmax(1) if len(near) else near
