"""The aliases are the chains that they promise, decay as AdamW does, and check their settings."""

import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuroplastic_optax as npx

LEARNING_RATE = 0.05
DESCENT = optax.scale_by_learning_rate(LEARNING_RATE)
SELECTED = {  # by the study `families`, for momentum
    "activity_weight": 0.05,
    "gradient_weight": 0.005,
    "memory_weight": 0.945,
    "b2": 0.944,
    "min_alpha": 0.278,
    "max_alpha": 3.67,
}


def random_tree(seed):
    rng = np.random.default_rng(seed)
    return {
        "kernel": jnp.asarray(rng.normal(size=(3, 2)), jnp.float32),
        "bias": jnp.asarray(rng.normal(size=2), jnp.float32),
    }


PARAMS = random_tree(0)
GRADIENTS = [random_tree(seed) for seed in (1, 2, 3)]


def follow(tx, params=PARAMS):
    state, all_updates = tx.init(params), []
    for grads in GRADIENTS:
        updates, state = tx.update(grads, state, params)
        all_updates.append(updates)
    return all_updates


@pytest.mark.parametrize(
    ("alias", "chain"),
    [
        (
            npx.neuroplastic(LEARNING_RATE),
            (npx.scale_by_plasticity(), npx.homeostasis(), DESCENT),
        ),
        (
            npx.neuroplastic(
                LEARNING_RATE,
                0.3,
                0.5,
                0.1,
                activity_decay=0.9,
                b1=0.8,
                b2=0.95,
                min_alpha=0.1,
                max_alpha=3.0,
                plasticity_scale=1.5,
                max_update_norm=0.5,
                target_rms=0.1,
                adaptation_rate=0.5,
                eps=1e-6,
                tensorwise=True,
                accumulator_dtype=jnp.bfloat16,
                weight_decay=0.1,
            ),
            (
                npx.scale_by_plasticity(
                    0.3,
                    0.5,
                    0.1,
                    activity_decay=0.9,
                    b1=0.8,
                    b2=0.95,
                    min_alpha=0.1,
                    max_alpha=3.0,
                    plasticity_scale=1.5,
                    eps=1e-6,
                    tensorwise=True,
                    accumulator_dtype=jnp.bfloat16,
                ),
                npx.homeostasis(0.5, 0.1, 0.5, 1e-6),
                optax.add_decayed_weights(0.1),
                DESCENT,
            ),
        ),
        (
            npx.gradient_only(LEARNING_RATE, max_update_norm=0.5, weight_decay=0.1),
            (
                npx.scale_by_plasticity(0.0, 1.0, 0.0, min_alpha=0.5, max_alpha=1.5),
                npx.homeostasis(0.5),
                optax.add_decayed_weights(0.1),
                DESCENT,
            ),
        ),
        (
            npx.adamw_with_plasticity(
                LEARNING_RATE, 0.8, 0.99, 1e-6, 1e-9, jnp.bfloat16, strength=0.3, max_ratio=0.1
            ),
            (
                npx.with_plasticity(
                    optax.scale_by_adam(0.8, 0.99, 1e-6, 1e-9, jnp.bfloat16),
                    strength=0.3,
                    max_ratio=0.1,
                ),
                optax.add_decayed_weights(1e-4),
                DESCENT,
            ),
        ),
        (
            npx.sgd_with_plasticity(
                LEARNING_RATE, 0.8, True, jnp.bfloat16, strength=0.3, max_ratio=0.1
            ),
            (
                npx.with_plasticity(
                    optax.trace(0.8, True, jnp.bfloat16), strength=0.3, max_ratio=0.1, **SELECTED
                ),
                DESCENT,
            ),
        ),
    ],
    ids=[
        "neuroplastic",
        "neuroplastic_every_setting",
        "gradient_only",
        "adamw_with_plasticity",
        "sgd_with_plasticity",
    ],
)
def test_is_its_chain(alias, chain):
    chex.assert_trees_all_equal(follow(alias), follow(optax.chain(*chain)))


def test_defaults_are_the_published_ones():
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(npx.neuroplastic).parameters.items()
    }
    published = {
        "activity_weight": 0.4,
        "gradient_weight": 0.4,
        "memory_weight": 0.2,
        "activity_decay": 0.95,
        "b1": 0.9,
        "b2": 0.99,
        "min_alpha": 0.2,
        "max_alpha": 2.0,
        "max_update_norm": 1.0,
        "target_rms": 0.02,
        "adaptation_rate": 0.01,
        "eps": 1e-8,
        "weight_decay": 0.0,
    }
    assert published.items() <= defaults.items()
    ablation = inspect.signature(npx.gradient_only).parameters
    assert (ablation["min_alpha"].default, ablation["max_alpha"].default) == (0.5, 1.5)


