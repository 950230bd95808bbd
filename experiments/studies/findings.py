"""What a study makes of its records, and the parts that reports share."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from experiments.comparisons import (
    Row,
    Verdict,
    answer,
    comparison_table,
    delta,
    measured,
    rows_of,
    too_few_seeds,
)
from experiments.naming import label
from experiments.statistics import POWER
from experiments.tables import Table, markdown_table, mean_and_sd

ORDER = (Verdict.BETTER, Verdict.WORSE, Verdict.NO_PRACTICAL_DIFFERENCE, Verdict.NOT_SHOWN)


@dataclasses.dataclass(frozen=True)
class Claim:
    """What a study says about a claim, for the page of results.

    Attributes:
      source: where it is claimed, such as "figure 2".
      question: what was asked; of several studies that ask it of one data set, the page takes the
        answer with the most seeds.
      answer: yes, no, in part or not shown, from the verdicts of the comparisons alone.
      measured: the comparisons in numbers.
      n: number of seeds.
      headline: whether the page begins with it.
      data: what it is about, where that is not what the whole study is about.
    """

    source: str
    question: str
    answer: str
    measured: str
    n: int
    headline: bool = False
    data: str = ""

    @classmethod
    def of(cls, source: str, row: Row, *, headline: bool = False, data: str = "") -> "Claim":
        """What one comparison says about a claim that its treatment is higher."""
        return cls(source, row["question"], answer(row), measured(row), row["n"], headline, data)


@dataclasses.dataclass(frozen=True)
class Findings:
    """What a study makes of its records.

    Attributes:
      table: what the command line shows.
      summary: means over seeds.
      comparisons: the table of :mod:`experiments.comparisons`.
      figures: by the names of their files.
      report: paragraphs; the first one is the title.
      selections: the settings that a search selected, where the study is one.
      tables: what else is worth a file, by its name.
    """

    table: Table
    summary: pd.DataFrame
    comparisons: pd.DataFrame
    figures: Mapping[str, Figure]
    report: Sequence[str]
    selections: pd.DataFrame | None = None
    tables: Mapping[str, pd.DataFrame] = dataclasses.field(default_factory=dict)


def bullets(lines: Iterable[str]) -> str:
    """A list in Markdown."""
    return "\n".join(f"- {line}" for line in lines)


def compared(comparisons: pd.DataFrame, family: str) -> list[str]:
    """A family of comparisons as a table, and a note on p; nothing where there is none."""
    rows = rows_of(comparisons, family=family)
    if not rows:
        return []
    return [markdown_table(comparison_table(rows)), note_on_p(rows)]


def note_on_p(rows: Sequence[Row]) -> str:
    """What p-values are of, and whether there are too few seeds for them to become small."""
    margin = rows[0]["margin"]
    margin = "" if math.isnan(margin) else f"the verdict takes ±{margin:g}. "
    note = (
        f"p is from sign flips, adjusted by Holm over these {len(rows)} comparisons: one-sided for "
        f"*better*, two-sided for *worse*. *Equal within ±*: the smallest margin within which two "
        f"one-sided t-tests show equivalence; {margin}*Could "
        f"show*: the smallest true difference that this n and this spread show after Holm in "
        f"{POWER:.0%} of such studies."
    )
    return f"{note} {too_few_seeds(rows)}".strip()


def strongest(question: str, rows: Sequence[Row], family: Sequence[Row]) -> Claim:
    """The arm that is ahead of the treatment by most, and how the treatment fares with the others.

    Args:
      question: whether the treatment is better than that arm.
      rows: the treatment against each of the arms.
      family: all rows that p is adjusted over.
    """
    rival, *others = sorted(rows, key=lambda row: row["mean"])
    numbers = [f"{label(rival['control'])}: {measured(rival)}"]
    for verdict in Verdict:
        names = [
            f"{label(row['control'])} {delta(row)}" for row in others if row["verdict"] == verdict
        ]
        numbers += [f"{verdict} against {', '.join(names)}"] if names else []
    note = too_few_seeds(family)
    said = f"{answer(rival)}{'; ' + note[0].lower() + note[1:-1] if note else ''}"
    return Claim("central claim", question, said, "; ".join(numbers), rival["n"], headline=True)


def against_one(question: str, rows: Sequence[Row], data: str) -> Claim:
    """How many of several arms are better than one, the best of them, and how each of them fares.

    Args:
      question: whether others are better than that arm.
      rows: each of the others as the treatment, against that arm.
      data: what they were trained on.
    """
    by_verdict = {verdict: [row for row in rows if row["verdict"] == verdict] for verdict in ORDER}
    said = "; ".join(f"{verdict}: {len(of)}" for verdict, of in by_verdict.items() if of)
    best = max(rows, key=lambda row: row["mean"])
    numbers = [f"{label(best['treatment'])}: {measured(best)}"]
    for verdict, of in by_verdict.items():
        names = [f"{label(row['treatment'])} {delta(row)}" for row in of if row is not best]
        numbers += [f"{verdict}: {', '.join(names)}"] if names else []
    said = f"of {len(rows)} {said}"
    return Claim(
        "the leaderboard", question, said, "; ".join(numbers), best["n"], headline=True, data=data
    )


def summary_table(summary: pd.DataFrame, **conditions: tuple[str, str]) -> Table:
    """Final and best results of every arm.

    Args:
      summary: of the study.
      conditions: headers and formats of further columns of the summary.
    """
    names = [header for header, _ in conditions.values()]
    table = [["arm", *names, "rate", "final", "best", "final loss", "seeds", "s/seed"]]
    for row in summary.to_dict("records"):
        diverged = (
            f" ({row['diverged']} diverged, first in epoch {row['diverged_epoch']})"
            if row["diverged"]
            else ""
        )
        table.append(
            [
                label(row["arm"]),
                *(format(row[name], form) for name, (_, form) in conditions.items()),
                f"{row['learning_rate']:g}",
                mean_and_sd(row["final_mean"], row["final_sd"], 2),
                mean_and_sd(row["best_mean"], row["best_sd"], 2),
                mean_and_sd(row["final_loss_mean"], row["final_loss_sd"], 4),
                f"{row['n']}{diverged}",
                f"{row['seconds_mean']:.1f}",
            ]
        )
    return table
