"""Figure 3 of the paper: little data."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from experiments import comparisons, plotting
from experiments.cells import Cell, Workload
from experiments.comparisons import (
    answer,
    answer_of_all,
    compare,
    compare_differences,
    measured,
    rows_of,
)
from experiments.naming import label
from experiments.schedules import Schedule
from experiments.search import best_learning_rate
from experiments.studies.base import FIGURE, Run, Sizes, Study, TaskName, train
from experiments.studies.checks import check_share
from experiments.studies.findings import Claim, Findings, compared, summary_table
from experiments.studies.headings import heading
from experiments.studies.judging import Searched, Searching
from experiments.summary import sample, summarise
from experiments.tables import markdown_table

Regime = Literal["equal epochs", "equal steps"]
REGIMES: tuple[Regime, ...] = ("equal epochs", "equal steps")
AT_EVERY_SHARE = "Is the full method above its ablation at every share of the training data?"
MORE_WITH_LESS = "Is it further above it with less data?"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LowData(Searching):
    """Figure 3 of the paper: final accuracy and loss by the share of the training images.

    Every share is trained for the same epochs and, as a second comparison, for the same steps as
    the whole training set. In each condition every arm takes the learning rate that is best for it
    there, on held-out training images.

    Attributes:
      fractions: shares of the training images, nested and balanced over the classes.
    """

    name = "low_data"
    sizes: ClassVar[Sizes] = {
        "smoke": {**Study.sizes["smoke"], "fractions": (0.5,), "tuning_seeds": 1},
        "cpu": {"task": "fashion_mnist_small"},
    }

    task: TaskName = "fashion_mnist"
    schedule: Schedule = "cosine"
    seeds: int = 10
    fractions: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for fraction in self.fractions:
            check_share("fractions", fraction)

    def condition(self, regime: Regime, fraction: float) -> Workload:
        """A share of the data at equal epochs, or at equal steps up to a whole number of epochs."""
        epochs = round(self.epochs / (fraction if regime == "equal steps" else 1))
        return dataclasses.replace(self.workload(), fraction=fraction, epochs=epochs)

    def trained(self, tried: Searched) -> dict[tuple[Regime, float, str], list[Cell]]:
        """The training runs of every arm in each condition, at the rate that was best there."""
        return {
            (regime, fraction, arm): self.cells(
                arm, best_learning_rate(tried[condition, arm]), condition
            )
            for regime in REGIMES
            for fraction in self.fractions
            for condition in [self.condition(regime, fraction)]
            for arm in self.arms
        }

    def run(self, run: Run, source: str) -> Findings:
        """Searches every arm's learning rate in each condition, then trains on fresh seeds."""
        conditions = [self.condition(*key) for key in itertools.product(REGIMES, self.fractions)]
        plan = self.trained(self.search(run, self.arms, dict.fromkeys(conditions)))
        _, by_condition = train(run, plan)
        summary = pd.concat(
            summarise(of_condition, ["arm", "learning_rate", "fraction", "epochs"]).assign(
                regime=regime
            )
            for (regime, _, _), of_condition in by_condition.items()
        )
        found = comparisons.table(self.compare(by_condition))
        table = summary_table(summary, regime=("regime", ""), fraction=("images", ".0%"))
        report = [
            "Little data",
            f"{self.seeds} seeds per arm, paired; subsets are nested and balanced over the "
            f"classes. Equal epochs: {self.epochs} passes over what is there. Equal steps: as "
            f"many steps as the whole training set takes. {self.schedule.capitalize()} learning "
            f"rate; in each condition every arm runs at {self.how_searched()}. Data: {source}.",
            markdown_table(table),
            "Mean ± standard deviation over seeds; Δ is paired by seed, with its BCa interval.",
            *compared(found, self.name),
            "![final accuracy, differences and loss by share of the training images](figure.png)",
        ]
        figures = {FIGURE: self.figure(summary, found)}
        return Findings(table, summary, found, figures, report)

    def compare(
        self, rows: Mapping[tuple[Regime, float, str], pd.DataFrame]
    ) -> Iterator[dict[str, Any]]:
        """The first arm against the second in each condition, and the gain by share of the data."""
        if len(self.arms) < 2:
            return
        samples = {
            (regime, fraction): (
                sample(rows[regime, fraction, self.arms[0]]),
                sample(rows[regime, fraction, self.arms[1]]),
            )
            for regime in REGIMES
            for fraction in self.fractions
        }
        for (regime, fraction), sides in samples.items():
            # The whole training set is the same in both regimes: one comparison.
            if fraction < 1 or regime == REGIMES[0]:
                condition = condition_of(regime, fraction)
                yield compare(AT_EVERY_SHARE, *sides, family=self.name, condition=condition)
        least, most = min(self.fractions), max(self.fractions)
        for regime in REGIMES if least < most else ():
            yield compare_differences(
                MORE_WITH_LESS,
                samples[regime, least],
                samples[regime, most],
                family=self.name,
                condition=f"{regime}, difference at {least:.0%} minus that at {most:.0%}",
            )

    def claims(self, found: pd.DataFrame) -> list[Claim]:
        """Figure 3, at equal epochs as in the paper and at equal steps."""
        claims = []
        for question, verdict in ((AT_EVERY_SHARE, answer_of_all), (MORE_WITH_LESS, None)):
            rows = rows_of(found, question=question)
            if not rows:
                continue
            answers = []
            for regime in REGIMES:
                of_regime = [row for row in rows if row["condition"].startswith(regime)]
                text = verdict(of_regime) if verdict else answer(of_regime[0])
                answers.append(f"at {regime} {text}")
            numbers = "; ".join(f"{row['condition']}: {measured(row)}" for row in rows)
            claims.append(Claim("figure 3", question, "; ".join(answers), numbers, rows[0]["n"]))
        return claims

    def figure(self, summary: pd.DataFrame, found: pd.DataFrame) -> Figure:
        """Final accuracy, its paired differences and loss by share of the training images."""
        figure, grid = plt.subplots(
            len(REGIMES), 3, figsize=(13, 7.5), sharex=True, layout="constrained"
        )
        grid[0, 1].sharey(grid[1, 1])
        titles = (f"final {self.metric.title}", "paired differences", "final test loss, ±1 sd")
        labels = (f"final {self.metric.axis}", self.metric.difference_axis, "final test loss")
        for line, regime in zip(grid, REGIMES, strict=True):
            of_regime = summary[summary["regime"] == regime]
            of_regime = of_regime.assign(percent=100 * of_regime["fraction"])
            rows = [
                (100 * fraction, row)
                for fraction in self.fractions
                for row in rows_of(found, condition=condition_of(regime, fraction))
            ]
            plotting.draw_levels(line[0], of_regime, "percent", "final")
            plotting.draw_differences_by_setting(line[1], rows)
            plotting.draw_by_setting(line[2], of_regime, "percent", "final_loss")
            for axes, title, text in zip(line, titles, labels, strict=True):
                axes.set(title=f"{regime}: {title}", ylabel=text)
        for axes in grid[-1]:
            axes.set(xlabel="training images used (%)", xticks=[100 * f for f in self.fractions])
        for axes in grid[0, :2]:
            axes.legend(*axes.get_legend_handles_labels(), frameon=False, fontsize=8)
        what = f"little data; differences: {' minus '.join(map(label, self.arms[:2]))}"
        drawn = f"mean of {self.seeds} seeds; differences paired by seed, bars 95% interval"
        figure.suptitle(heading(self, what, drawn, rows_of(found, question=AT_EVERY_SHARE)))
        return figure


def condition_of(regime: Regime, fraction: float) -> str:
    """A condition in words; the whole training set is the same in both regimes.

    >>> condition_of("equal steps", 0.1), condition_of("equal steps", 1.0)
    ('equal steps, 10% of the images', 'equal epochs, 100% of the images')
    """
    return f"{regime if fraction < 1 else REGIMES[0]}, {fraction:.0%} of the images"
