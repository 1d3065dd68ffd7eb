"""Class folders of clips."""

import os
from itertools import accumulate, chain

import numpy as np

from kvision.data.clips import FILMS, IMAGES, VIDEOS, clips_in, ending_of, has_pyav, is_film, read_frames
from kvision.data.identity import Files
from kvision.data.sources.folder import LeftOut, in_classes, labels_of
from kvision.data.sources.source import Options, Source
from kvision.errors import MissingPackage
from kvision.names import shown


def video(path: str, split: str, options: Options) -> Source:
    """Class folders as `folder` has them, of clips: each a folder of frames, a GIF or a video file.

    Clips lie in a class folder at any depth. Frames are in the order of their names, 10 behind 2. Video files
    need PyAV.
    """

    def items_of(files, root, left_out):
        return _clips(files, root if options.labeled else None, left_out)

    classes, of_class, divided = in_classes("video", path, split, options, items_of)
    clips = [clip for clips in of_class for clip in clips]
    videos = [clip[0] for clip in clips if ending_of(clip[0]) in VIDEOS]
    if videos and not has_pyav():
        raise MissingPackage(
            f"{videos[0]!r} is a video file, which needs PyAV: pip install 'kvision[video]'."
        )

    def name_of(index):
        first = clips[index][0]
        return shown(first if is_film(first) else os.path.dirname(first))

    starts = [0, *accumulate(map(len, clips))]
    return Source(
        tuple(classes),
        np.array(labels_of(of_class), np.int64),
        None,
        name_of,
        Files([*chain.from_iterable(clips)], path, np.array(starts[:-1], np.int64)),
        clip=lambda index, choose, exif: read_frames(clips[index], choose, options.channels, exif),
        divided=divided,
    )


def _clips(files: list[str], root: str | None, left_out: LeftOut) -> list[list[str]]:
    """The clips among files below a folder; images in `root` are no frames."""
    beside = [file for file in files if ending_of(file) in IMAGES and os.path.dirname(file) == root]
    left_out.add("beside the folders of clips", beside)
    left_out.add("of other kinds", [file for file in files if ending_of(file) not in (*FILMS, *IMAGES)])
    return clips_in([file for file in files if file not in {*beside}])
