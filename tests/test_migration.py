"""A state goes on with an optimizer of other diagnostics, masks, traces or wrappers."""

import chex
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import neuroplastic_optax as npx

PARAMS = {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}
GRADIENTS = [
    jax.tree.map(
        lambda p, k=k: jnp.cos(k + jnp.arange(p.size, dtype=p.dtype).reshape(p.shape)), PARAMS
    )
    for k in range(4)
]


def follow(tx, gradients, state=None):
    state = tx.init(PARAMS) if state is None else state
    for grads in gradients:
        updates, state = tx.update(grads, state, PARAMS)
    return updates, state


PAIRS = {
    "neuroplastic": lambda **on: npx.neuroplastic(0.1, **on),
    "adamw": lambda **on: npx.adamw_with_plasticity(1e-3, **on),
    "chain": lambda **on: optax.chain(
        optax.clip_by_global_norm(1.0),
        npx.with_plasticity(optax.scale_by_adam(), **on),
        optax.scale_by_schedule(optax.cosine_decay_schedule(0.1, 10)),
    ),
}


@pytest.mark.parametrize("kind", [True, "per_leaf"])
@pytest.mark.parametrize("make", PAIRS.values(), ids=PAIRS.keys())
def test_diagnostics_may_be_turned_on_and_off_in_the_middle_of_a_run(make, kind):
    off, on = make(), make(diagnostics=kind)
    _, half = follow(off, GRADIENTS[:2])
    switched = npx.migrate_state(half, on, PARAMS)
    assert switched.dropped == ()
    assert all(
        "diagnostics" in path or "overall" in path or "per_leaf" in path
        for path in switched.started
    )
    updates, state = follow(on, GRADIENTS[2:], switched.state)
    expected, expected_state = follow(off, GRADIENTS)
    chex.assert_trees_all_equal(updates, expected)
    back = npx.migrate_state(state, off, PARAMS)
    assert back.started == ()
    assert len(back.dropped) == len(switched.started)
    chex.assert_trees_all_equal(back.state, expected_state)


def test_a_trace_that_is_new_starts_at_zero_and_is_named():
    _, old = follow(npx.scale_by_plasticity(activity_weight=0.0), GRADIENTS[:2])
    migrated = npx.migrate_state(old, npx.scale_by_plasticity(), PARAMS)
    assert migrated.dropped == ()
    assert migrated.started == (".activity['bias']", ".activity['kernel']")
    chex.assert_trees_all_equal(migrated.state.memory_nu, old.memory_nu)
    chex.assert_trees_all_equal(migrated.state.activity, jax.tree.map(jnp.zeros_like, PARAMS))
    follow(npx.scale_by_plasticity(), GRADIENTS[2:], migrated.state)


def test_leaves_that_a_mask_lets_in_or_leaves_out_are_named():
    def masked(name):
        return npx.with_plasticity(optax.trace(0.9), mask={k: k == name for k in PARAMS})

    _, old = follow(masked("kernel"), GRADIENTS[:2])
    migrated = npx.migrate_state(old, masked("bias"), PARAMS)
    traces = ("activity", "memory_mu", "memory_nu")
    assert migrated.dropped == tuple(f".plasticity.{trace}['kernel']" for trace in traces)
    assert migrated.started == tuple(f".plasticity.{trace}['bias']" for trace in traces)
    chex.assert_trees_all_equal(migrated.state.base_state, old.base_state)
    assert int(migrated.state.plasticity.count) == 2


def test_plasticity_may_be_added_to_an_adam_in_the_middle_of_a_run():
    _, adam = follow(optax.adamw(1e-3), GRADIENTS[:2])
    migrated = npx.migrate_state(adam, npx.adamw_with_plasticity(1e-3, strength=0.0), PARAMS)
    assert migrated.dropped == ()
    updates, _ = follow(
        npx.adamw_with_plasticity(1e-3, strength=0.0), GRADIENTS[2:], migrated.state
    )
    chex.assert_trees_all_equal(updates, follow(optax.adamw(1e-3), GRADIENTS)[0])


def test_arrays_take_the_dtype_of_the_new_optimizer():
    _, old = follow(npx.scale_by_plasticity(), GRADIENTS[:1])
    narrow = npx.scale_by_plasticity(accumulator_dtype=jnp.bfloat16)
    migrated = npx.migrate_state(old, narrow, PARAMS)
    chex.assert_trees_all_equal_dtypes(migrated.state, narrow.init(PARAMS))
    np.testing.assert_allclose(
        migrated.state.activity["kernel"].astype(jnp.float32), old.activity["kernel"], rtol=1e-2
    )


def test_two_of_a_kind_are_paired_in_order_and_others_by_their_place():
    two = optax.chain(optax.trace(0.9), optax.trace(0.5))
    _, old = follow(two, GRADIENTS[:2])
    wrapped = npx.migrate_state(old, npx.with_diagnostics(two), PARAMS)
    chex.assert_trees_all_equal(wrapped.state.inner_state, old)
    fewer = npx.migrate_state(old, optax.chain(optax.identity(), optax.trace(0.5)), PARAMS)
    chex.assert_trees_all_equal(fewer.state[1], old[1])
    assert fewer.dropped == ("[0].trace['bias']", "[0].trace['kernel']")


@pytest.mark.parametrize("way", ["orbax", "flax.serialization"])
def test_a_checkpoint_is_restored_with_its_own_optimizer_and_then_migrated(way, tmp_path):
    old, new = npx.neuroplastic(0.1), npx.neuroplastic(0.1, diagnostics="per_leaf")
    _, state = follow(old, GRADIENTS[:2])
    template = jax.eval_shape(old.init, PARAMS)
    if way == "orbax":
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / "state", state)
            checkpointer.wait_until_finished()
            restored = checkpointer.restore(tmp_path / "state", template)
    else:
        written = flax.serialization.to_bytes(state)
        restored = flax.serialization.from_bytes(old.init(PARAMS), written)
    migrated = npx.migrate_state(restored, new, PARAMS)
    updates, _ = follow(new, GRADIENTS[2:], migrated.state)
    chex.assert_trees_all_equal(updates, follow(old, GRADIENTS)[0])
