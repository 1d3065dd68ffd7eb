"""One side of a benchmark, in a process of its own: prints its seconds as JSON.

    python sides.py SIDE KIND MODEL IMAGE_SIZE CHANNELS BATCH_SIZE STEPS [DATA]

SIDE is ours, keras, or timm or torchvision, whose interpreter needs neither kvision nor TensorFlow. KIND is
train, forward or data; of data, a step is a batch. In training, `first` counts from the builder's call to the
end of the first step.
"""

import itertools
import json
import statistics
import sys
import time

WARM_UP = 1  # calls after the first
GROUP = 10  # steps in one call
CLASSES = 10


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


def random_batch(size, channels, batch, of_pixels=False):
    """Images and their labels, or with `of_pixels` their masks."""
    import numpy as np

    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (batch, size, size, channels)).astype("float32")
    return images, random.integers(0, CLASSES, images.shape[:3] if of_pixels else batch)


def our_side(kind, model, size, channels, batch, steps, data):
    import keras
    import numpy as np
    import tensorflow as tf

    import kvision.data
    from kvision.tasks import TASKS
    from kvision_tools.loop import Loop
    from kvision_tools.optimizers import make_optimizer

    if kind == "data":
        settings = {"image_size": (size, size), "batch_size": batch, "training": True, "augment": "crop_flip"}
        loaded = kvision.data.load(data, "train", **settings)
        with kvision.data.read_errors([loaded]):
            return measure(taker(iter(loaded.dataset)), steps, GROUP)
    started = time.perf_counter()
    shape = (size, size, channels)
    network = kvision.create_model(model, input_shape=shape, num_classes=CLASSES, classifier_activation=None)
    task = TASKS[kvision.info(model).task](class_names=tuple(map(str, range(CLASSES))))
    examples = random_batch(size, channels, batch, of_pixels=task.target == "mask")
    if kind == "forward":
        return measure(forward_of(network, examples[0]), steps)
    keras.utils.set_random_seed(0)
    optimizer = make_optimizer(
        "sgd", model=network, learning_rate=1e-3, weight_decay=0.0, steps=10_000, warmup_steps=0
    )
    loop = Loop(network, optimizer, tf.distribute.get_strategy(), task)
    batch = dict(zip(("image", task.target), examples, strict=True)) | {"weight": np.ones(batch, "float32")}
    batches = iter(tf.data.Dataset.from_tensors(batch).repeat().prefetch(2))

    def step(count):
        return float(loop.train(batches, tf.constant(count))[0]["loss"])

    step(1)
    first = time.perf_counter() - started
    return first, measure(lambda: step(GROUP), steps, GROUP)[1]


def keras_side(kind, model, size, channels, batch, steps, data):
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
    examples = random_batch(size, channels, batch, of_pixels=len(network.output_shape) == 4)
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


def forward_of(network, images):
    """A function that takes the forward pass of a Keras network in one call."""
    import tensorflow as tf

    forward, images = tf.function(lambda images: network(images, training=False)), tf.constant(images)
    return lambda: forward(images).numpy()


def application_of(model: str):
    """The builder of keras.applications for the same network; None where there is none."""
    import keras

    names = {name.lower(): name for name in dir(keras.applications) if name[0].isupper()}
    name = names.get({"mobilenet_v1": "mobilenet"}.get(model, model.replace("_", "")))
    return getattr(keras.applications, name) if name else None


def timm_side(kind, model, size, channels, batch, steps, data):
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
    return measure_pytorch(network, started, kind, random_batch(size, channels, batch), steps)


def torchvision_side(kind, model, size, channels, batch, steps, data):
    import torch  # pyright: ignore
    import torchvision  # pyright: ignore

    class Logits(torch.nn.Module):
        """Output of its networks, which answer with a dict."""

        def __init__(self):
            super().__init__()
            self.network = torchvision.models.get_model(
                model, weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=False
            )

        def forward(self, images):
            return self.network(images)["out"]

    started = time.perf_counter()
    return measure_pytorch(Logits(), started, kind, random_batch(size, channels, batch, True), steps)


def measure_pytorch(network, started, kind, examples, steps):
    """Times a network of PyTorch, which was begun to be built at `started`."""
    import torch  # pyright: ignore

    network = network.to(memory_format=torch.channels_last)
    images, labels = map(torch.from_numpy, examples)
    images = images.permute(0, 3, 1, 2)  # which is channels last in memory
    if kind == "forward":
        network.eval()

        def forward():
            with torch.inference_mode():
                return network(images)

        return measure(forward, steps)
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9, nesterov=True)

    def step():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()

    step()
    return time.perf_counter() - started, measure(step, steps)[1]


if __name__ == "__main__":
    side, kind, model, *numbers = sys.argv[1:8]
    function = {
        "ours": our_side,
        "keras": keras_side,
        "timm": timm_side,
        "torchvision": torchvision_side,
    }[side]
    first, step = function(kind, model, *map(int, numbers), *(sys.argv[8:] or [None]))
    print(json.dumps({"first": first, "step": step}))
