"""Figure 4: standard optimizers."""

import re

import matplotlib.pyplot as plt
import numpy as np

from experiments.arms import ARMS
from experiments.naming import colour, label
from experiments.studies.optimizers import Optimizers
from tests.studies.made_up import Done, StudyTests, marks_best_rates_at_an_end
from tests.studies.planted import Planted


class TestOptimizers(StudyTests):
    study = Optimizers(arms=("full", "sgd", "adam"), seeds=2, epochs=2)

    def test_runs_every_arm_at_three_rates(self, done: Done):
        rates = done.rows.groupby("arm")["learning_rate"].agg(lambda rates: sorted(set(rates)))
        assert rates["full"] == [0.03, 0.1, 0.3]
        assert rates["adam"] == [0.0003, 0.001, 0.003]

    def test_ranks_the_arms_at_their_best_rates(self, done: Done):
        summary = done.read("summary.csv")
        best = summary.groupby("arm")["final_mean"].max().sort_values(ascending=False)
        places = re.findall(r"^(\d)\. (.*) at ", done.report, re.MULTILINE)
        assert places == [(f"{i}", ARMS[arm].label) for i, arm in enumerate(best.index, 1)]

    def test_draws_each_arm_strongly_at_its_best_rate_and_faintly_at_the_others(self, done: Done):
        summary = done.read("summary.csv")
        best = summary.loc[summary.groupby("arm", sort=False)["final_mean"].idxmax()]
        accuracy, loss, *_ = done.figures["figure.png"].axes
        for axes, column, scale in ((accuracy, "test_accuracy", 100), (loss, "train_loss", 1)):
            strong = [line for line in axes.get_lines() if line.get_label()[0] != "_"]
            faint = [line for line in axes.get_lines() if line.get_label()[0] == "_"]
            assert len(axes.collections) == len(strong) == 3, "a band for each strong line"
            assert len(faint) == 6
            assert max(line.get_linewidth() for line in faint) < strong[0].get_linewidth()
            for line, (arm, rate) in zip(
                strong, zip(best["arm"], best["learning_rate"], strict=True), strict=True
            ):
                of_line = done.rows.query("arm == @arm and learning_rate == @rate")
                mean = scale * of_line.groupby("epoch")[column].mean()
                np.testing.assert_allclose(line.get_ydata(), mean)
                assert line.get_color() == colour(arm)
                assert line.get_label() == f"{label(arm)}, {rate:g}"

    def test_has_one_legend_with_one_entry_per_arm(self, done: Done):
        figure = done.figures["figure.png"]
        assert not any(axes.get_legend() for axes in figure.axes)
        (legend,) = figure.legends
        assert len(legend.get_texts()) == 3

    def test_says_where_a_best_rate_lies_at_an_end_of_the_three(self, done: Done):
        marks_best_rates_at_an_end(done)
        (claim,) = done.read("claims.csv").to_dict("records")
        assert (
            "the best rate of SGD, 0.03, lies at the lower edge of the three" in claim["measured"]
        )
        assert "the best rate of Adam" not in claim["measured"]

    def test_names_the_arms_that_lie_below_the_full_method_too(self, done: Done):
        (claim,) = done.read("claims.csv").to_dict("records")
        mean = done.comparisons.set_index("control")["mean"]
        for arm in ("sgd", "adam"):
            side = "above it" if mean[arm] < 0 else "below it"
            assert re.search(rf"{side}: [^;]*{ARMS[arm].label}", claim["answer"])


def test_the_best_rate_is_that_of_the_lowest_value_where_lower_is_better():
    study = Optimizers(task="mnist5k_autoencoder", arms=("full", "sgd"), seeds=3, epochs=3)
    found = study.run(Planted(lambda cell: 9 + cell.learning_rate), "").comparisons
    assert found["treatment_rate"].tolist() == [0.03]
    assert found["control_rate"].tolist() == [0.03]
    plt.close("all")
