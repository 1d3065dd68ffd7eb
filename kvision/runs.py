"""Opening what can be evaluated, predicted with or exported: a run folder, a file, a name."""

import sys
from dataclasses import dataclass
from pathlib import Path

import keras

from kvision import _classifiers, labels, registry
from kvision import weights as published
from kvision.data import Data, load
from kvision.data.sources import FORMS
from kvision.errors import UserError
from kvision.spec import did_you_mean

WEIGHTS = "imagenet, a tag that kvision-info lists, hf-hub:OWNER/REPOSITORY or a file"  # for commands
MODEL, LABELS, FLAGS = "model.keras", "labels.txt", "flags.txt"


@dataclass(frozen=True)
class Opened:
    """A network and what belongs to it.

    Attributes:
        model: from pixels in [0, 255] to probabilities.
        class_names: in the order of the outputs.
        flags: those that a run folder was trained with, by name; empty for others.
        crop: share of the resized image's side that the network is evaluated on.
        interpolation: "bilinear" or "bicubic", of that resizing.
    """

    model: keras.Model
    class_names: tuple[str, ...]
    flags: dict[str, str]
    crop: float = 1.0
    interpolation: str = "bilinear"

    @property
    def image_size(self) -> tuple[int, int]:
        height, width = self.model.input_shape[1:3]
        if height is None or width is None:
            raise UserError(f"{self.model.name} takes images of any size: give `image_size`.")
        return height, width


def open_model(source: str, weights: str | None = None, image_size: int | None = None) -> Opened:
    """Opens a network with probabilities as its output.

    Args:
        source: a folder that `kvision-train` wrote, a `.keras` file, or one of `kvision.list_models()`.
        weights: of a name, as its builder takes them.
        image_size: height and width, for a name or a file's network that takes any; None for the published
            size.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: an unknown name, a file that is no model, weights that do not fit.
    """
    path = Path(source)
    if source in registry.list_models():
        shape = image_size and (image_size, image_size, 3)
        model = registry.create_model(source, weights=weights, input_shape=shape)
        crop, interpolation = evaluation(source, weights, model.input_shape[1])
        return Opened(model, labels.default(model.output_shape[-1]), {}, crop, interpolation)
    if weights:
        raise UserError(f"`weights` go with a model's name; {source!r} is none.")
    if path.is_dir():
        if not (path / MODEL).is_file():
            raise FileNotFoundError(f"{source!r} is no run folder: it has no {MODEL}.")
        model = _read(path / MODEL, image_size)
        class_names = tuple(labels.read(path / LABELS))
        flags = read_flags(path)
        crop, interpolation = float(flags.get("crop", 1)), flags.get("interpolation", "bilinear")
        return Opened(model, class_names, flags, crop, interpolation)
    if source.endswith(".keras"):
        model = _read(path, image_size)
        return Opened(model, labels.default(model.output_shape[-1]), {})
    raise UserError(
        f"{source!r} is no run folder, .keras file or model's name. "
        f"{did_you_mean(source, registry.list_models())}"
    )


def evaluation(name: str, weights: str | None, image_size: int | None) -> tuple[float, str]:
    """The crop and the interpolation with which a network's weights were published.

    Args:
        name: one of `kvision.list_models()`.
        weights: as its builder takes them; of a file, those of "imagenet" are taken.
        image_size: height of the network's input, in pixels.
    """
    rows = published.matching(weights, name) or published.matching("imagenet", name)
    if not weights or not rows:
        return 1.0, "bilinear"
    row = rows[0]
    return row.test_crop if image_size == row.test_size else row.crop, row.interpolation


def open_trained(source: str, weights: str | None, image_size: int | None) -> Opened:
    """`open_model`, but a name without weights is a ValueError: its answers would mean nothing."""
    if source in registry.list_models() and weights is None:
        raise UserError(f"{source} has fresh weights: give trained ones with --weights, {WEIGHTS}.")
    return open_model(source, weights, image_size)


def load_data(
    opened: Opened,
    data: str | None,
    split: str,
    *,
    val_fraction: float,
    allow_outside: bool = False,
    crop: float | None = None,
    interpolation: str | None = None,
    **keywords,
) -> Data:
    """A split as a network takes it, see `kvision.data.load`.

    Args:
        opened: the network.
        data: a dataset's name; None for what a run folder was trained on.
        split: "train", "val", "test" or "all".
        val_fraction, allow_outside: see `kvision.data.load`; for a run's own data, those of its training.
        crop, interpolation: None for what belongs to the network.
        **keywords: of `kvision.data.load`.

    Raises:
        ValueError: no dataset is named, or its classes are not the network's.
    """
    if data is None:
        if "data" not in opened.flags:
            raise UserError(f"A dataset is needed for {opened.model.name}: {FORMS}.")
        data, val_fraction = opened.flags["data"], float(opened.flags["val_fraction"])
        allow_outside = allow_outside or opened.flags.get("allow_outside") == "true"
    channels = opened.model.input_shape[-1]
    loaded = load(
        data,
        split,
        image_size=opened.image_size,
        channels=channels,
        val_fraction=val_fraction,
        allow_outside=allow_outside,
        crop=opened.crop if crop is None else crop,
        interpolation=interpolation or opened.interpolation,
        **keywords,
    )
    if len(loaded.class_names) != len(opened.class_names):
        theirs, ours = len(loaded.class_names), len(opened.class_names)
        raise UserError(f"{data!r} has {theirs} classes, {opened.model.name} has {ours}.")
    return loaded


def read_flags(run) -> dict[str, str]:
    """The flags that a run folder was trained with, by name."""
    found = {}
    for line in filter(None, (Path(run) / FLAGS).read_text().splitlines()):
        name, equals, value = line.removeprefix("--").partition("=")
        if not equals:  # a switch
            name, value = name.removeprefix("no"), "false" if name.startswith("no") else "true"
        found[name] = value
    return found


def report_unreadable(names: list[str], strict: bool) -> None:
    """Says on stderr which files were no images; with `strict`, one such file is a ValueError."""
    if strict and names:
        raise UserError(f"{names[0]!r} is no image that can be read, and --strict asks for all.")
    for name in names:
        print(f"not an image: {name}", file=sys.stderr)
    if names:
        print(f"Left out {len(names)} that were no images.", file=sys.stderr)


def _read(path, image_size) -> keras.Model:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # whatever a damaged file makes its reader raise
        raise UserError(f"{str(path)!r} is no model that can be read: {error}") from None
    return _classifiers.of_size(_classifiers.with_probabilities(model), image_size)
