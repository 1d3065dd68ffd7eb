"""Checks of what an export is given."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from kvision import labels, networks, run_info
from kvision.data.masks import IGNORED
from kvision.errors import UserError
from kvision.files import check_folder
from kvision.names import check_class_names, counted
from kvision.tasks import Exported, task_of

REPORT, PAGE = "report.json", "report.html"


def choose(what, value, known):
    """The entry of a dict; a ValueError for a key that it lacks."""
    if value not in known:
        raise UserError(f"Unknown {what} {value!r}. Valid names: {', '.join(known)}.")
    return known[value]


def functional(model: keras.Model, images) -> keras.Model:
    """The model as a functional one in float32 of a fixed size, the images' where it has none of its own."""
    if not isinstance(model, keras.Model):
        raise UserError(f"`model` must be a keras.Model; got {type(model).__name__}.")
    inputs = getattr(model, "inputs", None)  # one that is subclassed, or was not called yet, lacks them
    if not inputs or None in inputs[0].shape[1:]:
        check_batch("images", images)
        model = networks.functional(model, np.shape(images)[1:])
    exported_task(model).exported(model)  # a mismatch shows before images are read
    return networks.portable(model)


def exported_task(model: keras.Model) -> type[Exported]:
    """The task of a model; raises a UserError unless its networks are exported."""
    task = task_of(model)
    if not issubclass(task, Exported):
        raise UserError(f"{model.name} learned {task.name}, whose networks are not exported.")
    return task


def pixels(name: str, images) -> np.ndarray:
    """Converts images to float32; raises a UserError unless they form one array of numbers."""
    array = _array(images)
    if array.dtype.kind not in "uif":
        raise UserError(f"`{name}` must be an array of numbers (images, height, width, channels).")
    return array.astype(np.float32)


def check_batch(name: str, images) -> None:
    """Raises a UserError for an array that is not a batch of images."""
    shape = np.shape(images)
    if len(shape) != 4:
        one = f" One image is `{name}[None]`." if len(shape) == 3 else ""
        raise UserError(f"`{name}` must be of shape (images, height, width, channels); got {shape}.{one}")


def check_images(name: str, images: np.ndarray, model: keras.Model) -> None:
    """Raises a UserError unless the images are pixels in [0, 255] of the model's size."""
    check_batch(name, images)
    if len(images) == 0 or images.shape[1:] != model.input_shape[1:]:
        raise UserError(
            f"`{name}` must be images of shape {model.input_shape[1:]}; got an array of {images.shape}."
        )
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 255):
        raise UserError(f"`{name}` must be pixels in [0, 255]; got [{low:g}, {high:g}].")


def check_names(class_names: Sequence[str] | None, classes: int) -> list[str]:
    """The class names, or numbers where none are given; raises a UserError unless they are strings."""
    if class_names is None or len(class_names) == 0:
        return list(labels.numbers(classes))
    names = list(class_names)
    if isinstance(class_names, str) or not all(isinstance(name, str) for name in names):
        raise UserError(f"`class_names` must be a list of {classes} strings; got {class_names!r:.100}.")
    if len(names) != classes:
        raise UserError(f"`class_names` must be {counted(classes, 'name')} of a line each; got {len(names)}.")
    check_class_names(names, "`class_names`")
    return [str(name) for name in names]


def check_labels(values, images: int, model: keras.Model, target: str, classes: int):
    """The labels as integers; a UserError for others than the `target` of a task needs, see `Task`."""
    if target == "boxes":
        return _check_objects(values, images, model.input_shape[1:3], classes)
    array = _array(values)
    pixels = model.output_shape[1:-1]
    shape, largest, expected = {
        "label": ((images,), classes - 1, f"{counted(images, 'integer')} from 0 to {classes - 1}"),
        "labels": ((images, classes), 1, f"{(images, classes)} of 1 where an image has a class, and else 0"),
        "mask": (
            (images, *pixels),
            classes - 1,
            f"masks {(images, *pixels)} of integers from 0 to {classes - 1}, or {IGNORED} where a pixel has "
            "no class",
        ),
    }[target]
    if array.dtype.kind not in "uib" or array.shape != shape:
        raise UserError(f"`labels` must be {expected}; got {array.dtype} of {array.shape}.")
    outside = array[(array < 0) | (array > largest)]
    outside = outside[outside != IGNORED] if target == "mask" else outside
    if outside.size:
        raise UserError(
            f"`labels` must be {expected}, as the network has {classes} classes; got {outside[0]}."
        )
    return array.astype(np.int64 if target == "label" else np.min_scalar_type(max(largest, IGNORED)))


def _check_objects(values, images, size, classes) -> dict[str, np.ndarray]:
    """The objects of images with all fields that a batch has, see `kvision.tasks.Detection`."""
    given = values if isinstance(values, Mapping) else {}
    boxes, numbers = (_array(given.get(name, ())) for name in ("boxes", "classes"))
    rows = numbers.shape if numbers.ndim == 2 else (images, 0)
    if rows[0] != images or boxes.shape != (*rows, 4) or numbers.dtype.kind not in "ui":
        raise UserError(
            f'`labels` must be a dict of "boxes" {(images, "most", 4)} and integers "classes" '
            f"{(images, 'most')}; got {boxes.shape} and {numbers.dtype} of {numbers.shape}."
        )
    outside = numbers[(numbers < -1) | (numbers >= classes)]
    if outside.size:
        raise UserError(f"`labels` must have classes from 0 to {classes - 1}, or -1; got {outside[0]}.")
    boxes = boxes.astype(np.float32)
    objects = {
        "boxes": boxes,
        "classes": numbers.astype(np.int32),
        "crowd": np.zeros(rows, np.uint8),
        "area": np.prod(boxes[..., 2:] - boxes[..., :2], -1),
        "size": np.tile(np.int32(size), (images, 1)),
    }
    for name in ("crowd", "area", "size"):
        if name in given:
            part = _array(given[name])
            if part.shape != objects[name].shape:
                raise UserError(f"`labels`: {name!r} must be {objects[name].shape}; got {part.shape}.")
            objects[name] = part.astype(objects[name].dtype)
    return objects


def check_calibration(images: np.ndarray) -> None:
    """Raises a ValueError for images that would give useless ranges."""
    if len(images) < 4:
        raise UserError(f"Calibration needs at least 4 images (64 are usual); got {len(images)}.")
    if np.ptp(images, axis=0).max() == 0:
        raise UserError("The calibration images are all the same.")
    if images.max() <= 1:
        raise UserError(f"Calibration images must be pixels in [0, 255]; got [0, {images.max():g}].")


def check_output(output: Path) -> None:
    """Raises a UserError unless the folder is new, empty, or holds an earlier export alone."""
    check_folder(output)
    if output.is_dir() and not {path.name for path in output.iterdir()} <= _ours(output):
        raise UserError(f"'{output}' is neither empty nor an earlier export: give another `output`.")
    output.parent.mkdir(parents=True, exist_ok=True)


def _array(values) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError:  # parts of several shapes
        return np.array(None)


def _ours(output) -> set[str]:
    """The names of the files that an earlier export left in a folder."""
    try:
        files = json.loads((output / REPORT).read_text(encoding="utf-8"))["files"]
        return {REPORT, PAGE, run_info.LABELS, *(file["file"] for file in files)}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
