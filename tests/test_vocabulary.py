"""Vocabularies: what a word is, their order, and texts as numbers and back."""

import numpy as np
import pytest

from kvision.errors import UserError
from kvision.vocabulary import END, PADDING, SPECIAL, START, UNKNOWN, Vocabulary, words_of


def test_words_are_runs_of_letters_and_digits():
    assert words_of("A man's T-shirt,\n2nd-hand (very_cheap)!") == [
        "a", "man", "s", "t", "shirt", "2nd", "hand", "very", "cheap"
    ]  # fmt: skip
    assert words_of("Cafe\u0301 STRASSE") == words_of("caf\xe9 strasse") == ["caf\xe9", "strasse"]
    assert words_of("हिन्दी भाषा") == ["हिन्दी", "भाषा"]  # vowel signs are marks
    assert words_of(" .,;!? ") == []


def test_words_fall_by_frequency_then_by_spelling():
    texts = ["b b c", "a c. b", "D"]
    assert Vocabulary.of_texts(texts).names == (*SPECIAL, "b", "c", "a", "d")
    assert Vocabulary.of_texts(texts, min_count=2).names == (*SPECIAL, "b", "c")
    assert Vocabulary.of_texts(texts, max_words=1).names == (*SPECIAL, "b")


def test_texts_are_numbers_and_back():
    vocabulary = Vocabulary.of_texts(["a red circle"])
    a, circle, red = (vocabulary.number(word) for word in ("a", "circle", "red"))
    assert (a, circle, red) == (4, 5, 6)
    numbers = vocabulary.encode("A red, RED square.", 6)
    assert numbers.dtype == np.int32
    assert numbers.tolist() == [START, a, red, red, UNKNOWN, END, PADDING]
    assert vocabulary.decode(numbers) == "a red red <unknown>"
    assert vocabulary.encode("a red circle", 3).tolist() == [START, a, red, circle]  # it goes on
    assert vocabulary.decode([a, 99, END, red]) == "a <unknown>"


def test_names_that_are_no_vocabulary():
    for names in (("cat", "dog"), (*SPECIAL, "a", "a")):
        with pytest.raises(UserError, match="begins with '<padding>', '<start>', '<end>', '<unknown>' and"):
            Vocabulary(names)
