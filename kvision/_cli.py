"""What all commands share: flags, help, and errors of one sentence."""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator

import keras
from absl import app, flags

from kvision.errors import UserError
from kvision.names import shown

LONGEST = 700  # characters of a message
HOME = re.compile(r"(\w+:)?(~.*)", re.DOTALL)  # a path, also behind `folder:`
REPEAT = ";\n    repeat this option"  # absl's own words behind the help of a repeatable flag


def run(main: Callable[[list[str]], int | None]) -> None:
    """Runs a command: parses the flags of `main`'s module, then calls `main(positional)`.

    Flags that do not parse end it with one sentence and exit code 2.
    """
    module = sys.modules[main.__module__]

    def parse(argv):
        if {"--help", "-help", "-h"} & set(argv[1:]):
            print(f"{module.__doc__.strip()}\n\n{_help(module)}")
            sys.exit(0)
        try:
            positional = flags.FLAGS(argv)
        except flags.Error as error:
            fail(error)
        for flag in flags.FLAGS.get_flags_for_module(module):  # shells expand no ~ behind a =
            if isinstance(flag.value, str) and (found := HOME.fullmatch(flag.value)):
                flag.value = (found[1] or "") + os.path.expanduser(found[2])
        return positional

    keras.config.set_floatx("float32")  # --precision says what is computed in, not keras.json
    logging.disable(logging.INFO)  # TensorFlow's and Keras' notices would drown what a command prints
    app.run(lambda argv: main(argv[1:]), flags_parser=parse)


def _help(module) -> str:
    lines = []
    for flag in flags.FLAGS.get_flags_for_module(module):
        empty = flag.default in (None, [], False, "")
        default = "" if empty else f" (default: {flag.default_as_str.strip(chr(39))})"
        choices = getattr(flag.parser, "enum_values", None)
        kind = f"={'|'.join(choices)}" if choices else "" if flag.boolean else f"={flag.name.upper()}"
        text = flag.help.partition(">: ")[2] or flag.help  # without absl's own list of choices
        lines.append(f"  --{flag.name}{kind}\n      {text.partition(REPEAT)[0]}{default}")
    return "\n".join(sorted(lines))


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Turns bad input and what the system refuses into one sentence and exit code 2.

    Any other exception is a fault of ours and keeps its traceback.
    """
    try:
        yield
    except (UserError, OSError) as error:
        fail(error)


def fail(error, code: int = 2) -> None:
    """Prints one sentence, of a few lines at the most, and ends the command."""
    print(f"{os.path.basename(sys.argv[0])}: {sentence(error)}", file=sys.stderr)
    sys.exit(code)


def sentence(error) -> str:
    """The message of an exception as one printable sentence; of an OSError, with the file it is about."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename!r}."
    text = shown(" ".join(text.split()))
    if len(text) > LONGEST:
        text = f"{text[: LONGEST * 3 // 4]} ... {text[-LONGEST // 4 :]}"
    return text
