"""Loading of weights, and the sentences that refuse them."""

from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors.numpy
from helpers import SHALLOW, built_without_memory, equal, mostly_slow, small_columns, tiny
from pytorch import write_pth

import kvision
from kvision.data import read_image
from kvision.errors import UserError
from kvision.weights._load import AUXILIARY_HEADS
from kvision.weights._parameters import parameters

LITE0 = Path(__file__).parents[3] / "shared/weights/efficientnet_lite0.safetensors"


def small(**columns):
    return kvision.models.mobilenet_v3_small(**SHALLOW | columns)


@pytest.fixture(scope="module")
def source():
    return small(num_classes=5)


@pytest.fixture(scope="module")
def files(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    source.save(folder / "a.keras")
    source.save_weights(folder / "a.weights.h5")
    safetensors.numpy.save_file(
        {k: np.ascontiguousarray(v) for k, v in kvision.weights.state_dict(source).items()},
        folder / "a.safetensors",
    )
    write_pth(folder / "a.pth", kvision.weights.state_dict(source))
    return folder


@pytest.mark.parametrize("name", ["a.keras", "a.weights.h5", "a.safetensors"])
def test_files_round_trip(files, source, name):
    assert equal(small(weights=files / name, num_classes=5), source)


def test_pytorch_buffers_are_ignored(source):
    tensors = kvision.weights.state_dict(source) | {"bn1.num_batches_tracked": np.array(0)}
    assert equal(small(weights=tensors, num_classes=5), source)


@pytest.mark.parametrize("name", ["a.keras", "a.weights.h5", "a.safetensors"])
def test_other_columns_are_refused_and_nothing_changes(files, name):
    model = small(num_classes=5, width_multiplier=0.5)
    before = model.get_weights()
    with pytest.raises(ValueError, match="mobilenet_v3_small") as error:
        kvision.weights.load(model, files / name)
    assert "\n" not in str(error.value)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize("name", ["mobilenet_v1", "resnet18"])
def test_another_network_is_refused(files, name):
    model = tiny(name, num_classes=5)
    for file in ("a.keras", "a.weights.h5", "a.safetensors"):
        with pytest.raises(ValueError, match=name):
            kvision.weights.load(model, files / file)


def test_another_number_of_classes_leaves_the_classifier_fresh(source, caplog):
    tensors = kvision.weights.state_dict(source)
    model = small(weights=tensors, num_classes=9)
    assert [record.message for record in caplog.records] == [
        "mobilenet_v3_small: of the mapping, the classifier 'classifier' keeps its fresh weights."
    ]
    loaded = kvision.weights.state_dict(model)
    assert all(np.array_equal(tensors[k], v) for k, v in loaded.items() if not k.startswith("classifier"))
    assert loaded["classifier.weight"].std() > 0


def test_the_top_may_be_left_out(source, caplog):
    tensors = kvision.weights.state_dict(source)
    headless = {k: v for k, v in tensors.items() if not k.startswith("classifier")}
    backbones = [small(include_top=False, pooling="avg", weights=t) for t in (tensors, headless)]
    assert not caplog.records
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    vectors = keras.Model(source.input, source.get_layer("pool").output)(pixels)[:, 0, 0]
    for backbone in backbones:
        np.testing.assert_array_equal(backbone(pixels), vectors)


def test_a_smaller_image_without_the_top_takes_the_trunk():
    """VGG's top is as large as the map, so it fits one image size alone."""
    columns = {"filters": (8,) * 5, "hidden_filters": 16}
    tensors = kvision.weights.state_dict(kvision.models.vgg11(**columns))
    model = kvision.models.vgg11(include_top=False, weights=tensors, input_shape=(64, 64, 3), **columns)
    loaded = kvision.weights.state_dict(model)
    assert loaded
    assert all(np.array_equal(tensors[k], v) for k, v in loaded.items())


@pytest.mark.parametrize("name", mostly_slow(["mobilenet_v1", "resnet18", "vit_tiny_patch16"], "resnet18"))
def test_a_grey_image_gives_what_its_rgb_copy_gave(name):
    columns = small_columns(name) | {"input_shape": (64, 64, 3), "classifier_activation": None}
    rgb = kvision.create_model(name, **columns)
    grey = kvision.create_model(name, **columns | {"input_shape": (64, 64, 1)})
    kvision.weights.load(grey, kvision.weights.state_dict(rgb))
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 1)).astype("float32")
    np.testing.assert_allclose(grey(pixels), rgb(np.repeat(pixels, 3, -1)), rtol=1e-5, atol=1e-6)


