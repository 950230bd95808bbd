"""Masks by path and shape."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import neuroplastic_optax as npx
from neuroplastic_optax.masks import leaf_path

NETWORK = {
    "stem": {"kernel": jnp.zeros((3, 3, 1, 4)), "scale": jnp.zeros(4)},
    "block_0": {"conv_1": {"kernel": jnp.zeros((3, 3, 4, 4))}, "norm": {"bias": jnp.zeros(4)}},
    "block_1": {"conv_1": {"kernel": jnp.zeros((3, 3, 4, 4))}, "norm": {"bias": jnp.zeros(4)}},
    "block_2": {"conv_1": {"kernel": jnp.zeros((1, 1, 4, 4))}, "norm": {"bias": jnp.zeros(4)}},
    "head": {"kernel": jnp.zeros((4, 10)), "bias": jnp.zeros(10)},
}


def chosen(mask_fn, tree=NETWORK):
    """The paths of the leaves that a mask takes in."""
    mask = mask_fn(tree)
    assert jax.tree.structure(mask) == jax.tree.structure(tree)
    assert all(isinstance(leaf, bool) for leaf in jax.tree.leaves(mask))
    return {leaf_path(path) for path, leaf in jax.tree_util.tree_leaves_with_path(mask) if leaf}


ALL = chosen(npx.masks.scope(""))


def test_scope_searches_the_path():
    assert chosen(npx.masks.scope("kernel$")) == {path for path in ALL if path.endswith("/kernel")}
    assert chosen(npx.masks.scope(r"block_[01]/.*bias")) == {
        "block_0/norm/bias",
        "block_1/norm/bias",
    }
    assert chosen(npx.masks.scope("^stem/")) == {"stem/kernel", "stem/scale"}
    assert chosen(npx.masks.scope("nowhere")) == set()


def test_convolution_kernels_have_three_to_five_axes():
    assert chosen(npx.masks.convolution_kernels()) == {
        "stem/kernel",
        "block_0/conv_1/kernel",
        "block_1/conv_1/kernel",
        "block_2/conv_1/kernel",
    }
    axes = {f"{n}": {"kernel": np.zeros((1,) * n)} for n in range(1, 7)}
    assert chosen(npx.masks.convolution_kernels(), axes) == {"3/kernel", "4/kernel", "5/kernel"}


def test_classifier_is_found_by_a_whole_part_of_the_path():
    assert chosen(npx.masks.classifier()) == {"head/kernel", "head/bias"}
    assert chosen(npx.masks.classifier(("stem",))) == {"stem/kernel", "stem/scale"}
    assert chosen(npx.masks.classifier(("hea",))) == set()


def test_blocks_are_split_in_whole_and_leaves_outside_left_out():
    early, late = chosen(npx.masks.early_blocks(1 / 3)), chosen(npx.masks.late_blocks(1 / 3))
    assert early == {"block_0/conv_1/kernel", "block_0/norm/bias"}
    assert late == {"block_2/conv_1/kernel", "block_2/norm/bias"}
    assert chosen(npx.masks.early_blocks(0.0)) == chosen(npx.masks.late_blocks(0.0)) == set()


def test_blocks_stand_in_numerical_order():
    tree = {"layers": {str(i): {"kernel": 0.0} for i in (0, 1, 2, 9, 10, 11)}}
    assert chosen(npx.masks.early_blocks(), tree) == {f"layers/{i}/kernel" for i in (0, 1, 2)}
    assert chosen(npx.masks.late_blocks(), tree) == {f"layers/{i}/kernel" for i in (9, 10, 11)}


def test_blocks_of_stages_stand_in_order_of_stage_and_block():
    tree = {f"stage_{s}": {f"block_{b}": {"kernel": 0.0} for b in (0, 1)} for s in (0, 1)}
    assert chosen(npx.masks.early_blocks(), tree) == {f"stage_0/block_{b}/kernel" for b in (0, 1)}


@given(st.integers(0, 12), st.integers(0, 8).map(lambda eighths: eighths / 8))
@example(3, 0.5)
@example(5, 0.5)
def test_early_and_late_blocks_part_a_stack(number, fraction):
    tree = {"blocks": [{"kernel": 0.0} for _ in range(number)]}
    early = chosen(npx.masks.early_blocks(fraction), tree)
    late = chosen(npx.masks.late_blocks(1 - fraction), tree)
    assert len(early) == round(fraction * number)
    assert early.isdisjoint(late)
    assert len(early | late) == number


@pytest.mark.parametrize(
    ("tree", "path"),
    [
        ({"dense": {"kernel": 1.0}}, "dense/kernel"),
        ({"layers": [{"kernel": 1.0}]}, "layers/0/kernel"),
        ({"attention": {"value": 1.0}}, "attention/value"),
        ({"value": 1.0}, "value"),
        (optax.TraceState(trace=1.0), "trace"),
        (1.0, ""),
    ],
)
def test_leaf_paths_are_joined_by_slashes(tree, path):
    ((keys, _),) = jax.tree_util.tree_leaves_with_path(tree)
    assert leaf_path(keys) == path


def test_masks_work_where_optax_takes_them():
    mask = npx.masks.scope("bias$")
    gradients = jax.tree.map(jnp.ones_like, NETWORK)
    masked = optax.masked(optax.set_to_zero(), mask)
    updates, _ = masked.update(gradients, masked.init(NETWORK))
    assert float(jnp.sum(updates["head"]["bias"])) == 0
    assert float(jnp.sum(updates["head"]["kernel"])) == 40
    assert npx.with_plasticity(optax.identity(), mask=mask).init(NETWORK) is not None


@pytest.mark.parametrize("pattern", ["(", "[", "*"])
def test_names_a_pattern_that_is_no_expression(pattern):
    with pytest.raises(ValueError, match=f"pattern .* got {re.escape(repr(pattern))}"):
        npx.masks.scope(pattern)


@pytest.mark.parametrize("make", [npx.masks.early_blocks, npx.masks.late_blocks])
@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_names_a_fraction_that_cannot_work(make, fraction):
    with pytest.raises(ValueError, match=f"fraction must .* got {fraction!r}"):
        make(fraction)
