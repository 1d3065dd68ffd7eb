"""Frozen rows that describe a network without building it, free of Keras."""

import dataclasses
import difflib
import fnmatch
import math
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kvision.errors import UserError

IMAGENET_MEAN = (123.675, 116.28, 103.53)  # 255 * (0.485, 0.456, 0.406)
IMAGENET_STD = (58.395, 57.12, 57.375)  # 255 * (0.229, 0.224, 0.225)
MOST_NAMES = 20  # that a message lists
Padding = Literal["same", "symmetric"]  # TensorFlow's, PyTorch's


@dataclass(frozen=True)
class Preprocess:
    """The normalisation `(pixel - mean) / std` of pixels in [0, 255].

    Attributes:
        mean: one value a channel, in pixel units.
        std: standard deviation (not variance), one value a channel, in pixel units.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self):
        for key in ("mean", "std"):
            try:
                values = tuple(float(value) for value in getattr(self, key))
            except (TypeError, ValueError):
                values = ()
            if not values or not all(map(math.isfinite, values)):
                raise UserError(f"`{key}` must be one number a channel; got {getattr(self, key)!r}.")
            object.__setattr__(self, key, values)
        if len(self.mean) != len(self.std):
            raise UserError(
                f"`mean` and `std` need one value a channel each; got {self.mean} and {self.std}."
            )
        if not all(0 < std < math.inf for std in self.std) or not all(map(math.isfinite, self.mean)):
            raise UserError(f"`std` must be positive and `mean` finite; got {self.mean} and {self.std}.")

    @property
    def scale(self) -> tuple[float, ...]:
        return tuple(1 / std for std in self.std)

    @property
    def offset(self) -> tuple[float, ...]:
        return tuple(-mean / std for mean, std in zip(self.mean, self.std, strict=True))

    @property
    def constants(self) -> tuple:
        """Scale and offset of a `Rescaling`.

        Each is one value where that of all channels is equal, which phones' runtimes broadcast faster than a
        vector.
        """
        return tuple(values[0] if len({*values}) == 1 else values for values in (self.scale, self.offset))

    def __str__(self):
        mean, std = ([f"{value:.6g}" for value in values] for values in (self.mean, self.std))
        mean, std = (v[0] if len({*v}) == 1 else f"({', '.join(v)})" for v in (mean, std))
        return f"(pixel - {mean}) / {std}"

    def for_channels(self, channels: int) -> "Preprocess":
        """The same normalisation for another number of channels.

        The constants are repeated in turn, as the kernels of published weights are.
        """
        turns = [i % len(self.mean) for i in range(channels)]
        return Preprocess(tuple(self.mean[i] for i in turns), tuple(self.std[i] for i in turns))


PLUS_MINUS_ONE = Preprocess((127.5,) * 3, (127.5,) * 3)
IMAGENET = Preprocess(IMAGENET_MEAN, IMAGENET_STD)
RAW = Preprocess((0.0,) * 3, (1.0,) * 3)  # pixels as they are


def column(
    default=dataclasses.MISSING, *, fixed: bool = False, free: bool = False, same_shapes: bool = False
) -> Any:
    """A column of a family's table that says more of itself than its type and default.

    Classes that give the column another default inherit what it says.

    Args:
        default: the value of rows that give none.
        fixed: whether no keyword of a builder may override it.
        free: whether weights that were trained with another value keep their meaning, or are adapted.
        same_shapes: whether such weights lose their meaning, but have the same shapes.
    """
    return dataclasses.field(
        default=default, metadata={"fixed": fixed, "free": free, "same_shapes": same_shapes}
    )


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of a family's table; families add their own columns.

    Attributes:
        params: trainable parameters of the network as published, with its source in the table.
        input_size: height and width in pixels that the network was published for.
        num_classes: that the network was published for.
        preprocess: normalisation of the input, which has as many channels.
        dropout_rate: dropout before the classifier.
    """

    params: int | None = column(None, fixed=True)
    input_size: int = column(224, fixed=True)
    num_classes: int = column(1000, fixed=True)
    preprocess: Preprocess = column(IMAGENET, fixed=True)
    dropout_rate: float = column(0.0, free=True)

    @property
    def image_size(self) -> int:
        """Height and width of the default input, in pixels."""
        return self.input_size

    @property
    def input_text(self) -> str:
        """The default input in words: of an image, the side in pixels."""
        return str(self.image_size)

    @classmethod
    def columns(cls) -> list[str]:
        """The columns that a builder's keywords may override."""
        fixed = cls.marked("fixed")
        return [field.name for field in dataclasses.fields(cls) if field.name not in fixed]

    @classmethod
    def marked(cls, mark: Literal["fixed", "free", "same_shapes"]) -> set[str]:
        """The columns that say something of themselves, by the keyword of `column`."""
        tables = filter(dataclasses.is_dataclass, cls.__mro__)
        return {
            field.name for table in tables for field in dataclasses.fields(table) if field.metadata.get(mark)
        }


