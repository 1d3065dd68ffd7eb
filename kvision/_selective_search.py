"""Selective search: boxes in which an object may be, without training (Uijlings et al. 2013).

An image is segmented (Felzenszwalb and Huttenlocher 2004), and the two most similar neighbours are joined
until one region is left; the box of every region on the way is a proposal. These are the settings of R-CNN
(Girshick et al. 2014), the paper's "fast" mode: two colour spaces, two scales of segments and two measures of
similarity give eight hierarchies.
"""

import heapq
import importlib
import math

import numpy as np
from PIL import Image

from kvision.errors import UserError

SCALES = (50, 100)  # the segmentation's k, which is the least number of pixels of a segment too
SIGMA = 0.8  # of the blur before the segmentation, in pixels
TEXTURE_SIGMA = 1.0  # of the Gaussian whose derivatives are the texture, in pixels
COLOR_BINS, TEXTURE_BINS, ORIENTATIONS = 25, 10, 8
CHUNKS = 64  # of the segmentation's edges
BACK = (-1, -1, 1, 1)  # negates the left and the top of boxes
TO_XYZ = (  # from linear sRGB, relative to the white of D65 (0.9505, 1, 1.089)
    (0.4339531, 0.3762193, 0.1898274),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0177566, 0.1094680, 0.8727754),
)


def selective_search(
    image: np.ndarray,
    *,
    width: int | None = 500,
    smallest: int = 20,
    seed: int = 0,
    backend: str = "auto",
) -> np.ndarray:
    """Boxes of regions that may be objects, the most promising first.

    The order is that of the paper: a region's place in its hierarchy, counted from the whole image, times a
    random number, so that the first boxes are of all sizes. OpenCV does not tell that place; its regions are
    ordered by their size instead.

    Args:
        image: pixels `(height, width, channels)` in [0, 255], of 1 or 3 channels, RGB.
        width: to which the image is resized before the search, in pixels; None for its own.
        smallest: least side of a box in pixels, after resizing.
        seed: of the random numbers.
        backend: "numpy"; "opencv", whose boxes differ a little; or "auto", which is OpenCV where it is
            installed.

    Returns:
        float32 `(boxes, 4)`: left, top, right and bottom in pixels of the image, without duplicates.

    Raises:
        UserError: there is no such backend.
        ImportError: OpenCV was asked for and its contributed modules are not installed.
    """
    if backend not in ("auto", "numpy", "opencv"):
        raise UserError(f"`backend` must be 'auto', 'numpy' or 'opencv'; got {backend!r}.")
    opencv = None if backend == "numpy" else _opencv()
    if opencv is None and backend == "opencv":
        raise ImportError(
            "`backend='opencv'` needs OpenCV with its contributed modules: "
            "pip install opencv-contrib-python-headless"
        )
    rows, columns = np.shape(image)[:2]
    pixels = np.broadcast_to(np.rint(np.clip(image, 0, 255)).astype(np.uint8), (rows, columns, 3))
    size = (columns, rows) if width is None else (width, max(1, round(rows * width / columns)))
    resized = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BILINEAR)
    hierarchies = [*(_hierarchies(resized) if opencv is None else _opencv_hierarchies(resized, opencv))]
    places = np.concatenate([np.arange(len(boxes), 0, -1) for boxes in hierarchies])
    boxes = np.concatenate(hierarchies)
    order = np.argsort(places * np.random.default_rng(seed).random(len(places)), kind="stable")
    boxes = boxes[order]
    boxes = boxes[(boxes[:, 2:] - boxes[:, :2] >= smallest).all(1)]
    boxes = boxes[np.sort(np.unique(boxes, axis=0, return_index=True)[1])]
    return (boxes * (np.array([columns, rows] * 2) / [*size, *size])).astype(np.float32)


def has_opencv() -> bool:
    """Whether `backend="auto"` means OpenCV."""
    return _opencv() is not None


def _opencv():
    """OpenCV's segmentation; None where it is not installed."""
    try:
        return importlib.import_module("cv2").ximgproc.segmentation
    except (ImportError, AttributeError):  # AttributeError: OpenCV without the contributed modules
        return None


def _hierarchies(image):
    """Boxes of the regions of each hierarchy, integers `(regions, 4)`, the whole image last."""
    shape = image.height, image.width
    for pixels in (np.asarray(image.convert("HSV"), np.float32), _lab(np.asarray(image))):
        edges = _edges(pixels)
        bins = _color_bins(pixels), _texture_bins(pixels)
        for scale in SCALES:
            labels = _segments(*edges, pixels[..., 0].size, scale).reshape(shape)
            colors, textures = (_histograms(labels, part) for part in bins)
            regions = _boxes_and_neighbours(labels)
            for histograms in (np.concatenate([colors, textures], 1), textures):
                yield _grouped(*regions, np.bincount(labels.ravel()), histograms)


