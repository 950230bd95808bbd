"""jax.vmap: every seed at every learning rate in one program, and the final losses as a table.

``# was:`` gives the statement of a program with Optax alone, ``# new`` marks one that it has not.

    pip install 'neuroplastic-optax[examples]'
    python examples/seeds_and_rates.py
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from mlxtend.data import wine_data

import neuroplastic_optax as npx  # new

BATCH, HIDDEN = 32, 32
Params = dict[str, jax.Array]
Data = tuple[jax.Array, jax.Array]


def adam_with_plasticity(rate: jax.Array) -> optax.GradientTransformation:  # new
    """As :func:`optax.adam`, which is a chain of these two without plasticity."""
    adam = npx.with_plasticity(optax.scale_by_adam())
    return optax.chain(adam, optax.scale_by_learning_rate(rate))


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {}
OPTIMIZERS["adam"] = optax.adam
OPTIMIZERS["adam, plasticity"] = adam_with_plasticity  # new
OPTIMIZERS["neuroplastic"] = npx.neuroplastic  # new


def load() -> tuple[Data, Data]:
    """Wines to train with and to test with: 13 measurements each, and the cultivar."""
    measured, cultivars = wine_data()
    order = np.random.default_rng(0).permutation(len(cultivars))
    x = jnp.asarray((measured - measured.mean(axis=0)) / measured.std(axis=0), jnp.float32)[order]
    y = jnp.asarray(cultivars, jnp.int32)[order]
    return (x[:120], y[:120]), (x[120:], y[120:])


def init(key: jax.Array) -> Params:
    """A network with one hidden layer."""
    first, second = jax.random.split(key)
    return {
        "hidden": jax.random.normal(first, (13, HIDDEN)) / 13**0.5,
        "bias": jnp.zeros((1, HIDDEN)),
        "head": jax.random.normal(second, (HIDDEN, 3)) / HIDDEN**0.5,
    }


def loss_fn(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    """Cross-entropy."""
    logits = jax.nn.relu(x @ params["hidden"] + params["bias"]) @ params["head"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def final_loss(
    name: str, steps: int, data: tuple[Data, Data], rate: jax.Array, seed: jax.Array
) -> jax.Array:
    """Trains one network and returns its test loss; the optimizer takes a traced rate."""
    tx = OPTIMIZERS[name](rate)
    (x, y), tested = data
    key, start = jax.random.split(jax.random.key(seed))
    params = init(start)

    def step(
        carry: tuple[Params, optax.OptState], key: jax.Array
    ) -> tuple[tuple[Params, optax.OptState], None]:
        params, opt_state = carry
        batch = jax.random.randint(key, (BATCH,), 0, len(y))
        gradients = jax.grad(loss_fn)(params, x[batch], y[batch])
        updates, opt_state = tx.update(gradients, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), jax.random.split(key, steps))
    return loss_fn(params, *tested)


def main(
    *, steps: int = 200, seeds: int = 5, rates: Sequence[float] = (1e-3, 1e-2, 1e-1, 1.0)
) -> dict[str, jax.Array]:
    """Trains all, prints the mean over seeds, and returns the losses [rates, seeds] by name."""
    data, losses = load(), {}
    print(f"test loss, mean of {seeds} seeds")
    print("rate".ljust(18) + "".join(f"{rate:>9g}" for rate in rates))
    for name in OPTIMIZERS:
        train = partial(final_loss, name, steps, data)
        every = jax.jit(jax.vmap(jax.vmap(train, (None, 0)), (0, None)))
        losses[name] = every(jnp.asarray(rates), jnp.arange(seeds))
        means = losses[name].mean(axis=1)
        print(name.ljust(18) + "".join(f"{mean:9.4f}" for mean in means))
    return losses


if __name__ == "__main__":
    main()
