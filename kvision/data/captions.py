"""Captions: sentences about images, as texts and as numbers of words."""

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kvision.names import counted, listed, say_once
from kvision.vocabulary import UNKNOWN, Vocabulary, words_of


@dataclass(frozen=True, eq=False)
class Captions:
    """The captions of all images of a split, in the order of the images.

    Attributes:
        texts: of each image, one or more.
        vocabulary: from words to numbers.
    """

    texts: Sequence[Sequence[str]]
    vocabulary: Vocabulary

    @property
    def owners(self) -> np.ndarray:
        """int64 `(captions,)`, the place of each caption's image."""
        return np.repeat(np.arange(len(self.texts)), [len(texts) for texts in self.texts])

    def tokens(self, length: int) -> np.ndarray:
        """int32 `(captions, length + 1)`, see `Vocabulary.encode`."""
        texts = itertools.chain.from_iterable(self.texts)
        return np.stack([self.vocabulary.encode(text, length) for text in texts])

    def references(self, length: int) -> np.ndarray:
        """The words of all captions of each image, without start and end.

        Returns:
            int32 `(images, most, length)`, 0 behind the last word of each and for captions that an image
            lacks. Words that are not in the vocabulary have numbers beyond it, a word the same everywhere.
        """
        most = max(map(len, self.texts))
        references, beyond = np.zeros((len(self.texts), most, length), np.int32), {}
        for of_image, texts in zip(references, self.texts, strict=True):
            for row, text in zip(of_image, texts, strict=False):
                words = words_of(text)[:length]
                numbers = [self.vocabulary.number(word) for word in words]
                row[: len(words)] = [
                    number
                    if number != UNKNOWN
                    else len(self.vocabulary) + beyond.setdefault(word, len(beyond))
                    for word, number in zip(words, numbers, strict=True)
                ]
        return references

    def report(self, length: int) -> None:
        """Says on stderr which words are not in the vocabulary, and how many captions are too long."""
        words = [words_of(text) for texts in self.texts for text in texts]
        different = dict.fromkeys(itertools.chain.from_iterable(words))
        if unknown := [word for word in different if self.vocabulary.number(word) == UNKNOWN]:
            of = f"{len(unknown):,} of {len(different):,} words"
            say_once(f"{of} are not in the vocabulary: {listed(unknown)}.")
        if cut := sum(len(one) > length for one in words):
            longest = max(map(len, words))
            say_once(
                f"Cut {cut:,} of {counted(len(words), 'caption')} behind {length} words; the longest has "
                f"{longest}."
            )

    def digest(self) -> bytes:
        """Bytes that change when a caption does."""
        return hashlib.sha256(json.dumps([[*texts] for texts in self.texts]).encode()).digest()
