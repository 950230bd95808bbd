"""Plasticity as transformations of gradients: traces, forms, invariances and errors."""

import functools
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import neuroplastic_optax as npx

SIZE = 6
ENTRY = st.one_of(
    st.floats(-1e30, 1e30, allow_subnormal=False),
    st.floats(-10, 10, allow_subnormal=False),
    st.sampled_from([0.0, 1e-30, -1e-30, 1e30, -1e30]),
)


def leaves(entry):
    return st.lists(entry, min_size=SIZE, max_size=SIZE).map(lambda x: np.asarray(x, np.float32))


ANY_LEAVES = st.lists(leaves(ENTRY), min_size=1, max_size=3)
MODERATE_LEAVES = st.lists(
    leaves(st.floats(0.1, 10) | st.floats(-10, -0.1)), min_size=2, max_size=4
)

FORMS = {
    "scaled": npx.scale_by_plasticity,
    "bounded": npx.variants.add_bounded_plasticity,
    "orthogonal": npx.variants.add_orthogonal_plasticity,
    "orthogonal_matched": functools.partial(
        npx.variants.add_orthogonal_plasticity, match_norm=True
    ),
}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


def follow(tx, gradients):
    """The updates of all steps and the last state."""
    gradients = jax.tree.map(jnp.asarray, gradients)
    state = tx.init(gradients[0])
    updates = []
    for g in gradients:
        u, state = tx.update(g, state)
        updates.append(jax.tree.map(np.asarray, u))
    return updates, state


# -- state ---------------------------------------------------------------------------------------


def test_traces_are_moving_averages_without_bias_correction():
    g1, g2 = np.array([1.0, -2.0]), np.array([-3.0, 0.5])
    _, state = follow(npx.scale_by_plasticity(activity_decay=0.8, b1=0.6, b2=0.7), [g1, g2])
    assert state.count == 2
    np.testing.assert_allclose(state.activity, 0.8 * 0.2 * abs(g1) + 0.2 * abs(g2), rtol=1e-6)
    np.testing.assert_allclose(state.memory_mu, 0.6 * 0.4 * g1 + 0.4 * g2, rtol=1e-6)
    np.testing.assert_allclose(state.memory_nu, 0.7 * 0.3 * g1**2 + 0.3 * g2**2, rtol=1e-6)


def test_gradient_weight_alone_keeps_one_integer():
    state = npx.scale_by_plasticity(0.0, 1.0, 0.0).init({"w": jnp.ones((100, 100))})
    (count,) = jax.tree.leaves(state)
    chex.assert_shape(count, ())
    assert count.dtype == jnp.int32


@pytest.mark.parametrize(
    ("weight", "absent"),
    [("activity_weight", {"activity"}), ("memory_weight", {"memory_mu", "memory_nu"})],
)
@pytest.mark.parametrize("zero", [0, 0.0, np.float32(0)])
def test_keeps_no_trace_of_a_signal_of_static_weight_zero(weight, absent, zero):
    state = npx.scale_by_plasticity(**{weight: zero}).init(jnp.ones(2))
    kept = ("activity", "memory_mu", "memory_nu")
    assert {name for name in kept if getattr(state, name) is None} == absent


def test_a_weight_of_traced_zero_equals_a_static_one():
    gradients = [np.array([1.0, -2.0, 0.5]), np.array([0.1, 3.0, 0.0])]
    static, _ = follow(npx.scale_by_plasticity(memory_weight=0.0), gradients)
    dynamic, state = follow(npx.scale_by_plasticity(memory_weight=jnp.zeros(())), gradients)
    assert state.memory_nu is not None
    chex.assert_trees_all_close(dynamic, static, rtol=1e-6)


