"""A library's turn in a benchmark, in a process of its own: prints its seconds as JSON.

    python turn.py LIBRARY KIND MODEL IMAGE_SIZE CHANNELS BATCH_SIZE STEPS [DATA]

LIBRARY is kvision, keras, timm, torchvision or yolox; the interpreter of the last three needs neither kvision
nor TensorFlow.
KIND is train, forward or data; of data, a step is a batch. In training, `first` counts from the call of the
builder to the end of the first step.
"""

import itertools
import json
import statistics
import sys
import time

WARM_UP = 1  # calls after the first
GROUP = 10  # steps in one call
CLASSES = 10
OBJECTS = 8  # in each image of a detector


def measure(step, steps, group=1):
    """Seconds of the first call, and the median of later ones, of a function that takes `group` steps."""
    started = time.perf_counter()
    step()
    first, times = time.perf_counter() - started, []
    for _ in range(WARM_UP + max(1, steps // group)):
        started = time.perf_counter()
        step()
        times.append((time.perf_counter() - started) / group)
    return first, statistics.median(times[WARM_UP:])


def taker(batches):
    """A function that takes a group of batches, of which those made ahead would hide the others."""
    return lambda: [next(batches) for _ in range(GROUP)]


def random_batch(size, channels, batch, target="label"):
    """Images and their targets, as `kvision.tasks` has them in a batch."""
    import numpy as np

    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (batch, size, size, channels)).astype("float32")
    shape = {"label": (batch,), "mask": images.shape[:3], "boxes": (batch, OBJECTS)}[target]
    classes = random.integers(0, CLASSES, shape)
    if target != "boxes":
        return {"image": images, target: classes}
    boxes = random_boxes(size, *shape)
    return {"image": images, "boxes": boxes, "classes": classes, "crowd": np.zeros(shape)}


def random_boxes(size, batch, count):
    """Boxes in images, float32 `(batch, count, 4)`, of sides from an eighth of the image to half of it."""
    import numpy as np

    random = np.random.default_rng(1)
    corners = random.uniform(0, size / 2, (batch, count, 2))
    sides = random.uniform(size / 8, size / 2, corners.shape)
    return np.concatenate([corners, corners + sides], -1).astype("float32")


def kvision_turn(kind, model, size, channels, batch, steps, data):
    import keras
    import numpy as np
    import tensorflow as tf

    import kvision.data
    from kvision.networks import proposals_of
    from kvision.tasks import TASKS
    from kvision_tools.loop import Loop
    from kvision_tools.optimizers import make_optimizer

    if kind == "data":
        settings = {"image_size": (size, size), "batch_size": batch, "training": True, "augment": "crop_flip"}
        loaded = kvision.data.load(data, "train", **settings)
        with kvision.data.read_errors([loaded]):
            return measure(taker(iter(loaded.dataset)), steps, GROUP)
    started = time.perf_counter()
    task = TASKS[kvision.info(model).task](class_names=tuple(map(str, range(CLASSES))))
    shape = (size, size, channels)
    network = kvision.create_model(model, input_shape=shape, num_classes=CLASSES, **task.building)
    examples = random_batch(size, channels, batch, task.target) | {"weight": np.ones(batch, "float32")}
    if proposals := proposals_of(network):
        examples["proposals"] = random_boxes(size, batch, proposals)
    if kind == "forward":
        return measure(forward_of(network, task.served(examples)), steps)
    keras.utils.set_random_seed(0)
    optimizer = make_optimizer(
        "sgd", model=network, learning_rate=1e-3, weight_decay=0.0, steps=10_000, warmup_steps=0
    )
    loop = Loop(network, optimizer, tf.distribute.get_strategy(), task)
    batches = iter(tf.data.Dataset.from_tensors(examples).repeat().prefetch(2))

    def step(count):
        return float(loop.train(batches, tf.constant(count))[0]["loss"])

    step(1)
    first = time.perf_counter() - started
    return first, measure(lambda: step(GROUP), steps, GROUP)[1]


def keras_turn(kind, model, size, channels, batch, steps, data):
    import keras
    import tensorflow as tf

    if kind == "data":
        folder = data.removeprefix("folder:")
        images = keras.utils.image_dataset_from_directory(
            folder, image_size=(256 * size // 224, 256 * size // 224), batch_size=batch, verbose=False
        )
        augment = keras.Sequential(
            [keras.layers.RandomCrop(size, size), keras.layers.RandomFlip("horizontal")]
        )
        images = images.repeat().map(lambda x, y: (augment(x, training=True), y), tf.data.AUTOTUNE)
        return measure(taker(iter(images.prefetch(tf.data.AUTOTUNE))), steps, GROUP)
    started = time.perf_counter()
    shape = (size, size, channels)
    application = application_of(model)
    if application:
        network = application(weights=None, input_shape=shape, classes=CLASSES, classifier_activation=None)
    else:
        import kvision

        network = kvision.create_model(
            model, input_shape=shape, num_classes=CLASSES, classifier_activation=None
        )
    examples = random_batch(size, channels, batch, "mask" if len(network.output_shape) == 4 else "label")
    examples = tuple(examples.values())
    if kind == "forward":
        return measure(forward_of(network, examples[0]), steps)
    network.compile(
        keras.optimizers.SGD(1e-3, momentum=0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    batches = tf.data.Dataset.from_tensors(examples).repeat().prefetch(2)
    network.fit(batches, steps_per_epoch=1, epochs=1, verbose=0)
    first, times = time.perf_counter() - started, []

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            times.append(time.perf_counter())

    epochs = WARM_UP + max(1, steps // GROUP) + 1
    network.fit(batches, steps_per_epoch=GROUP, epochs=epochs, verbose=0, callbacks=[Clock()])
    groups = [(after - before) / GROUP for before, after in itertools.pairwise(times)]
    return first, statistics.median(groups[WARM_UP:])


def forward_of(network, inputs):
    """A function that takes the forward pass of a Keras network in one call."""
    import tensorflow as tf

    forward = tf.function(lambda inputs: network(inputs, training=False))
    inputs = tf.nest.map_structure(tf.constant, inputs)
    return lambda: tf.nest.map_structure(lambda output: output.numpy(), forward(inputs))


def application_of(model: str):
    """The builder of keras.applications for the same network; None where there is none."""
    import keras

    names = {name.lower(): name for name in dir(keras.applications) if name[0].isupper()}
    name = names.get({"mobilenet_v1": "mobilenet"}.get(model, model.replace("_", "")))
    return getattr(keras.applications, name) if name else None


def timm_turn(kind, model, size, channels, batch, steps, data):
    if kind == "data":
        from timm.data import create_dataset, create_loader  # pyright: ignore

        images = create_dataset("", root=data.removeprefix("folder:"))
        loader = create_loader(
            images, (3, size, size), batch, is_training=True, use_prefetcher=False, num_workers=2
        )

        def endless():
            while True:
                yield from loader

        return measure(taker(endless()), steps, GROUP)
    import timm  # pyright: ignore

    started = time.perf_counter()
    sized = {"img_size": size} if timm.get_pretrained_cfg(model).fixed_input_size else {}
    network = timm.create_model(model, num_classes=CLASSES, in_chans=channels, **sized)
    images, labels = in_pytorch(random_batch(size, channels, batch))
    clock = {"network": network, "started": started, "kind": kind, "steps": steps}
    return measure_pytorch(lambda: network(images), lambda: cross_entropy(network(images), labels), **clock)


def torchvision_turn(kind, model, size, channels, batch, steps, data):
    import torchvision  # pyright: ignore

    if model.startswith("ssdlite320") and size != 320:
        sys.exit(f"torchvision's {model} resizes images to 320x320: give --image_size=320.")
    started = time.perf_counter()
    detects = hasattr(torchvision.models.detection, model)
    columns = {"num_classes": CLASSES + 1} if detects else {"num_classes": CLASSES, "aux_loss": False}
    if model.startswith("fasterrcnn"):
        columns |= {"min_size": size, "max_size": size}
    network = torchvision.models.get_model(model, weights=None, weights_backbone=None, **columns)
    clock = {"network": network, "started": started, "kind": kind, "steps": steps}
    if not detects:
        images, masks = in_pytorch(random_batch(size, channels, batch, "mask"))

        def logits():
            return network(images)["out"]

        return measure_pytorch(logits, lambda: cross_entropy(logits(), masks), **clock)
    images, boxes, classes, _ = in_pytorch(random_batch(size, channels, batch, "boxes"))
    images = [*(images / 255)]
    targets = [{"boxes": boxes[i], "labels": classes[i] + 1} for i in range(batch)]  # 0 is the background
    return measure_pytorch(lambda: network(images), lambda: sum(network(images, targets).values()), **clock)


def yolox_turn(kind, model, size, channels, batch, steps, data):
    import torch  # pyright: ignore
    from yolox.exp import get_exp  # pyright: ignore
    from yolox.utils import postprocess  # pyright: ignore

    started = time.perf_counter()
    experiment = get_exp(None, model.replace("_", "-"))
    experiment.num_classes = CLASSES
    network = experiment.get_model()
    images, boxes, classes, _ = in_pytorch(random_batch(size, channels, batch, "boxes"))
    first, last = boxes.split(2, -1)
    targets = torch.cat([classes[..., None], (first + last) / 2, last - first], -1)
    return measure_pytorch(
        lambda: postprocess(network(images), CLASSES, experiment.test_conf, experiment.nmsthre),
        lambda: network(images, targets)["total_loss"],
        network=network,
        started=started,
        kind=kind,
        steps=steps,
    )


def in_pytorch(batch):
    """The arrays of a batch as tensors; images are channels last in memory."""
    import torch  # pyright: ignore

    images, *targets = map(torch.from_numpy, batch.values())
    return images.permute(0, 3, 1, 2), *targets


def cross_entropy(logits, labels):
    """The loss of classes."""
    import torch  # pyright: ignore

    return torch.nn.functional.cross_entropy(logits, labels)


def measure_pytorch(answer, loss, *, network, started, kind, steps):
    """Times the answer of a network of PyTorch, whose building began at `started`, or a step on its loss."""
    import torch  # pyright: ignore

    network.to(memory_format=torch.channels_last)
    if kind == "forward":
        network.eval()
        with torch.inference_mode():
            return measure(answer, steps)
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9, nesterov=True)

    def step():
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    step()
    return time.perf_counter() - started, measure(step, steps)[1]


TURNS = {
    "kvision": kvision_turn,
    "keras": keras_turn,
    "timm": timm_turn,
    "torchvision": torchvision_turn,
    "yolox": yolox_turn,
}

if __name__ == "__main__":
    library, kind, model, *numbers = sys.argv[1:8]
    first, step = TURNS[library](kind, model, *map(int, numbers), *(sys.argv[8:] or [None]))
    print(json.dumps({"first": first, "step": step}))
