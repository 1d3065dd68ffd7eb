"""Files of PyTorch, read without PyTorch, from a hub or from torchvision's address."""

import hashlib
import os
import pickle
import zipfile
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
from huggingface_hub import constants

import kvision
from kvision.weights import _fetch

REFERENCE = Path(__file__).parents[1] / "reference"


def counting(shape):
    """The tensors that make_state_dicts.py put into lenet5.pth."""
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
    with pytest.raises(ValueError, match="failed to read"):
        kvision.models.lenet5(weights=tmp_path / name)


def test_repositories_without_safetensors(hub):
    tensors = REFERENCE / "lenet5.pth"
    hub.publish("me/lenet", {}, num_classes=10, mean=[0.1], std=[0.3], input_size=[1, 32, 32])
    del hub.files["/me/lenet/resolve/main/model.safetensors"]
    hub.files["/me/lenet/resolve/main/pytorch_model.bin"] = tensors.read_bytes()
    is_lenet5(kvision.models.lenet5(weights="hf-hub:me/lenet"))


def test_files_of_torchvision_are_checked_by_their_names(hub, tmp_path, monkeypatch):
    """They end with the first digits of their SHA-256."""
    content = (REFERENCE / "lenet5.pth").read_bytes()
    name = f"lenet5-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    hub.files, hub.spoiled = {f"/{name}": content}, 1
    monkeypatch.setattr(keras.utils, "get_file", partial(keras.utils.get_file, cache_dir=tmp_path))
    monkeypatch.setattr(_fetch, "URL", constants.ENDPOINT)
    monkeypatch.setattr(_fetch, "SCHEMES", (constants.ENDPOINT,))
    url = f"{constants.ENDPOINT}/{name}"
    model = kvision.models.lenet5()
    kvision.weights.load(model, url)
    assert len(hub.requests) == 2  # the first answer was spoilt
    kvision.weights.load(model, url)
    assert len(hub.requests) == 2
    is_lenet5(model)
    with pytest.raises(OSError, match="cannot be downloaded"):
        kvision.weights.load(model, url.replace("lenet5", "lenet6"))
    with pytest.raises(ValueError, match="does not say its SHA-256"):
        kvision.weights.load(model, url.replace("-", "_"))


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
        with pytest.raises(ValueError, match=r"class posix.system|is a str|holds no tensors|holds a list"):
            kvision.models.lenet5(weights=path)
    assert not (tmp_path / "harm").exists()


def pickled(size=4, offset=0, shape=(4,), strides=(1,), storage=b""):
    """A state dict of one tensor, as PyTorch writes it, with what an attacker may put there."""

    def numbers(values):
        words = (value if isinstance(value, bytes) else b"I%d\n" % value for value in values)
        return b"(" + b"".join(words) + b"t"

    storage = storage or b"((Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI%d\ntQ" % size
    return (
        b"\x80\x02(dVf6.weight\nctorch._utils\n_rebuild_tensor_v2\n" + storage
        + b"I%d\n" % offset + numbers(shape) + numbers(strides) + b"I00\n}tRs."
    )  # fmt: skip


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickled(), "missing"),  # sound, but no LeNet
        (pickled(shape=(5,)), "beyond its storage"),
        (pickled(offset=1), "beyond its storage"),
        (pickled(offset=-1), "its shape is invalid"),
        (pickled(shape=(2, 2), strides=(-1, 1)), "its shape is invalid"),
        (pickled(shape=(2**32, 2**32), strides=(0, 0)), "more values than its storage"),
        (pickled(shape=(5,), strides=(0,)), "more values than its storage"),
        (pickled(shape=(b"cnumpy\nint8\n(I127\ntR",), strides=(2,)), "its shape is invalid"),
        (pickled(shape=(b"ctorch\nCharStorage\n(I4\ntR",)), "its shape is invalid"),
        (pickled(storage=b"((lI1\n"), "no tensors"),
        (pickled(size=9), "too short"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "an index beyond its size"),
    ],
)
def test_a_pickle_reaches_nothing_but_its_own_tensors(content, words, tmp_path):
    path = tmp_path / "net.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", content)
        archive.writestr("net/data/0", np.zeros(4, "float32").tobytes())
    with pytest.raises(ValueError, match=words):
        kvision.models.lenet5(weights=path)
