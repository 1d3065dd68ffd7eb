"""Pictures of predictions."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kvision.data.masks import IGNORED

ROW = 18  # pixels of a line of the legend


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
