"""Loading of a checkpoint from the hub into a network, and its failures."""

import inspect
import json
import logging
import time
from pathlib import Path

import huggingface_hub
import keras
import numpy as np
import pytest
import safetensors.numpy
from golden import formula_image, formula_weights
from helpers import SHALLOW, mostly_slow
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import _http
from peers import ours

import kvision
from kvision import opening
from kvision.data.images import fit
from kvision.errors import UserError
from kvision.spec import IMAGENET

REFERENCE = Path(__file__).parents[1] / "reference"
ENTRIES = json.loads((REFERENCE / "golden.json").read_text())
LOGITS = np.load(REFERENCE / "golden.npz")
STATE_DICTS = json.loads((REFERENCE / "state_dicts.json").read_text())
LITE0 = Path(__file__).parents[3] / "shared/weights/efficientnet_lite0.safetensors"


def tiny_tensors():
    model = kvision.models.mobilenet_v3_small(**SHALLOW, num_classes=7)
    return kvision.weights.state_dict(model)


def test_a_repository_brings_its_preprocessing_and_classes(hub):
    tensors = tiny_tensors()
    hub.publish("me/net", tensors, num_classes=7, mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])
    model = kvision.models.mobilenet_v3_small(weights="hf-hub:me/net", **SHALLOW)
    assert model.output_shape == (None, 7)
    layer = model.get_layer("preprocess")
    np.testing.assert_allclose(layer.scale, 1 / (255 * np.array([0.4, 0.5, 0.6])), rtol=1e-6)
    np.testing.assert_allclose(layer.offset, -np.array([0.1, 0.2, 0.3]) / [0.4, 0.5, 0.6], rtol=1e-6)
    assert all(np.array_equal(tensors[k], v) for k, v in kvision.weights.state_dict(model).items())


def test_a_repository_is_opened_with_its_classifier_alone(hub):
    tensors = kvision.weights.state_dict(kvision.models.lenet5(num_classes=3))
    hub.publish("me/net", tensors, num_classes=3, mean=[0.5], std=[0.5])
    opened = opening.open_model("lenet5", "hf-hub:me/net")
    assert (opened.model.output_shape, opened.class_names) == ((None, 3), ("0", "1", "2"))
    headless = {name: value for name, value in tensors.items() if "classifier" not in name}
    hub.publish("me/trunk", headless, num_classes=3, mean=[0.5], std=[0.5])
    with pytest.raises(UserError, match="hf-hub:me/trunk.*classifier"):
        opening.open_model("lenet5", "hf-hub:me/trunk")


def test_a_file_of_the_right_size_with_wrong_content_is_never_trusted(hub, tmp_path):
    hub.publish("me/net", tiny_tensors(), num_classes=7)
    hub.spoiled = 1
    kvision.models.mobilenet_v3_small(weights="hf-hub:me/net", **SHALLOW)  # asked for a second time
    files = [path for method, path in hub.requests if method == "GET" and path.endswith("safetensors")]
    assert len(files) == 2
    (blob,) = (path for path in (tmp_path / "cache").rglob("blobs/*") if path.stat().st_size > 10_000)
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")  # later, on this machine
    kvision.models.mobilenet_v3_small(weights="hf-hub:me/net", **SHALLOW)
    hub.spoiled = 9
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    with pytest.raises(OSError, match="hf-hub:me/net was damaged on its way twice"):
        kvision.models.mobilenet_v3_small(weights="hf-hub:me/net", **SHALLOW)


def test_a_download_that_breaks_off_leaves_nothing_that_is_trusted(hub):
    tensors = tiny_tensors()
    hub.publish("me/net", tensors, num_classes=7)
    hub.cut = 99
    with pytest.raises(OSError, match=r"me/net: model.safetensors cannot be downloaded"):
        kvision.models.mobilenet_v3_small(weights="hf-hub:me/net", **SHALLOW)
    hub.cut = 0
    model = kvision.models.mobilenet_v3_small(weights="hf-hub:me/net", **SHALLOW)
    assert all(np.array_equal(tensors[k], v) for k, v in kvision.weights.state_dict(model).items())


