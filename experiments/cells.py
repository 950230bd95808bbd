"""What a training run is: the workload that every arm shares, and the cell, one run on it."""

import dataclasses
from typing import Literal

from experiments.optimizers import Diagnostics

Model = Literal["mlp", "resnet18", "transformer"]
Split = Literal["test", "validation"]
Schedule = Literal["constant"]

RESNET_WIDTH = 64


class ConfigError(ValueError):
    """A configuration that no study can run, by field, value and what is known."""


@dataclasses.dataclass(frozen=True)
class Workload:
    """What every arm of a comparison shares.

    Attributes:
      dataset: name of the data set.
      model: the paper's MLP, ResNet-18 for CIFAR-10, or a causal transformer for text.
      epochs: passes over the training images.
      batch_size: images per step; an epoch's last step takes what is left.
      fraction: share of the training images, nested and balanced over the classes.
      test_fraction: share of the evaluated images, the first ones.
      width: channels of ResNet-18's first stage; no other model has one.
      label_noise: share of the training labels that are replaced by a wrong one.
      split: what is evaluated: the test images, or a part of the training images held out from it.
      diagnostics: record what plasticity did, where the arm has it; "per_leaf" in each leaf too.
    """

    dataset: str
    model: Model = "mlp"
    epochs: int = 10
    batch_size: int = 128
    fraction: float = 1.0
    test_fraction: float = 1.0
    width: int = RESNET_WIDTH
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
    """

    workload: Workload
    arm: str
    learning_rate: float
    seed: int
    schedule: Schedule = "constant"

    def fields(self) -> dict[str, str | int | float | bool]:
        """The cell as the columns that name it in the records."""
        return {
            "arm": self.arm,
            **dataclasses.asdict(self.workload),
            "seed": self.seed,
            "learning_rate": self.learning_rate,
            "schedule": self.schedule,
        }


DEFAULTS: dict[str, str | int | float | bool] = {
    field.name: field.default
    for kind in (Workload, Cell)
    for field in dataclasses.fields(kind)
    if field.default is not dataclasses.MISSING
}
"""What an absent column of an old record means."""
