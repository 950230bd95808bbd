"""Figure 2 of the paper: test accuracy by epoch."""

import dataclasses
import math
from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from experiments import comparisons, plotting, reference
from experiments.arms import PUBLISHED
from experiments.cells import Cell, ConfigError, Workload
from experiments.comparisons import compare, rows_of
from experiments.hypotheses import REPRODUCES
from experiments.naming import find_arm, label
from experiments.studies.base import FIGURE, Run, Study, train
from experiments.studies.findings import Claim, Findings, bullets, compared, summary_table
from experiments.studies.headings import heading
from experiments.summary import sample, summarise
from experiments.tables import markdown_table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accuracy(Study):
    """Figure 2 of the paper: test accuracy by epoch, mean and standard deviation over seeds.

    Attributes:
      learning_rate: one for all arms; without it, each arm takes its own default.
      diagnostics: record what plasticity did in each epoch; compiling takes a few seconds longer.
    """

    name = "accuracy"

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

    def trained(self) -> dict[str, list[Cell]]:
        """The training runs of every arm."""
        return {
            arm: self.cells(arm, self.learning_rate or find_arm(arm).learning_rate)
            for arm in self.arms
        }

    def run(self, run: Run, source: str) -> Findings:
        """Asks for the training runs and says what they show."""
        plan = self.trained()
        rows, parts = train(run, plan)
        summary = summarise(rows, ["arm", "learning_rate"])
        found = self.compare(parts)
        table = summary_table(summary)
        report = [
            "Accuracy by epoch",
            f"{self.epochs} epochs, batches of {self.batch_size}, {self.seeds} seeds per arm, "
            "paired: a seed gives every arm the same initial parameters, data order and dropout "
            "masks. Evaluated on the whole test set after each epoch. No learning rate was tuned: "
            f"each arm runs at its default or at the one given. Data: {source}.",
            markdown_table(table),
            "Mean ± standard deviation over seeds. *rate*: learning rate. *final*, *best*: "
            f"{self.metric.axis} after the last epoch, and the best of a run's epochs, which is "
            "picked on the test set. *final loss*: mean cross-entropy on the test set. *s/seed*: "
            "seconds of training per seed, without compilation and evaluation, all seeds training "
            "together.",
            *compared(found, self.name),
            *self.beside_published(rows),
            f"![{self.metric.title} by epoch](figure.png)",
        ]
        figures = {FIGURE: self.figure(rows, found)}
        return Findings(table, summary, found, figures, report)

    def compare(self, parts: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        """The first arm against each of the others."""
        first, *others = map(sample, parts.values())
        return comparisons.table(
            compare(
                REPRODUCES
                if (first.arm, other.arm) == PUBLISHED and self.learning_rate is None
                else f"Is {label(first.arm)} better than {label(other.arm)}?",
                first,
                other,
                family=self.name,
            )
            for other in others
        )

    def claims(self, found: pd.DataFrame) -> list[Claim]:
        """Figure 2, where both of its arms ran as published, and what else was compared."""
        return [
            Claim.of("figure 2", row, headline=True)
            if row["question"] == REPRODUCES
            else Claim.of("not in the paper", row)
            for row in rows_of(found)
        ]

    def beside_published(self, rows: pd.DataFrame) -> list[str]:
        """Final accuracies beside the published implementation's, where it ran by this protocol."""
        if self.task not in reference.DATASETS:
            return []
        published = reference.load(self.task)
        lines = []
        for arm in self.arms:
            ours, theirs = (
                100 * frame[(frame["arm"] == arm) & (frame["epoch"] == 10)]["test_accuracy"]
                for frame in (rows, published)
            )
            if len(ours) and len(theirs):
                apart = ours.mean() - theirs.mean()
                lines.append(
                    f"{label(arm)}: {ours.mean():.2f}% here ({len(ours)} seeds), "
                    f"{theirs.mean():.2f}% there ({len(theirs)} seeds), {apart:+.2f} points apart."
                )
        said = "After 10 epochs, beside the published implementation:"
        return [said, bullets([*lines, *self.beside_reported(rows)])] if lines else []

    def beside_reported(self, rows: pd.DataFrame) -> list[str]:
        """The ablation's distance from the full method, beside what the authors report of it."""
        theirs = reference.reported(self.task)
        if theirs is None or self.learning_rate or not set(PUBLISHED) <= set(self.arms):
            return []
        last = rows[rows["epoch"] == rows["epochs"]]
        means = last.groupby("arm")[["test_accuracy", "test_loss"]].mean()
        gap = means.loc[PUBLISHED[0]] - means.loc[PUBLISHED[1]]
        return [
            f"The authors report {theirs['full_final_percent']:.2f}% for the full method "
            f"({theirs['seeds']} seeds; {theirs['source']} in [their repository]"
            f"({theirs['repository']})) and call its distance from the ablation "
            f"{theirs['called']}: {theirs['gap_points']:+.2f} points, "
            f"{theirs['gap_loss']:+.4f} of loss; here {100 * gap['test_accuracy']:+.2f} points, "
            f"{gap['test_loss']:+.4f} of loss."
        ]

    def figure(self, rows: pd.DataFrame, found: pd.DataFrame) -> Figure:
        """Test accuracy by epoch for each arm, mean and standard deviation over seeds."""
        figure, axes = plt.subplots(figsize=(8, 4.8), layout="constrained")
        plotting.draw_metric_by_epoch(axes, rows)
        what = f"{self.metric.title} by epoch"
        axes.set(title=heading(self, what, plotting.band(rows), rows_of(found)))
        axes.legend(frameon=False)
        return figure
