"""A study before it runs: its training runs, what they take, and what they could show."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments import tasks
from experiments.cells import Cell
from experiments.comparisons import rows_of
from experiments.naming import find_arm, label
from experiments.statistics import POWER, smallest_difference
from experiments.step_records import NORMS
from experiments.studies.base import FIRST_TUNING_SEED, Study
from experiments.studies.dynamics import histogram_columns
from experiments.tables import Table, markdown_table

STATISTICS = (
    *("alpha_mean", "alpha_std", "alpha_min", "alpha_max"),
    *("fraction_at_min", "fraction_at_max", "fraction_negative"),
)
PLAN, PLAN_DATA = "plan.md", "plan.json"


class Rehearsal:
    """In place of a runner: remembers the cells that a study asks for, and makes their rows up.

    What is made up is best at each arm's default learning rate, so that no search goes on beyond
    its budget.
    """

    def __init__(self) -> None:
        self.cells: dict[Cell, None] = {}

    def __call__(self, cells: Sequence[Cell]) -> pd.DataFrame:
        """Rows of all cells, made up."""
        self.cells |= dict.fromkeys(cells)
        return pd.DataFrame([row for cell in cells for row in _made_up(cell)])

    def step_times(self, cells: Sequence[Cell]) -> pd.DataFrame:
        """A step of every arm, of one second."""
        return pd.DataFrame(
            [
                {
                    "task": cell.workload.task,
                    "batch_size": cell.workload.batch_size,
                    "examples": 1,
                    "arm": cell.arm,
                    "seconds": 1.0,
                }
                for cell in cells
            ]
        )


def _made_up(cell: Cell) -> list[dict[str, Any]]:
    metric = tasks.find_task(cell.workload.task).metric
    away = abs(math.log10(cell.learning_rate / find_arm(cell.arm).learning_rate))
    draw = np.random.default_rng([cell.seed, *cell.arm.encode()]).random()
    value = 0.9 - metric.sign * (0.1 * away + 0.01 * draw)
    kept = list[str]()
    if cell.workload.diagnostics:
        kept += [*STATISTICS, *NORMS.values()]
    if cell.workload.diagnostics == "per_leaf":
        kept += [*(f"{name}/kernel" for name in STATISTICS), *histogram_columns("kernel")]
    return [
        {
            **cell.fields(),
            "epoch": epoch,
            "train_loss": 1.0,
            "test_loss": 1.0,
            metric.column: value,
            "seconds": 1.0,
            **dict.fromkeys(kept, 1.0),
        }
        for epoch in range(1, cell.workload.epochs + 1)
    ]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a study will do.

    Attributes:
      runs: one row per task, arm and purpose: training runs, epochs, those that are finished
        already, and core-hours of the others.
      families: one row per family of comparisons: hypotheses, seeds, and the smallest difference
        that can be shown, in standard deviations of the paired differences.
    """

    runs: pd.DataFrame
    families: pd.DataFrame

    def tables(self) -> list[Table]:
        """Both, for readers."""
        runs: Table = [["task", "arm", "for", "runs", "finished", "epochs to go", "core-hours"]]
        for row in self.runs.to_dict("records"):
            runs.append(
                [
                    tasks.find_task(row["task"]).title,
                    label(row["arm"]),
                    row["purpose"],
                    *(f"{row[name]}" for name in ("runs", "finished", "epochs")),
                    f"{row['core_hours']:.2f}",
                ]
            )
        counts = [f"{self.runs[name].sum()}" for name in ("runs", "finished", "epochs")]
        runs.append(["all", "", "", *counts, f"{self.runs['core_hours'].sum():.2f}"])
        families: Table = [["family", "hypotheses", "seeds", "smallest difference"]]
        for row in self.families.to_dict("records"):
            shown = (
                "none: too few seeds for so many"
                if math.isinf(row["smallest"])
                else f"{row['smallest']:.2f} standard deviations of the paired differences"
            )
            families.append([row["family"], f"{row['hypotheses']}", f"{row['n']}", shown])
        return [runs, families]


def make_plan(
    cells: Sequence[Cell], found: pd.DataFrame, finished: set[Cell], times: pd.DataFrame
) -> Plan:
    """The plan of a study.

    Args:
      cells: that the study asks for.
      found: its comparisons of made-up results: their families and numbers of seeds.
      finished: cells on record or in the store.
      times: of steps, as a runner measures them.
    """
    named = ["task", "batch_size", "arm"]
    of_step = {
        tuple(row[name] for name in named): (row["seconds"], row["examples"])
        for row in times.to_dict("records")
    }
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for cell in cells:
        tuning = cell.seed >= FIRST_TUNING_SEED
        key = cell.workload.task, cell.arm, "search" if tuning else "result"
        empty = {"runs": 0, "finished": 0, "epochs": 0, "core_hours": 0.0}
        names = dict(zip(("task", "arm", "purpose"), key, strict=True))
        row = rows.setdefault(key, {**names, **empty})
        row["runs"] += 1
        if cell in finished:
            row["finished"] += 1
            continue
        of = cell.workload
        seconds, examples = of_step[of.task, of.batch_size, cell.arm]
        share = of.fraction * (1 - tasks.VALIDATION_SHARE if of.split == "validation" else 1)
        steps = of.epochs * math.ceil(share * examples / of.batch_size)
        row["epochs"] += of.epochs
        row["core_hours"] += seconds * steps / 3600
    families = [
        {
            "family": family,
            "hypotheses": len(of_family),
            "n": min(row["n"] for row in of_family),
            "smallest": smallest_difference(
                min(row["n"] for row in of_family), 1.0, tests=len(of_family)
            ),
        }
        for family in dict.fromkeys(found["family"])
        if (of_family := rows_of(found, family=family))
    ]
    return Plan(
        pd.DataFrame(rows.values()),
        pd.DataFrame(families, columns=["family", "hypotheses", "n", "smallest"]),
    )


def write_plan(plan: Plan, study: Study, folder: Path) -> None:
    """Writes a plan down, to be committed before the study runs."""
    runs, families = plan.tables()
    text = [
        f"# Plan: {study.name}, {study.title}",
        markdown_table(runs),
        "Core-hours are the time of a step, measured on one device, times the steps; they leave "
        "out compilation and evaluation. Where the best trial of a search lies at an edge, it has "
        "more trials than are counted here.",
        markdown_table(families),
        f"*Smallest difference*: what is shown after Holm with a probability of {POWER:.0%}.",
    ]
    data = {
        "study": study.name,
        "configuration": {**study.configuration(), "arms": study.arms, "seeds": study.seeds},
        "runs": plan.runs.to_dict("records"),
        "families": plan.families.to_dict("records"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PLAN).write_text("\n\n".join(text) + "\n", "utf-8")
    (folder / PLAN_DATA).write_text(json.dumps(data, indent=1, default=str) + "\n", "utf-8")
