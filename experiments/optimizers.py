"""The arms of the studies: a name, an optimizer for each learning rate, and how to show it."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
import optax
from jax.typing import ArrayLike

import neuroplastic_optax as npx
from experiments import controls

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
    """

    steps_per_epoch: int
    epochs: int
    diagnostics: Diagnostics = False
    seed: ArrayLike = 0


Factory = Callable[[ArrayLike, Training], optax.GradientTransformation]
Ramp = Callable[..., optax.Schedule]
Phase = Literal["full", "early", "middle", "late"]


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
    ramp = npx.plasticity_warmup(training.steps_per_epoch, warmup_epochs, scale)
    return stabilised(
        learning_rate,
        training,
        base=lambda: npx.scale_by_plasticity(
            plasticity_scale=ramp, diagnostics=training.diagnostics, **settings
        ),
    )


def gradient_only(
    learning_rate: ArrayLike, training: Training, *, min_alpha: float = 0.5, max_alpha: float = 1.5
) -> optax.GradientTransformation:
    """The ablation; with its published bounds where nothing else is said."""
    return stabilised(
        learning_rate,
        training,
        base=lambda: npx.scale_by_plasticity(
            activity_weight=0.0,
            gradient_weight=1.0,
            memory_weight=0.0,
            min_alpha=min_alpha,
            max_alpha=max_alpha,
            diagnostics=training.diagnostics,
        ),
    )


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
    max_update_norm: float = 1.0,
) -> optax.GradientTransformation:
    """Homeostasis after a base's update; decoupled decay and the learning rate after it."""
    return optax.chain(
        measured(base(), npx.homeostasis(max_update_norm), training),
        optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity(),
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
    learning_rate: ArrayLike,
    training: Training,
    *,
    alias: Callable[..., optax.GradientTransformation],
    **settings: float,
) -> optax.GradientTransformation:
    """One of Optax's own optimizers."""
    del training
    return alias(learning_rate, **settings)


def residual(
    learning_rate: ArrayLike,
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
        learning_rate,
        training,
        base=lambda: form(diagnostics=training.diagnostics, **settings),
    )


def modulated(
    learning_rate: ArrayLike,
    training: Training,
    *,
    base: Callable[[], optax.GradientTransformation],
    phase: Phase = "full",
    scope: Callable[[], Callable[[Any], Any]] | None = None,
    weight_decay: float = 0.0,
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
            base(),
            strength=strength,
            mask=None if scope is None else scope(),
            # Names of leaves would be those of the scope alone, which the training does not know.
            diagnostics=scope is None and training.diagnostics,
            **settings,
        ),
        weight_decay=weight_decay,
    )


