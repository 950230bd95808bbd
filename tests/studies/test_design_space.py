"""Figure 7: the design space."""

import pytest

from experiments.studies.design_space import ON_BASE, ON_BASELINE, DesignSpace
from tests.studies.made_up import Done, StudyTests, final_percent


class TestDesignSpace(StudyTests):
    study = DesignSpace(
        arms=("full", "bounded", "momentum_gain", "adam_gain"),
        baselines=("sgd", "adam"),
        seeds=3,
        epochs=2,
        tuning_seeds=1,
    )

    def test_searches_for_variants_bases_and_baselines_alike(self, done: Done):
        rows = done.rows
        held_out = final_percent(rows).loc["validation"].groupby(["arm", "learning_rate"]).mean()
        rates = rows[rows["split"] == "test"].groupby("arm")["learning_rate"].unique()
        assert set(rates.index) == {
            *("full", "bounded", "sgd_homeostasis", "sgd"),
            *("momentum_gain", "momentum_homeostasis", "adam_gain", "adam_homeostasis", "adam"),
        }
        for arm, chosen in rates.items():
            tried = held_out[arm].droplevel([*range(held_out[arm].index.nlevels - 1)])
            assert chosen.tolist() == [tried.idxmax()]
            assert tried.index.min() < tried.idxmax() < tried.index.max(), "it went on until there"

    def test_compares_it_with_its_base_and_with_the_strongest_tuned_baseline(self, done: Done):
        of_test = final_percent(done.rows).loc["test"].groupby(["arm"]).mean()
        held_out = final_percent(done.rows).loc["validation"].groupby(["arm", "learning_rate"])
        strongest = held_out.mean()[["sgd", "adam"]].idxmax()[0]
        found = done.comparisons.set_index(["family", "treatment", "control"])["mean"]
        for family, control in ((ON_BASE, "sgd_homeostasis"), (ON_BASELINE, strongest)):
            expected = of_test["bounded"] - of_test[control]
            assert found[family, "bounded", control] == pytest.approx(expected, abs=1e-4)

    def test_counts_in_report_and_claim_what_its_comparisons_say(self, done: Done):
        of_base = done.family(ON_BASE)
        counted = f"{(of_base['mean'] > 0).sum()} of 4 variants are above their base in the mean"
        assert counted in done.report
        assert counted in done.read("claims.csv")["measured"].item()

    def test_says_that_few_seeds_show_nothing(self, done: Done):
        assert "With 3 seeds, p of 4 comparisons cannot fall below 0.5, two-sided 1." in done.report
