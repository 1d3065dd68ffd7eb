"""Fully convolutional networks (Long et al. 2015, https://arxiv.org/abs/1411.4038), and torchvision's.

`fcn32s`, `fcn16s` and `fcn8s` are the paper's on VGG-16: its dense layers as convolutions, score layers that
start at zero, deconvolutions that start as bilinear interpolation, and sums with the scores of `pool4` and
`pool3`. Departures: convolutions pad by "same", and the image is padded to a multiple of 32 and the answer
cut, where the paper pads the image by 100 pixels and crops at each sum; the last deconvolution is trained
too. On another backbone the hidden dense layers are kept where there are some, and the skips are its taps
`c4` and `c3`, or the pooled maps behind `c3` and `c2` where it pools there, as VGG does.

`fcn_resnet50` and `fcn_resnet101` are torchvision's: a ResNet of output stride 8, one head, and bilinear
resizing.
"""

from dataclasses import dataclass

import keras

from kvision import registry
from kvision._backbones import AnyBackboneFamily, BackboneRow, normalizing, padded, rebuilt
from kvision._features import features
from kvision.blocks import conv, fcn_head, resize_to_image
from kvision.layers import Bilinear, CropLike, PadToMultiple, ResizeLike
from kvision.models._resnet import ResNetVariant
from kvision.segmentation._family import SegmentationFamily
from kvision.spec import Variant, column

COARSE = 32  # stride of the backbone's last map
TAPS = ("c3", "c4", "c5")


@dataclass(frozen=True, kw_only=True)
class FCNVariant(BackboneRow, Variant):
    """A row of the table.

    Attributes:
        stride: of the finest map that is scored: 32, 16 or 8.
        dropout_rate: behind each hidden layer.
        norm_momentum: of the backbone's batch norms; None for its own.
    """

    backbone: str = "vgg16"
    stride: int
    norm_momentum: float | None = column(None, free=True)
    input_size: int = 500
    num_classes: int = 21
    dropout_rate: float = 0.5


VARIANTS = {  # section 4.2; the sums over VGG-16's layers, the score layers and the deconvolutions
    "fcn32s": FCNVariant(stride=32, params=134_346_581 + 1_806_336),
    "fcn16s": FCNVariant(stride=16, params=134_357_354 + 458_640),
    "fcn8s": FCNVariant(stride=8, params=134_362_751 + 127_008),
}


@dataclass(frozen=True, kw_only=True)
class FCNFamily(SegmentationFamily, AnyBackboneFamily):
    """The paper's networks, on any backbone."""

    def network(self, variant, input_shape, preprocess) -> keras.Model:
        backbone, columns, shape = self.backbone or variant.backbone, {}, padded(input_shape, COARSE)
        if isinstance(backbone, str):
            of_backbone = registry.info(backbone).variant
            if hidden := hasattr(of_backbone, "hidden_filters"):  # which are for the classifier's own size
                shape = (of_backbone.image_size, of_backbone.image_size, input_shape[-1])
                columns["dropout_rate"] = variant.dropout_rate
            columns["include_top"] = hidden
        backbone = self.model(backbone, shape, preprocess, **columns)
        features(backbone, TAPS)  # raises where it lacks one
        end, hidden_layers = _before_classifier(backbone)
        normalize = normalizing(preprocess)

        def make(layer):
            if layer.name in hidden_layers and isinstance(layer, keras.layers.Conv2D):
                return keras.layers.Conv2D.from_config(layer.get_config() | {"padding": "same"})
            return normalize(layer)

        return rebuilt(
            keras.Model(backbone.input, end),
            input_shape,
            make=make,
            after={"preprocess": PadToMultiple(COARSE, name="pad")},
            with_weights=self.backbone_weights is not None or backbone is self.backbone,
        )


def _before_classifier(backbone):
    """The last map of a network, behind the hidden layers where it has some, and the names of these."""
    names = [layer.name for layer in backbone.layers]
    last, hidden = backbone.get_layer("trunk"), []
    for layer in backbone.layers[names.index("trunk") + 1 :]:
        if not isinstance(layer, keras.layers.Conv2D | keras.layers.Activation | keras.layers.Dropout):
            break
        last = layer
        hidden.append(layer.name)
    return last.output, hidden


