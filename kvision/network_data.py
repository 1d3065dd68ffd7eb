"""The images that a network is evaluated and exported on, as it takes them, with its classes."""

from pathlib import Path

from kvision import labels, networks
from kvision.data import Data, load
from kvision.data.sources import TARGETS, absolute, open_source
from kvision.errors import NoLabels, UserError
from kvision.names import say_once
from kvision.opening import Opened
from kvision.run_info import RunInfo


def load_data(
    opened: Opened,
    data: str | None,
    split: str,
    *,
    val_fraction: float | None = None,
    allow_outside: bool = False,
    crop: float | None = None,
    interpolation: str | None = None,
    exif: bool | None = None,
    labeled: bool = True,
    **keywords,
) -> Data:
    """A split as a network takes it, see `kvision.data.load`; its labels are the network's, by their names.

    Args:
        opened: the network.
        data: a dataset's name; None for what a run folder was trained on.
        split: "train", "val", "test" or "all".
        val_fraction: share held out, see `kvision.data.load`; None for that of the run's training where the
            data are those of it.
        allow_outside: see `kvision.data.load`; without `data`, that of the run's training does too.
        crop, interpolation, exif: None for what belongs to the network.
        labeled: whether the images' classes are read and matched, see `open_source`.
        **keywords: of `kvision.data.load`.

    Raises:
        NoLabels: the dataset's classes are not the network's, see `kvision.labels.match`, or it has none.
        UserError: no dataset is named; images that a run was trained on may be among those that are held
            out now; see `kvision.data.load`.
    """
    run = opened.run or RunInfo()
    if data is None:
        if run.data is None:
            raise UserError(f"A dataset is needed for {opened.model.name}: {TARGETS[opened.task.target]}.")
        data, allow_outside = run.data, allow_outside or run.allow_outside
    if is_own := run.data is not None and absolute(data) == absolute(run.data):
        if val_fraction not in (None, run.val_fraction):
            raise UserError(f"`val_fraction` of the run is {run.val_fraction}; got {val_fraction}.")
        val_fraction = run.val_fraction
    channels = networks.image_shape(opened.model)[-1] if opened.task.images else 3

    def match(class_names):
        try:
            return labels.match(opened.class_names, class_names, named=opened.named)
        except NoLabels as error:
            raise NoLabels(f"{opened.model.name} on {data!r}: {error}") from None

    def open_split(split):
        fraction = RunInfo.val_fraction if val_fraction is None else val_fraction
        target = opened.task.target
        return open_source(data, split, channels, fraction, allow_outside, labeled, match, target=target)

    source = open_split(split)
    if labeled and is_own and split == "val" and opened.trained_on:
        _check_held_out(opened, data, source, open_split)
    if labeled:
        places, remark = ((), "") if source.captions else match(source.class_names)
        if remark:
            say_once(f"{opened.model.name} on {data!r}: {remark}")
        source = source.with_classes(opened.class_names, places)
    opened.task.check(source)
    return load(
        source,
        split,
        image_size=opened.image_size,
        channels=channels,
        crop=opened.crop if crop is None else crop,
        interpolation=interpolation or opened.interpolation,
        exif=opened.exif if exif is None else exif,
        **opened.task.loading,
        **keywords,
    )


def _check_held_out(opened, data, source, open_split) -> None:
    """Compares what is held out with what was during the training.

    Raises:
        UserError: images of the training may be among them, as the dataset has changed since.
    """
    before = opened.trained_on["val"]
    held_out = before.changes(source.identity)
    if not held_out:
        return
    divided = source.divided or before.divided
    if divided and (changes := opened.trained_on["train"].changes(open_split("train").identity)):
        raise UserError(
            f"{data!r} has changed since {opened.model.name} was trained on it ({', '.join(changes)}), and "
            "images of the training may be among those that are held out now: give images that it was not "
            "trained on."
        )
    say_once(
        f"{data!r} has changed since {opened.model.name} was trained on it: of what it holds out, "
        f"{', '.join(held_out)}."
    )


def is_inside(path: Path, data: str) -> bool:
    """Whether a path is that of a dataset's class folders or below, where it would be taken for a class."""
    kind, _, folder = data.partition(":")
    return (
        kind in ("folder", "video")
        and folder != ""
        and path.resolve().is_relative_to(Path(folder).expanduser().resolve())
    )
