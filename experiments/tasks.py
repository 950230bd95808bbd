"""From a workload to arrays, model and preprocessing."""

import dataclasses
import functools
import math
from pathlib import Path

from flax import nnx

from experiments import models
from experiments.cells import Workload
from experiments.data import DATASETS, load_dataset
from experiments.dataset import DataError, Dataset, subset, validation_split, with_label_noise
from experiments.train import Task

VALIDATION_SHARE = 1 / 6  # 10,000 of 60,000
SPLIT_SEED = 0


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


@functools.lru_cache(maxsize=1)
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

    return Task(model, DATASETS[workload.dataset].preprocess, workload.batch_size)
