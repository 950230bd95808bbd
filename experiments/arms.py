"""The built-in arms of the studies: an arm is one entry of the registry, and nothing else."""

import functools

import optax

import neuroplastic_optax as npx
from experiments import controls, wrapped
from experiments.arm import Arm, Role
from experiments.optimizers import (
    PUBLISHED_SCALE,
    PUBLISHED_WARMUP_EPOCHS,
    controlled,
    full,
    gradient_only,
    layers,
    modulated,
    plain,
    rate_controlled,
    residual,
    stabilised,
)

PUBLISHED = ("full", "gradient_only")  # the paper's own comparison
ADAMW_DECAY = 1e-2

# Okabe and Ito's colours (and a wine for their yellow, which is faint on white), told apart by
# colour-blind readers.
VERMILION, BLUE, BLACK, GREEN = "#D55E00", "#0072B2", "#000000", "#009E73"
GREY, PURPLE, ORANGE, SKY, WINE = "#999999", "#CC79A7", "#E69F00", "#56B4E9", "#882255"


def _weights(activity: float, gradient: float, memory: float) -> dict[str, float]:
    return {"activity_weight": activity, "gradient_weight": gradient, "memory_weight": memory}


_TRACE = {"base": optax.trace, "decay": 0.9}
_ADAM = {"base": optax.scale_by_adam}
_ADAMW = {"base": optax.scale_by_adam, "weight_decay": ADAMW_DECAY}
_ORTHOGONAL = {"form": npx.variants.add_orthogonal_plasticity}
_MATCHED = {**_ORTHOGONAL, "match_norm": True}
_AT_ONE = {"scale": 1.0, "warmup_epochs": 0}


# The method, its controls and ablations, and tuned baselines.
_FAIR_TEST = (
    Arm("full", "NeuroPlastic (full)", full, colour=VERMILION, has_alpha=True),
    Arm(
        "full_clipped",
        "full, clipped after γ",
        controlled,
        {"control": controls.clipped},
        family="full",
    ),
    Arm("gradient_only", "gradient-only ablation", gradient_only, colour=BLUE, has_alpha=True),
    Arm(
        "gradient_only_wide",
        "gradient-only, full's bounds",
        gradient_only,
        {"min_alpha": 0.2, "max_alpha": 2.0},
        family="gradient_only",
        has_alpha=True,
    ),
    # Weights of the signals that are left are rescaled to sum to 1; the gradient signal alone
    # is the arm above.
    *(
        Arm(
            name,
            label,
            full,
            _weights(*weights),
            family="full",
            colour=BLUE,
            has_alpha=True,
            role="ablation",
        )
        for name, label, weights in (
            ("activity_alone", "activity signal alone", (1.0, 0.0, 0.0)),
            ("memory_alone", "memory signal alone", (0.0, 0.0, 1.0)),
            ("without_activity", "without activity", (0.0, 2 / 3, 1 / 3)),
            ("without_gradient", "without gradient", (2 / 3, 0.0, 1 / 3)),
            ("without_memory", "without memory", (0.5, 0.5, 0.0)),
        )
    ),
    *(
        Arm(name, label, controlled, {"control": control}, family="full", colour=WINE)
        for name, label, control in (
            ("permuted", "full, α permuted", controls.permuted),
            ("random", "full, α random", controls.randomised),
            ("norm_matched", "full, norm-matched", controls.norm_matched),
        )
    ),
    Arm("sgd", "SGD", plain, {"alias": optax.sgd}, colour=BLACK),
    Arm(
        "sgd_homeostasis",
        "SGD + homeostasis (α ≡ 1)",
        stabilised,
        {"base": optax.identity},
        colour=GREEN,
    ),
    Arm(
        "momentum", "SGD momentum", plain, {"alias": optax.sgd, "momentum": 0.9}, 0.03, colour=GREY
    ),
    Arm("momentum_homeostasis", "SGD momentum + homeostasis", stabilised, _TRACE, colour=GREY),
    Arm("adam", "Adam", plain, {"alias": optax.adam}, 1e-3, colour=PURPLE),
    Arm("adam_homeostasis", "Adam + homeostasis", stabilised, _ADAM, colour=PURPLE),
    Arm(
        "adamw",
        "AdamW",
        plain,
        {"alias": optax.adamw, "weight_decay": ADAMW_DECAY},
        1e-3,
        colour=ORANGE,
    ),
    Arm("adamw_homeostasis", "AdamW + homeostasis", stabilised, _ADAMW, colour=ORANGE),
    Arm("rmsprop", "RMSprop", plain, {"alias": optax.rmsprop, "decay": 0.99}, 1e-3, colour=SKY),
    Arm(
        "rmsprop_homeostasis",
        "RMSprop + homeostasis",
        stabilised,
        {"base": optax.scale_by_rms, "decay": 0.99},
        colour=SKY,
    ),
)

