"""Helpers of several test files: tiny networks, and commands as a shell runs them."""

import contextlib
import csv
import dataclasses
import gc
import importlib.metadata
import json
import multiprocessing
import os
import resource
import runpy
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from multiprocessing import connection
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import kvision
from kvision.data.sources.shapes import draw
from kvision.tasks import Classification
from kvision_tools.loop import Loop


def mostly_slow(values, *quick):
    """Parameters of a test; all but the `quick` ones are marked as slow."""
    return [value if value in quick else pytest.param(value, marks=pytest.mark.slow) for value in values]


@contextlib.contextmanager
def memory_within(limit: int):
    """Fails where the process takes more than `limit` bytes beside those that it had, even for a moment.

    tracemalloc beside TensorFlow's threads crashes Python 3.11 now and then (python/cpython#128679).
    """
    unit = 1 if sys.platform == "darwin" else 1024
    if (reset := Path("/proc/self/clear_refs")).exists():
        reset.write_text("5")  # Linux: the peak is what the process has now
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit < limit


TINY = [  # a network with batch norms whose graph is traced in little time
    "--model=resnet18", "--model_kwarg=filters=8", "--model_kwarg=depths=(1,1,1,1)", "--image_size=32",
    "--batch_size=64", "--norm_momentum=0.9", "--learning_rate=0.02",
]  # fmt: skip
NARROW = {"width_multiplier": 0.1}
SMALL = {  # columns of the narrowest and shallowest form of a family's networks
    "mobilenet_v1": NARROW,
    "mobilenet_v2": NARROW,
    "mobilenet_v3": NARROW,
    "mobilenet_v4": NARROW,
    "efficientnet": NARROW | {"depth_multiplier": 0.3},
    "efficientnet_v2": NARROW | {"depth_multiplier": 0.01},
    "googlenet": NARROW,
    "inception_v3": NARROW,
    "xception": NARROW | {"middle_depth": 1},
    "lenet": {},
    "alexnet": {"hidden_filters": 16},
    "vgg_cnn": {"hidden_filters": 16},
    "vgg": {"hidden_filters": 16, "filters": (8,) * 5, "depths": (1,) * 5},
    "resnet": {"filters": 8, "depths": (1,) * 4},
    "densenet": {"growth_rate": 4, "depths": (2,) * 4},
    "vit": {"filters": 16, "depth": 2, "num_heads": 2},
    "vit_hybrid": {"filters": 16, "depth": 2, "num_heads": 2, "stem_filters": 32},
    "deit": {"filters": 16, "depth": 2, "num_heads": 2},
    "swin": {"filters": 8, "depths": (2, 2, 1, 1), "num_heads": (1, 2, 2, 2)},
    "convnext": {"filters": (8, 16, 24, 32), "depths": (1, 1, 2, 1)},
}


def shortened(rows):
    """The rows of a MobileNetV3 with one block for each stage behind the first two."""
    return rows[:2] + tuple(
        stage._replace(depth=1) if hasattr(stage, "block") else stage[:1] for stage in rows[2:]
    )


def small_columns(name):
    """The columns of the small form of a network."""
    info = kvision.info(name)
    columns = dict(SMALL[info.family])
    if info.family in ("alexnet", "vgg_cnn"):
        columns["rows"] = tuple(row._replace(filters=8) for row in info.variant.rows)
    if info.family == "vit_hybrid":
        columns["stem_depths"] = (1,) * len(info.variant.stem_depths)
    if info.family == "mobilenet_v3":
        columns["rows"] = shortened(info.variant.rows)
    if info.family == "mobilenet_v4":  # of each stage one block of a kind
        columns["rows"] = tuple(
            stage
            if hasattr(stage, "block")
            else tuple({row[:2]: row for row in reversed(stage)}.values())[::-1]
            for stage in info.variant.rows
        )
    if getattr(info.variant, "groups", 1) > 1:
        columns |= {"groups": 4, "group_width": 2}
    return columns


def distinct(names):
    """The names whose small forms differ."""
    seen = {}
    for name in names:
        variant = kvision.info(name).variant
        alike = {"params": None, "input_size": 0, "dropout_rate": 0.0, "drop_path_rate": 0.1}
        alike = {key: value for key, value in alike.items() if hasattr(variant, key)}
        row = dataclasses.replace(variant, **small_columns(name) | alike)
        seen.setdefault((kvision.info(name).family, repr(row)), name)
    return list(seen.values())


DISTINCT = distinct(kvision.list_models(task="classification"))
EVERY_BLOCK = (  # of the distinct ones, those that together have every block but Inception's, slow to trace
    "alexnet", "convnext_v2_atto", "deit_base_distilled", "densenet121", "efficientnet_v2_b0", "lenet5",
    "mobilenet_v1", "mobilenet_v3_large", "mobilenet_v4_hybrid_medium", "resnet18", "resnext101_32x4d",
    "swin_v2_base", "vgg11_bn", "vit_small_r26_s32", "xception",
)  # fmt: skip
EACH = mostly_slow(DISTINCT, *EVERY_BLOCK)


