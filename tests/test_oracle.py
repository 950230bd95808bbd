"""The library agrees with a float64 NumPy oracle of the method on random trees and settings."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import neuroplastic_optax as npx
from tests import oracle

STEPS = 5
LEARNING_RATE = 0.1
# A fixed set of shapes, so that each operation compiles once for all examples.
SHAPES = {"empty": (0, 3), "matrix": (4, 3), "scalar": (), "single": (1,), "vector": (7,)}
LONG = {"matrix": (4, 3), "vector": (7,)}
LABELS = {
    "empty": "weights",
    "matrix": "weights",
    "scalar": "others",
    "single": "others",
    "vector": "others",
}


def random_problem(seed, magnitude=1.0, shapes=SHAPES, steps=STEPS):
    """Parameters and gradients with some exact zeros and one leaf that starts with no gradient."""
    rng = np.random.default_rng(seed)
    params = {leaf: rng.normal(size=shape) for leaf, shape in shapes.items()}
    gradients = []
    for step in range(steps):
        tree = {}
        for leaf, shape in shapes.items():
            g = magnitude * rng.normal(size=shape) * 10.0 ** rng.uniform(-1, 1, size=shape)
            silent = step < 2 and leaf == "vector"
            tree[leaf] = np.asarray(np.where(rng.random(shape) < 0.15, 0.0, g) * (not silent))
        gradients.append(tree)
    return params, gradients


def cosine(step):
    return 0.5 * (1 - np.cos(np.pi * min((step + 1) / STEPS, 1.0)))


def late(step):
    return 1.0 if min((step + 1) / STEPS, 1.0) >= 0.7 else 0.0


def stair(step):
    return 2.0 * min(step // 2 / 2, 1.0)


def library_descent(optimizer, params, gradients, dtype):
    """The trajectory of the library, as NumPy trees, without compiling whole steps."""
    params = jax.tree.map(lambda p: jnp.asarray(p, dtype), params)
    state = optimizer.init(params)
    trajectory = []
    for tree in gradients:
        grads = jax.tree.map(lambda g: jnp.asarray(g, dtype), tree)
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        trajectory.append(jax.tree.map(np.asarray, params))
    return trajectory


def assert_same_trajectory(optimizer, reference, problem, *, dtype=np.float64, rtol, atol):
    params, gradients = problem
    optimizer = optax.chain(optimizer, optax.scale_by_learning_rate(LEARNING_RATE))
    expected = oracle.descend(reference, params, gradients, LEARNING_RATE)
    with jax.enable_x64(dtype == np.float64):
        actual = library_descent(optimizer, params, gradients, dtype)
    for step, (ours, theirs) in enumerate(zip(actual, expected, strict=True)):
        for leaf in params:
            assert ours[leaf].dtype == dtype
            np.testing.assert_allclose(
                ours[leaf], theirs[leaf], rtol, atol, err_msg=f"{leaf} after step {step + 1}"
            )


assert_tight = functools.partial(assert_same_trajectory, rtol=1e-9, atol=1e-12)
# A factor on the learning rate is kept in float32 whatever the parameters are.
assert_same_in_float32_factor = functools.partial(assert_same_trajectory, rtol=1e-6, atol=1e-7)


# -- float64, random settings --------------------------------------------------------------------


def numbers(low, high):
    return st.floats(low, high, allow_subnormal=False)


COEFFICIENT = st.fixed_dictionaries(
    {},
    optional={
        "activity_weight": numbers(0, 1),
        "gradient_weight": numbers(0.1, 1),
        "memory_weight": numbers(0, 1),
        "activity_decay": numbers(0, 0.99),
        "b1": numbers(0, 0.99),
        "b2": numbers(0, 0.99),
        "min_alpha": numbers(0.05, 0.9),
        "max_alpha": numbers(1.1, 4),
        "plasticity_scale": numbers(0, 2) | st.just(stair),
        "tensorwise": st.booleans(),
        "eps": st.sampled_from([1e-8, 1e-4]),
    },
)
PROBLEMS = st.builds(random_problem, st.integers(0, 2**32 - 1), st.sampled_from([1e-3, 1.0, 30.0]))
HOMEOSTASIS = st.fixed_dictionaries(
    {},
    optional={
        "max_update_norm": numbers(0.1, 5),
        "target_rms": numbers(0, 1),
        "adaptation_rate": numbers(0, 3),
        "eps": st.sampled_from([1e-8, 1e-4]),
    },
)


def jax_schedules(settings):
    """The same settings with their schedules made of JAX operations, in double precision."""
    translated = {
        stair: lambda step: 2.0 * jnp.minimum(step // 2 / 2, 1.0),
        cosine: lambda step: 0.5 * (1 - jnp.cos(jnp.pi * (step + 1) / STEPS)),
        late: npx.schedules.phase("late", STEPS),
    }
    return {
        name: translated[value] if callable(value) else value for name, value in settings.items()
    }


@given(PROBLEMS, COEFFICIENT, HOMEOSTASIS, numbers(0, 0.2), st.booleans())
@example(random_problem(0), {}, {}, 0.0, True)
@example(random_problem(1), {"plasticity_scale": stair}, {}, 0.1, False)
@example(random_problem(2), {"tensorwise": True, "activity_weight": 0.0}, {}, 0.1, True)
def test_plasticity_and_homeostasis_agree(problem, coefficient, stability, decay, decoupled):
    homeostasis = npx.homeostasis(**stability)
    library_decay = optax.add_decayed_weights(decay)
    last = (homeostasis, library_decay) if decoupled else (library_decay, homeostasis)
    s, d = oracle.Homeostasis(**stability), oracle.Decay(decay)
    assert_tight(
        optax.chain(npx.scale_by_plasticity(**jax_schedules(coefficient)), *last),
        oracle.Chain(
            oracle.Scaled(oracle.Plasticity(**coefficient)), *((s, d) if decoupled else (d, s))
        ),
        problem,
    )


@settings(max_examples=15)
@given(PROBLEMS, COEFFICIENT, numbers(0, 2))
def test_bounded_residual_agrees(problem, coefficient, max_ratio):
    assert_tight(
        npx.variants.add_bounded_plasticity(max_ratio, **jax_schedules(coefficient)),
        oracle.Bounded(oracle.Plasticity(**coefficient), max_ratio),
        problem,
    )


@settings(max_examples=15)
@given(PROBLEMS, COEFFICIENT, numbers(0, 2), numbers(0, 1) | st.just(cosine))
@example(random_problem(3), {}, 0.5, cosine)
def test_orthogonal_residual_agrees(problem, coefficient, max_ratio, strength):
    assert_tight(
        npx.variants.add_orthogonal_plasticity(
            max_ratio=max_ratio, **jax_schedules(coefficient | {"strength": strength})
        ),
        oracle.Orthogonal(oracle.Plasticity(**coefficient), strength, max_ratio),
        problem,
    )


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), numbers(0, 2), numbers(0, 1) | st.just(cosine))
def test_orthogonal_residual_of_matched_norm(seed, max_ratio, strength):
    """On longer leaves: in a single entry nothing is orthogonal but rounding errors."""
    assert_tight(
        npx.variants.add_orthogonal_plasticity(
            max_ratio=max_ratio, match_norm=True, **jax_schedules({"strength": strength})
        ),
        oracle.Orthogonal(oracle.Plasticity(), strength, max_ratio, match_norm=True),
        random_problem(seed, shapes=LONG),
    )


SCOPES = st.none() | st.just(frozenset({"matrix"})) | st.just(frozenset({"scalar", "vector"}))


def as_mask(leaves):
    return None if leaves is None else {leaf: leaf in leaves for leaf in SHAPES}


@settings(max_examples=15)
@given(
    PROBLEMS,
    COEFFICIENT,
    st.sampled_from(["update", "momentum", "trust_ratio"]),
    numbers(0, 1) | st.just(late),
    numbers(0, 1),
    SCOPES,
    st.booleans(),
)
@example(random_problem(4), {}, "update", 0.15, 0.25, None, True)
@example(random_problem(5), {}, "momentum", 0.15, 0.25, None, True)
@example(random_problem(6), {"memory_weight": 0.0}, "momentum", 0.9, 0.25, None, False)
@example(random_problem(7), {}, "trust_ratio", 0.15, 0.25, None, True)
@example(random_problem(8), {}, "update", late, 0.25, frozenset({"matrix"}), False)
def test_modulation_of_adam_and_of_momentum(
    problem, coefficient, target, strength, max_ratio, leaves, adam
):
    base = (
        optax.scale_by_adam()
        if adam
        else optax.chain(optax.add_decayed_weights(0.01), optax.trace(0.9))
    )
    reference = oracle.Adam() if adam else oracle.Chain(oracle.Decay(0.01), oracle.Momentum(0.9))
    assert_tight(
        optax.chain(
            npx.with_plasticity(
                base,
                max_ratio=max_ratio,
                target=target,
                mask=as_mask(leaves),
                **jax_schedules(coefficient | {"strength": strength}),
            ),
            npx.homeostasis(),
            optax.add_decayed_weights(0.01 if adam else 0.0),
        ),
        oracle.Chain(
            oracle.Modulated(
                reference, oracle.Plasticity(**coefficient), strength, max_ratio, target, leaves
            ),
            oracle.Homeostasis(),
            oracle.Decay(0.01 if adam else 0.0),
        ),
        problem,
    )


@settings(max_examples=15)
@given(PROBLEMS, COEFFICIENT, numbers(0, 3), st.none() | st.just(LABELS), st.booleans())
@example(random_problem(9), {"plasticity_scale": 1.5}, 0.5, None, True)
@example(random_problem(10), {"plasticity_scale": 2.0}, 0.5, LABELS, False)
def test_learning_rate_controller_agrees(problem, coefficient, strength, groups, borrowed):
    """Around plasticity with the same traces, which it borrows, or around plain momentum."""
    plastic = jax_schedules(coefficient)
    inner = npx.scale_by_plasticity(**plastic) if borrowed else optax.trace(0.9)
    reference = (
        oracle.Scaled(oracle.Plasticity(**coefficient)) if borrowed else oracle.Momentum(0.9)
    )
    assert_same_in_float32_factor(
        npx.variants.control_learning_rate(
            optax.chain(inner, npx.homeostasis(), optax.add_decayed_weights(0.01)),
            strength=strength,
            groups=groups,
            **plastic,
        ),
        oracle.Controlled(
            oracle.Chain(reference, oracle.Homeostasis(), oracle.Decay(0.01)),
            oracle.Plasticity(**coefficient),
            strength,
            groups=groups,
        ),
        problem,
    )


# -- float32, and larger leaves ------------------------------------------------------------------

FORMS = {
    "plasticity": (
        lambda: npx.scale_by_plasticity(plasticity_scale=1.7),
        lambda: oracle.Scaled(oracle.Plasticity(plasticity_scale=1.7)),
    ),
    "tensorwise": (
        lambda: npx.scale_by_plasticity(tensorwise=True),
        lambda: oracle.Scaled(oracle.Plasticity(tensorwise=True)),
    ),
    "bounded": (
        lambda: npx.variants.add_bounded_plasticity(0.3),
        lambda: oracle.Bounded(oracle.Plasticity(), 0.3),
    ),
    "orthogonal": (
        lambda: npx.variants.add_orthogonal_plasticity(**jax_schedules({"strength": cosine})),
        lambda: oracle.Orthogonal(oracle.Plasticity(), cosine),
    ),
    "adam": (
        lambda: npx.with_plasticity(optax.scale_by_adam(), target="momentum"),
        lambda: oracle.Modulated(oracle.Adam(), oracle.Plasticity(), target="momentum"),
    ),
    "momentum": (
        lambda: npx.with_plasticity(optax.trace(0.9), target="trust_ratio"),
        lambda: oracle.Modulated(oracle.Momentum(), oracle.Plasticity(), target="trust_ratio"),
    ),
    "controller": (
        lambda: npx.variants.control_learning_rate(optax.trace(0.9), plasticity_scale=1.5),
        lambda: oracle.Controlled(oracle.Momentum(), oracle.Plasticity(plasticity_scale=1.5)),
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("magnitude", [1e-3, 1.0])
def test_float32_agrees_to_single_precision(form, magnitude):
    library, reference = FORMS[form]
    assert_same_trajectory(
        optax.chain(library(), npx.homeostasis()),
        oracle.Chain(reference(), oracle.Homeostasis()),
        random_problem(11, magnitude),
        dtype=np.float32,
        rtol=1e-4,
        atol=1e-6,
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_larger_leaves_agree(form, dtype):
    library, reference = FORMS[form]
    single = dtype == np.float32
    assert_same_trajectory(
        optax.chain(library(), npx.homeostasis()),
        oracle.Chain(reference(), oracle.Homeostasis()),
        random_problem(12, shapes={"wide": (64, 257)}, steps=3),
        dtype=dtype,
        rtol=1e-4 if single else 1e-7 if form == "controller" else 1e-9,
        atol=1e-6 if single else 1e-9 if form == "controller" else 1e-12,
    )
