"""Keywords and arguments that are refused, in a sentence."""

import numpy as np
import pytest
from helpers import tiny

import kvision
from kvision.errors import UserError
from kvision.models import mobilenet_v2


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"width_multiplyer": 1}, TypeError, "Did you mean 'width_multiplier'"),
        ({"width": 0.5}, TypeError, "Unknown keyword 'width'. Did you mean 'width_multiplier'"),
        ({"alpha": 0.5}, TypeError, "Unknown keyword 'alpha'. Did you mean 'width_multiplier'"),
        ({"input_shape": (16, 16, 3)}, ValueError, r"too small.*32 x 32 pixels\.$"),
        ({"input_shape": (3, 32, 64)}, ValueError, r"channels come last: did you mean \(32, 64, 3\)"),
        ({"input_shape": (64, 64)}, ValueError, "height, width, channels"),
        ({"pooling": "avg"}, ValueError, "include_top=False"),
        ({"pooling": "mean", "include_top": False}, ValueError, "'avg' or 'max'"),
        ({"num_classes": 0}, ValueError, "positive integer"),
        ({"padding": "valid"}, ValueError, "'same' or 'symmetric'"),
        ({"width_multiplier": 0}, ValueError, "width_multiplier"),
        ({"weights": "imagenot"}, ValueError, ".safetensors"),
    ],
)
def test_errors(keywords, error, message):
    with pytest.raises(error, match=message):
        mobilenet_v2(**keywords)


def test_unknown_model():
    with pytest.raises(ValueError, match="Unknown model 'mobilenetv2'. Did you mean 'mobilenet_v2'"):
        kvision.create_model("mobilenetv2")
    assert kvision.list_models("efficientnet_lite*") == [f"efficientnet_lite{i}" for i in range(5)]


def test_preprocess_refuses_what_is_no_normalisation():
    with pytest.raises(ValueError, match="positive"):
        kvision.Preprocess((0.0,), (0.0,))
    with pytest.raises(ValueError, match="one value a channel"):
        kvision.Preprocess((0.0, 0.0), (1.0,))


@pytest.mark.parametrize("mean", [(), 127.5, "abc", (float("nan"),), None])
def test_preprocess_takes_numbers(mean):
    with pytest.raises(ValueError, match="`mean` must be one number a channel; got"):
        kvision.Preprocess(mean, (1.0,))
    assert kvision.Preprocess(np.array([1]), [2]) == kvision.Preprocess((1.0,), (2.0,))


ROWS = kvision.info("mobilenet_v3_small").variant.rows


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("mobilenet_v2", {"width_multiplier": "abc"}, "`width_multiplier` must be a number .*; got 'abc'"),
        ("mobilenet_v2", {"width_multiplier": True}, "`width_multiplier` must be a number .*; got True"),
        ("mobilenet_v2", {"width_multiplier": float("inf")}, "at most 10; got inf"),
        ("mobilenet_v2", {"num_classes": 2.5}, "`num_classes` must be a positive integer; got 2.5"),
        ("mobilenet_v2", {"num_classes": True}, "`num_classes` must be a positive integer; got True"),
        ("mobilenet_v2", {"num_classes": "7"}, "`num_classes` must be a positive integer; got '7'"),
        ("mobilenet_v2", {"input_shape": ("64", "64", "3")}, "`input_shape` must be .height, width"),
        ("mobilenet_v2", {"input_shape": (64, True, 3)}, "`input_shape` must be .height, width"),
        ("mobilenet_v2", {"input_shape": (64, 64, None)}, "`input_shape` must be .height, width"),
        ("mobilenet_v2", {"input_shape": 64}, "`input_shape` must be .height, width"),
        ("mobilenet_v2", {"dropout_rate": 2}, "`dropout_rate` must be a number from 0 to below 1; got 2"),
        ("mobilenet_v2", {"drop_path_rate": 1.0}, "a number from 0 to below 1; got 1.0"),
        ("mobilenet_v2", {"norm_epsilon": -1e-3}, "`norm_epsilon` must be a number from 0"),
        ("mobilenet_v2", {"norm_momentum": 2}, "`norm_momentum` must be a number from 0 to 1"),
        ("mobilenet_v2", {"classifier_activation": "sofmax"}, "got 'sofmax'. Did you mean 'softmax'"),
        ("mobilenet_v2", {"include_top": "False"}, "`include_top` must be True or False; got 'False'"),
        ("mobilenet_v2", {"name": "a/b"}, "`name` must be a text, not empty and without '/'"),
        ("mobilenet_v2", {"name": ""}, "`name` must be a text, not empty and without '/'"),
        ("mobilenet_v2", {"preprocess": "imagenet"}, "`preprocess` must be a `kvision.Preprocess`"),
        ("resnet18", {"depths": 3}, "`depths` must be a tuple of 4 positive integers, such as .*; got 3"),
        ("resnet18", {"depths": (1, 2)}, "`depths` must be a tuple of 4 .*; got .1, 2."),
        ("resnet18", {"depths": (1, 1, 0, 1)}, r"`depths\[2\]` must be a positive integer; got 0"),
        ("resnet18", {"block": "bottleneck"}, "`block` must be a function, such as basic_block"),
        ("lenet5", {"activation": "rellu"}, "`activation` must be a Keras activation; .*Did you mean 'relu'"),
        ("lenet5", {"subsampling": "mean"}, "`subsampling` must be 'average' or 'max'; got 'mean'"),
        ("mobilenet_v3_small", {"rows": ((1, 2),)}, "`rows` must be a tuple of Rows"),
        ("mobilenet_v3_small", {"minimal": "yes"}, "`minimal` must be True or False; got 'yes'"),
        ("densenet121", {"compression": 1.5}, "`compression` must be a number above 0, and at most 1"),
        ("vit_tiny_patch16", {"patch_size": 64, "input_shape": (32, 32, 3)}, "`patch_size` 64 is larger"),
        ("googlenet", {"auxiliary": True, "input_shape": (None, None, 3)}, "needs a fixed image size"),
        ("mobilenet_v2", {"num_classes": -1}, "`num_classes` must be a positive integer; got -1"),
        ("mobilenet_v2", {"num_classes": 10**12}, "`num_classes` must be .* of at most 1,000,000; got 1000"),
        ("vit_tiny_patch16", {"depth": 10**9}, "`depth` must be a positive integer of at most 1,000; got"),
        ("resnet18", {"depths": (10**6, 1, 1, 1)}, r"`depths\[0\]` must be .* of at most 1,000; got 1000000"),
        ("resnet18", {"filters": 10**6}, "`filters` must be .* integer of at most 10,000; got 1000000"),
        ("mobilenet_v2", {"width_multiplier": 1e9}, "`width_multiplier` must be .* at most 10; got 1000"),
        ("mobilenet_v2", {"width_multiplier": 10**400}, "`width_multiplier` must be .* at most 10; got 1000"),
        ("vit_tiny_patch16", {"mlp_ratio": 1e9}, "`mlp_ratio` must be .* at most 100; got 1000000000"),
        ("mobilenet_v2", {"input_shape": (10**6, 10**6, 3)}, "of at most 16,384 pixels a side"),
        ("mobilenet_v2", {"input_shape": (64, 64, 10**12)}, "`input_shape` .* and 10,000 channels; got .64"),
        ("mobilenet_v2", {"input_shape": (224, 224)}, "`input_shape` must be .height, width"),
        ("mobilenet_v2", {"weights": 7}, "no weights '7'"),
        ("vit_tiny_patch16", {"input_shape": (70, 64, 3)}, r"`patch_size` 16; got .*, to which \(64, 64\)"),
        ("deit_tiny", {"input_shape": (64, 72, 3)}, r"`patch_size` 16; got .*, to which \(64, 80\)"),
        ("swin_tiny", {"input_shape": (64, 67, 3)}, r"`patch_size` 4; got .*, to which \(64, 68\)"),
    ],
)  # fmt: skip
def test_values_of_the_wrong_kind_are_refused_in_a_sentence(name, keywords, message):
    with pytest.raises(UserError, match=message) as error:
        kvision.create_model(name, **keywords)
    assert len(str(error.value)) < 300


