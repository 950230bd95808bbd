"""Running cells: what is on record is kept, what was begun goes on, with progress shown."""

import datetime
import functools
import itertools
import time
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np
import pandas as pd
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from experiments import tasks
from experiments.arms import ARMS
from experiments.cells import Cell, Workload
from experiments.checkpoints import CHECKPOINTS, Checkpoint, CheckpointError, identify
from experiments.dataset import Dataset
from experiments.mesh import check_batch_size, make_mesh, replicate, seed_devices
from experiments.records import Records, Row, circumstances
from experiments.store import Finished, Store
from experiments.train import Arrays, CellState, Program

SPEED_PERIOD = 3600.0  # seconds by which the time left is told: an epoch may take minutes
MAX_ROUNDS = 5  # cells per device in one program: what is put on record at once
KEPT = 2  # programs, and data sets on the devices: a study of many arms needs no more memory


class Runner:
    """Trains cells and records them.

    Args:
      records: where the study's finished cells are kept.
      load: the images of a workload.
      console: where progress is shown.
      mesh: the devices, as ``Program`` takes them.
      fsdp: whether parameters and the optimizer's state are spread over the axis ``data`` too.
      store: finished cells of all studies: what is there is put on record instead of trained, and
        what is trained goes there too; left out, the study trains all its cells itself.
    """

    def __init__(
        self,
        records: Records,
        load: Callable[[Workload], Dataset],
        console: Console,
        mesh: Mesh | None = None,
        *,
        fsdp: bool = False,
        store: Store | None = None,
    ) -> None:
        self.records = records
        self.load = functools.lru_cache(KEPT)(load)
        self._console = console
        self._mesh = mesh or make_mesh()
        self._fsdp = fsdp
        self._store = store
        self._checksums: dict[Workload, str] = {}
        self._on_devices = functools.lru_cache(KEPT)(self._place)
        self._program = functools.lru_cache(KEPT)(self._build)

    def __call__(self, cells: Sequence[Cell]) -> pd.DataFrame:
        """The rows of all cells, after training those that are neither on record nor in the store.

        Raises:
          ConfigError: a batch has fewer images than the mesh's axis ``data`` has devices.
          DataError: a data set is not to be had; nothing is trained.
          StoreError: the store cannot be used.
        """
        cells = list(dict.fromkeys(cells))  # a cell may be wanted for two reasons
        for cell in cells:
            check_batch_size(cell.workload.batch_size, self._mesh)
        pending = [cell for cell in cells if not self.records.finished(cell)]
        checksums = {cell: self._data_of(cell.workload) for cell in pending}
        stored = self._store.find(checksums) if self._store else {}
        if stored:
            self._record(stored.values())
        pending = [cell for cell in pending if cell not in stored]
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("epochs,"),
            TimeElapsedColumn(),
            TextColumn("elapsed,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self._console,
            speed_estimate_period=SPEED_PERIOD,
        ) as progress:
            total = sum(cell.workload.epochs for cell in cells)
            left = sum(cell.workload.epochs for cell in pending)
            bar = progress.add_task("", total=total, completed=total - left)
            for (workload, arm), group in itertools.groupby(
                pending, key=lambda cell: (cell.workload, cell.arm)
            ):
                progress.update(bar, description=f"{workload.dataset}: {ARMS[arm].label}")
                self._train(workload, arm, list(group), lambda n: progress.advance(bar, n))
                if not self._console.is_terminal:  # a log gets a line, where a terminal has a bar
                    self._console.print(_line(progress.tasks[0]), highlight=False)
        return self.records.rows(cells)

    def _train(
        self, workload: Workload, arm: str, cells: list[Cell], advance: Callable[[int], None]
    ) -> None:
        """Trains the cells of one arm, in as few programs of one shape as they need."""
        program = self._program(workload, arm, seed_devices(self._mesh, len(cells)))
        chunks = -(-len(cells) // (MAX_ROUNDS * program.width))
        size = -(-len(cells) // (chunks * program.width)) * program.width
        for start in range(0, len(cells), size):
            chunk = cells[start : start + size]
            with self._checkpoint(chunk, size) as checkpoint:
                rows = self._train_together(program, chunk, size, checkpoint, advance)
                self._put(pd.DataFrame(rows).sort_values(["seed", "learning_rate", "epoch"]), chunk)
                checkpoint.remove()

    def _put(self, rows: pd.DataFrame, cells: list[Cell]) -> None:
        """Puts finished cells on record, and into the store.

        Where another process was first, its numbers are also this study's.
        """
        made_by = circumstances()
        if self._store:
            checksums = {cell: self._data_of(cell.workload) for cell in cells}
            self._store.add(rows, checksums, made_by)
            self._record(self._store.find(checksums).values())
        else:
            self.records.add(rows, [made_by])

    def _record(self, stored: Iterable[Finished]) -> None:
        """Puts cells of the store on record, with what they were made by."""
        stored = list(stored)
        rows = pd.DataFrame([row for finished in stored for row in finished.rows])
        self.records.add(rows, [finished.made_by for finished in stored])

    def _train_together(
        self,
        program: Program,
        cells: list[Cell],
        size: int,
        checkpoint: Checkpoint,
        advance: Callable[[int], None],
    ) -> list[Row]:
        """Trains cells of one arm in one program; one row per cell and epoch.

        A program has a fixed number of cells; where there are fewer, the last one is repeated and
        the repetitions are thrown away.
        """
        filled = [*cells, *[cells[-1]] * (size - len(cells))]
        seeds = np.array([cell.seed for cell in filled])
        learning_rates = np.array([cell.learning_rate for cell in filled])
        state, rows = self._begin(program.init(seeds, learning_rates), checkpoint)
        advance(len(rows))
        program.compile(seeds, learning_rates)
        epochs = cells[0].workload.epochs
        for epoch in range(len(rows) // len(cells) + 1, epochs + 1):
            start = time.perf_counter()
            state, trained = jax.block_until_ready(
                program.train_epoch(state, seeds, learning_rates)
            )
            middle = time.perf_counter()
            evaluated = jax.block_until_ready(program.evaluate(state))
            end = time.perf_counter()
            metrics = multihost_utils.process_allgather({**trained, **evaluated}, tiled=True)
            rows += [
                {
                    **cell.fields(),
                    "epoch": epoch,
                    **{name: float(values[i]) for name, values in metrics.items()},
                    "seconds": (middle - start) / len(cells),
                    "evaluation_seconds": (end - middle) / len(cells),
                }
                for i, cell in enumerate(cells)
            ]
            advance(len(cells))
            if epoch < epochs:  # the last one goes on record
                checkpoint.save(epoch, state, rows)
        return rows

    def _begin(self, initial: CellState, checkpoint: Checkpoint) -> tuple[CellState, list[Row]]:
        """State and rows to go on from: those of the checkpoint, if there is one."""
        try:
            restored = checkpoint.restore(initial)
        except CheckpointError as error:
            self._console.print(
                f"{error}: its cells are trained from the beginning.", markup=False, soft_wrap=True
            )
            checkpoint.remove()
            restored = None
        if restored is None:
            return initial, []
        self._console.print(f"Goes on after epoch {restored[1][-1]['epoch']}.", highlight=False)
        return restored

    def _checkpoint(self, cells: list[Cell], size: int) -> Checkpoint:
        """Where these cells would have stopped; nothing that decides their results may differ."""
        identity = {
            "cells": [cell.fields() for cell in cells],
            "size": size,
            "data": self._data_of(cells[0].workload),
            **circumstances(),
        }
        return Checkpoint(self.records.folder / CHECKPOINTS / identify(identity))

    def _data_of(self, workload: Workload) -> str:
        """The checksum of a workload's data, which the manifest then names."""
        if workload not in self._checksums:
            dataset = self.load(workload)
            self.records.note_data(
                dataset.name,
                {
                    "source": dataset.source,
                    "checksum": dataset.checksum,
                    "train": len(dataset.train_labels),
                    "evaluated": len(dataset.test_labels),
                },
            )
            self._checksums[workload] = dataset.checksum
        return self._checksums[workload]

    def _place(self, workload: Workload, mesh: Mesh) -> tuple[Arrays, Arrays]:
        """The training and the evaluated split on the devices, once for several arms."""
        dataset = self.load(workload)
        splits = (
            Arrays(dataset.train_images, dataset.train_labels),
            Arrays(dataset.test_images, dataset.test_labels),
        )
        return replicate(splits, mesh)

    def _build(self, workload: Workload, arm: str, mesh: Mesh) -> Program:
        train, test = self._on_devices(workload, mesh)
        return Program(
            tasks.make_task(workload, self.load(workload)),
            ARMS[arm].make,
            train,
            test,
            epochs=workload.epochs,
            diagnostics=workload.diagnostics,
            mesh=mesh,
            fsdp=self._fsdp,
        )


def _line(task: Task) -> str:
    """Where a study stands, in one line."""
    spent, left = (
        "?" if seconds is None else f"{datetime.timedelta(seconds=round(seconds))}"
        for seconds in (task.elapsed, task.time_remaining)
    )
    done = f"{task.completed:.0f}/{task.total:.0f} epochs"
    return f"{done}, {spent} elapsed, {left} left: {task.description}"
