"""Exports of networks that segment images."""

import json

import pytest
from helpers import command, dark_and_light, randomized, tiny_segmenter
from tflite import check_figures

from kvision.data.sources.shapes import CLASSES
from kvision.run_info import RunInfo


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    """A run folder of an untrained network that segments shapes."""
    folder = tmp_path_factory.mktemp("segmenter")
    model = randomized(tiny_segmenter("fcn_resnet50", input_shape=(64, 64, 3), num_classes=len(CLASSES)))
    model.save(folder / "model.keras")
    (folder / "labels.txt").write_text("\n".join(CLASSES) + "\n")
    (folder / "run.json").write_text(RunInfo(task="segmentation", model=model.name, data="shapes").to_json())
    return folder


@pytest.mark.slow
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
    assert "Side by side: the image, its target, the Keras model's answer and the file's." in page
    assert "background: #800000" in page  # of the first class after the background
    check_figures(report, page)


@pytest.mark.slow
def test_segmentation_without_masks(segmenter, tmp_path):
    data = dark_and_light(tmp_path / "data")
    printed = command("kvision-export", f"--model={segmenter}", f"--calibration=folder:{data}", "--nocompare",
                      "--quantize=float32", f"--output={tmp_path / 'out'}")  # fmt: skip
    assert "Mean IoU is left out, as the images have no masks" in " ".join(printed.split())
    assert "100.0 % of the pixels of 16 images" in (tmp_path / "out/report.html").read_text()
