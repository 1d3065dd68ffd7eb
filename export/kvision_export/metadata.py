"""TFLite metadata, in which a file describes itself, as MediaPipe and Android Studio read it.

The writers of tflite-support and MediaPipe do not run on this Python and TensorFlow. The tables and their
fields are those of metadata_schema.fbs, version 1.5; the labels lie in a zip archive behind the model.
"""

import dataclasses
import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import number_types
from flatbuffers.table import Table

from kvision.spec import Preprocess
from kvision_export import flatbuffer
from kvision_export.contents import IODtype, io_dtypes
from kvision_export.inputs import IMAGE as IMAGE_NAME, PROPOSALS, SERIES

NAME, IDENTIFIER, LABELS = b"TFLITE_METADATA", b"M001", "labels.txt"
AXIS_LABELS, VALUE_LABELS = 2, 3  # of the schema's enumerations
FEATURE, IMAGE, BOXES, BOUNDARIES, PIXEL, NORMALIZATION = 1, 2, 3, 1, 1, 1
BOX_ORDER = (1, 0, 3, 2)  # places of left, top, right and bottom in a box
RGB, GRAYSCALE = 1, 2
PIXELS, LABELED = ("image", "frame"), ("logits", "probabilities")  # inputs, and outputs, of signatures
GIVEN_BOXES = "{count} boxes as left, top, right and bottom in pixels of the image, 0 where there are fewer."
SEGMENTER = "SEGMENTER_METADATA"  # of image_segmenter_metadata_schema.fbs, version 1.0, of MediaPipe
ACTIVATIONS = {"probabilities": 0, "logits": 2}  # none, and a softmax; MediaPipe does not read masks


class Output(NamedTuple):
    """An output of a file.

    Attributes:
        name: by which the readers find it.
        description: a sentence on it.
        labels: kind of the class names that belong to it; 0 for none.
        content: kind of its content; 0 where that is not said.
    """

    name: str
    description: str
    labels: int = 0
    content: int = 0


OUTPUTS = {
    "probabilities": [Output("probabilities", "Probabilities of the classes.", AXIS_LABELS)],
    "logits": [
        Output("logits", "Logits of the classes, of which a {activation} makes probabilities.", AXIS_LABELS)
    ],
    "mask": [Output("mask", "Number of the most probable class.", AXIS_LABELS)],
    "captions": [],  # of signatures, see `About.tensors`
    "forecast": [Output("forecast", "The next values, in the units of the series.")],
    "detections": [  # names of tflite-support's and MediaPipe's ObjectDetector
        Output("location", "Boxes as ymin, xmin, ymax and xmax in [0, 1] of the image.", 0, BOXES),
        Output("category", "Number of each box's class.", VALUE_LABELS, FEATURE),
        Output("score", "Score of each box in [0, 1], the highest first.", 0, FEATURE),
        Output("number of detections", "Number of boxes; those behind are 0."),
    ],
}


@dataclasses.dataclass(frozen=True)
class About:
    """Content of the metadata.

    Attributes:
        name: name of the network.
        description: a sentence or two on it.
        license: license of its weights.
        labels: a name for each class.
        channels: number of the image's channels, 3 or 1; of series, of their features.
        size: height and width of the image; () of series.
        frames: of a clip; 0 of others.
        tensors: sentences on the inputs and outputs of files with signatures, see `Exported.tensors`.
        preprocess: the network's own normalisation of pixels, which is inside the file; None where it has
            none.
        answer: content of the file's outputs, one of `OUTPUTS`.
        activation: activation of the network: "softmax" or "sigmoid".
        dense: whether it answers for each pixel.
        proposals: number of proposals that it takes beside the image; 0 for none.
        mean, std: subtracted from, and then dividing, the pixels in [0, 255]. Of an integer input, its own
            scale and zero point take their place.
    """

    name: str
    description: str
    license: str
    labels: Sequence[str]
    channels: int
    size: tuple[int, ...]
    preprocess: Preprocess | None = None
    answer: str = "probabilities"
    activation: str = "softmax"
    dense: bool = False
    proposals: int = 0
    frames: int = 0
    tensors: Mapping[str, str] = dataclasses.field(default_factory=dict)
    mean: float = 0.0
    std: float = 1.0


