"""What a training run is: the workload that every arm shares, and the cell, one run on it."""

import dataclasses
from typing import Literal

from experiments.optimizers import Diagnostics
from experiments.schedules import Schedule

Split = Literal["test", "validation"]
Settings = tuple[tuple[str, float], ...]  # names and values, by name

SETTING = "setting/"  # begins the columns of what a search varied


class ConfigError(ValueError):
    """A configuration that no study can run, by field, value and what is known."""


@dataclasses.dataclass(frozen=True)
class Workload:
    """What every arm of a comparison shares.

    Attributes:
      task: data, model, loss and metrics, by name.
      epochs: passes over the training images.
      batch_size: images per step; an epoch's last step takes what is left.
      fraction: share of the training images, nested and balanced over the classes.
      label_noise: share of the training labels that are replaced by a wrong one.
      split: what is evaluated: the test images, or a part of the training images held out from it.
      diagnostics: record what plasticity did, where the arm has it; "per_leaf" in each leaf too.
    """

    task: str
    epochs: int = 10
    batch_size: int = 128
    fraction: float = 1.0
    label_noise: float = 0.0
    split: Split = "test"
    diagnostics: Diagnostics = False


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training run. Nothing else decides its result, but for the machine's rounding.

    Attributes:
      workload: what every arm of a comparison shares.
      arm: name of the arm.
      learning_rate: the peak, where a schedule varies it.
      seed: fixes initial parameters, data order, augmentation and dropout.
      schedule: how the learning rate goes over training.
      settings: what a search varies of the arm beside the learning rate, sorted by name.
    """

    workload: Workload
    arm: str
    learning_rate: float
    seed: int
    schedule: Schedule = "constant"
    settings: Settings = ()

    def fields(self) -> dict[str, str | int | float | bool]:
        """The cell as the columns that name it in the records."""
        return {
            "arm": self.arm,
            **dataclasses.asdict(self.workload),
            "seed": self.seed,
            "learning_rate": self.learning_rate,
            "schedule": self.schedule,
            **{f"{SETTING}{name}": value for name, value in self.settings},
        }


DEFAULTS: dict[str, str | int | float | bool] = {
    field.name: field.default
    for kind in (Workload, Cell)
    for field in dataclasses.fields(kind)
    if field.default is not dataclasses.MISSING and field.name != "settings"
}
"""What an absent column of an old record means."""
