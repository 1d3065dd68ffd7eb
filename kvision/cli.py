"""The common part of all commands: flags, help, the import of TensorFlow, and errors of one sentence."""

import contextlib
import difflib
import itertools
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator

from absl import app, flags

from kvision.errors import FULL_DISK, UserError
from kvision.names import plain, shown
from kvision.stderr import without_lines

LARGEST_IMAGE = 2**14  # pixels of an input's side; one image of them takes 3 GB
LONGEST = 700  # characters of a message
HOME = re.compile(r"(\w+:)?(~.*)", re.DOTALL)  # a path, also behind `folder:`
REPEAT = ";\n    repeat this option"  # absl's own words behind the help of a repeatable flag
MISSING = re.compile(r"flag --(\w+)=None: ")  # absl's words for a required flag that is not given
ILLEGAL = re.compile(r"flag --(\w+)=(.*?): ", re.DOTALL)  # and for a value that does not parse
HELP = {f"{dashes}{name}" for dashes in ("-", "--") for name in ("help", "helpfull", "helpshort")} | {"-h"}
OPTION = re.compile(r"`(\w+)(=[^`]*)?`")  # an argument in Python, whose flag has its name
EXHAUSTED = "ResourceExhaustedError"  # of TensorFlow, which is not imported here
LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"  # of TensorFlow's libraries
NO_NOTICES = "3"  # the level that leaves what ends the process
NOTICES = r"[IWE]\d{4} |WARNING: All log messages before absl::"  # of its libraries while they are loaded
KERAS = {"backend": "tensorflow", "image_data_format": "channels_last"}  # settings of Keras that we need

# The text of flags that several commands have.
MAX_UNREADABLE = (
    "Largest share of a split's images that may fail to decode and are skipped; more end the command."
)

NAMES = (
    "Class names of the network's outputs, in order; its own by default. A file with one name a line, "
    "imagenet, or numbers: the dataset's first class is output 0, and so on, where class folders are in "
    "alphabetical order. Class folders named by numbers whose values have another order, such as 0, 1, 10, "
    "2, need a file."
)


_of_command: list[str] = []  # the names of the flags that are defined


def run(main: Callable[[list[str]], int | None], define: Callable[[], None]) -> None:
    """Runs a command: parses its flags, then calls `main(positional)`.

    Flags that do not parse end it with one sentence and exit code 2.

    Args:
        main: of the command.
        define: defines its flags.
    """
    module = sys.modules[main.__module__]
    for name in _of_command:  # that this process ran before
        delattr(flags.FLAGS, name)
    others = {*flags.FLAGS}
    define()
    _of_command[:] = {*flags.FLAGS} - others
    own = [flags.FLAGS[name] for name in _of_command]

    def parse(argv):
        if HELP & set(itertools.takewhile(lambda argument: argument != "--", argv[1:])):
            print(f"{(module.__doc__ or '').strip()}\n\n{_help(own)}")
            sys.exit(0)
        try:
            positional = flags.FLAGS(argv)
        except (flags.Error, ValueError) as error:  # absl has a ValueError for --noX=VALUE
            fail(_flag_error(error))
        for flag in own:  # shells expand no ~ behind a =
            if isinstance(flag.value, str) and (found := HOME.fullmatch(flag.value)):
                flag.value = (found[1] or "") + os.path.expanduser(found[2])
        return positional

    logging.disable(logging.INFO)  # TensorFlow's and Keras' notices would drown what a command prints
    notices = logging.getLogger("kvision")
    notices.addHandler(logging.StreamHandler())  # as they are, without absl's time and thread
    notices.propagate = False
    with _end_with_reader():
        app.run(lambda argv: main(argv[1:]), flags_parser=parse)


