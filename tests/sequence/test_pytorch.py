"""Recurrent layers and Transformers answer as PyTorch's, with its weights."""

from pathlib import Path

import keras
import numpy as np
import pytest

from kvision import layers, sequence

GOLDEN = np.load(Path(__file__).parents[1] / "reference" / "sequence.npz")
GATES = {"rnn": [0], "lstm": [0, 1, 2, 3], "gru": [1, 0, 2]}  # Keras' places of PyTorch's; a GRU's z is first


def golden(name):
    """PyTorch's tensors of one module."""
    return {key.partition("/")[2]: GOLDEN[key] for key in GOLDEN.files if key.startswith(f"{name}/")}


def in_gates(tensor, cell):
    """A tensor whose first axis is gate after gate, in Keras' order and layout."""
    parts = np.split(tensor, len(GATES[cell]))
    return np.concatenate([parts[i] for i in GATES[cell]]).T


def after(model, name):
    """The model up to the input of a layer."""
    return keras.Model(model.input, model.get_layer(name).input)


@pytest.mark.parametrize("cell", GATES)
def test_recurrent_layers(cell):
    theirs = golden(cell)
    model = sequence.recurrent_classifier(cell=cell, units=4, depth=2, input_shape=(5, 8))
    for i in range(2):
        kernel, recurrent, bias, recurrent_bias = (
            in_gates(theirs[f"{key}_l{i}"], cell) for key in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        biases = np.stack([bias, recurrent_bias]) if cell == "gru" else bias + recurrent_bias
        model.get_layer(f"rnn.{i}").set_weights([kernel, recurrent, biases])
    np.testing.assert_allclose(after(model, "trunk")(theirs["x"]), theirs["output"][:, -1], atol=1e-5)


def set_attention(layer, parts, theirs, prefix):
    """Gives an attention layer's dense layers PyTorch's weights: `parts` are rows of its `in_proj`."""
    for name, rows in parts.items():
        kernel, bias = (theirs[f"{prefix}.in_proj_{key}"][rows] for key in ("weight", "bias"))
        getattr(layer, name).set_weights([kernel.T, bias])
    layer.proj.set_weights([theirs[f"{prefix}.out_proj.weight"].T, theirs[f"{prefix}.out_proj.bias"]])


def set_mlp(layer, theirs, prefix):
    weights = [theirs[f"{prefix}.linear{i}.{key}"] for i in (1, 2) for key in ("weight", "bias")]
    layer.set_weights([weight.T for weight in weights])


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_encoder(norm):
    theirs = golden(f"encoder.{norm}")
    model = sequence.transformer_encoder(
        input_shape=(5, 8), width=8, hidden=16, num_heads=2, depth=2, norm=norm, positions=None
    )
    model.get_layer("embed").set_weights([np.eye(8), np.zeros(8)])
    for i in range(2):
        block = f"blocks.{i}"
        everything = {"qkv": slice(None)}
        set_attention(model.get_layer(f"{block}.attn"), everything, theirs, f"layers.{i}.self_attn")
        set_mlp(model.get_layer(f"{block}.mlp"), theirs, f"layers.{i}")
        for name in ("norm1", "norm2"):
            weights = [theirs[f"layers.{i}.{name}.{key}"] for key in ("weight", "bias")]
            model.get_layer(f"{block}.{name}").set_weights(weights)
    if norm == "pre":
        model.get_layer("norm").set_weights([theirs["norm.weight"], theirs["norm.bias"]])
    np.testing.assert_allclose(after(model, "pool")(theirs["x"]), theirs["output"], atol=1e-5)


def test_decoder():
    theirs = golden("decoder")
    x, memory = theirs["x"], theirs["memory"]
    for i in range(2):
        block, prefix = layers.DecoderBlock(2, 16), f"layers.{i}"
        block.build(x.shape)
        set_attention(block.self_attn, {"qkv": slice(None)}, theirs, f"{prefix}.self_attn")
        parts = {"q": slice(0, 8), "kv": slice(8, None)}
        set_attention(block.cross_attn, parts, theirs, f"{prefix}.multihead_attn")
        set_mlp(block.mlp, theirs, prefix)
        for place, norm in enumerate(block.norms, 1):
            norm.set_weights([theirs[f"{prefix}.norm{place}.{key}"] for key in ("weight", "bias")])
        x = block(x, memory)
    np.testing.assert_allclose(x, theirs["output"], atol=1e-5)


def test_the_textbook_gru():
    """Cho et al. 2014, equations 5 to 8: the reset gate acts on the state in front of the product."""
    random = np.random.default_rng(0)
    model = sequence.recurrent_classifier(cell="gru", units=4, reset_after=False, input_shape=(5, 3))
    weights = [random.normal(0, 0.5, weight.shape) for weight in model.get_layer("rnn.0").get_weights()]
    assert [weight.shape for weight in weights] == [(3, 12), (4, 12), (12,)]
    model.get_layer("rnn.0").set_weights(weights)
    w, u, b = (np.split(weight, 3, axis=-1) for weight in weights)  # update, reset, candidate
    x = random.normal(size=(2, 5, 3)).astype("float32")
    h = np.zeros((2, 4))

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    for step in range(5):
        z, r = (sigmoid(x[:, step] @ w[i] + h @ u[i] + b[i]) for i in (0, 1))
        h = z * h + (1 - z) * np.tanh(x[:, step] @ w[2] + (r * h) @ u[2] + b[2])
    np.testing.assert_allclose(after(model, "trunk")(x), h, atol=1e-5)
