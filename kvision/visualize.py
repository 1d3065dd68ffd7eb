"""Pictures of predictions."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kvision.data.masks import IGNORED

ROW = 18  # pixels of a line of the legend
GAP = 6  # pixels between pictures of a sheet
SMALLEST = 160  # side of a picture in a sheet
LONGEST = 4096  # side of a picture that was enlarged for its boxes
SHORTEST = 320  # side of a picture with boxes, in pixels; with fewer there is no room for labels


def palette(count: int = 256) -> np.ndarray:
    """The colours of PASCAL VOC's masks, uint8 `(count, 3)`, `count` up to 256; the first is black.

    The bits of a class's number are spread over the highest bits of red, green and blue, so that neighbours
    differ.
    """
    numbers = np.arange(count)[:, None]
    colors = np.zeros((count, 3), np.uint8)
    for bit in range(3):
        bits = numbers >> (3 * bit + np.arange(3)) & 1
        colors |= (bits << (7 - bit)).astype(np.uint8)
    return colors


def mask_image(mask: np.ndarray) -> Image.Image:
    """A palette image of a mask, whose pixels are class numbers that are shown in colour.

    Args:
        mask: integers `(height, width)` in [0, 255]; 255 stands for pixels without a class.
    """
    image = Image.fromarray(np.asarray(mask, np.uint8))
    colors = palette()
    colors[IGNORED] = 224, 224, 192  # cream, as in PASCAL VOC
    image.putpalette(colors.tobytes())
    return image


def overlay(
    image: np.ndarray, mask: np.ndarray, class_names: Sequence[str], alpha: float = 0.55
) -> Image.Image:
    """An image under the colours of its classes, with a legend of those that occur, by their area.

    Args:
        image: pixels `(height, width, channels)` in [0, 255], of 1 or 3 channels.
        mask: integers `(height, width)`, places in `class_names`; 255 stands for pixels without a class. The
            first class, the background, is not coloured.
        class_names: names of the classes.
        alpha: share of the colour, in [0, 1].
    """
    pixels = np.broadcast_to(np.asarray(image, np.float32), (*mask.shape, 3))
    colored = ((mask > 0) & (mask != IGNORED))[..., None]
    colors = palette()[mask]
    blended = np.where(colored, (1 - alpha) * pixels + alpha * colors, pixels)
    picture = Image.fromarray(np.rint(blended).astype(np.uint8))
    numbers, areas = np.unique(mask[mask != IGNORED], return_counts=True)
    lines = [
        (int(number), f"{class_names[number]}  {100 * area / mask.size:.1f} %")
        for number, area in sorted(zip(numbers, areas, strict=True), key=lambda pair: -pair[1])
    ]
    font = ImageFont.load_default(12)
    width = max([picture.width, *(int(font.getlength(text)) + 2 * ROW for _, text in lines)])
    sheet = Image.new("RGB", (width, picture.height + ROW * len(lines)), "white")
    sheet.paste(picture, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for line, (number, text) in enumerate(lines):
        top = picture.height + ROW * line
        box = (3, top + 3, ROW - 3, top + ROW - 3)
        draw.rectangle(box, fill=tuple(palette()[number].tolist()), outline="black")
        draw.text((ROW + 2, top + 2), text, fill="black", font=font)
    return sheet


def picture(image: np.ndarray) -> Image.Image:
    """An image of pixels `(height, width, channels)` in [0, 255], of 1 or 3 channels."""
    pixels = np.broadcast_to(np.asarray(image, np.float32), (*np.shape(image)[:2], 3))
    return Image.fromarray(np.rint(np.clip(pixels, 0, 255)).astype(np.uint8))


def spotlight(image: np.ndarray, shares: np.ndarray) -> Image.Image:
    """An image that is bright where attention lies: all of its light at the largest share, a quarter at none.

    Args:
        image: pixels `(height, width, channels)` in [0, 255], of 1 or 3 channels.
        shares: of the attention, `(rows, columns)` over the image.
    """
    light = Image.fromarray(np.asarray(255 * (0.25 + 0.75 * shares / max(shares.max(), 1e-9)), np.uint8))
    height, width = np.shape(image)[:2]
    light = light.resize((width, height), Image.Resampling.BICUBIC)
    return picture(np.asarray(image, np.float32) * np.asarray(light, np.float32)[..., None] / 255)


def strip(clip: np.ndarray, count: int) -> Image.Image:
    """Frames of a clip side by side, taken evenly from the first to the last.

    Args:
        clip: pixels `(frames, height, width, channels)` in [0, 255], of 1 or 3 channels.
        count: number of frames that are shown, or all where there are fewer.
    """
    places = np.linspace(0, len(clip) - 1, min(count, len(clip))).round().astype(int)
    return picture(np.concatenate([clip[place] for place in places], 1))


def curves(series: np.ndarray) -> Image.Image:
    """The curves of a series, each from its lowest to its highest value and in a colour of its own.

    Args:
        series: `(steps, features)`.
    """
    width, height = 2 * SMALLEST, SMALLEST
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    low, high = series.min(0), series.max(0)
    levels = (series - low) / np.where(high > low, high - low, 1)  # 0 to 1
    across = np.linspace(GAP, width - GAP, len(series))
    for number, column in enumerate(levels.T):
        down = height - GAP - column * (height - 2 * GAP)
        points = list(zip(across.tolist(), down.tolist(), strict=True))
        draw.line(points, fill=tuple(palette()[number % 254 + 1].tolist()), width=2)
    return image


def sheet(pictures: Sequence[tuple[Image.Image, str]]) -> Image.Image:
    """Pictures with their captions, row by row, about as many in a row as there are rows.

    Pictures that are smaller than 160 pixels are enlarged by a whole factor.
    """
    font, cells = ImageFont.load_default(12), []
    for image, caption in pictures:
        scale = max(1, SMALLEST // min(image.size))
        large = image.resize([scale * side for side in image.size], Image.Resampling.NEAREST)
        cells.append((large, caption))
    columns = math.ceil(math.sqrt(len(cells)))
    width, height = (max(image.size[axis] for image, _ in cells) for axis in range(2))
    width, height = width + GAP, height + GAP + (ROW if any(caption for _, caption in cells) else 0)
    whole = Image.new("RGB", (columns * width, math.ceil(len(cells) / columns) * height), "white")
    draw = ImageDraw.Draw(whole)
    for number, (image, caption) in enumerate(cells):
        left, top = number % columns * width, number // columns * height
        whole.paste(image, (left, top))
        while len(caption) > 1 and font.getlength(caption) > width - GAP:
            caption = caption.rstrip(".")[:-1] + "..."
        draw.text((left, top + image.height + 2), caption, fill="black", font=font)
    return whole


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    classes: np.ndarray,
    scores: np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    thin: tuple[np.ndarray, np.ndarray] | None = None,
) -> Image.Image:
    """An image with its boxes, each in the colour of its class and with a label that lies inside the picture.

    Boxes and labels of higher scores lie above others. Images whose shorter side has fewer than 320 pixels
    are enlarged by a whole factor, to at most 4,096 in the other direction.

    Args:
        image: pixels `(height, width, channels)` in [0, 255], of 1 or 3 channels.
        boxes: left, top, right and bottom in pixels of the image, `(boxes, 4)`.
        classes: integers `(boxes,)`, places in `class_names`. The first has the first colour that is not
            black, as it has in masks whose class 0 is the background.
        scores: in [0, 1], `(boxes,)`, which labels show; None for boxes without scores.
        class_names: names of the classes; None for their numbers.
        thin: more boxes and their classes, which have thin lines below the others, and no labels.
    """
    height, width = np.shape(image)[:2]
    scale = max(1, min(math.ceil(SHORTEST / min(height, width)), LONGEST // max(height, width)))
    drawn = picture(image).resize((scale * width, scale * height), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(drawn)
    line = max(2, round(min(drawn.size) / 250))
    points = max(12, min(drawn.size) // 32)
    font = ImageFont.load_default(points)
    most = np.array(2 * drawn.size) - 1
    places = _on_pixels(boxes, scale, most)
    order = np.arange(len(places)) if scores is None else np.argsort(scores, kind="stable")
    classes = np.asarray(classes, int)
    colors = [tuple(color) for color in palette()[classes % 254 + 1].tolist()]
    if thin:
        for corners, number in zip(_on_pixels(thin[0], scale, most).tolist(), thin[1], strict=True):
            draw.rectangle(_ordered(corners), outline=tuple(palette()[number % 254 + 1].tolist()))
    for number in order:
        corners = _ordered(places[number].tolist())
        draw.rectangle(corners, outline=_contrast(colors[number]), width=line + 1)  # seen on any background
        draw.rectangle(corners, outline=colors[number], width=line)
    free, labels = np.ones((drawn.height, drawn.width), bool), []
    for number in reversed(order):
        text = str(classes[number]) if class_names is None else class_names[int(classes[number])]
        text = text if scores is None else f"{text} {100 * scores[number]:.0f} %"
        while len(text) > 1 and draw.textlength(text, font) + points > drawn.width:
            text = text.rstrip(".")[:-1] + "..."
        size = math.ceil(draw.textlength(text, font)) + points // 2, 5 * points // 4 + 2
        labels.append((number, text, _free_place(free, places[number].tolist(), *size)))
    for number, text, (left, top, right, bottom) in reversed(labels):
        draw.rectangle((left, top, right - 1, bottom - 1), fill=colors[number])
        draw.text((left + points // 4, top + 1), text, fill=_contrast(colors[number]), font=font)
    return drawn


def _on_pixels(boxes, scale, most) -> np.ndarray:
    """The first and last pixels of boxes in an enlarged picture, integers `(boxes, 4)`."""
    return np.clip(np.rint(np.reshape(boxes, (-1, 4)) * scale) - [0, 0, 1, 1], 0, most).astype(int)


def _ordered(corners) -> tuple[int, int, int, int]:
    left, top, right, bottom = corners
    return min(left, right), min(top, bottom), max(left, right), max(top, bottom)


def _free_place(free, box, width, height) -> tuple[int, int, int, int]:
    """A place for a label, as near above a box, in it or below it as nothing is there yet; takes it."""
    left, top, right, bottom = box
    tops = top - height, top, bottom + 1, bottom + 1 - height
    lefts = np.linspace(left, right + 1 - width, 5).astype(int).tolist()
    places = []
    for y, x in itertools.product(tops, lefts):
        y, x = max(0, min(y, free.shape[0] - height)), max(0, min(x, free.shape[1] - width))
        places.append((x, y, x + width, y + height))
    place = next(
        (place for place in places if free[place[1] : place[3], place[0] : place[2]].all()), places[0]
    )
    free[place[1] : place[3], place[0] : place[2]] = False
    return place


def _contrast(color) -> str:
    """Black or white, whichever differs more from a colour (luma of ITU-R BT.601)."""
    return "black" if np.dot(color, (0.299, 0.587, 0.114)) > 127 else "white"
