"""The rest of the paper's design space: residual forms, and a learning-rate controller.

What is here exists to repeat the paper's figure 7; for use, see
:func:`~neuroplastic_optax.with_plasticity`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from neuroplastic_optax import _checks
from neuroplastic_optax._coefficient import Coefficient, compute_dtype
from neuroplastic_optax._homeostasis import limit_norm, norm_of
from neuroplastic_optax._scale_by_plasticity import modulation
from neuroplastic_optax._statistics import Diagnostics
from neuroplastic_optax._traces import (
    Plasticity,
    ScalarOrSchedule,
    ScaleByPlasticityState,
    at_step,
)
from neuroplastic_optax._with_plasticity import with_plasticity


class ControlLearningRateState(NamedTuple):
    """State of :func:`control_learning_rate`.

    Attributes:
      plasticity: count and traces, of its own whatever ``inner`` keeps.
      inner_state: state of the inner transformation.
      multiplier: the last step's factors, float32 [groups], by sorted label; ones before it.
    """

    plasticity: ScaleByPlasticityState
    inner_state: optax.OptState
    multiplier: jax.Array


def add_bounded_plasticity(  # noqa: D417 - the shared settings are explained once
    max_ratio: ArrayLike = 0.5,
    *,
    activity_weight: ArrayLike = 0.4,
    gradient_weight: ArrayLike = 0.4,
    memory_weight: ArrayLike = 0.2,
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
    r"""Add a plastic residual, bounded relative to the gradient, to each gradient.

    .. math::

      \delta = \mathrm{limit}((\alpha - 1) \odot g,\ \rho \|g\|), \qquad u = g + \delta

    with limit(δ, L) the rescaling of δ to 2-norm L where it is longer, leaf by leaf: it is
    :func:`~neuroplastic_optax.with_plasticity` around :func:`optax.identity`.

    All settings that are not explained here are those of
    :func:`~neuroplastic_optax.scale_by_plasticity`, with the same defaults.

    Args:
      max_ratio: ρ, the residual's norm at most, relative to the gradient's.

    Returns:
      A transformation with state :class:`~neuroplastic_optax.WithPlasticityState`.

    Raises:
      ValueError: a static setting that cannot work, by name and value.

    Examples:
      >>> import jax.numpy as jnp
      >>> from neuroplastic_optax.variants import add_bounded_plasticity
      >>> tx = add_bounded_plasticity(max_ratio=0.1)
      >>> g = jnp.array([3.0, 4.0])
      >>> u, _ = tx.update(g, tx.init(g))
      >>> bool(jnp.linalg.norm(u - g) <= 0.1 * jnp.linalg.norm(g) * (1 + 1e-6))
      True

    References:
      Design space of Jiang et al., 2026, figure 7.
    """
    return with_plasticity(
        optax.identity(),
        strength=1.0,
        max_ratio=max_ratio,
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


def add_orthogonal_plasticity(  # noqa: D417 - the shared settings are explained once
    strength: ScalarOrSchedule = 0.1,
    max_ratio: ArrayLike = 0.5,
    *,
    match_norm: bool = False,
    activity_weight: ArrayLike = 0.4,
    gradient_weight: ArrayLike = 0.4,
    memory_weight: ArrayLike = 0.2,
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
    r"""Add the part of the plastic signal that is orthogonal to each gradient.

    Leaf by leaf, so that only the direction changes and not the step along the gradient,

    .. math::

      s &= (\alpha - \alpha_\mathrm{grad}) \odot g, \qquad
      o = s - \frac{\langle s, g \rangle}{\|g\|^2 + \epsilon} g \\
      \delta &= \mathrm{limit}(\lambda_t o,\ \rho \|g\|), \qquad u = g + \delta

    and δ = 0 where :math:`\|g\|^2 \le \epsilon`.

    All settings that are not explained here are those of
    :func:`~neuroplastic_optax.scale_by_plasticity`, with the same defaults.

    Args:
      strength: :math:`\lambda_t`, a number or a schedule; those published are
        :func:`~neuroplastic_optax.schedules.late_ramp` and
        :func:`~neuroplastic_optax.schedules.cosine_ramp`.
      max_ratio: ρ, the residual's norm at most, relative to the gradient's.
      match_norm: scale o to the gradient's norm first, where ‖o‖ > eps and above rounding error.

    Returns:
      A transformation with state :class:`~neuroplastic_optax.ScaleByPlasticityState`.

    Raises:
      ValueError: a static setting that cannot work, by name and value.

    Examples:
      >>> import jax.numpy as jnp
      >>> from neuroplastic_optax.variants import add_orthogonal_plasticity
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
        residual = jnp.asarray(at_step(strength, count) * orthogonal)
        residual = limit_norm(residual, norm_of(residual), max_ratio * norm, eps)
        # Overflow leaves no direction.
        defined = (squared_norm > eps) & (squared_norm < jnp.inf) & jnp.isfinite(along)
        return gradient + jnp.where(defined, residual, 0.0)

    return modulation(plasticity, modulate)


