"""The published implementation's trajectories, reproduced step by step."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from neuroplastic_optax import (
    diagnostics,
    gradient_only,
    homeostasis,
    neuroplastic,
    plasticity_warmup,
    scale_by_plasticity,
    with_diagnostics,
    with_plasticity,
)
from neuroplastic_optax.schedules import late_ramp
from neuroplastic_optax.variants import (
    add_bounded_plasticity,
    add_orthogonal_plasticity,
    control_learning_rate,
)

as_users_compile_them = pytest.mark.usefixtures("fully_optimized")
GOLDEN = Path(__file__).parent / "golden"
RTOL, ATOL = 1e-5, 1e-6
STEPS_PER_EPOCH, STEPS = 2, 8


def H(**settings):  # noqa: N802 - as in the protocol's table
    return with_diagnostics(homeostasis(**settings), prefix="homeostasis/")


PLASTICITY = functools.partial(scale_by_plasticity, diagnostics=True)


def descend(*parts, learning_rate=0.1):
    return optax.chain(
        with_diagnostics(optax.chain(*parts)), optax.scale_by_learning_rate(learning_rate)
    )


NORMS = {
    "raw_gradient_norm": "gradient_norm",
    "raw_update_norm": "homeostasis/gradient_norm",
    "effective_update_norm": "homeostasis/update_norm",
}


CASES = {
    "full": lambda: descend(PLASTICITY(), H()),
    "full_scale2_warmup2": lambda: descend(
        PLASTICITY(plasticity_scale=plasticity_warmup(STEPS_PER_EPOCH, 2, 2.0)), H()
    ),
    "gradient_only": lambda: descend(PLASTICITY(0.0, 1.0, 0.0, min_alpha=0.5, max_alpha=1.5), H()),
    "tensorwise": lambda: descend(PLASTICITY(tensorwise=True), H()),
    "weight_decay_coupled": lambda: descend(PLASTICITY(), optax.add_decayed_weights(0.05), H()),
    "homeostasis": lambda: descend(
        PLASTICITY(), H(max_update_norm=0.5, target_rms=0.3, adaptation_rate=1.0)
    ),
    "bounded_residual": lambda: descend(
        add_bounded_plasticity(max_ratio=0.3, diagnostics=True), H()
    ),
    "orthogonal_match_late": lambda: descend(
        add_orthogonal_plasticity(
            strength=late_ramp(STEPS, steps_per_epoch=STEPS_PER_EPOCH, value=0.3),
            max_ratio=0.5,
            match_norm=True,
            diagnostics=True,
        ),
        H(),
    ),
    "adam_gain": lambda: descend(
        with_plasticity(
            optax.scale_by_adam(),
            strength=0.15,
            max_ratio=0.25,
            target="update",
            diagnostics=True,
        ),
        H(),
        optax.add_decayed_weights(0.01),
        learning_rate=0.01,
    ),
    "sgdm_gain": lambda: descend(
        with_plasticity(
            optax.chain(optax.add_decayed_weights(0.01), optax.trace(0.9)),
            strength=0.15,
            max_ratio=0.25,
            target="update",
            diagnostics=True,
        ),
        H(),
    ),
    "controller_global": lambda: descend(
        control_learning_rate(
            optax.chain(PLASTICITY(plasticity_scale=1.5), H()),
            strength=0.5,
            low=0.8,
            high=1.2,
            plasticity_scale=1.5,
        )
    ),
}


def load(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        trees = {}
        for key in file.files:
            kind, leaf = key.split("/", 1)
            trees.setdefault(kind, {})[leaf] = file[key]
    return trees


@functools.cache
def run_case(name):
    return run(CASES[name](), load(name))


def run(optimizer, golden):
    """Parameters and optimizer state after each step."""
    params = jax.tree.map(jnp.asarray, golden["init"])
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    trajectory = []
    for i in range(STEPS):
        grads = jax.tree.map(lambda g, i=i: jnp.asarray(g[i]), golden["grad"])
        params, state = step(params, state, grads)
        trajectory.append((params, state))
    return trajectory


@as_users_compile_them
@pytest.mark.parametrize("name", CASES)
def test_parameters_agree_after_every_step(name):
    golden = load(name)
    trajectory = run_case(name)
    for i, (params, _) in enumerate(trajectory):
        for leaf, value in params.items():
            np.testing.assert_allclose(
                value, golden["param"][leaf][i], RTOL, ATOL, err_msg=f"{leaf} after step {i + 1}"
            )


@as_users_compile_them
@pytest.mark.parametrize("name", CASES)
def test_final_traces_agree(name):
    golden = load(name)
    _, state = run_case(name)[-1]
    copies = {"gradient_only": 0, "controller_global": 2}.get(name, 1)
    for trace, field in (("activity", "activity"), ("mu", "memory_mu"), ("nu", "memory_nu")):
        found = [tree for _, tree in optax.tree.get_all_with_path(state, field) if tree is not None]
        assert len(found) == copies, trace
        for tree in found:
            for leaf, value in tree.items():
                np.testing.assert_allclose(value, golden[trace][leaf], RTOL, ATOL, err_msg=leaf)


@as_users_compile_them
@pytest.mark.parametrize("name", CASES)
def test_diagnostics_agree_after_every_step(name):
    golden = load(name)
    trajectory = run_case(name)
    for i, (_, state) in enumerate(trajectory):
        measured = diagnostics(state)
        measured |= {name: measured[ours] for name, ours in NORMS.items()}
        if name == "controller_global":  # the reference counts the multiplier into this norm
            measured["effective_update_norm"] *= optax.tree.get(state, "multiplier")[0]
        for statistic, expected in golden["diag"].items():
            np.testing.assert_allclose(
                measured[statistic], expected[i], 1e-4, 1e-6, err_msg=f"{statistic}, step {i + 1}"
            )


def test_the_aliases_are_the_chains():
    """What they are made of, not what the compiler makes of it: the chains are compiled above."""
    for alias, name in (
        (neuroplastic(0.1), "full"),
        (gradient_only(0.1), "gradient_only"),
        (neuroplastic(0.1, tensorwise=True), "tensorwise"),
    ):
        golden = load(name)
        trajectory = run(alias, golden)
        for leaf, value in trajectory[-1][0].items():
            np.testing.assert_allclose(value, golden["param"][leaf][-1], RTOL, ATOL)
