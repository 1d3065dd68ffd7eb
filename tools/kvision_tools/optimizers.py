"""Optimizers by name, with warm-up, schedules and weight decay that spares norms and biases."""

import keras
from keras import ops

from kvision_tools.transfer import scale_rates


class InverseSquareRoot(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that grows linearly over a warm-up and then falls with the square root of the number of steps.

    It is that of Vaswani et al. 2017, equation 3, by its peak.

    Args:
        peak: learning rate at the end of the warm-up.
        warmup_steps: number of steps of the warm-up, at least 1.
    """

    def __init__(self, peak: float, warmup_steps: int):
        super().__init__()
        self.peak, self.warmup_steps = peak, warmup_steps

    def __call__(self, step):
        ratio = ops.cast(step, "float32") / self.warmup_steps
        return self.peak * ops.minimum(ratio, ops.rsqrt(ops.maximum(ratio, 1e-6)))

    def get_config(self):
        return {"peak": self.peak, "warmup_steps": self.warmup_steps}


def make_optimizer(
    name: str,
    *,
    model: keras.Model,
    learning_rate: float,
    weight_decay: float,
    steps: int,
    warmup_steps: int,
    schedule: str = "cosine",
    layer_decay: float = 1.0,
) -> keras.optimizers.Optimizer:
    """An optimizer for `model`.

    Args:
        name: "sgd" (Nesterov momentum 0.9), "rmsprop" (rho 0.9, momentum 0.9, epsilon 1e-3, as for
            MobileNet and EfficientNet) or "adamw".
        learning_rate: learning rate at its peak, to which it grows linearly from 0 over the warm-up.
        weight_decay: a step takes this share, times the learning rate, off each kernel (decoupled, as
            in AdamW); parameters of one dimension (norms and biases) are spared.
        steps: number of steps of the whole run.
        warmup_steps: number of steps of the warm-up, below `steps`.
        schedule: "cosine", which then falls to 0 along a half cosine, or "inverse_sqrt", see
            `InverseSquareRoot`.
        layer_decay: factor: the learning rate of a group of `kvision.depth_groups`, and with it its weight
            decay, is multiplied by it for each group behind it.
    """
    if schedule == "inverse_sqrt":
        rate = InverseSquareRoot(learning_rate, warmup_steps)
    elif warmup_steps:
        rate = keras.optimizers.schedules.CosineDecay(
            0.0, steps - warmup_steps, warmup_target=learning_rate, warmup_steps=warmup_steps
        )
    else:
        rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    decay = weight_decay or None
    if name == "sgd":
        optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=decay, name=name)
    elif name == "rmsprop":
        optimizer = keras.optimizers.RMSprop(
            rate, rho=0.9, momentum=0.9, epsilon=1e-3, weight_decay=decay, name=name
        )
    else:
        optimizer = keras.optimizers.AdamW(rate, weight_decay=weight_decay, name=name)
    optimizer.exclude_from_weight_decay([v for v in model.trainable_variables if len(v.shape) < 2])
    optimizer.build(model.trainable_variables)
    if layer_decay != 1:
        scale_rates(optimizer, model, layer_decay)
    return optimizer
