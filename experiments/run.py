"""Running cells: what is on record is kept, what was begun goes on, with progress shown."""

import datetime
import functools
import itertools
import time
from collections.abc import Callable, Sequence

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
from experiments.cells import Cell, Workload
from experiments.checkpoints import CHECKPOINTS, Checkpoint, CheckpointError, identify
from experiments.data import Dataset
from experiments.mesh import check_batch_size, make_mesh, replicate
from experiments.optimizers import ARMS
from experiments.records import Records, Row, circumstances
from experiments.train import Arrays, CellState, Program

SPEED_PERIOD = 3600.0  # seconds by which the time left is told: an epoch may take minutes
MAX_ROUNDS = 5  # cells a device takes in one program: what is put on record at once


class Runner:
    """Trains cells and records them.

    Args:
      records: where finished cells are kept.
      load: the images of a workload.
      console: where progress is shown.
      mesh: the devices, as ``Program`` takes them.
      fsdp: whether parameters and the optimizer's state are spread over the axis ``data`` too.
    """

    def __init__(
        self,
        records: Records,
        load: Callable[[Workload], Dataset],
        console: Console,
        mesh: Mesh | None = None,
        *,
        fsdp: bool = False,
    ) -> None:
        self.records = records
        self.load = functools.cache(load)
        self._console = console
        self._mesh = mesh or make_mesh()
        self._fsdp = fsdp
        self._on_devices = functools.cache(self._place)
        self._program = functools.cache(self._build)

    def __call__(self, cells: Sequence[Cell]) -> pd.DataFrame:
        """The rows of all cells, after training those that are not on record.

        Raises:
          ConfigError: a batch has fewer images than the mesh's axis ``data`` has devices.
        """
        cells = list(dict.fromkeys(cells))  # a cell may be wanted for two reasons
        for cell in cells:
            check_batch_size(cell.workload.batch_size, self._mesh)
        pending = [cell for cell in cells if not self.records.finished(cell)]
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
        program = self._program(workload, arm)
        rounds = min(-(-len(cells) // program.width), MAX_ROUNDS)
        size = rounds * program.width
        for start in range(0, len(cells), size):
            chunk = cells[start : start + size]
            with self._checkpoint(chunk, size) as checkpoint:
                rows = self._train_together(program, chunk, size, checkpoint, advance)
                self.records.add(pd.DataFrame(rows).sort_values(["seed", "learning_rate", "epoch"]))
                checkpoint.remove()

    def _train_together(
        self,
        program: Program,
        cells: list[Cell],
        size: int,
        checkpoint: Checkpoint,
        advance: Callable[[int], None],
    ) -> list[Row]:
        """Trains cells of one arm in one program; a row a cell and epoch.

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
            self._console.print(f"{error}: its cells start anew.", markup=False, soft_wrap=True)
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
            "data": self.load(cells[0].workload).checksum,
            **circumstances(),
        }
        return Checkpoint(self.records.folder / CHECKPOINTS / identify(identity))

    def _place(self, workload: Workload) -> tuple[Arrays, Arrays]:
        """The training and the evaluated split on the devices, once for all arms."""
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
        splits = (
            Arrays(dataset.train_images, dataset.train_labels),
            Arrays(dataset.test_images, dataset.test_labels),
        )
        return replicate(splits, self._mesh)

    def _build(self, workload: Workload, arm: str) -> Program:
        train, test = self._on_devices(workload)
        return Program(
            tasks.make_task(workload, self.load(workload)),
            ARMS[arm].make,
            train,
            test,
            epochs=workload.epochs,
            diagnostics=workload.diagnostics,
            mesh=self._mesh,
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
