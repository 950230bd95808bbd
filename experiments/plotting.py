"""What figures share. They are drawn from saved records alone: nothing here trains."""

import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from experiments import tasks
from experiments.comparisons import Row
from experiments.naming import colour, label
from experiments.records import write_atomically

plt.rcParams.update({"axes.titlesize": 11, "figure.titlesize": 12})

LINE_STYLES = ("-", "--", ":", "-.")  # of the lines of one colour
APART = 6  # points between the bars of two arms at one setting


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, as a whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    plt.close(figure)
    write_atomically(path, buffer.getvalue())


def line_styles(arms: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Name, colour and line style of each arm; those of one colour differ in style."""
    styles: defaultdict[str, Iterator[str]] = defaultdict(lambda: cycle(LINE_STYLES))
    return {
        arm: {"label": label(arm), "color": colour(arm), "linestyle": next(styles[colour(arm)])}
        for arm in arms
    }


def draw_by_epoch(axes: Axes, rows: pd.DataFrame, column: str) -> None:
    """One line per arm and learning rate: the mean over seeds in a band of one deviation.

    Args:
      axes: where to draw.
      rows: of whole cells.
      column: what to draw.
    """
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
    settings = summary.groupby("arm", sort=False)[setting].agg(set)
    for arm in settings.index:
        of_arm = summary[summary["arm"] == arm].sort_values(setting)
        bars = axes.errorbar(
            of_arm[setting],
            of_arm[f"{column}_mean"],
            yerr=of_arm[f"{column}_sd"].fillna(0),
            color=colour(arm),
            label=label(arm),
            marker=".",
            capsize=3,
        )
        beside = [other for other in settings.index if settings[arm] & settings[other]]
        move_sideways(axes, bars.get_children(), beside.index(arm), len(beside))
    plain(axes)


def draw_levels(axes: Axes, summary: pd.DataFrame, setting: str, column: str) -> None:
    """One thin line per arm, the mean over seeds by a setting: their differences have the bars."""
    for arm in summary["arm"].unique():
        of_arm = summary[summary["arm"] == arm].sort_values(setting)
        axes.plot(
            of_arm[setting],
            of_arm[f"{column}_mean"],
            color=colour(arm),
            label=label(arm),
            marker=".",
            linewidth=1,
        )
    plain(axes)


def draw_differences(axes: Axes, rows: Sequence[Row]) -> None:
    """One line per comparison, from the top on: mean and 95% interval, named by its control."""
    axes.axvline(0, color="0.4", linewidth=0.8)
    for height, row in enumerate(rows):
        ends = [row["interval_low"], row["interval_high"]]
        axes.plot(ends, [height] * 2, marker="|", color=colour(row["control"]))
        axes.plot(row["mean"], height, "o", color=colour(row["control"]), markersize=5)
    if rows:
        margin = rows[0]["margin"]
        axes.axvspan(-margin, margin, color="0.9", zorder=0, label=no_practical_size(margin))
    names = [f"{label(row['control'])} (n = {row['n']})" for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.invert_yaxis()
    plain(axes)


def draw_differences_by_setting(axes: Axes, rows: Sequence[tuple[float, Row]]) -> None:
    """Comparisons by a setting, side by side: mean and 95% interval, coloured by the control."""
    axes.axhline(0, color="0.4", linewidth=0.8)
    controls = list(dict.fromkeys(row["control"] for _, row in rows))
    for setting, row in rows:
        control, ends = row["control"], [row["interval_low"], row["interval_high"]]
        lines = axes.plot([setting] * 2, ends, marker="_", color=colour(control))
        lines += axes.plot(setting, row["mean"], "o", color=colour(control), markersize=5)
        move_sideways(axes, lines, controls.index(control), len(controls))
    if rows:
        margin = rows[0][1]["margin"]
        axes.axhspan(-margin, margin, color="0.9", zorder=0, label=no_practical_size(margin))
    plain(axes)


def no_practical_size(margin: float) -> str:
    """What the grey band is, in a legend."""
    return f"no practical size (±{margin:g})"


def move_sideways(axes: Axes, drawn: Iterable[Artist], place: int, number: int) -> None:
    """Moves what is drawn of one of several arms, so that bars at one setting do not overlap."""
    inches = APART / 72 * (place - (number - 1) / 2)
    for artist in drawn:
        artist.set_transform(
            axes.transData + ScaledTranslation(inches, 0, axes.figure.dpi_scale_trans)
        )


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


def band(rows: pd.DataFrame, drawn: str = "band") -> str:
    """What lines and bands, or what else is drawn around them, are of."""
    seeds = rows["seed"].nunique()
    return f"mean of {seeds} seeds, {drawn} ±1 standard deviation" if seeds > 1 else "one seed"
