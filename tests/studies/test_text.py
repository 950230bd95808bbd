"""Text."""

from pathlib import Path

import pytest

from experiments.comparisons import delta
from experiments.studies.text import Text
from tests.studies.made_up import (
    Done,
    StudyTests,
    draws_differences,
    execute,
    final_percent,
    read,
)


class TestText(StudyTests):
    study = Text(task="mnist5k", arms=("full", "sgd"), seeds=3, epochs=2, tuning_seeds=1)

    def test_takes_the_rates_that_were_best_on_held_out_text(self, done: Done):
        chosen = done.rows[done.rows["split"] == "test"].groupby("arm")["learning_rate"].unique()
        assert chosen["full"].tolist() == [0.3]
        assert chosen["sgd"].tolist() == [0.003], "far from its default"

    def test_compares_the_first_arm_with_the_others(self, done: Done):
        final = final_percent(done.rows).loc["test"].groupby("arm").mean()
        (row,) = done.comparisons.to_dict("records")
        assert row["mean"] == pytest.approx(final["full"] - final["sgd"], abs=1e-4)

    def test_says_that_so_few_seeds_cannot_show_much(self, done: Done):
        (claim,) = done.read("claims.csv").query("headline").to_dict("records")
        assert "with 3 seeds, p of 1 comparison cannot fall below 0.12" in claim["answer"]

    def test_draws_the_differences_on_record_with_their_numbers(self, done: Done):
        _, differences = done.figures["figure.png"].axes
        draws_differences(differences, done.comparisons)
        (name,) = (text.get_text() for text in differences.get_yticklabels())
        (row,) = done.comparisons.to_dict("records")
        assert name == f"SGD\n{delta(row)}"


def test_of_one_arm_alone_no_difference_is_drawn(tmp_path: Path):
    study = Text(
        arms=("full",), seeds=2, epochs=1, task="mnist5k", tuning_seeds=1, out=tmp_path / "out"
    )
    execute(study)
    assert read(tmp_path / "out", "comparisons.csv").empty
