"""What a study leaves behind: plain files, each replaced as a whole or not at all."""

import dataclasses
import datetime
import fcntl
import functools
import io
import json
import os
import platform
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import pandas as pd

from experiments.cells import DEFAULTS, SETTING, Cell, Workload
from experiments.naming import find_arm

Row = dict[str, str | int | float | bool]  # of the table of runs: a cell and an epoch

RUNS, MANIFEST = "runs.csv", "manifest.json"
CELL_COLUMNS = ["arm", *(field.name for field in dataclasses.fields(Workload)), "seed"]
CELL_COLUMNS += ["learning_rate", "schedule"]
OLD_NAMES = {"dataset": "task"}  # of columns and settings, in records of before
PACKAGES = ("neuroplastic-optax", "jax", "jaxlib", "optax", "flax", "numpy")
SIGNIFICANT_DIGITS = 7  # of float32


class RecordError(RuntimeError):
    """A folder of records that cannot be used, by file, what was found and what was expected."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replaces a file by new content; a reader or a crash sees the old or the new, never a part.

    Of the processes of one job the first writes.

    Raises:
      RecordError: the folder cannot be written to, or the disk is full; nothing is left behind.
    """
    if jax.process_index() > 0:
        return
    data = content.encode() if isinstance(content, str) else content
    # Of this name alone: what a killed process left is replaced by the next that writes the file.
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise RecordError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


class Records:
    """The records of one study in one folder, held by one process at a time.

    Args:
      folder: created where it is missing.
      study: the study's name.
      configuration: what must stay the same for records to be added to; arms, seeds and learning
        rates are not part of it, since every row names its own.
      defaults: what a setting means that the configuration of old records does not name.
      free: settings that may differ, unless the configuration has them; old records held some of
        them fast.

    Raises:
      RecordError: the folder cannot be used, is in use by another process, or holds the records of
        another study or configuration.
    """

    def __init__(
        self,
        folder: Path,
        study: str,
        configuration: Mapping[str, Any],
        defaults: Mapping[str, Any] | None = None,
        free: Collection[str] = (),
    ) -> None:
        self.folder = folder
        self._study = study
        self._configuration = dict(configuration)
        self._free = frozenset(free)
        self._defaults = json.loads(json.dumps(dict(defaults or {})))
        self._data: dict[str, Any] = {}
        self._made_by: list[Mapping[str, Any]] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / ".lock").open("w")
        except OSError as error:
            raise RecordError(f"{folder} cannot be used: {error.strerror}.") from error
        try:
            if jax.process_index() == 0:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise RecordError(f"{folder} is in use by another process; wait for it.") from None
        try:
            self._check_manifest()
            self._runs = read_runs(folder / RUNS)
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> "Records":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.close()

    def finished(self, cell: Cell) -> bool:
        """Whether every epoch of a cell is on record."""
        return len(self.rows([cell])) == cell.workload.epochs

    def rows(self, cells: Iterable[Cell]) -> pd.DataFrame:
        """The rows of some cells, in the order of the cells and their epochs."""
        return self._runs if self._runs.empty else of_cells(self._runs, cells)

    def add(self, rows: pd.DataFrame, made_by: Sequence[Mapping[str, Any]] = ()) -> None:
        """Adds the rows of finished cells and writes them down.

        Args:
          rows: of whole cells.
          made_by: the circumstances that they were trained under; left out, the present ones.
        """
        made_by = made_by or [circumstances()]
        named = rows.columns.isin(naming_columns(rows))  # what names a cell keeps all its digits
        measured = rows.loc[:, ~named].map(
            lambda x: float(f"{x:.{SIGNIFICANT_DIGITS}g}") if isinstance(x, float) else x
        )
        rounded = pd.concat([rows.loc[:, named], measured], axis=1)
        rounded.insert(0, "study", self._study)
        runs = rounded if self._runs.empty else pd.concat([self._runs, rounded], ignore_index=True)
        for made in made_by:
            if made not in self._made_by:
                self._made_by.append(made)
        self._write_manifest(runs)  # first: no table may stand without what it was made by
        write_atomically(self.folder / RUNS, runs.to_csv(index=False))
        self._runs = runs

    def note_data(self, dataset: str, facts: Mapping[str, Any]) -> None:
        """Notes where a data set came from, for the manifest."""
        self._data[dataset] = dict(facts)

    def _write_manifest(self, runs: pd.DataFrame) -> None:
        """Writes down under what circumstances the records were made."""
        arms = sorted(runs["arm"].unique())
        seeds = sorted(int(seed) for seed in runs["seed"].unique())
        manifest = {
            "study": self._study,
            "configuration": self._configuration,
            "arms": {arm: find_arm(arm).describe() for arm in arms},
            "seeds": seeds,
            "data": self._data,
            "made_by": self._made_by,
            "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        write_atomically(self.folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")

    def _check_manifest(self) -> None:
        path = self.folder / MANIFEST
        if not path.exists():
            return
        try:
            manifest = json.loads(path.read_text())
            study, configuration = manifest["study"], manifest["configuration"]
            self._data, self._made_by = manifest["data"], manifest["made_by"]
            if not isinstance(configuration, dict) or not isinstance(self._data, dict):
                raise TypeError("configuration and data must be objects")
            if not isinstance(self._made_by, list):
                raise TypeError("made_by must be a list")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RecordError(
                f"{path} is no manifest of a study ({error}); remove it or choose another folder."
            ) from error
        if study != self._study:
            raise RecordError(
                f"{self.folder} holds the study {study!r}, not {self._study!r}; "
                "choose another folder."
            )
        configuration = {
            name: value
            for name, value in renamed(configuration).items()
            if name not in self._free or name in self._configuration
        }
        ours = json.loads(json.dumps(self._configuration))
        # A setting that did not exist then had what is its default now.
        configuration |= {
            name: value for name, value in self._defaults.items() if name not in configuration
        }
        different = [
            f"{name} was {configuration.get(name)!r}, now {ours.get(name)!r}"
            for name in sorted(configuration.keys() | ours.keys())
            if configuration.get(name) != ours.get(name)
        ]
        if different:
            raise RecordError(
                f"{self.folder} holds records of another configuration: {'; '.join(different)}. "
                "Choose another folder."
            )


