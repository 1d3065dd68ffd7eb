"""Class names."""

import functools
from pathlib import Path

from kvision.errors import UserError

ASSETS = Path(__file__).parent / "assets"


@functools.cache
def imagenet() -> tuple[str, ...]:
    """The 1000 class names of ImageNet-1k, in the order of the networks' outputs.

    The names are those of torchvision's weight enums (BSD-3-Clause).
    """
    return tuple(read(ASSETS / "imagenet.txt"))


def read(path) -> list[str]:
    """The class names in a file, one a line; only line feeds end a line.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not UTF-8.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{str(path)!r} must be a text file in UTF-8: {error.reason}.") from None
    return text.removesuffix("\n").split("\n") if text else []


def default(num_classes: int) -> tuple[str, ...]:
    """ImageNet's names for 1000 classes, else the class numbers."""
    return imagenet() if num_classes == 1000 else numbers(num_classes)


def numbers(num_classes: int) -> tuple[str, ...]:
    """The classes' numbers in place of names."""
    return tuple(map(str, range(num_classes)))
