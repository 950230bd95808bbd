"""The answers of a study: one row per comparison, computed here alone and rendered everywhere.

A study asks its questions with `compare`, and `table` adds what depends on all of them: p-values
adjusted by Holm over each family, and the verdicts. `comparisons.csv` is that table. Reports and
the page of results render its rows with `comparison_table`, `measured` and `answer`.
"""

import dataclasses
import enum
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from experiments.naming import label
from experiments.statistics import (
    ALPHA,
    MARGIN,
    POWER,
    holm,
    paired_comparison,
    seeds_needed,
    smallest_difference,
    smallest_p,
)
from experiments.tables import Table

ACCURACY = "final test accuracy"
COLUMNS = (
    *("family", "question", "condition"),
    *("treatment", "treatment_rate", "control", "control_rate", "metric"),
    *("n", "mean", "sd", "interval_low", "interval_high", "d_z", "share_won"),
    *("p_greater", "p_two_sided", "p_greater_holm", "p_two_sided_holm"),
    *("p_equivalence", "margin", "smallest_margin", "verdict"),
    *("detectable", "seeds_for_margin"),
)
Row = Mapping[Hashable, Any]  # of the table of comparisons


class Verdict(enum.StrEnum):
    """What a comparison shows."""

    NO_PRACTICAL_DIFFERENCE = "no difference of practical size"
    BETTER = "better"
    WORSE = "worse"
    NOT_SHOWN = "not shown"


@dataclasses.dataclass(frozen=True)
class Sample:
    """What was measured of one arm at one learning rate.

    Attributes:
      arm: its name.
      learning_rate: the one it ran with.
      by_seed: a value per seed, higher where it is better; in percent where it is an accuracy.
      metric: what the values are.
      margin: the largest difference of no practical size; nan where there is none.
    """

    arm: str
    learning_rate: float
    by_seed: "pd.Series[float]"
    metric: str = ACCURACY
    margin: float = MARGIN


def compare(
    question: str,
    treatment: Sample,
    control: Sample,
    *,
    family: str,
    condition: str = "",
) -> dict[str, Any]:
    """One row: two arms on the seeds that both have.

    Args:
      question: what is asked; the page gives one answer per question and data set.
      treatment: the arm that is asked about.
      control: the arm that it is compared with.
      family: the questions that are adjusted together.
      condition: under which circumstances, where the study has several.
    """
    seeds = treatment.by_seed.index.intersection(control.by_seed.index)
    margin = treatment.margin
    statistics = dataclasses.asdict(
        paired_comparison(
            treatment.by_seed[seeds].to_numpy(),
            control.by_seed[seeds].to_numpy(),
            margin=MARGIN if math.isnan(margin) else margin,
        )
    )
    if math.isnan(margin):
        statistics |= dict.fromkeys(("p_equivalence", "margin", "smallest_margin"), math.nan)
    names = {
        "family": family,
        "question": question,
        "condition": condition,
        "treatment": treatment.arm,
        "treatment_rate": treatment.learning_rate,
        "control": control.arm,
        "control_rate": control.learning_rate,
        "metric": treatment.metric,
    }
    return {**names, **statistics}


def compare_differences(
    question: str,
    here: tuple[Sample, Sample],
    there: tuple[Sample, Sample],
    *,
    family: str,
    condition: str,
) -> dict[str, Any]:
    """One row: how much larger the difference of two arms is here than there."""
    treatment, control = (
        dataclasses.replace(
            side,
            by_seed=(first.by_seed - second.by_seed).dropna(),
            metric=f"difference in {side.metric}",
        )
        for side, (first, second) in zip(here, (here, there), strict=True)
    )
    return compare(question, treatment, control, family=family, condition=condition)


def table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """All comparisons of a study, with adjusted p-values and verdicts."""
    frame = pd.DataFrame(list(rows), columns=[*COLUMNS])
    for p in ("p_greater", "p_two_sided"):
        frame[f"{p}_holm"] = frame.groupby("family", sort=False)[p].transform(
            lambda of_family: holm(of_family.to_numpy())
        )
    judged = frame.to_dict("records")
    tests = frame["family"].map(frame["family"].value_counts()).to_list()
    frame["verdict"] = [str(judge(row)) for row in judged]
    frame["detectable"] = [
        # The last digits of a noncentral t depend on the version of SciPy.
        float(f"{smallest_difference(row['n'], row['sd'], tests=m):.6g}")
        for row, m in zip(judged, tests, strict=True)
    ]
    frame["seeds_for_margin"] = [
        seeds_needed(row["sd"], row["margin"], tests=m)
        for row, m in zip(judged, tests, strict=True)
    ]
    return frame


def judge(row: Row) -> Verdict:
    """Names what a comparison shows about the question whether the treatment is higher.

    In this order: a difference that two one-sided t-tests place inside ±margin is of no practical
    size, be it significant or not; the treatment is better where the one-sided p-value is at most
    0.05, and worse where the two-sided one is and the mean is below zero, both adjusted by Holm
    over the family; otherwise nothing is shown.
    """
    if row["p_equivalence"] <= ALPHA:
        return Verdict.NO_PRACTICAL_DIFFERENCE
    if row["p_greater_holm"] <= ALPHA:
        return Verdict.BETTER
    if row["p_two_sided_holm"] <= ALPHA and row["mean"] < 0:
        return Verdict.WORSE
    return Verdict.NOT_SHOWN


