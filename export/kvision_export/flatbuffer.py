"""Reading and writing TFLite flatbuffers as objects."""

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema


def read(content: bytes) -> schema.ModelT:
    """Parses a `.tflite` file; weights that lie behind the flatbuffer are taken into it.

    litert-quantizer writes weights there, and the offsets would be wrong after a change.
    """
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for buffer in model.buffers:
        if buffer.offset > 1:  # 0 is none, 1 is an empty one
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
        buffer.offset = buffer.size = 0
    return model


def write(model: schema.ModelT) -> bytes:
    """Serialises what `read` returned."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def operator_name(model: schema.ModelT, operator: schema.OperatorT) -> str:
    """The operator's name in the schema, such as "CONV_2D"."""
    code = model.operatorCodes[operator.opcodeIndex]
    builtin = max(code.builtinCode, code.deprecatedBuiltinCode)  # the latter holds codes below 127 alone
    return next(name for name, value in vars(schema.BuiltinOperator).items() if value == builtin)


def constant(model: schema.ModelT, tensor: schema.TensorT, dtype) -> np.ndarray:
    """A constant tensor's values."""
    data = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
    return data.view(dtype).reshape(tensor.shape)
