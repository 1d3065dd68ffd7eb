"""Recurrent layers of Keras, by name and in stacks."""

import keras

CELLS = {"rnn": keras.layers.SimpleRNN, "lstm": keras.layers.LSTM, "gru": keras.layers.GRU}


def recurrent(x, *, cell, units, depth=1, reset_after=True, return_sequences=True, name):
    """Recurrent layers, one on the other.

    Args:
        x: `(batch, steps, features)`.
        cell: "rnn" (Elman 1990), "lstm" (Hochreiter and Schmidhuber 1997, with a forget gate) or "gru" (Cho
            et al. 2014, https://arxiv.org/abs/1406.1078).
        units: of each layer.
        depth: layers.
        reset_after: of a GRU, whether the reset gate acts behind the recurrent product, as cuDNN and PyTorch
            have it, and not on the state in front of it, as the paper has.
        return_sequences: whether the last layer answers at each step.
        name: prefix of the layers' names.

    Returns:
        `(batch, steps, units)`, or of the last step alone, `(batch, units)`.
    """
    keywords = {"reset_after": reset_after} if cell == "gru" else {}
    for i in range(depth):
        every_step = return_sequences or i < depth - 1
        x = CELLS[cell](units, return_sequences=every_step, name=f"{name}.{i}", **keywords)(x)
    return x
