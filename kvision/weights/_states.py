"""The weights in a checkpoint, among what else it holds and under the names that wrappers gave them."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from kvision.errors import UserError
from kvision.weights._pickle import Unknown

WRAPPERS = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
AVERAGE = re.compile(r"(?:^|[._/])(?:ema|swa|avg|averaged?)(?:[._/]|$)")
KEYS = (  # the better first
    "", "state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict", "model_state", "net",
    "network", "params_ema", "params", "ema", "module", "weights",
)  # fmt: skip
DEPTH = 3  # of dicts in dicts, and of prefixes in front of a name


def fitting(state: Mapping, wanted: Collection[str]) -> tuple[dict, str | None]:
    """The weights of a checkpoint under a network's names.

    Of several dicts of tensors, the one that fits most of the names is taken; of equals an average, as timm
    does, and then the one under the key that is used most. A prefix of data parallel, compiled or nested
    modules is removed where more names fit without it.

    Args:
        state: tensors by name, or dicts of them among other things.
        wanted: the network's names.

    Returns:
        Tensors by name, and a sentence's part that says what was taken, where that is not obvious.

    Raises:
        UserError: there are no tensors, or several dicts that fit equally.
    """
    found = {path: _renamed(names, wanted) for path, names in _dicts(state, "", set())}
    fits = {path: sum(name in wanted for name in names) for path, names in found.items()}
    most = max(fits.values(), default=0)
    whole = next((key for key, value in state.items() if isinstance(value, Unknown) and key in KEYS), None)
    if not found or (not most and whole):
        more = f": its {whole!r} is an object of class {state[whole].kind}" if whole else ""
        raise UserError(f"it holds no tensors by name{more}; save a `state_dict()`")
    if not most:
        return max(found.values(), key=len), None
    best = [path for path in found if fits[path] == most]
    averages = [path for path in best if AVERAGE.search(path)]
    known = [path for key in KEYS for path in averages or best if path.rpartition("/")[2] == key]
    if len(averages or best) > 1 and not known:
        listed = ", ".join(repr(path[:80]) for path in best[:5])
        raise UserError(f"it holds several networks of these names ({listed}); save the one that is meant")
    taken = (known or averages or best)[0]
    if averages:
        note = f"the average of the weights was taken, which is under {taken!r:.80}"
    elif len(best) > 1:
        note = f"the weights under {taken!r:.80} were taken"
    else:
        note = None
    return found[taken], note


def _dicts(state: Mapping, path: str, seen: set[int]) -> Iterator[tuple[str, Mapping]]:
    """The dicts in a checkpoint that hold arrays, by the keys that lead to them."""
    seen.add(id(state))
    if any(hasattr(value, "shape") for value in state.values()):
        yield path, state
    for key, value in state.items():
        if isinstance(value, Mapping) and id(value) not in seen and path.count("/") < DEPTH:
            yield from _dicts(value, f"{path}/{key}" if path else str(key), seen)


def _renamed(tensors: Mapping, wanted: Collection[str]) -> dict:
    """A dict's tensors by their names without wrappers', and all else that has a wanted name."""
    names = {WRAPPERS.sub("", name): name for name in tensors if isinstance(name, str)}
    prefixes = Counter({"": 0})
    for name in names:
        rest = name
        for _ in range(DEPTH + 1):
            prefixes[name[: len(name) - len(rest)]] += rest in wanted
            rest = rest.partition(".")[2]
            if not rest:
                break
    prefix = max(prefixes, key=lambda p: (prefixes[p], -len(p)))
    renamed = {name.removeprefix(prefix): key for name, key in names.items()}
    if len(renamed) < len(tensors):  # two would have one name
        renamed = {key: key for key in tensors}
    return {
        name: tensors[key]
        for name, key in renamed.items()
        if name in wanted or hasattr(tensors[key], "shape")
    }
