"""Segmentation from the shell: training, evaluation at the images' own sizes, pictures of predictions."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from helpers import command
from PIL import Image

from kvision import opening, run_info
from kvision.tasks.segmentation import class_iou, scores

SMALL = [  # the network whose graph is traced in the least time
    "--model=fcn_resnet50", "--model_kwarg=filters=8", "--model_kwarg=depths=(1,1,1,1)", "--image_size=64",
    "--batch_size=8", "--norm_momentum=0.9", "--learning_rate=0.02",
]  # fmt: skip
COLUMNS = {"filters": 8, "depths": [1] * 4}
CLASSES = ("ground", "square")


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    """Bright squares on dark ground, of several sizes, with a stripe of ignored pixels."""
    root, random = tmp_path_factory.mktemp("masks"), np.random.default_rng(0)
    for part in ("images", "masks"):
        (root / part).mkdir()
    for i in range(24):
        height, width = random.integers(40, 80, 2)
        mask = np.zeros((height, width), np.uint8)
        top, left = random.integers(0, 20, 2)
        mask[top : top + 20, left : left + 20] = 1
        image = random.integers(0, 60, (height, width, 3)) + 150 * mask[..., None]
        mask[:, -3:] = 255
        Image.fromarray(image.astype(np.uint8)).save(root / "images" / f"{i:02}.png")
        Image.fromarray(mask).save(root / "masks" / f"{i:02}.png")
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return root


@pytest.fixture(scope="module")
def run(masks, tmp_path_factory):
    output = tmp_path_factory.mktemp("segmentation") / "run"
    printed = command(
        "kvision-train", *SMALL, f"--data=masks:{masks}", "--epochs=2", "--augment=scale_crop_flip",
        "--class_weights=1,2", "--dice_weight=0.5", "--ema_decay=0.5", f"--output={output}",
    )  # fmt: skip
    assert re.search(
        r"epoch 2/2: loss [\d.]+, mean_iou [\d.]+; val [\d.]+, [\d.]+, its average [\d.]+", printed
    )
    return output


def test_a_run_says_what_it_learned(run):
    with open(run / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert {"val_mean_iou", "val_pixel_accuracy", "val_ema_frequency_weighted_iou"} <= rows[0].keys()
    fields = json.loads((run / run_info.RUN).read_text())
    assert (fields["task"], fields["model_kwarg"]) == ("segmentation", COLUMNS)
    opened = opening.open_model(str(run))
    assert opened.class_names == CLASSES
    assert opened.model.output_shape == (None, 64, 64, 2)


def test_the_evaluation_is_that_of_the_predicted_masks(run, masks, tmp_path):
    """At the images' own sizes, by the pictures that are written."""
    file = tmp_path / "figures.json"
    evaluated = command(
        "kvision-evaluate", f"--model={run}", "--split=all", f"--data=masks:{masks}", f"--json={file}"
    )
    assert json.loads(file.read_text())["images"] == 24
    figures = json.loads(file.read_text())["metrics"]
    arguments = ["kvision-predict", f"--model={run}", f"--output={tmp_path}", masks / "images"]
    assert f"48 pictures in {tmp_path}" in command(*arguments)
    (tmp_path / "01_overlay.png").unlink()
    arguments[-1] = masks / "images/01.png"
    assert "01_mask.png' is there already: `--overwrite` replaces it" in command(*arguments, code=2)
    assert not (tmp_path / "01_overlay.png").exists()
    confusion = np.zeros((2, 2))
    for path in sorted((masks / "masks").iterdir()):
        with Image.open(path) as truth, Image.open(tmp_path / f"{path.stem}_mask.png") as predicted:
            assert predicted.mode == "P"
            truth, predicted = np.array(truth), np.array(predicted)
        np.add.at(confusion, (truth[truth < 255], predicted[truth < 255]), 1)
    expected = scores(confusion)
    assert f"on 24 images: mean IoU {100 * expected['mean_iou']:.2f} %" in evaluated
    assert figures.pop("class_iou") == dict(zip(CLASSES, class_iou(confusion), strict=True))
    assert figures == expected
    for name, iou in zip(CLASSES, class_iou(confusion), strict=True):
        assert re.search(rf"  {name} +{100 * iou:.2f} %", evaluated)
    with Image.open(tmp_path / "00_overlay.png") as overlay, Image.open(masks / "images/00.png") as image:
        assert overlay.size[1] > image.size[1]


