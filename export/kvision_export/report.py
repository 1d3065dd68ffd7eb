"""report.html: one self-contained page of what was measured."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from kvision.names import counted
from kvision.tasks import Exported
from kvision.visualize import palette
from kvision_export.judges import figures
from kvision_export.latency import milliseconds
from kvision_export.modes import REFERENCE

SIDE = 112  # pixels of a picture
LAYERS = 10  # of each file


def write(
    path: Path,
    report: dict,
    task: Exported,
    images: np.ndarray,
    labels,
    expected,
    answers: Mapping,
) -> None:
    """Writes the page.

    Args:
        path: path of the page.
        report: content of report.json.
        task: what the network learned.
        images: float32 `(images, ...)`, as networks are given them.
        labels: of all images, see `exporter.export`; None where they are not known.
        expected: the Keras model's answers on all images.
        answers: answers of the files by mode, each on its own worst images.
    """

    def figure(number, answer):
        known = {"Keras": expected.at(number), "file": answer}
        if labels is not None:
            target = task.target_at(labels, number, images.shape[1:3])
            of_target = {"": (target,)}
            known = of_target | {
                title: (task.comparable(given, target), *rest) for title, (given, *rest) in known.items()
            }
        example = images[number]
        pictures = [_png(task.shown(example))]
        pictures += [
            _png(picture) for given, *_ in known.values() if (picture := task.picture(example, given))
        ]
        return {
            "pictures": pictures,
            "captions": {title: task.caption(*given) for title, given in known.items()},
        }

    def worst(file):
        file_answers = answers[file["mode"]]
        return [figure(number, file_answers.at(i)) for i, number in enumerate(file["fidelity"]["worst"])]

    def worst_layers(file):
        return [(name.rpartition(";")[2], decibels) for name, decibels in file["layers"].items()][:LAYERS]

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kvision_export", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html.j2").render(
        report=report,
        reference=REFERENCE,
        worst=worst,
        worst_layers=worst_layers,
        colors=[
            (name, "#{:02x}{:02x}{:02x}".format(*color))
            for name, color in zip(task.class_names, palette(len(task.class_names)), strict=False)
        ],
        counted=counted,
        milliseconds=milliseconds,
        figures=figures,
    )
    path.write_text(page, encoding="utf-8")


def _png(image: Image.Image) -> str:
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
