"""Schedules for plasticity scales and strengths; plain Optax schedules of the step."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from neuroplastic_optax import _checks

Phase = Literal["full", "early", "middle", "late"]

EARLY_END, LATE_START, RAMP_START = 0.3, 0.7, 0.3


def _check_count(name: str, value: int, *, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ValueError(f"{name} must be an integer of at least {at_least}, got {value!r}.")


def plasticity_warmup(
    steps_per_epoch: int, warmup_epochs: int, final_scale: float = 1.0
) -> optax.Schedule:
    r"""The published warm-up of γ: a stair of one step per epoch from 0 to its final value.

    .. math::

      \gamma_t = \gamma \min(\lfloor t / n \rfloor / w,\ 1)

    with n steps per epoch and w warm-up epochs; γ from the start where w = 0.

    Args:
      steps_per_epoch: n, at least 1; a partial last batch counts as a step.
      warmup_epochs: w, at least 0.
      final_scale: γ after the warm-up.

    Returns:
      A schedule of the step, the first being 0; float32 scalars.

    Raises:
      ValueError: a count that is not an integer or is too small, by name and value.

    Examples:
      >>> from neuroplastic_optax import plasticity_warmup
      >>> schedule = plasticity_warmup(steps_per_epoch=10, warmup_epochs=2, final_scale=2.0)
      >>> [float(schedule(step)) for step in (0, 9, 10, 20, 500)]
      [0.0, 0.0, 1.0, 2.0, 2.0]

    References:
      Warm-up of the published implementation of Jiang et al., 2026.
    """
    _check_count("steps_per_epoch", steps_per_epoch, at_least=1)
    _check_count("warmup_epochs", warmup_epochs, at_least=0)
    _checks.check_number("final_scale", final_scale)

    def schedule(count: ArrayLike) -> jax.Array:
        epochs_done = jnp.asarray(count) // steps_per_epoch
        # No warm-up: any epoch is past its end.
        ramp = jnp.minimum((epochs_done + (warmup_epochs == 0)) / max(warmup_epochs, 1), 1.0)
        return jnp.asarray(final_scale * ramp, jnp.float32)

    return schedule


def _progress(count: ArrayLike, total_steps: int, steps_per_epoch: int) -> jax.Array:
    """Share of training done at the end of the current epoch, in (0, 1]."""
    steps_done = (jnp.asarray(count) // steps_per_epoch + 1) * steps_per_epoch
    return jnp.minimum(steps_done.astype(jnp.float32) / total_steps, 1.0)


def phase(
    name: Phase, total_steps: int, *, steps_per_epoch: int = 1, value: float = 1.0
) -> optax.Schedule:
    """A schedule that is ``value`` during one phase of training and 0 outside it.

    Progress p is the share of training done at the end of the current epoch. The phases are full
    (always), early (p ≤ 0.3), middle (0.3 < p < 0.7) and late (p ≥ 0.7).

    Args:
      name: ``"full"``, ``"early"``, ``"middle"`` or ``"late"``.
      total_steps: steps of the whole training.
      steps_per_epoch: progress moves once in so many steps; 1 moves it at every step.
      value: the schedule's value during the phase.

    Returns:
      A schedule of the step, the first being 0; float32 scalars.

    Raises:
      ValueError: an unknown phase, or a count that is not an integer or is too small.

    Examples:
      >>> from neuroplastic_optax import phase
      >>> early = phase("early", total_steps=10, value=0.15)
      >>> [round(float(early(step)), 2) for step in (0, 2, 3)]
      [0.15, 0.15, 0.0]

    References:
      Design space of Jiang et al., 2026, figure 7.
    """
    if name not in get_args(Phase):
        raise ValueError(f"name must be one of {', '.join(get_args(Phase))}, got {name!r}.")
    _check_count("total_steps", total_steps, at_least=1)
    _check_count("steps_per_epoch", steps_per_epoch, at_least=1)

    def schedule(count: ArrayLike) -> jax.Array:
        p = _progress(count, total_steps, steps_per_epoch)
        inside = {
            "full": p >= 0,
            "early": p <= EARLY_END,
            "middle": (p > EARLY_END) & (p < LATE_START),
            "late": p >= LATE_START,
        }[name]
        return jnp.where(inside, value, 0.0).astype(jnp.float32)

    return schedule


def late_ramp(total_steps: int, *, steps_per_epoch: int = 1, value: float = 1.0) -> optax.Schedule:
    r"""A schedule that is 0 until 30% of training and then rises linearly to ``value``.

    .. math:: h = \mathrm{clip}((p - 0.3) / 0.7,\ 0,\ 1)

    Args:
      total_steps: steps of the whole training.
      steps_per_epoch: progress p moves once in so many steps; 1 moves it at every step.
      value: the schedule's value at the end of training.

    Returns:
      A schedule of the step, the first being 0; float32 scalars.

    Raises:
      ValueError: a count that is not an integer or is too small, by name and value.

    Examples:
      >>> from neuroplastic_optax import late_ramp
      >>> schedule = late_ramp(total_steps=10)
      >>> [round(float(schedule(step)), 2) for step in (2, 5, 9)]
      [0.0, 0.43, 1.0]

    References:
      Design space of Jiang et al., 2026, figure 7.
    """
    _check_count("total_steps", total_steps, at_least=1)
    _check_count("steps_per_epoch", steps_per_epoch, at_least=1)

    def schedule(count: ArrayLike) -> jax.Array:
        p = _progress(count, total_steps, steps_per_epoch)
        return value * jnp.clip((p - RAMP_START) / (1 - RAMP_START), 0.0, 1.0)

    return schedule


def cosine_ramp(
    total_steps: int, *, steps_per_epoch: int = 1, value: float = 1.0
) -> optax.Schedule:
    r"""A schedule that rises from 0 to ``value`` along half a cosine over the whole training.

    .. math:: h = \tfrac{1}{2} (1 - \cos(\pi p))

    Args:
      total_steps: steps of the whole training.
      steps_per_epoch: progress p moves once in so many steps; 1 moves it at every step.
      value: the schedule's value at the end of training.

    Returns:
      A schedule of the step, the first being 0; float32 scalars.

    Raises:
      ValueError: a count that is not an integer or is too small, by name and value.

    Examples:
      >>> from neuroplastic_optax import cosine_ramp
      >>> schedule = cosine_ramp(total_steps=10)
      >>> [round(float(schedule(step)), 2) for step in (0, 4, 9)]
      [0.02, 0.5, 1.0]

    References:
      Design space of Jiang et al., 2026, figure 7.
    """
    _check_count("total_steps", total_steps, at_least=1)
    _check_count("steps_per_epoch", steps_per_epoch, at_least=1)

    def schedule(count: ArrayLike) -> jax.Array:
        p = _progress(count, total_steps, steps_per_epoch)
        return value * 0.5 * (1 - jnp.cos(jnp.pi * p))

    return schedule
