"""Average precision beside pycocotools and the arithmetic of VOC's devkit."""

import contextlib
import io

import numpy as np
import pytest

from kvision import average_precision
from kvision.average_precision import AveragePrecision
from kvision.errors import UserError

CLASSES = 4
FROM_ONE = np.array([1, 1, 0, 0])  # of corners; the last pixel is inside
NAMES = "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"
NAMES += "ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"  # in pycocotools' order


def random_images(seed, images=12, objects=8, false=10, levels=1000, crowds=0.2, sides=(5, 150)):
    """Images of objects, detections that are moved by some pixels from objects, and false ones."""
    random = np.random.default_rng(seed)

    def boxes(count):
        corner = random.uniform(0, 300, (count, 2)).round(1)
        return np.concatenate([corner, corner + random.uniform(*sides, (count, 2)).round(1)], 1)

    for _ in range(images):
        true_boxes = boxes(random.integers(0, objects + 1))
        true_classes = random.integers(0, CLASSES - 1, len(true_boxes))  # none of the last class
        near = true_boxes.repeat(3, 0) + random.normal(0, 4, (3 * len(true_boxes), 4)).round(1)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        found = np.concatenate([near, boxes(random.integers(0, false + 1))])
        classes = np.append(true_classes.repeat(3), random.integers(0, CLASSES, len(found) - len(near)))
        wrong = random.random(len(found)) < 0.1
        yield {
            "boxes": found,
            "scores": random.integers(1, levels, len(found)) / levels,
            "classes": np.where(wrong, random.integers(0, CLASSES, len(found)), classes),
            "true_boxes": true_boxes,
            "true_classes": true_classes,
            "crowd": random.random(len(true_boxes)) < crowds,
            "area": average_precision._area(true_boxes) * random.uniform(0.4, 1, len(true_boxes)),
        }


def image(boxes, scores, true_boxes, crowd=None):
    """An image of one class."""
    boxes, true_boxes = (np.array(part, float).reshape(-1, 4) for part in (boxes, true_boxes))
    return {
        "boxes": boxes,
        "scores": np.array(scores, float),
        "classes": np.zeros(len(boxes), int),
        "true_boxes": true_boxes,
        "true_classes": np.zeros(len(true_boxes), int),
        "crowd": np.zeros(len(true_boxes), bool) if crowd is None else np.array(crowd),
        "area": np.prod(true_boxes[:, 2:] - true_boxes[:, :2], -1),
    }


BOX = [10, 10, 42, 42]  # 32 x 32: both small and medium
FAR = [200, 200, 232, 232]  # as large as BOX
SECOND = [8, 0, 28, 20]
LARGE = [10, 10, 106, 106]  # 96 x 96: both medium and large
SHIFTED = [[left, 10, left + 32, 42] for left in (10, 12, 14, 16)]
CASES = {
    "random": [*random_images(0)],
    "equal scores": [*random_images(1, levels=4)],
    "many": [*random_images(2, images=3, objects=60, false=300, sides=(5, 40))],
    "found behind a hundred": [image([FAR] * 100 + [BOX], range(101, 0, -1), [BOX])],
    "crowds": [*random_images(3, crowds=0.7)],
    "large": [*random_images(4, sides=(80, 250))],
    "no detections": [image([], [], [BOX])],
    "no objects": [image([BOX], [0.5], [])],
    "nothing": [image([], [], [])],
    "borders of areas": [image([BOX, LARGE, FAR], [0.5, 0.6, 0.7], [BOX, LARGE])],
    "between two objects": [image([[4, 0, 24, 20], SECOND], [0.6, 0.5], [[0, 0, 20, 20], SECOND])],
    "overlap at a threshold": [image([[0, 0, 10, 5]], [0.5], [[0, 0, 10, 10]])],
    "twice the same object": [image(SHIFTED, [0.5] * 4, [BOX, BOX])],
    "only a crowd": [image(SHIFTED, [0.5] * 4, [BOX], [True])],
    "object in a crowd": [image([*SHIFTED, BOX], range(5), [[0, 0, 90, 90], BOX], [True, False])],
}


