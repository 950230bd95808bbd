"""Reports in Markdown, written from the records."""

import math

import pandas as pd

from experiments.figures import DATASET_TITLES
from experiments.optimizers import ARMS

Table = list[list[str]]


def markdown_table(table: Table) -> str:
    """A table with a header row as Markdown.

    >>> print(markdown_table([["arm", "n"], ["SGD", "5"]]))
    | arm | n |
    |---|---|
    | SGD | 5 |
    """
    header, *rows = table
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "|" + "|".join(cells) + "|" if cells[0] == "---" else "| " + " | ".join(cells) + " |"
        for cells in lines
    )


def mean_and_sd(mean: float, sd: float, digits: int) -> str:
    """``mean ± sd``, or the mean alone where one seed gives no deviation."""
    text = f"{mean:.{digits}f}"
    return text if math.isnan(sd) else f"{text} ± {sd:.{digits}f}"


def summary_table(summary: pd.DataFrame) -> Table:
    """Final and best results of every arm, as readers should see them."""
    table = [["arm", "rate", "final %", "best %", "final loss", "seeds", "s/seed"]]
    for row in summary.to_dict("records"):
        diverged = f" ({row['diverged']} diverged)" if row["diverged"] else ""
        table.append(
            [
                ARMS[row["arm"]].label,
                f"{row['learning_rate']:g}",
                mean_and_sd(row["final_accuracy_mean"], row["final_accuracy_sd"], 2),
                mean_and_sd(row["best_accuracy_mean"], row["best_accuracy_sd"], 2),
                mean_and_sd(row["final_loss_mean"], row["final_loss_sd"], 4),
                f"{row['n']}{diverged}",
                f"{row['seconds_mean']:.1f}",
            ]
        )
    return table


def accuracy_report(rows: pd.DataFrame, table: Table, source: str) -> str:
    """The report of the accuracy study."""
    first = rows.iloc[0]
    return "\n".join(
        [
            f"# Accuracy by epoch: {DATASET_TITLES[first['dataset']]}",
            "",
            f"{first['epochs']} epochs, batches of {first['batch_size']}, "
            f"{rows['seed'].nunique()} seeds an arm, paired: a seed gives every arm the same "
            "initial parameters, data order and dropout masks. Evaluated on the whole test set "
            f"after each epoch. Data: {source}.",
            "",
            markdown_table(table),
            "",
            "Mean ± standard deviation over seeds. *rate*: learning rate. *final %*, *best %*: "
            "test accuracy after the last epoch, and the highest of a run's epochs, which is "
            "picked on the test set. *final loss*: mean cross-entropy on the test set. *s/seed*: "
            "seconds of training a seed, without compilation and evaluation, all seeds training "
            "together.",
            "",
            "![test accuracy by epoch](figure.png)",
            "",
            "No learning rate was tuned here: each arm runs at its default or at the one given.",
            "",
        ]
    )
