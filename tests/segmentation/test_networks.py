"""The networks that classify each pixel."""

import inspect
import json
import math
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from golden import formula_image, formula_weights
from helpers import SEGMENTERS, built_without_memory, mostly_slow, randomized, tiny, tiny_segmenter
from tflite import images, operators

import kvision
from kvision import segmentation
from kvision.errors import UserError
from kvision_export.convert import convert

REFERENCE = Path(__file__).parents[1] / "reference"
ENTRIES = json.loads((REFERENCE / "segmentation.json").read_text())
LOGITS = np.load(REFERENCE / "segmentation.npz")
PUBLISHED = {  # trainable parameters with the auxiliary head: torchvision's num_params
    "fcn_resnet50": 35_322_218,
    "fcn_resnet101": 54_314_346,
    "deeplabv3_resnet50": 42_004_074,
    "deeplabv3_mobilenet_v3_large": 11_029_328,
    "lraspp_mobilenet_v3_large": 3_221_538,
}
PAPERS = {"fcn32s": 134_346_581, "fcn16s": 134_357_354, "fcn8s": 134_362_751}  # without the deconvolutions
PIXELS = images(count=2)
MARKED = mostly_slow(SEGMENTERS, "fcn8s")


def trained(model):
    """With scores that are not zero and batch norms that are not the identity."""
    random = np.random.default_rng(1)
    for layer in model.layers:
        if layer.name.startswith("score_"):
            layer.kernel.assign(random.normal(0, 0.5, layer.kernel.shape))
    return randomized(model)


def parameters(model, kinds=object):
    """The number of trainable parameters in a network's layers of some kinds, or in a list of layers."""
    layers = [layer for layer in getattr(model, "layers", model) if isinstance(layer, kinds)]
    return sum(math.prod(v.shape) for layer in layers for v in layer.trainable_variables)


def test_a_name_is_a_builder_and_a_network_of_the_task():
    names = kvision.list_models(task="segmentation")
    functions = {name for name, value in vars(segmentation).items() if inspect.isfunction(value)}
    assert functions == {*names, "convolutionalize"}
    classifiers = kvision.list_models(task="classification")
    assert not {*names} & {*classifiers}
    assert {*names, *classifiers} < {*kvision.list_models()}
    assert kvision.list_models("fcn8", task="segmentation") == ["fcn8s"]
    for name in names:
        builder, row = getattr(segmentation, name), type(kvision.info(name).variant)
        assert (builder.__module__, builder.__name__) == ("kvision.segmentation", name)
        assert f"see `kvision.segmentation.{row.__name__}`" in builder.__doc__
        assert getattr(segmentation, row.__name__) is row
        assert f"{name}: {kvision.info(name).variant.params:,} trainable" in builder.__doc__
    with pytest.raises(UserError, match="Unknown `task` 'segment'. Did you mean 'segmentation'"):
        kvision.list_models(task="segment")


@pytest.mark.parametrize(
    "name", mostly_slow([*PUBLISHED, *PAPERS], "fcn8s", "fcn_resnet50", "lraspp_mobilenet_v3_large")
)
def test_parameters(name):
    info = kvision.info(name)
    auxiliary = {"auxiliary": True} if "auxiliary" in info.variant.columns() else {}
    model = built_without_memory(name, **auxiliary)
    assert model.name == name
    assert model.input_shape == (None, info.variant.input_size, info.variant.input_size, 3)
    for output in keras.tree.flatten(model.output):
        assert output.shape == (*model.input_shape[:3], 21)
    head = [layer for layer in model.layers if layer.name.startswith("aux_classifier")]
    assert bool(head) == bool(auxiliary)
    assert parameters(model) - parameters(head) == info.variant.params
    if name in PAPERS:
        assert parameters(model) - parameters(model, keras.layers.Conv2DTranspose) == PAPERS[name]
    else:
        assert parameters(model) == PUBLISHED[name]


@pytest.mark.parametrize(
    "name",
    mostly_slow(ENTRIES, "lraspp_mobilenet_v3_large"),
)
def test_logits_are_torchvisions(name):
    entry = ENTRIES[name]
    auxiliary = {"auxiliary": True} if f"{name}.aux" in LOGITS else {}
    model = kvision.create_model(name, input_shape=entry["input"], **auxiliary)
    shapes = {key: value.shape for key, value in kvision.weights.state_dict(model).items()}
    assert sorted(shapes) == entry["names"]
    kvision.weights.load(model, formula_weights(shapes, entry["gain"]))
    outputs = model(formula_image(*entry["input"][:2])[None].astype("float32"), training=False)
    outputs = outputs if auxiliary else {"predictions": outputs}
    for key, output in (("out", "predictions"), ("aux", "aux_classifier")):
        if f"{name}.{key}" in LOGITS:
            expected = LOGITS[f"{name}.{key}"].transpose(1, 2, 0)
            error = np.linalg.norm(outputs[output][0, ::8, ::8] - expected) / np.linalg.norm(expected)
            assert error < 2e-5


