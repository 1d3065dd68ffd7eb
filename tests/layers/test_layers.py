"""Results of the layers, and their return from a file."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kvision.blocks import encoder_block
from kvision.layers import (
    MLP,
    BatchNorm,
    Bilinear,
    CosineWindowAttention,
    CropLike,
    DropPath,
    FoldFrames,
    GlobalResponseNormalization,
    GroupedConv2D,
    LayerScale,
    LocalResponseNormalization,
    LogMeanProbability,
    MergePatches,
    MultiHeadSelfAttention,
    MultiQueryAttention,
    PadToMultiple,
    PositionEmbedding,
    PrefixToken,
    ResizeLike,
    SinusoidalEncoding,
    StandardizedConv2D,
    TokenTap,
    WholeConv2D,
    WindowAttention,
)

X = np.random.default_rng(0).standard_normal((2, 5, 6, 8)).astype("float32")


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    x = np.ones((4000, 3, 2), "float32")
    y = np.asarray(DropPath(0.25, seed=0)(x, training=True))
    per_sample = y.reshape(4000, -1)
    assert np.all(per_sample == per_sample[:, :1])
    assert set(np.unique(per_sample).round(4)) == {0.0, np.float32(4 / 3).round(4)}
    assert abs(y.mean() - 1) < 0.03
    np.testing.assert_array_equal(DropPath(0.5)(X, training=False), X)


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("switches", [{}, {"center": False}, {"scale": False}], ids=str)
def test_batch_norm_trains_as_keras_own(dtype, switches):
    results = []
    for kind in (keras.layers.BatchNormalization, BatchNorm):
        layer = kind(epsilon=1e-5, momentum=0.8, dtype=dtype, **switches)
        layer.build(X.shape)
        for number, variable in enumerate(layer.trainable_variables):
            variable.assign(np.linspace(number, 2, 8))
        x = tf.Variable(3 + 2 * X)
        with tf.GradientTape() as tape:
            y = tf.cast(layer(x, training=True), "float32")
            loss = tf.reduce_sum(y**3 * X)  # of y**2 alone the gradient is 0
        gradients = tape.gradient(loss, [x, *(v.value for v in layer.trainable_variables)])
        results.append([y, *gradients, *layer.get_weights(), layer(x, training=False)])
        layer.trainable = False
        results[-1].append(layer(x, training=True))  # by the moving statistics
    tolerance = 1e-5 if dtype == "float32" else 2e-2
    for ours, theirs in zip(*reversed(results), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * np.abs(theirs).max())
    assert layer.moving_variance.numpy() == pytest.approx(0.8 + 0.2 * 4 * X.var((0, 1, 2)), rel=tolerance)


def test_local_response_norm_is_tensorflows():
    y = LocalResponseNormalization(size=5, alpha=0.3, beta=0.75, k=2.0)(X)
    np.testing.assert_allclose(y, tf.nn.lrn(X, depth_radius=2, bias=2.0, alpha=0.3, beta=0.75), rtol=1e-5)
    with pytest.raises(ValueError, match="odd"):
        LocalResponseNormalization(size=4)


def test_global_response_norm_follows_the_paper_and_survives_a_blank_image():
    layer = GlobalResponseNormalization()
    np.testing.assert_array_equal(layer(X), X)  # starts as the identity
    layer.weight.assign(np.linspace(-1, 1, 8))
    layer.bias.assign(np.linspace(0, 2, 8))
    norms = np.sqrt((X**2).sum((1, 2), keepdims=True))
    expected = layer.weight * X * (norms / (norms.mean(-1, keepdims=True) + 1e-6)) + layer.bias + X
    np.testing.assert_allclose(layer(X), expected, rtol=1e-5, atol=1e-6)
    blank = tf.Variable(tf.zeros((1, 4, 4, 8)))
    with tf.GradientTape() as tape:
        y = ops.sum(layer(blank))
    assert np.isfinite(tape.gradient(y, blank)).all()


def test_layer_scale_multiplies_channels():
    layer = LayerScale(0.5)
    np.testing.assert_allclose(layer(X), X / 2)


def test_multi_query_attention_is_attention_of_each_head():
    queries, keys, values = (ops.convert_to_tensor(X[..., :n]) for n in (8, 4, 6))
    y = np.asarray(MultiQueryAttention(2)(queries, keys[:, ::2, ::2], values[:, ::2, ::2]))
    assert y.shape == (2, 5, 6, 12)
    k, v = np.asarray(keys)[0, ::2, ::2].reshape(-1, 4), np.asarray(values)[0, ::2, ::2].reshape(-1, 6)
    for head in range(2):
        scores = np.exp(X[0, 3, 1, 4 * head : 4 * head + 4] @ k.T / 2)
        np.testing.assert_allclose(y[0, 3, 1, 6 * head : 6 * head + 6], scores @ v / scores.sum(), rtol=1e-4)


@pytest.mark.parametrize("columns", [{}, {"use_bias": False}, {"activation": "tanh"}])
def test_convolution_over_the_whole_map_is_a_convolution(columns):
    layer = WholeConv2D(4, (5, 6), **columns)
    y = layer(X)
    np.testing.assert_allclose(y, keras.layers.Conv2D.call(layer, X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "columns", [{"use_bias": True, "activation": "relu"}, {"strides": 2, "padding": "same"}]
)
def test_grouped_convolution_is_the_same_in_training(columns):
    layer = GroupedConv2D(12, 3, groups=4, use_bias=columns.pop("use_bias", False), **columns)
    plain = layer(X, training=False)
    results = []
    for training in (False, True):
        with tf.GradientTape() as tape:
            y = layer(X, training=training)
            loss = ops.sum(ops.square(y))
        np.testing.assert_allclose(y, plain, rtol=1e-4, atol=1e-5)
        results.append(tape.gradient(loss, layer.trainable_variables))
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_self_attention_is_keras_multi_head_attention():
    x = X.reshape(2, 30, 8)
    ours = MultiHeadSelfAttention(2)
    y, shares = ours(x, return_attention=True)
    theirs = keras.layers.MultiHeadAttention(2, 4)
    theirs(x, x)
    kernels = np.split(ours.qkv.kernel.numpy(), 3, axis=1)
    weights = [w for kernel in kernels for w in (kernel.reshape(8, 2, 4), np.zeros((2, 4)))]
    theirs.set_weights([*weights, ours.proj.kernel.numpy().reshape(2, 4, 8), np.zeros(8)])
    expected, scores = theirs(x, x, return_attention_scores=True)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(shares, scores, rtol=1e-4, atol=1e-7)
    with pytest.raises(ValueError, match="must divide"):
        MultiHeadSelfAttention(3)(x)


def test_causal_attention_sees_the_past_alone_and_takes_steps():
    x = X.reshape(2, 30, 8)
    layer = MultiHeadSelfAttention(2, causal=True)
    y, shares = layer(x, return_attention=True)
    assert not np.asarray(shares)[..., ~np.tri(30, dtype=bool)].any()
    keys = values = ops.zeros((2, 2, 30, 4))
    for place in range(30):
        step, keys, values = layer.step(x[:, place], np.full(2, place, "int32"), keys, values)
        np.testing.assert_allclose(step, y[:, place], atol=1e-6)


def test_windows_see_themselves_alone():
    """A change in one window reaches no token of another; the shifted windows' border tokens stay apart."""
    x = np.random.default_rng(0).standard_normal((1, 8, 8, 4)).astype("float32")
    for shifted, reached in ((False, (slice(0, 4), slice(0, 4))), (True, (slice(0, 2), slice(0, 2)))):
        layer = WindowAttention(2, window_size=4, shifted=shifted)
        changed = x.copy()
        before = np.asarray(layer(x))
        changed[0, 0, 0] += 1
        moved = np.abs(np.asarray(layer(changed)) - before).max((0, 3)) > 1e-8
        expected = np.zeros((8, 8), bool)
        expected[reached] = True
        np.testing.assert_array_equal(moved, expected)


