"""Figure 7: the design space."""

import pytest

from experiments.studies.design_space import ON_BASE, ON_BASELINE, DesignSpace
from tests.studies.made_up import Done, StudyTests, final_percent, marks_best_rates_at_an_end


class TestDesignSpace(StudyTests):
    study = DesignSpace(
        arms=("full", "bounded", "momentum_gain", "adam_gain"),
        baselines=("sgd", "adam"),
        seeds=3,
        epochs=2,
        tuning_seeds=1,
    )

    def test_runs_a_variant_at_the_rate_that_was_best_for_its_base(self, done: Done):
        rows = done.rows
        held_out = final_percent(rows).loc["validation"].groupby(["arm", "learning_rate"]).mean()
        rates = rows[rows["split"] == "test"].groupby("arm")["learning_rate"].unique()
        for variant, base in {
            "full": "sgd_homeostasis",
            "bounded": "sgd_homeostasis",
            "momentum_gain": "momentum_homeostasis",
            "adam_gain": "adam_homeostasis",
        }.items():
            assert rates[variant].tolist() == rates[base].tolist() == [held_out[base].idxmax()]
        marks_best_rates_at_an_end(done)

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
