"""What the compiled step moves to and from memory, by XLA's own count, on ResNet-18's leaves."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import neuroplastic_optax as npx
from experiments import models

pytestmark = pytest.mark.usefixtures("fully_optimized")
LEAVES = jax.tree.leaves(
    nnx.state(nnx.eval_shape(lambda: models.ResNet(3, rngs=nnx.Rngs(0))), nnx.Param)
)
FLOAT32, BFLOAT16 = 4, 2  # bytes per entry
LARGE = jax.ShapeDtypeStruct((3, 3, 256, 256), jnp.float32)

counts_of_this_xla = pytest.mark.skipif(
    jax.__version_info__ < (0, 10, 2), reason="older XLA writes the operands of sums to memory"
)


def bytes_per_parameter(optimizer, params, *, donate=False, state_first=False):
    def step(params, state, gradients):
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    def step_state_first(state, params, gradients):
        return step(params, state, gradients)

    state = jax.eval_shape(optimizer.init, params)
    given = (state, params) if state_first else (params, state)
    jitted = jax.jit(
        step_state_first if state_first else step, donate_argnums=(0, 1) if donate else ()
    )
    cost = jitted.lower(*given, params).compile().cost_analysis()
    return cost["bytes accessed"] / sum(math.prod(p.shape) for p in jax.tree.leaves(params))


def floor(trace):
    """Bytes per entry of float32 params, where each loop of the program has one result."""
    gradient = update = param = FLOAT32
    new_traces = 3 * (trace + gradient + trace)
    means = gradient + 3 * trace
    modulated = gradient + 3 * trace + update
    norm = update
    new_param = param + update + param
    return new_traces + means + modulated + norm + new_param


def test_floors_are_those_of_the_documentation():
    assert (floor(FLOAT32), floor(BFLOAT16)) == (88, 64)


@counts_of_this_xla
def test_step_on_resnet18_reaches_the_floor():
    """But for 0.1%, the scalars of each leaf and the leaves of a few hundred entries."""
    assert sum(math.prod(leaf.shape) for leaf in LEAVES) == 11_173_962
    least = floor(FLOAT32)
    assert least <= bytes_per_parameter(npx.neuroplastic(0.1), LEAVES) <= 1.001 * least


@counts_of_this_xla
@pytest.mark.parametrize(("dtype", "trace"), [(jnp.float32, FLOAT32), (jnp.bfloat16, BFLOAT16)])
def test_step_on_a_large_leaf_reaches_the_floor(dtype, trace):
    measured = bytes_per_parameter(npx.neuroplastic(0.1, accumulator_dtype=dtype), LARGE)
    assert measured == pytest.approx(floor(trace), rel=1e-5)


@counts_of_this_xla
@pytest.mark.parametrize(
    ("optimizer", "documented"),
    [
        (optax.adam(0.1), 40),
        (npx.adamw_with_plasticity(0.1), 136),
        (
            optax.chain(
                npx.with_plasticity(optax.scale_by_adam()),
                npx.homeostasis(),
                optax.scale_by_learning_rate(0.1),
            ),
            148,
        ),
    ],
    ids=["adam", "adamw_with_plasticity", "with_homeostasis"],
)
def test_steps_with_adam_move_what_the_documentation_says(optimizer, documented):
    assert bytes_per_parameter(optimizer, LARGE) == pytest.approx(documented, rel=1e-5)


@pytest.mark.parametrize("optimizer", [optax.adam(0.1), npx.neuroplastic(0.1)], ids=["adam", "own"])
def test_donation_is_free_where_arguments_and_results_have_one_order(optimizer):
    """JAX pairs donated buffers with results of the same shape in order, not by what they hold."""
    plain = bytes_per_parameter(optimizer, LARGE)
    assert bytes_per_parameter(optimizer, LARGE, donate=True) == plain
    crossed = bytes_per_parameter(optimizer, LARGE, donate=True, state_first=True)
    assert crossed > plain + 8  # at least one array is copied


@pytest.mark.parametrize("shape", [(10_000_000,), (25, 400, 1000)])
def test_means_of_ten_million_entries(shape):
    """Read off the coefficient: a single signal, unbounded, is x / (mean(x) + eps)."""
    rng = np.random.default_rng(0)
    g, m = (rng.standard_normal(shape, np.float32) for _ in range(2))
    a, v = np.abs(m), 1 + np.square(g)

    def mean_by(weight, x, *traces):
        weights = dict.fromkeys(("activity_weight", "gradient_weight", "memory_weight"), 0.0)
        coefficient = jax.jit(
            lambda *arrays: npx.plasticity_coefficient(
                *arrays, **weights | {weight: 1.0}, min_alpha=0.0, max_alpha=1e6
            )
        )
        at = np.unravel_index(np.argmax(x), shape)
        return x[at] / np.float64(coefficient(g, *traces)[at])

    memory = np.abs(m) / (np.sqrt(v) + np.float32(1e-8))
    for weight, x in (("gradient_weight", np.abs(g)), ("activity_weight", a)):
        assert mean_by(weight, x, a, m, v) == pytest.approx(x.mean(dtype=np.float64), rel=1e-6)
    expected = memory.mean(dtype=np.float64)
    assert mean_by("memory_weight", memory, a, m, v) == pytest.approx(expected, rel=1e-6)
