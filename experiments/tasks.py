"""From a workload to arrays, model and preprocessing."""

import dataclasses
import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx

from experiments import models
from experiments.cells import Workload
from experiments.data import (
    DataError,
    Dataset,
    load_dataset,
    subset,
    validation_split,
    with_label_noise,
)
from experiments.train import Preprocess, Task

VALIDATION_SHARE = 1 / 6  # 10,000 of 60,000
SPLIT_SEED = 0
CIFAR10_MEAN = (0.491, 0.482, 0.447)
CIFAR10_STD = (0.247, 0.243, 0.262)


def load(workload: Workload, *, data_dir: Path, raw_dir: Path | None) -> Dataset:
    """The workload's examples; its test examples are what the workload evaluates on.

    Raises:
      DataError: the data set is not to be had.
    """
    dataset = _load_whole(workload.dataset, data_dir, raw_dir)
    if workload.split == "validation":
        size = round(VALIDATION_SHARE * len(dataset.train_labels))
        dataset = validation_split(dataset, size=size, seed=SPLIT_SEED)
    if workload.fraction < 1:
        dataset = subset(dataset, workload.fraction, seed=SPLIT_SEED)
    if workload.label_noise > 0:
        dataset = with_label_noise(dataset, workload.label_noise, seed=SPLIT_SEED)
    if workload.test_fraction < 1:
        evaluated = round(workload.test_fraction * len(dataset.test_labels))
        dataset = dataclasses.replace(
            dataset,
            test_images=dataset.test_images[:evaluated],
            test_labels=dataset.test_labels[:evaluated],
            source=f"{dataset.source}; the first {evaluated} of the evaluated examples",
        )
    return dataset


@functools.cache
def _load_whole(name: str, data_dir: Path, raw_dir: Path | None) -> Dataset:
    return load_dataset(name, data_dir=data_dir, raw_dir=raw_dir)


def make_task(workload: Workload, dataset: Dataset) -> Task:
    """The model, the preprocessing and the batch size of a workload.

    Raises:
      DataError: the data set is text and the model is for images, or the other way round.
    """
    if dataset.is_text != (workload.model == "transformer"):
        kind = "text" if dataset.is_text else "images"
        raise DataError(f"{dataset.name} is {kind}, which the model {workload.model} does not take")
    shape, num_classes = dataset.train_images.shape[1:], dataset.num_classes

    def model(rngs: nnx.Rngs) -> nnx.Module:
        match workload.model:
            case "mlp":
                return models.MLP(math.prod(shape), num_classes=num_classes, rngs=rngs)
            case "resnet18":
                return models.ResNet(shape[-1], workload.width, num_classes=num_classes, rngs=rngs)
            case "transformer":
                return models.Transformer(num_classes, *shape, rngs=rngs)

    return Task(model, _preprocess(dataset), workload.batch_size)


def _preprocess(dataset: Dataset) -> Preprocess:
    if dataset.is_text:
        return _tokens
    return _augment if dataset.name.startswith("cifar10") else _centre


def _tokens(characters: jax.Array, key: jax.Array | None) -> jax.Array:
    """Characters as the integers that a model of text takes."""
    del key
    return characters.astype(jnp.int32)


def _centre(images: jax.Array, key: jax.Array | None) -> jax.Array:
    """Bytes to [−1, 1]: (x / 255 − 0.5) / 0.5, the published normalisation of MNIST's images."""
    del key
    return (images.astype(jnp.float32) / 255 - 0.5) / 0.5


def _augment(images: jax.Array, key: jax.Array | None) -> jax.Array:
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
