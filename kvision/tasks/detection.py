"""Object detection: boxes of any number, each of one class."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kvision import detection, networks, visualize
from kvision.average_precision import Scores, coco_matches, coco_scores, voc_matches, voc_scores
from kvision.data.images import CORNER_GREY, letterbox, place, unletterbox_boxes
from kvision.errors import UserError
from kvision.keras_internals import all_layers
from kvision.layers import DefaultBoxes, NonMaxSuppression
from kvision.names import counted
from kvision.tasks.detections import DETECTIONS, Detections
from kvision.tasks.task import Accuracy, Exported, Score

LETTERBOX = "corner"  # as YOLOX and torchvision's R-CNNs are trained
DRAWN = 0.25  # lowest score of boxes in pictures, as in the demonstration of YOLOX' authors
GIVEN = ("image", "proposals")
MEANS = ("ap", "ap50", "ap75")
OBJECTS = ("boxes", "classes", "crowd", "area")
MATCHES = ("positives", "scores", "classes", "ranks", "outcomes")


@dataclass(frozen=True, kw_only=True)
class Detection(Exported):
    """Detectors of `kvision.detection`, and as targets the objects in an image, in its pixels.

    A batch has `"boxes"`, float32 `(batch, most, 4)`; `"classes"`, int32 `(batch, most)`, -1 where there is
    no object; and `"crowd"`, `(batch, most)`, 1 for objects that count for nothing. For networks that take
    them it has `"proposals"`, `(batch, proposals, 4)`. The terms of the loss are those of the network's
    paper.

    Attributes:
        letterbox: how the network is given whole images, see `kvision.data.load`.
        proposals: number of proposals that the network is given beside an image; 0 for none.
    """

    name: ClassVar = "detection"
    target: ClassVar = "boxes"
    targets: ClassVar = "boxes"
    rank: ClassVar = 3
    activation: ClassVar = ""
    building: ClassVar = {}
    fewest_classes: ClassVar = 1
    own_size: ClassVar = True
    monitor: ClassVar = "ap"
    score: ClassVar = "AP"
    agreement: ClassVar = "it has {share} of the Keras model's detections on {images}"
    answers: ClassVar = Detections
    output: ClassVar = "detections"
    compared: ClassVar = (*OBJECTS, "size")

    letterbox: str = dataclasses.field(default=LETTERBOX, metadata={"of_model": True})
    proposals: int = dataclasses.field(default=0, metadata={"of_model": True})

    @property
    def draws(self):
        """See `Task.draws`."""
        return True

    def fitted(self, model):
        """With what the network is given: SSD's anchors are shares of a stretched image."""
        stretched = any(isinstance(layer, DefaultBoxes) for layer in all_layers(model))
        proposals = networks.proposals_of(model)
        return dataclasses.replace(self, letterbox="stretch" if stretched else LETTERBOX, proposals=proposals)

    @classmethod
    def fits(cls, model):
        """See `Task.fits`: whether it ends in detections."""
        outputs = getattr(model, "output", None)
        return isinstance(outputs, dict) and {*outputs} == {*DETECTIONS}

    @classmethod
    def serving(cls, model):
        """The network itself."""
        return model

    @classmethod
    def exported(cls, model):
        """The network with the outputs of TFLite's `TFLite_Detection_PostProcess`, in their order.

        Returns:
            A model of a fixed input size, with the network's inputs, to a dict of float32 outputs: "boxes"
            `(batch, most, 4)` as ymin, xmin, ymax and xmax in [0, 1] of the input; "classes" and "scores"
            `(batch, most)`; and "number" `(batch,)`, how many there are.

        Raises:
            UserError: it has other inputs than images and a fixed number of proposals.
        """
        if len(model.inputs) != 1 and not networks.proposals_of(model):
            raise UserError(
                f"{model.name} must have one input, of images, or a dict of 'image' and a fixed number of "
                "'proposals', to be exported."
            )
        found = model.output
        sides = np.array(networks.image_shape(model)[1:3] * 2, "float32")
        left, top, right, bottom = ops.split(found["boxes"], 4, -1)
        boxes = ops.clip(ops.concatenate([top, left, bottom, right], -1) / sides, 0.0, 1.0)
        outputs = {
            "boxes": boxes,
            "classes": ops.cast(found["classes"], "float32"),
            "scores": found["scores"],
            "number": ops.cast(found["count"], "float32"),
        }
        return keras.Model(model.input, outputs, name=model.name)

    @classmethod
    def classes_of(cls, model):
        """See `Task.classes_of`."""
        return next(
            layer.input[1].shape[-1] for layer in all_layers(model) if isinstance(layer, NonMaxSuppression)
        )

    @classmethod
    def trained(cls, model):
        """See `kvision.detection.with_losses`."""
        return detection.with_losses(model)

    @property
    def loading(self):
        """See `Task.loading`."""
        return super().loading | {"letterbox": self.letterbox, "proposals": self.proposals}

    def preview(self, model, batch):
        """See `Task.preview`: the images with their objects, and thin lines around what learns each."""
        batch = self._counted(batch)
        found = detection.assigned(model, batch["image"], batch["boxes"], batch["classes"])
        pictures = []
        for number, image in enumerate(batch["image"]):
            real = batch["classes"][number] >= 0
            thin = None
            if found:
                objects, places = np.nonzero(found.chosen[number])
                thin = found.places[number][places], batch["classes"][number][objects]
            boxes, classes = batch["boxes"][number][real], batch["classes"][number][real]
            picture = visualize.draw_boxes(image, boxes, classes, class_names=self.class_names, thin=thin)
            pictures.append((picture, ""))
        return pictures

    def doubts(self, model, batches):
        """The share of objects that no anchor or cell takes."""
        images, objects, missed, found = 0, 0, 0, None
        for batch in map(self._counted, batches):
            found = detection.assigned(model, batch["image"], batch["boxes"], batch["classes"])
            if found is None:
                return []
            images += len(batch["image"])
            objects += np.sum(batch["classes"] >= 0)
            missed += np.sum(found.missed)
        if not found or not missed:
            return []
        share = f"{100 * missed / objects:.1f} % of the {counted(int(objects), 'object')}"
        return [f"{share} in the first {counted(images, 'training image')} {found.reason}."]

    @staticmethod
    def _counted(batch):
        """The batch, in which ignored objects have the class -1."""
        return {**batch, "classes": np.where(batch["crowd"] > 0, -1, batch["classes"])}

    @classmethod
    def last_stages(cls, model):
        """See `kvision.detection.fit_stages`."""
        return detection.last_stages(model)

    def inputs(self, batch):
        """What is served and the objects, of which those that are ignored have the class -1."""
        counts = (batch["crowd"] == 0) & (batch["weight"][:, None] > 0)
        classes = ops.where(counts, batch["classes"], -1)
        objects = {"true_boxes": batch["boxes"], "true_classes": classes}
        return {name: batch[name] for name in GIVEN if name in batch} | objects

    def served(self, batch):
        """The image, or a dict of it and its proposals, where the network takes these."""
        return {name: batch[name] for name in GIVEN} if "proposals" in batch else batch["image"]

    def losses(self, outputs, batch, training):
        """See `Task.losses`: the terms of the network's paper."""
        return {name: term for name, term in outputs.items() if name.endswith("_loss")}

    def sums(self, outputs, batch):
        """None, as average precision does not add up."""
        return {}

    def kept(self, outputs, batch):
        """The detections and the objects of each image, in pixels of the network's input."""
        objects = {f"true_{name}": batch[name] for name in ("boxes", "classes", "crowd")}
        rows = {name: outputs[name] for name in DETECTIONS} | objects | {"counts": batch["weight"]}
        return {name: ops.cast(part, "float32") for name, part in rows.items()}  # which workers can gather

    def metrics(self, sums):
        """The terms of the loss and, in evaluation, COCO's AP, AP50 and AP75, 0 where there is no object."""
        rows = {name: value for name, value in sums.items() if isinstance(value, list)}
        means = super().metrics({name: value for name, value in sums.items() if name not in rows})
        if not rows:
            return means
        matches: dict = {}
        for place_, counts in enumerate(rows["counts"]):
            if counts:
                one = {name: part[place_] for name, part in rows.items()}
                self._add(matches, one, one["true_boxes"], one["true_classes"], one["true_crowd"])
        scores = coco_scores(matches).means
        return means | {name: float(np.nan_to_num(scores[name])) for name in MEANS}

    def prepare(self, image, size, *, crop, interpolation):
        """See `Task.prepare`: the whole image, in the upper left corner on grey, or stretched."""
        resized, offset = letterbox(tf.shape(image)[:2], size, self.letterbox)
        return place(image, size, resized, offset, interpolation, CORNER_GREY)

    def restore(self, answer, shape, size):
        """The detections of an image in its own pixels, the best first: its boxes, scores and classes."""
        shapes = np.array([shape], np.int32)
        boxes = unletterbox_boxes(answer["boxes"][None], shapes, size, self.letterbox)[0]
        parts = answer | {"boxes": np.asarray(boxes)}
        return {name: parts[name][: int(answer["count"])] for name in DETECTIONS[:3]}

    def judge(self, answers, batch):
        """The matches of detections and objects, by COCO's rules, at the images' own sizes."""
        images = np.sum(batch["weight"])
        return {"images": images} | self._matches_of(answers, batch, batch["image"].shape[1:3])

    def figures(self, sums):
        """The means of `scores`, and "class_ap", average precision by class.

        Raises:
            UserError: there is no object in the images.
        """
        scores = self.scores(sums)
        if not np.isfinite(scores.class_ap).any():
            raise UserError("The images have no object that counts, so there is no average precision.")
        by_class = dict(zip(self.class_names, scores.class_ap.tolist(), strict=True))
        return {**scores.means, "class_ap": by_class}

    def report(self, sums):
        """The means, and the average precision of each class.

        Raises:
            UserError: see `figures`.
        """
        figures = self.figures(sums)
        by_class = figures.pop("class_ap")
        means = [
            f"{name[:2].upper()}{name[2:].replace('_', ' ')} {100 * value:.2f} %"
            for name, value in figures.items()
            if np.isfinite(value)
        ]
        width = max(map(len, self.class_names))
        lines = [
            f"  {name:{width}}  {'no object' if np.isnan(value) else f'{100 * value:6.2f} %'}"
            for name, value in by_class.items()
        ]
        return "\n".join([", ".join(means), *lines])

    def scores(self, sums) -> Scores:
        """COCO's metrics from the sums of `judge`."""
        return coco_scores({name: sums[name] for name in MATCHES})

    def detections(self, prediction):
        """See `Task.detections`."""
        boxes, scores, classes = (prediction[name] for name in DETECTIONS[:3])
        sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
        columns = (part.tolist() for part in (classes, sides, scores))
        return [
            {"class": int(number), "bbox": box, "score": score}
            for number, box, score in zip(*columns, strict=True)
        ]

    def compare(self, found, expected, targets):
        """COCO's AP, AP50 and AP75, at the images' own sizes."""
        ours, theirs = (
            coco_scores(self._matches_of(vars(answers), targets, answers.size)).means
            for answers in (found, expected)
        )
        ours, theirs = ({name: float(np.nan_to_num(of[name])) for name in MEANS} for of in (ours, theirs))
        scores = {name.upper(): Score(value) for name, value in ours.items()}
        return Accuracy(scores, drop=theirs["ap"] - ours["ap"])

    def target_at(self, targets, image, size):
        """See `Exported.target_at`: boxes in pixels of the network's input, and classes."""
        real, shape = targets["classes"][image] >= 0, targets["size"][image]
        resized, _ = letterbox(shape, size, self.letterbox)
        factors = np.tile(np.asarray(resized)[::-1] / shape[::-1], 2)
        return {"boxes": targets["boxes"][image][real] * factors, "classes": targets["classes"][image][real]}

    def caption(self, answer, probabilities=None):
        """The number of boxes that are drawn, by class."""
        classes = self._drawn(answer)["classes"]
        names = [self.class_names[number] for number in np.unique(classes)]
        counts = np.unique(classes, return_counts=True)[1]
        return ", ".join(f"{count} {name}" for name, count in zip(names, counts, strict=True)) or "none"

    def picture(self, image, answer):
        """The image with the boxes of scores from `DRAWN` on."""
        return visualize.draw_boxes(image, **self._drawn(answer), class_names=self.class_names)

    def describe(self, prediction, most):
        """The best detections: score, class and box."""
        lines = []
        for box, score, number in list(zip(*prediction.values(), strict=True))[:most]:
            corners = ", ".join(f"{side:.0f}" for side in box)
            lines.append(f"{100 * score:5.1f} %  {int(number)}  {self.class_names[int(number)]}  ({corners})")
        return lines

    def pictures(self, image, prediction):
        """The image with the boxes of scores from `DRAWN` on."""
        return {"_boxes.png": self.picture(image, prediction)}

    def _drawn(self, prediction) -> dict:
        if "scores" not in prediction:  # of a target
            return prediction
        drawn = prediction["scores"] >= DRAWN
        return {name: part[drawn] for name, part in prediction.items()}

    def _matches_of(self, answers, batch, size) -> dict:
        """The matches of detections with the objects of their images, at the images' own sizes."""
        matches: dict = {}
        for number, shape in enumerate(batch["size"]):
            answer = {name: answers[name][number] for name in DETECTIONS}
            found = self.restore(answer, tuple(shape), size) | {"count": answer["count"]}
            self._add(matches, found, *(batch[name][number] for name in OBJECTS))
        return matches

    def _add(self, matches, found, boxes, classes, crowd, area=None) -> None:
        """Adds the matches of an image, see `coco_matches`."""
        count, real = int(found["count"]), classes >= 0
        of_image = self._match(
            found["boxes"][:count],
            found["scores"][:count],
            found["classes"][:count],
            boxes[real],
            classes[real],
            len(self.class_names),
            crowd[real],
            None if area is None else area[real],
        )
        for name, value in of_image.items():
            matches[name] = matches[name] + value if name in matches else value

    def _match(self, *arguments) -> dict:
        return coco_matches(*arguments)


@dataclass(frozen=True, kw_only=True)
class VOCDetection(Detection):
    """Detection that is judged by VOC's average precision; its crowds are VOC's difficult objects.

    Attributes:
        eleven_points: whether precision is averaged over 11 recalls, as until VOC2009, and not over all.
    """

    eleven_points: bool = False

    def scores(self, sums):
        """VOC's metric from the sums of `judge`."""
        return voc_scores({name: sums[name] for name in MATCHES}, self.eleven_points)

    def _match(self, *arguments):
        return voc_matches(*arguments[:-1])  # VOC knows no areas
