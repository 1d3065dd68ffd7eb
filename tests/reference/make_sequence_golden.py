"""Writes sequence.npz: weights, inputs and outputs of PyTorch's recurrent layers and Transformers.

pip install torch && python tests/reference/make_sequence_golden.py
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

WIDTH, HEADS, HIDDEN, DEPTH = 8, 2, 16, 2
TRANSFORMER = {"dim_feedforward": HIDDEN, "dropout": 0.0, "batch_first": True}


def randomized(module):
    """All parameters drawn, those too that PyTorch starts at 0 and 1."""
    for name, parameter in module.named_parameters():
        nn.init.normal_(parameter, 1.0 if "norm" in name and "weight" in name else 0.0, 0.4)
    return module.eval()


def main():
    torch.manual_seed(0)
    arrays = {}

    def record(name, module, output, **inputs):
        tensors = {**module.state_dict(), "output": output, **inputs}
        arrays.update({f"{name}/{key}": value.detach().numpy() for key, value in tensors.items()})

    x, memory = torch.randn(2, 5, WIDTH), torch.randn(2, 6, WIDTH)
    for cell in (nn.RNN, nn.LSTM, nn.GRU):
        module = randomized(cell(WIDTH, 4, num_layers=DEPTH, batch_first=True))
        record(cell.__name__.lower(), module, module(x)[0], x=x)
    for norm in ("post", "pre"):
        first = {"norm_first": norm == "pre"}
        last = nn.LayerNorm(WIDTH) if norm == "pre" else None
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, **TRANSFORMER, **first)
        encoder = nn.TransformerEncoder(layer, DEPTH, norm=last, enable_nested_tensor=False)
        record(f"encoder.{norm}", randomized(encoder), encoder(x), x=x)
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(WIDTH, HEADS, **TRANSFORMER), DEPTH)
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    record("decoder", randomized(decoder), decoder(x, memory, tgt_mask=mask), x=x, memory=memory)
    np.savez_compressed(Path(__file__).parent / "sequence.npz", **arrays)


if __name__ == "__main__":
    main()
