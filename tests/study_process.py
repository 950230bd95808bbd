"""Studies of made-up images as processes, forked from one that has imported everything already.

Nothing is computed in the process that is forked: JAX starts its threads in the copies.
"""

import multiprocessing
import os
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments import __main__, checkpoints, train

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])


def write_images(folder: Path, *, train: int, test: int) -> Path:
    """IDX files of random images, for ``--dataset mnist --raw-dir``; their folder."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (size, 28, 28), np.uint8)
        labels = rng.integers(0, 10, size).astype(np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
            content = bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()
            (folder / f"{name}-{kind}-ubyte").write_bytes(content)
    return folder


class StudyProcess:
    """``python -m experiments`` with some arguments.

    Args:
      folder: where it runs.
      arguments: of the command, in one string.
      settings: of JAX.
      environment: variables beside those of the process that is forked.
      prepare: is called before the study.
    """

    def __init__(
        self,
        folder: Path,
        arguments: str,
        *,
        settings: Mapping[str, object],
        environment: Mapping[str, str] | None = None,
        prepare: Sequence[Callable[[], None]] = (),
    ) -> None:
        number = len(list(folder.glob("said-*")))
        self._outputs = folder / f"said-{number}.txt", folder / f"complaints-{number}.txt"
        for path in self._outputs:
            path.touch()
        self._process = CONTEXT.Process(
            target=_run,
            args=(folder, arguments, self._outputs, settings, environment or {}, prepare),
        )
        self._process.start()
        self.kill = self._process.kill

    def poll(self) -> int | None:
        """The exit code, once there is one: -9 where it was killed."""
        return self._process.exitcode

    def communicate(self) -> tuple[int, str, str]:
        """Exit code, output and complaints, once it has ended; it is killed after five minutes."""
        self._process.join(timeout=300)
        self._process.kill()
        self._process.join()
        said, complaints = (path.read_text() for path in self._outputs)
        return self._process.exitcode, said, complaints


def _run(
    folder: Path,
    arguments: str,
    outputs: tuple[Path, Path],
    settings: Mapping[str, object],
    environment: Mapping[str, str],
    prepare: Sequence[Callable[[], None]],
) -> None:
    os.chdir(folder)
    for path, stream in zip(outputs, (sys.stdout, sys.stderr), strict=True):
        with path.open("wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    os.environ.update(environment)
    for name, value in settings.items():
        jax.config.update(name, value)
    for call in prepare:
        call()
    sys.argv = ["experiments", *arguments.split()]
    __main__.main()


def watch() -> None:
    """Has the study note each epoch before it is trained, and write a checkpoint after it."""
    checkpoints.INTERVAL = 0.0
    train_epoch = train.Program.train_epoch

    def noted(program, state, seeds, learning_rates, **places):
        with open("epochs.log", "a") as file:
            steps = multihost_utils.process_allgather(state.step, tiled=True)
            file.write(f"{learning_rates[0]} {steps[0]}\n")
        return train_epoch(program, state, seeds, learning_rates, **places)

    train.Program.train_epoch = noted


def limit_files() -> None:
    """Lets no file grow beyond 64 KiB: enough for the records and not for a checkpoint."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, resource.RLIM_INFINITY))