def pycocotools_scores(images):
    """The twelve means, and precisions `(thresholds, recalls, classes)` of all areas."""
    reason = "pycocotools is missing: pip install pycocotools"
    coco = pytest.importorskip("pycocotools.coco", reason=reason)
    cocoeval = pytest.importorskip("pycocotools.cocoeval", reason=reason)

    def xywh(box):
        return [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]

    truth, found = coco.COCO(), []
    annotations = []
    for number, one in enumerate(images):
        parts = (one[name] for name in ("true_boxes", "true_classes", "crowd", "area"))
        for box, label, crowd, area in zip(*parts, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(label),
                    "bbox": xywh(box),
                    "iscrowd": int(crowd),
                    "area": float(area),
                }
            )
        parts = (one[name] for name in ("boxes", "scores", "classes"))
        found += [
            {"image_id": number, "category_id": int(label), "bbox": xywh(box), "score": float(score)}
            for box, score, label in zip(*parts, strict=True)
        ]
    truth.dataset = {
        "images": [{"id": number} for number in range(len(images))],
        "categories": [{"id": number} for number in range(CLASSES)],
        "annotations": annotations,
        "info": {},
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        detections = truth.loadRes(found) if found else coco.COCO()
        if not found:
            detections.dataset = {**truth.dataset, "annotations": []}
            detections.createIndex()
        evaluation = cocoeval.COCOeval(truth, detections, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats, evaluation.eval["precision"][:, :, :, 0, 2]


@pytest.mark.parametrize("case", CASES)
def test_coco_equals_pycocotools(case):
    images = CASES[case]
    expected, precisions = pycocotools_scores(images)
    metric, other_worker = (AveragePrecision(CLASSES) for _ in range(2))
    for number, one in enumerate(images):
        (metric if number < len(images) / 2 else other_worker).add(**one)
    metric.merge(other_worker.sums)
    scores = metric.result()
    assert list(scores.means) == list(NAMES)
    np.testing.assert_allclose(np.nan_to_num([*scores.means.values()], nan=-1), expected, atol=1e-9)
    curves = np.stack([precision for _, precision in scores.curves], -1)
    np.testing.assert_allclose(np.nan_to_num(curves, nan=-1), precisions[0], atol=1e-9)
    class_ap = np.nan_to_num(scores.class_ap, nan=-1)
    np.testing.assert_allclose(class_ap, precisions.mean((0, 1)), atol=1e-9)


def devkit_curve(images, label):
    """Recall and precision of a class as VOCevaldet.m has them."""
    rows = [
        (score, number, box + FROM_ONE)
        for number, one in enumerate(images)
        for score, box, kind in zip(one["scores"], one["boxes"], one["classes"], strict=True)
        if kind == label
    ]
    right, wrong, taken = [], [], set()
    for _, number, box in sorted(rows, key=lambda row: -row[0]):
        one, most, best = images[number], -np.inf, None
        for place, (true_box, kind) in enumerate(zip(one["true_boxes"], one["true_classes"], strict=True)):
            if kind != label:
                continue
            true_box = true_box + FROM_ONE
            low, high = np.maximum(box[:2], true_box[:2]), np.minimum(box[2:], true_box[2:])
            width, height = high - low + 1
            if width > 0 and height > 0:
                areas = sum(np.prod(each[2:] - each[:2] + 1) for each in (box, true_box))
                overlap = width * height / (areas - width * height)
                if overlap > most:
                    most, best = overlap, place
        hit = most >= 0.5
        ignored = hit and one["difficult"][best]
        first = hit and not ignored and (number, best) not in taken
        if first:
            taken.add((number, best))
        right.append(first)
        wrong.append(not first and not ignored)
    objects = sum(((one["true_classes"] == label) & ~one["difficult"]).sum() for one in images)
    right, wrong = np.cumsum(right), np.cumsum(wrong)
    return right / objects, right / np.maximum(right + wrong, 1)


def devkit_ap(recall, precision, eleven_points):
    if eleven_points:
        return sum(max([0, *precision[recall >= place]]) / 11 for place in np.arange(0, 1.1, 0.1))
    recall, precision = np.array([0, *recall, 1]), np.array([0, *precision, 0])
    for place in range(len(precision) - 2, -1, -1):
        precision[place] = max(precision[place], precision[place + 1])
    steps = np.flatnonzero(np.diff(recall)) + 1
    return sum((recall[step] - recall[step - 1]) * precision[step] for step in steps)


@pytest.mark.parametrize("rules", ["voc", "voc2007"])
@pytest.mark.parametrize("seed", range(3))
def test_voc_equals_the_arithmetic_of_the_devkit(rules, seed):
    images = [
        {name: value for name, value in one.items() if name not in ("crowd", "area")}
        | {"difficult": one["crowd"]}
        for one in random_images(seed, levels=50)
    ]
    metric = AveragePrecision(CLASSES, rules)
    for one in images:
        metric.add(**one)
    scores = metric.result()
    expected = []
    for label in range(CLASSES - 1):
        curve = devkit_curve(images, label)
        np.testing.assert_allclose(scores.curves[label], curve, atol=1e-9)
        expected.append(devkit_ap(*curve, eleven_points=rules == "voc2007"))
    np.testing.assert_allclose(scores.class_ap[:-1], expected, atol=1e-9)
    assert np.isnan(scores.class_ap[-1])
    assert scores.means["ap50"] == pytest.approx(np.mean(expected))


def test_voc_by_hand():
    """Two objects and a difficult one; true, ignored, false (a second time), true: precisions 1 and 2/3.

    All points: 1/2 + 1/2 * 2/3. Eleven points: six recalls up to 0.5 at 1, five at 2/3.
    """
    objects = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]])
    found = objects[[0, 2, 0, 1]], [0.9, 0.8, 0.7, 0.6], [0] * 4
    difficult = [False, False, True]
    for rules, expected in ("voc", 1 / 2 + 1 / 3), ("voc2007", (6 + 5 * 2 / 3) / 11):
        metric = AveragePrecision(1, rules)
        metric.add(*found, objects, [0] * 3, difficult=difficult)
        scores = metric.result()
        assert scores.means["ap50"] == pytest.approx(expected, abs=1e-12)
        np.testing.assert_allclose(scores.curves[0], [[0.5, 0.5, 0.5, 1], [1, 1, 0.5, 2 / 3]])


def test_wrong_input_is_told():
    with pytest.raises(UserError, match="`rules` must be 'coco', 'voc' or 'voc2007'; got 'kitti'"):
        AveragePrecision(2, "kitti")
    with pytest.raises(UserError, match="needs at least one image"):
        AveragePrecision(2).result()
    with pytest.raises(UserError, match="must be from 0 to 1; got 2"):
        AveragePrecision(2).add([BOX], [0.5], [2], [BOX], [1])
