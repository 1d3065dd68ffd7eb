"""Steps to good int8 files: rewritten graphs, ranges, biases, float layers, dtypes of input and output."""

import dataclasses

import keras
import numpy as np
import pytest
from helpers import SHALLOW, randomized, tiny
from tflite import REWRITTEN, changed, images, int8, io_details, operators

import kvision
from kvision_export import flatbuffer
from kvision_export.bias_correction import correct_biases
from kvision_export.census import census_of
from kvision_export.convert import convert
from kvision_export.faults import find_faults
from kvision_export.int8 import Int8Files
from kvision_export.io_dtype import set_io_dtype
from kvision_export.layer_errors import own_errors
from kvision_export.quantize import quantize
from kvision_export.ranges import METHODS, Ranges
from kvision_export.rewrite import fold_normalization, split_hard_swish
from kvision_export.runner import predict, tensor_values
from kvision_export.search import Search, Step, _affordable, _better
from kvision_export.verify import answers, fidelity


def test_hard_swish_as_products_is_the_same_but_before_a_residual():
    model = randomized(tiny("mobilenet_v3_large"))
    content = convert(model)
    split, count = changed(content, split_hard_swish)
    before, after = operators(content), operators(split)
    assert count == before.count("HARD_SWISH") - after.count("HARD_SWISH")
    assert after.count("HARD_SWISH") == 1  # of the stem, whose value the first block adds
    np.testing.assert_allclose(predict(split, images()), predict(content, images()), atol=1e-5)


def test_hard_swish_of_the_output_and_of_second_degree_stay():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, activation="hard_swish")(inputs)
    square = keras.layers.Multiply()([x, keras.layers.MaxPooling2D(1)(x)])
    square = keras.layers.Conv2D(2, 1, activation="hard_swish")(square)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(square))
    assert changed(convert(model), split_hard_swish)[1] == 0


@pytest.mark.parametrize(
    ("mean", "std", "padding", "zero_point"),
    [
        pytest.param((127.0,) * 3, (128.0,) * 3, "same", 127, marks=pytest.mark.slow),
        pytest.param((127.5,) * 3, (127.5,) * 3, "symmetric", 127, marks=pytest.mark.slow),
        pytest.param((0.0,) * 3, (255.0,) * 3, "symmetric", 0, marks=pytest.mark.slow),
        ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4), "same", 114),
    ],
)
def test_the_normalisation_goes_into_the_first_layer(mean, std, padding, zero_point):
    preprocess = kvision.Preprocess(mean, std)
    model = randomized(tiny("mobilenet_v1", preprocess=preprocess, padding=padding))
    content = convert(model)
    folded, folded_zero_point = changed(content, fold_normalization)
    assert folded_zero_point == zero_point
    assert not {"MUL", "SUB", "DIV"} & {*operators(folded)}
    exact = mean[0] == zero_point
    difference = np.abs(predict(folded, images() - zero_point) - predict(content, images()))
    assert difference.max() < (1e-5 if exact else 0.02)  # else the padding is a fraction of a level off
    quantized = quantize(folded, Ranges(folded, images(2) - zero_point).find("minmax"))
    set_io_dtype(quantized, "uint8", zero_point)
    image, _, _ = io_details(flatbuffer.write(quantized))
    assert (image["dtype"], image["quantization"]) == (np.uint8, (1.0, zero_point))


def convolved(x, **columns):
    return keras.layers.Flatten()(keras.layers.Conv2D(6, 3, **columns)(x))


@pytest.mark.parametrize(
    "build",
    [
        lambda x: convolved(keras.ops.exp(x / 255)),
        lambda x: convolved(keras.layers.ZeroPadding2D(1)(x) - 127.0),  # what is padded is not 127
        lambda x: convolved(x - 127.0) + convolved(x - 100.0),
        lambda x: convolved(x - np.arange(192, dtype="float32").reshape(8, 8, 3)),
        lambda x: convolved(x - 127.0, groups=3),
        lambda x: convolved(x),
    ],
    ids=["function", "padding", "branches", "mean image", "groups", "nothing"],
)
def test_what_is_no_normalisation_is_not_folded(build):
    inputs = keras.Input((8, 8, 3))
    model = flatbuffer.read(convert(keras.Model(inputs, build(inputs))))
    assert fold_normalization(model) is None


