"""Evaluation, prediction, help and errors of the commands, as a shell runs them."""

import json
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import TINY, brightness, command, renamed, rows

import kvision.data
from kvision import network_data, opening, run_info
from kvision_tools.commands.predict import distinct


def test_evaluate_and_predict(run, folder, tmp_path):
    output, _ = run
    printed = command("kvision-evaluate", f"--model={output}", f"--json={tmp_path / 'figures.json'}")
    best = max(float(row["val_accuracy"]) for row in rows(output))
    assert f"top-1 {100 * best:.2f} %" in printed
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["metrics"] == {"loss": pytest.approx(figures["metrics"]["loss"]), "top1": best}
    assert f"loss {figures['metrics']['loss']:.4f}," in printed
    assert (figures["split"], figures["images"], figures["data"]) == ("val", 16, f"folder:{folder}")
    assert "Warning:" not in printed
    assert "top-2" not in printed  # of two classes
    printed = command("kvision-predict", f"--model={output}", "--topk=1", folder / "light" / "0.png")
    assert printed.splitlines()[1].split()[-2:] in (["0", "dark"], ["1", "light"])
    printed = command("kvision-evaluate", f"--model={output}", "--crop=0.5", "--interpolation=bilinear")
    assert "on 16 images" in printed
    assert "`--crop` must be in (0, 1]; got 0.0" in command(
        "kvision-evaluate", f"--model={output}", "--crop=0", code=2
    )


def test_predict_takes_folders_and_patterns_and_skips_unreadable_files(run, folder, tmp_path, monkeypatch):
    (tmp_path / "a\x1b[31m[1].png").write_bytes((folder / "dark" / "1.png").read_bytes())
    output, _ = run
    shutil.copytree(output, tmp_path / "run")
    monkeypatch.setenv("HOME", str(tmp_path))
    (folder / "dark" / "broken.png").symlink_to("nowhere")
    (folder / "dark" / ".hidden").mkdir()
    (folder / "dark" / ".hidden" / "0.png").write_bytes((folder / "dark" / "0.png").read_bytes())
    pattern = str(folder / "l*" / "[13].png")
    arguments = ["kvision-predict", "--model=~/run", "--topk=1", f"{folder}/dark", pattern]
    lines = command(*arguments, tmp_path / "a\x1b[31m[1].png").splitlines()
    paths = [line for line in lines if line.startswith("/")]
    (folder / "dark" / "broken.png").unlink()
    pngs = sorted(str(path) for path in (folder / "dark").glob("*.png"))
    shutil.rmtree(folder / "dark" / ".hidden")
    assert paths == [
        *pngs,
        *(str(folder / "light" / f"{i}.png") for i in (1, 3)),
        f"{tmp_path}/a\\x1b[31m[1].png",
    ]
    assert any(line.startswith(f"'{folder}/dark/notes.txt' failed to decode: ") for line in lines)
    assert f"'{folder}/dark/broken.png' failed to decode: it is a broken link, or not a file." in lines
    assert "Skipped 2 unreadable files." in lines
    assert "notes.txt' failed to decode" in command(*arguments, "--strict", code=2)
    (tmp_path / "empty").mkdir()
    for name, words in (("empty", "has no files"), ("*.gif", "No such file or directory")):
        assert words in command(*arguments, tmp_path / name, code=2)


def test_pictures_of_equal_names_have_names_of_their_own():
    assert distinct(["x/a.jpg", "y/a.jpg", "z/a_2.jpg", "a.png", "b.png"]) == [
        "a",
        "a_2",
        "a_2_2",
        "a_3",
        "b",
    ]


def test_evaluate_matches_classes_by_name(folder, tmp_path):
    model = brightness(tmp_path / "run", "dark", "light")
    arguments = ["kvision-evaluate", f"--model={model}"]
    order = renamed(folder, tmp_path / "order", ("dark", "Light"))
    assert "top-1 100.00 %" in command(*arguments, f"--data=folder:{order}")
    other = renamed(folder, tmp_path / "other", ("canine", "feline"))
    sentence = command(*arguments, f"--data=folder:{other}", code=2)
    assert "'canine', 'feline'; network: 'dark', 'light'" in sentence
    (tmp_path / "names").write_text("feline\ncanine\n")
    printed = command(*arguments, f"--data=folder:{other}", f"--labels={tmp_path / 'names'}")
    assert "top-1 0.00 %" in printed
    printed = command(*arguments, f"--data=folder:{other}", "--labels=numbers")
    assert "top-1 100.00 %" in printed
    assert "numbered: output 0 is 'canine', output 1 is 'feline'." in printed


