"""Plasticity as gradient transformations: the paper's form and its residual forms."""

from collections.abc import Callable
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from neuroplastic_optax import _checks
from neuroplastic_optax._coefficient import Coefficient, compute_dtype, narrowed
from neuroplastic_optax._diagnostics import Diagnostics
from neuroplastic_optax._homeostasis import limit_norm, norm_of
from neuroplastic_optax._plasticity import (
    Plasticity,
    PlasticitySettings,
    ScalarOrSchedule,
    ScaleByPlasticityState,
    at_step,
    explicit_settings,
)


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
    memory signal of such a leaf is off until ν has decayed. Where the sum of :math:`|g|` over a
    leaf overflows, the leaf's activity signal is zero from there on.

    Args:
      activity_weight: :math:`w_a`. A weight of static 0 keeps no trace for its signal.
      gradient_weight: :math:`w_g`.
      memory_weight: :math:`w_m`.
      activity_decay: :math:`\beta_a`, in [0, 1) per step.
      b1: :math:`\beta_1`, in [0, 1) per step.
      b2: :math:`\beta_2`, in [0, 1) per step.
      min_alpha: lower bound of the coefficient before ``plasticity_scale``.
      max_alpha: upper bound of the coefficient before ``plasticity_scale``.
      plasticity_scale: γ, a number or a schedule of the step (the first is 0). 0 is gradient-only,
        1 the paper's formula; above 1 the coefficient may leave its bounds and turn negative.
      eps: keeps the ratios finite, in units of the gradient.
      tensorwise: one coefficient per leaf in place of one per entry.
      accumulator_dtype: dtype of the traces; None gives float32, or the leaf's where it is wider.
        bfloat16 halves their memory and traffic.
      diagnostics: keep :class:`PlasticityDiagnostics` in the state; ``"per_leaf"`` by leaf too.

    Returns:
      A transformation with state :class:`ScaleByPlasticityState`.

    Raises:
      ValueError: a static setting that cannot work, by name and value.
      TypeError: at ``init`` or ``update``, a leaf that is not real floating, by path.

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

    return _transformation(plasticity, modulate)


@explicit_settings
def add_bounded_plasticity(
    max_ratio: ArrayLike = 0.5, **settings: Unpack[PlasticitySettings]
) -> optax.GradientTransformationExtraArgs:
    r"""Add a plastic residual, bounded relative to the gradient, to each gradient.

    .. math::

      \delta = \mathrm{limit}((\alpha - 1) \odot g,\ \rho \|g\|), \qquad u = g + \delta

    with limit(δ, L) the rescaling of δ to 2-norm L where it is longer, leaf by leaf.

    Args:
      max_ratio: ρ, the residual's norm at most, relative to the gradient's.
      **settings: those of :func:`scale_by_plasticity`.

    Returns:
      A transformation with state :class:`ScaleByPlasticityState`.

    Raises:
      ValueError: a static setting that cannot work, by name and value.

    Examples:
      >>> import jax.numpy as jnp
      >>> from neuroplastic_optax import add_bounded_plasticity
      >>> tx = add_bounded_plasticity(max_ratio=0.1)
      >>> g = jnp.array([3.0, 4.0])
      >>> u, _ = tx.update(g, tx.init(g))
      >>> bool(jnp.linalg.norm(u - g) <= 0.1 * jnp.linalg.norm(g) * (1 + 1e-6))
      True

    References:
      Design space of Jiang et al., 2026, figure 7.
    """
    _checks.check_number("max_ratio", max_ratio, at_least=0)
    plasticity = Plasticity(**settings)

    def modulate(coefficient: Coefficient, gradient: jax.Array, count: jax.Array) -> jax.Array:
        del count
        residual = (coefficient.alpha - 1) * gradient
        bound = max_ratio * norm_of(gradient)
        return gradient + limit_norm(residual, bound, plasticity.eps)

    return _transformation(plasticity, modulate)


@explicit_settings
def add_orthogonal_plasticity(
    strength: ScalarOrSchedule = 0.1,
    max_ratio: ArrayLike = 0.5,
    *,
    match_norm: bool = False,
    **settings: Unpack[PlasticitySettings],
) -> optax.GradientTransformationExtraArgs:
    r"""Add the part of the plastic signal that is orthogonal to each gradient.

    Leaf by leaf, so that only the direction changes and not the step along the gradient,

    .. math::

      s &= (\alpha - \alpha_\mathrm{grad}) \odot g, \qquad
      o = s - \frac{\langle s, g \rangle}{\|g\|^2 + \epsilon} g \\
      \delta &= \mathrm{limit}(\lambda_t o,\ \rho \|g\|), \qquad u = g + \delta

    and δ = 0 where :math:`\|g\|^2 \le \epsilon`.

    Args:
      strength: :math:`\lambda_t`, a number or a schedule; :func:`late_ramp` and
        :func:`cosine_ramp` give the published ones.
      max_ratio: ρ, the residual's norm at most, relative to the gradient's.
      match_norm: scale o to the gradient's norm first, where ‖o‖ > eps and above rounding error.
      **settings: those of :func:`scale_by_plasticity`.

    Returns:
      A transformation with state :class:`ScaleByPlasticityState`.

    Raises:
      ValueError: a static setting that cannot work, by name and value.

    Examples:
      >>> import jax.numpy as jnp
      >>> from neuroplastic_optax import add_orthogonal_plasticity
      >>> tx = add_orthogonal_plasticity(strength=1.0)
      >>> g = jnp.array([1.0, 2.0, 4.0])
      >>> u, _ = tx.update(g, tx.init(g))
      >>> bool(jnp.abs(jnp.vdot(u - g, g)) < 1e-5)
      True

    References:
      Design space of Jiang et al., 2026, figure 7.
    """
    _checks.check_number("strength", strength, at_least=0)
    _checks.check_number("max_ratio", max_ratio, at_least=0)
    plasticity = Plasticity(**settings)

    def modulate(coefficient: Coefficient, gradient: jax.Array, count: jax.Array) -> jax.Array:
        eps = plasticity.eps
        signal = (coefficient.alpha - coefficient.alpha_grad) * gradient
        squared_norm = jnp.sum(jnp.square(gradient))
        along = jnp.sum(signal * gradient) / (squared_norm + eps)
        orthogonal = signal - along * gradient
        norm = norm_of(gradient)
        if match_norm:
            length = norm_of(orthogonal)
            # Below the rounding error of α ⊙ g it is noise, which must not grow to the norm of g.
            resolution = jnp.maximum(eps, 8 * jnp.finfo(gradient.dtype).eps * norm)
            orthogonal *= jnp.where(length > resolution, norm / (length + eps), 1.0)
        residual = limit_norm(at_step(strength, count) * orthogonal, max_ratio * norm, eps)
        defined = (squared_norm > eps) & (squared_norm < jnp.inf)  # overflow leaves no direction
        return gradient + jnp.where(defined, residual, 0.0)

    return _transformation(plasticity, modulate)


def _transformation(
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
        new_state = plasticity.accumulate(updates, state)
        coefficients = plasticity.coefficients(updates, new_state)
        gradients, structure = jax.tree.flatten(updates)
        modulated_leaves = (
            narrowed(modulate(c, g.astype(compute_dtype(g.dtype)), state.count), g)
            for c, g in zip(coefficients, gradients, strict=True)
        )
        modulated = jax.tree.unflatten(structure, modulated_leaves)
        return modulated, plasticity.measure(coefficients, updates, modulated, new_state)

    return optax.GradientTransformationExtraArgs(plasticity.init, update_fn)
