"""Every public transformation has the generic properties of Optax's own, with Adam as control.

Tests are named ``test_<property>[<transformation>]``; ``--conformance-table`` prints them as a table.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import neuroplastic_optax as npx


@dataclasses.dataclass(frozen=True)
class Case:
    """A transformation under test: ``factory(**settings)``."""

    factory: Callable[..., optax.GradientTransformation]
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    static: tuple[str, ...] = ()
    """Settings that ``inject_hyperparams`` must leave alone: callables that are no schedules, and
    weights whose static zero shapes the state."""
    swept: dict[str, tuple[float, float]] = dataclasses.field(
        default_factory=lambda: {"max_alpha": (1.2, 2.0), "b1": (0.5, 0.9)}
    )
    converges_at: float | optax.Schedule = 1e-3

    def transformation(self, **changes: Any) -> optax.GradientTransformationExtraArgs:
        return self.factory(**self.settings | changes)

    def optimizer(
        self, learning_rate: float | optax.Schedule
    ) -> optax.GradientTransformationExtraArgs:
        if "learning_rate" in self.settings:
            return self.transformation(learning_rate=learning_rate)
        return optax.chain(self.transformation(), optax.scale_by_learning_rate(learning_rate))


def decaying(value, steps=20_000):
    """For updates whose size does not fall with the gradient's."""
    return optax.cosine_decay_schedule(value, steps)


# In float16 Adam's default eps of 1e-8 is zero, and 0 / 0 its update of a zero gradient.
ADAM = optax.scale_by_adam(eps=1e-6)
# The learning rate of -1 undoes the sign of an optimizer: positive updates, like Adam's above.
MUON = optax.contrib.muon(-1.0, eps=1e-6)
MODULATION = {"strength": (0.15, 1.0), "max_alpha": (1.2, 2.0)}


def modulation(converges_at=1e-3, **settings):
    return Case(npx.with_plasticity, settings, swept=MODULATION, converges_at=converges_at)


def by_rank(params):
    return jax.tree.map(lambda p: "matrices" if p.ndim > 1 else "others", params)


CASES = {
    "adam": Case(
        optax.adam,
        {"learning_rate": 0.1, "eps": 1e-6},
        swept={"learning_rate": (0.1, 0.2), "b1": (0.5, 0.9)},
        converges_at=decaying(1e-2),
    ),
    "plasticity": Case(npx.scale_by_plasticity),
    "gradient_weight_only": Case(
        npx.scale_by_plasticity,
        {"activity_weight": 0.0, "gradient_weight": 1.0, "memory_weight": 0.0},
        static=("activity_weight", "memory_weight"),
    ),
    "tensorwise": Case(npx.scale_by_plasticity, {"tensorwise": True}),
    "scheduled": Case(
        npx.scale_by_plasticity, {"plasticity_scale": npx.plasticity_warmup(2, 2, 1.5)}
    ),
    "bfloat16_traces": Case(
        npx.scale_by_plasticity,
        {"accumulator_dtype": jnp.bfloat16},
        static=("accumulator_dtype",),
    ),
    "diagnostics": Case(npx.scale_by_plasticity, {"diagnostics": "per_leaf"}),
    "homeostasis": Case(
        npx.homeostasis,
        swept={"max_update_norm": (0.5, 1.0), "adaptation_rate": (0.01, 1.0)},
        converges_at=decaying(1e-2),
    ),
    "bounded": Case(npx.add_bounded_plasticity),
    "orthogonal": Case(npx.add_orthogonal_plasticity),
    "modulated_update": modulation(base=ADAM, converges_at=decaying(1e-2)),
    "modulated_momentum": modulation(base=ADAM, target="momentum", converges_at=decaying(1e-2)),
    "modulated_trust": modulation(base=ADAM, target="trust_ratio", converges_at=decaying(1e-2)),
    "modulated_sgdm": modulation(base=optax.trace(0.9)),
    "modulated_muon": modulation(base=MUON, converges_at=decaying(1e-2)),
    "controlled": Case(
        npx.control_learning_rate,
        {"inner": ADAM},
        swept=MODULATION,
        converges_at=decaying(1e-2),
    ),
    "controlled_groups": Case(
        npx.control_learning_rate,
        {"inner": optax.trace(0.9), "groups": by_rank},
        static=("groups",),
        swept=MODULATION,
    ),
    "controlled_borrowing": Case(
        npx.control_learning_rate, {"inner": npx.scale_by_plasticity()}, swept=MODULATION
    ),
    "neuroplastic": Case(
        npx.neuroplastic,
        {"learning_rate": 0.1, "diagnostics": True},
        swept={"learning_rate": (0.1, 0.2), "max_alpha": (1.2, 2.0), "b1": (0.5, 0.9)},
        converges_at=decaying(1e-2),
    ),
    "gradient_only": Case(
        npx.gradient_only,
        {"learning_rate": 0.1},
        swept={"learning_rate": (0.1, 0.2), "max_alpha": (1.2, 1.5)},
        converges_at=decaying(1e-2),
    ),
    "adamw_with_plasticity": Case(
        npx.adamw_with_plasticity,
        {"learning_rate": 0.1, "eps": 1e-6},
        swept={"learning_rate": (0.1, 0.2), "strength": (0.15, 1.0), "b1": (0.5, 0.9)},
        converges_at=decaying(1e-2),
    ),
}


