"""Statistics of α in a step, kept in the optimizer state when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

Diagnostics: TypeAlias = bool | Literal["per_leaf"]


class SelectedNode(optax.MaskedNode):  # type: ignore[misc]
    """Stands for a leaf that a mask lets in, as ``MaskedNode`` does for one that it leaves out.

    Of its kind, so that ``is_leaf`` of :func:`optax.tree.map_params` meets both.
    """


class PlasticityDiagnostics(NamedTuple):
    """Statistics of α in the last step, over all entries of all leaves: float32 scalars.

    All are zero before the first step. A tensorwise α counts once for each entry of its leaf.

    Attributes:
      alpha_mean: mean.
      alpha_std: population standard deviation.
      alpha_min: smallest value.
      alpha_max: largest value.
      fraction_at_min: share of entries with α ≤ ``min_alpha``.
      fraction_at_max: share of entries with α ≥ ``max_alpha``.
      fraction_negative: share of entries with α < 0.
      per_leaf: the fields above leaf by leaf, float32 [leaves, 7], rows in the order of
        ``jax.tree.leaves``; None unless asked for.
      alpha_histogram: share of each leaf's entries by α, float32 [leaves, 32]: below the first of
        ``ALPHA_EDGES``, from each edge up to the next, and from the last one on; None unless asked
        for by leaf.
      leaves: which leaves these are, a tree of nodes without arrays; None unless a mask chose them
        and no trace shows them.
    """

    alpha_mean: jax.Array
    alpha_std: jax.Array
    alpha_min: jax.Array
    alpha_max: jax.Array
    fraction_at_min: jax.Array
    fraction_at_max: jax.Array
    fraction_negative: jax.Array
    per_leaf: jax.Array | None = None
    alpha_histogram: jax.Array | None = None
    leaves: Any | None = None


STATISTICS = PlasticityDiagnostics._fields[:7]
ALPHA_EDGES = tuple(i / 10 for i in range(31))
"""The edges of the histograms of α: 0, 0.1, ..., 3; the published bounds are among them."""


def check_diagnostics(value: Diagnostics) -> None:
    """Raises ``ValueError`` unless ``value`` is one of the three choices."""
    if value not in (False, True, "per_leaf"):
        raise ValueError(f"diagnostics must be False, True or 'per_leaf', got {value!r}.")


def init_diagnostics(
    params: optax.Params, diagnostics: Diagnostics
) -> PlasticityDiagnostics | None:
    """Zeros of the shapes that :func:`measure` returns."""
    if not diagnostics:
        return None
    leaves = len(jax.tree.leaves(params))
    by_leaf = {"per_leaf": len(STATISTICS), "alpha_histogram": len(ALPHA_EDGES) + 1}
    return PlasticityDiagnostics(
        **{name: jnp.zeros((), jnp.float32) for name in STATISTICS},
        **{
            name: jnp.zeros((leaves, columns), jnp.float32)
            for name, columns in by_leaf.items()
            if diagnostics == "per_leaf"
        },
    )


def measure(
    alphas: Sequence[jax.Array],
    gradients: Sequence[jax.Array],
    *,
    min_alpha: ArrayLike,
    max_alpha: ArrayLike,
    diagnostics: Diagnostics,
) -> PlasticityDiagnostics | None:
    """Statistics of one step from its leaves; None where ``diagnostics`` is False."""
    if not diagnostics or not gradients:
        return init_diagnostics(gradients, diagnostics)
    alphas = jax.lax.stop_gradient(alphas)  # the derivative of a deviation of 0 is not finite
    rows = [
        _measure_leaf(alpha, gradient, min_alpha, max_alpha)
        for alpha, gradient in zip(alphas, gradients, strict=True)
    ]
    columns = [jnp.stack(column) for column in zip(*rows, strict=True)]
    leaves = PlasticityDiagnostics(*columns)
    sizes = jnp.asarray([gradient.size for gradient in gradients], jnp.float32)
    share = sizes / jnp.maximum(jnp.sum(sizes), 1)

    def average(column: jax.Array) -> jax.Array:
        return jnp.sum(share * column)

    mean = average(leaves.alpha_mean)
    return PlasticityDiagnostics(
        alpha_mean=mean,
        alpha_std=jnp.sqrt(average(leaves.alpha_std**2 + (leaves.alpha_mean - mean) ** 2)),
        alpha_min=jnp.min(jnp.where(sizes > 0, leaves.alpha_min, jnp.inf)),
        alpha_max=jnp.max(jnp.where(sizes > 0, leaves.alpha_max, -jnp.inf)),
        fraction_at_min=average(leaves.fraction_at_min),
        fraction_at_max=average(leaves.fraction_at_max),
        fraction_negative=average(leaves.fraction_negative),
        **(
            {
                "per_leaf": jnp.stack(columns, axis=1),
                "alpha_histogram": jnp.stack(
                    [_histogram(*pair) for pair in zip(alphas, gradients, strict=True)]
                ),
            }
            if diagnostics == "per_leaf"
            else {}
        ),
    )


def _measure_leaf(
    alpha: jax.Array,
    gradient: jax.Array,
    min_alpha: ArrayLike,
    max_alpha: ArrayLike,
) -> tuple[jax.Array, ...]:
    """The statistics of one leaf in the order of ``STATISTICS``, zeros for a zero-size one."""
    if not gradient.size:
        return tuple(jnp.zeros((), jnp.float32) for _ in STATISTICS)
    alpha = jnp.broadcast_to(alpha, gradient.shape)
    statistics = (
        jnp.mean(alpha),
        jnp.std(alpha),
        jnp.min(alpha),
        jnp.max(alpha),
        jnp.mean(alpha <= jnp.asarray(min_alpha, alpha.dtype)),
        jnp.mean(alpha >= jnp.asarray(max_alpha, alpha.dtype)),
        jnp.mean(alpha < 0),
    )
    return tuple(statistic.astype(jnp.float32) for statistic in statistics)


def _histogram(alpha: jax.Array, gradient: jax.Array) -> jax.Array:
    """Share of a leaf's entries between the edges; zeros for a zero-size leaf."""
    alpha = jnp.broadcast_to(alpha, gradient.shape)
    edges = jnp.asarray(ALPHA_EDGES, alpha.dtype)
    # A scatter would count in one pass, but not on leaves that are sharded explicitly.
    reached = jax.lax.map(lambda edge: jnp.sum(alpha >= edge), edges)
    counts = -jnp.diff(reached, prepend=gradient.size, append=0)
    return (counts / max(gradient.size, 1)).astype(jnp.float32)
