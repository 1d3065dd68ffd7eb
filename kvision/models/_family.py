"""The parts that all builders share: keywords, input, preprocessing, top, weights."""

import dataclasses
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import ClassVar

import keras

import kvision.weights
from kvision.errors import UnknownKeyword, UserError
from kvision.keras_internals import producer
from kvision.layers import TokenTap
from kvision.models import _values
from kvision.networks import image_of
from kvision.registry import register
from kvision.spec import ModelInfo, Preprocess, Variant, nearest

BUILDER_DOC = """Builds {name}: {params:,} trainable parameters, {size} x {size} pixels as published.

{summary}

Args:
    include_top: whether to end in a classifier.
    weights: None for fresh weights; "imagenet"; a tag of `kvision.list_weights("{name}.*")`; or a source of
        `kvision.weights.load`, such as a `.safetensors` file or "hf-hub:OWNER/REPOSITORY". They are adapted
        to other classes, channels and sizes, which is logged; the classifier is only fresh where
        `num_classes` is given. Files of other kinds than `.keras` and those of `kvision.weights.save` do not
        say which columns they were trained with, such as `padding` or `norm_epsilon`: give the same.
    input_shape: `(height, width, channels)`; height and width are at most 16,384, or None for any size.
    pooling: without a top, None for the feature map, "avg" or "max" for a vector.
    num_classes: outputs of the classifier; by default those of the weights.
    classifier_activation: a Keras activation by name; None for logits.
    preprocess: a `kvision.Preprocess`; by default the normalisation that the weights were trained with, where
        they say it (published ones, `.keras` files, files of `kvision.weights.save`), else the network's.
    name: of the model.
    allow_nonfinite: whether weights may be NaN or infinity.
    {columns}: columns of the family's table, see `{row}`.

Returns:
    A functional `keras.Model` from pixels in [0, 255], `(batch, height, width, channels)`, to float32
    `(batch, num_classes)`; with `auxiliary`, to a dict of these, "predictions" and the auxiliary heads;
    without a top, to the feature map or its pooled vector.

Raises:
    TypeError: an unknown keyword.
    ValueError: a value that does not fit, or weights that are NaN, of another network or other columns.
    OSError: weights that are not there or cannot be downloaded.
"""

ALIASES = {  # keywords of keras.applications and timm, and short ones
    "alpha": "width_multiplier", "width": "width_multiplier", "classes": "num_classes",
    "pretrained": "weights", "in_chans": "input_shape", "img_size": "input_shape", "global_pool": "pooling",
}  # fmt: skip


def global_average(x, variant):
    """The usual top: the mean over height and width."""
    return keras.layers.GlobalAveragePooling2D(name="pool")(x)


