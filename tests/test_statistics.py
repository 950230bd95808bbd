"""Paired statistics: exact where they can be, honest where they cannot, and fair to many arms."""

import collections
import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from experiments.statistics import (
    ALPHA,
    holm,
    paired_comparison,
    smallest_p,
)

SEEDS = 20

deterministic = settings(max_examples=60, deadline=None, derandomize=True)
probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=12)
hundredths = st.integers(-300, 300)
percentages = st.floats(0, 100)
pairs = st.integers(1, 9).flatmap(
    lambda n: st.tuples(
        st.lists(percentages, min_size=n, max_size=n), st.lists(percentages, min_size=n, max_size=n)
    )
)


def noise(n: int, *, mean: float = 0.0, sd: float = 0.3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, sd, n)


def share_at_least(differences: Sequence[int]) -> float:
    """The exact one-sided p-value, by counting the sign vectors that lead to every sum."""
    counts = collections.Counter({0: 1})
    for difference in differences:
        following: collections.Counter[int] = collections.Counter()
        for total, count in counts.items():
            following[total + difference] += count
            following[total - difference] += count
        counts = following
    observed = sum(differences)
    return sum(count for total, count in counts.items() if total >= observed) / 2 ** len(
        differences
    )


class TestTheMeasures:
    def test_describe_the_differences_treatment_minus_control(self):
        comparison = paired_comparison([97.0, 98.5, 96.0, 99.0], [96.0, 98.5, 97.0, 97.0])
        assert comparison.n == 4
        assert comparison.mean == 0.5
        assert comparison.sd == pytest.approx(math.sqrt(5 / 3))
        assert comparison.d_z == pytest.approx(0.5 / math.sqrt(5 / 3))
        assert comparison.share_won == 2.5 / 4  # two won, one tied, one lost
        assert (comparison.margin, comparison.confidence) == (0.2, 0.95)

    def test_ignore_what_the_seed_adds_to_both_arms(self):
        treatment, control, shared = noise(8, mean=0.3), noise(8, seed=1), noise(8, sd=5, seed=2)
        apart = paired_comparison(treatment, control)
        together = paired_comparison(treatment + shared, control + shared)
        assert dataclasses.astuple(together) == pytest.approx(dataclasses.astuple(apart), abs=1e-8)

    @given(arms=pairs)
    @deterministic
    def test_of_any_percentages_are_in_range_and_turn_round_with_the_arms(self, arms):
        there, back = (paired_comparison(*order, resamples=99) for order in (arms, arms[::-1]))
        assert there.mean == -back.mean
        assert there.share_won == pytest.approx(1 - back.share_won)
        assert there.p_two_sided == back.p_two_sided
        assert there.p_equivalence == back.p_equivalence
        for p in (there.p_greater, there.p_two_sided, there.p_equivalence):
            assert 0 <= p <= 1
        assert there.n == 1 or there.interval_low <= there.interval_high

    def test_are_the_same_every_time_and_depend_on_the_seed_of_the_resamples(self):
        arms = noise(SEEDS, mean=0.1), np.zeros(SEEDS)
        assert paired_comparison(*arms) == paired_comparison(*arms)
        other = paired_comparison(*arms, seed=1)
        assert other.p_greater != paired_comparison(*arms).p_greater
        assert other.p_greater == pytest.approx(paired_comparison(*arms).p_greater, abs=0.02)


class TestTheSignFlipTest:
    @given(differences=st.lists(hundredths, min_size=1, max_size=8))
    @deterministic
    def test_is_exact_by_brute_force(self, differences):
        sums = [
            sum(sign * difference for sign, difference in zip(signs, differences, strict=True))
            for signs in itertools.product((-1, 1), repeat=len(differences))
        ]
        greater, less = (
            np.mean([sign * total >= sign * sum(differences) for total in sums]) for sign in (1, -1)
        )
        # 97 + d/100 - 97 is not quite d/100: ties must survive that.
        comparison = paired_comparison(
            97 + np.array(differences) / 100, np.full(len(differences), 97.0), resamples=99
        )
        assert comparison.exact
        assert comparison.p_greater == greater
        assert comparison.p_two_sided == min(1, 2 * min(greater, less))

    def test_goes_through_all_sign_vectors_up_to_fourteen_seeds(self):
        differences = np.random.default_rng(3).integers(-40, 80, 14)
        comparison = paired_comparison(differences / 100, np.zeros(14))
        assert comparison.exact
        assert comparison.p_greater == share_at_least(differences.tolist())
        assert not paired_comparison(noise(15), np.zeros(15)).exact

    def test_goes_through_all_sign_vectors_where_the_resamples_are_as_many(self):
        differences = np.random.default_rng(3).integers(-40, 80, 15)
        comparison = paired_comparison(differences / 100, np.zeros(15), resamples=2**15)
        assert comparison.exact
        assert comparison.p_greater == share_at_least(differences.tolist())

    @pytest.mark.parametrize("shift", [0, 5, 10, 15])
    def test_by_random_signs_agrees_with_the_exact_one(self, shift):
        differences = np.random.default_rng(4).integers(-40, 40, SEEDS) + shift
        exact = share_at_least(differences.tolist())
        comparison = paired_comparison(differences / 100, np.zeros(SEEDS))
        assert not comparison.exact
        assert comparison.p_greater == pytest.approx(exact, abs=4 * math.sqrt(exact / 10_000))

    def test_by_random_signs_counts_the_observed_one(self):
        comparison = paired_comparison(noise(SEEDS, mean=9), np.zeros(SEEDS), resamples=999)
        assert comparison.p_greater == 1 / 1000
        assert comparison.p_two_sided == 2 / 1000

    @pytest.mark.parametrize("n", [1, 2, 3, 5, 10])
    def test_cannot_fall_below_two_to_the_minus_n(self, n):
        assert paired_comparison(noise(n, mean=9), np.zeros(n)).p_greater == smallest_p(n) == 0.5**n

    def test_has_its_level(self):
        rejected = [
            paired_comparison(noise(8, seed=seed), np.zeros(8), resamples=99).p_greater <= 0.05
            for seed in range(300)
        ]
        assert stats.binomtest(sum(rejected), 300, 0.05).pvalue > 0.01