def test_the_cache_is_enough_offline_and_nothing_else_is_there(hub, monkeypatch):
    hub.publish("me/net", tiny_tensors(), num_classes=7)
    kvision.models.mobilenet_v3_small(weights="hf-hub:me/net", **SHALLOW)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    kvision.models.mobilenet_v3_small(weights="hf-hub:me/net", **SHALLOW)
    with pytest.raises(OSError, match="hf-hub:me/other: config.json cannot be downloaded"):
        kvision.models.mobilenet_v3_small(weights="hf-hub:me/other", **SHALLOW)
    with pytest.raises(OSError, match=r"resnet18.a1_in1k: model.safetensors cannot be downloaded"):
        kvision.models.resnet18(weights="imagenet")


def test_a_repository_of_another_kind(hub):
    hub.files["/me/net/resolve/main/config.json"] = b'{"model_type": "bert"}'
    with pytest.raises(ValueError, match="config.json does not fit"):
        kvision.models.mobilenet_v3_small(weights="hf-hub:me/net", **SHALLOW)
    hub.publish("me/bert", {"embeddings.weight": np.zeros((2, 2), "float32")}, num_classes=7)
    with pytest.raises(ValueError, match=r"missing.*1 unexpected .embeddings.weight"):
        kvision.models.mobilenet_v3_small(weights="hf-hub:me/bert", **SHALLOW)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (b"[1]", r"an object was expected; got \[1\]"),
        (b'{"architecture": "any", "pretrained_cfg": {}}', "it lacks 'input_size'"),
        (b'{"architecture": "any", "pretrained_cfg": {"input_size": 3}}', "does not fit"),
    ],
)
def test_a_config_of_another_form(config, words, hub):
    hub.files["/me/net/resolve/main/config.json"] = config
    with pytest.raises(UserError, match=words) as error:
        kvision.models.mobilenet_v3_small(weights="hf-hub:me/net", **SHALLOW)
    assert "Error(" not in str(error.value)


def test_a_closed_port_is_one_sentence(monkeypatch, capfd, hub):
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(OSError, match="model.safetensors cannot be downloaded: the hub cannot be reached"):
        kvision.models.resnet18(weights="a1_in1k")
    assert "Retrying" not in capfd.readouterr().err


def test_attempts_to_reach_the_hub_are_one_line(monkeypatch, caplog, capfd):
    """As its client logs them, which tries again for this or that error by its version."""
    assert 'warning(f"Retrying in {' in inspect.getsource(_http)

    def unreachable(repository, name):
        for attempt in (1, 2):
            logging.getLogger(_http.__name__).warning(f"Retrying in 1s [Retry {attempt}/5].")
        raise LocalEntryNotFoundError("An error happened while trying to locate the file on the Hub.")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    log = logging.getLogger("huggingface_hub")
    before = log.handlers, log.propagate
    with pytest.raises(OSError, match="the hub cannot be reached"):
        kvision.models.resnet18(weights="a1_in1k")
    assert [record.getMessage() for record in caplog.records] == [
        "The hub cannot be reached; trying again for about half a minute."
    ]
    assert "Retrying" not in capfd.readouterr().err
    assert (log.handlers, log.propagate) == before


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch):
    asked = []

    def unreachable(repository, name):
        asked.append(name)
        raise LocalEntryNotFoundError("An error happened while trying to locate the file on the Hub and ...")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    for weights, name in (("hf-hub:me/net", "config.json"), ("a1_in1k", "model.safetensors")):
        with pytest.raises(OSError, match=rf"{name} cannot be downloaded: the hub cannot be reached, and it"):
            kvision.models.resnet18(weights=weights)
    assert asked == ["config.json", "model.safetensors"]
    for weights in ("hf-hub:a", "hf-hub:", "hf-hub:a/b/c"):
        with pytest.raises(UserError, match="hf-hub:OWNER/REPOSITORY was expected; got 'hf-hub:"):
            kvision.models.resnet18(weights=weights)


