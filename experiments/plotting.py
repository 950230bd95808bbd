"""What figures share. They are drawn from saved records alone: nothing here trains."""

import io
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import cycle
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments import tasks
from experiments.naming import colour, label
from experiments.records import write_atomically

plt.rcParams.update({"axes.titlesize": 11, "figure.titlesize": 12})

LINE_STYLES = ("-", "--", ":", "-.")  # of the lines of one colour


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, as a whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    plt.close(figure)
    write_atomically(path, buffer.getvalue())


def draw_by_epoch(axes: Axes, rows: pd.DataFrame, column: str) -> None:
    """One line per arm and learning rate: the mean over seeds in a band of one deviation."""
    rates = rows.groupby("arm")["learning_rate"].nunique()
    styles: defaultdict[str, Iterator[str]] = defaultdict(lambda: cycle(LINE_STYLES))
    for arm, rate in rows[["arm", "learning_rate"]].drop_duplicates().itertuples(index=False):
        of_line = rows[(rows["arm"] == arm) & (rows["learning_rate"] == rate)]
        over_seeds = of_line.groupby("epoch")[column].agg(["mean", "std"])
        epochs = np.asarray(over_seeds.index)
        mean, sd = over_seeds["mean"].to_numpy(), over_seeds["std"].fillna(0).to_numpy()
        axes.plot(
            epochs,
            mean,
            color=colour(arm),
            linestyle=next(styles[colour(arm)]),
            label=label(arm) if rates[arm] == 1 else f"{label(arm)}, {rate:g}",
            marker=".",
            markersize=4,
        )
        axes.fill_between(epochs, mean - sd, mean + sd, color=colour(arm), alpha=0.2, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    plain(axes)


def draw_metric_by_epoch(axes: Axes, rows: pd.DataFrame) -> None:
    """The metric of the rows' task by epoch, as above."""
    metric = tasks.find_task(rows["task"].iloc[0]).metric
    draw_by_epoch(axes, rows.assign(metric=metric.scale * rows[metric.column]), "metric")
    axes.set(xlabel="epoch", ylabel=metric.axis, title=metric.title)


def draw_by_setting(axes: Axes, summary: pd.DataFrame, setting: str, column: str) -> None:
    """One line per arm: the mean over seeds by a setting, with bars of one deviation."""
    for arm in summary["arm"].unique():
        of_arm = summary[summary["arm"] == arm].sort_values(setting)
        axes.errorbar(
            of_arm[setting],
            of_arm[f"{column}_mean"],
            yerr=of_arm[f"{column}_sd"].fillna(0),
            color=colour(arm),
            label=label(arm),
            marker=".",
            capsize=3,
        )
    plain(axes)


def draw_seeds(axes: Axes, values: Mapping[str, "pd.Series[float]"]) -> None:
    """One line of points per arm, a point per seed, and their mean as a bar."""
    for height, (arm, of_arm) in enumerate(values.items()):
        points = of_arm.to_numpy()
        axes.plot(points, np.full(len(points), height), ".", color=colour(arm), alpha=0.6)
        axes.plot(points.mean(), height, "|", color=colour(arm), markersize=14, markeredgewidth=2)
    axes.set_yticks(range(len(values)), [label(arm) for arm in values], fontsize=8)
    axes.invert_yaxis()
    plain(axes)


def plain(axes: Axes) -> None:
    """A faint grid, and no frame on the right and at the top."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def band(rows: pd.DataFrame) -> str:
    """What lines and bands of a figure are of."""
    seeds = rows["seed"].nunique()
    return f"mean of {seeds} seeds, band ±1 standard deviation" if seeds > 1 else "one seed"
