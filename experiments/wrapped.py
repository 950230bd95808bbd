"""Factories of plasticity around another optimizer, without homeostasis, and of its placebos."""

from collections.abc import Callable
from typing import Any

import optax
from jax.typing import ArrayLike

import neuroplastic_optax as npx
from experiments.optimizers import Training
from experiments.placebos import CHANGES, change_update


def decayed(
    learning_rate: optax.ScalarOrSchedule,
    training: Training,
    *,
    base: Callable[..., optax.GradientTransformation],
    weight_decay: ArrayLike,
    **settings: Any,
) -> optax.GradientTransformation:
    """A base, decoupled weight decay and the learning rate."""
    del training
    return _decayed(base(**settings), weight_decay, learning_rate)


def plastic(
    learning_rate: optax.ScalarOrSchedule,
    training: Training,
    *,
    base: Callable[..., optax.GradientTransformation],
    weight_decay: ArrayLike,
    memory_share: ArrayLike = 1.0,
    activity_share: ArrayLike = 0.5,
    strength: ArrayLike = 1.0,
    max_ratio: ArrayLike = 1.0,
    min_alpha: ArrayLike = 0.2,
    max_alpha: ArrayLike = 2.0,
    memory_decay: ArrayLike = 0.99,
    placebo: str = "",
    **settings: Any,
) -> optax.GradientTransformation:
    """The same with plasticity around the base; the decay is outside of both.

    Args:
      learning_rate: the peak.
      training: for diagnostics, and the placebo's random numbers.
      base: the transformation that plasticity is around.
      weight_decay: decoupled.
      memory_share: weight of the memory signal, of 1 in all.
      activity_share: the activity's share of the rest; the gradient's magnitude has what is left.
        Both shares together reach every point of the simplex.
      strength: of the residual.
      max_ratio: of the residual's norm to the base's.
      min_alpha: lower bound of α.
      max_alpha: upper bound of α.
      memory_decay: b2 of the memory signal.
      placebo: norm_matched or permuted, of the update before the decay, to the base.
      **settings: of the base.
    """
    around = npx.with_plasticity(
        base(**settings),
        strength=strength,
        max_ratio=max_ratio,
        memory_weight=memory_share,
        activity_weight=(1 - memory_share) * activity_share,
        gradient_weight=(1 - memory_share) * (1 - activity_share),
        b2=memory_decay,
        min_alpha=min_alpha,
        max_alpha=max_alpha,
        diagnostics=False if placebo else training.diagnostics,
    )
    if placebo:
        change = CHANGES[placebo]
        around = change_update(around, base(**settings), change, True, training.seed)
    return _decayed(around, weight_decay, learning_rate)


def muon(beta: ArrayLike = 0.95) -> optax.GradientTransformation:
    """Muon's direction: orthogonalised momentum for matrices, Adam's for the rest."""
    return optax.chain(optax.contrib.muon(1.0, beta=beta), optax.scale(-1.0))


def _decayed(
    base: optax.GradientTransformation,
    weight_decay: ArrayLike,
    learning_rate: optax.ScalarOrSchedule,
) -> optax.GradientTransformation:
    return optax.chain(
        base,
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )
