"""Controls of the fair test: the full method's α with one thing about it changed.

Each keeps the full method's traces and homeostasis and changes what multiplies the gradient, so
that a comparison with the full method asks one question. All are built from the library's public
parts.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

import neuroplastic_optax as npx

Control = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def clipped(alpha: jax.Array, gradient: jax.Array, key: jax.Array) -> jax.Array:
    """α, clipped to the published bounds again after γ: never an ascent direction."""
    del gradient, key
    return jnp.clip(alpha, 0.2, 2.0)


def permuted(alpha: jax.Array, gradient: jax.Array, key: jax.Array) -> jax.Array:
    """α's entries moved cyclically by a random distance within the leaf.

    The same values, on other coordinates: all that α says about which coordinate is lost.
    """
    del gradient
    shift = drawn_alone(lambda key: jax.random.randint(key, (), 0, max(alpha.size, 1)), key)
    return jnp.roll(alpha.ravel(), shift).reshape(alpha.shape)


def randomised(alpha: jax.Array, gradient: jax.Array, key: jax.Array) -> jax.Array:
    """Normal noise with α's mean and variance in the leaf."""
    del gradient
    noise = drawn_alone(lambda key: jax.random.normal(key, alpha.shape, alpha.dtype), key)
    return jnp.mean(alpha) + jnp.std(alpha) * noise


def norm_matched(alpha: jax.Array, gradient: jax.Array, key: jax.Array) -> jax.Array:
    """One number for the leaf, which gives the update the norm that α would have given it."""
    del key
    norm = jnp.linalg.norm(alpha * gradient) / jnp.maximum(jnp.linalg.norm(gradient), 1e-30)
    return jnp.broadcast_to(norm, alpha.shape)


def drawn_alone(draw: Callable[[jax.Array], jax.Array], key: jax.Array) -> jax.Array:
    """``draw(key)``; a batch one by one, since XLA's generator would use its first key for all."""
    return jax.custom_batching.sequential_vmap(draw)(key)


def scale_by_control(
    control: Control, *, plasticity_scale: optax.Schedule, seed: ArrayLike
) -> optax.GradientTransformation:
    """Multiplies each gradient by ``control(α, gradient, key)``, a fresh key per step and leaf.

    Args:
      control: one of the functions above.
      plasticity_scale: γ, a schedule.
      seed: where the keys come from.

    Returns:
      A transformation with the state of :func:`neuroplastic_optax.scale_by_plasticity`.
    """
    plasticity = npx.scale_by_plasticity(plasticity_scale=plasticity_scale)

    def update_fn(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, Any]:
        _, new_state = plasticity.update(updates, state, params)
        leaves, structure = jax.tree.flatten(updates)
        # XLA's own generator: on a CPU threefry would cost more than the rest of the step.
        keys = jax.random.split(
            jax.random.fold_in(jax.random.key(seed, impl="rbg"), state.count), len(leaves)
        )
        traces = (
            jax.tree.leaves(t)
            for t in (new_state.activity, new_state.memory_mu, new_state.memory_nu)
        )
        controlled = []
        for gradient, activity, mu, nu, key in zip(leaves, *traces, keys, strict=True):
            alpha = npx.plasticity_coefficient(
                gradient, activity, mu, nu, plasticity_scale=plasticity_scale(state.count)
            )
            controlled.append(control(alpha, gradient, key) * gradient)
        return jax.tree.unflatten(structure, controlled), new_state

    return optax.GradientTransformation(plasticity.init, update_fn)
