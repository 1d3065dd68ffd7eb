"""report.html: one self-contained page of what was measured."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from kvision.names import counted
from kvision_export.verify import Answers, milliseconds

SIDE = 112  # pixels of a picture
LAYERS = 10  # of each file


def write(
    path: Path,
    report: dict,
    pictures: Mapping[int, np.ndarray],
    labels: np.ndarray | None,
    expected: np.ndarray,
    answers: Mapping[str, Answers],
    class_names: Sequence[str],
) -> None:
    """Writes the page.

    Args:
        path: of the page.
        report: what report.json holds.
        pictures: float32 `(height, width, channels)` by the image's number: the worst of each file.
        labels: of all images; None where they are not known.
        expected: the Keras model's probabilities for all images.
        answers: each mode's.
        class_names: in the order of the outputs.
    """
    encoded = {number: _png(pixels) for number, pixels in pictures.items()}

    def first(probabilities):
        index = int(probabilities.argmax())
        return f"{class_names[index]} {100 * probabilities[index]:.0f} %"

    def worst(file):
        return [
            {
                "picture": encoded[i],
                "label": "" if labels is None else class_names[labels[i]],
                "keras": first(expected[i]),
                "file": first(answers[file["mode"]].probabilities[i]),
            }
            for i in file["fidelity"]["worst"]
        ]

    def worst_layers(file):
        return [(name.rpartition(";")[2], decibels) for name, decibels in file["layers"].items()][:LAYERS]

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kvision_export", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html.j2").render(
        report=report,
        worst=worst,
        worst_layers=worst_layers,
        counted=counted,
        milliseconds=milliseconds,
    )
    path.write_text(page, encoding="utf-8")


def _png(pixels) -> str:
    image = Image.fromarray(np.rint(pixels).astype(np.uint8).squeeze())
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
