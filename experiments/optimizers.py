"""Factories of the arms: from a learning rate, the training and settings to an optimizer."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import optax
from jax.typing import ArrayLike

import neuroplastic_optax as npx
from experiments import controls
from experiments.schedules import Schedule

PUBLISHED_LEARNING_RATE = 0.1
PUBLISHED_WARMUP_EPOCHS = 2
PUBLISHED_SCALE = 2.0
ORTHOGONAL_STRENGTH = 0.1
GAIN_STRENGTH = 0.15


Diagnostics = bool | Literal["per_leaf"]


@dataclasses.dataclass(frozen=True)
class Training:
    """What an optimizer may depend on besides its learning rate.

    Attributes:
      steps_per_epoch: a partial last batch counts as a step.
      epochs: epochs of the whole training.
      diagnostics: keep plasticity diagnostics in the state, where the arm has them.
      seed: of the cell, for arms that draw random numbers.
      schedule: how the learning rate goes over training.
    """

    steps_per_epoch: int
    epochs: int
    diagnostics: Diagnostics = False
    seed: ArrayLike = 0
    schedule: Schedule = "constant"

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return self.steps_per_epoch * self.epochs


Factory = Callable[..., optax.GradientTransformation]  # of a learning rate, a training, settings
Ramp = Callable[..., optax.Schedule]
Phase = Literal["full", "early", "middle", "late"]
Target = Literal["update", "momentum", "trust_ratio"]


def full(
    learning_rate: optax.ScalarOrSchedule,
    training: Training,
    *,
    scale: float = PUBLISHED_SCALE,
    warmup_epochs: int = PUBLISHED_WARMUP_EPOCHS,
    **settings: Any,
) -> optax.GradientTransformation:
    """The full method; as published for MNIST and Fashion-MNIST where nothing else is said."""
    return stabilised(
        learning_rate,
        training,
        base=npx.scale_by_plasticity,
        plasticity_scale=npx.plasticity_warmup(training.steps_per_epoch, warmup_epochs, scale),
        diagnostics=training.diagnostics,
        **settings,
    )


def gradient_only(
    learning_rate: optax.ScalarOrSchedule,
    training: Training,
    *,
    min_alpha: float = 0.5,
    max_alpha: float = 1.5,
) -> optax.GradientTransformation:
    """The ablation; with its published bounds where nothing else is said."""
    return stabilised(
        learning_rate,
        training,
        base=npx.scale_by_plasticity,
        activity_weight=0.0,
        gradient_weight=1.0,
        memory_weight=0.0,
        min_alpha=min_alpha,
        max_alpha=max_alpha,
        diagnostics=training.diagnostics,
    )


def controlled(
    learning_rate: optax.ScalarOrSchedule, training: Training, *, control: controls.Control
) -> optax.GradientTransformation:
    """The full method as published, but for what ``control`` does to α."""
    scale = npx.plasticity_warmup(
        training.steps_per_epoch, PUBLISHED_WARMUP_EPOCHS, PUBLISHED_SCALE
    )
    return stabilised(
        learning_rate,
        training,
        base=controls.scale_by_control,
        control=control,
        plasticity_scale=scale,
        seed=training.seed,
    )


def stabilised(
    learning_rate: optax.ScalarOrSchedule,
    training: Training,
    *,
    base: Callable[..., optax.GradientTransformation],
    weight_decay: ArrayLike = 0.0,
    max_update_norm: ArrayLike = 1.0,
    **settings: Any,
) -> optax.GradientTransformation:
    """Homeostasis after a base's update; decoupled decay and the learning rate after it."""
    return optax.chain(
        measured(base(**settings), npx.homeostasis(max_update_norm), training),
        optax.identity() if _is_zero(weight_decay) else optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )


def measured(
    base: optax.GradientTransformation,
    homeostasis: optax.GradientTransformation,
    training: Training,
) -> optax.GradientTransformation:
    """A base and homeostasis; where asked for, with the norms before, between and after them."""
    if not training.diagnostics:
        return optax.chain(base, homeostasis)
    return npx.with_diagnostics(
        optax.chain(base, npx.with_diagnostics(homeostasis, prefix="homeostasis/"))
    )


def plain(
    learning_rate: optax.ScalarOrSchedule,
    training: Training,
    *,
    alias: Callable[..., optax.GradientTransformation],
    **settings: float,
) -> optax.GradientTransformation:
    """One of Optax's own optimizers."""
    del training
    return alias(learning_rate, **settings)


def residual(
    learning_rate: optax.ScalarOrSchedule,
    training: Training,
    *,
    form: Callable[..., optax.GradientTransformation],
    ramp: Ramp | None = None,
    **settings: Any,
) -> optax.GradientTransformation:
    """A plastic residual on the gradient, then homeostasis; a ramp lets it grow over training."""
    if ramp is not None:
        settings["strength"] = _over_training(ramp, training, value=ORTHOGONAL_STRENGTH)
    return stabilised(
        learning_rate, training, base=form, diagnostics=training.diagnostics, **settings
    )


def modulated(
    learning_rate: optax.ScalarOrSchedule,
    training: Training,
    *,
    base: Callable[..., optax.GradientTransformation],
    phase: Phase = "full",
    scope: Callable[[], Callable[[Any], Any]] | None = None,
    target: Target = "update",
    weight_decay: ArrayLike = 0.0,
    **settings: Any,
) -> optax.GradientTransformation:
    """A plastic residual on another optimizer's update, in one phase and scope; homeostasis."""
    strength = _over_training(
        functools.partial(npx.schedules.phase, phase), training, value=GAIN_STRENGTH
    )
    return stabilised(
        learning_rate,
        training,
        base=lambda: npx.with_plasticity(
            base(**settings),
            strength=strength,
            target=target,
            mask=None if scope is None else scope(),
            # Names of leaves would be those of the scope alone, which the training does not know.
            diagnostics=scope is None and training.diagnostics,
        ),
        weight_decay=weight_decay,
    )


def rate_controlled(
    learning_rate: optax.ScalarOrSchedule,
    training: Training,
    *,
    groups: Callable[[Any], Any] | None = None,
) -> optax.GradientTransformation:
    """γ = 1 and homeostasis, their output scaled by the plasticity of each group of leaves."""
    plasticity = npx.scale_by_plasticity(diagnostics=training.diagnostics)
    inner = measured(plasticity, npx.homeostasis(), training)
    return optax.chain(
        npx.variants.control_learning_rate(inner, groups=groups),
        optax.scale_by_learning_rate(learning_rate),
    )


def layers(params: Any) -> Any:
    """Groups of leaves: one group per layer."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: npx.masks.leaf_path(path).rpartition("/")[0], params
    )


def _is_zero(setting: ArrayLike) -> bool:
    """Whether a setting is known to be zero before any training: a traced one is not."""
    return isinstance(setting, float | int) and setting == 0


def _over_training(ramp: Ramp, training: Training, *, value: float) -> optax.Schedule:
    return ramp(training.steps, steps_per_epoch=training.steps_per_epoch, value=value)
