"""Wrong labels, small and large batches."""

from pathlib import Path

import pytest

from experiments.studies.noise import Noise
from tests.studies.made_up import (
    Done,
    StudyTests,
    draws_differences,
    execute,
    final_percent,
    read,
)


class TestNoise(StudyTests):
    study = Noise(
        arms=("full", "sgd", "adam"), seeds=3, epochs=2, label_noise=(0.0, 0.4), batch_sizes=(8,)
    )

    def test_tunes_each_arm_in_each_condition_on_held_out_images(self, done: Done):
        conditions = {(0.0, 128), (0.4, 128), (0.0, 8)}
        for split, count in (("validation", 5), ("test", 1)):
            of_split = done.rows[done.rows["split"] == split]
            groups = of_split.groupby(["label_noise", "batch_size", "arm"])["learning_rate"]
            tried = groups.nunique().unstack("arm")
            assert (tried["adam"] == count).all()
            assert set(tried.index) == conditions

    def test_takes_the_rates_that_were_best_there(self, done: Done):
        chosen = done.rows[done.rows["split"] == "test"].groupby("arm")["learning_rate"].unique()
        assert chosen["full"].tolist() == [0.3]
        assert chosen["sgd"].tolist() == [0.003]

    def test_compares_the_difference_with_noise_with_that_without(self, done: Done):
        final = final_percent(done.rows).loc["test"].groupby(["label_noise", "batch_size", "arm"])
        mean = final.mean().unstack("arm")
        difference = mean["full"] - mean["sgd"]
        (row,) = done.comparisons.query(
            "condition.str.startswith('difference') and control == 'sgd'"
        ).to_dict("records")
        assert row["mean"] == pytest.approx(difference[0.4, 128] - difference[0.0, 128], abs=1e-4)

    def test_draws_the_differences_on_record_by_label_noise_and_by_batch_size(self, done: Done):
        _, _, noise, size = done.figures["figure.png"].axes
        conditions = {
            noise: ("0% wrong labels, batches of 128", "40% wrong labels, batches of 128"),
            size: ("0% wrong labels, batches of 128", "0% wrong labels, batches of 8"),
        }
        for axes, of_axes in conditions.items():
            rows = done.comparisons[done.comparisons["condition"].isin(of_axes)]
            draws_differences(axes, rows)
        places = [line.get_xdata()[0] for line in size.get_lines() if line.get_marker() == "o"]
        assert places == [128, 128, 8, 8]

    def test_draws_levels_without_bars_above_the_differences(self, done: Done):
        summary = done.read("summary.csv")
        levels = done.figures["figure.png"].axes[0]
        assert not levels.containers
        for line, arm in zip(levels.get_lines(), done.study.arms, strict=True):
            there = summary[(summary["arm"] == arm) & (summary["batch_size"] == 128)]
            there = there.sort_values("label_noise")
            assert line.get_ydata() == pytest.approx(there["final_mean"].to_numpy())


def test_of_one_arm_alone_no_difference_is_drawn(tmp_path: Path):
    study = Noise(
        arms=("full",),
        seeds=2,
        epochs=1,
        label_noise=(0.0, 0.4),
        batch_sizes=(8,),
        out=tmp_path / "out",
    )
    execute(study)
    assert read(tmp_path / "out", "comparisons.csv").empty
