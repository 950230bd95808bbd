"""Diagnostics of any optimizer: what they are, where they are kept, what they leave alone."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuroplastic_optax as npx
from neuroplastic_optax.monitoring import UPDATE_STATISTICS

SHAPES = {"kernel": (8, 3), "scalar": (), "empty": (0, 2)}


def random_tree(seed, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=shape), dtype) for name, shape in SHAPES.items()}


PARAMS, GRADIENTS = random_tree(0), random_tree(1)


def one_step(tx, gradients=GRADIENTS, params=PARAMS):
    return tx.update(gradients, tx.init(PARAMS), params)


def numpy_statistics(g, u, p):
    """The documented statistics of vectors."""
    g, u, p = (np.asarray(x, np.float64).ravel() for x in (g, u, p))
    gradient, update, param = (np.linalg.norm(x) for x in (g, u, p))
    return {
        "gradient_norm": gradient,
        "update_norm": update,
        "param_norm": param,
        "update_ratio": update / param,
        "cosine": u @ g / (update * gradient),
        "ascent_fraction": np.mean(u * g > 0),
    }


def joined(tree):
    return np.concatenate([np.ravel(tree[name]) for name in sorted(tree)])


@pytest.mark.parametrize(
    "optimizer",
    [optax.adam(1e-3), optax.sgd(0.1, momentum=0.9), optax.noisy_sgd(0.1, key=0), optax.lion(1e-3)],
    ids=["adam", "momentum", "noisy", "lion"],
)
def test_are_numpys_statistics_for_any_optimizer(optimizer):
    updates, state = one_step(npx.with_diagnostics(optimizer, per_leaf=True))
    measured = npx.diagnostics(state, PARAMS)
    expected = numpy_statistics(joined(GRADIENTS), joined(updates), joined(PARAMS))
    for leaf in ("kernel", "scalar"):
        of_leaf = numpy_statistics(GRADIENTS[leaf], updates[leaf], PARAMS[leaf])
        expected |= {f"{name}/{leaf}": value for name, value in of_leaf.items()}
    expected |= {f"{name}/empty": 0.0 for name in UPDATE_STATISTICS}
    assert measured.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(measured[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_updates_and_inner_state_are_those_without_them():
    plain, watched = optax.adam(1e-3), npx.with_diagnostics(optax.adam(1e-3))
    updates, state = one_step(watched)
    expected, expected_state = one_step(plain)
    chex.assert_trees_all_equal(updates, expected)
    chex.assert_trees_all_equal(state.inner_state, expected_state)


def test_extra_arguments_reach_what_is_inside():
    backtracking = optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(5))
    tx = npx.with_diagnostics(backtracking)
    params = jnp.array([3.0, 4.0])

    def value_fn(p):
        return jnp.sum(p**2)

    value, gradient = jax.value_and_grad(value_fn)(params)
    arguments = {"value": value, "grad": gradient, "value_fn": value_fn}
    updates, _ = tx.update(gradient, tx.init(params), params, **arguments)
    expected, _ = backtracking.update(gradient, backtracking.init(params), params, **arguments)
    np.testing.assert_array_equal(updates, expected)


def test_what_is_not_defined_is_zero():
    tx = npx.with_diagnostics(optax.sgd(0.1))
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    _, state = one_step(tx, zeros, zeros)
    assert {float(value) for value in npx.diagnostics(state).values()} == {0.0}
    _, without_params = one_step(tx, GRADIENTS, None)
    measured = npx.diagnostics(without_params)
    assert float(measured["param_norm"]) == float(measured["update_ratio"]) == 0.0
    assert float(measured["gradient_norm"]) > 0


def test_a_climbing_coordinate_is_counted():
    flipped = optax.stateless(
        lambda g, _: jax.tree.map(lambda x: x * jnp.array([-1.0, 1, -1, -1]), g)
    )
    tx = npx.with_diagnostics(flipped)
    g = {"w": jnp.array([1.0, 2.0, 3.0, 4.0])}
    _, state = tx.update(g, tx.init(g), g)
    assert float(npx.diagnostics(state)["ascent_fraction"]) == 0.25


def test_a_prefix_keeps_several_apart():
    clip = npx.with_diagnostics(optax.clip_by_global_norm(0.5), prefix="clip/")
    tx = npx.with_diagnostics(optax.chain(clip, optax.sgd(0.1)), per_leaf=True)
    _, state = one_step(tx)
    measured = npx.diagnostics(state, PARAMS)
    np.testing.assert_allclose(measured["clip/update_norm"], 0.5, rtol=1e-6)
    np.testing.assert_allclose(measured["update_norm"], 0.05, rtol=1e-6)
    np.testing.assert_allclose(measured["clip/gradient_norm"], measured["gradient_norm"])
    assert "update_norm/kernel" in measured


def test_of_one_name_the_outermost_is_read():
    tx = npx.with_diagnostics(
        optax.chain(npx.with_diagnostics(optax.scale(3.0)), optax.sgd(1.0)), per_leaf=False
    )
    updates, state = one_step(tx)
    np.testing.assert_allclose(
        npx.diagnostics(state)["update_norm"], optax.tree.norm(updates), rtol=1e-6
    )


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_norms_of_half_precision_are_summed_in_float32(dtype):
    g = {"w": jnp.full(4096, 100.0, dtype)}
    tx = npx.with_diagnostics(optax.sgd(1.0))
    _, state = tx.update(g, tx.init(g), g)
    np.testing.assert_allclose(npx.diagnostics(state)["update_norm"], 6400.0, rtol=1e-3)


def test_complex_leaves_are_measured_by_their_real_inner_product():
    g = {"w": jnp.array([3 + 4j, 1j])}
    tx = npx.with_diagnostics(optax.sgd(1.0))
    _, state = tx.update(g, tx.init(g), g)
    measured = npx.diagnostics(state)
    np.testing.assert_allclose(measured["gradient_norm"], np.sqrt(26), rtol=1e-6)
    np.testing.assert_allclose(measured["cosine"], -1.0, rtol=1e-6)
