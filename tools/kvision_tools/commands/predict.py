"""kvision-predict: classes of images, pixels, clips and sequences; objects in images, captions, forecasts.

kvision-predict --model=runs/demo IMAGE...
kvision-predict --model=efficientnet_lite0 --weights=imagenet FOLDER 'PATTERN*.jpg'
kvision-predict --model=runs/video FOLDER_OF_FRAMES CLIP.gif
kvision-predict --model=runs/series --horizon=4 FILE.csv
"""

import errno
import glob
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from absl import flags

from kvision import cli, model_flags
from kvision.errors import UserError
from kvision.files import check_folder, replacing
from kvision.names import counted, shown

FLAGS = flags.FLAGS


def define():
    """Defines the flags."""
    model_flags.define_model()
    model_flags.define_reading()
    model_flags.define_answers()
    flags.DEFINE_integer("topk", 5, "Number of classes, or of objects, to print for each image.", 1)
    flags.DEFINE_string(
        "output",
        "predictions",
        "Folder of the pictures, which networks that classify pixels, find objects or attend to images give.",
    )
    flags.DEFINE_bool("overwrite", False, "Whether files in --output are replaced.")
    flags.DEFINE_string(
        "annotations",
        None,
        "COCO's JSON file, from which a detector's results take the ids of images and categories, by their "
        "names; they are numbered from 1 by default.",
    )


def main(arguments):
    """Predicts by the flags."""
    with cli.user_errors():
        if not arguments:
            raise UserError("Which images? kvision-predict --model=MODEL IMAGE...")
        paths = list(files(arguments))
        cli.import_keras()
        import keras

        from kvision import networks
        from kvision.data.proposals import letterboxed_proposals
        from kvision_tools.coco_results import CocoResults

        opened = model_flags.opened()
        model, task = opened.model, opened.task
        if preprocess := model_flags.preprocess():
            model = networks.normalized(model, preprocess)
        size, channels = opened.image_size, networks.image_shape(model)[-1]
        items = task.items(paths)
        if not items:
            raise UserError(f"None of the files has {task.targets}, which {model.name} takes.")
        names = distinct([name for name, _ in items])
        exif = opened.exif if FLAGS.exif is None else FLAGS.exif
        if not task.draws and FLAGS["output"].present:
            raise UserError(
                f"`--output` is for pictures of masks, boxes or attention; {model.name} has none."
            )
        if not FLAGS.output:
            raise UserError("`--output` must be a folder; got ''.")
        folder, results = Path(FLAGS.output).expanduser(), None
        if task.target == "boxes":
            results = CocoResults(folder / "detections.json", paths, task.class_names, FLAGS.annotations)
            check_free([results.file])
        elif FLAGS.annotations:
            raise UserError(f"`--annotations` is for detectors; {model.name} learned {task.name}.")
        if task.draws:
            check_folder(folder)  # before any image is predicted
            folder.mkdir(parents=True, exist_ok=True)
        unreadable, written = 0, 0
        settings = {"crop": opened.crop, "interpolation": opened.interpolation}
        for number, (path, item) in enumerate(items):
            try:
                pixels = task.read(item, channels, exif)
            except UserError as error:
                if FLAGS.strict:
                    raise
                unreadable += 1
                print(shown(str(error)), file=sys.stderr)
                continue
            batch = {task.input: np.array(task.prepare(pixels, size, **settings))[None]}
            if count := networks.proposals_of(model):
                batch["proposals"] = letterboxed_proposals(pixels, size, count)[None]
            answers = task.ask(model, batch, drawn=task.draws)
            if not networks.are_finite(answers) and not FLAGS.allow_nonfinite:
                raise UserError(f"{model.name} answers with NaN to {path!r}: its weights are damaged.")
            answer = keras.tree.map_structure(lambda part: part[0], answers)
            prediction = task.restore(answer, pixels.shape[:2], size)
            print(shown(path))
            for line in task.describe(prediction, FLAGS.topk):
                print(f"  {line}")
            if results:
                results.add(number, task.detections(prediction))
            pictures = task.pictures(pixels, prediction)
            pictures = {folder / (names[number] + end): image for end, image in pictures.items()}
            check_free(pictures)
            for picture_path, picture in pictures.items():
                with replacing(picture_path) as tmp_path:
                    picture.save(tmp_path, format="PNG")
                print(f"  {shown(str(picture_path))}")
                written += 1
        if written:
            print(f"{counted(written, 'picture')} in {FLAGS.output}")
        if results and unreadable < len(items):
            results.write()
            print(f"{counted(len(results.entries), 'detection')} in {shown(str(results.file))}")
            if results.left_out:
                print(results.remark, file=sys.stderr)
        if unreadable == len(items):
            raise UserError(f"None of the files can be read; {task.kind}s were expected.")
        if unreadable:
            print(f"Skipped {counted(unreadable, 'unreadable file')}.", file=sys.stderr)


def files(arguments: Iterable[str]) -> Iterator[str]:
    """The files that are named: they themselves, all below folders, and what patterns match; each sorted."""
    for argument in map(os.path.expanduser, arguments):
        matches = [argument] if os.path.exists(argument) else matching(argument)
        if not matches:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), argument)
        for match in matches:
            below = _below(match) if os.path.isdir(match) else [match]
            if not below:
                raise UserError(f"{match!r} has no files.")
            yield from below


def matching(pattern: str) -> list[str]:
    """The files that match a pattern, in which a bracket is one where it means nothing else; sorted."""
    patterns = pattern, pattern.replace("[", "[[]")
    return next(filter(None, (sorted(glob.glob(p, recursive=True)) for p in patterns)), [])


def distinct(paths: list[str]) -> list[str]:
    """The names of files without their endings, numbered where several are equal."""
    names: dict[str, None] = {}
    counts = Counter()
    for stem in (Path(path).stem for path in paths):
        name = stem
        while name in names:
            counts[stem] += 1
            name = f"{stem}_{counts[stem] + 1}"
        names[name] = None
    return [*names]


def check_free(paths: Iterable[Path]) -> None:
    """A UserError for a file that is there already, without --overwrite."""
    if there := [path for path in paths if path.exists() and not FLAGS.overwrite]:
        raise UserError(
            f"'{there[0]}' is there already: `overwrite=True` replaces it, another `output` keeps it."
        )


def _below(folder) -> list[str]:
    inside = [path.relative_to(folder) for path in Path(folder).rglob("*") if not path.is_dir()]
    return sorted(
        str(Path(folder) / path) for path in inside if not any(part.startswith(".") for part in path.parts)
    )


def entry():
    """The console script."""
    cli.run(main, define)


if __name__ == "__main__":
    entry()
