"""What all studies share: settings, presets, selections, the search for a learning rate."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self, TypeVar

import pandas as pd
import tyro

from experiments import foreign, tasks
from experiments.arms import ARMS, PUBLISHED
from experiments.cells import Cell, ConfigError, Settings, Workload
from experiments.metrics import Metric
from experiments.naming import find_arm
from experiments.records import of_cells, renamed
from experiments.schedules import Schedule
from experiments.spec import slug
from experiments.studies.checks import check_at_least_one
from experiments.studies.findings import Claim, Findings

Preset = Literal["smoke", "cpu", "paper"]
Sizes = Mapping[Preset, Mapping[str, Any]]
Trial = TypeVar("Trial")


class Run(Protocol):
    """Where the rows of cells come from: training, records, or a plan."""

    def __call__(self, cells: Sequence[Cell]) -> pd.DataFrame:
        """The rows of all cells, in the order of the cells and their epochs."""
        ...

    def step_times(self, cells: Sequence[Cell]) -> pd.DataFrame:
        """What a step takes, by the columns of :mod:`experiments.timing`."""
        ...


FIGURE, SELECTIONS = "figure.png", "selections.csv"
FIRST_TUNING_SEED = 1000  # far from those of every final run
# Where things lie or run says nothing about what they are.
PLACES = ("out", "data_dir", "raw_dir", "mesh", "fsdp", "distributed", "plan")
# May change: every record names its own, and finished runs are kept.
VARIABLE = (
    "preset",
    "arms",
    "seeds",
    "ablation_seeds",
    "budget",
    "tuned",
    "baselines",
    "further",
    "tasks",
)


Arms = Annotated[tuple[str, ...], tyro.conf.arg(metavar="{" + ",".join(ARMS) + ",MODULE:CALLABLE}")]
TaskName = Annotated[str, tyro.conf.arg(metavar="TASK", aliases=["--dataset"])]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """Settings that every study takes.

    Attributes:
      preset: sizes of every setting that is not named: smoke (at most a minute, to see that it
        runs), cpu (well under an hour on two cores) or paper (the full protocol).
      task: mnist5k (5,000 MNIST images, always available), mnist, fashion_mnist, cifar10,
        python_source (the source files of Python's standard library), mnist_autoencoder,
        mnist5k_autoencoder, smaller ones such as fashion_mnist_small, or one of your own as
        path/to/file.py:make.
      arms: names of the arms to run; also optax:lion, path/to/file.py:make, with settings in
        brackets, and placebos of any arm, such as norm_matched(adam).
      seeds: number of training runs per arm; seed i starts every arm from the same parameters and
        shows it the same batches.
      epochs: passes over the training images.
      batch_size: images per step.
      schedule: how the learning rate of every arm goes over training, from the peak that is its
        rate: constant, cosine, warmup_cosine or wsd (warm-up, stable, decay).
      mesh: how the devices share the work: seed=N groups of devices share the training runs, and
        data=N devices of a group share every batch. Without data it is 1, without seed all that
        remains.
      fsdp: spread parameters and the optimizer's state over the devices that share a batch.
      distributed: join the other processes of this SLURM, Open MPI, Kubernetes or TPU job; the
        first one writes.
      plan: show and write down the training runs, those that are finished, core-hours from measured
        times of steps and the smallest difference that can be shown; train nothing.
      out: folder for records, figure and report; a study that was stopped continues from it.
      data_dir: folder for prepared data sets.
      raw_dir: folder with raw files (IDX, CIFAR-10 binary) that you have already.
    """

    name: ClassVar[str]
    sizes: ClassVar[Sizes] = {"smoke": {"task": "mnist5k", "seeds": 2, "epochs": 1}}
    """What a preset changes in the defaults, which are the paper's protocol."""

    chosen_freely: ClassVar[tuple[str, ...]] = ("task",)
    """What is no part of a protocol, so that a preset's choice of it reduces nothing."""

    preset: Preset = "paper"
    task: TaskName = "mnist5k"
    arms: Arms = PUBLISHED
    seeds: int = 5
    epochs: int = 10
    batch_size: int = 128
    schedule: Schedule = "constant"
    mesh: tuple[str, ...] = ()
    fsdp: bool = False
    distributed: bool = False
    plan: bool = False
    out: Path | None = None
    data_dir: Path = Path("data")
    raw_dir: Path | None = None

    def __post_init__(self) -> None:
        tasks.find_task(self.task)
        if not self.arms:
            raise ConfigError(f"arms must not be empty; known are {', '.join(ARMS)}.")
        for arm in self.arms:
            find_arm(arm)
        if len(set(self.arms)) != len(self.arms):
            raise ConfigError(f"arms must differ, got {' '.join(self.arms)}.")
        for name in ("seeds", "epochs", "batch_size"):
            check_at_least_one(name, getattr(self, name))

    def check_optimizers(self) -> None:
        """Traces the optimizers that are not built in, as the training will.

        Raises:
          ConfigError: one cannot be trained with.
        """
        for arm in self.arms:
            if find_arm(arm).role == "named":
                foreign.check(arm, find_arm(arm).make, schedule=self.schedule)

    def run(self, run: Run, source: str) -> Findings:
        """Asks for the training runs and says what they show.

        Args:
          run: trains cells that are not on record and returns the rows of all of them.
          source: where the data are from.
        """
        raise NotImplementedError(f"{type(self).__name__} says nothing of its own: each study does")

    def claims(self, found: pd.DataFrame) -> list[Claim]:
        """What the page of results says, from the study's comparisons alone."""
        del found
        return []

    @classmethod
    def at(cls, preset: Preset) -> Self:
        """The study at a preset's sizes."""
        return cls(preset=preset, **cls.sizes.get(preset, {}))

    @classmethod
    def on_record(cls, folder: Path, configuration: Mapping[str, Any], rows: pd.DataFrame) -> Self:
        """The study that made some records: its settings, and what the records themselves name.

        Raises:
          ConfigError: it had settings that there are no longer.
        """
        settings: dict[str, Any] = {"out": folder}
        for name, value in renamed(configuration).items():
            if name == "selections":
                settings["tuned"] = folder.parent / value["folder"]
            else:
                settings[name] = tuple(value) if isinstance(value, list) else value
        gone = settings.keys() - {field.name for field in dataclasses.fields(cls)}
        if gone:
            raise ConfigError(
                f"{folder} was made by a study {cls.name} with {', '.join(sorted(gone))}, which it "
                "no longer has."
            )
        final = rows[rows["seed"] < FIRST_TUNING_SEED]
        return cls(**{**settings, **cls.variable_on_record(final if len(final) else rows)})

    @classmethod
    def variable_on_record(cls, rows: pd.DataFrame) -> dict[str, Any]:
        """The settings that may change between two runs into one folder, from the final runs."""
        return {"arms": tuple(rows["arm"].unique()), "seeds": rows["seed"].nunique()}

    def configuration(self) -> dict[str, Any]:
        """The settings that must stay the same for records to be added to."""
        settings = dataclasses.asdict(self)
        return {key: value for key, value in settings.items() if key not in (*PLACES, *VARIABLE)}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """What a setting means that the records of before do not name."""
        return {
            field.name: field.default
            for field in dataclasses.fields(cls)
            if field.name not in (*PLACES, *VARIABLE)
        }

    @property
    def folder(self) -> Path:
        """Where its records are."""
        return self.out or default_folder(self.name, self.task)

    @property
    def title(self) -> str:
        """The task, as readers know it."""
        return tasks.find_task(self.task).title

    @property
    def metric(self) -> Metric:
        """What decides about the runs of the task."""
        return tasks.find_task(self.task).metric

    def scale(self) -> str:
        """What says beside a result that epochs were fewer than in the full protocol."""
        few = self.epochs < type(self)().epochs
        return f" ({self.epochs} epoch{'s' * (self.epochs > 1)})" if few else ""

    def reductions(self) -> dict[str, tuple[Any, Any]]:
        """What is less than in the full protocol, of all that presets change: value, and the full.

        >>> Study(epochs=2, seeds=20).reductions()
        {'epochs': (2, 10)}
        """
        full = type(self)()
        changed = dict.fromkeys(name for sizes in self.sizes.values() for name in sizes)
        values = {name: (getattr(self, name), getattr(full, name)) for name in changed}
        return {
            name: (here, there)
            for name, (here, there) in values.items()
            if name not in self.chosen_freely
            and (here < there if isinstance(here, int | float) else here != there)
        }

    def workload(self) -> Workload:
        """What the study's cells share."""
        return Workload(self.task, self.epochs, self.batch_size)

    def cells(self, arm: str, learning_rate: float, workload: Workload | None = None) -> list[Cell]:
        """The training runs of one arm at one learning rate, on fresh seeds."""
        return self.with_seeds(workload or self.workload(), arm, learning_rate, self.seeds)

    def with_seeds(
        self,
        workload: Workload,
        arm: str,
        learning_rate: float,
        number: int,
        first: int = 0,
        settings: Settings = (),
    ) -> list[Cell]:
        """One arm at one learning rate, under the study's schedule, with so many seeds."""
        return [
            Cell(workload, arm, learning_rate, seed, self.schedule, settings)
            for seed in range(first, first + number)
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnCifar10(Study):
    """Settings of the studies on CIFAR-10 with a residual network."""

    sizes: ClassVar[Sizes] = {
        "smoke": Study.sizes["smoke"],
        "cpu": {"task": "cifar10_small", "epochs": 10},
    }

    task: TaskName = "cifar10"
    schedule: Schedule = "cosine"
    seeds: int = 10
    epochs: int = 50

    def protocol(self) -> str:
        """Epochs, batch size, schedule and seeds in two sentences."""
        return (
            f"{self.epochs} epochs, batches of {self.batch_size}, {self.schedule} learning rate. "
            f"{self.seeds} seeds."
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tuned(Study):
    """Settings of the studies that take what another study selected.

    Attributes:
      tuned: folder of the study that selected the settings; without it, where it is by default.
    """

    tuned: Path | None = None

    @property
    def tuned_by(self) -> tuple[str, str, str]:
        """The study that selected, its data set, and the column of what it selected for."""
        raise NotImplementedError(f"{type(self).__name__} does not say whose settings it takes")

    @functools.cached_property
    def selected(self) -> dict[str, tuple[str, float]]:
        """The selected arm and learning rate, for each of the arms or families."""
        study, _, by = self.tuned_by
        path = self.folder_of_selections / SELECTIONS
        if not path.exists():
            raise ConfigError(
                f"{path} is missing: run `python -m experiments {study}` first, on the data set "
                "that the settings are for; --tuned names its folder."
            )
        table = pd.read_csv(path)
        if by not in table:
            raise ConfigError(f"{path} has no column {by!r}: it is not of the study {study}.")
        found = {row[by]: (row["arm"], row["learning_rate"]) for row in table.to_dict("records")}
        missing = [name for name in self.arms if name not in found]
        if missing:
            raise ConfigError(f"{path} has no learning rate for {', '.join(missing)}.")
        return {name: found[name] for name in self.arms}

    @property
    def folder_of_selections(self) -> Path:
        """Where the settings are from."""
        return self.tuned or default_folder(*self.tuned_by[:2])

    def configuration(self) -> dict[str, Any]:
        """The settings that must stay the same, and the checksum of the selections."""
        assert self.selected  # are there
        content = (self.folder_of_selections / SELECTIONS).read_bytes()
        checksum = hashlib.sha256(content).hexdigest()
        selections = {"folder": self.folder_of_selections.name, "sha256": checksum}
        return {**super().configuration(), "selections": selections}


def train(
    run: Run, plan: Mapping[Trial, Sequence[Cell]]
) -> tuple[pd.DataFrame, dict[Trial, pd.DataFrame]]:
    """The rows of all cells of a plan, each cell once, and the rows of each of its parts."""
    rows = run(list(dict.fromkeys(cell for cells in plan.values() for cell in cells)))
    return rows, {key: of_cells(rows, cells) for key, cells in plan.items()}


def default_folder(study: str, task: str) -> Path:
    """Where a study's records go unless another folder is named."""
    return Path("results") / f"{study}-{slug(task)}"