def played(model: schema.ModelT) -> bool:
    """Whether a file has signatures of its own, see `players`."""
    keys = [signature.signatureKey for signature in model.signatureDefs or ()]
    return bool(keys) and keys != [b"serving_default"]


def pixels(given: IODtype, preprocess: Preprocess | None, series: bool = False) -> str:
    """Sentences on how a file is given pixels in [0, 255], or values of series, and what it does with them.

    Args:
        given: the file's input, of scale 1 where it is of integers.
        preprocess: the network's own normalisation, which is inside the file; None where it has none.
        series: whether the input is a series, not pixels.
    """
    if given.dtype == "int8":
        less = given.zero_point + 128
        text = (
            f"Pixels in [0, 255] less 128, as int8. By the input's scale {given.scale:g} and zero point "
            f"{given.zero_point} they stand for {f'pixel - {less}' if less else 'the pixels'}."
        )
    else:
        text = f"{'Values in their own units' if series else 'Pixels in [0, 255]'}, as {given.dtype}."
    if preprocess:
        text += f" The file itself normalises them: {preprocess}."
    return text


def write(model: schema.ModelT, about: About) -> bytes:
    """Serialises a model with its metadata, and the labels behind it."""
    given, _ = io_dtypes(model)
    if given.dtype != "float32":  # real value 0 is this pixel
        pixel = given.zero_point + (128 if given.dtype == "int8" else 0)
        about = dataclasses.replace(about, mean=float(pixel), std=1 / given.scale)
    model.metadata = [entry for entry in model.metadata or () if entry.name != NAME]
    buffer = schema.BufferT()
    buffer.data, buffer.offset, buffer.size = np.frombuffer(_pack(model, about, given), np.uint8), 0, 0
    model.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name, entry.buffer = NAME, len(model.buffers) - 1
    model.metadata.append(entry)
    archive = io.BytesIO()
    archive.write(flatbuffer.write(model))
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(zipfile.ZipInfo(LABELS), "\n".join(about.labels) + "\n")  # dated 1980, always
    return archive.getvalue()


def read(model: schema.ModelT, content: bytes) -> dict:
    """The metadata of a file, as a model and as its bytes; {} without any.

    The keys are signatures, of files that have some, see `players`; name, description, license, image (how
    pixels are given), mean, std and labels; the names of other inputs, for their descriptions; outputs, the
    names of several, and box_order, the places of left, top, right and bottom in a box; and, where
    MediaPipe's ImageSegmenter reads the file, activation: what it applies to the output.
    """
    packed = _packed(model)
    if packed is None:
        return {}
    root = _table(packed, int.from_bytes(packed[:4], "little"))
    fields: dict = {"name": _text(root, 0), "description": _text(root, 1), "license": _text(root, 5)}
    images = [image for graph in _tables(root, 3)[:1] for image in _tables(graph, 2)]
    if played(model):
        images.sort(key=lambda image: _text(image, 0) not in PIXELS)
        fields["signatures"] = [_called(signature) for signature in model.signatureDefs]
    for number, image in enumerate(images):
        fields.setdefault(_text(image, 0) if number else "image", _text(image, 1))
    for unit in (unit for image in images[:1] for unit in _tables(image, 4)):
        kind = unit.Get(number_types.Uint8Flags, unit.Pos + unit.Offset(4)) if unit.Offset(4) else 0
        if kind == NORMALIZATION and (options := _child(unit, 1)) is not None:
            fields |= {"mean": _floats(options, 0), "std": _floats(options, 1)}
    outputs = [output for graph in _tables(root, 3)[:1] for output in _tables(graph, 3)]
    if len(outputs) > 1:
        fields["outputs"] = [_text(output, 0) for output in outputs]
    for described in (described for output in outputs if (described := _child(output, 3))):
        kind = described.Get(number_types.Uint8Flags, described.Pos + described.Offset(4))
        if kind == BOXES and (properties := _child(described, 1)) is not None:
            fields["box_order"] = properties.GetVectorAsNumpy(
                number_types.Uint32Flags, properties.Offset(4)
            ).tolist()
    for custom in (custom for graph in _tables(root, 3)[:1] for custom in _tables(graph, 9)):
        if _text(custom, 0) == SEGMENTER:
            fields["activation"] = _activation(custom)
    archive = io.BytesIO(content)
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            if LABELS in file.namelist():
                fields["labels"] = file.read(LABELS).decode().rstrip("\n").split("\n")
    return fields


