"""Forecasts of series: Markov and autoregressive models, with and without a hidden state.

Zhang et al., "Dive into Deep Learning" (https://arxiv.org/abs/2106.11342), section 9.1, names the three: what
comes next depends on the last values alone, linearly (`markov`) or not (`autoregressive`), or on a state that
sums up all values so far, h_t = g(h_(t-1), x_(t-1)) (`latent_autoregressive`).
"""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

import keras
import numpy as np

from kvision._nested import check_model
from kvision.blocks import recurrent
from kvision.errors import UserError
from kvision.models import _values
from kvision.sequence._family import SeriesFamily, SeriesRow

MOST_FORECASTS = 10**6


@dataclass(frozen=True, kw_only=True)
class MarkovVariant(SeriesRow):
    """A row of the table.

    Attributes:
        order: last values that the next one depends on.
    """

    reads_column: ClassVar[str] = "order"

    order: int = 1


@dataclass(frozen=True, kw_only=True)
class AutoregressiveVariant(SeriesRow):
    """A row of the table.

    Attributes:
        window: last values that the next one depends on.
        units: of the hidden layer.
    """

    reads_column: ClassVar[str] = "window"

    window: int = 4
    units: int = 64


@dataclass(frozen=True, kw_only=True)
class LatentAutoregressiveVariant(SeriesRow):
    """A row of the table.

    Attributes:
        steps: last values from which the state is computed.
        cell: see `kvision.blocks.recurrent`.
        units: of the state.
    """

    reads_column: ClassVar[str] = "steps"

    steps: int = 16
    cell: Literal["rnn", "lstm", "gru"] = "gru"
    units: int = 32


# trainable parameters: the sums over the layers, for a series of one feature; none are published
MARKOV = {"markov": MarkovVariant(params=1 + 1)}
AUTOREGRESSIVE = {"autoregressive": AutoregressiveVariant(params=(4 * 64 + 64) + (64 + 1))}
LATENT = {
    "latent_autoregressive": LatentAutoregressiveVariant(params=3 * ((1 + 32) * 32 + 2 * 32) + (32 + 1))
}


def values(x, v):
    """The values of the window, side by side."""
    return keras.layers.Flatten(name="flatten")(x)


def hidden_layer(x, v: AutoregressiveVariant):
    return keras.layers.Dense(v.units, activation="relu", name="hidden")(values(x, v))


def state(x, v: LatentAutoregressiveVariant):
    return recurrent(x, cell=v.cell, units=v.units, return_sequences=False, name="rnn")


FAMILY = SeriesFamily(values, MARKOV)
markov = FAMILY.builder("markov")
autoregressive = dataclasses.replace(FAMILY, trunk=hidden_layer, variants=AUTOREGRESSIVE).builder(
    "autoregressive"
)
latent_autoregressive = dataclasses.replace(FAMILY, trunk=state, variants=LATENT).builder(
    "latent_autoregressive"
)


def forecast(model: keras.Model, window, steps: int) -> np.ndarray:
    """Forecasts several steps: each forecast is the last value of the window for the next.

    Errors grow, as later steps are forecasts from forecasts.

    Args:
        model: from `(batch, window, features)` to the next value, `(batch, features)`.
        window: the last values known, `(batch, steps, features)`, with at least as many steps as the model
            takes.
        steps: to forecast.

    Returns:
        float32 `(batch, steps, features)`.

    Raises:
        ValueError: the model or the window has another shape, or `steps` is no positive integer.
    """
    check_model(model)
    steps = _values.integer("steps", steps, MOST_FORECASTS)
    inputs, outputs = getattr(model, "inputs", None) or (), getattr(model, "outputs", None) or ()
    shapes = [tensor.shape for tensor in (*inputs, *outputs)]
    if len(shapes) != 2 or len(shapes[0]) != 3 or shapes[1][1:] != shapes[0][2:]:
        raise UserError(
            f"`model` must forecast the next value, (batch, features), of (batch, steps, features); "
            f"the inputs and outputs of {model.name} are {shapes}."
        )
    _, reads, features = shapes[0]
    window = _values.numbers_of("window", window)
    if window.ndim != 3 or window.shape[1] < reads or window.shape[2] != features:
        raise UserError(
            f"`window` must be (batch, steps, {features}) with at least {reads} steps; got {window.shape}."
        )
    for _ in range(steps):
        value = keras.ops.convert_to_numpy(model(window[:, -reads:], training=False))
        window = np.concatenate([window, value[:, None].astype("float32")], axis=1)
    return window[:, -steps:]