@dataclasses.dataclass(frozen=True)
class Family:
    """A table of variants and what builds them.

    Attributes:
        trunk: `trunk(x, variant)`, from normalised pixels to the last feature map.
        variants: the table: rows by name.
        top: `top(x, variant)`, from the last feature map to what dropout and classifier see.
        classifier: the name of the classifier's layer, of the first one with `heads`.
        heads: `heads(x, variant, num_classes)` where the classifier is not one dense layer: from the top's
            output, after dropout, to logits by name, "predictions" first.
        min_size: the smallest height and width in pixels that leave a feature map of one pixel.
        auxiliary_head: `auxiliary_head(x, variant, num_classes, name)`, from a tensor of the trunk to logits.
        auxiliary_heads: those of a row with `auxiliary`: their names, and the layers they stand on.
        module: that holds the table; None for the trunk's.
        decoder: `decoder(network, variant, num_classes)`, where a network has no top but answers for each
            pixel: from the model of the trunk to logits by name, "predictions" first.
        classifier_activation: by default.
        task: as `kvision.list_models` takes it.
    """

    doc: ClassVar[str] = BUILDER_DOC

    trunk: Callable
    variants: Mapping[str, Variant]
    top: Callable = global_average
    classifier: str = "classifier"
    heads: Callable | None = None
    min_size: int = 32
    auxiliary_head: Callable | None = None
    auxiliary_heads: Mapping[str, str] = dataclasses.field(default_factory=dict)
    module: str | None = None
    decoder: Callable | None = None
    classifier_activation: str | None = "softmax"
    task: str = "classification"

    def builder(self, name: str) -> Callable[..., keras.Model]:
        """The public function that builds a variant; it is registered under its name."""
        variant = self.variants[name]

        def build(**keywords) -> keras.Model:
            return self.build(name, **(self._defaults(name) | keywords))

        module = self.module or self.trunk.__module__
        package, _, file = module.rpartition(".")
        summary = (inspect.getdoc(sys.modules[module]) or "").splitlines()[0]
        build.__name__ = build.__qualname__ = name
        build.__module__ = package
        build.__signature__ = self._signature(variant, name)
        build.__doc__ = self.doc.format(
            name=name,
            params=variant.params,
            size=variant.image_size,
            input=variant.input_text,
            summary=summary,
            columns=", ".join(variant.columns()),
            row=f"{type(variant).__module__.rpartition('.')[0]}.{type(variant).__name__}",
        )
        rows = kvision.weights.rows_of(name)
        family = file.removeprefix("_")
        register(ModelInfo(name, family, variant, rows, self.classifier, self.task), build)
        return build

    def _defaults(self, name) -> dict:
        return {"name": name, "classifier_activation": self.classifier_activation}

    def _signature(self, variant: Variant, name: str) -> inspect.Signature:
        """The keywords of `build`, then the columns with the row's values as defaults."""
        defaults = self._defaults(name) | {"num_classes": variant.num_classes}
        shared = [p.replace(default=defaults.get(p.name, p.default)) for p in self.keywords()]
        columns = [
            inspect.Parameter(column, inspect.Parameter.KEYWORD_ONLY, default=getattr(variant, column))
            for column in variant.columns()
        ]
        return inspect.Signature(shared + columns, return_annotation=keras.Model)

    def keywords(self) -> list[inspect.Parameter]:
        """The keywords of `build` that are not columns."""
        parameters = inspect.signature(Family.build).parameters.values()
        return [parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]

    def build(
        self,
        variant: str | Variant,
        *,
        include_top: bool = True,
        weights=None,
        input_shape: tuple[int | None, int | None, int] | None = None,
        pooling: str | None = None,
        num_classes: int | None = None,
        classifier_activation: str | None = "softmax",
        preprocess: Preprocess | None = None,
        name: str | None = None,
        allow_nonfinite: bool = False,
        **columns,
    ) -> keras.Model:
        """Builds a row of the table, by its name, or any other row. The keywords are the builders'."""
        if keras.config.image_data_format() != "channels_last":
            raise UserError(
                "kvision builds channels-last networks: call "
                "`keras.config.set_image_data_format('channels_last')` first."
            )
        include_top = _values.boolean("include_top", include_top)
        _values.choice("pooling", pooling, (None, "avg", "max"))
        _values.activation("classifier_activation", classifier_activation)
        _values.model_name(name)
        _values.preprocess(preprocess)
        if pooling and include_top:
            raise UserError(f"`pooling={pooling!r}` needs `include_top=False`: the top has its own pooling.")
        registered = variant if isinstance(variant, str) else None
        default = self.variants[variant] if isinstance(variant, str) else variant
        variant = self._override(default, columns)
        row = None if weights is None else kvision.weights.find(weights, registered, variant, default)
        any_classifier = num_classes is not None or not include_top
        if num_classes is None:
            if weights is not None and row is None:
                num_classes = self._num_classes(weights)
            num_classes = num_classes or (row and row.num_classes) or variant.num_classes
            if row and include_top and not row.num_classes:
                raise UserError(
                    f"The weights {row.tag!r} of {row.model} have no classifier: give `num_classes` for a "
                    f"fresh one, or `include_top=False`."
                )
        num_classes = _values.integer("num_classes", num_classes, _values.MOST_CLASSES)
        input_shape = self._input_shape(input_shape, variant, name)
        any_preprocess = preprocess is not None
        if preprocess is None and weights is not None:
            preprocess = row.preprocess if row else kvision.weights.preprocess(weights)
        network = self.network(variant, input_shape, preprocess)
        inputs, features = network.input, network.output

        if include_top or weights is not None:  # the top's weights are checked even if not kept
            outputs = self._answers(network, variant, num_classes, classifier_activation)
            model = keras.Model(inputs, outputs, name=name)
            if weights is not None:
                kvision.weights.load(
                    model,
                    row or weights,
                    include_top=include_top,
                    fresh_classifier=any_classifier,
                    allow_nonfinite=allow_nonfinite,
                    any_preprocess=any_preprocess,
                )
            if include_top:
                return model
        tap = producer(network.get_layer("trunk").input)[0]
        if isinstance(tap, TokenTap):
            features = tap.feature_map(features)
        if pooling == "avg":
            features = keras.layers.GlobalAveragePooling2D(name="pool")(features)
        elif pooling == "max":
            features = keras.layers.GlobalMaxPooling2D(name="pool")(features)
        return keras.Model(image_of(network), features, name=name)

    def network(self, variant: Variant, input_shape: tuple, preprocess: Preprocess | None) -> keras.Model:
        """The model from pixels to the trunk's last feature map.

        Args:
            variant: the row, with the columns that were given.
            input_shape: `(height, width, channels)`.
            preprocess: None for the variant's.
        """
        wide = keras.backend.result_type(keras.config.dtype_policy().compute_dtype, "float32")
        inputs = x = keras.Input(input_shape, dtype=wide, name="image")
        if input_shape[-1] == 1 < len(variant.preprocess.mean):  # grey is what its RGB copy is
            x = keras.layers.Concatenate(name="rgb")([x] * len(variant.preprocess.mean))
        preprocess = (preprocess or variant.preprocess).for_channels(x.shape[-1])
        x = keras.layers.Rescaling(*preprocess.constants, dtype=wide, name="preprocess")(x)
        features = self.trunk(x, variant)
        return keras.Model(inputs, keras.layers.Identity(name="trunk")(features))  # where the top begins

    def _answers(self, network, variant, num_classes, activation):
        """The output of the model with its top: one tensor, or several by name."""
        dtype = image_of(network).dtype
        outputs = {
            key: keras.layers.Activation(activation or "linear", dtype=dtype, name=key)(logits)
            for key, logits in self._outputs(network, variant, num_classes).items()
        }
        return outputs if len(outputs) > 1 else outputs["predictions"]

    def _outputs(self, network, variant, num_classes) -> dict:
        """Logits by name."""
        if self.decoder:
            return self.decoder(network, variant, num_classes)
        x = self.top(network.output, variant)
        x = keras.layers.Dropout(variant.dropout_rate, name="dropout")(x)
        if self.heads:
            outputs = self.heads(x, variant, num_classes)
        else:
            outputs = {"predictions": keras.layers.Dense(num_classes, name=self.classifier)(x)}
        if self.auxiliary_head and variant.auxiliary:
            if None in network.input_shape[1:]:
                raise UserError("`auxiliary` needs a fixed image size: give `input_shape`.")
            for head, layer in self.auxiliary_heads.items():
                tensor = network.get_layer(layer).output
                outputs[head] = self.auxiliary_head(tensor, variant, num_classes, head)
        return outputs

    def _num_classes(self, weights) -> int | None:
        """The number of classes of weights; None where they have no classifier."""
        return kvision.weights.num_classes(weights, self.classifier)

    def _input_shape(self, input_shape, variant, name):
        if input_shape is None:
            return (variant.image_size, variant.image_size, len(variant.preprocess.mean))
        if variant.image_size != variant.input_size:
            raise UserError("`input_shape` and `resolution_multiplier` both set the image's size: give one.")
        most = _values.MOST_PIXELS
        try:
            height, width, channels = input_shape
            height, width = (None if n is None else _values.integer("", n, most) for n in (height, width))
            sizes = (height, width, _values.integer("", channels, _values.MOST_CHANNELS))
        except (TypeError, ValueError):
            expected = (
                f"(height, width, channels) in positive integers, of at most {most:,} pixels a side and "
                f"{_values.MOST_CHANNELS:,} channels"
            )
            _values.refuse("input_shape", expected, input_shape)
        if any(size is not None and size < self.min_size for size in sizes[:2]):
            last = (*sizes[1:], sizes[0])
            first = sizes[0] in (1, 3, 4) and all(size and size >= self.min_size for size in last[:2])
            raise UserError(
                f"`input_shape` {sizes} is too small: {name} needs at least "
                f"{self.min_size} x {self.min_size} pixels."
                + (f" The channels come last: did you mean {last}?" if first else "")
            )
        return sizes

    def _override(self, variant: Variant, columns: dict[str, object]) -> Variant:
        known = [parameter.name for parameter in self.keywords()] + variant.columns()
        for column in columns:
            if column not in variant.columns():
                near = nearest(ALIASES.get(column, column), known)
                valid = f"Valid names: {', '.join(known)}."
                raise UnknownKeyword(f"Unknown keyword {column!r}. {near}{' ' if near else ''}{valid}")
        return dataclasses.replace(variant, **_values.checked(variant, columns))
