"""What is learned: a task is data, model, loss and metric; built in by name, or one of your own."""

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from experiments import metrics, models, spec
from experiments.cells import ConfigError, Workload
from experiments.data import DATASETS, load_dataset
from experiments.dataset import (
    DataError,
    Dataset,
    evaluated_subset,
    subset,
    validation_split,
    with_label_noise,
)
from experiments.metrics import ACCURACY, RECONSTRUCTION, Metric, PerExample
from experiments.preprocessing import Preprocess, centre, pixels
from experiments.train import Problem

VALIDATION_SHARE = 1 / 6  # 10,000 of 60,000
SPLIT_SEED = 0

Model = Callable[[Dataset, nnx.Rngs], nnx.Module]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A task: one small object, and every study can train on it.

    Attributes:
      title: what figures and pages call it.
      data: a built-in data set by its name, or a function that returns a
        :class:`~experiments.dataset.Dataset`.
      model: builds the model from the data, for their shapes, and the source of its initial
        parameters. The model is called with inputs, ``train`` and ``rngs``.
      preprocess: turns a batch of the data into the model's input; its key is None in evaluation,
        and random augmentation belongs where it is not.
      loss: what is minimised, of outputs, inputs and labels: one value per example.
      metric: what decides, on examples that were not trained on.
      batch_size: examples per step, where a study takes the task's own.
      examples: how many of the training examples there are, balanced over the classes; all of them
        where nothing is said.
      evaluated: how many of the examples that are evaluated there are; all of them where nothing is
        said.
      target: the share of the reference's tuned result that *steps to target* counts up to.
    """

    title: str
    data: str | Callable[[], Dataset]
    model: Model
    preprocess: Preprocess = centre
    loss: PerExample = metrics.cross_entropy
    metric: Metric = ACCURACY
    batch_size: int = 128
    examples: int | None = None
    evaluated: int | None = None
    target: float = 0.98


def _mlp(dataset: Dataset, rngs: nnx.Rngs) -> nnx.Module:
    features = math.prod(dataset.train_images.shape[1:])
    return models.MLP(features, num_classes=dataset.num_classes, rngs=rngs)


def resnet(width: int = 64, stem_stride: int = 1, dtype: DTypeLike = jnp.float32) -> Model:
    """ResNet-18 of another width, with fewer pixels after its first convolution, or in a dtype."""

    def model(dataset: Dataset, rngs: nnx.Rngs) -> nnx.Module:
        channels, classes = dataset.train_images.shape[-1], dataset.num_classes
        return models.ResNet(
            channels, width, classes, stem_stride=stem_stride, dtype=dtype, rngs=rngs
        )

    return model


def transformer(width: int = 64, heads: int = 4) -> Model:
    """A causal transformer of another width."""

    def model(dataset: Dataset, rngs: nnx.Rngs) -> nnx.Module:
        length, tokens = dataset.train_images.shape[1], dataset.num_classes
        return models.Transformer(tokens, length, width=width, heads=heads, rngs=rngs)

    return model


def _autoencoder(dataset: Dataset, rngs: nnx.Rngs) -> nnx.Module:
    return models.Autoencoder(math.prod(dataset.train_images.shape[1:]), rngs=rngs)


_LEARNERS: dict[str, dict[str, Any]] = {
    "mlp": {"model": _mlp},
    "resnet18": {"model": resnet()},
    "transformer": {"model": transformer(), "batch_size": 32},
}


def _autoencoding(name: str) -> Task:
    return Task(
        title=f"{DATASETS[name].title}, autoencoder",
        data=name,
        model=_autoencoder,
        preprocess=pixels,
        loss=metrics.reconstruction_loss,
        metric=RECONSTRUCTION,
    )


def _small(name: str, examples: int, **changes: Any) -> Task:
    """A task that two cores learn in less than a minute."""
    of = TASKS[name]
    what = "windows" if name == "python_source" else "images"
    title = f"{of.title}, {examples:,} {what}"
    return dataclasses.replace(of, title=title, examples=examples, **changes)


# A data set is a task by its own name, classified by the model that its entry names.
TASKS: dict[str, Task] = {
    **{
        name: Task(title=of.title, data=name, preprocess=of.preprocess, **_LEARNERS[of.model])
        for name, of in DATASETS.items()
    },
    "mnist_autoencoder": _autoencoding("mnist"),
    "mnist5k_autoencoder": _autoencoding("mnist5k"),
}
TASKS |= {
    "fashion_mnist_small": _small("fashion_mnist", 10_000),
    "mnist_small": _small("mnist", 10_000),
    "mnist_autoencoder_small": _small("mnist_autoencoder", 10_000),
    "cifar10_small": _small("cifar10", 10_000, model=resnet(8, stem_stride=4)),
    "python_source_small": _small(
        "python_source", 500, model=transformer(32, heads=2), batch_size=16, evaluated=500
    ),
}


def find_task(name: str) -> Task:
    """The task of a name: built in, or ``path/to/file.py:make`` or ``module:make``.

    Raises:
      ConfigError: there is none, or what makes it fails or makes something else.
    """
    return TASKS[name] if name in TASKS else _make(name)


@functools.cache
def _make(name: str) -> Task:
    asked = spec.parse(name)
    if not asked.place:
        known = ", ".join(TASKS)
        raise ConfigError(
            f"unknown task {name!r}; known are {known}, and file.py:make for one of your own."
        )
    make = spec.find_callable(asked)
    try:
        task = make(*asked.arguments, **asked.settings)
    except Exception as error:  # of code that is not ours
        raise ConfigError(f"the task {name} fails ({type(error).__name__}: {error}).") from error
    if not isinstance(task, Task):
        raise ConfigError(
            f"the task {name} must be an experiments.tasks.Task, got {type(task).__name__}."
        )
    return task


def load(workload: Workload, *, data_dir: Path, raw_dir: Path | None) -> Dataset:
    """The workload's examples; its test examples are what the workload evaluates on.

    Raises:
      DataError: the data set is not to be had.
    """
    dataset = _load_whole(workload.task, data_dir, raw_dir)
    if workload.split == "validation":
        size = round(VALIDATION_SHARE * len(dataset.train_labels))
        dataset = validation_split(dataset, size=size, seed=SPLIT_SEED)
    task = find_task(workload.task)
    if task.examples is not None:
        _check_enough(workload.task, "training", task.examples, dataset.train_labels)
        dataset = subset(dataset, task.examples / len(dataset.train_labels), seed=SPLIT_SEED)
    if task.evaluated is not None:
        _check_enough(workload.task, "evaluated", task.evaluated, dataset.test_labels)
        dataset = evaluated_subset(dataset, task.evaluated, seed=SPLIT_SEED)
    if workload.fraction < 1:
        dataset = subset(dataset, workload.fraction, seed=SPLIT_SEED)
    if workload.label_noise > 0:
        dataset = with_label_noise(dataset, workload.label_noise, seed=SPLIT_SEED)
    return dataset


def _check_enough(task: str, kind: str, wanted: int, labels: np.ndarray) -> None:
    if wanted > len(labels):
        raise DataError(
            f"the task {task} has {wanted} {kind} examples, and its data {len(labels)}."
        )


@functools.lru_cache(maxsize=1)
def _load_whole(name: str, data_dir: Path, raw_dir: Path | None) -> Dataset:
    data = find_task(name).data
    if isinstance(data, str):
        return load_dataset(data, data_dir=data_dir, raw_dir=raw_dir)
    dataset = data()
    if not isinstance(dataset, Dataset):
        raise DataError(
            f"the data of the task {name} must be an experiments.dataset.Dataset, "
            f"got {type(dataset).__name__}"
        )
    return dataset


@functools.lru_cache(maxsize=2)  # the same model, so that its first state is compiled once
def make_problem(workload: Workload, dataset: Dataset) -> Problem:
    """What a program trains of a workload."""
    return problem_of(find_task(workload.task), dataset, workload.batch_size)


def problem_of(task: Task, dataset: Dataset, batch_size: int) -> Problem:
    """What a program trains of a task."""
    return Problem(
        functools.partial(task.model, dataset),
        task.preprocess,
        batch_size,
        task.loss,
        {task.metric.name: task.metric.per_example},
    )
