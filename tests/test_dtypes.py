"""Half precision: as accurate as one rounding allows, and safe where constants underflow."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuroplastic_optax as npx

HALVES = ("bfloat16", "float16")
every_half = pytest.mark.parametrize("dtype", HALVES)
STEPS = 5
SHAPES = {"kernel": (16, 8), "scale": ()}


def random_tree(seed, dtype, magnitude=1.0):
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(magnitude * rng.normal(size=shape), dtype)
        for name, shape in SHAPES.items()
    }


def cast(tree, dtype):
    return jax.tree.map(lambda x: x.astype(dtype), tree)


def follow(tx, params, gradients):
    state, all_updates = tx.init(params), []
    for grads in gradients:
        updates, state = tx.update(grads, state, params)
        all_updates.append(updates)
    return all_updates, state


def assert_half_close(actual, expected, roundings):
    """Entry by entry within so many roundings of half precision, relative to the leaf's largest."""
    for name in SHAPES:
        a, e = np.asarray(actual[name], np.float64), np.asarray(expected[name], np.float64)
        unit = float(jnp.finfo(actual[name].dtype).eps)
        np.testing.assert_allclose(a, e, rtol=roundings * unit, atol=roundings * unit * 1e-2)


# -- accuracy ------------------------------------------------------------------------------------

ONE_ROUNDING = {
    "plasticity": npx.scale_by_plasticity(plasticity_scale=1.5),
    "tensorwise": npx.scale_by_plasticity(tensorwise=True),
    "bounded": npx.variants.add_bounded_plasticity(0.3),
    "orthogonal": npx.variants.add_orthogonal_plasticity(1.0),
    "homeostasis": npx.homeostasis(),
    "modulated": npx.with_plasticity(optax.identity(), strength=1.0),
    "controlled": npx.variants.control_learning_rate(
        optax.identity(), strength=0.5, plasticity_scale=1.5
    ),
}


@every_half
@pytest.mark.parametrize("tx", ONE_ROUNDING.values(), ids=ONE_ROUNDING.keys())
def test_a_half_precision_update_is_the_float32_update_rounded_once(tx, dtype):
    params, gradients = random_tree(0, dtype), [random_tree(s, dtype) for s in range(1, STEPS + 1)]
    half, half_state = follow(tx, params, gradients)
    single, single_state = follow(
        tx, cast(params, "float32"), [cast(g, "float32") for g in gradients]
    )
    chex.assert_trees_all_equal(half, [cast(u, dtype) for u in single])
    chex.assert_trees_all_equal(half_state, single_state)


@every_half
@pytest.mark.parametrize("alias", [npx.neuroplastic, npx.gradient_only])
def test_half_precision_optimizers_stay_close_to_float32(alias, dtype):
    """A rounding for each part of the chain."""
    tx = alias(0.1)
    params, gradients = random_tree(0, dtype), [random_tree(s, dtype) for s in range(1, STEPS + 1)]
    half, _ = follow(tx, params, gradients)
    single, _ = follow(tx, cast(params, "float32"), [cast(g, "float32") for g in gradients])
    for h, s in zip(half, single, strict=True):
        assert_half_close(h, s, roundings=4)


@every_half
def test_half_precision_training_stays_close_to_float32(dtype):
    """On a parabola: at most a rounding a step, relative to the way travelled."""
    target, steps = random_tree(7, "float32"), 20

    def train(params):
        tx = npx.neuroplastic(0.1, weight_decay=0.01)
        state = tx.init(params)
        for _ in range(steps):
            grads = jax.tree.map(lambda p, t: 2 * (p - t.astype(p.dtype)), params, target)
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params

    start = random_tree(0, dtype)
    half, single = train(start), train(cast(start, "float32"))
    for name in SHAPES:
        way = np.linalg.norm(single[name] - start[name].astype(jnp.float32))
        apart = np.linalg.norm(single[name] - half[name].astype(jnp.float32))
        assert apart <= steps * jnp.finfo(dtype).eps * way, name


@pytest.mark.parametrize("magnitude", [1.0, 30.0])
def test_float16_sums_may_exceed_its_range(magnitude):
    """70,000 entries: neither the sum of |g| nor that of g² is below 65,504."""
    rng = np.random.default_rng(0)
    g = jnp.asarray(magnitude * rng.choice([-1.5, -1.0, 1.0, 1.5], 70_000), jnp.float16)
    for tx in (
        ONE_ROUNDING["plasticity"],
        npx.homeostasis(),
        npx.variants.add_orthogonal_plasticity(1.0),
    ):
        half, _ = tx.update(g, tx.init(g))
        single, _ = tx.update(g.astype(jnp.float32), tx.init(g.astype(jnp.float32)))
        chex.assert_trees_all_equal(half, single.astype(jnp.float16))
        assert float(jnp.abs(half).max()) > 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_bfloat16_traces_keep_alpha_within_a_few_percent(dtype):
    gradients = [random_tree(seed, dtype) for seed in range(1, 21)]
    params = gradients[0]
    compact, state = follow(
        npx.scale_by_plasticity(accumulator_dtype=jnp.bfloat16), params, gradients
    )
    exact, _ = follow(npx.scale_by_plasticity(), params, gradients)
    assert {
        t.dtype for t in jax.tree.leaves((state.activity, state.memory_mu, state.memory_nu))
    } == {jnp.dtype("bfloat16")}
    for c, e in zip(compact, exact, strict=True):
        for name in SHAPES:
            np.testing.assert_allclose(
                np.asarray(c[name], np.float32), np.asarray(e[name], np.float32), rtol=0.03
            )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_params_of_another_dtype_than_the_gradients_change_nothing(dtype):
    """The update has the gradient's dtype; Optax casts it where it is applied."""
    with jax.enable_x64(dtype == "float64"):
        gradients = [random_tree(seed, "float32") for seed in (1, 2)]
        for tx in (npx.neuroplastic(0.1), npx.with_plasticity(optax.identity())):
            updates, _ = follow(tx, random_tree(0, dtype), gradients)
            expected, _ = follow(tx, random_tree(0, "float32"), gradients)
            chex.assert_trees_all_equal_dtypes(updates, gradients)
            chex.assert_trees_all_close(updates, expected, rtol=1e-6)


