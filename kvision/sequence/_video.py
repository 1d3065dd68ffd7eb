"""Classifiers of videos, frame by frame (LRCN, Donahue et al. 2015, https://arxiv.org/abs/1411.4389).

A classifier's trunk sees each frame, and what it finds is a sequence of vectors. With a recurrent head each
frame is classified, and the answer is the mean of these probabilities, as in section 4 of the paper. The
paper's network is CaffeNet, which is AlexNet but for the order of pooling and normalisation. Departures: the
frames' vectors are the mean over the last map, not a hidden layer behind it; and there is no optical flow.
"""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

import keras

from kvision._backbones import BackboneRow
from kvision._nested import check_model
from kvision.blocks import recurrent
from kvision.errors import UserError
from kvision.layers import FoldFrames, LogMeanProbability, UnfoldFrames
from kvision.sequence._decoding import names_of, recurrent_step, shared
from kvision.sequence._family import OnBackboneFamily
from kvision.sequence._transformer import encode
from kvision.spec import Variant, column

DOC = """Builds {name}: {params:,} trainable parameters, {input} pixels.

{summary}

Args:
    weights: None for fresh weights, or a source of `kvision.weights.load`. They are adapted to other classes
        and channels, which is logged; the classifier is only fresh where `num_classes` is given.
    input_shape: `(height, width, channels)` of a frame.
    num_classes: outputs of the classifier; by default those of the weights.
    classifier_activation: a Keras activation by name; None for logits, of a recurrent head the logarithms of
        the mean probabilities.
    preprocess: a `kvision.Preprocess`, where the normalisation is not that of the weights or the backbone.
    name: of the model.
    allow_nonfinite: whether weights may be NaN or infinity.
    backbone: the network that sees the frames: the name of a classifier, or one of kvision's networks with
        its weights, which are copied; None for the row's.
    backbone_weights: of that network, as its builder takes them.
    {columns}: columns of the table, see `{row}`.

Returns:
    A functional `keras.Model` from pixels in [0, 255], `(batch, frames, height, width, channels)`, to float32
    `(batch, num_classes)`.

Raises:
    TypeError: an unknown keyword.
    ValueError: a value that does not fit, or weights that are NaN, of another network or other columns.
    OSError: weights that are not there or cannot be downloaded.
"""


@dataclass(frozen=True, kw_only=True)
class FrameVariant(BackboneRow, Variant):
    """A row of the table.

    Attributes:
        head: what sees the sequence: "rnn", "lstm" or "gru", see `kvision.blocks.recurrent`; "transformer",
            see `kvision.sequence.transformer_encoder`; or "mean", which is blind to the order of the frames.
        frames: of a video.
        units: of each layer of the head; those of the MLPs of a Transformer are four times as many.
        depth: layers of the head.
        num_heads: of a Transformer's attention.
        dropout_rate: in front of the classifier, and in a Transformer.
    """

    backbone: str = "alexnet"
    head: Literal["rnn", "lstm", "gru", "transformer", "mean"] = "lstm"
    frames: int = 16
    units: int = 256
    depth: int = 1
    num_heads: int = 4
    dropout_rate: float = column(0.0, free=True)
    input_size: int = 227
    num_classes: int = 101  # of UCF-101

    @property
    def input_text(self) -> str:
        return f"{self.frames} frames of {self.image_size}"


# Trainable parameters: AlexNet's convolutions, the LSTM's 4((E + H)H + H), and the classifier. The paper
# publishes none.
CONVOLUTIONS = 60_965_224 - (9216 * 4096 + 4096) - (4096 * 4096 + 4096) - (4096 * 1000 + 1000)
VARIANTS = {
    "frame_classifier": FrameVariant(params=CONVOLUTIONS + 4 * ((256 + 256) * 256 + 256) + (256 * 101 + 101)),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoFamily(OnBackboneFamily):
    """A table of networks that classify videos."""

    doc: ClassVar[str] = DOC

    classifier_activation: str | None = "softmax"
    task: str = "video"

    def network(self, variant, input_shape, preprocess) -> keras.Model:
        """From the frames to the last maps of all of them, `(batch * frames, height, width, channels)`."""
        return self.maps(variant, input_shape, preprocess, after={"preprocess": FoldFrames(name="fold")})


def classify(network, v: FrameVariant, num_classes):
    x = keras.layers.GlobalAveragePooling2D(name="pool")(network.output)
    x = UnfoldFrames(v.frames, name="unfold")(x)
    every_frame = v.head not in ("transformer", "mean")
    if every_frame:
        x = recurrent(x, cell=v.head, units=v.units, depth=v.depth, name="rnn")
    else:
        if v.head == "transformer":
            x = keras.layers.Dense(v.units, name="embed")(x)
            x = encode(x, positions="sinusoidal", norm="pre", depth=v.depth, hidden=4 * v.units,
                       num_heads=v.num_heads, dropout_rate=v.dropout_rate)  # fmt: skip
        x = keras.layers.GlobalAveragePooling1D(name="mean")(x)
    x = keras.layers.Dropout(v.dropout_rate, name="dropout")(x)
    x = keras.layers.Dense(num_classes, name="classifier")(x)
    return {"predictions": LogMeanProbability(name="vote")(x) if every_frame else x}


FAMILY = VideoFamily(variants=VARIANTS, module=__name__, decoder=classify)
frame_classifier = FAMILY.builder("frame_classifier")


def streamer(model: keras.Model) -> keras.Model:
    """A classifier of videos with a recurrent head, frame by frame.

    Args:
        model: a `kvision.sequence.frame_classifier`. The weights are shared with it.

    Returns:
        A model from a dict of "frame", pixels in [0, 255] `(batch, height, width, channels)`, and the state,
        zeros at the first frame, to a dict of "probabilities", those of the video so far, `(batch,
        num_classes)`, and the next state, under the same names and of the same shapes: "h_0" and, of an
        LSTM, "c_0", those of the next layer "h_1", ...; "total", the sum of the frames' probabilities; and
        "count", the number of frames, `(batch, 1)`. After the last frame the probabilities are the model's.

    Raises:
        ValueError: the model has no recurrent head.
    """
    check_model(model)
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.RNN)]
    if not layers or not any(isinstance(layer, LogMeanProbability) for layer in model.layers):
        raise UserError(f"{model.name} has no recurrent head, which alone sees a video frame by frame.")
    shape, classes = model.inputs[0].shape[2:], model.outputs[0].shape[-1]
    frame = keras.Input(shape, dtype=model.inputs[0].dtype, name="frame")
    names = [name for place, layer in enumerate(layers) for name in names_of(layer, place)]
    units = {name: layers[int(name.rpartition("_")[2])].units for name in names} | {
        "total": classes,
        "count": 1,
    }
    state = {name: keras.Input((width,), name=name) for name, width in units.items()}
    x = shared(model.get_layer("preprocess"))(frame)
    x = keras.Model(model.get_layer("fold").output, model.get_layer("pool").output, name="frames")(x)
    x, after = recurrent_step(layers, x, state)
    x = keras.ops.softmax(keras.ops.cast(shared(model.get_layer("classifier"))(x), "float32"))
    after |= {"total": state["total"] + x, "count": state["count"] + 1}
    answer = {"probabilities": after["total"] / after["count"]}
    return keras.Model({"frame": frame, **state}, answer | after, name=f"{model.name}_streamer")
