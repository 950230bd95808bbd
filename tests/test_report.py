"""Reports: every number in them comes from the records."""

import math
import re

import numpy as np
import pandas as pd
import pytest

from experiments import reference
from experiments.cells import Cell, Workload
from experiments.optimizers import ARMS
from experiments.report import accuracy_report, markdown_table, mean_and_sd, summary_table
from experiments.summary import summarise


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
        table = [["arm", "final %"], ["SGD", "97.10 ± 0.20"], ["full", ""]]
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
            assert cells["final %"] == f"{final.mean():.2f} ± {final.std(ddof=1):.2f}"
            assert cells["best %"] == f"{best.mean():.2f} ± {best.std(ddof=1):.2f}"
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


class TestAccuracyReport:
    def test_holds_the_table_and_the_figure(self):
        rows = rows_of(0)
        table = table_of(rows)
        text = accuracy_report(rows, table, None, "IDX files")
        assert tables_in(text) == [table]
        assert "](figure.png)" in text
        assert text.startswith("# ")
        assert text.endswith("\n")

    @pytest.mark.parametrize(
        ("dataset", "epochs", "seeds", "title"),
        [("mnist", 7, 3, "MNIST"), ("fashion_mnist", 2, 5, "Fashion-MNIST")],
    )
    def test_says_what_was_run(self, dataset: str, epochs: int, seeds: int, title: str):
        rows = rows_of(0, dataset=dataset, epochs=epochs, seeds=seeds)
        text = accuracy_report(rows, table_of(rows), None, "a source of its own")
        assert text.splitlines()[0].endswith(f": {title}")
        assert f"{epochs} epochs" in text
        assert "batches of 33" in text
        assert f"{seeds} seeds" in text
        assert "a source of its own" in text

    def test_compares_with_the_published_implementation_after_ten_epochs(self):
        rows = rows_of(0, dataset="mnist", epochs=10, seeds=3)
        published = reference.load("mnist")
        text = accuracy_report(rows, table_of(rows), published, "IDX files")
        ours, theirs = (
            100 * frame.query("arm == 'full' and epoch == 10")["test_accuracy"].mean()
            for frame in (rows, published)
        )
        assert f"{ours:.2f}% here" in text
        assert f"{theirs:.2f}% there" in text
        assert f"{ours - theirs:+.2f} points apart" in text

    def test_says_how_the_first_arm_compares_with_the_others_by_seed(self):
        rows = rows_of(0, seeds=4)
        last = (
            100 * rows[rows["epoch"] == rows["epochs"]].set_index(["arm", "seed"])["test_accuracy"]
        )
        text = accuracy_report(rows, table_of(rows), None, "IDX files")
        (line,) = (line for line in text.splitlines() if line.startswith("- "))
        assert "NeuroPlastic (full)" in line
        assert "Adam" in line
        assert f"mean difference {(last['full'] - last['adam']).mean():+.2f} points" in line

    def test_compares_nothing_where_there_is_nothing_to_compare(self):
        rows = rows_of(0, seeds=3)
        for of_one in (rows[rows["seed"] == 0], rows[rows["arm"] == "adam"]):
            text = accuracy_report(of_one, table_of(of_one), None, "IDX files")
            assert "sign flips" not in text

    def test_has_no_number_that_is_not_in_the_records(self):
        """Two reports of other rows differ in every number of their tables but the settings."""
        one, other = (rows_of(seed) for seed in (0, 1))
        tables = [
            tables_in(accuracy_report(rows, table_of(rows), None, "IDX files"))[0]
            for rows in (one, other)
        ]
        header = tables[0][0]
        for first, second in zip(tables[0][1:], tables[1][1:], strict=True):
            same = {name for name, a, b in zip(header, first, second, strict=True) if a == b}
            assert same <= {"arm", "rate", "seeds", "s/seed"}
