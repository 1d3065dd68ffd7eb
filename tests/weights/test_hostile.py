"""Files that were made to harm, and files that were damaged: memory, time and what is loaded are bounded."""

import json
import pickle
import re
import struct
import time
import zipfile

import h5py
import mutations
import numpy as np
import pytest
from helpers import COMMANDS, memory_within, mostly_slow
from pytorch import pickled, write_old_pth, write_pth

import kvision
from kvision.errors import UserError
from kvision.weights import _h5_index, _pickle

TENSOR = np.arange(84, dtype="float32")
DEEP = 10**5
OF_PYTHON = re.compile(
    r"recursion|zip\(\)|sys\.set|unpack|out of range|has no attribute|object is not|hashable"
)


@pytest.fixture(scope="module")
def network():
    return kvision.models.lenet5()


@pytest.fixture
def bounded():
    """A reader is done within seconds and 400 MB, whatever it reads."""
    start = time.monotonic()
    with memory_within(400_000_000):
        yield
    assert time.monotonic() - start < 20


def write_zip(path, content, *entries):
    """A `.pth` file of a pickle and entries `(name, bytes)`."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (("net/data.pkl", content), *entries):
            archive.writestr(name, data)


def state_dict(*values) -> bytes:
    """A pickle of a dict of instructions by letters."""
    items = zip("abcdefghijklmnopqrstuvwxyz", values, strict=False)
    return b"\x80\x02}(" + b"".join(pickled(k, []) + v for k, v in items) + b"u."


def chain(start, step, turns=60):
    """An object of which each turn holds the one before twice: as large as 2**turns for who follows it."""
    return start + b"".join(b"q%c0h%ch%c" % (i, i, i) + step for i in range(turns)) + b"\x85"


PAIRS = b"\x80\x02](" + b"](X\1\0\0\0aNe" * 10**4 + b"e"
STORAGE = b"((Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI84\ntQ"
BOMBS = {
    "nested tuples as keys": b"\x80\x02}" + chain(b")", b"\x86") + b"Ns.",
    "nested tuples in a reference": state_dict(chain(b")", b"\x86") + b"Q"),
    "nested tuples as a word": state_dict(b"((X\x07\0\0\0storage" + chain(b")", b"\x86") + b"NNI1\ntQ"),
    "nested lists": state_dict(chain(b"]", b"\x86")),
    "nested tuples as a tensor": b"\x80\x02}(X\x09\0\0\0f6.weight" + chain(b")", b"\x86") + b"u.",
    "deep": b"\x80\x02" + b"]" * DEEP + b"a" * (DEEP - 1) + b".",
    "deep tuples": b"\x80\x02)" + b"\x85" * DEEP + b".",
    "deep objects": b"\x80\x02N" + b"\x85cos\nx\n\x81" * (DEEP // 10) + b".",
    "a list named often": PAIRS + b"q\0" + b"0ccollections\nOrderedDict\nh\0\x85R" * 10**4 + b".",
    "arguments named often": (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nq\1(" + b"N" * 10**5 + b"tq\0"
        + b"0h\1h\0R" * 10**5 + b"."
    ),
    "references named often": b"\x80\x02(" + b"N" * 10**5 + b"tq\0" + b"0h\0Q" * 10**5 + b".",
    "names put together": (
        b"\x80\x04X" + struct.pack("<I", 10**5) + b"x" * 10**5 + b"q\0" + b"h\0h\0\x93" * 10**5 + b"."
    ),
    "nested types": (
        b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\nq\0ctorch\nTensor\nq\1N"
        + b"".join(b"q\2(h\0h\1h\2Nt" for _ in range(900))
        + b"q\3" + b"h\0h\3R" * 10**5 + b"."
    ),
    "a huge number": state_dict(b"\x8b" + struct.pack("<i", 10**6) + b"\x7f" * 10**6),
    "a number of many digits": state_dict(b"I" + b"9" * 10**6 + b"\n"),
    "a longer word than the file": state_dict(b"\x8d" + struct.pack("<Q", 2**40) + b"x"),
    "a longer number than the file": state_dict(b"\x8b" + struct.pack("<i", 2**31 - 1)),
    "memo": b"\x80\x02}r\xff\xff\xff\x7f.",
    "memo by words": b"\x80\x02}" + b"".join(b"p%d\n" % (i * (2**61 - 1)) for i in range(10**5)) + b".",
    "extension": state_dict(b"\x82\1"),
    "instance": state_dict(b"(S'touch harm'\nios\nsystem\n"),
    "object": state_dict(b"(cos\nsystem\nX\x0a\0\0\0touch harmo"),
    "a shape of huge numbers": (
        b"\x80\x02}(X\x07\0\0\0f6.bias" + b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + b"I0\n("
        + (b"\x8b" + struct.pack("<i", 10**5) + b"\x7f" * 10**5) * 9 + b"t(" + b"I1\n" * 9 + b"tI00\n}tRu."
    ),
    "underflow": b"\x80\x02\x86.",
    "nothing": b"",
    "only its head": b"\x80\x02",
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_pickles_that_grow(name, network, bounded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_zip("a.pth", BOMBS[name], ("net/data/0", TENSOR.tobytes()))
    refused(network, "a.pth")
    assert not (tmp_path / "harm").exists()


def test_longer_pickles_than_files_of_tensors_have(network, monkeypatch, tmp_path):
    assert _pickle.MOST_INSTRUCTIONS == 2**21  # seconds, and 200 MB
    monkeypatch.setattr(_pickle, "MOST_INSTRUCTIONS", 1000)
    write_zip(tmp_path / "a.pth", b"\x80\x02" + b"]" * 1001 + b".")
    refused(network, tmp_path / "a.pth", "more instructions than a file of tensors needs")


@pytest.mark.parametrize("name", ["nested tuples as keys", "a longer word than the file", "only its head"])
def test_old_files_with_such_pickles(name, network, bounded, tmp_path):
    head = [b"\x80\x02" + pickled(value, []) + b"." for value in (0x1950A86A20F9469CFC6C, 1001, {})]
    (tmp_path / "a.pth").write_bytes(b"".join(head) + BOMBS[name] + pickle.dumps([]))
    refused(network, tmp_path / "a.pth")


@pytest.mark.parametrize("shape", [(2**40, 1), (2**40, 0), (10**6, 84)])
def test_a_classifier_of_more_classes_than_the_file_holds(shape, bounded, tmp_path):
    tensor = pickled(TENSOR, []).replace(pickled(TENSOR.shape, []), pickled(shape, []))
    tensor = tensor.replace(pickled((1,), []), pickled((0, 0), []))
    write_zip(
        tmp_path / "a.pth",
        b"\x80\x02}X\x11\0\0\0classifier.weight" + tensor + b"s.",
        ("net/data/0", bytes(336)),
    )
    with pytest.raises(UserError):
        kvision.models.lenet5(weights=tmp_path / "a.pth")


def test_many_tensors_on_one_storage_take_its_memory(bounded, tmp_path):
    """1.6 MB that took 5 GB."""
    tensor = pickled(np.zeros(4 * 10**5, "float32"), [])
    items = [b"X\4\0\0\0%04d" % i + tensor for i in range(3000)]
    write_zip(tmp_path / "a.pth", b"\x80\x02}(" + b"".join(items) + b"u.", ("net/data/0", bytes(16 * 10**5)))
    refused(kvision.models.lenet5(), tmp_path / "a.pth", "unexpected")


@pytest.fixture
def tensors(network):
    return kvision.weights.state_dict(network)


def test_every_value_of_an_old_file_is_in_it(network, tensors, tmp_path):
    """A storage that its list lacks was memory that nobody had written."""
    path = tmp_path / "a.pth"
    write_old_pth(path, tensors)
    content = path.read_bytes()
    kvision.weights.load(network, path)
    keys = [b"\x80\x02" + pickled([str(i) for i in range(count)], []) + b"." for count in (10, 9)]
    assert keys[0] in content
    size = 8 + tensors["classifier.bias"].nbytes
    path.write_bytes(content.replace(*keys)[:-size])
    refused(network, path, "storage '9' is missing")
    path.write_bytes(content.replace(b"X\1\0\0\08X\1\0\0\09e", b"X\1\0\0\08X\1\0\0\08e"))
    refused(network, path, "storage '8'")
    path.write_bytes(content.replace(b"little_endian\x88", b"little_endian\x89"))
    refused(network, path, "order of bytes")
    for length in (len(content) - 1, len(content) // 2, 300, 60, 1, 0):
        path.write_bytes(content[:length])
        refused(network, path)


def test_archives_are_as_large_as_their_file(network, tensors, tmp_path):
    path = tmp_path / "a.pth"
    write_pth(path, tensors)
    with zipfile.ZipFile(path) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    refused(network, path, "compressed")
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries:
            archive.writestr(name, data)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("net/data/0", entries[0][1])
    refused(network, path, "two entries of one name")
    write_pth(path, tensors)
    with zipfile.ZipFile(path, "a") as archive:  # all entries of storages are the first's bytes
        first = archive.getinfo("net/data/0")
        for key in range(1, 10):
            archive.getinfo(f"net/data/{key}").header_offset = first.header_offset
            archive.getinfo(f"net/data/{key}").file_size = archive.getinfo(
                f"net/data/{key}"
            ).compress_size = 10**5
        archive.writestr("net/more", b"")
    refused(network, path, "larger than the file")
    write_pth(path, tensors)
    content = path.read_bytes()
    place = content.index(tensors["f6.weight"].tobytes())
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    refused(network, path, "CRC")
    path.write_bytes(content.replace(b"little", b"big   "))
    refused(network, path)
    path.write_bytes(content[:-9])
    refused(network, path, "it ends too early")


@pytest.mark.parametrize(
    ("header", "content"),
    [
        (b"", b"\xff" * 7),
        (b"{}", 2**62),
        ({"f6.bias": {"dtype": "F32", "shape": [84], "data_offsets": [0, 336]}}, bytes(335)),
        ({"f6.bias": {"dtype": "F32", "shape": [85], "data_offsets": [0, 336]}}, bytes(336)),
        ({"f6.bias": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 336]}}, bytes(336)),
        ({"f6.bias": {"dtype": "F8_E4M3", "shape": [336], "data_offsets": [0, 336]}}, bytes(336)),
        (
            {k: {"dtype": "F32", "shape": [84], "data_offsets": [0, 336]} for k in ("a", "f6.bias")},
            bytes(336),
        ),
        (b"[" * 10**6, b""),
    ],
)
def test_headers_of_safetensors(header, content, network, bounded, tmp_path):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    size, content = (content, b"") if isinstance(content, int) else (len(header), content)
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", size) + header + content)
    refused(network, tmp_path / "a.safetensors")


def change(file, how):
    """Makes an HDF5 file harmful."""
    group = file["layers/dense/vars"]
    if how == "external link":
        del group["0"]
        group["0"] = h5py.ExternalLink("other.h5", "/x")
    elif how == "soft link":
        del group["1"]
        group["1"] = h5py.SoftLink("/layers/dense_1/vars/1")
    elif how == "external storage":
        del group["1"]
        group.create_dataset("1", (84,), "f4", external=[("/etc/passwd", 0, 336)])
    elif how == "virtual":
        layout = h5py.VirtualLayout((84,), "f4")
        layout[:] = h5py.VirtualSource("other.h5", "x", (84,))
        del group["1"]
        group.create_virtual_dataset("1", layout)
    elif how == "values that are not there":
        del group["1"]
        group.create_dataset("1", (84,), "f4")
    elif how == "a shape of terabytes":
        del group["1"]
        group.create_dataset("1", (10**12,), "f4", chunks=(10**6,), compression="gzip")
    elif how == "words":
        del group["1"]
        group["1"] = ["a"] * 84
    elif how == "a group that holds itself":
        file["layers/dense/again"] = file["layers/dense"]
    elif how == "twice as many groups at each turn":
        group = file["layers/dense"]
        for _ in range(40):
            inner = group.create_group("a")
            group["b"] = inner
            group = inner
    elif how == "values named often":
        for place in range(2, 1000):
            group[str(place)] = group["0"]
    elif how == "no layers":
        del file["layers"]
    elif how == "layers are values":
        del file["layers"]
        file["layers"] = np.zeros(3)
    elif how == "values for a layer":
        file["layers/more"] = np.zeros(3)


@pytest.mark.parametrize(
    "how",
    [
        "external link", "soft link", "external storage", "virtual", "values that are not there",
        "a shape of terabytes", "words", "a group that holds itself", "twice as many groups at each turn",
        "values named often", "no layers", "layers are values", "values for a layer",
    ],
)  # fmt: skip
@pytest.mark.parametrize("ending", mostly_slow([".weights.h5", ".keras"], ".weights.h5"))
def test_keras_files_hold_all_they_say(how, ending, network, bounded, tmp_path):
    network.save_weights(tmp_path / "a.weights.h5")
    with h5py.File(tmp_path / "a.weights.h5", "a") as file:
        change(file, how)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.zeros(84, "f4")
    if ending == ".keras":
        with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
            archive.write(tmp_path / "a.weights.h5", "model.weights.h5")
    words = "more bytes than the file has" if how == "values named often" else "`weights`: "
    refused(network, tmp_path / f"a{ending}", words)


def test_a_wrong_bit_of_a_keras_file_is_refused(network, tmp_path):
    """Keras reads such a file without its CRC."""
    path = tmp_path / "a.keras"
    network.save(path)
    kvision.weights.load(network, path)
    content, kernel = path.read_bytes(), network.get_layer("f6").get_weights()[0].tobytes()
    place = content.index(kernel) + 1000
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    refused(network, path, "CRC")


def refused(network, path, words="`weights`: "):
    """Loading is an error of one sentence that a terminal can show, and changes nothing."""
    before = network.get_weights()
    with pytest.raises(UserError, match=words) as error:
        kvision.weights.load(network, path)
    assert len(str(error.value)) < 600
    assert str(error.value).isprintable()
    assert not OF_PYTHON.search(str(error.value))
    assert all(map(np.array_equal, before, network.get_weights()))


@pytest.mark.parametrize("kind", mutations.KINDS)
def test_damaged_files(kind, tmp_path):
    mutations.trials(tmp_path, kind, range(10 if kind == "a.weights.h5" else 50))


def test_a_file_that_crashes_the_hdf5_library(network, tmp_path, monkeypatch):
    """Some damaged ones do, which one depends on the library's version; here each is one."""
    crash = tmp_path / "crash.py"
    crash.write_text("import os; os.abort()")
    network.save_weights(tmp_path / "a.weights.h5")
    monkeypatch.setattr(_h5_index, "__file__", str(crash))
    refused(network, tmp_path / "a.weights.h5", "damaged so that the HDF5 library fails")


def test_a_file_that_the_hdf5_library_never_gets_through(network, bounded, tmp_path):
    """A word of 2**64 - 16 bytes ends where it begins."""
    path = tmp_path / "a.weights.h5"
    network.save_weights(path)
    content = path.read_bytes()
    size = content.index(b"GCOL") + 16 + 8  # of the first word in the heap, behind two heads
    path.write_bytes(content[:size] + (2**64 - 16).to_bytes(8, "little") + content[size + 8 :])
    refused(network, path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", mutations.KINDS)
def test_ten_thousand_damaged_files_within_memory_and_time(kind, tmp_path):
    seeds = range(50, 450 if kind == "a.weights.h5" else 2450)  # each of which takes a process
    process = COMMANDS.Process(target=mutations.trials, args=(tmp_path, kind, seeds, 2**30))
    process.start()
    process.join()
    assert process.exitcode == 0
