"""What an optimizer does in a step, for any optimizer, and how to read it from a state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from neuroplastic_optax._coefficient import compute_dtype
from neuroplastic_optax._statistics import ALPHA_EDGES as ALPHA_EDGES
from neuroplastic_optax._statistics import STATISTICS, SelectedNode
from neuroplastic_optax._statistics import PlasticityDiagnostics as PlasticityDiagnostics
from neuroplastic_optax._traces import ScaleByPlasticityState
from neuroplastic_optax.masks import leaf_path

Statistics: TypeAlias = dict[str, jax.Array]

UPDATE_STATISTICS = (
    "gradient_norm",
    "update_norm",
    "param_norm",
    "update_ratio",
    "cosine",
    "ascent_fraction",
)


class WithDiagnosticsState(NamedTuple):
    """State of :func:`~neuroplastic_optax.with_diagnostics`.

    Attributes:
      inner_state: of the wrapped transformation.
      overall: each statistic over all leaves, float32 scalars by name.
      per_leaf: each statistic leaf by leaf, float32 [leaves] by name, in the order of
        ``jax.tree.leaves``; None unless asked for.
    """

    inner_state: optax.OptState
    overall: Statistics
    per_leaf: Statistics | None = None


def with_diagnostics(
    inner: optax.GradientTransformation, *, per_leaf: bool = False, prefix: str = ""
) -> optax.GradientTransformationExtraArgs:
    r"""Keep what a transformation did in its last step in the state: any Optax optimizer.

    With g what comes in, u what goes out and p the parameters, over all leaves and, on request,
    over each:

    =================== =============================================================
    ``gradient_norm``   :math:`\|g\|`
    ``update_norm``     :math:`\|u\|`
    ``param_norm``      :math:`\|p\|`
    ``update_ratio``    :math:`\|u\| / \|p\|`, the size of the step relative to the parameters
    ``cosine``          :math:`\langle u, g \rangle / (\|u\| \|g\|)`; −1 is steepest descent
    ``ascent_fraction`` share of coordinates with :math:`u g > 0`, whose step climbs
    =================== =============================================================

    The last two are meant for whole optimizers, whose updates have the sign that
    :func:`optax.apply_updates` adds. The updates themselves are those of ``inner`` to the bit.
    A statistic that is not defined, as a ratio to zero or without ``params``, is 0; all are 0
    before the first step. Their derivative is 0. An optimizer that is not wrapped pays nothing.

    Args:
      inner: any transformation, a whole optimizer or a part of a chain.
      per_leaf: keep the statistics of each leaf too.
      prefix: before each name, where a state holds several: ``"clip/"`` gives
        ``"clip/update_norm"``.

    Returns:
      A transformation whose state, :class:`~neuroplastic_optax.monitoring.WithDiagnosticsState`,
      :func:`diagnostics` reads; extra arguments reach ``inner``.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from neuroplastic_optax import diagnostics, with_diagnostics
      >>> tx = with_diagnostics(optax.sgd(0.1))
      >>> params, gradients = {"w": jnp.array([6.0, 8.0])}, {"w": jnp.array([3.0, 4.0])}
      >>> _, state = tx.update(gradients, tx.init(params), params)
      >>> {name: round(float(value), 3) for name, value in diagnostics(state).items()}
      ... # doctest: +NORMALIZE_WHITESPACE
      {'ascent_fraction': 0.0, 'cosine': -1.0, 'gradient_norm': 5.0, 'param_norm': 10.0,
       'update_norm': 0.5, 'update_ratio': 0.05}
    """
    inner = optax.with_extra_args_support(inner)
    names = [prefix + name for name in UPDATE_STATISTICS]

    def init_fn(params: optax.Params) -> WithDiagnosticsState:
        leaves = len(jax.tree.leaves(params))
        return WithDiagnosticsState(
            inner.init(params),
            {name: jnp.zeros((), jnp.float32) for name in names},
            {name: jnp.zeros(leaves, jnp.float32) for name in names} if per_leaf else None,
        )

    def update_fn(
        updates: optax.Updates,
        state: WithDiagnosticsState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, WithDiagnosticsState]:
        out, inner_state = inner.update(updates, state.inner_state, params, **extra_args)
        sums = _sums(*jax.lax.stop_gradient((updates, out, params)))
        overall = _update_statistics(jnp.sum(sums, axis=0))
        rows = _update_statistics(sums) if per_leaf else None
        return out, WithDiagnosticsState(
            inner_state,
            dict(zip(names, overall, strict=True)),
            None if rows is None else dict(zip(names, rows, strict=True)),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _sums(
    gradients: optax.Updates, updates: optax.Updates, params: optax.Params | None
) -> jax.Array:
    """⟨g, g⟩, ⟨u, u⟩, ⟨p, p⟩, ⟨u, g⟩, ascending and all coordinates, [leaves, 6] in float32."""

    def dot(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.sum(jnp.real(jnp.conj(x) * y))

    def of_leaf(gradient: Any, update: Any, param: Any) -> jax.Array:
        g, u, p = (
            jnp.asarray(x).astype(compute_dtype(jnp.result_type(x)))
            for x in (gradient, update, param)
        )
        ascending = jnp.sum(jnp.real(jnp.conj(u) * g) > 0)
        row = dot(g, g), dot(u, u), dot(p, p), dot(u, g), ascending, g.size
        return jnp.stack([jnp.asarray(x, jnp.float32) for x in row])

    leaves = jax.tree.leaves(gradients)
    zeros = [0.0] * len(leaves)
    rows = [
        of_leaf(*operands)
        for operands in zip(
            leaves,
            jax.tree.leaves(updates),
            zeros if params is None else jax.tree.leaves(params),
            strict=True,
        )
    ]
    return jnp.stack(rows) if rows else jnp.zeros((0, 6), jnp.float32)


def _update_statistics(sums: jax.Array) -> tuple[jax.Array, ...]:
    """The statistics in the order of ``UPDATE_STATISTICS`` from sums in the last axis."""
    gg, uu, pp, ug, ascending, size = jnp.moveaxis(sums, -1, 0)
    gradient, update, param = jnp.sqrt(gg), jnp.sqrt(uu), jnp.sqrt(pp)

    def quotient(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.where(y > 0, x / jnp.where(y > 0, y, 1.0), 0.0)

    cosine = quotient(quotient(ug, update), gradient)  # a product of norms may underflow
    return gradient, update, param, quotient(update, param), cosine, quotient(ascending, size)


def diagnostics(opt_state: Any, params: optax.Params | None = None) -> Statistics:
    """The diagnostics in an optimizer state as a flat dict for any logger.

    Keys are the statistics of :func:`with_diagnostics` and the field names of
    :class:`~neuroplastic_optax.monitoring.PlasticityDiagnostics`; a leaf's statistic is at
    ``"alpha_mean/encoder/kernel"``. Where a state holds several of one name, outer and later ones
    override. Works inside ``jit`` and on vmapped states (every value then has the mapped axes).
    Every value is a scalar; the histograms stay in the state, at ``optax.tree.get(opt_state,
    "alpha_histogram")``.

    Args:
      opt_state: any optimizer state, of a chain, a wrapper or a single transformation.
      params: the parameters; they name per-leaf statistics, and are needed only for those of
        :func:`with_diagnostics` and of an α without traces. Of such an α in :func:`optax.masked`
        they are the leaves that it lets in; ``with_plasticity(mask=...)`` takes all as ever.

    Returns:
      float32 arrays by name; empty where nothing was asked to keep diagnostics.

    Raises:
      ValueError: the state holds per-leaf statistics and ``params`` is missing or has another
        number of leaves.

    Examples:
      >>> import jax.numpy as jnp
      >>> from neuroplastic_optax import diagnostics, neuroplastic
      >>> tx = neuroplastic(0.1, diagnostics=True)
      >>> params = {"w": jnp.array([3.0, 4.0])}
      >>> _, state = tx.update(params, tx.init(params), params)
      >>> metrics = diagnostics(state)
      >>> round(float(metrics["gradient_norm"]), 6), float(metrics["fraction_negative"])
      (5.0, 0.0)
    """
    flat: Statistics = {}
    for overall, per_leaf, named in _kept(opt_state, params):
        flat |= {name: jnp.asarray(overall[name]) for name in sorted(overall)}
        if per_leaf is not None:
            flat |= _by_path(per_leaf, named)
    return flat


def _kept(
    opt_state: Any, params: optax.Params | None
) -> Iterator[tuple[Statistics, Statistics | None, Any]]:
    """What states keep, inner ones before those around them: overall, per leaf, a tree of names."""
    kinds = (WithDiagnosticsState, ScaleByPlasticityState)
    for node in jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, kinds)):
        if isinstance(node, WithDiagnosticsState):
            yield from _kept(node.inner_state, params)
            yield node.overall, node.per_leaf, params
        elif isinstance(node, ScaleByPlasticityState) and node.diagnostics is not None:
            fields = node.diagnostics._asdict()
            table = fields["per_leaf"]
            per_leaf = None
            if table is not None:
                columns = jnp.moveaxis(jnp.asarray(table), -1, 0)
                per_leaf = dict(zip(STATISTICS, columns, strict=True))
            # The first three have the leaves that a mask let in, and no others.
            trees = (node.activity, node.memory_mu, node.memory_nu, fields["leaves"], params)
            named = next((tree for tree in trees if tree is not None), None)
            yield {name: fields[name] for name in STATISTICS}, per_leaf, named


def _by_path(per_leaf: Statistics, named: Any) -> Statistics:
    """Each leaf's statistics by name and path, from arrays with the leaves in the last axis."""
    leaves = jax.tree_util.tree_leaves_with_path(
        named, is_leaf=lambda node: isinstance(node, SelectedNode)
    )
    paths = [leaf_path(path) for path, _ in leaves]
    flat: Statistics = {}
    for name in sorted(per_leaf):
        # In the state of an `nnx.Optimizer` each array is inside a variable.
        values = jnp.asarray(per_leaf[name])
        if len(paths) != values.shape[-1]:
            raise ValueError(
                f"params must name the {values.shape[-1]} leaves of the per-leaf diagnostics, "
                f"got {'None' if named is None else f'a tree of {len(paths)} leaves'}."
            )
        flat |= {f"{name}/{path}": values[..., row] for row, path in enumerate(paths)}
    return flat