def _opencv_hierarchies(image, parts):
    """Boxes of the regions of each hierarchy, integers `(regions, 4)`, from small to large."""
    color, *others = (
        getattr(parts, f"createSelectiveSearchSegmentationStrategy{name}")
        for name in ("Color", "Texture", "Size", "Fill")
    )
    for pixels in (np.asarray(image.convert("HSV")), _lab(np.asarray(image)).astype(np.uint8)):
        for scale in SCALES:
            for strategies in ([color, *others], others):
                search = parts.createSelectiveSearchSegmentation()
                search.addImage(pixels)
                search.addGraphSegmentation(parts.createGraphSegmentation(SIGMA, scale, scale))
                join = parts.createSelectiveSearchSegmentationStrategyMultiple
                search.addStrategy(join(*(strategy() for strategy in strategies)))
                boxes = np.reshape(search.process(), (-1, 4))
                boxes[:, 2:] += boxes[:, :2]
                boxes = np.unique(boxes, axis=0)  # in an order that no random number decides
                yield boxes[np.argsort((boxes[:, 2:] - boxes[:, :2]).prod(1), kind="stable")]


def _lab(pixels):
    """CIE Lab of sRGB pixels under D65, float32 `(height, width, 3)`, each channel within [0, 255]."""
    values = np.arange(256) / 255
    linear = np.where(values > 0.04045, ((values + 0.055) / 1.055) ** 2.4, values / 12.92)
    xyz = linear.astype(np.float32)[pixels] @ np.array(TO_XYZ, np.float32).T
    x, y, z = np.moveaxis(np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116), -1, 0)
    return np.stack([(116 * y - 16) * 2.55, 500 * (x - y) + 128, 200 * (y - z) + 128], -1)


def _filtered(pixels, kernel, axis):
    """The correlation along an axis; edges are repeated."""
    radius = len(kernel) // 2
    padding = [(radius, radius) if place == axis else (0, 0) for place in range(pixels.ndim)]
    padded = np.moveaxis(np.pad(pixels, padding, "edge"), axis, 0)
    length = pixels.shape[axis]
    filtered = np.zeros_like(padded[:length])
    for place, weight in enumerate(kernel.tolist()):
        filtered += weight * padded[place : place + length]
    return np.moveaxis(filtered, 0, axis)


def _gaussian(sigma):
    """The places and the weights of a Gaussian's pixels."""
    radius = math.ceil(4 * sigma)
    places = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (places / sigma) ** 2)
    return places, weights / weights.sum()


def _color_bins(pixels):
    """Bins of each channel, integers `(channels, pixels)`, and how many there are."""
    bins = np.clip(pixels * (COLOR_BINS / 256), 0, COLOR_BINS - 1).astype(np.uint8)
    return bins.reshape(-1, 3).T, COLOR_BINS


def _texture_bins(pixels):
    """Bins of the Gaussian derivatives, integers `(channels in 8 directions, pixels)`, and how many.

    The bins of a channel go up to its largest derivative; those below 0 count in the opposite direction.
    """
    places, smooth = _gaussian(TEXTURE_SIGMA)
    slope = smooth * places / TEXTURE_SIGMA**2
    across = _filtered(_filtered(pixels, smooth, 0), slope, 1).reshape(-1, 3).T
    down = _filtered(_filtered(pixels, slope, 0), smooth, 1).reshape(-1, 3).T
    factor = (TEXTURE_BINS - 0.01) / np.maximum(np.hypot(across, down).max(1, keepdims=True), 1e-6)
    across, down = across * factor, down * factor
    bins = []
    for place in range(ORIENTATIONS):
        angle = 2 * math.pi * place / ORIENTATIONS
        bins.append(np.maximum(math.cos(angle) * across + math.sin(angle) * down, 0).astype(np.uint8))
    return np.concatenate(bins), TEXTURE_BINS


def _histograms(labels, bins_and_count):
    """Histograms of the bins of each segment, float32 `(segments, channels * count)`, whose sums are 1."""
    bins, count = bins_and_count
    segments = labels.max() + 1
    start = labels.ravel() * count
    counts = [np.bincount(start + channel, minlength=segments * count) for channel in bins]
    histograms = np.concatenate([part.reshape(segments, count) for part in counts], 1, dtype=np.float32)
    return histograms / histograms.sum(1, keepdims=True)


def _edges(pixels):
    """Pairs of neighbouring pixels, two arrays of integers, and the distances of their colours, ascending."""
    _, kernel = _gaussian(SIGMA)
    pixels = _filtered(_filtered(pixels, kernel, 0), kernel, 1)
    numbers = np.arange(pixels[..., 0].size).reshape(pixels.shape[:2])
    left, right, top, bottom, whole = np.s_[:-1], np.s_[1:], np.s_[:-1], np.s_[1:], np.s_[:]
    pairs = (
        (np.s_[whole, left], np.s_[whole, right]),
        (np.s_[top, whole], np.s_[bottom, whole]),
        (np.s_[top, left], np.s_[bottom, right]),
        (np.s_[bottom, left], np.s_[top, right]),
    )
    starts, ends = (np.concatenate([numbers[pair[side]].ravel() for pair in pairs]) for side in (0, 1))
    lengths = [np.sqrt(np.square(pixels[one] - pixels[other]).sum(-1)).ravel() for one, other in pairs]
    lengths = np.concatenate(lengths)
    order = np.argsort(lengths, kind="stable")
    return starts[order], ends[order], lengths[order]


