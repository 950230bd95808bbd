"""Arms from elsewhere: what they may be, what is told of them, and what is refused."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from experiments import foreign
from experiments.cells import ConfigError
from experiments.naming import find_arm
from experiments.optimizers import Training
from experiments.train import evaluated_params

TRAINING = Training(steps_per_epoch=3, epochs=4)

FILE = """
import jax
import optax

def make(learning_rate, beta=0.9):
    return optax.sgd(learning_rate, beta)

def of_nothing():
    return optax.identity()

def not_a_transformation(learning_rate):
    return learning_rate

def static(learning_rate, beta=0.9):
    if beta > 0:
        return optax.sgd(learning_rate, beta)
    return optax.sgd(learning_rate)

def static_rate(learning_rate):
    return optax.sgd(float(learning_rate))

def fails(learning_rate):
    raise RuntimeError("no luck today")

def reshapes(learning_rate):
    def double(updates, params):
        return jax.tree.map(lambda x: jax.numpy.stack([x]), updates)
    return optax.stateless(double)
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "own.py"
    path.write_text(FILE)
    return str(path)


def check(name: str, **how: object) -> None:
    foreign.check(name, find_arm(name).make, **how)


class TestNames:
    def test_of_packages_and_files_are_arms(self, file: str):
        for name in ("optax:lion", "optax.contrib:muon", f"{file}:make", f"{file}:make(beta=0.5)"):
            check(name)

    def test_tell_the_version_or_the_checksum(self, file: str):
        assert (
            find_arm("optax:lion(b1=0.95)").describe().startswith("optax:lion(b1=0.95) [optax 0.")
        )
        assert "[sha256 " in find_arm(f"{file}:make").describe()

    def test_take_settings_and_a_learning_rate(self):
        arm = find_arm("optax:adamw(weight_decay=0.1, learning_rate=3e-4)")
        assert arm.learning_rate == 3e-4
        assert arm.settings == {"weight_decay": 0.1}

    def test_take_the_learning_rate_that_their_authors_gave(self):
        assert find_arm("optax.contrib:schedule_free_adamw").learning_rate == 0.0025
        assert find_arm("optax:lion").learning_rate == foreign.FALLBACK_LEARNING_RATE

    def test_of_built_in_arms_take_settings_too(self):
        arm = find_arm("adam(b2=0.99)")
        assert arm.label == "Adam (b2=0.99)"
        assert arm.settings["b2"] == 0.99
        with pytest.raises(ConfigError, match="the arm adam has no setting 'beta'"):
            find_arm("adam(beta=1)")


class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("of_nothing", "takes no learning_rate: give a function of a learning rate"),
            ("not_a_transformation", r"must return an optax\.GradientTransformation, got"),
            ("static_rate", "its learning rate is traced: .* neither in an `if` nor"),
            ("fails", "cannot take a step .RuntimeError: no luck today"),
            ("absent", "has no 'absent'"),
        ],
    )
    def test_come_before_any_training(self, name: str, said: str, file: str):
        with pytest.raises(ConfigError, match=said):
            check(f"{file}:{name}")

    def test_of_updates_of_another_shape_tell_both_shapes(self, file: str):
        with (
            jax.numpy_rank_promotion("allow"),
            pytest.raises(ConfigError, match="changes the shapes of parameters"),
        ):
            check(f"{file}:reshapes")

    def test_of_a_searched_setting_that_must_be_static_name_the_remedy(self, file: str):
        check(f"{file}:static")
        with pytest.raises(ConfigError, match=r"take what must be static out of the search"):
            check(f"{file}:static", searched=("beta",))

    def test_of_what_no_training_has_name_what_is_missing(self):
        with pytest.raises(ConfigError, match="obj_fn must be provided"):
            check("optax.contrib:sophia")

    def test_of_a_plain_name_list_the_known_ones(self):
        with pytest.raises(ConfigError, match=r"unknown arms 'lion'; known are full, .*module:"):
            find_arm("lion")

    def test_of_an_arm_in_the_brackets_of_an_arm(self):
        with pytest.raises(
            ConfigError, match="only norm_matched, permuted, random, perturbed take"
        ):
            find_arm("adam(sgd)")


class TestUpdates:
    def test_get_the_loss_where_they_take_it(self):
        check("optax:lbfgs")

    def test_follow_the_schedule(self):
        arm = find_arm("optax:sgd")
        training = Training(5, 2, schedule="cosine")
        optimizer = arm.make(jnp.float32(1.0), training)
        state, sizes = optimizer.init(jnp.ones(1)), []
        for _ in range(10):
            update, state = optimizer.update(jnp.ones(1), state)
            sizes.append(-float(update[0]))
        expected = (1 + np.cos(np.pi * np.arange(10) / 10)) / 2
        np.testing.assert_allclose(sizes, expected, rtol=1e-5)


class TestEvaluatedParameters:
    def test_of_a_schedule_free_optimizer_are_its_authors(self):
        optimizer = optax.contrib.schedule_free_adamw(0.1)
        params = jnp.array([1.0, -2.0])
        state = optimizer.init(params)
        for _ in range(3):
            updates, state = optimizer.update(params, state, params)
            params = optax.apply_updates(params, updates)
        expected = optax.contrib.schedule_free_eval_params(state, params)
        assert not np.array_equal(expected, params)
        wrapped = (optax.EmptyState(), state)
        np.testing.assert_array_equal(evaluated_params(wrapped, params), expected)

    def test_of_every_other_one_are_those_of_its_steps(self):
        params = jnp.array([1.0, -2.0])
        state = optax.adam(0.1).init(params)
        assert evaluated_params(state, params) is params


def test_a_traced_setting_gives_what_a_python_number_gives():
    arm = find_arm("optax:adamw")

    @functools.partial(jax.jit)
    def traced(rate: jax.Array, decay: jax.Array) -> jax.Array:
        optimizer = arm.make(rate, TRAINING, weight_decay=decay)
        return optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)), jnp.ones(2))[0]

    plain = optax.adamw(0.1, weight_decay=0.3)
    expected, _ = plain.update(jnp.ones(2), plain.init(jnp.ones(2)), jnp.ones(2))
    np.testing.assert_allclose(traced(0.1, 0.3), expected, rtol=1e-6)