def tiny_shape(name):
    """The input shape of the small form of a network: the smallest image of 64 pixels or more."""
    info = kvision.info(name)
    size = max(64, {"inception_v3": 75, "xception": 71, "alexnet": 67}.get(info.family, 0))
    size += -size % getattr(info.variant, "patch_size", 1)
    return size, size, len(info.variant.preprocess.mean)


def tiny(name, /, **keywords):
    """The small form of a network, with three classes."""
    columns = {"input_shape": tiny_shape(name), "num_classes": 3}
    return kvision.create_model(name, **(columns | small_columns(name) | keywords))


SHALLOW = {  # columns of a mobilenet_v3_small of one block, which has all kinds of layers with weights
    "rows": kvision.info("mobilenet_v3_small").variant.rows[::5],
    "head_filters": 16,
    "width_multiplier": 0.1,
    "input_shape": (32, 32, 3),
}
SEGMENTERS = {  # one of each architecture: columns of its small form
    "fcn32s": {},
    "fcn16s": {},
    "fcn8s": {},
    "fcn_resnet50": SMALL["resnet"],
    "deeplabv3_resnet50": SMALL["resnet"] | {"pyramid_filters": 8},
    "deeplabv3_mobilenet_v3_large": small_columns("mobilenet_v3_large") | {"pyramid_filters": 8},
    "lraspp_mobilenet_v3_large": small_columns("mobilenet_v3_large") | {"inner_filters": 8},
}


def tiny_segmenter(name, /, **keywords):
    """The small form of a network of segmentation: three classes, 64 x 64 pixels."""
    columns = {"input_shape": (64, 64, 3), "num_classes": 3} | SEGMENTERS[name]
    if name in ("fcn32s", "fcn16s", "fcn8s") and "backbone" not in keywords:
        columns["backbone"] = tiny("vgg11")
    return kvision.create_model(name, **(columns | keywords))


TINY_YOLOX = {
    "input_shape": (64, 64, 3), "num_classes": 3, "width_multiplier": 0.125, "depth_multiplier": 0.1,
}  # fmt: skip


def tiny_yolox(name, /, **keywords):
    """The small form of a YOLOX: three classes, 64 x 64 pixels."""
    return kvision.create_model(name, **(TINY_YOLOX | keywords))


def built_without_memory(name, /, **keywords):
    """A network whose variables have shapes and no values."""
    with keras.StatelessScope(initialize_variables=False):
        builder = getattr(kvision.models, name, None) or partial(kvision.create_model, name)
        model = builder(**keywords)
    keras.utils.clear_session(free_memory=False)  # else Keras gives them values at the next occasion
    return model


def randomized(model):
    """Batch norms that are not the identity and scales that are not tiny, as in a trained network."""
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = (w.shape for w in layer.get_weights())
            layer.set_weights([
                random.uniform(0.8, 1.2, gamma), random.normal(0, 0.1, beta),
                random.normal(0, 0.1, mean), random.uniform(0.8, 1.2, variance),
            ])  # fmt: skip
        elif (
            isinstance(layer, keras.layers.LayerNormalization | kvision.layers.LayerScale)
            and np.max(layer.gamma) < 0.1
        ):
            layer.gamma.assign(random.uniform(0.5, 1, layer.gamma.shape))
    return model


def equal(a, b):
    """Whether two networks have the same weights."""
    return all(np.array_equal(x, y) for x, y in zip(a.get_weights(), b.get_weights(), strict=True))


def write_images(root, *names):
    """Writes an image of 9 x 9 pixels below each name, with the folders around it; returns the root."""
    for place, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        form = {".jpg": "JPEG"}.get((root / name).suffix.lower(), "PNG")
        Image.fromarray(np.full((9, 9, 3), place, "uint8")).save(root / name, form)
    return root


def pairs(data):
    """The mean pixel and the label of each image of a `kvision.data.Data`."""
    return [(image.mean().round(), label) for batch in data.dataset.as_numpy_iterator()
            for image, label in zip(batch["image"], batch["label"], strict=True)]  # fmt: skip


def examples(images, labels):
    """A dataset of examples as the training step takes them in batches."""
    batch = {"image": images, "label": labels, "weight": np.ones(len(labels), "float32")}
    return tf.data.Dataset.from_tensor_slices(batch)


def make_loop(model, optimizer, strategy=None, label_smoothing=0.0, **keywords):
    """A `Loop` of a classifier."""
    class_names = tuple(map(str, range(4)))
    task = Classification(class_names=class_names, label_smoothing=label_smoothing)
    return Loop(model, optimizer, strategy or tf.distribute.get_strategy(), task, **keywords)


