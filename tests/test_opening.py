"""Opening runs, files and names, and giving them data."""

import errno
import json
import os
import shutil
import tempfile

import keras
import numpy as np
import pytest
import safetensors.numpy
from helpers import brightness, dark_and_light, renamed
from PIL import Image

import kvision
from kvision import labels, network_data, opening, run_info
from kvision.data.sources import open_source
from kvision.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return dark_and_light(tmp_path_factory.mktemp("images"))


@pytest.fixture
def run(tmp_path):
    """A run folder of a network that tells dark from light."""
    return brightness(tmp_path / "run", "dark", "light")


def accuracy(opened, data, **keywords):
    loaded = network_data.load_data(opened, f"folder:{data}", "val", val_fraction=0.25, **keywords)
    right = [
        np.argmax(opened.model(batch["image"]), -1) == batch["label"]
        for batch in loaded.dataset.as_numpy_iterator()
    ]
    return np.mean(np.concatenate(right))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("dark", "light"), ""),
        (("dark", "Light"), ""),  # sorted before dark
        (("dark",), "lacks 1 of the network's 2 classes: 'light'"),
        (("0", "1"), "numbered: output 0 ('dark') is '0', output 1 ('light') is '1'."),
    ],
)
def test_a_dataset_with_the_same_classes_in_another_order(names, words, run, folder, tmp_path, capsys):
    data = renamed(folder, tmp_path / "data", names)
    assert accuracy(opening.open_model(str(run)), data) == 1
    said = capsys.readouterr().err
    assert words in said
    assert bool(said) == bool(words)


@pytest.mark.parametrize("names", [("dim", "bright"), ("dark", "light", "dark2")])
def test_a_dataset_of_other_classes_is_refused(names, run, folder, tmp_path):
    data = renamed(folder, tmp_path / "data", names)
    with pytest.raises(UserError, match=f"{names[-1]}.*'dark', 'light'"):
        accuracy(opening.open_model(str(run)), data)


def trained_on(run, data):
    """Makes a run folder say that it was trained on a folder of images, which has splits or is divided."""
    identities = {split: open_source(f"folder:{data}", split, 3).identity for split in ("train", "val")}
    (run / run_info.DATASET).write_text(json.dumps({key: one.to_json() for key, one in identities.items()}))
    with open(run / "flags.txt", "a") as flags:
        flags.write(f"--data=folder:{data}\n")


def test_a_run_says_which_of_its_held_out_images_changed(run, folder, tmp_path, capsys):
    data = tmp_path / "data"
    for split in ("train", "val"):
        shutil.copytree(folder, data / split)
    trained_on(run, data)
    for split, words in (("train", ""), ("val", "of what it holds out, class 'dark' has 39 images instead")):
        (data / split / "dark/0.png").unlink()
        network_data.load_data(opening.open_model(str(run)), None, "val")
        said = capsys.readouterr().err
        assert words in said
        assert bool(said) == bool(words)


def test_images_that_were_divided_are_not_held_out_once_they_change(run, folder, tmp_path):
    """Under another name of the folder, and where it was given splits since."""
    data, link = tmp_path / "data", tmp_path / "link"
    shutil.copytree(folder, data)
    link.symlink_to(data)
    trained_on(run, data)
    opened = opening.open_model(str(run))
    network_data.load_data(opened, f"folder:{link}", "val")
    (data / "dark/0.png").unlink()
    for path in (data, link, f"{data}/../link/"):
        with pytest.raises(UserError, match="images of the training may be among those that are held out"):
            network_data.load_data(opened, f"folder:{path}", "val")
    for split in ("train", "val"):
        shutil.copytree(folder, data / split)
    for name in ("dark", "light"):
        shutil.rmtree(data / name)
    with pytest.raises(UserError, match="class 'dark' has 40 images instead of 3"):
        network_data.load_data(opened, None, "val")


def test_names_come_from_the_run_the_file_or_the_flag(run, tmp_path):
    path = str(run / "model.keras")
    assert opening.open_model(path).class_names == ("0", "1")
    labels.add_to_keras(path, ("dark", "light"))
    for source in (path, str(run)):
        assert opening.open_model(source).class_names == ("dark", "light")
        assert opening.open_model(source, class_names=("a", "b")).class_names == ("a", "b")
        opened = opening.open_model(source, class_names=())
        assert (opened.class_names, opened.named) == (("0", "1"), False)
        with pytest.raises(UserError, match="has 2 classes; got 3 names: 'a', 'b', 'c'"):
            opening.open_model(source, class_names=("a", "b", "c"))
    (run / "labels.txt").write_text("light\ndark\n")
    with pytest.raises(
        UserError, match="other class names than model.keras: 'light', 'dark' instead of 'dark'"
    ):
        opening.open_model(str(run))


