"""Exports of networks that others wrote, and of images without labels."""

import html
import json

import keras
import numpy as np
import pytest
from helpers import brightness, command, dark_and_light, tiny
from tflite import foreign_layers, top1


@pytest.mark.slow
def test_a_sequential_file_of_logits_of_any_size(tmp_path):
    keras.Sequential([keras.Input((None, None, 3)), *foreign_layers()], name="any").save(
        tmp_path / "any.keras"
    )
    folder = tmp_path / "data"
    folder.mkdir()
    arguments = ["kvision-export", f"--model={tmp_path / 'any.keras'}", f"--output={tmp_path / 'out'}",
                 f"--calibration=folder:{dark_and_light(folder)}", "--quantize=float32"]  # fmt: skip
    assert "any takes images of any size: give `--image_size`." in command(*arguments, code=2)
    (tmp_path / "names").write_text("dark\nlight\n")
    command(*arguments, "--image_size=32", f"--labels={tmp_path / 'names'}", code=1)  # it is untrained
    assert (tmp_path / "out/labels.txt").read_text() == "dark\nlight\n"


@pytest.fixture
def of_other_pixels(tmp_path):
    """The command that exports a network of pixels in [-1, 1], nearly."""
    data = dark_and_light(tmp_path / "data")
    run = brightness(tmp_path / "run", "dark", "light", scale=0.5)
    model = keras.saving.load_model(run / "model.keras")
    model.layers[-1].set_weights([np.array([[-20, 20]] * 3, "float32"), np.zeros(2, "float32")])
    model.save(tmp_path / "foreign.keras")
    return ["kvision-export", f"--model={tmp_path / 'foreign.keras'}", f"--calibration=folder:{data}",
            "--quantize=float32", "--nocompare", f"--output={tmp_path / 'out'}"]  # fmt: skip


@pytest.mark.parametrize(
    "flags",
    [
        ["--input_range=-1,1"],
        pytest.param(["--mean=127.5,127.5,127.5", "--std=127.5"], marks=pytest.mark.slow),
    ],
)
def test_a_file_makes_the_pixels_that_its_network_wants(flags, of_other_pixels, tmp_path):
    command(*of_other_pixels, *flags)
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert top1(report["keras"]) == 1
    assert report["preprocess"] == {"mean": [127.5] * 3, "std": [127.5] * 3}
    about = report["files"][0]["census"]["metadata"]
    assert about["image"].endswith("The file itself normalises them: (pixel - 127.5) / 127.5.")
    assert (about["mean"], about["std"]) == ([0], [1])
    assert report["files"][0]["fidelity"]["agreement"] == 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "give `--input_range=-1,1`, or the model a first layer"),
        pytest.param(["--input_range=0,1"], "give `--input_range=-1,1` instead", marks=pytest.mark.slow),
    ],
)
def test_other_pixels_are_doubted(flags, said, of_other_pixels):
    printed = " ".join(command(*of_other_pixels, *flags, code=1).split())
    assert said in printed
    asked = "with the (pixel - 0) / 255 that `--input_range`, `--mean` and `--std` ask for: "
    assert (asked in printed) == bool(flags)


@pytest.mark.slow
def test_pixels_that_contradict_themselves(of_other_pixels, tmp_path):
    arguments = of_other_pixels
    for flags, words in (
        (["--input_range=-1,1", "--mean=3"], "say the same in two ways"),
        (["--mean=100,120", "--std=50"], "images of 3 channels; got a mean and std of 2"),
    ):
        assert words in command(*arguments, *flags, code=2)
    tiny("mobilenet_v1").save(tmp_path / "own.keras")
    arguments[1] = f"--model={tmp_path / 'own.keras'}"
    sentence = command(*arguments, "--input_range=-1,1", code=2)
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
        pytest.param("flat", "has no folders but 80 files", marks=pytest.mark.slow),
        pytest.param("mixed", "network: 'dark', 'light'", marks=pytest.mark.slow),
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
    assert "Whether the Keras model expects RGB pixels in [0, 255] was not checked" in unchecked
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
