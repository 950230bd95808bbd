"""Paired statistics by seed: what twenty differences show, and what they do not.

Treatment and control share their seeds, so every statistic is one of the differences
`d_i = treatment_i - control_i`, in percentage points. `paired_comparison` measures them, `holm`
adjusts the p-values of a family of hypotheses; `experiments.comparisons` names what they show.

Differences are counted in steps of 1e-9 points, far below what an accuracy can resolve. Whole
numbers add up exactly, so that ties stay ties and equal differences have variance zero.
"""

import dataclasses
import functools
import math

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

FloatArray = npt.NDArray[np.float64]

ALPHA = 0.05
MARGIN = 0.2  # percentage points: a difference inside ±MARGIN is of no practical size
POWER = 0.8  # with which the smallest difference that can be shown is shown
MOST_SEEDS = 10_000

_STEPS = 1e9  # per percentage point
_EXACT_SIGN_VECTORS = 2**14
_FEWEST_RESAMPLES = 99  # with fewer, all bootstrap means can fall on one side: BCa is undefined


@dataclasses.dataclass(frozen=True)
class PairedComparison:
    """The paired differences treatment - control, in percentage points, and their tests.

    Attributes:
        n: Number of seeds.
        mean: Mean difference.
        sd: Standard deviation of the differences; nan for one seed.
        interval_low: Lower end of the BCa interval of the mean. The interval is nan for one seed
            and the mean itself where all differences are equal.
        interval_high: Upper end of it.
        confidence: Confidence level of the interval.
        d_z: `mean / sd`; 0 or ±inf where all differences are equal, nan for one seed.
        share_won: Share of the seeds on which the treatment is higher; ties count half.
        p_greater: One-sided sign-flip p-value; small where the treatment is higher.
        p_two_sided: Twice the smaller of the two one-sided sign-flip p-values, at most 1.
        exact: Whether the sign-flip test went through all sign vectors.
        margin: Largest difference of no practical size.
        smallest_margin: The smallest margin at which the two one-sided tests would show equivalence
            at the level ALPHA; inf where no margin would do.
        p_equivalence: p-value of the two one-sided tests against ±margin; small where the mean
            difference lies inside.
    """

    n: int
    mean: float
    sd: float
    interval_low: float
    interval_high: float
    confidence: float
    d_z: float
    share_won: float
    p_greater: float
    p_two_sided: float
    exact: bool
    margin: float
    smallest_margin: float
    p_equivalence: float

    def equivalent(self, alpha: float = ALPHA) -> bool:
        """Whether the `1 - 2 alpha` t-interval of the mean lies within ±margin."""
        return self.p_equivalence <= alpha


def smallest_p(n: int) -> float:
    """Returns the smallest p-value that the one-sided sign-flip test of `n` pairs can give.

    Of the `2^n` sign vectors one is the observed one: `p >= 2^-n`.

    >>> smallest_p(3)
    0.125
    """
    return 2.0**-n