@pytest.mark.parametrize(
    ("accumulator_dtype", "leaf_dtype", "expected"),
    [
        (None, "bfloat16", "float32"),
        (None, "float16", "float32"),
        (None, "float64", "float64"),
        ("bfloat16", "float32", "bfloat16"),
        (jnp.float32, "float64", "float32"),
    ],
)
def test_traces_have_the_accumulator_dtype(accumulator_dtype, leaf_dtype, expected):
    with jax.enable_x64(leaf_dtype == "float64"):
        g = jnp.ones(2, leaf_dtype)
        tx = npx.scale_by_plasticity(accumulator_dtype=accumulator_dtype)
        _, state = tx.update(g, tx.init(g))
        assert state.activity.dtype == state.memory_mu.dtype == state.memory_nu.dtype == expected


def test_a_trace_whose_sum_overflows_switches_the_activity_signal_off():
    absurd, usual = np.full(8, 3e38, np.float32), np.arange(1.0, 9.0, dtype=np.float32)
    tx = npx.scale_by_plasticity(1.0, 1.0, 0.0, activity_decay=0.5)
    updates, state = follow(tx, [absurd, usual])
    with np.errstate(over="ignore"):
        assert np.isinf(np.sum(np.asarray(state.activity), dtype=np.float32))
    alpha = npx.plasticity_coefficient(usual, None, None, None, gradient_weight=1.0)
    np.testing.assert_allclose(updates[-1], alpha * usual, rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "trace"),
    [({"activity_weight": 0.0}, "activity"), ({"memory_weight": 0.0}, "memory_mu")],
)
def test_a_state_without_a_trace_that_a_weight_needs_is_an_error(settings, trace):
    g = jnp.ones(2)
    state = npx.scale_by_plasticity(**settings).init(g)
    (weight,) = settings
    message = rf"no trace '{trace}', which {weight}=0\.[24] needs; .*migrate_state"
    with pytest.raises(ValueError, match=message):
        npx.scale_by_plasticity().update(g, state)


@pytest.mark.parametrize("tx", [npx.neuroplastic(0.1), npx.adamw_with_plasticity(0.1)])
def test_numpy_and_python_floats_are_leaves_as_they_are_for_adam(tx):
    """Warnings are errors in the tests: a float64 must not be asked for where x64 is off."""
    params = {"numpy": np.ones((3, 2)), "scalar": np.float64(2.0), "python": 1.0}
    arrays = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    updates, state = tx.update(params, tx.init(params), params)
    expected, expected_state = tx.update(arrays, tx.init(arrays), arrays)
    chex.assert_trees_all_equal(updates, expected)
    chex.assert_trees_all_equal(state, expected_state)
    chex.assert_trees_all_equal_shapes_and_dtypes(
        updates, optax.adam(0.1).update(params, optax.adam(0.1).init(params), params)[0]
    )


@pytest.mark.parametrize(
    ("leaf", "found"), [("x", "str"), (1, "int"), (len, "builtin_function_or_method")]
)
def test_leaves_that_are_no_arrays_are_named(leaf, found):
    bad = {"layer": {"activation": leaf}}
    with pytest.raises(TypeError, match=rf"got {found} at \['layer'\]\['activation'\]"):
        npx.scale_by_plasticity().init(bad)


def test_the_first_step_of_a_schedule_is_zero():
    seen = []

    def schedule(step):
        seen.append(int(step))
        return 1.0

    follow(npx.scale_by_plasticity(plasticity_scale=schedule), [np.ones(2)] * 3)
    follow(npx.variants.add_orthogonal_plasticity(strength=schedule), [np.ones(2)] * 3)
    assert seen == [0, 1, 2] * 2


# -- forms ---------------------------------------------------------------------------------------


def coefficient_after(gradient, state):
    return npx.plasticity_coefficient(
        jnp.asarray(gradient), state.activity, state.memory_mu, state.memory_nu
    )


@given(MODERATE_LEAVES)
def test_scaled_update_is_alpha_times_the_gradient(gradients):
    updates, state = follow(npx.scale_by_plasticity(), gradients)
    alpha = coefficient_after(gradients[-1], state)
    np.testing.assert_allclose(updates[-1], alpha * gradients[-1], rtol=1e-6)


