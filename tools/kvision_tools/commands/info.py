"""kvision-info: the networks there are, or all about one.

kvision-info
kvision-info 'mobilenet*'
kvision-info efficientnet_b0
kvision-info --markdown
"""

import dataclasses
import importlib

import rich.console
import rich.table
from absl import flags

import kvision
from kvision import cli
from kvision.errors import UserError

FLAGS = flags.FLAGS


def define():
    """Defines the flags."""
    flags.DEFINE_bool("markdown", False, "Whether the list is printed as a Markdown table.")


def main(positional):
    """Lists or describes."""
    with cli.user_errors():
        if len(positional) > 1:
            raise UserError(f"One name or pattern was expected; got {len(positional)}.")
        cli.import_keras()
        pattern = positional[0] if positional else "*"
        names = kvision.list_models(pattern)
        if not names:
            kvision.info(pattern)  # raises, with the nearest names
    console = rich.console.Console(highlight=False)
    if FLAGS.markdown:
        print(markdown(names))
    elif names == [pattern]:
        print(description(pattern))
        if kvision.info(pattern).weights:
            console.print(weights_table(pattern))
        else:
            print("It has no published weights.")
    else:
        console.print(table(names))


def table(names: list[str]) -> rich.table.Table:
    """The networks with their parameters and input sizes."""
    rows = rich.table.Table()
    for column in ("model", "task", "trainable parameters", "input"):
        rows.add_column(column, justify="right" if column in ("trainable parameters", "input") else "left")
    for name in names:
        info = kvision.info(name)
        rows.add_row(name, info.task, f"{info.variant.params:,}", info.variant.input_text)
    return rows


def markdown(names: list[str]) -> str:
    """The same as a Markdown table."""
    lines = ["| model | task | trainable parameters | input |", "|---|---|---:|---:|"]
    for name in names:
        info = kvision.info(name)
        lines.append(f"| `{name}` | {info.task} | {info.variant.params:,} | {info.variant.input_text} |")
    return "\n".join(lines)


def description(name: str) -> str:
    """A network's row, a column a line, and what its builder says."""
    variant = kvision.info(name).variant
    package = importlib.import_module(type(variant).__module__.rpartition(".")[0])
    columns = "\n".join(
        f"  {key} = {value}" for key, value in dataclasses.asdict(variant).items() if key != "rows"
    )
    return f"{getattr(package, name).__doc__}\nRow of the table:\n{columns}"


def weights_table(name: str) -> rich.table.Table:
    """A network's published checkpoints, the default one marked."""
    rows = rich.table.Table(title="Weights (* is imagenet)")
    score = {"segmentation": "mIoU %", "detection": "AP %"}.get(kvision.info(name).task, "top-1 %")
    for column in ("tag", score, "at", "classes", "license", "keywords"):
        rows.add_column(column, overflow="fold", no_wrap=column == "tag")
    for row in kvision.info(name).weights:
        published = row.top1 or row.miou or row.ap
        rows.add_row(
            f"{row.tag}{' *' if row.default else ''}",
            f"{published:.2f}" if published else "",
            str(row.top1_size or row.input_size),
            str(row.num_classes or ""),
            row.license or "not stated",
            ", ".join(f"{key}={value!r}" for key, value in (row.columns or {}).items()),
        )
    return rows


def entry():
    """The console script."""
    cli.run(main, define)


if __name__ == "__main__":
    entry()
