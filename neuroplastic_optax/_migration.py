"""Bringing an optimizer state to an optimizer with other settings."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Key = tuple[str, str]


class MigratedState(NamedTuple):
    """What :func:`migrate_state` returns.

    Attributes:
      state: for the new optimizer.
      dropped: arrays of the old state that have no place in the new one, by path.
      started: arrays of the new state that the old one had not, by path; as after ``init``.
    """

    state: optax.OptState
    dropped: tuple[str, ...]
    started: tuple[str, ...]


def migrate_state(
    state: optax.OptState, optimizer: optax.GradientTransformation, params: optax.Params
) -> MigratedState:
    """Bring a state to an optimizer with other diagnostics, masks, traces or wrappers.

    In the middle of a run: restore the checkpoint with the optimizer that wrote it, then migrate.
    An array is carried over to where the new state has one of the same shape in the same field of
    the same kind of state (``ScaleByAdamState.mu['kernel']``, say), wherever in the chain that is.
    Where a state has several of one kind, they are paired in order, if both have as many. What is
    new starts as after ``init``; the dtype is the new one's.

    Args:
      state: of another optimizer, for the same ``params``.
      optimizer: the one to go on with.
      params: the parameters.

    Returns:
      A named tuple: ``state``, for the new optimizer; ``dropped``, the paths of arrays that have no
      place in it; and ``started``, the paths of arrays that the old state had not.

    Examples:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> from neuroplastic_optax import migrate_state, with_diagnostics
      >>> params = {"w": jnp.ones(2)}
      >>> state = optax.adam(1e-3).init(params)
      >>> migrated = migrate_state(state, with_diagnostics(optax.adam(1e-3)), params)
      >>> migrated.dropped, migrated.started[:2]
      ((), (".overall['ascent_fraction']", ".overall['cosine']"))
      >>> back = migrate_state(migrated.state, optax.adam(1e-3), params)
      >>> len(back.dropped), back.started
      (6, ())
    """
    fresh = optimizer.init(params)
    old, new = _by_key(state), _by_key(fresh)
    carried: dict[str, Any] = {}
    used: set[str] = set()
    for key, places in new.items():
        found = old.get(key, [])
        if len(found) != len(places):
            at = dict(found)
            found = [(path, at.get(path)) for path, _ in places]  # only what kept its place
        for (path, leaf), (old_path, old_leaf) in zip(places, found, strict=True):
            if old_leaf is not None and jnp.shape(old_leaf) == jnp.shape(leaf):
                carried[path] = jnp.asarray(old_leaf, jnp.result_type(leaf))
                used.add(old_path)
    leaves, structure = jax.tree_util.tree_flatten_with_path(fresh)
    paths = [jax.tree_util.keystr(path) for path, _ in leaves]
    return MigratedState(
        jax.tree.unflatten(
            structure,
            [carried.get(path, leaf) for path, (_, leaf) in zip(paths, leaves, strict=True)],
        ),
        dropped=tuple(path for entries in old.values() for path, _ in entries if path not in used),
        started=tuple(path for path in paths if path not in carried),
    )


def _by_key(state: optax.OptState) -> dict[Key, list[tuple[str, Any]]]:
    """The leaves of a state with their paths, by kind of state and place in it, in order."""
    found: dict[Key, list[tuple[str, Any]]] = defaultdict(list)

    def collect(node: Any, path: str, kind: str, inside: str) -> None:
        if isinstance(node, tuple) and hasattr(node, "_fields"):
            for name, child in zip(node._fields, node, strict=True):
                collect(child, f"{path}.{name}", type(node).__name__, f".{name}")
            return
        children, _ = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
        for step, child in children:
            if child is node:
                found[kind, inside].append((path, node))
                continue
            name = jax.tree_util.keystr(step)
            # A place in a chain says nothing about what a state is.
            anonymous = isinstance(node, tuple)
            collect(child, path + name, kind, inside if anonymous else inside + name)

    collect(state, "", "", "")
    return found
