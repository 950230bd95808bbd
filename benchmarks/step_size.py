"""How long one step is, relative to the parameters: ``python -m benchmarks.step_size``.

Writes the table of the page "Coming from SGD, Adam or AdamW" between its markers.
"""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

import neuroplastic_optax as npx
from experiments.tables import Table, markdown_table

PAGE = Path(__file__).parents[1] / "docs/coming_from.md"
MARKERS = re.compile(r"(?<=<!-- step_size -->\n)(.*?)(?=<!-- /step_size -->)", re.DOTALL)

SIDE, STEPS = 1000, 20
LARGE, SMALL = 10.0, 0.1  # norms of the gradient


def before_rate(part: optax.GradientTransformation, rate: float) -> optax.GradientTransformation:
    """An optimizer of the part and a learning rate."""
    return optax.chain(part, optax.scale_by_learning_rate(rate))


OPTIMIZERS: dict[tuple[str, float], optax.GradientTransformation] = {
    ("optax.sgd", 1e-3): optax.sgd(1e-3),
    ("optax.sgd, momentum=0.9", 1e-3): optax.sgd(1e-3, momentum=0.9),
    ("with_plasticity(optax.trace(0.9))", 1e-3): before_rate(
        npx.with_plasticity(optax.trace(0.9)), 1e-3
    ),
    ("sgd_with_plasticity, momentum=0.9", 1e-3): npx.sgd_with_plasticity(1e-3, momentum=0.9),
    ("optax.adam", 1e-3): optax.adam(1e-3),
    ("with_plasticity(optax.scale_by_adam())", 1e-3): before_rate(
        npx.with_plasticity(optax.scale_by_adam()), 1e-3
    ),
    ("optax.adamw", 1e-3): optax.adamw(1e-3),
    ("adamw_with_plasticity", 1e-3): npx.adamw_with_plasticity(1e-3),
    ("neuroplastic", 1e-3): npx.neuroplastic(1e-3),
    ("neuroplastic", 0.1): npx.neuroplastic(0.1),
}


@jax.jit
def measure() -> tuple[jax.Array, jax.Array]:
    """Sizes of steps relative to the parameters, by optimizer.

    The parameters are one leaf, drawn as LeCun's initialisation does, and stay as they are; all
    optimizers see the same gradients, half of each the same at every step and half new.

    Returns:
      Those of the first step with a small gradient, float32 [optimizers], and those with large
      gradients, float32 [steps, optimizers].
    """
    key_params, key_signal, key_noise = jax.random.split(jax.random.key(0), 3)
    shape = SIDE, SIDE
    params = jax.random.normal(key_params, shape) / jnp.sqrt(SIDE)
    signal = jax.random.normal(key_signal, shape)

    def step(
        norm: float, states: list[optax.OptState], key: jax.Array
    ) -> tuple[list[optax.OptState], jax.Array]:
        gradient = signal + jax.random.normal(key, shape)
        gradient *= norm / jnp.linalg.norm(gradient)
        pairs = [
            tx.update(gradient, state, params)
            for tx, state in zip(OPTIMIZERS.values(), states, strict=True)
        ]
        sizes = jnp.stack([jnp.linalg.norm(update) for update, _ in pairs])
        return [state for _, state in pairs], sizes / jnp.linalg.norm(params)

    start = [tx.init(params) for tx in OPTIMIZERS.values()]
    keys = jax.random.split(key_noise, STEPS)
    _, small = step(SMALL, start, keys[0])
    _, large = jax.lax.scan(functools.partial(step, LARGE), start, keys)
    return small, large


def table() -> str:
    """The measured table, in Markdown."""
    small, large = measure()
    header = [
        "optimizer",
        "rate",
        f"step 1, ‖g‖ = {SMALL:g}",
        f"step 1, ‖g‖ = {LARGE:g}",
        f"step {STEPS}, ‖g‖ = {LARGE:g}",
    ]
    rows: Table = [
        [f"`{name}`", f"{rate:g}", *(f"{float(size):.1e}" for size in sizes)]
        for (name, rate), *sizes in zip(OPTIMIZERS, small, large[0], large[-1], strict=True)
    ]
    return markdown_table([header, *rows]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(MARKERS.sub(lambda _: table(), PAGE.read_text("utf-8")), "utf-8")
