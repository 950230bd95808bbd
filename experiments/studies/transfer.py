"""Figure 5 of the paper: settings tuned elsewhere."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from experiments import comparisons, plotting
from experiments.arms import PUBLISHED
from experiments.comparisons import Sample, Verdict, answer, compare, measured, rows_of
from experiments.naming import find_arm, label
from experiments.studies.base import FIGURE, Arms, OnCifar10, Run, Tuned, train
from experiments.studies.checks import check_known
from experiments.studies.findings import Claim, Findings, bullets, compared, summary_table
from experiments.studies.headings import heading
from experiments.studies.selection import FAMILIES
from experiments.summary import per_cell, sample, summarise
from experiments.tables import markdown_table

ABLATION_AHEAD = (
    "With settings tuned on MNIST, is gradient-only slightly above, and are both stable?"
)
AS_SELECTED = "With what was selected on MNIST, is {} better than {}?"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transfer(OnCifar10, Tuned):
    """Figure 5 of the paper: settings tuned on MNIST, unchanged on CIFAR-10.

    Beside the published settings run those that the study selection chose.

    Attributes:
      arms: the families, as in the study selection.
    """

    name = "transfer"

    arms: Arms = tuple(FAMILIES)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_known("families as arms,", self.arms, tuple(FAMILIES))

    @classmethod
    def variable_on_record(cls, rows: pd.DataFrame) -> dict[str, Any]:
        """A selected arm names its family."""
        arms = set(rows["arm"])
        families = tuple(name for name, members in FAMILIES.items() if arms & set(members))
        return {"arms": families, "seeds": rows["seed"].nunique()}

    @property
    def tuned_by(self) -> tuple[str, str, str]:
        """The study selection on MNIST."""
        return "selection", "mnist", "family"

    def run(self, run: Run, source: str) -> Findings:
        """Trains the published and the selected settings."""
        plan = {arm: self.cells(arm, find_arm(arm).learning_rate) for arm in PUBLISHED} | {
            f"selected {family}": self.cells(arm, rate)
            for family, (arm, rate) in self.selected.items()
        }
        rows, parts = train(run, plan)
        samples = {name: sample(of_name) for name, of_name in parts.items()}
        summary = summarise(rows, ["arm", "learning_rate"])
        diverged = per_cell(rows)["diverged"].sum()
        stable = f"{diverged or 'no'} run{'' if diverged == 1 else 's'} diverged"
        found = comparisons.table(self.compare(samples, stable))
        table = summary_table(summary)
        report = [
            "Settings tuned on MNIST",
            f"{self.protocol()} The published settings (η = 0.1), and those that the study "
            "selection chose on MNIST:",
            bullets(
                f"{label(family)}: {label(arm)} at {rate:g}"
                for family, (arm, rate) in self.selected.items()
            ),
            f"Data: {source}.",
            markdown_table(table),
            *compared(found, self.name),
            f"{stable[0].upper()}{stable[1:]}.",
            "![accuracy and loss by epoch](figure.png)",
        ]
        figures = {FIGURE: self.figure(rows, found)}
        return Findings(table, summary, found, figures, report)

    def compare(self, samples: Mapping[str, Sample], stable: str) -> Iterator[dict[str, Any]]:
        """The published pair, and what was selected in the first family against the others."""
        yield compare(
            ABLATION_AHEAD,
            *(samples[arm] for arm in PUBLISHED),
            family=self.name,
            condition=f"published settings, {stable}",
        )
        first, *others = self.arms
        for other in others:
            yield compare(
                AS_SELECTED.format(label(first), label(other)),
                samples[f"selected {first}"],
                samples[f"selected {other}"],
                family=self.name,
                condition=f"selected on MNIST, {label(first)} against {label(other)}",
            )

    def claims(self, found: pd.DataFrame) -> list[Claim]:
        """Figure 5: the claim is that the ablation is ahead, so that *worse* agrees with it."""
        (row,) = rows_of(found, question=ABLATION_AHEAD)
        said = {Verdict.WORSE: "yes", Verdict.BETTER: "no: the full method is above"}.get(
            Verdict(row["verdict"])
        ) or answer(row)
        numbers = f"{row['condition']}: {measured(row)}"
        return [
            Claim("figure 5", ABLATION_AHEAD, said, numbers, row["n"]),
            *(
                Claim.of("figure 5", row)
                for row in rows_of(found)
                if row["question"] != ABLATION_AHEAD
            ),
        ]

    def figure(self, rows: pd.DataFrame, found: pd.DataFrame) -> Figure:
        """Test accuracy and loss by epoch of settings that were tuned elsewhere."""
        figure, (accuracy, loss) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
        plotting.draw_metric_by_epoch(accuracy, rows)
        plotting.draw_by_epoch(loss, rows, "test_loss")
        loss.set(xlabel="epoch", ylabel="test loss", title="test loss")
        accuracy.legend(frameon=False, fontsize=8)
        what = "settings tuned on MNIST, unchanged"
        figure.suptitle(heading(self, what, plotting.band(rows), rows_of(found)))
        return figure
