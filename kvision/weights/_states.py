"""The weights in a checkpoint, among what else it holds and under the names that wrappers gave them."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping

import numpy as np

from kvision.errors import UserError
from kvision.weights._pickle import Unknown

WRAPPERS = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
AVERAGE = re.compile(
    r"(?<!no_)(?<!without_)(?<!pre_)(?<!before_)(?<![^._/])(?:ema|swa|avg|averaged?|shadow)(?:[._/]|$)",
    re.IGNORECASE,
)
STATISTICS = re.compile(r"optim|exp_avg|grad|momentum|square")  # in the keys of what optimizers keep
KEYS = (  # the better first
    "", "state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict", "model_state", "net",
    "network", "params_ema", "params", "ema", "module", "weights",
)  # fmt: skip
IGNORED = (  # buffers without a counterpart
    "num_batches_tracked", "relative_position_index", "attn_mask", "n_averaged",
)  # fmt: skip
OLD_NAMES = (  # in the files of torchvision's first detectors, and those of today
    (re.compile(r"(\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$"), r"\1.0.\2"),
    (re.compile(r"(rpn\.head\.conv)\.(weight|bias)$"), r"\1.0.0.\2"),
)
DEPTH = 3  # of dicts in dicts
DEEPEST = 6  # of dicts and lists with an average in them, and of prefixes in front of a name


def fitting(state: Mapping, wanted: Collection[str]) -> tuple[dict, list[str]]:
    """The weights of a checkpoint under a network's names.

    The dict of tensors that fits most of the names is taken; among equals an average, as in timm, and then
    the one under the key that is used most. A prefix of data parallel, compiled or nested
    modules is removed where more names fit without it; what does not have it is left out then.

    Args:
        state: tensors by name, or dicts of them among other things.
        wanted: the network's names.

    Returns:
        Tensors by name, and parts of a sentence that say what was taken, where that is not obvious.

    Raises:
        UserError: there are no tensors, or several networks that fit equally.
    """
    entries = [entry for entry in _entries(state, "", set()) if not STATISTICS.search(entry[0])]
    dicts = {path: _clean(value, wanted) for path, value in entries if isinstance(value, Mapping)}
    dicts = dict(part for path, names in dicts.items() for part in _apart(path, names, wanted))
    found = dict(entries) | dicts
    unfit = {path: reason for path, value in found.items() if (reason := _unfit_average(path, value))}
    unfit |= dict.fromkeys(_averages_in_lists(state, "", set()), "is an average in a list or an optimizer")
    prefixes = {path: _prefixes(names, wanted) for path, names in dicts.items()}
    fits = {path: max(counts.values()) for path, counts in prefixes.items()}
    most = max(fits.values(), default=0)
    if not dicts or (not most and any(isinstance(state.get(key), Unknown) for key in KEYS)):
        there = ", ".join(f"{key!r:.80} ({_kind(value)})" for key, value in list(state.items())[:3])
        raise UserError(f"it holds no tensors by name, as a `state_dict()` does, but {there or 'nothing'}")
    if not most:
        return max(dicts.values(), key=len), []
    unfit |= {
        path: f"holds {count} of the network's {most} tensors"
        for path, count in fits.items()
        if 0 < count < most and AVERAGE.search(path)
    }
    best = [path for path in dicts if fits[path] == most]
    best = [path for path in best if path not in unfit] or best
    averages = [path for path in best if AVERAGE.search(path)]
    averages = averages or [path for path in best if "n_averaged" in dicts[path]]
    known = [path for key in KEYS for path in averages or best if path.rpartition("/")[2] == key]
    if len(averages or best) > 1 and not known:
        raise _several(best)
    taken = (known or averages or best)[0]
    notes = []
    if averages:
        notes.append(f"the average of the weights was taken, which is under {taken!r:.80}")
    elif len(best) > 1:
        notes.append(f"the weights under {taken!r:.80} were taken")
    if not averages:
        notes += [f"{path!r:.80} was left out: it {reason}" for path, reason in unfit.items()]
    prefix, *others = [prefix for prefix, count in sorted(prefixes[taken].items()) if count == most]
    if not prefix:
        return dicts[taken], notes
    if not all(other.startswith(prefix) for other in others):
        raise _several([prefix, *others])
    tensors = {
        name.removeprefix(prefix): tensor for name, tensor in dicts[taken].items() if name.startswith(prefix)
    }
    outside = [name for name in dicts[taken] if not name.startswith(prefix) and not name.endswith(IGNORED)]
    tensors = {name: dicts[taken][name] for name in outside if name in wanted} | tensors
    if left := [name for name in outside if name not in wanted]:
        average = next((name for name in left if AVERAGE.search(name.rpartition(".")[0])), None)
        example = f"some of an average: {average!r:.80}" if average else f"{left[0]!r:.80}"
        notes.append(f"{len(left)} tensors outside of {prefix!r:.80} were left out ({example})")
    return tensors, notes


def _entries(state: Mapping, path: str, seen: set[int]) -> Iterator[tuple[str, object]]:
    """The dicts in a checkpoint that hold arrays, its lists and unknown objects, by the keys to them."""
    seen.add(id(state))
    if any(hasattr(value, "shape") for value in state.values()):
        yield path, state
    for key, value in state.items():
        inner = f"{path}/{key}" if path else str(key)
        if isinstance(value, Mapping):
            if id(value) not in seen and path.count("/") < DEPTH:
                yield from _entries(value, inner, seen)
        elif isinstance(value, Unknown | list | tuple):
            yield inner, value


def _unfit_average(path: str, value) -> str | None:
    """Reason why an average of the weights cannot be taken; None where it can, or there is none."""
    key = path.rpartition("/")[2]
    if isinstance(value, Unknown):
        return f"is an object of the class {value.kind:.80}" if key in KEYS and AVERAGE.search(key) else None
    if not isinstance(value, Mapping):
        kernels = (len(getattr(item, "shape", ())) > 1 for item in value)
        return "is a list of tensors without names" if AVERAGE.search(path) and any(kernels) else None
    if key == "average_model_state":  # of Lightning's StochasticWeightAveraging
        return "is an average without its batch norms' statistics"
    if key == "ema_state_dict" and "steps" in value:  # of MMEngine's EMAHook
        return "holds the weights before averaging, and 'state_dict' their average"
    return "averages nothing yet" if "n_averaged" in value and _is_zero(value["n_averaged"]) else None


def _averages_in_lists(value, path: str, seen: set[int], listed: bool = False) -> Iterator[str]:
    """The keys to averages of the weights in lists and optimizers' states, where some trainers keep them."""
    seen.add(id(value))
    for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
        if not isinstance(inner, Mapping | list | tuple) or id(inner) in seen or path.count("/") >= DEEPEST:
            continue
        name = f"{path}/{key}" if path else str(key)
        tensors = inner.values() if isinstance(inner, Mapping) else inner
        kernels = any(len(getattr(tensor, "shape", ())) > 1 for tensor in tensors)
        if listed and kernels and AVERAGE.search(name) and not STATISTICS.search(name.replace("optim", "")):
            yield name
        else:
            inside = listed or not isinstance(inner, Mapping) or "optim" in name
            yield from _averages_in_lists(inner, name, seen, inside)


