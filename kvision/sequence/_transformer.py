"""The Transformer's encoder (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762), as a classifier.

Vectors take the place of words, through a dense layer, and the classifier sees the mean over the steps. With
`norm="pre"` each branch is normalised in front (Xiong et al. 2020, https://arxiv.org/abs/2002.04745), and
the sum at the end. Departure: the sinusoidal encoding has all sines in front of all cosines, which is the
paper's with its channels in another order.
"""

from dataclasses import dataclass
from typing import Literal

import keras

from kvision.blocks import encoder_block, layer_norm
from kvision.layers import PositionEmbedding, SinusoidalEncoding
from kvision.sequence._family import SequenceFamily, SequenceRow
from kvision.spec import column

EPSILON = 1e-5  # of layer normalisations, as PyTorch's


@dataclass(frozen=True, kw_only=True)
class TransformerVariant(SequenceRow):
    """A row of the table.

    Attributes:
        norm: "post", behind each sum, as in the paper, or "pre", in front of each branch.
        positions: "sinusoidal", as in the paper, "learned", or None: the network is then blind to order.
        depth: blocks.
        width: channels of a token.
        hidden: units of the MLPs.
        num_heads: of the attention.
        dropout_rate: of the embedded sequence, in the blocks, and in front of the classifier.
    """

    norm: Literal["post", "pre"] = "post"
    positions: Literal["sinusoidal", "learned", None] = "sinusoidal"
    depth: int = 6
    width: int = 512
    hidden: int = 2048
    num_heads: int = 8
    dropout_rate: float = column(0.1, free=True)


BLOCK = 4 * (512 * 512 + 512) + (512 * 2048 + 2048) + (2048 * 512 + 512) + 4 * 512
VARIANTS = {  # Table 3, "base"; trainable parameters: the sum over the layers
    "transformer_encoder": TransformerVariant(params=(28 * 512 + 512) + 6 * BLOCK + (512 * 10 + 10)),
}


def trunk(x, v: TransformerVariant):
    x = keras.layers.Dense(v.width, name="embed")(x)
    x = encode(x, positions=v.positions, norm=v.norm, depth=v.depth, hidden=v.hidden,
               num_heads=v.num_heads, dropout_rate=v.dropout_rate)  # fmt: skip
    return keras.layers.GlobalAveragePooling1D(name="pool")(x)


def encode(x, *, positions, norm, depth, hidden, num_heads, dropout_rate):
    """Positions and blocks: `(batch, steps, width)` in and out. See `TransformerVariant`."""
    steps, width = x.shape[1:]
    if positions == "sinusoidal":
        x = SinusoidalEncoding(name="pos_embed")(x)
    elif positions == "learned":
        x = PositionEmbedding((0, 0), prefix_tokens=steps, name="pos_embed")(x)
    x = keras.layers.Dropout(dropout_rate, name="embed.drop")(x)
    for i in range(depth):
        x = encoder_block(
            x,
            num_heads=num_heads,
            mlp_ratio=hidden / width,
            activation="relu",
            epsilon=EPSILON,
            dropout_rate=dropout_rate,
            post_norm=norm == "post",
            name=f"blocks.{i}",
        )
    return x if norm == "post" else layer_norm(x, epsilon=EPSILON, name="norm")


FAMILY = SequenceFamily(trunk, VARIANTS)
transformer_encoder = FAMILY.builder("transformer_encoder")
