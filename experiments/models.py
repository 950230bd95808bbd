"""The models of the studies, in Flax NNX."""

import itertools

import jax
import jax.numpy as jnp
from flax import nnx


def _uniform_fan_in(fan_in: int) -> nnx.Initializer:
    """U(±1/√fan_in), the published initialisation of weights and biases alike."""
    bound = fan_in**-0.5

    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class MLP(nnx.Module):
    """The paper's multilayer perceptron: ReLU and dropout after each hidden layer.

    Args:
      features: size of a flattened image.
      hidden: sizes of the hidden layers.
      num_classes: number of logits.
      dropout: rate at which hidden units are dropped in training.
      rngs: the source of the initial parameters.
    """

    def __init__(
        self,
        features: int = 784,
        hidden: tuple[int, ...] = (256, 256),
        num_classes: int = 10,
        *,
        dropout: float = 0.1,
        rngs: nnx.Rngs,
    ) -> None:
        sizes = (features, *hidden)
        self.hidden = nnx.List(
            [self._dense(n_in, n_out, rngs) for n_in, n_out in itertools.pairwise(sizes)]
        )
        self.head = self._dense(sizes[-1], num_classes, rngs)
        self.dropout = nnx.Dropout(dropout)

    @staticmethod
    def _dense(n_in: int, n_out: int, rngs: nnx.Rngs) -> nnx.Linear:
        init = _uniform_fan_in(n_in)
        return nnx.Linear(n_in, n_out, kernel_init=init, bias_init=init, rngs=rngs)

    def __call__(
        self, images: jax.Array, *, train: bool, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """Logits [batch, num_classes] of normalised images [batch, height, width, channels]."""
        x = images.reshape(images.shape[0], -1)
        for layer in self.hidden:
            x = self.dropout(nnx.relu(layer(x)), deterministic=not train, rngs=rngs)
        return self.head(x)
