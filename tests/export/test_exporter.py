"""`exporter.export` as Python calls it."""

import importlib.metadata
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import command, mostly_slow, randomized, tiny, tiny_segmenter
from tflite import foreign_layers, images, top1

from kvision.errors import UserError
from kvision.tasks import Segmentation
from kvision_export import exporter
from kvision_export.checks import check_calibration
from kvision_export.exporter import export
from kvision_export.tolerance import Tolerance


def test_answers_that_a_network_does_not_have(tmp_path):
    model = tiny("resnet18")
    with pytest.raises(UserError, match="`answer`: .* answers for whole images, and a mask is of pixels"):
        export(model, tmp_path / "out", images=images(2), modes=["float32"], answer="mask")
    with pytest.raises(UserError, match=r"output of shape \(batch, classes\) or \(batch, height"):
        export(
            keras.Model(model.inputs, model.get_layer("c5").output[:, 0]), tmp_path / "out", images=images(2)
        )
    dense = Segmentation.serving(tiny_segmenter("lraspp_mobilenet_v3_large"))
    masks = np.full((2, 64, 64), 3)
    with pytest.raises(UserError, match=r"masks \(2, 64, 64\) of integers from 0 to 2, or 255 .* got 3"):
        export(dense, tmp_path / "out", images=images(2), modes=["float32"], labels=masks)


def test_versions_come_from_the_modules_whatever_their_distributions_are_called(monkeypatch):
    whole = exporter.package_versions()

    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert exporter.package_versions() == {name: whole[name] for name in whole if name != "litert_quantizer"}
    assert whole["tensorflow"] == tf.__version__
    assert whole["litert_quantizer"]


class Subclassed(keras.Model):
    """As people write it."""

    def __init__(self):
        super().__init__(name="subclassed")
        self.inside = keras.Sequential([*foreign_layers(), keras.layers.Softmax()])

    def call(self, inputs):
        return self.inside(inputs)


def not_called():
    return Subclassed().inside


def mixed():
    inside = keras.Sequential(
        [keras.Input((64, 64, 3)), *foreign_layers("mixed_float16"), keras.layers.Softmax()]
    )
    return keras.Sequential([keras.Input((64, 64, 3)), inside])


@pytest.mark.parametrize("make", mostly_slow([Subclassed, not_called, mixed], Subclassed))
def test_from_python_for_models_of_every_kind(make, tmp_path):
    model = make()
    report = export(model, tmp_path / "out", images=images(4), modes=["float32"])
    assert report["files"][0]["refusal"] == ""
    assert model(images(1)).shape == (1, 2)


@pytest.mark.slow
def test_from_python_for_an_npu_without_labels(tmp_path):
    model = randomized(tiny("resnet18"))
    modes = ["int8", "int16x8", "int4"]
    report = export(
        model, tmp_path / "out", images=images(12), calibration=images(16, seed=1), target="npu",
        compare=False, modes=modes, tolerances={mode: Tolerance(agreement=0.5) for mode in modes},
    )  # fmt: skip
    assert all(not file["refusal"] and file["accuracy"] is None for file in report["files"])
    of_int8, of_int16x8 = (file["fidelity"]["sqnr"] for file in report["files"][:2])
    assert of_int16x8 > max(25, of_int8 + 3)
    file = report["files"][0]
    assert file["warnings"][-1].startswith(
        "MediaPipe reads uint8 or float32 pixels, not int8: `--io_dtype=uint8`"
    )
    assert "An NPU needs integers throughout, which these are" in file["advice"]
    assert "An NPU leaves what is not of integers to the CPU" in " ".join(report["files"][1]["warnings"])
    assert {name.split()[0] for name in file["census"]["operators"]}.isdisjoint({"QUANTIZE", "DEQUANTIZE"})
    assert (tmp_path / "out/report.html").exists()


def test_labels_of_any_characters_reach_the_report_and_the_check(tmp_path):
    model = randomized(tiny("lenet5"))
    names = ["<b>cat", "<b>dog [/dog]", "<b>Käse & co"]
    export(model, tmp_path / "out", images=images(4, 64, 1), modes=["float32"], class_names=names)
    page = (tmp_path / "out/report.html").read_text()
    assert "&lt;b&gt;" in page
    assert not any(name in page for name in names)
    path = tmp_path / f"out/{model.name}_float32.tflite"
    assert "<b>cat, <b>dog [/dog], <b>Käse & co" in command("kvision-export", "--check", str(path))


