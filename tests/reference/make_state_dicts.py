"""Makes state_dicts.json, the shapes of timm's parameters and buffers, and lenet5.pth, as PyTorch saves it.

pip install torch timm && python tests/reference/make_state_dicts.py
"""

import json
from pathlib import Path

import numpy as np
import timm
import torch

HERE = Path(__file__).parent
NETWORKS = (  # one of each family
    "mobilenetv1_100", "mobilenetv2_100", "tf_mobilenetv3_small_100", "mobilenetv4_conv_small",
    "tf_efficientnet_b0", "tf_efficientnetv2_b2", "vgg11_bn", "inception_v3", "resnet18", "legacy_xception",
    "densenet121", "convnext_atto", "convnextv2_atto", "vit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224", "swin_tiny_patch4_window7_224",
)  # fmt: skip
LENET = {  # as kvision's lenet5, with its dense layers as PyTorch has them
    "c1.conv": (6, 1, 5, 5), "c3.conv": (16, 6, 5, 5), "c5.conv": (120, 400), "f6": (84, 120),
    "classifier": (10, 84),
}  # fmt: skip


def main():
    shapes = {
        name: {key: list(value.shape) for key, value in timm.create_model(name).state_dict().items()}
        for name in NETWORKS
    }
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in shapes.items()]
    (HERE / "state_dicts.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    tensors = {}
    for name, shape in LENET.items():  # values that count, in an order of the axes that is not the memory's
        count = torch.arange(np.prod(shape), dtype=torch.float32)
        tensors[f"{name}.weight"] = count.reshape(*reversed(shape)).permute(*reversed(range(len(shape))))
        tensors[f"{name}.bias"] = torch.arange(2.0 * shape[0])[::2]
    tensors["c1.conv.bias"] = torch.nn.Parameter(tensors["c1.conv.bias"])
    torch.save(tensors, HERE / "lenet5.pth")
    torch.save(tensors, HERE / "lenet5_old.pth", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()
