"""The models of the studies, in Flax NNX."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

EMBEDDING_STD = 0.02  # GPT-2's

LAYOUT = ("NHWC", "HWIO", "NHWC")


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


class Autoencoder(nnx.Module):
    """A deep autoencoder: tanh layers down to a linear code and up again, without dropout.

    A smaller one of the kind that second-order methods were first compared on.

    Args:
      features: size of a flattened image.
      hidden: sizes of the encoder's layers, of which the last one is the code.
      rngs: the source of the initial parameters.

    References:
      Hinton and Salakhutdinov, Reducing the dimensionality of data with neural networks, 2006.
    """

    def __init__(
        self, features: int = 784, hidden: tuple[int, ...] = (256, 64, 16), *, rngs: nnx.Rngs
    ) -> None:
        sizes = (features, *hidden, *hidden[-2::-1], features)
        self.code = len(hidden) - 1
        self.layers = nnx.List(
            [nnx.Linear(n_in, n_out, rngs=rngs) for n_in, n_out in itertools.pairwise(sizes)]
        )

    def __call__(
        self, images: jax.Array, *, train: bool, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """Logits [batch, features] of the pixels of images [batch, features] in [0, 1]."""
        del train, rngs
        x = images
        for place, layer in enumerate(self.layers):
            x = layer(x)
            if place not in (self.code, len(self.layers) - 1):
                x = nnx.tanh(x)
        return x


class ResNet(nnx.Module):
    """ResNet-18 for small images: a 3×3 stem, no pooling before the blocks.

    With the default width and 10 classes it has 11,173,962 parameters.

    Args:
      channels: of the images.
      width: channels of the first stage; each of the other three has twice as many as the last.
      num_classes: number of logits.
      stem_stride: of the first convolution; above 1, the blocks see smaller images.
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
        stem_stride: int = 1,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.stem = _convolution(channels, width, 3, stem_stride, dtype, rngs)
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


class Transformer(nnx.Module):
    """A causal decoder of the GPT-2 kind for sequences of tokens, pre-norm, without dropout.

    With vocabulary V, length T, width d and depth L it has 2Vd + Td + L(12d² + 4d) + 2d parameters:
    linear layers have no bias, and the head is not tied to the embedding.

    Args:
      num_classes: size of the vocabulary, and so the number of logits.
      length: the longest sequence.
      depth: number of blocks.
      width: size of a token's representation.
      heads: of each attention; they share the width.
      rngs: the source of the initial parameters.

    Raises:
      ValueError: the heads do not divide the width.

    References:
      Radford et al., Language models are unsupervised multitask learners, 2019.
    """

    def __init__(
        self,
        num_classes: int = 128,
        length: int = 128,
        depth: int = 2,
        width: int = 64,
        heads: int = 4,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        if width % heads:
            raise ValueError(f"width must be a multiple of heads, got {width} and {heads}")
        self.tokens = _embedding(num_classes, width, rngs)
        self.positions = _embedding(length, width, rngs)
        self.blocks = nnx.List([DecoderBlock(width, heads, rngs=rngs) for _ in range(depth)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, num_classes, use_bias=False, rngs=rngs)

    def __call__(
        self, tokens: jax.Array, *, train: bool, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """Logits [batch, length, num_classes] of each next token; tokens int [batch, length].

        Raises:
          ValueError: the sequences are longer than the model's length.
        """
        del train, rngs
        length, longest = tokens.shape[1], self.positions.num_embeddings
        if length > longest:
            raise ValueError(f"tokens must be sequences of at most {longest}, got {length}")
        x = self.tokens(tokens) + self.positions(jnp.arange(length)[jnp.newaxis])
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class DecoderBlock(nnx.Module):
    """Causal self-attention, then a GELU layer of four times the width, each added to its input."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs) -> None:
        linear = functools.partial(nnx.Linear, use_bias=False, rngs=rngs)
        self.heads = heads
        self.attention_norm = nnx.LayerNorm(width, rngs=rngs)
        self.query_key_value = linear(width, 3 * width)
        self.attention_out = linear(width, width)
        self.mlp_norm = nnx.LayerNorm(width, rngs=rngs)
        self.mlp_in = linear(width, 4 * width)
        self.mlp_out = linear(4 * width, width)

    def __call__(self, x: jax.Array) -> jax.Array:
        """The block's output, shaped like its input [batch, length, width]."""
        batch, length, width = x.shape
        projected = self.query_key_value(self.attention_norm(x))
        by_head = projected.reshape(batch, length, 3, self.heads, width // self.heads)
        query, key, value = jnp.moveaxis(by_head, 2, 0)
        attended = jax.nn.dot_product_attention(query, key, value, is_causal=True)
        x = x + self.attention_out(attended.reshape(x.shape))
        return x + self.mlp_out(nnx.gelu(self.mlp_in(self.mlp_norm(x))))


def _embedding(entries: int, width: int, rngs: nnx.Rngs) -> nnx.Embed:
    init = nnx.initializers.normal(EMBEDDING_STD)
    return nnx.Embed(entries, width, embedding_init=init, rngs=rngs)


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
        # In a loop, XLA's own gradients of convolutions are far slower on CPUs than outside of one.
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
    """A convolution whose gradients are convolutions of the usual layout, as XLA's are not.

    Equals ``jax.lax.conv_general_dilated`` for images [batch, height, width, channels] and kernels
    [height, width, channels, features], without dilation and groups.
    """
    return _convolve(images, kernel, tuple(window_strides), tuple(map(tuple, padding)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(
    images: jax.Array, kernel: jax.Array, strides: tuple[int, ...], padding: tuple[Any, ...]
) -> jax.Array:
    return jax.lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=LAYOUT)


def _convolve_forward(
    images: jax.Array, kernel: jax.Array, strides: tuple[int, ...], padding: tuple[Any, ...]
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve(images, kernel, strides, padding), (images, kernel)


def _convolve_backward(
    strides: tuple[int, ...],
    padding: tuple[Any, ...],
    residuals: tuple[jax.Array, jax.Array],
    cotangent: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    images, kernel = residuals
    before = [low for low, _ in padding]
    sizes = list(
        zip(images.shape[1:3], kernel.shape[:2], cotangent.shape[1:3], strides, strict=True)
    )
    reaches = [(count - 1) * stride + 1 for _, _, count, stride in sizes]
    # Each output's gradient goes back to the pixels that it saw.
    of_images = jax.lax.conv_general_dilated(
        cotangent,
        jnp.flip(kernel, (0, 1)).swapaxes(2, 3),
        (1, 1),
        [
            (window - 1 - low, size - reach + low)
            for low, (size, window, _, _), reach in zip(before, sizes, reaches, strict=True)
        ],
        lhs_dilation=strides,
        dimension_numbers=LAYOUT,
    )
    # Channels take the place of the batch, and the batch that of the channels.
    of_kernel = jax.lax.conv_general_dilated(
        images.transpose(3, 1, 2, 0),
        cotangent.transpose(1, 2, 0, 3),
        (1, 1),
        [
            (low, window - 1 - size - low + reach)
            for low, (size, window, _, _), reach in zip(before, sizes, reaches, strict=True)
        ],
        rhs_dilation=strides,
        dimension_numbers=LAYOUT,
    )
    return of_images, of_kernel.transpose(1, 2, 0, 3)


_convolve.defvjp(_convolve_forward, _convolve_backward)


def _batch_norm(features: int, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return nnx.BatchNorm(features, momentum=0.9, epsilon=1e-5, dtype=dtype, rngs=rngs)