def test_a_network_of_grey_images_takes_the_sum_of_three_kernels(caplog):
    """LeNet-5, whose table has one channel."""
    rgb = kvision.models.lenet5(input_shape=(32, 32, 3), classifier_activation=None)
    grey = kvision.models.lenet5(weights=kvision.weights.state_dict(rgb), classifier_activation=None)
    assert "kernels of 3 channels were summed" in caplog.text
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 1)).astype("float32")
    np.testing.assert_allclose(grey(pixels), rgb(np.repeat(pixels, 3, -1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [2, 4, 6])
def test_more_channels_repeat_the_kernels(channels, source, caplog):
    tensors = kvision.weights.state_dict(source)
    model = small(weights=tensors, num_classes=5, input_shape=(32, 32, channels))
    how = f"repeated for {channels}" if channels > 3 else f"cut to the first {channels}"
    assert f"kernels of 3 channels were {how}" in caplog.text
    kernel = kvision.weights.state_dict(model)["conv_stem.weight"]
    for channel in range(channels):
        expected = tensors["conv_stem.weight"][:, channel % 3] * 3 / channels
        np.testing.assert_allclose(kernel[:, channel], expected, rtol=1e-6)
    if channels == 6:
        pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
        np.testing.assert_allclose(model(np.tile(pixels, 2)), source(pixels), rtol=1e-4, atol=1e-6)


def test_resampled_positions_are_logged(caplog):
    columns = small_columns("vit_tiny_patch16") | {"num_classes": 3}
    tensors = kvision.weights.state_dict(kvision.models.vit_tiny_patch16(input_shape=(64, 64, 3), **columns))
    kvision.models.vit_tiny_patch16(weights=tensors, input_shape=(96, 64, 3), **columns)
    assert "the positions were resampled for 6 x 4 tokens" in caplog.text
    columns = small_columns("swin_tiny") | {"num_classes": 3}
    tensors = kvision.weights.state_dict(kvision.models.swin_tiny(input_shape=(64, 64, 3), **columns))
    columns |= {"window_size": columns.get("window_size", 7) - 1}
    kvision.models.swin_tiny(weights=tensors, input_shape=(64, 64, 3), **columns)
    assert f"for {columns['window_size']} x {columns['window_size']} tokens" in caplog.text


def test_dense_layers_behind_a_map_are_convolutions_over_it():
    """PyTorch flattens channel by channel: torchvision's AlexNet has (4096, 9216) there."""
    columns = {"hidden_filters": 8, "num_classes": 5}
    model = kvision.models.alexnet_owt(**columns)
    tensors = kvision.weights.state_dict(model)
    assert tensors["classifier.1.weight"].shape == (8, 256, 6, 6)
    tensors["classifier.1.weight"] = tensors["classifier.1.weight"].reshape(8, 256 * 6 * 6)
    assert equal(kvision.models.alexnet_owt(weights=tensors, **columns), model)
    tensors["classifier.1.weight"] = tensors["classifier.1.weight"][:, :-1]
    with pytest.raises(ValueError, match="1 misshapen"):
        kvision.weights.load(model, tensors)


def test_the_sentence_names_what_differs(source):
    tensors = kvision.weights.state_dict(source)
    tensors["conv_stem.weight"] = np.zeros((9, 3, 3, 3), "float32")
    tensors["extra.weight"] = tensors.pop("bn1.weight")
    with pytest.raises(ValueError, match="1 missing.*1 unexpected.*1 misshapen") as error:
        kvision.weights.load(source, tensors)
    for part in ("bn1.weight", "extra.weight", "conv_stem.weight is (9, 3, 3, 3) instead of (16, 3, 3, 3)"):
        assert part in str(error.value)


@pytest.mark.parametrize("name", ["a.keras", "a.weights.h5", "a.safetensors"])
def test_truncated_files_are_refused(files, source, name, tmp_path):
    path = tmp_path / name
    path.write_bytes((files / name).read_bytes()[:1000])
    before = source.get_weights()
    with pytest.raises(ValueError, match="failed to read") as error:
        kvision.weights.load(source, path)
    assert "\n" not in str(error.value)
    assert all(np.array_equal(a, b) for a, b in zip(before, source.get_weights(), strict=True))


def test_saving_replaces_a_file_or_leaves_it(source, tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_text("earlier")
    with pytest.raises(ValueError, match="must end with .safetensors"):
        kvision.weights.save(source, tmp_path / "net.pth")
    with pytest.raises(OSError, match="`path`: there is no folder '.*nowhere'.$"):
        kvision.weights.save(source, tmp_path / "nowhere" / "net.safetensors")
    kvision.weights.save(source, path)
    assert [file.name for file in tmp_path.iterdir()] == ["net.safetensors"]
    assert equal(small(weights=path, num_classes=5), source)


def test_missing_files_and_other_kinds(source, tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        kvision.weights.load(source, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=".safetensors, .weights.h5, .keras"):
        kvision.weights.load(source, tmp_path / "b.onnx")


def test_no_code_of_a_file_is_run(source, tmp_path):
    keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x)]).save(tmp_path / "a.keras")
    with pytest.raises(ValueError, match="failed to read"):
        kvision.weights.load(source, tmp_path / "a.keras")


@pytest.mark.skipif(not LITE0.exists(), reason="the real weights (18 MB) are not here")
def test_real_weights_know_photographs(tmp_path):
    data = pytest.importorskip("skimage.data")
    from PIL import Image

    model = kvision.models.efficientnet_lite0(weights=LITE0)
    classes = {}
    for name in ("coffee", "chelsea"):
        Image.fromarray(getattr(data, name)()).save(tmp_path / f"{name}.png")
        probabilities = model.predict(read_image(tmp_path / f"{name}.png", (224, 224))[None], verbose=0)[0]
        classes[name] = probabilities.argsort()[::-1]
        if name == "coffee":
            assert probabilities[967] > 0.9
    assert kvision.labels.imagenet()[classes["coffee"][0]] == "espresso"
    assert set(classes["chelsea"][:3]) == {281, 282, 285}


def test_side_classifiers_of_a_checkpoint_are_left_out():
    models = [built_without_memory("googlenet_bn", auxiliary=auxiliary) for auxiliary in (True, False)]
    names, plain = (parameters(model).keys() for model in models)
    assert all(name.startswith(AUXILIARY_HEADS) for name in names - plain)
    assert "aux1.fc2.weight" in names - plain


@pytest.mark.parametrize("name", ["a.keras", "a.weights.h5", "a.safetensors", "a.pth"])
def test_the_number_of_classes_is_that_of_the_file(files, source, name):
    """Without `num_classes`, as `kvision-predict --weights=FILE` builds it."""
    classifier = kvision.info("mobilenet_v3_small").classifier
    assert kvision.weights.num_classes(files / name, classifier) == 5
    assert kvision.weights.num_classes(files / name, "head") is None
    assert equal(small(weights=files / name), source)


def test_a_fresh_classifier_is_one_that_was_asked_for(source):
    tensors = kvision.weights.state_dict(source)
    headless = {name: value for name, value in tensors.items() if not name.startswith("classifier")}
    with pytest.raises(UserError, match="no weights for the classifier 'classifier'.*`num_classes`"):
        small(weights=headless)
    with pytest.raises(UserError, match="no weights for the classifier 'classifier'"):
        small(weights=tensors | {"classifier.bias": np.zeros(4)})
    assert small(weights=headless, num_classes=7).output_shape == (None, 7)
    small(weights=headless, include_top=False)


def test_a_part_of_a_classifier_is_damage(source):
    for part in ("classifier.bias", "classifier.weight"):
        tensors = kvision.weights.state_dict(source)
        del tensors[part]
        with pytest.raises(UserError, match=f"does not fit mobilenet_v3_small .*: 1 missing .{part}"):
            kvision.weights.load(source, tensors)
        with pytest.raises(UserError, match="1 missing"):
            small(weights=tensors, num_classes=5)
        small(weights=tensors, num_classes=5, include_top=False)


def test_both_networks_of_a_distilled_network_come_from_the_file():
    columns = small_columns("deit_tiny_distilled") | {"input_shape": (32, 32, 3)}
    tensors = kvision.weights.state_dict(kvision.models.deit_tiny_distilled(num_classes=4, **columns))
    assert kvision.models.deit_tiny_distilled(weights=tensors, **columns).output_shape == (None, 4)
    single = {name: value for name, value in tensors.items() if not name.startswith("head_dist")}
    with pytest.raises(UserError, match="no weights for the classifier 'head_dist'"):
        kvision.models.deit_tiny_distilled(weights=single, **columns)


def test_negative_variances_and_networks_in_networks_are_refused(tmp_path):
    model = tiny("mobilenet_v1")
    tensors = kvision.weights.state_dict(model)
    name = next(name for name in tensors if name.endswith("running_var"))
    with pytest.raises(ValueError, match=f"negative variance in {name}"):
        kvision.weights.load(model, tensors | {name: -tensors[name]})
    inputs = keras.Input(model.input_shape[1:])
    outer = keras.Model(inputs, model(inputs))
    with pytest.raises(ValueError, match="holds the network 'mobilenet_v1'"):
        kvision.weights.save(outer, tmp_path / "x.safetensors")


@pytest.mark.parametrize("shape", [(10, 85), (840,), (0, 84)])
def test_a_classifier_of_another_form_is_no_fresh_one(shape):
    model = kvision.models.lenet5(num_classes=10)
    tensors = kvision.weights.state_dict(model) | {"classifier.weight": np.zeros(shape, "float32")}
    with pytest.raises(ValueError, match="1 misshapen .classifier.weight is"):
        kvision.weights.load(model, tensors)