def control_learning_rate(  # noqa: D417 - the shared settings are explained once
    inner: optax.GradientTransformation,
    *,
    strength: ScalarOrSchedule = 0.1,
    low: ArrayLike = 0.8,
    high: ArrayLike = 1.2,
    groups: Any | Callable[[optax.Params], Any] | None = None,
    activity_weight: ArrayLike = 0.4,
    gradient_weight: ArrayLike = 0.4,
    memory_weight: ArrayLike = 0.2,
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
    r"""Multiply another transformation's output by a learning-rate factor drawn from plasticity.

    For each leaf, then for each group of leaves,

    .. math::

      x = \mathrm{mean}\left(\log
        \frac{\max(\alpha, \epsilon)}{\max(\alpha_\mathrm{grad}, \epsilon)}\right), \qquad
      \eta \leftarrow \eta \cdot \mathrm{clip}(1 + s_t \bar x, \mathrm{low}, \mathrm{high})

    with x = 0 where it is not finite, and :math:`\bar x` the plain mean over the group's leaves.
    A decoupled weight decay inside ``inner`` is multiplied too; one chained after it is not.

    All settings that are not explained here are those of
    :func:`~neuroplastic_optax.scale_by_plasticity`, with the same defaults.

    Args:
      inner: any transformation.
      strength: :math:`s_t`, a number or a schedule.
      low: the factor at least.
      high: the factor at most.
      groups: a tree of labels, or a callable that makes one, as in :func:`optax.partition`; None
        takes all leaves as one group.

    Returns:
      A transformation with state :class:`ControlLearningRateState`; extra arguments reach
      ``inner``.

    Raises:
      ValueError: a static setting that cannot work, by name and value.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from neuroplastic_optax.variants import control_learning_rate
      >>> tx = optax.chain(
      ...     control_learning_rate(optax.scale_by_adam()), optax.scale_by_learning_rate(1e-3)
      ... )
      >>> params = jnp.array([1.0, -2.0])
      >>> _, state = tx.update(jnp.array([0.3, -0.1]), tx.init(params))
      >>> state[0].multiplier.shape
      (1,)

    References:
      Design space of Jiang et al., 2026, figure 7.
    """
    _checks.check_number("strength", strength)
    _checks.check_number("low", low, at_least=0)
    _checks.check_number("high", high, at_least=0)
    _checks.check_order("low", low, "high", high)
    inner = optax.with_extra_args_support(inner)
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

    def group_indices(tree: optax.Params) -> tuple[list[int], int]:
        """For each leaf, the position of its group among the sorted labels; and their number."""
        if groups is None or not jax.tree.leaves(tree):  # `optax.tree.map_params` gives no leaf
            labels = "all"
        else:
            labels = groups(tree) if callable(groups) else groups
        spread = jax.tree.map(lambda label, node: jax.tree.map(lambda _: label, node), labels, tree)
        of_leaf = jax.tree.leaves(spread)
        known = sorted(set(of_leaf))
        return [known.index(label) for label in of_leaf], len(known)

    def init_fn(params: optax.Params) -> ControlLearningRateState:
        multiplier = jnp.ones(group_indices(params)[1], jnp.float32)
        return ControlLearningRateState(plasticity.init(params), inner.init(params), multiplier)

    def update_fn(
        updates: optax.Updates,
        state: ControlLearningRateState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ControlLearningRateState]:
        outputs, inner_state = inner.update(updates, state.inner_state, params, **extra_args)
        gradients = _checks.floating_arrays(updates)
        traces = plasticity.accumulate(gradients, state.plasticity)
        coefficients = plasticity.coefficients(gradients, traces)
        multiplier = _multiplier(coefficients, gradients, state.plasticity.count)
        indices, _ = group_indices(updates)
        leaves, structure = jax.tree.flatten(outputs)
        scaled_leaves = (
            (leaf * multiplier[index].astype(compute_dtype(leaf.dtype))).astype(leaf.dtype)
            for leaf, index in zip(leaves, indices, strict=True)
        )
        scaled = jax.tree.unflatten(structure, scaled_leaves)
        traces = plasticity.measure(coefficients, gradients, traces)
        return scaled, ControlLearningRateState(traces, inner_state, multiplier)

    def _multiplier(
        coefficients: list[Coefficient], updates: optax.Updates, count: jax.Array
    ) -> jax.Array:
        indices, number = group_indices(updates)
        sums = [jnp.zeros((), jnp.float32)] * number
        sizes = [0] * number
        for coefficient, gradient, index in zip(
            coefficients, jax.tree.leaves(updates), indices, strict=True
        ):
            if gradient.size:
                sums[index] += _log_ratio(coefficient, plasticity.eps).astype(jnp.float32)
                sizes[index] += 1
        means = jnp.asarray([s / max(n, 1) for s, n in zip(sums, sizes, strict=True)], jnp.float32)
        return jnp.clip(1 + at_step(strength, count) * means, low, high).astype(jnp.float32)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _log_ratio(coefficient: Coefficient, eps: ArrayLike) -> jax.Array:
    """Mean over a leaf of log(α / α_grad), both at least eps; 0 where it is not finite."""
    ratio = jnp.maximum(coefficient.alpha, eps) / jnp.maximum(coefficient.alpha_grad, eps)
    x = jnp.mean(jnp.log(ratio))
    return jnp.where(jnp.isfinite(x), x, 0.0)
