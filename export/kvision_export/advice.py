"""Advice on a file, in sentences that follow from its census and from what was measured beside it."""

from collections import Counter
from collections.abc import Mapping, Sequence

from kvision.names import counted
from kvision.tasks import Classification, Task
from kvision_export import contents
from kvision_export.census import Census
from kvision_export.inputs import PROPOSALS
from kvision_export.modes import REFERENCE

NEAR = 0.98  # ratio of two times above which they differ by noise
OWN_KERNELS = ("SOFTMAX", "QUANTIZE")  # these take hardly any time, whoever runs them
ACCELERATORS = {"npu": "An NPU", "edgetpu": "The Edge TPU"}  # targets that take integers alone


def warnings_of(mode: str, census: Census, target: str, share: float) -> list[str]:
    """Sentences on what a file is bad at.

    Args:
        mode: name of its mode.
        census: contents of the file.
        target: what runs it, see `choices.TARGETS`.
        share: its time as a share of the float32 file's.
    """
    warnings = []
    if mode == "int4" and not any(kind.startswith(mode) for kind in census.stored_as):
        warnings.append("It has no dense layer: only these get int4 weights, others int8 ones.")
    if share > 1.1:
        warnings.append(f"On this processor it takes {share:.1f} times as long as {REFERENCE}.")
    if {*census.left_out} - {*OWN_KERNELS}:
        warnings.append(f"XNNPACK leaves {by_name(census.left_out)} to the runtime's own kernels.")
    if target in ACCELERATORS and (floats := not_integers(census)):
        warnings.append(
            f"{ACCELERATORS[target]} leaves what is not of integers to the CPU: {by_name(floats)}."
        )
    if census.input.dtype == "int8":
        warnings.append(
            "MediaPipe reads uint8 or float32 pixels, not int8: `--io_dtype=uint8` writes a file that it "
            "reads."
        )
    if PROPOSALS in census.metadata:
        warnings.append("MediaPipe gives a file an image alone, and this one takes proposals beside it.")
    if census.output.dtype == "uint8":
        warnings.append(
            "MediaPipe reads probabilities or logits, not masks: `--answer=probabilities` writes a file that "
            "it reads."
        )
    return warnings


def advice(
    file, files: Sequence, float_size: int, target: str, images: int, task: type[Task] = Classification
) -> str:
    """Contents of a file, what its target makes of it, and what it was worth in this run.

    Args:
        file: the `files.File`.
        files: all files that were made for use, this one among them.
        float_size: bytes of the float32 file.
        target: what runs it, see `choices.TARGETS`.
        images: number of images it was judged on.
        task: what the network learned.
    """
    sentences = [inside(file.census)]
    if not file.file:
        sentences.insert(0, f"The int8 file that {file.mode} writes by itself, for comparison.")
    if target == "gpu" and file.census.gpu:
        sentences.append(f"The GPU: {file.census.gpu.rstrip('.')}.")
    elif target in ACCELERATORS and not not_integers(file.census):
        sentences.append(
            f"{ACCELERATORS[target]} needs integers throughout, which these are; its own compiler says which "
            "operators it takes."
        )
    elif target == "cpu" and not {*file.census.left_out} - {*OWN_KERNELS}:
        but = f" but {by_name(file.census.left_out)}" if file.census.left_out else ""
        sentences.append(f"XNNPACK runs all of its operators{but}.")
    return " ".join([*sentences, worth(file, files, float_size, images, task)])


def inside(census: Census) -> str:
    """Dtypes in which the weights of a file are stored and its operators compute."""
    stored = [
        f"{kind.replace(' by channel', ' with a scale for each channel')}"
        + (f" in {counted(count, 'layer')}" if len(census.stored_as) > 1 else "")
        for kind, count in census.stored_as.items()
    ]
    weights = f"Weights are {_and(stored)}. " if stored else ""
    by_number = sorted(census.computed_in.items(), key=lambda item: -sum(item[1].values()))
    computed = [
        f"{sum(counts.values()) if number else _operators(sum(counts.values()))} in {_kind(kind)}"
        + (f" ({by_name(counts)})" if number else "")
        for number, (kind, counts) in enumerate(by_number)
    ]
    return f"{weights}{_and(computed)}."


def worth(file, files: Sequence, float_size: int, images: int, task: type[Task]) -> str:
    """A file's size, time and accuracy as they were measured, beside those of the others."""
    fidelity, accuracy = file.fidelity, file.accuracy
    share = file.latency_ms[1] / file.float_latency_ms[1]
    others = [other for other in files if other is not file]
    best = []
    if others and file in files and all(file.size < other.size for other in others):
        best.append("smallest")
    if others and file in files and all(file.latency_ms[1] < NEAR * other.latency_ms[1] for other in others):
        best.append("fastest")
    the = f", the {_and(best)} of these files" if best else ""
    text = (
        f"It has {100 * file.size / float_size:.0f} % of the {REFERENCE} file's bytes and takes "
        f"{100 * share:.0f} % of its time (one thread of this processor){the}; "
    )
    if file.mode == REFERENCE:
        text = f"The others are measured against it{the}; "
    if accuracy is None:
        share = f"{100 * fidelity.agreement:.1f} %"
        return f"{text}{task.agreement.format(share=share, images=counted(images, task.kind))}."
    points = f"{100 * abs(accuracy.drop):.2f} points {'lower' if accuracy.drop > 0 else 'higher'} than"
    relation = f"is {points}" if accuracy.drop else "equals"
    return f"{text}its {task.score} on {counted(images, task.kind)} {relation} the Keras model's."


def not_integers(census: Census) -> dict[str, int]:
    """The operators of floats by name, those that make integers of floats or floats of them included."""
    floats = Counter()
    for versioned, count in census.operators.items():
        name, _, _ = versioned.partition(" ")
        floats.update({name: count} if name in contents.CONVERSIONS else {})
    for kind, counts in census.computed_in.items():
        floats.update(counts if kind not in contents.INTEGERS else {})
    return dict(floats)


def by_name(operators: Mapping[str, int]) -> str:
    """Operators by name, with their numbers."""
    return ", ".join(f"{count} {name}" for name, count in operators.items())


def _operators(count: int) -> str:
    return f"{counted(count, 'operator')} compute{'s' * (count == 1)}"


def _kind(kind: str) -> str:
    floats, _, integers = kind.partition(" by ")
    return f"{integers} on activations that are quantized as they come" if integers else floats


def _and(parts) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
