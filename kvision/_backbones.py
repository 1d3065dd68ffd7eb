"""Networks that stand on the trunk of a classifier, whose layers have torchvision's names there."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import keras

from kvision import registry
from kvision.layers import WholeConv2D
from kvision.models._family import Family
from kvision.models._mobilenet_v3 import torchvision_names
from kvision.spec import column


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneRow:
    """The part of a row that names the network it stands on, whose columns the row has too."""

    backbone: str = column(fixed=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneFamily(Family):
    """A table of networks on the trunk of the row's `backbone`.

    Attributes:
        backbone_weights: of the network that is being built.
    """

    trunk: Callable | None = None
    classifier_activation: str | None = None
    backbone_weights: object = None

    def keywords(self) -> list[inspect.Parameter]:
        own = inspect.signature(type(self).build).parameters.values()
        return [*super().keywords(), *(keyword for keyword in own if keyword.kind is keyword.KEYWORD_ONLY)]

    def build(self, variant, *, backbone_weights=None, **keywords) -> keras.Model:
        family = dataclasses.replace(self, backbone_weights=backbone_weights)
        return super(BackboneFamily, family).build(variant, **keywords)

    def paths(self, backbone: keras.Model) -> dict[str, str]:
        """The names that the layers with weights of a ResNet or MobileNetV3 get."""
        names = [layer.name for layer in backbone.layers if layer.weights]
        paths = torchvision_names(names) if names[0] == "conv_stem" else {name: name for name in names}
        return {name: f"backbone.{path}" for name, path in paths.items()}

    def network(self, variant: Any, input_shape, preprocess, after=None) -> keras.Model:
        """As `Family.network`; `after` as `rebuilt`."""
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
            name=self.paths(backbone),
            after=after,
            with_weights=self.backbone_weights is not None,
        )


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
