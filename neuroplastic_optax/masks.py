"""Masks that confine a transformation to some leaves, by path or by shape."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import optax

MaskFn = Callable[[optax.Params], Any]


def leaf_path(path: tuple[Any, ...]) -> str:
    """A leaf's path as text, ``"encoder/dense/kernel"``, the same for Linen and NNX trees.

    Names the statistics of a leaf in :func:`~neuroplastic_optax.diagnostics`, and is what
    :func:`scope` matches.

    Args:
      path: the path of a leaf, as in ``jax.tree_util.tree_leaves_with_path``.

    Returns:
      The names of the path's nodes, joined by ``/``.

    Examples:
      >>> import jax
      >>> from neuroplastic_optax.masks import leaf_path
      >>> params = {"dense": {"bias": 0.0, "kernel": 1.0}}
      >>> [leaf_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
      ['dense/bias', 'dense/kernel']
    """
    if len(path) > 1 and path[-1] == jax.tree_util.GetAttrKey("value"):
        path = path[:-1]  # an NNX variable is a node around its array
    return jax.tree_util.keystr(path, simple=True, separator="/")


def scope(pattern: str) -> MaskFn:
    """The leaves whose path matches a regular expression.

    Args:
      pattern: searched for anywhere in the path, such as ``"encoder/.*/kernel"``; parts of a path
        are joined by ``/``.

    Returns:
      A callable that maps a tree of parameters to a tree of bools, as :func:`optax.masked` takes.

    Raises:
      ValueError: a pattern that is no regular expression.

    Examples:
      >>> from neuroplastic_optax.masks import scope
      >>> scope("kernel$")({"dense": {"kernel": 1.0, "bias": 0.0}})
      {'dense': {'bias': False, 'kernel': True}}
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"pattern must be a regular expression, got {pattern!r}: {error}."
        ) from None
    return _by_path(lambda path, _: expression.search(path) is not None)


def convolution_kernels() -> MaskFn:
    """The leaves of convolution kernels: named ``kernel``, with three to five axes.

    Returns:
      A callable that maps a tree of parameters to a tree of bools, as :func:`optax.masked` takes.

    Examples:
      >>> import jax.numpy as jnp
      >>> from neuroplastic_optax.masks import convolution_kernels
      >>> convolution_kernels()({"kernel": jnp.zeros((3, 3, 1, 8)), "bias": jnp.zeros(8)})
      {'bias': False, 'kernel': True}
    """
    return _by_path(lambda path, leaf: path.split("/")[-1] == "kernel" and 3 <= leaf.ndim <= 5)


def classifier(names: tuple[str, ...] = ("classifier", "head", "logits", "output")) -> MaskFn:
    """The leaves of the layer that makes the logits, found by its name.

    Args:
      names: what the layer may be called; a part of a leaf's path must equal one of them.

    Returns:
      A callable that maps a tree of parameters to a tree of bools, as :func:`optax.masked` takes.

    Examples:
      >>> from neuroplastic_optax.masks import classifier
      >>> classifier()({"body": {"kernel": 1.0}, "head": {"kernel": 1.0}})
      {'body': {'kernel': False}, 'head': {'kernel': True}}
    """
    return _by_path(lambda path, _: not set(names).isdisjoint(path.split("/")))


def early_blocks(fraction: float = 0.5) -> MaskFn:
    """The leaves of the first blocks of a numbered stack, such as ``blocks/0`` or ``block_0``.

    The blocks are told apart by all the numbers in their paths before the leaf's own name, in
    numerical order; leaves outside any block are left out.

    Args:
      fraction: share of the blocks that counts as early, rounded to whole blocks, in [0, 1].

    Returns:
      A callable that maps a tree of parameters to a tree of bools, as :func:`optax.masked` takes.

    Raises:
      ValueError: a fraction outside [0, 1].

    Examples:
      >>> from neuroplastic_optax.masks import early_blocks
      >>> early_blocks()({"block_0": {"kernel": 1.0}, "block_1": {"kernel": 1.0}, "head": 1.0})
      {'block_0': {'kernel': True}, 'block_1': {'kernel': False}, 'head': False}
    """
    return _blocks(fraction, early=True)


def late_blocks(fraction: float = 0.5) -> MaskFn:
    """The leaves of the last blocks of a numbered stack: the others of :func:`early_blocks`.

    Args:
      fraction: share of the blocks that counts as late, rounded to whole blocks, in [0, 1].

    Returns:
      A callable that maps a tree of parameters to a tree of bools, as :func:`optax.masked` takes.

    Raises:
      ValueError: a fraction outside [0, 1].

    Examples:
      >>> from neuroplastic_optax.masks import late_blocks
      >>> late_blocks()({"block_0": {"kernel": 1.0}, "block_1": {"kernel": 1.0}, "head": 1.0})
      {'block_0': {'kernel': False}, 'block_1': {'kernel': True}, 'head': False}
    """
    return _blocks(fraction, early=False)


def _block(path: str) -> tuple[int, ...]:
    module, _, _ = path.rpartition("/")
    return tuple(int(number) for number in re.findall(r"(?:^|[/_])(\d+)(?=/|$)", module))


def _blocks(fraction: float, *, early: bool) -> MaskFn:
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must lie in [0, 1], got {fraction!r}.")

    def mask(params: optax.Params) -> Any:
        paths = [leaf_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        blocks = sorted({_block(path) for path in paths} - {()})
        first_late = round((fraction if early else 1 - fraction) * len(blocks))
        chosen = set(blocks[:first_late] if early else blocks[first_late:])
        return _by_path(lambda path, _: _block(path) in chosen)(params)

    return mask


def _by_path(wanted: Callable[[str, Any], bool]) -> MaskFn:
    return lambda params: jax.tree_util.tree_map_with_path(
        lambda path, leaf: wanted(leaf_path(path), leaf), params
    )
