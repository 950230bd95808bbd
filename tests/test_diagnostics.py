"""Diagnostics equal NumPy's statistics of α, follow every wrapper, and cost nothing when off."""

import collections
import re

import chex
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import neuroplastic_optax as npx
from neuroplastic_optax._coefficient import coefficient

SHAPES = {"empty": (0, 3), "large": (16, 5), "single": (1,), "scalar": ()}
NON_EMPTY = [name for name in sorted(SHAPES) if name != "empty"]
STATISTICS = npx.monitoring.PlasticityDiagnostics._fields[:7]


def random_tree(seed, shapes=SHAPES, scale=1.0):
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(scale * rng.normal(size=shape) ** 3, jnp.float32)
        for name, shape in shapes.items()
    }


PARAMS = random_tree(0)
GRADIENTS = [random_tree(seed) for seed in (1, 2, 3)]


def follow(tx, gradients=GRADIENTS, params=PARAMS):
    state = tx.init(params)
    for grads in gradients:
        updates, state = tx.update(grads, state, params)
    return updates, state


def numpy_statistics(alpha, low=0.2, high=2.0):
    """The documented statistics of one array of α, in the order of the fields."""
    alpha = np.asarray(alpha, np.float64).ravel()
    return {
        "alpha_mean": alpha.mean(),
        "alpha_std": alpha.std(),
        "alpha_min": alpha.min(),
        "alpha_max": alpha.max(),
        "fraction_at_min": np.mean(alpha <= np.float32(low)),
        "fraction_at_max": np.mean(alpha >= np.float32(high)),
        "fraction_negative": np.mean(alpha < 0),
    }


def joined(tree):
    return np.concatenate([np.ravel(tree[name]) for name in sorted(tree)])


def alphas_after(state, gradients, **settings):
    """α from the new state, an entry for each entry of the gradient."""
    return {
        name: np.broadcast_to(
            npx.plasticity_coefficient(
                g, state.activity[name], state.memory_mu[name], state.memory_nu[name], **settings
            ),
            g.shape,
        )
        for name, g in gradients.items()
    }


@pytest.mark.parametrize("settings", [{}, {"plasticity_scale": 6.0}, {"tensorwise": True}], ids=str)
@pytest.mark.parametrize("kind", [True, "per_leaf"])
def test_equal_numpy_statistics_of_alpha(settings, kind):
    _, state = follow(npx.scale_by_plasticity(diagnostics=kind, **settings))
    alphas = alphas_after(state, GRADIENTS[-1], **settings)
    measured = npx.diagnostics(state, PARAMS)
    expected = numpy_statistics(joined(alphas))
    for name, value in expected.items():
        np.testing.assert_allclose(measured[name], value, rtol=1e-5, atol=1e-7, err_msg=name)
    if "plasticity_scale" in settings:
        assert measured["fraction_negative"] > 0


def test_rows_are_the_statistics_of_each_leaf():
    _, state = follow(npx.scale_by_plasticity(diagnostics="per_leaf"))
    alphas = alphas_after(state, GRADIENTS[-1])
    chex.assert_shape(state.diagnostics.per_leaf, (len(SHAPES), len(STATISTICS)))
    measured = npx.diagnostics(state, PARAMS)
    for leaf in NON_EMPTY:
        expected = numpy_statistics(alphas[leaf])
        for name, value in expected.items():
            np.testing.assert_allclose(
                measured[f"{name}/{leaf}"], value, rtol=1e-5, atol=1e-6, err_msg=f"{name}/{leaf}"
            )
    assert all(float(measured[f"{name}/empty"]) == 0 for name in STATISTICS)
    assert measured.keys() == {
        *STATISTICS,
        *(f"{name}/{leaf}" for name in STATISTICS for leaf in SHAPES),
    }


