"""Class names: reading and checking them, and matching those of a network with those of a dataset."""

import functools
import logging
import re
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kvision.errors import NoLabels, UserError
from kvision.names import check_class_names, counted, listed, quoted

LOG = logging.getLogger("kvision")
ASSETS = Path(__file__).parent / "assets"
MEMBER, TASK = "labels.txt", "task.txt"  # of a `.keras` archive
LARGEST = 2**24  # bytes of a file of names
MOST = 5  # names in a message


@functools.cache
def imagenet() -> tuple[str, ...]:
    """The 1000 class names of ImageNet-1k, in the order of the networks' outputs.

    The names are those of torchvision's weight enums (BSD-3-Clause).
    """
    return read(ASSETS / "imagenet.txt")


@functools.cache
def coco(num_classes: int) -> tuple[str, ...] | None:
    """The names of COCO's 80 classes; or of its 90 ids from 1 on, of which ten are "N/A", as in torchvision.

    The names are those of torchvision's weight enums (BSD-3-Clause).

    Returns:
        The names; None for other numbers of classes.
    """
    names = read(ASSETS / "coco.txt")
    known = [names, tuple(name for name in names if name != "N/A")]
    return next((one for one in known if len(one) == num_classes), None)


@functools.cache
def _names_of_synsets() -> dict[str, str]:
    """ImageNet's names by WordNet's numbers, by which its folders are called (TensorFlow Datasets' list)."""
    return dict(zip(read(ASSETS / "imagenet_synsets.txt"), imagenet(), strict=True))


def read(path: str | Path) -> tuple[str, ...]:
    """The class names in a UTF-8 file, one a line.

    Raises:
        OSError: there is no such file.
        UserError: it is not text, or has an empty line or a control character.
    """
    with open(path, "rb") as file:
        return _parsed(file.read(LARGEST + 1), str(path))


def add_to_keras(path: str | Path, class_names: Sequence[str], task: str | None = None) -> None:
    """Puts class names, and the name of the task, into a `.keras` file, which Keras opens as before."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(MEMBER, "\n".join(class_names) + "\n")
        if task:
            archive.writestr(TASK, f"{task}\n")


def read_from_keras(path: str | Path) -> tuple[str, ...] | None:
    """The class names in a `.keras` file; None where it has none.

    Raises:
        OSError: there is no such file.
        UserError: it is damaged, see `read`.
    """
    content = _read_member(path, MEMBER)
    return None if content is None else _parsed(content, f"{path}, {MEMBER}")


def task_in_keras(path: str | Path) -> str | None:
    """The name of the task in a `.keras` file; None where it has none. Raises what `read_from_keras` does."""
    content = _read_member(path, TASK)
    return None if content is None else content.decode(errors="replace").strip()


def named(text: str) -> tuple[str, ...]:
    """The names of `--labels`: `imagenet`, `numbers` (no names: an empty tuple), or a file, see `read`.

    Names that a file has more than once are logged, not refused: some lists of ImageNet's classes have them.
    """
    if text in ("imagenet", "numbers"):
        return imagenet() if text == "imagenet" else ()
    names = read(text)
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        LOG.warning("%r has names more than once: %s.", text, listed(repeated))
    return names


def numbers(num_classes: int) -> tuple[str, ...]:
    """The classes' numbers in place of names."""
    return tuple(map(str, range(num_classes)))


