"""Opening what can be evaluated, predicted with or exported: a run folder, a file, a name."""

import dataclasses
import re
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras

import kvision.models  # this and the next two register all networks, and the layers that files name
import kvision.segmentation
import kvision.sequence  # noqa: F401
from kvision import labels, networks, registry, run_info, weights as published
from kvision.choices import WEIGHTS
from kvision.data.identity import Identity
from kvision.data.sources.voc import CLASSES as VOC_CLASSES
from kvision.errors import FULL_DISK, UserError
from kvision.names import listed
from kvision.run_info import RunInfo
from kvision.spec import did_you_mean
from kvision.tasks import TASKS, Task, task_of


@dataclass(frozen=True)
class Opened:
    """A network and what belongs to it.

    Attributes:
        model: from pixels in [0, 255] to probabilities.
        task: what it learned, with its class names, in the order of the outputs.
        named: whether these are names; else they are numbers in place of names.
        run: of a run folder; None for others.
        trained_on: identities of the splits that a run was trained on, by their names; empty for others.
        crop: share of the resized image's side that the network is evaluated on.
        interpolation: "bilinear" or "bicubic", of that resizing.
        exif: whether images are turned as their EXIF orientation says.
    """

    model: keras.Model
    task: Task
    named: bool
    run: RunInfo | None = None
    crop: float = 1.0
    interpolation: str = "bilinear"
    exif: bool = True
    trained_on: Mapping[str, Identity] = dataclasses.field(default_factory=dict)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the outputs."""
        return self.task.class_names

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images that the network sees; 0 where it sees none."""
        if not self.task.images:
            return 0, 0
        height, width = networks.image_shape(self.model)[-3:-1]
        if height is None or width is None:
            raise UserError(f"{self.model.name} takes images of any size: give `image_size`.")
        return height, width


def open_model(
    source: str,
    weights: str | None = None,
    image_size: int | None = None,
    *,
    class_names: Sequence[str] | None = None,
    allow_nonfinite: bool = False,
) -> Opened:
    """Opens a network with probabilities as its output.

    Args:
        source: a folder that `kvision-train` wrote, a `.keras` file, or one of `kvision.list_models()`.
        weights: of a name, as its builder takes them; of a file, the number of classes is the file's.
        image_size: height and width, for a name or a file's network that takes any; None for the published
            size.
        class_names: in the order of the outputs, in place of those of the run, of the file, or of
            published weights; empty for numbers.
        allow_nonfinite: whether `weights` may be NaN or infinity.

    Raises:
        FileNotFoundError: no such folder or file.
        UserError: an unknown name, a file that cannot be read, weights that do not fit or lack a classifier,
            class names of another number than the network's classes.
    """
    path = Path(source).expanduser()
    if path.name == run_info.MODEL and (path.parent / run_info.RUN).is_file():  # a run's, which says more
        path = path.parent
    if source in registry.list_models():
        channels = len(registry.info(source).variant.preprocess.mean)
        learned = _task_in(weights)
        activation = TASKS[learned].activation if learned else ""
        model = registry.create_model(
            source,
            weights=weights,
            input_shape=image_size and (image_size, image_size, channels),
            allow_nonfinite=allow_nonfinite,
            **({"classifier_activation": activation} if activation else {}),
        )
        model = task_of(model).serving(model)
        crop, interpolation = evaluation(source, weights, networks.image_shape(model)[1])
        return _opened(model, _names_of(weights, source), class_names, crop=crop, interpolation=interpolation)
    if weights:
        raise UserError(f"`weights` are for a model given by name; got the file or folder {source!r}.")
    if path.is_dir():
        if not (path / run_info.MODEL).is_file():
            raise FileNotFoundError(f"{source!r} is not a run folder: it has no {run_info.MODEL}.")
        run = run_info.read(path)
        model = _read(path / run_info.MODEL, image_size, run.task)
        known, inside = labels.read(path / run_info.LABELS), labels.read_from_keras(path / run_info.MODEL)
        if class_names is None and inside not in (None, known):
            raise UserError(
                f"{str(path / run_info.LABELS)!r} has other class names than {run_info.MODEL}: "
                f"{listed(known)} instead of {listed(inside)}. `--labels=FILE` decides."
            )
        opened = _opened(model, known, class_names, run, run.crop, run.interpolation, run.exif)
        return dataclasses.replace(opened, trained_on=run_info.read_identities(path))
    if source.endswith(".keras"):
        return _opened(_read(path, image_size, _task_in(source)), labels.read_from_keras(path), class_names)
    if len(path.parts) > 1 and not path.exists():
        raise FileNotFoundError(f"The folder or file {source!r} does not exist.")
    raise UserError(
        f"A run folder, a .keras file or a model's name was expected; got {source!r}. "
        f"{did_you_mean(source, registry.list_models())}"
    )