@pytest.mark.slow
def test_pictures_that_are_there_are_replaced_when_asked(run, masks, tmp_path):
    arguments = ["kvision-predict", f"--model={run}", f"--output={tmp_path}", masks / "images/00.png"]
    command(*arguments)
    assert "00_overlay.png' is there already: `--overwrite` replaces it" in command(*arguments, code=2)
    command(*arguments, "--overwrite")
    arguments[2] = f"--output={masks / 'classes.txt'}"
    assert "`--output` must be a folder; " in command(*arguments, code=2)


@pytest.mark.slow
def test_classes_in_another_order_are_matched_by_name(run, masks, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(masks, other)
    (other / "classes.txt").write_text("square\nground\n")
    for path in (other / "masks").iterdir():
        with Image.open(path) as image:
            mask = np.array(image)
        Image.fromarray(np.where(mask == 255, 255, 1 - mask).astype(np.uint8)).save(path)
    arguments = ["kvision-evaluate", f"--model={run}", "--split=all"]
    printed = [command(*arguments, f"--data=masks:{data}") for data in (masks, other)]
    one, two = ([line for line in text.splitlines() if "IoU" in line or " %" in line] for text in printed)
    assert one == two
    assert len(one) == 3
    (other / "classes.txt").write_text("triangle\nground\n")
    assert "'triangle'" in command(*arguments, f"--data=masks:{other}", code=2)


@pytest.mark.slow
def test_a_dry_run_names_the_mask_that_does_not_fit(masks, tmp_path):
    shutil.copytree(masks, tmp_path / "masks")
    for path in (tmp_path / "masks/masks").iterdir():
        Image.new("L", (9, 9)).save(path)
    arguments = [f"--data=masks:{tmp_path / 'masks'}", "--dry_run", f"--output={tmp_path / 'run'}"]
    assert "masks/masks" in command("kvision-train", *SMALL, *arguments, code=2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data=digits"], "'digits' gives labels and no masks: shapes, masks:PATH, voc:PATH or"),
        (
            ["--data=shapes", "--label_smoothing=0.1"],
            "`--label_smoothing` is for classification; fcn",
        ),
        (["--data=shapes", "--class_weights=1,2"], "`--class_weights` must be 4 weights"),
        (["--data=shapes", "--class_weights=1,nan,1,1"], "must be 4 weights, one a class, of at least 0"),
        (["--data=shapes", "--class_weights=a,b"], "`--class_weights` must be numbers; got a,b"),
        (["--data=shapes", "--dice_weight=-1"], "dice_weight"),
        (["--data=shapes", "--crop=0.9"], "`--crop` is for networks that classify images; fcn_resnet50"),
        (["--model=lenet5", "--data=shapes"], "'shapes' gives masks and no labels: digits, folder:PATH"),
        (
            ["--model=lenet5", "--data=digits", "--dice_weight=1"],
            "`--dice_weight` is for segmentation; lenet5",
        ),
    ],
)
def test_mistakes_are_one_sentence(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert words in command("kvision-train", *SMALL, *arguments, code=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("training", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_masks_in_which_255_was_meant_as_a_class_are_pointed_out(training, run, masks, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(masks, other)
    for path in (other / "masks").iterdir():
        with Image.open(path) as image:
            Image.fromarray((np.array(image) > 0).astype(np.uint8) * 255).save(path)
    sentence = "The masks have no pixel of 'square': a mask holds the numbers of classes"
    arguments = ["kvision-evaluate", f"--model={run}", "--split=all"]
    if training:
        arguments = ["kvision-train", *SMALL, "--epochs=1", f"--output={tmp_path}/run"]
    assert sentence in command(*arguments, f"--data=masks:{other}")


@pytest.mark.parametrize(
    ("value", "names", "words"),
    [
        (255, True, "No pixel of the masks has a class: all are 255, which is ignored."),
        (0, False, "has masks with the class 0 alone: classes are numbered from 0 on, and pixels of 255"),
    ],
)
def test_masks_of_nothing_are_refused(value, names, words, masks, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(masks, other)
    if not names:
        (other / "classes.txt").unlink()
    for path in (other / "masks").iterdir():
        with Image.open(path) as image:
            Image.fromarray(np.where(np.array(image) == 1, 255, value).astype(np.uint8)).save(path)
    flags = [f"--data=masks:{other}", "--epochs=1", f"--output={tmp_path}/run"]
    assert words in command("kvision-train", *SMALL, *flags, code=2)
