"""R-CNNs from the shell: proposals are found and given to networks that take them, and sampling goes on."""

import re
import shutil

import keras
import numpy as np
import pytest
import safetensors.numpy
from helpers import command, rows
from PIL import Image

from kvision import labels
from kvision.data.sources.shapes import draw

TRAIN = [
    "kvision-train", "--model_kwarg=filters=(8,8,8,8,8)", "--model_kwarg=depths=(1,1,1,1,1)",
    "--model_kwarg=hidden_filters=16", "--model_kwarg=score_threshold=0", "--image_size=96",
    "--batch_size=8", "--epochs=2", "--augment=scale_crop_flip",
]  # fmt: skip
FAST = [*TRAIN, "--model=fast_rcnn_vgg16", "--model_kwarg=proposals=50", "--learning_rate=1e-3"]
FASTER = [
    *TRAIN, "--model=faster_rcnn_vgg16", "--model_kwarg=proposals=20", "--model_kwarg=rpn_filters=8",
    "--optimizer=adamw", "--learning_rate=1e-3",
    "--model_kwarg=anchor_sizes=(16,32,48)", "--deterministic",
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Shapes, as a CSV file has them."""
    root = tmp_path_factory.mktemp("shapes")
    lines = []
    for number in range(20):
        picture = draw(5, number)
        Image.fromarray(picture.image).save(root / f"{number}.png")
        for label, *corners in picture.shapes:
            top, left, bottom, right = (corner / 96 for corner in corners)
            part = "TRAIN" if number < 16 else "VALIDATION"
            lines.append(f"{part},{number}.png,{label},{left},{top},,,{right},{bottom},,")
    (root / "boxes.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/kvision/proposals"


def kept(cache):
    return [path for path in cache.rglob("*") if path.is_file()]


@pytest.mark.slow
def test_proposals_are_found_for_networks_that_take_them(data, cache, tmp_path, monkeypatch):
    run = tmp_path / "run"
    printed = command(*FAST, f"--data=csv:{data / 'boxes.csv'}", f"--output={run}")
    assert "epoch 2/2" in printed
    assert len(kept(cache)) == 20
    assert {"class_loss", "box_loss", "val_ap50"} <= {*rows(run)[0]}
    evaluated = command("kvision-evaluate", f"--model={run}")
    assert re.search(r"on 4 images: AP [\d.]+ %, AP50 [\d.]+ %", evaluated)
    monkeypatch.chdir(tmp_path)
    predicted = command("kvision-predict", f"--model={run}", "--topk=3", data / "17.png")
    assert len(re.findall(r"  +[\d.]+ %  \d  \d  \([\d, ]+\)", predicted)) == 3
    assert len(kept(cache)) == 20


@pytest.mark.slow
def test_sampling_goes_on_where_it_was(data, tmp_path):
    whole, again = tmp_path / "whole", tmp_path / "again"
    flags = [*FASTER, f"--data=csv:{data / 'boxes.csv'}"]
    command(*flags, f"--output={whole}")
    shutil.copytree(whole, again)
    _, last = sorted(again.glob("checkpoints/step_*.safetensors"))
    last.unlink()
    assert "Going on after step 2" in command(*flags, f"--output={again}")
    expected, found = (safetensors.numpy.load_file(run / "checkpoints" / last.name) for run in (whole, again))
    assert sum("trained/" in name for name in expected) >= 2
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "column"), [("rcnn_alexnet", "crop_size=67"), ("sppnet_zf5", "levels=(4,3,2,1)")]
)
def test_stages_are_those_of_one_command(name, column, data, cache, tmp_path):
    """Also where a run was killed after its last epoch."""
    run, file = tmp_path / "run", tmp_path / "figures.json"
    flags = [
        "kvision-train", f"--model={name}", f"--model_kwarg={column}", "--model_kwarg=width_multiplier=0.125",
        "--model_kwarg=hidden_filters=32", "--model_kwarg=proposals=30", "--image_size=96", "--batch_size=8",
        "--optimizer=adamw", "--learning_rate=1e-3", "--epochs=2", f"--data=csv:{data / 'boxes.csv'}",
        f"--output={run}",
    ]  # fmt: skip
    assert "Learned the stages behind the last epoch" in command(*flags)
    assert {"class_loss", "val_ap50"} <= {*rows(run)[0]}
    fitted = keras.saving.load_model(run / "model.keras", compile=False)
    assert fitted.get_layer("svm").kernel.numpy().any()
    assert "nothing is left" in (printed := command(*flags))
    assert "Learned" not in printed
    command("kvision-evaluate", f"--model={run}", f"--json={file}")

    killed = keras.saving.load_model(run / "model.keras", compile=False)
    killed.get_layer("decode").fitted.assign(0.0)
    for layer in ("svm", "box_regressor"):
        killed.get_layer(layer).set_weights([0 * value for value in killed.get_layer(layer).get_weights()])
    names = labels.read_from_keras(run / "model.keras")
    killed.save(run / "model.keras")
    labels.add_to_keras(run / "model.keras", names, "detection")
    assert "Learned the stages" in command(*flags)
    again = keras.saving.load_model(run / "model.keras", compile=False)
    for expected, found in zip(fitted.weights, again.weights, strict=True):
        np.testing.assert_array_equal(found, expected, err_msg=expected.path)
