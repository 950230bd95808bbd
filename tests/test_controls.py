"""The controls of the fair test change one thing about α and keep the rest."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuroplastic_optax as npx
from experiments import controls

SHAPES = {"kernel": (40, 50), "bias": (30,)}


def gradients(seed=0):
    """Heavy-tailed, so that α reaches its bounds from both sides."""
    generator = np.random.default_rng(seed)
    return {
        name: jnp.asarray(
            generator.standard_normal(shape) * np.exp(2 * generator.standard_normal(shape)),
            jnp.float32,
        )
        for name, shape in SHAPES.items()
    }


def after_steps(control, steps=4, seed=0, scale=2.0):
    """The last step's gradients, and its updates with and without the control."""
    schedule = optax.constant_schedule(scale)
    controlled = controls.scale_by_control(control, plasticity_scale=schedule, seed=seed)
    plain = npx.scale_by_plasticity(plasticity_scale=schedule)
    states = controlled.init(gradients()), plain.init(gradients())
    for i in range(steps):
        g = gradients(i)
        updates, state = controlled.update(g, states[0])
        full, plain_state = plain.update(g, states[1])
        states = state, plain_state
    return g, updates, full


def alpha(updates, g):
    return jax.tree.map(lambda u, g: np.asarray(u / g), updates, g)


def test_without_change_the_control_is_the_full_method():
    _, updates, full = after_steps(lambda alpha, *_: alpha)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-6), updates, full)


def test_clipped_keeps_alpha_in_the_published_bounds():
    g, updates, full = after_steps(controls.clipped)
    clipped, free = alpha(updates, g), alpha(full, g)
    for leaf in SHAPES:
        assert free[leaf].max() > 2.1
        np.testing.assert_allclose(clipped[leaf], np.clip(free[leaf], 0.2, 2.0), 1e-5)


def test_permuted_keeps_every_value_of_alpha_and_moves_it():
    g, updates, full = after_steps(controls.permuted)
    moved, kept = alpha(updates, g), alpha(full, g)
    for leaf in SHAPES:
        np.testing.assert_allclose(np.sort(moved[leaf], None), np.sort(kept[leaf], None), 1e-4)
    assert np.mean(np.isclose(moved["kernel"], kept["kernel"], 1e-4)) < 0.3


def test_permuted_moves_by_another_distance_in_another_seed():
    one, other = (after_steps(controls.permuted, seed=seed)[1]["kernel"] for seed in (0, 1))
    assert not np.allclose(one, other)


def test_random_keeps_mean_and_variance_of_alpha_and_nothing_else():
    g, updates, full = after_steps(controls.randomised)
    noise, kept = alpha(updates, g)["kernel"], alpha(full, g)["kernel"]
    standard_error = kept.std() / np.sqrt(kept.size)
    assert noise.mean() == pytest.approx(kept.mean(), abs=5 * standard_error)
    assert noise.std() == pytest.approx(kept.std(), rel=0.1)
    assert abs(np.corrcoef(noise.ravel(), kept.ravel())[0, 1]) < 0.1


def test_norm_matched_has_the_full_methods_norm_and_the_gradients_direction():
    g, updates, full = after_steps(controls.norm_matched)
    for leaf in SHAPES:
        np.testing.assert_allclose(
            jnp.linalg.norm(updates[leaf]), jnp.linalg.norm(full[leaf]), 1e-5
        )
        assert np.ptp(alpha(updates, g)[leaf]) < 1e-4