def test_the_half_level_counts():
    """A network that only sums its normalised pixels shows an offset that others would hide."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1.0, name="preprocess")(inputs)
    x = keras.layers.Conv2D(2, 8, kernel_initializer=keras.initializers.Constant(1 / 192))(x)
    model = keras.Model(inputs, keras.layers.Flatten()(x))
    model.layers[2].bias.assign([0.0, 0.5])
    calibration = [np.full((8, 8, 3), level, "float32") for level in (0, 255)]
    levels = np.arange(0, 256, 15)
    pixels = np.stack([np.full((8, 8, 3), level, "float32") for level in levels])
    error = predict(int8(model, calibration), pixels) - model.predict(pixels, verbose=0)
    step = 2.5 / 255
    assert abs(error).max() < 0.75 * step
    assert abs(error.mean()) < 0.15 * step  # half a level would be 0.5 / 127.5 = 0.4 steps


def test_16_bits_of_pixels_from_0_to_255():
    """Normalised to [-1, 1], with scales that are powers of two, for which ADD has a kernel of its own.

    And twice as bright as the images that gave the ranges.
    """
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3)(keras.layers.Rescaling([1 / 127.5] * 3, [-1.0] * 3)(inputs))
    model = keras.Model(inputs, keras.layers.Flatten()(x))
    pixels = np.stack([np.full((8, 8, 3), level, "float32") for level in (0, 100, 255)])
    content, expected = convert(model), model.predict(pixels, verbose=0)
    for calibration in (pixels, pixels / 2):
        quantized = quantize(content, Ranges(content, calibration).find("minmax"), bits=16)
        np.testing.assert_allclose(predict(flatbuffer.write(quantized), pixels), expected, atol=0.02)


def test_a_layer_that_is_dead_on_all_images_does_not_spoil_the_file():
    model = kvision.models.lenet5()
    model.get_layer("c1.conv").set_weights([np.zeros((5, 5, 1, 6)), np.zeros(6)])
    pixels = images(size=32, channels=1)
    content = int8(model, pixels, dataclasses.replace(REWRITTEN, bias_corrected=True))
    np.testing.assert_allclose(predict(content, pixels), model.predict(pixels, verbose=0), atol=0.02)


@pytest.mark.parametrize("bits", [8, 16])
def test_values_as_tiny_as_in_untrained_networks_have_a_scale_that_kernels_take(bits):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu6", kernel_initializer=keras.initializers.Constant(1e-12))(
        inputs
    )
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, activation="relu6")(x))
    content = convert(keras.Model(inputs, keras.layers.Softmax()(x)))
    pixels = images(2, size=8)
    smaller = flatbuffer.write(quantize(content, Ranges(content, pixels).find("minmax"), bits=bits))
    (end,) = flatbuffer.read(smaller).subgraphs[0].outputs
    for values_of in tensor_values(smaller, pixels):
        np.testing.assert_allclose(values_of(end), 0.25, atol=0.01)


def test_parts_that_nothing_reads():
    inputs = keras.Input((8, 8, 3))
    first, _, last = keras.ops.split(keras.layers.Conv2D(6, 3)(inputs / 255), 3, axis=-1)
    x = keras.layers.GlobalAveragePooling2D()(first * keras.ops.tanh(last))
    model = keras.Model(inputs, keras.layers.Dense(4, activation="softmax")(x))
    pixels = images(size=8)
    np.testing.assert_allclose(predict(int8(model, pixels), pixels), model(pixels), atol=0.02)


def test_ranges():
    """Ranges in a network that passes its input on: 80,000 values from 0 to 10, and one of 12."""
    inputs = keras.Input((40, 50, 1))
    content = convert(keras.Model(inputs, keras.layers.ReLU()(inputs * 1.0)))
    pixels = np.linspace(0, 10, 2000, dtype="float32").reshape(1, 40, 50, 1)
    spike = pixels.copy()
    spike[0, -1, -1] = 12
    found = Ranges(content, [*pixels] * 40 + [*spike])
    highs = {method: max(high for _, high in found.find(method).values()) for method in METHODS}
    assert highs["minmax"] == pytest.approx(12)
    assert 10 <= highs["mse"] < 12  # some of the one value for the steps of the others
    assert highs["percentile"] == pytest.approx(10, abs=0.01)
    assert all(low == 0 for low, _ in found.find("minmax").values())


def test_ranges_of_a_kernel_as_large_as_the_image():
    """LiteRT's own kernel for two threads computes one of the four places."""
    x = inputs = keras.Input((4, 4, 3))
    for _ in range(2):
        x = keras.layers.Conv2D(8, 2, padding="same")(keras.layers.MaxPooling2D(2, padding="same")(x))
    model, pixels = keras.Model(inputs, keras.layers.Softmax()(x)), images(4, size=4)
    first = keras.Model(inputs, model.layers[2].output).predict(pixels, verbose=0)
    found = Ranges(convert(model), pixels).find("minmax").values()
    assert any(np.allclose(pair, (first.min(), first.max()), rtol=1e-4) for pair in found)