# -- hyperparameters of the parameters' dtype ----------------------------------------------------

ALIASES = {"neuroplastic": npx.neuroplastic, "gradient_only": npx.gradient_only}
every_alias = pytest.mark.parametrize("alias", ALIASES.values(), ids=ALIASES.keys())
EXTREME = {npx.neuroplastic: {"b2": 0.999}, npx.gradient_only: {}}


def half_problem(dtype):
    """Gradients with exact zeros, down to a leaf without any gradient."""
    gradients = [random_tree(s, dtype, magnitude=0.1) for s in range(1, STEPS + 1)]
    for g in gradients[:2]:
        g["scale"] = jnp.zeros_like(g["scale"])
        g["kernel"] = g["kernel"].at[:4].set(0)
    return random_tree(0, dtype), gradients


@every_half
@every_alias
def test_injected_float32_hyperparameters_equal_plain_numbers(alias, dtype):
    problem = half_problem(dtype)
    inject = optax.inject_hyperparams(alias, hyperparam_dtype=jnp.float32)
    injected, state = follow(inject(0.1, **EXTREME[alias]), *problem)
    plain, plain_state = follow(alias(0.1, weight_decay=0.0, **EXTREME[alias]), *problem)
    for i, p in zip(injected, plain, strict=True):  # Optax leaves a float32 product uncast
        assert_half_close(cast(i, dtype), p, roundings=2)
    if alias is npx.neuroplastic:
        chex.assert_trees_all_close(state.inner_state[0], plain_state[0], rtol=1e-5, atol=1e-8)


@every_half
@every_alias
def test_injected_half_precision_hyperparameters_are_the_rounded_numbers(alias, dtype):
    """Not an error and not a NaN: b2 = 0.999 is 1.0 in bfloat16, eps = 1e-8 is 0 in float16."""
    problem = half_problem(dtype)
    injected, state = follow(optax.inject_hyperparams(alias)(0.1, **EXTREME[alias]), *problem)
    assert {h.dtype for h in state.hyperparams.values()} == {jnp.dtype(dtype)}
    if dtype == "bfloat16" and "b2" in state.hyperparams:
        assert state.hyperparams["b2"] == 1
    if dtype == "float16":
        assert state.hyperparams["eps"] == 0
    rounded = {name: value.astype(jnp.float32) for name, value in state.hyperparams.items()}
    expected, _ = follow(alias(**rounded), *problem)
    chex.assert_tree_all_finite((injected, state))
    for i, e in zip(injected, expected, strict=True):
        assert_half_close(i, e, roundings=4)


PARTS = {
    "plasticity": (npx.scale_by_plasticity, {}),
    "bounded": (npx.variants.add_bounded_plasticity, {}),
    "orthogonal": (npx.variants.add_orthogonal_plasticity, {"match_norm": True}),
    "homeostasis": (npx.homeostasis, {}),
    "modulated": (npx.with_plasticity, {"base": optax.trace(0.9)}),
    "modulated_momentum": (npx.with_plasticity, {"base": optax.trace(0.9), "target": "momentum"}),
    "modulated_trust": (npx.with_plasticity, {"base": optax.trace(0.9), "target": "trust_ratio"}),
    "controlled": (npx.variants.control_learning_rate, {"inner": optax.trace(0.9)}),
    "controlled_negative_alpha": (
        npx.variants.control_learning_rate,
        {"inner": optax.trace(0.9), "plasticity_scale": 3.0},
    ),
}


@every_half
@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS.keys())
def test_parts_stay_finite_with_injected_half_precision_hyperparameters(part, dtype):
    factory, settings = part
    updates, state = follow(optax.inject_hyperparams(factory)(**settings), *half_problem(dtype))
    chex.assert_tree_all_finite((updates, state))
    chex.assert_trees_all_equal_dtypes(updates[0], half_problem(dtype)[0])


@every_half
def test_plasticity_adds_no_nan_to_those_of_its_base(dtype):
    """Optax's Adam is 0 / 0 in half precision where eps underflows or b2 rounds to 1."""
    params, gradients = half_problem(dtype)
    settings = {"learning_rate": 0.1, "b2": 0.999}
    adam, _ = follow(optax.inject_hyperparams(optax.adamw)(**settings), params, gradients)
    ours, _ = follow(
        optax.inject_hyperparams(npx.adamw_with_plasticity)(**settings), params, gradients
    )
    for u, base in zip(ours, adam, strict=True):
        for name in SHAPES:  # one NaN of the base reaches its whole leaf through the norms
            assert bool(jnp.isfinite(u[name]).all()) == bool(jnp.isfinite(base[name]).all())


def test_adamw_with_plasticity_is_finite_with_hyperparameters_that_bfloat16_can_hold():
    params, gradients = half_problem("bfloat16")
    inject = optax.inject_hyperparams(npx.adamw_with_plasticity)
    chex.assert_tree_all_finite(follow(inject(0.1, b2=0.99), params, gradients))
    in_float32 = optax.inject_hyperparams(npx.adamw_with_plasticity, hyperparam_dtype=jnp.float32)
    chex.assert_tree_all_finite(follow(in_float32(0.1), params, gradients))
