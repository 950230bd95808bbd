"""Running cells: what is on record is kept, what was begun goes on, with progress shown."""

import datetime
import functools
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

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
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from experiments import tasks
from experiments.cells import Cell, Workload
from experiments.checkpoints import CHECKPOINTS, Checkpoint, CheckpointError, identify
from experiments.dataset import Dataset
from experiments.mesh import check_batch_size, default_loop, make_mesh, replicate, seed_devices
from experiments.naming import find_arm
from experiments.records import Records, Row, circumstances, write_atomically
from experiments.schedules import Schedule
from experiments.store import Finished, Store
from experiments.timing import STEP_TIMES, TIMED, step_seconds
from experiments.train import Arrays, CellState, Program

SPEED_PERIOD = 3600.0  # seconds by which the time left is told: an epoch may take minutes
MAX_ROUNDS = 5  # cells per device in one program: what is put on record at once
KEPT = 2  # programs, and data sets on the devices: a study of many arms needs no more memory


def spread_evenly(cells: int, places: int, devices: int) -> list[int]:
    """The places of cells, of which each device has as many as another, the first ones of its own.

    >>> spread_evenly(3, places=4, devices=2), spread_evenly(3, places=6, devices=2)
    ([0, 2, 1], [0, 3, 1])
    """
    each = places // devices
    return [(cell % devices) * each + cell // devices for cell in range(cells)]


def columns_of(unit: str) -> tuple[ProgressColumn, ...]:
    """A progress bar that counts in some unit."""
    return (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit},"),
        TimeElapsedColumn(),
        TextColumn("elapsed,"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )


class Kind(NamedTuple):
    """What the cells of one program share."""

    workload: Workload
    arm: str
    schedule: Schedule
    searched: tuple[str, ...]

    @classmethod
    def of(cls, cell: Cell) -> "Kind":
        """The kind of a cell."""
        searched = tuple(name for name, _ in cell.settings)
        return cls(cell.workload, cell.arm, cell.schedule, searched)


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
        self._sizes: dict[tuple[Kind, int], int] = {}  # of compiled programs
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
            *columns_of("epochs"),
            console=self._console,
            speed_estimate_period=SPEED_PERIOD,
        ) as progress:
            total = sum(cell.workload.epochs for cell in cells)
            left = sum(cell.workload.epochs for cell in pending)
            bar = progress.add_task("", total=total, completed=total - left)
            for kind, group in itertools.groupby(pending, key=Kind.of):
                name = f"{kind.workload.task}: {find_arm(kind.arm).label}"
                progress.update(bar, description=name)
                self._train(kind, list(group), lambda n: progress.advance(bar, n))
                if not self._console.is_terminal:  # a log gets a line, where a terminal has a bar
                    self._console.print(_line(progress.tasks[0]), highlight=False)
        return self.records.rows(cells)

    def finished(self, cells: Sequence[Cell]) -> set[Cell]:
        """Those of the cells that are on record or in the store."""
        done = {cell for cell in cells if self.records.finished(cell)}
        left = [cell for cell in cells if cell not in done]
        if self._store and left:
            done |= self._store.find({c: self._data_of(c.workload) for c in left}).keys()
        return done

    def step_times(self, cells: Sequence[Cell]) -> pd.DataFrame:
        """Seconds per step, measured in turns for the arms of a workload, and kept."""
        path = self.records.folder / STEP_TIMES
        known = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=[*TIMED])
        wanted: dict[Workload, dict[str, Cell]] = {}
        for cell in cells:
            kind = cell.workload
            whole = Workload(kind.task, batch_size=kind.batch_size)
            wanted.setdefault(whole, {})[cell.arm] = cell
        found = [self._time(workload, of_arm, known) for workload, of_arm in wanted.items()]
        table = pd.concat(found, ignore_index=True)
        write_atomically(path, table.to_csv(index=False))
        return table

    def _time(
        self, workload: Workload, cells: dict[str, Cell], known: pd.DataFrame
    ) -> pd.DataFrame:
        """Of one workload; all arms anew where one is not known, for their ratios to hold."""
        names = {"task": workload.task, "batch_size": workload.batch_size}
        mine = known[(known[list(names)] == pd.Series(names)).all(axis=1)]
        if set(cells) <= set(mine["arm"]):
            return mine[mine["arm"].isin(list(cells))]
        dataset = self.load(workload)
        batch = slice(workload.batch_size)
        with Progress(*columns_of("arms"), console=self._console) as progress:
            bar = progress.add_task(f"{workload.task}: time of a step", total=len(cells))
            seconds = step_seconds(
                tasks.make_problem(workload, dataset),
                Arrays(dataset.train_images[batch], dataset.train_labels[batch]),
                {arm: (find_arm(arm).make, cell.learning_rate) for arm, cell in cells.items()},
                schedule=next(iter(cells.values())).schedule,
                advance=lambda: progress.advance(bar),
            )
        rows = [
            {**names, "examples": len(dataset.train_labels), "arm": arm, "seconds": taken}
            for arm, taken in seconds.items()
        ]
        return pd.DataFrame(rows, columns=[*TIMED])

    def _train(self, kind: Kind, cells: list[Cell], advance: Callable[[int], None]) -> None:
        """Trains cells of one kind, in as few calls of one program as they need."""
        program = self._program(kind, seed_devices(self._mesh, len(cells)))
        size = self._size(kind, program.width, len(cells))
        for start in range(0, len(cells), size):
            chunk = cells[start : start + size]
            with self._checkpoint(chunk, size) as checkpoint:
                rows = self._train_together(program, chunk, size, checkpoint, advance)
                self._put(pd.DataFrame(rows).sort_values(["seed", "learning_rate", "epoch"]), chunk)
                checkpoint.remove()

    def _size(self, kind: Kind, width: int, cells: int) -> int:
        """How many places one call of a program has.

        Together, empty places would be computed too: there are as few of them as can be. One after
        the other they are left out, so a size that is compiled already is taken if it is enough.
        """
        if default_loop(self._mesh) == "vmap":
            calls = -(-cells // (MAX_ROUNDS * width))
            return width * -(-cells // (calls * width))
        size = width * min(MAX_ROUNDS, -(-cells // width))
        self._sizes[kind, width] = max(size, self._sizes.get((kind, width), 0))
        return self._sizes[kind, width]

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

        A program has a fixed number of places; where there are fewer cells, the rest stay empty.
        """
        places = spread_evenly(len(cells), size, program.width)
        active = np.isin(np.arange(size), places)
        filled = [cells[0]] * size
        for place, cell in zip(places, cells, strict=True):
            filled[place] = cell
        seeds = np.array([cell.seed for cell in filled])
        learning_rates = np.array([cell.learning_rate for cell in filled])
        settings = {
            name: np.array([dict(cell.settings)[name] for cell in filled])
            for name, _ in cells[0].settings
        }
        program.compile(seeds, learning_rates, **settings)
        initial = program.init(seeds, learning_rates, **settings)
        state, rows = self._begin(initial, checkpoint)
        advance(len(rows))
        epochs = cells[0].workload.epochs
        for epoch in range(len(rows) // len(cells) + 1, epochs + 1):
            start = time.perf_counter()
            state, trained = jax.block_until_ready(
                program.train_epoch(state, seeds, learning_rates, active=active, **settings)
            )
            middle = time.perf_counter()
            evaluated = jax.block_until_ready(program.evaluate(state))
            end = time.perf_counter()
            metrics = multihost_utils.process_allgather({**trained, **evaluated}, tiled=True)
            rows += [
                {
                    **cell.fields(),
                    "epoch": epoch,
                    **{name: float(values[place]) for name, values in metrics.items()},
                    "seconds": (middle - start) / len(cells),
                    "evaluation_seconds": (end - middle) / len(cells),
                }
                for place, cell in zip(places, cells, strict=True)
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

    def _build(self, kind: Kind, mesh: Mesh) -> Program:
        workload = kind.workload
        train, test = self._on_devices(workload, mesh)
        return Program(
            tasks.make_problem(workload, self.load(workload)),
            find_arm(kind.arm).make,
            train,
            test,
            epochs=workload.epochs,
            schedule=kind.schedule,
            searched=kind.searched,
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
