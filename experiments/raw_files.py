"""Raw files of data sets: IDX, as MNIST is published, and CIFAR-10's binary files.

A damaged or incomplete file is an error that names it, what was found and what was expected.
"""

import dataclasses
import gzip
import math
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from experiments.dataset import DataError, Images, Labels

Arrays = tuple[Images, Labels, Images, Labels]  # training images and labels, then those for testing

_CIFAR10_RECORD = 1 + 3 * 32 * 32  # bytes: the label, then planes of red, green and blue


@dataclasses.dataclass(frozen=True)
class RawFormat:
    """The files that a data set is published as.

    Attributes:
        kind: What its files are called.
        files: Their names, those for testing last.
        read: Reads them, in that order, for a number of classes.
        endings: What a name may end in besides.
        folder: Name of the folder that the files may lie in.
    """

    kind: str
    files: tuple[str, ...]
    read: Callable[[list[Path], int], Arrays]
    endings: tuple[str, ...] = ("",)
    folder: str = ""

    def find(self, places: Iterable[Path]) -> tuple[Path, list[Path]] | None:
        """The first folder that holds any of the files, and where in it all of them are.

        Raises:
            DataError: Some of them are missing there.
        """
        for place in places:
            for folder in dict.fromkeys((place / self.folder, place)):
                if paths := self._find(folder):
                    return folder, paths
        return None

    def _find(self, folder: Path) -> list[Path]:
        """All files in a folder, or none."""
        found: list[Path] = []
        missing: list[str] = []
        for file in self.files:
            spellings = (folder / name for name in self.spellings(file))
            if path := next(filter(Path.is_file, spellings), None):
                found.append(path)
            else:
                missing.append(file)
        if found and missing:
            raise DataError(f"{folder}: no {', '.join(missing)}; expected beside {found[0].name}")
        return found

    def spellings(self, file: str) -> list[str]:
        """The names under which a file is known.

        >>> IDX.spellings("train-labels-idx1-ubyte")[:2]
        ['train-labels-idx1-ubyte', 'train-labels-idx1-ubyte.gz']
        >>> IDX.spellings("train-labels-idx1-ubyte")[2:]
        ['train-labels.idx1-ubyte', 'train-labels.idx1-ubyte.gz']
        >>> CIFAR10.spellings("test_batch.bin")
        ['test_batch.bin']
        """
        stems = dict.fromkeys((file, file.replace("-idx", ".idx")))
        return [stem + ending for stem in stems for ending in self.endings]


def source_note(folder: Path) -> str:
    """What the first line of `SOURCE.txt` beside raw files says, in parentheses."""
    path = folder / "SOURCE.txt"
    if not path.is_file():
        return ""
    note = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0].strip()
    return f" ({note})" if note else ""


def _read_idx_files(paths: list[Path], num_classes: int) -> Arrays:
    """Reads the training and test files."""
    train_images, train_labels = _read_idx_pair(paths[0], paths[1], num_classes)
    return train_images, train_labels, *_read_idx_pair(paths[2], paths[3], num_classes)


def _read_idx_pair(images_path: Path, labels_path: Path, num_classes: int) -> tuple[Images, Labels]:
    """Reads images and their labels."""
    images = _read_idx(images_path, entry=(28, 28))[..., np.newaxis]
    labels = _to_labels(_read_idx(labels_path, entry=()), labels_path, num_classes)
    if len(images) != len(labels):
        raise DataError(
            f"{labels_path}: {len(labels)} labels; expected {len(images)}, one for each image in "
            f"{images_path.name}"
        )
    return images, labels


def _read_idx(path: Path, *, entry: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Reads an IDX file of bytes whose entries have the given shape."""
    content = read_bytes(path)
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


def _read_cifar10_files(paths: list[Path], num_classes: int) -> Arrays:
    """Reads the five training batches and the test batch."""
    batches = [_read_cifar10_batch(path, num_classes) for path in paths]
    expected = len(batches[0][1])
    for path, (_, labels) in zip(paths, batches, strict=True):
        if len(labels) != expected:
            raise DataError(
                f"{path}: {len(labels)} images; expected {expected}, as many as in {paths[0].name}"
            )
    *train, (test_images, test_labels) = batches
    train_images, train_labels = map(np.concatenate, zip(*train, strict=True))
    return train_images, train_labels, test_images, test_labels


def _read_cifar10_batch(path: Path, num_classes: int) -> tuple[Images, Labels]:
    """Reads one of CIFAR-10's binary files."""
    content = read_bytes(path)
    if not content or len(content) % _CIFAR10_RECORD:
        raise DataError(
            f"{path}: {len(content)} bytes; expected a multiple of {_CIFAR10_RECORD}, the bytes of "
            "an image with its label"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, _CIFAR10_RECORD)
    planes = records[:, 1:].reshape(-1, 3, 32, 32)
    images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    return images, _to_labels(records[:, 0], path, num_classes)


def _to_labels(values: npt.NDArray[np.uint8], path: Path, num_classes: int) -> Labels:
    """Turns the labels in a file into int32."""
    if values.max() >= num_classes:
        raise DataError(f"{path}: label {values.max()}; expected 0 to {num_classes - 1}")
    return values.astype(np.int32)


def read_bytes(path: Path) -> bytes:
    """Reads a file, unpacked where its name ends in `.gz`."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


IDX = RawFormat(
    "IDX files",
    (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ),
    _read_idx_files,
    endings=("", ".gz"),
)
CIFAR10 = RawFormat(
    "CIFAR-10 binary files",
    (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"),
    _read_cifar10_files,
    folder="cifar-10-batches-bin",
)
