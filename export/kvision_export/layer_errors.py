"""The error that each layer of a quantized file adds by itself."""

from collections.abc import Sequence

import numpy as np

from kvision_export import flatbuffer
from kvision_export.runner import dequantized, operator_alone, quantized, tensor_values

SAMPLE = 8  # images that rank layers


def own_errors(content: bytes, float_content: bytes, images: Sequence[np.ndarray]) -> dict[str, float]:
    """Error that each layer of a quantized file adds, by the name of its output.

    A layer is given the float file's values, rounded as its input is.

    Args:
        content: the quantized file.
        float_content: the float file that it was made of.
        images: float32 `(height, width, channels)`, as the float file takes them, see `inputs`.

    Returns:
        Signal over error, in dB, over all images, the worst first; without layers that are 0 on all of them,
        and without those whose weights are floats.
    """
    floats, model = flatbuffer.read(float_content), flatbuffer.read(content)
    tensors = model.subgraphs[0].tensors
    layers = [
        (layer, operator, operator_alone(model, operator, operator.inputs[:1]))
        for layer, operator in zip(flatbuffer.layers(floats), flatbuffer.layers(model), strict=True)
        if tensors[operator.inputs[1]].type in flatbuffer.SMALL_WEIGHTS
    ]
    signals, errors = np.zeros(len(layers)), np.zeros(len(layers))
    for values_of in tensor_values(float_content, images):
        for number, (layer, operator, alone) in enumerate(layers):
            source, output = tensors[operator.inputs[0]], tensors[operator.outputs[0]]
            result = dequantized(alone([quantized(values_of(layer.inputs[0]), source)])[0], output)
            expected = values_of(layer.outputs[0])
            signals[number] += np.square(expected, dtype=np.float64).sum()
            errors[number] += np.square(result - expected, dtype=np.float64).sum()
    names = [floats.subgraphs[0].tensors[layer.outputs[0]].name.decode() for layer, _, _ in layers]
    decibels = {
        name: float(10 * np.log10(signal / max(error, 1e-30)))
        for name, signal, error in zip(names, signals, errors, strict=True)
        if signal
    }
    return dict(sorted(decibels.items(), key=lambda item: item[1]))
