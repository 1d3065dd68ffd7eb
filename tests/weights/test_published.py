"""The table of published checkpoints, and how one gets from the hub into a network."""

import hashlib
import http.server
import importlib
import json
import os
import pickle
import threading
import zipfile
from collections import Counter
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors.numpy
from golden import formula_image, formula_weights
from huggingface_hub import constants
from keras.src.applications import mobilenet_v2
from peers import ours

import kvision
from kvision.data.images import fit
from kvision.spec import IMAGENET, PLUS_MINUS_ONE
from kvision.weights import _fetch
from kvision.weights._load import SIDES
from kvision.weights._parameters import parameters

REFERENCE = Path(__file__).parents[1] / "reference"
ENTRIES = json.loads((REFERENCE / "golden.json").read_text())
LOGITS = np.load(REFERENCE / "golden.npz")
STATE_DICTS = json.loads((REFERENCE / "state_dicts.json").read_text())
SHARED = Path(__file__).parents[3] / "shared"
LITE0 = SHARED / "weights/efficientnet_lite0.safetensors"
ZOO = SHARED / "reference/zoo.json"
TINY = {"width_multiplier": 0.1, "input_shape": (32, 32, 3)}


def test_rows():
    rows = kvision.list_weights()
    assert len(rows) >= 150
    names = Counter((row.model, row.tag, repr(row.columns)) for row in rows)
    assert max(names.values()) == 1
    assert {row.model for row in rows} <= set(kvision.list_models())
    for row in rows:
        assert row in kvision.info(row.model).weights
        columns = kvision.info(row.model).variant.columns()
        assert set(row.columns) <= set(columns)
        assert 0 < row.crop <= row.test_crop <= 1
    defaults = Counter((row.model, repr(row.columns)) for row in rows if row.default)
    assert max(defaults.values()) == 1
    assert {row.tag for row in kvision.list_weights("resnet50.*")} >= {"a1_in1k", "tv_in1k"}
    (row,) = kvision.list_weights("resnet50.a1_in1k")
    assert (row.source, row.license, row.preprocess, row.num_classes, row.input_size, row.test_size) == (
        "hf-hub:timm/resnet50.a1_in1k", "apache-2.0", IMAGENET, 1000, 224, 288,
    )  # fmt: skip
    assert row.default


@pytest.mark.skipif(not ZOO.exists(), reason="the peers' published checkpoints are not here")
def test_the_table_is_what_the_peers_publish(monkeypatch):
    monkeypatch.syspath_prepend(REFERENCE)
    make_weight_rows = importlib.import_module("make_weight_rows")
    assert make_weight_rows.table(ZOO) == make_weight_rows.ROWS.read_text()


