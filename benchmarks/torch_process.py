"""PyTorch beside JAX: a process of its own that trains when it is told to."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from experiments.cells import ConfigError

WORKER = Path(__file__).with_name("torch_worker.py")
PACKAGE = Path("src/neuroplastic_optimizer")  # in the published implementation's repository


class Worker:
    """The process, started and greeted.

    Args:
      data: file with the arrays of a data set; not needed any more afterwards.
      python: interpreter that has torch and NumPy; left out, the one that runs this.
      published: clone of the published implementation's repository; without it, torch's Adam is
        trained.

    Raises:
      ConfigError: the interpreter cannot be started, or lacks torch or a package that fits.
    """

    def __init__(self, data: Path, python: Path | None, published: Path | None) -> None:
        self._python, self._published = str(python or sys.executable), published
        command = [self._python, "-I", str(WORKER), str(data), str(os.cpu_count() or 1)]
        if published is not None:
            command.append(str((published / PACKAGE).resolve().parent))
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=self._errors, text=True
            )
        except OSError as error:
            self._errors.close()
            raise ConfigError(
                f"python must be an interpreter that has torch and NumPy, got {self._python}: "
                f"{error.strerror}."
            ) from error
        try:
            self.facts = self._answer()
        except BaseException:
            self.close()
            raise

    def train(self, **order: Any) -> dict[str, Any]:
        """Trains as told, and says how it went."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the answer then says what happened
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Ends the process; what it is at is not waited for."""
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()
        self._errors.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return dict(json.loads(line))
        self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().strip().splitlines() or ["it said nothing."]
        package = f", and published a clone whose {PACKAGE} takes the published settings"
        raise ConfigError(
            "python must be an interpreter that has torch and NumPy"
            f"{'' if self._published is None else package}; the process of {self._python} ended: "
            f"{said[-1]}"
        )