@pytest.mark.parametrize("name", MARKED)
def test_any_size_saving_and_other_precision(name, tmp_path):
    model = trained(tiny_segmenter(name))
    logits = np.asarray(model(PIXELS))
    assert logits.shape == (2, 64, 64, 3)
    assert logits.std() > 1e-3
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(PIXELS), logits)
    dynamic = tiny_segmenter(
        name,
        input_shape=(None, None, 3),
        classifier_activation="softmax",
        weights=kvision.weights.state_dict(model),
    )
    np.testing.assert_allclose(dynamic(PIXELS), keras.ops.softmax(logits), atol=1e-5)
    assert dynamic(PIXELS[:, :37, :50]).shape == (2, 37, 50, 3)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = tiny_segmenter(name)
    finally:
        keras.config.set_dtype_policy("float32")
    assert [layer.name for layer in mixed.layers if layer.weights] == [
        layer.name for layer in model.layers if layer.weights
    ]
    assert mixed.output.dtype == "float32"


@pytest.mark.parametrize("name", MARKED)
def test_every_weight_has_a_gradient(name):
    keras.utils.set_random_seed(0)
    auxiliary = "auxiliary" in inspect.signature(getattr(segmentation, name)).parameters
    keywords = {"auxiliary": True} if auxiliary else {}
    model = trained(tiny_segmenter(name, dropout_rate=0.0, **keywords))
    labels = np.random.default_rng(0).integers(0, 3, (2, 64, 64))
    with tf.GradientTape() as tape:
        outputs = keras.tree.flatten(model(PIXELS, training=True))
        assert len(outputs) == 1 + auxiliary
        losses = [keras.losses.sparse_categorical_crossentropy(labels, y, True) for y in outputs]
        loss = sum(keras.ops.mean(loss) for loss in losses)
    variables = model.trainable_variables
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        assert np.isfinite(gradient.numpy()).all(), variable.path
        assert gradient.numpy().any(), variable.path


@pytest.mark.parametrize("name", MARKED)
def test_files_have_built_in_operators_and_agree(name):
    model = trained(tiny_segmenter(name, input_shape=(50, 64, 3)))
    content = convert(model)
    assert not {name for name in operators(content) if name.startswith(("Flex", "CUSTOM"))}
    assert not {"SHAPE", "PACK", "GATHER"} & {*operators(content)}
    interpreter = Interpreter(model_content=content)
    runner = interpreter.get_signature_runner()
    pixels = PIXELS[:1, :50]
    (outputs,) = runner(image=pixels).values()
    expected = np.asarray(model(pixels))
    assert np.linalg.norm(outputs - expected) < 1e-4 * np.linalg.norm(expected)


def test_weights_fit_other_classes_and_the_auxiliary_head_may_be_left_out(caplog):
    for name in ("fcn8s", "deeplabv3_resnet50"):
        auxiliary = {"auxiliary": True} if name != "fcn8s" else {}
        weights = kvision.weights.state_dict(trained(tiny_segmenter(name, **auxiliary)))
        model = tiny_segmenter(name, num_classes=5, weights=weights)
        assert model.output_shape[-1] == 5
        fresh = {"score_fr.weight", "upscore8.weight", "classifier.4.weight"}
        for key, value in kvision.weights.state_dict(model).items():
            same = value.shape == weights[key].shape and np.array_equal(value, weights[key])
            assert same or key in fresh or key.startswith(("score_", "upscore", "classifier.4")), key
        assert "keeps its fresh weights" in caplog.text
        bare = tiny_segmenter(name, weights=weights, include_top=False)
        assert bare.output_shape[-1] in (16, 256)
    without_head = {key: value for key, value in weights.items() if not key.startswith("aux_classifier")}
    with pytest.raises(UserError, match="aux_classifier"):
        tiny_segmenter(name, auxiliary=True, weights=without_head)


