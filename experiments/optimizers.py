"""The arms of the studies: a name, an optimizer for each learning rate, and how to show it."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import optax
from jax.typing import ArrayLike

import neuroplastic_optax as npx
from experiments import controls

PUBLISHED_LEARNING_RATE = 0.1
PUBLISHED_WARMUP_EPOCHS = 2
PUBLISHED_SCALE = 2.0


Diagnostics = bool | Literal["per_leaf"]


@dataclasses.dataclass(frozen=True)
class Training:
    """What an optimizer may depend on besides its learning rate.

    Attributes:
      steps_per_epoch: a partial last batch counts as a step.
      epochs: epochs of the whole training.
      diagnostics: keep plasticity diagnostics in the state, where the arm has them.
      seed: of the cell, for arms that draw random numbers.
    """

    steps_per_epoch: int
    epochs: int
    diagnostics: Diagnostics = False
    seed: ArrayLike = 0


Factory = Callable[[ArrayLike, Training], optax.GradientTransformation]


@dataclasses.dataclass(frozen=True)
class Arm:
    """One competitor of a study.

    Attributes:
      name: what the command line and the records call it.
      label: what figures and tables call it.
      make: builds the optimizer from a learning rate, which may be traced, and the training.
      learning_rate: the one it is run with where no study has tuned it; the middle of its search.
    """

    name: str
    label: str
    make: Factory
    learning_rate: float = PUBLISHED_LEARNING_RATE

    def describe(self) -> str:
        """The factory and its settings, for the records.

        >>> ARMS["adamw"].describe()
        'plain(alias=adamw, weight_decay=0.01)'
        """
        make = self.make
        if not isinstance(make, functools.partial):
            return f"{getattr(make, '__name__', make)}()"
        settings = (f"{name}={_text(value)}" for name, value in make.keywords.items())
        return f"{make.func.__name__}({', '.join(settings)})"


def _text(value: Any) -> str:
    if isinstance(value, functools.partial):
        return f"{value.func.__name__}({', '.join(map(_text, (*value.args,)))})"
    return getattr(value, "__name__", f"{value:g}" if isinstance(value, float) else str(value))


def full(
    learning_rate: ArrayLike,
    training: Training,
    *,
    scale: float = PUBLISHED_SCALE,
    warmup_epochs: int = PUBLISHED_WARMUP_EPOCHS,
    **settings: Any,
) -> optax.GradientTransformation:
    """The full method; as published for MNIST and Fashion-MNIST where nothing else is said."""
    return npx.neuroplastic(
        learning_rate,
        plasticity_scale=npx.plasticity_warmup(training.steps_per_epoch, warmup_epochs, scale),
        diagnostics=training.diagnostics,
        **settings,
    )


def gradient_only(
    learning_rate: ArrayLike, training: Training, **settings: Any
) -> optax.GradientTransformation:
    """The ablation; with its published bounds where nothing else is said."""
    return npx.gradient_only(learning_rate, diagnostics=training.diagnostics, **settings)


def controlled(
    learning_rate: ArrayLike, training: Training, *, control: controls.Control
) -> optax.GradientTransformation:
    """The full method as published, but for what ``control`` does to α."""
    scale = npx.plasticity_warmup(
        training.steps_per_epoch, PUBLISHED_WARMUP_EPOCHS, PUBLISHED_SCALE
    )
    return stabilised(
        learning_rate,
        training,
        base=lambda: controls.scale_by_control(control, plasticity_scale=scale, seed=training.seed),
    )


def stabilised(
    learning_rate: ArrayLike,
    training: Training,
    *,
    base: Callable[[], optax.GradientTransformation],
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Homeostasis after a base's update; decoupled decay and the learning rate after it."""
    return optax.chain(
        base(),
        npx.homeostasis(diagnostics=bool(training.diagnostics)),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )


def plain(
    learning_rate: ArrayLike,
    training: Training,
    *,
    alias: Callable[..., optax.GradientTransformation],
    **settings: float,
) -> optax.GradientTransformation:
    """One of Optax's own optimizers."""
    del training
    return alias(learning_rate, **settings)


ABLATIONS = (
    "activity_alone",
    "memory_alone",
    "without_activity",
    "without_gradient",
    "without_memory",
)
PLASTIC = ("full", "gradient_only", "gradient_only_wide", *ABLATIONS)  # keep diagnostics of α
ADAMW_DECAY = 1e-2
RMSPROP_DECAY = 0.99

_full = functools.partial(functools.partial, full)
_control = functools.partial(functools.partial, controlled)
_stabilised = functools.partial(functools.partial, stabilised)
_plain = functools.partial(functools.partial, plain)

ARMS = {
    arm.name: arm
    for arm in (
        Arm("full", "NeuroPlastic (full)", full),
        Arm("full_clipped", "full, clipped after γ", _control(control=controls.clipped)),
        Arm("gradient_only", "gradient-only ablation", gradient_only),
        Arm(
            "gradient_only_wide",
            "gradient-only, full's bounds",
            functools.partial(gradient_only, min_alpha=0.2, max_alpha=2.0),
        ),
        # Weights of the signals that are left are rescaled to sum to 1; the gradient signal alone
        # is the arm above.
        Arm(
            "activity_alone",
            "activity signal alone",
            _full(activity_weight=1.0, gradient_weight=0.0, memory_weight=0.0),
        ),
        Arm(
            "memory_alone",
            "memory signal alone",
            _full(activity_weight=0.0, gradient_weight=0.0, memory_weight=1.0),
        ),
        Arm(
            "without_activity",
            "without activity",
            _full(activity_weight=0.0, gradient_weight=2 / 3, memory_weight=1 / 3),
        ),
        Arm(
            "without_gradient",
            "without gradient",
            _full(activity_weight=2 / 3, gradient_weight=0.0, memory_weight=1 / 3),
        ),
        Arm(
            "without_memory",
            "without memory",
            _full(activity_weight=0.5, gradient_weight=0.5, memory_weight=0.0),
        ),
        Arm("permuted", "full, α permuted", _control(control=controls.permuted)),
        Arm("random", "full, α random", _control(control=controls.randomised)),
        Arm("norm_matched", "full, norm-matched", _control(control=controls.norm_matched)),
        Arm("sgd", "SGD", _plain(alias=optax.sgd), 0.1),
        Arm("sgd_homeostasis", "SGD + homeostasis (α ≡ 1)", _stabilised(base=optax.identity)),
        Arm("momentum", "SGD momentum", _plain(alias=optax.sgd, momentum=0.9), 0.03),
        Arm(
            "momentum_homeostasis",
            "SGD momentum + homeostasis",
            _stabilised(base=functools.partial(optax.trace, 0.9)),
        ),
        Arm("adam", "Adam", _plain(alias=optax.adam), 1e-3),
        Arm("adam_homeostasis", "Adam + homeostasis", _stabilised(base=optax.scale_by_adam)),
        Arm("adamw", "AdamW", _plain(alias=optax.adamw, weight_decay=ADAMW_DECAY), 1e-3),
        Arm(
            "adamw_homeostasis",
            "AdamW + homeostasis",
            _stabilised(base=optax.scale_by_adam, weight_decay=ADAMW_DECAY),
        ),
        Arm("rmsprop", "RMSprop", _plain(alias=optax.rmsprop, decay=RMSPROP_DECAY), 1e-3),
        Arm(
            "rmsprop_homeostasis",
            "RMSprop + homeostasis",
            _stabilised(base=functools.partial(optax.scale_by_rms, RMSPROP_DECAY)),
        ),
    )
}