def sizes(model: schema.ModelT, content: bytes) -> tuple[int, int]:
    """Bytes of the metadata's table, and of the archive behind the model; of a file as for `read`."""
    packed = _packed(model)
    if packed is None:
        return 0, 0
    start = content.rfind(b"PK\x03\x04")  # the only file in the archive begins here
    return len(packed), len(content) - start if start > 0 else 0


def _called(signature) -> str:
    """A signature with the names of its inputs and outputs."""
    given, found = (
        ", ".join(of.name.decode() for of in side) for side in (signature.inputs, signature.outputs)
    )
    return f"{signature.signatureKey.decode()}({given}) -> {found}"


def _packed(model) -> bytes | None:
    for entry in model.metadata or ():
        if entry.name == NAME:
            return bytes(model.buffers[entry.buffer].data)
    return None


def _pack(model, about, given) -> bytes:
    builder = flatbuffers.Builder(1024)
    text = builder.CreateString

    def table(fields):
        """A table of {slot: offset of what was written before, or (kind, number)}."""
        builder.StartObject(max(fields, default=-1) + 1)
        for slot, value in fields.items():
            if isinstance(value, tuple):
                kind, number = value
                getattr(builder, f"Prepend{kind}Slot")(slot, number, 0)
            else:
                builder.PrependUOffsetTRelativeSlot(slot, value, 0)
        return builder.EndObject()

    def vector(offsets):
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()

    def floats(*values):
        return builder.CreateNumpyVector(np.array(values, np.float32))

    def described(output):
        """The fields of an output's table."""
        description = output.description.format(activation=about.activation)
        fields = {0: text(output.name), 1: text(description)}
        if output.labels:
            fields[6] = vector([table({0: text(LABELS), 2: ("Int8", output.labels)})])
        if output.content:
            properties: dict = {}
            if output.content == BOXES:
                order = builder.CreateNumpyVector(np.array(BOX_ORDER, np.uint32))
                properties = {0: order, 1: ("Int8", BOUNDARIES)}
            fields[3] = each(output.content, properties)
        return fields

    def each(kind, properties):
        """The content of rows along the last axis."""
        last = table({0: ("Int32", 2), 1: ("Int32", 2)})
        return table({0: ("Uint8", kind), 1: table(properties), 2: last})

    def image(name, sentences):
        """The table of an input of pixels."""
        height, width = about.size
        default_size = table({0: ("Uint32", width), 1: ("Uint32", height)})
        color = RGB if about.channels == 3 else GRAYSCALE
        properties = table({0: ("Int8", color), 1: default_size})
        content = table({0: ("Uint8", IMAGE), 1: properties})
        options = table({0: floats(about.mean), 1: floats(about.std)})
        units = vector([table({0: ("Uint8", NORMALIZATION), 1: options})])
        stats = table({0: floats((255 - about.mean) / about.std), 1: floats(-about.mean / about.std)})
        return table({0: text(name), 1: text(sentences), 3: content, 4: units, 5: stats})

    def signature_table(signature):
        """The table of a signature's inputs and outputs."""
        graph = model.subgraphs[signature.subgraphIndex]

        def tensor(of):
            name, shape = of.name.decode(), graph.tensors[of.tensorIndex].shape
            if name in PIXELS:
                return image(name, pixels(given, about.preprocess))
            of_state = (
                f"A part of the state, float32 {tuple(map(int, shape))}, given back as it was returned."
            )
            labels = (
                {6: vector([table({0: text(LABELS), 2: ("Int8", AXIS_LABELS)})])} if name in LABELED else {}
            )
            return table({0: text(name), 1: text(about.tensors.get(name, of_state)), **labels})

        given_and_found = [
            vector([tensor(of) for of in side]) for side in (signature.inputs, signature.outputs)
        ]
        return table({0: text(signature.signatureKey.decode()), 2: given_and_found[0], 3: given_and_found[1]})

    sentences = pixels(given, about.preprocess, series=not about.size)
    if about.frames:
        sentences = f"{about.frames} frames. {sentences}"
    images = [image(IMAGE_NAME, sentences) if about.size else table({0: text(SERIES), 1: text(sentences)})]
    if about.proposals:
        boxes = each(BOXES, {1: ("Int8", BOUNDARIES), 2: ("Int8", PIXEL)})
        named = {0: text(PROPOSALS), 1: text(GIVEN_BOXES.format(count=about.proposals))}
        images.append(table({**named, 3: boxes}))
    outputs = [described(output) for output in OUTPUTS[about.answer]]
    if about.answer == "probabilities":
        outputs[0][5] = table({0: floats(1.0), 1: floats(0.0)})
    graph = {2: vector(images)}
    if about.dense:
        rows_and_columns = table({0: ("Int32", 1), 1: ("Int32", 2)})
        gray = table({0: ("Int8", GRAYSCALE)})
        outputs[0][3] = table({0: ("Uint8", IMAGE), 1: gray, 2: rows_and_columns})
    if about.dense and about.answer in ACTIVATIONS:
        options = _segmenter_options(about.answer)
        builder.StartVector(1, len(options), 16)
        for byte in reversed(options):
            builder.PrependByte(byte)
        data = builder.EndVector()
        graph[9] = vector([table({0: text(SEGMENTER), 1: data})])
    graph |= {3: vector([table(output) for output in outputs])}
    graphs = [table(graph)]
    if played(model):
        graphs = [signature_table(signature) for signature in model.signatureDefs]
    named = {0: text(about.name), 1: text(about.description), 5: text(about.license), 7: text("1.0.0")}
    builder.Finish(table({**named, 3: vector(graphs)}), IDENTIFIER)
    return bytes(builder.Output())


