"""Flax Linen and Orbax: a run that is stopped goes on from its checkpoint to the same numbers.

``# was:`` gives the statement of a program with Optax alone, ``# new`` marks one that it has not.

    pip install 'neuroplastic-optax[examples]'
    python examples/linen_resume.py
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import linen as nn
from flax.training.train_state import TrainState
from mlxtend.data import wine_data

import neuroplastic_optax as npx  # new

BATCH, RATE = 32, 1e-2


class Classifier(nn.Module):
    """From 13 measurements of a wine to its cultivar, one of three."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The logits of the cultivars."""
        return nn.Dense(3, name="head")(nn.relu(nn.Dense(32, name="hidden")(x)))


def load() -> tuple[np.ndarray, np.ndarray]:
    """178 wines, each measurement with mean 0 and deviation 1, and their cultivars."""
    measured, cultivars = wine_data()
    normal = (measured - measured.mean(axis=0)) / measured.std(axis=0)
    return normal.astype(np.float32), cultivars.astype(np.int32)


def create() -> TrainState:
    """The state before the first step."""
    model = Classifier()
    params = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 13), np.float32))["params"]
    adam = npx.with_plasticity(optax.scale_by_adam())  # was: adam = optax.scale_by_adam()
    tx = optax.chain(adam, optax.scale_by_learning_rate(RATE))
    state = TrainState.create(apply_fn=model.apply, params=params, tx=tx)
    return state.replace(step=jnp.zeros((), jnp.int32))  # as restored: nothing compiles twice


@jax.jit
def train_step(state: TrainState, x: jax.Array, y: jax.Array) -> tuple[TrainState, jax.Array]:
    """One step and the loss before it."""

    def loss_fn(params: optax.Params) -> jax.Array:
        logits = state.apply_fn({"params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    loss, gradients = jax.value_and_grad(loss_fn)(state.params)
    return state.apply_gradients(grads=gradients), loss


def restore(folder: Path, like: TrainState) -> TrainState:
    """The last state that was saved; ``like`` has the optimizer that wrote it."""
    with ocp.CheckpointManager(folder) as checkpoints:
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return checkpoints.restore(checkpoints.latest_step(), args=ocp.args.StandardRestore(shapes))


def train(state: TrainState, folder: Path, until: int) -> TrainState:
    """Trains up to a step and saves the state there; the batch of a step depends on its number."""
    x, y = load()
    first, loss = int(state.step), float("nan")
    for step in range(first, until):
        batch = np.random.default_rng(step).choice(len(y), BATCH, replace=False)
        state, loss = train_step(state, x[batch], y[batch])
    with ocp.CheckpointManager(folder) as checkpoints:
        checkpoints.save(until, args=ocp.args.StandardSave(state))
    print(f"steps {first} to {until}: loss {float(loss):.6f}")
    return state


def watched(state: TrainState) -> TrainState:  # new
    """The same run with diagnostics from here on; the optimizer's other arrays are carried over."""
    tx = npx.with_diagnostics(state.tx)
    migrated = npx.migrate_state(state.opt_state, tx, state.params)
    print(f"diagnostics on: {len(migrated.started)} new numbers, {len(migrated.dropped)} dropped")
    return state.replace(tx=tx, opt_state=migrated.state)


def main(*, steps: int = 100, folder: Path | None = None) -> dict[str, TrainState]:
    """Trains without a stop, and with one after half of the steps; returns the last states."""
    if folder is None:
        with TemporaryDirectory() as temporary:
            return main(steps=steps, folder=Path(temporary))
    start = create()
    states = {"uninterrupted": train(start, folder / "uninterrupted", steps)}
    train(start, folder / "stopped", steps // 2)
    half = restore(folder / "stopped", like=start)
    states["resumed"] = train(half, folder / "resumed", steps)
    both = [state.params for state in states.values()]
    print("the same parameters:", jax.tree.all(jax.tree.map(np.array_equal, *both)))
    states["watched"] = train(watched(half), folder / "watched", steps)  # new
    for name, value in npx.diagnostics(states["watched"].opt_state).items():  # new
        print(f"  {name:16} {float(value):9.5f}")
    return states


if __name__ == "__main__":
    main()
