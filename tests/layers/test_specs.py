"""Shapes and dtypes of symbolic outputs."""

import keras
import numpy as np
import pytest

from kvision import layers

RANDOM = np.random.default_rng(0)
MAP, TOKENS = (RANDOM.standard_normal(shape).astype("float32") for shape in ((2, 5, 6, 8), (2, 9, 8)))
WIDER, BOXES = np.zeros((2, 7, 4, 3), "float32"), np.full((2, 3, 4), [0, 0, 8, 12], "float32")
MEMORY, VIDEO = np.zeros((2, 4, 8), "float32"), np.zeros((2, 3, 5, 6, 1), "float32")
LAYERS = {
    "attention": (lambda: layers.MultiHeadSelfAttention(2), TOKENS),
    "causal attention": (lambda: layers.MultiHeadSelfAttention(2, causal=True), TOKENS),
    "attention to a memory": (lambda: layers.CrossAttention(2), TOKENS, MEMORY),
    "decoder's block": (lambda: layers.DecoderBlock(2, 16), TOKENS, MEMORY),
    "folded frames": (layers.FoldFrames, VIDEO),
    "unfolded frames": (lambda: layers.UnfoldFrames(2), MEMORY[:, 0]),
    "mean of probabilities": (layers.LogMeanProbability, TOKENS),
    "attention in windows": (lambda: layers.WindowAttention(2, 4, shifted=True), MAP),
    "attention of cosines": (lambda: layers.CosineWindowAttention(2, 4), MAP),
    "mlp": (lambda: layers.MLP(16), TOKENS),
    "mlp of a map": (lambda: layers.MLP(16), MAP),
    "scale": (layers.LayerScale, TOKENS),
    "positions": (lambda: layers.PositionEmbedding((3, 3)), TOKENS),
    "sines": (layers.SinusoidalEncoding, TOKENS),
    "local norm": (layers.LocalResponseNormalization, MAP),
    "global norm": (layers.GlobalResponseNormalization, MAP),
    "padding": (lambda: layers.PadToMultiple(4), MAP),
    "cropping": (layers.CropLike, MAP, WIDER),
    "resizing": (layers.ResizeLike, MAP, WIDER),
    "pyramid": (lambda: layers.SpatialPyramidPooling((3, 1)), MAP),
    "regions": (lambda: layers.RoIPool(3, stride=4), MAP, BOXES),
    "pyramid of regions": (lambda: layers.RoIPyramidPool((2, 1), stride=4), MAP, BOXES),
    "warped regions": (lambda: layers.RoIWarp(8, 1), MAP, BOXES),
}


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "float64"])
@pytest.mark.parametrize("name", LAYERS)
def test_shapes_and_dtypes_are_those_of_the_answers(name, policy):
    make, *values = LAYERS[name]
    keras.config.set_dtype_policy(policy)
    try:
        answer = make()(*values)
        said = make()(*(keras.KerasTensor((None, *value.shape[1:]), "float32") for value in values))
    finally:
        keras.config.set_dtype_policy("float32")
    assert said.shape == (None, *answer.shape[1:])
    assert said.dtype == keras.backend.standardize_dtype(answer.dtype)


@pytest.mark.parametrize("tokens", [9, None])
def test_shares_of_attention(tokens):
    output, shares = layers.MultiHeadSelfAttention(2)(keras.Input((tokens, 8)), return_attention=True)
    assert (output.shape, shares.shape) == ((None, tokens, 8), (None, 2, tokens, tokens))


def test_tokens_of_any_number_have_no_positions():
    with pytest.raises(ValueError, match="The number of tokens must be fixed; got"):
        layers.PositionEmbedding((3, 3))(keras.Input((None, 8)))