every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
STEPS = 4
SHAPES = {"bias": (3,), "kernel": (4, 3), "scale": ()}
assert_close = functools.partial(chex.assert_trees_all_close, rtol=1e-5, atol=1e-6)
assert_equal = chex.assert_trees_all_equal


def random_tree(seed, shapes=SHAPES, dtype=jnp.float32, magnitude=1.0):
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(magnitude * rng.normal(size=shape), dtype)
        for name, shape in shapes.items()
    }


def random_gradients(steps=STEPS, **changes):
    return [random_tree(seed, **changes) for seed in range(1, steps + 1)]


def follow(tx, params, gradients, state=None):
    """The updates of all steps and the last state, run operation by operation."""
    state = tx.init(params) if state is None else state
    all_updates = []
    for grads in gradients:
        updates, state = tx.update(grads, state, params)
        all_updates.append(updates)
    return all_updates, state


def training_step(tx):
    """A compiled step that gives its buffers away and may be traced only once."""

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    @chex.assert_max_traces(n=1)
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


def abstract(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


def copied(tree):
    return jax.tree.map(jnp.copy, tree)


# -- one step ------------------------------------------------------------------------------------


@every_case
def test_accepts_unknown_extra_args(case):
    tx, params, grads = case.transformation(), random_tree(0), random_tree(1)
    state = tx.init(params)
    chex.assert_trees_all_equal(
        tx.update(grads, state, params, unexpected=1.0), tx.update(grads, state, params)
    )


@every_case
def test_compiles_once_and_donates_its_buffers(case):
    """Unusable donations warn, and warnings are errors."""
    tx, params = case.optimizer(0.1), random_tree(0)
    state = tx.init(params)
    step = training_step(tx)
    given_away = [leaf for leaf in jax.tree.leaves((params, state)) if leaf.size]
    for grads in random_gradients():
        params, state = step(params, state, grads)
    assert all(leaf.is_deleted() for leaf in given_away)


@every_case
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_shares_no_buffer_between_state_leaves(case, compiled):
    tx, params = case.transformation(), random_tree(0)
    init = jax.jit(tx.init) if compiled else tx.init
    leaves = jax.tree.leaves((params, init(params)))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


@every_case
def test_map_params_is_a_no_op(case):
    tx, params = case.transformation(), random_tree(0)
    _, state = follow(tx, params, random_gradients(2))
    assert_equal(optax.tree.map_params(tx, lambda leaf: leaf, state), state)


@every_case
def test_map_params_meets_only_leaves_of_the_params_shape(case):
    tx, params = case.transformation(), random_tree(0)

    def same_shape(leaf, param):
        assert leaf.shape == param.shape
        return leaf

    optax.tree.map_params(tx, same_shape, tx.init(params), params)


@every_case
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_update_has_the_gradient_dtype(case, dtype):
    with jax.enable_x64(dtype == "float64"):
        tx, params = case.transformation(), random_tree(0, dtype=dtype)
        updates, _ = jax.eval_shape(tx.update, params, tx.init(params), params)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)