def off_by_a_mean():
    """A network whose logits int8 moves: a large weight makes the steps of the others coarse, and what is
    rounded off meets activations that are never negative."""
    random = np.random.default_rng(0)
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(16, 3, activation="relu")(inputs / 255)
    x = keras.layers.Conv2D(10, 1, name="coarse")(x)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    kernel = random.uniform(-0.05, 0.05, (1, 1, 16, 10))
    kernel[:, :, 3] = 8  # of a channel that is always 0
    model.get_layer("coarse").kernel.assign(kernel)
    first = model.layers[-3].kernel
    first.assign(first * (np.arange(16) != 3))
    return model


def test_corrected_biases_and_rounded_weights_bring_the_logits_nearer():
    content = convert(off_by_a_mean())
    calibration, held_out = images(16, 32), images(16, 32, seed=1)
    ranges = Ranges(content, calibration).find("minmax")
    expected = answers(content, held_out)
    for backend in ("litert", "tf"):
        plain = flatbuffer.write(quantize(content, ranges, backend=backend))
        corrected = [
            changed(plain, correct_biases, content, calibration, rounded)[0] for rounded in (False, True)
        ]
        files = [plain, *corrected]
        assert max(map(len, files)) < len(plain) + 100
        sqnr = [fidelity(answers(file, held_out), expected).sqnr for file in files]
        assert sqnr[1] > sqnr[0] + 3
        assert sqnr[2] > sqnr[1] + 1


def test_the_layer_that_loses_most_is_found():
    content = convert(off_by_a_mean())
    pixels = images(size=32)
    quantized = flatbuffer.write(quantize(content, Ranges(content, pixels).find("minmax")))
    errors = own_errors(quantized, content, pixels)
    assert "coarse" in min(errors, key=errors.get)
    assert max(errors.values()) > min(errors.values()) + 20


@pytest.mark.slow
def test_first_layers_may_stay_float():
    model = randomized(tiny("mobilenet_v1"))
    files = Int8Files(convert(model), images())
    floats = files.first_layers(REWRITTEN)[1]
    content = files.make(dataclasses.replace(REWRITTEN, floats=floats))
    names = operators(content)
    assert names.index("QUANTIZE") > names.index("DEPTHWISE_CONV_2D")
    assert not find_faults(flatbuffer.read(content))
    np.testing.assert_allclose(predict(content, images()), model.predict(images(), verbose=0), atol=0.1)


@pytest.fixture(scope="module")
def classifier():
    keras.utils.set_random_seed(0)
    model = randomized(tiny("mobilenet_v1", width_multiplier=0.5))
    return convert(model)


