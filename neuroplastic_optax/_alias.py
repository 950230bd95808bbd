"""Whole optimizers: chains of this library's parts and Optax's."""

from collections.abc import Callable
from typing import Any, TypeAlias

import optax
from jax.typing import ArrayLike, DTypeLike

from neuroplastic_optax import _checks
from neuroplastic_optax._diagnostics import Diagnostics
from neuroplastic_optax._homeostasis import homeostasis
from neuroplastic_optax._modulation import with_plasticity
from neuroplastic_optax._plasticity import ScalarOrSchedule
from neuroplastic_optax._transform import scale_by_plasticity

Mask: TypeAlias = Any | Callable[[optax.Params], Any]


def _decoupled_weight_decay(
    weight_decay: ArrayLike, mask: Mask | None
) -> optax.GradientTransformation:
    """AdamW's decay; without a mask, a static 0 adds nothing and so needs no ``params``."""
    _checks.check_number("weight_decay", weight_decay, at_least=0)
    if mask is None and _checks.is_static_zero(weight_decay):
        return optax.identity()
    return optax.add_decayed_weights(weight_decay, mask)


def neuroplastic(
    learning_rate: ScalarOrSchedule,
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
    max_update_norm: ArrayLike = 1.0,
    target_rms: ArrayLike = 0.02,
    adaptation_rate: ArrayLike = 0.01,
    eps: ArrayLike = 1e-8,
    tensorwise: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    weight_decay: ArrayLike = 0.0,
    weight_decay_mask: Mask | None = None,
    diagnostics: Diagnostics = False,
) -> optax.GradientTransformationExtraArgs:
    r"""The NeuroPlastic optimizer: plasticity, homeostasis, decoupled decay, learning rate.

    .. math::

      \theta_{t+1} = \theta_t - \eta_t \left( S(\alpha_t \odot g_t) + \lambda \theta_t \right)

    The published full method on MNIST and Fashion-MNIST is ``learning_rate=0.1`` and
    ``plasticity_scale=plasticity_warmup(steps_per_epoch, warmup_epochs=2, final_scale=2.0)``.

    Args:
      learning_rate: η, a number or a schedule.
      activity_weight: as in :func:`scale_by_plasticity`.
      gradient_weight: as in :func:`scale_by_plasticity`.
      memory_weight: as in :func:`scale_by_plasticity`.
      activity_decay: as in :func:`scale_by_plasticity`.
      b1: as in :func:`scale_by_plasticity`.
      b2: as in :func:`scale_by_plasticity`.
      min_alpha: as in :func:`scale_by_plasticity`.
      max_alpha: as in :func:`scale_by_plasticity`.
      plasticity_scale: as in :func:`scale_by_plasticity`.
      max_update_norm: as in :func:`homeostasis`.
      target_rms: as in :func:`homeostasis`.
      adaptation_rate: as in :func:`homeostasis`.
      eps: of both.
      tensorwise: as in :func:`scale_by_plasticity`.
      accumulator_dtype: as in :func:`scale_by_plasticity`.
      weight_decay: λ, decoupled as in :func:`optax.adamw`.
      weight_decay_mask: as in :func:`optax.add_decayed_weights`.
      diagnostics: keep the diagnostics of both parts; see :func:`diagnostics`.

    Returns:
      A transformation; where weight decay is used, its update needs ``params``.

    Raises:
      ValueError: a static setting that cannot work, by name and value.

    Examples:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from neuroplastic_optax import neuroplastic
      >>> tx = neuroplastic(0.1)
      >>> params = jnp.array([1.0, -2.0, 3.0])
      >>> state = tx.init(params)
      >>> for _ in range(100):
      ...     updates, state = tx.update(jax.grad(lambda p: jnp.sum(p**2))(params), state)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(jnp.max(jnp.abs(params)) < 1e-3)
      True

    References:
      Jiang et al., `NeuroPlastic <https://arxiv.org/abs/2604.26297>`_, 2026, section 3.
    """
    return optax.chain(
        scale_by_plasticity(
            activity_weight,
            gradient_weight,
            memory_weight,
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
        ),
        homeostasis(
            max_update_norm, target_rms, adaptation_rate, eps, diagnostics=bool(diagnostics)
        ),
        _decoupled_weight_decay(weight_decay, weight_decay_mask),
        optax.scale_by_learning_rate(learning_rate),
    )


