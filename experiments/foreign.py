"""Optimizers from elsewhere: ``optax:lion``, ``my_optimizer.py:make``."""

import dataclasses
import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments import spec
from experiments.cells import ConfigError
from experiments.optimizers import Training
from experiments.schedules import Schedule
from experiments.spec import Spec

FALLBACK_LEARNING_RATE = 1e-3  # of an optimizer that has no default of its own

# What an optimizer may ask for at an update: see Program._step.
EXTRA = ("value", "grad", "value_fn")


@dataclasses.dataclass(frozen=True)
class Foreign:
    """The factory of an arm from elsewhere: calls it with ``learning_rate`` and the settings.

    Attributes:
      spec: what the command line named.
    """

    spec: Spec

    @functools.cached_property
    def make(self) -> Callable[..., Any]:
        """The callable, imported when it is first needed.

        Raises:
          ConfigError: it cannot be imported or called, or takes no learning rate.
        """
        found = spec.find_callable(self.spec)
        if not _accepts(found, "learning_rate"):
            raise ConfigError(
                f"{self.spec.name} takes no learning_rate: give a function of a learning rate "
                "that returns an optax.GradientTransformation."
            )
        return found

    def __call__(
        self, learning_rate: optax.ScalarOrSchedule, training: Training, **settings: Any
    ) -> optax.GradientTransformation:
        """The optimizer; an error where what is called returns something else."""
        del training
        made = self.make(learning_rate=learning_rate, **settings)
        if not isinstance(made, optax.GradientTransformation):
            raise ConfigError(
                f"{self.spec.name} must return an optax.GradientTransformation, "
                f"got {type(made).__name__}."
            )
        return made

    def describe(self, settings: Mapping[str, Any]) -> str:
        """What decides what it computes: the call, and the package's version or its checksum."""
        inside = ", ".join(f"{name}={settings[name]!r}" for name in sorted(settings))
        return f"{self.spec.name}({inside}) [{spec.provenance(self.spec)}]"

    def takes(self, setting: str) -> bool:
        """Whether it has a setting of some name."""
        return _accepts(self.make, setting)

    def names(self, setting: str) -> bool:
        """Whether its signature names the setting, not only by taking all keywords."""
        try:
            return setting in inspect.signature(self.make).parameters
        except ValueError:
            return False

    @property
    def learning_rate(self) -> float:
        """The default that its authors gave it; where they gave none, 0.001."""
        given = inspect.signature(self.make).parameters.get("learning_rate")
        usable = given is not None and isinstance(given.default, float)
        return float(given.default) if given and usable else FALLBACK_LEARNING_RATE


def _accepts(function: Callable[..., Any], name: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # no signature: the call will say
        return True
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return any(
        parameter.kind is inspect.Parameter.VAR_KEYWORD
        or (parameter.name == name and parameter.kind in named)
        for parameter in parameters
    )


def check(
    name: str,
    make: Callable[..., optax.GradientTransformation],
    *,
    schedule: Schedule = "constant",
    searched: tuple[str, ...] = (),
) -> None:
    """Traces an optimizer's first step on a matrix and a vector, as the training will.

    Args:
      name: the arm's.
      make: of a learning rate, a training and settings.
      schedule: how the learning rate goes over training.
      searched: settings that are traced too, as the learning rate is.

    Raises:
      ConfigError: it cannot be made, cannot be traced, or needs at an update what no training has.
    """
    params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}

    def step(learning_rate: jax.Array, settings: dict[str, jax.Array]) -> Any:
        training = Training(2, 2, schedule=schedule)
        optimizer = optax.with_extra_args_support(make(learning_rate, training, **settings))
        state = optimizer.init(params)
        loss = jnp.float32(1)

        def value_fn(params: Any) -> jax.Array:
            return sum((jnp.sum(leaf) for leaf in jax.tree.leaves(params)), jnp.float32(0))

        updates, state = optimizer.update(
            params,
            state,
            params,
            value=loss,
            grad=params,
            value_fn=value_fn,
        )
        return optax.apply_updates(params, updates)

    rate = jnp.float32(1e-3)
    settings = {setting: jnp.float32(0.5) for setting in searched}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # are shown where it is trained
            after = jax.eval_shape(step, rate, settings)
    except ConfigError:
        raise
    except (
        jax.errors.ConcretizationTypeError,
        jax.errors.TracerArrayConversionError,
        jax.errors.TracerIntegerConversionError,
        jax.errors.NonConcreteBooleanIndexError,
    ) as error:
        asked = f"{name} needs numbers that are known before it is compiled"
        if searched:
            raise ConfigError(
                f"{asked}, and {', '.join(('learning_rate', *searched))} are traced: take what "
                f"must be static out of the search and fix it in the arm's name, as in "
                f"'{name.partition('(')[0]}({searched[0]}=...)'. ({_first_line(error)})"
            ) from error
        raise ConfigError(
            f"{asked}, and its learning rate is traced: it must use the rate with jax.numpy alone, "
            f"neither in an `if` nor as a Python number. ({_first_line(error)})"
        ) from error
    except Exception as error:  # of code that is not ours
        raise ConfigError(
            f"{name} cannot take a step ({type(error).__name__}: {_first_line(error)}). It is "
            "called with learning_rate and its settings; its update gets the gradient, the state "
            f"and the parameters and, where it takes them, {', '.join(EXTRA)}."
        ) from error
    kept, changed = (jax.tree.map(jnp.shape, tree) for tree in (params, after))
    if kept != changed:
        raise ConfigError(f"{name} changes the shapes of parameters: {kept} to {changed}.")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).partition("\n")[0]
