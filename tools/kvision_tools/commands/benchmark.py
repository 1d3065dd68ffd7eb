"""kvision-benchmark: times training, input or the forward pass on this machine, beside peers.

    kvision-benchmark train --model=resnet50 --against=keras,timm
    kvision-benchmark train --model=lraspp_mobilenet_v3_large --image_size=256 --against=torchvision
    kvision-benchmark data --data=folder:PATH --image_size=224 --batch_size=32 --against=keras
    kvision-benchmark forward --model=efficientnet_b0 --against=keras --csv=forward.csv

The libraries take turns, each turn in a process of its own; a figure is the median of its turns, beside which
stand the fastest and the slowest. keras is the network of keras.applications under Model.fit (our own network
where it has none), and image_dataset_from_directory with RandomCrop and RandomFlip; timm is its network and
loader on PyTorch, channels last; torchvision is its network for segmentation or detection and yolox that of
YOLOX' authors, the same way. What detectors answer with includes the suppression of boxes.
"""

import contextlib
import csv
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import rich.console
import rich.table
from absl import flags

import kvision
from kvision import cli
from kvision.errors import UserError
from kvision.files import replacing
from kvision_tools.peers import PEERS, check_peer, timm_name

FLAGS = flags.FLAGS
KINDS = ("train", "data", "forward")
AGAINST = ("keras", "timm", "torchvision", "yolox")
OF_PYTORCH = AGAINST[1:]
TURN = Path(__file__).parents[1] / "turn.py"


def define():
    """Defines the flags."""
    flags.DEFINE_multi_string(
        "model", ["mobilenet_v2"], "Name of a network, as kvision-info lists it; repeatable."
    )
    flags.DEFINE_list("against", [], f"Peers to time beside: {', '.join(AGAINST)}; several with commas.")
    flags.DEFINE_string(
        "data", None, "Dataset of the data benchmark: folder:PATH, with a folder of images for each class."
    )
    flags.DEFINE_integer("image_size", 160, "Height and width in pixels.", 1, cli.LARGEST_IMAGE)
    flags.DEFINE_integer("channels", 3, "Channels of the input: 3 for RGB, 1 for grey.")
    flags.DEFINE_integer("batch_size", 16, "Number of images in a step.", 1)
    flags.DEFINE_integer("steps", 20, "Number of steps that are timed in a turn.", 1)
    flags.DEFINE_integer("turns", 3, "Number of turns of each library.", 1)
    flags.DEFINE_string(
        "pytorch_python",
        sys.executable,
        "Python interpreter of an environment that has PyTorch, and timm, torchvision or yolox.",
    )
    flags.DEFINE_string("csv", None, "CSV file to which the table is written.")


def main(positional):
    """Runs the benchmark of the flags."""
    with cli.user_errors():
        if len(positional) != 1 or positional[0] not in KINDS:
            got = f"; got {' '.join(positional)!r}" if positional else ""
            raise UserError(f"The first word says what is timed, one of {', '.join(KINDS)}{got}.")
        kind = positional[0]
        allowed = PEERS["classification"] if kind == "data" else AGAINST
        if unknown := set(FLAGS.against) - {*allowed}:
            raise UserError(f"`against` takes {', '.join(allowed)}; got {', '.join(sorted(unknown))!r}.")
        if kind == "data" and not (FLAGS.data or "").startswith("folder:"):
            raise UserError(f"`--data=folder:PATH` is what all libraries read; got {FLAGS.data!r}.")
        cli.import_keras()
        models = [] if kind == "data" else FLAGS.model
        for name in models:
            kvision.info(name)  # raises, with the nearest names
            for peer in FLAGS.against:
                check_peer(peer, name)
        peers = {name: timm_name(name) for name in models if "timm" in FLAGS.against}
        check_interpreter()
        names: list[str] = models or [FLAGS.data]
        rows = []
        for name in names:
            rows += compare(kind, name, peers.get(name, name))
            show(kind, rows[-1 - len(FLAGS.against) :])
        if FLAGS.csv:
            with replacing(Path(FLAGS.csv)) as tmp_path, open(tmp_path, "w", newline="") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(rows)


