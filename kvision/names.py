"""Names that files give: which can be classes, and how they are shown."""

import functools
import re
import reprlib
import sys
import unicodedata
from collections.abc import Iterable, Sequence

from kvision.errors import UserError

LONGEST = 1000  # characters of a class's name
DIRECTIONS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # turn the order of what follows

_SHORT = reprlib.Repr()
_SHORT.maxstring, _SHORT.maxother, _SHORT.maxlist = 160, 160, 8


def quoted(value) -> str:
    """The representation of a name or a list of names, escaped, and shortened in the middle."""
    return _SHORT.repr(value)


def listed(names: Iterable[object], most: int = 5) -> str:
    """Several names for a message, the first ones of many."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(quoted, names[:most])) + more


def counted(count: int, noun: str) -> str:
    """A number of things: "1 image", "2 images", "2 boxes"."""
    plural = f"{noun}{'es' if noun.endswith(('s', 'x')) else 's'}"
    return f"{count} {noun if count == 1 else plural}"


def shown(text: str) -> str:
    """The text with escapes in place of what a terminal would act on."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def plain(message: str) -> str:
    """TensorFlow's message without the names of its operations, in one line."""
    words = re.sub(r"\{\{.*?\}\} ?| ?\[Op:.*", "", " ".join(message.split()))
    return words.rstrip(" .")


@functools.cache
def say_once(sentence: str) -> None:
    """Prints a sentence on stderr, the first time that it is given."""
    print(shown(sentence), file=sys.stderr, flush=True)


def check_class_names(names: Sequence[str], where: str) -> None:
    """A UserError for names that labels.txt or a terminal cannot hold, or that look the same.

    Args:
        names: of the classes, all different.
        where: what they belong to, for the message.
    """
    alike = {}
    for name in names:
        if not name.strip():
            raise UserError(f"{where} has a class whose name is blank: {name!r}.")
        if len(name) > LONGEST:
            raise UserError(f"{where} has a class whose name has {len(name)} characters: {quoted(name)}.")
        if any(unicodedata.category(character) == "Cs" for character in name):
            raise UserError(f"{where}: the name of class {quoted(name)} is not UTF-8.")
        if any(unicodedata.category(c) in ("Cc", "Zl", "Zp") or c in DIRECTIONS for c in name):
            raise UserError(f"{where}: the name of class {quoted(name)} has a control character.")
        same = alike.setdefault(unicodedata.normalize("NFC", name).strip(), name)
        if same != name:
            raise UserError(f"{where} has two classes that look the same: {same!a} and {name!a}.")
