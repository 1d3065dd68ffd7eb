"""The parts that all segmentation networks share: the trunk of a classifier, and their keywords."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import keras

from kvision import registry
from kvision._nested import check_model
from kvision.errors import UserError
from kvision.layers import WholeConv2D
from kvision.models._family import Family
from kvision.models._mobilenet_v3 import torchvision_names
from kvision.spec import column

STRIDE_8 = "backbone.4.block.3.1"  # MobileNetV3's first map of stride 8: torchvision's choice

DOC = """Builds {name}: {params:,} trainable parameters, {size} x {size} pixels as published.

{summary}

Args:
    include_top: whether to end in logits of each pixel.
    weights: None for fresh weights; a tag of `kvision.list_weights("{name}.*")`; or a source of
        `kvision.weights.load`. They are adapted to other classes and channels, which is logged; the
        classifier is only fresh where `num_classes` is given.
    input_shape: `(height, width, channels)`; height and width may be None for any size.
    pooling: without a top, None for the feature map, "avg" or "max" for a vector.
    num_classes: channels of the output; by default those of the weights.
    classifier_activation: a Keras activation by name; None for logits.
    preprocess: a `kvision.Preprocess`, where the normalisation is not that of the weights or the network.
    name: of the model.
    allow_nonfinite: whether weights may be NaN or infinity.
    backbone: the network that it stands on, where that can be chosen: the name of a classifier, or one of
        kvision's networks with its weights, which are copied.
    backbone_weights: of the network that it stands on, as that one's builder takes them.
    {columns}: columns of the table, see `{row}`.

Returns:
    A functional `keras.Model` from pixels in [0, 255], `(batch, height, width, channels)`, to float32
    `(batch, height, width, num_classes)`; with `auxiliary`, to a dict of these, "predictions" and
    "aux_classifier"; without a top, to the feature map or its pooled vector.

Raises:
    TypeError: an unknown keyword.
    ValueError: a value that does not fit, or weights that are NaN, of another network or other columns.
    OSError: weights that are not there or cannot be downloaded.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneRow:
    """The part of a row that names the network it stands on, whose columns the row has too."""

    backbone: str = column(fixed=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentationFamily(Family):
    """A table of networks that answer for each pixel, on the trunk of the row's `backbone`.

    Layers of the trunk have torchvision's names, below `backbone.`.

    Attributes:
        backbone_weights: of the network that is being built.
    """

    doc: ClassVar[str] = DOC

    trunk: Callable | None = None
    classifier_activation: str | None = None
    task: str = "segmentation"
    backbone_weights: object = None

    def keywords(self) -> list[inspect.Parameter]:
        own = inspect.signature(type(self).build).parameters.values()
        return [*super().keywords(), *(keyword for keyword in own if keyword.kind is keyword.KEYWORD_ONLY)]

    def build(self, variant, *, backbone_weights=None, **keywords) -> keras.Model:
        family = dataclasses.replace(self, backbone_weights=backbone_weights)
        return Family.build(family, variant, **keywords)

    def network(self, variant: Any, input_shape, preprocess) -> keras.Model:
        columns = registry.info(variant.backbone).variant.columns()
        backbone = registry.create_model(
            variant.backbone,
            include_top=False,
            weights=self.backbone_weights,
            input_shape=input_shape,
            preprocess=preprocess or (None if self.backbone_weights is not None else variant.preprocess),
            **{column: getattr(variant, column) for column in columns},
        )
        return rebuilt(
            backbone,
            backbone.input_shape[1:],
            name=torchvision_paths(backbone),
            with_weights=self.backbone_weights is not None,
        )


def torchvision_paths(backbone: keras.Model) -> dict[str, str]:
    """The names that the layers with weights of a ResNet or MobileNetV3 get in torchvision's networks."""
    names = [layer.name for layer in backbone.layers if layer.weights]
    paths = torchvision_names(names) if names[0] == "conv_stem" else {name: name for name in names}
    return {name: f"backbone.{path}" for name, path in paths.items()}


def rebuilt(
    network: keras.Model,
    input_shape: tuple,
    *,
    make: Callable | None = None,
    name: dict[str, str] | None = None,
    after: dict[str, keras.layers.Layer] | None = None,
    with_weights: bool = True,
) -> keras.Model:
    """A copy of a network for another input.

    Args:
        network: with one input and one output.
        input_shape: `(height, width, channels)`.
        make: from a layer to the one in its place, or None for a copy, of a `WholeConv2D` the convolution.
        name: new names of layers.
        after: layers to insert, by the name of the one they follow.
        with_weights: whether the weights are copied, to kernels of another shape with as many values too.
    """
    name, after = name or {}, after or {}
    copies = []

    def copy(layer):
        new = make(layer) if make else None
        if new is None:
            config = layer.get_config() | {"name": name.get(layer.name, layer.name)}
            kind = keras.layers.Conv2D if isinstance(layer, WholeConv2D) else type(layer)
            new = kind.from_config(config)
        copies.append((layer, new))
        return new

    def call(layer, *args, **keywords):
        outputs = layer(*args, **keywords)
        return after[layer.name](outputs) if layer.name in after else outputs

    inputs = keras.Input(input_shape, dtype=network.input.dtype, name="image")
    model = keras.models.clone_model(network, input_tensors=inputs, clone_function=copy, call_function=call)
    if with_weights:
        for layer, new in copies:
            for old, variable in zip(layer.weights, new.weights, strict=True):
                variable.assign(keras.ops.reshape(old, variable.shape))
    return model


def check_network(model, key: str) -> None:
    """Raises a UserError for a model that is not a network of kvision."""
    check_model(model, key)
    if not any(layer.name == "trunk" for layer in model.layers):
        raise UserError(f"`{key}` must be a network of kvision; {model.name} has no layer `trunk`.")
