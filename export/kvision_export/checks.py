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
from kvision.keras_internals import all_layers
from kvision.names import check_class_names, counted
from kvision.tasks import Exported, task_of
from kvision_export import inputs
from kvision_export.convert import STATELESS

REPORT, PAGE = "report.json", "report.html"
ONE_CLASS = ("label", "clip", "sequence")  # targets of tasks of one class
BATCHES = {  # by the rank of a network's input
    3: "(windows, steps, features)",
    4: "(images, height, width, channels)",
    5: "(clips, frames, height, width, channels)",
}


def choose(what, value, known):
    """The entry of a dict; a ValueError for a key that it lacks."""
    if value not in known:
        raise UserError(f"Unknown {what} {value!r}. Valid names: {', '.join(known)}.")
    return known[value]


def functional(model: keras.Model, images) -> keras.Model:
    """The model as a functional one in float32 of a fixed size, the images' where it has none of its own.

    Args:
        model: of any kind.
        images: see `inputs`.
    """
    if not isinstance(model, keras.Model):
        raise UserError(f"`model` must be a keras.Model; got {type(model).__name__}.")
    built = getattr(model, "inputs", None)  # one that is subclassed, or was not called yet, lacks them
    if not built or None in networks.image_shape(model)[1:]:
        pixels = inputs.pixels(images)
        check_batch("images", pixels, BATCHES[4])
        model = networks.functional(model, pixels.shape[1:])
    if stateful := [layer.name for layer in all_layers(model) if getattr(layer, "stateful", False)]:
        raise UserError(f"{stateful[0]} keeps a state from one batch to the next. {STATELESS}")
    exported_task(model).exported(model)  # a mismatch shows before images are read
    return networks.portable(model)


def exported_task(model: keras.Model) -> type[Exported]:
    """The task of a model; raises a UserError unless its networks are exported."""
    task = task_of(model)
    if not issubclass(task, Exported):
        raise UserError(f"{model.name} learned {task.name}, whose networks are not exported.")
    return task


def floats(name: str, images) -> np.ndarray:
    """Converts images, or a dict of these and proposals, to float32, see `inputs`.

    Raises:
        UserError: a part is missing or is not an array of numbers, or an image lacks proposals.
    """
    if not isinstance(images, Mapping):
        return _numbers(f"`{name}`", images, "(images, height, width, channels)").astype(np.float32)
    keys = inputs.IMAGE, inputs.PROPOSALS
    if {*images} != {*keys}:
        raise UserError(
            f"`{name}` must be an array, or a dict of 'image' and 'proposals'; got a dict of "
            f"{', '.join(map(repr, images)) or 'nothing'}."
        )
    parts = {key: _numbers(f"{key!r} of `{name}`", images[key], "(images, ...)") for key in keys}
    count, others = (np.shape(part)[:1] for part in parts.values())
    if count != others or not count:
        raise UserError(
            f"`{name}` must have proposals for each image; got 'image' of {parts[inputs.IMAGE].shape} and "
            f"'proposals' of {parts[inputs.PROPOSALS].shape}."
        )
    return inputs.joined(parts)


def _numbers(what, values, shape) -> np.ndarray:
    array = _array(values)
    if array.dtype.kind not in "uif":
        raise UserError(f"{what} must be an array of numbers {shape}.")
    return array


def check_batch(name: str, images, expected: str) -> None:
    """Raises a UserError for an array that is not a batch of what `BATCHES` has."""
    shape, rank = np.shape(images), expected.count(",") + 1
    if len(shape) != rank:
        one = f" One {expected[1:].partition('s,')[0]} is `{name}[None]`." if len(shape) == rank - 1 else ""
        raise UserError(f"`{name}` must be of shape {expected}; got {shape}.{one}")


