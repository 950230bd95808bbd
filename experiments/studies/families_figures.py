"""The two figures of the families: against their bases and placebos, and the search."""

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from experiments import plotting
from experiments.comparisons import Verdict, rows_of
from experiments.naming import colour, label
from experiments.studies.leaderboard_figures import MARKS, draw_budget
from experiments.tasks import find_task


def differences(found: pd.DataFrame, tasks: Sequence[str], family: str) -> Figure:
    """Each family minus its base and its placebos on each task: mean, 95% interval and verdict."""
    titles = {find_task(task).title: find_task(task).metric for task in tasks}
    total = len(rows_of(found, family=family))
    figure, grid = plt.subplots(
        len(tasks),
        1,
        figsize=(9, 1.2 + 1.1 * len(tasks) + 0.24 * total),
        squeeze=False,
        layout="constrained",
        height_ratios=[
            1.5 + len(rows_of(found, family=family, condition=title)) for title in titles
        ],
    )
    for axes, (title, metric) in zip(grid[:, 0], titles.items(), strict=True):
        rows = rows_of(found, family=family, condition=title)
        axes.axvspan(-metric.margin, metric.margin, color="0.9")
        axes.axvline(0, color="0.4", linewidth=0.8)
        for place, row in enumerate(rows):
            axes.plot([row["interval_low"], row["interval_high"]], [place, place], color="0.4")
            mark = MARKS[Verdict(row["verdict"])]
            axes.plot(row["mean"], place, mark, color=colour(row["treatment"]), markersize=8)
        axes.set_yticks(
            range(len(rows)),
            [f"{label(row['treatment'])} − {label(row['control'])}" for row in rows],
            fontsize=8,
        )
        axes.set_ylim(len(rows) - 0.4, -0.6)
        unit = f" ({metric.difference_unit})" if metric.difference_unit else ""
        n = max(row["n"] for row in rows)
        shown = max(row["detectable"] for row in rows)
        could = f"could show {shown:.2f}" if math.isfinite(shown) else "too few to show any"
        axes.set_title(f"{title} (n = {n}, {could})", fontsize=10)
        axes.set_xlabel(f"{metric.final}{unit}", fontsize=9)
        plotting.plain(axes)
    handles = [
        Line2D([], [], color="0.3", marker=mark, linestyle="", label=str(verdict))
        for verdict, mark in MARKS.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.suptitle("Mean and 95% interval, paired by seed; grey: no practical size", fontsize=10)
    return figure


def search(budget: pd.DataFrame, pairs: Mapping[str, str]) -> Figure:
    """What the best of k trials gave, each family beside its base, on one seed per trial."""
    figure, grid = plt.subplots(
        1, len(pairs), figsize=(4.6 * len(pairs), 4), squeeze=False, layout="constrained"
    )
    (task,) = budget["task"].unique()
    for axes, pair in zip(grid[0], pairs.items(), strict=True):
        draw_budget(axes, budget[budget["arm"].isin(pair)], task)
        axes.set_title(label(pair[0]))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False, fontsize=8)
    figure.suptitle(f"{find_task(task).title}:\nexpected best of k trials, one seed each")
    return figure
