"""Training steps by Keras' `fit` on JAX, beside timm and torchvision on PyTorch, in bfloat16 on one GPU.

    KERAS_BACKEND=jax python tools/benchmarks/jax_steps.py [MODEL ...]

kvision needs no TensorFlow for it. Both take turns in one process, on batches that lie on the GPU.
PyTorch runs eagerly, with its channels last and cuDNN's choice of kernels. Prints medians, and the fastest
and slowest turns. Without a GPU the same steps run on the processor.
"""

import os
import statistics
import sys
import time

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leave memory to PyTorch

import jax
import keras
import numpy as np
import torch  # pyright: ignore

import kvision

STEPS, TURNS = 20, 3
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SETTINGS = {  # batch size, image size, classes
    "resnet50": (128, 224, 1000),
    "efficientnet_b0": (128, 224, 1000),
    "mobilenet_v2": (128, 224, 1000),
    "vit_small_patch16": (128, 224, 1000),
    "lraspp_mobilenet_v3_large": (8, 256, 21),
    "fcn_resnet50": (2, 256, 21),
}
TIMM = {"mobilenet_v2": "mobilenetv2_100", "vit_small_patch16": "vit_small_patch16_224"}


class Repeated(keras.utils.PyDataset):
    """The same batch in each step."""

    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def __len__(self):
        return STEPS

    def __getitem__(self, _):
        return self.batch


def ours(name, images, targets, classes):
    """A function that takes the steps."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = kvision.create_model(
        name, input_shape=images.shape[1:], num_classes=classes, classifier_activation=None
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
    batches = Repeated((jax.device_put(images), jax.device_put(targets)))

    def steps():
        model.fit(batches, verbose=0)
        jax.block_until_ready(model.trainable_variables[0].value)

    return steps


def theirs(name, images, targets, classes):
    """The same of the peer."""
    if targets.ndim > 1:
        from torchvision.models import segmentation  # pyright: ignore

        build = getattr(segmentation, name)
        network = build(weights=None, weights_backbone=None, num_classes=classes)
    else:
        import timm  # pyright: ignore

        network = timm.create_model(TIMM.get(name, name), num_classes=classes)
    torch.backends.cudnn.benchmark = True
    network = network.to(DEVICE, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9)
    pixels = torch.from_numpy(images / 255).permute(0, 3, 1, 2).to(DEVICE, memory_format=torch.channels_last)
    labels = torch.from_numpy(targets).to(DEVICE)

    def steps():
        for _ in range(STEPS):
            with torch.autocast(DEVICE, torch.bfloat16):
                outputs = network(pixels)
                outputs = outputs["out"] if targets.ndim > 1 else outputs
                loss = torch.nn.functional.cross_entropy(outputs, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss.item()  # waits for the GPU

    return steps


def milliseconds(steps) -> float:
    """The time of one step."""
    started = time.perf_counter()
    steps()
    return 1000 * (time.perf_counter() - started) / STEPS


def main(names):
    print(
        jax.devices()[0].device_kind,
        f"jax {jax.__version__}, keras {keras.__version__}, torch {torch.__version__}",
    )
    for name in names or SETTINGS:
        batch_size, size, classes = SETTINGS[name]
        random = np.random.default_rng(0)
        images = random.uniform(0, 255, (batch_size, size, size, 3)).astype("float32")
        of_pixels = kvision.info(name).task == "segmentation"
        targets = random.integers(0, classes, images.shape[:3] if of_pixels else batch_size)
        both = [make(name, images, targets, classes) for make in (ours, theirs)]
        for steps in both:
            steps()
        times = [[milliseconds(steps) for steps in both] for _ in range(TURNS)]
        kvision_ms, peer_ms = map(statistics.median, zip(*times, strict=True))
        spread = ", ".join(f"{min(turns):.1f} to {max(turns):.1f}" for turns in zip(*times, strict=True))
        print(
            f"{name}, {batch_size} of {size}x{size}: kvision {kvision_ms:.1f} ms, peer {peer_ms:.1f} ms, "
            f"{peer_ms / kvision_ms:.2f} times as fast ({spread})",
            flush=True,
        )
        jax.clear_caches()


if __name__ == "__main__":
    main(sys.argv[1:])
