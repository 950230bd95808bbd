"""Gradients of another kind: text."""

import dataclasses
from typing import ClassVar

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from experiments import comparisons, plotting
from experiments.cells import Workload
from experiments.comparisons import compare, delta, rows_of
from experiments.hypotheses import STRONGEST
from experiments.naming import find_arm, label
from experiments.schedules import Schedule
from experiments.search import best_learning_rate
from experiments.studies.base import FIGURE, Arms, Run, Sizes, TaskName, train
from experiments.studies.checks import check_share
from experiments.studies.findings import (
    Claim,
    Findings,
    compared,
    strongest,
    summary_table,
)
from experiments.studies.headings import heading
from experiments.studies.judging import Searching
from experiments.summary import sample, summarise
from experiments.tables import markdown_table

ON_TEXT = "On text, is {} better than {}?"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text(Searching):
    """Gradients of another kind: a small causal transformer on Python's own source files.

    Every arm takes the learning rate that is best for it on held-out training text.

    Attributes:
      arms: the first is compared with each of the others.
      fraction: share of the training text.
    """

    name = "text"
    sizes: ClassVar[Sizes] = {
        "smoke": {
            "arms": ("full", "sgd"),
            "seeds": 2,
            "epochs": 1,
            "fraction": 0.02,
            "tuning_seeds": 1,
        },
        "cpu": {"task": "python_source_small", "epochs": 10},
    }

    task: TaskName = "python_source"
    arms: Arms = ("full", "gradient_only_wide", "sgd_homeostasis", "sgd", "momentum", "adam")
    schedule: Schedule = "cosine"
    seeds: int = 10
    epochs: int = 10
    batch_size: int = 32
    fraction: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("fraction", self.fraction)

    def workload(self) -> Workload:
        """What the study's cells share."""
        return dataclasses.replace(super().workload(), fraction=self.fraction)

    def run(self, run: Run, source: str) -> Findings:
        """Searches every arm's learning rate, then trains on fresh seeds."""
        tried = self.search(run, self.arms, [self.workload()])
        plan = {arm: self.cells(arm, best_learning_rate(of)) for (_, arm), of in tried.items()}
        rows, parts = train(run, plan)
        summary = summarise(rows, ["arm", "learning_rate"])
        first, *others = map(sample, parts.values())
        found = comparisons.table(
            compare(
                ON_TEXT.format(label(first.arm), label(other.arm)), first, other, family=self.name
            )
            for other in others
        )
        table = summary_table(summary)
        report = [
            "Text",
            "A causal transformer that predicts the next character. "
            f"{self.epochs} epochs, batches of {self.batch_size} windows, {self.seeds} seeds per "
            f"arm, paired. Every arm runs at {self.how_searched()}. Data: {source}.",
            markdown_table(table),
            "*final*: next characters predicted on test text, in percent. *final loss*: nats per "
            "character.",
            *compared(found, self.name),
            "![test loss by epoch and paired differences in final accuracy](figure.png)",
        ]
        return Findings(table, summary, found, {FIGURE: self.figure(rows, found)}, report)

    def claims(self, found: pd.DataFrame) -> list[Claim]:
        """What the paper did not look at."""
        rows = rows_of(found)
        claims = [Claim.of("not in the paper", row) for row in rows]
        baselines = [row for row in rows if not find_arm(row["control"]).family]
        return [*claims, strongest(STRONGEST, baselines, rows)] if baselines else claims

    def figure(self, rows: pd.DataFrame, found: pd.DataFrame) -> Figure:
        """Test loss by epoch, and the first arm minus each of the others, at their best rates."""
        against = rows_of(found)
        figure, (loss, differences) = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
        plotting.draw_by_epoch(loss, rows, "test_loss")
        loss.set(xlabel="epoch", ylabel="test loss (nats per character)", title="test loss")
        # Some differences are ten times as large as others.
        differences.set_xscale("symlog", linthresh=1, linscale=1.5)
        plotting.draw_differences(differences, against)
        names = [f"{label(row['control'])}\n{delta(row)}" for row in against]
        differences.set_yticks(range(len(against)), names, fontsize=8)
        for axes in (loss, differences):
            axes.legend(*axes.get_legend_handles_labels(), frameon=False, fontsize=8)
        ends = differences.get_xlim()
        ticks = [0, *(sign * size for size in (0.5, 1, 2, 5, 10, 20, 50) for sign in (-1, 1))]
        differences.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        differences.set(
            xlabel=f"{self.metric.difference_axis}, logarithmic beyond ±1",
            title=f"{label(self.arms[0])} minus each other arm, bars 95% interval",
            xlim=ends,
        )
        drawn = f"{plotting.band(rows)}; differences paired by seed"
        what = "every arm at its best rate"
        figure.suptitle(heading(self, what, drawn, against))
        return figure
