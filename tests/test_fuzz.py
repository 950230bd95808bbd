"""Whatever comes in: no crash, no NaN out of finite input, no bound broken, nothing bad hidden."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies as st

import neuroplastic_optax as npx

DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)
TREE = {  # one for all, since each is a compilation
    "scalar": ((), jnp.float32),
    "empty": ((0, 2), jnp.float32),
    "many": ((7,), jnp.float32),
    "bfloat16": ((2, 3), jnp.bfloat16),
    "float16": ((1, 2), jnp.float16),
}
STEPS = 2
MAGNITUDES = {jnp.float32: (-30, 30), jnp.bfloat16: (-30, 30), jnp.float16: (-7, 4.5)}  # of ten

numbers = functools.partial(st.floats, allow_nan=False, allow_infinity=False, width=32)
SETTINGS = {
    "activity_weight": numbers(0, 10),
    "gradient_weight": numbers(0.125, 10),
    "memory_weight": numbers(0, 10),
    "activity_decay": numbers(0, 0.9990234375),
    "b1": numbers(0, 0.9990234375),
    "b2": numbers(0, 0.9990234375),
    "min_alpha": numbers(0, 1),
    "max_alpha": numbers(1, 10),
    "plasticity_scale": numbers(-2, 3),
}

# name: the transformation from its settings
TRANSFORMATIONS = {
    "scale_by_plasticity": npx.scale_by_plasticity,
    "neuroplastic": functools.partial(npx.neuroplastic, 0.1),
    "tensorwise": functools.partial(npx.scale_by_plasticity, tensorwise=True),
    "low_precision": functools.partial(npx.scale_by_plasticity, accumulator_dtype=jnp.bfloat16),
    "bounded": npx.variants.add_bounded_plasticity,
    "orthogonal": npx.variants.add_orthogonal_plasticity,
    "orthogonal_match": functools.partial(npx.variants.add_orthogonal_plasticity, match_norm=True),
    "momentum_gain": lambda **settings: npx.with_plasticity(optax.trace(0.9), **settings),
    "momentum_target": lambda **settings: npx.with_plasticity(
        optax.identity(), target="momentum", **settings
    ),
    "trust_ratio": lambda **settings: npx.with_plasticity(
        optax.identity(), target="trust_ratio", **settings
    ),
    "controlled": lambda **settings: npx.variants.control_learning_rate(
        optax.identity(), **settings
    ),
    "diagnosed": functools.partial(npx.scale_by_plasticity, diagnostics="per_leaf"),
}


@st.composite
def leaves(draw, shape, dtype, special=()):
    """An array of any magnitudes, signs and zeros; ``special`` values anywhere, if given."""
    low, high = MAGNITUDES[dtype]
    entry = st.builds(
        lambda exponent, factor: factor * 10.0**exponent,
        numbers(low, high),
        st.sampled_from((-1.0, 0.0, 1.0)),
    )
    if special:
        entry |= st.sampled_from(special)
    size = int(np.prod(shape))
    values = np.array(draw(st.lists(entry, min_size=size, max_size=size)), np.float64)
    return jnp.asarray(values.reshape(shape), dtype)


@st.composite
def gradients(draw, special=()):
    """A few steps' gradients."""
    return [
        {name: draw(leaves(shape, dtype, special)) for name, (shape, dtype) in TREE.items()}
        for _ in range(STEPS)
    ]


@functools.cache
def compiled(name):
    """All steps of one transformation: the updates of each, and the last state."""

    @jax.jit
    def run(steps, settings):
        tx = TRANSFORMATIONS[name](**settings)
        state, found = tx.init(steps[0]), []
        for gradient in steps:
            updates, state = tx.update(gradient, state, steps[0])
            found.append(updates)
        return found, state

    return run


@functools.cache
def compiled_homeostasis():
    @jax.jit
    def run(update, settings):
        tx = npx.homeostasis(**settings)
        return tx.update(update, tx.init(update))[0]

    return run


def as_arrays(settings):
    return {name: jnp.float32(value) for name, value in settings.items()}


def fuzz(examples):
    return hypothesis.settings(max_examples=examples, deadline=None, derandomize=True)


@pytest.mark.parametrize("name", TRANSFORMATIONS)
@fuzz(30)
@hypothesis.given(steps=gradients(), settings=st.fixed_dictionaries(SETTINGS))
def test_finite_gradients_give_no_nan(name, steps, settings):
    """Nor do they change a shape or a dtype."""
    found, state = compiled(name)(steps, as_arrays(settings))
    for gradient, updates in zip(steps, found, strict=True):
        for leaf, update in zip(jax.tree.leaves(gradient), jax.tree.leaves(updates), strict=True):
            assert (leaf.shape, leaf.dtype) == (update.shape, update.dtype)
    for path, leaf in jax.tree_util.tree_leaves_with_path((found, state)):
        assert not np.isnan(np.asarray(leaf, np.float64)).any(), jax.tree_util.keystr(path)