def test_a_network_of_nan_is_refused_and_uint8_images_are_pixels(tmp_path):
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")]
    )
    pixels = images(2, 8, 1)
    report = export(model, tmp_path / "out", images=pixels.astype("uint8"), modes=["float32"], labels=[0, 1])
    assert top1(report["keras"]) == np.mean(model.predict(pixels, verbose=0).argmax(-1) == [0, 1])
    assert report["files"][0]["refusal"] == ""
    model.layers[-1].bias.assign([0, np.nan])
    with pytest.raises(UserError, match="contains NaN or infinity"):
        export(model, tmp_path / "out", images=pixels, modes=["float32"])


def test_a_run_that_fails_leaves_the_old_folder_whole(tmp_path, monkeypatch):
    model, output = randomized(tiny("lenet5")), tmp_path / "out"
    pixels = images(4, 64, 1)
    converted = exporter.convert.convert_apart(model, ["float32"])
    monkeypatch.setattr(exporter.convert, "convert_apart", lambda *_: converted)
    export(model, output, images=pixels, modes=["float32"])
    before = {path.name: path.read_bytes() for path in output.iterdir()}

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    for writer, name in (("write_bytes", f"{model.name}_float32.tflite"), ("write_text", "labels.txt")):
        with monkeypatch.context() as full_disk:
            full_disk.setattr(Path, writer, fail)
            with pytest.raises(OSError, match=f"No space left on device: .*{name}"):
                export(model, output, images=pixels, modes=["float32"])
    replace = exporter.os.replace
    monkeypatch.setattr(
        exporter.os, "replace", lambda a, b: replace(a, b) if "part" not in str(a) else fail()
    )
    with pytest.raises(OSError, match="No space"):
        export(model, output, images=pixels, modes=["float32"])
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (images(1), "at least 4 images"),
        (np.repeat(images(1), 8, axis=0), "all the same"),
        (np.full((8, 64, 64, 3), 7.0), "all the same"),
        (images(8) / 255, r"pixels in \[0, 255\]"),
    ],
)
def test_calibration_images_that_are_of_no_use(pixels, words):
    with pytest.raises(ValueError, match=words):
        check_calibration(pixels)


def test_images_that_do_not_fit(tmp_path):
    model = tiny("resnet18")
    holed = images(2)
    holed[1, 5, 5, 0] = np.nan
    for pixels, words in (
        (images(2, 32), "shape"),
        (images(2) - 127, r"got \[-12"),
        (images(2) * 2, "255"),
        (holed, r"got \[nan, nan\]"),
        (images(2)[:0], "got an array of .0, 64, 64, 3."),
        (
            images(2)[0],
            r"\(images, height, width, channels\); got \(64, 64, 3\). One image is `images\[None\]`",
        ),
        (images(2)[0, 0], r"\(images, height, width, channels\); got \(64, 3\).$"),
        ([images(1)[0], images(1, 32)[0]], "array of numbers"),
        (np.full((2, 64, 64, 3), "x"), "array of numbers"),
    ):
        with pytest.raises(UserError, match=words):
            export(model, tmp_path / "out", images=pixels)
    for words, keywords in (
        ("`calibration`", {}),
        ("`labels` must be 2 integers from 0 to 2, as the network has 3 classes; got 3", {"labels": [0, 3]}),
        ("the network has 3 classes; got -1", {"labels": [0, -1]}),
        ("`labels` must be 2 integers .* got float64", {"labels": [0.0, 1.0]}),
        ("`labels` must be 2 integers", {"labels": ["a", "b"]}),
        ("`labels` must be 2 integers", {"labels": [[0], [1, 2]]}),
        ("`labels` must be 2 integers .* got int64 of .2, 3.", {"labels": [[0, 1, 0], [1, 0, 0]]}),
        ("`class_names` must be a list of 3 strings", {"class_names": "abc"}),
        ("`class_names` must be a list of 3 strings", {"class_names": [0, 1, 2]}),
        ("`class_names` must be 3 names of a line each; got 2", {"class_names": ["a", "b"]}),
        ("`model` must be a keras.Model; got str", {"model": "mobilenet_v1"}),
        (
            r"`class_names`: the name of class 'b\\nc' has a control character",
            {"class_names": ["a", "b\nc", "d"], "modes": ["float32"]},
        ),
        ("Unknown mode 'int2'", {"modes": ["int2"]}),
        (
            "must end in probabilities",
            {"modes": ["float32"], "model": tiny("lenet5", classifier_activation=None)},
        ),
    ):
        of = keywords.pop("model", model)
        pixels = images(2)[..., : getattr(of, "input_shape", [3])[-1]]
        keywords = {"modes": ["float32"]} | keywords if words != "`calibration`" else keywords
        with pytest.raises(UserError, match=words):
            export(of, tmp_path / "out", images=pixels, **keywords)
    assert not list(tmp_path.iterdir())
