"""Tables over seeds, from the records."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from experiments.cells import Cell
from experiments.comparisons import Sample
from experiments.records import CELL_COLUMNS

MEASURED = ["epoch", "test_accuracy", "test_loss", "train_loss", "seconds"]


def summarise(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Mean, standard deviation and number of seeds of each group's final and best results.

    Args:
      rows: rows of whole cells.
      by: columns that make a group, such as ``["arm", "learning_rate"]``.

    Returns:
      One row per group, in order of appearance: accuracies in percent, ``*_sd`` with n − 1 (NaN
      for one seed), ``diverged`` the number of seeds that did, ``diverged_epoch`` the first epoch
      of one.
    """
    cells = per_cell(rows)
    groups = cells.groupby(by, sort=False)
    columns = ["final_accuracy", "best_accuracy", "final_loss", "final_train_loss", "seconds"]
    table = groups[columns].agg(["mean", "std"]).rename(columns={"std": "sd"}, level=1)
    table.columns = table.columns.map("_".join)
    table = table.drop(columns="seconds_sd")
    table["n"] = groups.size()
    table["diverged"] = groups["diverged"].sum()
    table["diverged_epoch"] = groups["diverged_epoch"].min()
    return table.reset_index()


def per_cell(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per cell: final and best accuracy in percent, final losses, seconds, divergence.

    The best accuracy is over all epochs; picking it uses the evaluated images. A loss that is not a
    number counts as infinite, so that no mean leaves it out. A cell has diverged in the first epoch
    with a loss that is not finite, on the training or on the evaluated images.
    """
    finite = np.isfinite(rows["train_loss"]) & np.isfinite(rows["test_loss"])
    rows = rows[[*CELL_COLUMNS, *MEASURED]].assign(
        diverged_epoch=rows["epoch"].where(~finite).astype("Int64")
    )
    cells = rows.groupby(CELL_COLUMNS, sort=False, dropna=False)
    table = pd.DataFrame(
        {
            "final_accuracy": 100 * cells["test_accuracy"].last(),
            "best_accuracy": 100 * cells["test_accuracy"].max(),
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


def of_cells(rows: pd.DataFrame, cells: Iterable[Cell]) -> pd.DataFrame:
    """The rows of some of the cells, in the order of the cells and their epochs."""
    wanted = pd.DataFrame([cell.fields() for cell in cells], columns=CELL_COLUMNS)
    return wanted.merge(rows, on=CELL_COLUMNS, how="inner")


def sample(rows: pd.DataFrame, column: str = "final_accuracy") -> Sample:
    """One result per seed, from the rows of one arm on one workload at one learning rate."""
    cells = per_cell(rows)
    ((arm, learning_rate),) = cells[["arm", "learning_rate"]].drop_duplicates().to_numpy()
    return Sample(str(arm), float(learning_rate), cells.set_index("seed")[column])