@given(MODERATE_LEAVES, st.floats(0, 0.5))
def test_bounded_residual_keeps_its_ratio(gradients, max_ratio):
    updates, _ = follow(npx.variants.add_bounded_plasticity(max_ratio), gradients)
    for u, g in zip(updates, gradients, strict=True):
        assert np.linalg.norm(u - g) <= max_ratio * np.linalg.norm(g) * (1 + 1e-5) + 1e-6


def test_bounded_residual_inside_its_bound_is_plain_plasticity():
    gradients = [np.array([1.0, -2.0, 0.5]), np.array([0.1, 3.0, 0.0])]
    bounded, _ = follow(npx.variants.add_bounded_plasticity(max_ratio=10.0), gradients)
    plain, _ = follow(npx.scale_by_plasticity(), gradients)
    chex.assert_trees_all_close(bounded, plain, rtol=1e-6)


@given(MODERATE_LEAVES, st.floats(0, 0.5), st.booleans())
def test_orthogonal_residual_keeps_its_ratio_and_angle(gradients, max_ratio, match_norm):
    tx = npx.variants.add_orthogonal_plasticity(1.0, max_ratio, match_norm=match_norm)
    updates, _ = follow(tx, gradients)
    for u, g in zip(updates, gradients, strict=True):
        residual, length = u - g, np.linalg.norm(g)
        assert np.linalg.norm(residual) <= max_ratio * length * (1 + 1e-5) + 1e-6 * length
        assert abs(residual @ g) <= 1e-5 * length**2


def test_matched_residual_has_the_norm_that_strength_asks_for():
    gradients = [np.array([1.0, -2.0, 0.5]), np.array([0.1, 3.0, 0.7])]
    tx = npx.variants.add_orthogonal_plasticity(0.25, match_norm=True)
    updates, _ = follow(tx, gradients)
    for u, g in zip(updates, gradients, strict=True):
        np.testing.assert_allclose(np.linalg.norm(u - g), 0.25 * np.linalg.norm(g), rtol=1e-4)


@pytest.mark.parametrize("match_norm", [False, True])
@pytest.mark.parametrize("entry", [2.0, -1e-3, 1e4])
def test_one_entry_has_no_orthogonal_direction(match_norm, entry):
    g = np.array([entry])
    updates, _ = follow(
        npx.variants.add_orthogonal_plasticity(1.0, match_norm=match_norm), [g, -g, g]
    )
    np.testing.assert_allclose(updates, [g, -g, g], rtol=1e-2 if abs(entry) < 1 else 1e-6)


@pytest.mark.parametrize(
    "tx",
    [npx.variants.add_bounded_plasticity(0.0), npx.variants.add_orthogonal_plasticity(0.0)],
    ids=["bounded", "orthogonal"],
)
def test_a_residual_of_size_zero_changes_nothing(tx):
    gradients = [np.array([1.0, -2.0, 0.5], np.float32)] * 2
    chex.assert_trees_all_equal(follow(tx, gradients)[0], gradients)


def test_no_orthogonal_residual_where_squares_overflow():
    gradients = [np.array([1e30, -2e30, 3e29], np.float32)]
    chex.assert_trees_all_equal(
        follow(npx.variants.add_orthogonal_plasticity(1.0), gradients)[0], gradients
    )


# -- invariances ---------------------------------------------------------------------------------


@every_form
def test_zero_gradient_gives_zero_update(form):
    updates, _ = follow(form(), [np.array([1.0, -2.0, 3.0]), np.zeros(3)])
    chex.assert_trees_all_equal(updates[1], np.zeros(3, np.float32))