class TestTheInterval:
    def test_covers_the_mean_of_skewed_differences(self):
        covered = 0
        for seed in range(300):
            skewed = np.random.default_rng(seed).exponential(1.0, SEEDS)
            comparison = paired_comparison(skewed, np.zeros(SEEDS), resamples=399)
            covered += comparison.interval_low <= 1.0 <= comparison.interval_high
        assert 0.88 <= covered / 300 <= 0.97

    def test_leans_to_the_long_tail(self):
        skewed = np.random.default_rng(0).exponential(1.0, SEEDS)
        comparison = paired_comparison(skewed, np.zeros(SEEDS))
        above, below = (
            comparison.interval_high - comparison.mean,
            comparison.mean - comparison.interval_low,
        )
        assert above > 1.2 * below

    def test_is_close_to_the_t_interval_for_many_normal_differences(self):
        differences = noise(200, mean=0.4)
        comparison = paired_comparison(differences, np.zeros(200))
        expected = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
        assert comparison.interval_low == pytest.approx(expected.low, abs=0.005)
        assert comparison.interval_high == pytest.approx(expected.high, abs=0.005)

    def test_widens_with_the_confidence(self):
        arms = noise(SEEDS), np.zeros(SEEDS)
        narrow, wide = (paired_comparison(*arms, confidence=level) for level in (0.8, 0.99))
        assert wide.interval_low < narrow.interval_low < narrow.interval_high < wide.interval_high


class TestTheEquivalenceTest:
    @pytest.mark.parametrize("mean", [-0.3, -0.15, 0.0, 0.1, 0.5])
    def test_is_the_larger_of_two_one_sided_t_tests(self, mean):
        differences = noise(SEEDS, mean=mean)
        above = stats.ttest_1samp(differences, -0.2, alternative="greater").pvalue
        below = stats.ttest_1samp(differences, 0.2, alternative="less").pvalue
        comparison = paired_comparison(differences, np.zeros(SEEDS))
        assert comparison.p_equivalence == pytest.approx(max(above, below), rel=1e-6)

    @pytest.mark.parametrize("seed", range(10))
    def test_asks_whether_the_ninety_percent_interval_lies_within_the_margin(self, seed):
        differences = noise(SEEDS, mean=0.1, seed=seed)
        interval = stats.ttest_1samp(differences, 0).confidence_interval(0.9)
        comparison = paired_comparison(differences, np.zeros(SEEDS))
        assert comparison.equivalent() == (interval.low > -0.2 and interval.high < 0.2)

    def test_takes_the_margin_and_the_level_it_is_given(self):
        arms = noise(SEEDS, mean=0.3), np.zeros(SEEDS)
        assert not paired_comparison(*arms).equivalent()
        comparison = paired_comparison(*arms, margin=0.6)
        assert comparison.equivalent()
        assert not comparison.equivalent(alpha=comparison.p_equivalence / 2)

    @pytest.mark.parametrize("mean", [-0.3, 0.0, 0.25])
    def test_would_hold_at_the_smallest_margin_and_at_none_below(self, mean):
        arms = noise(SEEDS, mean=mean), np.zeros(SEEDS)
        smallest = paired_comparison(*arms).smallest_margin
        at = [paired_comparison(*arms, margin=f * smallest).p_equivalence for f in (0.99, 1.01)]
        assert at[1] <= ALPHA < at[0]

    def test_of_equal_differences_would_hold_from_their_size_on(self):
        five, four = (paired_comparison(np.full(n, 0.3), np.zeros(n)) for n in (5, 4))
        assert five.smallest_margin == pytest.approx(0.3)
        assert four.smallest_margin == math.inf