def rate_controlled(
    learning_rate: ArrayLike,
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
    """Groups of leaves: a group a layer."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: npx.masks.leaf_path(path).rpartition("/")[0], params
    )


def _over_training(ramp: Ramp, training: Training, *, value: float) -> optax.Schedule:
    steps = training.steps_per_epoch
    return ramp(steps * training.epochs, steps_per_epoch=steps, value=value)


ADAMW_DECAY = 1e-2
RMSPROP_DECAY = 0.99

_full = functools.partial(functools.partial, full)
_control = functools.partial(functools.partial, controlled)
_stabilised = functools.partial(functools.partial, stabilised)
_plain = functools.partial(functools.partial, plain)
_residual = functools.partial(functools.partial, residual)
_momentum = functools.partial(optax.trace, 0.9)
_gain = functools.partial(functools.partial, modulated)

_FAIR_TEST = (
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
        _stabilised(base=_momentum),
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

# Every variant of the design space, by the arm that it is a variant of: that arm's learning rate is
# also theirs.
_DESIGN_SPACE: dict[str, tuple[Arm, ...]] = {
    "sgd_homeostasis": (
        Arm("plasticity", "plasticity (γ = 1)", _full(scale=1.0, warmup_epochs=0)),
        Arm(
            "tensorwise",
            "plasticity, tensorwise",
            _full(scale=1.0, warmup_epochs=0, tensorwise=True),
        ),
        Arm("bounded", "bounded residual", _residual(form=npx.variants.add_bounded_plasticity)),
        Arm(
            "orthogonal",
            "orthogonal residual",
            _residual(form=npx.variants.add_orthogonal_plasticity),
        ),
        Arm(
            "orthogonal_match",
            "orthogonal residual, norm matched",
            _residual(form=npx.variants.add_orthogonal_plasticity, match_norm=True),
        ),
        Arm(
            "orthogonal_late",
            "orthogonal residual, norm matched, late",
            _residual(
                form=npx.variants.add_orthogonal_plasticity,
                match_norm=True,
                ramp=npx.schedules.late_ramp,
            ),
        ),
        Arm(
            "orthogonal_cosine",
            "orthogonal residual, norm matched, cosine",
            _residual(
                form=npx.variants.add_orthogonal_plasticity,
                match_norm=True,
                ramp=npx.schedules.cosine_ramp,
            ),
        ),
        Arm("controller", "plasticity, rate controlled", rate_controlled),
        Arm(
            "controller_layers",
            "plasticity, rate controlled by layer",
            functools.partial(rate_controlled, groups=layers),
        ),
    ),
    "momentum_homeostasis": (
        Arm("momentum_gain", "momentum + gain", _gain(base=_momentum)),
        *(
            Arm(
                f"momentum_{phase}", f"momentum + gain, {phase}", _gain(base=_momentum, phase=phase)
            )
            for phase in ("early", "middle", "late")
        ),
        *(
            Arm(f"momentum_{name}", f"momentum + gain, {label}", _gain(base=_momentum, scope=scope))
            for name, label, scope in (
                ("convolutions", "convolutions", npx.masks.convolution_kernels),
                ("classifier", "classifier", npx.masks.classifier),
                ("early_blocks", "early blocks", npx.masks.early_blocks),
                ("late_blocks", "late blocks", npx.masks.late_blocks),
            )
        ),
    ),
    "adam_homeostasis": (
        Arm("adam_gain", "Adam + gain", _gain(base=optax.scale_by_adam)),
        Arm(
            "adam_momentum", "Adam + gain on m", _gain(base=optax.scale_by_adam, target="momentum")
        ),
        Arm(
            "adam_trust_ratio",
            "Adam + gain by trust ratio",
            _gain(base=optax.scale_by_adam, target="trust_ratio"),
        ),
    ),
    "adamw_homeostasis": (
        Arm(
            "adamw_gain", "AdamW + gain", _gain(base=optax.scale_by_adam, weight_decay=ADAMW_DECAY)
        ),
    ),
}

# Half the memory for the traces; beside the full method in a study it shows what that costs.
_NARROW = Arm("full_bfloat16", "full, bfloat16 traces", _full(accumulator_dtype="bfloat16"))

# The selection of the published settings repeated: what was varied beside the learning rate.
_SELECTION: dict[str, tuple[Arm, ...]] = {
    "full": tuple(
        Arm(
            f"full_scale{scale:g}_warmup{warmup}",
            f"full, γ = {scale:g}, warm-up {warmup}",
            _full(scale=scale, warmup_epochs=warmup),
        )
        for scale in (0.5, 1.0, 2.0)
        for warmup in (0, 1, 2)
        if (scale, warmup) not in ((PUBLISHED_SCALE, PUBLISHED_WARMUP_EPOCHS), (1.0, 0))
    ),
    "gradient_only": (
        Arm(
            "gradient_only_wider",
            "gradient-only, bounds 0.1 to 4",
            functools.partial(gradient_only, min_alpha=0.1, max_alpha=4.0),
        ),
    ),
    "sgd_homeostasis": tuple(
        Arm(
            f"sgd_homeostasis_norm{norm:g}",
            f"SGD + homeostasis, norm {norm:g}",
            _stabilised(base=optax.identity, max_update_norm=norm),
        )
        for norm in (0.5, 2.0)
    ),
    "adam": tuple(
        Arm(f"adam_b2_{b2:g}", f"Adam, b2 = {b2:g}", _plain(alias=optax.adam, b2=b2), 1e-3)
        for b2 in (0.9, 0.99)
    ),
}


def _geometric(low: float, high: float, number: int) -> tuple[float, ...]:
    return tuple(float(f"{rate:.2g}") for rate in np.geomspace(low, high, number))


FAIR_TEST = tuple(arm.name for arm in _FAIR_TEST)
ABLATIONS = (
    "activity_alone",
    "memory_alone",
    "without_activity",
    "without_gradient",
    "without_memory",
)
DESIGN_SPACE = {base: tuple(arm.name for arm in arms) for base, arms in _DESIGN_SPACE.items()}
# 36 trials a family: the published grid for the full method, twelve learning rates and three values
# of one more setting for the others.
SELECTION: dict[str, dict[str, tuple[float, ...]]] = {
    "full": dict.fromkeys(
        ("full", "plasticity", *(arm.name for arm in _SELECTION["full"])), (0.1, 0.05, 0.03, 0.01)
    ),
    "gradient_only": dict.fromkeys(
        ("gradient_only", "gradient_only_wide", "gradient_only_wider"), _geometric(0.01, 1.0, 12)
    ),
    "sgd_homeostasis": dict.fromkeys(
        ("sgd_homeostasis", *(arm.name for arm in _SELECTION["sgd_homeostasis"])),
        _geometric(0.01, 1.0, 12),
    ),
    "adam": dict.fromkeys(
        ("adam", *(arm.name for arm in _SELECTION["adam"])), _geometric(1e-4, 1e-2, 12)
    ),
}
# The family of an arm outside the fair test.
FAMILIES = {
    arm.name: family
    for table in (_DESIGN_SPACE, _SELECTION)
    for family, arms in table.items()
    for arm in arms
}
ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        *_FAIR_TEST,
        _NARROW,
        *(arm for table in (_DESIGN_SPACE, _SELECTION) for arms in table.values() for arm in arms),
    )
}
PLASTIC = (  # keep diagnostics of α
    "full",
    "gradient_only",
    "gradient_only_wide",
    "gradient_only_wider",
    *ABLATIONS,
    *(
        arm
        for arms in DESIGN_SPACE.values()
        for arm in arms
        if "scope" not in getattr(ARMS[arm].make, "keywords", {})
    ),
    *(arm.name for arm in _SELECTION["full"]),
    _NARROW.name,
)
