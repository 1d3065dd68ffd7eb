"""Networks that describe an image in words (Show and Tell, https://arxiv.org/abs/1411.4555).

Recurrent decoders see the image's vector, the mean over the backbone's last map behind a dense layer, as if
it were the first word (`inject="init"`, Show and Tell, Vinyals et al. 2015), or beside each word
(`inject="every_step"`, LRCN, Donahue et al. 2015, https://arxiv.org/abs/1411.4389). The Transformer's decoder
(Vaswani et al. 2017, https://arxiv.org/abs/1706.03762) attends to the map itself. Departures: the size of the
vocabulary, which the paper does not say; the Transformer's encodings have all sines in front of all cosines,
and those of the map have rows in front of columns.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import keras

from kvision._backbones import BackboneRow
from kvision.blocks import recurrent
from kvision.errors import UserError
from kvision.layers import DecoderBlock, SinusoidalEncoding
from kvision.sequence._family import OnBackboneFamily
from kvision.spec import Variant, column

DOC = """Builds {name}: {params:,} trainable parameters, {input} x {input} pixels.

{summary}

Args:
    weights: None for fresh weights, or a source of `kvision.weights.load`, with as many words.
    input_shape: `(height, width, channels)`.
    num_classes: the vocabulary's size, with the four tokens of `kvision.vocabulary` that are no words.
    classifier_activation: a Keras activation by name; None for logits.
    preprocess: a `kvision.Preprocess`, where the normalisation is not that of the weights or the backbone.
    name: of the model.
    allow_nonfinite: whether weights may be NaN or infinity.
    backbone: the network that sees the image: the name of a classifier, or one of kvision's networks with its
        weights, which are copied; None for the row's.
    backbone_weights: of that network, as its builder takes them.
    {columns}: columns of the table, see `{row}`.

Returns:
    A functional `keras.Model` for training, from a dict of "image", pixels in [0, 255]
    `(batch, height, width, channels)`, and "tokens", int32 `(batch, length)`, which begin with
    `kvision.vocabulary.START`, to float32 `(batch, length, num_classes)`: at each place, the logits of the
    token that follows. `kvision.sequence.greedy` and `beam` find captions with it.

Raises:
    TypeError: an unknown keyword.
    ValueError: a value that does not fit, or weights that are NaN, of another network or other columns.
    OSError: weights that are not there or cannot be downloaded.
"""


@dataclass(frozen=True, kw_only=True)
class CaptionVariant(BackboneRow, Variant):
    """A row of the table.

    Attributes:
        decoder: "rnn", "lstm" or "gru", see `kvision.blocks.recurrent`, or "transformer".
        inject: where a recurrent decoder sees the image, "init" or "every_step"; None for "init". A
            Transformer takes none.
        length: tokens of the captions that the network is trained with, and the most a Transformer finds.
        units: of each layer of the decoder; those of the MLPs of a Transformer are four times as many.
        embedding: channels of a word; None for `units`, which are always those of a Transformer.
        depth: layers of the decoder.
        num_heads: of a Transformer's attention.
        dropout_rate: of the embedded words, in front of the classifier, and in a Transformer.
    """

    backbone: str = "googlenet_bn"
    decoder: Literal["rnn", "lstm", "gru", "transformer"] = "lstm"
    inject: Literal["init", "every_step", None] = None
    length: int = 20
    units: int = 512
    embedding: int | None = None
    depth: int = 1
    num_heads: int = 8
    dropout_rate: float = column(0.0, free=True)
    num_classes: int = 10_000


# Trainable parameters: GoogLeNet's without its classifier, the image's dense layer, the words, the LSTM's
# 4((E + H)H + H), and the classifier. The paper publishes none.
TRUNK = 6_624_904 - (1024 * 1000 + 1000)
DECODER = (1024 * 512 + 512) + 10_000 * 512 + 4 * ((512 + 512) * 512 + 512) + (512 * 10_000 + 10_000)
VARIANTS = {"captioner": CaptionVariant(params=TRUNK + DECODER)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaptionFamily(OnBackboneFamily):
    """A table of networks that describe images."""

    doc: ClassVar[str] = DOC

    task: str = "captioning"

    def network(self, variant, input_shape, preprocess) -> keras.Model:
        """From the image, and the tokens that the decoder reads, to the backbone's last map."""
        if variant.decoder == "transformer":
            for key, others in (("inject", (None,)), ("embedding", (None, variant.units))):
                if getattr(variant, key) not in others:
                    raise UserError(
                        f"`{key}` is of recurrent decoders: a Transformer attends to the image's map, and "
                        f"its words have `units` channels; got {getattr(variant, key)!r}."
                    )
        maps = self.maps(variant, input_shape, preprocess)
        tokens = keras.Input((variant.length,), dtype="int32", name="tokens")
        keras.layers.Identity()(tokens)  # Keras 3.11 refuses inputs that nothing reads
        return keras.Model({"image": maps.input, "tokens": tokens}, maps.output)


def decode(network, v: CaptionVariant, num_classes):
    embedding = v.embedding or v.units
    words = keras.layers.Embedding(num_classes, embedding, name="word_embed")(network.input["tokens"])
    read = transformer_decoder if v.decoder == "transformer" else recurrent_decoder
    x = keras.layers.Dropout(v.dropout_rate, name="dropout")(read(network.output, words, v))
    return {"predictions": keras.layers.Dense(num_classes, name="classifier")(x)}


def recurrent_decoder(image_map, words, v: CaptionVariant):
    """The state at each word, `(batch, length, units)`."""
    image = keras.layers.GlobalAveragePooling2D(name="pool")(image_map)
    image = keras.layers.Dense(words.shape[-1], name="image_embed")(image)
    words = keras.layers.Dropout(v.dropout_rate, name="word_embed.drop")(words)
    stack = {"cell": v.decoder, "units": v.units, "depth": v.depth, "name": "decoder"}
    if v.inject == "every_step":
        images = keras.layers.RepeatVector(v.length, name="image_embed.repeat")(image)
        return recurrent(keras.layers.Concatenate(name="every_step")([words, images]), **stack)
    image = keras.layers.Reshape((1, words.shape[-1]), name="image_embed.word")(image)
    x = recurrent(keras.layers.Concatenate(axis=1, name="init")([image, words]), **stack)
    return keras.layers.Cropping1D((1, 0), name="decoder.words")(x)


def transformer_decoder(image_map, words, v: CaptionVariant):
    """The decoder's answer at each word, `(batch, length, units)`."""
    x = keras.layers.Dense(v.units, name="image_embed")(image_map)
    x = SinusoidalEncoding(name="image_embed.positions")(x)
    memory = keras.layers.Reshape((math.prod(x.shape[1:3]), v.units), name="memory")(x)
    x = keras.layers.Rescaling(math.sqrt(v.units), name="word_embed.scale")(words)  # section 3.4
    x = SinusoidalEncoding(name="word_embed.positions")(x)
    x = keras.layers.Dropout(v.dropout_rate, name="word_embed.drop")(x)
    for i in range(v.depth):
        x = DecoderBlock(v.num_heads, 4 * v.units, v.dropout_rate, name=f"decoder.{i}")(x, memory)
    return x


FAMILY = CaptionFamily(variants=VARIANTS, module=__name__, decoder=decode)
captioner = FAMILY.builder("captioner")