@pytest.mark.parametrize(
    ("name", "keywords", "words"),
    [
        ("resnet50", {"weights": "a1_in2k"}, "Did you mean 'a1_in1k'"),
        ("convnext_v2_atto", {"weights": "imagenet"}, "permissive licence.*'fcmae_ft_in1k' .cc-by-nc-4.0"),
        ("vit_huge_patch14", {"weights": "imagenet"}, "'orig_in21k' .apache-2.0, 0 classes"),
        ("vit_huge_patch14", {"weights": "orig_in21k"}, "no classifier.*include_top=False"),
        ("lenet5", {"weights": "imagenet"}, "none at all"),
        ("mobilenet_v2", {"weights": "ra_in1k"}, "need norm_epsilon=1e-05, padding='symmetric' or "),
        ("mobilenet_v2", {"weights": "imagenet", "width_multiplier": 0.4}, "width_multiplier=0.35"),
        ("efficientnet_b0", {"weights": "imagenet", "norm_epsilon": 1e-5}, "need norm_epsilon=0.001"),
        ("swin_base", {"weights": "ms_in1k_384"}, "window_size=12"),
        ("resnet18", {"weights": "keras:ResNet50"}, "no published checkpoint"),
        ("resnet18", {"weights": "https://download.pytorch.org/resnet18.pth"}, "no published checkpoint"),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_is_downloaded(name, keywords, words):
    with pytest.raises(ValueError, match=words):
        kvision.create_model(name, **keywords)


class Hub(http.server.BaseHTTPRequestHandler):
    """Speaks what the hub's client asks for: the head of a file, then the file."""

    files, spoiled, cut, requests = {}, 0, 0, []

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        content = self.files.get(self.path)
        self.requests.append((self.command, self.path))
        self.send_response(404 if content is None else 200)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
            content = b""
        self.send_header("X-Repo-Commit", "0" * 40)
        digest = hashlib.sha256(content).hexdigest()
        self.send_header("ETag" if self.path.endswith("json") else "X-Linked-ETag", f'"{digest}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET" and content:
            if Hub.spoiled and not self.path.endswith("json"):
                Hub.spoiled -= 1
                content = content[:-1] + bytes([content[-1] ^ 1])
            if Hub.cut and not self.path.endswith("json"):
                Hub.cut -= 1
                content = content[: len(content) // 2]
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on this machine; `hub(repository, tensors, config)` publishes there."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    Hub.files, Hub.spoiled, Hub.cut, Hub.requests = {}, 0, 0, []

    def publish(repository, tensors, **config):
        pretrained = {"mean": [0.5] * 3, "std": [0.5] * 3, "num_classes": 1000, "input_size": [3, 224, 224]}
        config = {"architecture": "any", "pretrained_cfg": pretrained | config}
        Hub.files[f"/{repository}/resolve/main/config.json"] = json.dumps(config).encode()
        content = safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in tensors.items()})
        Hub.files[f"/{repository}/resolve/main/model.safetensors"] = content

    yield publish
    server.shutdown()
    server.server_close()


def tiny_tensors():
    model = kvision.models.mobilenet_v3_small(**TINY, num_classes=7)
    return kvision.weights.state_dict(model)


def test_a_repository_brings_its_preprocessing_and_classes(hub):
    tensors = tiny_tensors()
    hub("me/net", tensors, num_classes=7, mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])
    model = kvision.models.mobilenet_v3_small(weights="hf-hub:me/net", **TINY)
    assert model.output_shape == (None, 7)
    layer = model.get_layer("preprocess")
    np.testing.assert_allclose(layer.scale, 1 / (255 * np.array([0.4, 0.5, 0.6])), rtol=1e-6)
    np.testing.assert_allclose(layer.offset, -np.array([0.1, 0.2, 0.3]) / [0.4, 0.5, 0.6], rtol=1e-6)
    assert all(np.array_equal(tensors[k], v) for k, v in kvision.weights.state_dict(model).items())


def test_a_file_of_the_right_size_with_wrong_content_is_never_trusted(hub, tmp_path):
    hub("me/net", tiny_tensors(), num_classes=7)
    Hub.spoiled = 1
    kvision.models.mobilenet_v3_small(weights="hf-hub:me/net", **TINY)  # asked for a second time
    files = [path for method, path in Hub.requests if method == "GET" and path.endswith("safetensors")]
    assert len(files) == 2
    (blob,) = (path for path in (tmp_path / "cache").rglob("blobs/*") if path.stat().st_size > 10_000)
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")  # later, on this machine
    kvision.models.mobilenet_v3_small(weights="hf-hub:me/net", **TINY)
    Hub.spoiled = 9
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    with pytest.raises(OSError, match="hf-hub:me/net was damaged on its way twice"):
        kvision.models.mobilenet_v3_small(weights="hf-hub:me/net", **TINY)


def test_a_download_that_breaks_off_leaves_nothing_that_is_trusted(hub):
    tensors = tiny_tensors()
    hub("me/net", tensors, num_classes=7)
    Hub.cut = 99
    with pytest.raises(OSError, match=r"me/net: model.safetensors cannot be downloaded"):
        kvision.models.mobilenet_v3_small(weights="hf-hub:me/net", **TINY)
    Hub.cut = 0
    model = kvision.models.mobilenet_v3_small(weights="hf-hub:me/net", **TINY)
    assert all(np.array_equal(tensors[k], v) for k, v in kvision.weights.state_dict(model).items())


def test_the_cache_is_enough_offline_and_nothing_else_is_there(hub, monkeypatch):
    hub("me/net", tiny_tensors(), num_classes=7)
    kvision.models.mobilenet_v3_small(weights="hf-hub:me/net", **TINY)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    kvision.models.mobilenet_v3_small(weights="hf-hub:me/net", **TINY)
    with pytest.raises(OSError, match="hf-hub:me/other: config.json cannot be downloaded"):
        kvision.models.mobilenet_v3_small(weights="hf-hub:me/other", **TINY)
    with pytest.raises(OSError, match=r"resnet18.a1_in1k: model.safetensors cannot be downloaded"):
        kvision.models.resnet18(weights="imagenet")


def test_a_repository_of_another_kind(hub):
    Hub.files["/me/net/resolve/main/config.json"] = b'{"model_type": "bert"}'
    with pytest.raises(ValueError, match="config.json does not fit"):
        kvision.models.mobilenet_v3_small(weights="hf-hub:me/net", **TINY)
    hub("me/bert", {"embeddings.weight": np.zeros((2, 2), "float32")}, num_classes=7)
    with pytest.raises(ValueError, match=r"missing.*1 left over .embeddings.weight"):
        kvision.models.mobilenet_v3_small(weights="hf-hub:me/bert", **TINY)


def marked(peers):
    large = {peer for peer in peers if ENTRIES[peer]["params"] > 8e6}
    return [pytest.param(peer, marks=pytest.mark.slow) if peer in large else peer for peer in peers]


@pytest.mark.parametrize("peer", marked(sorted(STATE_DICTS)))
def test_a_state_dict_of_timm_goes_through_the_hub_and_back(peer, hub, tmp_path):
    """All of its tensors, with PyTorch's buffers, and the logits that timm has with them."""
    entry, shapes = ENTRIES[peer], STATE_DICTS[peer]
    floats = {name: shape for name, shape in shapes.items() if not name.endswith("num_batches_tracked")}
    tensors = formula_weights(floats, entry["gain"])
    tensors |= {name: np.zeros(shape, np.int64) for name, shape in shapes.items() if name not in tensors}
    hub("timm/net", tensors, mean=entry["mean"], std=entry["std"], input_size=entry["input"][::-1])
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


def test_a_row_is_a_source_too(hub):
    tensors = kvision.weights.state_dict(kvision.models.resnet18())
    hub("timm/resnet18.a2_in1k", tensors)
    (row,) = kvision.list_weights("resnet18.a2_in1k")
    model = kvision.models.resnet18(weights=row)
    assert all(np.array_equal(tensors[k], v) for k, v in kvision.weights.state_dict(model).items())


def test_rows_of_the_table_are_downloaded_from_where_they_live(hub, monkeypatch):
    tensors = kvision.weights.state_dict(kvision.models.resnet18())
    hub("timm/resnet18.tv_in1k", tensors)
    model = kvision.models.resnet18(weights="tv_in1k")
    np.testing.assert_allclose(model.get_layer("preprocess").scale, IMAGENET.scale)
    assert (("GET", "/timm/resnet18.tv_in1k/resolve/main/config.json")) not in Hub.requests
    assert all(np.array_equal(tensors[k], v) for k, v in kvision.weights.state_dict(model).items())


def counting(shape):
    """What make_state_dicts.py put into lenet5.pth."""
    return np.arange(np.prod(shape), dtype="float32").reshape(shape[::-1]).T


def is_lenet5(model):
    for key, value in kvision.weights.state_dict(model).items():
        flat = (len(value), -1) if value.ndim == 4 and key == "c5.conv.weight" else value.shape
        value = np.reshape(value, flat)
        expected = counting(value.shape) if key.endswith("weight") else np.arange(0, 2 * len(value), 2)
        np.testing.assert_array_equal(value, expected, err_msg=key)


@pytest.mark.parametrize("name", ["lenet5.pth", "lenet5_old.pth"])
def test_files_of_pytorch_are_read_without_pytorch(name, tmp_path):
    is_lenet5(kvision.models.lenet5(weights=REFERENCE / name))
    (tmp_path / name).write_bytes((REFERENCE / name).read_bytes()[:-1000])
    with pytest.raises(ValueError, match="cannot be read"):
        kvision.models.lenet5(weights=tmp_path / name)


class Harmful:
    def __reduce__(self):
        return os.system, ("touch harm",)


@pytest.mark.parametrize("content", [{"weight": Harmful()}, Harmful(), {"weight": "text"}, [1, 2]])
def test_no_pickle_is_executed(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickled = pickle.dumps(content)
    for path in (tmp_path / "old.pth", tmp_path / "new.pth"):
        if path.name == "old.pth":
            before = b"".join(pickle.dumps(value) for value in (0x1950A86A20F9469CFC6C, 1001, {}))
            path.write_bytes(before + pickled + pickle.dumps([]))
        else:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("net/data.pkl", pickled)
        with pytest.raises(ValueError, match=r"system, which is no tensor|is a str|is a list|holds a list"):
            kvision.models.lenet5(weights=path)
    assert not (tmp_path / "harm").exists()


@pytest.mark.skipif(not LITE0.exists(), reason="the real weights (18 MB) are not here")
def test_real_weights_through_the_hub(hub):
    hub("timm/tf_efficientnet_lite0.in1k", safetensors.numpy.load_file(LITE0))
    model = kvision.models.efficientnet_lite0(weights="imagenet")
    coffee = pytest.importorskip("skimage.data").coffee()
    probabilities = model.predict(fit(coffee, (224, 224), crop=0.875)[None], verbose=0)[0]
    assert kvision.labels.imagenet()[probabilities.argmax()] == "espresso"
    assert probabilities.max() > 0.9


def test_a_repository_of_an_architecture_with_other_columns_is_refused(hub):
    hub("me/b0", tiny_tensors())
    config = Hub.files["/me/b0/resolve/main/config.json"].replace(b'"any"', b'"efficientnet_b0"')
    Hub.files["/me/b0/resolve/main/config.json"] = config
    with pytest.raises(ValueError, match="need norm_epsilon=1e-05, padding='symmetric'"):
        kvision.models.efficientnet_b0(weights="hf-hub:me/b0")
    with pytest.raises(ValueError, match="it is a efficientnet_b0, not a resnet18"):
        kvision.models.resnet18(weights="hf-hub:me/b0")


def test_repositories_without_safetensors(hub):
    tensors = REFERENCE / "lenet5.pth"
    hub("me/lenet", {}, num_classes=10, mean=[0.1], std=[0.3], input_size=[1, 32, 32])
    del Hub.files["/me/lenet/resolve/main/model.safetensors"]
    Hub.files["/me/lenet/resolve/main/pytorch_model.bin"] = tensors.read_bytes()
    is_lenet5(kvision.models.lenet5(weights="hf-hub:me/lenet"))


def test_side_classifiers_of_a_checkpoint_are_left_out():
    with keras.StatelessScope(initialize_variables=False):
        models = [kvision.models.googlenet_bn(auxiliary=auxiliary) for auxiliary in (True, False)]
    keras.utils.clear_session(free_memory=False)
    names, plain = (parameters(model).keys() for model in models)
    assert all(name.startswith(SIDES) for name in names - plain)
    assert "aux1.fc2.weight" in names - plain


def pickled(size=4, offset=0, shape=(4,), strides=(1,), storage=b""):
    """A state dict of one tensor, as PyTorch writes it, with what an attacker may put there."""

    def numbers(values):
        words = (value if isinstance(value, bytes) else b"I%d\n" % value for value in values)
        return b"(" + b"".join(words) + b"t"

    storage = storage or b"((Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI%d\ntQ" % size
    return (
        b"\x80\x02(dVw\nctorch._utils\n_rebuild_tensor_v2\n" + storage
        + b"I%d\n" % offset + numbers(shape) + numbers(strides) + b"I00\n}tRs."
    )  # fmt: skip


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickled(), "missing"),  # sound, but no LeNet
        (pickled(shape=(5,)), "beyond its storage"),
        (pickled(offset=1), "beyond its storage"),
        (pickled(offset=-1), "beyond its storage"),
        (pickled(shape=(2, 2), strides=(-1, 1)), "beyond its storage"),
        (pickled(shape=(2**32, 2**32), strides=(0, 0)), "more values than its storage"),
        (pickled(shape=(5,), strides=(0,)), "more values than its storage"),
        (pickled(shape=(b"cnumpy\nint8\n(I127\ntR",), strides=(2,)), "numpy.int8, which is no tensor"),
        (pickled(shape=(b"ctorch\nCharStorage\n(I4\ntR",)), "not callable"),
        (pickled(storage=b"((lI1\n"), "no storage"),
        (pickled(size=9), "too short"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "counts beyond its size"),
    ],
)
def test_a_pickle_reaches_nothing_but_its_own_tensors(content, words, tmp_path):
    path = tmp_path / "net.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", content)
        archive.writestr("net/data/0", np.zeros(4, "float32").tobytes())
    with pytest.raises(ValueError, match=words):
        kvision.models.lenet5(weights=path)


