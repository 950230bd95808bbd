"""The plasticity coefficient: bounds, invariances, limits, dtypes and errors."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from neuroplastic_optax import plasticity_coefficient

SIZE = 6
FINITE = st.one_of(
    st.floats(-1e30, 1e30, allow_subnormal=False),
    st.floats(-10, 10, allow_subnormal=False),
    st.sampled_from([0.0, 1e-30, -1e-30, 1e30, -1e30]),
)
LEAVES = st.lists(FINITE, min_size=SIZE, max_size=SIZE).map(
    lambda entries: np.asarray(entries, np.float32)
)
MODERATE = st.lists(st.floats(0.1, 10), min_size=SIZE, max_size=SIZE).map(
    lambda entries: np.asarray(entries, np.float32)
)


def after_first_step(gradient):
    """The gradient with the traces that the first step leaves behind."""
    g = jnp.asarray(gradient)
    return g, 0.05 * jnp.abs(g), 0.1 * g, 0.01 * g**2


def gradient_and_traces(gradients):
    activity = mu = nu = jnp.zeros(SIZE)
    for g in map(jnp.asarray, gradients):
        activity = 0.95 * activity + 0.05 * jnp.abs(g)
        mu = 0.9 * mu + 0.1 * g
        nu = 0.99 * nu + 0.01 * g**2
    return g, activity, mu, nu


def test_is_the_weighted_sum_of_the_normalised_signals():
    g, activity = jnp.array([1.0, -3.0]), jnp.array([2.0, 2.0])
    mu, nu = jnp.array([0.5, -1.5]), jnp.array([1.0, 1.0])
    # ĝ = [0.5, 1.5], â = [1, 1], m̂ = [0.5, 1.5]
    alpha = plasticity_coefficient(g, activity, mu, nu)
    np.testing.assert_allclose(alpha, [0.4 + 0.2 + 0.1, 0.4 + 0.6 + 0.3], rtol=1e-6)


@given(st.lists(LEAVES, min_size=1, max_size=3))
@example([np.full(SIZE, 1e30, np.float32)])
@example([np.full(SIZE, 1e-30, np.float32)])
@example([np.zeros(SIZE, np.float32)])
@example([np.asarray([1e30, 1e-30, 0, 1, -1e30, -1e-30], np.float32)])
def test_lies_exactly_inside_its_bounds_at_scale_one(gradients):
    alpha = plasticity_coefficient(*gradient_and_traces(gradients))
    assert not np.isnan(alpha).any()
    assert np.all((alpha >= np.float32(0.2)) & (alpha <= np.float32(2.0)))


@settings(max_examples=15)
@given(st.lists(LEAVES, min_size=1, max_size=3), st.floats(0, 2))
def test_stays_finite_and_bounded_at_any_scale(gradients, scale):
    alpha = plasticity_coefficient(*gradient_and_traces(gradients), plasticity_scale=scale)
    low, high = min(0.2, 0.2 - (scale - 1) * 1.8), max(2.0, 2.0 + (scale - 1) * 1.8)
    assert np.all((alpha >= low - 1e-6) & (alpha <= high + 1e-6))


@pytest.mark.parametrize(
    ("gradient", "activity", "activity_weight", "extreme"),
    [
        ([1.0, 1e-3, 1e-3], [1e-3, 1.0, 1.0], 0.1, -1.6),
        ([1e-3, 1.0, 1.0], [1.0, 1e-3, 1e-3], 10.0, 3.8),
    ],
    ids=["low", "high"],
)
def test_leaves_its_bounds_above_scale_one(gradient, activity, activity_weight, extreme):
    """α_grad at one bound and α_full at the other: the ends of [−1.6, 3.8] at γ = 2."""
    alpha = plasticity_coefficient(
        jnp.array(gradient),
        jnp.array(activity),
        None,
        None,
        activity_weight=activity_weight,
        gradient_weight=0.0,
        plasticity_scale=2.0,
    )
    np.testing.assert_allclose(alpha[0], extreme, rtol=1e-6)


@given(st.lists(MODERATE, min_size=1, max_size=3))
def test_scale_zero_is_the_gradient_only_coefficient(gradients):
    g, *traces = gradient_and_traces(gradients)
    alone = plasticity_coefficient(
        g, None, None, None, activity_weight=0.0, gradient_weight=1.0, memory_weight=0.0
    )
    chex.assert_trees_all_equal(plasticity_coefficient(g, *traces, plasticity_scale=0.0), alone)


@pytest.mark.parametrize("scale", [0.0, 0.1, 1 / 3, 0.5, 2 / 3, 0.9, 1.0, 1.3, 1.8, 2.0])
def test_is_exact_where_both_coefficients_share_a_bound(scale):
    """Rounding must not move entries off the bounds that diagnostics count."""
    alpha = plasticity_coefficient(
        *after_first_step([1e-6, 1.0, 1.0]), memory_weight=0.0, plasticity_scale=scale
    )
    assert alpha[0] == np.float32(0.2)


@given(st.lists(MODERATE, min_size=1, max_size=3), st.sampled_from([0.1, 7.0, 1e4]))
def test_does_not_depend_on_the_unit_of_the_gradient(gradients, unit):
    plain = plasticity_coefficient(*gradient_and_traces(gradients))
    scaled = plasticity_coefficient(*gradient_and_traces([unit * g for g in gradients]))
    np.testing.assert_allclose(scaled, plain, rtol=1e-4)


@given(st.lists(LEAVES, min_size=1, max_size=2), st.permutations(range(SIZE)))
def test_moves_with_the_entries(gradients, order):
    order = np.asarray(order)
    moved = plasticity_coefficient(*gradient_and_traces([g[order] for g in gradients]))
    kept = plasticity_coefficient(*gradient_and_traces(gradients))
    np.testing.assert_allclose(moved, kept[order], rtol=1e-5)


def test_tensorwise_is_the_clipped_mean():
    g, activity, mu, nu = after_first_step([0.5, -1.0, 2.5])
    alpha = plasticity_coefficient(g, activity, mu, nu, activity_weight=1.1, tensorwise=True)
    chex.assert_shape(alpha, ())
    np.testing.assert_allclose(alpha, 1.1 + 0.4 + 0.2, rtol=1e-6)


@pytest.mark.parametrize("trace", ["activity", "mu", "nu"])
def test_a_missing_trace_leaves_its_signal_out(trace):
    g, *traces = after_first_step([0.5, -1.0, 2.5])
    given_traces = dict(zip(("activity", "mu", "nu"), traces, strict=True))
    weight = "activity_weight" if trace == "activity" else "memory_weight"
    chex.assert_trees_all_equal(
        plasticity_coefficient(g, **given_traces | {trace: None}),
        plasticity_coefficient(g, **given_traces, **{weight: 0.0}),
    )


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("bfloat16", "float32"), ("float16", "float32"), ("float32",) * 2, ("float64",) * 2],
)
@pytest.mark.parametrize("tensorwise", [False, True])
def test_is_float32_or_wider(dtype, expected, tensorwise):
    with jax.enable_x64(dtype == "float64"):
        g = jnp.asarray([0.5, -1.0], dtype)
        alpha = plasticity_coefficient(g, jnp.abs(g), g, g**2, tensorwise=tensorwise)
        assert alpha.dtype == expected


@pytest.mark.parametrize("shape", [(), (1,), (0,), (0, 3), (2, 1, 3)])
@pytest.mark.parametrize("tensorwise", [False, True])
def test_has_the_shape_of_the_leaf_and_is_finite_even_without_entries(shape, tensorwise):
    g = jnp.ones(shape)
    alpha = plasticity_coefficient(g, g, g, g, tensorwise=tensorwise)
    chex.assert_shape(alpha, () if tensorwise else shape)
    chex.assert_tree_all_finite(alpha)


def test_a_zero_gradient_has_the_lower_bound():
    zero = jnp.zeros(3)
    np.testing.assert_array_equal(
        plasticity_coefficient(zero, zero, zero, zero), np.full(3, 0.2, np.float32)
    )


NUMBERS = {
    "activity_weight": 0.4,
    "gradient_weight": 0.4,
    "memory_weight": 0.2,
    "min_alpha": 0.2,
    "max_alpha": 2.0,
    "plasticity_scale": 1.5,
    "eps": 1e-8,
}


@pytest.mark.parametrize("tensorwise", [False, True])
def test_every_number_may_be_traced(tensorwise):
    leaves = after_first_step([0.5, -1.0, 2.5])
    alpha = functools.partial(plasticity_coefficient, *leaves, tensorwise=tensorwise)
    np.testing.assert_allclose(
        jax.jit(lambda numbers: alpha(**numbers))(NUMBERS), alpha(**NUMBERS), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("activity_weight", -0.1),
        ("gradient_weight", -1),
        ("memory_weight", float("nan")),
        ("min_alpha", float("-inf")),
        ("max_alpha", float("inf")),
        ("max_alpha", 0.1),
        ("plasticity_scale", float("nan")),
        ("eps", 0.0),
        ("eps", -1e-8),
    ],
)
def test_names_a_setting_that_cannot_work(setting, value):
    g = jnp.ones(2)
    with pytest.raises(ValueError, match=setting) as error:
        plasticity_coefficient(g, g, g, g, **{setting: value})
    assert repr(value) in str(error.value)


def test_needs_one_weight():
    g = jnp.ones(2)
    with pytest.raises(ValueError, match="activity_weight, gradient_weight, memory_weight"):
        plasticity_coefficient(
            g, g, g, g, activity_weight=0, gradient_weight=0.0, memory_weight=0.0
        )


@pytest.mark.parametrize("dtype", ["int32", "complex64", "bool"])
def test_names_a_dtype_that_cannot_work(dtype):
    g = jnp.ones(2, dtype)
    with pytest.raises(TypeError, match=dtype):
        plasticity_coefficient(g, g, g, g)
