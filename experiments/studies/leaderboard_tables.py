"""The tables of the leaderboard: what was tried, what was selected, steps to the target."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from experiments.naming import label
from experiments.tables import Table
from experiments.tasks import find_task
from experiments.trials import Chosen, budget_curve
from experiments.tuning import Search, Values

SURE = (
    "*Sure*: the bootstrap probability over the tuning seeds that the chosen trial is the best of "
    "those tried. *At an edge*: settings whose best value is the lowest or the highest that was "
    "tried."
)


def trials_table(tried: Search, values: Values) -> pd.DataFrame:
    """Every trial with its result per tuning seed."""
    return pd.DataFrame(
        {
            "task": task,
            "arm": arm,
            "trial": number,
            **trial.values(),
            **{f"seed_{i}": value for i, value in enumerate(values[task, arm][trial])},
        }
        for (task, arm), trials in tried.items()
        for number, trial in enumerate(trials)
    )


def budget_table(tried: Search, values: Values, budget: int) -> pd.DataFrame:
    """The expected result of the best of k trials; of the trials that every arm had."""
    rows = []
    for (task, arm), trials in tried.items():
        means = np.array([values[task, arm][t].mean() for t in trials[:budget]])
        sign = find_task(task).metric.sign
        for k, value in enumerate(sign * budget_curve(means), 1):
            rows.append({"task": task, "arm": arm, "budget": k, "expected": value})
    return pd.DataFrame(rows)


def selections_table(chosen: Mapping[tuple[str, str], Chosen]) -> pd.DataFrame:
    """What the search selected."""
    return pd.DataFrame(
        {
            "task": task,
            "arm": arm,
            **found.best.values(),
            "validation": find_task(task).metric.sign * found.score,
            "probability": found.probability,
            "runner_up": str(found.runner_up),
            "runner_up_validation": find_task(task).metric.sign * found.runner_up_score,
            "at_edge": " ".join(found.edges),
            "trials": found.trials,
        }
        for (task, arm), found in chosen.items()
    )


def steps_table(ranked: pd.DataFrame) -> Table:
    """Steps and seconds to the target."""
    table = [["task", "arm", "target", "reached", "steps", "ms per step", "seconds"]]
    for row in ranked.to_dict("records"):
        reached = np.isfinite(row["steps"])
        table.append(
            [
                find_task(row["task"]).title,
                label(row["arm"]),
                f"{row['target']:.2f}",
                f"{row['reached']} of {row['n']}",
                f"{row['steps']:.0f}" if reached else "—",
                f"{1e3 * row['step_seconds']:.2f}",
                f"{row['seconds']:.1f}" if reached else "—",
            ]
        )
    return table


def search_table(chosen: Mapping[tuple[str, str], Chosen]) -> Table:
    """What was selected, and how sure that is."""
    table = [["task", "arm", "selected", "validation", "sure", "runner-up", "behind", "at an edge"]]
    table[0].append("trials")
    for (task, arm), found in chosen.items():
        table.append(
            [
                find_task(task).title,
                label(arm),
                str(found.best),
                f"{find_task(task).metric.sign * found.score:.2f}",
                f"{found.probability:.0%}",
                str(found.runner_up),
                f"{found.score - found.runner_up_score:.2f}",
                ", ".join(found.edges),
                str(found.trials),
            ]
        )
    return table
