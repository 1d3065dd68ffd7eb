"""kvision-predict: the most probable classes of images.

kvision-predict --model=runs/demo IMAGE...
kvision-predict --model=efficientnet_lite0 --weights=imagenet FOLDER 'PATTERN*.jpg'
"""

import errno
import glob
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from absl import flags

from kvision import _cli, _flags
from kvision.errors import UserError
from kvision.names import counted, shown

FLAGS = flags.FLAGS


def define():
    """Defines the flags."""
    _flags.define_model()
    _flags.define_reading()
    flags.DEFINE_integer("topk", 5, "Number of classes to print for each image.", 1)


def main(arguments):
    """Predicts by the flags."""
    with _cli.user_errors():
        if not arguments:
            raise UserError("Which images? kvision-predict --model=MODEL IMAGE...")
        _cli.import_keras()
        from kvision import _classifiers
        from kvision.data import read_image

        opened = _flags.opened()
        model = opened.model
        if preprocess := _flags.preprocess():
            model = _classifiers.normalized(model, preprocess)
        paths = list(files(arguments))
        size, channels = opened.image_size, model.input_shape[-1]
        exif = opened.exif if FLAGS.exif is None else FLAGS.exif
        unreadable = 0
        for path in paths:
            try:
                image = read_image(path, size, channels, opened.crop, opened.interpolation, exif)
            except UserError as error:
                if FLAGS.strict:
                    raise
                unreadable += 1
                print(shown(str(error)), file=sys.stderr)
                continue
            probabilities = model.predict_on_batch(image[None])[0]
            if not np.isfinite(probabilities).all() and not FLAGS.allow_nonfinite:
                raise UserError(f"{model.name} answers with NaN to {path!r}: its weights are damaged.")
            print(shown(path))
            for index in np.argsort(-probabilities)[: FLAGS.topk]:
                print(f"  {100 * probabilities[index]:5.1f} %  {index}  {opened.class_names[index]}")
        if unreadable == len(paths):
            raise UserError("None of the files can be read as an image.")
        if unreadable:
            print(f"Skipped {counted(unreadable, 'unreadable file')}.", file=sys.stderr)


def files(arguments: Iterable[str]) -> Iterator[str]:
    """The files that are named: they themselves, all below folders, and what patterns match; each sorted."""
    for argument in map(os.path.expanduser, arguments):
        matches = [argument] if os.path.exists(argument) else sorted(glob.glob(argument, recursive=True))
        if not matches:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), argument)
        for match in matches:
            below = _below(match) if os.path.isdir(match) else [match]
            if not below:
                raise UserError(f"{match!r} has no files.")
            yield from below


def _below(folder) -> list[str]:
    inside = [path.relative_to(folder) for path in Path(folder).rglob("*") if path.is_file()]
    return sorted(
        str(Path(folder) / path) for path in inside if not any(part.startswith(".") for part in path.parts)
    )


def entry():
    """The console script."""
    _cli.run(main, define)


if __name__ == "__main__":
    entry()
