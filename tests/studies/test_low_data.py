"""Figure 3: little data."""

from pathlib import Path

import pytest

from experiments.studies.low_data import LowData
from tests.studies.made_up import Done, StudyTests, draws_differences, execute, final_percent, read


class TestLowData(StudyTests):
    study = LowData(seeds=3, epochs=2, fractions=(0.5, 1.0), tuning_seeds=1)

    def test_trains_a_share_for_as_many_epochs_and_for_as_many_steps(self, done: Done):
        shares = set(zip(done.rows["fraction"], done.rows["epochs"], strict=True))
        assert shares == {(0.5, 2), (0.5, 4), (1.0, 2)}

    def test_tunes_each_arm_in_each_condition_on_held_out_images(self, done: Done):
        of_test = done.rows[done.rows["split"] == "test"]
        rates = of_test.groupby(["fraction", "epochs", "arm"])["learning_rate"].unique()
        assert rates.map(len).eq(1).all()
        held_out = final_percent(done.rows).loc["validation"]
        means = held_out.groupby(["fraction", "epochs", "arm", "learning_rate"]).mean()
        for key, chosen in rates.items():
            assert chosen[0] == means[key].idxmax()

    def test_compares_the_arms_in_every_condition_and_the_differences_by_share(self, done: Done):
        mean = final_percent(done.rows).loc["test"].groupby(["fraction", "epochs", "arm"]).mean()
        apart = mean.unstack("arm")
        apart = apart["full"] - apart["gradient_only"]
        expected = {
            "equal epochs, 50% of the images": apart[0.5, 2],
            "equal epochs, 100% of the images": apart[1.0, 2],
            "equal steps, 50% of the images": apart[0.5, 4],
            "equal epochs, difference at 50% minus that at 100%": apart[0.5, 2] - apart[1.0, 2],
            "equal steps, difference at 50% minus that at 100%": apart[0.5, 4] - apart[1.0, 2],
        }
        found = done.comparisons.set_index("condition")["mean"].to_dict()
        assert found == pytest.approx(expected, abs=1e-4)

    def test_answers_at_equal_epochs_and_at_equal_steps(self, done: Done):
        for claim in done.read("claims.csv")["answer"]:
            assert "at equal epochs" in claim
            assert "at equal steps" in claim

    def test_draws_the_differences_on_record_at_every_share_in_both_regimes(self, done: Done):
        rows = done.comparisons.set_index("condition")
        whole = "equal epochs, 100% of the images"
        _, epochs, _, _, steps, _ = done.figures["figure.png"].axes
        draws_differences(epochs, rows.loc[["equal epochs, 50% of the images", whole]])
        draws_differences(steps, rows.loc[["equal steps, 50% of the images", whole]])


def test_of_one_arm_alone_no_difference_is_drawn(tmp_path: Path):
    study = LowData(arms=("full",), seeds=2, epochs=1, fractions=(0.5, 1.0), out=tmp_path / "out")
    execute(study)
    assert read(tmp_path / "out", "comparisons.csv").empty
