"""The store of finished cells: one that all studies read, so that a cell is one number everywhere.

A cell is one JSON file: what decides its result, what it was made by, and its rows. The commit, the
versions and the devices do not name a cell, for they change nothing but rounding as long as the
settings are the same; they are kept with it. After a change of what a cell computes, give the
studies another store.
"""

import fcntl
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
from jax.experimental import multihost_utils

from experiments.cells import DEFAULTS, Cell
from experiments.naming import find_arm
from experiments.records import RecordError, Row, write_atomically
from experiments.spec import slug


class StoreError(RecordError):
    """A store that cannot be used, or a file in it that is not as it was written."""


class Finished(NamedTuple):
    """A cell's rows, and the commit, versions and device that they were made by."""

    rows: list[Row]
    made_by: dict[str, Any]


class Store:
    """A folder of finished cells, which any number of processes read and add to.

    Args:
      folder: created with the first cell.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, cells: Mapping[Cell, str]) -> dict[Cell, Finished]:
        """What is in the store of some cells, each given with the checksum of its data.

        Raises:
          StoreError: a file is not as it was written.
        """
        found, problem = [], ""
        if jax.process_index() == 0:
            try:
                found = [self._read(cell, checksum) for cell, checksum in cells.items()]
            except StoreError as error:
                problem = str(error)
        found, problem = _as_the_first([found, problem])
        if problem:
            raise StoreError(problem)
        return {
            cell: Finished(*content)
            for cell, content in zip(cells, found, strict=True)
            if content is not None
        }

    def add(
        self, rows: pd.DataFrame, cells: Mapping[Cell, str], made_by: Mapping[str, Any]
    ) -> None:
        """Adds finished cells, by their rows; one that is in the store already stays as it is.

        Raises:
          StoreError: the folder cannot be written to, or what is there is not as it was written.
        """
        if jax.process_index() > 0:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                for cell, checksum in cells.items():
                    if self._read(cell, checksum) is None:
                        self._write(cell, checksum, rows, made_by)
        except OSError as error:
            raise StoreError(f"{self.folder} cannot be used: {error.strerror}.") from error

    def _write(
        self, cell: Cell, checksum: str, rows: pd.DataFrame, made_by: Mapping[str, Any]
    ) -> None:
        named = cell.fields()
        mine = rows[(rows[list(named)] == pd.Series(named)).all(axis=1)]
        measured = mine.drop(columns=list(named))
        content = {
            "cell": _identity(cell, checksum),
            "made_by": dict(made_by),
            "rows": measured.to_dict("records"),
        }
        signed = {**content, "sha256": _digest(content)}
        write_atomically(self._path(cell, checksum), json.dumps(signed, indent=1) + "\n")

    def _read(self, cell: Cell, checksum: str) -> Finished | None:
        path, identity = self._path(cell, checksum), _identity(cell, checksum)
        try:
            content = json.loads(path.read_text())
            digest = content.pop("sha256")
            rows, made_by = content["rows"], content["made_by"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{path} is no finished cell ({error}); remove it.") from error
        if _digest(content) != digest:
            raise StoreError(f"{path} is damaged: its sha256 does not match; remove it.")
        if content["cell"] != identity or len(rows) != cell.workload.epochs:
            raise StoreError(f"{path} holds another cell than {cell}; remove it.")
        return Finished([{**cell.fields(), **row} for row in rows], made_by)

    def _path(self, cell: Cell, checksum: str) -> Path:
        name = _digest(_identity(cell, checksum))[:16]
        return self.folder / f"{slug(cell.workload.task)}-{slug(cell.arm)}-{name}.json"


def _identity(cell: Cell, checksum: str) -> dict[str, Any]:
    """All that decides a cell's result; what has its default is left out.

    So a property that cells get later changes no name of those that are there already.
    """
    facts = {name: value for name, value in cell.fields().items() if value != DEFAULTS.get(name)}
    return {**facts, "settings": find_arm(cell.arm).describe(), "data": checksum}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _as_the_first(content: Any) -> Any:
    """What the first process of the job has, in all of them."""
    data = np.frombuffer(json.dumps(content).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.asarray(data.size)))
    padded = np.resize(data, size)
    return json.loads(bytes(multihost_utils.broadcast_one_to_all(padded)))
