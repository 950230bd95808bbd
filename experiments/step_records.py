"""What the records keep of what an optimizer did: of one step, and of an epoch's steps."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

import neuroplastic_optax as npx

# The columns of the records by the names that the library gives.
NORMS = {
    "gradient_norm": "raw_gradient_norm",
    "homeostasis/gradient_norm": "raw_update_norm",
    "homeostasis/update_norm": "effective_update_norm",
}


def diagnostics_of_step(opt_state: Any, params: Any) -> dict[str, jax.Array]:
    """What the optimizer did in its last step: statistics of α, and norms along the chain."""
    found = npx.diagnostics(opt_state, params)
    norms = {column: found[name] for name, column in NORMS.items() if name in found}
    alpha = {name: x for name, x in found.items() if name.startswith(("alpha_", "fraction_"))}
    return {**alpha, **norms, **_histograms(opt_state, params)}


def _histograms(opt_state: Any, params: Any) -> dict[str, jax.Array]:
    """The share of each leaf's entries with α from an edge on, up to the next, where it is kept."""
    histogram = optax.tree.get(opt_state, "alpha_histogram")
    if histogram is None:
        return {}
    edges = ("-inf", *(f"{edge:g}" for edge in npx.monitoring.ALPHA_EDGES))
    return {
        f"alpha_from_{edge}/{npx.masks.leaf_path(path)}": histogram[row, column]
        for row, (path, _) in enumerate(jax.tree_util.tree_leaves_with_path(params))
        for column, edge in enumerate(edges)
    }


def over_epoch(name: str, steps: dict[str, jax.Array]) -> jax.Array:
    """A diagnostic of one epoch from those of its steps."""
    values = steps[name]
    statistic, _, leaf = name.partition("/")
    if statistic.endswith("_norm"):  # of all the epoch's updates, taken as one vector
        return jnp.sqrt(jnp.sum(jnp.square(values)))
    if statistic == "alpha_min":
        return jnp.min(values)
    if statistic == "alpha_max":
        return jnp.max(values)
    if statistic == "alpha_std":
        means = steps[f"alpha_mean/{leaf}" if leaf else "alpha_mean"]
        return jnp.sqrt(jnp.mean(values**2 + (means - jnp.mean(means)) ** 2))
    return jnp.mean(values)
