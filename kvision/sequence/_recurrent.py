"""Recurrent networks that classify sequences: the last state, and a dense layer."""

from dataclasses import dataclass
from typing import Literal

from kvision.blocks import recurrent
from kvision.sequence._family import SequenceFamily, SequenceRow


@dataclass(frozen=True, kw_only=True)
class RecurrentVariant(SequenceRow):
    """A row of the table.

    Attributes:
        cell: see `kvision.blocks.recurrent`.
        units: of each layer.
        depth: layers.
        reset_after: of a GRU, whether the reset gate acts behind the recurrent product; False is the
            textbook's, which no GPU has a kernel for.
    """

    cell: Literal["rnn", "lstm", "gru"] = "lstm"
    units: int = 128
    depth: int = 1
    reset_after: bool = True


VARIANTS = {  # trainable parameters: the sum over the layers, 4((E + H)H + H) of the LSTM; none are published
    "recurrent_classifier": RecurrentVariant(params=4 * ((28 + 128) * 128 + 128) + (128 * 10 + 10)),
}


def trunk(x, v: RecurrentVariant):
    return recurrent(
        x,
        cell=v.cell,
        units=v.units,
        depth=v.depth,
        reset_after=v.reset_after,
        return_sequences=False,
        name="rnn",
    )


FAMILY = SequenceFamily(trunk, VARIANTS)
recurrent_classifier = FAMILY.builder("recurrent_classifier")
