"""Detections of images in the form of COCO's results, which pycocotools' `loadRes` reads."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from kvision.data.sources.coco import ids_of
from kvision.errors import UserError
from kvision.files import replacing
from kvision.names import counted, listed


class CocoResults:
    """A list of dicts with "image_id", "category_id", "bbox" and "score".

    Args:
        file: to write.
        paths: of the images.
        class_names: of the detections.
        annotations: COCO's JSON file with the ids of the images, by the last parts of their file names, and
            of the classes, by their names. None for numbers from 1 on, in the order of each; then entries
            have "file_name" too, the image's path.

    Attributes:
        entries: of the images so far.
        left_out: number of detections of each class that the JSON file lacks.

    Raises:
        UserError: the JSON file lacks an image or all of the classes, or is none of COCO's.
    """

    def __init__(self, file: Path, paths: Sequence[str], class_names: Sequence[str], annotations: str | None):
        self.file, self.paths, self.class_names, self.annotations = file, paths, class_names, annotations
        self.entries, self.left_out = [], Counter()
        if annotations is None:
            self.images = [*range(1, len(paths) + 1)]
            self.categories = {name: place for place, name in enumerate(class_names, 1)}
            return
        ids, self.categories = ids_of(os.path.expanduser(annotations))
        names = [os.path.basename(path) for path in paths]
        if missing := [name for name in names if name not in ids]:
            raise UserError(f"{annotations!r} lacks {counted(len(missing), 'image')}: {listed(missing)}.")
        if not {*class_names} & {*self.categories}:
            raise UserError(
                f"{annotations!r} has none of the classes {listed(class_names)}: its categories are "
                f"{listed(self.categories)}."
            )
        self.images = [ids[name] for name in names]

    def add(self, number: int, detections: list[dict]) -> None:
        """Adds the detections of an image, see `kvision.tasks.Task.detections`; `number` is its place."""
        own = {"image_id": self.images[number]}
        if self.annotations is None:
            own["file_name"] = self.paths[number]
        for detection in detections:
            name = self.class_names[int(detection["class"])]
            if name not in self.categories:
                self.left_out[name] += 1
                continue
            category = {"category_id": self.categories[name]}
            self.entries.append(own | category | {key: detection[key] for key in ("bbox", "score")})

    @property
    def remark(self) -> str:
        """A sentence on the detections that were left out."""
        count = counted(self.left_out.total(), "detection")
        return f"Left out {count} of classes that {self.annotations!r} lacks: {listed(self.left_out)}."

    def write(self) -> None:
        """Writes the file."""
        with replacing(self.file) as tmp_path:
            tmp_path.write_text(json.dumps(self.entries), encoding="utf-8")
