"""Recomputes the golden logits of ill-conditioned networks with timm in float64.

    pip install torch timm && python tests/reference/make_float64.py GOLDEN_FOLDER

The float32 logits of these networks, with the formula's weights, are further from their own float64
logits (1.1e-4 for tf_efficientnet_b1 and b2, 2.4e-5 for lite4) than the tolerance of 2e-5.
"""

import json
import sys
from pathlib import Path

import numpy as np
import timm
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from golden import formula_image, formula_weights

NAMES = ("tf_efficientnet_b1", "tf_efficientnet_b2", "tf_efficientnet_lite4")

if __name__ == "__main__":
    entries = json.loads((Path(sys.argv[1]) / "golden.json").read_text())
    logits = {}
    for name in NAMES:
        entry = entries[name]
        model = timm.create_model(name).eval()
        weights = formula_weights(entry["tensors"], entry["gain"])
        model.load_state_dict({key: torch.tensor(value) for key, value in weights.items()}, strict=False)
        pixels = formula_image(*entry["input"][:2]).astype(np.float64)
        x = (pixels / 255 - np.array(entry["mean"])) / np.array(entry["std"])
        with torch.no_grad():
            logits[name] = model.double()(torch.tensor(x).permute(2, 0, 1)[None])[0].numpy()
    np.savez_compressed(Path(__file__).with_name("float64.npz"), **logits)
