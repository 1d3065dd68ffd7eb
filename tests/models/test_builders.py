"""Keywords of the builders, and their errors."""

import keras
import numpy as np
import pytest

import kvision
from kvision.models import efficientnet, efficientnet_b0, mobilenet_v1, mobilenet_v2, mobilenet_v3_large

PIXELS = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
SMALL = {"width_multiplier": 0.1, "input_shape": (64, 64, 3)}


def test_without_a_top():
    assert mobilenet_v2(include_top=False, **SMALL).output_shape == (None, 2, 2, 1280)
    assert mobilenet_v2(include_top=False, pooling="avg", **SMALL).output_shape == (None, 1280)
    feature_map = mobilenet_v3_large(include_top=False, input_shape=(64, 64, 3))
    assert feature_map.output_shape == (None, 2, 2, 960)


@pytest.mark.parametrize(("pooling", "reduce"), [("avg", np.mean), ("max", np.max)])
def test_pooling_reduces_the_feature_map(pooling, reduce):
    model = mobilenet_v1(include_top=False, **SMALL)
    weights = kvision.weights.state_dict(mobilenet_v1(**SMALL))
    model = mobilenet_v1(include_top=False, weights=weights, **SMALL)
    pooled = mobilenet_v1(include_top=False, weights=weights, pooling=pooling, **SMALL)
    np.testing.assert_allclose(pooled(PIXELS), reduce(model(PIXELS), axis=(1, 2)), rtol=1e-5, atol=1e-6)


def test_weights_with_a_top_serve_the_trunk():
    whole = mobilenet_v2(num_classes=7, **SMALL)
    weights = kvision.weights.state_dict(whole)
    trunk = mobilenet_v2(num_classes=7, include_top=False, weights=weights, **SMALL)
    np.testing.assert_array_equal(
        kvision.features(trunk, ["c5"])(PIXELS)["c5"], kvision.features(whole, ["c5"])(PIXELS)["c5"]
    )


def test_features_have_timms_channels():
    """timm's `features_only` of mobilenetv2_100, mobilenetv3_large_100 and efficientnet_b0."""
    names = ("c1", "c2", "c3", "c4", "c5")
    for builder, channels in (
        (mobilenet_v2, (16, 24, 32, 96, 320)),
        (mobilenet_v3_large, (16, 24, 40, 112, 960)),
        (efficientnet_b0, (16, 24, 40, 112, 320)),
    ):
        pyramid = kvision.features(builder(input_shape=(64, 64, 3)), names)
        assert tuple(pyramid.output[name].shape[-1] for name in names) == channels


def test_attention_maps_show_where_each_block_looks():
    columns = {"filters": 16, "depth": 3, "num_heads": 2, "input_shape": (48, 64, 3)}
    model = kvision.models.deit_tiny_distilled(**columns)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 48, 64, 3)).astype("float32")
    maps = np.asarray(kvision.attention_maps(model)(pixels))
    assert maps.shape == (2, 3, 2, 2 + 12, 2 + 12)
    np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-5)
    with pytest.raises(ValueError, match="no self-attention"):
        kvision.attention_maps(mobilenet_v1(**SMALL))


def test_a_vit_gives_its_grid():
    columns = {"filters": 16, "depth": 1, "num_heads": 2, "input_shape": (48, 64, 3)}
    assert kvision.models.vit_tiny_patch16(include_top=False, **columns).output_shape == (None, 3, 4, 16)
    pooled = kvision.models.vit_tiny_patch16(include_top=False, pooling="avg", **columns)
    assert pooled.output_shape == (None, 16)
    for builder in (kvision.models.vit_tiny_patch16, kvision.models.swin_tiny):
        with pytest.raises(ValueError, match="fixed image size"):
            builder(input_shape=(None, None, 3))


def test_a_distilled_network_answers_with_the_mean_of_its_classifiers():
    columns = {"filters": 16, "depth": 1, "num_heads": 2, "input_shape": (48, 64, 3), "num_classes": 5}
    logits = {"classifier_activation": None} | columns
    model = kvision.models.deit_tiny_distilled(**logits)
    apart = kvision.models.deit_tiny_distilled(auxiliary=True, **logits)
    kvision.weights.load(apart, kvision.weights.state_dict(model))
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 48, 64, 3)).astype("float32")
    outputs = apart(pixels)
    mean = (outputs["predictions"] + outputs["distillation"]) / 2
    np.testing.assert_allclose(model(pixels), mean, rtol=1e-5, atol=1e-6)


