"""The arms of the studies: a name, an optimizer for each learning rate, and how to show it."""

import dataclasses
from collections.abc import Callable

import optax
from jax.typing import ArrayLike

import neuroplastic_optax as npx

PUBLISHED_LEARNING_RATE = 0.1
PUBLISHED_WARMUP_EPOCHS = 2
PUBLISHED_SCALE = 2.0


@dataclasses.dataclass(frozen=True)
class Training:
    """What an optimizer may depend on besides its learning rate.

    Attributes:
      steps_per_epoch: a partial last batch counts as a step.
      epochs: epochs of the whole training.
      diagnostics: keep plasticity diagnostics in the state, where the arm has them.
    """

    steps_per_epoch: int
    epochs: int
    diagnostics: bool = False


Factory = Callable[[ArrayLike, Training], optax.GradientTransformation]


@dataclasses.dataclass(frozen=True)
class Arm:
    """One competitor of a study.

    Attributes:
      name: what the command line and the records call it.
      label: what figures and tables call it.
      make: builds the optimizer from a learning rate, which may be traced, and the training.
      learning_rate: the one it is run with where no study has tuned it.
    """

    name: str
    label: str
    make: Factory
    learning_rate: float


def full(learning_rate: ArrayLike, training: Training) -> optax.GradientTransformation:
    """The full method with the settings that were published for MNIST and Fashion-MNIST."""
    scale = npx.plasticity_warmup(
        training.steps_per_epoch, PUBLISHED_WARMUP_EPOCHS, PUBLISHED_SCALE
    )
    return npx.neuroplastic(learning_rate, plasticity_scale=scale, diagnostics=training.diagnostics)


def _gradient_only(learning_rate: ArrayLike, training: Training) -> optax.GradientTransformation:
    return npx.gradient_only(learning_rate, diagnostics=training.diagnostics)


def _with_homeostasis(base: optax.GradientTransformation) -> Factory:
    """Homeostasis after a base's update and before the learning rate."""

    def make(learning_rate: ArrayLike, training: Training) -> optax.GradientTransformation:
        return optax.chain(
            base,
            npx.homeostasis(diagnostics=training.diagnostics),
            optax.scale_by_learning_rate(learning_rate),
        )

    return make


def _plain(alias: Callable[..., optax.GradientTransformation], **settings: float) -> Factory:
    """One of Optax's own optimizers."""

    def make(learning_rate: ArrayLike, training: Training) -> optax.GradientTransformation:
        del training
        return alias(learning_rate, **settings)

    return make


ARMS = {
    arm.name: arm
    for arm in (
        Arm("full", "NeuroPlastic (full)", full, PUBLISHED_LEARNING_RATE),
        Arm("gradient_only", "gradient-only ablation", _gradient_only, PUBLISHED_LEARNING_RATE),
        Arm("sgd", "SGD", _plain(optax.sgd), 0.1),
        Arm(
            "sgd_homeostasis",
            "SGD + homeostasis",
            _with_homeostasis(optax.identity()),
            PUBLISHED_LEARNING_RATE,
        ),
        Arm("momentum", "SGD momentum", _plain(optax.sgd, momentum=0.9), 0.01),
        Arm("adam", "Adam", _plain(optax.adam), 1e-3),
        Arm("adamw", "AdamW", _plain(optax.adamw, weight_decay=1e-2), 1e-3),
        Arm("rmsprop", "RMSprop", _plain(optax.rmsprop, decay=0.99), 1e-3),
    )
}