@settings(max_examples=10)
@given(MODERATE_LEAVES, st.sampled_from([0.1, 30.0, 1e4]))
@example([np.ones(SIZE, np.float32)] * 2, 30.0)
def test_update_scales_with_the_gradient(gradients, unit):
    """α is dimensionless over any number of steps: u(c g) = c u(g)."""
    for form in (FORMS["scaled"], FORMS["bounded"], FORMS["orthogonal"]):
        updates, _ = follow(form(), gradients)
        scaled, _ = follow(form(), [unit * g for g in gradients])
        for u, s in zip(updates, scaled, strict=True):
            np.testing.assert_allclose(s, unit * u, rtol=1e-3, atol=1e-6 * unit)


@settings(max_examples=10)
@given(MODERATE_LEAVES, st.permutations(range(SIZE)))
def test_update_moves_with_the_entries(gradients, order):
    order = np.asarray(order)
    for form in (FORMS["scaled"], FORMS["bounded"], FORMS["orthogonal"]):
        kept, _ = follow(form(), gradients)
        moved, _ = follow(form(), [g[order] for g in gradients])
        for k, m in zip(kept, moved, strict=True):
            np.testing.assert_allclose(m, k[order], rtol=1e-4, atol=1e-5)


@settings(max_examples=10)
@given(MODERATE_LEAVES)
def test_leaves_do_not_see_each_other(gradients):
    tx = npx.scale_by_plasticity()
    alone, _ = follow(tx, gradients)
    state = tx.init({"a": jnp.zeros(SIZE), "b": jnp.zeros(3)})
    for g, u in zip(gradients, alone, strict=True):
        both, state = tx.update({"a": jnp.asarray(g), "b": jnp.full(3, 1e3)}, state)
        np.testing.assert_array_equal(both["a"], u)


@given(MODERATE_LEAVES)
def test_scale_zero_is_the_gradient_only_ablation_at_equal_bounds(gradients):
    zero, _ = follow(npx.scale_by_plasticity(plasticity_scale=0.0), gradients)
    alone, _ = follow(npx.scale_by_plasticity(0.0, 1.0, 0.0), gradients)
    chex.assert_trees_all_equal(zero, alone)


@given(ANY_LEAVES)
@example([np.full(SIZE, 1e30, np.float32)] * 2)
@example([np.full(SIZE, 1e-30, np.float32)] * 2)
@example([np.asarray([1e30, 1e-30, 0, 1, -1e30, -1e-30], np.float32)] * 3)
def test_no_nan_from_finite_gradients(gradients):
    for form in FORMS.values():
        updates, _ = follow(optax.chain(form(), npx.homeostasis()), gradients)
        chex.assert_tree_all_finite(updates)


@settings(max_examples=10)
@given(st.lists(leaves(ENTRY), min_size=1, max_size=2))
def test_float64_is_finite_and_stays_float64(gradients):
    with jax.enable_x64(True):
        for form in FORMS.values():
            updates, state = follow(form(), [g.astype(np.float64) for g in gradients])
            assert updates[-1].dtype == np.float64
            chex.assert_tree_all_finite((updates, state))


def test_a_nan_spoils_its_own_leaf_alone():
    tx = npx.scale_by_plasticity()
    good = {"a": jnp.ones(2), "b": jnp.ones(2)}
    bad = good | {"a": jnp.array([1.0, jnp.nan])}
    updates, state = tx.update(bad, tx.init(good))
    again, _ = tx.update(good, state)
    for u in (updates, again):
        assert np.isnan(u["a"]).all()
        assert np.isfinite(u["b"]).all()


class Variants(chex.TestCase):
    """The same numbers with and without compilation, from NumPy as from device arrays."""

    @chex.variants(with_jit=True, without_jit=True, with_device=True, without_device=True)
    def test_an_update_is_the_same_in_every_variant(self):
        tx = npx.scale_by_plasticity()
        g = {"w": np.array([1.0, -2.0, 0.5], np.float32)}
        updates, state = self.variant(tx.update)(g, tx.init(g))
        np.testing.assert_allclose(updates["w"], tx.update(g, tx.init(g))[0]["w"], rtol=1e-6)
        assert int(state.count) == 1


# -- settings ------------------------------------------------------------------------------------