@dataclass(frozen=True, kw_only=True)
class BatchNormVariant(Variant):
    """A row of a family with batch normalisation.

    Attributes:
        norm_epsilon: added to the variance.
        norm_momentum: decay of the moving statistics (Keras' sense: 1 - PyTorch's).
    """

    norm_epsilon: float = column(1e-5, same_shapes=True)
    norm_momentum: float = column(0.9, free=True)


@dataclass(frozen=True)
class Weights:
    """A published checkpoint: one row of `kvision.list_weights()`.

    Attributes:
        model: the builder's name.
        tag: what the builder's `weights=` takes; unique among a model's rows of the same columns.
        source: where it lives: `hf-hub:OWNER/REPOSITORY`, `keras:APPLICATION` or the URL of a file.
        license: as its publisher states it; None where none is stated.
        preprocess: normalisation that it was trained with, in pixel units.
        num_classes: 0 where there is no classifier.
        input_size: height and width that it was trained for, in pixels.
        test_size: height and width that its publisher recommends for evaluation, in pixels.
        crop: share of the resized image's side that is evaluated at `input_size`.
        test_crop: the same at `test_size`.
        interpolation: of the resizing, "bilinear" or "bicubic".
        top1: published accuracy on ImageNet's validation images in percent, None where none is published.
            From timm's results file, torchvision's weight enums or TensorFlow's documentation, by the source.
        top1_size: height and width at which that was measured, in pixels.
        columns: the keywords that the builder needs, and their values; None where they are not known.
        default: whether `weights="imagenet"` means this row.
        miou: published mean intersection over union in percent, of networks that classify pixels.
        ap: published average precision on COCO's val2017 in percent, of detectors.
    """

    model: str
    tag: str
    source: str
    license: str | None
    preprocess: Preprocess
    num_classes: int
    input_size: int
    test_size: int
    crop: float
    test_crop: float
    interpolation: str
    top1: float | None
    top1_size: int | None = None
    columns: Mapping[str, Any] | None = dataclasses.field(default_factory=dict, hash=False)
    default: bool = False
    miou: float | None = None
    ap: float | None = None


@dataclass(frozen=True)
class ModelInfo:
    """The registry's description of a network.

    Attributes:
        name: the builder's name.
        family: the networks of one table and trunk that it belongs to, such as "mobilenet_v2".
        variant: its row of the family's table.
        weights: its published checkpoints.
        classifier: the name of its classifier's layer.
        task: "classification", "segmentation", "detection", "forecasting", "sequence", "video" or
            "captioning".
    """

    name: str
    family: str
    variant: Variant
    weights: tuple[Weights, ...] = ()
    classifier: str = "classifier"
    task: str = "classification"


def select(pattern: str, names: Iterable[str], kind: str) -> set[str]:
    """The names that match a shell pattern; for a word, the name that it is, or else all that contain it.

    Capitals in the pattern match small letters, which names have.

    Raises:
        UserError: no name contains the word; the sentence calls the names by their kind, such as "model".
    """
    if not isinstance(pattern, str):
        raise UserError(f"`pattern` must be a text such as '*resnet*'; got {reprlib.repr(pattern)}.")
    names = set(names)
    wild = any(character in pattern for character in "*?[")
    pattern = pattern if pattern in names else pattern.lower()
    chosen = set(fnmatch.filter(names, pattern if wild or pattern in names else f"*{pattern}*"))
    if not wild and not chosen:
        families = {name.partition(".")[0] for name in names}
        raise UserError(f"Unknown {kind} {pattern!r}. {did_you_mean(pattern, families | names)}")
    return chosen


def nearest(word: str, known: Iterable[str]) -> str:
    """A sentence that names what is nearest to `word`; empty where nothing is."""
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(map(repr, near))}?" if near else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence that names what is nearest to `word`, or what is known where nothing is."""
    known = sorted(set(known))
    if near := nearest(word, known):
        return near
    more = f" and {len(known) - MOST_NAMES} more" if len(known) > MOST_NAMES else ""
    return f"Valid names: {', '.join(known[:MOST_NAMES])}{more}."
