"""Whole training runs: seconds per seed of ours, compilation included, beside PyTorch."""

import contextlib
import dataclasses
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import Progress

from benchmarks import harness
from benchmarks import whole_runs_report as report
from benchmarks.torch_process import PACKAGE, Worker
from benchmarks.whole_runs_report import ADAM, OURS, PUBLISHED
from experiments import tasks
from experiments.arms import ARMS
from experiments.cells import Cell, ConfigError, Workload
from experiments.dataset import ARRAYS, Dataset
from experiments.records import Records
from experiments.run import Runner
from experiments.tables import show

ARM = "full"
# How many times faster ours should be with the default size, by seeds.
TARGETS = {1: 10.0, 10: 15.0}
PREPARED = {"one by one": "images one by one", "before": "images prepared before"}


@dataclasses.dataclass(frozen=True)
class Size:
    """What is measured where no option says otherwise.

    Attributes:
      task: what is learned.
      epochs: of a whole run.
      seeds: that ours trains together, besides one alone.
      images: to train on; all where nothing is said.
    """

    task: str
    epochs: int
    seeds: int
    images: int | None


SIZES: dict[harness.Preset, Size] = {
    "default": Size("fashion_mnist", epochs=10, seeds=10, images=None),
    "smoke": Size("mnist5k", epochs=1, seeds=2, images=256),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Times whole training runs on a CPU, in turns with PyTorch, which is needed for it.

    Attributes:
      preset: "smoke" takes two seeds and an epoch of 256 images, to see that everything works.
      published: clone of the published implementation's repository; without it, torch's Adam is
        measured in its place, and the report says so.
      python: interpreter that has torch and NumPy; left out, the one that runs this.
      epochs: of a whole run; 10 if nothing is given.
      seeds: that ours trains together, besides one alone; 10 if nothing is given.
      images: of Fashion-MNIST's 60,000 to train on, the first ones, and as large a share of its
        test images to evaluate on; all if nothing is given.
      torch_epochs: epochs of PyTorch that are timed, after as many that are not; a whole run is
        taken to need as many times as long as it has more epochs.
      diagnostics: record the statistics of α, as the published implementation always does.
      out: folder for tables, figure, report and manifest.
      data_dir: folder for prepared data sets.
      raw_dir: folder with raw files (IDX) that you have already.
    """

    preset: harness.Preset = "default"
    published: Path | None = None
    python: Path | None = None
    epochs: int | None = None
    seeds: int | None = None
    images: int | None = None
    torch_epochs: int = 1
    diagnostics: bool = True
    out: Path = Path("results/benchmarks-whole_runs")
    data_dir: Path = Path("data")
    raw_dir: Path | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "seeds", "images", "torch_epochs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}.")
        if self.torch_epochs > self.size.epochs:
            raise ConfigError(
                f"torch_epochs must be at most the {self.size.epochs} epochs of a whole run, got "
                f"{self.torch_epochs}."
            )
        if self.published is not None and not (self.published / PACKAGE / "__init__.py").is_file():
            raise ConfigError(
                f"published must be a clone of the published implementation's repository, with the "
                f"package {PACKAGE}, got {self.published}, which has none."
            )

    @property
    def size(self) -> Size:
        """The preset's size, with what the options say."""
        given = {name: getattr(self, name) for name in ("epochs", "seeds", "images")}
        changes = {name: value for name, value in given.items() if value is not None}
        return dataclasses.replace(SIZES[self.preset], **changes)

    @property
    def other(self) -> str:
        """What ours is compared with."""
        return ADAM if self.published is None else PUBLISHED


class Ours:
    """Whole runs of the full method as the studies do them, all seeds together.

    Each call compiles anew. What it notes down is one entry per call: the seconds per seed beside
    training and evaluation, most of which is compilation, and the mean accuracy at the end.
    """

    def __init__(self, dataset: Dataset, workload: Workload, seeds: int) -> None:
        rate = ARMS[ARM].learning_rate
        self._dataset = dataset
        self._cells = [Cell(workload, ARM, rate, seed) for seed in range(seeds)]
        self.beside: list[float] = []
        self.accuracy: list[float] = []

    def __call__(self) -> None:
        """Trains, and leaves records in a folder that is then removed."""
        jax.clear_caches()
        start = time.perf_counter()
        with (
            tempfile.TemporaryDirectory() as folder,
            Records(Path(folder), "whole_runs", {}) as records,
        ):
            rows = Runner(records, lambda _: self._dataset, Console(quiet=True))(self._cells)
        trained = rows[["seconds", "evaluation_seconds"]].sum().sum()
        self.beside.append((time.perf_counter() - start - trained) / len(self._cells))
        last = rows[rows["epoch"] == rows["epoch"].max()]
        self.accuracy.append(last["test_accuracy"].mean())


class Theirs:
    """Epochs of PyTorch, each call with the next seed; notes down as ours does."""

    def __init__(self, worker: Worker, images: str, epochs: int) -> None:
        self._worker, self._images, self._epochs = worker, images, epochs
        self.beside: list[float] = []
        self.accuracy: list[float] = []

    def __call__(self) -> None:
        """Trains a new model."""
        seed = len(self.accuracy)
        answer = self._worker.train(images=self._images, seed=seed, epochs=self._epochs)
        self.beside.append(float("nan"))
        self.accuracy.append(answer["test_accuracy"])


@dataclasses.dataclass(frozen=True)
class Contestant:
    """What takes its turn.

    Attributes:
      implementation: whose it is.
      how: its images, or its seeds are trained.
      seeds: in one call.
      epochs: in one call.
      run: the call.
    """

    implementation: str
    how: str
    seeds: int
    epochs: int
    run: Ours | Theirs


def make_data(config: Config) -> Dataset:
    """The images to train and to evaluate on.

    Raises:
      ConfigError: there are not as many.
      DataError: the data set is not to be had.
    """
    size = config.size
    workload = Workload(size.task)
    dataset = tasks.load(workload, data_dir=config.data_dir, raw_dir=config.raw_dir)
    available = len(dataset.train_labels)
    images = size.images or available
    if images > available:
        raise ConfigError(
            f"images must be at most the {available} that {size.task} has, got {images}."
        )
    tested = -(-len(dataset.test_labels) * images // available)
    return dataclasses.replace(
        dataset,
        train_images=dataset.train_images[:images],
        train_labels=dataset.train_labels[:images],
        test_images=dataset.test_images[:tested],
        test_labels=dataset.test_labels[:tested],
    )


@contextlib.contextmanager
def start_worker(config: Config, dataset: Dataset) -> Iterator[Worker]:
    """PyTorch with the same images."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.npz"
        np.savez(data, **{name: getattr(dataset, name) for name in ARRAYS})
        worker = Worker(data, config.python, config.published)
    try:
        yield worker
    finally:
        worker.close()


def make_contestants(config: Config, dataset: Dataset, worker: Worker) -> list[Contestant]:
    """Ours by seeds, and PyTorch by how it gets its images."""
    size = config.size
    workload = Workload(size.task, epochs=size.epochs, diagnostics=config.diagnostics)
    ours = [
        Contestant(OURS, "together", seeds, size.epochs, Ours(dataset, workload, seeds))
        for seeds in sorted({1, size.seeds})
    ]
    epochs = config.torch_epochs
    theirs = [
        Contestant(config.other, how, 1, epochs, Theirs(worker, images, epochs))
        for images, how in PREPARED.items()
    ]
    return [*ours, *theirs]


def measure(
    contestants: list[Contestant], epochs: int, progress: Progress
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Seconds per seed of a whole run, one row each, and how many times faster ours is."""
    calls = {number: contestant.run for number, contestant in enumerate(contestants)}
    taken = harness.time_in_turns(calls, 0.0, progress, "rounds")
    per_seed = {
        number: taken[number] / contestant.seeds * epochs / contestant.epochs
        for number, contestant in enumerate(contestants)
    }
    rows, ratios = [], []
    for number, contestant in enumerate(contestants):
        seconds, counted = per_seed[number], slice(-len(taken[number]), None)
        rows.append(
            {
                "implementation": contestant.implementation,
                "how": contestant.how,
                "seeds": contestant.seeds,
                "epochs_timed": contestant.epochs,
                "rounds": len(seconds),
                "seconds_per_seed": np.median(seconds),
                "best_seconds_per_seed": np.min(seconds),
                "beside_training_seconds": np.median(contestant.run.beside[counted]),
                "test_accuracy": np.median(contestant.run.accuracy[counted]),
            }
        )
        if contestant.implementation == OURS:
            continue
        for ours in (n for n, other in enumerate(contestants) if other.implementation == OURS):
            ratio = seconds / per_seed[ours]
            ratios.append(
                {
                    "other": contestant.implementation,
                    "how": contestant.how,
                    "seeds": contestants[ours].seeds,
                    "ratio": np.median(ratio),
                    "smallest": np.min(ratio),
                    "largest": np.max(ratio),
                }
            )
    return pd.DataFrame(rows), pd.DataFrame(ratios)


def describe(config: Config, dataset: Dataset, worker: Worker) -> dict[str, Any]:
    """The manifest: ours, the data, and what it was compared with."""
    manifest = harness.make_manifest("whole_runs", config)
    manifest["versions"] |= worker.facts["versions"]
    manifest["threads"] = worker.facts["threads"]
    manifest["data"] = {
        "source": dataset.source,
        "train": len(dataset.train_labels),
        "evaluated": len(dataset.test_labels),
    }
    manifest["compared_with"] = {"implementation": config.other}
    if config.published is not None:
        checksum = harness.checksum(config.published / PACKAGE)
        manifest["compared_with"] |= {"sha256 of its package": checksum}
    return manifest


def run(config: Config, console: Console) -> None:
    """Measures, shows and writes down."""
    harness.prepare(config.out, "whole_runs")
    dataset = make_data(config)
    with start_worker(config, dataset) as worker, harness.show_progress(console) as progress:
        manifest = describe(config, dataset, worker)
        contestants = make_contestants(config, dataset, worker)
        rows, ratios = measure(contestants, config.size.epochs, progress)
    whole = dataclasses.replace(config.size, seeds=10) == SIZES["default"]
    ratios["target"] = ratios["seeds"].map(TARGETS if whole else {}).astype(float)
    show(report.run_table(rows), console)
    show(report.ratio_table(ratios), console)
    text = report.make_report(rows, ratios, config.size.epochs, manifest)
    tables = {"whole_runs": rows, "ratios": ratios}
    harness.write(config.out, manifest, tables, report.make_figure(rows), text)
    console.print(f"Tables, figure and report: {config.out}", soft_wrap=True)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    jax.config.update("jax_enable_compilation_cache", False)  # every run compiles
    harness.command_line(Config, run, "whole_runs")
