"""Words of captions and their numbers."""

import functools
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from kvision.errors import UserError
from kvision.names import listed

PADDING, START, END, UNKNOWN = 0, 1, 2, 3
SPECIAL = ("<padding>", "<start>", "<end>", "<unknown>")  # their names, in the order of their numbers


class _Separated(dict):
    """A table for `str.translate`: letters, their marks and digits stay, all else becomes a blank."""

    def __missing__(self, code):
        kept = chr(code).isalnum() or unicodedata.category(chr(code)).startswith("M")
        return self.setdefault(code, code if kept else " ")


_SEPARATED = _Separated()


def words_of(text: str) -> list[str]:
    """The words of a text, in small letters.

    A word is a run of letters (with their marks) and digits; whatever else there is separates words and is
    left out: "A man's T-shirt, 2nd-hand." has the words a, man, s, t, shirt, 2nd and hand. Forms of Unicode
    make no difference (NFC).
    """
    return unicodedata.normalize("NFC", text.lower()).translate(_SEPARATED).split()


@dataclass(frozen=True)
class Vocabulary:
    """Words that have numbers: their places in `names`, of which the first four are `SPECIAL`.

    Raises:
        UserError: the names begin otherwise, or one is there twice.
    """

    names: tuple[str, ...]

    def __post_init__(self):
        if self.names[: len(SPECIAL)] != SPECIAL or len({*self.names}) < len(self.names):
            raise UserError(
                f"A vocabulary begins with {listed(SPECIAL)} and has each word once; got "
                f"{listed(self.names)}."
            )

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}

    @classmethod
    def of_texts(cls, texts: Iterable[str], min_count: int = 1, max_words: int | None = None) -> "Vocabulary":
        """The words of texts, the most frequent first, those of equal frequency by their spelling.

        Args:
            texts: such as the captions to train on.
            min_count: how often a word must occur; Show and Tell has 5.
            max_words: most words, beside the four special names; None for all.
        """
        counts = Counter(word for text in texts for word in words_of(text))
        words = sorted(counts, key=lambda word: (-counts[word], word))
        return cls((*SPECIAL, *[word for word in words if counts[word] >= min_count][:max_words]))

    def __len__(self) -> int:
        return len(self.names)

    def number(self, word: str) -> int:
        """The number of a word; `UNKNOWN` for others."""
        return self._numbers.get(word, UNKNOWN)

    def encode(self, text: str, length: int) -> np.ndarray:
        """The numbers of a text: `START`, its words, `END`, and `PADDING`.

        Of a text that is too long the first `length` words are taken, and no end, as it does not end there.

        Returns:
            int32 `(length + 1,)`.
        """
        numbers = [START, *map(self.number, words_of(text)), END][: length + 1]
        return np.array(numbers + [PADDING] * (length + 1 - len(numbers)), np.int32)

    def decode(self, numbers: Sequence[int] | np.ndarray) -> str:
        """The text of the numbers up to the first `END`, without `START` and `PADDING`.

        Unknown words, and numbers beyond the vocabulary, are "<unknown>".
        """
        words = []
        for number in map(int, numbers):
            if number == END:
                break
            if number not in (START, PADDING):
                words.append(self.names[number] if 0 <= number < len(self) else SPECIAL[UNKNOWN])
        return " ".join(words)
