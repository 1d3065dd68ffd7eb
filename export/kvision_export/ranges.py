"""The ranges of a network's activations, over calibration images."""

from collections.abc import Iterable

import numpy as np

from kvision_export import flatbuffer
from kvision_export.runner import tensor_values

SAMPLE = 4096  # values of a tensor kept for each image
SHARES = np.linspace(0.3, 1.0, 36)  # of the range, tried by "mse"
METHODS = ("minmax", "percentile", "mse")
PERCENTILE = 99.99


class Ranges:
    """Values that every computed tensor of a float file held over all images.

    litert-quantizer's own figure is a moving average over the images, which cuts off what is rare. Loops stay
    float and have no ranges.

    Args:
        content: a float `.tflite` file.
        images: float32 `(height, width, channels)`, as the file takes them, see `inputs`.
    """

    def __init__(self, content: bytes, images: Iterable[np.ndarray]):
        model = flatbuffer.read(content)
        graph = model.subgraphs[0]
        once = [op for op in graph.operators if flatbuffer.operator_name(model, op) != "WHILE"]
        computed = [*graph.inputs, *(i for operator in once for i in operator.outputs)]
        indices = [i for i in computed if graph.tensors[i].type == 0]  # float32
        self.names = {i: graph.tensors[i].name.decode() for i in indices}
        self._low, self._high = dict.fromkeys(indices, 0.0), dict.fromkeys(indices, 0.0)
        samples = {i: [] for i in indices}
        random = np.random.default_rng(0)
        for values_of in tensor_values(content, images):
            for i in indices:
                values = values_of(i).ravel()
                self._low[i] = min(self._low[i], float(values.min()))
                self._high[i] = max(self._high[i], float(values.max()))
                samples[i].append(random.choice(values, SAMPLE) if values.size > SAMPLE else values.copy())
        self._samples = {i: np.concatenate(parts) for i, parts in samples.items()}

    def find(self, method: str) -> dict[int, tuple[float, float]]:
        """The range of each tensor, 0 in it, by one of `METHODS`.

        Args:
            method: "minmax"; "percentile" leaves out 0.01 % of the values, half at each end; "mse" is the
                share of "minmax" with the least squared error of 8 bits.
        """
        return {i: self._find(i, method) for i in self.names}

    def _find(self, i, method):
        low, high = self._low[i], self._high[i]
        if low == high:  # 0 throughout: a scale that kernels take
            return 0.0, 1.0
        if method == "percentile":
            lowest, highest = np.percentile(self._samples[i], (100 - PERCENTILE, PERCENTILE))
            low, high = min(0.0, float(lowest)), max(0.0, float(highest))
        if method == "mse":
            share = min(SHARES, key=lambda share: _error(self._samples[i], share * low, share * high))
            low, high = share * low, share * high
        return (low, high) if low < high else (self._low[i], self._high[i])


def _error(values, low, high):
    scale = (high - low) / 255
    return np.square(np.clip(np.round(values / scale), low / scale, high / scale) * scale - values).sum()
