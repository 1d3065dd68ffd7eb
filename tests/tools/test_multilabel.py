"""Multi-label classification from the shell: training, evaluation, prediction and export."""

import csv
import json
import re

import keras
import numpy as np
import pytest
from helpers import command
from PIL import Image

from kvision import opening, run_info
from kvision.names import counted
from kvision_export import runner
from kvision_export.exporter import export

CLASSES = ("blue", "green", "red")
SMALL = ["--model=lenet5", "--channels=3", "--batch_size=16", "--learning_rate=0.1", "--task=multilabel"]


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """A list of pictures each channel of which is bright or dark; some have no bright one."""
    root, random, rows = tmp_path_factory.mktemp("colours"), np.random.default_rng(0), []
    for i in range(160):
        present = random.uniform(size=3) < (0.4, 0.5, 0.3)
        image = random.integers(0, 60, (32, 32, 3)) + 60 * present
        Image.fromarray(image.astype(np.uint8)).save(root / f"{i}.png")
        names = [name for name, there in zip(("red", "green", "blue"), present, strict=True) if there]
        rows.append(f"{i}.png,{'|'.join(names)}")
    (root / "list.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    return root / "list.csv"


@pytest.fixture(scope="module")
def run(colours, tmp_path_factory):
    output = tmp_path_factory.mktemp("multilabel") / "run"
    arguments = ["kvision-train", *SMALL, f"--data=csv:{colours}", "--label_smoothing=0.1", "--epochs=2"]
    printed = command(*arguments, f"--output={output}")
    assert re.search(r"epoch 2/2: loss [\d.]+, macro_f1 [\d.]+; val [\d.]+, [\d.]+;", printed)
    assert "has all of its 2 epochs" in command(*arguments, f"--output={output}")
    return output


def test_a_run_says_what_it_learned(run):
    with open(run / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["val_loss"]) < float(rows[0]["val_loss"])
    assert {"macro_f1", "val_macro_f1", "val_micro_f1"} <= rows[0].keys()
    assert json.loads((run / run_info.RUN).read_text())["task"] == "multilabel"
    pixels = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype(np.float32)
    logits = keras.saving.load_model(run / "model.keras")(pixels)
    for source in (run, run / "model.keras"):
        opened = opening.open_model(str(source))
        assert (opened.task.name, opened.class_names) == ("multilabel", CLASSES)
        np.testing.assert_allclose(opened.model(pixels), keras.ops.sigmoid(logits), atol=1e-6)


def test_the_evaluation_is_that_of_the_predicted_labels(run, colours):
    written = run.parent / "figures.json"
    evaluated = command("kvision-evaluate", f"--model={run}", "--split=all", f"--json={written}")
    printed = command("kvision-predict", f"--model={run}", *sorted(colours.parent.glob("*.png")))
    predicted = {}
    for line in printed.splitlines():
        if line.endswith(".png"):
            name = line.rpartition("/")[2]
            predicted[name] = set()
        elif "%" in line and float(line.split("%")[0]) > 50:
            predicted[name].add(line.split()[-1])
    with open(colours) as file:
        truth = {row["path"]: {*row["label"].split("|")} - {""} for row in csv.DictReader(file)}
    right = sum(len(predicted[name] & truth[name]) for name in truth)
    given = sum(len(predicted[name]) + len(truth[name]) for name in truth)
    assert 0.5 < 2 * right / given < 1
    found = re.search(
        r"on 160 images: loss [\d.]+, mAP ([\d.]+) %, macro F1 [\d.]+ %, micro F1 ([\d.]+) %", evaluated
    )
    assert found.group(2) == f"{200 * right / given:.2f}"
    of_class = [
        float(value) for value in re.findall(r"^  (?:blue|green|red) +([\d.]+) %$", evaluated, re.MULTILINE)
    ]
    assert float(found.group(1)) == pytest.approx(np.mean(of_class), abs=0.02)
    figures = json.loads(written.read_text())["metrics"]
    assert {*figures} == {"loss", "map", "macro_f1", "micro_f1", "class_ap"}
    assert [round(100 * value, 2) for value in figures["class_ap"].values()] == of_class


@pytest.mark.slow
def test_files_are_judged_by_map(run):
    arguments = ["kvision-export", f"--model={run}", "--calibration_images=8", "--max_drop=5", "--nocompare"]
    printed = command(*arguments, "--quantize=float16,int8")
    report = json.loads((run / "export/report.json").read_text())
    assert (report["task"], report["score"], report["doubts"]) == ("multilabel", "mAP", [])
    pixels = np.random.default_rng(0).uniform(0, 100, (4, 32, 32, 3)).round().astype(np.float32)
    expected = opening.open_model(str(run)).model.predict(pixels, verbose=0)
    for file in report["files"]:
        score = file["accuracy"]["scores"]["mAP"]
        assert f"{100 * score['value']:.1f}" in printed
        assert score["interval"][0] <= score["value"] <= score["interval"][1]
        assert file["refusal"] == ""
        assert file["census"]["metadata"]["labels"] == list(CLASSES)
        found = runner.predict(run / "export" / file["file"], pixels)
        np.testing.assert_allclose(found, expected, atol=0.1)
    assert "its mAP on 32 images" in (run / "export/report.html").read_text()
    sentence = command(*arguments, "--quantize=float32", "--answer=mask", code=2)
    assert "answers for whole images, and a mask is of pixels" in sentence


@pytest.mark.slow
def test_a_file_of_others_that_ends_in_sigmoids(colours, tmp_path):
    """With labels by mAP, and by agreement without."""
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 15)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3, "sigmoid")(x), name="means")
    model.layers[-1].set_weights([np.eye(3, dtype="float32")[:, ::-1], np.full(3, -4, "float32")])
    model.save(tmp_path / "means.keras")
    (tmp_path / "names").write_text("\n".join(CLASSES) + "\n")
    arguments = [f"--model={tmp_path / 'means.keras'}", f"--labels={tmp_path / 'names'}"]
    evaluated = command("kvision-evaluate", *arguments, f"--data=csv:{colours}")
    assert "mAP 100.00 %, macro F1 100.00 %" in evaluated
    unchecked = "Whether the Keras model expects RGB pixels in [0, 255] was not checked"
    assert unchecked in evaluated
    export_ = ["kvision-export", *arguments, "--quantize=float32"]
    printed = command(*export_, f"--calibration=csv:{colours}", f"--output={tmp_path / 'one'}")
    assert unchecked in printed
    report = json.loads((tmp_path / "one/report.json").read_text())
    assert report["keras"]["scores"]["macro F1"]["value"] == 1
    folder = tmp_path / "images"
    folder.mkdir()
    for path in [*colours.parent.glob("*.png")][:24]:
        (folder / path.name).write_bytes(path.read_bytes())
    printed = command(*export_, f"--calibration=folder:{folder}", f"--output={tmp_path / 'two'}")
    assert "mAP is left out, as the images have no labels" in printed
    images = counted(json.loads((tmp_path / "two/report.json").read_text())["images"], "image")
    page = (tmp_path / "two/report.html").read_text()
    assert f"of the labels that it or the Keras model gives to {images}, 100.0 % are given by both" in page
    pixels = np.zeros((2, 32, 32, 3))
    for labels in (np.zeros(2, int), np.full((2, 3), 2)):
        with pytest.raises(ValueError, match=r"must be \(2, 3\) of 1 where an image has a class, and else 0"):
            export(model, tmp_path / "out", images=pixels, modes=["float32"], labels=labels)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model=fcn8s", "--data=shapes"], "`--task` of fcn8s must be segmentation; got multilabel"),
        (
            ["--task=segmentation", "--data=shapes"],
            "`--task` of lenet5 must be classification or multilabel; got segmentation",
        ),
        (["--data=shapes"], "'shapes' gives masks and no labels: digits, folder:PATH"),
        (["--data=digits", "--dice_weight=1"], "`--dice_weight` is for segmentation; lenet5 learns mul"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert words in command("kvision-train", *SMALL, *arguments, code=2)
    assert not list(tmp_path.iterdir())
