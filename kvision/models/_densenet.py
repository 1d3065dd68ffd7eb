"""DenseNet-BC (Huang et al. 2016, https://arxiv.org/abs/1608.06993), with bottlenecks and compression.

keras.applications' networks have `norm_epsilon=1.001e-5`. DenseNet-264 is the paper's.
"""

from dataclasses import dataclass

import keras

from kvision.blocks import batch_norm_of, conv, conv_norm_act, max_pool, tap
from kvision.models._family import Family
from kvision.spec import BatchNormVariant


@dataclass(frozen=True, kw_only=True)
class DenseNetVariant(BatchNormVariant):
    """A row of the table.

    Attributes:
        depths: layers a dense block.
        growth_rate: the paper's k, filters that each layer adds.
        compression: the paper's theta, share of the filters that a transition keeps.
        stem_filters: None for 2 k.
    """

    depths: tuple[int, ...]
    growth_rate: int = 32
    compression: float = 0.5
    stem_filters: int | None = None


VARIANTS = {  # Table 1; trainable parameters: timm, and for 264 the sum over Table 1
    "densenet121": DenseNetVariant(depths=(6, 12, 24, 16), params=7_978_856),
    "densenet161": DenseNetVariant(depths=(6, 12, 36, 24), growth_rate=48, params=28_681_000),
    "densenet169": DenseNetVariant(depths=(6, 12, 32, 32), params=14_149_480),
    "densenet201": DenseNetVariant(depths=(6, 12, 48, 32), params=20_013_928),
    "densenet264": DenseNetVariant(depths=(6, 12, 64, 48), params=33_337_704),
}


def dense_layer(x, v: DenseNetVariant, norm, name):
    """Adds k maps, by way of 4 k, to all that came before."""
    new = norm(x, activation="relu", name=f"{name}.norm1")
    new = conv_norm_act(
        new,
        filters=4 * v.growth_rate,
        norm=norm,
        activation="relu",
        name=f"{name}.conv1",
        norm_name=f"{name}.norm2",
    )
    new = conv(new, filters=v.growth_rate, kernel_size=3, name=f"{name}.conv2")
    return keras.layers.Concatenate(name=f"{name}.concatenate")([x, new])


def transition(x, v: DenseNetVariant, norm, name):
    """Keeps a share of the filters and halves height and width."""
    x = norm(x, activation="relu", name=f"{name}.norm")
    x = conv(x, filters=max(1, int(x.shape[-1] * v.compression)), name=f"{name}.conv")
    return keras.layers.AveragePooling2D(2, name=f"{name}.pool")(x)


def trunk(x, v: DenseNetVariant):
    norm = batch_norm_of(v)
    x = conv_norm_act(
        x,
        filters=v.stem_filters or 2 * v.growth_rate,
        kernel_size=7,
        strides=2,
        padding="symmetric",
        norm=norm,
        activation="relu",
        name="features.conv0",
        norm_name="features.norm0",
    )
    x = tap(x, "c1")
    x = max_pool(x, pool_size=3, padding="symmetric", name="features.pool0")
    for block, depth in enumerate(v.depths, 1):
        if block > 1:
            x = tap(x, f"c{block}")
            x = transition(x, v, norm, f"features.transition{block - 1}")
        for layer in range(1, depth + 1):
            x = dense_layer(x, v, norm, f"features.denseblock{block}.denselayer{layer}")
    return tap(norm(x, activation="relu", name="features.norm5"), "c5")


FAMILY = Family(trunk, VARIANTS)
densenet121 = FAMILY.builder("densenet121")
densenet161 = FAMILY.builder("densenet161")
densenet169 = FAMILY.builder("densenet169")
densenet201 = FAMILY.builder("densenet201")
densenet264 = FAMILY.builder("densenet264")