@pytest.mark.parametrize(
    "name", mostly_slow(["fcn_resnet50", "deeplabv3_mobilenet_v3_large"], "deeplabv3_mobilenet_v3_large")
)
def test_the_backbone_takes_weights_of_the_classifier(name, tmp_path):
    backbone = kvision.info(name).variant.backbone
    padding = {"padding": "symmetric"} if backbone == "mobilenet_v3_large" else {}
    classifier = randomized(tiny(backbone, **padding))
    path = tmp_path / "classifier.safetensors"
    kvision.weights.save(classifier, path)
    preprocess = kvision.info(backbone).variant.preprocess
    model = tiny_segmenter(name, backbone_weights=path, preprocess=preprocess)
    for tap in ("c1", "c2"):  # in front of the dilated stages
        ours, theirs = (kvision.features(m, tap)(PIXELS)[tap] for m in (model, classifier))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_fcn_stands_on_any_backbone_with_taps():
    swin = tiny("swin_tiny", input_shape=(96, 64, 3))
    for backbone, size in ((tiny("resnet18"), (70, 90)), (tiny("alexnet"), (100, 130)), (swin, (90, 60))):
        shape = (*size, 3) if backbone is swin else (None, None, 3)
        model = trained(tiny_segmenter("fcn8s", backbone=backbone, input_shape=shape))
        pixels = images(1, 130)[:, : size[0], : size[1]]
        logits = np.asarray(model(pixels))
        assert logits.shape == (1, *size, 3)
        assert logits.std() > 0
    with pytest.raises(UserError, match="no tap 'c3'. Did you mean 'c4'"):
        segmentation.fcn8s(backbone=tiny("vit_tiny_patch16"), input_shape=(64, 64, 3))
    for name in ("resnet5", "fcn_resnet50"):
        with pytest.raises(UserError, match=f"name, or a model; got '{name}'. Did you mean 'resn"):
            segmentation.fcn8s(backbone=name)
    with pytest.raises(UserError, match="got 50. Valid names: alexnet"):
        segmentation.fcn8s(backbone=50)
    with pytest.raises(UserError, match="need the name of a `backbone`"):
        segmentation.fcn8s(backbone=tiny("resnet18"), backbone_weights="imagenet")
    with pytest.raises(UserError, match="takes 3 channels"):
        segmentation.fcn8s(backbone=tiny("resnet18"), input_shape=(64, 64, 1))
    with pytest.raises(TypeError, match="Valid names: .*backbone_weights.*stride"):
        segmentation.fcn8s(strides=8)


def test_the_skips_of_vgg_are_its_pooled_maps():
    model = tiny_segmenter("fcn8s", backbone=tiny("vgg11", filters=(4, 5, 6, 7, 8)))
    assert model.get_layer("score_pool4").kernel.shape == (1, 1, 7, 3)
    assert model.get_layer("score_pool3").kernel.shape == (1, 1, 6, 3)
    assert model.get_layer("score_pool4").input.shape[1:3] == (4, 4)
    assert model.get_layer("score_pool3").input.shape[1:3] == (8, 8)
    assert model.get_layer("score_fr").input.shape[1:] == (2, 2, 16)


def test_fcn_has_the_features_of_the_network_it_stands_on_and_starts_undecided():
    vgg = tiny("vgg11", input_shape=(224, 224, 3))
    model = tiny_segmenter("fcn32s", backbone=vgg, input_shape=(224, 224, 3))
    pixels = images(1, 224)
    for tap in ("c2", "c5"):
        ours, theirs = (kvision.features(m, tap)(pixels)[tap] for m in (model, vgg))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    hidden = keras.Model(model.input, model.get_layer("pre_logits.fc2.act").output)(pixels)
    theirs = keras.Model(vgg.input, vgg.get_layer("pre_logits.fc2.act").output)(pixels)
    np.testing.assert_allclose(hidden[0, 3, 3], theirs[0, 0, 0], rtol=1e-4, atol=1e-5)
    assert not np.asarray(model(pixels)).any()


@pytest.mark.parametrize("output_stride", mostly_slow([8, 16], 8))
@pytest.mark.parametrize("name", mostly_slow(["resnet18", "resnet50", "mobilenet_v3_large"], "resnet50"))
def test_dilated_networks_keep_their_size_and_weights(name, output_stride):
    model = tiny(name, output_stride=output_stride, include_top=False, input_shape=(64, 96, 3))
    assert model.output_shape[1:3] == (64 // output_stride, 96 // output_stride)
    plain = tiny(name, include_top=False)
    shapes = [
        {key: value.shape for key, value in kvision.weights.state_dict(m).items()} for m in (model, plain)
    ]
    assert shapes[0] == shapes[1]


def test_output_strides_that_no_network_has():
    with pytest.raises(UserError, match="`output_stride` must be 8, 16 or 32; got 4"):
        tiny("resnet18", output_stride=4)


def test_the_momentum_of_a_backbones_batch_norms():
    model = built_without_memory("fcn32s", backbone="mobilenet_v1", norm_momentum=0.5)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {layer.momentum for layer in norms} == {0.5}
    with pytest.raises(ValueError, match="of vgg16, which `backbone` replaces; convnext_atto has none"):
        segmentation.fcn32s(backbone="convnext_atto", norm_momentum=0.5)
    with pytest.raises(ValueError, match="which `backbone` replaces; a model has its own"):
        segmentation.fcn32s(backbone=tiny("resnet18"), norm_momentum=0.5)