def rows_of(frame: pd.DataFrame, **where: Any) -> list[Row]:
    """The rows of a table with some values in some columns, in order."""
    for column, value in where.items():
        frame = frame[frame[column].isin(value if isinstance(value, tuple | list) else [value])]
    return [*frame.to_dict("records")]


def delta(row: Row) -> str:
    """The difference and its interval.

    >>> delta({"mean": -0.001, "interval_low": -0.2, "interval_high": 0.104})
    'Δ +0.00 [-0.20, +0.10]'
    """
    if math.isnan(row["interval_low"]):
        return f"Δ {row['mean']:+z.2f}"
    return f"Δ {row['mean']:+z.2f} [{row['interval_low']:+z.2f}, {row['interval_high']:+z.2f}]"


def measured(row: Row) -> str:
    """The difference with the p-value that decides about it and the number of seeds."""
    what = "" if ACCURACY in row["metric"] else f"{row['metric']}: "
    return f"{what}{delta(row)}, {_p_value(row)}, n = {row['n']}"


def answer(row: Row) -> str:
    """What the row says about a claim that the treatment is higher."""
    match Verdict(row["verdict"]):
        case Verdict.BETTER:
            return "yes"
        case Verdict.WORSE:
            return "no: the opposite"
        case Verdict.NO_PRACTICAL_DIFFERENCE:
            return f"no: no difference of practical size (within ±{row['margin']:g})"
        case Verdict.NOT_SHOWN:
            return "not shown"


def answer_of_all(rows: Sequence[Row]) -> str:
    """What several rows say about a claim that the treatment is higher in each of them."""
    verdicts = [Verdict(row["verdict"]) for row in rows]
    shown = verdicts.count(Verdict.BETTER)
    if shown == len(rows):
        return "yes"
    if shown:
        return f"in part: {shown} of {len(rows)}"
    worse = verdicts.count(Verdict.WORSE)
    return f"no: the opposite in {worse} of {len(rows)}" if worse else "not shown"


def too_few_seeds(rows: Sequence[Row]) -> str:
    """What says that so few seeds cannot show every difference of a family, however large.

    >>> too_few_seeds([{"n": 3}])
    'With 3 seeds, p of 1 comparison cannot fall below 0.12, two-sided 0.25.'
    """
    n = min(row["n"] for row in rows)
    floor = smallest_p(n) * len(rows)
    if 2 * floor <= ALPHA:
        return ""
    several = "" if n == 1 else "s", "" if len(rows) == 1 else "s"
    return (
        f"With {n} seed{several[0]}, p of {len(rows)} comparison{several[1]} cannot fall below "
        f"{min(1, floor):.2g}, two-sided {min(1, 2 * floor):.2g}."
    )


def could_show(rows: Sequence[Row]) -> str:
    """The smallest true differences that comparisons could have shown, be they found or not.

    >>> could_show([{"metric": ACCURACY, "detectable": size} for size in (0.482, 0.21)])
    'could show 0.21 to 0.48 points at 80% power'
    >>> could_show([{"metric": ACCURACY, "detectable": math.inf}])
    'too few seeds to show any difference'
    """
    sizes = [row["detectable"] for row in rows if math.isfinite(row["detectable"])]
    if not sizes:
        return "too few seeds to show any difference" if rows else ""
    ends = dict.fromkeys(f"{size:.2g}" for size in (min(sizes), max(sizes)))
    metric = rows[0]["metric"]
    unit = "points" if ACCURACY in metric else f"({metric})"
    mute = len(rows) - len(sizes)
    few = f", too few seeds for {mute} of {len(rows)}" if mute else ""
    return f"could show {' to '.join(ends)} {unit} at {POWER:.0%} power{few}"


def comparison_table(rows: Sequence[Row]) -> Table:
    """Every comparison with its difference, adjusted p-values and verdict, as readers see it."""
    where = ["condition"] if any(row["condition"] for row in rows) else []
    measures = ["Δ", "d_z", "won", "p", "two-sided p", "equal within ±", "could show", "verdict"]
    table = [["treatment − control", *where, *measures]]
    for row in rows:
        table.append(
            [
                pair(row),
                *(row[name] for name in where),
                delta(row).removeprefix("Δ "),
                f"{row['d_z']:+.2f}",
                f"{row['share_won']:.0%} of {row['n']}",
                f"{row['p_greater_holm']:.2g}",
                f"{row['p_two_sided_holm']:.2g}",
                f"{row['smallest_margin']:.2f}",
                f"{row['detectable']:.2f}" if math.isfinite(row["detectable"]) else "nothing",
                row["verdict"],
            ]
        )
    return table


def pair(row: Row) -> str:
    """The two arms of a comparison."""
    return f"{label(row['treatment'])} − {label(row['control'])}"


def _p_value(row: Row) -> str:
    """The adjusted p-value of the side on which the mean lies."""
    one_sided = row["mean"] >= 0
    p = row["p_greater_holm" if one_sided else "p_two_sided_holm"]
    value = "< 0.001" if p < 0.001 else f"= {p:.2g}"
    return f"p {value}" if one_sided else f"two-sided p {value}"