def compare(kind: str, name: str, name_in_timm: str) -> list[dict]:
    """Rows of medians, first that of kvision; `speed` is its speed over the other library's."""
    turns = {library: [] for library in ("kvision", *FLAGS.against)}
    for _ in range(FLAGS.turns):
        for library, its_turns in turns.items():
            its_turns.append(take_turn(library, kind, name_in_timm if library == "timm" else name))
    rows = []
    for library, its_turns in turns.items():
        first, step = (statistics.median(turn[key] for turn in its_turns) for key in ("first", "step"))
        steps = [turn["step"] for turn in its_turns]
        base = rows[0] if rows else {"step_seconds": step, "first_seconds": first}
        rows.append(
            {
                "what": name,
                "library": library,
                "step_seconds": round(step, 6),
                "step_seconds_least": round(min(steps), 6),
                "step_seconds_most": round(max(steps), 6),
                "images_per_second": round(FLAGS.batch_size / step, 1),
                "first_seconds": round(first, 3),
                "speed": round(step / base["step_seconds"], 3),
                "speed_first": round(first / base["first_seconds"], 3),
                "processor": processor(),
            }
        )
    return rows


def check_interpreter():
    """Checks that the interpreter of the peers on PyTorch has them, before any library takes its turn."""
    for library in [name for name in OF_PYTORCH if name in FLAGS.against]:
        try:
            result = run([FLAGS.pytorch_python, "-c", f"import {library}, torch; print('both')"])
            reason = last_line(result) if result.returncode else "it is another program"
        except OSError as error:
            result, reason = None, error.strerror
        if not result or result.stdout.split() != ["both"]:
            raise UserError(
                f"`pytorch_python` must be a Python interpreter with PyTorch and {library}; got "
                f"{FLAGS.pytorch_python!r}: {reason}."
            )


def run(arguments: list[str]) -> subprocess.CompletedProcess:
    """Runs a program to its end."""
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def last_line(result: subprocess.CompletedProcess) -> str:
    """The last line of what a program that failed said, or its exit code, or the signal that ended it."""
    if result.returncode < 0:
        return f"it was ended by {signal.Signals(-result.returncode).name}"
    lines = result.stderr.strip().splitlines()
    return lines[-1] if lines else str(result.returncode)


def take_turn(library: str, kind: str, name: str) -> dict:
    """Seconds of a turn of a library: "first" and "step"."""
    numbers = (FLAGS.image_size, FLAGS.channels, FLAGS.batch_size, FLAGS.steps)
    interpreter = FLAGS.pytorch_python if library in OF_PYTORCH else sys.executable
    data = [FLAGS.data] if kind == "data" else []
    result = run([interpreter, str(TURN), library, kind, name, *map(str, numbers), *data])
    if result.returncode:
        raise UserError(f"The turn of {library} failed: {last_line(result)}")
    return json.loads(result.stdout.splitlines()[-1])


def processor() -> str:
    """Name of this machine's processor, and the number of cores that this process may use."""
    with contextlib.suppress(OSError):
        name = re.search(r"^model name\s*: (.+)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if name:
            return f"{name[1]}, {len(os.sched_getaffinity(0))} cores"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def show(kind, rows):
    """Prints the rows; a speed above 1 says how many times as fast kvision is."""
    table = rich.table.Table(
        "",
        "library",
        "a batch" if kind == "data" else "a step",
        "turns",
        "images/s",
        "first",
        "kvision is",
    )
    for row in rows:
        table.add_row(
            row["what"],
            row["library"],
            f"{1000 * row['step_seconds']:.1f} ms",
            f"{1000 * row['step_seconds_least']:.0f} to {1000 * row['step_seconds_most']:.0f}",
            f"{row['images_per_second']:.0f}",
            f"{row['first_seconds']:.2f} s",
            "" if row["library"] == "kvision" else f"{row['speed']:.2f} x as fast",
        )
    rich.console.Console(highlight=False).print(table)
    print(f"Processor: {rows[0]['processor']}")


def entry():
    """The console script."""
    cli.run(main, define)


if __name__ == "__main__":
    entry()
