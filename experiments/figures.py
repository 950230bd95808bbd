"""Figures, from saved records alone: nothing here trains."""

import io
from collections.abc import Iterator, Mapping
from itertools import cycle
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, ScalarFormatter

from experiments.configs import DesignSpace
from experiments.data import DATASETS
from experiments.optimizers import ABLATIONS, ARMS, FAMILIES
from experiments.records import write_atomically
from experiments.statistics import MARGIN, PairedComparison
from experiments.summary import per_cell
from neuroplastic_optax import ALPHA_EDGES

# Okabe and Ito's colours (and a wine for their yellow, which is faint on white), told apart by
# colour-blind readers; an arm has the same one everywhere.
# Arms beyond the eight share the colour of their family and are told apart by their labels.
COLOURS = {
    "full": "#D55E00",
    "full_clipped": "#D55E00",
    "full_bfloat16": "#D55E00",
    "gradient_only": "#0072B2",
    "gradient_only_wide": "#0072B2",
    **dict.fromkeys(ABLATIONS, "#0072B2"),
    "permuted": "#882255",
    "random": "#882255",
    "norm_matched": "#882255",
    "sgd": "#000000",
    "sgd_homeostasis": "#009E73",
    "momentum": "#999999",
    "momentum_homeostasis": "#999999",
    "adam": "#CC79A7",
    "adam_homeostasis": "#CC79A7",
    "adamw": "#E69F00",
    "adamw_homeostasis": "#E69F00",
    "rmsprop": "#56B4E9",
    "rmsprop_homeostasis": "#56B4E9",
}
COLOURS |= {arm: COLOURS[family] for arm, family in FAMILIES.items()}
plt.rcParams.update({"axes.titlesize": 11, "figure.titlesize": 12})

SMALLEST_SHARE = 1e-3  # percent: where the colours of a histogram begin


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, as a whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    plt.close(figure)
    write_atomically(path, buffer.getvalue())


