"""The search of several arms on several tasks: equal numbers of trials, judged alike."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from experiments import spaces
from experiments.spaces import Space, Trial
from experiments.trials import choose, extension, ranked

MOST_EXTENSIONS = 3

FloatArray = npt.NDArray[np.float64]
Key = tuple[str, str]  # task and arm
Search = dict[Key, list[Trial]]
Values = dict[Key, dict[Trial, FloatArray]]  # of a trial: one value per tuning seed


def search(
    judge: Callable[[Search], Values],
    spaces_of: Mapping[Key, Mapping[str, Space]],
    budget: int,
) -> tuple[Search, Values]:
    """Tries as many trials for each key, and more where the best one lies at an edge.

    Args:
      judge: gives the results of trials, higher is better; it remembers what it judged.
      spaces_of: of each task and arm, the settings that vary and their ranges.
      budget: trials per key; an extension has a quarter of them, and there are at most three.

    Returns:
      All trials of each key, the first ``budget`` of which are its own design, and their results.
    """
    now = dict(spaces_of)
    tried = {key: spaces.design(of_key, budget) for key, of_key in now.items()}
    values = judge(tried)
    for extended in range(1, MOST_EXTENSIONS + 1):
        beyond = {key: extension(now[key], tried[key], best_of(tried, values, key)) for key in now}
        going_on = {key: of_key for key, of_key in beyond.items() if of_key is not None}
        if not going_on:
            break
        for key, of_key in going_on.items():
            now[key] = of_key
            tried[key] += spaces.design(of_key, max(2, budget // 4), seed=extended)
        values = judge(tried)
    return tried, values


def halve(
    judge: Callable[[Search, int], Values],
    spaces_of: Mapping[Key, Mapping[str, Space]],
    budget: int,
    kept: int,
    seeds: int,
) -> tuple[Search, Values, Search, Values]:
    """Tries many trials for each key on one seed, and the best of them on more.

    Args:
      judge: gives the results of trials with a number of seeds, higher is better.
      spaces_of: of each task and arm, the settings that vary and their ranges.
      budget: trials per key.
      kept: how many of them the second round has.
      seeds: of the second round, the first round's among them.

    Returns:
      The trials of both rounds and their results.

    References:
      Jamieson and Talwalkar, Non-stochastic best arm identification and hyperparameter
      optimization, 2016.
    """
    tried = {key: spaces.design(of_key, budget) for key, of_key in spaces_of.items()}
    first = judge(tried, 1)
    left = {}
    for key, trials in tried.items():
        best = ranked(results(tried, first, key))[:kept]
        left[key] = [trials[place] for place in sorted(best)]
    return tried, first, left, judge(left, seeds)


def best_of(tried: Search, values: Values, key: Key) -> Trial:
    """The best trial of a key so far."""
    return choose(tried[key], results(tried, values, key)).best


def results(tried: Search, values: Values, key: Key) -> FloatArray:
    """What the trials of a key gave: [trials, seeds]."""
    return np.stack([values[key][trial] for trial in tried[key]])
