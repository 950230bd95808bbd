"""The plasticity coefficient of one leaf: three normalised signals, weighted and bounded."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from neuroplastic_optax import _checks

Operands = TypeVar("Operands")
Signals: TypeAlias = tuple[jax.Array, jax.Array | None, jax.Array | None]


class Coefficient(NamedTuple):
    """The plasticity coefficient of one leaf, and its gradient-only part."""

    alpha: jax.Array  # the leaf's shape, or () when tensorwise
    alpha_grad: jax.Array  # likewise


def compute_dtype(dtype: DTypeLike) -> DTypeLike:
    """The dtype for ratios, norms and means of a leaf: float32, or the leaf's own where wider.

    >>> compute_dtype(jnp.bfloat16)
    dtype('float32')
    """
    return jnp.promote_types(jax.dtypes.canonicalize_dtype(dtype), jnp.float32)


def narrowed(x: jax.Array, like: jax.Array) -> jax.Array:
    """``x`` in the dtype of ``like``, at most its largest number where ``like`` is finite.

    An update that overflows in half precision would become NaN in what comes after it.
    """
    if x.dtype == like.dtype:
        return x
    largest = jnp.finfo(like.dtype).max
    return jnp.where(jnp.isfinite(like), jnp.clip(x, -largest, largest), x).astype(like.dtype)


def _sum_of_each(xs: Operands) -> Operands:
    return jax.tree.map(jnp.sum, xs)


def _sums_by_one_reduction(xs: Operands) -> Operands:
    leaves, structure = jax.tree.flatten(xs)
    zeros = [jnp.zeros((), x.dtype) for x in leaves]
    axes = tuple(range(leaves[0].ndim))
    sums = jax.lax.reduce(leaves, zeros, lambda ys, zs: jax.tree.map(jnp.add, ys, zs), axes)
    return jax.tree.unflatten(structure, sums)


def sums(xs: Operands) -> Operands:
    """The sum of each of several arrays of one shape.

    XLA's GPU backend updates a trace in place only where the kernel that does it makes no other
    reduction than its own, and else copies it; one reduction of several operands is the way out. On
    TPU it would add traffic.
    """
    return jax.lax.platform_dependent(
        xs, cuda=_sums_by_one_reduction, rocm=_sums_by_one_reduction, default=_sum_of_each
    )


def computed_twice(operands: Operands) -> Operands:
    """The same values, from which XLA's CPU backend computes again what it computed before.

    There it would write a signal to memory and read it back twice, once for its mean and once for
    the entries: more traffic than to compute it twice. On GPU and TPU a barrier only costs traffic.
    """
    return jax.lax.platform_dependent(
        operands, cpu=jax.lax.optimization_barrier, default=lambda x: x
    )


@jax.custom_jvp
def _sqrt(x: jax.Array) -> jax.Array:
    """√x with the derivative 0 at 0, where that of √x is infinite."""
    return jnp.sqrt(x)


@_sqrt.defjvp
def _sqrt_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (dx,) = primals, tangents
    root = _sqrt(x)
    positive = x > 0
    return root, jnp.where(positive, 0.5 / jnp.where(positive, root, 1.0), 0.0) * dx


def _signals(
    gradient: jax.Array,
    activity: jax.Array | None,
    mu: jax.Array | None,
    nu: jax.Array | None,
    eps: jax.Array,
) -> Signals:
    """What is compared within a leaf: |g|, a and |m| / (√v + eps), in the dtype of ``eps``."""
    g, a, m, v = jax.tree.map(lambda x: x.astype(eps.dtype), (gradient, activity, mu, nu))
    memory = None if m is None or v is None else jnp.abs(m) / (_sqrt(v) + eps)
    return jnp.abs(g), a, memory


def coefficient(
    gradient: jax.Array,
    activity: jax.Array | None,
    mu: jax.Array | None,
    nu: jax.Array | None,
    *,
    activity_weight: ArrayLike,
    gradient_weight: ArrayLike,
    memory_weight: ArrayLike,
    min_alpha: ArrayLike,
    max_alpha: ArrayLike,
    plasticity_scale: ArrayLike,
    eps: ArrayLike,
    tensorwise: bool,
) -> Coefficient:
    """α and α_grad of one leaf; see `plasticity_coefficient`."""
    dtype = compute_dtype(gradient.dtype)
    # A schedule or `inject_hyperparams` may bring eps in float16, where 1e-8 is zero.
    eps = jnp.maximum(jnp.asarray(eps, dtype), jnp.finfo(dtype).tiny)

    operands = gradient, activity, mu, nu, eps
    totals = sums(_signals(*computed_twice(operands)))
    # A zero-size leaf has mean 0, not NaN.
    means = jax.tree.map(lambda total: total / max(gradient.size, 1), totals)
    signals = means if tensorwise else _signals(*operands)
    ghat, ahat, mhat = jax.tree.map(lambda x, mean: x / (mean + eps), signals, means)

    mixed = gradient_weight * ghat
    if ahat is not None:
        mixed += activity_weight * ahat
    if mhat is not None:
        mixed += memory_weight * mhat

    alpha_grad = jnp.clip(ghat, min_alpha, max_alpha)
    alpha_full = jnp.clip(mixed, min_alpha, max_alpha)
    # α_grad + γ (α_full − α_grad) from the nearer end: exact at γ = 0, at γ = 1, and where the two
    # coefficients agree, as at a common bound.
    nearer = jnp.where(jnp.asarray(plasticity_scale) > 0.5, 1.0, 0.0)
    end = nearer * alpha_full + (1 - nearer) * alpha_grad
    alpha = end + (plasticity_scale - nearer) * (alpha_full - alpha_grad)
    return Coefficient(jnp.asarray(alpha, dtype), alpha_grad.astype(dtype))


def plasticity_coefficient(
    gradient: ArrayLike,
    activity: ArrayLike | None,
    mu: ArrayLike | None,
    nu: ArrayLike | None,
    *,
    activity_weight: ArrayLike = 0.4,
    gradient_weight: ArrayLike = 0.4,
    memory_weight: ArrayLike = 0.2,
    min_alpha: ArrayLike = 0.2,
    max_alpha: ArrayLike = 2.0,
    plasticity_scale: ArrayLike = 1.0,
    eps: ArrayLike = 1e-8,
    tensorwise: bool = False,
) -> jax.Array:
    r"""The plasticity coefficient α of one leaf, from traces updated by this step already.

    With :math:`N(x) = x / (\mathrm{mean}(x) + \epsilon)`, the mean over all entries of the leaf,

    .. math::

      \hat g = N(|g|), \quad \hat a = N(a), \quad \hat m = N(|m| / (\sqrt v + \epsilon))

      \alpha_\mathrm{grad} = \mathrm{clip}(\hat g, \alpha_\min, \alpha_\max), \quad
      \alpha_\mathrm{full} =
        \mathrm{clip}(w_a \hat a + w_g \hat g + w_m \hat m, \alpha_\min, \alpha_\max)

      \alpha = \alpha_\mathrm{grad} + \gamma (\alpha_\mathrm{full} - \alpha_\mathrm{grad})

    α is not clipped again after γ: at γ = 2 and the default bounds it lies in [−1.6, 3.8], and a
    negative entry turns its coordinate's descent into ascent.

    Args:
      gradient: the gradient g of the leaf, any shape, real floating.
      activity: trace of :math:`|g|`, the gradient's shape; None leaves the signal out.
      mu: trace of g, the gradient's shape; None leaves the memory signal out.
      nu: trace of g², the gradient's shape; None leaves the memory signal out.
      activity_weight: :math:`w_a`, a number.
      gradient_weight: :math:`w_g`, a number.
      memory_weight: :math:`w_m`, a number.
      min_alpha: lower bound of both coefficients.
      max_alpha: upper bound of both coefficients.
      plasticity_scale: γ; 0 gives the gradient-only coefficient, 1 the paper's formula.
      eps: keeps the ratios finite.
      tensorwise: one coefficient for the leaf, from the mean of each unclipped expression.

    Returns:
      α, dimensionless, of the gradient's shape, or a scalar when ``tensorwise``; float32, or the
      gradient's dtype where that is wider.

    Raises:
      TypeError: a leaf that is not real floating.
      ValueError: a static number that cannot work.

    Examples:
      >>> import jax.numpy as jnp
      >>> from neuroplastic_optax import plasticity_coefficient
      >>> g = jnp.array([0.1, -0.2, 0.3])
      >>> plasticity_coefficient(g, 0.05 * jnp.abs(g), 0.1 * g, 0.01 * g**2)
      Array([0.59..., 0.99..., 1.39...], dtype=float32)

    References:
      Jiang et al., `NeuroPlastic <https://arxiv.org/abs/2604.26297>`_, 2026, section 3.
    """
    check_coefficient_settings(
        activity_weight, gradient_weight, memory_weight, min_alpha, max_alpha, eps
    )
    _checks.check_number("plasticity_scale", plasticity_scale)
    _checks.check_floating((gradient, activity, mu, nu))
    return coefficient(
        *jax.tree.map(jnp.asarray, (gradient, activity, mu, nu)),
        activity_weight=activity_weight,
        gradient_weight=gradient_weight,
        memory_weight=memory_weight,
        min_alpha=min_alpha,
        max_alpha=max_alpha,
        plasticity_scale=plasticity_scale,
        eps=eps,
        tensorwise=tensorwise,
    ).alpha


def check_coefficient_settings(
    activity_weight: ArrayLike,
    gradient_weight: ArrayLike,
    memory_weight: ArrayLike,
    min_alpha: ArrayLike,
    max_alpha: ArrayLike,
    eps: ArrayLike,
) -> None:
    """Raises ``ValueError`` for static weights, bounds or eps that cannot work."""
    weights = {
        "activity_weight": activity_weight,
        "gradient_weight": gradient_weight,
        "memory_weight": memory_weight,
    }
    for name, weight in weights.items():
        _checks.check_number(name, weight, at_least=0)
    if all(_checks.is_static_zero(weight) for weight in weights.values()):
        raise ValueError(f"one of {', '.join(weights)} must be above 0, got 0 for each.")
    _checks.check_number("min_alpha", min_alpha)
    _checks.check_number("max_alpha", max_alpha)
    _checks.check_order("min_alpha", min_alpha, "max_alpha", max_alpha)
    _checks.check_number("eps", eps, above=0)
