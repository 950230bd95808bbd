"""The fair test."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from experiments import comparisons, hypotheses, plotting
from experiments.arms import ABLATIONS, FAIR_TEST
from experiments.cells import Cell, ConfigError, Workload
from experiments.comparisons import (
    Row,
    Sample,
    Verdict,
    answer,
    compare,
    could_show,
    measured,
    rows_of,
)
from experiments.hypotheses import ARMS_OF_HYPOTHESES, HYPOTHESES, Competitor
from experiments.naming import find_arm, label
from experiments.studies.base import FIGURE, Arms, Run, TaskName, Tuned, train
from experiments.studies.findings import (
    Claim,
    Findings,
    bullets,
    compared,
    strongest,
    summary_table,
)
from experiments.studies.headings import heading
from experiments.summary import sample, summarise
from experiments.tables import markdown_table

HYPOTHESIS, EXPLORATION = "hypotheses", "exploration"  # the families of comparisons
OWN_ALPHA = "Do the coordinates need an α of their own?"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FairTest(Tuned):
    """The fair test: every arm at its tuned learning rate, on fresh seeds and the test images.

    Attributes:
      arms: all of the hypotheses are needed; the others are compared with the full method as well.
      seeds: number of training runs per arm.
      ablation_seeds: number of training runs of the single-signal and leave-one-out arms.
    """

    name = "verdict"

    task: TaskName = "fashion_mnist"
    arms: Arms = FAIR_TEST
    seeds: int = 20
    ablation_seeds: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        missing = [arm for arm in ARMS_OF_HYPOTHESES if arm not in self.arms]
        if missing:
            raise ConfigError(f"arms must include those of the hypotheses: {', '.join(missing)}.")

    @classmethod
    def variable_on_record(cls, rows: pd.DataFrame) -> dict[str, Any]:
        """The ablations may have fewer seeds."""
        ablations = rows.loc[rows["arm"].isin(ABLATIONS), "seed"]
        few = {"ablation_seeds": ablations.nunique()} if len(ablations) else {}
        return {**super().variable_on_record(rows), **few}

    @property
    def tuned_by(self) -> tuple[str, str, str]:
        """The study tune on the same data set."""
        return "tune", self.task, "arm"

    def cells(self, arm: str, learning_rate: float, workload: Workload | None = None) -> list[Cell]:
        """The training runs of one arm at one learning rate."""
        number = min(self.ablation_seeds, self.seeds) if arm in ABLATIONS else self.seeds
        return self.with_seeds(workload or self.workload(), arm, learning_rate, number)

    def rate(self, competitor: Competitor) -> float:
        """The learning rate of one side of a hypothesis."""
        if competitor.rate == "published":
            return find_arm(competitor.arm).learning_rate
        return self.selected[competitor.arm][1]

    def run(self, run: Run, source: str) -> Findings:
        """Trains every arm at its tuned learning rate, and some at the published one."""
        published = {side for pair in HYPOTHESES for side in (pair.treatment, pair.control)} - {
            Competitor(arm) for arm in self.arms
        }
        order = sorted(published, key=lambda side: self.arms.index(side.arm))
        plan = {
            side: self.cells(side.arm, self.rate(side))
            for side in (*map(Competitor, self.arms), *order)
        }
        rows, parts = train(run, plan)
        samples = {side: sample(of_side) for side, of_side in parts.items()}
        found = comparisons.table(self.compare(samples))
        summary = summarise(rows, ["arm", "learning_rate"])
        table = summary_table(summary)
        report = [
            "The fair test",
            f"{self.epochs} epochs, batches of {self.batch_size}; each arm at the learning rate "
            "that the study tune selected for it on held-out training images, but for the first "
            "hypothesis, which is about the published rates; then run on fresh seeds and evaluated "
            "on the test images. Final accuracy after the last epoch, differences paired by seed. "
            f"Data: {source}.",
            "## Hypotheses",
            "Written down before the run:",
            bullets(dict.fromkeys(pair.question for pair in HYPOTHESES)),
            *compared(found, HYPOTHESIS),
            "## Exploration",
            "The other arms, all tuned: questions that came up afterwards.",
            *compared(found, EXPLORATION),
            "![differences](figure.png)",
            "## Results of every arm",
            markdown_table(table),
        ]
        figures = {FIGURE: self.figure(found)}
        return Findings(table, summary, found, figures, report)

    def compare(self, samples: Mapping[Competitor, Sample]) -> Iterator[dict[str, Any]]:
        """Every hypothesis, then the full method against the arms that are in none."""
        for pair in HYPOTHESES:
            yield compare(
                pair.question,
                samples[pair.treatment],
                samples[pair.control],
                family=HYPOTHESIS,
                condition=f"{pair.treatment.rate} learning rates",
            )
        full = Competitor("full")
        asked = {full, *(pair.control for pair in HYPOTHESES if pair.treatment == full)}
        for arm in self.arms:
            if Competitor(arm) not in asked:
                yield compare(
                    f"Is the full method better than {label(arm)}?",
                    samples[full],
                    samples[Competitor(arm)],
                    family=EXPLORATION,
                    condition="tuned learning rates",
                )

    def claims(self, found: pd.DataFrame) -> list[Claim]:
        """The questions of the fair test, each with all that bears on it."""
        of = {row["question"]: row for row in rows_of(found, family=HYPOTHESIS)}
        explored = {row["control"]: row for row in rows_of(found, family=EXPLORATION)}
        reproduces, one = of[hypotheses.REPRODUCES], of[hypotheses.MORE_THAN_ONE]
        claims = [
            ("figure 2", reproduces, answer(reproduces), measured(reproduces)),
            ("central claim", one, answer(one), measured(one)),
            self.about_coordinates(of),
            self.about_signals(of[hypotheses.SIGNALS], explored),
        ]
        rivals = rows_of(found, family=HYPOTHESIS, question=hypotheses.BASELINE)
        return [
            *(
                Claim(source, row["question"], said, numbers, row["n"], headline=True)
                for source, row, said, numbers in claims
            ),
            strongest(hypotheses.STRONGEST, rivals, rows_of(found, family=HYPOTHESIS)),
        ]

    def about_coordinates(self, of: Mapping[str, Row]) -> tuple[str, Row, str, str]:
        """Scrambled α and one number per leaf belong together: neither says enough alone."""
        scrambled, size = of[hypotheses.WHICH_COORDINATE], of[hypotheses.MORE_THAN_SIZE]
        noise = of[hypotheses.MORE_THAN_NOISE]
        cost = {
            Verdict.BETTER: "scrambling α over the coordinates hurts",
            Verdict.WORSE: "scrambling α over the coordinates helps",
            Verdict.NO_PRACTICAL_DIFFERENCE: "scrambling α over the coordinates changes nothing of "
            "practical size",
            Verdict.NOT_SHOWN: "scrambling α over the coordinates is not shown to hurt",
        }[Verdict(scrambled["verdict"])]
        alone = {
            Verdict.BETTER: "one number per leaf, with the same size of step, does worse",
            Verdict.WORSE: "one number per leaf, with the same size of step, does better",
            Verdict.NO_PRACTICAL_DIFFERENCE: "one number per leaf, with the same size of step, "
            f"does as well (within ±{size['margin']:g} points)",
            Verdict.NOT_SHOWN: "one number per leaf, with the same size of step, is not shown to "
            "do worse",
        }[Verdict(size["verdict"])]
        said = answer(size).partition(":")[0]
        numbers = (
            f"one number per leaf: {measured(size)}; α scrambled: {measured(scrambled)}; "
            f"noise of α's mean and variance: {measured(noise)}"
        )
        row = {**size, "question": OWN_ALPHA}
        return "central claim", row, f"{said}: {cost}, and {alone}", numbers

    def about_signals(self, both: Row, explored: Mapping[str, Row]) -> tuple[str, Row, str, str]:
        """Activity and memory together, and what each adds to the others."""
        parts = {
            arm: explored[arm]
            for arm in ("without_activity", "without_memory", "memory_alone")
            if arm in explored
        }
        said = [f"together {answer(both)}"]
        said += [
            f"{name} {answer(parts[arm])}"
            for name, arm in (("activity", "without_activity"), ("memory", "without_memory"))
            if arm in parts
        ]
        numbers = [f"against {label(both['control'])}: {measured(both)}"]
        numbers += [f"against {label(arm)}: {measured(row)}" for arm, row in parts.items()]
        return "central claim", both, "; ".join(said), "; ".join(numbers)

    def figure(self, found: pd.DataFrame) -> Figure:
        """The full method minus every other arm: above what was written down before, then more."""
        panels = {
            "hypotheses, written down before the run": HYPOTHESIS,
            "exploration: questions that came up afterwards": EXPLORATION,
        }
        tuned = {
            title: sorted(
                rows_of(found, family=family, condition="tuned learning rates"),
                key=lambda row: -row["mean"],
            )
            for title, family in panels.items()
        }
        sizes = [len(rows) + 1.5 for rows in tuned.values() if rows]
        figure, grid = plt.subplots(
            len(sizes),
            1,
            figsize=(8.5, 0.32 * sum(sizes) + 1.6),
            sharex=True,
            squeeze=False,
            layout="constrained",
            height_ratios=sizes,
        )
        for axes, (title, rows) in zip(grid[:, 0], tuned.items(), strict=False):
            plotting.draw_differences(axes, rows)
            axes.set(title=f"{title}\n{could_show(rows)}")
        grey = grid[0, 0].get_legend_handles_labels()
        figure.legend(*grey, frameon=False, fontsize=8, loc="outside lower right")
        grid[-1, 0].set(xlabel=f"full method minus the arm: {self.metric.difference_axis}")
        drawn = "paired by seed (n: seeds), mean and 95% BCa interval"
        figure.suptitle(heading(self, "the full method beside every other arm, all tuned", drawn))
        return figure
