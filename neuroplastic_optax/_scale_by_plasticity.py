"""Plasticity as a gradient transformation: the paper's form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax
from jax.typing import ArrayLike, DTypeLike

from neuroplastic_optax import _checks
from neuroplastic_optax._coefficient import Coefficient, compute_dtype, narrowed
from neuroplastic_optax._statistics import Diagnostics
from neuroplastic_optax._traces import Plasticity, ScalarOrSchedule, ScaleByPlasticityState


def scale_by_plasticity(
    activity_weight: ArrayLike = 0.4,
    gradient_weight: ArrayLike = 0.4,
    memory_weight: ArrayLike = 0.2,
    *,
    activity_decay: ArrayLike = 0.95,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.99,
    min_alpha: ArrayLike = 0.2,
    max_alpha: ArrayLike = 2.0,
    plasticity_scale: ScalarOrSchedule = 1.0,
    eps: ArrayLike = 1e-8,
    tensorwise: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    diagnostics: Diagnostics = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Multiply each gradient by its plasticity coefficient.

    Every leaf is normalised by itself. With traces that start at zero and have no bias correction,

    .. math::

      a_t &= \beta_a a_{t-1} + (1 - \beta_a) |g_t| \\
      m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
      v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
      u_t &= \alpha(g_t, a_t, m_t, v_t) \odot g_t

    where α is :func:`plasticity_coefficient`. The published method bounds u with
    :func:`homeostasis` next; :func:`neuroplastic` is the whole chain.

    Means, norms and ratios are taken in float32, or in the leaf's dtype where that is wider; the
    update has the gradient's dtype. A NaN or infinity in a leaf makes the whole leaf's update NaN
    and stays in its traces: wrap the chain in :func:`optax.apply_if_finite` to skip such steps.
    Squares of float32 gradients above 1.3e19 count as half the largest number; Adam's overflow. The
    memory signal of such a leaf is off until ν has decayed. Where the sum of a leaf's
    activity overflows, its activity signal is zero until the trace has decayed.

    Args:
      activity_weight: :math:`w_a`, at least 0. A weight of static 0 keeps no trace for its signal.
      gradient_weight: :math:`w_g`, at least 0.
      memory_weight: :math:`w_m`, at least 0.
      activity_decay: :math:`\beta_a` per step, in [0, 1).
      b1: :math:`\beta_1` per step, in [0, 1).
      b2: :math:`\beta_2` per step, in [0, 1).
      min_alpha: lower bound of the coefficient before ``plasticity_scale``.
      max_alpha: upper bound of the coefficient before ``plasticity_scale``.
      plasticity_scale: γ, a number or a schedule of the step (the first is 0). 0 is gradient-only,
        1 the paper's formula; above 1 the coefficient may leave its bounds and turn negative.
      eps: keeps the ratios finite, in units of the gradient.
      tensorwise: one coefficient per leaf in place of one per entry.
      accumulator_dtype: dtype of the traces; None gives float32, or the leaf's where it is wider.
        bfloat16 halves their memory and traffic.
      diagnostics: keep statistics of α in the state, and with ``"per_leaf"`` those of each leaf;
        :func:`diagnostics` reads them.

    Returns:
      A transformation with state :class:`ScaleByPlasticityState`.

    Raises:
      ValueError: a static setting that cannot work, by name and value.
      TypeError: at ``init`` or ``update``, a leaf that is not real floating, by path.
      ValueError: at ``update``, a state without a trace that a weight needs, by name.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from neuroplastic_optax import homeostasis, scale_by_plasticity
      >>> tx = optax.chain(
      ...     optax.clip_by_global_norm(1.0),
      ...     scale_by_plasticity(),
      ...     homeostasis(),
      ...     optax.scale_by_learning_rate(0.1),
      ... )
      >>> params = {"w": jnp.array([1.0, -2.0])}
      >>> updates, state = tx.update({"w": jnp.array([0.3, -0.1])}, tx.init(params))
      >>> updates
      {'w': Array([-0.0418...,  0.0059...], dtype=float32)}

    References:
      Jiang et al., `NeuroPlastic <https://arxiv.org/abs/2604.26297>`_, 2026, section 3.
    """
    plasticity = Plasticity(
        activity_weight=activity_weight,
        gradient_weight=gradient_weight,
        memory_weight=memory_weight,
        activity_decay=activity_decay,
        b1=b1,
        b2=b2,
        min_alpha=min_alpha,
        max_alpha=max_alpha,
        plasticity_scale=plasticity_scale,
        eps=eps,
        tensorwise=tensorwise,
        accumulator_dtype=accumulator_dtype,
        diagnostics=diagnostics,
    )

    def modulate(coefficient: Coefficient, gradient: jax.Array, count: jax.Array) -> jax.Array:
        del count
        return coefficient.alpha * gradient

    return modulation(plasticity, modulate)


def modulation(
    plasticity: Plasticity, modulate: Callable[[Coefficient, jax.Array, jax.Array], jax.Array]
) -> optax.GradientTransformationExtraArgs:
    """The transformation whose update of one leaf is ``modulate(coefficient, gradient, count)``."""

    def update_fn(
        updates: optax.Updates,
        state: ScaleByPlasticityState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ScaleByPlasticityState]:
        del params, extra_args
        gradients = _checks.floating_arrays(updates)
        new_state = plasticity.accumulate(gradients, state)
        coefficients = plasticity.coefficients(gradients, new_state)
        leaves, structure = jax.tree.flatten(gradients)
        modulated_leaves = (
            narrowed(modulate(c, g.astype(compute_dtype(g.dtype)), state.count), g)
            for c, g in zip(coefficients, leaves, strict=True)
        )
        modulated = jax.tree.unflatten(structure, modulated_leaves)
        return modulated, plasticity.measure(coefficients, gradients, new_state)

    return optax.GradientTransformationExtraArgs(plasticity.init, update_fn)
