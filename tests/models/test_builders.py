"""Keywords of the builders, and their errors."""

import keras
import numpy as np
import pytest
from helpers import randomized, tiny

import kvision
from kvision.errors import UserError
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
    mean = (outputs["class"] + outputs["distillation"]) / 2
    for answer in (model(pixels), outputs["predictions"]):
        np.testing.assert_allclose(answer, mean, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="`auxiliary` needs `distilled=True`"):
        kvision.models.vit_tiny_patch16(auxiliary=True, **columns)


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


@pytest.mark.parametrize("name", ["googlenet", "alexnet", "vgg16", "resnet50", "vit_tiny_patch16"])
def test_fresh_logits_are_small_enough_to_train(name):
    keras.utils.set_random_seed(0)
    size = kvision.info(name).variant.image_size
    model = kvision.create_model(name, classifier_activation=None)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, size, size, 3))
    assert 0.01 < np.std(model(pixels, training=True)) < 10


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
    ("name", "first", "last"),
    [
        ("vit_tiny_patch16", "blocks.1.attn", "blocks.11.mlp"),
        ("swin_tiny", "layers.0.blocks.1.attn", "layers.3.blocks.1.mlp"),
        ("convnext_tiny", "stages.0.blocks.1", "stages.3.blocks.2"),
    ],
)
def test_drop_path_reaches_its_rate_in_the_last_block(name, first, last):
    """timm's `linspace(0, rate, blocks)`."""
    with keras.StatelessScope(initialize_variables=False):
        model = kvision.create_model(name, drop_path_rate=0.4)
    keras.utils.clear_session(free_memory=False)
    blocks = {"vit_tiny_patch16": 12, "swin_tiny": 2 + 2 + 6 + 2, "convnext_tiny": 3 + 3 + 9 + 3}[name]
    for layer, rate in ((first, np.linspace(0, 0.4, blocks)[1]), (last, 0.4)):
        assert model.get_layer(f"{layer}.drop_path").rate == pytest.approx(rate)


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"width_multiplyer": 1}, TypeError, "Did you mean 'width_multiplier'"),
        ({"width": 0.5}, TypeError, "Unknown keyword 'width'. Did you mean 'width_multiplier'"),
        ({"alpha": 0.5}, TypeError, "Unknown keyword 'alpha'. Did you mean 'width_multiplier'"),
        ({"input_shape": (16, 16, 3)}, ValueError, r"too small.*32 x 32 pixels\.$"),
        ({"input_shape": (3, 32, 64)}, ValueError, r"channels come last: did you mean \(32, 64, 3\)"),
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


@pytest.mark.parametrize("mean", [(), 127.5, "abc", (float("nan"),), None])
def test_preprocess_takes_numbers(mean):
    with pytest.raises(ValueError, match="`mean` must be one number a channel; got"):
        kvision.Preprocess(mean, (1.0,))
    assert kvision.Preprocess(np.array([1]), [2]) == kvision.Preprocess((1.0,), (2.0,))


