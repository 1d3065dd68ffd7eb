"""kvision-info: the networks there are, or all about one.

kvision-info
kvision-info 'mobilenet*'
kvision-info efficientnet_b0
    kvision-info --markdown
"""

import dataclasses

import rich.console
import rich.table
from absl import flags

import kvision
from kvision import _cli

FLAGS = flags.FLAGS
flags.DEFINE_bool("markdown", False, "Print the list as a Markdown table.")


def main(positional):
    """Lists or describes."""
    with _cli.user_errors():
        if len(positional) > 1:
            raise ValueError(f"One name or pattern was expected; got {len(positional)}.")
        pattern = positional[0] if positional else "*"
        names = kvision.list_models(pattern)
        if not names:
            kvision.info(pattern)  # raises, with the nearest names
    if FLAGS.markdown:
        print(markdown(names))
    elif names == [pattern]:
        print(description(pattern))
    else:
        rich.console.Console(highlight=False).print(table(names))


def table(names: list[str]) -> rich.table.Table:
    """The networks with their parameters and input sizes."""
    rows = rich.table.Table()
    for column in ("model", "parameters", "input"):
        rows.add_column(column, justify="left" if column == "model" else "right")
    for name in names:
        variant = kvision.info(name).variant
        rows.add_row(name, f"{variant.params:,}", f"{variant.image_size} x {variant.image_size}")
    return rows


def markdown(names: list[str]) -> str:
    """The same as a Markdown table."""
    lines = ["| model | parameters | input |", "|---|---:|---:|"]
    for name in names:
        variant = kvision.info(name).variant
        lines.append(f"| `{name}` | {variant.params:,} | {variant.image_size} |")
    return "\n".join(lines)


def description(name: str) -> str:
    """A network's row, a column a line, and what its builder says."""
    variant = kvision.info(name).variant
    columns = "\n".join(
        f"  {key} = {value}" for key, value in dataclasses.asdict(variant).items() if key != "rows"
    )
    return f"{getattr(kvision.models, name).__doc__}\nRow of the table:\n{columns}"


def entry():
    """The console script."""
    _cli.run(main)


if __name__ == "__main__":
    entry()