def test_the_pixels_of_a_file_that_others_wrote(folder, tmp_path):
    """A network of pixels in [-1, 1] is doubted, and given them by flags."""
    inputs = keras.Input((32, 32, 3))
    outputs = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(inputs))
    model = keras.Model(inputs, outputs, name="foreign")
    model.layers[-1].set_weights([np.array([[-20, 20]] * 3, "float32"), np.zeros(2, "float32")])
    model.save(tmp_path / "foreign.keras")
    arguments = ["kvision-evaluate", f"--model={tmp_path / 'foreign.keras'}", f"--data=folder:{folder}",
                 "--split=all", "--labels=numbers"]  # fmt: skip
    printed = command(*arguments)
    assert "top-1 50.00 %" in printed
    assert "With RGB pixels in [-1, 1] the Keras model would be right on 100.0 % of 80 " in printed
    assert "give `--input_range=-1,1`, or the model a first layer" in printed
    printed = command(*arguments, "--input_range=-1,1")
    assert "top-1 100.00 %" in printed
    assert "Keras model" not in printed
    predict = ["kvision-predict", arguments[1], "--topk=1", folder / "dark" / "0.png"]
    assert "%  1  1" in command(*predict)
    assert "100.0 %  0  0" in command(*predict, "--mean=127.5", "--std=127.5")
    assert "the lower first; got 1,-1" in command(*predict, "--input_range=1,-1", code=2)


def test_a_run_is_evaluated_as_it_was_validated(run, folder, tmp_path):
    def images(opened, **how):
        data = network_data.load_data(opened, None, "val", **how)
        return next(iter(data.dataset))["image"].numpy()

    shutil.copytree(run[0], tmp_path / "run")
    opened = opening.open_model(str(tmp_path / "run"))
    assert (opened.crop, opened.interpolation) == (0.9, "bicubic")
    how = {"image_size": (32, 32), "crop": 0.9, "interpolation": "bicubic"}
    data = kvision.data.load(f"folder:{folder}", "val", **how)
    np.testing.assert_array_equal(images(opened), next(iter(data.dataset))["image"])
    flags = tmp_path / "run" / run_info.FLAGS
    older = [line for line in flags.read_text().splitlines() if not line.startswith(("--crop", "--inter"))]
    flags.write_text("\n".join(older) + "\n")
    (tmp_path / "run" / run_info.RUN).unlink()
    older = opening.open_model(str(tmp_path / "run"))
    assert (older.crop, older.interpolation) == (1.0, "bilinear")
    np.testing.assert_array_equal(images(older), images(opened, crop=1.0, interpolation="bilinear"))
    assert not np.array_equal(images(older), images(opened))


def test_info():
    assert "efficientnet_b7" in command("kvision-info")
    listed = command("kvision-info", "mobilenet_v3*")
    assert "2,542,856" in listed
    assert "efficientnet" not in listed
    described = command("kvision-info", "efficientnet_b2")
    assert "width_multiplier = 1.1" in described
    assert all(row.tag in described for row in kvision.info("efficientnet_b2").weights)
    assert re.search(r"AP %.* 51.10 ", command("kvision-info", "yolox_x"), re.DOTALL)
    described = command("kvision-info", "fcn8s")
    assert "kvision.segmentation.FCNVariant" in described
    assert "It has no published weights." in described
    assert "Did you mean 'mobilenet_v2'" in command("kvision-info", "mobilenetv2", code=2)


