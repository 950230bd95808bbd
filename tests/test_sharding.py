"""Norms and means are those of whole arrays, however the arrays lie on the devices."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import neuroplastic_optax as npx

ROWS, COLUMNS = 8, 4
LAYOUTS = {
    "rows": ((8,), ("x",), P("x")),
    "columns": ((4,), ("x",), P(None, "x")),
    "both": ((4, 2), ("x", "y"), P("x", "y")),
    "rows_over_both_axes": ((4, 2), ("x", "y"), P(("x", "y"))),
    "replicated": ((8,), ("x",), P()),
}
every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
every_axis_type = pytest.mark.parametrize(
    "axis_type", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"]
)
OPTIMIZER = npx.neuroplastic(0.1, weight_decay=0.01)


def gradient(seed):
    """Rows and columns of very different size, so that a mean over a shard would be far off."""
    rng = np.random.default_rng(seed)
    sizes = np.exp(np.arange(ROWS))[:, None] * np.exp(np.arange(COLUMNS))
    return jnp.asarray(1e-3 * sizes * rng.normal(size=(ROWS, COLUMNS)), jnp.float32)


PARAMS, GRADIENTS = gradient(0), [gradient(1), gradient(2)]


def mesh_and_sharding(layout, axis_type):
    shape, names, spec = layout
    mesh = jax.make_mesh(shape, names, axis_types=(axis_type,) * len(names))
    return mesh, NamedSharding(mesh, spec)


def follow(update, params, gradients):
    state = OPTIMIZER.init(params)
    for g in gradients:
        updates, state = update(g, state, params)
    return updates, state


def test_alpha_of_a_shard_would_be_another():
    """The tests below can tell: the normalisation of one row by itself is far off."""
    whole = npx.plasticity_coefficient(GRADIENTS[0], None, None, None)
    rows = jnp.stack([npx.plasticity_coefficient(row, None, None, None) for row in GRADIENTS[0]])
    assert float(jnp.max(jnp.abs(whole - rows))) > 0.5


@every_layout
@every_axis_type
def test_compiled_update_equals_one_device_and_keeps_the_layout(layout, axis_type):
    mesh, sharding = mesh_and_sharding(layout, axis_type)
    expected, expected_state = follow(OPTIMIZER.update, PARAMS, GRADIENTS)
    with jax.set_mesh(mesh):
        params, *gradients = (jax.device_put(x, sharding) for x in (PARAMS, *GRADIENTS))
        updates, state = follow(jax.jit(OPTIMIZER.update), params, gradients)
    traces = optax.tree.get(state, "activity"), optax.tree.get(state, "memory_mu")
    for array in (updates, *traces, optax.tree.get(state, "memory_nu")):
        assert array.sharding.is_equivalent_to(sharding, array.ndim)
    chex.assert_trees_all_close(
        jax.device_get((updates, state)), jax.device_get((expected, expected_state)), rtol=1e-5
    )


def test_eager_update_works_on_an_explicit_mesh():
    mesh, sharding = mesh_and_sharding(LAYOUTS["rows"], AxisType.Explicit)
    expected, _ = follow(OPTIMIZER.update, PARAMS, GRADIENTS[:1])
    with jax.set_mesh(mesh):
        params, g = (jax.device_put(x, sharding) for x in (PARAMS, GRADIENTS[0]))
        state = OPTIMIZER.init(params)
        updates, new_state = OPTIMIZER.update(g, state, params)
        assert jax.tree.map(jax.typeof, new_state) == jax.tree.map(jax.typeof, state)
        assert jax.typeof(updates) == jax.typeof(params)
    chex.assert_trees_all_close(jax.device_get(updates), jax.device_get(expected), rtol=1e-5)


@every_axis_type
def test_replicated_gradients_update_sharded_params(axis_type):
    mesh, sharding = mesh_and_sharding(LAYOUTS["rows"], axis_type)
    expected, _ = follow(OPTIMIZER.update, PARAMS, GRADIENTS)
    with jax.set_mesh(mesh):
        params = jax.device_put(PARAMS, sharding)
        gradients = jax.device_put(GRADIENTS, NamedSharding(mesh, P()))
        updates, _ = follow(jax.jit(OPTIMIZER.update), params, gradients)
    chex.assert_trees_all_close(jax.device_get(updates), jax.device_get(expected), rtol=1e-5)


@every_axis_type
def test_state_is_created_where_the_params_lie(axis_type):
    """Also under jit, and from shapes that carry their sharding."""
    mesh, sharding = mesh_and_sharding(LAYOUTS["both"], axis_type)
    with jax.set_mesh(mesh):
        params = jax.device_put(PARAMS, sharding)
        eager = OPTIMIZER.init(params)
        compiled = jax.jit(OPTIMIZER.init, out_shardings=shardings_of(eager))(params)
        for state in (eager, compiled):
            for name in ("activity", "memory_mu", "memory_nu"):
                trace = optax.tree.get(state, name)
                assert trace.sharding.is_equivalent_to(sharding, trace.ndim)
                assert trace.addressable_shards[0].data.size == PARAMS.size // 8


def shardings_of(tree):
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def test_data_parallel_step_equals_one_device():
    """Parameters replicated, batch sharded: the gradient is a sum over devices."""
    mesh, _ = mesh_and_sharding(LAYOUTS["rows"], AxisType.Auto)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, ROWS)).astype(np.float32), rng.normal(size=16).astype(np.float32)

    def loss(w, x, y):
        return jnp.mean((x @ w - y) ** 2)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(w, state, x, y):
        updates, state = OPTIMIZER.update(jax.grad(loss)(w, x, y), state, w)
        return optax.apply_updates(w, updates), state

    def train(place_data, place_params):
        w = place_params(jnp.zeros(ROWS))
        state = place_params(OPTIMIZER.init(w))
        for _ in range(3):
            w, state = step(w, state, place_data(x), place_data(y))
        return jax.device_get((w, state))

    everywhere, batched = NamedSharding(mesh, P()), NamedSharding(mesh, P("x"))
    parallel = train(
        lambda a: jax.device_put(a, batched),
        lambda tree: jax.device_put(tree, everywhere),
    )
    single = train(jnp.asarray, lambda tree: tree)
    chex.assert_trees_all_close(parallel, single, rtol=1e-4, atol=1e-7)


def test_learning_rate_factor_is_one_for_all_devices():
    mesh, sharding = mesh_and_sharding(LAYOUTS["rows"], AxisType.Explicit)
    tx = npx.variants.control_learning_rate(optax.identity(), plasticity_scale=1.5)
    _, expected = tx.update(GRADIENTS[0], tx.init(PARAMS))
    with jax.set_mesh(mesh):
        params, g = (jax.device_put(x, sharding) for x in (PARAMS, GRADIENTS[0]))
        _, state = jax.jit(tx.update)(g, tx.init(params))
    assert state.multiplier.sharding.is_fully_replicated
    np.testing.assert_allclose(jax.device_get(state.multiplier), expected.multiplier, rtol=1e-6)