def gradient_only(
    learning_rate: ScalarOrSchedule,
    *,
    min_alpha: ArrayLike = 0.5,
    max_alpha: ArrayLike = 1.5,
    max_update_norm: ArrayLike = 1.0,
    target_rms: ArrayLike = 0.02,
    adaptation_rate: ArrayLike = 0.01,
    eps: ArrayLike = 1e-8,
    weight_decay: ArrayLike = 0.0,
    weight_decay_mask: Mask | None = None,
    diagnostics: Diagnostics = False,
) -> optax.GradientTransformationExtraArgs:
    """The published ablation: the gradient signal alone, in bounds of its own, and no traces.

    As published its bounds are [0.5, 1.5], not the full method's [0.2, 2.0]; give those for a
    comparison at equal bounds.

    Args:
      learning_rate: η, a number or a schedule.
      min_alpha: as in :func:`scale_by_plasticity`.
      max_alpha: as in :func:`scale_by_plasticity`.
      max_update_norm: as in :func:`homeostasis`.
      target_rms: as in :func:`homeostasis`.
      adaptation_rate: as in :func:`homeostasis`.
      eps: of both.
      weight_decay: λ, decoupled as in :func:`optax.adamw`.
      weight_decay_mask: as in :func:`optax.add_decayed_weights`.
      diagnostics: keep the diagnostics of both parts; see :func:`diagnostics`.

    Returns:
      A transformation; where weight decay is used, its update needs ``params``.

    Raises:
      ValueError: a static setting that cannot work, by name and value.

    Examples:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from neuroplastic_optax import gradient_only
      >>> state = gradient_only(0.1).init(jnp.zeros(1000))
      >>> sum(leaf.size for leaf in jax.tree.leaves(state))
      1

    References:
      Jiang et al., `NeuroPlastic <https://arxiv.org/abs/2604.26297>`_, 2026, section 3.
    """
    return neuroplastic(
        learning_rate,
        activity_weight=0.0,
        gradient_weight=1.0,
        memory_weight=0.0,
        min_alpha=min_alpha,
        max_alpha=max_alpha,
        max_update_norm=max_update_norm,
        target_rms=target_rms,
        adaptation_rate=adaptation_rate,
        eps=eps,
        weight_decay=weight_decay,
        weight_decay_mask=weight_decay_mask,
        diagnostics=diagnostics,
    )


def adamw_with_plasticity(
    learning_rate: ScalarOrSchedule,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    *,
    strength: ScalarOrSchedule = 0.15,
    max_ratio: ArrayLike = 0.25,
    max_update_norm: ArrayLike = 1.0,
    weight_decay: ArrayLike = 1e-4,
    weight_decay_mask: Mask | None = None,
    diagnostics: Diagnostics = False,
) -> optax.GradientTransformationExtraArgs:
    """AdamW with a plastic residual on Adam's update, and homeostasis on the sum.

    Args:
      learning_rate: η, a number or a schedule.
      b1: of Adam.
      b2: of Adam.
      eps: of Adam.
      strength: as in :func:`with_plasticity`.
      max_ratio: as in :func:`with_plasticity`.
      max_update_norm: as in :func:`homeostasis`. The default bounds the whole leaf's update to
        norm 1 where Adam's has about the root of the leaf's size: learning rates of plain AdamW do
        not carry over.
      weight_decay: λ, decoupled as in :func:`optax.adamw`.
      weight_decay_mask: as in :func:`optax.add_decayed_weights`.
      diagnostics: keep the diagnostics of both parts; see :func:`diagnostics`.

    Returns:
      A transformation; where weight decay is used, its update needs ``params``.

    Raises:
      ValueError: a static setting that cannot work, by name and value.

    Examples:
      >>> import jax.numpy as jnp
      >>> from neuroplastic_optax import adamw_with_plasticity
      >>> tx = adamw_with_plasticity(1e-3)
      >>> params = jnp.ones(3)
      >>> updates, state = tx.update(params, tx.init(params), params)

    References:
      Design space of Jiang et al., 2026, figure 7; Loshchilov and Hutter, 2019.
    """
    return optax.chain(
        with_plasticity(
            optax.scale_by_adam(b1, b2, eps),
            strength=strength,
            max_ratio=max_ratio,
            diagnostics=diagnostics,
        ),
        homeostasis(max_update_norm, diagnostics=bool(diagnostics)),
        _decoupled_weight_decay(weight_decay, weight_decay_mask),
        optax.scale_by_learning_rate(learning_rate),
    )
