"""The search for a learning rate: equal budgets, and never a best value at an unexplored edge."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.search import (
    MOST_LEARNING_RATES,
    best_learning_rate,
    first_learning_rates,
    grid_index,
    grid_value,
    next_learning_rate,
)


def search(accuracy_of, middle, budget):
    """The whole search against a known function of the learning rate."""
    found = {rate: accuracy_of(rate) for rate in first_learning_rates(middle)}
    while (rate := next_learning_rate(found, budget)) is not None:
        assert rate not in found
        found[rate] = accuracy_of(rate)
    return found


def peak(at):
    return lambda rate: -((math.log10(rate) - math.log10(at)) ** 2)


@given(st.integers(-12, 6))
def test_grid_places_and_values_are_inverse(index):
    assert grid_index(grid_value(index)) == index


def test_the_grid_is_written_with_one_digit():
    assert [grid_value(i) for i in range(-4, 2)] == [0.01, 0.03, 0.1, 0.3, 1.0, 3.0]


@given(st.integers(-7, 3), st.integers(-5, 5))
def test_the_best_value_of_a_peak_is_found_and_is_no_edge(middle, offset):
    top = middle + offset
    found = search(peak(grid_value(top)), grid_value(middle), budget=7)
    assert best_learning_rate(found) == grid_value(top)
    assert min(found) < grid_value(top) < max(found)


@given(st.integers(-7, 3), st.integers(-2, 2))
def test_a_peak_near_the_middle_costs_every_arm_the_same(middle, offset):
    assert len(search(peak(grid_value(middle + offset)), grid_value(middle), budget=7)) == 7


def test_an_arm_that_always_improves_stops_somewhere():
    found = search(lambda rate: rate, 0.1, budget=7)
    assert len(found) == MOST_LEARNING_RATES
    assert best_learning_rate(found) == max(found)


@pytest.mark.parametrize("nothing", [math.nan, -math.inf])
def test_diverged_rates_are_the_worst(nothing):
    assert best_learning_rate({0.1: 80.0, 0.3: nothing}) == 0.1
    assert next_learning_rate({0.01: 70.0, 0.03: 80.0, 0.1: nothing}, budget=3) is None


def test_of_equals_the_smallest_wins():
    assert best_learning_rate({0.3: 80.0, 0.1: 80.0}) == 0.1
