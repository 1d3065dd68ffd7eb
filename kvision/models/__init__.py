"""Networks: one function a variant, each returning a functional `keras.Model`."""

from kvision.models._alexnet import (
    AlexNetVariant as AlexNetVariant,
    alexnet as alexnet,
    alexnet_owt as alexnet_owt,
)
from kvision.models._convnext import (
    ConvNeXtVariant as ConvNeXtVariant,
    convnext_atto as convnext_atto,
    convnext_base as convnext_base,
    convnext_large as convnext_large,
    convnext_small as convnext_small,
    convnext_tiny as convnext_tiny,
    convnext_v2_atto as convnext_v2_atto,
    convnext_v2_base as convnext_v2_base,
    convnext_v2_tiny as convnext_v2_tiny,
    convnext_xlarge as convnext_xlarge,
)
from kvision.models._convnext_roadmap import convnext_roadmap as convnext_roadmap
from kvision.models._deit import (
    deit_base as deit_base,
    deit_base_distilled as deit_base_distilled,
    deit_small as deit_small,
    deit_small_distilled as deit_small_distilled,
    deit_tiny as deit_tiny,
    deit_tiny_distilled as deit_tiny_distilled,
)
from kvision.models._densenet import (
    DenseNetVariant as DenseNetVariant,
    densenet121 as densenet121,
    densenet161 as densenet161,
    densenet169 as densenet169,
    densenet201 as densenet201,
    densenet264 as densenet264,
)
from kvision.models._efficientnet import (
    EfficientNetVariant as EfficientNetVariant,
    efficientnet as efficientnet,
    efficientnet_b0 as efficientnet_b0,
    efficientnet_b1 as efficientnet_b1,
    efficientnet_b2 as efficientnet_b2,
    efficientnet_b3 as efficientnet_b3,
    efficientnet_b4 as efficientnet_b4,
    efficientnet_b5 as efficientnet_b5,
    efficientnet_b6 as efficientnet_b6,
    efficientnet_b7 as efficientnet_b7,
    efficientnet_lite0 as efficientnet_lite0,
    efficientnet_lite1 as efficientnet_lite1,
    efficientnet_lite2 as efficientnet_lite2,
    efficientnet_lite3 as efficientnet_lite3,
    efficientnet_lite4 as efficientnet_lite4,
)
from kvision.models._efficientnet_v2 import (
    EfficientNetV2Variant as EfficientNetV2Variant,
    efficientnet_v2_b0 as efficientnet_v2_b0,
    efficientnet_v2_b1 as efficientnet_v2_b1,
    efficientnet_v2_b2 as efficientnet_v2_b2,
    efficientnet_v2_b3 as efficientnet_v2_b3,
    efficientnet_v2_l as efficientnet_v2_l,
    efficientnet_v2_m as efficientnet_v2_m,
    efficientnet_v2_s as efficientnet_v2_s,
)
from kvision.models._googlenet import (
    GoogLeNetVariant as GoogLeNetVariant,
    googlenet as googlenet,
    googlenet_bn as googlenet_bn,
)
from kvision.models._inception_v3 import (
    InceptionV3Variant as InceptionV3Variant,
    inception_v3 as inception_v3,
)
from kvision.models._lenet import (
    LeNetVariant as LeNetVariant,
    lenet5 as lenet5,
)
from kvision.models._mobilenet_v1 import (
    MobileNetV1Variant as MobileNetV1Variant,
    mobilenet_v1 as mobilenet_v1,
)
from kvision.models._mobilenet_v2 import (
    MobileNetV2Variant as MobileNetV2Variant,
    mobilenet_v2 as mobilenet_v2,
)
from kvision.models._mobilenet_v3 import (
    MobileNetV3Variant as MobileNetV3Variant,
    mobilenet_v3_large as mobilenet_v3_large,
    mobilenet_v3_large_minimal as mobilenet_v3_large_minimal,
    mobilenet_v3_small as mobilenet_v3_small,
    mobilenet_v3_small_minimal as mobilenet_v3_small_minimal,
)
from kvision.models._mobilenet_v4 import (
    MobileNetV4Variant as MobileNetV4Variant,
    mobilenet_v4_conv_large as mobilenet_v4_conv_large,
    mobilenet_v4_conv_medium as mobilenet_v4_conv_medium,
    mobilenet_v4_conv_small as mobilenet_v4_conv_small,
    mobilenet_v4_hybrid_medium as mobilenet_v4_hybrid_medium,
)
from kvision.models._resnet import (
    ResNetVariant as ResNetVariant,
    resnet18 as resnet18,
    resnet34 as resnet34,
    resnet50 as resnet50,
    resnet101 as resnet101,
    resnet152 as resnet152,
    resnext50_32x4d as resnext50_32x4d,
    resnext101_32x4d as resnext101_32x4d,
    resnext101_32x8d as resnext101_32x8d,
    resnext101_64x4d as resnext101_64x4d,
)
from kvision.models._swin import (
    SwinV2Variant as SwinV2Variant,
    SwinVariant as SwinVariant,
    swin_base as swin_base,
    swin_large as swin_large,
    swin_small as swin_small,
    swin_tiny as swin_tiny,
    swin_v2_base as swin_v2_base,
    swin_v2_small as swin_v2_small,
    swin_v2_tiny as swin_v2_tiny,
)
from kvision.models._vgg import (
    VGGVariant as VGGVariant,
    vgg11 as vgg11,
    vgg11_bn as vgg11_bn,
    vgg13 as vgg13,
    vgg13_bn as vgg13_bn,
    vgg16 as vgg16,
    vgg16_bn as vgg16_bn,
    vgg19 as vgg19,
    vgg19_bn as vgg19_bn,
)
from kvision.models._vgg_cnn import (
    vgg_f as vgg_f,
    vgg_m as vgg_m,
    vgg_s as vgg_s,
)
from kvision.models._vit import (
    ViTVariant as ViTVariant,
    vit_base_patch16 as vit_base_patch16,
    vit_base_patch32 as vit_base_patch32,
    vit_huge_patch14 as vit_huge_patch14,
    vit_large_patch16 as vit_large_patch16,
    vit_large_patch32 as vit_large_patch32,
    vit_small_patch16 as vit_small_patch16,
    vit_small_patch32 as vit_small_patch32,
    vit_tiny_patch16 as vit_tiny_patch16,
)
from kvision.models._vit_hybrid import (
    HybridVariant as HybridVariant,
    vit_base_r50_s16 as vit_base_r50_s16,
    vit_small_r26_s32 as vit_small_r26_s32,
)
from kvision.models._xception import (
    XceptionVariant as XceptionVariant,
    xception as xception,
)
