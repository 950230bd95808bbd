"""TensorFlow Datasets as a source: its own builders, fed with local files in place of a download.

Only the address a builder downloads from is changed. Whatever it does with the files is real, and
what it makes of them is compared with the files as `load_dataset` reads them itself.
"""

import gzip
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from experiments import data
from experiments.data import load_dataset
from experiments.dataset import Dataset

pytestmark = pytest.mark.tfds

DEBIAN = data.DEBIAN / "fashion-mnist"


@pytest.fixture(scope="module", params=["made up", *(["real"] if DEBIAN.is_dir() else [])])
def fashion_files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the four files: made up, and also the real ones where they are installed."""
    if request.param == "real":
        return DEBIAN
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    for split, count in (("train", 60_000), ("t10k", 10_000)):  # no fewer will do for the builder
        columns = rng.integers(0, 256, (count, 28, 1), np.uint8)
        write_idx(folder / f"{split}-images-idx3-ubyte.gz", np.repeat(columns, 28, axis=2))
        labels = rng.integers(0, 10, count, np.uint8)
        write_idx(folder / f"{split}-labels-idx1-ubyte.gz", labels)
    return folder


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes(), compresslevel=1))


@pytest.fixture(scope="module")
def data_dir(fashion_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which the builder has prepared Fashion-MNIST; from then on it cannot download."""
    from tensorflow_datasets.image_classification.mnist import FashionMNIST

    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "DEBIAN", folder / "absent")
        patch.setattr(FashionMNIST, "URL", f"{fashion_files.as_uri()}/")
        load_dataset("fashion_mnist", data_dir=folder)
        patch.setattr(FashionMNIST, "URL", f"{folder.as_uri()}/absent/")
        yield folder


def assert_same_images(one: Dataset, other: Dataset) -> None:
    """Builders store the examples in an order of their own: both are put in order first."""
    for part in ("train", "test"):
        assert sorted_examples(one, part) == sorted_examples(other, part)
    for key in ("train_images", "train_labels", "test_images", "test_labels"):
        assert getattr(one, key).dtype == getattr(other, key).dtype
        assert getattr(one, key).shape == getattr(other, key).shape


def sorted_examples(dataset: Dataset, part: str) -> list[tuple[int, bytes]]:
    labels, images = getattr(dataset, f"{part}_labels"), getattr(dataset, f"{part}_images")
    return sorted(
        (int(label), image.tobytes()) for label, image in zip(labels, images, strict=True)
    )


def test_fashion_mnist_is_the_raw_files_image_for_image(
    fashion_files: Path, data_dir: Path, tmp_path: Path
):
    import tensorflow_datasets as tfds

    dataset = load_dataset("fashion_mnist", data_dir=data_dir)
    assert dataset.source == f"TensorFlow Datasets {tfds.__version__}"
    assert dataset.train_images.shape == (60_000, 28, 28, 1)
    assert_same_images(
        dataset, load_dataset("fashion_mnist", data_dir=tmp_path, raw_dir=fashion_files)
    )


def test_what_is_prepared_is_used_without_a_download_and_in_the_same_order(data_dir: Path):
    cached = load_dataset("fashion_mnist", data_dir=data_dir)
    (data_dir / "fashion_mnist.npz").unlink()
    assert load_dataset("fashion_mnist", data_dir=data_dir).checksum == cached.checksum
    assert (data_dir / "fashion_mnist.npz").exists()


def test_cifar10_is_the_raw_files_image_for_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from tensorflow_datasets.image_classification.cifar import Cifar10

    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for file in (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"):
        records = rng.integers(0, 256, (20, 3073), np.uint8)
        records[:, 0] %= 10
        (folder / file).write_bytes(records.tobytes())
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    (folder / "batches.meta.txt").write_text(names.replace(" ", "\n"))
    archive = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    real_info = Cifar10._cifar_info.fget
    monkeypatch.setattr(
        Cifar10,
        "_cifar_info",
        property(lambda builder: real_info(builder)._replace(url=archive.as_uri())),
    )
    dataset = load_dataset("cifar10", data_dir=tmp_path / "prepared")
    assert dataset.source.startswith("TensorFlow Datasets")
    assert_same_images(
        dataset, load_dataset("cifar10", data_dir=tmp_path / "read", raw_dir=tmp_path)
    )
