"""Rounding of a layer's weights so that its outputs change least (GPTQ, Frantar et al. 2022, https://arxiv.org/abs/2210.17323).

Each weight in turn is rounded to the nearest integer, and those after it are moved to make good for what that
changes, as far as their inputs go together. Of the inputs their covariance counts: the means are the bias's.
"""

import math
from collections.abc import Iterable

import numpy as np
from ai_edge_litert import schema_py_generated as schema

POSITIONS = 1024  # of an image and its regions, at the most, whose windows are taken
DAMPING = 0.01  # of the mean variance, added to each
BLOCK = 64  # weights after which the rest are moved
LIMIT = 127


def round_kernel(
    kernel: np.ndarray, operator: schema.OperatorT, inputs: Iterable[np.ndarray], depthwise: bool
) -> np.ndarray:
    """The integers of a kernel: int8 in [-127, 127].

    Args:
        kernel: `(outputs, ..., inputs)` or, depthwise, `(1, height, width, channels)`, of whole scales.
        operator: convolution or dense layer.
        inputs: real values that it is given, an array for each image.
        depthwise: whether each channel has weights of its own.
    """
    windows = (_windows(image, operator, kernel.shape) for image in inputs)
    if depthwise:
        channels = kernel.shape[-1]
        rows = kernel.reshape(-1, 1, channels).T
        windows = (window.reshape(len(window), -1, channels).transpose(2, 0, 1) for window in windows)
        integers = _round(rows, _covariance(windows)).T
    else:
        windows = (window.reshape(len(window), -1) for window in windows)
        integers = _round(kernel.reshape(len(kernel), -1), _covariance(windows))
    return integers.reshape(kernel.shape).astype(np.int8)


def _windows(image, operator, shape) -> np.ndarray:
    """Inputs of a kernel, `(positions, ...)` of its height, width and the channels."""
    if len(shape) == 2:
        return image.reshape(-1, shape[-1])
    options = operator.builtinOptions
    strides = options.strideH, options.strideW
    dilations = options.dilationHFactor, options.dilationWFactor
    sizes = [(length - 1) * dilation + 1 for length, dilation in zip(shape[1:3], dilations, strict=True)]
    if options.padding == schema.Padding.SAME:
        margins = [
            max((-(-length // stride) - 1) * stride + size - length, 0)
            for length, stride, size in zip(image.shape[1:3], strides, sizes, strict=True)
        ]
        image = np.pad(image, ((0, 0), *((margin // 2, margin - margin // 2) for margin in margins), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(image, sizes, (1, 2))
    windows = windows[:, :: strides[0], :: strides[1], :, :: dilations[0], :: dilations[1]]
    step = math.ceil(math.sqrt(windows.shape[1] * windows.shape[2] / POSITIONS))
    windows = windows[:, ::step, ::step]
    windows = np.moveaxis(windows[:: math.ceil(math.prod(windows.shape[:3]) / POSITIONS)], 3, 5)
    return windows.reshape(-1, *windows.shape[3:])


def _covariance(windows) -> np.ndarray:
    """Covariance `(..., weights, weights)` of `(..., positions, weights)` of each image."""
    first, count, sums, products = None, 0, 0.0, 0.0
    for window in windows:
        if first is None:
            first = window.mean(-2, keepdims=True)
        window = window - first
        count += window.shape[-2]
        sums = sums + window.sum(-2, dtype=np.float64)
        products = products + np.swapaxes(window, -1, -2) @ window
    mean = np.asarray(sums / count)
    return products / count - mean[..., :, None] * mean[..., None, :]


def _round(rows, covariance) -> np.ndarray:
    """Integers for `(..., outputs, weights)`, the weights of the largest variance first."""
    size = rows.shape[-1]
    variance = np.einsum("...ii->...i", covariance)
    order = np.argsort(-variance, -1)
    rows = np.take_along_axis(rows, order[..., None, :], -1).astype(np.float64)
    covariance = np.take_along_axis(covariance, order[..., :, None], -2)
    covariance = np.take_along_axis(covariance, order[..., None, :], -1)
    damping = DAMPING * variance.mean(-1)[..., None, None] + np.finfo(np.float32).tiny
    inverse = np.linalg.inv(covariance + damping * np.eye(size))
    upper = np.swapaxes(np.linalg.cholesky(inverse), -1, -2)
    integers = np.zeros_like(rows)
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        errors = np.zeros_like(rows[..., start:stop])
        for i in range(start, stop):
            integers[..., i] = np.clip(np.round(rows[..., i]), -LIMIT, LIMIT)
            error = (rows[..., i] - integers[..., i]) / upper[..., i, i, None]
            rows[..., i + 1 : stop] -= error[..., None] * upper[..., None, i, i + 1 : stop]
            errors[..., i - start] = error
        rows[..., stop:] -= errors @ upper[..., start:stop, stop:]
    return np.take_along_axis(integers, np.argsort(order, -1)[..., None, :], -1)
