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
    PairedComparison,
    Verdict,
    holm,
    paired_comparison,
    sentence,
    smallest_p,
    verdict,
)

SEEDS, HYPOTHESES, FAMILIES = 20, 10, 300

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
        assert comparison.cohen_dz == pytest.approx(0.5 / math.sqrt(5 / 3))
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
        for p in (there.p_value, there.p_two_sided, there.p_equivalence):
            assert 0 <= p <= 1
        assert there.n == 1 or there.interval_low <= there.interval_high

    def test_are_the_same_every_time_and_depend_on_the_seed_of_the_resamples(self):
        arms = noise(SEEDS, mean=0.1), np.zeros(SEEDS)
        assert paired_comparison(*arms) == paired_comparison(*arms)
        other = paired_comparison(*arms, seed=1)
        assert other.p_value != paired_comparison(*arms).p_value
        assert other.p_value == pytest.approx(paired_comparison(*arms).p_value, abs=0.02)


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
        assert comparison.p_value == greater
        assert comparison.p_two_sided == min(1, 2 * min(greater, less))

    def test_goes_through_all_sign_vectors_up_to_fourteen_seeds(self):
        differences = np.random.default_rng(3).integers(-40, 80, 14)
        comparison = paired_comparison(differences / 100, np.zeros(14))
        assert comparison.exact
        assert comparison.p_value == share_at_least(differences.tolist())
        assert not paired_comparison(noise(15), np.zeros(15)).exact

    def test_goes_through_all_sign_vectors_where_the_resamples_are_as_many(self):
        differences = np.random.default_rng(3).integers(-40, 80, 15)
        comparison = paired_comparison(differences / 100, np.zeros(15), resamples=2**15)
        assert comparison.exact
        assert comparison.p_value == share_at_least(differences.tolist())

    @pytest.mark.parametrize("shift", [0, 5, 10, 15])
    def test_by_random_signs_agrees_with_the_exact_one(self, shift):
        differences = np.random.default_rng(4).integers(-40, 40, SEEDS) + shift
        exact = share_at_least(differences.tolist())
        comparison = paired_comparison(differences / 100, np.zeros(SEEDS))
        assert not comparison.exact
        assert comparison.p_value == pytest.approx(exact, abs=4 * math.sqrt(exact / 10_000))

    def test_by_random_signs_counts_the_observed_one(self):
        comparison = paired_comparison(noise(SEEDS, mean=9), np.zeros(SEEDS), resamples=999)
        assert comparison.p_value == 1 / 1000
        assert comparison.p_two_sided == 2 / 1000

    @pytest.mark.parametrize("n", [1, 2, 3, 5, 10])
    def test_cannot_fall_below_two_to_the_minus_n(self, n):
        assert paired_comparison(noise(n, mean=9), np.zeros(n)).p_value == smallest_p(n) == 0.5**n

    def test_has_its_level(self):
        rejected = [
            paired_comparison(noise(8, seed=seed), np.zeros(8), resamples=99).p_value <= 0.05
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


class TestDegenerateArms:
    def test_one_seed_has_no_spread_and_no_interval(self):
        comparison = paired_comparison([97.5], [97.0])
        assert (comparison.n, comparison.mean, comparison.share_won) == (1, 0.5, 1.0)
        for undefined in (
            comparison.sd,
            comparison.cohen_dz,
            comparison.interval_low,
            comparison.interval_high,
        ):
            assert math.isnan(undefined)
        assert (comparison.p_value, comparison.p_two_sided, comparison.exact) == (0.5, 1.0, True)
        assert comparison.p_equivalence == 1.0

    @pytest.mark.parametrize("treatment", [96.5, 97.0])
    def test_one_seed_not_won_is_no_evidence(self, treatment):
        assert paired_comparison([treatment], [97.0]).p_value == 1.0

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
        assert comparison.cohen_dz == dz
        assert comparison.p_equivalence == p_equivalence

    def test_equal_arms_show_no_difference_from_five_seeds_on(self):
        verdicts = [
            verdict(paired_comparison(np.zeros(n), np.zeros(n)), adjusted_p=1.0)
            for n in range(1, 8)
        ]
        assert verdicts == [Verdict.NOT_SHOWN] * 4 + [Verdict.NO_PRACTICAL_DIFFERENCE] * 3
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


def shown(**fields: float) -> PairedComparison:
    """A comparison over 20 seeds that shows a gain, but for what the fields say."""
    gain = PairedComparison(
        n=20,
        mean=0.52,
        sd=0.4,
        interval_low=0.35,
        interval_high=0.704,
        confidence=0.95,
        cohen_dz=1.3,
        share_won=0.975,
        p_value=0.0001,
        p_two_sided=0.0002,
        exact=False,
        margin=0.2,
        p_equivalence=0.998,
    )
    return dataclasses.replace(gain, **fields)


LOSS = shown(
    mean=-0.52,
    interval_low=-0.7,
    interval_high=-0.35,
    share_won=0.025,
    p_value=1.0,
    p_two_sided=0.0021,
)
OPEN = shown(mean=0.15, interval_low=-0.049, interval_high=0.31, share_won=0.6, p_value=0.08)
TINY = {"p_equivalence": 0.0042, "interval_low": 0.06, "interval_high": 0.16, "mean": 0.11}


class TestVerdicts:
    def test_better_needs_the_adjusted_p(self):
        assert verdict(shown(), adjusted_p=0.05) is Verdict.BETTER
        assert verdict(shown(), adjusted_p=0.0501) is Verdict.NOT_SHOWN
        assert verdict(shown(), adjusted_p=0.0501, alpha=0.1) is Verdict.BETTER

    def test_worse_needs_the_two_sided_p_and_the_interval(self):
        assert verdict(LOSS, adjusted_p=1.0) is Verdict.WORSE
        assert (
            verdict(dataclasses.replace(LOSS, p_two_sided=0.06), adjusted_p=1.0)
            is Verdict.NOT_SHOWN
        )
        assert (
            verdict(dataclasses.replace(LOSS, interval_high=0.0), adjusted_p=1.0)
            is Verdict.NOT_SHOWN
        )

    @pytest.mark.parametrize("adjusted_p", [0.001, 1.0])
    def test_equivalence_comes_before_significance(self, adjusted_p):
        assert verdict(shown(**TINY), adjusted_p) is Verdict.NO_PRACTICAL_DIFFERENCE

    def test_are_words(self):
        assert [str(word) for word in Verdict] == [
            "no difference of practical size",
            "better",
            "worse",
            "not shown",
        ]

    @pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
    def test_refuse_what_is_no_probability(self, p):
        with pytest.raises(ValueError, match="adjusted_p must lie between 0 and 1"):
            verdict(shown(), p)

    def test_three_seeds_never_settle_which_is_higher(self):
        for treatment in ([99.0, 99.1, 99.2], [1.0, 1.1, 1.2]):
            comparison = paired_comparison(treatment, [50.0, 50.0, 50.0])
            assert verdict(comparison, comparison.p_value) is Verdict.NOT_SHOWN


class TestSentences:
    @pytest.mark.parametrize(
        ("comparison", "adjusted_p", "expected"),
        [
            pytest.param(
                shown(),
                0.002,
                "NeuroPlastic is better than SGD: mean difference +0.52 points, 95% interval +0.35 "
                "to +0.70, adjusted p = 0.002, 97.5% of 20 seeds won.",
                id="better",
            ),
            pytest.param(
                LOSS,
                1.0,
                "NeuroPlastic is worse than SGD (two-sided p = 0.0021, not adjusted), and the "
                "hypothesis that it is better is not supported: mean difference -0.52 points, 95% "
                "interval -0.70 to -0.35, adjusted p = 1, 2.5% of 20 seeds won.",
                id="worse",
            ),
            pytest.param(
                OPEN,
                0.0501,
                "It is not shown that NeuroPlastic is better than SGD, nor that they differ by "
                "less than 0.2 points: mean difference +0.15 points, 95% interval -0.05 to +0.31, "
                "adjusted p = 0.0501, 60% of 20 seeds won.",
                id="not shown",
            ),
            pytest.param(
                shown(**TINY, n=12, margin=0.25),
                0.0004,
                "NeuroPlastic is higher than SGD by 0.11 points, but there is no difference of "
                "practical size (within ±0.25 points, equivalence p = 0.0042): mean difference "
                "+0.11 points, 95% interval +0.06 to +0.16, adjusted p < 0.001, 97.5% of 12 seeds "
                "won.",
                id="higher, but of no practical size",
            ),
            pytest.param(
                dataclasses.replace(
                    LOSS, mean=-0.11, interval_low=-0.16, interval_high=-0.06, p_equivalence=0.0042
                ),
                1.0,
                "NeuroPlastic is lower than SGD by 0.11 points (two-sided p = 0.0021, not "
                "adjusted), and the hypothesis that it is better is not supported, but there is "
                "no difference of practical size (within ±0.2 points, equivalence p = 0.0042): "
                "mean difference -0.11 points, 95% interval -0.16 to -0.06, adjusted p = 1, 2.5% "
                "of 20 seeds won.",
                id="lower, but of no practical size",
            ),
            pytest.param(
                dataclasses.replace(OPEN, mean=-0.001, p_equivalence=0.0001, confidence=0.9),
                0.8,
                "NeuroPlastic and SGD show no difference of practical size (within ±0.2 points, "
                "equivalence p < 0.001): mean difference +0.00 points, 90% interval -0.05 to "
                "+0.31, adjusted p = 0.8, 60% of 20 seeds won.",
                id="no difference",
            ),
            pytest.param(
                paired_comparison([98.0, 98.2, 98.1], [97.0, 97.0, 97.0]),
                0.25,
                "It is not shown that NeuroPlastic is better than SGD, nor that they differ by "
                "less than 0.2 points, and with 3 seeds p cannot fall below 0.125, which settles "
                "nothing: mean difference +1.10 points, 95% interval +1.00 to +1.20, adjusted p = "
                "0.25, 100% of 3 seeds won.",
                id="too few seeds",
            ),
            pytest.param(
                paired_comparison([98.0], [97.0]),
                0.5,
                "It is not shown that NeuroPlastic is better than SGD, nor that they differ by "
                "less than 0.2 points, and with 1 seed p cannot fall below 0.5, which settles "
                "nothing: mean difference +1.00 points, no interval, adjusted p = 0.5, 100% of 1 "
                "seed won.",
                id="one seed",
            ),
        ],
    )
    def test_say_what_is_shown_and_what_is_not(self, comparison, adjusted_p, expected):
        assert sentence("NeuroPlastic", "SGD", comparison, adjusted_p) == expected

    def test_take_the_level_they_are_given(self):
        assert sentence("A", "B", shown(), 0.09, alpha=0.1).startswith("A is better than B:")
        strict = sentence("A", "B", shown(n=5), 0.09, alpha=0.01)
        assert "with 5 seeds p cannot fall below 0.03125" in strict


def family(seed: int, *, planted: float, margin: float, resamples: int) -> list[PairedComparison]:
    """Ten arms against a control on the same 20 seeds; the first arm is better by `planted`.

    Seeds are easy or hard for every arm alike (sd 0.5), runs add noise of their own (sd 0.3), and
    a test set of 10,000 images shows accuracies in steps of 0.01 points.
    """
    rng = np.random.default_rng(seed)
    shared = rng.normal(97.0, 0.5, SEEDS)
    accuracies = shared + rng.normal(0.0, 0.3, (1 + HYPOTHESES, SEEDS))
    accuracies[1] += planted
    control, *arms = np.round(accuracies, 2)
    return [
        paired_comparison(arm, control, margin=margin, resamples=resamples, seed=seed)
        for arm in arms
    ]


def adjusted(comparisons: Sequence[PairedComparison]) -> np.ndarray:
    return holm([comparison.p_value for comparison in comparisons])


class TestPlantedEffects:
    def test_a_real_gain_is_found_among_ten_hypotheses(self):
        found = false = 0
        for seed in range(30):
            comparisons = family(seed, planted=0.5, margin=0.2, resamples=999)
            first, *others = map(verdict, comparisons, adjusted(comparisons))
            found += first is Verdict.BETTER
            false += Verdict.BETTER in others
        assert found >= 27
        assert false <= stats.binom.ppf(0.99, 30, 0.05)

    def test_a_real_loss_is_found_and_supports_nothing(self):
        comparisons = family(0, planted=-0.5, margin=0.2, resamples=999)
        p = adjusted(comparisons)
        assert verdict(comparisons[0], p[0]) is Verdict.WORSE
        assert "not supported" in sentence("A", "B", comparisons[0], p[0])

    def test_without_one_few_families_find_any_and_nearly_all_arms_are_equivalent(self):
        # The smallest p of 199 random sign vectors is 1 / 200, ten of which are just 0.05.
        families = [
            family(seed, planted=0.0, margin=0.5, resamples=199) for seed in range(FAMILIES)
        ]
        raw = sum(min(arm.p_value for arm in arms) <= 0.05 for arms in families)
        held = sum(min(adjusted(arms)) <= 0.05 for arms in families)
        assert held <= stats.binom.ppf(0.99, FAMILIES, 0.05)
        assert raw > 0.15 * FAMILIES  # what Holm's adjustment is for

        equivalent = [arm.equivalent() for arms in families for arm in arms]
        assert np.mean(equivalent) > 0.99
