"""The arms of the studies: what each one is, and what a program may rely on."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import matplotlib.colors
import numpy as np
import optax
import pytest

import neuroplastic_optax as npx
from experiments.arms import ABLATIONS, ARMS, with_role
from experiments.naming import colour
from experiments.optimizers import Training, plain
from experiments.step_records import NORMS
from neuroplastic_optax.monitoring import STATISTICS

TRAINING = Training(steps_per_epoch=3, epochs=4)
WITH_HOMEOSTASIS = tuple(name for name in ARMS if name.endswith("_homeostasis"))
PLAIN = ("sgd", "momentum", "adam", "adamw", "rmsprop")
WITHOUT_HOMEOSTASIS = tuple(
    name for name, arm in ARMS.items() if arm.factory is plain or arm.role == "wrapped"
)
STEPS = 4

every_arm = pytest.mark.parametrize("name", ARMS)


def gradients() -> list[np.ndarray]:
    return list(np.random.default_rng(0).standard_normal((STEPS, 3, 4)).astype(np.float32))


PARAMS = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)
TREE = {  # a leaf for every scope
    "blocks": [{"kernel": PARAMS.reshape(1, 1, 3, 4)}, {"kernel": PARAMS}],
    "head": {"kernel": PARAMS},
}


def parameters_of(optimizer: optax.GradientTransformation) -> np.ndarray:
    """The parameters after each step, on given gradients."""
    params, state = jnp.asarray(PARAMS), optimizer.init(jnp.asarray(PARAMS))
    trajectory = []
    for gradient in gradients():
        updates, state = optimizer.update(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(params, updates)
        trajectory.append(np.asarray(params))
    return np.stack(trajectory)


class TestRegistry:
    def test_lists_each_arm_by_its_name(self):
        assert all(name == arm.name for name, arm in ARMS.items())

    def test_has_the_arms_of_the_paper_and_the_usual_baselines(self):
        assert set(ARMS) > {"full", "gradient_only", "sgd_homeostasis", *PLAIN}

    def test_labels_tell_the_arms_apart(self):
        assert len({arm.label for arm in ARMS.values()}) == len(ARMS)

    def test_descriptions_tell_the_arms_apart_and_name_no_place(self):
        described = [arm.describe() for arm in ARMS.values()]
        assert len(set(described)) == len(ARMS)
        assert not any(" at 0x" in text or "/" in text or "<" in text for text in described)

    def test_the_published_method_runs_at_its_published_learning_rate(self):
        assert ARMS["full"].learning_rate == ARMS["gradient_only"].learning_rate == 0.1

    def test_a_variant_names_an_arm_as_its_family(self):
        families = {arm.family for arm in ARMS.values() if arm.family}
        assert all(not ARMS[ARMS[family].family or family].family for family in families)

    @every_arm
    def test_gives_every_arm_a_colour_its_own_or_its_family_s(self, name: str):
        assert matplotlib.colors.is_color_like(colour(name))
        assert ARMS[name].colour or colour(name) == colour(ARMS[name].family)

    def test_colours_tell_the_arms_of_the_paper_s_figure_apart(self):
        arms = ("full", "gradient_only", "sgd", "sgd_homeostasis", "momentum", "adam", "adamw")
        assert len({colour(arm) for arm in (*arms, "rmsprop")}) == 8

    @pytest.mark.parametrize("field", ["name", "label", "learning_rate"])
    def test_cannot_be_changed(self, field: str):
        with pytest.raises(AttributeError):
            setattr(ARMS["sgd"], field, "other")


def plain_steps(name: str, rate: float) -> Iterator[np.ndarray]:
    """The textbook's updates in float64."""
    g1 = g2 = np.zeros_like(PARAMS, np.float64)
    weights = PARAMS.astype(np.float64)
    for t, gradient in enumerate(gradients(), start=1):
        g = gradient.astype(np.float64)
        if name == "sgd":
            step = g
        elif name == "momentum":
            step = g1 = 0.9 * g1 + g
        elif name == "rmsprop":
            g2 = 0.99 * g2 + 0.01 * g**2
            step = g / np.sqrt(g2 + 1e-8)
        else:
            g1, g2 = 0.9 * g1 + 0.1 * g, 0.999 * g2 + 0.001 * g**2
            step = g1 / (1 - 0.9**t) / (np.sqrt(g2 / (1 - 0.999**t)) + 1e-8)
        decay = 0.01 if name == "adamw" else 0
        weights = weights - rate * (step + decay * weights)
        yield weights