SHARED = {
    "activity_weight": 0.3,
    "gradient_weight": 0.5,
    "memory_weight": 0.1,
    "activity_decay": 0.9,
    "b1": 0.8,
    "b2": 0.95,
    "min_alpha": 0.3,
    "max_alpha": 1.8,
    "plasticity_scale": 1.5,
    "eps": 1e-7,
}
OWN = {
    "scaled": {},
    "bounded": {"max_ratio": 0.1},
    "orthogonal": {"strength": 0.2, "max_ratio": 0.1},
    "orthogonal_matched": {"strength": 0.2, "max_ratio": 0.1},
}


@pytest.mark.parametrize("name", FORMS)
def test_every_number_may_be_traced(name):
    g = jnp.array([1.0, -2.0, 0.5])

    def update(numbers):
        tx = FORMS[name](**numbers)
        return tx.update(g, tx.init(g))[0]

    numbers = SHARED | OWN[name]
    np.testing.assert_allclose(jax.jit(update)(numbers), update(numbers), rtol=1e-5)


@every_form
def test_the_signature_spells_every_setting_out(form):
    """`optax.inject_hyperparams` finds hyperparameters nowhere else."""
    parameters = inspect.signature(form).parameters
    assert SHARED.keys() <= parameters.keys()
    assert all(p.kind is not p.VAR_KEYWORD for p in parameters.values())


UNUSABLE = [
    ("activity_weight", -0.1),
    ("gradient_weight", float("nan")),
    ("memory_weight", -1),
    ("activity_decay", 1.0),
    ("b1", -0.1),
    ("b1", 1),
    ("b2", 1.5),
    ("b2", float("nan")),
    ("min_alpha", float("nan")),
    ("min_alpha", 3.0),
    ("max_alpha", float("inf")),
    ("max_alpha", 0.1),
    ("plasticity_scale", float("inf")),
    ("eps", 0),
    ("eps", np.float32(-1)),
    ("accumulator_dtype", "int32"),
    ("diagnostics", "every_leaf"),
]


@every_form
@pytest.mark.parametrize(("setting", "value"), UNUSABLE)
def test_names_a_setting_that_cannot_work(form, setting, value):
    with pytest.raises(ValueError, match=setting) as error:
        form(**{setting: value})
    assert repr(value) in str(error.value)


@pytest.mark.parametrize(
    ("form", "setting"),
    [
        (npx.variants.add_bounded_plasticity, "max_ratio"),
        (npx.variants.add_orthogonal_plasticity, "max_ratio"),
        (npx.variants.add_orthogonal_plasticity, "strength"),
    ],
)
@pytest.mark.parametrize("value", [-0.5, float("nan")])
def test_names_a_size_that_cannot_work(form, setting, value):
    with pytest.raises(ValueError, match=setting) as error:
        form(**{setting: value})
    assert repr(value) in str(error.value)


@every_form
def test_needs_one_weight(form):
    with pytest.raises(ValueError, match="activity_weight, gradient_weight, memory_weight"):
        form(activity_weight=0.0, gradient_weight=0.0, memory_weight=0.0)


def test_rejects_an_unknown_setting():
    with pytest.raises(TypeError, match="momentum"):
        npx.variants.add_bounded_plasticity(momentum=0.9)


@every_form
@pytest.mark.parametrize("dtype", ["complex64", "int32", "bool"])
@pytest.mark.parametrize("when", ["init", "update"])
def test_names_the_path_of_a_leaf_that_is_not_real_floating(form, dtype, when):
    tx, good = form(), {"layer": {"kernel": jnp.ones(2), "steps": jnp.ones(2)}}
    bad = {"layer": {"kernel": jnp.ones(2), "steps": jnp.ones(2, dtype)}}
    with pytest.raises(TypeError, match=rf"{dtype} at \['layer'\]\['steps'\]"):
        tx.init(bad) if when == "init" else tx.update(bad, tx.init(good))
