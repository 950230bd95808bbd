"""Traces and coefficients for whole trees: the part that every plastic transformation shares."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, TypedDict, TypeVar

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
    mean_magnitude,
)
from neuroplastic_optax._diagnostics import (
    Diagnostics,
    PlasticityDiagnostics,
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
      mu: moving average of g.
      nu: moving average of g².
      activity_mean: mean of each leaf's activity, float32 or wider, [leaves] in the order of
        ``jax.tree.leaves``; kept since it follows from its last value and the mean of :math:`|g|`.
        None where ``activity`` is, and where it is rounded as it is stored.
      diagnostics: of the last step, where they are asked for.
    """

    count: jax.Array  # type: ignore[assignment]
    activity: optax.Updates | None
    mu: optax.Updates | None
    nu: optax.Updates | None
    activity_mean: jax.Array | None
    diagnostics: PlasticityDiagnostics | None = None


class PlasticitySettings(TypedDict, total=False):
    """Keyword settings that every plastic transformation takes, as in `scale_by_plasticity`."""

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


@dataclasses.dataclass(frozen=True)
class Plasticity:
    """Settings of the coefficient and its traces; see :func:`scale_by_plasticity` for each."""

    activity_weight: ArrayLike = 0.4
    gradient_weight: ArrayLike = 0.4
    memory_weight: ArrayLike = 0.2
    activity_decay: ArrayLike = 0.95
    b1: ArrayLike = 0.9
    b2: ArrayLike = 0.99
    min_alpha: ArrayLike = 0.2
    max_alpha: ArrayLike = 2.0
    plasticity_scale: ScalarOrSchedule = 1.0
    eps: ArrayLike = 1e-8
    tensorwise: bool = False
    accumulator_dtype: DTypeLike | None = None
    diagnostics: Diagnostics = False
    always_keep_mu: bool = False
    """Keeps mu also where the memory signal has no weight: the update itself is built from it."""

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
        def zeros() -> optax.Updates:
            return jax.tree.map(
                lambda p: jnp.zeros_like(p, dtype=self.accumulator_dtype or compute_dtype(p.dtype)),
                params,
            )

        def zero_means() -> jax.Array | None:
            dtypes = [compute_dtype(p.dtype) for p in jax.tree.leaves(params)]
            stored = self.accumulator_dtype
            if stored is not None and any(jnp.promote_types(stored, d) != stored for d in dtypes):
                return None  # the mean before rounding is not that of the trace
            return jnp.zeros(len(dtypes), jnp.result_type(jnp.float32, *dtypes))

        needs_activity = not _checks.is_static_zero(self.activity_weight)
        needs_memory = not _checks.is_static_zero(self.memory_weight)
        return ScaleByPlasticityState(
            count=jnp.zeros([], jnp.int32),
            activity=zeros() if needs_activity else None,
            mu=zeros() if needs_memory or self.always_keep_mu else None,
            nu=zeros() if needs_memory else None,
            activity_mean=zero_means() if needs_activity else None,
            diagnostics=init_diagnostics(params, self.diagnostics),
        )

    def accumulate(
        self, gradients: optax.Updates, state: ScaleByPlasticityState
    ) -> ScaleByPlasticityState:
        """The traces after this step, and the count with them."""
        _checks.check_floating(gradients)

        def average(
            trace: optax.Updates | None,
            decay: ArrayLike,
            signal: Callable[[jax.Array], jax.Array],
            of: optax.Updates = gradients,
        ) -> Any:
            if trace is None:
                return None

            def update(t: jax.Array, x: jax.Array) -> jax.Array:
                dtype = compute_dtype(x.dtype)
                new = decay * t.astype(dtype) + (1 - decay) * signal(x.astype(dtype))
                return jnp.asarray(new, t.dtype)

            return jax.tree.map(update, trace, of)

        return state._replace(
            count=optax.safe_increment(state.count),
            activity=average(state.activity, self.activity_decay, jnp.abs),
            mu=average(state.mu, self.b1, lambda g: g),
            nu=average(state.nu, self.b2, _square),
            activity_mean=average(
                state.activity_mean,
                self.activity_decay,
                lambda mean: mean,
                of=_mean_magnitudes(gradients),
            ),
        )

    def coefficients(
        self, gradients: optax.Updates, state: ScaleByPlasticityState
    ) -> list[Coefficient]:
        """α and α_grad of each leaf, from traces updated by this step already."""
        leaves = jax.tree.leaves(gradients)
        nothing: list[jax.Array | None] = [None] * len(leaves)

        def traces(trace: optax.Updates | None) -> list[jax.Array | None]:
            return nothing if trace is None else jax.tree.leaves(trace)

        scale = at_step(self.plasticity_scale, state.count - 1)
        return [
            coefficient(
                gradient,
                activity,
                mu,
                nu,
                activity_mean=activity_mean,
                activity_weight=self.activity_weight,
                gradient_weight=self.gradient_weight,
                memory_weight=self.memory_weight,
                min_alpha=self.min_alpha,
                max_alpha=self.max_alpha,
                plasticity_scale=scale,
                eps=self.eps,
                tensorwise=self.tensorwise,
            )
            for gradient, activity, mu, nu, activity_mean in zip(
                leaves,
                traces(state.activity),
                traces(state.mu),
                traces(state.nu),
                nothing if state.activity_mean is None else state.activity_mean,
                strict=True,
            )
        ]

    def measure(
        self,
        coefficients: list[Coefficient],
        gradients: optax.Updates,
        updates: optax.Updates,
        state: ScaleByPlasticityState,
    ) -> ScaleByPlasticityState:
        """``state`` with the diagnostics of this step, where they are asked for."""
        return state._replace(
            diagnostics=measure(
                [coefficient.alpha for coefficient in coefficients],
                jax.tree.leaves(gradients),
                jax.tree.leaves(updates),
                min_alpha=self.min_alpha,
                max_alpha=self.max_alpha,
                diagnostics=self.diagnostics,
            )
        )


def _mean_magnitudes(gradients: optax.Updates) -> jax.Array:
    """mean(|g|) of each leaf, [leaves]."""
    leaves = jax.tree.leaves(gradients)
    return jnp.stack([mean_magnitude(g) for g in leaves]) if leaves else jnp.zeros(0)


def _square(x: jax.Array) -> jax.Array:
    """x², at most half the largest number: an overflow would stay in the trace for ever."""
    return jnp.minimum(jnp.square(x), jnp.finfo(x.dtype).max / 2)


Factory = TypeVar("Factory", bound=Callable[..., optax.GradientTransformationExtraArgs])


def explicit_settings(factory: Factory) -> Factory:
    """Spells ``**settings`` out in the signature, where `optax.inject_hyperparams` reads them."""
    own = inspect.signature(factory).parameters.values()
    shared = inspect.signature(Plasticity).parameters.values()
    parameters = [
        *(parameter for parameter in own if parameter.kind is not parameter.VAR_KEYWORD),
        *(
            parameter.replace(kind=parameter.KEYWORD_ONLY)
            for parameter in shared
            if parameter.name in PlasticitySettings.__annotations__
        ),
    ]
    signature = inspect.signature(factory).replace(parameters=parameters)
    factory.__signature__ = signature  # type: ignore[attr-defined]
    return factory


def at_step(value: ScalarOrSchedule, count: jax.Array) -> ArrayLike:
    """The value of a number or schedule at step ``count``, the first step being 0."""
    return value(count) if callable(value) else value
