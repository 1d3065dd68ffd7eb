"""Files of weights with random damage."""

import resource
import signal
from pathlib import Path

import numpy as np
import safetensors.numpy
from pytorch import write_old_pth, write_pth

import kvision
from kvision.errors import UserError

KINDS = ("a.pth", "old.pth", "a.safetensors", "a.weights.h5", "a.keras")
CHECKED = ("a.pth", "a.keras")  # with checksums of all their contents
EXTREME = (b"\0" * 8, b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\0\0\0\0\1")


def write(folder: Path, model) -> None:
    """Writes a network's weights in each kind of file."""
    tensors = kvision.weights.state_dict(model)
    write_pth(folder / "a.pth", {"epoch": 3, "state_dict": tensors})
    write_old_pth(folder / "old.pth", {"epoch": 3, "state_dict": tensors})
    safetensors.numpy.save_file(
        {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, folder / "a.safetensors"
    )
    model.save_weights(folder / "a.weights.h5")
    model.save(folder / "a.keras")


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """A file's content with one to three changes, most of them where no values of weights are."""
    for _ in range(random.integers(1, 4)):
        place = int(random.integers(len(content)))
        if random.random() < 0.7:  # near the start or the end, where lists of contents are
            place = int(random.integers(min(3000, len(content)))) * int(random.choice([1, -1])) % len(content)
        length = int(random.integers(1, 200))
        part = content[place : place + length]
        content = {
            "bit": content[:place] + bytes([content[place] ^ 1 << random.integers(8)]) + content[place + 1 :],
            "byte": content[:place] + random.bytes(1) + content[place + 1 :],
            "number": content[:place] + EXTREME[random.integers(len(EXTREME))] + content[place + 8 :],
            "noise": content[:place] + random.bytes(length) + content[place + length :],
            "cut": content[:place] or b"\0",
            "less": content[:place] + content[place + length :] or b"\0",
            "more": content[:place] + random.bytes(length) + content[place:],
            "again": content[:place] + part + part + content[place + length :],
        }[random.choice(["bit", "byte", "number", "noise", "cut", "less", "more", "again"])]
    return content


def trial(model, path: Path, original: bytes, weights: list, random: np.random.Generator) -> bool:
    """Loads a damaged file; whether it was taken. What its checksum denies, and NaN, are not."""
    path.write_bytes(mutated(original, random))
    try:
        kvision.weights.load(model, path)
    except UserError as error:
        message = str(error)
        sound = len(message) < 1000 and message.isprintable()
        assert sound, message
        return False
    for loaded, expected in zip(model.get_weights(), weights, strict=True):
        assert np.isfinite(loaded).all()
        assert path.name not in CHECKED or np.array_equal(loaded, expected)
    return True


def trials(folder: Path, kind: str, seeds: range, memory: int | None = None) -> int:
    """Tries many damaged files of a kind; with `memory`, in so many bytes and ten seconds each."""
    model = kvision.models.lenet5()
    write(folder, model)
    original, weights = (folder / kind).read_bytes(), model.get_weights()
    if memory:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory,) * 2)
    taken = 0
    for seed in seeds:
        signal.alarm(10 if memory else 0)  # ends the process, also in C
        taken += trial(model, folder / kind, original, weights, np.random.default_rng(seed))
    print(f"{kind}: of {len(seeds)} damaged files {taken} were taken")
    return taken
