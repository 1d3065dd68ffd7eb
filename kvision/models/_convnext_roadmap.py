"""The steps from ResNet-50 to ConvNeXt-T (Liu et al. 2022, https://arxiv.org/abs/2201.03545, section 2).

Each step keeps what those before it changed. Multiply-adds agree with Table 10 but for "layer_norm", where it
has 4.46 G after 4.15 G: normalisation has no multiply-adds of convolutions, and the paper's Table 11, for
ResNet-200, has none added there either.
"""

import dataclasses
import numbers
from dataclasses import dataclass
from functools import partial

import keras

from kvision.blocks import activate, batch_norm_of, conv, depthwise_conv, layer_norm, tap
from kvision.errors import UserError
from kvision.models import _convnext, _resnet
from kvision.models._family import Family
from kvision.spec import BatchNormVariant, did_you_mean


@dataclass(frozen=True, kw_only=True)
class RoadmapVariant(BatchNormVariant):
    """A network between the two.

    Attributes:
        depths: blocks a stage.
        filters: of the first stage's 3 x 3 convolutions; they double from stage to stage.
        depthwise: whether these are depthwise.
        inverted: whether a block's middle is four times as wide as its ends, and not the ends.
        depthwise_first: whether the depthwise convolution comes first in a block.
        kernel_size: of the depthwise convolution.
        activation: a Keras activation by name.
        fewer_activations: one a block, between the two 1 x 1 convolutions.
        fewer_norms: one a block, before the 1 x 1 convolutions.
        layer_norm: layer instead of batch normalisation.
    """

    depths: tuple[int, ...] = (3, 3, 9, 3)
    filters: int = 64
    depthwise: bool = False
    inverted: bool = False
    depthwise_first: bool = False
    kernel_size: int = 3
    activation: str = "relu"
    fewer_activations: bool = False
    fewer_norms: bool = False
    layer_norm: bool = False


CHANGES = {  # step by step
    "patchify_stem": {},
    "depthwise": {"depthwise": True},
    "width": {"filters": 96},
    "inverted_bottleneck": {"inverted": True},
    "depthwise_up": {"depthwise_first": True},
    "kernel_size": {"kernel_size": 7},
    "gelu": {"activation": "gelu"},
    "fewer_activations": {"fewer_activations": True},
    "fewer_norms": {"fewer_norms": True},
    "layer_norm": {"layer_norm": True},
}
STEPS = ("resnet50", "stage_ratio", *CHANGES, "downsampling")


def block(x, v: RoadmapVariant, *, filters, strides, norm, name):
    """A block of section 2: three convolutions (figure 3) and a residual."""
    inner, outer = (4 * filters, filters) if v.inverted else (filters, 4 * filters)

    def spatial(x, name):
        keywords = {"kernel_size": v.kernel_size, "strides": strides, "padding": "symmetric", "name": name}
        return depthwise_conv(x, **keywords) if v.depthwise else conv(x, filters=inner, **keywords)

    layers = [partial(conv, filters=inner), spatial, partial(conv, filters=outer)]
    if v.depthwise_first:
        layers = [spatial, layers[0], layers[2]]
    shortcut = x
    if strides > 1 or x.shape[-1] != outer:
        shortcut = conv(x, filters=outer, strides=strides, name=f"{name}.downsample.0")
        shortcut = norm(shortcut, name=f"{name}.downsample.1")
    for i, layer in enumerate(layers):
        x = layer(x, name=f"{name}.conv{i + 1}")
        if layer is spatial or not v.fewer_norms:
            x = norm(x, name=f"{name}.norm{i + 1}")
        if i == 1 or (i == 0 and not v.fewer_activations):
            x = activate(x, activation=v.activation, name=f"{name}.act{i + 1}")
    x = keras.layers.Add(name=f"{name}.add")([shortcut, x])
    return x if v.fewer_activations else activate(x, activation=v.activation, name=f"{name}.act")


def trunk(x, v: RoadmapVariant):
    norm = partial(layer_norm, epsilon=1e-6) if v.layer_norm else batch_norm_of(v)
    x = conv(x, filters=v.filters, kernel_size=4, strides=4, padding="valid", name="stem.0")
    x = norm(x, name="stem.1")
    if not v.fewer_activations:
        x = activate(x, activation=v.activation, name="stem.act")
    for stage, depth in enumerate(v.depths):
        for i in range(depth):
            x = block(
                x,
                v,
                filters=v.filters * 2**stage,
                strides=2 if i == 0 and stage > 0 else 1,
                norm=norm,
                name=f"stages.{stage}.blocks.{i}",
            )
        x = tap(x, f"c{stage + 2}")
    return x


def convnext_roadmap(step: str | int, **keywords) -> keras.Model:
    """Builds a step of the way from ResNet-50 to ConvNeXt-T.

    Args:
        step: "resnet50", "stage_ratio", "patchify_stem", "depthwise", "width", "inverted_bottleneck",
            "depthwise_up", "kernel_size", "gelu", "fewer_activations", "fewer_norms", "layer_norm" or
            "downsampling", or the number of one from 0 to 12. The first is `resnet50`, the last
            `convnext_tiny`.
        **keywords: those of `resnet50`; of its columns those that the step's network has.

    Returns:
        A functional `keras.Model`, as `resnet50` does.

    Raises:
        ValueError: an unknown step, or as `resnet50`.
    """
    if isinstance(step, numbers.Integral) and not isinstance(step, bool) and step in range(len(STEPS)):
        step = STEPS[step]
    if step not in STEPS:
        if isinstance(step, str):
            raise UserError(f"Unknown `step` {step!r}. {did_you_mean(step, STEPS)}")
        raise UserError(f"`step` must be a name or a number from 0 to {len(STEPS) - 1}; got {step!r}.")
    keywords.setdefault("name", f"convnext_roadmap_{step}")
    if step == "resnet50":
        return _resnet.FAMILY.build("resnet50", **keywords)
    if step == "stage_ratio":
        row = dataclasses.replace(_resnet.VARIANTS["resnet50"], depths=(3, 3, 9, 3))
        return _resnet.FAMILY.build(row, **keywords)
    if step == "downsampling":
        return _convnext.FAMILY.build("convnext_tiny", **keywords)
    row = RoadmapVariant()
    for name, change in CHANGES.items():
        row = dataclasses.replace(row, **change)
        if name == step:
            break
    return Family(trunk, {}, classifier="fc").build(row, **keywords)