@every_case
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_state_is_stable_through_cond_and_scan(case, dtype):
    """Shapes, dtypes and weak types: none may move from one step to the next."""
    with jax.enable_x64(dtype == "float64"):
        tx, params = case.transformation(), random_tree(0, dtype=dtype)
        state = tx.init(params)

        def maybe(state, skip):
            updated = lambda: tx.update(params, state, params)  # noqa: E731
            updates, state = jax.lax.cond(skip, lambda: (params, state), updated)
            return state, updates

        def scanned(state):
            return jax.lax.scan(maybe, state, jnp.array([True, False]))[0]

        once = jax.eval_shape(tx.update, params, state, params)[1]
        many = jax.eval_shape(scanned, state)
        before = jax.eval_shape(lambda s: s, state)
    assert abstract(once) == abstract(many) == abstract(before)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(before))


@every_case
def test_constant_schedule_equals_number(case):
    params, gradients = random_tree(0), random_gradients()
    number, _ = follow(case.optimizer(0.05), params, gradients)
    schedule, _ = follow(case.optimizer(optax.constant_schedule(0.05)), params, gradients)
    assert_close(schedule, number)


@every_case
def test_inits_from_shapes_alone(case):
    tx, params = case.transformation(), random_tree(0)
    shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)
    chex.assert_trees_all_equal_shapes_and_dtypes(tx.init(shapes), tx.init(params))


@every_case
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("magnitude", [500.0, 1e-30])
def test_stays_finite(case, dtype, magnitude):
    tx = case.transformation()
    params = random_tree(0, dtype=dtype)
    gradients = [
        jax.tree.map(lambda p, sign=sign: jnp.full_like(p, sign * magnitude), params)
        for sign in (1, -1, 1)
    ]
    chex.assert_tree_all_finite(follow(tx, params, gradients))


@every_case
def test_differentiates(case):
    """Through two updates, with respect to the gradients and to a setting."""
    params, gradients = random_tree(0), random_gradients(2)
    name, (value, _) = next(iter(case.swept.items()))

    def length(value, gradients):
        updates, _ = follow(case.transformation(**{name: value}), params, gradients)
        return optax.tree.norm(updates)

    slopes = jax.grad(length, argnums=(0, 1))(value, gradients)
    chex.assert_tree_all_finite(slopes)
    assert optax.tree.norm(slopes) > 0


# -- convergence ---------------------------------------------------------------------------------

START = {"matrix": np.zeros((2, 2)), "parabola": [-1.0, 10.0, 1.0], "rosenbrock": np.zeros(2)}
MINIMUM = {
    "matrix": [[3.0, -2.0], [1.0, 4.0]],
    "parabola": [1.0, -1.0, 1.0],
    "rosenbrock": [1.0, 1.0],
}


def three_problems(params):
    x, y = params["rosenbrock"]
    squares = [
        jnp.sum((params[name] - jnp.asarray(MINIMUM[name])) ** 2) for name in ("matrix", "parabola")
    ]
    return sum(squares) + (1 - x) ** 2 + 100 * (y - x**2) ** 2


@every_case
def test_converges(case):
    """On a matrix problem, a parabola and the Rosenbrock function, leaf by leaf."""
    tx = case.optimizer(case.converges_at)
    params = {name: jnp.asarray(value, jnp.float32) for name, value in START.items()}

    @jax.jit
    def descend(params):
        def step(carry, _):
            params, state = carry
            updates, state = tx.update(jax.grad(three_problems)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), length=20_000)[0][0]

    final = descend(params)
    for name, minimum in MINIMUM.items():
        np.testing.assert_allclose(final[name], minimum, atol=1e-2, err_msg=name)


# -- wrappers ------------------------------------------------------------------------------------


@every_case
def test_equals_itself_under_inject_hyperparams(case):
    params, gradients = random_tree(0), random_gradients(2)
    injected = optax.inject_hyperparams(case.factory, static_args=case.static)(**case.settings)
    compiled = optax.GradientTransformationExtraArgs(injected.init, jax.jit(injected.update))
    updates, state = follow(case.transformation(), params, gradients)
    injected_updates, injected_state = follow(compiled, params, gradients)
    assert_close(injected_updates, updates)
    assert_close(injected_state.inner_state, state)