@pytest.mark.parametrize(
    ("dtype", "backend"),
    [
        ("uint8", "litert"),
        pytest.param("float32", "tf", marks=pytest.mark.slow),
        pytest.param("uint8", "tf", marks=pytest.mark.slow),
        pytest.param("float32", "litert", marks=pytest.mark.slow),
        pytest.param("int8", "litert", marks=pytest.mark.slow),
        pytest.param("int8", "tf", marks=pytest.mark.slow),
    ],
)
def test_dtypes_of_the_input_and_the_output(dtype, backend, classifier):
    content = Int8Files(classifier, images(), io_dtype=dtype, backend=backend).make(REWRITTEN)
    image, probabilities, signatures = io_details(content)
    assert image["dtype"] == np.dtype(dtype)
    assert probabilities["dtype"] == (np.int8 if dtype == "int8" else np.float32)
    assert signatures == {"serving_default": {"inputs": ["image"], "outputs": ["probabilities"]}}
    if dtype == "int8":
        assert not {"QUANTIZE", "DEQUANTIZE"} & {*operators(content)}
    else:
        census = census_of(content)
        assert (census.partitions, census.left_out) == (1, {})
    assert fidelity(answers(content, images()), answers(classifier, images())).sqnr > 25  # dB


def test_equal_vectors_are_written_once_and_constants_are_aligned():
    content = int8(randomized(tiny("resnet18")), images())
    model = flatbuffer.schema.Model.GetRootAs(content)
    for i in range(model.BuffersLength()):
        buffer = model.Buffers(i)
        if not buffer.DataIsNone():
            start = buffer._tab.Vector(buffer._tab.Offset(4))
            assert start % 16 == 0
    tensors = model.Subgraphs(0)
    starts = {}
    for i in range(tensors.TensorsLength()):
        quantization = tensors.Tensors(i).Quantization()
        if quantization and not quantization.ZeroPointIsNone():
            key = quantization.ZeroPointAsNumpy().tobytes()
            starts.setdefault(key, set()).add(quantization._tab.Vector(quantization._tab.Offset(10)))
    assert all(len(places) == 1 for places in starts.values())


def test_a_step_is_kept_only_where_other_images_say_so():
    columns = SHALLOW | {"input_shape": (64, 64, 3), "num_classes": 3}
    floats = convert(randomized(kvision.models.mobilenet_v3_small(**columns)))
    search = Search(Int8Files(floats, images()), images(seed=1))
    content = search.run()
    *_, last = (step for step in search.steps if step.kept)
    found = fidelity(answers(content, images(seed=1)), search.expected)
    assert found.error == pytest.approx(last.error)
    assert content == Int8Files(floats, images()).make(search.best.settings)  # no range is of those


STEP = Step("old", {}, error=0.11, agreement=0.9, size=1000, latency_ms=1.0, kept=True)
BROKEN = dataclasses.replace(STEP, error=np.inf)


@pytest.mark.parametrize(
    ("changes", "better"),
    [
        ({"error": 0.06, "latency_ms": 1.8}, True),
        ({"error": 0.06, "latency_ms": 1.9}, False),
        ({"error": 0.21, "latency_ms": 0.5}, True),
        ({"error": 0.23, "latency_ms": 0.5}, False),
        ({"error": 0.115}, False),
        ({"error": 0.06, "size": 1100}, True),
        ({"error": np.inf, "latency_ms": 0.5}, False),
        ({"latency_ms": 0.98}, True),
        ({"latency_ms": 0.995}, False),  # noise
        ({}, False),
    ],
)
def test_what_a_better_file_is(changes, better):
    assert _better(dataclasses.replace(STEP, **changes), STEP) is better
    assert _better(STEP, BROKEN)


def test_what_float_layers_may_cost():
    assert _affordable(dataclasses.replace(STEP, latency_ms=1.01, size=1002), STEP, 0.9)
    for costs in ({"latency_ms": 1.02}, {"size": 1004}):
        assert not _affordable(dataclasses.replace(STEP, **costs), STEP, 0.9)
        assert _affordable(dataclasses.replace(STEP, **costs), STEP, 0.91)  # integers alone agree too little


def test_networks_of_few_layers_and_shared_ones():
    pixels = images(size=32)
    inputs = keras.Input((32, 32, 3))
    shared = keras.layers.Conv2D(3, 3, padding="same", activation="relu")
    x = shared(shared(inputs / 255) + 0.1)
    x = keras.layers.Dense(3, activation="softmax")(keras.layers.GlobalAveragePooling2D()(x))
    search = Search(Int8Files(convert(keras.Model(inputs, x)), pixels), pixels)
    search.run()
    assert {"biases corrected", "first 2 layers float"} <= {step.name for step in search.steps}
    assert "first 3 layers float" not in {step.name for step in search.steps}
