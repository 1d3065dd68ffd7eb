"""Makes checkpoint*.pth.tar, as a training with PyTorch saves them, and whole.pth, a pickled network.

pip install torch && python tests/reference/make_checkpoints.py
"""

import argparse
import collections
import copy
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

HERE = Path(__file__).parent


def lenet() -> nn.Module:
    """kvision's lenet5 with `filters=(2, 3, 4, 5)`, as PyTorch names it."""
    network = nn.Module()
    for name, channels in (("c1", (1, 2)), ("c3", (2, 3)), ("c5", (3, 4))):
        network.add_module(name, nn.Module())
        network.get_submodule(name).add_module("conv", nn.Conv2d(*channels, 5))
    network.add_module("f6", nn.Linear(4, 5))
    network.add_module("classifier", nn.Linear(5, 7))
    return network


def main():
    """The weights count from 0, their average from 1,000."""
    network, average = lenet(), lenet()
    for module, start in ((network, 0), (average, 1000)):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(torch.arange(start, start + parameter.numel()).reshape(parameter.shape))
    ema = AveragedModel(average)
    ema.n_averaged += 1
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.0, weight_decay=0.0)
    sum(parameter.sum() for parameter in network.parameters()).backward()
    optimizer.step()
    options = argparse.Namespace(
        data=Path("/data"),
        device=torch.device("cuda:0"),
        dtype=torch.float16,
        size=torch.Size([3, 32, 32]),
        rate=np.float32(0.1),
        steps=np.arange(3),
        history=collections.defaultdict(list, loss=[1.0]),
        crops={(32, 32): {1, 2}},
        loss=nn.CrossEntropyLoss(),
        activation=torch.tanh,
    )
    checkpoint = {
        "epoch": 3,
        "arch": "lenet5",
        "state_dict": nn.DataParallel(torch.compile(network)).state_dict(),
        "state_dict_ema": ema.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10).state_dict(),
        "scaler": torch.amp.GradScaler("cpu").state_dict(),
        "best": torch.tensor(0.5),
        "args": options,
    }
    torch.save(checkpoint, HERE / "checkpoint.pth.tar")
    torch.save(checkpoint, HERE / "checkpoint_old.pth.tar", _use_new_zipfile_serialization=False)
    without = copy.copy(checkpoint)
    del without["state_dict_ema"]
    torch.save(without, HERE / "checkpoint_without_average.pth.tar", pickle_protocol=4)
    torch.save(network, HERE / "whole.pth")


if __name__ == "__main__":
    main()