@every_case
def test_accumulates_under_multi_steps(case):
    """k - 1 updates of zero, then the update of the mean gradient."""
    every = 3
    tx, params, gradients = case.transformation(), random_tree(0), random_gradients(every)
    accumulating = optax.MultiSteps(tx, every).gradient_transformation()
    compiled = optax.GradientTransformationExtraArgs(
        accumulating.init, jax.jit(accumulating.update)
    )
    updates, _ = follow(compiled, params, gradients)
    mean = jax.tree.map(lambda *leaves: sum(leaves) / every, *gradients)
    expected, _ = follow(tx, params, [mean])
    assert_equal(updates[:-1], [optax.tree.zeros_like(params)] * (every - 1))
    assert_close(updates[-1:], expected)


@every_case
def test_skips_non_finite_steps_under_apply_if_finite(case):
    tx = optax.apply_if_finite(case.transformation(), max_consecutive_errors=5)
    params, good = random_tree(0), random_tree(1)
    bad = good | {"bias": good["bias"].at[0].set(jnp.nan)}
    update = jax.jit(tx.update)
    _, state = update(good, tx.init(params), params)
    updates, after_bad = update(bad, state, params)
    assert_equal(updates, optax.tree.zeros_like(params))
    assert_equal(after_bad.inner_state, state.inner_state)
    resumed, _ = update(good, after_bad, params)
    expected, _ = update(good, state, params)
    assert_equal(resumed, expected)


@every_case
def test_leaves_masked_out_leaves_alone(case):
    tx, params, gradients = case.transformation(), random_tree(0), random_gradients()
    masked = optax.masked(tx, {"bias": False, "kernel": True, "scale": True})
    updates, _ = follow(masked, params, gradients)

    def without_bias(tree):
        return {name: leaf for name, leaf in tree.items() if name != "bias"}

    expected, _ = follow(tx, without_bias(params), [without_bias(g) for g in gradients])
    assert_close([without_bias(u) for u in updates], expected)
    assert_equal([u["bias"] for u in updates], [g["bias"] for g in gradients])


@every_case
@pytest.mark.parametrize(
    "nothing", [None, optax.MaskedNode(), {}], ids=["none", "masked_node", "empty_dict"]
)
def test_passes_over_nodes_without_leaves(case, nothing):
    tx, params, gradients = case.transformation(), random_tree(0), random_gradients(2)
    with_hole = [grads | {"hole": nothing} for grads in gradients]
    updates, _ = follow(tx, params | {"hole": nothing}, with_hole)
    expected, _ = follow(tx, params, gradients)
    chex.assert_trees_all_equal_structs(updates, with_hole)
    assert_equal([{name: u[name] for name in params} for u in updates], expected)


@every_case
def test_accepts_an_empty_tree(case):
    tx = case.transformation()
    updates, state = tx.update({}, tx.init({}), {})
    assert updates == {}
    chex.assert_tree_all_finite(state)


@every_case
def test_zero_size_leaves_disturb_nothing(case):
    tx, params, gradients = case.transformation(), random_tree(0), random_gradients(2)
    empty = {"void": jnp.zeros((0,)), "void_rows": jnp.zeros((0, 3))}
    updates, state = follow(tx, params | empty, [grads | empty for grads in gradients])
    expected, _ = follow(tx, params, gradients)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates[0], params | empty)
    assert_close([{name: u[name] for name in params} for u in updates], expected)
    chex.assert_tree_all_finite(state)


@every_case
def test_works_inside_partition(case):
    tx, params, gradients = case.transformation(), random_tree(0), random_gradients()
    labels = {"bias": "plain", "kernel": "plastic", "scale": "plastic"}
    parts = {"plastic": tx, "plain": optax.sgd(0.1)}
    updates, _ = follow(optax.partition(parts, labels), params, gradients)

    def plastic(tree):
        return {name: leaf for name, leaf in tree.items() if labels[name] == "plastic"}

    expected, _ = follow(tx, plastic(params), [plastic(g) for g in gradients])
    assert_close([plastic(u) for u in updates], expected)


# -- vmap ----------------------------------------------------------------------------------------


