"""Does any plasticity earn its place? Families of it, each searched as its own base is."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import pandas as pd

from experiments import comparisons, spaces
from experiments.cells import Cell
from experiments.comparisons import Verdict, rows_of
from experiments.naming import label
from experiments.schedules import Schedule
from experiments.spaces import LEARNING_RATE, Space, Trial
from experiments.studies import families_figures as figures
from experiments.studies import leaderboard_tables as tables
from experiments.studies.base import FIGURE, FIRST_TUNING_SEED, Arms, Run, Sizes, TaskName, train
from experiments.studies.checks import check_at_least_one, check_known
from experiments.studies.families_questions import (
    CONFIRMATORY,
    ELSEWHERE,
    FLOOR,
    LATE,
    explanations,
    hypotheses,
    placebos_of,
    where_better,
)
from experiments.studies.findings import Claim, Findings, compared
from experiments.studies.judging import OnTasks, judge
from experiments.summary import sample, summarise
from experiments.tables import Table, markdown_table, mean_and_sd
from experiments.tasks import find_task
from experiments.trials import Chosen, choose
from experiments.tuning import Key, Search, Values, halve, results, search

SEARCH, WHY = "search.png", "placebos.png"
ENOUGH_TASKS = 2  # on which a family is better than its base: then it is recommended
NEAR = 8.0  # how far from what was selected the search of a further task's learning rate goes
SMALL = ("mnist_small", "mnist_autoencoder_small", "cifar10_small", "python_source_small")

# What is searched of plasticity, beside the learning rate and the weight decay.
PLASTICITY = (
    "memory_share=linear(0, 1)",
    "activity_share=linear(0, 1)",
    "strength=log(0.1, 3)",
    "max_ratio=log(0.1, 3)",
    "min_alpha=linear(0, 0.9)",
    "max_alpha=linear(1.1, 4)",
    "memory_decay=linear(0.9, 0.999)",
)


class Family(NamedTuple):
    """What plasticity is around, and what is searched of it alone."""

    base: str
    search: tuple[str, ...]


FAMILIES = {
    "plastic_adam": Family("adamw", ("b1=linear(0.8, 0.98)", "b2=linear(0.9, 0.999)")),
    "plastic_momentum": Family("sgdw", ("decay=linear(0.8, 0.98)",)),
    "plastic_muon": Family("muon", ("beta=linear(0.8, 0.98)",)),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Families(OnTasks):
    """Does any plasticity earn its place? A search for one that does.

    Families of plasticity around an optimizer, and the optimizer alone, get the same number of
    quasi-random trials over their own settings on held-out training examples: all on one seed, the
    best of them on more. The winner of each then runs beside its base and two placebos on fresh
    seeds and the test examples; on further tasks its settings stay and only the rate is tuned, and
    where it is better than its base there, the placebos run there too.

    Attributes:
      arms: the families.
      further: tasks on which the settings that were selected are tried.
      budget: number of trials per arm.
      kept: number of trials of the second round.
      tuning_seeds: number of training runs of each of those.
      rates: number of learning rates per arm on a further task.
      further_seeds: number of training runs per arm on a further task.
    """

    name = "families"
    sizes: ClassVar[Sizes] = {
        "smoke": {
            "task": "mnist5k",
            "arms": ("plastic_adam",),
            "seeds": 2,
            "epochs": 1,
            "budget": 3,
            "kept": 2,
            "tuning_seeds": 1,
            "rates": 2,
            "further_seeds": 2,
        },
        "cpu": {
            "task": "fashion_mnist_small",
            "further": SMALL,
        },
    }

    chosen_freely: ClassVar[tuple[str, ...]] = ("task", "arms", "further")

    task: TaskName = "fashion_mnist"
    arms: Arms = tuple(FAMILIES)
    further: tuple[str, ...] = ()
    schedule: Schedule = "cosine"
    seeds: int = 20
    budget: int = 64
    kept: int = 16
    tuning_seeds: int = 3
    rates: int = 6
    further_seeds: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        check_known("families as arms,", self.arms, tuple(FAMILIES))
        for name in ("budget", "kept", "tuning_seeds", "rates", "further_seeds"):
            check_at_least_one(name, getattr(self, name))
        for task in self.further:
            find_task(task)

    @classmethod
    def variable_on_record(cls, rows: pd.DataFrame) -> dict[str, Any]:
        """The families, the further tasks, and the seeds of the first one."""
        first, *further = rows["task"].unique()
        return {
            "arms": tuple(name for name in FAMILIES if (rows["arm"] == name).any()),
            "further": tuple(further),
            "seeds": rows.loc[rows["task"] == first, "seed"].nunique(),
        }

    def configuration(self) -> dict[str, Any]:
        """The settings that must stay the same: the budget too; further tasks may be added."""
        return {**super().configuration(), "budget": self.budget}

    @property
    def title(self) -> str:
        """The families and the tasks, as readers know them."""
        arms, tasks = map(label, self.arms), (find_task(task).title for task in self.tasks)
        return f"{' and '.join(arms)}, on {'; '.join(tasks)}"

    @property
    def competitors(self) -> tuple[str, ...]:
        """Every family and its base."""
        return tuple(name for arm in self.arms for name in (arm, FAMILIES[arm].base))

    def ranges(self) -> dict[Key, dict[str, Space]]:
        """What the search varies of each arm."""
        found = {}
        for arm in self.arms:
            base, own = FAMILIES[arm]
            for name, asked in ((arm, PLASTICITY), (base, own)):
                found[self.task, name] = spaces.spaces_of(name, spaces.parse(asked))
        return found

    def run(self, run: Run, source: str) -> Findings:
        """Searches, then trains the winners, their bases and placebos on fresh seeds."""
        tried, first, left, second = halve(
            lambda tried, seeds: self.judge(run, tried, seeds, {}),
            self.ranges(),
            self.budget,
            self.kept,
            self.tuning_seeds,
        )
        chosen = {key: choose(left[key], results(left, second, key)) for key in left}
        rates, of_rates = self.search_rates(run, chosen)
        chosen |= {key: choose(rates[key], results(rates, of_rates, key)) for key in rates}
        rows, parts = train(run, self.final_cells(chosen, self.finalists()))
        asked = list(hypotheses(parts, self.tasks, self.pairs))
        won = where_better(comparisons.table(asked), self.further, self.pairs)
        if won:
            names = {(task, arm): [*placebos_of(arm)] for task, arm in won}
            of_placebos, placebos = train(run, self.final_cells(chosen, names))
            rows = pd.concat([rows, of_placebos])
            asked += explanations({**parts, **placebos}, won)
        found = comparisons.table(asked)
        budget = tables.budget_table(tried, first, self.budget)
        table = self.table(parts, found)
        return Findings(
            table,
            summarise(rows, ["task", "arm", "learning_rate", "split"]),
            found,
            {
                FIGURE: figures.differences(found, self.tasks, CONFIRMATORY),
                SEARCH: figures.search(budget, self.pairs),
                **({WHY: figures.differences(found, [*dict(won)], ELSEWHERE)} if won else {}),
            },
            self.report(chosen, found, table, source),
            tables.selections_table(chosen),
            {
                "trials.csv": pd.concat(
                    [
                        tables.trials_table(tried, {k: first[k] | second[k] for k in tried}),
                        tables.trials_table(rates, of_rates),
                    ]
                ),
                "budget.csv": budget,
            },
        )

    @property
    def tasks(self) -> tuple[str, ...]:
        """The one of the search, and the further ones."""
        return (self.task, *self.further)

    @property
    def pairs(self) -> dict[str, str]:
        """The base of each family."""
        return {arm: FAMILIES[arm].base for arm in self.arms}

    def judge(
        self,
        run: Run,
        tried: Search,
        seeds: int,
        frozen: Mapping[str, Trial],
    ) -> Values:
        """What each trial gave on held-out training examples, higher is better.

        Args:
          run: trains.
          tried: trials of each task and arm.
          seeds: training runs per trial.
          frozen: of an arm, the settings that are not searched.
        """
        plan = {
            (task, arm, trial): self.with_seeds(
                self.workload_of(task, tuning=True),
                arm,
                trial.learning_rate,
                seeds,
                FIRST_TUNING_SEED,
                frozen.get(arm, trial).settings,
            )
            for (task, arm), trials in tried.items()
            for trial in trials
        }
        return judge(run, plan, self.schedule)

    def search_rates(self, run: Run, chosen: Mapping[Key, Chosen]) -> tuple[Search, Values]:
        """The learning rate of each arm on each further task; its other settings stay."""
        frozen = {arm: found.best for (_, arm), found in chosen.items()}
        ranges = {
            (task, arm): {LEARNING_RATE: Space(rate / NEAR, rate * NEAR)}
            for task in self.further
            for arm in self.competitors
            for rate in [frozen[arm].learning_rate]
        }
        if not ranges:
            return {}, {}
        return search(
            lambda tried: self.judge(run, tried, self.tuning_seeds, frozen),
            ranges,
            self.rates,
        )

    def finalists(self) -> dict[Key, list[str]]:
        """The names under which an arm runs on fresh seeds: on the first task as placebos too."""
        names = {(task, arm): [arm] for task in self.tasks for arm in self.competitors}
        for arm in self.arms:
            names[self.task, arm] += placebos_of(arm)
        names[self.task, self.competitors[0]] += [f"perturbed({self.competitors[0]})"]
        return names

    def final_cells(
        self, chosen: Mapping[Key, Chosen], names: Mapping[Key, list[str]]
    ) -> dict[Key, list[Cell]]:
        """Training runs on fresh seeds at what was chosen, the first task's settings on all."""
        return {
            (task, name): self.with_seeds(
                self.workload_of(task),
                name,
                chosen[task, arm].best.learning_rate,
                self.seeds if task == self.task else self.further_seeds,
                0,
                chosen[self.task, arm].best.settings,
            )
            for (task, arm), named in names.items()
            for name in named
        }

    def table(self, parts: Mapping[Key, pd.DataFrame], found: pd.DataFrame) -> Table:
        """One row per task and arm, families beside their bases."""
        table = [["task", "arm", "result", "against its base"]]
        for task in self.tasks:
            for arm in self.competitors:
                values = find_task(task).metric.sign * sample(parts[task, arm]).by_seed
                verdicts = [
                    row["verdict"]
                    for row in rows_of(
                        found,
                        family=CONFIRMATORY,
                        condition=find_task(task).title,
                        treatment=arm,
                        control=self.pairs.get(arm, ""),
                    )
                ]
                table.append(
                    [
                        find_task(task).title,
                        label(arm),
                        mean_and_sd(values.mean(), values.std(), 2),
                        *(verdicts or [""]),
                    ]
                )
        return table

    def report(
        self,
        chosen: Mapping[Key, Chosen],
        found: pd.DataFrame,
        table: Table,
        source: str,
    ) -> list[str]:
        """The page, which begins with the answer."""
        answer = self.claims(found)[0].answer
        return [
            "Does any plasticity earn its place?",
            f"{answer[:1].upper()}{answer[1:]}.",
            f"Each family and each base had {self.budget} quasi-random trials on "
            f"{find_task(self.task).title}, judged after the last epoch on held-out training "
            f"examples: all on one seed, the best {self.kept} of them on {self.tuning_seeds}. What "
            f"won ran on {self.seeds} fresh seeds and the test examples. On further tasks only the "
            f"learning rate was tuned, "
            f"{self.rates} of them per arm; {self.further_seeds} seeds. {self.epochs} epochs, "
            f"{self.schedule} learning rate. Data of the search: {source}.",
            f"![families against their bases]({FIGURE})",
            markdown_table(table),
            "## Written down before",
            *compared(found, CONFIRMATORY),
            "## The noise floor",
            *compared(found, FLOOR),
            "## Exploration",
            "The mean of the last three epochs in place of the last one:",
            *compared(found, LATE),
            *(
                [
                    "Families beside their placebos on the further tasks where they are better "
                    "than their bases, asked after that was seen:",
                    f"![families against their placebos]({WHY})",
                    *compared(found, ELSEWHERE),
                ]
                if (found["family"] == ELSEWHERE).any()
                else []
            ),
            "## The search",
            f"![what fewer trials would have found]({SEARCH})",
            markdown_table(tables.search_table(chosen)),
            "*Sure*: the bootstrap probability over the tuning seeds that the chosen trial is the "
            "best of the second round. *At an edge*: settings whose best value is the lowest or "
            "the highest of that round.",
        ]

    def claims(self, found: pd.DataFrame) -> list[Claim]:
        """Whether a family earned its place, and each of the comparisons."""
        rows = rows_of(found, family=CONFIRMATORY)
        against_base = [row for row in rows if row["control"] == self.pairs[row["treatment"]]]
        better = [row for row in against_base if row["verdict"] == Verdict.BETTER]
        earned = [
            label(arm)
            for arm in self.arms
            if sum(row["treatment"] == arm for row in better) >= ENOUGH_TASKS
        ]
        most = max(against_base, key=lambda row: row["interval_high"] / row["margin"])
        said = (
            f"yes: {', '.join(earned)}, better than the base on {ENOUGH_TASKS} tasks or more"
            if earned
            else f"no: none is better than its base on {ENOUGH_TASKS} tasks or more"
        )
        return [
            Claim(
                "the search",
                "Does any plasticity earn its place?",
                said,
                f"better than its base in {len(better)} of {len(against_base)} comparisons; the "
                f"largest gain still compatible with the data is {most['interval_high']:.2f} "
                f"({label(most['treatment'])}, {most['condition']})",
                min(row["n"] for row in against_base),
                headline=True,
            ),
            *(Claim.of("the search", row, data=row["condition"]) for row in rows),
        ]
