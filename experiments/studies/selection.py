"""The selection of the published settings, repeated."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments import comparisons, plotting
from experiments.arms import ARMS
from experiments.cells import Cell
from experiments.comparisons import Sample, compare, rows_of
from experiments.naming import colour, label
from experiments.studies.base import FIGURE, Arms, Run, Sizes, Study, TaskName, train
from experiments.studies.checks import check_known
from experiments.studies.findings import Claim, Findings, compared
from experiments.studies.headings import heading
from experiments.studies.judging import Searching, judge_trials
from experiments.summary import sample
from experiments.tables import Table, markdown_table, mean_and_sd

AFTER_SELECTION = "Is {} better than {}, both selected from 36 trials?"


def _geometric(low: float, high: float, number: int) -> tuple[float, ...]:
    return tuple(float(f"{rate:.2g}") for rate in np.geomspace(low, high, number))


# 36 trials per family: the published grid for the full method, twelve learning rates and three
# values of one more setting for the others.
LEARNING_RATES = {
    "full": (0.1, 0.05, 0.03, 0.01),
    "gradient_only": _geometric(0.01, 1.0, 12),
    "sgd_homeostasis": _geometric(0.01, 1.0, 12),
    "adam": _geometric(1e-4, 1e-2, 12),
}
OF_OTHER_ROLES = {"full": ("plasticity",), "gradient_only": ("gradient_only_wide",)}
FAMILIES = {
    family: (
        family,
        *OF_OTHER_ROLES.get(family, ()),
        *(arm.name for arm in ARMS.values() if (arm.role, arm.family) == ("selection", family)),
    )
    for family in LEARNING_RATES
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection(Searching):
    """The selection of the published settings repeated: 36 trials for the full method and others.

    The full method's are the published ones: four learning rates, three values of γ, three
    warm-ups. Each of the other families gets twelve learning rates and three values of one more
    setting. All are judged on held-out training images, and the selected ones run on fresh seeds.

    Attributes:
      arms: the families: full, gradient_only, sgd_homeostasis (α ≡ 1) and adam.
      tuning_seeds: number of training runs per trial, on seeds of their own.
    """

    name = "selection"
    sizes: ClassVar[Sizes] = {
        "smoke": {**Study.sizes["smoke"], "arms": ("adam",), "tuning_seeds": 1},
        "cpu": {"tuning_seeds": 1},
    }

    task: TaskName = "mnist"
    arms: Arms = tuple(FAMILIES)
    seeds: int = 10
    tuning_seeds: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_known("families as arms,", self.arms, tuple(FAMILIES))

    @classmethod
    def variable_on_record(cls, rows: pd.DataFrame) -> dict[str, Any]:
        """A selected arm names its family."""
        families = [
            family
            for arm in rows["arm"].unique()
            for family, arms in FAMILIES.items()
            if arm in arms
        ]
        return {"arms": tuple(families), "seeds": rows["seed"].nunique()}

    def trials(self, family: str) -> dict[tuple[str, str, float], list[Cell]]:
        """The training runs that judge each arm and learning rate of a family."""
        return {
            (family, arm, rate): self.search_cells(arm, rate)
            for arm in FAMILIES[family]
            for rate in LEARNING_RATES[family]
        }

    def run(self, run: Run, source: str) -> Findings:
        """Judges all trials, then trains the selected ones on fresh seeds."""
        plan = {key: cells for arm in self.arms for key, cells in self.trials(arm).items()}
        trials = pd.DataFrame(
            [(*trial, accuracy) for trial, accuracy in judge_trials(run, plan).items()],
            columns=["family", "arm", "learning_rate", "validation_accuracy"],
        )
        best = trials.fillna({"validation_accuracy": -np.inf}).groupby("family", sort=False)
        selections = trials.loc[best["validation_accuracy"].idxmax()]
        chosen = {
            row["family"]: self.cells(row["arm"], row["learning_rate"])
            for row in selections.to_dict("records")
        }
        _, parts = train(run, chosen)
        samples = {family: sample(of_family) for family, of_family in parts.items()}
        found = self.compare(samples)
        table = self.table(selections, samples)
        report = [
            "The selection of the published settings, repeated",
            "36 trials per family: for the full method the published grid of learning rates, γ and "
            "warm-ups, for each other family twelve learning rates and three values of one more "
            f"setting. {self.epochs} epochs, {self.tuning_seeds} seeds per trial, judged on a "
            "sixth of the training images, held out. The published selection was made on test "
            f"images. What was selected then ran on {self.seeds} fresh seeds and the test images. "
            f"Data: {source}.",
            *rank_of_published(trials),
            markdown_table(table),
            *compared(found, self.name),
            "![all trials, and the selected ones](figure.png)",
        ]
        figures = {FIGURE: self.figure(trials, samples, found)}
        return Findings(table, trials, found, figures, report, selections)

    def compare(self, samples: Mapping[str, Sample]) -> pd.DataFrame:
        """What was selected in the first family against what was selected in each of the others."""
        first, *others = self.arms
        return comparisons.table(
            compare(
                AFTER_SELECTION.format(label(first), label(family)),
                samples[first],
                samples[family],
                family=self.name,
                condition=f"{label(first)} against {label(family)}, as selected",
            )
            for family in others
        )

    def claims(self, found: pd.DataFrame) -> list[Claim]:
        """Whether the full method is ahead once every family has as many trials."""
        return [Claim.of("its selection", row) for row in rows_of(found)]

    def table(self, selections: pd.DataFrame, samples: Mapping[str, Sample]) -> Table:
        """What was selected in each family, and its accuracy on fresh seeds."""
        table = [["family", "selected", "rate", "validation %", "test %"]]
        for row in selections.to_dict("records"):
            final = samples[row["family"]].by_seed
            table.append(
                [
                    *(label(row["family"]), label(row["arm"]), f"{row['learning_rate']:g}"),
                    f"{row['validation_accuracy']:.2f}",
                    mean_and_sd(final.mean(), final.std(), 2),
                ]
            )
        return table

    def figure(
        self, trials: pd.DataFrame, samples: Mapping[str, Sample], found: pd.DataFrame
    ) -> Figure:
        """All trials of each family in order, and the selected ones on fresh seeds."""
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
        for family in self.arms:
            of_family = trials.loc[trials["family"] == family, "validation_accuracy"]
            ordered = of_family.sort_values(ascending=False).to_numpy()
            ranks = np.arange(1, len(ordered) + 1)
            text = f"{label(family)} ({len(ordered)})"
            left.plot(ranks, ordered, color=colour(family), marker=".", label=text)
        best = trials["validation_accuracy"].max()
        left.set_ylim(best - 3, best + 0.2)
        left.set(xlabel="trial, by its rank", ylabel="validation accuracy (%)", title="all trials")
        left.legend(frameon=False, fontsize=8)
        plotting.plain(left)
        plotting.draw_seeds(
            right, {family: of_family.by_seed for family, of_family in samples.items()}
        )
        right.set(xlabel="final test accuracy (%)", title="the selected ones, fresh seeds")
        what = f"36 trials for each of {len(samples)} families"
        drawn = (
            f"trials: mean of {self.tuning_seeds} seeds; selected: {self.seeds} seeds, bar: mean"
        )
        figure.suptitle(heading(self, what, drawn, rows_of(found)))
        return figure


def rank_of_published(trials: pd.DataFrame) -> list[str]:
    """Where the published configuration stands among the full method's trials."""
    of_full = trials[trials["family"] == "full"].sort_values(
        "validation_accuracy", ascending=False, ignore_index=True
    )
    if of_full.empty:
        return []
    published = of_full[(of_full["arm"] == "full") & (of_full["learning_rate"] == 0.1)]
    (rank,) = published.index + 1
    behind = of_full["validation_accuracy"].max() - published["validation_accuracy"].item()
    return [
        f"The published configuration (η = 0.1, γ = 2, 2 warm-up epochs) is number {rank} of "
        f"the full method's {len(of_full)}, {behind:.2f} points behind the first."
    ]
