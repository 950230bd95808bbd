"""Gradients of another kind: text."""

import dataclasses
from typing import ClassVar

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from experiments import comparisons, plotting
from experiments.cells import Workload
from experiments.comparisons import compare, rows_of
from experiments.hypotheses import STRONGEST
from experiments.naming import find_arm, label
from experiments.studies.base import FIGURE, Arms, Run, Searching, Sizes, TaskName, train
from experiments.studies.checks import check_share
from experiments.studies.findings import (
    AT_AN_END,
    Claim,
    Findings,
    compared,
    strongest,
    summary_table,
)
from experiments.summary import per_cell, sample, summarise
from experiments.tables import markdown_table

ON_TEXT = "On text, is {} better than {}?"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text(Searching):
    """Gradients of another kind: a small causal transformer on Python's own source files.

    Every arm takes the best of three learning rates around its default, on held-out training text.

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
        "cpu": {"seeds": 3, "epochs": 2, "fraction": 0.5, "tuning_seeds": 1},
    }

    task: TaskName = "python_source"
    arms: Arms = ("full", "gradient_only_wide", "sgd_homeostasis", "sgd", "momentum", "adam")
    seeds: int = 10
    epochs: int = 5
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
        chosen = self.search(run, self.arms, [self.workload()])
        plan = {arm: self.cells(arm, rate) for (_, arm), (rate, _) in chosen.items()}
        rows, parts = train(run, plan)
        summary = summarise(rows, ["arm", "learning_rate"])
        first, *others = map(sample, parts.values())
        found = comparisons.table(
            compare(
                ON_TEXT.format(label(first.arm), label(other.arm)), first, other, family=self.name
            )
            for other in others
        )
        table = summary_table(summary, near=True)
        report = [
            "Text",
            "A causal transformer that predicts the next character. "
            f"{self.epochs} epochs, batches of {self.batch_size} windows, {self.seeds} seeds per "
            "arm, paired. Every arm runs at the best of three learning rates around its default, "
            f"chosen by other seeds ({self.tuning_seeds} per rate) on held-out training text. "
            f"Data: {source}.",
            markdown_table(table),
            "*final*: next characters predicted on test text, in percent. *final loss*: nats per "
            f"character. {AT_AN_END}",
            *compared(found, self.name),
            "![test loss by epoch and final accuracy](figure.png)",
        ]
        return Findings(table, summary, found, {FIGURE: self.figure(rows)}, report)

    def claims(self, found: pd.DataFrame) -> list[Claim]:
        """What the paper did not look at."""
        rows = rows_of(found)
        claims = [Claim.of("not in the paper", row) for row in rows]
        baselines = [row for row in rows if not find_arm(row["control"]).family]
        return [*claims, strongest(STRONGEST, baselines, rows)] if baselines else claims

    def figure(self, rows: pd.DataFrame) -> Figure:
        """Test loss by epoch, and final accuracy per seed, of every arm at its best rate."""
        figure, (loss, accuracy) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
        plotting.draw_by_epoch(loss, rows, "test_loss")
        loss.set(xlabel="epoch", ylabel="test loss (nats per character)", title="test loss")
        loss.legend(frameon=False, fontsize=8)
        cells = per_cell(rows).groupby("arm", sort=False)["final"]
        plotting.draw_seeds(accuracy, {str(arm): of_arm for arm, of_arm in cells})
        title = "final test accuracy, one point per seed"
        accuracy.set(xlabel="next characters predicted (%)", title=title)
        what = "every arm at the best of three rates"
        figure.suptitle(f"{self.title}: {what} ({plotting.band(rows)})")
        return figure
