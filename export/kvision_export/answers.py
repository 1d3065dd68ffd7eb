"""The end of a file: probabilities, their logits, or a mask of the most probable classes.

Every file is made with probabilities at its end, which are then cut off or continued: so all modes end alike,
and in built-in operators alone.
"""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kvision.errors import UserError
from kvision_export import flatbuffer
from kvision_export.activations import OPERATORS
from kvision_export.choices import ANSWERS

PROBABILITIES, *OTHERS = ANSWERS
MOST = 256  # classes that a uint8 has


def answer_of(model: schema.ModelT) -> str:
    """One of `choices.ANSWERS`, by the name that a file's signature gives its output."""
    for signature in model.signatureDefs or ():
        return signature.outputs[0].name.decode()
    return PROBABILITIES


def end_in(model: schema.ModelT, answer: str) -> None:
    """Gives a file another end.

    Args:
        model: a file that ends in a softmax or in sigmoids; changed in place.
        answer: one of `choices.ANSWERS`, or "detections", which a file has already.

    Raises:
        UserError: it ends in neither, or has too many classes.
    """
    if answer not in OTHERS:
        return
    if not cut_activation(model):
        raise UserError("`answer`: the network ends in neither a softmax nor sigmoids, so it has no logits.")
    if answer == "mask":
        _add_argmax(model)
    for signature in model.signatureDefs or ():
        signature.outputs[0].name = answer.encode()
        signature.outputs[0].tensorIndex = int(model.subgraphs[0].outputs[0])
    model.subgraphs[0].tensors[model.subgraphs[0].outputs[0]].name = answer.encode()


def ended(content: bytes, answer: str) -> bytes:
    """The file with another end, see `end_in`; the same bytes where it has that end."""
    if answer not in OTHERS:
        return content
    model = flatbuffer.read(content)
    end_in(model, answer)
    return flatbuffer.write(model)


def cut_activation(model: schema.ModelT) -> bool:
    """Lets a file end in what its activation is given, in floats if it ended so; whether it has one."""
    graph = model.subgraphs[0]
    last = activation = flatbuffer.producer(graph, graph.outputs[0])
    if flatbuffer.operator_name(model, last) == "DEQUANTIZE":
        activation = flatbuffer.producer(graph, last.inputs[0])
    if flatbuffer.operator_name(model, activation) not in OPERATORS:
        return False
    graph.operators.remove(activation)
    if activation is last:
        graph.outputs = activation.inputs[:1]
    else:
        last.inputs = activation.inputs[:1]
    return True


def cut_argmax(model: schema.ModelT) -> bool:
    """Lets a file of a mask end in its logits; always True."""
    graph = model.subgraphs[0]
    cast = flatbuffer.producer(graph, graph.outputs[0])
    argmax = flatbuffer.producer(graph, cast.inputs[0])
    graph.operators = [operator for operator in graph.operators if operator not in (cast, argmax)]
    graph.outputs = argmax.inputs[:1]
    return True


CUTS = {"probabilities": cut_activation, "logits": lambda model: False, "mask": cut_argmax}  # for logits


def _add_argmax(model):
    """Continues logits with the number of the largest one, uint8; of int8 ones as they are."""
    graph = model.subgraphs[0]
    logits = int(graph.outputs[0])
    last = flatbuffer.producer(graph, logits)
    if flatbuffer.operator_name(model, last) == "DEQUANTIZE":
        integers = graph.tensors[last.inputs[0]]
        if integers.type == schema.TensorType.INT8:  # ARG_MAX has no kernel for int16
            graph.operators.remove(last)
            logits = int(last.inputs[0])
    shape = graph.tensors[logits].shape
    if shape[-1] > MOST:
        raise UserError(f"`answer`: a mask holds {MOST} classes at the most; the network has {shape[-1]}.")
    axis = flatbuffer.add_tensor(model, "axis", np.int32(len(shape) - 1))
    numbers, mask = (
        flatbuffer.add_tensor(model, name, None, like=logits) for name in ("class_numbers", "mask")
    )
    for index, kind in ((numbers, schema.TensorType.INT32), (mask, schema.TensorType.UINT8)):
        tensor = graph.tensors[index]
        tensor.type, tensor.shape, tensor.shapeSignature = kind, shape[:-1], None
        tensor.quantization = None
    argmax, cast = schema.ArgMaxOptionsT(), schema.CastOptionsT()
    argmax.outputType = cast.inDataType = schema.TensorType.INT32
    cast.outDataType = schema.TensorType.UINT8
    graph.operators += [
        flatbuffer.operator(model, "ARG_MAX", [logits, axis], [numbers], argmax),
        flatbuffer.operator(model, "CAST", [numbers], [mask], cast),
    ]
    graph.outputs = np.array([mask], np.int32)