@pytest.fixture(scope="module")
def two():
    """A convolutional network and a Transformer."""
    return tiny("mobilenet_v2"), tiny("vit_tiny_patch16")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model, vit: kvision.features(None), "`model` must be a `keras.Model`; got None"),
        (lambda model, vit: kvision.features("mobilenet_v2"), "`model` must be .*; got 'mobilenet_v2'"),
        (lambda model, vit: kvision.features(vit), "no tap 'c3'. Did you mean 'c4'. Its taps: c4"),
        (lambda model, vit: kvision.features(model, 3), r"`names` must be taps such as \('c3'.*; got 3"),
        (lambda model, vit: kvision.features(model, b"c3"), "`names` must be taps .*; got b'c3'"),
        (lambda model, vit: kvision.features(model, ("c3", None)), "`names` must be .*; got .'c3', None"),
        (lambda model, vit: kvision.features(model, "stem"), "no tap 'stem'. Its taps: c1, c2, c3, c4, c5"),
        (lambda model, vit: kvision.attention_maps(None), "`model` must be a `keras.Model`; got None"),
        (lambda model, vit: kvision.depth_groups([model]), "`model` must be .*; got .<Functional"),
        (lambda model, vit: kvision.list_models(3), r"`pattern` must be a text such as '\*resnet\*'; got 3"),
        (lambda model, vit: kvision.list_models(None), "`pattern` must be a text .*; got None"),
        (lambda model, vit: kvision.list_weights(["*"]), r"`pattern` must be a text .*; got \['\*'\]"),
        (lambda model, vit: kvision.info("x"), "Unknown model 'x'"),
        (lambda model, vit: kvision.weights.save(model, None), "`path` must end with .*; got 'None'"),
        (lambda model, vit: kvision.weights.save(model, 3), "`path` must end with .safetensors; got '3'"),
        (lambda model, vit: kvision.weights.save(None, "a.safetensors"), "`model` must be a `keras.Model`"),
        (lambda model, vit: kvision.weights.load(None, {}), "`model` must be a `keras.Model`; got None"),
        (lambda model, vit: kvision.weights.state_dict(3), "`model` must be a `keras.Model`; got 3"),
        (lambda model, vit: kvision.weights.from_keras(model, None), "`keras_model` must be a `keras.Model`"),
        (lambda model, vit: kvision.weights.load(model, None), "Weights must be a mapping, .*; got .None"),
    ],
)  # fmt: skip
def test_arguments_of_the_wrong_kind_are_refused_in_a_sentence(call, message, two, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        call(*two)
    assert len(str(error.value)) < 1500
    assert not list(tmp_path.iterdir())
