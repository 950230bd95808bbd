"""Figure 4: standard optimizers."""

import re

import matplotlib.pyplot as plt
import numpy as np

from experiments.arms import ARMS
from experiments.comparisons import delta
from experiments.naming import colour, label
from experiments.studies.optimizers import Optimizers
from tests.studies.made_up import Done, StudyTests, draws_differences
from tests.studies.planted import Planted


class TestOptimizers(StudyTests):
    study = Optimizers(arms=("full", "sgd", "adam"), seeds=2, epochs=2, tuning_seeds=1)

    def test_tries_three_rates_more_where_the_best_lies_at_an_end_and_finer_ones_around_it(
        self, done: Done
    ):
        held_out = done.rows[done.rows["split"] == "validation"]
        rates = held_out.groupby("arm")["learning_rate"].agg(lambda rates: sorted(set(rates)))
        assert rates["full"] == [0.03, 0.1, 0.17, 0.3, 0.55, 1.0]
        assert rates["sgd"] == [0.001, 0.0017, 0.003, 0.0055, 0.01, 0.03, 0.1, 0.3]
        assert rates["adam"] == [0.0003, 0.00055, 0.001, 0.0017, 0.003]

    def test_runs_every_arm_at_the_best_of_them(self, done: Done):
        final = done.rows[done.rows["split"] == "test"].groupby("arm")["learning_rate"].unique()
        assert {arm: rates.tolist() for arm, rates in final.items()} == {
            "full": [0.3],
            "sgd": [0.003],
            "adam": [0.001],
        }

    def test_ranks_the_arms(self, done: Done):
        summary = done.read("summary.csv")
        best = summary.groupby("arm")["final_mean"].max().sort_values(ascending=False)
        places = re.findall(r"^(\d)\. (.*) at ", done.report, re.MULTILINE)
        assert places == [(f"{i}", ARMS[arm].label) for i, arm in enumerate(best.index, 1)]

    def test_draws_each_arm_by_epoch_the_search_and_the_differences_on_record(self, done: Done):
        accuracy, loss, search, differences = done.figures["figure.png"].axes
        final = done.rows[done.rows["split"] == "test"]
        for axes, column, scale in ((accuracy, "test_accuracy", 100), (loss, "train_loss", 1)):
            for line, arm in zip(axes.get_lines(), done.study.arms, strict=True):
                mean = scale * final[final["arm"] == arm].groupby("epoch")[column].mean()
                np.testing.assert_allclose(line.get_ydata(), mean)
                assert line.get_color() == colour(arm)
                assert line.get_label() == label(arm)
        rings = [line for line in search.get_lines() if line.get_fillstyle() == "none"]
        assert [line.get_xdata()[0] for line in rings] == [0.3, 0.003, 0.001]
        draws_differences(differences, done.comparisons)
        names = [text.get_text() for text in differences.get_yticklabels()]
        rows = done.comparisons.to_dict("records")
        assert names == [f"{label(row['control'])}\n{delta(row)}" for row in rows]

    def test_has_one_legend_with_one_entry_per_arm(self, done: Done):
        figure = done.figures["figure.png"]
        assert not any(axes.get_legend() for axes in figure.axes[:3])
        (legend,) = figure.legends
        assert len(legend.get_texts()) == 3

    def test_names_the_arms_that_lie_below_the_full_method_too(self, done: Done):
        (claim,) = done.read("claims.csv").to_dict("records")
        mean = done.comparisons.set_index("control")["mean"]
        for arm in ("sgd", "adam"):
            side = "above it" if mean[arm] < 0 else "below it"
            assert re.search(rf"{side}: [^;]*{ARMS[arm].label}", claim["answer"])


def test_the_best_rate_is_that_of_the_lowest_value_where_lower_is_better():
    study = Optimizers(task="mnist5k_autoencoder", arms=("full", "sgd"), seeds=3, epochs=3)
    found = study.run(
        Planted(lambda cell: 9 + abs(np.log(cell.learning_rate / 0.03))), ""
    ).comparisons
    assert found["treatment_rate"].tolist() == [0.03]
    assert found["control_rate"].tolist() == [0.03]
    plt.close("all")
