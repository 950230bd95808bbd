"""What a search found, and how sure that is."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from experiments.spaces import Space, Trial

FloatArray = npt.NDArray[np.float64]

RESAMPLES = 9999


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The best trial of an arm, and the next one.

    Attributes:
      best: the trial with the highest mean over the tuning seeds.
      runner_up: the one after it; the same where there is one trial alone.
      score: the mean of the best one, higher is better.
      runner_up_score: that of the other.
      probability: share of the bootstrap resamples of the tuning seeds in which it is the best.
      edges: settings whose best value is the lowest or the highest that was tried.
      trials: how many there were, extensions included.
    """

    best: Trial
    runner_up: Trial
    score: float
    runner_up_score: float
    probability: float
    edges: tuple[str, ...]
    trials: int


def choose(trials: Sequence[Trial], scores: FloatArray) -> Chosen:
    """Chooses by the mean over the tuning seeds.

    Args:
      trials: all of an arm.
      scores: [trials, seeds], higher is better; what is not a number is the lowest.
    """
    scores = _comparable(scores)
    means = scores.mean(axis=1)
    order = ranked(scores)
    best = trials[order[0]]
    runner_up = trials[order[min(1, len(trials) - 1)]]
    return Chosen(
        best,
        runner_up,
        float(means[order[0]]),
        float(means[order[min(1, len(trials) - 1)]]),
        probability_of_best(scores),
        tuple(name for name in best.values() if edge(trials, best, name)),
        len(trials),
    )


def ranked(scores: FloatArray) -> list[int]:
    """The places of trials, from the one with the highest mean on.

    >>> ranked(np.array([[1.0], [np.nan], [2.0]]))
    [2, 0, 1]

    Args:
      scores: [trials, seeds], higher is better; what is not a number is the lowest.
    """
    return [int(place) for place in np.argsort(-_comparable(scores).mean(axis=1), kind="stable")]


def _comparable(scores: FloatArray) -> FloatArray:
    return np.nan_to_num(scores, nan=-np.inf, neginf=-np.inf)


def edge(trials: Sequence[Trial], trial: Trial, name: str) -> str:
    """Whether a trial has the lowest ("low") or highest ("high") value of a setting, or neither."""
    values = [other.values()[name] for other in trials]
    mine = trial.values()[name]
    if len(values) == 1 or min(values) < mine < max(values):
        return ""
    return "low" if mine == min(values) else "high"


def probability_of_best(scores: FloatArray) -> float:
    """The bootstrap probability that the trial with the highest mean is the best one.

    The tuning seeds are resampled with replacement, the same ones for every trial: all ``n^n``
    resamples where they are few, and otherwise random ones. Ties are shared.

    >>> probability_of_best(np.array([[2.0, 2.0, 2.0], [1.0, 1.0, 1.0]]))
    1.0

    Args:
      scores: [trials, seeds], higher is better.
    """
    n = scores.shape[1]
    if n**n <= RESAMPLES:
        picks = np.array(list(itertools.product(range(n), repeat=n)))
    else:
        picks = np.random.default_rng(0).integers(0, n, (RESAMPLES, n))
    means = scores[:, picks].mean(axis=2)  # [trials, resamples]
    is_best = means == means.max(axis=0)
    chosen = int(np.argmax(scores.mean(axis=1)))
    return float(np.mean(is_best[chosen] / is_best.sum(axis=0)))


def budget_curve(means: FloatArray) -> FloatArray:
    r"""The expected result of the best of k trials, for k = 1 … N.

    With the N results sorted, :math:`E_k = \sum_i v_{(i)} ((i/N)^k - ((i-1)/N)^k)`: k draws with
    replacement from what was observed.

    >>> budget_curve(np.array([0.0, 1.0])).tolist()
    [0.5, 0.75]

    Args:
      means: [trials], higher is better.

    References:
      Dodge et al., Show your work: improved reporting of experimental results, 2019.
    """
    ordered = np.sort(means)
    n = len(ordered)
    ranks = np.arange(n + 1) / n
    return np.array([np.sum(ordered * np.diff(ranks**k)) for k in range(1, n + 1)])


def extension(
    spaces: Mapping[str, Space], trials: Sequence[Trial], best: Trial
) -> dict[str, Space] | None:
    """Where a search goes on: beyond the edge at which the best trial lies; None where at none.

    Only settings on a logarithmic scale go on: others, such as decays, have natural ends.
    """
    for name, space in spaces.items():
        side = edge(trials, best, name) if space.scale == "log" else ""
        if side:
            return {**spaces, name: space.beyond("low" if side == "low" else "high")}
    return None