@pytest.mark.parametrize("settings", [{}, {"plasticity_scale": 6.0}, {"tensorwise": True}], ids=str)
def test_histograms_are_numpys(settings):
    _, state = follow(npx.scale_by_plasticity(diagnostics="per_leaf", **settings))
    histograms = optax.tree.get(state, "alpha_histogram")
    chex.assert_shape(histograms, (len(SHAPES), len(npx.monitoring.ALPHA_EDGES) + 1))
    edges = np.array([-np.inf, *np.float32(npx.monitoring.ALPHA_EDGES), np.inf], np.float32)
    for row, (leaf, alpha) in zip(
        np.asarray(histograms),
        sorted(alphas_after(state, GRADIENTS[-1], **settings).items()),
        strict=True,
    ):
        # NumPy's last bin is closed at infinity, which no α reaches.
        counts, _ = np.histogram(np.ravel(alpha), edges)
        np.testing.assert_allclose(row, counts / max(alpha.size, 1), atol=1e-6, err_msg=leaf)
        assert leaf == "empty" or row.sum() == pytest.approx(1)


@pytest.mark.parametrize("bound", ["min_alpha", "max_alpha"])
def test_histograms_count_a_bound_in_the_bin_that_begins_there(bound):
    settings = {"min_alpha": 0.2, "max_alpha": 0.7}
    g = jnp.asarray([0.0, 1.0, 1.0, 1.0]) if bound == "min_alpha" else jnp.ones(4)
    tx = npx.scale_by_plasticity(diagnostics="per_leaf", **settings)
    _, state = tx.update(g, tx.init(g))
    at_bound = state.diagnostics.alpha_histogram[
        0, npx.monitoring.ALPHA_EDGES.index(settings[bound]) + 1
    ]
    assert float(at_bound) == (0.25 if bound == "min_alpha" else 1.0)


def test_are_zero_before_the_first_step():
    for kind in (True, "per_leaf"):
        state = npx.scale_by_plasticity(diagnostics=kind).init(PARAMS)
        for value in npx.diagnostics(state, PARAMS).values():
            assert value.dtype == jnp.float32
            assert float(value) == 0


@pytest.mark.parametrize("scale", [0.1, 1 / 3, 2 / 3, 0.9, 1.3, 1.5])
def test_count_entries_on_a_bound_at_any_scale(scale):
    """Half of the entries have no gradient at all: their α is min_alpha whatever γ is."""
    g = jnp.asarray([0.0, 1.0] * 8)
    tx = npx.scale_by_plasticity(plasticity_scale=scale, diagnostics=True)
    _, state = tx.update(g, tx.init(g))
    assert float(state.diagnostics.fraction_at_min) == 0.5


def test_norms_do_not_overflow_in_half_precision():
    g = {"w": jnp.full(4096, 100.0, jnp.float16)}
    tx = npx.neuroplastic(0.1, diagnostics=True)
    _, state = tx.update(g, tx.init(g))
    measured = npx.diagnostics(state)
    np.testing.assert_allclose(measured["gradient_norm"], 6400.0, rtol=1e-3)
    np.testing.assert_allclose(measured["update_norm"], 0.1, rtol=1e-2)


# -- reading -------------------------------------------------------------------------------------


def test_optax_finds_them_in_any_state():
    tx = optax.chain(optax.clip_by_global_norm(1.0), npx.neuroplastic(0.1, diagnostics=True))
    _, state = follow(tx)
    measured = npx.diagnostics(state)
    for name, value in measured.items():
        np.testing.assert_array_equal(optax.tree.get(state, name), value)
    assert measured.keys() == {*STATISTICS, *npx.monitoring.UPDATE_STATISTICS}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: optax.apply_if_finite(tx, 3),
        lambda tx: optax.MultiSteps(tx, 1).gradient_transformation(),
        lambda tx: optax.masked(tx, dict.fromkeys(SHAPES, True)),
        lambda tx: optax.partition({"all": tx}, dict.fromkeys(SHAPES, "all")),
        lambda tx: npx.variants.control_learning_rate(tx),
    ],
    ids=["apply_if_finite", "multi_steps", "masked", "partition", "control_learning_rate"],
)
def test_are_found_inside_wrappers(wrap):
    tx = npx.scale_by_plasticity(diagnostics="per_leaf")
    _, expected = follow(tx)
    wrapped = wrap(tx)
    _, state = follow(optax.GradientTransformation(wrapped.init, jax.jit(wrapped.update)))
    chex.assert_trees_all_close(
        npx.diagnostics(state, PARAMS), npx.diagnostics(expected, PARAMS), rtol=1e-6
    )


