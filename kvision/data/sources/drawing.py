"""Parts of drawn pictures: backgrounds, shapes and noise."""

import numpy as np

SHAPES = ("circle", "square", "triangle")
CONTRAST = 60  # least difference of a shape's colour from the background's, in its strongest channel
NOISE = 12  # standard deviation


def background(random: np.random.Generator, size: int) -> np.ndarray:
    """A gradient of two random colours in a random direction, float64 `(size, size, 3)`."""
    rows, columns = np.mgrid[:size, :size] + 0.5
    angle = random.uniform(0, 2 * np.pi)
    slope = (np.cos(angle) * rows + np.sin(angle) * columns) / size
    slope = ((slope - slope.min()) / np.ptp(slope))[..., None]
    start, end = random.uniform(30, 225, (2, 3))
    return start + (end - start) * slope


def covered(shape: str, top: float, left: float, side: float, size: int) -> np.ndarray:
    """Mask of the pixels that a shape covers, bool `(size, size)`, given the corner and side of its box."""
    rows, columns = np.mgrid[:size, :size] + 0.5
    rows, columns = rows - top, columns - left
    in_box = (rows > 0) & (rows < side) & (columns > 0) & (columns < side)
    middle = side / 2
    return {
        "circle": (rows - middle) ** 2 + (columns - middle) ** 2 < middle**2,
        "square": in_box,
        "triangle": in_box & (np.abs(columns - middle) < rows / 2),  # its point is above
    }[shape]


def noisy(random: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """The image with noise, as uint8."""
    return np.clip((image + random.normal(0, NOISE, image.shape)).round(), 0, 255).astype(np.uint8)
