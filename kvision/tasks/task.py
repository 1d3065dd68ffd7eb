"""The interface between a task and what trains, evaluates and exports its networks."""

import abc
import dataclasses
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from kvision import networks, visualize
from kvision.data.images import read_pixels
from kvision.data.sources import Source
from kvision.errors import UserError


SIGNATURE = "serving_default"  # of a file that has one alone, as TensorFlow calls it


@dataclass(frozen=True)
class Answers:
    """Answers of a network on some images.

    Attributes:
        probabilities: float32 `(images, classes)`, or `(images, positions, classes)` of some pixels of each.
        logits: what its activation is given, of a softmax less the mean over the classes; of the same shape.
        classes: the most probable class, integers `(images,)`, or `(images, height, width)` of all pixels; of
            sigmoids whether an image has each class, `(images, classes)`.
    """

    probabilities: np.ndarray
    logits: np.ndarray
    classes: np.ndarray

    def of(self, images) -> "Answers":
        """The answers on some of the images, by their numbers."""
        return Answers(self.probabilities[images], self.logits[images], self.classes[images])

    def at(self, image: int) -> tuple:
        """The answer for an image, as `Exported.caption` takes it."""
        return self.classes[image], self.probabilities[image]


@dataclass(frozen=True)
class Score:
    """A metric in [0, 1].

    Attributes:
        value: over all images.
        interval: in which it lies with 95 %; None where that is not known.
    """

    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Accuracy:
    """Metrics of a network against the targets.

    Attributes:
        scores: by their names, the one of `Task.score` first.
        drop: of the first against another network's, on the same images.
        drop_interval: in which that lies with 95 %; None where that is not known.
    """

    scores: dict[str, Score]
    drop: float
    drop_interval: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Task(abc.ABC):
    """A task that a network learns.

    A batch is a dict: `"image"`, float32 `(batch, height, width, channels)` in [0, 255]; `"weight"`, float32
    `(batch,)`, 0 for images that fill up a batch and count for nothing; and the task's targets. The methods
    on tensors use `keras.ops` alone and also run inside `strategy.run`.

    Attributes:
        name: key of the task in `kvision.tasks.TASKS`.
        target: name of the batch's field that is learned, see `kvision.data.load`.
        targets: what messages call several of them.
        input: name of the batch's field that the network is given.
        input_rank: of the input: 4 for images, 5 for clips, 3 for series.
        rank: of the output: 2 for one answer an image, 3 for any number of boxes, 4 for one a pixel.
        activation: from logits to probabilities: "softmax", where one class is right, or "sigmoid", where any
            number of them is; "" where the network ends in neither.
        building: keywords with which builders give networks to train.
        opening: settings with which the dataset is opened, see `open_source`.
        fewest_classes: with fewer there is nothing to learn.
        learner: task of the networks that learn it; "" for its own.
        kind: what messages call one of the things that it judges.
        images: whether the network sees images, which are resized and augmented.
        refused: settings of a training that are not for it.
        own_size: whether answers are judged at the images' own sizes, and not as the network sees them.
        monitor: metric by which the best epoch is chosen; higher is better. Of equal ones the lower loss is.
        score: metric by which an exported file is judged, as reports call it; higher is better.
        compared: fields of a batch that `Exported.compare` takes, at the images' own sizes; () for the target
            alone, as the network sees it.
        agreement: a clause on the share of answers that an exported file has in common with the Keras model.
        one_class: whether an image has one class, so that a model's accuracy is compared with chance, and its
            pixels are doubted.
        class_names: in the order of the outputs.
    """

    name: ClassVar[str]
    target: ClassVar[str]
    targets: ClassVar[str]
    input: ClassVar[str] = "image"
    input_rank: ClassVar[int] = 4
    rank: ClassVar[int]
    activation: ClassVar[str] = "softmax"
    building: ClassVar[Mapping[str, object]] = {"classifier_activation": None}
    opening: ClassVar[tuple[str, ...]] = ()
    fewest_classes: ClassVar[int] = 2
    learner: ClassVar[str] = ""
    kind: ClassVar[str] = "image"
    images: ClassVar[bool] = True
    refused: ClassVar[tuple[str, ...]] = ()
    own_size: ClassVar[bool] = False
    monitor: ClassVar[str]
    score: ClassVar[str]
    compared: ClassVar[tuple[str, ...]] = ()
    one_class: ClassVar[bool] = False
    agreement: ClassVar[str] = "it gives the Keras model's first class for {share} of {images}"

    class_names: tuple[str, ...]

    @classmethod
    def options(cls) -> list[str]:
        """The names of the task's own settings of a training, with which it is made."""
        return [f.name for f in dataclasses.fields(cls) if f.name != "class_names" and not f.metadata]

    @classmethod
    def settings(cls) -> set[str]:
        """The names of all settings of a training that other tasks may lack."""
        names = {field.name for field in dataclasses.fields(cls)}
        return {*cls.options(), *cls.opening, *(names & {"length"})}

    def network_keywords(self, variant, source: Source, image_shape: tuple, length: int | None) -> dict:
        """Keywords with which the network is built for a dataset.

        Args:
            variant: the network's row, with the columns that were given.
            source: the training's split.
            image_shape: `(height, width, channels)`.
            length: number of frames, words or steps that was asked for; None for the network's own.
        """
        return {"input_shape": image_shape, "num_classes": len(self.class_names)}

    def examples(self, source: Source) -> int:
        """The number of examples in an epoch of training."""
        return source.size

    def fitted(self, model):
        """The task with what the network decides, the fields marked `of_model`; by default as it is."""
        return self

    def check(self, source: Source) -> None:  # noqa: B027
        """Raises a UserError where the network cannot be given the examples of a source; by default never."""

    @property
    def draws(self) -> bool:
        """Whether predictions have `pictures`."""
        return False

    @property
    def loading(self) -> dict:
        """Keywords of `kvision.data.load`."""
        return {"target": self.target}

    @classmethod
    def serving(cls, model):
        """The network as it is used: one input, pixels in [0, 255], and one output, probabilities.

        Raises:
            UserError: the network has other inputs or outputs.
        """
        return networks.with_probabilities(model, cls.rank, cls.activation, cls.input_rank)

    @classmethod
    def fits(cls, model) -> bool:
        """Whether a network has such inputs and outputs."""
        return networks.rank_of(model) == cls.rank and len(networks.image_shape(model)) == cls.input_rank

    @classmethod
    def classes_of(cls, model) -> int:
        """The number of classes that a network tells apart."""
        return model.output_shape[-1]

    @classmethod
    def trained(cls, model):
        """The network that is trained: the model, or another one of its layers. Its input is `inputs`."""
        return model

    @abc.abstractmethod
    def preview(self, model, batch: Mapping[str, np.ndarray]) -> list[tuple[Image.Image, str]]:
        """A picture of each image of a training batch with its target, and a caption, which may be empty.

        Args:
            model: the network.
            batch: see `Task`, as arrays.
        """

    def doubts(self, model, batches: Iterable[Mapping[str, np.ndarray]]) -> list[str]:
        """Sentences on training images that a network cannot learn well; by default none."""
        return []

    @classmethod
    def last_stages(cls, model):
        """What the best epoch's model learns after the last epoch; by default None.

        Returns:
            None, or a function of the model, whose weights it changes, and of a function that gives batches
            of the training images; it returns whether there was something to learn.
        """
        return None

    def inputs(self, batch):
        """The part of a batch that the trained network is given."""
        return batch[self.input]

    def served(self, batch):
        """The part of a batch that the network is given where it is used, see `serving`."""
        return batch[self.input]

    def ask(self, model, batch, drawn: bool = False):
        """The answers of a network to a batch, as `judge` and `restore` take them.

        Args:
            model: see `serving`.
            batch: see `Task`, as arrays.
            drawn: whether the answers have all that `pictures` needs.
        """
        return model.predict_on_batch(self.served(batch))

    @abc.abstractmethod
    def losses(self, outputs, batch, training: bool) -> dict:
        """Terms of the loss, float32 `(batch,)` each, whose sum is minimised.

        Args:
            outputs: of the network, float32; a dict where the network has several.
            batch: the batch.
            training: whether the terms are those of training, such as those of auxiliary heads.

        Returns:
            The terms by the names under which they are logged. A term called "loss" is logged in place of
            the sum of all.
        """

    @abc.abstractmethod
    def sums(self, outputs, batch) -> dict:
        """Sums over a batch from which metrics are computed, float32 of any shape.

        Images of weight 0 add nothing.
        """

    def kept(self, outputs, batch) -> dict:
        """Tensors `(batch, ...)` of which `metrics` needs each evaluated image's row; by default none.

        Args:
            outputs: of the network in inference mode.
            batch: see `Task`; rows of images of weight 0 are kept too.
        """
        return {}

    def metrics(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Metrics from sums over any number of batches; by default the means over the images.

        Args:
            sums: those of `sums`, those of the terms of the loss under their names, and "images", the number
                of images, at least one; in evaluation also lists of the rows that `kept` gives.
        """
        return {name: float(value / sums["images"]) for name, value in sums.items() if name != "images"}

    def items(self, paths: Iterable[str]) -> list[tuple[str, Any]]:
        """What there is to predict in files: names to print, and what `read` takes; by default images."""
        return [(path, path) for path in paths]

    def read(self, item, channels: int, exif: bool) -> np.ndarray:
        """Reads one of the `items`.

        Args:
            item: by default the path of an image.
            channels: of the network's input, or features.
            exif: whether images are turned as their EXIF orientation says.

        Returns:
            What `prepare` takes.

        Raises:
            UserError: it cannot be read.
        """
        if not os.path.isfile(item):
            raise UserError(f"{item!r} failed to decode: it is a broken link, or not a file.")
        return read_pixels(item, channels, exif)

    @abc.abstractmethod
    def prepare(self, image, size, *, crop, interpolation):
        """Fits an image to a network's input.

        Args:
            image: pixels `(height, width, channels)` in [0, 255].
            size: `(height, width)` of the network's input.
            crop, interpolation: see `kvision.data.load`.

        Returns:
            float32 `(*size, channels)` in [0, 255].
        """

    @abc.abstractmethod
    def restore(self, answer, shape: tuple[int, int], size: tuple[int, int]):
        """The prediction for an image, from the network's answer.

        Args:
            answer: of the network: probabilities, or a dict of its outputs.
            shape: `(height, width)` of the image.
            size: `(height, width)` of the network's input.
        """

    @abc.abstractmethod
    def judge(self, answers, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Sums for `report`: "images" and what the task adds; a list where an item an image is kept.

        Args:
            answers: of the network to the images of a batch: probabilities, or a dict of its outputs.
            batch: see `Task`; with `own_size`, targets are of the images' own sizes.
        """

    @abc.abstractmethod
    def figures(self, sums: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The metrics by name, from the sums of `judge`; those of each class by its name, NaN for none."""

    @abc.abstractmethod
    def report(self, sums: Mapping[str, np.ndarray]) -> str:
        """The metrics in words, on one or more lines, from the sums of `judge`."""

    def remarks(self, sums: Mapping[str, np.ndarray]) -> list[str]:
        """Sentences on what a reader of the metrics should know, from the sums of `sums` or `judge`.

        Raises:
            UserError: there is nothing to learn.
        """
        return []

    def detections(self, prediction) -> list[dict]:
        """The objects of a prediction, for COCO's results; none by default.

        Args:
            prediction: what `restore` returned.

        Returns:
            Dicts of "class", a place in `class_names`; "bbox", left, top, width and height in pixels; and
            "score".
        """
        return []

    @abc.abstractmethod
    def describe(self, prediction, most: int) -> list[str]:
        """Lines on a prediction.

        Args:
            prediction: what `restore` returned.
            most: number of classes or boxes that are named.
        """

    def pictures(self, image: np.ndarray, prediction) -> dict:
        """Pictures of a prediction, `PIL.Image` by the ending of the file's name; none by default.

        Args:
            image: pixels `(height, width, channels)` in [0, 255].
            prediction: what `restore` returned.
        """
        return {}


class Exported(Task):
    """A task whose networks are exported.

    Attributes:
        answers: class of the answers by which exported files are judged; it has the methods of `Answers`.
        output: content of the files' outputs, one of `kvision_export.metadata.OUTPUTS`.
        ways: flags of `kvision-export` that ask for other `signatures`.
        tensors: sentences on the inputs and outputs of files with signatures, by their names.
    """

    answers: ClassVar[type]
    output: ClassVar[str]
    ways: ClassVar[tuple[str, ...]] = ()
    tensors: ClassVar[Mapping[str, str]] = {}

    @classmethod
    @abc.abstractmethod
    def exported(cls, model):
        """The network that a file holds, from one that is used.

        Raises:
            UserError: the network has other inputs or outputs.
        """

    def preview(self, model, batch):
        """See `Task.preview`: the targets are captions."""
        return [
            (self.shown(image), self.caption(target))
            for image, target in zip(batch[self.input], self.truths(batch), strict=True)
        ]

    @property
    def about(self) -> str:
        """A sentence on what users of files need to know; "" where there is nothing."""
        return ""

    @classmethod
    def signatures(cls, model, way: str = "") -> dict:
        """The networks that a file holds, by the names of their signatures.

        Args:
            model: what `exported` returned.
            way: one of `ways`; "" for the one without a flag.

        Raises:
            UserError: the network has no such form.
        """
        return {SIGNATURE: model}

    def truths(self, batch):
        """The targets of a batch, as `compare` takes them; a dict where they have several fields."""
        return {name: batch[name] for name in self.compared} or batch[self.target]

    def shown(self, example: np.ndarray) -> Image.Image:
        """A picture of what the network is given."""
        return visualize.picture(example)

    @abc.abstractmethod
    def compare(self, found, expected, targets) -> Accuracy:
        """Metrics of a network beside those of another one on the same images.

        Args:
            found: answers of the network.
            expected: those of the other.
            targets: of the images, see `kvision_export.export`.
        """

    def target_at(self, targets, image: int, size: tuple[int, int]):
        """The target of an image, as `caption` takes it.

        Args:
            targets: as for `compare`.
            image: number of the image.
            size: `(height, width)` of the networks' input.
        """
        return targets[image]

    @abc.abstractmethod
    def caption(self, answer, probabilities: np.ndarray | None = None) -> str:
        """A few words on an answer or a target.

        Args:
            answer: of an image: its classes, see `Answers`, or its boxes.
            probabilities: those of the classes; None for a target.
        """

    def comparable(self, answer, target):
        """The part of an answer that is compared with a target; by default all.

        Args:
            answer, target: as `caption` takes them.
        """
        return answer

    def picture(self, image: np.ndarray, answer) -> Image.Image | None:
        """A picture of an answer or a target on its image; None where `caption` says all."""
        return None


class Classifying(Exported):
    """A task whose answers are classes, of images or of their pixels."""

    answers: ClassVar = Answers
    output: ClassVar = "probabilities"

    @classmethod
    def exported(cls, model):
        """See `Exported.exported`: the network itself, which must end in probabilities."""
        networks.check(model, cls.rank, cls.input_rank)
        return model


def add(totals: dict, sums: Mapping) -> None:
    """Adds sums to those before, in double precision; lists are joined."""
    for name, value in sums.items():
        if isinstance(value, list):
            totals.setdefault(name, []).extend(value)
        else:
            totals[name] = totals.get(name, 0.0) + np.asarray(value, np.float64)
