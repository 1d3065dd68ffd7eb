"""Adds torchvision's segmentation networks to segmentation.json and segmentation.npz.

    pip install torch torchvision && python tests/reference/make_segmentation.py NAME...

Computed in float64 with the formula's weights, in evaluation mode; every eighth row and column is kept.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torchvision.models import segmentation

sys.path.insert(0, str(Path(__file__).parents[1]))
from golden import formula_image, formula_weights

HERE = Path(__file__).parent
INPUT = (256, 320, 3)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GAIN = 1.4142135


@torch.no_grad()
def main(names):
    entries = json.loads((HERE / "segmentation.json").read_text())
    logits = dict(np.load(HERE / "segmentation.npz"))
    pixels = formula_image(*INPUT[:2]).astype(np.float64) / 255
    image = torch.tensor((pixels - np.array(MEAN)) / np.array(STD)).permute(2, 0, 1)[None]
    for name in names:
        network = getattr(segmentation, name)(weights=None, weights_backbone=None, aux_loss=True).eval()
        shapes = {key: tuple(value.shape) for key, value in network.state_dict().items() if value.ndim}
        weights = {key: torch.tensor(value) for key, value in formula_weights(shapes, GAIN).items()}
        network.load_state_dict(weights, strict=False)
        for key, output in network.to(torch.float64)(image).items():
            logits[f"{name}.{key}"] = output[0, :, ::8, ::8].float().numpy()
            print(name, key, "standard deviation", output.std().item())
        entries[name] = {
            "gain": GAIN,
            "input": INPUT,
            "mean": MEAN,
            "std": STD,
            "params": sum(value.numel() for value in network.parameters()),
            "names": sorted(shapes),
        }
    (HERE / "segmentation.json").write_text(json.dumps(entries, indent=1) + "\n")
    np.savez_compressed(HERE / "segmentation.npz", **logits)


if __name__ == "__main__":
    main(sys.argv[1:])