def match(class_names: Sequence[str], data_names: Sequence[str], *, named: bool) -> tuple[list[int], str]:
    """Finds a network's classes in a dataset by their names.

    Letter case, forms of Unicode, and ImageNet's names instead of WordNet's numbers make no difference where
    one name alone is meant. Where one side has numbers in place of names, positions are taken.

    Args:
        class_names: the network's, in the order of its outputs.
        data_names: the dataset's, in the order of its labels.
        named: whether the network's names are names; else they are `numbers`.

    Returns:
        The network's class for each of the dataset's, and a sentence on what should be known; "" for nothing.

    Raises:
        NoLabels: the dataset has none of the network's classes; both lists are shown.
        UserError: it has some of them and others; both lists are shown. Or the network has no names, and the
            data's are numbers that are not in the order of their values, as folders 0, 1, 10, 2 are: they
            could be positions or names. Or one side has names, and the numbers of the other have gaps.
    """
    if tuple(class_names) == tuple(data_names):
        return list(range(len(data_names))), ""
    if named:
        places = _places(class_names, data_names)
        unknown = [name for name, place in zip(data_names, places, strict=True) if place is None]
        known = [place for place in places if place is not None]
        if len({*known}) == len(places):
            absent = [name for place, name in enumerate(class_names) if place not in known]
            of = f"{len(absent)} of the network's {len(class_names)}"
            return known, f"The data lacks {of} classes: {listed(absent)}." if absent else ""
        twice = [name for name, count in Counter(class_names).items() if count > 1 and name in data_names]
        if twice:
            raise UserError(
                f"The network has the class {quoted(twice[0])} more than once, in {listed(class_names)}: "
                "`--labels=FILE` names its outputs in order, `--labels=numbers` takes positions."
            )
        counts = Counter(places)
        same = [name for name, p in zip(data_names, places, strict=True) if p is not None and counts[p] > 1]
        if {*places} != {None} or _are_numbers(class_names) == _are_numbers(data_names):
            # Where some names meet, the others may be slips of the pen.
            raise (NoLabels if {*places} == {None} else UserError)(
                f"The data has classes that the network lacks, or that mean the same: "
                f"{listed(unknown + same)}. Data: {listed(data_names)}; "
                f"network: {listed(class_names)}. "
                "`--labels=FILE` names the network's outputs in order, `--labels=numbers` takes positions."
            )
    if len(class_names) != len(data_names):
        raise NoLabels(
            f"The data has {counted(len(data_names), 'class')} ({listed(data_names)}), the network has "
            f"{len(class_names)} ({listed(class_names)}); without names on both sides none can be told apart."
        )
    places = list(range(len(data_names)))
    if not named and _are_numbers(data_names) and _ranks(data_names).tolist() != places:
        raise UserError(
            f"The network has no class names, and the data's are numbers in another order than that of their "
            f"values: {listed(data_names)}. `--labels=FILE` names the network's outputs in order."
        )
    if named:  # one side's numbers are places in the other's list; else folders were numbered in their order
        numbers = data_names if _are_numbers(data_names) else class_names
        if np.ptp(values := [*map(int, numbers)]) >= len({*values}):
            raise UserError(
                f"Numbers must be consecutive to be taken as positions of classes; got {listed(numbers)}. "
                f"Data: {listed(data_names)}; network: {listed(class_names)}. `--labels=FILE` names the "
                "network's outputs in order."
            )
        places = np.argsort(_ranks(class_names))[_ranks(data_names)].tolist()
    nameless = "data" if _are_numbers(data_names) and not _are_numbers(class_names) else "network"
    pairs = [
        f"output {place}{f' ({quoted(class_names[place])})' if nameless == 'data' else ''} is {quoted(name)}"
        for place, name in zip(places, data_names[:MOST], strict=False)
    ]
    return places, (
        f"Classes are taken by position, as those of the {nameless} are numbered: {', '.join(pairs)}"
        f"{f' and {len(data_names) - MOST} more' if len(data_names) > MOST else ''}."
    )


def _read_member(path, member) -> bytes | None:
    try:
        with zipfile.ZipFile(path) as archive:
            if member not in archive.namelist():
                return None
            with archive.open(member) as file:
                return file.read(LARGEST + 1)
    except (EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"Failed to read {str(path)!r}: {error}") from None


def _ranks(names) -> np.ndarray:
    """The places of names in their order; numbers have that of their values, where 10 comes after 2."""
    order = np.arange(len(names))
    if _are_numbers(names):
        order = np.array(sorted(order, key=lambda place: int(names[place])))
    return np.argsort(order)


def _places(class_names, data_names) -> list[int | None]:
    """The only place of each of the dataset's names: as it is written, or else as `_folded`."""
    class_names, data_names = ([*map(_without_synset, names)] for names in (class_names, data_names))
    exact, folded = _unique(class_names), _unique([_folded(name) for name in class_names])
    return [exact.get(name, folded.get(_folded(name))) for name in data_names]


def _unique(keys) -> dict[str, int]:
    counts = Counter(keys)
    return {key: place for place, key in enumerate(keys) if counts[key] == 1}


def _without_synset(name: str) -> str:
    """ImageNet's name in place of WordNet's number; two of these names differ in their case alone."""
    return _names_of_synsets().get(name, name) if re.fullmatch(r"n\d{8}", name) else name


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _are_numbers(names) -> bool:
    return all(name.isdecimal() for name in names)


def _parsed(content: bytes, where: str) -> tuple[str, ...]:
    if len(content) > LARGEST:
        raise UserError(f"{where!r} is too large for a list of class names.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{where!r} is not UTF-8 text: one class name a line was expected.") from None
    names = tuple(text.replace("\r\n", "\n").rstrip("\n").split("\n"))
    check_class_names(names, repr(where))
    return names
