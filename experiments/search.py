"""The search for a learning rate: a half-decade grid that grows towards the best value."""

import itertools
import math
from collections.abc import Mapping

import numpy as np

FIRST_LEARNING_RATES = 5
NEAR = 3

MOST_LEARNING_RATES = 13  # six decades; an arm that is still improving there has no best one


def grid_value(index: int) -> float:
    """The learning rate at a place of the half-decade grid of 1, 3, 10, 30 and so on.

    >>> [grid_value(i) for i in (-3, -2, -1, 0, 1)]
    [0.03, 0.1, 0.3, 1.0, 3.0]
    """
    return float(f"{(3 if index % 2 else 1)}e{index // 2}")


def grid_index(learning_rate: float) -> int:
    """The place on the grid that is nearest to a learning rate.

    >>> grid_index(0.1), grid_index(0.03)
    (-2, -3)
    """
    return round(2 * np.log10(learning_rate))


def first_learning_rates(middle: float) -> list[float]:
    """The learning rates that every search begins with.

    >>> first_learning_rates(0.1)
    [0.01, 0.03, 0.1, 0.3, 1.0]
    """
    index, reach = grid_index(middle), FIRST_LEARNING_RATES // 2
    return [grid_value(i) for i in range(index - reach, index + reach + 1)]


def near_learning_rates(middle: float) -> list[float]:
    """A learning rate and its neighbours half a decade away.

    >>> near_learning_rates(0.1)
    [0.03, 0.1, 0.3]
    """
    index = grid_index(middle)
    return [grid_value(i) for i in (index - 1, index, index + 1)]


def next_learning_rate(accuracy: Mapping[float, float], budget: int) -> float | None:
    """The learning rate to try next, or None where the search is over.

    It is the neighbour of the grid's end that is nearer to the best value so far; past the budget
    only where the best one is that end.

    Args:
      accuracy: mean validation accuracy by learning rate; NaN counts as the lowest.
      budget: number of learning rates that every arm gets.

    Examples:
      >>> next_learning_rate({0.1: 80.0, 0.3: 85.0, 1.0: 82.0}, budget=3) is None
      True
      >>> next_learning_rate({0.1: 80.0, 0.3: 85.0, 1.0: 86.0}, budget=3)
      3.0
    """
    indices = sorted(grid_index(rate) for rate in accuracy)
    best = grid_index(best_learning_rate(accuracy))
    at_edge = best in (indices[0], indices[-1])
    if len(indices) >= (MOST_LEARNING_RATES if at_edge else budget):
        return None
    down = best - indices[0] < indices[-1] - best
    return grid_value(indices[0] - 1 if down else indices[-1] + 1)


def finer_learning_rates(accuracy: Mapping[float, float]) -> list[float]:
    """The learning rates halfway, on a logarithmic scale, from the best one to its neighbours.

    >>> finer_learning_rates({0.1: 80.0, 0.3: 85.0, 1.0: 82.0})
    [0.17, 0.55]
    """
    rates = sorted(accuracy)
    place = rates.index(best_learning_rate(accuracy))
    near = rates[max(place - 1, 0) : place + 2]
    return [float(f"{math.sqrt(low * high):.2g}") for low, high in itertools.pairwise(near)]


def best_learning_rate(accuracy: Mapping[float, float]) -> float:
    """The learning rate with the highest accuracy, the smallest of equals; NaN is the lowest."""
    return max(sorted(accuracy), key=lambda rate: np.nan_to_num(accuracy[rate], nan=-np.inf))
