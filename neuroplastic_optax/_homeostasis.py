"""Homeostasis: a bound on each leaf's update, and a gain near 1."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from neuroplastic_optax import _checks
from neuroplastic_optax._coefficient import compute_dtype, sums

MIN_GAIN, MAX_GAIN = 0.5, 1.5


def norm_of(x: jax.Array) -> jax.Array:
    """The 2-norm over all entries of an array; its floor keeps the derivative finite at zero."""
    return _root(jnp.sum(jnp.square(x)))


def norms_of(*xs: jax.Array) -> tuple[jax.Array, ...]:
    """The 2-norms of several arrays of one shape, taken together."""
    return tuple(_root(total) for total in sums([jnp.square(x) for x in xs]))


def _root(total: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.maximum(total, jnp.finfo(total.dtype).tiny))


def norm_bound(norm: jax.Array, limit: ArrayLike, eps: ArrayLike) -> jax.Array:
    """The factor that brings a vector of 2-norm ``norm`` to ``limit`` where it is longer."""
    return jnp.where(norm > limit, limit / (norm + eps), 1.0)


def limit_norm(x: jax.Array, norm: jax.Array, limit: ArrayLike, eps: ArrayLike) -> jax.Array:
    """``x`` of 2-norm ``norm``, rescaled to ``limit`` where it is longer.

    It is zero where the limit is not finite: one relative to a norm that overflows would limit
    nothing.
    """
    return jnp.where(jnp.isfinite(limit), x * norm_bound(norm, limit, eps), 0.0)


def homeostasis(
    max_update_norm: ArrayLike = 1.0,
    target_rms: ArrayLike = 0.02,
    adaptation_rate: ArrayLike = 0.01,
    eps: ArrayLike = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    r"""Bound each leaf's update, and scale it by a gain that leans towards a target size.

    Leaf by leaf, with R = ``max_update_norm``, ρ = ``target_rms`` and κ = ``adaptation_rate``,

    .. math::

      u &\leftarrow u \cdot R / (\|u\| + \epsilon) \quad \text{where } \|u\| > R \\
      \mathrm{rms} &= \sqrt{\mathrm{mean}(u^2) + \epsilon} \\
      S(u) &= \mathrm{clip}(1 + \kappa (\rho - \mathrm{rms}), 0.5, 1.5) \cdot u

    With the default constants the gain stays within 1% of 1: a norm bound in practice. Norms are
    taken in float32 or wider; the result has the update's dtype. An update whose norm overflows
    (float32 entries above about 1e19) becomes zero.

    Args:
      max_update_norm: R, in units of the update.
      target_rms: ρ, in units of the update.
      adaptation_rate: κ, per unit of the update; 0 leaves the norm bound alone.
      eps: keeps the quotient finite, and is the floor of rms².

    Returns:
      A transformation without state.

    Raises:
      ValueError: a static setting that cannot work, by name and value.

    Examples:
      >>> import jax.numpy as jnp
      >>> from neuroplastic_optax import homeostasis
      >>> tx = homeostasis(max_update_norm=1.0, adaptation_rate=0.0)
      >>> tx.update(jnp.array([3.0, 4.0]), tx.init(None))[0]
      Array([0.6, 0.8], dtype=float32)

    References:
      Jiang et al., `NeuroPlastic <https://arxiv.org/abs/2604.26297>`_, 2026, section 3.
    """
    _checks.check_number("max_update_norm", max_update_norm, above=0)
    _checks.check_number("target_rms", target_rms, at_least=0)
    _checks.check_number("adaptation_rate", adaptation_rate, at_least=0)
    _checks.check_number("eps", eps, above=0)

    def stabilise(update: jax.Array) -> jax.Array:
        u = update.astype(compute_dtype(update.dtype))
        norm = norm_of(u)
        bounded_norm = jnp.where(norm > max_update_norm, max_update_norm / (1 + eps / norm), norm)
        rms = jnp.sqrt(bounded_norm**2 / max(u.size, 1) + eps)
        gain = jnp.clip(1 + adaptation_rate * (target_rms - rms), MIN_GAIN, MAX_GAIN)
        return (gain * norm_bound(norm, max_update_norm, eps) * u).astype(update.dtype)

    def init_fn(params: optax.Params) -> optax.EmptyState:
        _checks.check_floating(params)
        return optax.EmptyState()

    def update_fn(
        updates: optax.Updates,
        state: optax.EmptyState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.EmptyState]:
        del params, extra_args
        return jax.tree.map(stabilise, _checks.floating_arrays(updates)), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
