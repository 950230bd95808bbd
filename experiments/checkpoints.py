"""Checkpoints: where the cells of a program stand, so that a study that was killed goes on.

The processes of a job write and read a checkpoint together, each its part of the arrays.
"""

import contextlib
import functools
import hashlib
import json
import logging
import shutil
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from experiments.records import RecordError, Row
from experiments.train import CellState

CHECKPOINTS = "checkpoints"
INTERVAL = 10.0  # seconds between two checkpoints, at least

# An error of Orbax is raised here; it also logs the traceback of every thread that it passes.
logging.getLogger("absl").setLevel(logging.CRITICAL)


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read, by folder and reason."""


class Checkpoint:
    """The last state of a program's cells, with their rows up to there.

    Both are in one Orbax checkpoint, which gets its name when it is complete, so they always belong
    together. It is written while training goes on; an older one goes when it is there.

    Args:
      folder: its own, made with the first checkpoint.

    Raises:
      RecordError: from any method and at the end of ``with``: the folder cannot be written to, or
        the disk is full; the last complete checkpoint stays.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._manager: ocp.CheckpointManager | None = None
        self._last = time.monotonic()

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def restore(self, like: CellState) -> tuple[CellState, list[Row]] | None:
        """State and rows, or None where there are none.

        Args:
          like: a state with the shapes, dtypes and shardings to restore.

        Raises:
          CheckpointError: there is a checkpoint, but not as it was written.
        """
        if not _as_the_first(self.folder.exists()):
            return None
        restored, cause = None, None
        try:
            restored = self._read(like)
        except Exception as error:  # of many kinds, whatever part is damaged
            cause = error
        if _any(cause is not None):
            reason = _first_line(cause) if cause else "by another process"
            raise CheckpointError(f"{self.folder} cannot be read ({reason})") from cause
        if restored is None:
            return None
        state, rows, checksums = restored
        if _checksums(state, rows) != checksums:
            raise CheckpointError(f"{self.folder} cannot be read (its checksum does not match)")
        return state, rows

    def _read(self, like: CellState) -> tuple[CellState, list[Row], list[int]] | None:
        """State, rows and the checksums of both as they were written."""
        manager = self._open()
        epoch = manager.latest_step()
        if epoch is None:
            return None
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, _with_entries(like))
        restored = manager.restore(
            epoch,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(shapes), rows=ocp.args.JsonRestore()
            ),
        )
        state = jax.tree.map(lambda old, new: new if old.size else old, like, restored.state)
        return state, restored.rows["rows"], restored.rows["checksums"]

    def save(self, epoch: int, state: CellState, rows: list[Row]) -> None:
        """Writes state and rows after an epoch, unless the last checkpoint is very young.

        Training may go on at once: donated buffers are kept for as long as they are written.
        """
        if not _as_the_first(time.monotonic() >= self._last + INTERVAL):
            return
        written = {"rows": list(rows), "checksums": _checksums(state, rows)}
        with self._named_errors():
            self._open().save(
                epoch,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(_with_entries(state)),
                    rows=ocp.args.JsonSave(written),
                ),
            )
        self._last = time.monotonic()

    def remove(self) -> None:
        """Removes the checkpoint: its cells are on record, or it cannot be read."""
        self._close()
        if jax.process_index() == 0:
            shutil.rmtree(self.folder, ignore_errors=True)
        multihost_utils.sync_global_devices(f"{self.folder} is removed")

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            self._manager = ocp.CheckpointManager(
                self.folder.absolute(),
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=ocp.checkpoint_managers.LatestN(1),
                    cleanup_tmp_directories=True,
                ),
            )
        return self._manager

    def _close(self) -> None:
        """Waits for what is being written."""
        manager, self._manager = self._manager, None
        if manager is not None:
            with self._named_errors():
                manager.close()

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of many kinds: Orbax's, TensorStore's and the system's
            raise RecordError(f"{self.folder} cannot be written: {_first_line(error)}") from error


def identify(facts: Mapping[str, Any]) -> str:
    """A short name for the facts that a checkpoint depends on, and for no others.

    >>> identify({"seeds": [0, 1], "size": 8})
    '1742d05a6dae0618'
    """
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _with_entries(state: CellState) -> CellState:
    """The state with a zero in place of every array without entries, which Orbax does not save."""
    return jax.tree.map(lambda x: x if x.size else np.zeros(1, x.dtype), state)


def _checksums(state: CellState, rows: list[Row]) -> list[int]:
    """One of the rows, which the first process writes, then one per process of its part of state.

    Each changes with every bit: Orbax does not notice one that is flipped.
    """

    def add(checksum: int, leaf: jax.Array) -> int:
        parts = {str(shard.index): shard for shard in leaf.addressable_shards}  # copies once
        return functools.reduce(
            lambda crc, shard: zlib.crc32(np.asarray(shard.data).tobytes(), crc),
            parts.values(),
            checksum,
        )

    mine = functools.reduce(add, jax.tree.leaves(state), 0)
    parts = np.atleast_1d(multihost_utils.process_allgather(np.uint32(mine))).tolist()
    return [zlib.crc32(json.dumps(rows).encode()), *parts]


def saved(folder: Path) -> bool:
    """Whether a study's folder holds a complete checkpoint."""
    return any(path.name.isdecimal() for path in folder.glob(f"{CHECKPOINTS}/*/*"))


def _as_the_first(mine: bool) -> bool:
    """What holds for the first process of the job, so that all do the same."""
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(mine)))


def _any(mine: bool) -> bool:
    """Whether it holds for any process of the job."""
    return bool(np.any(multihost_utils.process_allgather(np.asarray(mine))))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
