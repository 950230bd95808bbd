"""The two figures of the leaderboard, which can be read without the text."""

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments import plotting, scores
from experiments.comparisons import Row, Verdict, could_show, rows_of
from experiments.naming import colour, label
from experiments.tasks import find_task

FACTORS = np.geomspace(1, 8, 200)
WIDE = 44  # characters of a title above one of several panels
MARKS = {
    Verdict.BETTER: "^",
    Verdict.WORSE: "v",
    Verdict.NO_PRACTICAL_DIFFERENCE: "s",
    Verdict.NOT_SHOWN: "o",
}


def differences(found: pd.DataFrame, tasks: Sequence[str], reference: str, family: str) -> Figure:
    """Each arm minus the reference on each task: mean, 95% interval and verdict."""
    by_task = {task: of_task(found, task, family) for task in tasks}
    most = max(map(len, by_task.values()))
    rows_of_panels, columns = panels(len(tasks))
    figure, grid = plt.subplots(
        rows_of_panels,
        columns,
        figsize=(3.2 + 3.6 * columns, 1 + rows_of_panels * (1.3 + 0.36 * max(most, 2))),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes in grid.flat[len(tasks) :]:
        axes.set_axis_off()
    for axes, (task, rows) in zip(grid.flat, by_task.items(), strict=False):
        draw_verdicts(axes, rows, task)
    names = [label(row["treatment"]) for row in by_task[tasks[0]]]
    grid[0, 0].set_yticks(range(len(names)), names)
    name_verdicts(figure)
    figure.suptitle(
        f"Each arm minus {label(reference)}, all tuned alike\n"
        "mean and 95% interval, paired by seed; grey: no practical size",
        fontsize=10,
    )
    return figure


def panels(tasks: int) -> tuple[int, int]:
    """Rows and columns of panels, one for each task: up to three beside each other, else two.

    >>> panels(3), panels(4), panels(5)
    ((1, 3), (2, 2), (3, 2))
    """
    columns = tasks if tasks <= 3 else 2
    return -(-tasks // columns), columns


def of_task(found: pd.DataFrame, task: str, family: str) -> list[Row]:
    """The comparisons of a family that are about a task."""
    return rows_of(found, family=family, condition=find_task(task).title)


def draw_verdicts(axes: Axes, rows: Sequence[Row], task: str) -> None:
    """Comparisons on a task from the top on: mean, 95% interval, and the verdict as a mark."""
    metric = find_task(task).metric
    axes.axvspan(-metric.margin, metric.margin, color="0.9")
    axes.axvline(0, color="0.4", linewidth=0.8)
    for place, row in enumerate(rows):
        axes.plot([row["interval_low"], row["interval_high"]], [place, place], color="0.4")
        mark = MARKS[Verdict(row["verdict"])]
        axes.plot(row["mean"], place, mark, color=colour(row["treatment"]), markersize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    n = max((row["n"] for row in rows), default=0)
    lines = (f"{find_task(task).title}, n\u00a0=\u00a0{n}", could_show(rows))
    axes.set_title("\n".join(textwrap.fill(line, WIDE) for line in lines), fontsize=9)
    axes.set_xlabel(metric.difference_axis, fontsize=9)
    plotting.plain(axes)


def name_verdicts(figure: Figure) -> None:
    """The legend of the marks."""
    handles = [
        Line2D([], [], color="0.3", marker=mark, linestyle="", label=str(verdict))
        for verdict, mark in MARKS.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8)


def profiles(ranked: pd.DataFrame, points: pd.DataFrame, budget: pd.DataFrame) -> Figure:
    """Steps to target, scores over all tasks, and what fewer trials would have found."""
    tasks = list(dict.fromkeys(ranked["task"]))
    rows, columns = panels(len(tasks))
    size = (5 * max(2, columns), 4 * (1 + rows))
    figure = plt.figure(figsize=size, layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(1, rows))
    of_tasks = grid[1].subgridspec(rows, columns)
    of_all = grid[0].subgridspec(1, 2)
    first = figure.add_subplot(of_all[0])
    if len(tasks) > 1:
        draw_profile(first, ranked)
    else:  # of one task a profile is a step per arm, and says no more than where it is
        draw_steps(first, ranked)
    draw_scores(figure.add_subplot(of_all[1]), points)
    for place, task in enumerate(tasks):
        last = figure.add_subplot(of_tasks[divmod(place, columns)])
        draw_budget(last, budget[budget["task"] == task], task)
    named = last.get_legend_handles_labels()
    figure.legend(*named, frameon=False, fontsize=8, ncols=5, loc="outside lower center")
    return figure


def draw_profile(axes: Axes, ranked: pd.DataFrame) -> None:
    """The share of tasks within a factor of the fewest steps."""
    shares = scores.performance_profile(ranked[["task", "arm", "steps"]], FACTORS)
    styles = plotting.line_styles(list(shares))
    for place, (arm, share) in enumerate(shares.items()):
        # Lines that coincide lie beside each other.
        axes.step(FACTORS, share - 0.006 * place, where="post", **styles[arm])
    axes.set(
        xscale="log",
        xlabel="factor τ of the fewest steps to the target",
        ylabel="share of tasks",
        title=f"steps to the target (tasks: {ranked['task'].nunique()})",
        ylim=(-0.06, 1.05),
    )
    axes.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8)
    plotting.plain(axes)


def draw_steps(axes: Axes, ranked: pd.DataFrame) -> None:
    """Steps to the target of a task, fewest on top; none where most seeds did not reach it."""
    ordered = ranked.sort_values("steps", ascending=False, kind="stable")
    for place, row in enumerate(ordered.to_dict("records")):
        if np.isfinite(row["steps"]):
            axes.plot(row["steps"], place, "o", color=colour(row["arm"]))
    names = [
        label(row["arm"]) + ("" if np.isfinite(row["steps"]) else " (not reached)")
        for row in ordered.to_dict("records")
    ]
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set(
        xlabel="steps, in whole epochs, median over seeds",
        title=f"steps to {ordered['target'].iloc[0]:.2f}",
        xlim=(0, None),
    )
    plotting.plain(axes)


def draw_scores(axes: Axes, points: pd.DataFrame) -> None:
    """Interquartile means of normalised scores, with bootstrap intervals."""
    means = scores.interquartile_means(scores.normalised(points)).sort_values("score")
    for place, row in enumerate(means.to_dict("records")):
        axes.plot([row["low"], row["high"]], [place, place], color=colour(row["arm"]), linewidth=2)
        axes.plot(row["score"], place, "o", color=colour(row["arm"]))
    axes.set_yticks(range(len(means)), [label(arm) for arm in means["arm"]], fontsize=8)
    axes.set(
        xlabel="0: lowest arm, 1: best arm of each task",
        title="interquartile mean of scores\nand 95% interval",
    )
    plotting.plain(axes)


def draw_budget(axes: Axes, budget: pd.DataFrame, task: str) -> None:
    """The expected result of the best of k trials."""
    of = find_task(task)
    styles = plotting.line_styles(list(budget["arm"].unique()))
    for arm, of_arm in budget.groupby("arm", sort=False):
        axes.plot(of_arm["budget"], of_arm["expected"], marker=".", **styles[str(arm)])
    best = budget["expected"].max() if of.metric.higher_is_better else budget["expected"].min()
    worst = budget["expected"].quantile(0.1 if of.metric.higher_is_better else 0.9)
    reach = abs(best - worst)
    axes.set_ylim(
        *sorted((best + of.metric.sign * 0.1 * reach, worst - of.metric.sign * 0.1 * reach))
    )
    axes.set(
        xlabel="trials",
        ylabel=of.metric.validation_axis,
        title=f"{of.title}:\nexpected best of k trials",
    )
    plotting.plain(axes)
