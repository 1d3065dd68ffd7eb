"""AlexNet (Krizhevsky et al. 2012) and its one-tower form (Krizhevsky 2014, https://arxiv.org/abs/1404.5997).

`alexnet` has two groups, response normalisation and overlapping pooling, and takes the 227 pixels to which
the paper's 224 come out. `alexnet_owt` is torchvision's `alexnet`, but for dropout, which is on the outputs
of the hidden layers here, as in the first paper, and there on their inputs.
"""

from dataclasses import dataclass

from kvision.blocks import ConvRow, classic_stages, hidden_layers
from kvision.models._family import Family
from kvision.spec import Variant

# filters, kernel, strides, padding, groups, response normalisation, pooling; a pool is 3 x 3, strides 2
POOL = (3, 2)
KRIZHEVSKY = (  # section 3.5
    ConvRow(96, 11, 4, 0, 1, True, POOL),
    ConvRow(256, 5, 1, 2, 2, True, POOL),
    ConvRow(384, 3, 1, 1),
    ConvRow(384, 3, 1, 1, 2),
    ConvRow(256, 3, 1, 1, 2, False, POOL),
)
ONE_TOWER = (
    ConvRow(64, 11, 4, 2, 1, False, POOL),
    ConvRow(192, 5, 1, 2, 1, False, POOL),
    ConvRow(384, 3, 1, 1),
    ConvRow(256, 3, 1, 1),
    ConvRow(256, 3, 1, 1, 1, False, POOL),
)


@dataclass(frozen=True, kw_only=True)
class AlexNetVariant(Variant):
    """A row of the table.

    Attributes:
        rows: the convolutions.
        hidden_filters: units of the two hidden dense layers.
    """

    rows: tuple[ConvRow, ...]
    hidden_filters: int = 4096
    dropout_rate: float = 0.5


VARIANTS = {  # trainable parameters: the sum over the paper's layers; torchvision
    "alexnet": AlexNetVariant(rows=KRIZHEVSKY, input_size=227, params=60_965_224),
    "alexnet_owt": AlexNetVariant(rows=ONE_TOWER, params=61_100_840),
}


def trunk(x, v: AlexNetVariant):
    return classic_stages(x, v.rows)


def top(x, v: AlexNetVariant):
    return hidden_layers(
        x,
        filters=v.hidden_filters,
        map_size=6,
        dropout_rate=v.dropout_rate,
        names=("classifier.1", "classifier.4"),
    )


FAMILY = Family(trunk, VARIANTS, top, classifier="classifier.6", min_size=67)
alexnet = FAMILY.builder("alexnet")
alexnet_owt = FAMILY.builder("alexnet_owt")
