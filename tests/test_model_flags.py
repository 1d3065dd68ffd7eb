"""Flags of commands that open networks."""

from types import SimpleNamespace

import pytest

from kvision import model_flags
from kvision.errors import UserError


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"input_range": "-1,1", "mean": "3"}, "say the same in two ways"),
        ({"input_range": "1,-1"}, "the lower first; got 1,-1"),
        ({"input_range": "1"}, "must be two numbers"),
        ({"std": "0"}, "`--std` must be positive numbers"),
        ({"mean": "1,x,3"}, "`--mean` must be numbers"),
        ({"mean": "nan"}, "`--mean` must be numbers"),
        ({"mean": "100,120,130", "std": "50,60"}, "one value a channel, or one"),
        ({"mean": "0.5", "std": "0.25"}, "give --mean=127.5 --std=63.75"),
    ],
)
def test_normalisations_that_contradict_themselves(given, words, monkeypatch):
    values = {
        name: given[name].split(",") if name in given else None for name in ("mean", "std", "input_range")
    }
    flags = {name: SimpleNamespace(value=value) for name, value in values.items()}
    monkeypatch.setattr(model_flags, "FLAGS", flags)
    with pytest.raises(UserError, match=words):
        model_flags.preprocess()
