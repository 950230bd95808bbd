"""From a workload to arrays, model and preprocessing."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx

from experiments import models
from experiments.configs import Workload
from experiments.data import Dataset, load_dataset, subset, validation_split, with_label_noise
from experiments.train import Task

VALIDATION_SHARE = 1 / 6  # 10,000 of 60,000
SPLIT_SEED = 0


def load(workload: Workload, *, data_dir: Path, raw_dir: Path | None) -> Dataset:
    """The workload's images; its test images are what the workload evaluates on.

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
    return dataset


@functools.cache
def _load_whole(name: str, data_dir: Path, raw_dir: Path | None) -> Dataset:
    return load_dataset(name, data_dir=data_dir, raw_dir=raw_dir)


def make_task(workload: Workload, dataset: Dataset) -> Task:
    """The model, the preprocessing and the batch size of a workload."""
    features = dataset.train_images[0].size

    def mlp(rngs: nnx.Rngs) -> nnx.Module:
        return models.MLP(features, num_classes=dataset.num_classes, rngs=rngs)

    return Task(mlp, _centre, workload.batch_size)


def _centre(images: jax.Array, key: jax.Array | None) -> jax.Array:
    """Bytes to [−1, 1]: (x / 255 − 0.5) / 0.5, the published normalisation of MNIST's images."""
    del key
    return (images.astype(jnp.float32) / 255 - 0.5) / 0.5
