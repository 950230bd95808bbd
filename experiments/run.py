"""Running cells: what is on record already is kept, the rest is trained, with progress shown."""

import datetime
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence

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
from experiments.configs import Cell, Workload
from experiments.data import Dataset
from experiments.mesh import check_batch_size, make_mesh, replicate
from experiments.optimizers import ARMS
from experiments.records import Records
from experiments.train import Arrays, Program

Row = dict[str, str | int | float | bool]

MAX_ROUNDS = 5  # cells a device takes in one program: what an interruption can cost at most


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
            rows: list[Row] = []
            for of_epoch in train_cells(program, chunk, size):
                rows += of_epoch
                advance(len(chunk))
            self.records.add(pd.DataFrame(rows).sort_values(["seed", "learning_rate", "epoch"]))

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


def train_cells(program: Program, cells: list[Cell], size: int) -> Iterator[list[Row]]:
    """Trains cells of one arm together, an epoch at a time: a row a cell.

    A program has a fixed number of cells; where there are fewer, the last one is repeated and the
    repetitions are thrown away.
    """
    filled = [*cells, *[cells[-1]] * (size - len(cells))]
    seeds = np.array([cell.seed for cell in filled])
    learning_rates = np.array([cell.learning_rate for cell in filled])
    program.compile(seeds, learning_rates)
    state = program.init(seeds, learning_rates)
    for epoch in range(1, cells[0].workload.epochs + 1):
        start = time.perf_counter()
        state, trained = jax.block_until_ready(program.train_epoch(state, seeds, learning_rates))
        middle = time.perf_counter()
        evaluated = jax.block_until_ready(program.evaluate(state))
        end = time.perf_counter()
        metrics = multihost_utils.process_allgather({**trained, **evaluated}, tiled=True)
        yield [
            {
                **cell.fields(),
                "epoch": epoch,
                **{name: float(values[i]) for name, values in metrics.items()},
                "seconds": (middle - start) / len(cells),
                "evaluation_seconds": (end - middle) / len(cells),
            }
            for i, cell in enumerate(cells)
        ]
