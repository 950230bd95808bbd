"""Training, masks and paths of Flax models, Linen and NNX."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from flax.training import train_state

import neuroplastic_optax as npx
from neuroplastic_optax.masks import leaf_path

FEATURES, HIDDEN, EXAMPLES = 3, 8, 32


def data():
    x = np.random.default_rng(0).normal(size=(EXAMPLES, FEATURES)).astype(np.float32)
    return x, np.sin(x.sum(axis=1, keepdims=True))


class NnxMlp(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List(
            [nnx.Linear(FEATURES, HIDDEN, rngs=rngs), nnx.Linear(HIDDEN, HIDDEN, rngs=rngs)]
        )
        self.head = nnx.Linear(HIDDEN, 1, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return self.head(x)


class LinenMlp(nn.Module):
    @nn.compact
    def __call__(self, x):
        for i in range(2):
            x = nn.relu(nn.Dense(HIDDEN, name=f"layers_{i}")(x))
        return nn.Dense(1, name="head")(x)


def nnx_params():
    return nnx.state(NnxMlp(nnx.Rngs(0)), nnx.Param)


def linen_params():
    return LinenMlp().init(jax.random.key(0), jnp.zeros((1, FEATURES)))["params"]


OPTIMIZERS = {
    "neuroplastic": lambda: npx.neuroplastic(0.1),
    "gradient_only": lambda: npx.gradient_only(0.1),
    "adamw_with_plasticity": lambda: npx.adamw_with_plasticity(0.03),
    "sgd_with_plasticity": lambda: npx.sgd_with_plasticity(0.05, momentum=0.9),
    "masked": lambda: optax.chain(
        npx.with_plasticity(optax.trace(0.9), mask=npx.masks.scope("kernel$")),
        optax.scale_by_learning_rate(0.05),
    ),
    "controlled": lambda: npx.variants.control_learning_rate(npx.neuroplastic(0.1)),
    "weight_decay_mask": lambda: npx.neuroplastic(
        0.1, weight_decay=0.01, weight_decay_mask=npx.masks.scope("kernel$")
    ),
}
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())


@every_optimizer
def test_nnx_optimizer_trains(make):
    model = NnxMlp(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, make(), wrt=nnx.Param)
    x, y = data()

    @nnx.jit
    def step(model, optimizer):
        loss, grads = nnx.value_and_grad(lambda m: jnp.mean((m(x) - y) ** 2))(model)
        optimizer.update(model, grads)
        return loss

    losses = [float(step(model, optimizer)) for _ in range(40)]
    assert losses[-1] < 0.7 * losses[0]


@every_optimizer
def test_linen_train_state_trains(make):
    model = LinenMlp()
    state = train_state.TrainState.create(apply_fn=model.apply, params=linen_params(), tx=make())
    x, y = data()

    @jax.jit
    def step(state):
        def loss(params):
            return jnp.mean((state.apply_fn({"params": params}, x) - y) ** 2)

        value, grads = jax.value_and_grad(loss)(state.params)
        return state.apply_gradients(grads=grads), value

    losses = []
    for _ in range(40):
        state, loss = step(state)
        losses.append(float(loss))
    assert losses[-1] < 0.7 * losses[0]


def test_nnx_and_plain_trees_give_the_same_updates():
    state, tx = nnx_params(), npx.neuroplastic(0.1)
    plain = nnx.to_pure_dict(state)
    updates, _ = tx.update(state, tx.init(state))
    expected, _ = tx.update(plain, tx.init(plain))
    for ours, theirs in zip(jax.tree.leaves(updates), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def paths(tree):
    return [leaf_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def test_paths_name_modules_and_leaves():
    assert paths(nnx_params()) == [
        "head/bias",
        "head/kernel",
        "layers/0/bias",
        "layers/0/kernel",
        "layers/1/bias",
        "layers/1/kernel",
    ]
    assert paths(linen_params()) == [
        "head/bias",
        "head/kernel",
        "layers_0/bias",
        "layers_0/kernel",
        "layers_1/bias",
        "layers_1/kernel",
    ]


def chosen(mask, tree):
    return {
        path for path, leaf in zip(paths(tree), jax.tree.leaves(mask(tree)), strict=True) if leaf
    }


@pytest.mark.parametrize(
    ("make", "first", "second"),
    [(nnx_params, "layers/0", "layers/1"), (linen_params, "layers_0", "layers_1")],
    ids=["nnx", "linen"],
)
def test_scopes_choose_the_same_leaves_of_both(make, first, second):
    params = make()
    assert chosen(npx.masks.scope("kernel$"), params) == {
        f"{module}/kernel" for module in ("head", first, second)
    }
    assert chosen(npx.masks.classifier(), params) == {"head/bias", "head/kernel"}
    assert chosen(npx.masks.early_blocks(), params) == {f"{first}/bias", f"{first}/kernel"}
    assert chosen(npx.masks.late_blocks(), params) == {f"{second}/bias", f"{second}/kernel"}
    assert chosen(npx.masks.convolution_kernels(), params) == set()


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (lambda: nnx.state(nnx.Conv(1, 2, (3, 3), rngs=nnx.Rngs(0)), nnx.Param), "kernel"),
        (
            lambda: nn.Conv(2, (3, 3), name="conv").init(
                jax.random.key(0), jnp.zeros((1, 8, 8, 1))
            )["params"],
            "kernel",
        ),
    ],
    ids=["nnx", "linen"],
)
def test_convolution_kernels_are_found_in_both(model, path):
    assert chosen(npx.masks.convolution_kernels(), model()) == {path}


@pytest.mark.parametrize("make", [nnx_params, linen_params], ids=["nnx", "linen"])
def test_masks_part_the_tree(make):
    params = make()
    tx = npx.with_plasticity(optax.identity(), mask=npx.masks.scope("kernel$"))
    updates, state = tx.update(params, tx.init(params))
    kernels = [path for path in paths(params) if path.endswith("kernel")]
    assert paths(state.plasticity.memory_mu) == kernels
    for path, ours, given in zip(
        paths(params), jax.tree.leaves(updates), jax.tree.leaves(params), strict=True
    ):
        if path.endswith("bias"):
            np.testing.assert_array_equal(ours, given)
    masked = optax.masked(npx.neuroplastic(0.1), npx.masks.scope("kernel$"))
    updates, _ = masked.update(params, masked.init(params), params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)


@pytest.mark.parametrize("make", [nnx_params, linen_params], ids=["nnx", "linen"])
def test_diagnostics_are_named_by_the_same_paths(make):
    params = make()
    state = npx.neuroplastic(0.1, diagnostics="per_leaf").init(params)
    measured = npx.diagnostics(state, params)
    assert {name for name in measured if name.startswith("alpha_mean/")} == {
        f"alpha_mean/{path}" for path in paths(params)
    }
