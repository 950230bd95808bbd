"""Figure 4 of the paper: standard optimizers."""

import dataclasses
from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from experiments import comparisons, plotting
from experiments.comparisons import Row, Verdict, compare, measured, rows_of, too_few_seeds
from experiments.naming import find_arm, label
from experiments.search import near_learning_rates
from experiments.studies.base import FIGURE, Arms, OnCifar10, Run, train
from experiments.studies.findings import (
    AT_AN_END,
    Claim,
    Findings,
    compared,
    near_rate,
    summary_table,
)
from experiments.studies.headings import heading
from experiments.summary import sample, summarise
from experiments.tables import markdown_table, mean_and_sd

STANDARD_AHEAD = "Do standard optimizers end above the full method at well-tuned learning rates?"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizers(OnCifar10):
    """Figure 4 of the paper: the full method beside standard optimizers on CIFAR-10.

    Every arm runs at three learning rates, half a decade apart around its default.

    Attributes:
      arms: the first is compared with each of the others, at the best of their rates.
    """

    name = "optimizers"

    arms: Arms = ("full", "sgd", "momentum", "adam", "adamw", "rmsprop")

    def run(self, run: Run, source: str) -> Findings:
        """Trains every arm at three learning rates."""
        plan = {
            (arm, rate): self.cells(arm, rate)
            for arm in self.arms
            for rate in near_learning_rates(find_arm(arm).learning_rate)
        }
        rows, parts = train(run, plan)
        summary = summarise(rows, ["arm", "learning_rate"])
        score = self.metric.sign * summary["final_mean"]
        best = summary.loc[score.groupby(summary["arm"], sort=False).idxmax()]
        rates = dict(zip(best["arm"], best["learning_rate"], strict=True))
        first, *others = (sample(parts[arm, rates[arm]]) for arm in self.arms)
        found = comparisons.table(
            compare(
                STANDARD_AHEAD,
                first,
                other,
                family=self.name,
                condition="the best of three rates, picked on the test images",
            )
            for other in others
        )
        ordered = best.sort_values("final_mean", ascending=False).to_dict("records")
        lines = [
            f"{place}. {label(row['arm'])} at {near_rate(row['arm'], row['learning_rate'])}: "
            f"{mean_and_sd(row['final_mean'], row['final_sd'], 2)}%"
            for place, row in enumerate(ordered, start=1)
        ]
        table = summary_table(summary)
        report = [
            "Standard optimizers",
            f"{self.protocol()} Three learning rates per arm, half a decade apart. Data: {source}.",
            markdown_table(table),
            "Every arm at its best of the three rates, which is picked on the test images here, as "
            "in the paper's figure:",
            "\n".join(lines),
            AT_AN_END,
            *compared(found, self.name),
            "![accuracy and training loss by epoch, final and best accuracy](figure.png)",
        ]
        figures = {FIGURE: self.figure(rows, summary, rates, found)}
        return Findings(table, summary, found, figures, report)

    def claims(self, found: pd.DataFrame) -> list[Claim]:
        """Figure 4: the claim is that the others are ahead, so that *worse* agrees with it."""
        rows = rows_of(found)
        if not rows:
            return []
        ahead = [row for row in rows if row["verdict"] == Verdict.WORSE]
        behind = [row for row in rows if row["verdict"] == Verdict.BETTER]
        said = f"shown for {len(ahead)} of {len(rows)}" if ahead else "not shown"
        if behind:
            said += f"; the opposite for {', '.join(label(row['control']) for row in behind)}"
        above, below = (
            ", ".join(label(row["control"]) for row in rows if (row["mean"] < 0) is side)
            for side in (True, False)
        )
        said += f"; in the means above it: {above or 'none'}; below it: {below or 'none'}"
        marked = [self.at_an_end(row, side) for row in rows for side in ("treatment", "control")]
        notes = "".join(f"; {note}" for note in dict.fromkeys(filter(None, marked)))
        numbers = "; ".join(f"{label(row['control'])}: {measured(row)}" for row in rows)
        notes += f". {few}" if (few := too_few_seeds(rows)) else ""
        return [Claim("figure 4", STANDARD_AHEAD, said, numbers + notes, rows[0]["n"])]

    def at_an_end(self, row: Row, side: str) -> str:
        """What says that a best rate lies at an end of the three that were tried."""
        arm, rate = row[side], row[f"{side}_rate"]
        low, _, high = near_learning_rates(find_arm(arm).learning_rate)
        if rate not in (low, high):
            return ""
        end = "lower" if rate == low else "upper"
        return f"the best rate of {label(arm)}, {rate:g}, lies at the {end} edge of the three tried"

    def figure(
        self,
        rows: pd.DataFrame,
        summary: pd.DataFrame,
        strong: Mapping[str, float],
        found: pd.DataFrame,
    ) -> Figure:
        """Accuracy and training loss by epoch; final and best accuracy by learning rate.

        Args:
          rows: of all training runs.
          summary: of them.
          strong: each arm's best rate.
          found: the comparisons at these rates.
        """
        figure, ((accuracy, loss), (final, best)) = plt.subplots(
            2, 2, figsize=(13, 9), layout="constrained"
        )
        plotting.draw_metric_by_epoch(accuracy, rows, strong)
        plotting.draw_by_epoch(loss, rows, "train_loss", strong)
        loss.set(xlabel="epoch", ylabel="training loss", title="training loss", yscale="log")
        loss.yaxis.set_major_formatter(ScalarFormatter())
        loss.yaxis.set_minor_formatter(ScalarFormatter())
        rates = sorted(summary["learning_rate"].unique())
        for axes, column in ((final, "final"), (best, "best")):
            plotting.draw_by_setting(axes, summary, "learning_rate", column)
            what = f"{column} {self.metric.title}"
            axes.set(xlabel="learning rate", ylabel=f"{what} (%)", title=what, xscale="log")
            axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
            axes.minorticks_off()
        figure.legend(
            *accuracy.get_legend_handles_labels(),
            title="strong: the best of an arm's three rates, by its final mean; faint: the others",
            frameon=False,
            ncols=len(self.arms),
            loc="outside lower center",
        )
        what = "standard optimizers and the full method"
        drawn = plotting.band(rows, "band and bars")
        figure.suptitle(heading(self, what, drawn, rows_of(found)))
        return figure