def test_a_file_of_1000_classes_is_not_imagenet(tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Dense(1000)(keras.layers.GlobalAveragePooling2D()(inputs))
    keras.Model(inputs, x).save(tmp_path / "model.keras")
    assert opening.open_model(str(tmp_path / "model.keras")).class_names == labels.numbers(1000)
    assert opening.open_model("lenet5").class_names == labels.numbers(10)


def test_the_file_of_a_run_is_opened_as_the_run(run):
    settings = run_info.RunInfo(model="mobilenet_v1", data="digits", crop=0.9)
    (run / run_info.RUN).write_text(settings.to_json())
    of_file, of_run = (opening.open_model(str(path)) for path in (run / run_info.MODEL, run))
    assert of_file.run == of_run.run == settings
    assert (of_file.crop, of_file.class_names) == (0.9, ("dark", "light"))


@pytest.mark.parametrize(("line", "task"), [("", "classification"), ("--task=multilabel\n", "multilabel")])
def test_the_flags_of_a_run_without_run_json_say_what_it_learned(line, task, run):
    with open(run / "flags.txt", "a") as flags:
        flags.write(line)
    assert opening.open_model(str(run)).task.name == task


def test_weights_of_nan_are_refused(run):
    model = keras.saving.load_model(run / "model.keras")
    model.layers[-1].bias.assign([0, np.nan])
    model.save(run / "model.keras")
    with pytest.raises(UserError, match="NaN or infinity.*bias"):
        opening.open_model(str(run))


def test_a_full_disk_is_not_a_damaged_file(run, monkeypatch):
    """Keras unpacks a file in the folder of temporary ones."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(keras.saving, "load_model", full)
    with pytest.raises(OSError, match="No space left") as error:
        opening.open_model(str(run))
    assert error.value.filename == tempfile.gettempdir()


def doubled(x):
    return 2 * x


class Doubling(keras.layers.Layer):
    call = staticmethod(doubled)


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (Doubling(), "'Doubling' in it belongs to neither Keras nor kvision"),
        (keras.layers.Dense(2, activation=doubled), "'doubled' in it belongs to neither Keras nor kvision"),
        (keras.layers.Lambda(lambda x: 2 * x), "`Lambda` layer (whose `function` )?is a Python lambda[.]$"),
    ],
    ids=str,
)
def test_what_keras_does_not_know_is_named(layer, says, tmp_path):
    keras.Sequential([keras.Input((2,)), layer]).save(tmp_path / "model.keras")
    with pytest.raises(UserError, match=f"^Failed to read the model .*: .{{,70}}{says}"):
        opening.open_model(str(tmp_path / "model.keras"))


@pytest.mark.parametrize("size", [None, 64])
def test_grey_networks_have_any_image_size(size):
    opened = opening.open_model("lenet5", image_size=size)
    assert opened.model.input_shape == (None, size or 32, size or 32, 1)


@pytest.mark.parametrize("weights", ["imagenet", "a.keras"])
def test_the_crop_is_that_of_the_row_that_has_the_columns(weights):
    """timm's mobilenetv1_100.ra4_e3600_r224_in1k is evaluated with crop 0.95 at 256 pixels, bicubic."""
    columns = {"padding": "symmetric", "norm_epsilon": 1e-5, "unknown": 1}
    assert opening.evaluation("mobilenet_v1", weights, 256, columns) == (0.95, "bicubic")
    assert opening.evaluation("mobilenet_v1", weights, 224, columns) == (0.875, "bicubic")
    for others in (None, {"padding": "symmetric"}):  # no row has these
        assert opening.evaluation("mobilenet_v1", weights, 224, others) == (0.875, "bilinear")
    assert opening.evaluation("mobilenet_v1", None, 224, columns) == (1.0, "bilinear")


def saved(folder, kind, **keywords):
    """A lenet5 and a file of its weights."""
    model = kvision.create_model("lenet5", **keywords)
    path = folder / f"weights{kind}"
    if kind == ".weights.h5":
        model.save_weights(path)
    elif kind == ".keras":
        model.save(path)
        labels.add_to_keras(path, "abc")
    else:
        kvision.weights.save(model, path)
    return model, str(path)


PIXELS = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 1)).astype("float32")


