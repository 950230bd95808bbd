"""Plasticity around other optimizers: residuals on their updates and learning-rate factors."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuroplastic_optax as npx

STEPS = 3
SHAPES = {"a": (2, 3), "b": (4,)}
TARGETS = ("update", "momentum", "trust_ratio")
every_target = pytest.mark.parametrize("target", TARGETS)


def random_tree(seed, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()
    }


PARAMS = random_tree(0)
GRADIENTS = [random_tree(seed) for seed in range(1, STEPS + 1)]


def follow(tx, gradients=GRADIENTS, params=PARAMS):
    state = tx.init(params)
    all_updates = []
    for grads in gradients:
        updates, state = tx.update(grads, state, params)
        all_updates.append(updates)
    return all_updates, state


def leaf_norm(x):
    return float(np.linalg.norm(np.asarray(x, np.float64)))


# -- with_plasticity -----------------------------------------------------------------------------


@every_target
@pytest.mark.parametrize("max_ratio", [0.0, 0.05, 0.25])
def test_residual_keeps_its_ratio_to_the_base_update(target, max_ratio):
    base = optax.scale_by_adam()
    base_updates, _ = follow(base)
    updates, _ = follow(npx.with_plasticity(base, strength=5.0, max_ratio=max_ratio, target=target))
    for u, b in zip(updates, base_updates, strict=True):
        for name in SHAPES:
            residual = leaf_norm(u[name] - b[name])
            assert residual <= max_ratio * leaf_norm(b[name]) * (1 + 1e-5)
            assert residual > 0 or max_ratio == 0


@every_target
def test_base_update_passes_where_strength_is_zero(target):
    base = optax.scale_by_adam()
    late = npx.schedules.phase("late", STEPS)  # the last of three steps
    updates, _ = follow(npx.with_plasticity(base, strength=late, target=target))
    base_updates, _ = follow(base)
    chex.assert_trees_all_equal(updates[:2], base_updates[:2])
    assert leaf_norm(updates[2]["a"] - base_updates[2]["a"]) > 0


def test_base_sees_gradient_params_and_extra_args_as_if_alone():
    seen = []

    def update(updates, state, params=None, **extra_args):
        seen.append((updates, params, extra_args))
        return updates, state

    base = optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
    for wrap in (npx.with_plasticity, npx.variants.control_learning_rate):
        tx = wrap(base)
        tx.update(GRADIENTS[0], tx.init(PARAMS), PARAMS, value=3.0)
    for updates, params, extra_args in seen:
        assert updates is GRADIENTS[0]
        assert params is PARAMS
        assert extra_args == {"value": 3.0}


@every_target
def test_base_state_is_what_it_would_be_alone(target):
    base = optax.scale_by_adam()
    _, state = follow(npx.with_plasticity(base, target=target))
    chex.assert_trees_all_equal(state.base_state, follow(base)[1])


def test_alpha_comes_from_the_raw_gradient():
    """And not from what the base makes of it, such as a decayed one."""
    base = optax.chain(optax.add_decayed_weights(10.0), optax.trace(0.9))
    _, state = follow(npx.with_plasticity(base))
    _, expected = follow(npx.scale_by_plasticity())
    chex.assert_trees_all_equal(state.plasticity, expected)


def test_update_target_is_alpha_on_the_base_update():
    updates, state = follow(npx.with_plasticity(optax.trace(0.9), strength=0.5, max_ratio=10.0))
    b = follow(optax.trace(0.9))[0][-1]["a"]
    traces = state.plasticity
    alpha = npx.plasticity_coefficient(
        GRADIENTS[-1]["a"], traces.activity["a"], traces.memory_mu["a"], traces.memory_nu["a"]
    )
    np.testing.assert_allclose(updates[-1]["a"], b + 0.5 * (alpha - 1) * b, rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "trust"), [(1e-3, 0.5), (1.0, 1.0), (1e3, 1.5)], ids=["least", "neutral", "greatest"]
)
def test_trust_ratio_is_clipped(size, trust):
    """‖p‖ / ‖b‖ = size; where it is 1 nothing is left to add."""
    g = jnp.array([3.0, 4.0])
    params = size * g
    tx = npx.with_plasticity(optax.identity(), strength=1.0, max_ratio=10.0, target="trust_ratio")
    updates, state = tx.update(g, tx.init(params), params)
    traces = state.plasticity
    alpha = npx.plasticity_coefficient(g, traces.activity, traces.memory_mu, traces.memory_nu)
    np.testing.assert_allclose(updates, g + (alpha - 1) * (trust - 1) * g, rtol=1e-5)


def test_momentum_is_kept_for_its_target_whatever_the_weights():
    weightless = {"activity_weight": 0.0, "memory_weight": 0.0}
    state = npx.with_plasticity(optax.identity(), target="momentum", **weightless).init(PARAMS)
    assert state.plasticity.activity is None
    assert state.plasticity.memory_nu is None
    chex.assert_trees_all_equal_shapes(state.plasticity.memory_mu, PARAMS)
    state = npx.with_plasticity(optax.identity(), target="update", **weightless).init(PARAMS)
    assert state.plasticity.memory_mu is None


def test_first_momentum_residual_is_bias_corrected():
    """After one step m / (1 − b1) is the gradient itself."""
    tx = npx.with_plasticity(optax.scale(2.0), strength=1.0, max_ratio=10.0, target="momentum")
    g = GRADIENTS[0]["a"]
    updates, state = tx.update(g, tx.init(g))
    traces = state.plasticity
    alpha = npx.plasticity_coefficient(g, traces.activity, traces.memory_mu, traces.memory_nu)
    np.testing.assert_allclose(updates, 2 * g + (alpha - 1) * g, rtol=1e-5)


@every_target
@pytest.mark.parametrize(
    "mask",
    [{"a": True, "b": False}, lambda params: {name: name == "a" for name in params}],
    ids=["tree", "callable"],
)
def test_outside_its_mask_the_base_update_passes_and_no_trace_is_kept(target, mask):
    base = optax.scale_by_adam()
    updates, state = follow(npx.with_plasticity(base, target=target, mask=mask))
    base_updates, _ = follow(base)
    chex.assert_trees_all_equal([u["b"] for u in updates], [b["b"] for b in base_updates])
    assert leaf_norm(updates[-1]["a"] - base_updates[-1]["a"]) > 0
    chex.assert_trees_all_equal_shapes(jax.tree.leaves(state.plasticity.memory_mu), [PARAMS["a"]])


@every_target
def test_mask_of_everything_changes_nothing(target):
    base = optax.scale_by_adam()
    masked, _ = follow(npx.with_plasticity(base, target=target, mask={"a": True, "b": True}))
    plain, _ = follow(npx.with_plasticity(base, target=target))
    chex.assert_trees_all_equal(masked, plain)


@pytest.mark.parametrize(
    "tx",
    [
        npx.with_plasticity(optax.scale_by_adam(), mask={"a": True, "b": False}),
        npx.with_plasticity(optax.trace(0.9), mask={"a": False, "b": True}, target="momentum"),
        npx.variants.control_learning_rate(optax.trace(0.9), groups={"a": "slow", "b": "fast"}),
    ],
    ids=["adam", "momentum", "groups"],
)
def test_a_tree_as_mask_or_groups_goes_through_map_params(tx):
    _, state = follow(tx)
    chex.assert_trees_all_equal(optax.tree.map_params(tx, lambda leaf: leaf, state), state)


def test_a_mask_that_selects_no_leaf_is_an_error_at_init():
    tx = npx.with_plasticity(optax.identity(), mask=npx.masks.scope("kernel$"))
    with pytest.raises(ValueError, match=r"mask must select a leaf, .* none of a, b"):
        tx.init(PARAMS)
    many = {f"layer_{i}": jnp.ones(1) for i in range(20)}
    with pytest.raises(ValueError, match=r"layer_0, .* and 12 more"):
        tx.init(many)


def test_a_misspelt_setting_is_blamed_on_the_function_that_was_called():
    with pytest.raises(TypeError, match=r"with_plasticity\(\) got an unexpected .*'max_alhpa'"):
        npx.with_plasticity(optax.identity(), max_alhpa=1.5)


def test_the_common_query_finds_adam_s_moments():
    tx = npx.adamw_with_plasticity(1e-3)
    _, state = follow(tx)
    _, adam = follow(optax.scale_by_adam())
    for name in ("mu", "nu"):
        chex.assert_trees_all_equal(optax.tree.get(state, name), getattr(adam, name))
    assert optax.tree.get(state, "activity").keys() == PARAMS.keys()


def test_trust_ratio_asks_for_params():
    tx = npx.with_plasticity(optax.identity(), target="trust_ratio")
    with pytest.raises(ValueError, match=r"'trust_ratio' needs update\(..., params\), got None"):
        tx.update(GRADIENTS[0], tx.init(PARAMS))


@every_target
def test_zero_gradient_from_the_start_gives_zero_update(target):
    zeros = optax.tree.zeros_like(PARAMS)
    updates, _ = follow(npx.with_plasticity(optax.scale_by_adam(), target=target), [zeros] * 2)
    chex.assert_trees_all_equal(updates, [zeros] * 2)


# -- control_learning_rate -----------------------------------------------------------------------


def test_factor_is_one_where_only_the_gradient_counts():
    inner = optax.scale_by_adam()
    updates, state = follow(npx.variants.control_learning_rate(inner, plasticity_scale=0.0))
    chex.assert_trees_all_equal(updates, follow(inner)[0])
    np.testing.assert_array_equal(state.multiplier, [1.0])


def test_factor_is_clipped_on_both_sides():
    factors = [
        float(
            follow(npx.variants.control_learning_rate(optax.identity(), strength=s))[1].multiplier[
                0
            ]
        )
        for s in (-1e6, 1e6)
    ]
    np.testing.assert_allclose(sorted(factors), [0.8, 1.2], rtol=1e-6)


def test_factor_follows_the_definition():
    tx = npx.variants.control_learning_rate(optax.identity(), strength=0.5, plasticity_scale=1.5)
    updates, state = follow(tx)
    logs = []
    traces = state.plasticity
    for name, g in GRADIENTS[-1].items():
        alpha = npx.plasticity_coefficient(
            g,
            traces.activity[name],
            traces.memory_mu[name],
            traces.memory_nu[name],
            plasticity_scale=1.5,
        )
        alpha_grad = npx.plasticity_coefficient(g, None, None, None, gradient_weight=1.0)
        logs.append(np.mean(np.log(np.maximum(alpha, 1e-8) / np.maximum(alpha_grad, 1e-8))))
    np.testing.assert_allclose(state.multiplier, [1 + 0.5 * np.mean(logs)], rtol=1e-5)
    np.testing.assert_allclose(
        updates[-1]["a"], state.multiplier[0] * GRADIENTS[-1]["a"], rtol=1e-6
    )


def test_groups_are_controlled_apart_and_stand_by_sorted_label():
    groups = {"a": "z", "b": "m"}
    tx = npx.variants.control_learning_rate(optax.identity(), groups=groups)
    updates, state = follow(tx)
    for name, position in (("a", 1), ("b", 0)):
        alone, alone_state = follow(
            npx.variants.control_learning_rate(optax.identity()),
            [{name: g[name]} for g in GRADIENTS],
            {name: PARAMS[name]},
        )
        np.testing.assert_allclose(state.multiplier[position], alone_state.multiplier[0])
        np.testing.assert_allclose(updates[-1][name], alone[-1][name], rtol=1e-6)


def test_labels_may_stand_for_whole_subtrees_or_come_from_a_callable():
    nested = {"body": PARAMS, "head": {"kernel": PARAMS["a"]}}
    gradients = [{"body": g, "head": {"kernel": g["a"]}} for g in GRADIENTS]
    spelled = {"body": {"a": "slow", "b": "slow"}, "head": {"kernel": "fast"}}
    results = [
        follow(
            npx.variants.control_learning_rate(optax.identity(), groups=groups), gradients, nested
        )
        for groups in (spelled, {"body": "slow", "head": "fast"}, lambda _: spelled)
    ]
    chex.assert_trees_all_equal(*results)
    chex.assert_shape(results[0][1].multiplier, (2,))


@pytest.mark.parametrize(
    "inner",
    [
        optax.scale_by_adam(),
        npx.scale_by_plasticity(),
        npx.scale_by_plasticity(activity_decay=0.5, b1=0.1, b2=0.2),
        npx.scale_by_plasticity(0.0, 1.0, 0.0),
        optax.masked(npx.scale_by_plasticity(), {"a": True, "b": False}),
    ],
    ids=["no_plasticity", "plasticity", "other_decays", "no_traces", "other_leaves"],
)
def test_the_controller_s_traces_are_its_own_whatever_is_inside(inner):
    settings = {"activity_decay": 0.9, "b1": 0.7, "b2": 0.95}
    _, state = follow(npx.variants.control_learning_rate(inner, **settings))
    _, expected = follow(npx.scale_by_plasticity(**settings))
    chex.assert_trees_all_equal(state.plasticity, expected)


def test_needs_no_trace_where_only_the_gradient_counts():
    tx = npx.variants.control_learning_rate(
        optax.identity(), activity_weight=0.0, gradient_weight=1.0, memory_weight=0.0
    )
    assert len(jax.tree.leaves(tx.init(PARAMS))) == 2  # count and multiplier


def test_decay_inside_is_controlled_too():
    inner = optax.add_decayed_weights(0.1)
    updates, state = follow(npx.variants.control_learning_rate(inner, plasticity_scale=1.5))
    expected = jax.tree.map(lambda u: state.multiplier[0] * u, follow(inner)[0][-1])
    chex.assert_trees_all_close(updates[-1], expected, rtol=1e-6)
    assert state.multiplier[0] != 1


# -- settings ------------------------------------------------------------------------------------

SHARED = {
    "activity_weight": 0.3,
    "gradient_weight": 0.5,
    "memory_weight": 0.1,
    "activity_decay": 0.9,
    "b1": 0.8,
    "b2": 0.95,
    "min_alpha": 0.3,
    "max_alpha": 1.8,
    "plasticity_scale": 1.5,
    "eps": 1e-7,
    "strength": 0.2,
}


@pytest.mark.parametrize(
    ("make", "numbers"),
    [
        (lambda **n: npx.with_plasticity(optax.trace(0.9), **n), {"max_ratio": 0.1}),
        (
            lambda **n: npx.with_plasticity(optax.trace(0.9), target="momentum", **n),
            {"max_ratio": 0.1},
        ),
        (
            lambda **n: npx.variants.control_learning_rate(optax.trace(0.9), **n),
            {"low": 0.9, "high": 1.1},
        ),
    ],
    ids=["update", "momentum", "controller"],
)
def test_every_number_may_be_traced(make, numbers):
    def update(numbers):
        tx = make(**numbers)
        return tx.update(GRADIENTS[0], tx.init(PARAMS), PARAMS)[0]

    numbers = SHARED | numbers
    chex.assert_trees_all_close(jax.jit(update)(numbers), update(numbers), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "setting", "value"),
    [
        (npx.with_plasticity, "strength", -0.1),
        (npx.with_plasticity, "max_ratio", float("nan")),
        (npx.with_plasticity, "target", "gradient"),
        (npx.with_plasticity, "b1", 1.0),
        (npx.with_plasticity, "diagnostics", "each"),
        (npx.variants.control_learning_rate, "strength", float("inf")),
        (npx.variants.control_learning_rate, "low", -0.1),
        (npx.variants.control_learning_rate, "high", float("nan")),
        (npx.variants.control_learning_rate, "high", 0.5),
        (npx.variants.control_learning_rate, "min_alpha", 2.5),
    ],
)
def test_names_a_setting_that_cannot_work(make, setting, value):
    with pytest.raises(ValueError, match=setting) as error:
        make(optax.identity(), **{setting: value})
    assert repr(value) in str(error.value)


@pytest.mark.parametrize("make", [npx.with_plasticity, npx.variants.control_learning_rate])
@pytest.mark.parametrize("dtype", ["complex64", "int32"])
def test_names_the_path_of_a_leaf_that_is_not_real_floating(make, dtype):
    bad = {"layer": {"steps": jnp.ones(2, dtype)}}
    with pytest.raises(TypeError, match=rf"{dtype} at \['layer'\]\['steps'\]"):
        make(optax.identity()).init(bad)


def test_a_mask_may_leave_integer_leaves_to_the_base():
    params = {"steps": jnp.ones(2, jnp.int32), "w": jnp.ones(2)}
    tx = npx.with_plasticity(optax.identity(), mask={"steps": False, "w": True})
    updates, _ = tx.update(params, tx.init(params))
    assert updates["steps"] is params["steps"]
