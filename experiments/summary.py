"""Tables over seeds, from the records."""

import numpy as np
import pandas as pd

from experiments import tasks
from experiments.comparisons import Sample
from experiments.records import naming_columns

LATE = 3  # epochs whose mean tells a level where no schedule calms the last one
MEASURED = ["epoch", "train_loss", "test_loss", "seconds"]
MEASURES = ["final", "best", "late", "final_loss", "final_train_loss", "seconds"]


def summarise(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Mean, standard deviation and number of seeds of each group's final and best results.

    Args:
      rows: rows of whole cells.
      by: columns that make a group, such as ``["arm", "learning_rate"]``.

    Returns:
      One row per group, in order of appearance: results in the unit of the task's metric, ``*_sd``
      with n − 1 (NaN for one seed), ``diverged`` the number of seeds that did, ``diverged_epoch``
      the first epoch of one.
    """
    cells = per_cell(rows)
    groups = cells.groupby(by, sort=False, dropna=False)
    table = groups[MEASURES].agg(["mean", "std"]).rename(columns={"std": "sd"}, level=1)
    table.columns = table.columns.map("_".join)
    table = table.drop(columns="seconds_sd")
    table["n"] = groups.size()
    table["diverged"] = groups["diverged"].sum()
    table["diverged_epoch"] = groups["diverged_epoch"].min()
    return table.reset_index()


def per_cell(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per cell: the task's metric, final losses, seconds, divergence.

    ``final`` is the metric after the last epoch, ``late`` its mean over the last three epochs, and
    ``best`` the best of all epochs; picking that one uses the evaluated examples. A loss that is
    not a number counts as infinite, so that no mean leaves it out. A cell has diverged in the first
    epoch with a loss that is not finite, on the training or on the evaluated examples.
    """
    of_task = [per_cell_of_task(part, str(task)) for task, part in rows.groupby("task", sort=False)]
    return pd.concat(of_task, ignore_index=True) if of_task else pd.DataFrame()


def per_cell_of_task(rows: pd.DataFrame, task: str) -> pd.DataFrame:
    """The same, of one task."""
    metric = tasks.find_task(task).metric
    finite = np.isfinite(rows["train_loss"]) & np.isfinite(rows["test_loss"])
    names = naming_columns(rows)
    rows = rows[[*names, *MEASURED, metric.column]].assign(
        metric=(metric.scale * rows[metric.column]).where(
            np.isfinite(rows[metric.column]), metric.worst
        ),
        diverged_epoch=rows["epoch"].where(~finite).astype("Int64"),
    )
    cells = rows.groupby(names, sort=False, dropna=False)
    late = rows[rows["epoch"] > rows["epochs"] - LATE].groupby(names, sort=False, dropna=False)
    table = pd.DataFrame(
        {
            "final": cells["metric"].last(),
            "best": cells["metric"].max() if metric.higher_is_better else cells["metric"].min(),
            "late": late["metric"].mean(),
            "final_loss": cells["test_loss"].apply(lambda loss: loss.iloc[-1]).fillna(np.inf),
            "final_train_loss": cells["train_loss"]
            .apply(lambda loss: loss.iloc[-1])
            .fillna(np.inf),
            "seconds": cells["seconds"].sum(),
            "diverged_epoch": cells["diverged_epoch"].min(),
        }
    )
    table["diverged"] = table["diverged_epoch"].notna()
    return table.reset_index()


def sample(rows: pd.DataFrame, column: str = "final") -> Sample:
    """One result per seed, from the rows of one arm on one workload at one learning rate.

    It is higher where it is better: of a metric that is better lower, the sample is negative.
    """
    cells = per_cell(rows)
    ((task, arm, learning_rate),) = (
        cells[["task", "arm", "learning_rate"]].drop_duplicates().itertuples(index=False)
    )
    metric = tasks.find_task(task).metric
    values = metric.sign * cells.set_index("seed")[column]
    return Sample(str(arm), float(learning_rate), values, metric.final, metric.margin)