@pytest.mark.parametrize("kind", [".safetensors", ".weights.h5", ".keras"])
def test_the_number_of_classes_is_the_files(kind, tmp_path):
    model, path = saved(tmp_path, kind, num_classes=3)
    opened = opening.open_model("lenet5", path)
    np.testing.assert_allclose(opened.model(PIXELS), model(PIXELS), atol=1e-6)
    assert opened.class_names == (tuple("abc") if kind == ".keras" else ("0", "1", "2"))


def test_a_file_says_what_its_network_learned(tmp_path):
    model = kvision.create_model("lenet5", num_classes=3, classifier_activation=None)
    model.save(tmp_path / "tags.keras")
    labels.add_to_keras(tmp_path / "tags.keras", "abc", "multilabel")
    for arguments in ((str(tmp_path / "tags.keras"),), ("lenet5", str(tmp_path / "tags.keras"))):
        opened = opening.open_model(*arguments)
        assert (opened.task.name, opened.class_names) == ("multilabel", tuple("abc"))
        np.testing.assert_allclose(opened.model(PIXELS), keras.ops.sigmoid(model(PIXELS)), atol=1e-6)


@pytest.mark.parametrize("spoil", ["missing", "bias alone", "other inputs"])
def test_a_fresh_head_is_never_used(spoil, tmp_path):
    model = kvision.create_model("lenet5", num_classes=3)
    tensors = kvision.weights.state_dict(model)
    if spoil == "missing":
        tensors = {name: value for name, value in tensors.items() if "classifier" not in name}
    elif spoil == "bias alone":
        tensors["classifier.bias"] = np.zeros(4, np.float32)
    else:
        tensors["classifier.weight"] = tensors["classifier.weight"][:, :-1]

    safetensors.numpy.save_file(
        {k: np.ascontiguousarray(v) for k, v in tensors.items()}, tmp_path / "x.safetensors"
    )
    with pytest.raises(UserError, match="has no weights for the classifier|1 misshapen"):
        opening.open_model("lenet5", str(tmp_path / "x.safetensors"))


def test_images_without_masks_are_seen_whole_by_a_network_that_classifies_pixels(tmp_path):
    """As those with masks are."""
    image = np.zeros((30, 90, 3), "uint8")
    image[:, :5] = 255  # which the centre lacks
    (tmp_path / "images").mkdir()
    Image.fromarray(image).save(tmp_path / "images" / "wide.png")
    inputs = keras.Input((32, 32, 3))
    outputs = keras.layers.Conv2D(2, 1, activation="softmax")(inputs)
    keras.Model(inputs, outputs, name="pixels").save(tmp_path / "pixels.keras")
    opened = opening.open_model(str(tmp_path / "pixels.keras"))
    data = network_data.load_data(opened, f"folder:{tmp_path}/images", "all", val_fraction=0.5, labeled=False)
    [batch] = data.dataset.as_numpy_iterator()
    assert batch["image"][0, 16, 0, 0] > 254
    assert batch["image"][0, 0, 0, 0] == 127.5


def test_published_weights_bring_the_names_of_what_they_learned():
    """COCO's ids from 1 on, its 80 classes, VOC's with the background, ImageNet's."""
    ids = opening._names_of("tv_coco", "ssdlite320_mobilenet_v3_large")
    assert [len(ids), ids[0], ids[17 - 1], ids[44 - 1], ids[90 - 1]] == [
        90,
        "person",
        "cat",
        "bottle",
        "toothbrush",
    ]
    assert ids.count("N/A") == 10
    classes = opening._names_of("megvii_coco", "yolox_nano")
    assert [len(classes), classes[0], classes[15], classes[79]] == [80, "person", "cat", "toothbrush"]
    places, remark = labels.match(ids, classes, named=True)
    assert [ids[place] for place in places] == [*classes]
    assert "lacks 10 of the network's 90 classes: 'N/A'" in remark
    pixels = opening._names_of("tv_coco_voc", "fcn_resnet50")
    assert [len(pixels), pixels[0], pixels[15]] == [21, "background", "person"]
    assert opening._names_of("a1_in1k", "resnet50") == labels.imagenet()
    assert opening._names_of("augreg_in21k", "vit_base_patch16") is None
