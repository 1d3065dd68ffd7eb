"""Feature pyramids and attention maps."""

import numpy as np
import pytest
from helpers import built_without_memory

import kvision
from kvision.models import mobilenet_v1

SMALL = {"width_multiplier": 0.1, "input_shape": (64, 64, 3)}


def test_features_have_timms_channels():
    """timm's `features_only` of mobilenetv2_100, mobilenetv3_large_100 and efficientnet_b0."""
    taps = ("c1", "c2", "c3", "c4", "c5")
    for name, channels in (
        ("mobilenet_v2", (16, 24, 32, 96, 320)),
        ("mobilenet_v3_large", (16, 24, 40, 112, 960)),
        ("efficientnet_b0", (16, 24, 40, 112, 320)),
    ):
        pyramid = kvision.features(built_without_memory(name), taps)
        assert tuple(pyramid.output[tap].shape[-1] for tap in taps) == channels


def test_attention_maps_show_where_each_block_looks():
    columns = {"filters": 16, "depth": 3, "num_heads": 2, "input_shape": (48, 64, 3)}
    model = kvision.models.deit_tiny_distilled(**columns)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 48, 64, 3)).astype("float32")
    maps = np.asarray(kvision.attention_maps(model)(pixels))
    assert maps.shape == (2, 3, 2, 2 + 12, 2 + 12)
    np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-5)
    with pytest.raises(ValueError, match="no self-attention"):
        kvision.attention_maps(mobilenet_v1(**SMALL))


def test_features_name_the_taps_there_are():
    with pytest.raises(ValueError, match="no tap 'c6'.*Did you mean 'c"):
        kvision.features(mobilenet_v1(**SMALL), ("c6",))
