"""Placebo controls of any arm: its update with one thing about it changed.

`norm_matched`, `permuted` and `random` ask what an optimizer does besides setting the size of a
step; `perturbed` is the optimizer itself but for one rounding error, and so the noise floor of a
comparison.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from experiments.controls import drawn_alone
from experiments.optimizers import Training

TINY = 1e-30


class Competitor(Protocol):
    """An arm, as far as a placebo of it needs to know it."""

    @property
    def has_alpha(self) -> bool:
        """Whether it multiplies what its base does."""
        ...

    def make(
        self, learning_rate: optax.ScalarOrSchedule, training: Training, **searched: Any
    ) -> optax.GradientTransformation:
        """The optimizer."""
        ...

    def describe(self) -> str:
        """The factory and its settings."""
        ...

    def takes(self, setting: str) -> bool:
        """Whether it has a setting of some name."""
        ...


Change = Callable[[jax.Array, jax.Array, jax.Array, bool], jax.Array]
"""Of a leaf's update, what the base would do there, a key and whether the arm has an α."""


def norm_matched(update: jax.Array, base: jax.Array, key: jax.Array, alpha: bool) -> jax.Array:
    """The base's direction with the size of the update: one number per leaf."""
    del key, alpha
    return base * (jnp.linalg.norm(update) / jnp.maximum(jnp.linalg.norm(base), TINY))


def permuted(update: jax.Array, base: jax.Array, key: jax.Array, alpha: bool) -> jax.Array:
    """The same factors or sizes, on other coordinates: moved by a random distance."""
    shift = drawn_alone(lambda key: jax.random.randint(key, (), 0, max(update.size, 1)), key)

    def moved(values: jax.Array) -> jax.Array:
        return jnp.roll(values.ravel(), shift).reshape(values.shape)

    if alpha:
        return moved(_factors(update, base)) * base
    return moved(jnp.abs(update)) * jnp.sign(base)


def random(update: jax.Array, base: jax.Array, key: jax.Array, alpha: bool) -> jax.Array:
    """Factors of a normal distribution with their mean and variance, or sizes redrawn."""
    if alpha:
        factors = _factors(update, base)
        noise = drawn_alone(lambda key: jax.random.normal(key, base.shape, base.dtype), key)
        return (jnp.mean(factors) + jnp.std(factors) * noise) * base
    places = drawn_alone(
        lambda key: jax.random.randint(key, update.shape, 0, max(update.size, 1)), key
    )
    return jnp.abs(update).ravel()[places] * jnp.sign(base)


def _factors(update: jax.Array, base: jax.Array) -> jax.Array:
    """What each coordinate of the base was multiplied by; where it is 0, the mean of the others."""
    moves = base != 0
    factors = jnp.where(moves, update / jnp.where(moves, base, 1), 0)
    mean = jnp.sum(factors) / jnp.maximum(jnp.sum(moves), 1)
    return jnp.where(moves, factors, mean)


CHANGES: dict[str, Change] = {"norm_matched": norm_matched, "permuted": permuted, "random": random}
PERTURBED = "perturbed"
PLACEBOS = (*CHANGES, PERTURBED)


class PlaceboState(NamedTuple):
    """The states of the arm and of its base, and the number of steps."""

    arm: Any
    base: Any
    step: jax.Array  # int32


@dataclasses.dataclass(frozen=True)
class Placebo:
    """The factory of a placebo of an arm.

    Attributes:
      kind: one of ``PLACEBOS``.
      arm: the optimizer.
      base: what it is compared with; left out, the gradient itself.
    """

    kind: str
    arm: Competitor
    base: Competitor | None = None

    def __call__(
        self, learning_rate: optax.ScalarOrSchedule, training: Training, **settings: Any
    ) -> optax.GradientTransformation:
        """The placebo at a learning rate."""
        # The rate is a schedule already where there is one.
        arm = self.arm.make(
            learning_rate, dataclasses.replace(training, diagnostics=False), **settings
        )
        if self.kind == PERTURBED:
            return perturb_first_step(arm)
        base = (
            optax.sgd(1.0)
            if self.base is None
            else self.base.make(1.0, dataclasses.replace(training, schedule="constant"))
        )
        return change_update(arm, base, CHANGES[self.kind], self.arm.has_alpha, training.seed)

    def describe(self, settings: Mapping[str, Any]) -> str:
        """The placebo and what it is of."""
        del settings
        inside = (arm.describe() for arm in (self.arm, self.base) if arm is not None)
        return f"{self.kind}({', '.join(inside)})"

    def takes(self, setting: str) -> bool:
        """Whether the arm has a setting of some name."""
        return self.arm.takes(setting)


def change_update(
    arm: optax.GradientTransformation,
    base: optax.GradientTransformation,
    change: Change,
    has_alpha: bool,
    seed: jax.typing.ArrayLike,
) -> optax.GradientTransformationExtraArgs:
    """``change(update of arm, update of base, key)`` in each leaf, a fresh key per step and leaf.

    Args:
      arm: the optimizer.
      base: whose direction or signs are used, at a learning rate of 1.
      change: one of the functions above.
      has_alpha: whether the arm multiplies what the base does, so that there are factors.
      seed: where the keys come from.
    """
    arm, base = map(optax.with_extra_args_support, (arm, base))

    def init_fn(params: optax.Params) -> PlaceboState:
        return PlaceboState(arm.init(params), base.init(params), jnp.zeros([], jnp.int32))

    def update_fn(
        updates: optax.Updates,
        state: PlaceboState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, PlaceboState]:
        of_arm, arm_state = arm.update(updates, state.arm, params, **extra)
        of_base, base_state = base.update(updates, state.base, params, **extra)
        leaves, structure = jax.tree.flatten(of_arm)
        # XLA's own generator: on a CPU threefry would cost more than the rest of the step.
        keys = jax.random.split(
            jax.random.fold_in(jax.random.key(seed, impl="rbg"), state.step), len(leaves)
        )
        changed = [
            change(update, direction, key, has_alpha)
            for update, direction, key in zip(leaves, jax.tree.leaves(of_base), keys, strict=True)
        ]
        count = optax.safe_increment(state.step)
        return jax.tree.unflatten(structure, changed), PlaceboState(arm_state, base_state, count)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def perturb_first_step(
    arm: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer whose first update is larger by one rounding error of float32."""
    arm = optax.with_extra_args_support(arm)

    def init_fn(params: optax.Params) -> PlaceboState:
        return PlaceboState(arm.init(params), (), jnp.zeros([], jnp.int32))

    def update_fn(
        updates: optax.Updates,
        state: PlaceboState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, PlaceboState]:
        updates, inner = arm.update(updates, state.arm, params, **extra)
        factor = jnp.where(state.step == 0, 1 + jnp.finfo(jnp.float32).eps, 1)
        updates = jax.tree.map(lambda u: u * factor.astype(u.dtype), updates)
        return updates, PlaceboState(inner, (), optax.safe_increment(state.step))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