class TestArms:
    @pytest.mark.parametrize("name", PLAIN)
    def test_plain_baselines_are_the_textbook_s(self, name: str):
        trajectory = parameters_of(ARMS[name].make(0.03, TRAINING))
        expected = np.stack(list(plain_steps(name, 0.03)))
        np.testing.assert_allclose(trajectory, expected, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize(
        ("name", "published"),
        [
            (
                "full",
                lambda: npx.neuroplastic(
                    0.1, plasticity_scale=npx.plasticity_warmup(3, warmup_epochs=2, final_scale=2.0)
                ),
            ),
            ("gradient_only", lambda: npx.gradient_only(0.1, min_alpha=0.5, max_alpha=1.5)),
            (
                "sgd_homeostasis",
                lambda: optax.chain(npx.homeostasis(), optax.scale_by_learning_rate(0.1)),
            ),
        ],
    )
    def test_published_methods_have_their_published_settings(self, name: str, published):
        trajectory = parameters_of(ARMS[name].make(0.1, TRAINING))
        np.testing.assert_allclose(trajectory, parameters_of(published()), rtol=1e-6)

    def test_half_of_the_precision_is_that_of_the_traces_alone(self):
        """The parameters differ by no more than what bfloat16 rounds off, and do differ."""
        optimizer = ARMS["full_bfloat16"].make(0.1, TRAINING)
        state = optimizer.init({"weights": jnp.asarray(PARAMS)})
        for name in ("activity", "memory_mu", "memory_nu"):
            assert optax.tree.get(state, name)["weights"].dtype == jnp.bfloat16
        steps = parameters_of(optimizer) - PARAMS
        exact = parameters_of(ARMS["full"].make(0.1, TRAINING)) - PARAMS
        assert 0 < np.linalg.norm(steps - exact) < 2**-8 * np.linalg.norm(exact)

    @pytest.mark.parametrize("name", WITH_HOMEOSTASIS)
    def test_homeostasis_bounds_what_its_base_does(self, name: str):
        """To norm 1 before the learning rate, but for AdamW's decoupled decay."""
        decay = 0.01 if name == "adamw_homeostasis" else 0
        trajectory = np.stack([PARAMS, *parameters_of(ARMS[name].make(1.0, TRAINING))])
        steps = np.diff(trajectory, axis=0) + decay * trajectory[:-1]
        assert (np.linalg.norm(steps, axis=(1, 2)) <= 1 + 1e-5).all()
        assert np.abs(steps).max() > 0.01

    @every_arm
    def test_move_nothing_at_learning_rate_zero(self, name: str):
        optimizer = ARMS[name].make(0.0, TRAINING)
        updates, _ = optimizer.update(TREE, optimizer.init(TREE), TREE)
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(updates))


class TestWhatAProgramReliesOn:
    @every_arm
    @pytest.mark.parametrize("diagnostics", [False, True])
    def test_states_keep_their_shapes_and_types(self, name: str, diagnostics: bool):
        """Weak types too: else the second epoch would be compiled again."""

        def start(rate: jax.Array, seed: jax.Array) -> optax.OptState:
            return self.optimizer(name, rate, seed, diagnostics).init(TREE)

        def step(state: optax.OptState, rate: jax.Array, seed: jax.Array) -> optax.OptState:
            optimizer = self.optimizer(name, rate, seed, diagnostics)
            return optimizer.update(TREE, state, TREE)[1]

        cell = (jnp.float32(0.1), jnp.uint32(0))
        before = jax.eval_shape(start, *cell)
        after = jax.eval_shape(step, before, *cell)
        assert jax.tree.structure(before) == jax.tree.structure(after)
        for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
            assert (old.shape, old.dtype) == (new.shape, new.dtype)
            assert old.weak_type == new.weak_type

    @every_arm
    def test_diagnostics_are_kept_where_there_are_any_and_they_are_asked_for(self, name: str):
        kept = (set(STATISTICS) if ARMS[name].has_alpha else set()) | (
            set() if name in WITHOUT_HOMEOSTASIS else set(NORMS)
        )
        measured = self.kept(name, diagnostics=True)
        assert measured & {*STATISTICS, *NORMS} == kept
        assert self.kept(name, diagnostics=False) == set()

    def kept(self, name: str, *, diagnostics: bool) -> set[str]:
        optimizer = self.optimizer(name, 0.1, 0, diagnostics)
        return set(jax.eval_shape(lambda: npx.diagnostics(optimizer.init(TREE))))

    @pytest.mark.parametrize("name", ["full", "permuted", "random"])
    def test_a_cell_s_randomness_is_its_own_beside_other_cells(self, name: str):
        """A program may run its cells together: a seed decides, not the seeds beside it."""

        def update(seed: jax.Array) -> jax.Array:
            optimizer = self.optimizer(name, 0.1, seed, diagnostics=False)
            params, gradient = jnp.asarray(PARAMS), jnp.asarray(gradients()[0])
            return optimizer.update(gradient, optimizer.init(params), params)[0]

        seeds = jnp.arange(3, dtype=jnp.uint32)
        together = jax.jit(jax.vmap(update))(seeds)
        apart = jax.jit(lambda seeds: jax.lax.map(update, seeds))(seeds)
        np.testing.assert_allclose(together, apart, rtol=1e-4, atol=1e-6)

    @staticmethod
    def optimizer(name: str, rate, seed, diagnostics: bool) -> optax.GradientTransformation:
        return ARMS[name].make(rate, Training(3, 4, diagnostics=diagnostics, seed=seed))