@pytest.mark.parametrize("name", ["train", "evaluate", "predict", "info", "export", "launch", "benchmark"])
def test_help(name):
    printed = command(f"kvision-{name}", "--help")
    assert printed.startswith(f"kvision-{name}: ")
    assert name != "train" or "Height and width of the input in pixels; the network's own by" in printed
    if name not in ("info", "launch"):
        assert "--model=MODEL" in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["kvision-train", "--model=mobilenetv2", "--data=digits"], "Did you mean 'mobilenet_v2'"),
        (["kvision-train", *TINY, "--data=digitz"], "Did you mean 'digits'"),
        (["kvision-train", *TINY, "--data=digits", "--optimizer=adam"], "got 'adam'. Did you mean 'adamw'?"),
        (["kvision-train", *TINY, "--data=."], "Did you mean 'folder:.'?"),
        (["kvision-train", *TINY, "--data=digits", "--epochs=0"], "a positive integer; got '0'."),
        (["kvision-train", *TINY, "--data=digits", "--epochs=two"], "a positive integer; got 'two'."),
        (["kvision-train", *TINY, "--data=digits", "--epochs"], "`--epochs` needs a value: Passes over"),
        (["kvision-train", *TINY, "--data=digits", "--clip_norm=x"], "a non-negative number; got 'x'."),
        (["kvision-train", *TINY, "--data=digits", "--jit_compile=maybe"], "true or false; got 'maybe'."),
        (["kvision-train", *TINY, "--data=digits", "--nostrict=1"], "--nostrict=1 does not take an argument"),
        (["kvision-train", "--flagfile=nofile"], "`--flagfile` cannot be read: No such file or directory"),
        (["kvision-train", *TINY, "--lerning_rate=1"], "`--lerning_rate`. Did you mean `--learning_rate` or"),
        (["kvision-train", *TINY, "--data=digits", "--image_size=16"], "32 x 32"),
        (["kvision-train", *TINY, "--data=digits", "--image_size=1000000"], "[1, 16384]"),
        (["kvision-train", *TINY, "--data=digits", "--model_kwarg=width=1"], "filters"),
        (["kvision-train", *TINY, "--data=digits", "--batch_size=5000"], "1437"),
        (["kvision-train", *TINY, "--data=digits", "--output=/dev/null/run"], "'/dev/null' is a file"),
        (["kvision-train", *TINY, "--data=folder:/nowhere"], "/nowhere"),
        (["kvision-train", *TINY, "--data=digits", "digits"], "Unexpected argument 'digits'"),
        (["kvision-train", "--data=digits"], "--model"),
        (["kvision-train", *TINY, "--data=digits", "--model_kwarg=num_classes=7"], "the dataset has them"),
        (
            ["kvision-train", *TINY, "--data=digits", "--model_kwarg=dropout_rate=2"],
            "from 0 to below 1; got 2",
        ),
        (
            ["kvision-train", *TINY, "--data=digits", "--model_kwarg=filters=x"],
            "`filters` must be a positive integer; got 'x'",
        ),
        (["kvision-train", *TINY, "--data=digits", "--model_kwarg=norm_momentum=0.5"], "give one"),
        (
            ["kvision-train", *TINY, "--data=digits", "--epochs=1", "--warmup_epochs=1"],
            "must be below `--epochs`",
        ),
        (
            ["kvision-train", *TINY, "--data=digits", "--warmup_epochs=10", "--crop=0"],
            "`--crop` must be positive; got 0.0. `--warmup_epochs` (10.0) must be below",
        ),
        (["kvision-evaluate", "--model=mobilenet_v1", "--data=digits"], "--weights"),
        (["kvision-evaluate", "--model=lenet5", "--json=/nowhere/a.json"], "`--json` must be a file in a"),
        (
            ["kvision-evaluate", "--model=nowhere"],
            "A run folder, a .keras file or a model",
        ),
        (
            ["kvision-predict", "--model=/nowhere", __file__],
            "The folder or file '/nowhere' does not exist.",
        ),
        (["kvision-predict", "--model=mobilenet_v1"], "Which images"),
        (["kvision-launch", "nowhere", "--model=x"], "There is no command 'nowhere'."),
    ],
)
def test_errors_are_one_sentence(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert words in command(*arguments, code=2)
    assert not list(tmp_path.iterdir())


def test_errors_with_a_run(run, folder, tmp_path):
    output, _ = run
    assert "1 of 65 images of the split 'train' failed to decode, `--max_unreadable` is 0;" in command(
        "kvision-evaluate", f"--model={output}", "--split=train", "--max_unreadable=0", code=2
    )
    assert "has 10 classes ('0', '1'" in command(
        "kvision-evaluate", f"--model={output}", "--data=digits", code=2
    )
    path = folder / "dark" / "notes.txt"
    assert "None of the files can be read" in command("kvision-predict", f"--model={output}", path, code=2)
    assert "No such file" in command("kvision-predict", f"--model={output}", "nowhere.png", code=2)
    sentence = command("kvision-train", "--model=resnet18", f"--weights={output / 'model.keras'}",
                       "--data=digits", f"--output={tmp_path}/new", code=2)  # fmt: skip
    assert "misshapen" in sentence
    (tmp_path / "cut.safetensors").write_bytes(b"\0" * 100)
    sentence = command("kvision-train", *TINY, f"--weights={tmp_path / 'cut.safetensors'}", "--data=digits",
                       f"--output={tmp_path / 'new'}", code=2)  # fmt: skip
    assert "failed to read" in sentence
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    sentence = command(
        "kvision-train", *TINY, "--data=digits", f"--output={tmp_path / 'full'}", "--overwrite", code=2
    )
    assert "not empty" in sentence
    assert not (tmp_path / "new").exists()
    assert Path(tmp_path / "full" / "thesis.tex").exists()
