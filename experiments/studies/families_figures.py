"""The two figures of the families: against their bases and placebos, and the search."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.comparisons import pair
from experiments.naming import label
from experiments.studies.leaderboard_figures import (
    draw_budget,
    draw_verdicts,
    name_verdicts,
    of_task,
)
from experiments.tasks import find_task


def differences(found: pd.DataFrame, tasks: Sequence[str], family: str) -> Figure:
    """Each family minus its base and its placebos on each task: mean, 95% interval and verdict."""
    by_task = {task: of_task(found, task, family) for task in tasks}
    heights = [1.5 + len(rows) for rows in by_task.values()]
    figure, grid = plt.subplots(
        len(tasks),
        1,
        figsize=(9, 1.4 + 0.9 * len(tasks) + 0.24 * sum(heights)),
        squeeze=False,
        layout="constrained",
        height_ratios=heights,
    )
    for axes, (task, rows) in zip(grid[:, 0], by_task.items(), strict=True):
        draw_verdicts(axes, rows, task)
        axes.set_yticks(range(len(rows)), [pair(row) for row in rows], fontsize=8)
    name_verdicts(figure)
    figure.suptitle("Mean and 95% interval, paired by seed; grey: no practical size", fontsize=10)
    return figure


def search(budget: pd.DataFrame, pairs: Mapping[str, str]) -> Figure:
    """What the best of k trials gave, each family beside its base, on one seed per trial."""
    figure, grid = plt.subplots(
        1, len(pairs), figsize=(4.6 * len(pairs), 4), squeeze=False, layout="constrained"
    )
    (task,) = budget["task"].unique()
    for axes, arms in zip(grid[0], pairs.items(), strict=True):
        draw_budget(axes, budget[budget["arm"].isin(arms)], task)
        axes.set_title(label(arms[0]))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    figure.suptitle(f"{find_task(task).title}:\nexpected best of k trials, one seed each")
    return figure
