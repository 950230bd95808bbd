"""Means, deviations and counts over seeds, from the rows of whole cells."""

import math

import numpy as np
import pandas as pd
import pytest

from experiments.cells import Cell, Workload
from experiments.summary import per_cell, summarise

EPOCHS = 3


def rows_of(arms: tuple[str, ...] = ("sgd", "adam"), seeds: int = 4) -> pd.DataFrame:
    rng = np.random.default_rng(seeds)
    workload = Workload("mnist", epochs=EPOCHS)
    return pd.DataFrame(
        [
            {
                **Cell(workload, arm, 0.1, seed).fields(),
                "epoch": epoch,
                "train_loss": rng.random(),
                "test_loss": rng.random(),
                "test_accuracy": rng.random(),
                "seconds": rng.random(),
            }
            for arm in arms
            for seed in range(seeds)
            for epoch in range(1, EPOCHS + 1)
        ]
    )


@pytest.fixture
def rows() -> pd.DataFrame:
    return rows_of()


def by_cell(rows: pd.DataFrame, arm: str, column: str) -> np.ndarray:
    """A measurement as [seeds, epochs]."""
    return rows.loc[rows["arm"] == arm, column].to_numpy().reshape(-1, EPOCHS)


def of_arm(rows: pd.DataFrame, arm: str) -> dict[str, float]:
    table = summarise(rows, ["arm", "learning_rate"])
    (row,) = table[table["arm"] == arm].to_dict("records")
    return row


class TestSummary:
    @pytest.mark.parametrize("arm", ["sgd", "adam"])
    def test_is_what_numpy_says(self, arm: str, rows: pd.DataFrame):
        accuracy = 100 * by_cell(rows, arm, "test_accuracy")
        values = {
            "final": accuracy[:, -1],
            "best": accuracy.max(axis=1),
            "final_loss": by_cell(rows, arm, "test_loss")[:, -1],
            "final_train_loss": by_cell(rows, arm, "train_loss")[:, -1],
        }
        found = of_arm(rows, arm)
        for name, value in values.items():
            assert found[f"{name}_mean"] == pytest.approx(value.mean(), rel=1e-12)
            assert found[f"{name}_sd"] == pytest.approx(value.std(ddof=1), rel=1e-12)
        seconds = by_cell(rows, arm, "seconds").sum(axis=1)
        assert found["seconds_mean"] == pytest.approx(seconds.mean(), rel=1e-12)
        assert found["n"] == 4
        assert found["diverged"] == 0

    def test_has_a_row_a_group_in_order_of_appearance(self, rows: pd.DataFrame):
        other = rows[rows["arm"] == "sgd"].assign(learning_rate=0.01)
        table = summarise(pd.concat([rows, other]), ["arm", "learning_rate"])
        groups = list(zip(table["arm"], table["learning_rate"], strict=True))
        assert groups == [("sgd", 0.1), ("adam", 0.1), ("sgd", 0.01)]

    def test_of_one_seed_has_no_deviation(self):
        rows = rows_of(seeds=1)
        found = of_arm(rows, "sgd")
        assert found["n"] == 1
        assert math.isnan(found["final_sd"])
        assert found["final_mean"] == 100 * rows["test_accuracy"].iloc[EPOCHS - 1]

    def test_of_one_epoch_is_final_and_best_at_once(self):
        rows = rows_of().query("epoch == 1").assign(epochs=1)
        found = of_arm(rows, "sgd")
        assert found["final_mean"] == found["best_mean"]


class TestDivergence:
    @pytest.mark.parametrize("loss", ["train_loss", "test_loss"])
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_is_in_the_first_epoch_with_a_loss_that_is_not_finite(
        self, loss: str, value: float, rows: pd.DataFrame
    ):
        rows.loc[(rows["arm"] == "sgd") & (rows["seed"] == 1) & (rows["epoch"] >= 2), loss] = value
        cells = per_cell(rows).set_index(["arm", "seed"])
        assert cells.index[cells["diverged"]].tolist() == [("sgd", 1)]
        assert cells.loc[("sgd", 1), "diverged_epoch"] == 2
        assert cells["diverged_epoch"].notna().sum() == 1

    def test_of_a_group_is_counted_and_dated_by_the_first_of_its_seeds(self, rows: pd.DataFrame):
        sgd = rows["arm"] == "sgd"
        rows.loc[sgd & (rows["seed"] == 1) & (rows["epoch"] >= 3), "test_loss"] = math.nan
        rows.loc[sgd & (rows["seed"] == 3) & (rows["epoch"] >= 2), "train_loss"] = math.nan
        assert of_arm(rows, "sgd")["diverged"] == 2
        assert of_arm(rows, "sgd")["diverged_epoch"] == 2
        assert of_arm(rows, "sgd")["n"] == 4
        assert of_arm(rows, "adam")["diverged"] == 0
        assert pd.isna(of_arm(rows, "adam")["diverged_epoch"])

    def test_is_not_undone_by_a_finite_loss_later(self, rows: pd.DataFrame):
        rows.loc[rows["epoch"] == 1, "train_loss"] = math.nan
        assert of_arm(rows, "sgd")["diverged"] == 4
        assert of_arm(rows, "sgd")["diverged_epoch"] == 1

    def test_is_written_as_a_whole_number(self, rows: pd.DataFrame):
        rows.loc[(rows["arm"] == "sgd") & (rows["epoch"] >= 2), "test_loss"] = math.inf
        table = summarise(rows, ["arm"])[["arm", "diverged", "diverged_epoch"]]
        assert table.to_csv(index=False) == "arm,diverged,diverged_epoch\nsgd,4,2\nadam,0,\n"

    def test_shows_in_the_mean_loss(self, rows: pd.DataFrame):
        """It is not left out of the mean, which would flatter the arm."""
        rows.loc[(rows["arm"] == "sgd") & (rows["seed"] == 1), "test_loss"] = math.nan
        assert of_arm(rows, "sgd")["final_loss_mean"] == math.inf
        assert math.isfinite(of_arm(rows, "adam")["final_loss_mean"])

    def test_leaves_the_accuracy_as_it_is(self, rows: pd.DataFrame):
        expected = 100 * by_cell(rows, "sgd", "test_accuracy")[:, -1].mean()
        rows.loc[rows["arm"] == "sgd", ["train_loss", "test_loss"]] = math.nan
        assert of_arm(rows, "sgd")["final_mean"] == pytest.approx(expected)
        assert of_arm(rows, "sgd")["diverged"] == 4


class TestPerCell:
    def test_has_a_row_a_cell_with_what_names_it(self, rows: pd.DataFrame):
        cells = per_cell(rows)
        assert list(zip(cells["arm"], cells["seed"], strict=True)) == [
            (arm, seed) for arm in ("sgd", "adam") for seed in range(4)
        ]
        assert (cells["task"] == "mnist").all()
        assert (cells["epochs"] == EPOCHS).all()
