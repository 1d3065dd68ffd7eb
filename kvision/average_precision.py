"""Average precision of detections, by the rules of COCO and of PASCAL VOC, in NumPy.

Each image's detections are matched with its objects once (`coco_matches`, `voc_matches`). What that gives is
small and adds up over images and workers: arrays are added, lists joined, as `kvision.tasks.task.add` does.
`coco_scores` and `voc_scores` turn the sums into metrics.

Figures of COCO's rules are those of pycocotools (`COCOeval`, boxes). Figures of VOC's rules are those of the
devkit for boxes that were read as `(xmin - 1, ymin - 1, xmax, ymax)`, as detectron2 does: the devkit adds 1
to widths because its last pixels are inside, and here boxes end before `right` and `bottom`.
"""

from typing import NamedTuple

import numpy as np

from kvision.errors import UserError

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of COCO's IoU
RECALLS = np.linspace(0, 1, 101)  # at which COCO reads the precision
AREAS = {"all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}
COUNTS = (1, 10, 100)  # of an image's most probable detections of a class; COCO reads no more
VOC_THRESHOLD = 0.5  # of VOC's IoU
ELEVEN_RECALLS = np.arange(11) * 0.1  # VOC2007; 0.3 is 0.30000000000000004, as in detectron2
FALSE, TRUE, IGNORED = range(3)  # outcomes of a detection


class Scores(NamedTuple):
    """Metrics of detections in [0, 1]; NaN for classes without objects.

    Attributes:
        means: the metrics over all classes that have objects, by name.
        class_ap: average precision of each class, `(classes,)`.
        curves: recalls and precisions at an IoU of 0.5 of each class, float64 `(points,)`. COCO's are 101
            points of the interpolated curve, VOC's one point a detection.
    """

    means: dict[str, float]
    class_ap: np.ndarray
    curves: list[tuple[np.ndarray, np.ndarray]]


class AveragePrecision:
    """Accumulator of matches over images.

    Attributes:
        sums: what `coco_matches` or `voc_matches` gives, of all images so far.
    """

    def __init__(self, num_classes: int, rules: str = "coco"):
        """
        Args:
            num_classes: number of classes.
            rules: "coco", "voc", or "voc2007", whose curve is read at 11 points.

        Raises:
            UserError: `rules` is none of these.
        """
        if rules not in ("coco", "voc", "voc2007"):
            raise UserError(f"`rules` must be 'coco', 'voc' or 'voc2007'; got {rules!r}.")
        self.num_classes, self.rules, self.sums = num_classes, rules, {}

    def add(self, boxes, scores, classes, true_boxes, true_classes, **flags):
        """Adds an image, see `coco_matches` and `voc_matches`."""
        match = coco_matches if self.rules == "coco" else voc_matches
        self.merge(match(boxes, scores, classes, true_boxes, true_classes, self.num_classes, **flags))

    def merge(self, sums):
        """Adds the sums of another worker.

        Detections of equal scores rank in the order in which they were added.
        """
        for name, value in sums.items():
            if isinstance(value, list):
                self.sums.setdefault(name, []).extend(value)
            else:
                self.sums[name] = self.sums.get(name, 0) + value

    def result(self) -> Scores:
        """The metrics.

        Raises:
            UserError: no image was added.
        """
        if not self.sums:
            raise UserError("Average precision needs at least one image; none was added.")
        if self.rules == "coco":
            return coco_scores(self.sums)
        return voc_scores(self.sums, eleven_points=self.rules == "voc2007")


def coco_matches(
    boxes, scores, classes, true_boxes, true_classes, num_classes: int, crowd=None, area=None
) -> dict:
    """Matches of an image by COCO's rules.

    Each detection takes the object of its class with the largest IoU that is still free, those with the
    highest scores first; of a class 100 count. A detection that finds no object but a crowd or one outside
    the range of areas is ignored; so is one that finds none and is outside that range itself.

    Args:
        boxes: of the detections, `(detections, 4)`.
        scores: `(detections,)`.
        classes: integers `(detections,)` in [0, `num_classes`).
        true_boxes: of the objects, `(objects, 4)`.
        true_classes: integers `(objects,)` in [0, `num_classes`).
        num_classes: number of classes.
        crowd: whether a box holds many objects, so that any number of detections inside is ignored,
            `(objects,)`; None if all boxes hold single objects.
        area: of the objects in square pixels, `(objects,)`; None for those of the boxes. COCO's are those of
            the masks.

    Returns:
        "positives": objects that can be found, integers `(classes, ranges of areas)`; and lists of one array
        with a row a detection, by descending score: "scores", float64; "classes" and "ranks" in the class,
        int32; "outcomes", uint8 `(detections, ranges of areas, thresholds of IoU)`.

    Raises:
        UserError: a class is outside its range.
    """
    boxes, scores, classes = _sorted(boxes, scores, classes, num_classes)
    ranks = _ranks(classes)
    kept = ranks < COUNTS[-1]
    boxes, scores, classes, ranks = boxes[kept], scores[kept], classes[kept], ranks[kept]
    true_boxes, true_classes = _rows(true_boxes), _checked(true_classes, num_classes)
    crowd = np.zeros(len(true_boxes), bool) if crowd is None else np.asarray(crowd, bool)
    area = _area(true_boxes) if area is None else np.asarray(area, np.float64)
    low, high = np.array([*AREAS.values()]).T[..., None]
    ignored = crowd | (area < low) | (area > high)  # (ranges, objects)
    outside = (_area(boxes) < low) | (_area(boxes) > high)  # (ranges, detections)

    overlaps = iou(boxes, true_boxes, crowd)
    overlaps[classes[:, None] != true_classes] = -1
    outcomes = np.where(outside.T, IGNORED, FALSE)[..., None].repeat(len(THRESHOLDS), -1)
    taken = np.zeros((len(AREAS), len(THRESHOLDS), len(true_boxes)), bool)
    for place in np.flatnonzero((overlaps >= THRESHOLDS[0]).any(1)):
        row = overlaps[place]
        free = (row >= THRESHOLDS[:, None]) & ~(taken & ~crowd)
        counted = free & ~ignored[:, None]
        free = np.where(counted.any(-1, keepdims=True), counted, free)
        best = len(row) - 1 - np.where(free, row, -1)[..., ::-1].argmax(-1)  # the last of equal ones
        range_, threshold = np.nonzero(free.any(-1))
        best = best[range_, threshold]
        taken[range_, threshold, best] = True
        outcomes[place, range_, threshold] = np.where(ignored[range_, best], IGNORED, TRUE)
    positives = [np.bincount(true_classes[~skipped], minlength=num_classes) for skipped in ignored]
    return _matches(np.stack(positives, 1), scores, classes, ranks, outcomes)


def voc_matches(boxes, scores, classes, true_boxes, true_classes, num_classes: int, difficult=None) -> dict:
    """Matches of an image by VOC's rules.

    A detection is judged by the object of its class with the largest IoU, the first of equal ones. It is
    false below an IoU of 0.5 (detectron2: also at 0.5) and ignored where the object is difficult; else, of
    the detections of an object, the one with the highest score is true and the others are false.

    Args:
        boxes, scores, classes, true_boxes, true_classes, num_classes: see `coco_matches`.
        difficult: whether an object need not be found, `(objects,)`; None where all have to be.

    Returns:
        See `coco_matches`; there is one range of areas and one threshold.

    Raises:
        UserError: a class is outside its range.
    """
    boxes, scores, classes = _sorted(boxes, scores, classes, num_classes)
    true_boxes, true_classes = _rows(true_boxes), _checked(true_classes, num_classes)
    difficult = np.zeros(len(true_boxes), bool) if difficult is None else np.asarray(difficult, bool)
    outcomes = np.full(len(boxes), FALSE)
    if len(true_boxes):
        overlaps = iou(boxes, true_boxes)
        overlaps[classes[:, None] != true_classes] = -1
        found = np.flatnonzero(overlaps.max(1) >= VOC_THRESHOLD)
        best = overlaps[found].argmax(1)
        outcomes[found[np.unique(best, return_index=True)[1]]] = TRUE
        outcomes[found[difficult[best]]] = IGNORED
    positives = np.bincount(true_classes[~difficult], minlength=num_classes)[:, None]
    return _matches(positives, scores, classes, _ranks(classes), outcomes[:, None, None])


def coco_scores(sums: dict) -> Scores:
    """COCO's metrics from the sums of `coco_matches`.

    The names of the means are "ap", over the ten thresholds of IoU from 0.5 to 0.95, "ap50" and "ap75"; of
    objects of up to 32 x 32, up to 96 x 96 and more pixels "ap_small", "ap_medium" and "ap_large"; the
    average recalls of one, ten and a hundred detections an image and class, "ar1", "ar10" and "ar100", and
    of a hundred "ar_small", "ar_medium" and "ar_large".
    """
    positives, scores, classes, ranks, outcomes = _joined(sums)
    shape = len(positives), len(AREAS), len(THRESHOLDS)
    precisions = np.full((*shape, len(RECALLS)), np.nan)
    recalls = np.full((*shape, len(COUNTS)), np.nan)
    for number, places in enumerate(_by_class(scores, classes, len(positives))):
        for range_ in np.flatnonzero(positives[number]):
            outcome = outcomes[places, range_]  # (detections, thresholds)
            recall, precision = precision_recall(outcome, positives[number, range_])
            precision = envelope(precision)
            for threshold in range(len(THRESHOLDS)):
                reached = np.searchsorted(recall[:, threshold], RECALLS)
                read = np.append(precision[:, threshold], 0)[reached]
                precisions[number, range_, threshold] = read
            hits = [(outcome[ranks[places] < count] == TRUE).sum(0) for count in COUNTS]
            recalls[number, range_] = np.stack(hits, -1) / positives[number, range_]
    areas = list(AREAS)
    means = {
        "ap": precisions[:, 0],
        "ap50": precisions[:, 0, 0],
        "ap75": precisions[:, 0, 5],
        **{f"ap_{name}": precisions[:, place] for place, name in enumerate(areas) if place},
        **{f"ar{count}": recalls[:, 0, :, place] for place, count in enumerate(COUNTS)},
        **{f"ar_{name}": recalls[:, place, :, -1] for place, name in enumerate(areas) if place},
    }
    return Scores(
        {name: _mean(values) for name, values in means.items()},
        precisions[:, 0].mean((-2, -1)),
        [(RECALLS, precision) for precision in precisions[:, 0, 0]],
    )


def voc_scores(sums: dict, eleven_points: bool = False) -> Scores:
    """VOC's mean average precision, "ap50", from the sums of `voc_matches`.

    Args:
        sums: the sums.
        eleven_points: whether the precision is averaged over 11 recalls, as until VOC2009, and not over all.
    """
    positives, scores, classes, _, outcomes = _joined(sums)
    curves = [
        precision_recall(outcomes[places, 0, 0], count)
        for places, count in zip(_by_class(scores, classes, len(positives)), positives[:, 0], strict=True)
    ]
    area = eleven_point_area if eleven_points else area_below
    class_ap = np.array(
        [area(*curve) if count else np.nan for curve, count in zip(curves, positives[:, 0], strict=True)]
    )
    return Scores({"ap50": _mean(class_ap)}, class_ap, curves)


def iou(boxes, others, crowd: np.ndarray | bool = False) -> np.ndarray:
    """Intersection over union, float64 `(boxes, others)`, in [0, 1].

    Args:
        boxes: `(boxes, 4)`.
        others: `(others, 4)`.
        crowd: `(others,)`; the intersection is divided by the area of the box where this is true.
    """
    low, high = (
        side(boxes[:, None, part], others[:, part])
        for side, part in ((np.maximum, np.s_[:2]), (np.minimum, np.s_[2:]))
    )
    intersection = np.maximum(high - low, 0).prod(-1)
    area = _area(boxes)[:, None]
    union = np.where(crowd, area, area + _area(others) - intersection)
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=intersection > 0)


