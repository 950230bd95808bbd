"""Placebos of any arm: what they keep of it, and what they change."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.arms import ARMS
from experiments.cells import ConfigError
from experiments.naming import find_arm
from experiments.optimizers import Training

TRAINING = Training(steps_per_epoch=3, epochs=2)
STEPS = 3


def gradients() -> list[dict[str, jax.Array]]:
    rng = np.random.default_rng(0)
    shapes = {"bias": (5,), "kernel": (4, 5)}
    return [
        {
            name: jnp.asarray(rng.standard_normal(shape), jnp.float32)
            for name, shape in shapes.items()
        }
        for _ in range(STEPS)
    ]


def updates_of(name: str, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """The updates of an arm on given gradients, with parameters that stay."""
    optimizer = find_arm(name).make(0.1, Training(3, 2, seed=seed))
    params = jax.tree.map(jnp.ones_like, gradients()[0])
    state: Any = optimizer.init(params)
    found = []
    for gradient in gradients():
        update, state = optimizer.update(gradient, state, params)
        found.append(jax.tree.map(np.asarray, update))
    return found


def leaves(name: str, **how: int) -> list[np.ndarray]:
    return [leaf for update in updates_of(name, **how) for leaf in update.values()]


SIGNS = [-np.sign(leaf) for gradient in gradients() for leaf in gradient.values()]
DIRECTIONS = [-np.asarray(leaf) for gradient in gradients() for leaf in gradient.values()]


@pytest.mark.parametrize("arm", ["optax:lion", "adam", "memory_alone"])
class TestNormMatched:
    def test_has_the_size_of_the_arm_s_update_in_each_leaf(self, arm: str):
        for matched, own in zip(leaves(f"norm_matched({arm})"), leaves(arm), strict=True):
            np.testing.assert_allclose(np.linalg.norm(matched), np.linalg.norm(own), rtol=1e-5)

    def test_has_the_direction_of_the_gradient(self, arm: str):
        for matched, along in zip(leaves(f"norm_matched({arm})"), DIRECTIONS, strict=True):
            cosine = np.vdot(matched, along) / np.linalg.norm(matched) / np.linalg.norm(along)
            np.testing.assert_allclose(cosine, 1, rtol=1e-5)


def test_norm_matched_to_a_base_has_the_direction_of_the_base():
    for matched, along in zip(
        leaves("norm_matched(optax:lion, adam)"), leaves("adam"), strict=True
    ):
        cosine = np.vdot(matched, along) / np.linalg.norm(matched) / np.linalg.norm(along)
        np.testing.assert_allclose(cosine, 1, rtol=1e-5)


@pytest.mark.parametrize("arm", ["optax:adam", "rmsprop"])
class TestWithoutAlpha:
    def test_permuted_has_the_arm_s_sizes_on_other_coordinates(self, arm: str):
        moved = leaves(f"permuted({arm})")
        for after, before, sign in zip(moved, leaves(arm), SIGNS, strict=True):
            np.testing.assert_allclose(
                np.sort(np.abs(after).ravel()), np.sort(np.abs(before).ravel()), rtol=1e-6
            )
            np.testing.assert_array_equal(np.sign(after), sign)
        assert any(not np.allclose(a, b) for a, b in zip(moved, leaves(arm), strict=True))

    def test_random_draws_its_sizes_from_the_leaf_s(self, arm: str):
        for after, before, sign in zip(leaves(f"random({arm})"), leaves(arm), SIGNS, strict=True):
            known = np.abs(before).ravel()
            assert all(np.isclose(known, size, rtol=1e-6).any() for size in np.abs(after).ravel())
            np.testing.assert_array_equal(np.sign(after), sign)


def test_permuted_of_an_arm_with_an_alpha_moves_its_factors():
    for after, before, along in zip(
        leaves("permuted(memory_alone)"), leaves("memory_alone"), DIRECTIONS, strict=True
    ):
        factors = [np.sort((update / along).ravel()) for update in (after, before)]
        np.testing.assert_allclose(*factors, rtol=1e-4)


def test_factors_of_coordinates_that_do_not_move_are_the_mean_of_the_others():
    from experiments.placebos import permuted

    base, update = jnp.array([1.0, 0.0, 2.0]), jnp.array([3.0, 0.0, 2.0])
    found = {
        tuple(np.asarray(permuted(update, base, jax.random.key(seed, impl="rbg"), True)).tolist())
        for seed in range(20)
    }
    assert found == {(3.0, 0.0, 2.0), (1.0, 0.0, 4.0), (2.0, 0.0, 6.0)}


class TestPlantedTruths:
    def test_a_placebo_of_what_only_rescales_equals_it(self):
        for placebo, own in zip(leaves("norm_matched(sgd)"), leaves("sgd"), strict=True):
            np.testing.assert_allclose(placebo, own, rtol=1e-5)

    def test_a_placebo_of_what_does_more_does_not(self):
        pairs = zip(leaves("norm_matched(adam)"), leaves("adam"), strict=True)
        assert all(not np.allclose(placebo, own, rtol=1e-2) for placebo, own in pairs)


class TestPerturbed:
    def test_is_the_arm_but_for_one_rounding_error_in_the_first_step(self):
        first, *others = zip(updates_of("perturbed(adam)"), updates_of("adam"), strict=True)
        for after, before in zip(*map(jax.tree.leaves, first), strict=True):
            assert not np.array_equal(after, before)
            np.testing.assert_allclose(after, before, rtol=3e-7)
        for after, before in others:
            jax.tree.map(np.testing.assert_array_equal, after, before)


class TestNames:
    def test_of_the_full_method_s_placebos_are_the_built_in_arms(self):
        for name in ("permuted", "random", "norm_matched"):
            assert find_arm(f"{name}(full)") is ARMS[name]

    def test_tell_what_they_are_of(self):
        arm = find_arm("norm_matched(optax:lion, optax:adam)")
        assert arm.label == "lion, norm-matched to adam"
        assert arm.describe().startswith("norm_matched(optax:lion() [optax 0.")

    @pytest.mark.parametrize("name", ["permuted(adam, sgd, sgd)", "random(adam, x=1)"])
    def test_that_give_too_much_are_refused(self, name: str):
        with pytest.raises(ConfigError, match="takes an arm and, where it is not the gradient, a"):
            find_arm(name)


def test_a_perturbed_arm_has_no_base():
    with pytest.raises(ConfigError, match="perturbed takes an arm alone"):
        find_arm("perturbed(adam, sgd)")


def test_draws_follow_the_seed():
    same, other = (leaves("random(adam)", seed=seed) for seed in (0, 1))
    again = leaves("random(adam)", seed=0)
    assert all(np.array_equal(a, b) for a, b in zip(same, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(same, other, strict=True))
