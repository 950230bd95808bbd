"""The search for the learning rates of the fair test."""

from experiments.naming import label
from experiments.studies.accuracy import Accuracy
from experiments.studies.tune import Tune
from tests.studies.made_up import BEST_RATES, Done, StudyTests


class TestTune(StudyTests):
    study = Tune(arms=("full", "sgd", "adam"), seeds=2, epochs=2, budget=6)
    files = frozenset({"selections.csv"})

    def test_selects_the_best_rate_of_every_arm(self, done: Done):
        selections = done.read("selections.csv").set_index("arm")
        assert selections["learning_rate"].to_dict() == BEST_RATES
        assert not selections["at_edge"].any()

    def test_spends_the_same_budget_on_every_arm_whose_best_rate_is_at_no_edge(self, done: Done):
        tried = done.rows.groupby("arm")["learning_rate"].nunique()
        assert tried["full"] == tried["adam"] == 6
        assert tried["sgd"] > 6
        trials = done.read("selections.csv").set_index("arm")["trials"]
        assert tried.to_dict() == trials.to_dict()

    def test_says_how_sure_the_selection_is_and_what_came_next(self, done: Done):
        table = done.read("table.csv").set_index("arm")
        assert table["selected"].to_dict() == {
            label(arm): rate for arm, rate in BEST_RATES.items() if arm in done.study.arms
        }
        assert (table["sure"] == "100%").all(), "half a decade is far"
        assert (table["behind"] > 0.5).all()
        assert not (table["runner-up"] == table["selected"]).any()

    def test_looks_at_no_test_image_and_at_no_seed_of_another_study(self, done: Done):
        assert set(done.rows["split"]) == {"validation"}
        others = {cell.seed for cell in Accuracy(seeds=100).cells("full", 0.1)}
        assert not set(done.rows["seed"]) & others
