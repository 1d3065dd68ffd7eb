"""Keywords of the builders, and the networks that they give."""

from functools import partial

import keras
import numpy as np
import pytest
from helpers import built_without_memory, mostly_slow

import kvision
from kvision.errors import UserError
from kvision.models import efficientnet, mobilenet_v1, mobilenet_v2

PIXELS = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
SMALL = {"width_multiplier": 0.1, "input_shape": (64, 64, 3)}
shallow = partial(kvision.models.resnet18, filters=8, depths=(1, 1, 1, 1), input_shape=(64, 64, 3))


def test_without_a_top():
    assert mobilenet_v2(include_top=False, **SMALL).output_shape == (None, 2, 2, 1280)
    assert mobilenet_v2(include_top=False, pooling="avg", **SMALL).output_shape == (None, 1280)
    feature_map = built_without_memory("mobilenet_v3_large", include_top=False, input_shape=(64, 64, 3))
    assert feature_map.output_shape == (None, 2, 2, 960)


@pytest.mark.parametrize(
    ("pooling", "reduce"), [("avg", np.mean), pytest.param("max", np.max, marks=pytest.mark.slow)]
)
def test_pooling_reduces_the_feature_map(pooling, reduce):
    weights = kvision.weights.state_dict(shallow())
    model = shallow(include_top=False, weights=weights)
    pooled = shallow(include_top=False, weights=weights, pooling=pooling)
    np.testing.assert_allclose(pooled(PIXELS), reduce(model(PIXELS), axis=(1, 2)), rtol=1e-5, atol=1e-6)


def test_weights_with_a_top_serve_the_trunk():
    whole = shallow(num_classes=7)
    weights = kvision.weights.state_dict(whole)
    trunk = shallow(num_classes=7, include_top=False, weights=weights)
    np.testing.assert_array_equal(
        kvision.features(trunk, ["c5"])(PIXELS)["c5"], kvision.features(whole, ["c5"])(PIXELS)["c5"]
    )


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
    mean = (outputs["class"] + outputs["distillation"]) / 2
    for answer in (model(pixels), outputs["predictions"]):
        np.testing.assert_allclose(answer, mean, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="`auxiliary` needs `distilled=True`"):
        kvision.models.vit_tiny_patch16(auxiliary=True, **columns)


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
        model = built_without_memory("mobilenet_v1", resolution_multiplier=rho)
        assert model.input_shape == (None, size, size, 3)
    with pytest.raises(ValueError, match="give one"):
        mobilenet_v1(resolution_multiplier=0.5, input_shape=(64, 64, 3))


def test_compound_scaling():
    base = built_without_memory("efficientnet", phi=0)
    assert base.count_params() == built_without_memory("efficientnet_b0").count_params()
    scaled = built_without_memory("efficientnet", phi=1)
    # equation 3: depth 1.2, width 1.1, resolution 1.15
    assert scaled.input_shape == (None, 256, 256, 3)
    assert scaled.get_layer("blocks.6.1.conv_pwl").filters == 352
    assert not any(layer.name.startswith("blocks.6.2") for layer in scaled.layers)
    assert scaled.name == "efficientnet_phi_1"
    smaller = built_without_memory("efficientnet", phi=-2, num_classes=3)
    assert smaller.count_params() < base.count_params()
    for phi in (float("nan"), 100, 10**400, "1", True):
        with pytest.raises(UserError, match="`phi` must be a number from -10 to 10; got"):
            efficientnet(phi)
    with pytest.raises(UserError, match="`beta` must be a number from 1 to 2; got 1000"):
        efficientnet(1, beta=1000)
    with pytest.raises(UserError, match="`depth_multiplier` must be .* at most 10; got 1024"):
        efficientnet(10, alpha=2)


def test_fresh_weights_follow_from_the_seed_and_differ_between_layers():
    def kernels():
        keras.utils.set_random_seed(3)
        model = mobilenet_v1(**SMALL)
        return [model.get_layer(f"blocks.3.{i}.conv_pw").get_weights()[0] for i in (1, 2)]

    first, again = kernels(), kernels()
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1])


@pytest.mark.parametrize(
    "name",
    mostly_slow(["googlenet", "alexnet", "vgg16", "resnet50", "vit_tiny_patch16"], "vit_tiny_patch16"),
)
def test_fresh_logits_are_small_enough_to_train(name):
    keras.utils.set_random_seed(0)
    size = kvision.info(name).variant.image_size
    model = kvision.create_model(name, classifier_activation=None)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, size, size, 3))
    assert 0.01 < np.std(model(pixels, training=True)) < 10