def accuracy_by_epoch(rows: pd.DataFrame) -> Figure:
    """Figure 2: test accuracy by epoch for each arm, mean and standard deviation over seeds."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    draw_by_epoch(axes, rows.assign(percent=100 * rows["test_accuracy"]), "percent")
    axes.set(xlabel="epoch", ylabel="test accuracy (%)", title=_title(rows, "test accuracy"))
    axes.legend(frameon=False)
    return figure


LINE_STYLES = ("-", "--", ":", "-.")  # of the lines of one colour


def draw_by_epoch(axes: Axes, rows: pd.DataFrame, column: str) -> None:
    """A line an arm and learning rate, the mean over seeds, in a band of one standard deviation."""
    rates = rows.groupby("arm")["learning_rate"].nunique()
    styles: dict[str, Iterator[str]] = {colour: cycle(LINE_STYLES) for colour in COLOURS.values()}
    for arm, rate in rows[["arm", "learning_rate"]].drop_duplicates().itertuples(index=False):
        of_line = rows[(rows["arm"] == arm) & (rows["learning_rate"] == rate)]
        over_seeds = of_line.groupby("epoch")[column].agg(["mean", "std"])
        epochs = np.asarray(over_seeds.index)
        mean, sd = over_seeds["mean"].to_numpy(), over_seeds["std"].fillna(0).to_numpy()
        axes.plot(
            epochs,
            mean,
            color=COLOURS[arm],
            linestyle=next(styles[COLOURS[arm]]),
            label=ARMS[arm].label if rates[arm] == 1 else f"{ARMS[arm].label}, {rate:g}",
            marker=".",
            markersize=4,
        )
        axes.fill_between(epochs, mean - sd, mean + sd, color=COLOURS[arm], alpha=0.2, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _title(rows: pd.DataFrame, what: str) -> str:
    seeds = rows["seed"].nunique()
    band = f"mean of {seeds} seeds, band ±1 standard deviation" if seeds > 1 else "one seed"
    return f"{DATASETS[rows['dataset'].iloc[0]].title}: {what}\n({band})"


def accuracy_by_learning_rate(summary: pd.DataFrame, rows: pd.DataFrame) -> Figure:
    """Validation accuracy by learning rate: a small panel an arm, its selection marked."""
    arms = list(summary["arm"].unique())
    columns = 5
    lines = -(-len(arms) // columns)
    figure, grid = plt.subplots(
        lines, columns, figsize=(13, 2.3 * lines), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, arm in zip(grid.flat, arms, strict=False):
        of_arm = summary[summary["arm"] == arm].sort_values("learning_rate")
        rates, mean = of_arm["learning_rate"], of_arm["final_accuracy_mean"]
        axes.errorbar(
            rates,
            mean,
            yerr=of_arm["final_accuracy_sd"].fillna(0),
            color=COLOURS[arm],
            marker=".",
            capsize=2,
        )
        best = mean.idxmax()
        axes.plot(rates[best], mean[best], "o", markersize=9, fillstyle="none", color="black")
        axes.set(xscale="log", title=ARMS[arm].label)
        axes.title.set_fontsize(9)
        axes.grid(alpha=0.25)
    for axes in list(grid.flat)[len(arms) :]:
        axes.set_axis_off()
    # Diverged runs stay in the records; on this scale they would hide the differences.
    best_of_all = summary["final_accuracy_mean"].max()
    grid[0, 0].set_ylim(best_of_all - 8, best_of_all + 0.8)
    figure.supxlabel("learning rate")
    figure.supylabel("validation accuracy (%)")
    seeds = rows["seed"].nunique()
    figure.suptitle(
        f"{DATASETS[rows['dataset'].iloc[0]].title}: learning rates tried, circle: selected "
        f"(mean of {seeds} seeds, bars ±1 standard deviation)"
    )
    return figure


def differences(against_full: dict[str, PairedComparison], rows: pd.DataFrame) -> Figure:
    """Mean paired difference of the full method and every other arm, ordered, with intervals."""
    ordered = sorted(against_full.items(), key=lambda item: item[1].mean)
    figure, axes = plt.subplots(figsize=(8, 0.32 * len(ordered) + 1.6), layout="constrained")
    axes.axvspan(-MARGIN, MARGIN, color="0.9", label=f"no practical size (±{MARGIN} points)")
    axes.axvline(0, color="0.4", linewidth=0.8)
    for height, (arm, comparison) in enumerate(ordered):
        mean = comparison.mean
        reach = [[mean - comparison.interval_low], [comparison.interval_high - mean]]
        axes.errorbar(mean, height, xerr=reach, fmt="o", color=COLOURS[arm], capsize=3)
    labels = [f"{ARMS[arm].label} (n = {comparison.n})" for arm, comparison in ordered]
    axes.set_yticks(range(len(ordered)), labels, fontsize=8)
    axes.set(
        xlabel="final test accuracy of the full method minus that of the arm (points)",
        title=f"{DATASETS[rows['dataset'].iloc[0]].title}: every arm tuned, paired by seed,\n"
        "mean and 95% BCa interval",
    )
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


DYNAMICS = {
    "alpha_mean": "mean of α",
    "effective_update_norm": "norm of the effective update",
    "raw_gradient_norm": "norm of the raw gradient",
}


def dynamics(rows: pd.DataFrame, published: pd.DataFrame | None) -> Figure:
    """Figure 6: mean α, effective update and raw gradient by epoch, beside the published runs."""
    figure, panels = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
    for axes, (column, what) in zip(panels, DYNAMICS.items(), strict=True):
        draw_by_epoch(axes, rows, column)
        if published is not None:
            for arm in rows["arm"].unique():
                mean = published[published["arm"] == arm].groupby("epoch")[column].mean()
                style = {"color": COLOURS[arm], "linestyle": "--", "marker": "x", "linewidth": 1}
                axes.plot(mean.index, mean, **style)
        axes.set(xlabel="epoch", ylabel=what, title=what)
    handles, labels = panels[0].get_legend_handles_labels()
    if published is not None:
        handles += panels[0].plot([], [], color="0.3", linestyle="--", marker="x")
        labels += ["published implementation, mean of 3 seeds"]
    panels[0].legend(handles, labels, frameon=False, fontsize=8)
    figure.suptitle(f"{_title(rows, 'what plasticity does; norms over an epoch')}")
    return figure


def layers(rows: pd.DataFrame, arm: str) -> Figure:
    """The distribution of α in each leaf by epoch, and the shares at the bounds."""
    of_arm = rows[rows["arm"] == arm]
    leaves = [name.partition("/")[2] for name in rows.columns if name.startswith("alpha_mean/")]
    kernels_first = sorted(leaves, key=lambda leaf: (leaf.rpartition("/")[2] != "kernel", leaf))
    figure, grid = plt.subplots(
        2,
        len(leaves),
        figsize=(2.6 * len(leaves), 5.8),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
        height_ratios=(3, 2),
    )
    shares = {
        "fraction_at_max": ("α ≥ upper bound", "#D55E00"),
        "fraction_at_min": ("α ≤ lower bound", "#0072B2"),
        "fraction_negative": ("α < 0", "#000000"),
    }
    width = ALPHA_EDGES[1] - ALPHA_EDGES[0]
    # The two open ends of the histogram are drawn as wide as the other bins.
    heights = np.array([ALPHA_EDGES[0] - width, *ALPHA_EDGES, ALPHA_EDGES[-1] + width])
    for (top, bottom), leaf in zip(grid.T, kernels_first, strict=True):
        epochs = of_arm.groupby("epoch")
        numbers = np.array(sorted(of_arm["epoch"].unique()))
        histogram = np.array([100 * epochs[name].mean() for name in histogram_columns(leaf)])
        image = top.pcolormesh(
            np.append(numbers - 0.5, numbers[-1] + 0.5),
            heights,
            np.ma.masked_less_equal(histogram, 0),
            norm=LogNorm(SMALLEST_SHARE, 100),
            cmap="viridis",
        )
        mean = epochs[f"alpha_mean/{leaf}"].mean()
        top.plot(mean.index, mean, color="white", marker=".", markersize=4, label="mean")
        top.set_title(leaf, fontsize=9)
        for column, (label, colour) in shares.items():
            share = 100 * epochs[f"{column}/{leaf}"].mean()
            bottom.plot(share.index, share, color=colour, marker=".", markersize=4, label=label)
        bottom.set(xlabel="epoch")
        bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
        bottom.set_yscale("symlog", linthresh=0.01)
        bottom.set_ylim(bottom=0)
    inner = ALPHA_EDGES[5:-1:5]
    ends = [f"< {ALPHA_EDGES[0]:g}", f"≥ {ALPHA_EDGES[-1]:g}"]
    grid[0, 0].set_yticks(
        [ALPHA_EDGES[0] - width / 2, *inner, ALPHA_EDGES[-1] + width / 2],
        [ends[0], *(f"{edge:g}" for edge in inner), ends[1]],
    )
    grid[0, 0].set_ylabel("α")
    grid[0, 0].legend(fontsize=7, facecolor="0.3", labelcolor="white", loc="upper left")
    grid[1, 0].set_ylabel("share of entries (%)")
    grid[1, 0].legend(frameon=False, fontsize=7)
    figure.colorbar(image, ax=grid[0], label=f"share of entries per {width:g} of α (%)")
    seeds = of_arm["seed"].nunique()
    dataset = DATASETS[rows["dataset"].iloc[0]].title
    figure.suptitle(
        f"{dataset}: distribution of α by leaf and epoch, {ARMS[arm].label} "
        f"(all steps of an epoch, mean of {seeds} seeds; white: no entry)"
    )
    return figure


def histogram_columns(leaf: str) -> list[str]:
    """The columns of a leaf's histogram of α, from its lowest bin on."""
    return [f"alpha_from_{edge}/{leaf}" for edge in ("-inf", *(f"{e:g}" for e in ALPHA_EDGES))]


