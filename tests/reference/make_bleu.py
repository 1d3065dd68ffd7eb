"""Computes bleu.json, BLEU of sentences of numbers by sacrebleu, without tokenisation and smoothing.

pip install sacrebleu==2.6.0; python make_bleu.py
"""

import json
from pathlib import Path

import numpy as np
import sacrebleu

random = np.random.default_rng(0)
cases = []
for words, count, most in ((4, 12, 1), (6, 20, 3), (9, 15, 5), (50, 8, 2)):
    candidates = [random.integers(1, words, random.integers(0, 12)).tolist() for _ in range(count)]
    references = [
        [
            random.integers(1, words, random.integers(1, 12)).tolist()
            for _ in range(random.integers(1, most + 1))
        ]
        for _ in range(count)
    ]
    references[0][0] = candidates[0] = [1, 2, 3, 1, 2, 3, 1]
    texts = [" ".join(map(str, one)) for one in candidates]
    rows = [
        [" ".join(map(str, of_one[row])) if row < len(of_one) else None for of_one in references]
        for row in range(most)
    ]
    scores = [
        sacrebleu.BLEU(tokenize="none", smooth_method="none", max_ngram_order=order)
        .corpus_score(texts, rows)
        .score
        for order in range(1, 5)
    ]
    cases.append({"candidates": candidates, "references": references, "scores": [s / 100 for s in scores]})
content = {"sacrebleu": sacrebleu.__version__, "cases": cases}
Path(__file__).with_name("bleu.json").write_text(json.dumps(content) + "\n")
