"""Every public transformation has the generic properties of Optax's own, with Adam as control.

Tests are named ``test_<property>[<transformation>...]``; ``--conformance-table`` prints a table.
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


# In float16 the usual eps of 1e-8 is zero, and 0 / 0 Adam's update of a zero gradient.
EPS = 1e-4
ADAM = optax.scale_by_adam(eps=EPS)
# The learning rate of -1 undoes the sign of an optimizer: positive updates, like Adam's above.
# Compiled by itself, as it would build its loops anew in every step that is run eagerly.
_muon = optax.contrib.muon(-1.0, eps=EPS, ns_steps=1)
MUON = optax.GradientTransformationExtraArgs(_muon.init, jax.jit(_muon.update))
MODULATION = {"strength": (0.15, 1.0), "max_alpha": (1.2, 2.0)}


def modulation(converges_at=1e-3, **settings):
    return Case(npx.with_plasticity, settings, swept=MODULATION, converges_at=converges_at)


def by_rank(params):
    return jax.tree.map(lambda p: "matrices" if p.ndim > 1 else "others", params)


def diagnosed(learning_rate, b1=0.9):
    return npx.with_diagnostics(optax.adam(learning_rate, b1, eps=EPS), per_leaf=True)


CASES = {
    "adam": Case(
        optax.adam,
        {"learning_rate": 0.1, "eps": EPS},
        swept={"learning_rate": (0.1, 0.2), "b1": (0.5, 0.9)},
        converges_at=decaying(1e-2),
    ),
    "plasticity": Case(npx.scale_by_plasticity),
    "gradient_weight_only": Case(
        npx.scale_by_plasticity,
        {"activity_weight": 0.0, "gradient_weight": 1.0, "memory_weight": 0.0},
        static=("activity_weight", "memory_weight"),
    ),
    "tensorwise": Case(
        npx.scale_by_plasticity,
        {"tensorwise": True},
        swept={"gradient_weight": (0.4, 0.8), "max_alpha": (1.2, 2.0)},
    ),
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
    "bounded": Case(npx.variants.add_bounded_plasticity),
    "orthogonal": Case(npx.variants.add_orthogonal_plasticity),
    "modulated_update": modulation(base=ADAM, converges_at=decaying(1e-2)),
    "modulated_momentum": modulation(base=ADAM, target="momentum", converges_at=decaying(1e-2)),
    "modulated_trust": modulation(base=ADAM, target="trust_ratio", converges_at=decaying(1e-2)),
    "modulated_sgdm": modulation(base=optax.trace(0.9)),
    "modulated_muon": modulation(base=MUON, converges_at=decaying(1e-2)),
    "controlled": Case(
        npx.variants.control_learning_rate,
        {"inner": ADAM},
        swept=MODULATION,
        converges_at=decaying(1e-2),
    ),
    "controlled_groups": Case(
        npx.variants.control_learning_rate,
        {"inner": optax.trace(0.9), "groups": by_rank},
        static=("groups",),
        swept=MODULATION,
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
    "with_diagnostics": Case(
        diagnosed,
        {"learning_rate": 0.1},
        swept={"learning_rate": (0.1, 0.2), "b1": (0.5, 0.9)},
        converges_at=decaying(1e-2),
    ),
    "adamw_with_plasticity": Case(
        npx.adamw_with_plasticity,
        {"learning_rate": 0.1, "eps": EPS},
        swept={"learning_rate": (0.1, 0.2), "strength": (0.15, 1.0), "b1": (0.5, 0.9)},
        converges_at=decaying(1e-2),
    ),
    "sgd_with_plasticity": Case(
        npx.sgd_with_plasticity,
        {"learning_rate": 0.1, "momentum": 0.9},
        swept={"learning_rate": (0.1, 0.2), "strength": (0.15, 1.0), "momentum": (0.5, 0.9)},
    ),
}


def every_case_but(*left_out):
    names = [name for name in CASES if name not in left_out]
    return pytest.mark.parametrize("case", [CASES[name] for name in names], ids=names)


every_case = every_case_but()
STEPS = 4
SHAPES = {"kernel": (4, 3), "scale": ()}
ONE_LEAF = {"kernel": (4, 3)}  # where each test compiles a program of its own
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


def follow(tx, params, gradients):
    """The updates of all steps and the last state, run operation by operation."""
    state = tx.init(params)
    all_updates = []
    for grads in gradients:
        updates, state = tx.update(grads, state, params)
        all_updates.append(updates)
    return all_updates, state


def compiled(tx):
    return optax.GradientTransformationExtraArgs(tx.init, jax.jit(tx.update))


def train(tx, gradients, params, state):
    for grads in gradients:
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def only(name, tree):
    return {name: tree[name]}


def abstract(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


def plasticity_states(state):
    """What the library keeps in an optimizer state, leaving out the state of any base."""
    kinds = (npx.ScaleByPlasticityState, npx.monitoring.WithDiagnosticsState)
    found = []
    for node in jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, kinds)):
        if isinstance(node, npx.monitoring.WithDiagnosticsState):
            found += [node.overall, node.per_leaf, *plasticity_states(node.inner_state)]
        elif isinstance(node, kinds):
            found.append(node)
    return found


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
    chex.clear_trace_counter()

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    @chex.assert_max_traces(n=1)
    def step(params, state, grads):
        return train(tx, [grads], params, state)

    for grads in random_gradients():
        given_away = jax.tree.leaves((params, state))
        params, state = step(params, state, grads)
        assert all(leaf.is_deleted() for leaf in given_away if leaf.shape == SHAPES["kernel"])


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
@every_case
def test_shares_no_buffer_between_state_leaves(case, transform):
    tx, params = case.transformation(), random_tree(0)
    leaves = jax.tree.leaves((params, transform(tx.init)(params)))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


@every_case
def test_map_params_is_a_no_op(case):
    tx, params = case.transformation(), random_tree(0)
    _, state = follow(tx, params, random_gradients(2))
    assert_equal(optax.tree.map_params(tx, lambda leaf: leaf, state), state)


@every_case
def test_map_params_meets_only_leaves_of_the_params_shape(case):
    tx, params = case.transformation(), random_tree(0)

    shapes = {leaf.shape for leaf in jax.tree.leaves(params)}
    marked = optax.tree.map_params(
        tx, lambda leaf: leaf.shape in shapes, tx.init(params), transform_non_params=lambda _: True
    )
    assert all(jax.tree.leaves(marked))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
@every_case
def test_update_has_the_gradient_dtype(case, dtype):
    with jax.enable_x64(dtype == "float64"):
        tx, params = case.transformation(), random_tree(0, dtype=dtype)
        updates, _ = jax.eval_shape(tx.update, params, tx.init(params), params)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
@every_case
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


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("magnitude", [500.0, 1e-30])
@every_case
def test_stays_finite(case, dtype, magnitude):
    tx = case.transformation()
    params = random_tree(0, dtype=dtype)
    gradients = [
        jax.tree.map(lambda p, sign=sign: jnp.full_like(p, sign * magnitude), params)
        for sign in (1, -1, 1)
    ]
    updates, state = follow(tx, params, gradients)
    chex.assert_tree_all_finite(updates)
    chex.assert_tree_all_finite(plasticity_states(state))  # in float16 Adam's nu overflows


@every_case
def test_differentiates(case):
    """Through one update, with respect to the gradients and to a setting."""
    params, gradients = random_tree(0), random_gradients(2)
    name, (value, _) = next(iter(case.swept.items()))
    _, state = follow(case.transformation(**{name: value}), params, gradients[:1])

    def length(value, gradients):
        updates, _ = case.transformation(**{name: value}).update(gradients, state, params)
        return optax.tree.norm(updates)

    slopes = jax.jit(jax.grad(length, argnums=(0, 1)))(value, gradients[1])
    chex.assert_tree_all_finite(slopes)
    assert optax.tree.norm(slopes[1]) > 0


META_GRADIENTS = {
    "neuroplastic": lambda: npx.neuroplastic(1.0, diagnostics="per_leaf"),
    "tensorwise": lambda: npx.neuroplastic(1.0, tensorwise=True),
    "gradient_only": lambda: npx.gradient_only(1.0),
    "bounded": npx.variants.add_bounded_plasticity,
    "orthogonal": npx.variants.add_orthogonal_plasticity,
    "orthogonal_matched": lambda: npx.variants.add_orthogonal_plasticity(match_norm=True),
    "modulated_adam": lambda: npx.with_plasticity(optax.scale_by_adam(eps_root=1e-8)),
    "modulated_momentum": lambda: npx.with_plasticity(optax.trace(0.9), target="momentum"),
    "modulated_trust": lambda: npx.with_plasticity(optax.trace(0.9), target="trust_ratio"),
    "controlled": lambda: npx.variants.control_learning_rate(optax.trace(0.9)),
    "adamw_with_plasticity": lambda: npx.adamw_with_plasticity(1.0, eps_root=1e-8),
    "sgd_with_plasticity": lambda: npx.sgd_with_plasticity(1.0, momentum=0.9),
    "with_diagnostics": lambda: npx.with_diagnostics(optax.trace(0.9), per_leaf=True),
}


@pytest.mark.parametrize("make", META_GRADIENTS.values(), ids=META_GRADIENTS.keys())
def test_meta_gradients_are_finite_and_right_where_gradients_have_zeros(make):
    """Of a step size and of the start, through three steps, beside finite differences."""
    tx = make()
    zeros = {"entry": jnp.array([1.0, 0.0, 1.0]), "leaf": jnp.zeros(2), "all": jnp.ones(2)}
    start = {"entry": jnp.array([1.0, 2.0, -0.5]), "leaf": jnp.ones(2), "all": jnp.array([3.0, 1])}

    def unrolled(step_size, start):
        def step(carry, _):
            params, state = carry
            gradients = jax.tree.map(lambda p, z: p * z, params, zeros)
            updates, state = tx.update(gradients, state, params)
            return (jax.tree.map(lambda p, u: p - step_size * u, params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (start, tx.init(start)), length=3)
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))

    step_size, width = 0.05, 1e-3
    at = jax.jit(jax.value_and_grad(unrolled, argnums=(0, 1)))  # one program for both
    _, slopes = at(step_size, start)
    chex.assert_tree_all_finite(slopes)
    difference = at(step_size + width, start)[0] - at(step_size - width, start)[0]
    np.testing.assert_allclose(slopes[0], difference / (2 * width), rtol=2e-2, atol=2e-2)


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
    updates, state = follow(case.transformation(), params, gradients)
    injected_updates, injected_state = follow(compiled(injected), params, gradients)
    assert_close(injected_updates, updates)
    assert_close(injected_state.inner_state, state)


@every_case
def test_accumulates_under_multi_steps(case):
    """k - 1 updates of zero, then the update of the mean gradient."""
    every = 3
    tx, params = case.transformation(), random_tree(0, ONE_LEAF)
    gradients = random_gradients(every, shapes=ONE_LEAF)
    accumulating = optax.MultiSteps(tx, every).gradient_transformation()
    updates, _ = follow(compiled(accumulating), params, gradients)
    mean = jax.tree.map(lambda *leaves: sum(leaves) / every, *gradients)
    expected, _ = follow(tx, params, [mean])
    assert_equal(updates[:-1], [optax.tree.zeros_like(params)] * (every - 1))
    assert_close(updates[-1:], expected)


@every_case
def test_skips_non_finite_steps_under_apply_if_finite(case):
    tx = optax.apply_if_finite(case.transformation(), max_consecutive_errors=5)
    params, good = random_tree(0, ONE_LEAF), random_tree(1, ONE_LEAF)
    bad = good | {"kernel": good["kernel"].at[0, 0].set(jnp.nan)}
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
    updates, _ = follow(optax.masked(tx, {"kernel": True, "scale": False}), params, gradients)
    expected, _ = follow(tx, only("kernel", params), [only("kernel", g) for g in gradients])
    assert_close([only("kernel", u) for u in updates], expected)
    assert_equal([only("scale", u) for u in updates], [only("scale", g) for g in gradients])


@pytest.mark.parametrize(
    "nothing", [None, optax.MaskedNode(), {}], ids=["none", "masked_node", "empty_dict"]
)
@every_case
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


@every_case_but("modulated_muon")  # Muon divides by the number of rows
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
    parts = {"plastic": tx, "plain": optax.sgd(0.1)}
    labels = {"kernel": "plastic", "scale": "plain"}
    updates, _ = follow(optax.partition(parts, labels), params, gradients)
    expected, _ = follow(tx, only("kernel", params), [only("kernel", g) for g in gradients])
    assert_close([only("kernel", u) for u in updates], expected)


# -- vmap ----------------------------------------------------------------------------------------


def stacked(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@every_case
def test_vmap_over_seeds_equals_a_loop(case):
    def trees(step):
        return [random_tree(seed + step, ONE_LEAF) for seed in (10, 20, 30)]

    tx, params, gradients = case.transformation(), trees(0), [trees(1), trees(2)]
    mapped = optax.GradientTransformation(jax.vmap(tx.init), jax.vmap(tx.update))
    batched = follow(compiled(mapped), stacked(params), [stacked(g) for g in gradients])
    each = [follow(tx, p, [g[i] for g in gradients]) for i, p in enumerate(params)]
    assert_close(batched, stacked(each))


@every_case
def test_vmap_over_hyperparameters_equals_a_loop(case):
    params, gradients = random_tree(0, ONE_LEAF), random_gradients(2, shapes=ONE_LEAF)

    swept = {name: jnp.asarray(values) for name, values in case.swept.items()}
    each = [
        follow(case.transformation(**{name: v[i] for name, v in swept.items()}), params, gradients)
        for i in range(2)
    ]
    lengths = [float(optax.tree.norm(updates)) for updates, _ in each]
    assert lengths[0] != lengths[1]

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None, 0))
    def update(swept, grads, state):
        return case.transformation(**swept).update(grads, state, params)

    state = jax.vmap(lambda swept: case.transformation(**swept).init(params))(swept)
    batched = []
    for grads in gradients:
        updates, state = update(swept, grads, state)
        batched.append(updates)
    assert_close((batched, state), stacked(each))


# -- dtypes and devices --------------------------------------------------------------------------


@every_case
def test_mixes_float32_and_float64_leaves(case):
    tx, params, gradients = case.transformation(), random_tree(0), random_gradients(2)
    expected, _ = follow(tx, params, gradients)

    def widened(tree):
        return tree | {"kernel": tree["kernel"].astype(jnp.float64)}

    with jax.enable_x64(True):
        updates, _ = follow(compiled(tx), widened(params), [widened(g) for g in gradients])
        chex.assert_trees_all_equal_dtypes(updates[0], widened(params))
        assert_close(updates, [widened(u) for u in expected], rtol=1e-4)


SHARDED_SHAPES = {"kernel": (8, 4)}


def assert_traces_are_sharded(tx, state, sharding):
    marked = optax.tree.map_params(
        tx,
        lambda leaf: leaf.sharding.is_equivalent_to(sharding, leaf.ndim),
        state,
        transform_non_params=lambda _: True,
    )
    assert all(jax.tree.leaves(marked))


def assert_same_when_sharded(case, axis_type):
    tx = case.transformation()
    params = random_tree(0, SHARDED_SHAPES)
    gradients = random_gradients(2, shapes=SHARDED_SHAPES)
    expected, expected_state = follow(tx, params, gradients)
    mesh = jax.make_mesh((8,), ("x",), axis_types=(axis_type,))
    sharding = NamedSharding(mesh, P("x"))
    with jax.set_mesh(mesh):
        spread, spread_gradients = jax.device_put((params, gradients), sharding)
        updates, state = follow(compiled(tx), spread, spread_gradients)
        assert updates[-1]["kernel"].sharding.is_equivalent_to(sharding, 2)
        initial = tx.init(spread)
        assert_traces_are_sharded(tx, initial, sharding)
        assert_traces_are_sharded(tx, state, sharding)
        if axis_type == AxisType.Explicit:  # then shardings are parts of types
            assert jax.tree.map(jax.typeof, state) == jax.tree.map(jax.typeof, initial)
    assert_close(jax.device_get((updates, state)), jax.device_get((expected, expected_state)))


@every_case
def test_sharded_over_eight_devices_equals_one_device(case):
    assert_same_when_sharded(case, AxisType.Auto)


# Muon multiplies matrices without saying how the product is to be sharded.
@every_case_but("modulated_muon")
def test_sharded_in_types_equals_one_device(case):
    assert_same_when_sharded(case, AxisType.Explicit)


# -- checkpoints ---------------------------------------------------------------------------------


@every_case
def test_resumes_from_a_checkpoint_bit_for_bit(case, tmp_path):
    tx, params, gradients = case.optimizer(0.1), random_tree(0), random_gradients(6)
    carry = train(tx, gradients[:3], params, tx.init(params))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "checkpoint", carry)
        checkpointer.wait_until_finished()
        template = jax.tree.map(jnp.zeros_like, carry)
        restored = checkpointer.restore(tmp_path / "checkpoint", template)
    assert_equal(restored, carry)
    assert_equal(train(tx, gradients[3:], *restored), train(tx, gradients[3:], *carry))