def _opened(model, known, class_names, run=None, crop=1.0, interpolation="bilinear", exif=True) -> Opened:
    """With the names that are given, or else those that are known, or else numbers."""
    classes = task_of(model).classes_of(model)
    names = tuple((known if class_names is None else class_names) or ())
    if names and len(names) != classes:
        raise UserError(f"{model.name} has {classes} classes; got {len(names)} names: {listed(names)}.")
    task = task_of(model)(class_names=names or labels.numbers(classes)).fitted(model)
    return Opened(model, task, bool(names), run, crop, interpolation, exif)


def _task_in(path) -> str | None:
    """The task that a `.keras` file names; None where it names none, and of other files."""
    if not path or not path.endswith(".keras") or not Path(path).expanduser().is_file():
        return None
    name = labels.task_in_keras(Path(path).expanduser())
    return name if name in TASKS else None


def _names_of(weights, name) -> tuple[str, ...] | None:
    """The class names that weights bring along: those in a `.keras` file, or what published ones learned."""
    if not weights or weights.endswith(".keras"):
        return labels.read_from_keras(Path(weights).expanduser()) if weights else None
    table = published.rows_of(name)
    row = next((row for row in published.matching(weights, name) if row in table), None)
    if row is None:
        return None
    if row.ap:
        return labels.coco(row.num_classes)
    if row.miou:
        return VOC_CLASSES if row.num_classes == len(VOC_CLASSES) else None
    return labels.imagenet() if row.num_classes == 1000 else None


def evaluation(
    name: str, weights: str | None, image_size: int | None, columns: Mapping[str, object] | None = None
) -> tuple[float, str]:
    """The crop and the interpolation with which a network's weights were published.

    Args:
        name: one of `kvision.list_models()`.
        weights: as its builder takes them; of a file, those of "imagenet" are taken.
        image_size: height of the network's input, in pixels.
        columns: keywords of the builder besides; of several rows, those are taken that have them.
    """
    if not weights:
        return 1.0, "bilinear"
    default = registry.info(name).variant
    known = {key: value for key, value in (columns or {}).items() if key in default.columns()}
    variant = dataclasses.replace(default, **known)
    row = published.fitting_row(weights, name, variant, default)
    row = row or published.fitting_row("imagenet", name, variant, default)
    row = row or next(iter(published.matching("imagenet", name)), None)
    if row is None:
        return 1.0, "bilinear"
    return row.test_crop if image_size == row.test_size else row.crop, row.interpolation


def open_trained(
    source: str, weights: str | None, image_size: int | None, names: str | None, allow_nonfinite: bool
) -> Opened:
    """`open_model` as commands do: a name without weights is a UserError, as its answers would mean nothing.

    Args:
        source, weights, image_size, allow_nonfinite: see `open_model`.
        names: of the classes, see `kvision.labels.named`.
    """
    if source in registry.list_models() and weights is None:
        raise UserError(f"{source} has fresh weights: give trained ones with --weights, {WEIGHTS}.")
    class_names = None if names is None else labels.named(names)
    return open_model(source, weights, image_size, class_names=class_names, allow_nonfinite=allow_nonfinite)


def _read(path, image_size, task=None) -> keras.Model:
    """A `.keras` file's network with probabilities, of the named task where it fits."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():  # Keras does not check it
                raise UserError(f"the checksum of {damaged!r} in it is wrong")
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # whatever a damaged file makes its reader raise
        if isinstance(error, OSError) and error.errno in FULL_DISK:  # Keras unpacks parts of it
            raise OSError(error.errno, error.strerror, error.filename or tempfile.gettempdir()) from error
        raise UserError(f"Failed to read the model {str(path)!r}: {_reason(error):.200}") from None
    model = networks.of_size(task_of(model, task).serving(model), image_size)
    networks.check_finite(model)
    return model


def _reason(error) -> str:
    """The first sentence of the innermost error in one that Keras raised."""
    text = (str(error).strip() or repr(error)).rpartition("Exception encountered: ")[2]
    if unknown := re.match(r"Could not locate \w+ ('.+?')", text):
        return f"{unknown[1]} in it belongs to neither Keras nor kvision; Python code can register it."
    return re.split(r"(?<=\.)\s|\n", text, maxsplit=1)[0]