class TestDegenerateArms:
    def test_one_seed_has_no_spread_and_no_interval(self):
        comparison = paired_comparison([97.5], [97.0])
        assert (comparison.n, comparison.mean, comparison.share_won) == (1, 0.5, 1.0)
        for undefined in (
            comparison.sd,
            comparison.d_z,
            comparison.interval_low,
            comparison.interval_high,
        ):
            assert math.isnan(undefined)
        assert (comparison.p_greater, comparison.p_two_sided, comparison.exact) == (0.5, 1.0, True)
        assert comparison.p_equivalence == 1.0

    @pytest.mark.parametrize("treatment", [96.5, 97.0])
    def test_one_seed_not_won_is_no_evidence(self, treatment):
        assert paired_comparison([treatment], [97.0]).p_greater == 1.0

    @pytest.mark.parametrize(
        ("difference", "dz", "p_equivalence"),
        [(0.1, math.inf, 1 / 64), (0.2, math.inf, 1.0), (-0.6, -math.inf, 1.0), (0.0, 0.0, 1 / 64)],
    )
    def test_equal_differences_have_no_variance_whatever_the_rounding(
        self, difference, dz, p_equivalence
    ):
        control = np.array([97.13, 96.87, 0.3, 55.55, 90.01, 98.7])
        assert difference == 0 or np.std(control + difference - control) > 0
        comparison = paired_comparison(control + difference, control)
        assert comparison.sd == 0
        assert comparison.mean == comparison.interval_low == comparison.interval_high == difference
        assert comparison.d_z == dz
        assert comparison.p_equivalence == p_equivalence

    def test_equal_arms_are_equivalent_from_five_seeds_on(self):
        found = [paired_comparison(np.zeros(n), np.zeros(n)).equivalent() for n in range(1, 8)]
        assert found == [False] * 4 + [True] * 3
        assert paired_comparison(np.zeros(5), np.zeros(5)).share_won == 0.5

    def test_two_seeds_and_one_odd_seed_are_enough_for_an_interval(self):
        two = paired_comparison([1.0, 2.0], [0.0, 0.0])
        assert (two.interval_low, two.interval_high) == (1.0, 2.0)
        odd = paired_comparison([*np.zeros(19), 1.0], np.zeros(20))
        assert 0 <= odd.interval_low < odd.mean < odd.interval_high

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_values_that_are_not_finite_are_named(self, value):
        with pytest.raises(ValueError, match=rf"treatment must be finite.*\[1\] = {value}"):
            paired_comparison([97.0, value], [96.0, 96.0])
        with pytest.raises(ValueError, match=rf"control must be finite.*\[0\] = {value}.*\[2\]"):
            paired_comparison([97.0, 96.0, 95.0], [value, 96.0, value])

    @pytest.mark.parametrize(
        ("treatment", "control", "message"),
        [
            ([97.0, 98.0], [97.0], "share their seeds, got 2 and 1"),
            ([], [], "treatment must be a vector of at least one value"),
            ([97.0], [[97.0]], "control must be a vector"),
        ],
    )
    def test_arms_that_do_not_pair_are_refused(self, treatment, control, message):
        with pytest.raises(ValueError, match=message):
            paired_comparison(treatment, control)

    @pytest.mark.parametrize(
        "option",
        [
            {"margin": 0.0},
            {"margin": math.inf},
            {"confidence": 1.0},
            {"confidence": math.nan},
            {"resamples": 98},
        ],
    )
    def test_options_out_of_range_are_refused(self, option):
        with pytest.raises(ValueError, match=f"{next(iter(option))} must"):
            paired_comparison([97.0, 98.0], [97.0, 97.0], **option)


class TestHolm:
    def test_agrees_with_the_computation_by_hand(self):
        # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, and 0.04 raised to 0.06
        adjusted = holm([0.01, 0.04, 0.03, 0.005])
        assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_caps_at_one_and_leaves_a_single_hypothesis_alone(self):
        assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]
        assert holm([0.04]).tolist() == [0.04]
        assert holm([]).tolist() == []

    @given(p=probabilities)
    @deterministic
    def test_keeps_the_order_and_never_lowers(self, p):
        adjusted = holm(p)
        assert np.all(adjusted >= p)
        assert np.all(adjusted <= 1)
        assert np.all(np.diff(adjusted[np.argsort(p)]) >= 0)
        assert adjusted.min() == min(1, len(p) * min(p))

    @given(p=probabilities, alpha=st.floats(0.01, 0.2))
    @deterministic
    def test_rejects_what_the_step_down_procedure_rejects(self, p, alpha):
        rejected = set()
        for step, index in enumerate(np.argsort(p)):
            if p[index] * (len(p) - step) > alpha:
                break
            rejected.add(index)
        assert set(np.flatnonzero(holm(p) <= alpha)) == rejected

    @pytest.mark.parametrize("p", [[-0.1], [1.1], [math.nan, 0.5]])
    def test_refuses_what_is_no_probability(self, p):
        with pytest.raises(ValueError, match="between 0 and 1"):
            holm(p)

    def test_refuses_a_table(self):
        with pytest.raises(ValueError, match="vector"):
            holm([[0.1, 0.2]])
