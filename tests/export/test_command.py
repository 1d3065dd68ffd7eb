"""kvision-export as a shell runs it, and `exporter.export` as Python calls it."""

import html
import importlib.metadata
import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import TINY, brightness, command, dark_and_light, randomized, tiny, tiny_segmenter
from tflite import images, io_details

from kvision.data.sources.shapes import CLASSES
from kvision.errors import UserError
from kvision.run_info import RunInfo
from kvision.tasks import Segmentation
from kvision_export import exporter
from kvision_export.checks import check_calibration
from kvision_export.exporter import export
from kvision_export.latency import milliseconds
from kvision_export.tolerance import Tolerance


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder of a network that tells digits apart."""
    output = tmp_path_factory.mktemp("runs") / "run"
    command("kvision-train", *TINY, "--data=digits", "--epochs=8", f"--output={output}")
    return output


def top1(accuracy):
    return accuracy["scores"]["top-1"]["value"]


def check_figures(report, page):
    """Whether the page's figures are the report's."""
    rows = [row.partition("</tr>")[0] for row in page.split("<tr") if "<td>" in row]
    for file, row in zip(report["files"], rows, strict=False):
        right, near, ms = file["accuracy"], file["fidelity"], file["latency_ms"]
        shares = [
            share for score in right["scores"].values() for share in (score["value"], *score["interval"])
        ]
        expected = [
            f"{file['size'] / 1000:.0f}",
            *(f"{100 * share:.1f}" for share in shares),
            *(f"{100 * drop:.2f}" for drop in (right["drop"], *right["drop_interval"])),
            f"{100 * near['agreement']:.1f}",
            f"{near['kl']:.4f}",
            *([] if file["mode"] == "float32" else [f"{near['sqnr']:.1f}"]),
            *map(milliseconds, (ms["1"], ms["2"])),
            f"{file['float_latency_ms']['1'] / ms['1']:.2f}",
        ]
        cells = re.sub(r"<[^>]*>|(?<=\d)\u2013", " ", row.partition("</td>")[2])
        assert re.findall(r"-?\d+(?:\.\d+)?", cells) == expected
        for operator, count in file["census"]["operators"].items():
            assert f"<td>{operator}</td><td>{count}</td>" in page


def test_the_command_writes_files_and_a_report(run):
    modes = ["float32", "float16", "dynamic", "int8"]
    arguments = ["kvision-export", f"--model={run}", f"--quantize={','.join(modes)}",
                 "--calibration_images=20", "--max_drop=5", "--license=Apache-2.0"]  # fmt: skip
    printed = command(*arguments)
    output = run / "export"
    assert {path.name for path in output.iterdir()} == {
        "labels.txt", "report.json", "report.html", *(f"mobilenet_v1_{mode}.tflite" for mode in modes),
    }  # fmt: skip
    assert (output / "labels.txt").read_text() == (run / "labels.txt").read_text()
    report = json.loads((output / "report.json").read_text())
    assert [file["mode"] for file in report["files"]] == [*modes, "TFLiteConverter"]
    for file in report["files"][:4]:
        assert file["size"] == (output / file["file"]).stat().st_size
        assert file["latency_ms"].keys() == {"1", "2"}
        assert file["refusal"] == ""
        assert file["float_latency_ms"] == report["files"][0]["float_latency_ms"]
        assert f"{100 * top1(file['accuracy']):.1f}" in printed
        assert file["census"]["metadata"]["labels"] == list("0123456789")
        assert file["census"]["metadata"]["license"] == "Apache-2.0"
    assert report["files"][0]["fidelity"]["largest_difference"] < 1e-4
    *_, size = (step["size"] for step in report["files"][3]["steps"] if step["kept"])
    assert size == report["files"][3]["size"]
    assert top1(report["keras"]) > 0.8
    page = (output / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 5 * 20
    assert "http" not in page
    assert report["doubts"] == []
    check_figures(report, page)


def test_an_export_is_replaced_by_one_whose_file_is_outside_its_tolerance(run, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    for name in ("report.json", "old.tflite"):
        (output / name).write_text('{"files": [{"file": "old.tflite"}]}')
    printed = command("kvision-export", f"--model={run}", "--target=gpu", "--max_difference=0",
                      "--images=20", f"--output={output}", code=1)  # fmt: skip
    assert "float32.tflite is outside its tolerance: a probability differs by " in printed
    assert "Use mobilenet_v1_float16.tflite." in printed
    files = json.loads((output / "report.json").read_text())["files"]
    assert [file["mode"] for file in files] == ["float32", "float16"]
    assert not (output / "old.tflite").exists()
    assert f"removed files of the earlier export in '{output}': old.tflite\n" in printed


def test_errors(run, tmp_path):
    for arguments, words in (
        ([], "Give --model, or --check"),
        (
            [f"--model={run}", "--quantize=int2"],
            "Valid modes: float32, float16, dynamic, int8, int16x8, int4",
        ),
        ([f"--model={run}", "--quantize="], "`--quantize` names no mode"),
        (
            [f"--model={run}", "--target=gpu", "--io_dtype=int8"],
            "the modes are float32, float16: add",
        ),
        (["--model=mobilenet_v1", "--calibration=digits"], "mobilenet_v1 has fresh weights"),
        ([f"--model={run / 'model.keras'}"], "A dataset is needed"),
        ([f"--model={run}", f"--labels={tmp_path.parent / 'nowhere'}"], "No such file"),
        (["--model=mobilenet_v9", "--calibration=digits"], "Did you mean"),
        ([f"--model={run}", "--output=/dev/null/x"], "/dev/null"),
        (
            [f"--model={run}", f"--calibration=folder:{tmp_path}", f"--output={tmp_path}/out"],
            "must be outside the folder of the images",
        ),
        ([f"--model={run}", f"--output={run}"], "neither empty nor an earlier export"),
    ):
        assert words in command("kvision-export", *arguments, code=2)
    assert not list(tmp_path.iterdir())
    assert (run / "model.keras").exists()
    other = tmp_path / "other"
    other.mkdir()
    for name in ("report.json", "thesis.tex"):
        (other / name).write_text("{}")
    sentence = command("kvision-export", f"--model={run}", f"--output={other}", code=2)
    assert "neither empty nor an earlier export" in sentence
    assert (other / "thesis.tex").exists()


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    """A run folder of an untrained network that segments shapes."""
    folder = tmp_path_factory.mktemp("segmenter")
    model = randomized(
        tiny_segmenter("lraspp_mobilenet_v3_large", input_shape=(64, 64, 3), num_classes=len(CLASSES))
    )
    model.save(folder / "model.keras")
    (folder / "labels.txt").write_text("\n".join(CLASSES) + "\n")
    (folder / "run.json").write_text(RunInfo(task="segmentation", model=model.name, data="shapes").to_json())
    return folder


def test_segmentation(segmenter):
    """Files, figures and pictures; folders without masks give agreement alone."""
    arguments = ["kvision-export", f"--model={segmenter}", "--images=24", "--calibration_images=4",
                 "--max_drop=100", "--nocompare", "--answer=mask"]  # fmt: skip
    printed = command(*arguments, "--quantize=float32,int8")
    report = json.loads((segmenter / "export/report.json").read_text())
    assert report["task"] == "segmentation"
    assert "mean IoU" in printed
    assert "top-1" not in printed
    assert report["doubts"] == []
    for file in report["files"]:
        assert file["census"]["output"]["dtype"] == "uint8"
        assert file["census"]["operators"].keys() & {"ARG_MAX v1", "ARG_MAX v2"}
        assert file["census"]["metadata"]["labels"] == list(CLASSES)
        assert f"{100 * file['accuracy']['scores']['mean IoU']['value']:.1f}" in printed
    assert report["files"][0]["fidelity"]["agreement"] > 0.999
    page = (segmenter / "export/report.html").read_text()
    assert page.count("data:image/png;base64,") == 2 * 20 * 4  # the image and three masks
    assert "Side by side: the image, its mask, the Keras model's mask and the file's." in page
    assert "background: #800000" in page  # of the first class after the background
    check_figures(report, page)


def test_segmentation_without_masks(segmenter, tmp_path):
    data = dark_and_light(tmp_path / "data")
    printed = command("kvision-export", f"--model={segmenter}", f"--calibration=folder:{data}", "--nocompare",
                      "--quantize=float32", f"--output={tmp_path / 'out'}")  # fmt: skip
    assert "Mean IoU is left out, as the images have no masks" in " ".join(printed.split())
    assert "100.0 % of the pixels of 16 images" in (tmp_path / "out/report.html").read_text()


def test_answers_that_a_network_does_not_have(tmp_path):
    model = tiny("mobilenet_v1")
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


def layers(dtype="float32"):
    kinds = keras.layers
    return [
        kinds.Rescaling(1 / 255, dtype=dtype), kinds.Conv2D(4, 3, strides=2, activation="relu", dtype=dtype),
        kinds.GlobalAveragePooling2D(dtype=dtype), kinds.Dense(2, dtype=dtype),
    ]  # fmt: skip


def test_a_sequential_file_of_logits_of_any_size(tmp_path):
    keras.Sequential([keras.Input((None, None, 3)), *layers()], name="any").save(tmp_path / "any.keras")
    folder = tmp_path / "data"
    folder.mkdir()
    arguments = ["kvision-export", f"--model={tmp_path / 'any.keras'}", f"--output={tmp_path / 'out'}",
                 f"--calibration=folder:{dark_and_light(folder)}", "--quantize=float32"]  # fmt: skip
    assert "any takes images of any size: give `--image_size`." in command(*arguments, code=2)
    (tmp_path / "names").write_text("dark\nlight\n")
    command(*arguments, "--image_size=32", f"--labels={tmp_path / 'names'}", code=1)  # it is untrained
    assert (tmp_path / "out/labels.txt").read_text() == "dark\nlight\n"


def test_a_file_that_wants_other_pixels_than_those_in_0_to_255(tmp_path):
    """Flags say which, the file makes them of pixels and says so, and what contradicts itself is refused."""
    data = dark_and_light(tmp_path / "data")
    run = brightness(tmp_path / "run", "dark", "light", scale=0.5)  # of pixels in [-1, 1], nearly
    model = keras.saving.load_model(run / "model.keras")
    model.layers[-1].set_weights([np.array([[-20, 20]] * 3, "float32"), np.zeros(2, "float32")])
    model.save(tmp_path / "foreign.keras")
    arguments = ["kvision-export", f"--model={tmp_path / 'foreign.keras'}", f"--calibration=folder:{data}",
                 "--quantize=float32", f"--output={tmp_path / 'out'}"]  # fmt: skip
    printed = command(*arguments, code=1)
    assert "give `--input_range=-1,1`, or the model a first layer" in " ".join(printed.split())
    printed = " ".join(command(*arguments, "--input_range=0,1", code=1).split())
    assert "with the (pixel - 0) / 255 that `--input_range`, `--mean` and `--std` ask for: " in printed
    assert "give `--input_range=-1,1` instead" in printed
    reports = []
    for flags in (["--input_range=-1,1"], ["--mean=127.5,127.5,127.5", "--std=127.5"]):
        command(*arguments, *flags)
        reports.append(json.loads((tmp_path / "out/report.json").read_text()))
        assert top1(reports[-1]["keras"]) == 1
        assert reports[-1]["preprocess"] == {"mean": [127.5] * 3, "std": [127.5] * 3}
        about = reports[-1]["files"][0]["census"]["metadata"]
        assert about["image"].endswith("The file itself normalises them: (pixel - 127.5) / 127.5.")
        assert (about["mean"], about["std"]) == ([0], [1])
    assert reports[0]["files"][0]["fidelity"]["agreement"] == 1
    for flags, words in (
        (["--input_range=-1,1", "--mean=3"], "say the same in two ways"),
        (["--input_range=1,-1"], "the lower first; got 1,-1"),
        (["--input_range=1"], "must be two numbers"),
        (["--std=0"], "`--std` must be positive numbers"),
        (["--mean=1,x,3"], "`--mean` must be numbers"),
        (["--mean=nan"], "`--mean` must be numbers"),
        (["--mean=100,120", "--std=50"], "images of 3 channels; got a mean and std of 2"),
        (["--mean=100,120,130", "--std=50,60"], "one value a channel, or one"),
        (["--mean=0.5", "--std=0.25"], "give --mean=127.5 --std=63.75"),
    ):
        assert words in command(*arguments, *flags, code=2)
    command("kvision-train", *TINY, "--data=digits", "--epochs=1", f"--output={tmp_path / 'own'}")
    sentence = command("kvision-export", f"--model={tmp_path / 'own'}", "--input_range=-1,1", code=2)
    assert "has a layer 'preprocess' already, which makes (pixel - 127.5) / 127.5 of pixels" in sentence


def test_a_keras_model_whose_classes_have_another_order_is_doubted(tmp_path):
    """Named, its classes are found by their names; without names, its answers speak against it."""
    (tmp_path / "data").mkdir()
    data = dark_and_light(tmp_path / "data")
    run = brightness(tmp_path / "run", "light", "dark")
    model = keras.saving.load_model(run / "model.keras")
    model.layers[-1].set_weights([-weight for weight in model.layers[-1].get_weights()])
    model.save(run / "model.keras")
    arguments = ["kvision-export", f"--calibration=folder:{data}", "--quantize=float32"]
    printed = command(*arguments, f"--model={run}")
    assert "DOUBT" not in printed
    report = json.loads((run / "export/report.json").read_text())
    assert (top1(report["keras"]), report["doubts"]) == (1, [])
    assert report["files"][0]["census"]["metadata"]["labels"] == ["light", "dark"]
    printed = command(*arguments, f"--model={run / 'model.keras'}", f"--output={tmp_path / 'out'}", code=1)
    assert (
        "by position, as those of the network are numbered: output 0 is 'dark', output 1 is 'light'"
        in printed
    )
    assert "DOUBT" in printed
    (doubt,) = json.loads((tmp_path / "out/report.json").read_text())["doubts"]
    assert "no better than chance" in doubt
    assert doubt in " ".join(printed.split())
    assert doubt in (tmp_path / "out/report.html").read_text()
    assert (tmp_path / "out/labels.txt").read_text() == "0\n1\n"


@pytest.mark.parametrize(
    ("layout", "reason"),
    [
        ("flat", "has no folders but 80 files"),
        ("mixed", "network: 'dark', 'light'"),
        ("other", "'bright', 'dim'"),
    ],
)
def test_images_without_labels(layout, reason, tmp_path):
    """Ranges and agreement need none; images beside folders of other classes are read too."""
    data = dark_and_light(tmp_path / "data")
    for folder in list(data.iterdir()):
        for path in list(folder.iterdir()) if layout != "other" else ():
            if layout == "flat" or int(path.stem) >= 2:
                path.rename(data / f"{folder.name}-{path.name}")
    if layout == "flat":
        [folder.rmdir() for folder in data.iterdir() if folder.is_dir()]
    else:
        (data / "dark").rename(data / "dim")
        (data / "light").rename(data / "bright")
    run = brightness(tmp_path / "run", "dark", "light")
    printed = command("kvision-export", f"--model={run}", f"--calibration=folder:{data}", "--nocompare",
                      "--quantize=float32,int8", "--calibration_images=4", "--min_agreement=0.5")  # fmt: skip
    report = json.loads((run / "export/report.json").read_text())
    why, no_labels, few, ranges, unchecked = report["remarks"]
    assert "without labels" in why
    assert reason in why
    assert no_labels.startswith("Top-1 is left out, as the images have no labels")
    assert f"{report['images']} images, each of which is 6.2 %" in few
    assert "8 calibration images" in ranges
    assert "could not be checked whether the Keras model expects RGB pixels in [0, 255]; " in unchecked
    assert "(see `--input_range`, `--mean` and `--std`)" in unchecked
    assert report["images"] == 16
    assert report["keras"] is None
    assert "top-1" not in printed
    page = (run / "export/report.html").read_text()
    assert "top-1" not in page
    for remark in report["remarks"]:
        assert " ".join(remark.split()) in " ".join(printed.split())
        assert remark in html.unescape(page)
    for file in report["files"]:
        assert file["accuracy"] is None
        assert f"{100 * file['fidelity']['agreement']:.1f}" in printed


def test_a_file_for_the_edge_tpu(run, tmp_path):
    """Its ends and all between are int8."""
    command("kvision-export", f"--model={run}", "--target=edgetpu", "--images=20", "--calibration_images=8",
            "--nocompare", "--max_drop=50", f"--output={tmp_path / 'out'}")  # fmt: skip
    (file,) = json.loads((tmp_path / "out/report.json").read_text())["files"]
    image, probabilities, _ = io_details((tmp_path / "out" / file["file"]).read_bytes())
    assert (image["dtype"], probabilities["dtype"]) == (np.int8, np.int8)
    assert {name.split()[0] for name in file["census"]["operators"]}.isdisjoint({"QUANTIZE", "DEQUANTIZE"})
    assert not any("float" in step["name"] and step["kept"] for step in file["steps"])


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
        self.inside = keras.Sequential([*layers(), keras.layers.Softmax()])

    def call(self, inputs):
        return self.inside(inputs)


def not_called():
    return Subclassed().inside


def mixed():
    inside = keras.Sequential([keras.Input((64, 64, 3)), *layers("mixed_float16"), keras.layers.Softmax()])
    return keras.Sequential([keras.Input((64, 64, 3)), inside])


@pytest.mark.parametrize("make", [Subclassed, not_called, mixed])
def test_from_python_for_models_of_every_kind(make, tmp_path):
    model = make()
    report = export(model, tmp_path / "out", images=images(4), modes=["float32"])
    assert report["files"][0]["refusal"] == ""
    assert model(images(1)).shape == (1, 2)


def test_from_python_for_an_npu_without_labels(tmp_path):
    model = randomized(tiny("mobilenet_v1"))
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
    model = tiny("mobilenet_v1")
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
