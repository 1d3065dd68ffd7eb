"""Forward pass and training step of transformers on this machine's CPU, beside timm on PyTorch.

    python tools/benchmarks/transformers.py [PYTHON]

PYTHON is an interpreter that has timm, this one by default. The two take turns, each in processes of
its own; a figure is the least median of three turns.
"""

import json
import statistics
import subprocess
import sys
import time

NETWORKS = {  # ours: timm's, images in a batch
    "vit_small_patch16": ("vit_small_patch16_224", 8),
    "swin_tiny": ("swin_tiny_patch4_window7_224", 4),
}


def median(function, repeats=7) -> float:
    """Seconds of a call, after two to warm up."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def ours(name, batch):
    import keras
    import numpy as np
    import tensorflow as tf

    import kvision

    model = kvision.create_model(name, classifier_activation=None)
    optimizer = keras.optimizers.SGD(1e-3)
    optimizer.build(model.trainable_variables)
    images = tf.constant(np.random.default_rng(0).uniform(0, 255, (batch, 224, 224, 3)), tf.float32)
    labels = tf.zeros(batch, tf.int32)
    forward = tf.function(lambda x: model(x, training=False))

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(
                keras.losses.sparse_categorical_crossentropy(y, model(x, training=True), from_logits=True)
            )
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    return median(lambda: forward(images).numpy()), median(lambda: step(images, labels).numpy())


def theirs(name, batch):
    import timm  # pyright: ignore
    import torch  # pyright: ignore

    model = timm.create_model(name)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    images, labels = torch.rand(batch, 3, 224, 224), torch.zeros(batch, dtype=torch.long)

    def forward():
        model.eval()
        with torch.no_grad():
            model(images)

    def step():
        model.train()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return median(forward), median(step)


def turn(python, library, name, batch):
    command = [python, __file__, library, name, str(batch)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return json.loads(output.stdout.splitlines()[-1])


def main(python):
    import rich.console
    import rich.table

    table = rich.table.Table("network", "", "kvision s", "timm s", "timm / kvision")
    for name, (peer, batch) in NETWORKS.items():
        turns = [
            (turn(sys.executable, "kvision", name, batch), turn(python, "timm", peer, batch))
            for _ in range(3)
        ]
        for i, what in enumerate(("forward", "training step")):
            our, their = (min(pair[place][i] for pair in turns) for place in (0, 1))
            table.add_row(name, f"{what}, {batch} images", f"{our:.3f}", f"{their:.3f}", f"{their / our:.2f}")
    rich.console.Console(highlight=False).print(table)


if __name__ == "__main__":
    libraries = {"kvision": ours, "timm": theirs}
    if sys.argv[1:] and sys.argv[1] in libraries:
        print(json.dumps(libraries[sys.argv[1]](sys.argv[2], int(sys.argv[3]))))
    else:
        main(sys.argv[1] if sys.argv[1:] else sys.executable)
