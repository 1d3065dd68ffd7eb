"""report.html: one self-contained page of what was measured."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from kvision.names import counted
from kvision.tasks import Answers, Classifying
from kvision.visualize import palette
from kvision_export.latency import milliseconds
from kvision_export.modes import REFERENCE

SIDE = 112  # pixels of a picture
LAYERS = 10  # of each file


def write(
    path: Path,
    report: dict,
    task: Classifying,
    images: np.ndarray,
    labels: np.ndarray | None,
    expected: Answers,
    answers: Mapping[str, Answers],
) -> None:
    """Writes the page.

    Args:
        path: path of the page.
        report: content of report.json.
        task: what the network learned.
        images: float32 `(images, height, width, channels)`.
        labels: labels or masks of all images; None where they are not known.
        expected: the Keras model's answers on all images.
        answers: answers of the files by mode, each on its own worst images.
    """

    def figure(number, answer):
        known = {
            "Keras": (expected.classes[number], expected.probabilities[number]),
            "file": (answer.classes, answer.probabilities),
        }
        if labels is not None:
            known = {"": (labels[number], None)} | known
        pictures = [_png(Image.fromarray(np.rint(images[number]).astype(np.uint8).squeeze()))]
        pictures += [_png(picture) for classes, _ in known.values() if (picture := task.picture(classes))]
        return {
            "pictures": pictures,
            "captions": {
                title: task.caption(classes, probabilities)
                for title, (classes, probabilities) in known.items()
            },
        }

    def worst(file):
        file_answers = answers[file["mode"]]
        return [figure(number, file_answers.of(i)) for i, number in enumerate(file["fidelity"]["worst"])]

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
    )
    path.write_text(page, encoding="utf-8")


def _png(image: Image.Image) -> str:
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
