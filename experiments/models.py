"""The models of the studies, in Flax NNX."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike


def _uniform_fan_in(fan_in: int) -> nnx.Initializer:
    """U(±1/√fan_in), the published initialisation of weights and biases alike."""
    bound = fan_in**-0.5

    def init(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
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


class ResNet(nnx.Module):
    """ResNet-18 for small images: a 3×3 stem of stride 1, no pooling before the blocks.

    With the default width and 10 classes it has 11,173,962 parameters.

    Args:
      channels: of the images.
      width: channels of the first stage; each of the other three has twice as many as the last.
      num_classes: number of logits.
      dtype: of activations; parameters and batch statistics are float32.
      rngs: the source of the initial parameters.

    References:
      He et al., Deep residual learning for image recognition, 2016.
    """

    def __init__(
        self,
        channels: int = 3,
        width: int = 64,
        num_classes: int = 10,
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.stem = _convolution(channels, width, 3, 1, dtype, rngs)
        self.norm = _batch_norm(width, dtype, rngs)
        blocks = []
        n_in = width
        for stage in range(4):
            n_out = width * 2**stage
            for stride in (1 if stage == 0 else 2, 1):
                blocks.append(ResidualBlock(n_in, n_out, stride, dtype=dtype, rngs=rngs))
                n_in = n_out
        self.blocks = nnx.List(blocks)
        init = _uniform_fan_in(n_in)
        self.head = nnx.Linear(n_in, num_classes, kernel_init=init, bias_init=init, rngs=rngs)

    def __call__(
        self, images: jax.Array, *, train: bool, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """Logits [batch, num_classes] of normalised images [batch, height, width, channels]."""
        del rngs
        x = nnx.relu(self.norm(self.stem(images), use_running_average=not train))
        for block in self.blocks:
            x = block(x, train=train)
        return self.head(jnp.mean(x, axis=(1, 2), dtype=jnp.float32))


class ResidualBlock(nnx.Module):
    """Two 3×3 convolutions beside a shortcut, which is a convolution where the shape changes."""

    def __init__(
        self, n_in: int, n_out: int, stride: int, *, dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        self.conv1 = _convolution(n_in, n_out, 3, stride, dtype, rngs)
        self.norm1 = _batch_norm(n_out, dtype, rngs)
        self.conv2 = _convolution(n_out, n_out, 3, 1, dtype, rngs)
        self.norm2 = _batch_norm(n_out, dtype, rngs)
        same = stride == 1 and n_in == n_out
        self.shortcut = None if same else _convolution(n_in, n_out, 1, stride, dtype, rngs)
        self.shortcut_norm = None if same else _batch_norm(n_out, dtype, rngs)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The block's output [batch, height / stride, width / stride, n_out]."""
        running = not train
        y = nnx.relu(self.norm1(self.conv1(x), use_running_average=running))
        y = self.norm2(self.conv2(y), use_running_average=running)
        if self.shortcut is not None and self.shortcut_norm is not None:
            x = self.shortcut_norm(self.shortcut(x), use_running_average=running)
        return nnx.relu(x + y)


def _convolution(
    n_in: int, n_out: int, size: int, stride: int, dtype: DTypeLike, rngs: nnx.Rngs
) -> nnx.Conv:
    return nnx.Conv(
        n_in,
        n_out,
        (size, size),
        strides=stride,
        padding=size // 2,
        use_bias=False,
        kernel_init=_uniform_fan_in(n_in * size**2),
        dtype=dtype,
        rngs=rngs,
        # In a loop, XLA's own convolutions are 20 times slower on CPUs than outside of one.
        conv_general_dilated=(
            convolve if jax.default_backend() == "cpu" else jax.lax.conv_general_dilated
        ),
    )


def convolve(
    images: jax.Array,
    kernel: jax.Array,
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **_: Any,
) -> jax.Array:
    """A convolution as a sum of matrix products, one for each place in the kernel.

    Equals ``jax.lax.conv_general_dilated`` for images [batch, height, width, channels] and kernels
    [height, width, channels, features], without dilation and groups.
    """
    batch, channels = images.shape[0], images.shape[-1]
    window, features = kernel.shape[:2], kernel.shape[-1]
    images = jnp.pad(images, ((0, 0), *padding, (0, 0)))
    height, width = (
        (size - reach) // stride + 1
        for size, reach, stride in zip(images.shape[1:3], window, window_strides, strict=True)
    )
    total = jnp.zeros((), images.dtype)
    for place in itertools.product(*map(range, window)):
        (first, last), (left, right) = (
            (start, start + (count - 1) * stride + 1)
            for start, count, stride in zip(place, (height, width), window_strides, strict=True)
        )
        strides = (1, *window_strides, 1)
        seen = jax.lax.slice(images, (0, first, left, 0), (batch, last, right, channels), strides)
        total += seen.reshape(-1, channels) @ kernel[place]
    return total.reshape(batch, height, width, features)


def _batch_norm(features: int, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return nnx.BatchNorm(features, momentum=0.9, epsilon=1e-5, dtype=dtype, rngs=rngs)
