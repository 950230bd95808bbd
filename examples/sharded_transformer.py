"""Sharding: a small causal transformer whose parameters and batches are spread over 8 devices.

Run as a program it makes 8 devices of the CPU; on accelerators it takes those that there are.
``# was:`` gives the statement of a program with Optax alone, ``# new`` marks one that it has not.

    pip install neuroplastic-optax
    python examples/sharded_transformer.py
"""

import argparse
import inspect
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import neuroplastic_optax as npx  # new

VOCABULARY, WIDTH, HEADS, LAYERS = 256, 64, 4, 2
Params = dict[str, Any]


def init(key: jax.Array, context: int) -> Params:
    """The parameters; those of all layers are stacked in the first axis."""
    shapes = {
        "embedding": (VOCABULARY, WIDTH),
        "position": (context, WIDTH),
        "layers": {
            "attention": (LAYERS, WIDTH, 3 * WIDTH),
            "mix": (LAYERS, WIDTH, WIDTH),
            "up": (LAYERS, WIDTH, 4 * WIDTH),
            "down": (LAYERS, 4 * WIDTH, WIDTH),
        },
    }
    leaves, structure = jax.tree.flatten(shapes, is_leaf=lambda node: isinstance(node, tuple))
    keys = jax.random.split(key, len(leaves))
    arrays = [0.05 * jax.random.normal(*pair) for pair in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, arrays)


def normal(x: jax.Array) -> jax.Array:
    """The root mean square of each token's features becomes 1."""
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6)


def layer(x: jax.Array, weights: Params) -> tuple[jax.Array, None]:
    """Attention to what came before, then two dense layers."""
    heads = (normal(x) @ weights["attention"]).reshape(*x.shape[:2], 3 * HEADS, WIDTH // HEADS)
    seen = jax.nn.dot_product_attention(*jnp.split(heads, 3, axis=2), is_causal=True)
    x = x + seen.reshape(x.shape) @ weights["mix"]
    return x + jax.nn.gelu(normal(x) @ weights["up"]) @ weights["down"], None


def loss_fn(params: Params, tokens: jax.Array) -> jax.Array:
    """Cross-entropy of each next byte."""
    embedded = params["embedding"][tokens[:, :-1]] + params["position"]
    x, _ = jax.lax.scan(layer, embedded, params["layers"])
    logits = normal(x) @ params["embedding"].T
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()


def spread(mesh: Mesh, leaf: jax.Array) -> jax.Array:
    """Cuts an array along its last axis; each device keeps the whole of a scalar."""
    axes = [None] * (leaf.ndim - 1) + ["data"] if leaf.ndim else []
    return jax.device_put(leaf, NamedSharding(mesh, P(*axes)))


def main(
    *, steps: int = 60, devices: int | None = None, batch: int = 16, context: int = 64
) -> tuple[list[float], Params, optax.OptState]:
    """Trains on the text of a Python module; returns losses, parameters and optimizer state."""
    mesh = jax.make_mesh((devices or jax.device_count(),), ("data",), (AxisType.Auto,))
    text = np.frombuffer(inspect.getsource(argparse).encode(), np.uint8)
    schedule = optax.warmup_cosine_decay_schedule(0.0, 3e-3, steps // 10, steps)
    adamw = npx.adamw_with_plasticity(schedule)  # was: adamw = optax.adamw(schedule)
    tx = optax.chain(optax.clip_by_global_norm(1.0), adamw)
    params = jax.jit(init, static_argnames="context")(jax.random.key(0), context=context)
    params = jax.tree.map(partial(spread, mesh), params)
    opt_state = jax.tree.map(partial(spread, mesh), jax.jit(tx.init)(params))

    @partial(jax.jit, donate_argnums=(0, 1))
    def train_step(
        params: Params, opt_state: optax.OptState, tokens: jax.Array
    ) -> tuple[Params, optax.OptState, jax.Array]:
        loss, gradients = jax.value_and_grad(loss_fn)(params, tokens)
        updates, opt_state = tx.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    generator, losses = np.random.default_rng(0), []
    for step in range(steps):
        starts = generator.integers(len(text) - context, size=(batch, 1))
        tokens = text[starts + np.arange(context + 1)].astype(np.int32)
        tokens = jax.device_put(tokens, NamedSharding(mesh, P("data")))
        params, opt_state, loss = train_step(params, opt_state, tokens)
        losses.append(float(loss))
        if step % 10 == 0 or step == steps - 1:
            print(f"step {step}: loss {losses[-1]:.3f}")
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(opt_state))
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(opt_state))
    print(f"optimizer state: {whole:,} bytes, {held:,} of them on the first of {mesh.size} devices")
    return losses, params, opt_state


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 8)
    main()
