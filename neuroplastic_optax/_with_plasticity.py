"""Plasticity around another optimizer: a bounded residual on its update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from neuroplastic_optax import _checks
from neuroplastic_optax._coefficient import Coefficient, compute_dtype, narrowed
from neuroplastic_optax._homeostasis import limit_norm, norm_of, norms_of
from neuroplastic_optax._statistics import Diagnostics
from neuroplastic_optax._traces import (
    Plasticity,
    ScalarOrSchedule,
    ScaleByPlasticityState,
    at_step,
)
from neuroplastic_optax.masks import leaf_path

Mask: TypeAlias = Any | Callable[[optax.Params], Any]
Target: TypeAlias = Literal["update", "momentum", "trust_ratio"]

MIN_TRUST, MAX_TRUST = 0.5, 1.5
SHOWN = 8  # leaves that an error names


class WithPlasticityState(NamedTuple):
    """State of :func:`with_plasticity`.

    Attributes:
      plasticity: traces of the leaves that the mask lets in.
      base_state: state of the base.
    """

    plasticity: ScaleByPlasticityState
    base_state: optax.OptState


def with_plasticity(  # noqa: D417 - the shared settings are explained once
    base: optax.GradientTransformation,
    *,
    strength: ScalarOrSchedule = 0.15,
    max_ratio: ArrayLike = 0.25,
    target: Target = "update",
    mask: Mask | None = None,
    activity_weight: ArrayLike = 0.4,
    gradient_weight: ArrayLike = 0.4,
    memory_weight: ArrayLike = 0.2,
    activity_decay: ArrayLike = 0.95,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.99,
    min_alpha: ArrayLike = 0.2,
    max_alpha: ArrayLike = 2.0,
    plasticity_scale: ScalarOrSchedule = 1.0,
    eps: ArrayLike = 1e-8,
    tensorwise: bool = False,
    accumulator_dtype: DTypeLike | None = None,
    diagnostics: Diagnostics = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Add a bounded plastic residual to another optimizer's update.

    α comes from the raw gradient g, b is the base's update. Leaf by leaf, with limit(δ, L) the
    rescaling of δ to 2-norm L where it is longer,

    .. math::

      \text{update:} \quad & \delta = s_t (\alpha - 1) \odot b \\
      \text{momentum:} \quad & \delta = s_t (\alpha - 1) \odot m / (1 - \beta_1^t) \\
      \text{trust_ratio:} \quad & \delta = s_t (\alpha - 1) \odot
        (\mathrm{clip}(\|p\| / (\|b\| + 10^{-12}), 0.5, 1.5) - 1)\, b \\
      & u = b + \mathrm{limit}(\delta, \rho \|b\|)

    The size of the step stays within a factor 1 ± ρ of the base's, so that the base's learning rate
    carries over. With ``strength=0`` the updates are the base's. All settings that are not
    explained here are those of :func:`scale_by_plasticity`, with the same defaults.

    Args:
      base: any transformation, such as ``optax.scale_by_adam()`` or ``optax.trace(0.9)``. It comes
        before the learning rate: the residual has the sign and the size of the base's update.
      strength: :math:`s_t`, a number or a schedule, such as those of
        :mod:`neuroplastic_optax.schedules`.
      max_ratio: ρ, the residual's norm at most, relative to the base update's.
      target: what α − 1 multiplies.
      mask: a tree of bools, or a callable that makes one, as in :func:`optax.masked`; elsewhere the
        base's update passes unchanged and no trace is kept.

    Returns:
      A transformation with state :class:`WithPlasticityState`; extra arguments reach the base.

    Raises:
      ValueError: a static setting that cannot work, by name and value; at ``init``, a mask that
        selects no leaf; at ``update``, a state without a trace that a weight needs, and with the
        target ``"trust_ratio"`` missing ``params``.
      TypeError: a leaf that is not real floating, by path.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from neuroplastic_optax import with_plasticity
      >>> tx = optax.chain(
      ...     with_plasticity(optax.scale_by_adam()),
      ...     optax.scale_by_learning_rate(1e-3),
      ... )
      >>> params = {"w": jnp.array([1.0, -2.0])}
      >>> updates, state = tx.update({"w": jnp.array([0.3, -0.1])}, tx.init(params), params)

    References:
      Design space of Jiang et al., 2026, figure 7.
    """
    _checks.check_number("strength", strength, at_least=0)
    _checks.check_number("max_ratio", max_ratio, at_least=0)
    if target not in get_args(Target):
        raise ValueError(f"target must be one of {', '.join(get_args(Target))}, got {target!r}.")
    base = optax.with_extra_args_support(base)
    plasticity = Plasticity(
        activity_weight=activity_weight,
        gradient_weight=gradient_weight,
        memory_weight=memory_weight,
        activity_decay=activity_decay,
        b1=b1,
        b2=b2,
        min_alpha=min_alpha,
        max_alpha=max_alpha,
        plasticity_scale=plasticity_scale,
        eps=eps,
        tensorwise=tensorwise,
        accumulator_dtype=accumulator_dtype,
        diagnostics=diagnostics,
        always_keep_mu=target == "momentum",
        masked=mask is not None,
    )

    def select(tree: Any) -> Any:
        if mask is None or not jax.tree.leaves(tree):  # `optax.tree.map_params` asks with no leaf
            return tree
        wanted = mask(tree) if callable(mask) else mask
        return jax.tree.map(lambda m, x: x if m else optax.MaskedNode(), wanted, tree)

    def init_fn(params: optax.Params) -> WithPlasticityState:
        selected = select(params)
        if jax.tree.leaves(params) and not jax.tree.leaves(selected):
            raise ValueError(
                f"mask must select a leaf, got one that selects none of {_names(params)}."
            )
        return WithPlasticityState(plasticity.init(selected), base.init(params))

    def direction(
        update: jax.Array, mu: jax.Array | None, param: jax.Array | None, count: jax.Array
    ) -> jax.Array:
        if mu is not None:
            return mu.astype(update.dtype) / (1 - plasticity.b1**count)
        if param is not None:
            trust = norm_of(jnp.asarray(param, update.dtype)) / (norm_of(update) + 1e-12)
            return (jnp.clip(trust, MIN_TRUST, MAX_TRUST) - 1) * update
        return update

    def update_fn(
        updates: optax.Updates,
        state: WithPlasticityState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, WithPlasticityState]:
        if target == "trust_ratio" and params is None:
            raise ValueError("the target 'trust_ratio' needs update(..., params), got None.")
        base_updates, base_state = base.update(updates, state.base_state, params, **extra_args)
        gradients = _checks.floating_arrays(select(updates))
        traces = plasticity.accumulate(gradients, state.plasticity)
        coefficients = plasticity.coefficients(gradients, traces)
        strength_now = at_step(strength, state.plasticity.count)

        def modulate(
            coefficient: Coefficient,
            update: jax.Array,
            mu: jax.Array | None,
            param: jax.Array | None,
        ) -> jax.Array:
            update = jnp.asarray(update)
            b = update.astype(compute_dtype(update.dtype))
            weight = strength_now * (coefficient.alpha - 1)
            delta = jnp.asarray(weight * direction(b, mu, param, traces.count))
            length, norm = norms_of(b, delta)
            return narrowed(b + limit_norm(delta, norm, max_ratio * length, plasticity.eps), update)

        leaves, structure = jax.tree.flatten(select(base_updates))
        nothing = [None] * len(leaves)
        modulated_leaves = map(
            modulate,
            coefficients,
            leaves,
            jax.tree.leaves(traces.memory_mu) if target == "momentum" else nothing,
            jax.tree.leaves(select(params)) if target == "trust_ratio" else nothing,
        )
        modulated = jax.tree.unflatten(structure, modulated_leaves)
        traces = plasticity.measure(coefficients, gradients, traces)
        whole = jax.tree.map(
            lambda new, old: old if isinstance(new, optax.MaskedNode) else new,
            modulated,
            base_updates,
            is_leaf=lambda node: isinstance(node, optax.MaskedNode),
        )
        return whole, WithPlasticityState(traces, base_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _names(tree: Any) -> str:
    """The paths of a tree's leaves for an error message, the first of them where there are many."""
    paths = [leaf_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    shown = ", ".join(paths[:SHOWN])
    return f"{shown} and {len(paths) - SHOWN} more" if len(paths) > SHOWN else shown
