"""Writes multilabel.json: average precision and F1 of made-up answers, as scikit-learn computes them.

pip install scikit-learn==1.9.1; python make_multilabel.py
"""

import json
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score, f1_score

IMAGES, CLASSES = 30, 6


def main():
    random = np.random.default_rng(0)
    labels = (random.uniform(size=(IMAGES, CLASSES)) < 0.3).astype(int)
    labels[:, 2] = 0  # no image has it, and some are given it
    probabilities = 0.3 * labels + 0.7 * random.uniform(size=labels.shape)
    probabilities[:, 4] *= 0.5  # which no image is given
    labels[:, 5], probabilities[:, 5] = 0, 0.1  # neither
    probabilities = np.round(probabilities, 1)  # many are equal
    probabilities[probabilities == 0.5] += 0.01
    occurring = labels.any(0)
    given = (probabilities > 0.5).astype(int)
    found = {
        "labels": labels.tolist(),
        "probabilities": probabilities.tolist(),
        "average_precision": [
            average_precision_score(labels[:, place], probabilities[:, place]) if occurring[place] else None
            for place in range(CLASSES)
        ],
        "mean_average_precision": average_precision_score(labels[:, occurring], probabilities[:, occurring]),
        "macro_f1": f1_score(labels, given, average="macro", zero_division=np.nan),
        "micro_f1": f1_score(labels, given, average="micro"),
    }
    Path(__file__).with_name("multilabel.json").write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
