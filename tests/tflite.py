"""Helpers of the tests of exported files."""

import re

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter

from kvision_export import flatbuffer
from kvision_export.convert import convert
from kvision_export.int8 import Int8Files, Settings
from kvision_export.latency import milliseconds

REWRITTEN = Settings(hard_swish=True)


def images(count=8, size=64, channels=3, seed=0):
    """Smooth images of whole levels, as photographs are."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (count, 4, 4, 3)).astype("float32")
    return np.rint(keras.ops.image.resize(coarse, (size, size)))[..., :channels]


def int8(model, pixels, settings=REWRITTEN, **keywords):
    """An int8 file of a model, or of its float file, by given settings, without a search."""
    floats = model if isinstance(model, bytes) else convert(model)
    return Int8Files(floats, pixels, **keywords).make(settings)


def changed(content, change, *arguments):
    """A file after a change of its model, and what the change returned."""
    model = flatbuffer.read(content)
    result = change(model, *arguments)
    return flatbuffer.write(model), result


def operators(content):
    """The names of a file's operators, in their order."""
    model = flatbuffer.read(content)
    return [flatbuffer.operator_name(model, operator) for operator in model.subgraphs[0].operators]


def io_details(content):
    """Details of a file's input and output, and its signatures."""
    interpreter = Interpreter(model_content=content)
    signatures = interpreter.get_signature_list()
    return interpreter.get_input_details()[0], interpreter.get_output_details()[0], signatures


def top1(accuracy):
    """The accuracy in a report's metrics."""
    return accuracy["scores"]["top-1"]["value"]


def check_figures(report, page):
    """Asserts that the figures of the page are those of the report."""
    rows = [row.partition("</tr>")[0] for row in page.split("<tr") if "<td>" in row]
    for file, row in zip(report["files"], rows, strict=False):
        right, near, ms = file["accuracy"], file["fidelity"], file["latency_ms"]
        shares = [
            share for score in right["scores"].values() for share in (score["value"], *score["interval"])
        ]
        expected = [
            f"{file['size'] / 1000:.0f}",
            *(f"{100 * share:.1f}" for share in shares),
            *(f"{100 * drop:.2f}" for drop in (right["drop"], *right["drop_interval"])),
            f"{100 * near['agreement']:.1f}",
            f"{near['kl']:.4f}",
            *([] if file["mode"] == "float32" else [f"{near['sqnr']:.1f}"]),
            *map(milliseconds, (ms["1"], ms["2"])),
            f"{file['float_latency_ms']['1'] / ms['1']:.2f}",
        ]
        cells = re.sub(r"<[^>]*>|(?<=\d)\u2013", " ", row.partition("</td>")[2])
        assert re.findall(r"-?\d+(?:\.\d+)?", cells) == expected
        for operator, count in file["census"]["operators"].items():
            assert f"<td>{operator}</td><td>{count}</td>" in page


def foreign_layers(dtype="float32"):
    """Layers of a network that others wrote, from pixels in [0, 255] to two logits."""
    kinds = keras.layers
    return [
        kinds.Rescaling(1 / 255, dtype=dtype), kinds.Conv2D(4, 3, strides=2, activation="relu", dtype=dtype),
        kinds.GlobalAveragePooling2D(dtype=dtype), kinds.Dense(2, dtype=dtype),
    ]  # fmt: skip