@contextlib.contextmanager
def _end_with_reader() -> Iterator[None]:
    """Ends the command without a traceback where nobody reads its output any more, such as `head`."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # which Python flushes once more
        sys.exit(1)


def _flag_error(error: Exception) -> str:
    """absl's message about a flag in our words."""
    text = str(error)
    if missing := MISSING.match(text):
        return f"`--{missing[1]}` is needed: {flags.FLAGS[missing[1]].help}"
    if isinstance(error, flags.UnrecognizedFlagError):
        near = re.search(r"Did you mean: (.*) \?", text)
        names = " or ".join(f"`--{name}`" for name in near[1].split(", ")) if near else ""
        return f"Unknown option `--{error.flagname}`." + (f" Did you mean {names}?" if near else "")
    if isinstance(error, flags.CantOpenFlagFileError):
        return f"`--flagfile` cannot be read: {sentence(error.__context__)}"
    if illegal := ILLEGAL.match(text):
        flag = flags.FLAGS[illegal[1]]
        choices = getattr(flag.parser, "enum_values", [])
        expected = f"one of {', '.join(choices)}" if choices else flag.parser.syntactic_help
        near = difflib.get_close_matches(illegal[2], choices, 1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"`--{flag.name}` must be {expected or 'true or false'}; got {illegal[2]!r}.{hint}"
    if missing := re.match(r"Missing value for flag --(\w+)", text):
        return f"`--{missing[1]}` needs a value: {flags.FLAGS[missing[1]].help}"
    return text


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
        raise UserError(
            f"Keras cannot be imported: {error}. The commands need its backend 'tensorflow' ({settings})."
        ) from error
    keras.config.set_floatx("float32")  # --precision says what is computed in, not keras.json
    for name, expected in KERAS.items():
        value = getattr(keras.config, name)()
        if value != expected:
            raise UserError(f"The setting {name!r} of Keras must be {expected!r}; got {value!r}. {settings}.")


def without_notices() -> contextlib.AbstractContextManager:
    """Leaves out what TensorFlow's libraries print at any level, unless a user chose another level."""
    quiet = os.environ.get(LOG_LEVEL, NO_NOTICES) == NO_NOTICES
    return without_lines(NOTICES) if quiet else contextlib.nullcontext()


def _help(own) -> str:
    lines = []
    for flag in own:
        many = ", ".join(flag.default) if isinstance(flag.default, list) else None
        default = str(flag.default_as_str or "").strip("'") if many is None else many
        choices = getattr(flag.parser, "enum_values", None)
        kind = f"={'|'.join(choices)}" if choices else "" if flag.boolean else f"={flag.name.upper()}"
        name = f"[no]{flag.name}" if flag.boolean else flag.name
        text = flag.help.partition(">: ")[2] or flag.help  # without absl's own list of choices
        shown_default = f" (default: {default})" if default else ""
        lines.append((flag.name, f"  --{name}{kind}\n      {text.partition(REPEAT)[0]}{shown_default}"))
    return "\n".join(line for _, line in sorted(lines))


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Turns bad input and what the system refuses into one sentence and exit code 2; a full disk, 75.

    Too little memory, of the machine or of a GPU, is such a refusal. Any other exception is a fault of ours
    and keeps its traceback.
    """
    try:
        yield
    except (UserError, OSError) as error:
        fail(error, os.EX_TEMPFAIL if getattr(error, "errno", None) in FULL_DISK else 2)
    except Exception as error:
        if not isinstance(error, MemoryError) and type(error).__name__ != EXHAUSTED:
            raise
        more = ", and so does a higher --accumulate" if "accumulate" in flags.FLAGS else ""
        reason = plain((str(error) or type(error).__name__).splitlines()[0])
        fail(f"Out of memory: smaller images and batches need less{more} ({reason}).")


def fail(error, code: int = 2) -> None:
    """Prints one sentence, of a few lines at the most, and ends the command."""
    print(f"{os.path.basename(sys.argv[0])}: {sentence(error)}", file=sys.stderr)
    sys.exit(code)


def sentence(error) -> str:
    """The message of an exception as one printable sentence; of an OSError, with the file it is about."""
    text = OPTION.sub(_as_flag, str(error))
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}{'' if error.filename is None else f': {error.filename!r}'}."
    text = shown(" ".join(text.split()))
    if len(text) > LONGEST:
        text = f"{text[: LONGEST * 3 // 4]} ... {text[-LONGEST // 4 :]}"
    return text


def _as_flag(argument: re.Match) -> str:
    """An argument in Python as the flag that has its name, if there is one."""
    name, value = argument[1], argument[2] or ""
    if name not in flags.FLAGS:
        return argument[0]
    return f"`--{name}{'' if value == '=True' else value}`"
