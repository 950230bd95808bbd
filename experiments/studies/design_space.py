"""Figure 7 of the paper: the design space."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments import comparisons, plotting
from experiments.arms import FAIR_TEST, PUBLISHED, with_role
from experiments.comparisons import (
    Sample,
    Verdict,
    answer_of_all,
    compare,
    measured,
    rows_of,
    too_few_seeds,
)
from experiments.naming import find_arm, label
from experiments.search import best_learning_rate
from experiments.studies.base import FIGURE, Arms, OnCifar10, Run, Sizes, Study, train
from experiments.studies.checks import check_known
from experiments.studies.findings import Claim, Findings, compared, summary_table
from experiments.studies.headings import heading
from experiments.studies.judging import Searching
from experiments.summary import sample, summarise
from experiments.tables import markdown_table

VARIANTS = (*PUBLISHED, *with_role("design space"))
# One of each kind, what two cores train.
EACH_KIND = ("full", "bounded", "orthogonal_match", "momentum_gain", "adam_gain")
BETTER_THAN_BASE = "Do variants of plasticity improve on their base?"
BETTER_THAN_BASELINE = "Do variants of plasticity improve on the strongest tuned baseline?"
ON_BASE, ON_BASELINE = "variants against their base", "variants against the strongest baseline"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DesignSpace(OnCifar10, Searching):
    """Figure 7 of the paper: every variant of plasticity beside its own base on CIFAR-10.

    Every variant, every base and a number of optimizers without plasticity and homeostasis take the
    learning rate that is best for them on held-out training images.

    Attributes:
      arms: variants; each brings its base with it.
      baselines: tuned optimizers to compare with.
    """

    name = "design_space"
    sizes: ClassVar[Sizes] = {
        "smoke": {
            **Study.sizes["smoke"],
            "arms": ("bounded",),
            "baselines": ("sgd",),
            "tuning_seeds": 1,
        },
        "cpu": {
            **OnCifar10.sizes["cpu"],
            "arms": EACH_KIND,
            "baselines": ("momentum", "adam"),
            "tuning_seeds": 2,
        },
    }

    arms: Arms = VARIANTS
    baselines: tuple[str, ...] = ("sgd", "momentum", "adam", "adamw", "rmsprop")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_known("variants as arms,", self.arms, VARIANTS)
        check_known("baselines", self.baselines, FAIR_TEST)

    @classmethod
    def variable_on_record(cls, rows: pd.DataFrame) -> dict[str, Any]:
        """Variants, and of the others those that are nobody's base."""
        arms = list(rows["arm"].unique())
        variants = tuple(arm for arm in arms if arm in VARIANTS)
        bases = {base_of(arm) for arm in variants}
        baselines = tuple(arm for arm in arms if arm not in (*variants, *bases))
        return {"arms": variants, "baselines": baselines, "seeds": rows["seed"].nunique()}

    def run(self, run: Run, source: str) -> Findings:
        """Searches every learning rate, then trains everything on fresh seeds."""
        arms = dict.fromkeys((*self.baselines, *map(base_of, self.arms), *self.arms))
        tried = {arm: of for (_, arm), of in self.search(run, arms, [self.workload()]).items()}
        plan = {arm: self.cells(arm, best_learning_rate(of)) for arm, of in tried.items()}
        rows, parts = train(run, plan)
        scores = {arm: of[best_learning_rate(of)] for arm, of in tried.items()}
        # By its validation accuracy: no test image chooses what the others are compared with.
        strongest = max(self.baselines, key=lambda arm: np.nan_to_num(scores[arm], nan=-np.inf))
        samples = {arm: sample(of_arm) for arm, of_arm in parts.items()}
        found = comparisons.table(self.compare(samples, strongest))
        summary = summarise(rows, ["arm", "learning_rate"])
        table = summary_table(summary.sort_values("final_mean", ascending=False))
        report = [
            "The design space",
            f"{self.protocol()} Each variant, base and baseline runs at {self.how_searched()}. "
            f"Data: {source}.",
            self.counted(found),
            markdown_table(table),
            "## Against the base",
            *compared(found, ON_BASE),
            f"## Against {label(strongest)}, the baseline with the highest validation accuracy",
            *compared(found, ON_BASELINE),
            "![final accuracy of every variant](figure.png)",
        ]
        figures = {FIGURE: self.figure(samples, found)}
        return Findings(table, summary, found, figures, report)

    def compare(self, samples: Mapping[str, Sample], strongest: str) -> Iterator[dict[str, Any]]:
        """Every variant against its base, and against the strongest baseline."""
        for arm in self.arms:
            yield compare(BETTER_THAN_BASE, samples[arm], samples[base_of(arm)], family=ON_BASE)
        for arm in self.arms:
            yield compare(
                BETTER_THAN_BASELINE, samples[arm], samples[strongest], family=ON_BASELINE
            )

    def counted(self, found: pd.DataFrame) -> str:
        """How many variants are above what they are compared with, and are shown to be."""
        sentences = []
        for family in (ON_BASE, ON_BASELINE):
            rows = rows_of(found, family=family)
            shown = [label(row["treatment"]) for row in rows if row["verdict"] == Verdict.BETTER]
            above = sum(row["mean"] > 0 for row in rows)
            than = "their base" if family == ON_BASE else label(rows[0]["control"])
            names = f" ({', '.join(shown)})" if shown else ""
            sentences.append(
                f"{above} of {len(rows)} variants are above {than} in the mean, {len(shown)} of "
                f"them shown to be better{names}."
            )
        return " ".join(sentences)

    def claims(self, found: pd.DataFrame) -> list[Claim]:
        """Figure 7."""
        rows = rows_of(found, family=ON_BASE)
        best = max(rows, key=lambda row: row["mean"])
        few = too_few_seeds(rows)
        numbers = (
            f"{self.counted(found)} {few} Largest: {label(best['treatment'])}, {measured(best)}"
        )
        return [Claim("figure 7", BETTER_THAN_BASE, answer_of_all(rows), numbers, best["n"])]

    def figure(self, samples: Mapping[str, Sample], found: pd.DataFrame) -> Figure:
        """Final accuracy of every variant, base and baseline, one point per seed, ordered."""
        values = {arm: of_arm.by_seed for arm, of_arm in samples.items()}
        values = dict(sorted(values.items(), key=lambda item: -item[1].mean()))
        figure, axes = plt.subplots(figsize=(9, 0.27 * len(values) + 1.5), layout="constrained")
        plotting.draw_seeds(axes, values)
        for tick, arm in zip(axes.get_yticklabels(), values, strict=True):
            tick.set_fontweight("normal" if arm in self.arms else "bold")
        axes.set(
            xlabel=f"final {self.metric.axis}",
            title="bold: bases and tuned baselines; colour: the family",
        )
        drawn = f"one point for each of {self.seeds} seeds, bar: mean"
        figure.suptitle(heading(self, "the design space", drawn, rows_of(found)))
        return figure


def base_of(arm: str) -> str:
    """The arm that a variant is compared with."""
    return find_arm(arm).family if find_arm(arm).role == "design space" else "sgd_homeostasis"
