"""Training resumed from a checkpoint equals training that never stopped, bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from chex import assert_trees_all_close, assert_trees_all_equal
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import neuroplastic_optax as npx

STEPS, STOP = 6, 3


def random_tree(seed):
    rng = np.random.default_rng(seed)
    return {
        "bias": jnp.asarray(rng.normal(size=4), jnp.bfloat16),
        "kernel": jnp.asarray(rng.normal(size=(8, 4)), jnp.float32),
    }


PARAMS = random_tree(0)
GRADIENTS = [random_tree(seed) for seed in range(1, STEPS + 1)]


def save_and_restore(path, tree, template):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)
        checkpointer.wait_until_finished()
        return checkpointer.restore(path, template)


def trainer(tx):
    @jax.jit
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def train(carry, gradients):
        for grads in gradients:
            carry = step(*carry, grads)
        return carry

    return train


OPTIMIZERS = {
    "with_everything": npx.neuroplastic(
        optax.cosine_decay_schedule(0.1, STEPS),
        plasticity_scale=npx.plasticity_warmup(2, 2, 2.0),
        accumulator_dtype=jnp.bfloat16,
        weight_decay=0.01,
        diagnostics="per_leaf",
    ),
    "gradient_only": npx.gradient_only(0.1, diagnostics=True),
    "controlled": npx.variants.control_learning_rate(
        npx.neuroplastic(0.1), groups={"bias": "slow", "kernel": "fast"}, diagnostics=True
    ),
    "injected": optax.inject_hyperparams(npx.neuroplastic)(optax.cosine_decay_schedule(0.1, STEPS)),
    "accumulating": optax.MultiSteps(npx.neuroplastic(0.1), 2).gradient_transformation(),
    "partitioned": optax.partition(
        {"plastic": npx.neuroplastic(0.1), "plain": optax.adam(0.1)},
        {"bias": "plain", "kernel": "plastic"},
    ),
}


@pytest.mark.parametrize("tx", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_resuming_equals_never_stopping(tx, tmp_path):
    train, start = trainer(tx), (PARAMS, tx.init(PARAMS))
    stopped = train(start, GRADIENTS[:STOP])
    template = PARAMS, jax.eval_shape(tx.init, PARAMS)  # what a new process knows
    restored = save_and_restore(tmp_path / "checkpoint", stopped, template)
    assert jax.tree.structure(restored) == jax.tree.structure(stopped)
    assert_trees_all_equal(restored, stopped)
    assert_trees_all_equal(train(restored, GRADIENTS[STOP:]), train(start, GRADIENTS))


def test_a_checkpoint_of_one_device_resumes_sharded(tmp_path):
    tx = npx.neuroplastic(0.1, diagnostics=True)
    train, start = trainer(tx), (PARAMS, tx.init(PARAMS))
    stopped = train(start, GRADIENTS[:STOP])
    mesh = jax.make_mesh((8,), ("x",))

    def placed(shape):
        spec = P("x") if shape.shape == (8, 4) else P()
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=NamedSharding(mesh, spec))

    template = jax.tree.map(placed, jax.eval_shape(lambda: start))
    restored = save_and_restore(tmp_path / "checkpoint", stopped, template)
    assert not optax.tree.get(restored[1], "activity")["kernel"].sharding.is_fully_replicated
    with jax.set_mesh(mesh):
        resumed = train(restored, GRADIENTS[STOP:])
    assert_trees_all_close(
        jax.device_get(resumed), jax.device_get(train(start, GRADIENTS)), rtol=1e-2
    )
