"""What the benchmark of whole runs reports: its tables, its figure and its page."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmarks import harness
from experiments import plotting
from experiments.tables import Table, markdown_table

OURS, PUBLISHED, ADAM = "neuroplastic-optax", "published implementation", "torch's Adam"
PUBLISHED_BY_ADAM = 1.7  # times as long as torch's Adam, by an earlier measurement
CONVERTED = (
    f"The {PUBLISHED} was not at hand: measured is {ADAM}, which trains another method on the same "
    f"data. An earlier measurement found the {PUBLISHED} to take {PUBLISHED_BY_ADAM:g} times as "
    f"long as {ADAM}. The column *x {PUBLISHED_BY_ADAM:g}, not measured* is converted by this "
    "recorded ratio; it is what the targets are of."
)


def run_table(rows: pd.DataFrame) -> Table:
    """Seconds per seed, as readers should see them."""
    header = ["", "seeds", "epochs timed", "s per seed", "best", "beside training", "accuracy"]
    return [
        header,
        *(
            [
                f"{row['implementation']}, {row['how']}" if row["implementation"] != OURS else OURS,
                str(row["seeds"]),
                str(row["epochs_timed"]),
                f"{row['seconds_per_seed']:.2f}",
                f"{row['best_seconds_per_seed']:.2f}",
                "" if np.isnan(beside := row["beside_training_seconds"]) else f"{beside:.2f}",
                f"{row['test_accuracy']:.2%}",
            ]
            for row in rows.to_dict("records")
        ),
    ]


def ratio_table(ratios: pd.DataFrame) -> Table:
    """How many times faster ours is, beside the target, which is of the published implementation.

    Where torch's Adam was measured in its place, a column more has what is converted from that.
    """
    converted = ADAM in set(ratios["other"])
    table = [
        [
            *("ours, seeds", "other", "times faster", "rounds"),
            *([f"x {PUBLISHED_BY_ADAM:g}, not measured"] if converted else []),
            "target",
        ]
    ]
    for row in ratios.to_dict("records"):
        target = row["target"]
        table.append(
            [
                str(row["seeds"]),
                f"{row['other']}, {row['how']}",
                f"{row['ratio']:.1f}",
                f"{row['smallest']:.1f} to {row['largest']:.1f}",
                *([f"{PUBLISHED_BY_ADAM * row['ratio']:.1f}"] if converted else []),
                "" if np.isnan(target) else f"{target:g}",
            ]
        )
    return table


def make_figure(rows: pd.DataFrame) -> Figure:
    """A bar for each way to train: seconds per seed of a whole run."""
    figure, axes = plt.subplots(figsize=(8, 0.9 + 0.5 * len(rows)), layout="constrained")
    heights = np.arange(len(rows))[::-1]
    ours = rows["implementation"] == OURS
    bars = axes.barh(
        heights, rows["seconds_per_seed"], color=np.where(ours, "#D55E00", "#999999").tolist()
    )
    axes.bar_label(bars, fmt="%.1f", padding=3)
    labels = [
        f"{OURS}, seeds: {row['seeds']}"
        if row["implementation"] == OURS
        else f"{row['implementation']},\n{row['how']}"
        for row in rows.to_dict("records")
    ]
    axes.set_yticks(heights, labels)
    axes.set(xlabel="seconds per seed of a whole run, compilation included")
    axes.margins(x=0.1)
    plotting.plain(axes)
    return figure


def make_report(
    rows: pd.DataFrame, ratios: pd.DataFrame, epochs: int, manifest: Mapping[str, Any]
) -> str:
    """The report in Markdown."""
    versions, data = manifest["versions"], manifest["data"]
    other = manifest["compared_with"]["implementation"]
    timed = rows.loc[rows["implementation"] != OURS, "epochs_timed"].iloc[0]
    recorded = "with" if manifest["configuration"]["diagnostics"] else "without"
    scaled = "" if timed == epochs else f", times {epochs / timed:g}"
    return "\n".join(
        [
            "# Whole training runs",
            "",
            f"{harness.measured_on(manifest)} PyTorch {versions['torch']} in a process of its own, "
            f"threads: {manifest['threads']}. What is measured, and how, is on the page on "
            "benchmarks.",
            "",
            f"Seconds per seed of a whole run: epochs: {epochs}, training images: "
            f"{data['train']:,}, test images after each epoch: {data['evaluated']:,} "
            f"({data['source']}). Ours is timed whole, compilation and records included, "
            f"{recorded} the statistics of α, in {rows['rounds'].iloc[0]} rounds; PyTorch for "
            f"{timed} of {epochs} epochs{scaled}, after a round that does not count. *Accuracy* is "
            "that after the epochs timed.",
            "",
            markdown_table(run_table(rows)),
            "",
            "How many times faster ours is, median over the rounds, and the range:",
            "",
            markdown_table(ratio_table(ratios)),
            "",
            *([CONVERTED, ""] if other == ADAM else []),
            "![seconds per seed](figure.png)",
            "",
        ]
    )
