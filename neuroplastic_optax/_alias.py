"""Whole optimizers: chains of this library's parts and Optax's."""

from __future__ import annotations

import optax
from jax.typing import ArrayLike, DTypeLike

from neuroplastic_optax import _checks
from neuroplastic_optax._homeostasis import homeostasis
from neuroplastic_optax._scale_by_plasticity import scale_by_plasticity
from neuroplastic_optax._statistics import Diagnostics
from neuroplastic_optax._traces import ScalarOrSchedule
from neuroplastic_optax._with_plasticity import Mask, with_plasticity
from neuroplastic_optax.monitoring import with_diagnostics


def _decoupled_weight_decay(
    weight_decay: ScalarOrSchedule, mask: Mask | None
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
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask | None = None,
    diagnostics: Diagnostics = False,
) -> optax.GradientTransformationExtraArgs:
    r"""The NeuroPlastic optimizer: plasticity, homeostasis, decoupled decay, learning rate.

    .. math::

      \theta_{t+1} = \theta_t - \eta_t \left( S(\alpha_t \odot g_t) + \lambda \theta_t \right)

    Use it to repeat the paper. It is a normalised SGD: S bounds the update of each parameter array
    to norm 1, so that a step is at most η long per array, and **no learning rate of SGD, Adam or
    AdamW carries over**. The published one is 0.1, for small networks; a schedule that decays is
    worth more than any other setting. To bring plasticity to an optimizer whose rate you know, use
    :func:`with_plasticity` or :func:`adamw_with_plasticity`.

    The published full method on MNIST and Fashion-MNIST is ``learning_rate=0.1`` and
    ``plasticity_scale=plasticity_warmup(steps_per_epoch, warmup_epochs=2, final_scale=2.0)``.

    Args:
      learning_rate: η, a number or a schedule: the length of a parameter array's step at most.
        Tune it first, from 0.01 to 1; the one setting that every user must touch.
      activity_weight: weight of the trace of :math:`|g|` in α, at least 0. The three weights sum
        to 1 as published, so that α is 1 on average; 0 keeps no trace.
      gradient_weight: weight of :math:`|g|` itself in α, at least 0.
      memory_weight: weight of :math:`|m| / \sqrt v` in α, at least 0; the signal that carries most
        of what α does.
      activity_decay: decay per step of the trace of :math:`|g|`, in [0, 1); leave it.
      b1: decay per step of m, in [0, 1); 0.9 averages 10 steps. Leave it.
      b2: decay per step of v, in [0, 1); 0.99 averages 100 steps. Leave it.
      min_alpha: lower bound of α before γ: below 1, at least 0. Equal bounds turn α off.
      max_alpha: upper bound of α before γ: above 1.
      plasticity_scale: γ, a number or a schedule. 0 is the gradient-only coefficient, 1 the paper's
        formula; above 1 α may leave its bounds, and climb where it is negative.
      max_update_norm: norm of a parameter array's update at most, before η. With the default η
        alone sets the size of the step; infinity is not accepted, a large number turns it off.
      target_rms: the gain leans towards this root mean square; does nothing that can be measured at
        the published ``adaptation_rate``. Leave it.
      adaptation_rate: how far the gain leans; 0 turns it off.
      eps: keeps quotients finite; in float16, 1e-4.
      tensorwise: one α per parameter array in place of one per entry.
      accumulator_dtype: dtype of the traces; None gives float32 or wider. ``jnp.bfloat16`` halves
        their memory, with no loss of accuracy that we could measure.
      weight_decay: λ, decoupled as in :func:`optax.adamw`; with the norm bound, values are of the
        size of 1e-4 to 1e-2 as for AdamW.
      weight_decay_mask: as in :func:`optax.add_decayed_weights`.
      diagnostics: keep statistics of α and of the whole optimizer's updates in the state, with
        ``"per_leaf"`` those of each parameter array; see :func:`diagnostics`.

    Returns:
      A transformation; where weight decay is used, its update needs ``params``.

    Raises:
      ValueError: a static setting that cannot work, by name and value.
      TypeError: a leaf that is not real floating, by path.

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
    optimizer = optax.chain(
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
        homeostasis(max_update_norm, target_rms, adaptation_rate, eps),
        _decoupled_weight_decay(weight_decay, weight_decay_mask),
        optax.scale_by_learning_rate(learning_rate),
    )
    return _diagnosed(optimizer, diagnostics)


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
      diagnostics: as in :func:`neuroplastic`.

    Returns:
      A transformation; where weight decay is used, its update needs ``params``.

    Raises:
      ValueError: a static setting that cannot work, by name and value.
      TypeError: a leaf that is not real floating, by path.

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
    eps_root: ArrayLike = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask | None = None,
    *,
    nesterov: bool = False,
    strength: ScalarOrSchedule = 0.15,
    max_ratio: ArrayLike = 0.25,
    diagnostics: Diagnostics = False,
) -> optax.GradientTransformationExtraArgs:
    r"""AdamW with a bounded plastic residual on Adam's update: a drop-in for :func:`optax.adamw`.

    .. math::

      \theta_{t+1} = \theta_t - \eta_t \left( b_t
        + \mathrm{limit}(s_t (\alpha_t - 1) \odot b_t,\ \rho \|b_t\|) + \lambda \theta_t \right)

    with b Adam's update. The arguments are those of :func:`optax.adamw`, in its order, and its
    learning rates and weight decays carry over; with ``strength=0`` so does the whole trajectory.
    For other bases and settings, see :func:`with_plasticity`.

    Args:
      learning_rate: η, a number or a schedule.
      b1: of Adam.
      b2: of Adam.
      eps: of Adam.
      eps_root: of Adam; above 0 where derivatives are taken through the optimizer.
      mu_dtype: of Adam's first moment.
      weight_decay: λ, decoupled.
      mask: which leaves decay, as in :func:`optax.adamw`.
      nesterov: Adam with Nesterov momentum.
      strength: :math:`s_t`, a number or a schedule, at least 0.
      max_ratio: ρ, the residual's norm at most, relative to Adam's update, leaf by leaf.
      diagnostics: as in :func:`neuroplastic`.

    Returns:
      A transformation; its update needs ``params``, but for a static weight decay of 0.

    Raises:
      ValueError: a static setting that cannot work, by name and value.
      TypeError: a leaf that is not real floating, by path.

    Examples:
      >>> import jax.numpy as jnp
      >>> from neuroplastic_optax import adamw_with_plasticity
      >>> tx = adamw_with_plasticity(1e-3)
      >>> params = jnp.ones(3)
      >>> updates, state = tx.update(params, tx.init(params), params)

    References:
      Design space of Jiang et al., 2026, figure 7; Loshchilov and Hutter, 2019.
    """
    optimizer = optax.chain(
        with_plasticity(
            optax.scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
            strength=strength,
            max_ratio=max_ratio,
            diagnostics=diagnostics,
        ),
        _decoupled_weight_decay(weight_decay, mask),
        optax.scale_by_learning_rate(learning_rate),
    )
    return _diagnosed(optimizer, diagnostics)


def sgd_with_plasticity(
    learning_rate: ScalarOrSchedule,
    momentum: ArrayLike | None = None,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    *,
    strength: ScalarOrSchedule = 0.227,
    max_ratio: ArrayLike = 0.472,
    diagnostics: Diagnostics = False,
) -> optax.GradientTransformationExtraArgs:
    r"""SGD with the plasticity that a search found for momentum: a drop-in for :func:`optax.sgd`.

    .. math::

      \theta_{t+1} = \theta_t - \eta_t \left( b_t
        + \mathrm{limit}(s_t (\alpha_t - 1) \odot b_t,\ \rho \|b_t\|) \right)

    with b the gradient or its momentum. The arguments are those of :func:`optax.sgd`, in its order,
    and its learning rates carry over; with ``strength=0`` so does the whole trajectory. Almost all
    of α is the memory signal :math:`|m| / \sqrt v`: its weight is 0.945, b2 is 0.944, and α is
    between 0.278 and 3.67. For other bases and settings, see :func:`with_plasticity`.

    These are the settings that won the study ``families`` around momentum of 0.9: 64 trials on
    10,000 images of Fashion-MNIST, as many for SGD momentum alone. With the learning rate alone
    tuned on other tasks, in 12 seeds, it is better than without on an autoencoder (reduction of
    the squared error per image, Δ +2.29 [+1.73, +3.39]), on CIFAR-10
    (Δ +0.75 [+0.43, +1.04] points) and on text (Δ +0.19 [+0.09, +0.27] points), and there is no
    difference of practical size on Fashion-MNIST and MNIST. AdamW ends above it on all five, and
    on CIFAR-10 one number per array is not shown to do less.

    Args:
      learning_rate: η, a number or a schedule.
      momentum: decay of the momentum, 0.9 where the evidence is from; None for none.
      nesterov: Nesterov momentum.
      accumulator_dtype: dtype of the momentum.
      strength: :math:`s_t`, a number or a schedule, at least 0.
      max_ratio: ρ, the residual's norm at most, relative to b, leaf by leaf.
      diagnostics: as in :func:`neuroplastic`.

    Returns:
      A transformation.

    Raises:
      ValueError: a static setting that cannot work, by name and value.
      TypeError: a leaf that is not real floating, by path.

    Examples:
      >>> import jax.numpy as jnp
      >>> from neuroplastic_optax import sgd_with_plasticity
      >>> tx = sgd_with_plasticity(0.05, momentum=0.9)
      >>> params = jnp.ones(3)
      >>> updates, state = tx.update(params, tx.init(params))

    References:
      Design space of Jiang et al., 2026, figure 7; the study ``families`` of this repository.
    """
    base = (
        optax.identity() if momentum is None else optax.trace(momentum, nesterov, accumulator_dtype)
    )
    optimizer = optax.chain(
        with_plasticity(
            base,
            strength=strength,
            max_ratio=max_ratio,
            activity_weight=0.05,
            gradient_weight=0.005,
            memory_weight=0.945,
            b2=0.944,
            min_alpha=0.278,
            max_alpha=3.67,
            diagnostics=diagnostics,
        ),
        optax.scale_by_learning_rate(learning_rate),
    )
    return _diagnosed(optimizer, diagnostics)


def _diagnosed(
    optimizer: optax.GradientTransformationExtraArgs, diagnostics: Diagnostics
) -> optax.GradientTransformationExtraArgs:
    if not diagnostics:
        return optimizer
    return with_diagnostics(optimizer, per_leaf=diagnostics == "per_leaf")