def low_data(summary: pd.DataFrame, dataset: str, seeds: int) -> Figure:
    """Figure 3: final accuracy and loss by share of the training images, in both regimes."""
    regimes = list(summary["regime"].unique())
    figure, grid = plt.subplots(
        len(regimes), 2, figsize=(9, 3.4 * len(regimes)), squeeze=False, layout="constrained"
    )
    panels = {"final_accuracy": "final test accuracy (%)", "final_loss": "final test loss"}
    for line, regime in zip(grid, regimes, strict=True):
        of_regime = summary[summary["regime"] == regime]
        for axes, (column, what) in zip(line, panels.items(), strict=True):
            for arm in of_regime["arm"].unique():
                of_arm = of_regime[of_regime["arm"] == arm]
                axes.errorbar(
                    100 * of_arm["fraction"],
                    of_arm[f"{column}_mean"],
                    yerr=of_arm[f"{column}_sd"].fillna(0),
                    color=COLOURS[arm],
                    label=ARMS[arm].label,
                    marker=".",
                    capsize=3,
                )
            axes.set(xlabel="training images used (%)", ylabel=what, title=regime)
            _plain(axes)
    grid[0, 0].legend(frameon=False, fontsize=8)
    figure.suptitle(f"{DATASETS[dataset].title}: mean ±1 sd of {seeds} seeds")
    return figure