def test_files_of_torchvision_are_checked_by_their_names(hub, tmp_path, monkeypatch):
    """They end with the first digits of their SHA-256."""
    content = (REFERENCE / "lenet5.pth").read_bytes()
    name = f"lenet5-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    Hub.files, Hub.spoiled = {f"/{name}": content}, 1
    monkeypatch.setattr(keras.utils, "get_file", partial(keras.utils.get_file, cache_dir=tmp_path))
    monkeypatch.setattr(_fetch, "URL", constants.ENDPOINT)
    monkeypatch.setattr(_fetch, "SCHEMES", (constants.ENDPOINT,))
    url = f"{constants.ENDPOINT}/{name}"
    model = kvision.models.lenet5()
    kvision.weights.load(model, url)
    assert len(Hub.requests) == 2  # the first answer was spoilt
    kvision.weights.load(model, url)
    assert len(Hub.requests) == 2
    is_lenet5(model)
    with pytest.raises(OSError, match="cannot be downloaded"):
        kvision.weights.load(model, url.replace("lenet5", "lenet6"))
    with pytest.raises(ValueError, match="does not say its SHA-256"):
        kvision.weights.load(model, url.replace("-", "_"))


def test_keras_applications_are_a_source(tmp_path, monkeypatch):
    """The file lies where Keras would have downloaded it to."""
    monkeypatch.setattr(mobilenet_v2.file_utils, "get_file", lambda *_, **__: str(path))
    path = tmp_path / "weights.h5"
    peer = keras.applications.MobileNetV2(alpha=0.35, weights=None, classifier_activation=None)
    with monkeypatch.context() as context:
        context.setattr("warnings.warn", lambda *_, **__: None)
        peer.save(path)
    model = kvision.models.mobilenet_v2(
        width_multiplier=0.35, weights="imagenet", classifier_activation=None, input_shape=(96, 96, 3)
    )
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 96, 96, 3)).astype("float32")
    small = keras.applications.MobileNetV2(
        alpha=0.35, weights=None, classifier_activation=None, input_shape=(96, 96, 3)
    )
    small.set_weights(peer.get_weights())
    np.testing.assert_allclose(model(pixels), small(pixels / 127.5 - 1), rtol=1e-4, atol=1e-6)
    assert kvision.info("mobilenet_v2").weights[-1].preprocess == PLUS_MINUS_ONE
    wider = kvision.models.mobilenet_v2(
        width_multiplier=0.35, weights="imagenet", num_classes=3, input_shape=(96, 96, 4)
    )
    kernel = kvision.weights.state_dict(model)["conv_stem.weight"]
    loaded = kvision.weights.state_dict(wider)["conv_stem.weight"]
    np.testing.assert_allclose(loaded, kernel[:, [0, 1, 2, 0]] * 0.75, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "application", "keywords", "words"),
    [
        ("resnet50", "ResNet50", {}, "another network.*conv1"),
        ("densenet121", "DenseNet121", {}, "norm_epsilon=1.001e-05"),
        ("mobilenet_v2", "MobileNetV2", {"alpha": 0.35}, r"ours \(3, 3, 3, 32\)"),
        ("vgg16", "VGG19", {}, "block3_conv4"),
    ],
)
def test_other_networks_of_keras_are_refused(name, application, keywords, words):
    with keras.StatelessScope(initialize_variables=False):
        theirs = getattr(keras.applications, application)(weights=None, **keywords)
        model = kvision.create_model(name)
    keras.utils.clear_session(free_memory=False)
    with pytest.raises(ValueError, match=words):
        kvision.weights.from_keras(model, theirs)
