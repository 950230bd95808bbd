"""Homeostasis: the norm bound, the gain, their limits and errors."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from neuroplastic_optax import homeostasis

SIZE = 5
ENTRY = st.one_of(
    st.floats(-1e30, 1e30, allow_subnormal=False),
    st.floats(-10, 10, allow_subnormal=False),
    st.sampled_from([0.0, 1e-30, 1e30]),
)
UPDATES = st.lists(ENTRY, min_size=SIZE, max_size=SIZE).map(lambda x: np.asarray(x, np.float32))
FEW_ULP = 1 + 4 * np.finfo(np.float32).eps


def stabilised(update, **settings):
    tx = homeostasis(**settings)
    return np.asarray(tx.update(jnp.asarray(update), tx.init(None))[0])


def gain_of(norm, size, max_update_norm=1.0, target_rms=0.02, adaptation_rate=0.01, eps=1e-8):
    rms = np.sqrt(min(norm, max_update_norm) ** 2 / size + eps)
    return np.clip(1 + adaptation_rate * (target_rms - rms), 0.5, 1.5)


def norm64(x):
    return np.linalg.norm(np.asarray(x, np.float64))


@given(
    UPDATES,
    st.floats(0.01, 100),
    st.sampled_from([0.0, 0.02, 2.0]),
    st.sampled_from([0.0, 0.01, 5]),
)
@example(np.full(SIZE, 1e30, np.float32), 1.0, 0.02, 0.01)
@example(np.full(SIZE, 1e-30, np.float32), 1.0, 0.02, 0.01)
def test_norm_is_at_most_the_bound_times_the_gain(update, bound, target_rms, adaptation_rate):
    settings = {
        "max_update_norm": bound,
        "target_rms": target_rms,
        "adaptation_rate": adaptation_rate,
    }
    result = stabilised(update, **settings)
    gain = gain_of(norm64(update), SIZE, **settings)
    assert np.isfinite(result).all()
    assert norm64(result) <= bound * gain * FEW_ULP


@given(UPDATES)
def test_direction_is_kept(update):
    update = np.clip(update, -1e15, 1e15)
    result = stabilised(update)
    cosine = norm64(update) * norm64(result)
    np.testing.assert_allclose(np.dot(update.astype(np.float64), result), cosine, rtol=1e-5)


def test_small_updates_pass_but_for_the_gain():
    update = np.array([0.3, -0.4], np.float32)
    np.testing.assert_allclose(stabilised(update), gain_of(0.5, 2) * update, rtol=1e-6)
    np.testing.assert_array_equal(stabilised(update, adaptation_rate=0.0), update)


def test_default_gain_stays_within_one_percent():
    for size in (1e-9, 1e-3, 1.0, 1e3):
        update = np.array([size], np.float32)
        np.testing.assert_allclose(stabilised(update), np.minimum(update, 1), rtol=0.0101)


@pytest.mark.parametrize(
    ("target_rms", "gain"), [(0.0, 0.5), (100.0, 1.5)], ids=["least", "greatest"]
)
def test_gain_is_between_a_half_and_one_and_a_half(target_rms, gain):
    update = np.array([0.8], np.float32)
    result = stabilised(update, target_rms=target_rms, adaptation_rate=10.0)
    np.testing.assert_allclose(result, gain * update, rtol=1e-6)


@pytest.mark.parametrize("norm", [0.5, 1.0, 1.0 + 1e-9, 3.0])
def test_formula_holds_to_double_precision_for_any_eps(norm):
    eps, rate, target = 1e-2, 0.5, 0.3
    with jax.enable_x64(True):
        result = stabilised(
            np.array([0.6, 0.8]) * norm, eps=eps, adaptation_rate=rate, target_rms=target
        )
    u = np.array([0.6, 0.8]) * norm
    if norm > 1:
        u = u / (norm + eps)
    rms = np.sqrt(np.mean(u**2) + eps)
    np.testing.assert_allclose(result, (1 + rate * (target - rms)) * u, rtol=1e-12)


def test_each_leaf_is_bounded_by_itself():
    tx = homeostasis(adaptation_rate=0.0)
    updates, _ = tx.update({"a": jnp.array([3.0, 4.0]), "b": jnp.array([0.1])}, tx.init(None))
    np.testing.assert_allclose(updates["a"], [0.6, 0.8], rtol=1e-6)
    np.testing.assert_array_equal(updates["b"], np.float32([0.1]))


@pytest.mark.parametrize("shape", [(), (3,), (0,), (0, 3)])
def test_zero_stays_zero(shape):
    chex.assert_trees_all_equal(
        stabilised(np.zeros(shape, np.float32)), np.zeros(shape, np.float32)
    )


def test_an_update_whose_norm_overflows_becomes_zero():
    np.testing.assert_array_equal(stabilised(np.full(3, 1e30, np.float32)), np.zeros(3))


def test_derivative_at_zero_is_the_gain():
    def first_entry(u):
        tx = homeostasis()
        return tx.update(u, tx.init(None))[0][0]

    slope = jax.grad(first_entry)(jnp.zeros(3))
    np.testing.assert_allclose(slope, [gain_of(0.0, 3), 0, 0], rtol=1e-6)


def test_keeps_no_state():
    assert homeostasis().init({"w": jnp.ones(2)}) == optax.EmptyState()


NUMBERS = {"max_update_norm": 0.5, "target_rms": 0.1, "adaptation_rate": 0.3, "eps": 1e-6}


def test_every_number_may_be_traced():
    update = np.array([0.3, -0.9], np.float32)
    traced = jax.jit(lambda numbers: homeostasis(**numbers).update(update, optax.EmptyState())[0])
    np.testing.assert_allclose(traced(NUMBERS), stabilised(update, **NUMBERS), rtol=1e-6)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("max_update_norm", 0.0),
        ("max_update_norm", -1),
        ("target_rms", -0.1),
        ("adaptation_rate", float("nan")),
        ("adaptation_rate", -0.01),
        ("eps", 0.0),
        ("eps", float("inf")),
    ],
)
def test_names_a_setting_that_cannot_work(setting, value):
    with pytest.raises(ValueError, match=setting) as error:
        homeostasis(**{setting: value})
    assert repr(value) in str(error.value)


@pytest.mark.parametrize("dtype", ["complex64", "int32"])
def test_names_the_path_of_a_leaf_that_is_not_real_floating(dtype):
    tx, bad = homeostasis(), {"layer": {"steps": jnp.ones(2, dtype)}}
    for call in (tx.init, lambda updates: tx.update(updates, optax.EmptyState())):
        with pytest.raises(TypeError, match=rf"{dtype} at \['layer'\]\['steps'\]"):
            call(bad)
