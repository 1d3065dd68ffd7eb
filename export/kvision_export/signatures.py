"""Files of several networks, each with a signature of its own, which are made apart and then joined."""

import dataclasses
from collections.abc import Mapping

from kvision.tasks import SIGNATURE
from kvision_export import flatbuffer
from kvision_export.modes import MODES, Given, Made

Parts = Mapping[str, Mapping[str, bytes]]  # by signature and form, see `convert.files`


def joined(parts: Parts) -> dict[str, bytes]:
    """The files by form."""
    forms = next(iter(parts.values()))
    return {form: _joined({name: files[form] for name, files in parts.items()}) for form in forms}


def make(mode: str, parts: Parts, given: Given) -> Made:
    """The file of a mode.

    Of several networks the first sees the image. The others have a state, which stays in floats: where a mode
    has ranges, their weights alone are of integers, as in "dynamic".
    """
    if [*parts] == [SIGNATURE]:
        return MODES[mode].make(given)
    made = {}
    for number, (name, files) in enumerate(parts.items()):
        of_state = dataclasses.replace(given, forms=files, images=given.images[:0])
        if number or len(parts) == 1:
            made[name] = MODES["dynamic" if MODES[mode].calibrated else mode].make(of_state)
        else:
            made[name] = MODES[mode].make(dataclasses.replace(given, forms=files))
    first = next(iter(made.values()))
    return dataclasses.replace(first, content=_joined({name: part.content for name, part in made.items()}))


def _joined(parts):
    return parts[SIGNATURE] if [*parts] == [SIGNATURE] else flatbuffer.merged(parts)