def test_resizing_is_pytorchs_without_aligned_corners():
    """The example in the documentation of `torch.nn.Upsample`."""
    x = np.array([[1.0, 2.0], [3.0, 4.0]], "float32")[None, ..., None]
    expected = [[1, 1.25, 1.75, 2], [1.5, 1.75, 2.25, 2.5], [2.5, 2.75, 3.25, 3.5], [3, 3.25, 3.75, 4]]
    np.testing.assert_allclose(ResizeLike()(x, np.zeros((1, 4, 4, 1)))[0, ..., 0], expected, atol=1e-6)
    x, like = keras.Input((None, None, 8)), keras.Input((None, None, 1))
    model = keras.Model([x, like], ResizeLike()(x, like))
    for size in ((5, 6), (40, 48), (13, 31), (3, 4)):  # sizes that are not known when it is traced
        reference = np.zeros((2, *size, 1), "float32")
        np.testing.assert_allclose(
            model.predict([X, reference], verbose=0), ResizeLike()(X, reference), atol=1e-6
        )


@pytest.mark.parametrize("factor", [2, 3, 8])
def test_a_bilinear_deconvolution_resizes(factor):
    layer = keras.layers.Conv2DTranspose(
        8, 2 * factor - factor % 2, factor, "same", use_bias=False, kernel_initializer=Bilinear()
    )
    inside = (slice(None), slice(factor, -factor), slice(factor, -factor))
    expected = ResizeLike()(X, np.zeros((2, 5 * factor, 6 * factor, 1)))
    np.testing.assert_allclose(layer(X)[inside], expected[inside], atol=1e-5)


