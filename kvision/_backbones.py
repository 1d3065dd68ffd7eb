"""Networks that stand on the trunk of a classifier: the row's, with torchvision's names, or any other."""

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import keras

from kvision import registry
from kvision._features import features
from kvision._nested import check_model
from kvision.errors import UserError
from kvision.keras_internals import producer
from kvision.layers import PositionEmbedding, TokenTap, WholeConv2D, WindowAttention
from kvision.models._family import Family
from kvision.models._mobilenet_v3 import torchvision_names
from kvision.spec import column, did_you_mean

OF_HEADS = ("dropout_rate", "hidden_filters")  # columns of VGG's table that detectors read
OF_FIXED_SIZE = PositionEmbedding, TokenTap, WindowAttention  # layers
NAMED = re.compile(r"image|rgb|preprocess|trunk|c\d")  # layers that keep their names on any backbone


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneRow:
    """The part of a row that names the network it stands on, whose columns the row has too."""

    backbone: str = column(fixed=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneFamily(Family):
    """A table of networks on the trunk of the row's `backbone`.

    Attributes:
        backbone_weights: of the network that is being built.
        prefix: of the names of the backbone's layers.
    """

    prefix: ClassVar[str] = "backbone."

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
        return {name: self.prefix + path for name, path in paths.items()}

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnyBackboneFamily(BackboneFamily):
    """A table of networks that stand on the row's `backbone` or on another one.

    Attributes:
        backbone: of the network that is being built: a name, a model, or None for the row's.
        columns: that were given for it.
    """

    backbone: str | keras.Model | None = None
    columns: Mapping[str, object] = dataclasses.field(default_factory=dict)

    def build(self, variant, *, backbone=None, backbone_weights=None, **keywords) -> keras.Model:
        classifiers = registry.list_models(task="classification")
        if isinstance(backbone, keras.Model):
            check_network(backbone, "backbone")
            if backbone_weights is not None:
                raise UserError("`backbone_weights` need the name of a `backbone`; a model has weights.")
        elif backbone is not None and backbone not in classifiers:
            raise UserError(
                f"`backbone` must be a classifier's name, or a model; got {backbone!r:.100}. "
                f"{did_you_mean(str(backbone), classifiers)}"
            )
        row: Any = self.variants[variant] if isinstance(variant, str) else variant
        columns = self._columns_of(backbone or row.backbone, row.backbone, keywords)
        family = dataclasses.replace(self, backbone=backbone, columns=columns)
        return super(AnyBackboneFamily, family).build(variant, backbone_weights=backbone_weights, **keywords)

    @staticmethod
    def _columns_of(backbone, default: str, keywords) -> dict[str, object]:
        """The keywords that are columns of the row's backbone `default`, which another one must have too."""
        known = {*registry.info(default).variant.columns()} - {*OF_HEADS}
        columns = {name: value for name, value in keywords.items() if name in known and value is not None}
        own = [] if isinstance(backbone, keras.Model) else registry.info(backbone).variant.columns()
        if foreign := next((name for name in columns if name not in own), None):
            has = "a model has its own" if isinstance(backbone, keras.Model) else f"{backbone} has none"
            raise UserError(f"`{foreign}` is a column of {default}, which `backbone` replaces; {has}.")
        return columns

    def network(self, variant: Any, input_shape, preprocess, after=None) -> keras.Model:
        """See `BackboneFamily.network`."""
        if self.backbone is None:
            return super().network(variant, input_shape, preprocess, after)
        multiple = max((layer.multiple for layer in (after or {}).values()), default=1)
        backbone = self.model(self.backbone, padded(input_shape, multiple), preprocess, include_top=False)
        return rebuilt(
            backbone,
            input_shape,
            make=normalizing(preprocess),
            name=self.prefixed(backbone),
            after=after,
            with_weights=self.backbone_weights is not None or backbone is self.backbone,
        )

    def prefixed(self, backbone: keras.Model) -> dict[str, str]:
        """The names that the layers of any network get."""
        names = (layer.name for layer in backbone.layers)
        return {name: self.prefix + name for name in names if not NAMED.fullmatch(name)}

    def model(self, backbone, input_shape, preprocess, **keywords) -> keras.Model:
        """The backbone: a model as it is, or the network of a name."""
        if not isinstance(backbone, keras.Model):
            keywords |= {
                "weights": self.backbone_weights,
                "input_shape": input_shape,
                "preprocess": preprocess,
            }
            return registry.create_model(backbone, **keywords, **self.columns)
        if backbone.input_shape[-1] != input_shape[-1]:
            raise UserError(
                f"`backbone` takes {backbone.input_shape[-1]} channels; `input_shape` has {input_shape[-1]}."
            )
        fixed = any(isinstance(layer, OF_FIXED_SIZE) for layer in backbone.layers)
        if fixed and backbone.input_shape[1:] != input_shape:
            raise UserError(
                f"`backbone` takes images of {backbone.input_shape[1:3]} alone: build it with "
                f"`input_shape={input_shape}`."
            )
        return backbone


def maps_of(network: keras.Model, *names: str) -> list:
    """The outputs of taps; the last is that of a layer `trunk`, behind which a top begins."""
    *finer, last = features(network, names).output.values()
    return [*finer, keras.layers.Identity(name="trunk")(last)]


def last_map(network: keras.Model):
    """The output of the layer `trunk` as a map `(batch, height, width, channels)`, where it is tokens too."""
    trunk = network.get_layer("trunk")
    tap = producer(trunk.input)[0]
    return tap.feature_map(trunk.output) if isinstance(tap, TokenTap) else trunk.output


def padded(input_shape: tuple, multiple: int) -> tuple:
    """The shape of an image that is padded to a multiple."""
    return (*(size and -(-size // multiple) * multiple for size in input_shape[:2]), input_shape[-1])


def has_layer(model: keras.Model, name: str) -> bool:
    """Whether a layer of the model has this name."""
    return any(layer.name == name for layer in model.layers)


def check_network(model, key: str) -> None:
    """Raises a UserError for a model that is not a network of kvision."""
    check_model(model, key)
    if not has_layer(model, "trunk"):
        raise UserError(f"`{key}` must be a network of kvision; {model.name} has no layer `trunk`.")


def normalizing(preprocess):
    """For `rebuilt`: a function that puts another normalisation in the place of a network's."""

    def make(layer):
        if layer.name != "preprocess" or not preprocess:
            return None
        constants = preprocess.for_channels(layer.output.shape[-1]).constants
        return keras.layers.Rescaling(*constants, dtype=layer.dtype_policy, name=layer.name)

    return make


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
