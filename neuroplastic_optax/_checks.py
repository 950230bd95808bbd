"""Early, named errors for settings and trees that cannot work."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

Tree = TypeVar("Tree")


def check_number(
    name: str,
    value: Any,
    *,
    at_least: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> None:
    """Raises ``ValueError`` where a static number is not finite or out of its range.

    Values known only at run time (traced or JAX arrays, schedules) are not looked at: under ``jit``
    they have no value yet, and outside it looking would wait for the device.
    """
    if not isinstance(value, Real):  # Python's numbers and NumPy's scalars
        return
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {value!r}.")
    if at_least is not None and number < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {value!r}.")
    if above is not None and number <= above:
        raise ValueError(f"{name} must be above {above}, got {value!r}.")
    if below is not None and number >= below:
        raise ValueError(f"{name} must be below {below}, got {value!r}.")


def check_order(low_name: str, low: Any, high_name: str, high: Any) -> None:
    """Raises ``ValueError`` where two static numbers stand in the wrong order."""
    if isinstance(low, Real) and isinstance(high, Real) and float(low) > float(high):
        raise ValueError(f"{low_name} must not exceed {high_name}, got {low!r} > {high!r}.")


def check_floating(tree: Any) -> None:
    """Raises ``TypeError`` naming the first leaf that is not real floating, by path.

    A Python float is a leaf as an array is, as for Optax's own transformations.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        dtype = getattr(leaf, "dtype", None)
        if isinstance(leaf, float) or (dtype is not None and jnp.issubdtype(dtype, jnp.floating)):
            continue
        where = jax.tree_util.keystr(path) or "the only leaf"
        found = type(leaf).__name__ if dtype is None else dtype
        raise TypeError(
            f"plasticity is defined for real floating-point leaves, got {found} at {where}; "
            "keep other leaves out with optax.masked or optax.partition."
        )


def floating_arrays(tree: Tree) -> Tree:
    """The tree with JAX arrays for its leaves, after :func:`check_floating`."""
    check_floating(tree)
    return jax.tree.map(jnp.asarray, tree)


def is_static_zero(value: Any) -> bool:
    """Whether a setting is a plain number equal to zero, known before tracing."""
    return isinstance(value, Real) and value == 0