def test_name_changes_nothing_else():
    model = shallow(name="mine")
    assert model.name == "mine"
    assert shallow().count_params() == model.count_params()


def test_drop_path_is_linear_over_all_blocks():
    model = built_without_memory("efficientnet_b0")
    rates = {layer.name: layer.rate for layer in model.layers if isinstance(layer, kvision.layers.DropPath)}
    assert rates["blocks.1.1.drop_path"] == pytest.approx(0.2 * 2 / 16)
    assert rates["blocks.5.3.drop_path"] == pytest.approx(0.2 * 14 / 16)
    without = built_without_memory("efficientnet_b0", drop_path_rate=0.0)
    assert not any("drop_path" in layer.name for layer in without.layers)


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("vit_tiny_patch16", "blocks.1.attn", "blocks.11.mlp"),
        ("swin_tiny", "layers.0.blocks.1.attn", "layers.3.blocks.1.mlp"),
        ("convnext_tiny", "stages.0.blocks.1", "stages.3.blocks.2"),
    ],
)
def test_drop_path_reaches_its_rate_in_the_last_block(name, first, last):
    """timm's `linspace(0, rate, blocks)`."""
    model = built_without_memory(name, drop_path_rate=0.4)
    blocks = {"vit_tiny_patch16": 12, "swin_tiny": 2 + 2 + 6 + 2, "convnext_tiny": 3 + 3 + 9 + 3}[name]
    for layer, rate in ((first, np.linspace(0, 0.4, blocks)[1]), (last, 0.4)):
        assert model.get_layer(f"{layer}.drop_path").rate == pytest.approx(rate)


def test_a_tap_may_be_given_as_a_word_and_a_path_as_bytes(tmp_path):
    model = shallow()
    assert kvision.features(model, "c3").output.keys() == {"c3"}
    kvision.weights.save(model, bytes(tmp_path / "a.safetensors"))
    assert (tmp_path / "a.safetensors").exists()


def test_a_word_finds_the_names_that_contain_it():
    assert kvision.list_models("vgg11") == ["vgg11"]
    assert kvision.list_models("vgg1") == kvision.list_models("*vgg1*") != []
    for find in (kvision.list_models, kvision.list_weights):
        assert find("nothing*") == []
        with pytest.raises(UserError, match="Unknown .* 'mobilnet_v2'. Did you mean 'mobilenet_v2'"):
            find("mobilnet_v2")
    with pytest.raises(UserError, match="Unknown weights 'resnet51'. Did you mean 'resnet50'"):
        kvision.list_weights("resnet51")
    assert kvision.list_models("ResNet*50") == kvision.list_models("resnet*50") != []
    assert kvision.list_models("lite?") == []
    assert kvision.list_weights("deit_base.fb_in1k") == kvision.list_weights("deit_base.fb_in1[k]")
    assert kvision.list_weights("lite0") == kvision.list_weights("efficientnet_lite0.*") != []


def test_numpys_scalars_and_lists_are_taken():
    columns = {"depths": np.array([1, 1, 1, 1]), "filters": np.int32(8), "norm_epsilon": np.float32(1e-3)}
    shape = np.array([32, 32, 3])
    model = kvision.models.resnet18(num_classes=np.array(7), input_shape=shape, **columns)
    assert (model.input_shape, model.output_shape) == ((None, 32, 32, 3), (None, 7))
    assert (
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model)).name == "resnet18"
    )
    lists = {"depths": [1, 1, 1, 1], "filters": 8}
    assert kvision.models.resnet18(num_classes=7, input_shape=[32, 32, 3], **lists).name == "resnet18"
    roadmap = built_without_memory("convnext_roadmap", step=np.int64(0), input_shape=(32, 32, 3))
    assert roadmap.output_shape == (None, 1000)
    with pytest.raises(ValueError, match="`step` must be a name or a number from 0 to 12; got True"):
        kvision.models.convnext_roadmap(True)


def test_a_model_may_have_the_name_that_create_model_also_takes():
    assert kvision.create_model("mobilenet_v1", name="left", **SMALL).name == "left"
    for name in (42, ["mobilenet_v1"], None):
        with pytest.raises(UserError, match="Unknown model"):
            kvision.create_model(name)


def test_weights_may_be_a_path(tmp_path):
    model = mobilenet_v1(**SMALL)
    kvision.weights.save(model, tmp_path / "mobilenet.safetensors")
    again = mobilenet_v1(weights=tmp_path / "mobilenet.safetensors", **SMALL)
    np.testing.assert_array_equal(again(PIXELS), model(PIXELS))