def precision_recall(outcomes, positives) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision after each detection.

    Args:
        outcomes: `TRUE`, `FALSE` or `IGNORED` of the detections by descending score, `(detections, ...)`.
        positives: number of objects.

    Returns:
        float64 `(detections, ...)` each; recalls are NaN without objects.
    """
    right, wrong = (np.cumsum(outcomes == kind, 0, np.float64) for kind in (TRUE, FALSE))
    recall = right / positives if positives else np.full_like(right, np.nan)
    return recall, right / (right + wrong + np.spacing(1))  # as in pycocotools


def envelope(precision) -> np.ndarray:
    """The highest precision at the same or a higher recall, `(detections, ...)`."""
    return np.maximum.accumulate(precision[::-1])[::-1]


def area_below(recall, precision) -> float:
    """Area below the envelope of a curve, from recall 0 on (VOC2010 and later)."""
    return float(np.sum(np.diff(recall, prepend=0) * envelope(precision)))


def eleven_point_area(recall, precision) -> float:
    """Mean of the envelope of a curve at the recalls 0, 0.1, ..., 1 (up to VOC2009)."""
    return float(np.append(envelope(precision), 0)[np.searchsorted(recall, ELEVEN_RECALLS)].mean())


def _area(boxes):
    return (boxes[:, 2:] - boxes[:, :2]).prod(-1)


def _rows(boxes):
    return np.asarray(boxes, np.float64).reshape(-1, 4)


def _checked(classes, num_classes):
    classes = np.asarray(classes, np.int32)
    wrong = classes[(classes < 0) | (classes >= num_classes)]
    if len(wrong):
        raise UserError(f"Classes of boxes must be from 0 to {num_classes - 1}; got {wrong[0]}.")
    return classes


def _sorted(boxes, scores, classes, num_classes):
    """The detections by descending score."""
    scores = np.asarray(scores, np.float64)
    order = np.argsort(-scores, kind="stable")
    return _rows(boxes)[order], scores[order], _checked(classes, num_classes)[order]


def _ranks(classes):
    """How many before each one are of the same class, int32."""
    order = np.argsort(classes, kind="stable")
    starts = np.searchsorted(classes[order], classes[order])
    ranks = np.empty(len(classes), np.int32)
    ranks[order] = np.arange(len(classes)) - starts
    return ranks


def _matches(positives, scores, classes, ranks, outcomes):
    return {
        "positives": positives,
        "scores": [scores],
        "classes": [classes],
        "ranks": [ranks],
        "outcomes": [outcomes.astype(np.uint8)],
    }


def _joined(sums):
    names = "scores", "classes", "ranks", "outcomes"
    return sums["positives"], *(np.concatenate(sums[name]) for name in names)


def _by_class(scores, classes, num_classes):
    """The places of each class's detections by descending score."""
    order = np.lexsort((-scores, classes))  # stable
    return np.split(order, np.searchsorted(classes[order], np.arange(1, num_classes)))


def _mean(values) -> float:
    """The mean of those that are numbers; NaN where there is none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else np.nan
