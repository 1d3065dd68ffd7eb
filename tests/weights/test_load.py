"""Loading of weights, and the sentences that refuse them."""

from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors.numpy

import kvision
from kvision.data import read_image

SMALL = {"width_multiplier": 0.1, "input_shape": (32, 32, 3), "num_classes": 5}
LITE0 = Path(__file__).parents[3] / "shared/weights/efficientnet_lite0.safetensors"


@pytest.fixture(scope="module")
def source():
    return kvision.models.mobilenet_v2(**SMALL)


@pytest.fixture
def files(source, tmp_path):
    source.save(tmp_path / "a.keras")
    source.save_weights(tmp_path / "a.weights.h5")
    safetensors.numpy.save_file(
        {k: np.ascontiguousarray(v) for k, v in kvision.weights.state_dict(source).items()},
        tmp_path / "a.safetensors",
    )
    return tmp_path


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a.get_weights(), b.get_weights(), strict=True))


@pytest.mark.parametrize("name", ["a.keras", "a.weights.h5", "a.safetensors"])
def test_files_round_trip(files, source, name):
    model = kvision.models.mobilenet_v2(weights=files / name, **SMALL)
    assert equal(model, source)


def test_pytorch_buffers_are_ignored(source):
    tensors = kvision.weights.state_dict(source) | {"bn1.num_batches_tracked": np.array(0)}
    assert equal(kvision.models.mobilenet_v2(weights=tensors, **SMALL), source)


@pytest.mark.parametrize("name", ["a.keras", "a.weights.h5", "a.safetensors"])
@pytest.mark.parametrize("columns", [{"width_multiplier": 0.5}, {"num_classes": 6}])
def test_other_columns_are_refused_and_nothing_changes(files, name, columns):
    model = kvision.models.mobilenet_v2(**SMALL | columns)
    before = model.get_weights()
    with pytest.raises(ValueError, match="mobilenet_v2") as error:
        kvision.weights.load(model, files / name)
    assert "\n" not in str(error.value)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize("name", ["a.keras", "a.weights.h5", "a.safetensors"])
def test_another_network_is_refused(files, name):
    for builder in (kvision.models.mobilenet_v1, kvision.models.efficientnet_b0):
        with pytest.raises(ValueError, match=builder.__name__):
            builder(weights=files / name, input_shape=(32, 32, 3), num_classes=5)


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
    tensors["classifier.weight"] = np.zeros((10, 1280), "float32")
    tensors["extra.weight"] = tensors.pop("bn1.weight")
    with pytest.raises(ValueError, match="1 missing.*1 left over.*1 misshapen") as error:
        kvision.weights.load(source, tensors)
    for part in ("bn1.weight", "extra.weight", "classifier.weight is (10, 1280) instead of (5, 1280)"):
        assert part in str(error.value)


@pytest.mark.parametrize("name", ["a.keras", "a.weights.h5", "a.safetensors"])
def test_truncated_files_are_refused(files, source, name):
    path = files / name
    path.write_bytes(path.read_bytes()[:1000])
    before = source.get_weights()
    with pytest.raises(ValueError, match="cannot be read") as error:
        kvision.weights.load(source, path)
    assert "\n" not in str(error.value)
    assert all(np.array_equal(a, b) for a, b in zip(before, source.get_weights(), strict=True))


def test_missing_files_and_other_kinds(source, tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        kvision.weights.load(source, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=".safetensors, .weights.h5, .keras"):
        kvision.weights.load(source, tmp_path / "b.pth")


def test_no_code_of_a_file_is_run(source, tmp_path):
    keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x)]).save(tmp_path / "a.keras")
    with pytest.raises(ValueError, match="cannot be read"):
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