ROWS = kvision.info("mobilenet_v3_small").variant.rows


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("mobilenet_v2", {"width_multiplier": "abc"}, "`width_multiplier` must be a number .*; got 'abc'"),
        ("mobilenet_v2", {"width_multiplier": True}, "`width_multiplier` must be a number .*; got True"),
        ("mobilenet_v2", {"width_multiplier": float("inf")}, "at most 10; got inf"),
        ("mobilenet_v2", {"num_classes": 2.5}, "`num_classes` must be a positive integer; got 2.5"),
        ("mobilenet_v2", {"num_classes": True}, "`num_classes` must be a positive integer; got True"),
        ("mobilenet_v2", {"num_classes": "7"}, "`num_classes` must be a positive integer; got '7'"),
        ("mobilenet_v2", {"input_shape": ("64", "64", "3")}, "`input_shape` must be .height, width"),
        ("mobilenet_v2", {"input_shape": (64, True, 3)}, "`input_shape` must be .height, width"),
        ("mobilenet_v2", {"input_shape": (64, 64, None)}, "`input_shape` must be .height, width"),
        ("mobilenet_v2", {"input_shape": 64}, "`input_shape` must be .height, width"),
        ("mobilenet_v2", {"dropout_rate": 2}, "`dropout_rate` must be a number from 0 to below 1; got 2"),
        ("mobilenet_v2", {"drop_path_rate": 1.0}, "a number from 0 to below 1; got 1.0"),
        ("mobilenet_v2", {"norm_epsilon": -1e-3}, "`norm_epsilon` must be a positive number"),
        ("mobilenet_v2", {"norm_momentum": 2}, "`norm_momentum` must be a number from 0 to 1"),
        ("mobilenet_v2", {"classifier_activation": "sofmax"}, "got 'sofmax'. Did you mean 'softmax'"),
        ("mobilenet_v2", {"include_top": "False"}, "`include_top` must be True or False; got 'False'"),
        ("mobilenet_v2", {"name": "a/b"}, "`name` must be a text, not empty and without '/'"),
        ("mobilenet_v2", {"name": ""}, "`name` must be a text, not empty and without '/'"),
        ("mobilenet_v2", {"preprocess": "imagenet"}, "`preprocess` must be a `kvision.Preprocess`"),
        ("resnet18", {"depths": 3}, "`depths` must be a tuple of 4 positive integers, such as .*; got 3"),
        ("resnet18", {"depths": (1, 2)}, "`depths` must be a tuple of 4 .*; got .1, 2."),
        ("resnet18", {"depths": (1, 1, 0, 1)}, r"`depths\[2\]` must be a positive integer; got 0"),
        ("resnet18", {"block": "bottleneck"}, "`block` must be a function, such as basic_block"),
        ("lenet5", {"activation": "rellu"}, "`activation` must be a Keras activation; .*Did you mean 'relu'"),
        ("lenet5", {"subsampling": "mean"}, "`subsampling` must be 'average' or 'max'; got 'mean'"),
        ("mobilenet_v3_small", {"rows": ((1, 2),)}, "`rows` must be a tuple of Rows"),
        ("mobilenet_v3_small", {"minimal": "yes"}, "`minimal` must be True or False; got 'yes'"),
        ("densenet121", {"compression": 1.5}, "`compression` must be a number above 0, and at most 1"),
        ("vit_tiny_patch16", {"patch_size": 64, "input_shape": (32, 32, 3)}, "`patch_size` 64 is larger"),
        ("googlenet", {"auxiliary": True, "input_shape": (None, None, 3)}, "needs a fixed image size"),
        ("mobilenet_v2", {"num_classes": -1}, "`num_classes` must be a positive integer; got -1"),
        ("mobilenet_v2", {"num_classes": 10**12}, "`num_classes` must be .* of at most 1,000,000; got 1000"),
        ("vit_tiny_patch16", {"depth": 10**9}, "`depth` must be a positive integer of at most 1,000; got"),
        ("resnet18", {"depths": (10**6, 1, 1, 1)}, r"`depths\[0\]` must be .* of at most 1,000; got 1000000"),
        ("resnet18", {"filters": 10**6}, "`filters` must be .* integer of at most 10,000; got 1000000"),
        ("mobilenet_v2", {"width_multiplier": 1e9}, "`width_multiplier` must be .* at most 10; got 1000"),
        ("mobilenet_v2", {"width_multiplier": 10**400}, "`width_multiplier` must be .* at most 10; got 1000"),
        ("vit_tiny_patch16", {"mlp_ratio": 1e9}, "`mlp_ratio` must be .* at most 100; got 1000000000"),
        ("mobilenet_v2", {"input_shape": (10**6, 10**6, 3)}, "of at most 16,384 pixels a side"),
        ("mobilenet_v2", {"input_shape": (64, 64, 10**12)}, "`input_shape` .* and 10,000 channels; got .64"),
        ("mobilenet_v2", {"input_shape": (224, 224)}, "`input_shape` must be .height, width"),
        ("mobilenet_v2", {"weights": 7}, "no weights '7'"),
        ("vit_tiny_patch16", {"input_shape": (70, 64, 3)}, r"`patch_size` 16; got .*, to which \(64, 64\)"),
        ("deit_tiny", {"input_shape": (64, 72, 3)}, r"`patch_size` 16; got .*, to which \(64, 80\)"),
        ("swin_tiny", {"input_shape": (64, 67, 3)}, r"`patch_size` 4; got .*, to which \(64, 68\)"),
    ],
)  # fmt: skip
def test_values_of_the_wrong_kind_are_refused_in_a_sentence(name, keywords, message):
    with pytest.raises(UserError, match=message) as error:
        kvision.create_model(name, **keywords)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model, vit: kvision.features(None), "`model` must be a `keras.Model`; got None"),
        (lambda model, vit: kvision.features("mobilenet_v2"), "`model` must be .*; got 'mobilenet_v2'"),
        (lambda model, vit: kvision.features(vit), "no tap 'c3'. Did you mean 'c4'. Its taps: c4"),
        (lambda model, vit: kvision.features(model, 3), r"`names` must be taps such as \('c3'.*; got 3"),
        (lambda model, vit: kvision.features(model, b"c3"), "`names` must be taps .*; got b'c3'"),
        (lambda model, vit: kvision.features(model, ("c3", None)), "`names` must be .*; got .'c3', None"),
        (lambda model, vit: kvision.features(model, "stem"), "no tap 'stem'. Its taps: c1, c2, c3, c4, c5"),
        (lambda model, vit: kvision.attention_maps(None), "`model` must be a `keras.Model`; got None"),
        (lambda model, vit: kvision.depth_groups([model]), "`model` must be .*; got .<Functional"),
        (lambda model, vit: kvision.list_models(3), r"`pattern` must be a text such as '\*resnet\*'; got 3"),
        (lambda model, vit: kvision.list_models(None), "`pattern` must be a text .*; got None"),
        (lambda model, vit: kvision.list_weights(["*"]), r"`pattern` must be a text .*; got \['\*'\]"),
        (lambda model, vit: kvision.info("x"), "Unknown model 'x'"),
        (lambda model, vit: kvision.weights.save(model, None), "`path` must end with .*; got 'None'"),
        (lambda model, vit: kvision.weights.save(model, 3), "`path` must end with .safetensors; got '3'"),
        (lambda model, vit: kvision.weights.save(None, "a.safetensors"), "`model` must be a `keras.Model`"),
        (lambda model, vit: kvision.weights.load(None, {}), "`model` must be a `keras.Model`; got None"),
        (lambda model, vit: kvision.weights.state_dict(3), "`model` must be a `keras.Model`; got 3"),
        (lambda model, vit: kvision.weights.from_keras(model, None), "`keras_model` must be a `keras.Model`"),
        (lambda model, vit: kvision.weights.load(model, None), "Weights must be a mapping, .*; got .None"),
    ],
)  # fmt: skip
def test_arguments_of_the_wrong_kind_are_refused_in_a_sentence(call, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    model = mobilenet_v2(**SMALL)
    vit = kvision.models.vit_tiny_patch16(filters=16, depth=1, num_heads=2, input_shape=(64, 64, 3))
    with pytest.raises(UserError, match=message) as error:
        call(model, vit)
    assert len(str(error.value)) < 1500
    assert not list(tmp_path.iterdir())


def test_a_tap_may_be_given_as_a_word_and_a_path_as_bytes(tmp_path):
    model = mobilenet_v2(**SMALL)
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
    assert kvision.models.convnext_roadmap(np.int64(0), input_shape=(32, 32, 3)).output_shape == (None, 1000)
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


@pytest.fixture(params=["float16", "bfloat16", "float64"])
def floatx(request):
    before = keras.config.floatx()
    keras.config.set_floatx(request.param)
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_floatx(before)
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize(
    "name", ["mobilenet_v4_hybrid_medium", "deit_tiny_distilled", "swin_tiny", "alexnet"]
)
def test_any_floatx_gives_the_same_answers(name, floatx):
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 80, 80, 3)).astype("float32")
    columns = {"input_shape": (80, 80, 3), "classifier_activation": None}
    keras.utils.set_random_seed(1)  # with others, batch norms over tiny maps enlarge the rounding
    model = randomized(tiny(name, **columns))
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    expected = tiny(name, **columns)
    kvision.weights.load(expected, kvision.weights.state_dict(model))
    wide = "float64" if floatx == "float64" else "float32"
    assert model.weights[0].dtype == floatx
    assert model.get_layer("preprocess").compute_dtype == wide
    normalise = [keras.Model(m.input, m.get_layer("preprocess").output) for m in (model, expected)]
    np.testing.assert_allclose(*(m(pixels) for m in normalise), rtol=1e-6, atol=1e-6)
    answer = np.asarray(model(pixels))
    assert answer.dtype == wide
    error = np.linalg.norm(answer - expected(pixels)) / np.linalg.norm(expected(pixels))
    assert error < {"float16": 2e-2, "bfloat16": 2e-1, "float64": 1e-5}[floatx]


def test_copies_and_frozen_copies_give_the_same_answers():
    model = randomized(tiny("mobilenet_v4_hybrid_medium"))
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    for copy in (keras.models.clone_model(model), keras.Model.from_config(model.get_config())):
        copy.set_weights(model.get_weights())
        np.testing.assert_array_equal(copy(pixels), model(pixels))
    backbone = copy
    backbone.trainable = False
    classifier = keras.Sequential([backbone, keras.layers.Dense(2, "softmax")])
    classifier.compile("sgd", "sparse_categorical_crossentropy")
    classifier.fit(pixels, np.array([0, 1]), verbose=0)
    np.testing.assert_array_equal(backbone(pixels), model(pixels))  # the batch norms' statistics too
