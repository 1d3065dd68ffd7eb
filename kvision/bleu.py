"""BLEU: how many runs of words a sentence shares with others (Papineni et al. 2002, sections 2.1 to 2.3)."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

ORDERS = 4  # lengths of the runs of words, from 1 on


def counts(candidate: Sequence[int], references: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Counts of one sentence, which are added up over a corpus.

    Args:
        candidate: words as numbers.
        references: the sentences with which it is compared, at least one.

    Returns:
        "matches" and "runs", integers `(4,)`: the runs of 1 to 4 words of the candidate that a reference has,
        each as often as the reference in which it is most frequent, and all of them; "words", the length of
        the candidate; "reference_words", that of the reference nearest to it in length, the shorter of two.
    """
    matches, runs = np.zeros(ORDERS, np.int64), np.zeros(ORDERS, np.int64)
    for order in range(1, ORDERS + 1):
        own, most = _runs(candidate, order), Counter()
        for reference in references:
            most |= _runs(reference, order)
        matches[order - 1], runs[order - 1] = (own & most).total(), own.total()
    nearest = min((abs(len(reference) - len(candidate)), len(reference)) for reference in references)[1]
    return {"matches": matches, "runs": runs, "words": len(candidate), "reference_words": nearest}


def scores(sums: Mapping[str, np.ndarray]) -> list[float]:
    """BLEU-1 to BLEU-4 of a corpus, in [0, 1], from the sums of `counts`, without smoothing."""
    matches, runs = np.asarray(sums["matches"], np.float64), np.asarray(sums["runs"], np.float64)
    words, reference_words = float(sums["words"]), float(sums["reference_words"])
    if not words:
        return [0.0] * ORDERS
    brevity = min(1.0, math.exp(1 - reference_words / words))
    precisions = np.divide(matches, runs, out=np.zeros(ORDERS), where=runs > 0)
    with np.errstate(divide="ignore"):
        means = np.cumsum(np.log(precisions)) / np.arange(1, ORDERS + 1)
    return [float(score) for score in brevity * np.exp(means)]


def _runs(words, order) -> Counter:
    return Counter(tuple(words[start : start + order]) for start in range(len(words) - order + 1))
