"""Tables for readers: every number in them comes from the records."""

import io
import math
import re

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from experiments.arms import ARMS
from experiments.cells import Cell, Workload
from experiments.studies.findings import summary_table
from experiments.summary import summarise
from experiments.tables import markdown_table, mean_and_sd, show


def rows_of(seed: int, *, dataset: str = "mnist", epochs: int = 7, seeds: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    workload = Workload(dataset, epochs=epochs, batch_size=33)
    return pd.DataFrame(
        [
            {
                **Cell(workload, arm, 0.037, number).fields(),
                "epoch": epoch,
                "train_loss": rng.random(),
                "test_loss": rng.random(),
                "test_accuracy": rng.random(),
                "seconds": rng.random(),
            }
            for arm in ("full", "adam")
            for number in range(seeds)
            for epoch in range(1, epochs + 1)
        ]
    )


def table_of(rows: pd.DataFrame) -> list[list[str]]:
    return summary_table(summarise(rows, ["arm", "learning_rate"]))


def tables_in(markdown: str) -> list[list[list[str]]]:
    """The tables of a text, each a list of rows of cells; fails where one is not well formed."""
    tables = []
    for block in re.findall(r"(?:^\|.*\n?)+", markdown, re.MULTILINE):
        header, ruler, *body = (
            [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]
            for line in block.strip().split("\n")
        )
        assert set(ruler) == {"---"}
        assert {len(row) for row in (ruler, *body)} == {len(header)}
        tables.append([header, *body])
    return tables


class TestMarkdownTable:
    def test_can_be_read_back(self):
        table = [["arm", "final"], ["SGD", "97.10 ± 0.20"], ["full", ""]]
        assert tables_in(markdown_table(table)) == [table]

    def test_of_a_header_alone(self):
        assert markdown_table([["a", "b"]]) == "| a | b |\n|---|---|"

    def test_with_a_cell_that_looks_like_a_ruler(self):
        assert tables_in(markdown_table([["a", "b"], ["---", "1"]])) == [[["a", "b"], ["---", "1"]]]


class TestMeanAndDeviation:
    @pytest.mark.parametrize(
        ("mean", "sd", "digits", "text"),
        [
            (97.126, 0.204, 2, "97.13 ± 0.20"),
            (0.123456, 0.01, 4, "0.1235 ± 0.0100"),
            (97.126, math.nan, 2, "97.13"),
            (math.nan, math.nan, 4, "nan"),
        ],
    )
    def test_is_written_with_its_digits(self, mean: float, sd: float, digits: int, text: str):
        assert mean_and_sd(mean, sd, digits) == text


class TestSummaryTable:
    @pytest.mark.parametrize("seed", [0, 1])
    def test_holds_the_numbers_of_the_rows(self, seed: int):
        rows = rows_of(seed)
        header, *lines = table_of(rows)
        assert [line[0] for line in lines] == [ARMS["full"].label, ARMS["adam"].label]
        for arm, line in zip(("full", "adam"), lines, strict=True):
            cells = dict(zip(header, line, strict=True))
            of_arm = rows[rows["arm"] == arm]
            accuracy = 100 * of_arm["test_accuracy"].to_numpy().reshape(3, 7)
            loss = of_arm["test_loss"].to_numpy().reshape(3, 7)[:, -1]
            final, best = accuracy[:, -1], accuracy.max(axis=1)
            assert cells["rate"] == "0.037"
            assert cells["final"] == f"{final.mean():.2f} ± {final.std(ddof=1):.2f}"
            assert cells["best"] == f"{best.mean():.2f} ± {best.std(ddof=1):.2f}"
            assert cells["final loss"] == f"{loss.mean():.4f} ± {loss.std(ddof=1):.4f}"
            assert cells["seeds"] == "3"
            assert cells["s/seed"] == f"{of_arm['seconds'].sum() / 3:.1f}"

    def test_says_how_many_seeds_diverged_and_when(self):
        rows = rows_of(0)
        diverged = (rows["arm"] == "adam") & (rows["seed"] < 2) & (rows["epoch"] >= 4)
        rows.loc[diverged, "test_loss"] = math.nan
        _, full, adam = table_of(rows)
        assert "3" in full
        assert "3 (2 diverged, first in epoch 4)" in adam

    def test_of_one_seed_shows_no_deviation(self):
        assert "±" not in str(table_of(rows_of(0, seeds=1)))


class TestShownTable:
    TABLE = (
        ["arm", "rate", "final", "best", "final loss", "seeds", "s/seed"],
        ["SGD + homeostasis (α ≡ 1)", "0.1", *["97.10 ± 0.20"] * 2, "0.1234 ± 0.0012", "5", "1.0"],
    )

    def shown(self, *, terminal: bool) -> str:
        stream = io.StringIO()
        show([*self.TABLE], Console(file=stream, width=80, force_terminal=terminal))
        return re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())

    def test_on_eighty_columns_keeps_the_names_of_arms_whole_and_loses_no_digit(self):
        text = self.shown(terminal=True)
        assert max(map(len, text.splitlines())) <= 80
        assert "SGD + homeostasis (α ≡ 1)" in text
        assert "…" not in text
        assert re.sub(r"[^0-9.]", "", text).count("97.10") == 2

    def test_in_a_log_is_as_wide_as_it_needs_to_be(self):
        text = self.shown(terminal=False)
        assert all(cell in text for row in self.TABLE for cell in row)