def test_a_scalar_product_that_overflows_leaves_the_gradient_as_it_is():
    """The squared norm of the second gradient is just below the largest float32."""
    weights = {"activity_weight": 0.0, "gradient_weight": 1.0, "memory_weight": 1.0}
    decays = {"activity_decay": 0.0, "b1": 0.0, "b2": 0.0}
    bounds = {"min_alpha": 0.0, "max_alpha": 7.0, "plasticity_scale": 2.0}
    tx = npx.variants.add_orthogonal_plasticity(**weights, **decays, **bounds)
    gradient = -jnp.ones(6)
    _, state = tx.update(gradient, tx.init(gradient))
    gradient = gradient.at[5].set(-1.77982e19)
    updates, _ = tx.update(gradient, state)
    np.testing.assert_array_equal(updates, gradient)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
@fuzz(50)
@hypothesis.given(data=st.data())
def test_homeostasis_bounds_every_finite_update(dtype, data):
    update = data.draw(leaves((7,), dtype))
    settings = {
        "max_update_norm": data.draw(numbers(0.0009765625, 1000)),
        "target_rms": data.draw(numbers(0, 10)),
        "adaptation_rate": data.draw(numbers(0, 10)),
    }
    stable = np.asarray(compiled_homeostasis()(update, as_arrays(settings)), np.float64)
    assert np.isfinite(stable).all()
    rounding = 1 + 8 * float(jnp.finfo(dtype).eps)
    assert np.linalg.norm(stable) <= 1.5 * settings["max_update_norm"] * rounding
    assert (np.sign(stable) * np.sign(np.asarray(update, np.float64)) >= 0).all()


@pytest.mark.parametrize(
    ("name", "ratio"), [("bounded", 0.5), ("orthogonal", 0.5), ("orthogonal_match", 0.5)]
)
@fuzz(30)
@hypothesis.given(data=st.data(), settings=st.fixed_dictionaries(SETTINGS))
def test_a_residual_is_no_longer_than_its_share_of_the_gradient(name, ratio, data, settings):
    gradient = data.draw(leaves((7,), jnp.float32))
    found, _ = compiled(name)([gradient] * STEPS, as_arrays(settings))
    g, residual = np.asarray(gradient, np.float64), np.asarray(found[0] - gradient, np.float64)
    rounding = 8 * float(jnp.finfo(jnp.float32).eps)
    assert np.linalg.norm(residual) <= (ratio + rounding) * np.linalg.norm(g) + 1e-30


@fuzz(30)
@hypothesis.given(steps=gradients(), settings=st.fixed_dictionaries(SETTINGS))
def test_alpha_stays_between_its_bounds_where_the_scale_is_a_share(steps, settings):
    settings = settings | {"plasticity_scale": abs(settings["plasticity_scale"]) / 3}
    _, state = compiled("diagnosed")(steps, as_arrays(settings))
    measured = state.diagnostics
    assert settings["min_alpha"] * (1 - 1e-6) <= measured.alpha_min
    assert measured.alpha_max <= settings["max_alpha"] * (1 + 1e-6)


@pytest.mark.parametrize("name", ["scale_by_plasticity", "bounded", "momentum_gain"])
@fuzz(30)
@hypothesis.given(
    steps=gradients(special=(np.nan, np.inf, -np.inf)), settings=st.fixed_dictionaries(SETTINGS)
)
def test_what_is_not_finite_shows_in_the_same_step(name, steps, settings):
    """So that `optax.apply_if_finite` around the chain can catch it."""
    found, _ = compiled(name)(steps, as_arrays(settings))
    bad = {
        leaf
        for leaf, values in steps[0].items()
        if not np.isfinite(np.asarray(values, np.float64)).all()
    }
    for leaf in bad:
        assert not np.isfinite(np.asarray(found[0][leaf], np.float64)).all(), leaf


@fuzz(30)
@hypothesis.given(
    steps=gradients(special=(np.nan, np.inf, -np.inf)), settings=st.fixed_dictionaries(SETTINGS)
)
def test_one_leaf_s_trouble_stays_its_own(steps, settings):
    """α of a leaf depends on no other leaf."""
    found, _ = compiled("scale_by_plasticity")(steps, as_arrays(settings))
    for leaf in steps[0]:
        inputs = [np.asarray(step[leaf], np.float64) for step in steps]
        if all(np.isfinite(values).all() for values in inputs):
            for updates in found:
                assert not np.isnan(np.asarray(updates[leaf], np.float64)).any()
