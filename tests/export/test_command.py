"""kvision-export as a shell runs it."""

import json
import shutil

import numpy as np
import pytest
from helpers import TINY, command
from tflite import check_figures, io_details, top1


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder of a network that tells digits apart."""
    output = tmp_path_factory.mktemp("runs") / "run"
    command("kvision-train", *TINY, "--data=digits", "--epochs=4", f"--output={output}")
    return output


def test_the_command_writes_files_and_a_report(run):
    modes = ["float32", "int8"]
    arguments = ["kvision-export", f"--model={run}", f"--quantize={','.join(modes)}",
                 "--calibration_images=20", "--max_drop=5", "--license=Apache-2.0"]  # fmt: skip
    printed = command(*arguments)
    output = run / "export"
    assert {path.name for path in output.iterdir()} == {
        "labels.txt", "report.json", "report.html", *(f"resnet18_{mode}.tflite" for mode in modes),
    }  # fmt: skip
    assert (output / "labels.txt").read_text() == (run / "labels.txt").read_text()
    report = json.loads((output / "report.json").read_text())
    assert [file["mode"] for file in report["files"]] == [*modes, "TFLiteConverter"]
    for file in report["files"][:-1]:
        assert file["size"] == (output / file["file"]).stat().st_size
        assert file["latency_ms"].keys() == {"1", "2"}
        assert file["refusal"] == ""
        assert file["float_latency_ms"] == report["files"][0]["float_latency_ms"]
        assert f"{100 * top1(file['accuracy']):.1f}" in printed
        assert file["census"]["metadata"]["labels"] == list("0123456789")
        assert file["census"]["metadata"]["license"] == "Apache-2.0"
    assert report["files"][0]["fidelity"]["largest_difference"] < 1e-4
    *_, size = (step["size"] for step in report["files"][1]["steps"] if step["kept"])
    assert size == report["files"][1]["size"]
    assert top1(report["keras"]) > 0.8
    page = (output / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3 * 20
    assert "http" not in page
    assert report["doubts"] == []
    assert report["calibration_images"] == 2 * 20
    assert "Ranges come from 40 calibration images" in page
    check_figures(report, page)


def test_an_export_is_replaced_by_one_whose_file_is_outside_its_tolerance(run, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    for name in ("report.json", "old.tflite"):
        (output / name).write_text('{"files": [{"file": "old.tflite"}]}')
    printed = command("kvision-export", f"--model={run}", "--target=gpu", "--max_difference=0",
                      "--images=20", f"--output={output}", code=1)  # fmt: skip
    assert "float32.tflite is outside its tolerance: a probability differs by " in printed
    assert "Use resnet18_float16.tflite." in printed
    files = json.loads((output / "report.json").read_text())["files"]
    assert [file["mode"] for file in files] == ["float32", "float16"]
    assert not (output / "old.tflite").exists()
    assert f"removed files of the earlier export in '{output}': old.tflite\n" in printed


def test_a_run_is_exported_into_itself_however_it_is_named(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("export"))
    (tmp_path / "run/export").mkdir()
    (tmp_path / "run/export/notes.txt").touch()
    for name in ("~/run", "~/run/model.keras", tmp_path / "run/model.keras"):
        sentence = command("kvision-export", f"--model={name}", code=2)
        assert f"'{tmp_path}/run/export' is neither empty nor an earlier export" in sentence


def test_errors(run, tmp_path, tmp_path_factory):
    alone = shutil.copy(run / "model.keras", tmp_path_factory.mktemp("alone"))
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
        ([f"--model={alone}"], "A dataset is needed"),
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


@pytest.mark.slow
def test_a_file_for_the_edge_tpu(run, tmp_path):
    """Its ends and all between are int8."""
    command("kvision-export", f"--model={run}", "--target=edgetpu", "--images=20", "--calibration_images=8",
            "--nocompare", "--max_drop=50", f"--output={tmp_path / 'out'}")  # fmt: skip
    (file,) = json.loads((tmp_path / "out/report.json").read_text())["files"]
    image, probabilities, _ = io_details((tmp_path / "out" / file["file"]).read_bytes())
    assert (image["dtype"], probabilities["dtype"]) == (np.int8, np.int8)
    assert {name.split()[0] for name in file["census"]["operators"]}.isdisjoint({"QUANTIZE", "DEQUANTIZE"})
    assert not any("float" in step["name"] and step["kept"] for step in file["steps"])
