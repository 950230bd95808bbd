"""Figure 4: standard optimizers."""

import re

from experiments.arms import ARMS
from experiments.studies.optimizers import Optimizers
from tests.studies.made_up import Done, StudyTests, marks_best_rates_at_an_end


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
