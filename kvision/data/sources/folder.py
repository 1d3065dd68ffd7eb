"""Class folders."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from kvision.data.sources.source import (
    UNLABELED,
    Options,
    Source,
    check_divided,
    of_files,
    part,
    parts,
    split_of,
)
from kvision.errors import NoLabels, UserError
from kvision.names import counted, listed, quoted, say_once

SYSTEM = {  # in small letters; besides, names that begin with a dot are hidden
    "__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found",
    "thumbs.db", "ehthumbs.db", "desktop.ini",
}  # fmt: skip
LIKE_A_SPLIT = re.compile("train|val|test|dev|eval|holdout", re.IGNORECASE)  # the beginning of its name


def folder(path: str, split: str, options: Options) -> Source:
    """Class folders, in `PATH/train` and `PATH/val` or together in `PATH`, then split per class.

    Images lie in a class folder at any depth. Hidden, system and empty entries are left out. Without labels,
    images lie anywhere below `PATH`, or below its splits.
    """
    classes, of_class, divided = in_classes("folder", path, split, options)
    paths = [file for files in of_class for file in files]
    in_class = zip(classes, of_class, strict=True)
    if options.labeled and not any(
        os.path.basename(os.path.dirname(file)) == name for name, files in in_class for file in files
    ):
        say_once(f"{path!r}: the images of all classes ({listed(classes)}) lie in deeper folders.")
    return of_files(path, classes, paths, labels_of(of_class), divided=divided)


def in_classes(
    kind: str, path: str, split: str, options: Options, items_of: Callable | None = None
) -> tuple[list[str], list[list], bool]:
    """What belongs to each class of a split of `folder`.

    Args:
        kind: of the dataset, for messages.
        path, split, options: of `folder`.
        items_of: from the sorted paths of the files in a folder, the folder, and a `LeftOut`, to the items
            that are split; None for the files.

    Returns:
        The names of the classes, the items of each, and whether the split is a share of them.
    """
    if not os.path.isdir(path):
        raise FileNotFoundError(f"There is no folder {path!r}.")
    left_out = LeftOut(path)
    whole = ClassFolders(path)
    apart = _splits(whole, kind)

    def items(folders, name=None):
        files = folders.all_files(left_out) if name is None else folders.files(name, left_out)
        return items_of(files, str(folders.root / (name or "")), left_out) if items_of else files

    if apart:
        if options.labeled:
            beside = {*whole.names, *whole.others} - {*apart.values()}
            left_out.add("beside the splits", whole.paths(beside))
        used = parts(split, apart, repr(path))
        folders = {name: ClassFolders(os.path.join(path, apart[name])) for name in {"train", *used}}
    else:
        check_divided(split, repr(path))
        used, folders = [""], {"": whole}
    if not options.labeled:
        classes, of_class = [UNLABELED], [[item for name in used for item in items(folders[name])]]
    else:
        classes = _classes(folders["train" if apart else ""], left_out, options)
        for name in used if apart else []:
            _check_known(folders[name], folders[name].classes(left_out), classes)
        of_class = [[item for s in used for item in items(folders[s], name)] for name in classes]
    if not apart:
        of_class = [part(of_one, split, options.val_fraction) for of_one in of_class]
    left_out.say()
    if not any(of_class):
        share = "" if apart else f"; `val_fraction` is {options.val_fraction}, of each class"
        what = "clips" if items_of else "files"
        raise UserError(f"{path!r} has no {what} for the split {split!r}{share}.")
    return classes, of_class, not apart


def labels_of(of_class: Sequence[Sequence]) -> list[int]:
    """The label of each item, given those of each class."""
    return [label for label, items in enumerate(of_class) for _ in items]


def _classes(folders: "ClassFolders", left_out, options) -> list[str]:
    classes = folders.classes(left_out)
    if options.check_classes:
        options.check_classes(classes)
    return classes


class LeftOut:
    """Paths of a dataset that are not read, to be named in a sentence."""

    def __init__(self, root: str):
        self.root = root
        self.names: dict[str, dict[str, None]] = {}

    def add(self, reason: str, paths) -> None:
        """Notes paths and why they are left out."""
        names = [os.path.relpath(path, self.root) for path in paths]
        self.names.setdefault(reason, {}).update(dict.fromkeys(names))

    def say(self) -> None:
        """Names all of it on stderr, once."""
        groups = [
            f"{len(names)} {reason} ({listed(names, 3)})" for reason, names in self.names.items() if names
        ]
        if groups:
            say_once(f"Left out of {self.root!r}: {'; '.join(groups)}.")


class ClassFolders:
    """The folders that lie in one folder.

    Attributes:
        root: the folder.
        names: of the folders in it, sorted, without hidden ones and those of systems.
        others: the names of all else that is not hidden.
        hidden: the names of what is hidden or a system's.
    """

    def __init__(self, root: str):
        self.root = Path(root)
        with os.scandir(root) as entries:
            entries = sorted(entries, key=lambda entry: entry.name)
        self.hidden = [entry.name for entry in entries if _is_hidden(entry.name)]
        entries = [entry for entry in entries if not _is_hidden(entry.name)]
        self.names = [entry.name for entry in entries if _is_folder(entry)]
        self.others = sorted({entry.name for entry in entries} - {*self.names})
        self._places = {os.path.realpath(root): "."}  # of folders that links may not lead to
        for name in self.names:
            other = self._places.setdefault(os.path.realpath(self.root / name), name)
            if other != name:
                raise UserError(f"{root!r}: {quoted(other)} and {quoted(name)} are the same folder.")

    def classes(self, left_out: LeftOut) -> list[str]:
        """The names of the folders that hold files."""
        names = [name for name in self.names if self.has_files(name)]
        left_out.add("hidden or of a system", self.paths(self.hidden))
        left_out.add("beside the class folders", self.paths(self.others))
        left_out.add("empty", self.paths(name for name in self.names if name not in names))
        if not names:
            if not self.names and not self.others:
                raise NoLabels(f"{str(self.root)!r} is empty: a folder for each class was expected.")
            folders = "only empty folders" if self.names else "no folders"
            files = f" but {counted(len(self.others), 'file')}" if self.others else ""
            raise NoLabels(f"{str(self.root)!r} has {folders}{files}: one for each class was expected.")
        return names

    def has_files(self, name: str) -> bool:
        """Whether there is a file in a folder, at any depth."""
        return any(True for _ in self._walk(name, LeftOut(str(self.root))))

    def holds_classes(self, name: str) -> bool:
        """Whether there is a file in a folder of a folder."""
        inner = ClassFolders(str(self.root / name))
        return any(map(inner.has_files, inner.names))

    def holds_files(self, name: str) -> bool:
        """Whether there is a file in a folder itself."""
        return bool(ClassFolders(str(self.root / name)).others)

    def files(self, name: str, left_out: LeftOut) -> list[str]:
        """The paths of the files in a folder, at any depth, sorted; empty if the folder does not exist."""
        return sorted(self._walk(name, left_out)) if name in self.names else []

    def all_files(self, left_out: LeftOut) -> list[str]:
        """The paths of the files below the root, at any depth, sorted."""
        left_out.add("hidden or of a system", self.paths(self.hidden))
        beside = self.paths(self.others)
        files = [path for path in beside if os.path.isfile(path)]
        left_out.add("linked to nothing, or no file", {*beside} - {*files})
        return sorted([*files, *(file for name in self.names for file in self._walk(name, left_out))])

    def paths(self, names) -> list[str]:
        """The paths of what lies in the root."""
        return [str(self.root / name) for name in sorted(names)]

    def _walk(self, name, left_out) -> Iterator[str]:
        folders, places = [str(self.root / name)], set(self._places)
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if _is_hidden(entry.name):
                        left_out.add("hidden or of a system", [entry.path])
                    elif _is_folder(entry):
                        if (place := os.path.realpath(entry.path)) in places:
                            left_out.add("linked to a folder that is read anyway", [entry.path])
                        else:
                            places.add(place)
                            folders.append(entry.path)
                    elif _is_file(entry):
                        yield entry.path
                    else:
                        left_out.add("linked to nothing, or no file", [entry.path])


def _splits(whole: ClassFolders, kind: str) -> dict[str, str]:
    """The name of each split's folder; empty where the folders are classes."""
    named: dict[str, list[str]] = {}
    for name in whole.names:
        if split := split_of(name):
            named.setdefault(split, []).append(name)
    folders = [name for names in named.values() for name in names]
    if not whole.names:
        return {}
    if "train" in named and len(named) > 1:
        if any(map(whole.holds_classes, folders)):
            for split, names in named.items():
                if len(names) > 1:
                    raise UserError(
                        f"{str(whole.root)!r} has several folders for the split {split!r}: {listed(names)}."
                    )
            return {split: name for split, [name] in named.items()}
        say_once(f"{str(whole.root)!r}: {listed(folders)} hold no class folders and are taken as classes.")
    elif (len(whole.names) == 1 or all(map(LIKE_A_SPLIT.match, whole.names))) and all(
        whole.holds_classes(name) and not whole.holds_files(name) for name in whole.names
    ):
        raise UserError(
            f"{str(whole.root)!r} has no class folders but {listed(whole.names)} with folders inside: give "
            f"{f'{kind}:{whole.root / whole.names[0]}'!r}, or 'train' and 'val' side by side."
        )
    return {}


def _check_known(folders, names, classes) -> None:
    if unknown := sorted({*names} - {*classes}):
        forms = {unicodedata.normalize("NFC", name) for name in classes}
        same = [name for name in unknown if unicodedata.normalize("NFC", name) in forms]
        how = " (in another Unicode normal form)" if same else ""
        raise UserError(f"{str(folders.root)!r} has classes that 'train' lacks: {listed(unknown)}{how}.")


def _is_hidden(name) -> bool:
    return name.startswith(".") or name.casefold() in SYSTEM


def _is_folder(entry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False