def dark_and_light(root):
    """Writes a folder of two classes that are easy to tell apart, 40 images each."""
    random = np.random.default_rng(0)
    for label, name in enumerate(("dark", "light")):
        (root / name).mkdir(parents=True)
        for i in range(40):
            image = random.integers(150 * label, 150 * label + 100, (40, 36, 3)).astype("uint8")
            Image.fromarray(image).save(root / name / f"{i}.png")
    return root


SHAPES = ("circle", "square", "triangle")


def coco_of_shapes(root, count=40):
    """Shapes on pictures that are wider than high, as COCO's annotations have them; returns the folder."""
    (root / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(count):
        picture = draw(5, number)
        Image.fromarray(np.pad(picture.image, ((0, 0), (0, 32), (0, 0)))).save(root / f"images/{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 128, "height": 96})
        for label, top, left, bottom, right in picture.shapes:
            box = [left, top, right - left, bottom - top]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": 10 * label, "bbox": box,
                 "area": box[2] * box[3], "iscrowd": 0}
            )  # fmt: skip
    categories = [{"id": 10 * (place + 1), "name": name} for place, name in enumerate(SHAPES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations.json").write_text(json.dumps(content))
    return root


def renamed(source, target, names):
    """Copies a dataset's class folders, in their order, to a folder where they have other names."""
    folders = sorted(source.iterdir())
    for i, name in enumerate(names):
        shutil.copytree(folders[i % len(folders)], target / name)
    return target


def brightness(folder, *class_names, scale=1 / 255):
    """Writes a run folder of a network that tells two classes, dark and light, apart."""
    folder.mkdir(parents=True)
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(scale)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(x), name="brightness")
    model.layers[-1].set_weights([np.array([[-20, 20]] * 3, "float32"), np.array([30, -30], "float32")])
    model.save(folder / "model.keras")
    (folder / "labels.txt").write_text("\n".join(class_names) + "\n")
    (folder / "flags.txt").write_text("--model=mobilenet_v1\n")
    return folder


def rows(run):
    """The epochs in a run's metrics.csv."""
    with open(run / "metrics.csv") as file:
        return list(csv.DictReader(file))


COMMANDS = multiprocessing.get_context("forkserver")  # so that each need not import TensorFlow anew
COMMANDS.set_forkserver_preload(
    ["as_command", "kvision.opening", "kvision_tools.loop", "kvision_export.quantize"]
)


def start(*arguments, texts=(os.devnull, os.devnull), asking=None):
    """Starts a command, whose output goes to two files; returns the process.

    With a connection, it asks there for a process to convert files in, and has no new interpreter begin.
    """
    process = COMMANDS.Process(
        target=_run, args=(list(map(str, arguments)), os.getcwd(), dict(os.environ), texts, asking)
    )
    process.start()
    return process


def completed(arguments, **_):
    """Runs a command, or a module as `python -m` does, as `subprocess.run`."""
    with tempfile.TemporaryDirectory() as folder:
        texts = [Path(folder) / name for name in ("stdout", "stderr")]
        asked, asking = COMMANDS.Pipe()
        process = start(*arguments, texts=texts, asking=asking)
        while asked in connection.wait([asked, process.sentinel]):
            asked.send(completed(asked.recv()))
        process.join()
        return subprocess.CompletedProcess(arguments, process.exitcode, *(path.read_text() for path in texts))


def command(*arguments, code=0):
    """Runs a command; returns what it printed, or the one sentence on which it ended."""
    ended = completed(arguments)
    printed, errors = ended.stdout, ended.stderr
    assert ended.returncode == code, printed + errors
    if code == 2:
        assert "Traceback" not in errors
        lines = [line for line in errors.splitlines() if line.startswith("kvision-")]
        assert len(lines) == 1, errors
        return lines[0]
    return printed + errors


def run_python(code):
    """Runs Python code in a process where TensorFlow is imported, and has not begun."""
    process = COMMANDS.Process(target=exec, args=(code, {"__name__": "__main__"}))
    process.start()
    process.join()
    assert process.exitcode == 0


def _run(arguments, folder, environment, texts, asking):
    gc.freeze()
    run = subprocess.run

    def asks(command, **keywords):
        if not asking or command[1:3] != ["-m", "kvision_export.convert"]:
            return run(command, **keywords)
        asking.send(command)
        return asking.recv()

    subprocess.run = asks
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, path in enumerate(texts, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    if arguments[:2] == [sys.executable, "-m"]:
        sys.argv = arguments[2:]
        runpy.run_module(sys.argv[0], run_name="__main__")
        sys.exit()
    sys.argv = arguments
    (script,) = importlib.metadata.entry_points(group="console_scripts", name=arguments[0])
    sys.exit(script.load()())
