"""kvision-benchmark, as a shell runs it."""

import csv
import re

import pytest
from helpers import command, dark_and_light

from kvision_tools.peers import timm_name

LENET = ["--model=lenet5", "--channels=1", "--image_size=32", "--turns=1", "--steps=10", "--against=keras"]


def table(path):
    with open(path) as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["train", "forward"])
def test_a_table_of_both_sides(kind, tmp_path):
    printed = command("kvision-benchmark", kind, *LENET, f"--csv={tmp_path / 'times.csv'}")
    ours, keras = table(tmp_path / "times.csv")
    assert (ours["library"], keras["library"]) == ("kvision", "keras")
    assert float(keras["speed"]) == pytest.approx(
        float(keras["step_seconds"]) / float(ours["step_seconds"]), rel=0.01
    )
    assert f"{float(keras['speed']):.2f} x as fast" in printed
    assert ours["step_seconds_least"] == ours["step_seconds"] == ours["step_seconds_most"]  # of one turn
    assert ours["processor"] in printed


@pytest.mark.slow
def test_input(tmp_path):
    (tmp_path / "images").mkdir()
    data = f"folder:{dark_and_light(tmp_path / 'images')}"
    flags = [f"--data={data}", "--image_size=32", "--turns=1", "--steps=2", "--against=keras"]
    assert "x as fast" in command("kvision-benchmark", "data", *flags)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "The first word says what is timed, one of train, data, forward.$"),
        (["fast"], "one of train, data, forward; got 'fast'"),
        (
            ["forward", "--model=resnet18", "--image_size=32", "--turns=1", "--against=timm"],
            "`--pytorch_python` must be a Python interpreter with PyTorch and timm; .*No module named 'timm'",
        ),
        (
            ["train", "--model=resnet18", "--against=timm", "--pytorch_python=/bin/true"],
            "must be a Python interpreter with PyTorch and timm; got '/bin/true': it is another program",
        ),
        (
            ["train", "--model=resnet18", "--against=timm", "--pytorch_python=/nowhere"],
            "`--pytorch_python` must be .* got '/nowhere': No such file or directory",
        ),
        (["train", "--against=torch"], "takes keras, timm, torchvision, yolox; got 'torch'"),
        (["data", "--data=folder:x", "--against=yolox"], "takes keras, timm; got 'yolox'"),
        (
            ["train", "--model=lenet5", "--against=torchvision"],
            "takes keras or timm for networks of classification, as lenet5 is; got 'torchvision'",
        ),
        (["train", "--model=yolox_nano", "--against=keras"], "takes torchvision or yolox for networks of"),
        (["train", "--model=yolo_v1", "--against=yolox"], "yolo_v1 is not known by a name of yolox's"),
        (
            ["forward", "--model=fcn8s", "--against=torchvision"],
            "fcn8s is not known by a name of torch",
        ),
        (["data", "--data=digits"], "`--data=folder:PATH` is what all libraries read"),
        (["train", "--model=lenet5", "--against=timm"], "not known by a name of timm's"),
        (["train", "--model=lenet"], "^kvision-benchmark: Unknown model 'lenet'. Did you mean 'lenet5'"),
        pytest.param(
            ["forward", "--image_size=1"], "The turn of kvision failed: .*32 x 32", marks=pytest.mark.slow
        ),
    ],
)
def test_errors(arguments, words):
    sentence = command("kvision-benchmark", *arguments, code=2)
    assert re.search(words, sentence), sentence


def test_a_side_that_fails_is_named_with_its_last_line(tmp_path, monkeypatch):
    (tmp_path / "keras.py").write_text("raise ValueError('it is\\nbroken')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert command("kvision-benchmark", "forward", code=2).endswith("The turn of kvision failed: broken")
    (tmp_path / "keras.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    sentence = command("kvision-benchmark", "forward", code=2)
    assert sentence.endswith("The turn of kvision failed: it was ended by SIGKILL")


@pytest.mark.parametrize(
    ("model", "theirs"),
    [("mobilenet_v2", "mobilenetv2_100"), ("efficientnet_b0", "efficientnet_b0"), ("resnet50", "resnet50"),
     ("mobilenet_v3_large", "mobilenetv3_large_100"), ("vit_small_patch16", "vit_small_patch16_224")],
)  # fmt: skip
def test_timms_network_is_of_the_same_width(model, theirs):
    assert timm_name(model) == theirs
