"""The parts that networks of sequences share."""

import dataclasses
import inspect
from typing import Any, ClassVar

import keras

from kvision._backbones import AnyBackboneFamily, has_layer, last_map, normalizing, rebuilt
from kvision.errors import UserError
from kvision.models import _values
from kvision.models._family import Family
from kvision.spec import Preprocess, Variant

UNCHANGED = Preprocess((0.0,), (1.0,))
MOST_STEPS = 10**5

SERIES_DOC = """Builds {name}: {params:,} trainable parameters for a series of one feature.

{summary}

Args:
    input_shape: `(steps, features)` of a window, of whose last steps the network reads as many as its
        columns say; by default these steps of one feature.
    preprocess: a `kvision.Preprocess` in the units of the series, one value or one a feature: windows are
        normalised with it, and what the network finds is put back into these units. By default nothing is.
    name: of the model.
    {columns}: columns of the table, see `{row}`.

Returns:
    A functional `keras.Model` from float32 `(batch, steps, features)` to the next value, float32
    `(batch, features)`; `kvision.sequence.forecast` goes on from there.

Raises:
    TypeError: an unknown keyword.
    ValueError: a value that does not fit.
"""

SEQUENCE_DOC = """Builds {name}: {params:,} trainable parameters for an input of {input}.

{summary}

Args:
    input_shape: `(steps, features)`.
    num_classes: outputs of the classifier.
    classifier_activation: a Keras activation by name; None for logits.
    preprocess: a `kvision.Preprocess`, one value or one a feature, with which the sequences are normalised.
        By default nothing is.
    name: of the model.
    {columns}: columns of the table, see `{row}`.

Returns:
    A functional `keras.Model` from float32 `(batch, steps, features)` to float32 `(batch, num_classes)`.

Raises:
    TypeError: an unknown keyword.
    ValueError: a value that does not fit.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceRow(Variant):
    """A row of a table of networks that take sequences of vectors."""

    preprocess: Preprocess = UNCHANGED
    num_classes: int = 10

    @property
    def default_shape(self) -> tuple[int, int]:
        """Steps and features of the default input: the rows of a digit of MNIST."""
        return 28, 28

    @property
    def input_text(self) -> str:
        steps, features = self.default_shape
        return f"{steps} step{'s' * (steps > 1)} of {features}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeriesRow(SequenceRow):
    """A row of a table of networks that forecast."""

    reads_column: ClassVar[str]

    @property
    def reads(self) -> int:
        """The number of steps that the network reads."""
        return getattr(self, self.reads_column)

    @property
    def default_shape(self) -> tuple[int, int]:
        return self.reads, 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceFamily(Family):
    """A table of networks that classify sequences of vectors.

    The `trunk` makes a vector, `(batch, units)`, of a normalised sequence.
    """

    doc: ClassVar[str] = SEQUENCE_DOC

    task: str = "sequence"

    def keywords(self) -> list[inspect.Parameter]:
        own = inspect.signature(type(self).build).parameters.values()
        return [keyword for keyword in own if keyword.kind is keyword.KEYWORD_ONLY]

    def build(
        self,
        variant: str | Variant,
        *,
        input_shape: tuple[int, int] | None = None,
        num_classes: int | None = None,
        classifier_activation: str | None = "softmax",
        preprocess: Preprocess | None = None,
        name: str | None = None,
        **columns,
    ) -> keras.Model:
        """Builds a row of the table, by its name, or any other row. The keywords are the builders'."""
        v: Any = self._row(variant, columns)
        classes = v.num_classes if num_classes is None else num_classes
        classes = _values.integer("num_classes", classes, _values.MOST_CLASSES)
        _values.activation("classifier_activation", classifier_activation)
        inputs, x, _ = self._begin(v, input_shape, preprocess, name)
        x = keras.layers.Identity(name="trunk")(self.trunk(x, v))
        x = keras.layers.Dropout(v.dropout_rate, name="dropout")(x)
        x = keras.layers.Dense(classes, name=self.classifier)(x)
        activation = classifier_activation or "linear"
        x = keras.layers.Activation(activation, dtype=inputs.dtype, name="predictions")(x)
        return keras.Model(inputs, x, name=name)

    def _row(self, variant, columns):
        return self._override(self.variants[variant] if isinstance(variant, str) else variant, columns)

    def _begin(self, v, input_shape, preprocess, name) -> tuple[Any, Any, Preprocess]:
        """The input, the normalised input, and the normalisation with a value a feature."""
        _values.model_name(name)
        _values.preprocess(preprocess)
        try:
            steps, features = v.default_shape if input_shape is None else input_shape
            steps = _values.integer("", steps, MOST_STEPS)
            shape = steps, _values.integer("", features, _values.MOST_CHANNELS)
        except (TypeError, ValueError):
            expected = (
                f"(steps, features) in positive integers of at most {MOST_STEPS:,} and "
                f"{_values.MOST_CHANNELS:,}"
            )
            _values.refuse("input_shape", expected, input_shape)
        preprocess = preprocess or v.preprocess
        if len(preprocess.mean) not in (1, shape[1]):
            raise UserError(
                f"`preprocess` must have one value, or one for each of the {shape[1]} features; got "
                f"{len(preprocess.mean)}."
            )
        preprocess = preprocess.for_channels(shape[1])
        wide = keras.backend.result_type(keras.config.dtype_policy().compute_dtype, "float32")
        inputs = keras.Input(shape, dtype=wide, name="sequence")
        x = keras.layers.Rescaling(*preprocess.constants, dtype=wide, name="preprocess")(inputs)
        return inputs, x, preprocess


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeriesFamily(SequenceFamily):
    """A table of networks that forecast: the `trunk` makes a vector of the last steps of a series."""

    doc: ClassVar[str] = SERIES_DOC

    task: str = "forecasting"

    def _defaults(self, name) -> dict:
        return {"name": name}

    def build(
        self,
        variant: str | Variant,
        *,
        input_shape: tuple[int, int] | None = None,
        preprocess: Preprocess | None = None,
        name: str | None = None,
        **columns,
    ) -> keras.Model:
        """Builds a row of the table, by its name, or any other row. The keywords are the builders'."""
        v: Any = self._row(variant, columns)
        inputs, x, preprocess = self._begin(v, input_shape, preprocess, name)
        steps, features = inputs.shape[1:]
        if steps < v.reads:
            raise UserError(
                f"`input_shape` has {steps} step{'s' * (steps > 1)}; {name} reads {v.reads}: give a longer "
                f"window, or `{v.reads_column}={steps}`."
            )
        if steps > v.reads:
            x = keras.layers.Cropping1D((steps - v.reads, 0), name="window")(x)
        x = keras.layers.Identity(name="trunk")(self.trunk(x, v))
        x = keras.layers.Dropout(v.dropout_rate, name="dropout")(x)
        x = keras.layers.Dense(features, name=self.classifier)(x)
        back = keras.layers.Rescaling(preprocess.std, preprocess.mean, dtype=inputs.dtype, name="predictions")
        return keras.Model(inputs, back(x), name=name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnBackboneFamily(AnyBackboneFamily):
    """A table of networks of sequences that see images through a classifier's trunk."""

    def keywords(self) -> list[inspect.Parameter]:
        images_alone = ("include_top", "pooling")
        return [keyword for keyword in super().keywords() if keyword.name not in images_alone]

    def build(self, variant, *, backbone=None, backbone_weights=None, **keywords) -> keras.Model:
        row: Any = self.variants[variant] if isinstance(variant, str) else variant
        for keyword in ("include_top", "pooling"):
            if keyword in keywords:
                self._override(row, {keyword: None})  # raises
        if isinstance(backbone, keras.Model):
            _check_classifies_images(backbone)
        return super().build(variant, backbone=backbone, backbone_weights=backbone_weights, **keywords)

    def maps(self, variant: Any, input_shape: tuple, preprocess, after: dict | None = None) -> keras.Model:
        """The network from pixels to the backbone's last map, `(batch, height, width, channels)`.

        Args:
            variant: the row.
            input_shape: `(height, width, channels)`.
            preprocess: None for the backbone's.
            after: as `rebuilt`; the input is then `variant.frames` images.
        """
        name = self.backbone or variant.backbone
        backbone = self.model(name, input_shape, preprocess, include_top=False)
        return rebuilt(
            keras.Model(backbone.input, last_map(backbone)),
            (variant.frames, *input_shape) if after else input_shape,
            make=normalizing(preprocess),
            name=self.prefixed(backbone),
            after=after,
            with_weights=self.backbone_weights is not None or backbone is self.backbone,
        )


def _check_classifies_images(model) -> None:
    """Raises a UserError for a model that takes other than images, has no trunk, or answers with boxes."""
    ranks = [len(tensor.shape) for tensor in model.inputs or ()]
    if ranks != [4] or not has_layer(model, "trunk") or has_layer(model, "detections"):
        raise UserError(
            f"`backbone` must be a classifier's name, or a network of kvision that classifies images; "
            f"{model.name} is another."
        )
