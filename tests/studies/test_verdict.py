"""The fair test."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from experiments.arms import ARMS, FAIR_TEST
from experiments.cells import ConfigError
from experiments.comparisons import answer
from experiments.hypotheses import HYPOTHESES, MORE_THAN_ONE, STRONGEST
from experiments.naming import label
from experiments.statistics import holm, paired_comparison
from experiments.studies.verdict import EXPLORATION, HYPOTHESIS, OWN_ALPHA, FairTest
from tests.studies.made_up import (
    BEST_RATES,
    Done,
    StudyTests,
    draws_differences,
    execute,
    final_percent,
    read,
    words,
    write_selections,
)


class TestFairTest(StudyTests):
    study = FairTest(seeds=6, ablation_seeds=3, epochs=2)

    @classmethod
    def prepared(cls, folder: Path) -> FairTest:
        return dataclasses.replace(cls.study, tuned=write_selections(folder / "tuned"))

    @staticmethod
    def rate(arm: str, kind: str) -> float:
        default = ARMS[arm].learning_rate
        return default if kind == "published" else BEST_RATES.get(arm, default)

    def test_compares_every_hypothesis_on_fresh_seeds_and_test_images(self, done: Done):
        assert set(done.rows["split"]) == {"test"}
        assert done.rows["seed"].max() == 5
        final = final_percent(done.rows).droplevel(
            ["split", "label_noise", "batch_size", "fraction"]
        )
        comparisons = done.family(HYPOTHESIS)
        assert len(comparisons) == len(HYPOTHESES)
        p_values = []
        for hypothesis, found in zip(HYPOTHESES, comparisons.to_dict("records"), strict=True):
            treatment, control = (
                final.loc[2, competitor.arm, self.rate(competitor.arm, competitor.rate)].to_numpy()
                for competitor in (hypothesis.treatment, hypothesis.control)
            )
            expected = paired_comparison(treatment, control)
            p_values.append(expected.p_greater)
            assert found["n"] == 6
            assert found["mean"] == pytest.approx((treatment - control).mean(), abs=1e-5)
            assert found["p_greater"] == pytest.approx(expected.p_greater)
        np.testing.assert_allclose(comparisons["p_greater_holm"], holm(p_values))

    def test_compares_the_other_arms_in_a_family_of_their_own(self, done: Done):
        explored = done.family(EXPLORATION)
        asked = {pair.control.arm for pair in HYPOTHESES if pair.control.rate == "tuned"}
        assert set(explored["control"]) == set(FAIR_TEST) - asked - {"full"}
        np.testing.assert_allclose(explored["p_greater_holm"], holm(explored["p_greater"]))

    def test_draws_hypotheses_and_exploration_apart(self, done: Done):
        written_down, afterwards = done.figures["figure.png"].axes
        tuned = done.comparisons.query("condition == 'tuned learning rates'")
        for axes, family in ((written_down, HYPOTHESIS), (afterwards, EXPLORATION)):
            rows = tuned[tuned["family"] == family].sort_values("mean", ascending=False)
            draws_differences(axes, rows)
            assert family in axes.get_title()
            names = [text.get_text() for text in axes.get_yticklabels()]
            sides = zip(rows["control"], rows["n"], strict=True)
            assert names == [f"{label(arm)} (n = {n})" for arm, n in sides]
        assert "before the run" in words(done.figures["figure.png"])

    def test_says_all_of_it_in_the_report(self, done: Done):
        for hypothesis in HYPOTHESES:
            assert hypothesis.question in done.report
        for verdict in done.comparisons["verdict"]:
            assert verdict in done.report
        for arm in FAIR_TEST:
            assert label(arm) in done.report

    def test_claims_scrambled_coefficients_and_one_number_per_leaf_together(self, done: Done):
        claim = done.read("claims.csv").set_index("question").loc[OWN_ALPHA]
        assert "scrambling α over the coordinates" in claim["answer"]
        assert "one number per leaf" in claim["answer"]
        assert claim["measured"].count("Δ") == 3

    def test_claims_the_answer_against_one_and_against_the_strongest_baseline(self, done: Done):
        claims = done.read("claims.csv").set_index("question")
        rows = done.comparisons.set_index("control")
        one = rows.loc["sgd_homeostasis"]
        assert claims.loc[MORE_THAN_ONE, "answer"] == answer(one)
        baselines = rows.query("question.str.contains('tuned baseline')")
        rival = baselines["mean"].idxmin()
        assert claims.loc[STRONGEST, "measured"].startswith(label(rival))


class TestRefusals:
    def test_without_its_learning_rates_it_says_how_to_get_them(self, tmp_path: Path):
        with pytest.raises(ConfigError, match=r"selections\.csv is missing.*experiments tune"):
            execute(FairTest(tuned=tmp_path / "absent", out=tmp_path / "out"))

    def test_without_the_learning_rate_of_an_arm_it_names_the_arm(self, tmp_path: Path):
        tuned = write_selections(tmp_path / "tuned")
        table = read(tuned, "selections.csv")
        table[table["arm"] != "adam"].to_csv(tuned / "selections.csv", index=False)
        with pytest.raises(ConfigError, match=r"selections\.csv has no learning rate for adam\."):
            execute(FairTest(tuned=tuned, out=tmp_path / "out"))

    def test_without_an_arm_of_the_hypotheses_it_names_the_arm(self):
        with pytest.raises(ConfigError, match=r"arms .*permuted"):
            FairTest(arms=tuple(arm for arm in ARMS if arm != "permuted"))
