"""A data set as a value, and the deterministic ways in which the studies cut it.

`subset`, `validation_split` and `with_label_noise` derive one data set from another. Equal
arguments give equal results, and a smaller choice is always part of a larger one.
"""

import dataclasses
import functools
import hashlib

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


class DataError(ValueError):
    """A data set that is unknown, damaged, or served by no source."""


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled examples for training and for testing: images, or windows of text.

    Attributes:
        name: Name of the data set, with a suffix for each thing done to it.
        train_images: uint8 `[n, height, width, channels]`; of text, characters `[n, length]`.
        train_labels: int32 `[n]`, classes from 0; of text, the next characters `[n, length]`.
        test_images: uint8 `[m, height, width, channels]` or `[m, length]`.
        test_labels: int32 `[m]` or `[m, length]`.
        source: Where the data came from and what was done to it.
        num_classes: Number of classes; of text, of characters.
    """

    name: str
    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels
    source: str
    num_classes: int = 10

    @property
    def is_text(self) -> bool:
        """Whether the examples are windows of text, each character with a label of its own."""
        return self.train_labels.ndim == 2

    @functools.cached_property
    def checksum(self) -> str:
        """sha256, in hex, over dtype, shape and bytes of the four arrays."""
        digest = hashlib.sha256()
        for key in ARRAYS:
            array = np.ascontiguousarray(getattr(self, key))
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(array.data)
        return digest.hexdigest()


def subset(dataset: Dataset, fraction: float, *, seed: int) -> Dataset:
    """Keeps a fraction of the training examples, the same of each class.

    The subset for a smaller fraction is part of the subset for a larger one; the order of the
    examples stays. The windows of a text are of one class.

    Args:
        dataset: The data set.
        fraction: Fraction of the training examples, above 0 and at most 1. Each class keeps
            `round(fraction * count)` of them, at least one.
        seed: Chooses the examples.

    Returns:
        The data set with fewer training examples and the same test examples.

    Raises:
        ValueError: The fraction or the seed is out of range.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be above 0 and at most 1, got {fraction}")
    ranks, counts = ranks_within_class(dataset.train_labels, generator_for(seed, "subset"))
    kept = ranks < np.maximum(1, np.round(fraction * counts))
    return dataclasses.replace(
        dataset,
        name=f"{dataset.name}-subset{fraction}",
        source=f"{dataset.source}; subset of {fraction:.4g} of the training examples, seed {seed}",
        train_images=dataset.train_images[kept],
        train_labels=dataset.train_labels[kept],
    )


def validation_split(dataset: Dataset, *, size: int, seed: int) -> Dataset:
    """Holds out training examples in place of the test examples, to choose hyperparameters on.

    The classes share the held-out examples in proportion to their counts. The held-out examples for
    a smaller size are among those for a larger one. The windows of a text are of one class; those
    held out share their modules with those that are left.

    Args:
        dataset: The data set; label noise, if any, is to be added after the split.
        size: Number of training examples held out, at least 1 and fewer than there are.
        seed: Chooses the examples.

    Returns:
        A data set whose test examples are the held-out ones and whose training examples are the
        rest. The test examples of `dataset` are not in it.

    Raises:
        ValueError: The size or the seed is out of range.
    """
    total = len(dataset.train_labels)
    if not 1 <= size < total:
        raise ValueError(f"size must be at least 1 and below {total}, got {size}")
    held_out = _spread(dataset.train_labels, size, generator_for(seed, "validation"))
    return dataclasses.replace(
        dataset,
        name=f"{dataset.name}-validation{size}",
        source=f"{dataset.source}; {size} training examples held out for testing, seed {seed}",
        train_images=dataset.train_images[~held_out],
        train_labels=dataset.train_labels[~held_out],
        test_images=dataset.train_images[held_out],
        test_labels=dataset.train_labels[held_out],
    )


def evaluated_subset(dataset: Dataset, size: int, *, seed: int) -> Dataset:
    """Keeps some of the test examples, of each class in proportion to its count.

    The examples for a smaller size are among those for a larger one; their order stays.

    Args:
        dataset: The data set.
        size: Number of test examples that stay, at least 1 and at most all.
        seed: Chooses the examples.

    Returns:
        The data set with fewer test examples and the same training examples.

    Raises:
        ValueError: The size or the seed is out of range.
    """
    total = len(dataset.test_labels)
    if not 1 <= size <= total:
        raise ValueError(f"size must be at least 1 and at most {total}, got {size}")
    kept = _spread(dataset.test_labels, size, generator_for(seed, "test subset"))
    return dataclasses.replace(
        dataset,
        name=f"{dataset.name}-test{size}",
        source=f"{dataset.source}; {size} of the examples for testing, seed {seed}",
        test_images=dataset.test_images[kept],
        test_labels=dataset.test_labels[kept],
    )


def _spread(labels: Labels, size: int, generator: np.random.Generator) -> np.ndarray:
    """Which examples are chosen where the classes share their number in proportion: bool `[n]`."""
    ranks, counts = ranks_within_class(labels, generator)
    # Webster's apportionment: seat k of a class with n images stands at (k + 1/2) / n.
    seats = np.argsort((ranks + 0.5) / counts, kind="stable")
    chosen = np.zeros(len(labels), bool)
    chosen[seats[:size]] = True
    return chosen


def with_label_noise(dataset: Dataset, rate: float, *, seed: int) -> Dataset:
    """Makes a fraction of the training labels wrong.

    `round(rate * n)` of the n training labels become a class drawn uniformly from the other
    classes. The wrong labels for a smaller rate are among those for a larger one. In a text each
    next character is a label; the characters that the model reads stay.

    Args:
        dataset: The data set.
        rate: Fraction of the training labels, from 0 to 1.
        seed: Chooses the labels and what they become.

    Returns:
        The data set with other training labels, the same inputs and the same test labels.

    Raises:
        ValueError: The rate or the seed is out of range.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must be from 0 to 1, got {rate}")
    labels = dataset.train_labels.ravel()
    generator = generator_for(seed, "label noise")
    chosen = generator.permutation(labels.size)[: round(rate * labels.size)]
    shifts = generator.integers(1, dataset.num_classes, labels.size, dtype=np.int32)
    noisy = labels.copy()
    noisy[chosen] = (labels[chosen] + shifts[chosen]) % dataset.num_classes
    return dataclasses.replace(
        dataset,
        name=f"{dataset.name}-noise{rate}",
        source=f"{dataset.source}; {rate} of the training labels wrong, seed {seed}",
        train_labels=noisy.reshape(dataset.train_labels.shape),
    )


def generator_for(seed: int, purpose: str) -> np.random.Generator:
    """A stream of its own for each purpose, so that choices made with one seed are independent."""
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    return np.random.default_rng([seed, *purpose.encode()])


def ranks_within_class(
    labels: Labels, generator: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Puts the examples of each class in a random order.

    Args:
        labels: int32 `[n]`, or `[n, length]` for examples that are all of one class.
        generator: Source of the order.

    Returns:
        For each example, its place in the order of its class and the number of examples of its
        class, both int64 `[n]`.
    """
    classes = labels if labels.ndim == 1 else np.zeros(len(labels), np.int32)
    order = generator.permutation(len(classes))
    ranks = np.empty(len(classes), np.int64)
    counts = np.bincount(classes)
    for label in np.flatnonzero(counts):
        members = order[classes[order] == label]
        ranks[members] = np.arange(len(members))
    return ranks, counts[classes]