@pytest.mark.parametrize(
    "tx",
    [
        npx.variants.add_bounded_plasticity(diagnostics=True),
        npx.variants.add_orthogonal_plasticity(diagnostics=True),
        npx.with_plasticity(optax.scale_by_adam(), diagnostics=True),
        npx.with_plasticity(
            optax.scale_by_adam(), mask=dict.fromkeys(SHAPES, True), diagnostics=True
        ),
        npx.variants.control_learning_rate(optax.scale_by_adam(), diagnostics=True),
        npx.variants.control_learning_rate(npx.scale_by_plasticity(), diagnostics=True),
    ],
    ids=["bounded", "orthogonal", "modulated", "masked", "controlled", "controlled_plasticity"],
)
def test_every_form_measures_the_same_alpha(tx):
    _, state = follow(tx)
    measured = npx.diagnostics(state)
    _, reference = follow(npx.scale_by_plasticity(diagnostics=True))
    for name in STATISTICS:
        np.testing.assert_allclose(
            measured[name], getattr(reference.diagnostics, name), rtol=1e-6, err_msg=name
        )


@pytest.mark.parametrize("wrap", ["mask", "optax.masked"])
def test_of_a_masked_tree_are_read_with_the_params_that_the_user_has(wrap):
    mask = {name: name == "large" for name in SHAPES}
    if wrap == "mask":
        tx = npx.with_plasticity(optax.identity(), mask=mask, diagnostics="per_leaf")
    else:
        tx = optax.masked(npx.scale_by_plasticity(diagnostics="per_leaf"), mask)
    _, state = follow(tx)
    measured = npx.diagnostics(state, PARAMS)
    assert measured.keys() == {*STATISTICS, *(f"{name}/large" for name in STATISTICS)}
    for name in STATISTICS:
        np.testing.assert_allclose(measured[name], measured[f"{name}/large"], rtol=1e-6)


WITHOUT_TRACES = {"activity_weight": 0.0, "memory_weight": 0.0}


def masked_without_traces(diagnostics="per_leaf", **mask):
    mask = {name: name == "large" for name in SHAPES} | mask
    return npx.with_plasticity(
        optax.identity(), mask=mask, diagnostics=diagnostics, **WITHOUT_TRACES
    )


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_of_a_masked_tree_without_traces_are_read_with_the_params_that_the_user_has(transform):
    tx = masked_without_traces(single=True)
    _, state = follow(optax.GradientTransformation(tx.init, transform(tx.update)))
    measured = transform(npx.diagnostics)(state, PARAMS)
    chosen = ("large", "single")
    assert measured.keys() == {
        *STATISTICS,
        *(f"{name}/{leaf}" for name in STATISTICS for leaf in chosen),
    }
    for leaf in chosen:
        alpha = npx.plasticity_coefficient(GRADIENTS[-1][leaf], None, None, None, **WITHOUT_TRACES)
        for name, value in numpy_statistics(alpha).items():
            np.testing.assert_allclose(
                measured[f"{name}/{leaf}"], value, rtol=1e-5, atol=1e-6, err_msg=f"{name}/{leaf}"
            )


def test_the_names_of_a_masked_tree_without_traces_add_no_array_to_the_state():
    _, state = follow(masked_without_traces())
    _, traced = follow(npx.with_plasticity(optax.scale_by_adam(), diagnostics="per_leaf"))
    kept, usual = state.plasticity.diagnostics, traced.plasticity.diagnostics
    assert len(jax.tree.leaves(kept)) == len(jax.tree.leaves(usual))
    assert usual.leaves is None
    assert (
        masked_without_traces(diagnostics=True).init(PARAMS).plasticity.diagnostics.leaves is None
    )


