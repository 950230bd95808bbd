"""What records could have shown: ``python -m experiments power --out DIR``."""

import math
from pathlib import Path

import pandas as pd
from rich.console import Console

from experiments.comparisons import delta, pair, rows_of
from experiments.records import RecordError
from experiments.statistics import POWER
from experiments.tables import Table, show

COMPARISONS = "comparisons.csv"


def main(out: Path) -> None:
    """What the comparisons of a study could have shown with their seeds and spread.

    Args:
      out: folder of a finished study.

    Raises:
      RecordError: there are no comparisons in it.
    """
    path = out / COMPARISONS
    try:
        words = dict.fromkeys(("family", "question", "condition"), str)
        found = pd.read_csv(path, dtype=words).fillna(dict.fromkeys(words, ""))
        table = power_table(found)
    except (OSError, ValueError, KeyError) as error:
        raise RecordError(
            f"{path} is no table of comparisons ({error}); --out names the folder of a finished "
            "study, and `python -m experiments.report` writes the table of an old one anew."
        ) from error
    console = Console()
    show(table, console)
    console.print(
        f"could show: the smallest true difference that is shown after Holm in {POWER:.0%} of such "
        "studies. seeds for margin: how many show a difference of the margin as often.",
        highlight=False,
    )


def power_table(found: pd.DataFrame) -> Table:
    """One row per comparison."""
    table = [["family", "treatment − control", "condition", "Δ", "n", "spread", "could show"]]
    table[0] += ["margin", "seeds for margin"]
    for row in rows_of(found):
        margin = row["margin"]
        table.append(
            [
                str(row["family"]),
                pair(row),
                str(row["condition"]),
                delta(row).removeprefix("Δ "),
                f"{row['n']}",
                f"{row['sd']:.2f}",
                f"{row['detectable']:.2f}" if math.isfinite(row["detectable"]) else "nothing",
                "" if math.isnan(margin) else f"{margin:g}",
                "" if math.isnan(margin) else f"{row['seeds_for_margin']:.0f}",
            ]
        )
    return table