# The design space: a variant runs at the learning rate of its family.
_variant = functools.partial(Arm, has_alpha=True, role="design space")
_of_sgd = functools.partial(_variant, family="sgd_homeostasis")
_of_momentum = functools.partial(_variant, family="momentum_homeostasis")
_of_adam = functools.partial(_variant, family="adam_homeostasis")
_DESIGN_SPACE = (
    _of_sgd("plasticity", "plasticity (γ = 1)", full, _AT_ONE),
    _of_sgd("tensorwise", "plasticity, tensorwise", full, {**_AT_ONE, "tensorwise": True}),
    _of_sgd("bounded", "bounded residual", residual, {"form": npx.variants.add_bounded_plasticity}),
    _of_sgd("orthogonal", "orthogonal residual", residual, _ORTHOGONAL),
    _of_sgd("orthogonal_match", "orthogonal residual, norm matched", residual, _MATCHED),
    _of_sgd(
        "orthogonal_late",
        "orthogonal residual, norm matched, late",
        residual,
        {**_MATCHED, "ramp": npx.schedules.late_ramp},
    ),
    _of_sgd(
        "orthogonal_cosine",
        "orthogonal residual, norm matched, cosine",
        residual,
        {**_MATCHED, "ramp": npx.schedules.cosine_ramp},
    ),
    _of_sgd("controller", "plasticity, rate controlled", rate_controlled),
    _of_sgd(
        "controller_layers",
        "plasticity, rate controlled by layer",
        rate_controlled,
        {"groups": layers},
    ),
    _of_momentum("momentum_gain", "momentum + gain", modulated, _TRACE),
    *(
        _of_momentum(
            f"momentum_{phase}", f"momentum + gain, {phase}", modulated, {**_TRACE, "phase": phase}
        )
        for phase in ("early", "middle", "late")
    ),
    *(
        _of_momentum(
            f"momentum_{name}",
            f"momentum + gain, {name.replace('_', ' ')}",
            modulated,
            {**_TRACE, "scope": scope},
            has_alpha=False,  # where the scope ends, a leaf has none
        )
        for name, scope in (
            ("convolutions", npx.masks.convolution_kernels),
            ("classifier", npx.masks.classifier),
            ("early_blocks", npx.masks.early_blocks),
            ("late_blocks", npx.masks.late_blocks),
        )
    ),
    _of_adam("adam_gain", "Adam + gain", modulated, _ADAM),
    _of_adam("adam_momentum", "Adam + gain on m", modulated, {**_ADAM, "target": "momentum"}),
    _of_adam(
        "adam_trust_ratio",
        "Adam + gain by trust ratio",
        modulated,
        {**_ADAM, "target": "trust_ratio"},
    ),
    _variant("adamw_gain", "AdamW + gain", modulated, _ADAMW, family="adamw_homeostasis"),
)

# What the selection of the published settings varies beside the learning rate.
_selected = functools.partial(Arm, role="selection")
_SELECTION = (
    *(
        _selected(
            f"full_scale{scale:g}_warmup{warmup}",
            f"full, γ = {scale:g}, warm-up {warmup}",
            full,
            {"scale": scale, "warmup_epochs": warmup},
            family="full",
            has_alpha=True,
        )
        for scale in (0.5, 1.0, 2.0)
        for warmup in (0, 1, 2)
        if (scale, warmup) not in ((PUBLISHED_SCALE, PUBLISHED_WARMUP_EPOCHS), (1.0, 0))
    ),
    _selected(
        "gradient_only_wider",
        "gradient-only, bounds 0.1 to 4",
        gradient_only,
        {"min_alpha": 0.1, "max_alpha": 4.0},
        family="gradient_only",
        has_alpha=True,
    ),
    *(
        _selected(
            f"sgd_homeostasis_norm{norm:g}",
            f"SGD + homeostasis, norm {norm:g}",
            stabilised,
            {"base": optax.identity, "max_update_norm": norm},
            family="sgd_homeostasis",
        )
        for norm in (0.5, 2.0)
    ),
    *(
        _selected(
            f"adam_b2_{b2:g}",
            f"Adam, b2 = {b2:g}",
            plain,
            {"alias": optax.adam, "b2": b2},
            1e-3,
            family="adam",
        )
        for b2 in (0.9, 0.99)
    ),
)

# Plasticity around a base without homeostasis, each beside the base itself and two placebos.
_DECAYED_TRACE = {**_TRACE, "weight_decay": 1e-4}
_DECAYED_MUON = {"base": wrapped.muon, "weight_decay": 1e-4}
_wrapped = functools.partial(Arm, factory=wrapped.plastic, role="wrapped")
_WRAPPED = (
    Arm(
        "sgdw",
        "SGD momentum, decayed",
        wrapped.decayed,
        _DECAYED_TRACE,
        0.03,
        colour=GREY,
        role="wrapped",
    ),
    Arm("muon", "Muon", wrapped.decayed, _DECAYED_MUON, 0.02, colour=GREEN, role="wrapped"),
    *(
        _wrapped(
            f"plastic_{name}{'_' * bool(placebo)}{placebo}",
            f"{label} with plasticity{', ' * bool(placebo)}{placebo.replace('_', '-')}",
            settings={**settings, **({"placebo": placebo} if placebo else {})},
            learning_rate=rate,
            colour=colour,
            has_alpha=not placebo,
        )
        for name, label, settings, rate, colour in (
            ("adam", "AdamW", _ADAMW, 1e-3, VERMILION),
            ("momentum", "SGD momentum", _DECAYED_TRACE, 0.03, BLUE),
            ("muon", "Muon", _DECAYED_MUON, 0.02, PURPLE),
        )
        for placebo in ("", "norm_matched", "permuted")
    ),
)

_OTHERS = (
    # Half the memory for the traces; beside the full method in a study it shows what that costs.
    Arm(
        "full_bfloat16",
        "full, bfloat16 traces",
        full,
        {"accumulator_dtype": "bfloat16"},
        family="full",
        has_alpha=True,
        role="other",
    ),
)

ARMS: dict[str, Arm] = {
    arm.name: arm for arm in (*_FAIR_TEST, *_OTHERS, *_WRAPPED, *_DESIGN_SPACE, *_SELECTION)
}


def with_role(*roles: Role) -> tuple[str, ...]:
    """The names of the arms that have one of some roles."""
    return tuple(name for name, arm in ARMS.items() if arm.role in roles)


FAIR_TEST = with_role("fair test", "ablation")
ABLATIONS = with_role("ablation")
