"""Traces and coefficients of whole trees: what every plastic transformation shares."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from neuroplastic_optax import _checks
from neuroplastic_optax._coefficient import (
    Coefficient,
    check_coefficient_settings,
    coefficient,
    compute_dtype,
)
from neuroplastic_optax._statistics import (
    Diagnostics,
    PlasticityDiagnostics,
    SelectedNode,
    check_diagnostics,
    init_diagnostics,
    measure,
)

ScalarOrSchedule: TypeAlias = ArrayLike | Callable[[jax.Array], ArrayLike]


class ScaleByPlasticityState(NamedTuple):
    """Traces of the gradient, all zero at the start and without bias correction.

    A trace whose signal has a weight of static zero is None.

    Attributes:
      count: steps taken, an int32 scalar.
      activity: moving average of :math:`|g|`.
      memory_mu: moving average of g; the name leaves ``mu`` to an Adam in the same state.
      memory_nu: moving average of g².
      diagnostics: of the last step, where they are asked for.
    """

    count: jax.Array  # type: ignore[assignment]
    activity: optax.Updates | None
    memory_mu: optax.Updates | None
    memory_nu: optax.Updates | None
    diagnostics: PlasticityDiagnostics | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plasticity:
    """Checked settings of the coefficient and its traces; `scale_by_plasticity` explains each."""

    activity_weight: ArrayLike
    gradient_weight: ArrayLike
    memory_weight: ArrayLike
    activity_decay: ArrayLike
    b1: ArrayLike
    b2: ArrayLike
    min_alpha: ArrayLike
    max_alpha: ArrayLike
    plasticity_scale: ScalarOrSchedule
    eps: ArrayLike
    tensorwise: bool
    accumulator_dtype: DTypeLike | None
    diagnostics: Diagnostics
    always_keep_mu: bool = False
    """Keeps mu also where the memory signal has no weight: the update itself is built from it."""
    masked: bool = False
    """The trees have lost leaves to a mask, which the user's own still have."""

    def __post_init__(self) -> None:
        check_coefficient_settings(
            self.activity_weight,
            self.gradient_weight,
            self.memory_weight,
            self.min_alpha,
            self.max_alpha,
            self.eps,
        )
        for name in ("activity_decay", "b1", "b2"):
            _checks.check_number(name, getattr(self, name), at_least=0, below=1)
        _checks.check_number("plasticity_scale", self.plasticity_scale)
        check_diagnostics(self.diagnostics)
        dtype = self.accumulator_dtype
        if dtype is not None and not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(f"accumulator_dtype must be a real floating dtype, got {dtype!r}.")

    def init(self, params: optax.Params) -> ScaleByPlasticityState:
        """Zero traces of the shapes and shardings of ``params``."""
        _checks.check_floating(params)

        # A tree of its own for each trace, so that all can be donated.
        def zeros(trace: str) -> optax.Updates | None:
            if self._needed_by(trace) is None:
                return None
            return jax.tree.map(
                lambda p: jnp.zeros_like(
                    p, dtype=self.accumulator_dtype or compute_dtype(jnp.result_type(p))
                ),
                params,
            )

        return ScaleByPlasticityState(
            count=jnp.zeros([], jnp.int32),
            activity=zeros("activity"),
            memory_mu=zeros("memory_mu"),
            memory_nu=zeros("memory_nu"),
            diagnostics=self._named(init_diagnostics(params, self.diagnostics), params),
        )

    def accumulate(
        self, gradients: optax.Updates, state: ScaleByPlasticityState
    ) -> ScaleByPlasticityState:
        """The traces after this step, and the count with them."""

        def average(
            trace: str, decay: ArrayLike, signal: Callable[[jax.Array], jax.Array]
        ) -> optax.Updates | None:
            last = getattr(state, trace)
            if last is None:
                if reason := self._needed_by(trace):
                    raise ValueError(
                        f"the state holds no trace {trace!r}, which {reason} needs; an optimizer "
                        "with other settings made it: see neuroplastic_optax.migrate_state."
                    )
                return None

            def update(t: jax.Array, g: jax.Array) -> jax.Array:
                dtype = compute_dtype(g.dtype)
                new = decay * t.astype(dtype) + (1 - decay) * signal(g.astype(dtype))
                return jnp.asarray(new, t.dtype)

            return jax.tree.map(update, last, gradients)

        return state._replace(
            count=optax.safe_increment(state.count),
            activity=average("activity", self.activity_decay, jnp.abs),
            memory_mu=average("memory_mu", self.b1, lambda g: g),
            memory_nu=average("memory_nu", self.b2, _square),
        )

    def _needed_by(self, trace: str) -> str | None:
        """Which setting needs a trace; None where no setting does."""
        if trace == "memory_mu" and self.always_keep_mu:
            return "the target 'momentum'"
        weight = "activity_weight" if trace == "activity" else "memory_weight"
        value = getattr(self, weight)
        return None if _checks.is_static_zero(value) else f"{weight}={value}"

    def coefficients(
        self, gradients: optax.Updates, state: ScaleByPlasticityState
    ) -> list[Coefficient]:
        """α and α_grad of each leaf, from traces updated by this step already."""
        leaves = jax.tree.leaves(gradients)

        def traces(trace: optax.Updates | None) -> list[jax.Array | None]:
            return [None] * len(leaves) if trace is None else jax.tree.leaves(trace)

        scale = at_step(self.plasticity_scale, state.count - 1)
        return [
            coefficient(
                *operands,
                activity_weight=self.activity_weight,
                gradient_weight=self.gradient_weight,
                memory_weight=self.memory_weight,
                min_alpha=self.min_alpha,
                max_alpha=self.max_alpha,
                plasticity_scale=scale,
                eps=self.eps,
                tensorwise=self.tensorwise,
            )
            for operands in zip(
                leaves,
                traces(state.activity),
                traces(state.memory_mu),
                traces(state.memory_nu),
                strict=True,
            )
        ]

    def measure(
        self,
        coefficients: list[Coefficient],
        gradients: optax.Updates,
        state: ScaleByPlasticityState,
    ) -> ScaleByPlasticityState:
        """``state`` with the diagnostics of this step, where they are asked for."""
        measured = measure(
            [coefficient.alpha for coefficient in coefficients],
            jax.tree.leaves(gradients),
            min_alpha=self.min_alpha,
            max_alpha=self.max_alpha,
            diagnostics=self.diagnostics,
        )
        return state._replace(diagnostics=self._named(measured, gradients))

    def _named(
        self, measured: PlasticityDiagnostics | None, tree: optax.Updates
    ) -> PlasticityDiagnostics | None:
        """With the leaves of ``tree``, where neither a trace nor the user's parameters are them."""
        traces = ("activity", "memory_mu", "memory_nu")
        if (
            measured is None
            or measured.per_leaf is None
            or not self.masked
            or any(map(self._needed_by, traces))
        ):
            return measured
        return measured._replace(leaves=jax.tree.map(lambda _: SelectedNode(), tree))


def _square(x: jax.Array) -> jax.Array:
    """x², at most half the largest number: an overflow would stay in the trace for ever."""
    return jnp.minimum(jnp.square(x), jnp.finfo(x.dtype).max / 2)


def at_step(value: ScalarOrSchedule, count: jax.Array) -> ArrayLike:
    """The value of a number or schedule at step ``count``, the first step being 0."""
    return value(count) if callable(value) else value
