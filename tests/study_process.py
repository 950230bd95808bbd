"""Studies as processes of their own, forked from one that has imported everything already.

Nothing is computed in the process that is forked: JAX starts its threads in the copies.
"""

import multiprocessing
import os
import resource
import sys
from pathlib import Path

import jax

from experiments import __main__, checkpoints, train

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])


class StudyProcess:
    """``python -m experiments`` in some folder, watched: it notes each epoch before it is trained,
    and writes a checkpoint after every epoch, however short it was.
    """

    def __init__(
        self, arguments: list[str], folder: Path, cache: Path, file_limit: int | None = None
    ) -> None:
        self._said = folder / "said.txt", folder / "complaints.txt"
        self._process = CONTEXT.Process(
            target=_study, args=(arguments, folder, cache, self._said, file_limit)
        )
        self._process.start()
        self.kill = self._process.kill

    def poll(self) -> int | None:
        """The exit code, once there is one: -9 where it was killed."""
        return self._process.exitcode

    def communicate(self) -> tuple[int, str, str]:
        """Its exit code, output and complaints, once it has ended."""
        self._process.join()
        said, complaints = (path.read_text() if path.exists() else "" for path in self._said)
        return self._process.exitcode, said, complaints


def _study(
    arguments: list[str],
    folder: Path,
    cache: Path,
    outputs: tuple[Path, Path],
    file_limit: int | None,
) -> None:
    os.chdir(folder)
    for path, stream in zip(outputs, (sys.stdout, sys.stderr), strict=True):
        with path.open("wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))
    _watch()
    sys.argv = ["experiments", *arguments]
    __main__.main()


def _watch() -> None:
    checkpoints.INTERVAL = 0.0
    train_epoch = train.Program.train_epoch

    def noted(program, state, seeds, learning_rates):
        with open("epochs.log", "a") as file:
            file.write(f"{learning_rates[0]} {state.step[0]}\n")
        return train_epoch(program, state, seeds, learning_rates)

    train.Program.train_epoch = noted
