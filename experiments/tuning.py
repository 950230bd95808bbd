"""The search of several arms on several tasks: equal numbers of trials, judged alike."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from experiments import spaces
from experiments.spaces import Space, Trial
from experiments.trials import choose, extension

MOST_EXTENSIONS = 3

FloatArray = npt.NDArray[np.float64]
Key = tuple[str, str]  # task and arm
Search = dict[Key, list[Trial]]
Values = dict[Key, dict[Trial, FloatArray]]  # of a trial: one value per tuning seed


def search(
    judge: Callable[[Search], Values],
    keys: Sequence[Key],
    asked: Mapping[str, Space],
    budget: int,
) -> tuple[Search, Values]:
    """Tries as many trials for each key, and more where the best one lies at an edge.

    Args:
      judge: gives the results of trials, higher is better; it remembers what it judged.
      keys: tasks and arms.
      asked: ranges in place of the default ones.
      budget: trials per key; an extension has a quarter of them, and there are at most three.

    Returns:
      All trials of each key, the first ``budget`` of which are its own design, and their results.
    """
    now = {key: spaces.spaces_of(key[1], asked) for key in keys}
    tried = {key: spaces.design(of_key, budget) for key, of_key in now.items()}
    values = judge(tried)
    for extended in range(1, MOST_EXTENSIONS + 1):
        beyond = {key: extension(now[key], tried[key], best_of(tried, values, key)) for key in keys}
        going_on = {key: of_key for key, of_key in beyond.items() if of_key is not None}
        if not going_on:
            break
        for key, of_key in going_on.items():
            now[key] = of_key
            tried[key] += spaces.design(of_key, max(2, budget // 4), seed=extended)
        values = judge(tried)
    return tried, values


def best_of(tried: Search, values: Values, key: Key) -> Trial:
    """The best trial of a key so far."""
    return choose(tried[key], results(tried, values, key)).best


def results(tried: Search, values: Values, key: Key) -> FloatArray:
    """What the trials of a key gave: [trials, seeds]."""
    return np.stack([values[key][trial] for trial in tried[key]])