def test_the_names_of_a_masked_tree_without_traces_go_through_map_params():
    tx = masked_without_traces()
    _, state = follow(tx)
    chex.assert_trees_all_equal(optax.tree.map_params(tx, lambda leaf: leaf, state), state)
    # With a second tree a mask needs `is_leaf`, as Optax says of its own.
    is_masked = lambda node: isinstance(node, optax.MaskedNode)  # noqa: E731
    beside = optax.tree.map_params(tx, lambda leaf, _: leaf, state, PARAMS, is_leaf=is_masked)
    chex.assert_trees_all_equal(beside, state)


@pytest.mark.parametrize("way", ["orbax", "flax.serialization", "migrate_state", "donation"])
def test_the_names_of_a_masked_tree_without_traces_stay_with_the_state(way, tmp_path):
    tx = masked_without_traces()
    _, state = follow(tx)
    expected = npx.diagnostics(state, PARAMS)
    if way == "orbax":
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / "state", state)
            checkpointer.wait_until_finished()
            state = checkpointer.restore(tmp_path / "state", jax.eval_shape(tx.init, PARAMS))
    elif way == "flax.serialization":
        written = flax.serialization.to_bytes(state)
        state = flax.serialization.from_bytes(tx.init(PARAMS), written)
    elif way == "migrate_state":
        _, off = follow(masked_without_traces(diagnostics=False), GRADIENTS[:-1])
        state = npx.migrate_state(off, tx, PARAMS).state
        _, state = tx.update(GRADIENTS[-1], state, PARAMS)
    else:
        _, state = follow(tx, GRADIENTS[:-1])
        _, state = jax.jit(tx.update, donate_argnums=1)(GRADIENTS[-1], state, PARAMS)
    chex.assert_trees_all_close(npx.diagnostics(state, PARAMS), expected, rtol=1e-6)


def test_are_an_empty_dict_where_none_are_kept():
    assert npx.diagnostics(npx.neuroplastic(0.1).init(PARAMS)) == {}
    assert npx.diagnostics(optax.adam(0.1).init(PARAMS)) == {}


@pytest.mark.parametrize(
    ("params", "got"), [(None, "None"), ({"w": 1.0}, "a tree of 1 leaves")], ids=["none", "other"]
)
def test_ask_for_the_params_that_name_the_rows(params, got):
    state = npx.with_diagnostics(optax.sgd(0.1), per_leaf=True).init(PARAMS)
    with pytest.raises(ValueError, match=f"params must name the 4 leaves .* got {got}"):
        npx.diagnostics(state, params)


def test_an_empty_tree_has_them_all_zero():
    tx = npx.scale_by_plasticity(diagnostics="per_leaf")
    _, state = tx.update({}, tx.init({}))
    assert {float(value) for value in npx.diagnostics(state, {}).values()} == {0.0}


# -- program transformations ---------------------------------------------------------------------

SMALL = {"large": (8, 5), "single": (1,)}
SMALL_GRADIENTS = [random_tree(seed, SMALL) for seed in (1, 2)]
MEASURED = npx.neuroplastic(0.1, diagnostics="per_leaf")


def test_follow_vmap():
    """Every value has the mapped axis."""
    batch = [jax.tree.map(lambda g, k=k: k * g, SMALL_GRADIENTS[0]) for k in (1.0, 0.01)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batch)
    states = jax.vmap(MEASURED.init)(stacked)
    _, state = jax.jit(jax.vmap(MEASURED.update))(stacked, states, stacked)
    mapped = npx.diagnostics(state, SMALL_GRADIENTS[0])
    for i, gradients in enumerate(batch):
        _, alone = follow(MEASURED, [gradients], gradients)
        for name, value in npx.diagnostics(alone, gradients).items():
            np.testing.assert_allclose(mapped[name][i], value, rtol=1e-5, atol=1e-7, err_msg=name)


