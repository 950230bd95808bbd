"""What is lowered for CPU, GPU and TPU, as far as it can be told without one."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import export

import neuroplastic_optax as npx
from neuroplastic_optax import _coefficient

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
SHAPES = {"kernel": (3, 3, 4, 8), "bias": (8,)}
OPTIMIZERS = {
    "neuroplastic": lambda: npx.neuroplastic(0.1, weight_decay=0.01),
    "per_leaf": lambda: npx.neuroplastic(0.1, diagnostics="per_leaf"),
    "bfloat16_traces": lambda: npx.neuroplastic(0.1, accumulator_dtype=jnp.bfloat16),
    "tensorwise": lambda: npx.neuroplastic(0.1, tensorwise=True),
    "gradient_only": lambda: npx.gradient_only(0.1),
    "adamw_with_plasticity": lambda: npx.adamw_with_plasticity(1e-3),
    "sgd_with_plasticity": lambda: npx.sgd_with_plasticity(0.05, momentum=0.9),
    "on_momentum": lambda: npx.with_plasticity(optax.trace(0.9), target="momentum"),
    "by_trust_ratio": lambda: npx.with_plasticity(optax.trace(0.9), target="trust_ratio"),
    "with_diagnostics": lambda: npx.with_diagnostics(optax.adam(1e-3), per_leaf=True),
    "bounded": npx.variants.add_bounded_plasticity,
    "orthogonal": lambda: npx.variants.add_orthogonal_plasticity(match_norm=True),
    "controlled": lambda: npx.variants.control_learning_rate(optax.scale_by_adam()),
}
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())


def step_of(tx):
    def step(params, state, gradients):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step)


def shapes_of(tx):
    params = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in SHAPES.items()}
    return params, jax.eval_shape(tx.init, params), params


def random_tree(seed):
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(rng.normal(size=shape) ** 3, jnp.float32)
        for name, shape in SHAPES.items()
    }


@every_optimizer
def test_a_step_is_exported_for_every_platform_in_one_program(make):
    exported = export.export(step_of(make()), platforms=PLATFORMS)(*shapes_of(make()))
    assert exported.platforms == PLATFORMS


def test_an_exported_step_gives_the_numbers_of_a_compiled_one():
    tx, params, gradients = npx.neuroplastic(0.1), random_tree(0), random_tree(1)
    exported = export.export(step_of(tx), platforms=PLATFORMS)(*shapes_of(tx))
    state = tx.init(params)
    chex.assert_trees_all_close(
        exported.call(params, state, gradients),
        step_of(tx)(params, state, gradients),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("platform", PLATFORMS)
def test_only_a_program_for_cpu_computes_the_signals_behind_a_barrier(platform):
    tx = npx.neuroplastic(0.1)
    program = step_of(tx).trace(*shapes_of(tx)).lower(lowering_platforms=(platform,)).as_text()
    assert ("optimization_barrier" in program) == (platform == "cpu")


@pytest.mark.parametrize("platform", PLATFORMS)
def test_only_a_program_for_gpu_sums_the_signals_together(platform):
    tx = npx.neuroplastic(0.1)
    program = step_of(tx).trace(*shapes_of(tx)).lower(lowering_platforms=(platform,)).as_text()
    sums = 3 if platform in ("cpu", "tpu") else 1
    norm = 1
    assert program.count("stablehlo.reduce(") == len(SHAPES) * (sums + norm)


BRANCHES = {
    "tpu": {"computed_twice": lambda operands: operands},
    "gpu": {
        "computed_twice": lambda operands: operands,
        "_sum_of_each": _coefficient._sums_by_one_reduction,
    },
}


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize(
    "name", ["neuroplastic", "gradient_only", "adamw_with_plasticity", "controlled"]
)
def test_all_branches_give_the_same_numbers(name, branch, monkeypatch):
    params, gradients = random_tree(0), random_tree(1)

    def two_steps():
        tx = OPTIMIZERS[name]()
        step, state, current = step_of(tx), tx.init(params), params
        for _ in range(2):
            current, state = step(current, state, gradients)
        return current, state

    on_cpu = two_steps()
    for function, replacement in BRANCHES[branch].items():
        monkeypatch.setattr(_coefficient, function, replacement)
    chex.assert_trees_all_close(two_steps(), on_cpu, rtol=1e-5, atol=1e-6)


def test_a_leaf_without_entries_has_sum_zero_on_gpu():
    empty = jnp.zeros((0, 3))
    chex.assert_trees_all_equal(
        _coefficient._sums_by_one_reduction((empty, None, empty)),
        _coefficient._sum_of_each((empty, None, empty)),
    )


@pytest.mark.parametrize("platform", PLATFORMS)
def test_only_a_program_for_gpu_takes_the_norms_of_base_and_residual_together(platform):
    tx = npx.with_plasticity(optax.scale_by_adam())
    program = step_of(tx).trace(*shapes_of(tx)).lower(lowering_platforms=(platform,)).as_text()
    sums_and_norms = 3 + 2 if platform in ("cpu", "tpu") else 1 + 1
    assert program.count("stablehlo.reduce(") == len(SHAPES) * sums_and_norms
