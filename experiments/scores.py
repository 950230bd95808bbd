"""Many tasks at once: scores that can be averaged, and profiles of steps to a target."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

FloatArray = npt.NDArray[np.float64]

RESAMPLES = 2000


def normalised(values: pd.DataFrame) -> pd.DataFrame:
    """Scores from 0, the mean of a task's lowest arm, to 1, that of its best one.

    Args:
      values: columns task, arm, seed and value, higher is better.

    Returns:
      The table with a column ``score``. It depends on which arms are in it.
    """
    means = values.groupby(["task", "arm"])["value"].mean()
    low = values["task"].map(means.groupby("task").min())
    high = values["task"].map(means.groupby("task").max())
    span = (high - low).where(high > low, 1.0)
    return values.assign(score=(values["value"] - low) / span)


def interquartile_means(scores: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """The mean of the middle half of each arm's scores over tasks and seeds.

    Args:
      scores: columns task, arm, seed and score.
      seed: of the bootstrap, which draws seeds within each task.

    Returns:
      One row per arm: ``arm``, ``score``, and the 95% interval ``low``, ``high``.

    References:
      Agarwal et al., Deep reinforcement learning at the edge of the statistical precipice, 2021.
    """
    generator = np.random.default_rng(seed)
    rows = []
    for arm, of_arm in scores.groupby("arm", sort=False):
        strata = [part["score"].to_numpy() for _, part in of_arm.groupby("task", sort=False)]
        resampled = np.concatenate(
            [x[generator.integers(0, len(x), (RESAMPLES, len(x)))] for x in strata], axis=1
        )
        spread = stats.trim_mean(resampled, 0.25, axis=1)
        low, high = np.quantile(spread, [0.025, 0.975])
        score = stats.trim_mean(np.concatenate(strata), 0.25)
        rows.append({"arm": arm, "score": float(score), "low": low, "high": high})
    return pd.DataFrame(rows)


def performance_profile(steps: pd.DataFrame, factors: FloatArray) -> Mapping[str, FloatArray]:
    r"""The share of tasks on which an arm needs at most τ times the steps of the best arm.

    .. math:: \rho_a(\tau) = |\{t : s_{t,a} \le \tau \min_b s_{t,b}\}| / T

    Args:
      steps: columns task, arm and steps; inf where the target was not reached.
      factors: the τ, from 1 on.

    Returns:
      The shares by arm, like ``factors``. A task whose target no arm reached counts for none.

    References:
      Dolan and Moré, Benchmarking optimization software with performance profiles, 2002; Dahl et
      al., Benchmarking neural network training algorithms, 2023.
    """
    table = steps.pivot(index="task", columns="arm", values="steps").astype(float)
    best = table.min(axis=1)
    ratios = table.div(best, axis=0).where(np.isfinite(table), np.inf)
    return {
        str(arm): np.array([float(np.mean(ratios[arm] <= factor)) for factor in factors])
        for arm in dict.fromkeys(steps["arm"])
    }


def epochs_to(target: float, by_epoch: FloatArray) -> float:
    """The first epoch, counted from 1, whose value reaches a target; inf where none does.

    >>> epochs_to(0.9, np.array([0.7, 0.92, 0.8])), epochs_to(0.9, np.array([0.7]))
    (2.0, inf)

    Args:
      target: the value, higher is better.
      by_epoch: [epochs].
    """
    reached = np.flatnonzero(by_epoch >= target)
    return float(reached[0] + 1) if len(reached) else np.inf