def test_follow_scan():
    """One value a step comes out of a compiled loop."""
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *SMALL_GRADIENTS)

    @jax.jit
    def run(stacked):
        def step(state, grads):
            _, state = MEASURED.update(grads, state, SMALL_GRADIENTS[0])
            return state, npx.diagnostics(state, SMALL_GRADIENTS[0])

        return jax.lax.scan(step, MEASURED.init(SMALL_GRADIENTS[0]), stacked)[1]

    history = run(stacked)
    for steps in (1, 2):
        _, state = follow(MEASURED, SMALL_GRADIENTS[:steps], SMALL_GRADIENTS[0])
        for name, value in npx.diagnostics(state, SMALL_GRADIENTS[0]).items():
            np.testing.assert_allclose(history[name][steps - 1], value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def test_are_global_when_sharded(axis_type):
    """Shards of very different size: a mean over one shard would be far off."""
    gradients = SMALL_GRADIENTS[0] | {
        "large": SMALL_GRADIENTS[0]["large"] * jnp.exp(jnp.arange(8.0))[:, None]
    }
    _, expected = follow(MEASURED, [gradients], gradients)
    mesh = jax.make_mesh((8,), ("x",), axis_types=(axis_type,))
    with jax.set_mesh(mesh):
        layout = {"large": NamedSharding(mesh, P("x")), "single": NamedSharding(mesh, P())}
        spread = jax.device_put(gradients, layout)
        _, state = jax.jit(MEASURED.update)(spread, MEASURED.init(spread), spread)
    for name, value in npx.diagnostics(expected, gradients).items():
        measured = npx.diagnostics(jax.device_get(state), gradients)[name]
        np.testing.assert_allclose(measured, value, rtol=1e-5, atol=1e-7, err_msg=name)


# -- cost ----------------------------------------------------------------------------------------


def update_by_hand(gradient, state):
    """What plasticity without diagnostics has to compute, and nothing else."""
    new = npx.ScaleByPlasticityState(
        count=optax.safe_increment(state.count),
        activity=0.95 * state.activity + (1 - 0.95) * jnp.abs(gradient),
        memory_mu=0.9 * state.memory_mu + (1 - 0.9) * gradient,
        memory_nu=0.99 * state.memory_nu
        + (1 - 0.99) * jnp.minimum(jnp.square(gradient), jnp.finfo(jnp.float32).max / 2),
    )
    alpha, _ = coefficient(
        gradient,
        new.activity,
        new.memory_mu,
        new.memory_nu,
        activity_weight=0.4,
        gradient_weight=0.4,
        memory_weight=0.2,
        min_alpha=0.2,
        max_alpha=2.0,
        plasticity_scale=1.0,
        eps=1e-8,
        tensorwise=False,
    )
    return alpha * gradient, new


def lowered(update, tx):
    g = jnp.ones((16, 5))
    return jax.jit(update).lower(g, tx.init(g))


def operations(program):
    return collections.Counter(re.findall(r"stablehlo\.\w+", program.as_text()))


def test_switched_off_they_cost_nothing():
    off = npx.scale_by_plasticity(diagnostics=False)
    program, by_hand = lowered(off.update, off), lowered(update_by_hand, off)
    assert operations(program) == operations(by_hand)
    costs, costs_by_hand = (p.compile().cost_analysis() for p in (program, by_hand))
    for cost in ("flops", "transcendentals", "bytes accessed"):
        assert costs.get(cost) == costs_by_hand.get(cost), cost


def test_switched_on_they_are_the_only_thing_that_is_added():
    """Which shows that the test above can tell."""
    off, on = npx.scale_by_plasticity(), npx.scale_by_plasticity(diagnostics=True)
    added = operations(lowered(on.update, on)) - operations(lowered(off.update, off))
    assert added["stablehlo.reduce"] > 0
    g = jnp.ones((16, 5))
    chex.assert_trees_all_equal(off.update(g, off.init(g))[0], on.update(g, on.init(g))[0])
