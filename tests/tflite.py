"""Helpers of the tests of exported files."""

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter

from kvision_export import flatbuffer
from kvision_export.convert import convert
from kvision_export.int8 import Int8Files, Settings

REWRITTEN = Settings(hard_swish=True)


def images(count=8, size=64, channels=3, seed=0):
    """Smooth images of whole levels, as photographs are."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (count, 4, 4, 3)).astype("float32")
    return np.rint(keras.ops.image.resize(coarse, (size, size)))[..., :channels]


def int8(model, pixels, settings=REWRITTEN, **keywords):
    """An int8 file by given settings, without a search."""
    return Int8Files(convert(model), pixels, **keywords).make(settings)


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
