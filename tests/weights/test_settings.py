"""Settings that files of weights hold: what they must agree in, and what may differ."""

import zipfile

import keras
import numpy as np
import pytest
import safetensors.numpy
from helpers import SHALLOW, equal, mostly_slow, tiny

import kvision
from kvision.errors import UserError
from kvision.spec import PLUS_MINUS_ONE

ENDINGS = (".keras", ".safetensors")  # of files that hold settings


def shallow(**columns):
    return kvision.models.mobilenet_v3_small(**SHALLOW | {"num_classes": 5} | columns)


@pytest.fixture(scope="module")
def source():
    return shallow()


def saved(model, path):
    (model.save if path.suffix == ".keras" else lambda path: kvision.weights.save(model, path))(path)
    return path


def small(name, **columns):
    if name == "mobilenet_v3_small":
        return shallow(**columns)
    if name.startswith("roadmap."):
        columns |= {"filters": 8, "depths": (1, 1, 1, 1), "input_shape": (32, 32, 3), "num_classes": 3}
        return kvision.models.convnext_roadmap(name.removeprefix("roadmap."), **columns)
    return tiny(name, **columns)


@pytest.mark.parametrize(
    ("name", "trained", "sentence"),
    [
        ("mobilenet_v3_small", {"norm_epsilon": 1e-5}, "'bn1' has epsilon=1e-05 .* 0.001.*`norm_epsilon`"),
        pytest.param(
            "mobilenet_v3_small",
            {"padding": "symmetric"},
            "'conv_stem' has padding='valid' .*`padding`",
            marks=pytest.mark.slow,
        ),
        pytest.param("xception", {"padding": "symmetric"}, "pool_size=.*`padding`", marks=pytest.mark.slow),
        ("vit_tiny_patch16", {"num_heads": 4}, "'blocks.0.attn' has num_heads=4 instead of 2.*`num_heads`"),
        pytest.param(
            "lenet5",
            {"activation": "relu"},
            "'c1.conv.act' has activation='relu' instead of 'tanh'",
            marks=pytest.mark.slow,
        ),
        ("lenet5", {"subsampling": "max"}, "'s2' has .*Max.* instead of .*Average.*`subsampling`"),
        pytest.param(
            "roadmap.gelu",
            "roadmap.fewer_activations",
            "it has the layer 'stem.act' .Activation",
            marks=pytest.mark.slow,
        ),
        ("roadmap.fewer_activations", "roadmap.gelu", "it lacks the layer 'stem.act' .Activation"),
    ],
)
def test_files_of_networks_with_other_settings_are_refused(name, trained, sentence, tmp_path):
    """Weights fit by their shapes, and would give other answers."""
    columns = trained if isinstance(trained, dict) else {}
    source, again = small(name, **columns), small(name, **columns)
    model = small(name if columns else trained)
    for ending in ENDINGS:
        path = saved(source, tmp_path / f"a{ending}")
        with pytest.raises(UserError, match=sentence) as error:
            kvision.weights.load(model, path)
        assert "\n" not in str(error.value)
        again.set_weights([np.zeros_like(weight) for weight in again.get_weights()])
        kvision.weights.load(again, path)
        assert equal(again, source)


@pytest.mark.parametrize("ending", mostly_slow(ENDINGS, ".keras"))
def test_the_normalisation_is_that_of_the_file(ending, tmp_path):
    other = kvision.Preprocess((10.0, 20.0, 30.0), (58.395, 57.12, 57.375))
    path = saved(shallow(preprocess=other), tmp_path / f"a{ending}")
    layer = shallow(weights=path).get_layer("preprocess")
    np.testing.assert_allclose(layer.offset, other.offset, rtol=1e-6)
    own = shallow(weights=path, preprocess=PLUS_MINUS_ONE)
    assert own.get_layer("preprocess").scale == 1 / 127.5
    grey = shallow(weights=path, input_shape=(32, 32, 1))
    np.testing.assert_allclose(grey.get_layer("preprocess").offset, other.offset, rtol=1e-6)
    more = shallow(input_shape=(32, 32, 4))
    with pytest.raises(
        UserError, match=r"'preprocess' is .*10.* `preprocess=kvision.Preprocess\(mean=\(10.0,"
    ):
        kvision.weights.load(more, path)
    kvision.weights.load(more, path, any_preprocess=True)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "name",
    mostly_slow(
        ["mobilenet_v2", "vit_tiny_patch16", "swin_tiny", "googlenet_bn", "xception"], "vit_tiny_patch16"
    ),
)
def test_settings_of_training_size_and_classifier_may_differ(name, ending, tmp_path):
    columns = {"dropout_rate": 0.4, "drop_path_rate": 0.3, "norm_momentum": 0.5, "window_size": 4}
    known = kvision.info(name).variant.columns()
    source = tiny(
        name,
        classifier_activation=None,
        **{column: value for column, value in columns.items() if column in known},
        **({"auxiliary": True} if name == "googlenet_bn" else {}),
    )
    pixels = keras.Input(source.input_shape[1:])
    x = keras.layers.ZeroPadding2D(0)(keras.layers.Activation("linear")(pixels))
    source = source if ending == ".safetensors" else keras.Model(pixels, source(x))
    path = saved(source, tmp_path / f"a{ending}")
    tiny(name, weights=path)
    tiny(name, weights=path, num_classes=7, input_shape=(96, 96, 4))
    tiny(name, weights=path, include_top=False, pooling="max")


@pytest.mark.parametrize("config", ["{", "[]", '{"config": {"layers": [3]}}', '{"config": {"layers": 3}}'])
def test_damaged_settings_of_a_keras_file_are_refused(config, source, tmp_path):
    saved(source, tmp_path / "a.keras")
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "b.keras", "w") as archive:
        for name, content in (entries | {"config.json": config.encode()}).items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match="failed to read"):
        kvision.weights.load(source, tmp_path / "b.keras")


@pytest.mark.parametrize("config", ["{", "[3]", '{"bn1": 3}', '{"preprocess": {"scale": "a", "offset": 0}}'])
def test_damaged_settings_of_a_safetensors_file_are_refused(config, source, tmp_path):
    tensors = {k: np.ascontiguousarray(v) for k, v in kvision.weights.state_dict(source).items()}
    safetensors.numpy.save_file(tensors, tmp_path / "a.safetensors", {"kvision": config})
    with pytest.raises(UserError, match="failed to read"):
        kvision.weights.load(source, tmp_path / "a.safetensors")
