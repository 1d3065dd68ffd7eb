"""The configuration of a training run, which the flags of kvision-train fill in."""

import ast
import dataclasses
import functools
import math
import numbers
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from absl import flags

from kvision import cli
from kvision.choices import AUGMENTATIONS, CACHES, DATASETS, INTERPOLATIONS, TASKS, WEIGHTS
from kvision.errors import UserError
from kvision.spec import did_you_mean
from kvision_tools.choices import LEARNING_RATES, SCHEDULES, STRATEGIES

POSITIVE = (  # settings that must not be 0
    "crop", "min_crop_area", "learning_rate", "learning_rate_per_256", "layer_decay", "clip_norm",
    "nan_rate_factor",
)  # fmt: skip
OF_THE_DATA = {  # keywords of a builder that --model_kwarg does not set
    "num_classes": "the dataset has them",
    "input_shape": "`image_size`, `channels` and `length` say it",
    "weights": "`weights` says it",
    "classifier_activation": "training needs logits",
    "include_top": "training needs a classifier",
    "pooling": "training needs a classifier",
    "preprocess": "`weights` brings it",
}
KINDS = {int: "an integer", float: "a finite number", bool: "True or False", str: "a string"}


def setting(default, text: str, lower=None, upper=None, choices: Sequence[str] = ()):
    """A field of `TrainConfig` with its help text, its inclusive bounds, or its choices."""
    metadata = {"text": text, "lower": lower, "upper": upper, "choices": choices}
    how: dict[str, typing.Any] = {"default_factory": default} if callable(default) else {"default": default}
    return dataclasses.field(metadata=metadata, **how)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of a training run: the network, the data, and the training.

    Raises:
        UserError: values outside their range or that contradict each other; the message names them all.
    """

    model: str = setting("", "Name of the network, as kvision-info lists it.")
    model_kwarg: Mapping[str, object] = setting(
        dict,
        "Keyword of the builder as KEY=VALUE, such as --model_kwarg=width_multiplier=0.35, or of the builder "
        "of its backbone as backbone.KEY=VALUE; repeatable.",
    )
    task: str | None = setting(
        None,
        "What the network learns, where that is not its own task: with multilabel, a network of "
        "classification learns any number of classes an image.",
        choices=TASKS,
    )
    weights: str | None = setting(None, f"Weights to start from: {WEIGHTS}.")
    allow_nonfinite: bool = setting(False, "Whether --weights may hold NaN or infinity.")
    freeze: str = setting(
        "none", "Layers that are not trained: none, trunk (all but the top), or N, the first N groups."
    )
    data: str = setting("", f"Dataset: {DATASETS}.")
    val_fraction: float = setting(0.2, "Share held out where the dataset has no split of its own.")
    allow_outside: bool = setting(False, "Whether a CSV file may list images outside its own folder.")
    strict: bool = setting(False, "Whether the run ends at the first file that fails to decode.")
    max_unreadable: float = setting(0.1, cli.MAX_UNREADABLE, 0, 1)
    exif: bool = setting(True, "Whether images are turned as their EXIF orientation says.")
    cache: str = setting(
        "none",
        "Where images are kept after the first epoch: decoded in memory, or encoded in ~/.cache/kvision.",
        choices=CACHES,
    )
    image_size: int | None = setting(
        None,
        "Height and width of the input in pixels; the network's own by default.",
        1,
        cli.LARGEST_IMAGE,
    )
    channels: int = setting(3, "Channels of the input: 3 for RGB, 1 for grey.")
    length: int | None = setting(
        None,
        "Number of frames, words or steps that a network of sequences takes; by default its own, or that of "
        "the longest sequence with a label.",
        1,
    )
    augment: str = setting(
        "none",
        "Augmentation of the training images; crop_flip cuts out random boxes and mirrors half of them.",
        choices=AUGMENTATIONS,
    )
    plain_epochs: int = setting(
        0,
        "Number of epochs at the end in which --augment=mosaic and mosaic_mixup give way to flip; YOLOX has "
        "15.",
        0,
    )
    min_crop_area: float = setting(0.08, "Smallest share of an image that --augment cuts out.", 0, 1)
    crop: float | None = setting(
        None,
        "Share of the resized image's side that is evaluated; by default that of the weights, or 1.",
        0,
        1,
    )
    interpolation: str | None = setting(
        None,
        "Interpolation with which images are resized before --crop; by default that of the weights, or "
        "bilinear.",
        choices=tuple(INTERPOLATIONS),
    )
    epochs: int = setting(
        10,
        "Passes over the training images. More of them lengthen the run in --output: from its last step on, "
        "it has the learning rates of a run of the new length; the warm-up stays.",
        1,
    )
    batch_size: int = setting(32, "Number of images in a step, over all devices and workers.", 1)
    accumulate: int = setting(
        1,
        "Number of parts into which a batch is split to save memory; their gradients are accumulated.",
        1,
    )
    optimizer: str = setting(
        "sgd", "Optimizer; its settings are in kvision_tools/optimizers.py.", choices=tuple(LEARNING_RATES)
    )
    learning_rate: float | None = setting(
        None,
        "Peak learning rate, for any --batch_size; by default "
        f"{', '.join(f'{rate:g} for {name}' for name, rate in LEARNING_RATES.items())}.",
        0,
    )
    learning_rate_per_256: float | None = setting(
        None, "Peak learning rate for each 256 images of a batch, in place of --learning_rate.", 0
    )
    warmup_epochs: float | None = setting(
        None,
        "Epochs over which the learning rate grows linearly from 0, before it falls by --schedule. By "
        "default that of the run in --output, or else 1, or half of --epochs=1.",
        0,
    )
    schedule: str = setting(
        "cosine",
        "How the learning rate falls after the warm-up: to 0 along a cosine, or with the inverse square root "
        "of the number of steps, as for the first Transformer.",
        choices=SCHEDULES,
    )
    weight_decay: float = setting(0.0, "Decoupled weight decay of kernels; norms and biases have none.", 0)
    layer_decay: float = setting(
        1.0, "Factor on the learning rate of each group of layers, relative to the group after it.", 0, 1
    )
    clip_norm: float | None = setting(None, "Global norm to which gradients are clipped.", 0)
    label_smoothing: float = setting(
        0.0, "Share of a label that is spread over all classes, or of a word over all words.", 0, 1
    )
    class_weights: tuple[float, ...] | None = setting(
        None, "Weights of the classes in the cross-entropy of segmentation, with commas between them."
    )
    dice_weight: float = setting(
        0.0, "Weight of the Dice loss, added to the cross-entropy of segmentation.", 0
    )
    min_word_count: int = setting(
        1, "How often a word must occur in the captions to train on to be in the vocabulary.", 1
    )
    max_words: int | None = setting(
        None, "Most words in the vocabulary, the most frequent ones; all by default.", 1
    )
    norm_momentum: float | None = setting(
        None, "Momentum of the moving statistics of batch norms; a short run needs 0.9.", 0, 1
    )
    sync_batch_norm: bool = setting(
        False,
        "Whether batch norms see the images of all devices; otherwise each sees its own, and the first "
        "one's statistics are saved.",
    )
    ema_decay: float | None = setting(
        None, "Decay of a moving average of the weights, which is evaluated beside them.", 0, 1
    )
    precision: str = setting(
        "float32",
        "Compute dtype; variables stay float32.",
        choices=("float32", "bfloat16", "float16"),
    )
    jit_compile: bool = setting(False, "Whether the forward and the backward pass are compiled by XLA.")
    deterministic: bool = setting(False, "Whether equal runs give equal bits; slower on GPUs.")
    strategy: str = setting(
        "auto", "Distribution strategy: which devices share a step.", choices=tuple(STRATEGIES)
    )
    worker_timeout: float = setting(300.0, "Seconds to wait for other workers.", 0)
    steps_per_loop: int = setting(
        10, "Number of steps in one call of the device, after which metrics are read.", 1
    )
    checkpoint_steps: int | None = setting(
        None, "Number of steps between checkpoints; there is one after each epoch too.", 1
    )
    nan_restores: int = setting(
        3, "Number of times that the run goes back to a checkpoint when the loss is not finite.", 0
    )
    nan_rate_factor: float = setting(
        1.0,
        "Factor on the learning rate each time that the run goes back because the loss is not finite.",
        0,
        1,
    )
    seed: int = setting(0, "Seed of weights, order and augmentation.", 0, 2**32 - 1)
    debug_batch: bool = setting(
        False,
        "Whether the first batch of training images is drawn with its targets, before the run begins, into "
        "debug_batch.png of the run folder; with the anchors or cells that learn each object.",
    )
    output: str | None = setting(None, "Run folder; runs/MODEL by default.")
    overwrite: bool = setting(False, "Whether a run in --output, with its export folder, is replaced.")

    def __post_init__(self):
        mistakes = [text for field in dataclasses.fields(self) if (text := self._mistake(field))]
        if not mistakes:
            mistakes = [*self._contradictions()]
        if mistakes:
            raise UserError(" ".join(mistakes))
        for field in dataclasses.fields(self):  # equal values have equal lines
            value, (kind, _) = getattr(self, field.name), kind_of(field.name)
            if kind is Mapping:
                value = {key: v.item() if isinstance(v, np.generic) else v for key, v in value.items()}
            elif value is not None:
                value = kind(value)
            object.__setattr__(self, field.name, value)

    @property
    def folder(self) -> str:
        """The run folder."""
        return self.output or f"runs/{self.model}"

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate at the end of the warm-up."""
        if self.learning_rate_per_256 is not None:
            return self.learning_rate_per_256 * self.batch_size / 256
        return LEARNING_RATES[self.optimizer] if self.learning_rate is None else self.learning_rate

    def lines(self) -> dict[str, str]:
        """The lines of flags.txt by the name of the setting; "" for what is None or empty."""
        return {
            field.name: _line(field.name, getattr(self, field.name)) for field in dataclasses.fields(self)
        }

    def _mistake(self, field) -> str | None:
        """The fault of a field's value, in words; None where it has none."""
        value, kind, optional = getattr(self, field.name), *kind_of(field.name)
        if optional and value is None:
            return None
        lower, upper, choices = (field.metadata[name] for name in ("lower", "upper", "choices"))
        if kind is tuple:
            good = isinstance(value, Sequence) and all(isinstance(part, numbers.Real) for part in value)
            return None if good else f"`{field.name}` must be numbers; got {value!r}."
        if kind is Mapping:
            good = isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
            return None if good else f"`{field.name}` must be a mapping of keywords; got {value!r}."
        number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        good = {
            int: number and isinstance(value, numbers.Integral),
            float: number and math.isfinite(value),
            bool: isinstance(value, bool),
            str: isinstance(value, str),
        }[kind]
        if not good:
            near = f" Did you mean {str(value)!r}?" if kind is str and number else ""
            return f"`{field.name}` must be {KINDS[kind]}; got {value!r}.{near}"
        if choices and value not in choices:
            near = did_you_mean(str(value), choices)
            return f"`{field.name}` must be one of {', '.join(choices)}; got {value!r}. {near}"
        if lower is not None and not lower <= value <= (math.inf if upper is None else upper):
            start = "(" if field.name in POSITIVE else "["
            bounds = f"at least {lower}" if upper is None else f"in {start}{lower}, {upper}]"
            return f"`{field.name}` must be {bounds}; got {value}."
        return None

    def _contradictions(self):
        for name in ("model", "data"):
            if not getattr(self, name):
                yield f"`{name}` is needed."
        if self.output == "":
            yield "`output` must be a folder; got ''."
        for name in POSITIVE:
            if getattr(self, name) == 0:
                yield f"`{name}` must be positive; got {getattr(self, name)}."
        if self.strict and self.max_unreadable != TrainConfig.max_unreadable:
            yield "`strict` and `max_unreadable` exclude each other: give one."
        if self.label_smoothing == 1:
            yield "`label_smoothing` must be below 1, as nothing of the label would be left; got 1."
        if self.ema_decay in (0, 1):
            yield f"`ema_decay` must be between 0 and 1; got {self.ema_decay}."
        if self.learning_rate is not None and self.learning_rate_per_256 is not None:
            yield "`learning_rate` and `learning_rate_per_256` exclude each other: give one."
        if self.warmup_epochs is not None and self.warmup_epochs >= self.epochs:
            yield f"`warmup_epochs` ({self.warmup_epochs}) must be below `epochs` ({self.epochs})."
        if self.schedule == "inverse_sqrt" and self.warmup_epochs == 0:
            yield "`schedule=inverse_sqrt` needs `warmup_epochs` above 0, from whose end on the rate falls."
        if self.min_crop_area != TrainConfig.min_crop_area and not self.augment.startswith("crop"):
            yield "`min_crop_area` needs `augment=crop` or crop_flip, which cut the boxes."
        if self.plain_epochs and not self.augment.startswith("mosaic"):
            yield "`plain_epochs` needs `augment=mosaic` or mosaic_mixup, which it ends."
        if "norm_momentum" in self.model_kwarg and self.norm_momentum is not None:
            yield "`norm_momentum` and `model_kwarg=norm_momentum` exclude each other: give one."
        for key in self.model_kwarg.keys() & OF_THE_DATA.keys():
            yield f"`model_kwarg` does not set {key}: {OF_THE_DATA[key]}."


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines a flag for each setting."""
    for field in dataclasses.fields(TrainConfig):
        kind, _ = kind_of(field.name)
        text, lower, upper, choices = (field.metadata[key] for key in ("text", "lower", "upper", "choices"))
        how: dict[str, typing.Any] = {"name": field.name, "help": text, "flag_values": flag_values}
        how["default"] = [] if kind is Mapping else field.default
        if field.default == "":
            how |= {"default": None, "required": True}
        if kind is Mapping:
            flags.DEFINE_multi_string(**how)
        elif kind is tuple:
            flags.DEFINE_list(**how)
        elif kind is bool:
            flags.DEFINE_bool(**how)
        elif kind is int:
            flags.DEFINE_integer(**how, lower_bound=lower, upper_bound=upper)
        elif kind is float:
            flags.DEFINE_float(**how, lower_bound=lower, upper_bound=upper)
        elif choices:
            flags.DEFINE_enum(**how, enum_values=choices)
        else:
            flags.DEFINE_string(**how)


def from_flags(flag_values: flags.FlagValues) -> TrainConfig:
    """The configuration that parsed flags say."""
    names = [field.name for field in dataclasses.fields(TrainConfig)]
    values: dict[str, typing.Any] = {name: flag_values[name].value for name in names}
    values["model_kwarg"] = dict(map(keyword, values["model_kwarg"]))
    if (texts := values["class_weights"]) is not None:
        try:
            values["class_weights"] = tuple(map(float, texts))
        except ValueError:
            raise UserError(f"`class_weights` must be numbers; got {','.join(texts)}.") from None
    return TrainConfig(**values)


def kind_of(name: str) -> tuple[type, bool]:
    """The type of a setting's values, and whether it may be None."""
    hint = _hints()[name]
    kinds = [kind for kind in typing.get_args(hint) or (hint,) if kind is not types.NoneType]
    if typing.get_origin(hint) is Mapping:
        return Mapping, False
    return typing.get_origin(kinds[0]) or kinds[0], len(typing.get_args(hint)) > len(kinds)


@functools.cache
def _hints() -> dict[str, typing.Any]:
    return typing.get_type_hints(TrainConfig)


def keyword(item: str) -> tuple[str, object]:
    """The name and the value of `KEY=VALUE`; any value but a literal is a word, as in padding=symmetric.

    Raises:
        UserError: there is no "=".
    """
    key, equals, value = item.partition("=")
    if not equals:
        raise UserError(f"`model_kwarg` must be KEY=VALUE; got {item!r}.")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def _line(name, value) -> str:
    if isinstance(value, Mapping):
        return "\n".join(f"--{name}={key}={v if isinstance(v, str) else repr(v)}" for key, v in value.items())
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no{name}"
    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    return "" if value is None else f"--{name}={value}"