def _segments(starts, ends, lengths, pixels, scale):
    """Segments of the graph of pixels, integers `(pixels,)` from 0 on.

    Edges come in ascending order. One joins two segments if it is no longer than `reach` of both: the longest
    edge that joined the segment's pixels, plus `scale` by its number of pixels. So a segment that an edge was
    too long for is final. Most edges lie within a segment or touch a final one; these are found for many
    edges at once, and the others go one by one.
    """
    root, sizes, reach = np.arange(pixels), np.ones(pixels, int), np.full(pixels, float(scale))
    for chunk in np.array_split(np.arange(len(lengths)), CHUNKS):
        first, second, length = root[starts[chunk]], root[ends[chunk]], lengths[chunk]
        kept = (first != second) & (np.minimum(reach[first], reach[second]) >= length[0])
        root = _joined(first[kept], second[kept], length[kept], root, sizes, reach, scale, 0)
    first, second = root[starts], root[ends]
    kept = (first != second) & (np.minimum(sizes[first], sizes[second]) < scale)
    never = np.full(kept.sum(), np.nan)  # within no reach
    root = _joined(first[kept], second[kept], never, root, sizes, reach, scale, least=scale)
    return np.unique(root, return_inverse=True)[1]


def _joined(first, second, lengths, root, sizes, reach, scale, least):
    """The segments' pixels after edges have joined those within reach, and those of less than `least` pixels.

    A segment's number is that of one of its pixels; its size and reach are written there.
    """
    numbers, places = np.unique(np.concatenate([first, second]), return_inverse=True)
    parent, size, far = list(range(len(numbers))), sizes[numbers].tolist(), reach[numbers].tolist()
    firsts, seconds = places.reshape(2, -1).tolist()
    for one, other, length in zip(firsts, seconds, lengths.tolist(), strict=True):
        while parent[one] != one:
            parent[one] = one = parent[parent[one]]
        while parent[other] != other:
            parent[other] = other = parent[parent[other]]
        if one == other:
            continue
        if (length <= far[one] and length <= far[other]) or size[one] < least or size[other] < least:
            if size[one] < size[other]:
                one, other = other, one
            parent[other] = one
            size[one] += size[other]
            far[one] = length + scale / size[one]
    sizes[numbers], reach[numbers] = size, far
    parents = np.array(parent, int)
    while (parents != parents[parents]).any():
        parents = parents[parents]
    root[numbers] = numbers[parents]
    return root[root]


def _boxes_and_neighbours(labels):
    """Boxes of segments, integers `(segments, 4)`, and the pairs of neighbours, integers `(pairs, 2)`."""
    boxes = np.full((labels.max() + 1, 4), -labels.size)
    rows, columns = np.indices(labels.shape)
    for place, side in enumerate((-columns, -rows, columns + 1, rows + 1)):
        np.maximum.at(boxes[:, place], labels, side)
    beside = (labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])
    pairs = np.concatenate([np.stack([one[one != other], other[one != other]], 1) for one, other in beside])
    return boxes * BACK, np.unique(np.sort(pairs, 1), axis=0)


def _grouped(boxes, pairs, sizes, histograms):
    """Boxes of the segments and of the regions that they form, integers `(regions, 4)`, in order of origin.

    The similarity of two neighbours is the intersection of their histograms, less the share of the image that
    their box has. This share is all that remains, but for a constant, of the paper's size and fill:
    `1 - sizes / image + 1 - (box - sizes) / image`.
    """
    segments, image = len(boxes), sizes.sum()
    total = 2 * segments - 1
    sizes, histograms, boxes = (
        np.concatenate([part, np.zeros((segments - 1, *part.shape[1:]), part.dtype)])
        for part in (sizes, histograms, boxes * BACK)  # the union of two is a maximum
    )

    def similarities(regions, others):
        box = np.maximum(boxes[regions], boxes[others])
        area = (box[:, 2] + box[:, 0]) * (box[:, 3] + box[:, 1])
        return np.minimum(histograms[regions], histograms[others]).sum(1) - area / image

    queue = list(zip((-similarities(*pairs.T)).tolist(), *pairs.T.tolist(), strict=True))
    heapq.heapify(queue)
    neighbours = [set() for _ in range(total)]
    for one, other in pairs.tolist():
        neighbours[one].add(other)
        neighbours[other].add(one)
    free = [True] * total
    for new in range(segments, total):
        _, one, other = heapq.heappop(queue)
        while not (free[one] and free[other]):
            _, one, other = heapq.heappop(queue)
        free[one] = free[other] = False
        parts = [one, other]
        sizes[new] = sizes[parts].sum()
        histograms[new] = sizes[parts] @ histograms[parts] / sizes[new]
        boxes[new] = boxes[parts].max(0)
        near = sorted(number for number in neighbours[one] | neighbours[other] if free[number])
        neighbours[new] = set(near)
        for number in near:
            neighbours[number].add(new)
        distances = -similarities(near, [new])
        for distance, number in zip(distances.tolist(), near, strict=True):
            heapq.heappush(queue, (distance, number, new))
    return boxes * BACK