def check_images(name: str, images: np.ndarray, model: keras.Model) -> None:
    """Raises a UserError unless the images are what the model takes.

    Args:
        name: of the argument.
        images: see `inputs`: pixels in [0, 255] of the model's size, and proposals where it takes them; of
            series any numbers.
        model: the network.
    """
    pixels, proposals = inputs.pixels(images), inputs.named(images).get(inputs.PROPOSALS)
    shape = networks.image_shape(model)[1:]
    check_batch(name, pixels, BATCHES[len(shape) + 1])
    if len(pixels) == 0 or pixels.shape[1:] != shape:
        raise UserError(
            f"`{name}` must be {exported_task(model).kind}s of shape {shape}; got an array of {pixels.shape}."
        )
    if not exported_task(model).images:
        if not np.isfinite(pixels).all():
            raise UserError(f"`{name}` contains NaN or infinity.")
        return
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 255):
        raise UserError(f"`{name}` must be pixels in [0, 255]; got [{low:g}, {high:g}].")
    count = networks.proposals_of(model)
    if count and proposals is None:
        raise UserError(
            f"{model.name} takes proposals beside each image: `{name}` must be a dict of 'image' and "
            f"'proposals' {(len(pixels), count, 4)}."
        )
    if proposals is not None:
        _check_proposals(name, proposals, model, (len(pixels), count, 4))


def _check_proposals(name, proposals, model, expected):
    """Raises a UserError unless these are boxes in pixels, as many as the model takes."""
    if not expected[1]:
        raise UserError(f"{model.name} takes images alone: `{name}` must be an array, without 'proposals'.")
    if proposals.shape != expected:
        raise UserError(f"'proposals' of `{name}` must be {expected}; got {proposals.shape}.")
    height, width = networks.image_shape(model)[1:3]
    low, high = np.split(proposals, 2, -1)
    inside = (low >= 0) & (high >= low) & (high <= (width + 1, height + 1))  # of rounding
    wrong = proposals[~inside.all(-1)]  # NaN among them
    if len(wrong) or proposals.max() <= 1:
        row = wrong[0] if len(wrong) else proposals[0, 0]
        raise UserError(
            f"'proposals' of `{name}` must be left, top, right and bottom in pixels of the image of "
            f"{width} x {height}, 0 where there are fewer; got {', '.join(f'{side:g}' for side in row)}."
        )


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
        return _check_objects(values, images, networks.image_shape(model)[1:3], classes)
    array = _array(values)
    if target == "next":
        return _check_values(array, (images, classes))
    if target == "tokens":
        return _check_captions(array, images)
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
    }["label" if target in ONE_CLASS else target]
    if array.dtype.kind not in "uib" or array.shape != shape:
        raise UserError(f"`labels` must be {expected}; got {array.dtype} of {array.shape}.")
    outside = array[(array < 0) | (array > largest)]
    outside = outside[outside != IGNORED] if target == "mask" else outside
    if outside.size:
        raise UserError(
            f"`labels` must be {expected}, as the network has {classes} classes; got {outside[0]}."
        )
    return array.astype(np.int64 if target in ONE_CLASS else np.min_scalar_type(max(largest, IGNORED)))


def _check_captions(array, images):
    """Captions of images, integers, see `kvision.data.load`."""
    if array.dtype.kind not in "ui" or array.ndim != 3 or len(array) != images:
        raise UserError(
            f"`labels` must be integers {(images, 'captions', 'length')}; got {array.dtype} of {array.shape}."
        )
    return array


def _check_values(array, shape):
    """The next values of series, float32."""
    if array.dtype.kind not in "uif" or array.shape != shape or not np.isfinite(array).all():
        raise UserError(f"`labels` must be finite numbers {shape}; got {array.dtype} of {array.shape}.")
    return array.astype(np.float32)


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


def check_calibration(images: np.ndarray, pixels: bool = True) -> None:
    """Raises a ValueError for images, or series without `pixels`, that would give useless ranges."""
    if len(images) < 4:
        raise UserError(f"Calibration needs at least 4 images (64 are usual); got {len(images)}.")
    if np.ptp(images, axis=0).max() == 0:
        raise UserError("The calibration images are all the same.")
    if pixels and images.max() <= 1:
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
