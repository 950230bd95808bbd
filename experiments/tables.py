"""Tables for readers: in Markdown and on a terminal."""

import math

import rich.measure
import rich.table
from rich.console import Console

Table = list[list[str]]  # the first row is the header


def markdown_table(table: Table) -> str:
    """A table as Markdown.

    >>> print(markdown_table([["arm", "n"], ["SGD", "5"]]))
    | arm | n |
    |---|---|
    | SGD | 5 |
    """
    header, *rows = table
    ruler = "|" + "|".join("---" for _ in header) + "|"
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, *rows)]
    return "\n".join([lines[0], ruler, *lines[1:]])


def mean_and_sd(mean: float, sd: float, digits: int) -> str:
    """``mean ± sd``, or the mean alone where one seed gives no deviation."""
    text = f"{mean:.{digits}f}"
    return text if math.isnan(sd) else f"{text} ± {sd:.{digits}f}"


def show(table: Table, console: Console) -> None:
    """Prints a table; the first column is never cut, and in a log no other one is either."""
    header, *rows = table
    printed = rich.table.Table()
    for number, name in enumerate(header):
        printed.add_column(name, no_wrap=number == 0, overflow="fold")
    for row in rows:
        printed.add_row(*row)
    if not console.is_terminal:  # a log is as wide as it needs to be
        wide = console.options.update(max_width=10_000)
        needed = rich.measure.Measurement.get(console, wide, printed).maximum
        console.width = max(console.width, needed)
    console.print(printed)