def _segmenter_options(answer) -> bytes:
    """MediaPipe's ImageSegmenterOptions: the activation that it applies to a file's output."""
    builder = flatbuffers.Builder(64)
    builder.StartObject(1)
    builder.PrependInt8Slot(0, ACTIVATIONS[answer], 0)
    builder.Finish(builder.EndObject(), b"V001")
    return bytes(builder.Output())


def _table(packed, position) -> Table:
    return Table(bytearray(packed), position)


def _child(table, slot) -> Table | None:
    offset = table.Offset(4 + 2 * slot)
    return Table(table.Bytes, table.Indirect(table.Pos + offset)) if offset else None


def _tables(table, slot) -> list[Table]:
    offset = table.Offset(4 + 2 * slot)
    if not offset:
        return []
    start = table.Vector(offset)
    return [Table(table.Bytes, table.Indirect(start + 4 * i)) for i in range(table.VectorLen(offset))]


def _text(table, slot) -> str:
    offset = table.Offset(4 + 2 * slot)
    return table.String(table.Pos + offset).decode() if offset else ""


def _activation(custom) -> str:
    """The activation that MediaPipe applies, of custom metadata."""
    data = bytes(custom.GetVectorAsNumpy(number_types.Uint8Flags, custom.Offset(6)))
    options = _table(data, int.from_bytes(data[:4], "little"))
    place = options.Offset(4)
    number = options.Get(number_types.Int8Flags, options.Pos + place) if place else 0
    return {0: "none", 1: "sigmoid", 2: "softmax"}[number]


def _floats(table, slot) -> list[float]:
    return table.GetVectorAsNumpy(number_types.Float32Flags, table.Offset(4 + 2 * slot)).tolist()
