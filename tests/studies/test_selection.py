"""The selection of the published settings, repeated."""

import pytest

from experiments.studies.selection import FAMILIES, LEARNING_RATES, Selection
from tests.studies.made_up import Done, StudyTests


class TestSelection(StudyTests):
    study = Selection(arms=("full", "gradient_only", "adam"), seeds=3, epochs=2, tuning_seeds=1)
    files = frozenset({"selections.csv"})

    def test_gives_every_family_thirty_six_trials(self):
        for family, arms in FAMILIES.items():
            assert len(arms) * len(LEARNING_RATES[family]) == 36

    def test_judges_thirty_six_trials_per_family_on_held_out_images(self, done: Done):
        trials = done.read("summary.csv")
        assert (trials.groupby("family").size() == 36).all()
        tried = done.rows[done.rows["split"] == "validation"]
        assert len(tried.groupby(["arm", "learning_rate"])) == 3 * 36

    def test_selects_the_best_trial_and_runs_it_on_fresh_seeds_and_test_images(self, done: Done):
        trials = done.read("summary.csv")
        trials = trials.set_index(["family", "arm", "learning_rate"]).sort_index()
        fresh = done.rows[done.rows["split"] == "test"]
        for row in done.read("selections.csv").to_dict("records"):
            accuracy = trials.loc[row["family"], "validation_accuracy"]
            assert accuracy.idxmax() == (row["arm"], row["learning_rate"])
            assert row["validation_accuracy"] == pytest.approx(accuracy.max())
            same = fresh[["arm", "learning_rate"]] == [row["arm"], row["learning_rate"]]
            assert set(fresh.loc[same.all(axis=1), "seed"]) == {0, 1, 2}

    def test_says_where_the_published_configuration_stands(self, done: Done):
        trials = done.read("summary.csv").query("family == 'full'")
        is_published = (trials["arm"] == "full") & (trials["learning_rate"] == 0.1)
        published = trials.loc[is_published, "validation_accuracy"].item()
        rank = (trials["validation_accuracy"] > published).sum() + 1
        assert f"is number {rank} of the full method's 36" in done.report
