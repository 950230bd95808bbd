"""Early, named errors for settings and trees that cannot work."""

import math
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp


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
    """Raises ``TypeError`` naming the first leaf that is not an array of real floating numbers."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            where = jax.tree_util.keystr(path) or "the only leaf"
            raise TypeError(
                f"plasticity is defined for real floating-point leaves, got {dtype} at {where}; "
                "keep other leaves out with optax.masked or optax.partition."
            )


def is_static_zero(value: Any) -> bool:
    """Whether a setting is a plain number equal to zero, known before tracing."""
    return isinstance(value, Real) and value == 0
