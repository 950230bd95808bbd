"""One row per comparison, one rule for what it shows."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments import comparisons, statistics
from experiments.comparisons import (
    ACCURACY,
    COLUMNS,
    Sample,
    Verdict,
    answer,
    answer_of_all,
    compare,
    compare_differences,
    comparison_table,
    judge,
    measured,
    too_few_seeds,
)
from experiments.statistics import holm, paired_comparison

SEEDS, HYPOTHESES, FAMILIES = 20, 10, 300


def sample(values, arm="full", rate=0.1) -> Sample:
    return Sample(arm, rate, pd.Series(np.asarray(values, float)))


def table_of(*differences, family="one") -> pd.DataFrame:
    """Comparisons whose differences by seed are given."""
    zero = sample(np.zeros(len(differences[0])), "sgd")
    return comparisons.table(
        compare("Is it?", sample(values), zero, family=family) for values in differences
    )


WOBBLE = 0.05 * np.sin(np.arange(10))


class TestTable:
    def test_has_a_row_per_comparison_with_its_statistics(self):
        (row,) = table_of(0.5 + WOBBLE).to_dict("records")
        expected = paired_comparison(0.5 + WOBBLE, np.zeros(10))
        assert tuple(row) == COLUMNS
        assert (row["treatment"], row["control"], row["metric"]) == ("full", "sgd", ACCURACY)
        for name in ("n", "mean", "sd", "d_z", "share_won", "p_greater", "smallest_margin"):
            assert row[name] == getattr(expected, name)

    def test_pairs_by_seed_what_both_have(self):
        control = Sample("sgd", 0.1, pd.Series({3: 1.0, 2: 2.0, 9: 3.0}))
        treatment = Sample("full", 0.1, pd.Series({2: 2.5, 3: 1.5, 7: 0.0}))
        row = compare("", treatment, control, family="one")
        assert (row["n"], row["mean"], row["sd"]) == (2, 0.5, 0.0)

    def test_adjusts_each_family_by_itself(self):
        rows = [
            compare("", sample(shift + WOBBLE), sample(np.zeros(10), "sgd"), family=family)
            for family, shift in (("a", 0.01), ("b", 0.02), ("a", 0.03), ("a", -0.02))
        ]
        found = comparisons.table(rows)
        for p in ("p_greater", "p_two_sided"):
            for _, of_family in found.groupby("family"):
                np.testing.assert_allclose(of_family[f"{p}_holm"], holm(of_family[p]))

    def test_of_nothing_has_the_columns_alone(self):
        assert comparisons.table([]).to_csv(index=False) == ",".join(COLUMNS) + "\n"

    def test_of_another_metric_has_no_margin_of_practical_size(self):
        arms = (
            dataclasses.replace(of_arm, metric="mean α", margin=math.nan)
            for of_arm in (sample(0.01 + 0 * WOBBLE), sample(0 * WOBBLE, "sgd"))
        )
        (row,) = comparisons.table([compare("", *arms, family="one")]).to_dict("records")
        assert math.isnan(row["margin"])
        assert measured(row).startswith("mean α: Δ +0.01")
        assert row["verdict"] == Verdict.BETTER

    def test_compares_differences_here_with_differences_there(self):
        here = sample([3.0, 4.0, 5.0]), sample([1.0, 1.0, 1.0], "sgd")
        there = sample([1.0, 1.0, 1.0]), sample([0.5, 0.5, 0.5], "sgd")
        row = compare_differences("", here, there, family="one", condition="here minus there")
        assert (row["treatment"], row["control"]) == ("full", "sgd")
        assert row["mean"] == 3 - 0.5


class TestVerdict:
    def judged(self, **changes: float) -> Verdict:
        gain = {
            "mean": 0.5,
            "p_greater_holm": 0.01,
            "p_two_sided_holm": 0.02,
            "p_equivalence": 0.99,
        }
        return judge({**gain, **changes})

    def test_is_better_where_the_adjusted_one_sided_p_is_small(self):
        assert self.judged(p_greater_holm=0.05) is Verdict.BETTER
        assert self.judged(p_greater_holm=0.0501) is Verdict.NOT_SHOWN

    def test_is_worse_where_the_adjusted_two_sided_p_is_small_and_the_mean_below_zero(self):
        assert self.judged(mean=-0.5, p_greater_holm=1.0) is Verdict.WORSE
        assert self.judged(mean=-0.5, p_greater_holm=1.0, p_two_sided_holm=0.06) is (
            Verdict.NOT_SHOWN
        )
        assert self.judged(p_greater_holm=1.0) is Verdict.NOT_SHOWN

    def test_is_of_no_practical_size_be_the_difference_significant_or_not(self):
        for p in (0.001, 1.0):
            assert self.judged(p_equivalence=0.05, p_greater_holm=p) is (
                Verdict.NO_PRACTICAL_DIFFERENCE
            )

    def test_is_open_without_a_test_of_equivalence(self):
        assert self.judged(p_equivalence=math.nan, p_greater_holm=0.2) is Verdict.NOT_SHOWN

    def test_of_three_seeds_never_settles_which_is_higher(self):
        found = table_of([9.0, 9.1, 9.2])
        assert found["verdict"].tolist() == [Verdict.NOT_SHOWN]
        assert too_few_seeds(found.to_dict("records")) == (
            "With 3 seeds, p of 1 comparison cannot fall below 0.12, two-sided 0.25."
        )

    def test_with_enough_seeds_has_nothing_to_excuse(self):
        assert too_few_seeds(table_of(WOBBLE, WOBBLE).to_dict("records")) == ""

    def test_equivalence_names_its_margin(self):
        (row,) = table_of(0.02 + WOBBLE).to_dict("records")
        assert answer(row) == "no: no difference of practical size (within ±0.2)"

    @pytest.mark.parametrize(
        ("shifts", "expected"),
        [
            ((0.5, 0.6), "yes"),
            ((0.5, 0.0), "in part: 1 of 2"),
            ((-0.5, 0.0), "no: the opposite in 1 of 2"),
            ((0.3, -0.3), "not shown"),
        ],
    )
    def test_of_several_comparisons_is_counted(self, shifts, expected):
        spread = 30 if expected == "not shown" else 1
        rows = table_of(*(shift + spread * WOBBLE for shift in shifts)).to_dict("records")
        assert answer_of_all(rows) == expected


class TestText:
    def test_gives_the_p_value_of_the_side_on_which_the_mean_lies(self):
        rows = table_of(0.5 + WOBBLE, -0.5 + WOBBLE).to_dict("records")
        assert measured(rows[0]).endswith("p = 0.002, n = 10")
        assert measured(rows[1]).endswith("two-sided p = 0.0039, n = 10")
        assert measured(rows[0]).startswith("Δ +0.5")

    def test_of_one_seed_has_no_interval(self):
        (row,) = table_of([0.5]).to_dict("records")
        assert measured(row) == "Δ +0.50, p = 0.5, n = 1"

    def test_as_a_table_names_both_arms_and_a_condition_where_there_is_one(self):
        (row,) = table_of(0.5 + WOBBLE).to_dict("records")
        header, line = comparison_table([row])
        assert line[0] == "NeuroPlastic (full) − SGD"
        assert "condition" not in header
        assert comparison_table([{**row, "condition": "little data"}])[1][1] == "little data"
        assert line[-1] == "better"


def family(seed: int, *, planted: float, resamples: int) -> pd.DataFrame:
    """Ten arms against a control on the same 20 seeds; the first arm is better by `planted`.

    Seeds are easy or hard for every arm alike (sd 0.5), runs add noise of their own (sd 0.3), and
    a test set of 10,000 images shows accuracies in steps of 0.01 points.
    """
    rng = np.random.default_rng(seed)
    shared = rng.normal(97.0, 0.5, SEEDS)
    accuracies = shared + rng.normal(0.0, 0.3, (1 + HYPOTHESES, SEEDS))
    accuracies[1] += planted
    control, *arms = np.round(accuracies, 2)
    with pytest.MonkeyPatch.context() as patch:
        fewer = lambda *pair, margin: paired_comparison(  # noqa: E731
            *pair, margin=margin, resamples=resamples, seed=seed
        )
        patch.setattr(comparisons, "paired_comparison", fewer)
        # No verdict asks for the interval, which takes most of the time.
        patch.setattr(statistics, "_bca_interval", lambda *_: (math.nan, math.nan))
        rows = [compare("", sample(arm), sample(control, "sgd"), family="") for arm in arms]
    return comparisons.table(rows)


class TestPlantedEffects:
    def test_a_real_gain_is_found_among_ten_hypotheses(self):
        found = false = 0
        for seed in range(30):
            first, *others = family(seed, planted=0.5, resamples=999)["verdict"]
            found += first == Verdict.BETTER
            false += Verdict.BETTER in others
        assert found >= 27
        assert false <= stats.binom.ppf(0.99, 30, 0.05)

    def test_a_real_loss_is_found(self):
        assert family(0, planted=-0.5, resamples=999)["verdict"][0] == Verdict.WORSE

    def test_without_one_few_families_find_any(self):
        # The smallest p of 199 random sign vectors is 1 / 200, ten of which are just 0.05.
        families = [family(seed, planted=0.0, resamples=199) for seed in range(FAMILIES)]
        raw = sum(found["p_greater"].min() <= 0.05 for found in families)
        held = sum(found["p_greater_holm"].min() <= 0.05 for found in families)
        assert held <= stats.binom.ppf(0.99, FAMILIES, 0.05)
        assert raw > 0.15 * FAMILIES  # what Holm's adjustment is for
