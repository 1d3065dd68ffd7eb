"""Clips: frames of films and folders, chosen over time."""

import contextlib
import importlib
import importlib.util
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import PIL.Image

from kvision.data import decoding

GIF = ".gif"
VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp")
FILMS = (GIF, *VIDEOS)  # files that are a clip each
IMAGES = tuple(  # files that may be a frame
    ending
    for ending, form in PIL.Image.registered_extensions().items()
    if form in decoding.FORMATS and ending != GIF
)
LEAST = 0.5  # of a clip, in training

Choose = Callable[[int], np.ndarray]  # from the number of frames to the places of some, ascending


class Damaged(Exception):
    """A clip that fails to decode, and why."""


def chosen(count: int, length: int, numbers: Sequence[float] | None = None) -> np.ndarray:
    """The places of frames at equal distances: in the middle of each of `length` equal parts.

    Args:
        count: of the clip's frames.
        length: of the places; frames are repeated where there are fewer.
        numbers: two in [0, 1), by which the length and the place of a stretch of the clip follow, at least
            half of it, and no less than `length` frames where it has them; None for the whole clip.

    Returns:
        int64 `(length,)`, ascending.
    """
    start, stretch = 0, count
    if numbers is not None:
        least = max(int(np.ceil(LEAST * count)), min(length, count))
        stretch = least + int(numbers[0] * (count - least + 1))
        start = int(numbers[1] * (count - stretch + 1))
    return start + (2 * np.arange(length) + 1) * stretch // (2 * length)


def read_frames(
    paths: Sequence[str], choose: Choose, channels: int, exif: bool = True
) -> Iterator[np.ndarray]:
    """The chosen frames of a clip.

    Args:
        paths: of its frames in order, or of one GIF or video file.
        choose: from the number of frames to places, ascending.
        channels: 3, or 1 for grey.
        exif: whether images are turned as their EXIF orientation says.

    Yields:
        uint8 `(height, width, channels)`, all of one size.

    Raises:
        OSError: a file cannot be read.
        Damaged: a frame fails to decode, or has another size than the first.
    """
    ending = ending_of(paths[0])
    if ending == GIF:
        frames = _of_gif(paths[0], choose, channels)
    elif ending in VIDEOS:
        frames = _of_video(paths[0], choose, channels)
    else:
        frames = _of_files(paths, choose, channels, exif)
    first = None
    for frame in frames:
        height, width = frame.shape[:2]
        if first is None:
            first = height, width
        elif first != (height, width):
            raise Damaged(f"its frames have {first[1]} x {first[0]} and {width} x {height} pixels")
        yield frame


def reason(frames: Iterator[np.ndarray]) -> str | None:
    """Reason why a clip fails to decode, in printable words; None where it does not.

    Raises:
        OSError: a file cannot be read.
    """
    try:
        for _ in frames:
            pass
    except Damaged as error:
        return str(error)
    return None


def clips_in(paths: Iterable[str]) -> list[list[str]]:
    """The clips among files: a film each, or a folder's frames in the order of their names, 10 behind 2."""
    films = [[path] for path in paths if is_film(path)]
    frames = sorted(
        (path for path in paths if ending_of(path) in IMAGES),
        key=lambda path: (os.path.dirname(path), naturally(os.path.basename(path))),
    )
    return sorted([*films, *([*of_folder] for _, of_folder in itertools.groupby(frames, os.path.dirname))])


def is_film(path: str) -> bool:
    """Whether a file is a clip of its own."""
    return ending_of(path) in FILMS


def has_pyav() -> bool:
    """Whether video files can be read."""
    return importlib.util.find_spec("av") is not None


def ending_of(path: str) -> str:
    """The ending of a file's name in small letters, such as ".gif"."""
    return os.path.splitext(path)[1].lower()


def naturally(name: str) -> list:
    """A key by which 10 comes after 2."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


@contextlib.contextmanager
def _decoding(frame: str = "") -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever a damaged file makes its reader raise
        raise Damaged(f"{frame}{decoding.in_words(error)}") from None


def _contents(path) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _of_files(paths, choose, channels, exif) -> Iterator[np.ndarray]:
    for place in choose(len(paths)):
        with open(paths[place], "rb") as file:
            contents = file.read()
        with _decoding(f"frame {os.path.basename(paths[place])!r}: "):
            pixels = decoding.pixels_in(contents, channels, exif)
        yield pixels


def _of_gif(path, choose, channels) -> Iterator[np.ndarray]:
    with open(path, "rb") as file:
        contents = file.read()
    with _decoding(), decoding.open_image(contents) as image:
        for place in choose(getattr(image, "n_frames", 1)):
            image.seek(place)
            yield decoding.pixels_of(image.copy(), channels)


def _of_video(path, choose, channels) -> Iterator[np.ndarray]:
    """Frames are counted by their packets; where there are fewer, the last one takes the places of others."""
    av = importlib.import_module("av")
    with open(path, "rb") as file, _decoding(), av.open(file) as film:
        if not film.streams.video:
            raise ValueError("it has no pictures")
        stream = film.streams.video[0]
        count = sum(packet.size > 0 for packet in film.demux(stream))
        film.seek(0)
        frames = enumerate(film.decode(stream))
        number, frame = next(frames, (0, None))
        if frame is None:
            raise ValueError("it has no frames")
        for place in choose(count):
            while number < place:
                number, frame = next(frames, (place, frame))
            pixels = decoding.pixels_of(frame.to_image(), channels)
            yield np.rot90(pixels, frame.rotation // 90)
