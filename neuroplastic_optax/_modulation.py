"""Plasticity around other optimizers: a residual on their update, or a learning-rate multiplier."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Unpack, get_args

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from neuroplastic_optax import _checks
from neuroplastic_optax._coefficient import Coefficient, compute_dtype, narrowed
from neuroplastic_optax._homeostasis import limit_norm, norm_of
from neuroplastic_optax._plasticity import (
    Plasticity,
    PlasticitySettings,
    ScalarOrSchedule,
    ScaleByPlasticityState,
    at_step,
    explicit_settings,
)

Target = Literal["update", "momentum", "trust_ratio"]

MIN_TRUST, MAX_TRUST = 0.5, 1.5


class WithPlasticityState(NamedTuple):
    """State of :func:`with_plasticity`.

    Attributes:
      plasticity: traces of the leaves that the mask lets in.
      base_state: state of the base.
    """

    plasticity: ScaleByPlasticityState
    base_state: optax.OptState


class ControlLearningRateState(NamedTuple):
    """State of :func:`control_learning_rate`.

    Attributes:
      plasticity: count and traces; the traces are None where those of the inner state are read.
      inner_state: state of the inner transformation.
      multiplier: the last step's factors, float32 [groups], by sorted label; ones before it.
    """

    plasticity: ScaleByPlasticityState
    inner_state: optax.OptState
    multiplier: jax.Array


@explicit_settings
def with_plasticity(
    base: optax.GradientTransformation,
    *,
    strength: ScalarOrSchedule = 0.15,
    max_ratio: ArrayLike = 0.25,
    target: Target = "update",
    mask: Any | Callable[[optax.Params], Any] | None = None,
    **settings: Unpack[PlasticitySettings],
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

    Args:
      base: any transformation, such as ``optax.scale_by_adam()`` or ``optax.trace(0.9)``. It comes
        before the learning rate: the residual has the sign and the size of the base's update.
      strength: :math:`s_t`, a number or a schedule; :func:`phase` confines it to a part.
      max_ratio: ρ, the residual's norm at most, relative to the base update's.
      target: what α − 1 multiplies.
      mask: a tree of bools, or a callable that makes one, as in :func:`optax.masked`; elsewhere the
        base's update passes unchanged and no trace is kept.
      **settings: those of :func:`scale_by_plasticity`.

    Returns:
      A transformation with state :class:`WithPlasticityState`; extra arguments reach the base.

    Raises:
      ValueError: a static setting that cannot work, by name and value; with the target
        ``"trust_ratio"``, an update without ``params``.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from neuroplastic_optax import homeostasis, with_plasticity
      >>> tx = optax.chain(
      ...     with_plasticity(optax.scale_by_adam()),
      ...     homeostasis(),
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
    plasticity = Plasticity(**settings, always_keep_mu=target == "momentum")

    def select(tree: Any) -> Any:
        if mask is None:
            return tree
        wanted = mask(tree) if callable(mask) else mask
        return jax.tree.map(lambda m, x: x if m else optax.MaskedNode(), wanted, tree)

    def init_fn(params: optax.Params) -> WithPlasticityState:
        return WithPlasticityState(plasticity.init(select(params)), base.init(params))

    def direction(
        update: jax.Array, mu: jax.Array | None, param: jax.Array | None, count: jax.Array
    ) -> jax.Array:
        if mu is not None:
            return mu.astype(update.dtype) / (1 - plasticity.b1**count)
        if param is not None:
            trust = norm_of(param) / (norm_of(update) + 1e-12)
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
        gradients = select(updates)
        traces = plasticity.accumulate(gradients, state.plasticity)
        coefficients = plasticity.coefficients(gradients, traces)
        strength_now = at_step(strength, state.plasticity.count)

        def modulate(
            coefficient: Coefficient,
            update: jax.Array,
            mu: jax.Array | None,
            param: jax.Array | None,
        ) -> jax.Array:
            b = update.astype(compute_dtype(update.dtype))
            delta = strength_now * (coefficient.alpha - 1) * direction(b, mu, param, traces.count)
            bound = max_ratio * norm_of(b)
            return narrowed(b + limit_norm(delta, bound, plasticity.eps), update)

        leaves, structure = jax.tree.flatten(select(base_updates))
        nothing = [None] * len(leaves)
        modulated_leaves = map(
            modulate,
            coefficients,
            leaves,
            jax.tree.leaves(traces.mu) if target == "momentum" else nothing,
            jax.tree.leaves(select(params)) if target == "trust_ratio" else nothing,
        )
        modulated = jax.tree.unflatten(structure, modulated_leaves)
        traces = plasticity.measure(coefficients, gradients, modulated, traces)
        whole = jax.tree.map(
            lambda new, old: old if isinstance(new, optax.MaskedNode) else new,
            modulated,
            base_updates,
            is_leaf=lambda node: isinstance(node, optax.MaskedNode),
        )
        return whole, WithPlasticityState(traces, base_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


@explicit_settings
def control_learning_rate(
    inner: optax.GradientTransformation,
    *,
    strength: ScalarOrSchedule = 0.1,
    low: ArrayLike = 0.8,
    high: ArrayLike = 1.2,
    groups: Any | Callable[[optax.Params], Any] | None = None,
    **settings: Unpack[PlasticitySettings],
) -> optax.GradientTransformationExtraArgs:
    r"""Multiply another transformation's output by a learning-rate factor drawn from plasticity.

    For each leaf, then for each group of leaves,

    .. math::

      x = \mathrm{mean}\left(\log
        \frac{\max(\alpha, \epsilon)}{\max(\alpha_\mathrm{grad}, \epsilon)}\right), \qquad
      \eta \leftarrow \eta \cdot \mathrm{clip}(1 + s_t \bar x, \mathrm{low}, \mathrm{high})

    with x = 0 where it is not finite, and :math:`\bar x` the plain mean over the group's leaves.
    A decoupled weight decay inside ``inner`` is multiplied too; one chained after it is not.

    Where ``inner`` already keeps every trace that is needed, for the same leaves, those are read in
    place of a second copy; ``activity_decay``, ``b1``, ``b2`` and ``accumulator_dtype`` are then
    those of ``inner``.

    Args:
      inner: any transformation.
      strength: :math:`s_t`, a number or a schedule.
      low: the factor at least.
      high: the factor at most.
      groups: a tree of labels, or a callable that makes one, as in :func:`optax.partition`; None
        takes all leaves as one group.
      **settings: those of :func:`scale_by_plasticity`.

    Returns:
      A transformation with state :class:`ControlLearningRateState`; extra arguments reach
      ``inner``.

    Raises:
      ValueError: a static setting that cannot work, by name and value.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from neuroplastic_optax import control_learning_rate
      >>> tx = optax.chain(
      ...     control_learning_rate(optax.scale_by_adam()), optax.scale_by_learning_rate(1e-3)
      ... )
      >>> params = jnp.array([1.0, -2.0])
      >>> _, state = tx.update(jnp.array([0.3, -0.1]), tx.init(params))
      >>> state[0].multiplier.shape
      (1,)

    References:
      Design space of Jiang et al., 2026, figure 7.
    """
    _checks.check_number("strength", strength)
    _checks.check_number("low", low, at_least=0)
    _checks.check_number("high", high, at_least=0)
    _checks.check_order("low", low, "high", high)
    inner = optax.with_extra_args_support(inner)
    plasticity = Plasticity(**settings)

    def group_indices(tree: optax.Params) -> tuple[list[int], int]:
        """For each leaf, the position of its group among the sorted labels; and their number."""
        labels = "all" if groups is None else groups(tree) if callable(groups) else groups
        spread = jax.tree.map(lambda label, node: jax.tree.map(lambda _: label, node), labels, tree)
        of_leaf = jax.tree.leaves(spread)
        known = sorted(set(of_leaf))
        return [known.index(label) for label in of_leaf], len(known)

    def init_fn(params: optax.Params) -> ControlLearningRateState:
        inner_state = inner.init(params)
        own = plasticity.init(params)
        if _traces_like(own, inner_state) is not None:
            own = _without_traces(own)
        multiplier = jnp.ones(group_indices(params)[1], jnp.float32)
        return ControlLearningRateState(own, inner_state, multiplier)

    def update_fn(
        updates: optax.Updates,
        state: ControlLearningRateState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ControlLearningRateState]:
        outputs, inner_state = inner.update(updates, state.inner_state, params, **extra_args)
        own = plasticity.accumulate(updates, state.plasticity)
        theirs = _traces_like(jax.eval_shape(plasticity.init, updates), inner_state)
        traces = own if theirs is None else theirs._replace(count=own.count)
        coefficients = plasticity.coefficients(updates, traces)
        multiplier = _multiplier(coefficients, updates, state.plasticity.count)
        indices, _ = group_indices(updates)
        leaves, structure = jax.tree.flatten(outputs)
        scaled_leaves = (
            (leaf * multiplier[index].astype(compute_dtype(leaf.dtype))).astype(leaf.dtype)
            for leaf, index in zip(leaves, indices, strict=True)
        )
        scaled = jax.tree.unflatten(structure, scaled_leaves)
        own = plasticity.measure(coefficients, updates, scaled, own)
        return scaled, ControlLearningRateState(own, inner_state, multiplier)

    def _multiplier(
        coefficients: list[Coefficient], updates: optax.Updates, count: jax.Array
    ) -> jax.Array:
        indices, number = group_indices(updates)
        sums = [jnp.zeros((), jnp.float32)] * number
        sizes = [0] * number
        for coefficient, gradient, index in zip(
            coefficients, jax.tree.leaves(updates), indices, strict=True
        ):
            if gradient.size:
                sums[index] += _log_ratio(coefficient, plasticity.eps).astype(jnp.float32)
                sizes[index] += 1
        means = jnp.asarray([s / max(n, 1) for s, n in zip(sums, sizes, strict=True)], jnp.float32)
        return jnp.clip(1 + at_step(strength, count) * means, low, high).astype(jnp.float32)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _log_ratio(coefficient: Coefficient, eps: ArrayLike) -> jax.Array:
    """Mean over a leaf of log(α / α_grad), both at least eps; 0 where it is not finite."""
    ratio = jnp.maximum(coefficient.alpha, eps) / jnp.maximum(coefficient.alpha_grad, eps)
    x = jnp.mean(jnp.log(ratio))
    return jnp.where(jnp.isfinite(x), x, 0.0)


def _traces_like(wanted: Any, inner_state: optax.OptState) -> ScaleByPlasticityState | None:
    """The first plasticity state inside ``inner_state`` with traces of the same trees."""

    def trees(state: ScaleByPlasticityState) -> Any:
        return jax.tree.structure((state.activity, state.mu, state.nu))

    nodes = jax.tree.leaves(
        inner_state, is_leaf=lambda node: isinstance(node, ScaleByPlasticityState)
    )
    for node in nodes:
        if isinstance(node, ScaleByPlasticityState) and trees(node) == trees(wanted):
            return node
    return None


def _without_traces(state: ScaleByPlasticityState) -> ScaleByPlasticityState:
    return state._replace(activity=None, mu=None, nu=None, activity_mean=None)