DECAYING = (npx.neuroplastic, npx.gradient_only, npx.adamw_with_plasticity)
ALIASES = (*DECAYING, npx.sgd_with_plasticity)
every_decaying_alias = pytest.mark.parametrize("alias", DECAYING)
every_alias = pytest.mark.parametrize("alias", ALIASES)


@every_decaying_alias
def test_weight_decay_is_decoupled(alias):
    """It subtracts η λ θ from what the optimizer does without it."""
    with_decay = follow(alias(LEARNING_RATE, weight_decay=0.1))
    without = follow(alias(LEARNING_RATE, weight_decay=0.0))
    expected = [
        jax.tree.map(lambda u, p: u - LEARNING_RATE * 0.1 * p, updates, PARAMS)
        for updates in without
    ]
    chex.assert_trees_all_close(with_decay, expected, rtol=1e-5, atol=1e-7)


@every_decaying_alias
@pytest.mark.parametrize(
    "mask",
    [
        {"kernel": True, "bias": False},
        lambda params: jax.tree.map(lambda p: p.ndim > 1, params),
        npx.masks.scope("kernel$"),
    ],
    ids=["tree", "callable", "scope"],
)
def test_weight_decay_may_be_masked(alias, mask):
    name = "mask" if alias is npx.adamw_with_plasticity else "weight_decay_mask"
    updates = follow(alias(LEARNING_RATE, weight_decay=0.1, **{name: mask}))
    everywhere = follow(alias(LEARNING_RATE, weight_decay=0.1))
    nowhere = follow(alias(LEARNING_RATE, weight_decay=0.0))
    chex.assert_trees_all_equal([u["kernel"] for u in updates], [u["kernel"] for u in everywhere])
    chex.assert_trees_all_equal([u["bias"] for u in updates], [u["bias"] for u in nowhere])


@every_decaying_alias
def test_without_weight_decay_params_are_not_needed(alias):
    tx = alias(LEARNING_RATE, weight_decay=0.0)
    tx.update(GRADIENTS[0], tx.init(PARAMS))


@every_decaying_alias
def test_with_weight_decay_missing_params_are_an_error(alias):
    tx = alias(LEARNING_RATE, weight_decay=0.1)
    with pytest.raises(ValueError, match="params"):
        tx.update(GRADIENTS[0], tx.init(PARAMS))


@every_alias
def test_learning_rate_may_be_a_schedule(alias):
    halving = optax.exponential_decay(LEARNING_RATE, 1, 0.5)
    scheduled, constant = follow(alias(halving)), follow(alias(LEARNING_RATE))
    for step, (s, c) in enumerate(zip(scheduled, constant, strict=True)):
        chex.assert_trees_all_close(s, jax.tree.map(lambda u, k=step: u / 2**k, c), rtol=1e-5)


@pytest.mark.parametrize(
    ("alias", "of"),
    [(npx.adamw_with_plasticity, optax.adamw), (npx.sgd_with_plasticity, optax.sgd)],
)
def test_a_drop_in_has_the_signature_of_what_it_replaces(alias, of):
    theirs = inspect.signature(of).parameters.values()
    ours = inspect.signature(alias).parameters
    leading = list(ours.values())[: len(theirs)]
    assert [(p.name, p.kind, p.default) for p in leading] == [
        (p.name, p.kind, p.default) for p in theirs
    ]


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(
    "arguments",
    [
        (LEARNING_RATE,),
        (optax.cosine_decay_schedule(0.1, 10), 0.8, 0.95, 1e-6, 1e-8, jnp.bfloat16, 0.1),
        (LEARNING_RATE, 0.9, 0.999, 1e-8, 0.0, None, 0.1, {"kernel": True, "bias": False}),
    ],
    ids=["defaults", "all", "mask"],
)
def test_adamw_with_plasticity_of_strength_0_is_optax_adamw(arguments, nesterov):
    ours = npx.adamw_with_plasticity(*arguments, nesterov=nesterov, strength=0.0)
    chex.assert_trees_all_equal(follow(ours), follow(optax.adamw(*arguments, nesterov=nesterov)))


@pytest.mark.parametrize(
    "arguments",
    [
        (LEARNING_RATE,),
        (LEARNING_RATE, 0.9),
        (optax.cosine_decay_schedule(0.1, 10), 0.8, True, jnp.bfloat16),
    ],
    ids=["plain", "momentum", "all"],
)
def test_sgd_with_plasticity_of_strength_0_is_optax_sgd(arguments):
    ours = npx.sgd_with_plasticity(*arguments, strength=0.0)
    chex.assert_trees_all_equal(follow(ours), follow(optax.sgd(*arguments)))