def read_runs(path: Path) -> pd.DataFrame:
    """The rows of whole cells in a table of runs; none where there is no file.

    A line without its end was cut off, and what is left of it must not be taken for a number: it
    goes, with what else there is of its cell. A setting that did not exist when the table was made
    has what is its default now.

    Raises:
      RecordError: the file is not such a table.
    """
    if not path.exists():
        return pd.DataFrame()
    try:
        text = path.read_text()
        runs = pd.read_csv(io.StringIO(text[: text.rfind("\n") + 1]))
        if "task" not in runs:  # then a data set had one model
            runs = runs.rename(columns=OLD_NAMES).drop(columns="model")
        new = {name: DEFAULTS[name] for name in DEFAULTS.keys() - set(runs)}
        runs = pd.concat([runs, pd.DataFrame(new, index=runs.index)], axis=1)
        sizes = runs.groupby(naming_columns(runs), dropna=False)["epoch"].transform("size")
    except (OSError, ValueError, KeyError) as error:
        raise RecordError(
            f"{path} is no table of runs ({error}); remove it or choose another folder."
        ) from error
    return runs[sizes == runs["epochs"]].reset_index(drop=True)


def naming_columns(rows: pd.DataFrame) -> list[str]:
    """The columns that name a cell: those of every cell, and one per setting that was searched."""
    return [*CELL_COLUMNS, *(name for name in rows.columns if name.startswith(SETTING))]


def of_cells(rows: pd.DataFrame, cells: Iterable[Cell]) -> pd.DataFrame:
    """The rows of some of the cells, in the order of the cells and their epochs."""
    wanted = pd.DataFrame([cell.fields() for cell in cells])
    names = list(dict.fromkeys([*CELL_COLUMNS, *naming_columns(rows), *wanted.columns]))
    # A cell without a setting that others have is named by its absence.
    return wanted.reindex(columns=names).merge(
        rows.reindex(columns=list(dict.fromkeys([*rows.columns, *names]))), on=names, how="inner"
    )


def renamed(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of old records by the names that they have now."""
    return {OLD_NAMES.get(name, name): value for name, value in configuration.items()}


def circumstances() -> dict[str, Any]:
    """What decides a result besides what was asked for: commit, versions and device."""
    return {
        "commit": _commit(),
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in PACKAGES},
        },
        "device": _device(),
    }


@functools.cache  # of what was loaded, whatever is checked out meanwhile
def _commit() -> str:
    """The commit of the code, with ``+`` where it was changed since; ``unknown`` outside git."""
    try:
        run = [
            subprocess.run(
                ["git", *arguments],
                cwd=Path(__file__).parent,
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
            for arguments in (
                ("rev-parse", "HEAD"),
                ("status", "--porcelain", "--untracked-files=no", "--", ":/*.py"),
            )
        ]
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return run[0] + ("+" if run[1] else "")


def _device() -> str:
    device = jax.devices()[0]
    cores = f", {os.cpu_count()} cores" if device.platform == "cpu" else ""
    return f"{len(jax.devices())} x {device.device_kind} ({device.platform}{cores})"