def stacked(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@every_case
def test_vmap_over_seeds_equals_a_loop(case):
    tx, params = case.transformation(), [random_tree(seed) for seed in (10, 20, 30)]
    gradients = [[random_tree(seed + step) for seed in (10, 20, 30)] for step in (1, 2)]
    run = functools.partial(follow, tx)
    batched = jax.vmap(run)(stacked(params), [stacked(g) for g in gradients])
    each = [run(p, [g[i] for g in gradients]) for i, p in enumerate(params)]
    assert_close(batched, stacked(each))


@every_case
def test_vmap_over_hyperparameters_equals_a_loop(case):
    params, gradients = random_tree(0), random_gradients(2)

    def run(swept):
        return follow(case.transformation(**swept), params, gradients)

    swept = {name: jnp.asarray(values) for name, values in case.swept.items()}
    batched = jax.vmap(run)(swept)
    each = [run({name: values[i] for name, values in swept.items()}) for i in range(2)]
    assert_close(batched, stacked(each))
    first, second = ([u[i] for u in jax.tree.leaves(batched[0])] for i in range(2))
    assert not all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


# -- dtypes and devices --------------------------------------------------------------------------


@every_case
def test_mixes_float32_and_float64_leaves(case):
    with jax.enable_x64(True):
        tx, params, gradients = case.transformation(), random_tree(0), random_gradients()
        expected, _ = follow(tx, params, gradients)

        def widened(tree):
            return tree | {"kernel": tree["kernel"].astype(jnp.float64)}

        updates, _ = follow(tx, widened(params), [widened(g) for g in gradients])
    chex.assert_trees_all_equal_dtypes(updates[0], widened(params))
    assert_close(updates, [widened(u) for u in expected], rtol=1e-4)


SHARDED_SHAPES = {"bias": (4,), "kernel": (8, 4)}
LAYOUT = {"bias": P(), "kernel": P("x")}


def on_mesh(mesh, tree):
    return {
        name: jax.device_put(leaf, NamedSharding(mesh, LAYOUT[name])) for name, leaf in tree.items()
    }


def assert_traces_keep_their_sharding(tx, state, params):
    def check(leaf, param):
        assert leaf.sharding.is_equivalent_to(param.sharding, leaf.ndim)
        return leaf

    optax.tree.map_params(tx, check, state, params)


@every_case
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def test_sharded_over_eight_devices_equals_one_device(case, axis_type):
    tx = case.transformation()
    params = random_tree(0, SHARDED_SHAPES)
    gradients = random_gradients(2, shapes=SHARDED_SHAPES)
    expected, expected_state = follow(tx, params, gradients)
    mesh = jax.make_mesh((8,), ("x",), axis_types=(axis_type,))
    with jax.set_mesh(mesh):
        compiled = optax.GradientTransformationExtraArgs(tx.init, jax.jit(tx.update))
        spread = on_mesh(mesh, params)
        updates, state = follow(compiled, spread, [on_mesh(mesh, g) for g in gradients])
        for name, leaf in updates[-1].items():
            assert leaf.sharding.is_equivalent_to(spread[name].sharding, leaf.ndim)
        assert_traces_keep_their_sharding(tx, tx.init(spread), spread)
        assert_traces_keep_their_sharding(tx, state, spread)
    assert_close(jax.device_get((updates, state)), jax.device_get((expected, expected_state)))


@every_case
def test_state_has_the_same_type_on_an_explicit_mesh_after_a_step(case):
    """With shardings as parts of types; eager as well as compiled."""
    tx = case.transformation()
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        params = on_mesh(mesh, random_tree(0, SHARDED_SHAPES))
        state = tx.init(params)
        _, eager = tx.update(params, state, params)
        _, compiled = jax.eval_shape(tx.update, params, state, params)
        types = [jax.tree.map(jax.typeof, s) for s in (state, eager, jax.jit(tx.init)(params))]
        assert types[0] == types[1] == types[2]
        assert jax.tree.map(lambda s: s.sharding.spec, compiled) == jax.tree.map(
            lambda t: t.sharding.spec, types[0]
        )


# -- checkpoints ---------------------------------------------------------------------------------


@every_case
def test_resumes_from_a_checkpoint_bit_for_bit(case, tmp_path):
    tx, params, gradients = case.optimizer(0.1), random_tree(0), random_gradients(6)
    step = training_step(tx)
    carry = params, tx.init(params)
    for grads in gradients[:3]:
        carry = step(*carry, grads)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "checkpoint", carry)
        checkpointer.wait_until_finished()
        template = jax.tree.map(jnp.zeros_like, carry)
        restored = checkpointer.restore(tmp_path / "checkpoint", template)
    assert_equal(restored, carry)
    for grads in gradients[3:]:
        carry, restored = step(*carry, grads), step(*restored, grads)
    assert_equal(restored, carry)
