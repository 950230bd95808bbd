"""Figures, from saved records alone: nothing here trains."""

import io
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.optimizers import ARMS
from experiments.records import write_atomically

# Okabe and Ito's colours, told apart by colour-blind readers; an arm has the same one everywhere.
COLOURS = {
    "full": "#D55E00",
    "gradient_only": "#0072B2",
    "sgd": "#000000",
    "sgd_homeostasis": "#009E73",
    "momentum": "#999999",
    "adam": "#CC79A7",
    "adamw": "#E69F00",
    "rmsprop": "#56B4E9",
}
DATASET_TITLES = {
    "mnist5k": "MNIST (4,000 training images)",
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
}


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


def draw_by_epoch(axes: Axes, rows: pd.DataFrame, column: str) -> None:
    """A line an arm, the mean over seeds, inside a band of one standard deviation."""
    for arm in rows["arm"].unique():
        over_seeds = rows[rows["arm"] == arm].groupby("epoch")[column].agg(["mean", "std"])
        epochs = np.asarray(over_seeds.index)
        mean, sd = over_seeds["mean"].to_numpy(), over_seeds["std"].fillna(0).to_numpy()
        axes.plot(epochs, mean, color=COLOURS[arm], label=ARMS[arm].label, marker=".", markersize=4)
        axes.fill_between(epochs, mean - sd, mean + sd, color=COLOURS[arm], alpha=0.2, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _title(rows: pd.DataFrame, what: str) -> str:
    seeds = rows["seed"].nunique()
    band = f"mean of {seeds} seeds, band ±1 standard deviation" if seeds > 1 else "one seed"
    return f"{DATASET_TITLES[rows['dataset'].iloc[0]]}: {what} ({band})"