def _is_zero(tensor) -> bool:
    try:
        return not np.any(np.asarray(tensor))
    except Exception:  # whatever a damaged file makes its reader raise
        return False


def _clean(tensors: Mapping, wanted: Collection[str]) -> dict:
    """Arrays, and all else that has a wanted name, by their names without wrappers'."""
    arrays = {key: value for key, value in tensors.items() if hasattr(value, "shape") or key in wanted}
    clean = {_renamed(WRAPPERS.sub("", str(key)), wanted): value for key, value in arrays.items()}
    return clean if len(clean) == len(arrays) else arrays


def _renamed(name: str, wanted: Collection[str]) -> str:
    """The wanted name that follows an old one; other names as they are."""
    new = (pattern.sub(successor, name) for pattern, successor in OLD_NAMES)
    return next((candidate for candidate in new if candidate != name and candidate in wanted), name)


def _apart(path: str, names: dict, wanted: Collection[str]) -> Iterator[tuple[str, dict]]:
    """A dict of tensors by the key to it, or its parts where a network and its average are side by side."""
    counts = _prefixes(names, wanted)
    prefixes = sorted(prefix for prefix, count in counts.items() if count == max(counts.values()) > 0)
    averages = [prefix.removesuffix("module.") for prefix in prefixes if AVERAGE.search(prefix)]
    if len(averages) in (0, len(prefixes)):
        yield path, names
        return
    counter = {name: value for name, value in names.items() if name == "n_averaged"}
    yield path, {k: v for k, v in names.items() if not k.startswith((*averages, "n_averaged"))}
    for root in averages:
        part = {name.removeprefix(root): value for name, value in names.items() if name.startswith(root)}
        yield f"{path}/{root}".strip("/."), counter | part


def _prefixes(names: Collection[str], wanted: Collection[str]) -> Counter:
    """The number of wanted names behind each prefix, of which "" is the first."""
    counts = Counter({"": 0})
    for name in names:
        rest = name
        for _ in range(DEEPEST + 1):
            if rest in wanted:
                counts[name[: len(name) - len(rest)]] += 1
            rest = rest.partition(".")[2]
    return counts


def _several(names) -> UserError:
    listed = ", ".join(f"{name!r:.80}" for name in names[:5])
    return UserError(f"it holds several networks of these names ({listed}); save the one that is meant")


def _kind(value) -> str:
    return value.kind if isinstance(value, Unknown) else type(value).__name__