def decode(network, v: FCNVariant, num_classes):  # figure 3
    x = keras.layers.Dropout(v.dropout_rate, name="dropout")(network.output)
    padded = network.get_layer("pad").output
    exact = _halves_exactly(network)

    def fit(x, like, name):
        return x if exact else ResizeLike(name=f"{name}.fit")(x, like)

    x = _score(x, num_classes, "score_fr")
    stride, name = COARSE, "upscore2"
    for level in (4, 3):
        if 2**level < v.stride:
            break
        scores = _score(_skip(network, level), num_classes, f"score_pool{level}")
        x = fit(_enlarge(x, 2, name), scores, name)
        x = keras.layers.Add(name=f"fuse_pool{level}")([x, scores])
        stride, name = 2**level, f"upscore_pool{level}"
    name = f"upscore{stride}"
    x = fit(_enlarge(x, stride, name), padded, name)
    return {"predictions": CropLike(name="crop")(x, network.input)}


def _score(x, num_classes, name):
    return conv(x, filters=num_classes, use_bias=True, initializer=keras.initializers.Zeros, name=name)


def _enlarge(x, factor, name):
    return keras.layers.Conv2DTranspose(
        x.shape[-1],
        2 * factor,
        factor,
        padding="same",
        use_bias=False,
        kernel_initializer=Bilinear(),
        name=name,
    )(x)


def _skip(network, level):
    """The pooled map that begins the stage of a stride where there is one, else the last map of the stage."""
    before = network.get_layer(f"c{level - 1}").output
    pools = [layer for layer in network.layers if isinstance(layer, keras.layers.MaxPooling2D)]
    pooled = (layer.output for layer in pools if layer.input is before)
    return next(pooled, network.get_layer(f"c{level}").output)


def _halves_exactly(network) -> bool:
    """Whether the maps of an image whose sides are multiples of 32 are as large as their strides say."""
    side = COARSE * 8
    taps = keras.Model(network.input, [network.get_layer(name).output for name in TAPS])
    shape = network.input_shape
    if None in shape[1:3]:
        shape = (1, side, side, shape[-1])
    padded = [-(-size // COARSE) * COARSE for size in shape[1:3]]
    maps = taps.compute_output_shape(shape)
    return all(
        tuple(map_shape[1:3]) == tuple(size // 2**level for size in padded)
        for level, map_shape in zip((3, 4, 5), maps, strict=True)
    )


FAMILY = FCNFamily(variants=VARIANTS, module=__name__, classifier="score_fr", decoder=decode)
fcn32s = FAMILY.builder("fcn32s")
fcn16s = FAMILY.builder("fcn16s")
fcn8s = FAMILY.builder("fcn8s")


@dataclass(frozen=True, kw_only=True)
class FCNResNetVariant(BackboneRow, ResNetVariant):
    """A row of torchvision's networks: a row of ResNet's table, and what follows.

    Attributes:
        auxiliary: whether a second head, on `c4`, is there for training.
        dropout_rate: in front of the classifier.
    """

    output_stride: int = 8
    auxiliary: bool = column(False, free=True)
    input_size: int = 520
    num_classes: int = 21
    dropout_rate: float = 0.1


RESNETS = {  # trainable parameters: torchvision, less its auxiliary head's 2,365,205
    "fcn_resnet50": FCNResNetVariant(backbone="resnet50", depths=(3, 4, 6, 3), params=35_322_218 - 2_365_205),
    "fcn_resnet101": FCNResNetVariant(
        backbone="resnet101", depths=(3, 4, 23, 3), params=54_314_346 - 2_365_205
    ),
}


def decode_resnet(network, v: FCNResNetVariant, num_classes):
    x = fcn_head(network.output, num_classes=num_classes, dropout_rate=v.dropout_rate, name="classifier")
    outputs = {"predictions": resize_to_image(x, network.input, name="classifier")}
    if v.auxiliary:
        x = fcn_head(network.get_layer("c4").output, num_classes=num_classes, name="aux_classifier")
        outputs["aux_classifier"] = resize_to_image(x, network.input, name="aux_classifier")
    return outputs


RESNET_FAMILY = SegmentationFamily(
    variants=RESNETS, module=__name__, classifier="classifier.4", decoder=decode_resnet
)
fcn_resnet50 = RESNET_FAMILY.builder("fcn_resnet50")
fcn_resnet101 = RESNET_FAMILY.builder("fcn_resnet101")