def noise(summary: pd.DataFrame, dataset: str, seeds: int) -> Figure:
    """Final accuracy by share of wrong labels and by batch size, every arm at its best rate."""
    usual_batch = summary.loc[summary["label_noise"] > 0, "batch_size"]
    panels = {
        "label_noise": (summary[summary["batch_size"].isin(usual_batch)], "wrong training labels"),
        "batch_size": (summary[summary["label_noise"] == 0], "images a step"),
    }
    figure, line = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axes, (column, (rows, what)) in zip(line, panels.items(), strict=True):
        for arm in rows["arm"].unique():
            of_arm = rows[rows["arm"] == arm].sort_values(column)
            axes.errorbar(
                of_arm[column],
                of_arm["final_accuracy_mean"],
                yerr=of_arm["final_accuracy_sd"].fillna(0),
                color=COLOURS[arm],
                label=ARMS[arm].label,
                marker=".",
                capsize=3,
            )
        axes.set(xlabel=what, ylabel="final test accuracy (%)")
        _plain(axes)
    line[0].xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    line[1].set_xscale("log", base=2)
    line[1].xaxis.set_major_formatter(ScalarFormatter())
    line[0].legend(frameon=False, fontsize=8)
    figure.suptitle(
        f"{DATASETS[dataset].title}: noisy signals, tuned in each condition, "
        f"mean ±1 sd of {seeds} seeds"
    )
    return figure


