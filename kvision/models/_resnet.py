"""ResNet (He et al. 2015, https://arxiv.org/abs/1512.03385) and ResNeXt (Xie et al. 2016, 1611.05431).

As in torchvision and timm: the strides are in the 3 x 3 convolution of a bottleneck, where the paper has them
in the 1 x 1 before it; 3.88 against 4.09 G multiply-adds for ResNet-50.
"""

from collections.abc import Callable
from dataclasses import dataclass

from kvision.blocks import basic_block, batch_norm_of, bottleneck, conv_norm_act, dilated, max_pool, tap
from kvision.models._family import Family
from kvision.spec import BatchNormVariant, column


@dataclass(frozen=True, kw_only=True)
class ResNetVariant(BatchNormVariant):
    """A row of the table.

    Attributes:
        depths: residual blocks a stage.
        block: `basic_block` or `bottleneck` of `kvision.blocks`.
        filters: of the stem and of the first stage; they double from stage to stage.
        groups: of the 3 x 3 convolutions (the cardinality of ResNeXt).
        group_width: filters a group in the first stage; None for all filters.
        output_stride: 8, 16 or 32. Below 32 the last stages keep their size and dilate their 3 x 3
            convolutions instead, as torchvision's `replace_stride_with_dilation` and timm do.
    """

    depths: tuple[int, ...]
    block: Callable = bottleneck
    filters: int = 64
    groups: int = 1
    group_width: int | None = None
    output_stride: int = column(32, free=True)


VARIANTS = {  # ResNet Table 1, ResNeXt Table 1 and section 5.1; trainable parameters: timm
    "resnet18": ResNetVariant(depths=(2, 2, 2, 2), block=basic_block, params=11_689_512),
    "resnet34": ResNetVariant(depths=(3, 4, 6, 3), block=basic_block, params=21_797_672),
    "resnet50": ResNetVariant(depths=(3, 4, 6, 3), params=25_557_032),
    "resnet101": ResNetVariant(depths=(3, 4, 23, 3), params=44_549_160),
    "resnet152": ResNetVariant(depths=(3, 8, 36, 3), params=60_192_808),
    "resnext50_32x4d": ResNetVariant(depths=(3, 4, 6, 3), groups=32, group_width=4, params=25_028_904),
    "resnext101_32x4d": ResNetVariant(depths=(3, 4, 23, 3), groups=32, group_width=4, params=44_177_704),
    "resnext101_32x8d": ResNetVariant(depths=(3, 4, 23, 3), groups=32, group_width=8, params=88_791_336),
    "resnext101_64x4d": ResNetVariant(depths=(3, 4, 23, 3), groups=64, group_width=4, params=83_455_272),
}


def trunk(x, v: ResNetVariant):
    norm = batch_norm_of(v)
    x = conv_norm_act(
        x,
        filters=v.filters,
        kernel_size=7,
        strides=2,
        padding="symmetric",
        norm=norm,
        activation="relu",
        name="conv1",
        norm_name="bn1",
    )
    x = tap(x, "c1")
    x = max_pool(x, pool_size=3, padding="symmetric", name="maxpool")
    stage_strides = dilated((1, 2, 2, 2), stride=4, output_stride=v.output_stride)
    dilation = 1
    for stage, (depth, (strides, next_dilation)) in enumerate(zip(v.depths, stage_strides, strict=True)):
        filters = v.filters * 2**stage
        for i in range(depth):
            dilations, dilation = (dilation, next_dilation), next_dilation
            x = v.block(
                x,
                filters=filters,
                strides=strides if i == 0 else 1,
                groups=v.groups,
                inner_filters=v.groups * (v.group_width or v.filters) * 2**stage,
                dilations=dilations,
                norm=norm,
                name=f"layer{stage + 1}.{i}",
            )
        x = tap(x, f"c{stage + 2}")
    return x


FAMILY = Family(trunk, VARIANTS, classifier="fc")
resnet18 = FAMILY.builder("resnet18")
resnet34 = FAMILY.builder("resnet34")
resnet50 = FAMILY.builder("resnet50")
resnet101 = FAMILY.builder("resnet101")
resnet152 = FAMILY.builder("resnet152")
resnext50_32x4d = FAMILY.builder("resnext50_32x4d")
resnext101_32x4d = FAMILY.builder("resnext101_32x4d")
resnext101_32x8d = FAMILY.builder("resnext101_32x8d")
resnext101_64x4d = FAMILY.builder("resnext101_64x4d")
