"""Values of the command's options, free of TensorFlow, which is imported only once flags are parsed."""

TARGETS = {  # default modes, `io_dtype` of int8 files, whether their layers may be float
    "cpu": (("float32", "int8"), "uint8", True),
    "gpu": (("float32", "float16"), "uint8", True),
    "npu": (("int8",), "int8", False),
    "edgetpu": (("int8",), "int8", False),
}
IO_DTYPES = ("uint8", "float32", "int8")
BACKENDS = ("litert", "tf")
ANSWERS = ("probabilities", "logits", "mask")