def test_features_name_the_taps_there_are():
    with pytest.raises(ValueError, match="no tap 'c6'.*Did you mean 'c"):
        kvision.features(mobilenet_v1(**SMALL), ("c6",))


def test_preprocess_takes_pixels():
    logits = {"classifier_activation": None, "num_classes": 4} | SMALL
    model = mobilenet_v2(**logits)
    plain = mobilenet_v2(preprocess=kvision.Preprocess((0,) * 3, (1,) * 3), **logits)
    plain.set_weights(model.get_weights())
    np.testing.assert_allclose(model(PIXELS), plain(PIXELS / 127.5 - 1), rtol=1e-4, atol=1e-5)
    assert model.get_layer("preprocess").scale == 1 / 127.5  # of all channels


def test_resolution_multiplier_sets_the_default_size():
    """MobileNet v1's rho of 6/7, 5/7 and 4/7 are 192, 160 and 128 pixels."""
    for rho, size in ((1, 224), (6 / 7, 192), (5 / 7, 160), (4 / 7, 128)):
        model = mobilenet_v1(width_multiplier=0.25, resolution_multiplier=rho)
        assert model.input_shape == (None, size, size, 3)
    with pytest.raises(ValueError, match="give one"):
        mobilenet_v1(resolution_multiplier=0.5, input_shape=(64, 64, 3))


def test_compound_scaling():
    base = efficientnet(0)
    assert base.count_params() == efficientnet_b0().count_params()
    scaled = efficientnet(phi=1)
    # equation 3: depth 1.2, width 1.1, resolution 1.15
    assert scaled.input_shape == (None, 256, 256, 3)
    assert scaled.get_layer("blocks.6.1.conv_pwl").filters == 352
    assert not any(layer.name.startswith("blocks.6.2") for layer in scaled.layers)
    assert scaled.name == "efficientnet_phi_1"
    assert efficientnet(-2, num_classes=3).count_params() < base.count_params()
    with pytest.raises(ValueError, match="finite"):
        efficientnet(float("nan"))


def test_fresh_weights_follow_from_the_seed_and_differ_between_layers():
    def kernels():
        keras.utils.set_random_seed(3)
        model = mobilenet_v1(**SMALL)
        return [model.get_layer(f"blocks.3.{i}.conv_pw").get_weights()[0] for i in (1, 2)]

    first, again = kernels(), kernels()
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1])


def test_name_changes_nothing_else():
    model = mobilenet_v1(name="mine", **SMALL)
    assert model.name == "mine"
    assert kvision.create_model("mobilenet_v1", **SMALL).count_params() == model.count_params()


def test_drop_path_is_linear_over_all_blocks():
    model = efficientnet_b0(input_shape=(64, 64, 3))
    rates = {layer.name: layer.rate for layer in model.layers if isinstance(layer, kvision.layers.DropPath)}
    assert rates["blocks.1.1.drop_path"] == pytest.approx(0.2 * 2 / 16)
    assert rates["blocks.5.3.drop_path"] == pytest.approx(0.2 * 14 / 16)
    assert not any("drop_path" in layer.name for layer in efficientnet_b0(drop_path_rate=0.0).layers)


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"width_multiplyer": 1}, TypeError, "Did you mean 'width_multiplier'"),
        ({"input_shape": (16, 16, 3)}, ValueError, "too small.*32 x 32"),
        ({"input_shape": (64, 64)}, ValueError, "height, width, channels"),
        ({"pooling": "avg"}, ValueError, "include_top=False"),
        ({"pooling": "mean", "include_top": False}, ValueError, "'avg' or 'max'"),
        ({"num_classes": 0}, ValueError, "positive integer"),
        ({"padding": "valid"}, ValueError, "'same' or 'symmetric'"),
        ({"width_multiplier": 0}, ValueError, "width_multiplier"),
        ({"weights": "imagenot"}, ValueError, ".safetensors"),
    ],
)
def test_errors(keywords, error, message):
    with pytest.raises(error, match=message):
        mobilenet_v2(**keywords)


def test_unknown_model():
    with pytest.raises(ValueError, match="Unknown model 'mobilenetv2'. Did you mean 'mobilenet_v2'"):
        kvision.create_model("mobilenetv2")
    assert kvision.list_models("efficientnet_lite*") == [f"efficientnet_lite{i}" for i in range(5)]


def test_preprocess_refuses_what_is_no_normalisation():
    with pytest.raises(ValueError, match="positive"):
        kvision.Preprocess((0.0,), (0.0,))
    with pytest.raises(ValueError, match="one value a channel"):
        kvision.Preprocess((0.0, 0.0), (1.0,))
