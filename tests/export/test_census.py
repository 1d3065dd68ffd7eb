"""Metadata in files, and the census of files."""

import dataclasses
import zipfile

import numpy as np
import pytest
from helpers import command, mostly_slow, randomized, tiny
from tflite import changed, images, int8

from kvision_export import console, flatbuffer, metadata
from kvision_export.census import census_of, read
from kvision_export.convert import FLOATS, convert
from kvision_export.faults import find_faults
from kvision_export.rewrite import schema
from kvision_export.runner import predict
from kvision_export.versions import oldest_runtime, set_versions

ABOUT = metadata.About("tiny", "Of tests.", "Apache-2.0", ("cat", "dog", "Käse"), 3, (64, 64))


def described(content, about=ABOUT):
    """The file with metadata."""
    return metadata.write(flatbuffer.read(content), about)


def metadata_of(content):
    return metadata.read(flatbuffer.read(content), content)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A float file and an int8 one, with metadata."""
    folder = tmp_path_factory.mktemp("files")
    model = randomized(tiny("mobilenet_v3_small"))
    floats = convert(model)
    versioned, _ = changed(int8(floats, images()), set_versions)
    for name, content in (("float32", floats), ("int8", versioned)):
        (folder / f"{name}.tflite").write_bytes(described(content))
    return folder


def test_metadata_comes_back_and_changes_nothing_else(files, tmp_path):
    about = {"name": "tiny", "description": "Of tests.", "license": "Apache-2.0", "std": [1.0],
             "labels": ["cat", "dog", "Käse"]}  # fmt: skip
    for name, mean, dtype in (("float32", 0.0, "float32"), ("int8", 127.0, "uint8")):  # by its zero point
        content = (files / f"{name}.tflite").read_bytes()
        image = f"Pixels in [0, 255], as {dtype}."
        assert metadata_of(content) == about | {"mean": [mean], "image": image}
    with zipfile.ZipFile(files / "int8.tflite") as archive:
        assert archive.read("labels.txt").decode() == "cat\ndog\nKäse\n"
    plain = flatbuffer.write(flatbuffer.read(content))
    np.testing.assert_array_equal(predict(content, images()), predict(plain, images()))
    again = described(content)
    assert again == content
    assert metadata_of(convert(tiny("lenet5"))) == {}


@pytest.mark.parametrize(
    ("answer", "activation"), [("probabilities", "none"), ("logits", "softmax"), ("mask", None)]
)
def test_metadata_of_a_segmenter_as_mediapipes_writer_has_it(files, answer, activation):
    content = (files / "float32.tflite").read_bytes()
    about = dataclasses.replace(ABOUT, answer=answer, dense=True)
    found = metadata_of(described(content, about))
    assert found.get("activation") == activation
    assert found["labels"] == ["cat", "dog", "Käse"]


def test_a_census_adds_up(files):
    for name in ("float32", "int8"):
        census = read(files / f"{name}.tflite")
        assert census.faults == []
        assert sum(census.sections.values()) == (files / f"{name}.tflite").stat().st_size
        assert min(census.sections.values()) > 300
        assert census.metadata["name"] == "tiny"
        assert census.partitions >= 1
    assert list(census.left_out) == ["HARD_SWISH"]  # before a residual
    assert census.runtime == "1.15"  # of it
    assert census.operators["CONV_2D v3"] > 10


@pytest.mark.parametrize(
    ("operators", "release"),
    [([("CONV_2D", 1), ("ADD", 1)], "1.5"), ([("CONV_2D", 3), ("MEAN", 3)], "2.4"), ([("GELU", 1)], "2.9"),
     ([("FULLY_CONNECTED", 12)], "2.17"), ([("FULLY_CONNECTED", 99)], ""), ([("NO_SUCH", 1)], "")],
)  # fmt: skip
def test_oldest_runtimes(operators, release):
    assert oldest_runtime(operators) == release


def written_runtime(content):
    model = flatbuffer.read(content)
    (entry,) = (entry for entry in model.metadata if entry.name == b"min_runtime_version")
    return model.buffers[entry.buffer].data.tobytes().rstrip(b"\0").decode()


@pytest.mark.parametrize("mode", mostly_slow(FLOATS, "dynamic"))
def test_the_oldest_runtime_is_what_the_converter_says(mode):
    content = convert(tiny("resnet18"), mode)
    assert f"{census_of(content).runtime}.0" == written_runtime(content)
    assert written_runtime(changed(content, set_versions)[0]) == written_runtime(content)
    model = flatbuffer.read(content)
    model.operatorCodes[0].version = 99
    set_versions(model)
    assert written_runtime(flatbuffer.write(model)) == written_runtime(content)


def test_faults_are_found(files):
    model = flatbuffer.read((files / "float32.tflite").read_bytes())
    graph = model.subgraphs[0]
    first = graph.operators[1]
    before, place = int(first.inputs[0]), 1
    integers = flatbuffer.add_tensor(model, "island", None, like=before)
    graph.tensors[integers].type = schema.TensorType.INT8
    floats = flatbuffer.add_tensor(model, "floats", None, like=before)
    for kind, source, result in (("QUANTIZE", before, integers), ("DEQUANTIZE", integers, floats),
                                 ("QUANTIZE", floats, integers)):  # fmt: skip
        options = getattr(schema, f"{kind.title()}OptionsT")()
        graph.operators.insert(place, flatbuffer.operator(model, kind, [source], [result], options))
        place += 1
    graph.operators.append(flatbuffer.operator(model, "VAR_HANDLE", [], [floats], schema.VarHandleOptionsT()))
    faults = find_faults(model)
    assert any("1 VAR_HANDLE" in fault for fault in faults)
    assert any("floats is dequantized only to be quantized again" in fault for fault in faults)


def test_the_check_command(files, tmp_path):
    printed = command("kvision-export", "--check", str(files / "float32.tflite"), str(files / "int8.tflite"))
    assert printed.count("faults") == 2
    assert "none" in printed
    assert "cat, dog, Käse" in printed
    (tmp_path / "text.tflite").write_text("no model")
    (tmp_path / "cut.tflite").write_bytes((files / "int8.tflite").read_bytes()[:2000])
    for name, words in (("text", "is not a TFLite file"), ("cut", "is a damaged TFLite file")):
        assert words in command("kvision-export", "--check", str(tmp_path / f"{name}.tflite"), code=2)
    assert "Which files?" in command("kvision-export", "--check", code=2)


def test_the_check_command_goes_on_after_files_that_it_cannot_read(files, tmp_path, capfd):
    (tmp_path / "text.tflite").write_text("no model")
    with pytest.raises(FileNotFoundError):
        console.check([tmp_path / "text.tflite", tmp_path / "none.tflite", files / "int8.tflite"])
    printed = capfd.readouterr()
    assert "cat, dog, Käse" in printed.out
    assert "is not a TFLite file" in printed.err
