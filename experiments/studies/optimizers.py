"""Figure 4 of the paper: standard optimizers."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from experiments import comparisons, plotting
from experiments.comparisons import (
    Verdict,
    compare,
    delta,
    measured,
    rows_of,
    too_few_seeds,
)
from experiments.naming import colour, label
from experiments.search import best_learning_rate
from experiments.studies.base import FIGURE, Arms, OnCifar10, Run, Sizes, train
from experiments.studies.findings import Claim, Findings, compared, summary_table
from experiments.studies.headings import heading
from experiments.studies.judging import Searching
from experiments.summary import sample, summarise
from experiments.tables import markdown_table, mean_and_sd

STANDARD_AHEAD = "Do standard optimizers end above the full method at well-tuned learning rates?"

Tried = Mapping[str, Mapping[float, float]]  # of an arm: what each learning rate gave


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizers(OnCifar10, Searching):
    """Figure 4 of the paper: the full method beside standard optimizers on CIFAR-10.

    Every arm takes the learning rate that is best for it on held-out training images.

    Attributes:
      arms: the first is compared with each of the others.
    """

    name = "optimizers"
    sizes: ClassVar[Sizes] = {
        "smoke": {**OnCifar10.sizes["smoke"], "tuning_seeds": 1},
        "cpu": {**OnCifar10.sizes["cpu"], "tuning_seeds": 2},
    }

    arms: Arms = ("full", "sgd", "momentum", "adam", "adamw", "rmsprop")

    def run(self, run: Run, source: str) -> Findings:
        """Searches every arm's learning rate, then trains on fresh seeds."""
        searched = self.search(run, self.arms, [self.workload()])
        tried = {arm: of_arm for (_, arm), of_arm in searched.items()}
        plan = {arm: self.cells(arm, best_learning_rate(of)) for arm, of in tried.items()}
        rows, parts = train(run, plan)
        summary = summarise(rows, ["arm", "learning_rate"])
        first, *others = (sample(parts[arm]) for arm in self.arms)
        found = comparisons.table(
            compare(STANDARD_AHEAD, first, other, family=self.name) for other in others
        )
        better_first = self.metric.sign * summary["final_mean"]
        ordered = summary.loc[better_first.sort_values(ascending=False).index].to_dict("records")
        lines = [
            f"{place}. {label(row['arm'])} at {row['learning_rate']:g}: "
            f"{mean_and_sd(row['final_mean'], row['final_sd'], 2)}"
            for place, row in enumerate(ordered, start=1)
        ]
        table = summary_table(summary)
        report = [
            "Standard optimizers",
            f"{self.protocol()} Each arm runs at {self.how_searched()}. Data: {source}.",
            markdown_table(table),
            f"In order, final {self.metric.axis}:",
            "\n".join(lines),
            *compared(found, self.name),
            "![accuracy and training loss by epoch, the search, and differences](figure.png)",
        ]
        figures = {FIGURE: self.figure(rows, tried, found)}
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
        numbers = "; ".join(f"{label(row['control'])}: {measured(row)}" for row in rows)
        numbers += f". {few}" if (few := too_few_seeds(rows)) else ""
        return [Claim("figure 4", STANDARD_AHEAD, said, numbers, rows[0]["n"])]

    def figure(self, rows: pd.DataFrame, tried: Tried, found: pd.DataFrame) -> Figure:
        """Accuracy and training loss by epoch; the search; the first arm against the others."""
        figure, ((accuracy, loss), (search, differences)) = plt.subplots(
            2, 2, figsize=(13, 9), layout="constrained"
        )
        plotting.draw_metric_by_epoch(accuracy, rows)
        plotting.draw_by_epoch(loss, rows, "train_loss")
        loss.set(xlabel="epoch", ylabel="training loss", title="training loss", yscale="log")
        loss.yaxis.set_major_formatter(ScalarFormatter())
        loss.yaxis.set_minor_formatter(ScalarFormatter())
        self.draw_search(search, tried)
        against = rows_of(found)
        if against:
            plotting.draw_differences(differences, against)
        names = [f"{label(row['control'])}\n{delta(row)}" for row in against]
        differences.set_yticks(range(len(names)), names, fontsize=8)
        differences.legend(*differences.get_legend_handles_labels(), frameon=False, fontsize=8)
        differences.set(
            xlabel=self.metric.difference_axis,
            title=f"{label(self.arms[0])} minus each other arm, bars 95% interval",
        )
        figure.legend(
            *accuracy.get_legend_handles_labels(),
            frameon=False,
            ncols=len(self.arms),
            loc="outside lower center",
        )
        what = "standard optimizers and the full method, each at its best rate"
        figure.suptitle(heading(self, what, plotting.band(rows), against))
        return figure

    def draw_search(self, axes: Axes, tried: Tried) -> None:
        """What each learning rate gave on held-out examples, the best one ringed."""
        for arm, of_arm in tried.items():
            rates = sorted(of_arm)
            values = {rate: self.metric.sign * of_arm[rate] for rate in rates}
            axes.plot(rates, list(values.values()), color=colour(arm), marker=".")
            best = best_learning_rate(of_arm)
            axes.plot(best, values[best], "o", color=colour(arm), fillstyle="none", markersize=9)
        shown = sorted({rate for of_arm in tried.values() for rate in of_arm})
        axes.set(
            xscale="log",
            xlabel="learning rate",
            ylabel=self.metric.validation_axis,
            title=f"the search, by the mean over seeds (n = {self.tuning_seeds}); ring: selected",
        )
        axes.set_xticks(shown, [f"{rate:g}" for rate in shown], rotation=45)
        axes.minorticks_off()
        plotting.plain(axes)
