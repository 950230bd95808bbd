"""From bytes to what a model takes: preprocessing of images and text, with random augmentation."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Preprocess = Callable[[jax.Array, jax.Array | None], jax.Array]

CIFAR10_MEAN = (0.491, 0.482, 0.447)
CIFAR10_STD = (0.247, 0.243, 0.262)


def tokens(characters: jax.Array, key: jax.Array | None) -> jax.Array:
    """Characters as the integers that a model of text takes."""
    del key
    return characters.astype(jnp.int32)


def centre(images: jax.Array, key: jax.Array | None) -> jax.Array:
    """Bytes to [−1, 1]: (x / 255 − 0.5) / 0.5, the published normalisation of MNIST's images."""
    del key
    return (images.astype(jnp.float32) / 255 - 0.5) / 0.5


def pixels(images: jax.Array, key: jax.Array | None) -> jax.Array:
    """Bytes to [0, 1], one vector per image: what an autoencoder reads and gives."""
    del key
    return images.reshape(images.shape[0], -1).astype(jnp.float32) / 255


def augment_cifar10(images: jax.Array, key: jax.Array | None) -> jax.Array:
    """CIFAR-10's published preprocessing: random crop and flip in training, normalised channels."""
    if key is not None:
        crop, flip = jax.random.split(key)
        images = random_flip(random_crop(images, crop), flip)
    mean, std = (jnp.asarray(value).reshape(1, 1, 1, 3) for value in (CIFAR10_MEAN, CIFAR10_STD))
    return (images.astype(jnp.float32) / 255 - mean) / std


def random_crop(images: jax.Array, key: jax.Array, padding: int = 4) -> jax.Array:
    """Each image shifted by up to ``padding`` pixels in both directions, zeros where none was."""
    batch, height, width, channels = images.shape
    border = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    corners = jax.random.randint(key, (batch, 2), 0, 2 * padding + 1)

    def crop(image: jax.Array, corner: jax.Array) -> jax.Array:
        start = (corner[0], corner[1], 0)
        return jax.lax.dynamic_slice(image, start, (height, width, channels))

    return jax.vmap(crop)(jnp.pad(images, border), corners)


def random_flip(images: jax.Array, key: jax.Array) -> jax.Array:
    """Each image mirrored left to right with probability one half."""
    mirrored = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)
