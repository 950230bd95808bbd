"""What can be asked of the experiments: a frozen dataclass a study, and its training runs."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from experiments.cells import RESNET_WIDTH, Cell, ConfigError, Workload
from experiments.data import DATASETS
from experiments.hypotheses import ARMS_OF_HYPOTHESES
from experiments.optimizers import (
    ABLATIONS,
    ARMS,
    DESIGN_SPACE,
    FAIR_TEST,
    FAMILIES,
    PLASTIC,
    SELECTION,
)

Regime = Literal["equal epochs", "equal steps"]
Preset = Literal["smoke", "cpu", "paper"]
Sizes = Mapping[Preset, Mapping[str, Any]]

FIRST_LEARNING_RATES = 5
FIRST_TUNING_SEED = 1000  # far from those of every other study


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """Settings that every study takes.

    Attributes:
      preset: sizes of all that is not named: smoke (a minute at most, to see that it runs), cpu
        (well under an hour on two cores) or paper (the full protocol).
      dataset: mnist5k (5,000 MNIST images, always there), mnist, fashion_mnist, cifar10 or
        python_source (the sources of Python's standard library).
      arms: full, gradient_only, sgd, momentum, adam, adamw, rmsprop, and those that an unknown name
        is answered with.
      seeds: number of training runs an arm; seed i starts every arm from the same parameters and
        shows it the same batches.
      epochs: passes over the training images.
      batch_size: images a step.
      mesh: how the devices share the work: seed=N groups of devices share the training runs, and
        data=N devices of a group every batch; data left out is 1, seed left out all that remains.
      fsdp: spread parameters and the optimizer's state over the devices that share a batch.
      distributed: join the other processes of this SLURM, Open MPI, Kubernetes or TPU job; the
        first one writes.
      out: folder for records, figure and report; a study that was stopped goes on from it.
      data_dir: folder for prepared data sets.
      raw_dir: folder with raw files (IDX, CIFAR-10 binary) that you have already.
    """

    sizes: ClassVar[Sizes] = {"smoke": {"dataset": "mnist5k", "seeds": 2, "epochs": 1}}
    """What a preset changes in the defaults, which are the paper's protocol."""

    preset: Preset = "paper"
    dataset: str = "mnist5k"
    arms: tuple[str, ...] = ("full", "gradient_only")
    seeds: int = 5
    epochs: int = 10
    batch_size: int = 128
    mesh: tuple[str, ...] = ()
    fsdp: bool = False
    distributed: bool = False
    out: Path | None = None
    data_dir: Path = Path("data")
    raw_dir: Path | None = None

    def __post_init__(self) -> None:
        _check_known("dataset", (self.dataset,), tuple(DATASETS))
        _check_known("arms", self.arms, tuple(ARMS))
        if len(set(self.arms)) != len(self.arms):
            raise ConfigError(f"arms must differ, got {' '.join(self.arms)}.")
        for name in ("seeds", "epochs", "batch_size"):
            _check_at_least_one(name, getattr(self, name))

    @classmethod
    def at(cls, preset: Preset) -> Self:
        """The study at a preset's sizes."""
        return cls(preset=preset, **cls.sizes.get(preset, {}))

    def reductions(self) -> dict[str, tuple[Any, Any]]:
        """What is less than in the full protocol, of all that presets change: value, and the full.

        >>> Accuracy(epochs=2, seeds=20).reductions()
        {'epochs': (2, 10)}
        """
        full = type(self)()
        changed = dict.fromkeys(name for sizes in self.sizes.values() for name in sizes)
        values = {name: (getattr(self, name), getattr(full, name)) for name in changed}
        return {
            name: (here, there)
            for name, (here, there) in values.items()
            if name != "dataset"
            and (here < there if isinstance(here, int | float) else here != there)
        }

    def workload(self) -> Workload:
        """What the study's cells share."""
        model = DATASETS[self.dataset].model
        return Workload(self.dataset, model, self.epochs, self.batch_size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accuracy(Study):
    """Figure 2 of the paper: test accuracy by epoch, mean and standard deviation over seeds.

    Attributes:
      learning_rate: one for all arms; left out, each arm takes its own default.
      diagnostics: record what plasticity did in each epoch; compiling takes a few seconds longer.
    """

    learning_rate: float | None = None
    diagnostics: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise ConfigError(
                f"learning_rate must be above 0 and finite, got {self.learning_rate}."
            )

    def workload(self) -> Workload:
        """What the study's cells share."""
        return dataclasses.replace(super().workload(), diagnostics=self.diagnostics)

    def cells(self) -> list[Cell]:
        """Every training run of the study."""
        workload = self.workload()
        return [
            Cell(workload, arm, self.learning_rate or ARMS[arm].learning_rate, seed)
            for arm in self.arms
            for seed in range(self.seeds)
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dynamics(Study):
    """Figure 6 of the paper: what plasticity does during training, by epoch and by layer.

    Attributes:
      arms: those with a plasticity coefficient: full, gradient_only, gradient_only_wide and the
        single-signal and leave-one-out arms.
    """

    dataset: str = "fashion_mnist"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_known("arms with a coefficient,", self.arms, PLASTIC)

    def workload(self) -> Workload:
        """What the study's cells share; plasticity is watched in every layer."""
        return dataclasses.replace(super().workload(), diagnostics="per_leaf")

    def cells(self) -> list[Cell]:
        """Every training run of the study, at the arms' default learning rates."""
        workload = self.workload()
        return [
            Cell(workload, arm, ARMS[arm].learning_rate, seed)
            for arm in self.arms
            for seed in range(self.seeds)
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LowData(Study):
    """Figure 3 of the paper: final accuracy and loss by the share of the training images.

    Every share is trained for the same epochs and, as a second comparison, for the same steps as
    the whole training set.

    Attributes:
      fractions: shares of the training images, nested and balanced over the classes.
    """

    sizes: ClassVar[Sizes] = {"smoke": {**Study.sizes["smoke"], "fractions": (0.5, 1.0)}}

    dataset: str = "fashion_mnist"
    seeds: int = 10
    fractions: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for fraction in self.fractions:
            if not 0 < fraction <= 1:
                raise ConfigError(f"fractions must lie in (0, 1], got {fraction}.")

    def cells(self, regime: Regime) -> list[Cell]:
        """The training runs at equal epochs, or at equal steps up to a whole number of epochs."""
        return [
            Cell(
                dataclasses.replace(
                    self.workload(),
                    fraction=fraction,
                    epochs=round(self.epochs / (fraction if regime == "equal steps" else 1)),
                ),
                arm,
                ARMS[arm].learning_rate,
                seed,
            )
            for fraction in self.fractions
            for arm in self.arms
            for seed in range(self.seeds)
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noise(Study):
    """The claim "when signals are limited or noisy": wrong labels, and small and large batches.

    In each condition every arm takes the learning rate that is best for it there, out of three
    around its default, on held-out training images with the same noise.

    Attributes:
      arms: the first is compared with each of the others.
      label_noise: shares of wrong training labels, at the default batch size.
      batch_sizes: images a step, with no wrong labels.
      tuning_seeds: number of training runs a learning rate in the search, on seeds of their own.
    """

    sizes: ClassVar[Sizes] = {
        "smoke": {
            **Study.sizes["smoke"],
            "arms": ("full", "sgd"),
            "label_noise": (0.0, 0.4),
            "batch_sizes": (128,),
            "tuning_seeds": 1,
        },
        "cpu": {"seeds": 5, "tuning_seeds": 1},
    }

    dataset: str = "fashion_mnist"
    arms: tuple[str, ...] = ("full", "gradient_only_wide", "sgd_homeostasis", "adam")
    seeds: int = 10
    label_noise: tuple[float, ...] = (0.0, 0.2, 0.4)
    batch_sizes: tuple[int, ...] = (16, 128, 512)
    tuning_seeds: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        for rate in self.label_noise:
            if not 0 <= rate < 1:
                raise ConfigError(f"label_noise must lie in [0, 1), got {rate}.")
        for size in self.batch_sizes:
            _check_at_least_one("batch_sizes", size)
        _check_at_least_one("tuning_seeds", self.tuning_seeds)

    def conditions(self) -> list[Workload]:
        """Each label noise at the default batch size, then each other batch size without noise."""
        base = self.workload()
        noisy = [dataclasses.replace(base, label_noise=rate) for rate in self.label_noise]
        batched = [dataclasses.replace(base, batch_size=size) for size in self.batch_sizes]
        return list(dict.fromkeys(noisy + batched))

    def search_cells(self, condition: Workload, arm: str, learning_rate: float) -> list[Cell]:
        """The training runs that judge one learning rate."""
        held_out = dataclasses.replace(condition, split="validation")
        return _with_seeds(held_out, arm, learning_rate, self.tuning_seeds, FIRST_TUNING_SEED)

    def cells(self, condition: Workload, arm: str, learning_rate: float) -> list[Cell]:
        """The training runs at the learning rate that was chosen."""
        return _with_seeds(condition, arm, learning_rate, self.seeds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tune(Study):
    """Learning rates for the fair test: equal budgets for all arms, on held-out training images.

    The search of every arm begins with five learning rates around its default, half a decade apart,
    and goes on at the side where the best one lies until the budget is spent; beyond it only where
    the best one still lies at an edge of what was tried.

    Attributes:
      seeds: number of training runs a learning rate; no other study uses these seeds.
      budget: number of learning rates an arm.
    """

    sizes: ClassVar[Sizes] = {
        "smoke": {**Study.sizes["smoke"], "arms": ("full", "gradient_only", "sgd")}
    }

    dataset: str = "fashion_mnist"
    arms: tuple[str, ...] = FAIR_TEST
    seeds: int = 3
    budget: int = FIRST_LEARNING_RATES

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.budget < FIRST_LEARNING_RATES:
            raise ConfigError(f"budget must be at least {FIRST_LEARNING_RATES}, got {self.budget}.")

    def workload(self) -> Workload:
        """What the study's cells share: a sixth of the training images is held out."""
        return dataclasses.replace(super().workload(), split="validation")

    def cells(self, arm: str, learning_rate: float) -> list[Cell]:
        """The training runs of one arm at one learning rate."""
        return _with_seeds(self.workload(), arm, learning_rate, self.seeds, FIRST_TUNING_SEED)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict(Study):
    """The fair test: every arm at its tuned learning rate, on fresh seeds and the test images.

    Attributes:
      arms: all of the hypotheses are needed; the others are compared with the full method as well.
      seeds: number of training runs an arm.
      ablation_seeds: number of training runs of the single-signal and leave-one-out arms.
      tuned: folder of the study tune for the same data set; left out, where it is by default.
    """

    dataset: str = "fashion_mnist"
    arms: tuple[str, ...] = FAIR_TEST
    seeds: int = 20
    ablation_seeds: int = 10
    tuned: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        missing = [arm for arm in ARMS_OF_HYPOTHESES if arm not in self.arms]
        if missing:
            raise ConfigError(f"arms must include those of the hypotheses: {', '.join(missing)}.")

    def cells(self, arm: str, learning_rate: float) -> list[Cell]:
        """The training runs of one arm at one learning rate."""
        number = min(self.ablation_seeds, self.seeds) if arm in ABLATIONS else self.seeds
        return _with_seeds(self.workload(), arm, learning_rate, number)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection(Study):
    """The selection of the published settings repeated: 36 trials for the full method and others.

    The full method's are the published ones: four learning rates, three values of γ, three
    warm-ups. Each of the other families gets twelve learning rates and three values of one more
    setting. All are judged on held-out training images, and the selected ones run on fresh seeds.

    Attributes:
      arms: the families: full, gradient_only, sgd_homeostasis (α ≡ 1) and adam.
      tuning_seeds: number of training runs a trial, on seeds of their own.
    """

    sizes: ClassVar[Sizes] = {
        "smoke": {**Study.sizes["smoke"], "arms": ("adam",), "tuning_seeds": 1},
        "cpu": {"tuning_seeds": 1},
    }

    dataset: str = "mnist"
    arms: tuple[str, ...] = tuple(SELECTION)
    seeds: int = 10
    tuning_seeds: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_known("families as arms,", self.arms, tuple(SELECTION))
        _check_at_least_one("tuning_seeds", self.tuning_seeds)

    def trials(self, family: str) -> dict[tuple[str, float], list[Cell]]:
        """The training runs that judge each arm and learning rate of a family."""
        held_out = dataclasses.replace(self.workload(), split="validation")
        return {
            (arm, rate): _with_seeds(held_out, arm, rate, self.tuning_seeds, FIRST_TUNING_SEED)
            for arm, rates in SELECTION[family].items()
            for rate in rates
        }

    def cells(self, arm: str, learning_rate: float) -> list[Cell]:
        """The training runs of what was selected, or of what was published."""
        return _with_seeds(self.workload(), arm, learning_rate, self.seeds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnCifar10(Study):
    """Settings of the studies on CIFAR-10 with ResNet-18.

    Attributes:
      fraction: share of the training images.
      test_fraction: share of the test images.
      width: channels of ResNet-18's first stage.
    """

    sizes: ClassVar[Sizes] = {
        "smoke": Study.sizes["smoke"],
        "cpu": {"epochs": 6, "fraction": 0.1, "test_fraction": 0.1, "width": 8},
    }

    dataset: str = "cifar10"
    seeds: int = 3
    epochs: int = 50
    fraction: float = 1.0
    test_fraction: float = 1.0
    width: int = RESNET_WIDTH

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("fraction", "test_fraction"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie in (0, 1], got {getattr(self, name)}.")
        _check_at_least_one("width", self.width)

    def workload(self) -> Workload:
        """What the study's cells share."""
        return dataclasses.replace(
            super().workload(),
            fraction=self.fraction,
            test_fraction=self.test_fraction,
            width=self.width,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizers(OnCifar10):
    """Figure 4 of the paper: the full method beside standard optimizers on CIFAR-10.

    Every arm runs at three learning rates, half a decade apart around its default.
    """

    arms: tuple[str, ...] = ("full", "sgd", "momentum", "adam", "adamw", "rmsprop")

    def cells(self, arm: str, learning_rate: float) -> list[Cell]:
        """The training runs of one arm at one learning rate."""
        return _with_seeds(self.workload(), arm, learning_rate, self.seeds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transfer(OnCifar10):
    """Figure 5 of the paper: settings tuned on MNIST, unchanged on CIFAR-10.

    Beside the published settings run those that the study selection chose.

    Attributes:
      arms: the families, as in the study selection.
      tuned: folder of the study selection on MNIST; left out, where it is by default.
    """

    arms: tuple[str, ...] = tuple(SELECTION)
    tuned: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_known("families as arms,", self.arms, tuple(SELECTION))

    def cells(self, arm: str, learning_rate: float) -> list[Cell]:
        """The training runs of one arm at one learning rate."""
        return _with_seeds(self.workload(), arm, learning_rate, self.seeds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DesignSpace(OnCifar10):
    """Figure 7 of the paper: every variant of plasticity beside its own base on CIFAR-10.

    A base takes the best of three learning rates on held-out training images, and its variants take
    the same one; so do tuned optimizers without plasticity and homeostasis.

    Attributes:
      arms: variants; each brings its base with it.
      baselines: tuned optimizers to compare with.
      tuning_seeds: number of training runs a learning rate in the search, on seeds of their own.
    """

    sizes: ClassVar[Sizes] = {
        "smoke": {
            **Study.sizes["smoke"],
            "arms": ("bounded",),
            "baselines": ("sgd",),
            "tuning_seeds": 1,
        },
        "cpu": {**OnCifar10.sizes["cpu"], "tuning_seeds": 1},
    }

    arms: tuple[str, ...] = (
        "full",
        "gradient_only",
        *(arm for arms in DESIGN_SPACE.values() for arm in arms),
    )
    baselines: tuple[str, ...] = ("sgd", "momentum", "adam", "adamw", "rmsprop")
    tuning_seeds: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        known = type(self).arms
        _check_known("variants as arms,", self.arms, known)
        _check_known("baselines", self.baselines, FAIR_TEST)
        _check_at_least_one("tuning_seeds", self.tuning_seeds)

    def base(self, arm: str) -> str:
        """The arm that another one is a variant of."""
        return FAMILIES.get(arm, "sgd_homeostasis")

    def tuned(self) -> list[str]:
        """The arms whose learning rate is searched: the baselines and the bases."""
        return list(dict.fromkeys((*self.baselines, *(self.base(arm) for arm in self.arms))))

    def search_cells(self, arm: str, learning_rate: float) -> list[Cell]:
        """The training runs that judge one learning rate."""
        held_out = dataclasses.replace(self.workload(), split="validation")
        return _with_seeds(held_out, arm, learning_rate, self.tuning_seeds, FIRST_TUNING_SEED)

    def cells(self, arm: str, learning_rate: float) -> list[Cell]:
        """The training runs at the learning rate that was chosen."""
        return _with_seeds(self.workload(), arm, learning_rate, self.seeds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text(Study):
    """Gradients of another kind: a small causal transformer on Python's own sources.

    Every arm takes the best of three learning rates around its default, on held-out training text.

    Attributes:
      arms: the first is compared with each of the others.
      fraction: share of the training text.
      tuning_seeds: number of training runs a learning rate in the search, on seeds of their own.
    """

    sizes: ClassVar[Sizes] = {
        "smoke": {
            "arms": ("full", "sgd"),
            "seeds": 2,
            "epochs": 1,
            "fraction": 0.02,
            "tuning_seeds": 1,
        },
        "cpu": {"seeds": 3, "epochs": 2, "fraction": 0.5, "tuning_seeds": 1},
    }

    dataset: str = "python_source"
    arms: tuple[str, ...] = (
        "full",
        "gradient_only_wide",
        "sgd_homeostasis",
        "sgd",
        "momentum",
        "adam",
    )
    seeds: int = 10
    epochs: int = 5
    batch_size: int = 32
    fraction: float = 1.0
    tuning_seeds: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.fraction <= 1:
            raise ConfigError(f"fraction must lie in (0, 1], got {self.fraction}.")
        _check_at_least_one("tuning_seeds", self.tuning_seeds)

    def workload(self) -> Workload:
        """What the study's cells share."""
        return dataclasses.replace(super().workload(), fraction=self.fraction)

    def search_cells(self, arm: str, learning_rate: float) -> list[Cell]:
        """The training runs that judge one learning rate."""
        held_out = dataclasses.replace(self.workload(), split="validation")
        return _with_seeds(held_out, arm, learning_rate, self.tuning_seeds, FIRST_TUNING_SEED)

    def cells(self, arm: str, learning_rate: float) -> list[Cell]:
        """The training runs at the learning rate that was chosen."""
        return _with_seeds(self.workload(), arm, learning_rate, self.seeds)


def _with_seeds(
    workload: Workload, arm: str, learning_rate: float, number: int, first: int = 0
) -> list[Cell]:
    """One arm at one learning rate with so many seeds."""
    return [Cell(workload, arm, learning_rate, seed) for seed in range(first, first + number)]


def _check_at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"{name} must be at least 1, got {value}.")


def _check_known(field: str, values: tuple[str, ...], known: tuple[str, ...]) -> None:
    for value in values:
        if value not in known:
            raise ConfigError(f"unknown {field} {value!r}; known are {', '.join(known)}.")
    if not values:
        raise ConfigError(f"{field} must not be empty; known are {', '.join(known)}.")
