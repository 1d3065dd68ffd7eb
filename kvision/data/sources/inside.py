"""Files that a list names: found below its folder, and refused elsewhere."""

import os
from pathlib import PurePosixPath, PureWindowsPath

from kvision.data.sources.source import Source
from kvision.errors import UserError
from kvision.names import quoted


class Inside:
    """Finds the files that a list names, and refuses those outside a folder.

    Args:
        listed_in: path of the list, for messages.
        root: the folder that names are relative to.
        allow_outside: whether files may be elsewhere.
    """

    def __init__(self, listed_in: str, root: str, allow_outside: bool):
        self.listed_in, self.root, self.allow_outside = listed_in, root, allow_outside
        self.real_root = os.path.join(os.path.realpath(root or "."), "")
        self.real_folders = {}  # real paths of the folders that were asked for

    def paths(self, name: str, where: str) -> tuple[str, str]:
        """The path of a file, and the real path, which identifies it; `where` its name is in the list."""
        given = name
        if "\\" in name and not os.path.lexists(os.path.join(self.root, name)):
            if PureWindowsPath(name).drive:
                self._refuse(where, given, "a path of another system is not found here", False)
            name = name.replace("\\", "/")
        parts = PurePosixPath(name).parts
        if not parts:
            self._refuse(where, given, "a path of a file was expected", False)
        path = os.path.join(self.root, *parts)
        if not self.allow_outside and (".." in parts or parts[0] == "/"):
            self._refuse(where, given, f"a path below {self._folder()} was expected", True)
        folder, file = os.path.split(path)
        if folder not in self.real_folders:
            self.real_folders[folder] = os.path.realpath(folder)
        real = os.path.join(self.real_folders[folder], file)
        if os.path.islink(real):
            real = os.path.realpath(real)
        if not self.allow_outside and not real.startswith(self.real_root):
            self._refuse(where, given, f"a symbolic link leads outside {self._folder()}", True)
        return path, real

    def _folder(self) -> str:
        own = os.path.dirname(self.listed_in) == self.root
        return "the file's folder" if own else f"the folder {self.root!r}"

    def _refuse(self, where, name, why, helps):
        how = " --allow_outside takes it." if helps else ""
        raise UserError(f"{self.listed_in!r}, {where}: {why}; got {quoted(name)}.{how}")


def check_there(source: Source, where: str) -> None:
    """A UserError for images that are not there; `where` they are listed."""
    if absent := source.absent("image"):
        raise UserError(
            f"{len(absent)} of the {source.size} images that {where!r} lists are not there; the first is "
            f"{quoted(source.name(absent[0], 'image'))}."
        )
