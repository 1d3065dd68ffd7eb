"""Our names of the peers' networks."""

import re

TIMM = {"padding": "symmetric", "norm_epsilon": 1e-5}
NAMES = {  # the peer's name: ours, with the columns
    "mobilenetv1_100": ("mobilenet_v1", TIMM),
    "mobilenetv2_100": ("mobilenet_v2", TIMM),
    "mobilenetv2_140": ("mobilenet_v2", TIMM | {"width_multiplier": 1.4}),
    "tf_mobilenetv3_large_100": ("mobilenet_v3_large", {}),
    "tf_mobilenetv3_large_minimal_100": ("mobilenet_v3_large_minimal", {}),
    "tf_mobilenetv3_small_minimal_100": ("mobilenet_v3_small_minimal", {}),
    "tf_mobilenetv3_small_075": ("mobilenet_v3_small", {"width_multiplier": 0.75}),
    "tf_mobilenetv3_small_100": ("mobilenet_v3_small", {}),
    "tf_mobilenetv3_large_075": ("mobilenet_v3_large", {"width_multiplier": 0.75}),
    "mobilenetv2_035": ("mobilenet_v2", TIMM | {"width_multiplier": 0.35}),
    "mobilenetv2_050": ("mobilenet_v2", TIMM | {"width_multiplier": 0.5}),
    "mobilenetv2_075": ("mobilenet_v2", TIMM | {"width_multiplier": 0.75}),
    "mobilenetv3_large_075": ("mobilenet_v3_large", TIMM | {"width_multiplier": 0.75}),
    "mobilenetv3_large_100": ("mobilenet_v3_large", TIMM),
    "mobilenetv3_small_050": ("mobilenet_v3_small", TIMM | {"width_multiplier": 0.5}),
    "mobilenetv3_small_075": ("mobilenet_v3_small", TIMM | {"width_multiplier": 0.75}),
    "mobilenetv3_small_100": ("mobilenet_v3_small", TIMM),
    "mobilenetv1_125": ("mobilenet_v1", TIMM | {"width_multiplier": 1.25}),
    "mobilenetv4_conv_small_035": ("mobilenet_v4_conv_small", {"width_multiplier": 0.35}),
    "mobilenetv4_conv_small_050": ("mobilenet_v4_conv_small", {"width_multiplier": 0.5}),
    "tv_alexnet": ("alexnet_owt", {}),
    "tv_googlenet": ("googlenet_bn", {}),
    "legacy_xception": ("xception", TIMM),
}
PREFIXES = {
    "tf_efficientnetv2_": "efficientnet_v2_",
    "tf_efficientnet_": "efficientnet_",
    "mobilenetv4_": "mobilenet_v4_",
    "convnextv2_": "convnext_v2_",
}


def ours(peer):
    """Our name for a peer's network, and the columns."""
    peer = peer.partition(" at ")[0]
    if peer in NAMES:
        return NAMES[peer]
    if peer.startswith("efficientnet_"):  # timm's own; Google's begin with "tf_"
        return peer, TIMM
    if peer.startswith("vit_"):
        return peer.rpartition("_")[0], {}
    if peer.startswith("deit_"):
        return peer.partition("_patch")[0], {}
    if peer.startswith("swinv2_"):
        size, window, grown = re.match(r"swinv2_(\w+)_window(\d+)(?:to(\d+))?_", peer).groups()
        columns = {"window_size": int(grown or window)}
        columns |= {"trained_window_size": int(window)} if grown else {}
        return f"swin_v2_{size}", {} if columns == {"window_size": 8} else columns
    if peer.startswith("swin_"):
        return peer.partition("_patch")[0], {"window_size": 12} if "window12" in peer else {}
    prefix = next((prefix for prefix in PREFIXES if peer.startswith(prefix)), "")
    return PREFIXES.get(prefix, "") + peer.removeprefix(prefix), {}
