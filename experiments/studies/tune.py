"""The search for the learning rates of the fair test."""

import dataclasses
from typing import Any, ClassVar

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from experiments import comparisons
from experiments.arms import FAIR_TEST
from experiments.cells import Cell, ConfigError, Workload
from experiments.naming import colour, find_arm, label
from experiments.search import (
    FIRST_LEARNING_RATES,
    best_learning_rate,
    first_learning_rates,
    next_learning_rate,
)
from experiments.spaces import Trial
from experiments.studies.base import FIGURE, FIRST_TUNING_SEED, Arms, Run, Sizes, Study, TaskName
from experiments.studies.findings import Findings
from experiments.studies.headings import heading
from experiments.studies.leaderboard_tables import SURE, search_table
from experiments.summary import per_cell, summarise
from experiments.tables import markdown_table
from experiments.trials import Chosen, choose


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tune(Study):
    """Learning rates for the fair test: equal budgets for all arms, on held-out training images.

    The search of every arm begins with five learning rates around its default, half a decade apart,
    and continues at the side where the best one lies until the budget is spent; beyond it only
    where the best one still lies at an edge of what was tried.

    Attributes:
      seeds: number of training runs per learning rate; no other study uses these seeds.
      budget: number of learning rates per arm.
    """

    name = "tune"
    sizes: ClassVar[Sizes] = {
        "smoke": {**Study.sizes["smoke"], "arms": ("full", "gradient_only", "sgd")}
    }

    task: TaskName = "fashion_mnist"
    arms: Arms = FAIR_TEST
    seeds: int = 3
    budget: int = FIRST_LEARNING_RATES

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.budget < FIRST_LEARNING_RATES:
            raise ConfigError(f"budget must be at least {FIRST_LEARNING_RATES}, got {self.budget}.")

    @classmethod
    def variable_on_record(cls, rows: pd.DataFrame) -> dict[str, Any]:
        """Every arm tried as many learning rates as the budget, unless the best was at an edge."""
        tried = rows.groupby("arm")["learning_rate"].nunique()
        return {**super().variable_on_record(rows), "budget": int(tried.min())}

    def workload(self) -> Workload:
        """What the study's cells share: a sixth of the training images is held out."""
        return dataclasses.replace(super().workload(), split="validation")

    def cells(self, arm: str, learning_rate: float, workload: Workload | None = None) -> list[Cell]:
        """The training runs of one arm at one learning rate, on the seeds of searches."""
        workload = workload or self.workload()
        return self.with_seeds(workload, arm, learning_rate, self.seeds, FIRST_TUNING_SEED)

    def run(self, run: Run, source: str) -> Findings:
        """Tries learning rates until the search of every arm is over."""
        rates = {arm: first_learning_rates(find_arm(arm).learning_rate) for arm in self.arms}
        while True:
            rows = run(
                [cell for arm in self.arms for rate in rates[arm] for cell in self.cells(arm, rate)]
            )
            summary = summarise(rows, ["arm", "learning_rate"])
            found = {
                arm: dict(zip(of_arm["learning_rate"], of_arm["final_mean"], strict=True))
                for arm, of_arm in summary.groupby("arm", sort=False)
            }
            more = {arm: next_learning_rate(found[arm], self.budget) for arm in self.arms}
            if not any(more.values()):
                break
            for arm, rate in more.items():
                rates[arm] += [rate] if rate else []
        selections = pd.DataFrame(
            [
                {
                    "arm": arm,
                    "learning_rate": (best := best_learning_rate(found[arm])),
                    "validation_accuracy": found[arm][best],
                    "trials": len(rates[arm]),
                    "at_edge": best in (min(rates[arm]), max(rates[arm])),
                }
                for arm in self.arms
            ]
        )
        table = search_table(self.chosen(rows))
        beyond = map(label, selections.loc[selections["trials"] > self.budget, "arm"])
        report = [
            "Learning rates",
            f"{self.budget} learning rates per arm, half a decade apart, {self.seeds} seeds each, "
            f"{self.epochs} epochs, batches of {self.batch_size}. Selected by mean final accuracy "
            "on a sixth of the training images that was held out; no test image was looked at. "
            f"Data: {source}.",
            "The best rate still lay at the edge of the budget and the search continued for: "
            f"{', '.join(beyond) or 'no arm'}.",
            markdown_table(table),
            SURE,
            "![validation accuracy by learning rate](figure.png)",
        ]
        return Findings(
            table,
            summary,
            comparisons.table([]),
            {FIGURE: self.figure(summary)},
            report,
            selections=selections,
        )

    def chosen(self, rows: pd.DataFrame) -> dict[tuple[str, str], Chosen]:
        """What was selected, and how sure that is."""
        results = per_cell(rows)
        found = {}
        for arm in self.arms:
            of_arm = results[results["arm"] == arm]
            table = of_arm.pivot(index="learning_rate", columns="seed", values="final")
            trials = [Trial(rate) for rate in table.index]
            found[self.task, arm] = choose(trials, self.metric.sign * table.to_numpy())
        return found

    def figure(self, summary: pd.DataFrame) -> Figure:
        """Validation accuracy by learning rate: one small panel per arm, its selection marked."""
        columns = 5
        lines = -(-len(self.arms) // columns)
        figure, grid = plt.subplots(
            lines,
            columns,
            figsize=(13, 2.3 * lines),
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for axes, arm in zip(grid.flat, self.arms, strict=False):
            of_arm = summary[summary["arm"] == arm].sort_values("learning_rate")
            rates, mean = of_arm["learning_rate"], of_arm["final_mean"]
            sd = of_arm["final_sd"].fillna(0)
            axes.errorbar(rates, mean, yerr=sd, color=colour(arm), marker=".", capsize=2)
            best = mean.argmax()
            axes.plot(
                rates.iloc[best],
                mean.iloc[best],
                "o",
                markersize=9,
                fillstyle="none",
                color="black",
            )
            axes.set(xscale="log", title=label(arm))
            axes.title.set_fontsize(9)
            axes.grid(alpha=0.25)
        for axes in list(grid.flat)[len(self.arms) :]:
            axes.set_axis_off()
        # Diverged runs stay in the records; on this scale they would hide the differences.
        best_of_all = summary["final_mean"].max()
        grid[0, 0].set_ylim(best_of_all - 8, best_of_all + 0.8)
        figure.supxlabel("learning rate")
        figure.supylabel(self.metric.validation_axis)
        drawn = f"mean of {self.seeds} seeds, bars ±1 standard deviation"
        figure.suptitle(heading(self, "learning rates tried, circle: selected", drawn))
        return figure