class TestDesignSpace:
    def test_names_a_base_without_plasticity_for_every_variant(self):
        for name in with_role("design space"):
            assert not ARMS[ARMS[name].family].has_alpha
            assert ARMS[name].has_alpha == ("scope" not in ARMS[name].settings)

    @pytest.mark.parametrize(
        ("arm", "phase"),
        [("early", 0), ("middle", 1), ("late", 2)],
        ids=["early", "middle", "late"],
    )
    def test_a_phase_acts_in_its_part_of_training_alone(self, arm: str, phase: int):
        """Over ten steps the parameters leave the base's where the phase begins."""
        training = Training(steps_per_epoch=1, epochs=10)
        first = {0: 0, 1: 3, 2: 6}[phase]
        gradients = np.random.default_rng(0).standard_normal((10, 3, 4)).astype(np.float32)

        def updates(name: str) -> list[np.ndarray]:
            optimizer = ARMS[name].make(0.1, training)
            params = jnp.asarray(PARAMS)
            state, found = optimizer.init(params), []
            for gradient in gradients:
                update, state = optimizer.update(jnp.asarray(gradient), state, params)
                found.append(np.asarray(update))
            return found

        base, variant = updates("momentum_homeostasis"), updates(f"momentum_{arm}")
        differs = [not np.allclose(a, b, rtol=1e-6) for a, b in zip(base, variant, strict=True)]
        assert differs.index(True) == first
        assert differs == [first <= step < {0: 3, 3: 6, 6: 10}[first] for step in range(10)]


def leaves() -> dict[str, jax.Array]:
    """Heavy-tailed, so that α reaches its bounds from both sides."""
    rng = np.random.default_rng(0)
    shapes = {"kernel": (40, 50), "bias": (30,)}
    return {
        name: jnp.asarray(
            rng.standard_normal(shape) * np.exp(2 * rng.standard_normal(shape)), jnp.float32
        )
        for name, shape in shapes.items()
    }


def programs() -> list[str]:
    """The first arm of each program: arms that differ in numbers alone share one."""
    first: dict[object, str] = {}
    for name, arm in ARMS.items():
        parts = (
            (k, v if isinstance(v, bool | str) or callable(v) else "a number")
            for k, v in sorted(arm.settings.items())
        )
        first.setdefault((arm.factory, *parts), name)
    return list(first.values())


@pytest.mark.parametrize("name", programs())
def test_every_arm_descends_and_takes_a_traced_learning_rate(name):
    training = Training(steps_per_epoch=10, epochs=3)
    shapes = {"blocks/0/kernel": (3, 3, 1, 4), "blocks/1/kernel": (4, 6), "head/kernel": (6, 2)}
    start = {name: jnp.ones(shape) for name, shape in shapes.items()}  # a leaf for every scope

    @jax.jit
    def train(learning_rate):
        optimizer = ARMS[name].make(learning_rate, training)
        params = start
        state = optimizer.init(params)

        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(params, state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, state), None, length=20)
        return optax.tree.norm(params)

    assert train(ARMS[name].learning_rate) < optax.tree.norm(start)


@pytest.mark.parametrize("name", [name for name, arm in ARMS.items() if arm.has_alpha])
def test_plastic_arms_keep_diagnostics(name):
    optimizer = ARMS[name].make(0.1, Training(10, 1, diagnostics="per_leaf"))

    def measured(g):
        return npx.diagnostics(optimizer.update(g, optimizer.init(g), g)[1], g)

    assert "alpha_mean/kernel" in jax.eval_shape(measured, leaves())


def test_ablations_weigh_the_signals_that_are_left_to_a_sum_of_one():
    for name in ABLATIONS:
        weights = {k: v for k, v in ARMS[name].settings.items() if k.endswith("_weight")}
        assert len(weights) == 3
        assert sum(weights.values()) == pytest.approx(1.0)