@pytest.mark.parametrize(
    "peer",
    mostly_slow(sorted(STATE_DICTS), "convnextv2_atto"),
)
def test_a_state_dict_of_timm_goes_through_the_hub_and_back(peer, hub, tmp_path):
    """All of its tensors, with PyTorch's buffers, and the logits that timm has with them."""
    entry, shapes = ENTRIES[peer], STATE_DICTS[peer]
    floats = {name: shape for name, shape in shapes.items() if not name.endswith("num_batches_tracked")}
    tensors = formula_weights(floats, entry["gain"])
    tensors |= {name: np.zeros(shape, np.int64) for name, shape in shapes.items() if name not in tensors}
    hub.publish("timm/net", tensors, mean=entry["mean"], std=entry["std"], input_size=entry["input"][::-1])
    name, columns = ours(peer)
    model = kvision.create_model(
        name, weights="hf-hub:timm/net", input_shape=entry["input"], classifier_activation=None, **columns
    )
    pixels = formula_image(*entry["input"][:2]).astype("float32")[None]
    logits = keras.ops.convert_to_numpy(model(pixels, training=False))[0]
    assert np.linalg.norm(logits - LOGITS[peer]) / np.linalg.norm(LOGITS[peer]) < 2e-5
    kvision.weights.save(model, tmp_path / "net.safetensors")
    saved = safetensors.numpy.load_file(tmp_path / "net.safetensors")
    assert saved.keys() == tensors.keys()
    for key, value in tensors.items():
        assert saved[key].dtype == value.dtype
        np.testing.assert_array_equal(saved[key], value)


@pytest.fixture(scope="module")
def of_resnet18():
    return kvision.weights.state_dict(kvision.models.resnet18())


def test_a_row_is_a_source_too(hub, of_resnet18):
    hub.publish("timm/resnet18.a2_in1k", of_resnet18)
    (row,) = kvision.list_weights("resnet18.a2_in1k")
    model = kvision.models.resnet18(weights=row)
    assert all(np.array_equal(of_resnet18[k], v) for k, v in kvision.weights.state_dict(model).items())


def test_rows_of_the_table_are_downloaded_from_where_they_live(hub, of_resnet18):
    hub.publish("timm/resnet18.tv_in1k", of_resnet18)
    model = kvision.models.resnet18(weights="tv_in1k")
    np.testing.assert_allclose(model.get_layer("preprocess").scale, IMAGENET.scale)
    assert (("GET", "/timm/resnet18.tv_in1k/resolve/main/config.json")) not in hub.requests
    assert all(np.array_equal(of_resnet18[k], v) for k, v in kvision.weights.state_dict(model).items())


@pytest.mark.slow
@pytest.mark.skipif(not LITE0.exists(), reason="the real weights (18 MB) are not here")
def test_real_weights_through_the_hub(hub):
    hub.publish("timm/tf_efficientnet_lite0.in1k", safetensors.numpy.load_file(LITE0))
    model = kvision.models.efficientnet_lite0(weights="imagenet")
    coffee = pytest.importorskip("skimage.data").coffee()
    probabilities = model.predict(fit(coffee, (224, 224), crop=0.875)[None], verbose=0)[0]
    assert kvision.labels.imagenet()[probabilities.argmax()] == "espresso"
    assert probabilities.max() > 0.9


def test_a_repository_of_an_architecture_with_other_columns_is_refused(hub):
    hub.publish("me/b0", tiny_tensors())
    config = hub.files["/me/b0/resolve/main/config.json"].replace(b'"any"', b'"efficientnet_b0"')
    hub.files["/me/b0/resolve/main/config.json"] = config
    with pytest.raises(ValueError, match="needs the keywords norm_epsilon=1e-05, padding='symmetric'"):
        kvision.models.efficientnet_b0(weights="hf-hub:me/b0")
    with pytest.raises(ValueError, match="it is a efficientnet_b0, not a resnet18"):
        kvision.models.resnet18(weights="hf-hub:me/b0")
