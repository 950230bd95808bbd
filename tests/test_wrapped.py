"""Plasticity around a base without homeostasis, and its placebos."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuroplastic_optax as npx
from experiments.arms import ARMS
from experiments.optimizers import Training
from experiments.studies.families import FAMILIES

TRAINING = Training(steps_per_epoch=3, epochs=2, seed=7)
RNG = np.random.default_rng(0)
PARAMS = {
    "kernel": RNG.standard_normal((6, 4)).astype(np.float32),
    "bias": RNG.standard_normal(4).astype(np.float32),
}
GRADIENTS = [
    jax.tree.map(lambda leaf: RNG.standard_normal(leaf.shape).astype(np.float32), PARAMS)
    for _ in range(4)
]

every_family = pytest.mark.parametrize("name", FAMILIES)


def updates_of(arm: str, **settings) -> list[dict[str, jax.Array]]:
    """The updates on given gradients, at parameters that stay."""
    return updates(ARMS[arm].make(0.01, TRAINING, **settings))


def updates(optimizer: optax.GradientTransformation) -> list[dict[str, jax.Array]]:
    state = optimizer.init(PARAMS)
    found = []
    for gradient in GRADIENTS:
        update, state = optimizer.update(gradient, state, PARAMS)
        found.append(update)
    return found


def assert_equal(one: list, other: list, rtol: float = 2e-6) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol, 1e-9), one, other)


@every_family
def test_without_strength_it_is_its_base(name: str):
    decay = {"weight_decay": 0.1}
    assert_equal(updates_of(name, strength=0.0, **decay), updates_of(FAMILIES[name].base, **decay))


@every_family
def test_with_strength_it_is_not(name: str):
    plastic, base = updates_of(name), updates_of(FAMILIES[name].base, weight_decay=0.0)
    assert not np.allclose(plastic[-1]["kernel"], base[-1]["kernel"], rtol=1e-2)


@pytest.mark.parametrize(
    ("shares", "weights"),
    [((1.0, 0.3), (0, 0, 1)), ((0.0, 1.0), (1, 0, 0)), ((0.0, 0.0), (0, 1, 0))],
)
def test_its_shares_reach_the_corners_of_the_simplex(shares, weights):
    memory, activity = shares
    names = ("activity_weight", "gradient_weight", "memory_weight")
    around = npx.with_plasticity(
        optax.scale_by_adam(),
        strength=1.0,
        max_ratio=1.0,
        **dict(zip(names, map(float, weights), strict=True)),
    )
    expected = updates(optax.chain(around, optax.scale_by_learning_rate(0.01)))
    found = updates_of(
        "plastic_adam", memory_share=memory, activity_share=activity, weight_decay=0.0
    )
    assert_equal(found, expected)


@every_family
def test_norm_matched_it_has_its_size_and_its_base_s_direction(name: str):
    plastic = updates_of(name, weight_decay=0.0)
    base = updates_of(FAMILIES[name].base, weight_decay=0.0)
    for matched, of, direction in zip(
        updates_of(f"{name}_norm_matched", weight_decay=0.0), plastic, base, strict=True
    ):
        for leaf in PARAMS:
            norms = [jnp.linalg.norm(update[leaf]) for update in (matched, of, direction)]
            np.testing.assert_allclose(norms[0], norms[1], rtol=1e-5)
            along = jnp.sum(matched[leaf] * direction[leaf]) / (norms[0] * norms[2])
            np.testing.assert_allclose(along, 1, rtol=1e-5)


def test_permuted_it_has_the_same_factors_on_other_coordinates():
    factors = [
        np.sort((update["kernel"] / base["kernel"]).ravel())
        for arm in ("plastic_adam", "plastic_adam_permuted")
        for update, base in [
            (updates_of(arm, weight_decay=0.0)[-1], updates_of("adamw", weight_decay=0.0)[-1])
        ]
    ]
    np.testing.assert_allclose(*factors, rtol=1e-4)


@pytest.mark.parametrize("kind", ["norm_matched", "permuted"])
def test_its_placebos_leave_the_weight_decay_as_it_is(kind: str):
    with_decay = updates_of(f"plastic_adam_{kind}", weight_decay=0.5)
    without = updates_of(f"plastic_adam_{kind}", weight_decay=0.0)
    for one, other in zip(with_decay, without, strict=True):
        np.testing.assert_allclose(
            one["kernel"] - other["kernel"], -0.01 * 0.5 * PARAMS["kernel"], rtol=1e-3, atol=1e-6
        )


@every_family
def test_its_settings_may_be_traced(name: str):
    asked = {"memory_share": 0.5, "strength": 0.7, "min_alpha": 0.1, "weight_decay": 0.01}

    @jax.jit
    def first(settings):
        optimizer = ARMS[name].make(0.01, TRAINING, **settings)
        return optimizer.update(GRADIENTS[0], optimizer.init(PARAMS), PARAMS)[0]

    assert_equal([first(asked)], updates_of(name, **asked)[:1], rtol=1e-4)  # Muon's iteration