def selection(trials: pd.DataFrame, finals: dict[str, pd.Series], dataset: str) -> Figure:
    """All trials of each family in order, and the selected ones on fresh seeds and test images."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for family in trials["family"].unique():
        of_family = trials.loc[trials["family"] == family, "validation_accuracy"]
        ordered = of_family.sort_values(ascending=False).to_numpy()
        ranks = np.arange(1, len(ordered) + 1)
        colour, label = COLOURS[family], ARMS[family].label
        left.plot(ranks, ordered, color=colour, marker=".", label=f"{label} ({len(ordered)})")
    best = trials["validation_accuracy"].max()
    left.set_ylim(best - 3, best + 0.2)
    left.set(xlabel="trial, by its rank", ylabel="validation accuracy (%)", title="all trials")
    left.legend(frameon=False, fontsize=8)
    _plain(left)
    _strip(right, finals, {family: COLOURS[family] for family in finals})
    right.set_yticks(range(len(finals)), [ARMS[family].label for family in finals])
    right.set(xlabel="final test accuracy (%)", title="the selected ones, fresh seeds")
    figure.suptitle(f"{DATASETS[dataset].title}: 36 trials for each of {len(finals)} families")
    return figure


def _strip(axes: Axes, values: Mapping[str, pd.Series], colours: Mapping[str, str]) -> None:
    """A line of points, one a seed, for each name, and their mean as a bar."""
    for height, (name, of_name) in enumerate(values.items()):
        points = of_name.to_numpy()
        axes.plot(points, np.full(len(points), height), ".", color=colours[name], alpha=0.6)
        axes.plot(points.mean(), height, "|", color=colours[name], markersize=14, markeredgewidth=2)
    axes.invert_yaxis()
    _plain(axes)


def optimizers(rows: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """Figure 4: accuracy and training loss by epoch; final and best accuracy by learning rate."""
    figure, ((accuracy, loss), (final, best)) = plt.subplots(
        2, 2, figsize=(13, 9), layout="constrained"
    )
    draw_by_epoch(accuracy, rows.assign(percent=100 * rows["test_accuracy"]), "percent")
    accuracy.set(xlabel="epoch", ylabel="test accuracy (%)", title="test accuracy")
    draw_by_epoch(loss, rows, "train_loss")
    loss.set(xlabel="epoch", ylabel="training loss", title="training loss", yscale="log")
    loss.yaxis.set_major_formatter(ScalarFormatter())
    loss.yaxis.set_minor_formatter(ScalarFormatter())
    for axes, column in ((final, "final_accuracy"), (best, "best_accuracy")):
        for arm in summary["arm"].unique():
            of_arm = summary[summary["arm"] == arm]
            axes.errorbar(
                of_arm["learning_rate"],
                of_arm[f"{column}_mean"],
                yerr=of_arm[f"{column}_sd"].fillna(0),
                color=COLOURS[arm],
                label=ARMS[arm].label,
                marker=".",
                capsize=3,
            )
        what = column.replace("_", " ")
        axes.set(xlabel="learning rate", ylabel=f"{what} (%)", title=what, xscale="log")
        _plain(axes)
    final.legend(frameon=False, fontsize=8)
    lines = accuracy.get_legend_handles_labels()
    arms = summary["arm"].nunique()
    figure.legend(*lines, frameon=False, fontsize=8, ncols=arms, loc="outside lower center")
    figure.suptitle(_title(rows, "standard optimizers and the full method").replace("\n", " "))
    return figure


def transfer(rows: pd.DataFrame) -> Figure:
    """Figure 5: test accuracy and loss by epoch of settings that were tuned elsewhere."""
    figure, (accuracy, loss) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    draw_by_epoch(accuracy, rows.assign(percent=100 * rows["test_accuracy"]), "percent")
    accuracy.set(xlabel="epoch", ylabel="test accuracy (%)", title="test accuracy")
    draw_by_epoch(loss, rows, "test_loss")
    loss.set(xlabel="epoch", ylabel="test loss", title="test loss")
    accuracy.legend(frameon=False, fontsize=8)
    figure.suptitle(_title(rows, "settings tuned on MNIST, unchanged").replace("\n", " "))
    return figure


def design_space(study: DesignSpace, rows: pd.DataFrame) -> Figure:
    """Figure 7: final accuracy of every variant, base and baseline, a point a seed, ordered."""
    final = per_cell(rows).groupby("arm")["final_accuracy"]
    ordered = final.mean().sort_values(ascending=False).index
    values = {arm: final.get_group(arm) for arm in ordered}
    colours = {arm: COLOURS[study.base(arm) if arm in study.arms else arm] for arm in ordered}
    figure, axes = plt.subplots(figsize=(9, 0.27 * len(values) + 1.5), layout="constrained")
    _strip(axes, values, colours)
    labels = axes.set_yticks(range(len(values)), [ARMS[arm].label for arm in values], fontsize=8)
    for tick, arm in zip(labels, values, strict=True):
        tick.label1.set_fontweight("normal" if arm in study.arms else "bold")
    axes.set(
        xlabel="final test accuracy (%)",
        title=f"{DATASETS[study.dataset].title}: the design space, a point a seed, bar: mean\n"
        "(bold: bases and tuned baselines; colour: the base)",
    )
    return figure


def text(rows: pd.DataFrame) -> Figure:
    """Test loss by epoch, and final accuracy a seed, of every arm at its best rate."""
    figure, (loss, accuracy) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    draw_by_epoch(loss, rows, "test_loss")
    loss.set(xlabel="epoch", ylabel="test loss (nats a character)", title="test loss")
    loss.legend(frameon=False, fontsize=8)
    cells = per_cell(rows)
    values = {
        arm: cells.loc[cells["arm"] == arm, "final_accuracy"] for arm in cells["arm"].unique()
    }
    _strip(accuracy, values, COLOURS)
    accuracy.set_yticks(range(len(values)), [ARMS[arm].label for arm in values], fontsize=8)
    accuracy.set(
        xlabel="next characters predicted (%)", title="final test accuracy, a point a seed"
    )
    figure.suptitle(_title(rows, "every arm at the best of three rates").replace("\n", " "))
    return figure