def test_padding_and_cropping():
    padded = PadToMultiple(4)(X)
    assert padded.shape == (2, 8, 8, 8)
    assert not np.asarray(padded)[:, 5:].any()
    assert not np.asarray(padded)[:, :, 6:].any()
    np.testing.assert_array_equal(CropLike()(padded, X), X)
    image = keras.Input((None, None, 8))
    model = keras.Model(image, CropLike()(PadToMultiple(4)(image), image))
    np.testing.assert_array_equal(model.predict(X, verbose=0), X)


def test_sinusoidal_encodings():
    encoding = np.asarray(SinusoidalEncoding()(np.zeros((1, 10, 8), "float32")))[0]
    for position in (0, 3, 9):
        for i in range(4):
            angle = position / 10_000 ** (2 * i / 8)
            np.testing.assert_allclose(
                encoding[position, [i, 4 + i]], [np.sin(angle), np.cos(angle)], atol=1e-6
            )
    grid = np.asarray(SinusoidalEncoding()(np.zeros((1, 5, 6, 8), "float32")))[0]
    rows = np.asarray(SinusoidalEncoding()(np.zeros((1, 6, 4), "float32")))[0]
    np.testing.assert_allclose(grid[2, :, :4], np.tile(rows[2], (6, 1)), atol=1e-6)
    np.testing.assert_allclose(grid[:, 4, 4:], np.tile(rows[4], (5, 1)), atol=1e-6)
    with pytest.raises(ValueError, match="multiple of 4"):
        SinusoidalEncoding()(np.zeros((1, 5, 6, 6), "float32"))


def test_patches_merge_in_the_checkpoints_order():
    x = np.arange(16, dtype="float32").reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(MergePatches()(x)[0, 0, 0], [0, 4, 1, 5])
    assert MergePatches()(np.zeros((1, 5, 7, 2), "float32")).shape == (1, 3, 4, 8)


def test_post_norm_normalises_what_comes_out():
    x = keras.Input((30, 8))
    model = keras.Model(x, encoder_block(x, num_heads=2, epsilon=1e-6, post_norm=True, name="block"))
    y = np.asarray(model(X.reshape(2, 30, 8)))
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(-1), 1, atol=1e-3)


@pytest.mark.parametrize(
    "layer",
    [
        DropPath(0.5),
        GlobalResponseNormalization(epsilon=0.1),
        GroupedConv2D(8, 3, groups=2),
        WholeConv2D(8, (5, 6)),
        LayerScale(0.25),
        LocalResponseNormalization(size=3, alpha=0.1, beta=0.5, k=1.0),
        SinusoidalEncoding(temperature=100),
        WindowAttention(2, window_size=3, shifted=True),
        CosineWindowAttention(2, window_size=3, shifted=True, trained_window_size=2),
        StandardizedConv2D(8, 3, epsilon=1e-3),
        MergePatches(),
        MLP(5),
        PadToMultiple(4),
        keras.layers.Conv2DTranspose(4, 4, 2, kernel_initializer=Bilinear()),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_come_back_from_their_configuration(layer):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config()
    assert type(again) is type(layer)
    layer(X)
    again(X)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(again(X, training=False), layer(X, training=False))


@pytest.mark.parametrize(
    "layer",
    [
        MultiHeadSelfAttention(4),
        MultiHeadSelfAttention(4, causal=True),
        PrefixToken(),
        PositionEmbedding((5, 6)),
        TokenTap((5, 6), prefix_tokens=0),
        MLP(5, activation="relu"),
        FoldFrames(),
        LogMeanProbability(),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_on_tokens_come_back_too(layer):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config()
    tokens = X.reshape(2, 30, 8)
    layer(tokens)
    again(tokens)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(again(tokens), layer(tokens))
