"""What all commands share: flags, help, the import of TensorFlow, and errors of one sentence."""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator

from absl import app, flags

from kvision._stderr import without_lines
from kvision.errors import FULL_DISK, UserError
from kvision.names import shown

LONGEST = 700  # characters of a message
HOME = re.compile(r"(\w+:)?(~.*)", re.DOTALL)  # a path, also behind `folder:`
REPEAT = ";\n    repeat this option"  # absl's own words behind the help of a repeatable flag
MISSING = re.compile(r"flag --(\w+)=None: ")  # absl's words for a required flag that is not given
OPTION = re.compile(r"`(\w+)(?:=True)?`")  # an argument in Python, whose flag has its name
LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"  # of TensorFlow's libraries
NO_NOTICES = "3"  # the level that leaves what ends the process
NOTICES = r"[IWE]\d{4} |WARNING: All log messages before absl::"  # of its libraries while they are loaded
KERAS = {"backend": "tensorflow", "image_data_format": "channels_last"}  # settings of Keras that we need

# The text of flags that several commands have.
MAX_UNREADABLE = "Share of the images that may fail to decode and are skipped; more end the command."
EXIF = "Turn images as their EXIF orientation says; a run's own choice by default, else true."
NAMES = "The network's class names: a file with one a line, imagenet, or numbers; its own by default."


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
            missing = MISSING.match(str(error))
            fail(f"`--{missing[1]}` is needed: {flags.FLAGS[missing[1]].help}" if missing else error)
        for flag in flags.FLAGS.get_flags_for_module(module):  # shells expand no ~ behind a =
            if isinstance(flag.value, str) and (found := HOME.fullmatch(flag.value)):
                flag.value = (found[1] or "") + os.path.expanduser(found[2])
        return positional

    logging.disable(logging.INFO)  # TensorFlow's and Keras' notices would drown what a command prints
    notices = logging.getLogger("kvision")
    notices.addHandler(logging.StreamHandler())  # as they are, without absl's time and thread
    notices.propagate = False
    app.run(lambda argv: main(argv[1:]), flags_parser=parse)


def import_keras() -> None:
    """Imports Keras and TensorFlow, once the flags are parsed, and checks how Keras is set up.

    Raises:
        UserError: the settings of Keras choose another backend than TensorFlow, or channels first.
    """
    settings = (
        "Keras reads KERAS_BACKEND and keras.json, which is in the folder KERAS_HOME or else in ~/.keras"
    )
    if os.environ.setdefault(LOG_LEVEL, NO_NOTICES) == NO_NOTICES:
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        with without_notices():
            import keras
    except (ImportError, ValueError) as error:
        raise UserError(f"Keras cannot be imported: {error} ({settings})") from error
    keras.config.set_floatx("float32")  # --precision says what is computed in, not keras.json
    for name, expected in KERAS.items():
        value = getattr(keras.config, name)()
        if value != expected:
            raise UserError(f"The setting {name!r} of Keras must be {expected!r}; got {value!r}. {settings}.")


def without_notices() -> contextlib.AbstractContextManager:
    """Leaves out what TensorFlow's libraries print at any level, unless a user chose another level."""
    quiet = os.environ.get(LOG_LEVEL, NO_NOTICES) == NO_NOTICES
    return without_lines(NOTICES) if quiet else contextlib.nullcontext()


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
    """Turns bad input and what the system refuses into one sentence and exit code 2; a full disk, 75.

    Any other exception is a fault of ours and keeps its traceback.
    """
    try:
        yield
    except (UserError, OSError) as error:
        fail(error, os.EX_TEMPFAIL if getattr(error, "errno", None) in FULL_DISK else 2)


def fail(error, code: int = 2) -> None:
    """Prints one sentence, of a few lines at the most, and ends the command."""
    print(f"{os.path.basename(sys.argv[0])}: {sentence(error)}", file=sys.stderr)
    sys.exit(code)


def sentence(error) -> str:
    """The message of an exception as one printable sentence; of an OSError, with the file it is about."""
    text = OPTION.sub(lambda name: f"`--{name[1]}`" if name[1] in flags.FLAGS else name[0], str(error))
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}{'' if error.filename is None else f': {error.filename!r}'}."
    text = shown(" ".join(text.split()))
    if len(text) > LONGEST:
        text = f"{text[: LONGEST * 3 // 4]} ... {text[-LONGEST // 4 :]}"
    return text
