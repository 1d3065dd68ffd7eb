"""DeiT (Touvron et al. 2020, https://arxiv.org/abs/2012.12877).

ViT's network, also with a distillation token.
"""

from kvision.models._family import Family
from kvision.models._vit import ViTVariant, heads, tokens, trunk
from kvision.spec import IMAGENET


def row(filters, num_heads, params, distilled=False) -> ViTVariant:
    return ViTVariant(
        patch_size=16,
        filters=filters,
        depth=12,
        num_heads=num_heads,
        distilled=distilled,
        drop_path_rate=0.1,  # Table 9
        preprocess=IMAGENET,
        params=params,
    )


VARIANTS = {  # Table 1; trainable parameters: timm
    "deit_tiny": row(192, 3, 5_717_416),
    "deit_small": row(384, 6, 22_050_664),
    "deit_base": row(768, 12, 86_567_656),
    "deit_tiny_distilled": row(192, 3, 5_910_800, distilled=True),
    "deit_small_distilled": row(384, 6, 22_436_432, distilled=True),
    "deit_base_distilled": row(768, 12, 87_338_192, distilled=True),
}

FAMILY = Family(trunk, VARIANTS, tokens, classifier="head", heads=heads, min_size=32, module=__name__)
deit_tiny = FAMILY.builder("deit_tiny")
deit_small = FAMILY.builder("deit_small")
deit_base = FAMILY.builder("deit_base")
deit_tiny_distilled = FAMILY.builder("deit_tiny_distilled")
deit_small_distilled = FAMILY.builder("deit_small_distilled")
deit_base_distilled = FAMILY.builder("deit_base_distilled")
