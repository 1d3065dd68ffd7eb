"""Detection from the shell: training, evaluation at the images' own sizes, pictures of boxes."""

import json
import re

import numpy as np
import pytest
from helpers import SHAPES, coco_of_shapes, command, rows
from PIL import Image
from run_folders import check_killed

from kvision import opening
from kvision.average_precision import AveragePrecision
from kvision.data.images import unletterbox_boxes

TRAIN = [  # the detector whose graph is traced in the least time
    "kvision-train", "--model=yolo_v1_fast", "--model_kwarg=width_multiplier=0.125",
    "--model_kwarg=hidden_filters=(64,64)", "--model_kwarg=dropout_rate=0", "--model_kwarg=score_threshold=0",
    "--model_kwarg=grid=3", "--image_size=96", "--batch_size=4", "--optimizer=adamw", "--learning_rate=3e-3",
    "--epochs=8", "--augment=flip", "--deterministic",
]  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return coco_of_shapes(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def data(pictures):
    return f"coco:{pictures / 'annotations.json'},{pictures / 'images'}"


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("detection") / "run"
    printed = command(*TRAIN, f"--data={data}", "--debug_batch", f"--output={output}")
    assert re.search(r"% of the \d+ objects in the first 32 training images share a cell with", printed)
    with Image.open(output / "debug_batch.png") as sheet:
        assert min(sheet.size) > 2 * 320  # of two rows of enlarged pictures
    assert re.search(r"epoch 8/8: loss [\d.]+; val [\d.]+, [\d.]+; ", printed)
    return output


def test_a_run_says_what_it_learned(run):
    epochs = rows(run)
    assert {"box_loss", "confidence_loss", "class_loss", "val_ap", "val_ap50", "val_ap75"} <= {*epochs[0]}
    assert float(epochs[-1]["loss"]) < float(epochs[0]["loss"])
    assert json.loads((run / "run.json").read_text())["task"] == "detection"
    opened = opening.open_model(str(run))
    assert (opened.task.name, opened.class_names) == ("detection", SHAPES)


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_the_same_weights(run, data, tmp_path):
    check_killed([*TRAIN, f"--data={data}"], run, tmp_path)


@pytest.mark.slow
def test_a_run_of_mosaics_that_was_killed_goes_on_to_the_same_weights(data, tmp_path):
    mosaics = ["--augment=mosaic_mixup", "--plain_epochs=3", "--epochs=6", "--ema_decay=0.5"]
    flags = [*TRAIN, *mosaics, f"--data={data}"]
    printed = command(*flags, f"--output={tmp_path / 'whole'}")
    assert re.search(r"epoch 6/6: loss [\d.]+; val [\d.]+, [\d.]+, its average [\d.]+; ", printed)
    check_killed(flags, tmp_path / "whole", tmp_path)


@pytest.mark.slow
def test_two_workers_judge_all_images(run, data, tmp_path):
    """Those of both count: AP and losses are those of one process, up to the order of additions."""
    command("kvision-launch", "--workers=2", "--", *TRAIN, f"--data={data}", f"--output={tmp_path}/two")
    one, two = rows(run)[0], rows(tmp_path / "two")[0]
    assert float(two["val_ap50"]) >= 0
    for name in ("loss", "val_loss"):
        assert float(two[name]) == pytest.approx(float(one[name]), rel=0.05)


@pytest.fixture(scope="module")
def evaluated(run, data, tmp_path_factory):
    """Output of kvision-evaluate on all images, and the metrics in its JSON file."""
    file = tmp_path_factory.mktemp("evaluated") / "figures.json"
    printed = command("kvision-evaluate", f"--model={run}", "--split=all", f"--data={data}", f"--json={file}")
    return printed, json.loads(file.read_text())["metrics"]


def test_the_evaluation_is_that_of_pycocotools(run, evaluated, pictures):
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    model = opening.open_model(str(run)).model
    pixels, found = np.full((40, 96, 96, 3), 114, np.float32), []
    for number in range(40):
        with Image.open(pictures / f"images/{number}.png") as image:
            pixels[number, :72] = np.array(image.resize((96, 72), Image.Resampling.BILINEAR))
    answer = {name: np.asarray(part) for name, part in model(pixels).items()}
    boxes = np.asarray(unletterbox_boxes(answer["boxes"], [[96, 128]] * 40, (96, 96), "corner"))
    for number, count in enumerate(answer["count"]):
        for place in range(count):
            left, top, right, bottom = boxes[number, place].tolist()
            box, score = [left, top, right - left, bottom - top], float(answer["scores"][number, place])
            category = 10 * (int(answer["classes"][number, place]) + 1)
            found.append({"image_id": number, "category_id": category, "bbox": box, "score": score})
    truth = coco.COCO(pictures / "annotations.json")
    judged = cocoeval.COCOeval(truth, truth.loadRes(found), "bbox")
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    printed, _ = evaluated
    ap = re.search(r"on 40 images: AP ([\d.]+) %, AP50 ([\d.]+) %", printed)
    assert float(ap[2]) > 0
    assert float(ap[1]) == pytest.approx(100 * judged.stats[0], abs=0.3)  # Pillow resizes in integers
    assert float(ap[2]) == pytest.approx(100 * judged.stats[1], abs=1)
    assert all(re.search(rf"  {name} +[\d.]+ %", printed) for name in SHAPES)


@pytest.fixture(scope="module")
def results(run, pictures, tmp_path_factory):
    """The file of detections, with the ids of COCO's JSON file."""
    output = tmp_path_factory.mktemp("results")
    flags = [f"--output={output}", f"--annotations={pictures / 'annotations.json'}"]
    printed = command("kvision-predict", f"--model={run}", *flags, pictures / "images")
    assert f" detections in {output / 'detections.json'}" in printed
    return output / "detections.json"


@pytest.mark.slow
def test_pycocotools_reads_the_results(evaluated, pictures, results):
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    truth = coco.COCO(pictures / "annotations.json")
    judged = cocoeval.COCOeval(truth, truth.loadRes(str(results)), "bbox")
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    figures = dict(evaluated[1])
    of_class = figures.pop("class_ap")
    assert list(of_class) == [*SHAPES]
    assert figures["ap50"] > 0
    found = [-1 if value is None else value for value in figures.values()]
    np.testing.assert_allclose(found, judged.stats, atol=1e-9)
    of_each = judged.eval["precision"][:, :, :, 0, 2].mean((0, 1))
    np.testing.assert_allclose([*of_class.values()], of_each, atol=1e-9)


@pytest.mark.slow
def test_voc_ap_by_both_rules(run, data, pictures, results, tmp_path):
    content = json.loads((pictures / "annotations.json").read_text())
    detections = json.loads(results.read_text())

    def columns(rows, image):
        rows = [row for row in rows if row["image_id"] == image]
        boxes = np.array([row["bbox"] for row in rows], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        return boxes, np.array([row["category_id"] // 10 - 1 for row in rows], int), rows

    for flag, rules in (("11", "voc2007"), ("all", "voc")):
        expected = AveragePrecision(3, rules)
        for number in range(40):
            boxes, classes, rows = columns(detections, number)
            true_boxes, true_classes, _ = columns(content["annotations"], number)
            expected.add(boxes, [row["score"] for row in rows], classes, true_boxes, true_classes)
        file = tmp_path / f"{flag}.json"
        flags = [f"--voc_ap={flag}", f"--data={data}", "--split=all", f"--json={file}"]
        assert "AP50" in command("kvision-evaluate", f"--model={run}", *flags)
        figures = json.loads(file.read_text())["metrics"]
        assert figures["ap50"] == pytest.approx(expected.result().means["ap50"], abs=1e-9)
        assert figures.keys() == {"ap50", "class_ap"}


def test_results_without_annotations_are_numbered(run, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = [pictures / f"images/{number}.png" for number in (7, 3)]
    command("kvision-predict", f"--model={run}", *images)
    found = json.loads((tmp_path / "predictions/detections.json").read_text())
    assert {(row["image_id"], row["file_name"]) for row in found} == {
        (1, str(images[0])), (2, str(images[1])),
    }  # fmt: skip
    assert {row["category_id"] for row in found} <= {1, 2, 3}
    assert "detections.json' is there already" in command(
        "kvision-predict", f"--model={run}", *images, code=2
    )


@pytest.mark.slow
def test_results_lack_nothing_of_the_annotations(run, pictures, tmp_path):
    content = json.loads((pictures / "annotations.json").read_text())
    file = tmp_path / "other.json"
    flags = [f"--annotations={file}", f"--output={tmp_path / 'out'}", pictures / "images/7.png"]
    file.write_text(json.dumps(content | {"images": [], "annotations": []}))
    assert "lacks 1 image: '7.png'" in command("kvision-predict", f"--model={run}", *flags, code=2)
    content["categories"][0]["name"] = "disc"
    file.write_text(json.dumps(content))
    printed = command("kvision-predict", f"--model={run}", *flags)
    assert re.search(r"Left out \d+ detections? of classes that '.*' lacks: 'circle'", printed)


def test_predictions_are_lines_and_pictures(run, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = command("kvision-predict", f"--model={run}", "--topk=3", pictures / "images/7.png")
    assert len(re.findall(r"  +[\d.]+ %  \d  (circle|square|triangle)  \([\d, ]+\)", printed)) == 3
    with Image.open(tmp_path / "predictions/7_boxes.png") as picture:
        assert picture.size[0] * 96 == picture.size[1] * 128


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*TRAIN, "--data=digits"], "'digits' gives labels and no boxes: shapes, coco:"),
        (
            ["kvision-train", "--model=lenet5", "--data=digits", "--augment=mosaic"],
            "`--augment=mosaic` needs boxes; lenet5 learns labels",
        ),
        ([*TRAIN, "--data=shapes", "--dice_weight=1"], "`--dice_weight` is for segmentation; yolo_v1_fast"),
        (["kvision-train", "--model=yolox_nano", "--data=shapes", "--image_size=100"], "multiples of 32"),
        ([*TRAIN, "--data=shapes", "--plain_epochs=1"], "`--plain_epochs` needs `--augment=mosaic`"),
        ([*TRAIN, "--data=shapes", "--task=segmentation"], "`--task` of yolo_v1_fast must be detection; got"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert words in command(*arguments, code=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_detectors_are_exported(run):
    printed = command("kvision-export", f"--model={run}", "--quantize=float32", "--nocompare")
    assert re.search(r"AP +agree", printed)
    assert {"float32.tflite", "labels.txt", "report.html", "report.json"} <= {
        path.name.removeprefix("yolo_v1_fast_") for path in (run / "export").iterdir()
    }