def test_adamw_with_plasticity_takes_steps_of_the_size_of_adamw():
    ours, theirs = follow(npx.adamw_with_plasticity(1e-3)), follow(optax.adamw(1e-3))
    for u, v in zip(ours, theirs, strict=True):
        for name in PARAMS:
            ratio = jnp.linalg.norm(u[name]) / jnp.linalg.norm(v[name])
            assert 0.75 <= float(ratio) <= 1.25


def test_shared_settings_have_one_default_and_one_type_everywhere():
    reference = inspect.signature(npx.scale_by_plasticity).parameters
    others = (
        npx.neuroplastic,
        npx.with_plasticity,
        npx.variants.add_bounded_plasticity,
        npx.variants.add_orthogonal_plasticity,
        npx.variants.control_learning_rate,
    )
    for factory in others:
        parameters = inspect.signature(factory).parameters
        for name, parameter in reference.items():
            found = parameters[name]
            assert (found.default, found.annotation) == (parameter.default, parameter.annotation)


def test_gradient_only_keeps_one_integer():
    (count,) = jax.tree.leaves(npx.gradient_only(0.1).init(PARAMS))
    assert count.dtype == jnp.int32
    assert count.shape == ()


def test_gradient_only_equals_scale_zero_at_equal_bounds():
    ablation = npx.gradient_only(LEARNING_RATE, min_alpha=0.2, max_alpha=2.0)
    full = npx.neuroplastic(LEARNING_RATE, plasticity_scale=0.0)
    chex.assert_trees_all_equal(follow(ablation), follow(full))


@pytest.mark.parametrize(
    ("alias", "names"),
    [
        (npx.neuroplastic, {"alpha_mean", "update_ratio"}),
        (npx.gradient_only, {"alpha_mean", "update_ratio"}),
        (npx.adamw_with_plasticity, {"alpha_mean", "update_ratio"}),
        (npx.sgd_with_plasticity, {"alpha_mean", "update_ratio"}),
    ],
)
def test_diagnostics_cover_alpha_and_the_whole_update(alias, names):
    tx = alias(LEARNING_RATE, diagnostics=True)
    assert names <= npx.diagnostics(tx.init(PARAMS)).keys()
    assert npx.diagnostics(alias(LEARNING_RATE).init(PARAMS)) == {}


NUMBERS = {
    npx.neuroplastic: {
        "learning_rate": 0.1,
        "activity_weight": 0.3,
        "gradient_weight": 0.5,
        "memory_weight": 0.1,
        "activity_decay": 0.9,
        "b1": 0.8,
        "b2": 0.95,
        "min_alpha": 0.3,
        "max_alpha": 1.8,
        "plasticity_scale": 1.5,
        "max_update_norm": 0.5,
        "target_rms": 0.1,
        "adaptation_rate": 0.1,
        "eps": 1e-7,
        "weight_decay": 0.1,
    },
    npx.gradient_only: {
        "learning_rate": 0.1,
        "min_alpha": 0.3,
        "max_alpha": 1.8,
        "max_update_norm": 0.5,
        "target_rms": 0.1,
        "adaptation_rate": 0.1,
        "eps": 1e-7,
        "weight_decay": 0.1,
    },
    npx.adamw_with_plasticity: {
        "learning_rate": 0.1,
        "b1": 0.8,
        "b2": 0.95,
        "eps": 1e-7,
        "strength": 0.2,
        "max_ratio": 0.1,
        "weight_decay": 0.1,
    },
    npx.sgd_with_plasticity: {
        "learning_rate": 0.1,
        "momentum": 0.8,
        "strength": 0.2,
        "max_ratio": 0.1,
    },
}


@every_alias
def test_every_number_may_be_traced(alias):
    def update(numbers):
        tx = alias(**numbers)
        return tx.update(GRADIENTS[0], tx.init(PARAMS), PARAMS)[0]

    chex.assert_trees_all_close(
        jax.jit(update)(NUMBERS[alias]), update(NUMBERS[alias]), rtol=1e-5, atol=1e-8
    )


@pytest.mark.parametrize(
    ("alias", "setting", "value"),
    [
        *((alias, "weight_decay", -0.1) for alias in DECAYING),
        *((alias, "max_update_norm", 0.0) for alias in (npx.neuroplastic, npx.gradient_only)),
        *((alias, "diagnostics", "all") for alias in ALIASES),
        (npx.neuroplastic, "b1", 1.0),
        (npx.neuroplastic, "eps", 0.0),
        (npx.gradient_only, "min_alpha", 2.0),
        (npx.adamw_with_plasticity, "max_ratio", -1.0),
        (npx.sgd_with_plasticity, "strength", -1.0),
    ],
)
def test_names_a_setting_that_cannot_work(alias, setting, value):
    with pytest.raises(ValueError, match=setting) as error:
        alias(0.1, **{setting: value})
    assert repr(value) in str(error.value)
