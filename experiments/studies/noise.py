"""The claim of the abstract: "when signals are limited or noisy"."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from experiments import comparisons, plotting
from experiments.cells import ConfigError, Workload
from experiments.comparisons import (
    Row,
    Sample,
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
from experiments.studies.base import FIGURE, Arms, Run, Sizes, Study, TaskName, train
from experiments.studies.checks import check_at_least_one
from experiments.studies.findings import Claim, Findings, compared, summary_table
from experiments.studies.headings import heading
from experiments.studies.judging import Searching
from experiments.summary import sample, summarise
from experiments.tables import markdown_table

WITH_NOISE = "Is the full method better than {}, where labels are wrong and batches small or large?"
MORE_WITH_NOISE = "Is it further above {} where labels are wrong?"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noise(Searching):
    """The claim "when signals are limited or noisy": wrong labels, and small and large batches.

    In each condition every arm takes the learning rate that is best for it there, on held-out
    training images with the same noise.

    Attributes:
      arms: the first is compared with each of the others.
      label_noise: shares of wrong training labels, at the default batch size.
      batch_sizes: images per step, with no wrong labels.
    """

    name = "noise"
    sizes: ClassVar[Sizes] = {
        "smoke": {
            **Study.sizes["smoke"],
            "arms": ("full", "sgd"),
            "label_noise": (0.0, 0.4),
            "batch_sizes": (128,),
            "tuning_seeds": 1,
        },
        "cpu": {"task": "fashion_mnist_small"},
    }

    task: TaskName = "fashion_mnist"
    arms: Arms = ("full", "gradient_only_wide", "sgd_homeostasis", "adam")
    schedule: Schedule = "cosine"
    seeds: int = 10
    label_noise: tuple[float, ...] = (0.0, 0.2, 0.4)
    batch_sizes: tuple[int, ...] = (16, 128, 512)

    def __post_init__(self) -> None:
        super().__post_init__()
        for share in self.label_noise:
            if not 0 <= share < 1:
                raise ConfigError(f"label_noise must lie in [0, 1), got {share}.")
        for size in self.batch_sizes:
            check_at_least_one("batch_sizes", size)

    def conditions(self) -> list[Workload]:
        """Each label noise at the default batch size, then each other batch size without noise."""
        base = self.workload()
        noisy = [dataclasses.replace(base, label_noise=share) for share in self.label_noise]
        batched = [dataclasses.replace(base, batch_size=size) for size in self.batch_sizes]
        return list(dict.fromkeys(noisy + batched))

    def run(self, run: Run, source: str) -> Findings:
        """Searches every arm's learning rate in each condition, then trains on fresh seeds."""
        tried = self.search(run, self.arms, self.conditions())
        plan = {
            (workload, arm): self.cells(arm, best_learning_rate(of_arm), workload)
            for (workload, arm), of_arm in tried.items()
        }
        rows, parts = train(run, plan)
        samples = {key: sample(of_key) for key, of_key in parts.items()}
        summary = summarise(rows, ["label_noise", "batch_size", "arm", "learning_rate"])
        found = comparisons.table(self.compare(samples))
        columns = {"label_noise": ("wrong labels", ".0%"), "batch_size": ("batch", "")}
        table = summary_table(summary, **columns)
        report = [
            "Noisy signals",
            f"{self.epochs} epochs, {self.schedule} learning rate, {self.seeds} seeds per arm, "
            f"paired. In each condition every arm runs at {self.how_searched()}. The labels of "
            f"what is evaluated are never changed. Data: {source}.",
            markdown_table(table),
            *compared(found, self.name),
            "![final accuracy and paired differences by label noise and batch size](figure.png)",
        ]
        figures = {FIGURE: self.figure(summary, found)}
        return Findings(table, summary, found, figures, report)

    def compare(self, samples: Mapping[tuple[Workload, str], Sample]) -> Iterator[dict[str, Any]]:
        """The first arm against the others in each condition, and its gain by label noise."""
        first, *others = self.arms
        for workload in self.conditions():
            for other in others:
                yield compare(
                    WITH_NOISE.format(label(other)),
                    samples[workload, first],
                    samples[workload, other],
                    family=self.name,
                    condition=condition_of(workload.label_noise, workload.batch_size),
                )
        least, most = min(self.label_noise), max(self.label_noise)
        for other in others if least < most else ():
            noisy, clean = (
                (samples[workload, first], samples[workload, other])
                for share in (most, least)
                for workload in [dataclasses.replace(self.workload(), label_noise=share)]
            )
            yield compare_differences(
                MORE_WITH_NOISE.format(label(other)),
                noisy,
                clean,
                family=self.name,
                condition=f"difference at {most:.0%} wrong labels minus that at {least:.0%}",
            )

    def claims(self, found: pd.DataFrame) -> list[Claim]:
        """What the abstract says, against each of the other arms."""
        claims = []
        for other in map(label, self.arms[1:]):
            rows = rows_of(found, question=WITH_NOISE.format(other))
            numbers = "; ".join(f"{row['condition']}: {measured(row)}" for row in rows)
            question = WITH_NOISE.format(f"*{other}*")
            claims.append(Claim("abstract", question, answer_of_all(rows), numbers, rows[0]["n"]))
            claims += [
                Claim(
                    "abstract",
                    MORE_WITH_NOISE.format(f"*{other}*"),
                    answer(row),
                    f"{row['condition']}: {measured(row)}",
                    row["n"],
                )
                for row in rows_of(found, question=MORE_WITH_NOISE.format(other))
            ]
        return claims

    def along(self, setting: str, found: pd.DataFrame) -> list[tuple[float, Row]]:
        """The comparisons by a setting, where all others are the usual ones."""
        usual = self.workload()
        return [
            (getattr(workload, setting), row)
            for workload in self.conditions()
            if dataclasses.replace(workload, **{setting: getattr(usual, setting)}) == usual
            for row in rows_of(
                found, condition=condition_of(workload.label_noise, workload.batch_size)
            )
        ]

    def figure(self, summary: pd.DataFrame, found: pd.DataFrame) -> Figure:
        """Final accuracy by wrong labels and by batch size, and below it the paired differences."""
        panels = {
            "label_noise": (
                summary["batch_size"] == self.batch_size,
                "wrong training labels",
                ".0%",
            ),
            "batch_size": (summary["label_noise"] == 0, "images per step", "g"),
        }
        figure, grid = plt.subplots(
            2, 2, figsize=(11, 7.5), sharex="col", sharey="row", layout="constrained"
        )
        grid[0, 1].set_xscale("log", base=2)
        for (levels, differences), (setting, (there, what, form)) in zip(
            grid.T, panels.items(), strict=True
        ):
            plotting.draw_levels(levels, summary[there], setting, "final")
            plotting.draw_differences_by_setting(differences, self.along(setting, found))
            values = summary.loc[there, setting].unique()
            differences.set_xticks(values, [format(value, form) for value in values])
            differences.set(xlabel=what)
        minus = f"{label(self.arms[0])} minus each other arm"
        grid[0, 0].set(ylabel=f"final {self.metric.axis}")
        grid[1, 0].set(ylabel=f"{minus}:\n{self.metric.difference_axis}")
        columns = len(self.arms)
        lines = grid[0, 0].get_legend_handles_labels()
        figure.legend(*lines, frameon=False, ncols=columns, loc="outside lower center")
        grey = grid[1, 0].get_legend_handles_labels()
        grid[1, 0].legend(*grey, frameon=False, fontsize=8, loc="lower left")
        drawn = f"mean of {self.seeds} seeds; differences paired by seed, bars 95% interval"
        rows = rows_of(found, metric=self.metric.final)
        figure.suptitle(heading(self, "noisy signals, tuned in each condition", drawn, rows))
        return figure


def condition_of(label_noise: float, batch_size: int) -> str:
    """A condition in words.

    >>> condition_of(0.2, 128)
    '20% wrong labels, batches of 128'
    """
    return f"{label_noise:.0%} wrong labels, batches of {batch_size}"
