"""What can be asked of the experiments: a frozen dataclass a study, and its training runs."""

import dataclasses
from pathlib import Path
from typing import Literal

from experiments.data import DATASETS
from experiments.optimizers import ARMS

Split = Literal["test", "validation"]


class ConfigError(ValueError):
    """A configuration that no study can run, by field, value and what is known."""


@dataclasses.dataclass(frozen=True)
class Workload:
    """What every arm of a comparison shares.

    Attributes:
      dataset: name of the data set.
      model: name of the model.
      epochs: passes over the training images.
      batch_size: images a step; an epoch's last step takes what is left.
      fraction: share of the training images, nested and balanced over the classes.
      split: what is evaluated: the test images, or a part of the training images held out from it.
      diagnostics: record what plasticity did, where the arm has it.
    """

    dataset: str
    model: str = "mlp"
    epochs: int = 10
    batch_size: int = 128
    fraction: float = 1.0
    split: Split = "test"
    diagnostics: bool = False


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training run. Nothing else decides its result, but for the machine's rounding."""

    workload: Workload
    arm: str
    learning_rate: float
    seed: int

    def fields(self) -> dict[str, str | int | float | bool]:
        """The cell as the columns that name it in the records."""
        return {
            "arm": self.arm,
            **dataclasses.asdict(self.workload),
            "seed": self.seed,
            "learning_rate": self.learning_rate,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """Settings that every study takes.

    Attributes:
      dataset: mnist5k (5,000 MNIST images, always there), mnist, fashion_mnist or cifar10.
      arms: full, gradient_only, sgd, sgd_homeostasis, momentum, adam, adamw or rmsprop.
      seeds: number of training runs an arm; seed i starts every arm from the same parameters and
        shows it the same batches.
      epochs: passes over the training images.
      batch_size: images a step.
      learning_rate: one for all arms; left out, each arm takes its own default.
      out: folder for records, figure and report; a study that was stopped goes on from it.
      data_dir: folder for prepared data sets.
      raw_dir: folder with raw files (IDX, CIFAR-10 binary) that you have already.
    """

    dataset: str = "mnist5k"
    arms: tuple[str, ...] = ("full", "gradient_only")
    seeds: int = 5
    epochs: int = 10
    batch_size: int = 128
    learning_rate: float | None = None
    out: Path | None = None
    data_dir: Path = Path("data")
    raw_dir: Path | None = None

    def __post_init__(self) -> None:
        _check_known("dataset", (self.dataset,), DATASETS)
        _check_known("arms", self.arms, tuple(ARMS))
        if len(set(self.arms)) != len(self.arms):
            raise ConfigError(f"arms must differ, got {' '.join(self.arms)}.")
        for name in ("seeds", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ConfigError(f"learning_rate must be above 0, got {self.learning_rate}.")

    def workload(self) -> Workload:
        """What the study's cells share."""
        return Workload(
            self.dataset, epochs=self.epochs, batch_size=self.batch_size, diagnostics=True
        )

    def cells(self) -> list[Cell]:
        """Every training run of the study."""
        workload = self.workload()
        return [
            Cell(workload, arm, self.learning_rate or ARMS[arm].learning_rate, seed)
            for arm in self.arms
            for seed in range(self.seeds)
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accuracy(Study):
    """Figure 2 of the paper: test accuracy by epoch, mean and standard deviation over seeds."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dynamics(Study):
    """Figure 6 of the paper: what plasticity does during training, by epoch and by layer."""

    dataset: str = "fashion_mnist"


def _check_known(field: str, values: tuple[str, ...], known: tuple[str, ...]) -> None:
    for value in values:
        if value not in known:
            raise ConfigError(f"unknown {field} {value!r}; known are {', '.join(known)}.")
    if not values:
        raise ConfigError(f"{field} must not be empty; known are {', '.join(known)}.")