def paired_comparison(
    treatment: npt.ArrayLike,
    control: npt.ArrayLike,
    *,
    margin: float = MARGIN,
    confidence: float = 0.95,
    resamples: int = 9999,
    seed: int = 0,
) -> PairedComparison:
    """Compares two arms that share their seeds.

    With `d = treatment - control`:

    - the interval of `mean(d)` is the bias-corrected and accelerated bootstrap;
    - the sign-flip test rests on `d_i` and `-d_i` being equally likely under the null hypothesis:
      `p = #{s : sum(s d) >= sum(d)} / 2^n` over all sign vectors `s` for up to 14 seeds (or up to
      `resamples` vectors), and `p = (k + 1) / (resamples + 1)` over random ones beyond;
    - equivalence is tested by two one-sided t-tests; the larger of their p-values is
      `P(T_{n-1} >= (margin - |mean(d)|) / (sd(d) / sqrt(n)))`. Where that has no meaning, for one
      seed or equal differences, it is `2^-n` inside the margin and 1 outside.

    Args:
        treatment: `[n]`, accuracies in percentage points, one per seed.
        control: `[n]`, accuracies on the same seeds in the same order.
        margin: Largest difference of no practical size, in percentage points.
        confidence: Confidence level of the interval.
        resamples: Number of bootstrap resamples and of random sign vectors, at least 99.
        seed: Chooses the resamples.

    Raises:
        ValueError: The arms differ in length, are empty, not finite or not vectors, or an option
            is out of range.

    References:
        Efron (1987), "Better bootstrap confidence intervals", JASA 82.
        Phipson and Smyth (2010), "Permutation p-values should never be zero", SAGMB 9.
        Schuirmann (1987), "A comparison of the two one-sided tests procedure and the power
        approach", J. Pharmacokinet. Biopharm. 15.
    """
    if not 0 < margin < math.inf:
        raise ValueError(f"margin must be positive and finite, got {margin}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    if resamples < _FEWEST_RESAMPLES:
        raise ValueError(f"resamples must be at least {_FEWEST_RESAMPLES}, got {resamples}")

    steps = _difference_in_steps(treatment, control)
    n, mean = steps.size, float(np.mean(steps)) / _STEPS
    sd = float(np.std(steps, ddof=1)) / _STEPS if n > 1 else math.nan
    exact = 2**n <= max(_EXACT_SIGN_VECTORS, resamples)
    p_greater, p_two_sided = _sign_flip_test(steps, math.inf if exact else resamples, seed)
    low, high = _bca_interval(steps, confidence, resamples, seed)
    return PairedComparison(
        n=n,
        mean=mean,
        sd=sd,
        interval_low=low / _STEPS,
        interval_high=high / _STEPS,
        confidence=confidence,
        d_z=_d_z(mean, sd),
        share_won=float(np.mean((1 + np.sign(steps)) / 2)),
        p_greater=p_greater,
        p_two_sided=p_two_sided,
        exact=exact,
        margin=margin,
        smallest_margin=_smallest_margin(n, mean, sd),
        p_equivalence=_p_equivalence(n, mean, sd, margin),
    )


def smallest_difference(n: int, sd: float, *, tests: int = 1, power: float = POWER) -> float:
    r"""The smallest true difference that `n` pairs show with a probability of `power`.

    Of the one-sided paired t-test at the level `ALPHA / tests`, which is what Holm's method asks of
    the smallest of so many p-values: the :math:`\delta` at which a noncentral t with :math:`n - 1`
    degrees of freedom and noncentrality :math:`\delta \sqrt n / s` exceeds the critical value with
    that probability. Sign flips cannot show anything where `2^-n > ALPHA / tests`: inf.

    >>> round(smallest_difference(20, 1.0), 2), smallest_difference(4, 1.0)
    (0.58, inf)

    Args:
        n: Number of pairs.
        sd: Standard deviation of the differences.
        tests: Number of hypotheses that are adjusted together.
        power: The probability.
    """
    if sd == 0 and smallest_p(n) <= ALPHA / tests:
        return 0.0
    return sd * _smallest_effect(n, tests, power) if math.isfinite(sd) else math.inf


@functools.cache
def _smallest_effect(n: int, tests: int, power: float) -> float:
    """The same in standard deviations of the differences."""
    level = ALPHA / tests
    if n < 2 or smallest_p(n) > level:
        return math.inf
    critical = stats.t.ppf(1 - level, n - 1)
    reach = optimize.brentq(
        lambda shift: stats.nct.sf(critical, n - 1, shift) - power, 0, critical + 10
    )
    return float(reach / math.sqrt(n))


def seeds_needed(sd: float, difference: float, *, tests: int = 1, power: float = POWER) -> float:
    """The smallest number of pairs that shows a difference; inf beyond `MOST_SEEDS`.

    >>> seeds_needed(0.25, 0.2)
    12

    Args:
        sd: Standard deviation of the differences.
        difference: The true difference.
        tests: Number of hypotheses that are adjusted together.
        power: The probability.
    """
    if math.isnan(sd) or math.isnan(difference):
        return math.nan
    low, high = 2, MOST_SEEDS
    if smallest_difference(high, sd, tests=tests, power=power) > difference:
        return math.inf
    while low < high:
        middle = (low + high) // 2
        if smallest_difference(middle, sd, tests=tests, power=power) <= difference:
            high = middle
        else:
            low = middle + 1
    return low


def holm(p_values: npt.ArrayLike) -> FloatArray:
    """Adjusts the p-values of a family of hypotheses by Holm's step-down method.

    For the sorted `p_(1) <= ... <= p_(m)`: `adjusted_(i) = min(1, max_{j <= i} (m - j + 1) p_(j))`.
    Rejecting where `adjusted <= alpha` keeps the probability of any false rejection within `alpha`,
    however the tests depend on each other.

    Reference: Holm (1979), "A simple sequentially rejective multiple test procedure", Scand. J.
    Stat. 6.

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]

    Raises:
        ValueError: The p-values are not a vector, or one is not between 0 and 1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1:
        raise ValueError(f"p_values must be a vector, got shape {p.shape}")
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError(f"p_values must lie between 0 and 1, got {p.tolist()}")
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)))
    return adjusted


def _vector(name: str, values: npt.ArrayLike) -> FloatArray:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or vector.size == 0:
        raise ValueError(f"{name} must be a vector of at least one value, got shape {vector.shape}")
    broken = np.flatnonzero(~np.isfinite(vector))
    if broken.size:
        found = ", ".join(f"{name}[{i}] = {vector[i]}" for i in broken)
        raise ValueError(f"{name} must be finite, got {found}")
    return vector


def _difference_in_steps(treatment: npt.ArrayLike, control: npt.ArrayLike) -> FloatArray:
    treated, controls = _vector("treatment", treatment), _vector("control", control)
    if treated.size != controls.size:
        raise ValueError(
            f"treatment and control must share their seeds, got {treated.size} and {controls.size}"
        )
    return np.rint((treated - controls) * _STEPS)


def _sign_flip_test(steps: FloatArray, resamples: float, seed: int) -> tuple[float, float]:
    if steps.size == 1:  # scipy refuses one pair
        return (0.5 if steps[0] > 0 else 1.0), 1.0
    p_greater, p_less = stats.permutation_test(
        (np.stack([steps, -steps]),),
        np.sum,
        permutation_type="samples",
        alternative="greater",
        n_resamples=resamples,
        axis=-1,
        rng=seed,
    ).pvalue
    return float(p_greater), float(min(1, 2 * min(p_greater, p_less)))


def _bca_interval(
    steps: FloatArray, confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    if steps.size == 1:
        return math.nan, math.nan
    if np.ptp(steps) == 0:
        return float(steps[0]), float(steps[0])
    interval = stats.bootstrap(
        (steps,),
        np.mean,
        method="BCa",
        confidence_level=confidence,
        n_resamples=resamples,
        rng=seed,
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _d_z(mean: float, sd: float) -> float:
    if sd == 0:
        return math.copysign(math.inf, mean) if mean else 0.0
    return mean / sd


def _p_equivalence(n: int, mean: float, sd: float, margin: float) -> float:
    room = margin - abs(mean)
    if not sd > 0:
        return smallest_p(n) if room > 0 else 1.0
    return float(stats.t.sf(room / (sd / math.sqrt(n)), n - 1))


def _smallest_margin(n: int, mean: float, sd: float) -> float:
    if not sd > 0:
        return abs(mean) if smallest_p(n) <= ALPHA else math.inf
    return abs(mean) + float(stats.t.ppf(1 - ALPHA, n - 1)) * sd / math.sqrt(n)
