"""Terminal output of kvision-export: the table of an export, and the census of files."""

import sys
from collections.abc import Sequence
from pathlib import Path

import rich.box
import rich.console
import rich.table
import rich.text

from kvision import cli
from kvision.errors import UserError
from kvision.names import counted, shown
from kvision_export import latency
from kvision_export.census import Census, read
from kvision_export.judges import figures
from kvision_export.modes import REFERENCE


def print_table(report: dict, output: Path) -> None:
    """Prints the report of an export."""
    table = rich.table.Table(
        title=f"{report['model']} on {counted(report['images'], 'held-out ' + report['kind'])}",
        caption=f"times in ms with 1 and 2 threads, speed relative to {REFERENCE}",
        box=rich.box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    keras, score, measures = report["keras"], report["score"], report["measures"]
    columns = (
        "file",
        "kB",
        *([score] if keras else []),
        "agree",
        *(measure["title"] for measure in measures.values()),
        "1 thr",
        "2 thr",
        "speed",
        "",
    )
    for column in columns:
        table.add_column(column, justify="left" if column == "file" else "right", no_wrap=True)
    if keras:
        doubt = "DOUBT" if report["doubts"] else ""
        value = f"{100 * keras['scores'][score]['value']:.1f}"
        table.add_row("Keras", "", value, *[""] * (len(columns) - 4), doubt)
    for file in report["files"]:
        near, accuracy, ms = file["fidelity"], file["accuracy"], file["latency_ms"]
        table.add_row(
            file["mode"],
            f"{file['size'] / 1000:.0f}",
            *([f"{100 * accuracy['scores'][score]['value']:.1f}"] if keras else []),
            f"{100 * near['agreement']:.1f}",
            *figures(measures, near, file["mode"]),
            *map(latency.milliseconds, ms.values()),
            f"{file['float_latency_ms'][1] / ms[1]:.2f}",
            "" if not file["file"] else "FAIL" if file["refusal"] else "ok",
        )
    rich.console.Console(highlight=False).print(table)
    for sentence in (*report["remarks"], *report["doubts"]):
        print(shown(sentence))
    written = [file for file in report["files"] if file["file"]]
    for file in written:
        if file["census"]["input"]["dtype"] == "int8":
            print(f"{file['mode']}: {file['census']['metadata']['image']}")
        for warning in file["warnings"]:
            print(f"{file['mode']}: {warning}")
    accepted = [file for file in written if not file["refusal"]]
    advice = f" Use {min(accepted, key=lambda file: file['size'])['file']}." if accepted else ""
    for file in written:
        if file["refusal"]:
            print(f"{file['file']} is outside its tolerance: {file['refusal']}.{advice}")
    print(f"Written to {output}; the report is {output / 'report.html'}.")


def check(paths: Sequence[str]) -> int:
    """Prints the census of files; returns 1 where one has a fault.

    Raises:
        UserError, OSError: a file cannot be read; this is the last of such errors, the others are printed.
    """
    console, code, unreadable = rich.console.Console(highlight=False), 0, []
    for path in paths:
        try:
            census = read(Path(path))
        except (UserError, OSError) as error:
            unreadable.append(error)
            continue
        table = rich.table.Table(title=rich.text.Text(str(path)), show_header=False, title_justify="left")
        for name, value in census_rows(census):
            table.add_row(name, rich.text.Text(value))
        console.print(table)
        code = code or int(bool(census.faults))
    for error in unreadable[:-1]:
        print(cli.sentence(error), file=sys.stderr)
    if unreadable:
        raise unreadable[-1]
    return code


def census_rows(census: Census) -> list[tuple[str, str]]:
    """Rows of the table that `--check` prints."""
    described = dict(census.metadata)
    labels = described.pop("labels", [])
    accelerated = {True: "fully accelerated", False: "not fully accelerated", None: "not compiled here"}
    computed = (
        ", ".join(f"{sum(counts.values())} in {kind}" for kind, counts in census.computed_in.items())
        + "; weights: "
        + (", ".join(f"{count} {kind}" for kind, count in census.stored_as.items()) or "none")
    )
    return [
        ("faults", " ".join(census.faults) or "none"),
        ("operators", ", ".join(f"{count} {name}" for name, count in census.operators.items())),
        ("computed", computed),
        ("oldest runtime", f"TFLite {census.runtime}" if census.runtime else "not in the table"),
        ("bytes", ", ".join(f"{size:,} of {name}" for name, size in census.sections.items())),
        ("XNNPACK", f"partitions: {census.partitions}; left out: "
         + (", ".join(f"{count} {name}" for name, count in census.left_out.items()) or "nothing")),
        ("CompiledModel", accelerated[census.accelerated]),
        ("GPU", census.gpu or "not analysed"),
        ("metadata", "; ".join(f"{key} {value}" for key, value in described.items() if value) or "none"),
        ("labels", f"{len(labels)}: {', '.join(labels[:5])}" + ", ..." * (len(labels) > 5)),
    ]  # fmt: skip
