"""The leaderboard: any optimizers on any tasks, tuned alike and compared with a reference."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import tyro

from experiments import comparisons, foreign, scores, spaces
from experiments.cells import Cell, ConfigError, Workload
from experiments.comparisons import Verdict, compare, rows_of
from experiments.naming import find_arm, label
from experiments.schedules import Schedule, judged_by
from experiments.spaces import Trial
from experiments.studies import leaderboard_figures as figures
from experiments.studies import leaderboard_tables as tables
from experiments.studies.base import (
    FIGURE,
    FIRST_TUNING_SEED,
    Arms,
    Run,
    Sizes,
    default_folder,
    train,
)
from experiments.studies.checks import check_at_least_one
from experiments.studies.findings import ORDER, Claim, Findings, against_one, compared
from experiments.studies.judging import OnTasks, judge
from experiments.summary import sample, summarise
from experiments.tables import Table, markdown_table, mean_and_sd
from experiments.tasks import TASKS, find_task
from experiments.trials import Chosen, choose
from experiments.tuning import Search, Values, results, search

CONFIRMATORY, RUNNER_UP, FLOOR = "hypotheses", "runner-up", "noise floor"
LATE = "mean of the last three epochs"
PROFILES = "profiles.png"

Part = tuple[str, str, str]  # of the final runs: which trial, task and arm


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leaderboard(OnTasks):
    """Any optimizers on any tasks: tuned alike, run on fresh seeds, compared with a reference.

    Every arm gets the same number of trials on each task, over its learning rate, its weight decay
    where it has one, and what --search names, and is judged on held-out training examples. The best
    trial then runs on fresh seeds and the test examples, and so does the runner-up.

    Attributes:
      tasks: names of the tasks, or path/to/file.py:make.
      reference: the arm that the others are compared with; without it, the first one.
      budget: number of trials per arm and task; more only where the best one is at an edge.
      tuning_seeds: number of training runs per trial, on seeds of their own.
      runner_up_seeds: number of training runs of each arm's second best trial.
      search: ranges in place of the arms' own, such as 'learning_rate=log(1e-4, 1)' and
        'b1=linear(.8, .99)'; an arm without a setting does without its range.
      floor: run the reference beside itself, its first step perturbed by one rounding error.
    """

    name = "leaderboard"
    sizes: ClassVar[Sizes] = {
        "smoke": {
            "arms": ("full", "optax:adam"),
            "seeds": 2,
            "epochs": 1,
            "budget": 2,
            "tuning_seeds": 1,
            "runner_up_seeds": 1,
            "floor": False,
        },
        "cpu": {"seeds": 8, "epochs": 5, "budget": 6, "tuning_seeds": 2, "runner_up_seeds": 3},
    }

    chosen_freely = ("task", "tasks", "arms")

    task: tyro.conf.Suppress[str] = "mnist5k"  # in place of both: tasks
    batch_size: tyro.conf.Suppress[int] = 128
    tasks: tuple[str, ...] = ("mnist5k",)
    arms: Arms = ("full", "momentum", "adam", "adamw", "optax:lion", "optax.contrib:muon")
    reference: str = ""
    schedule: Schedule = "cosine"
    seeds: int = 10
    budget: int = 12
    tuning_seeds: int = 3
    runner_up_seeds: int = 5
    search: tuple[str, ...] = ()
    floor: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("budget", "tuning_seeds", "runner_up_seeds"):
            check_at_least_one(name, getattr(self, name))
        if not self.tasks:
            raise ConfigError(f"tasks must not be empty; known are {', '.join(TASKS)}.")
        for task in self.tasks:
            find_task(task)
        if self.reference and self.reference not in self.arms:
            raise ConfigError(
                f"reference must be one of the arms {' '.join(self.arms)}, got {self.reference!r}."
            )
        asked = spaces.parse(self.search)
        for name in asked:
            if not any(name in spaces.spaces_of(arm, asked) for arm in self.arms):
                raise ConfigError(f"search: none of the arms has a setting {name!r}.")

    def check_optimizers(self) -> None:
        """Traces all optimizers, the settings that are searched too."""
        asked = spaces.parse(self.search)
        for arm in self.arms:
            searched = sorted(spaces.spaces_of(arm, asked).keys() - {spaces.LEARNING_RATE})
            make = find_arm(arm).make
            foreign.check(arm, make, schedule=self.schedule, searched=tuple(searched))

    @classmethod
    def variable_on_record(cls, rows: pd.DataFrame) -> dict[str, Any]:
        """The tasks, the arms without the noise floor's, and the seeds of the best trials."""
        arms = [arm for arm in rows["arm"].unique() if not arm.startswith("perturbed(")]
        tasks = tuple(rows["task"].unique())
        return {"tasks": tasks, "arms": tuple(arms), "seeds": rows["seed"].nunique()}

    def configuration(self) -> dict[str, Any]:
        """The settings that must stay the same: the budget too; tasks may be added."""
        return {**super().configuration(), "budget": self.budget}

    @property
    def folder(self) -> Path:
        """Where its records are."""
        return self.out or default_folder(self.name, "-".join(self.tasks))

    @property
    def title(self) -> str:
        """The tasks, as readers know them."""
        return "; ".join(find_task(task).title for task in self.tasks)

    @property
    def against(self) -> str:
        """The arm that the others are compared with."""
        return self.reference or self.arms[0]

    def workload(self) -> Workload:
        """That of the first task."""
        return self.workload_of(self.tasks[0])

    def run(self, run: Run, source: str) -> Findings:
        """Searches, then trains the best trials and the runners-up on fresh seeds."""
        del source  # the manifest names those of all tasks
        keys = [(task, arm) for task in self.tasks for arm in self.arms]
        asked = spaces.parse(self.search)
        ranges = {key: spaces.spaces_of(key[1], asked) for key in keys}
        tried, values = search(functools.partial(self.judge, run), ranges, self.budget)
        chosen = {key: choose(tried[key], results(tried, values, key)) for key in keys}
        plan = self.trained(chosen)
        rows, parts = train(run, plan)
        found = comparisons.table(self.compare(parts))
        first = [plan[("best", task, arm)][0] for task in self.tasks for arm in self.arms]
        ranked = self.ranked(parts, chosen, run.step_times(first))
        budget = tables.budget_table(tried, values, self.budget)
        table = self.table(ranked, found)
        report = self.report(chosen, ranked, found, table)
        drawn = {
            FIGURE: figures.differences(found, self.tasks, self.against, CONFIRMATORY),
            PROFILES: figures.profiles(ranked, self.points(parts), budget),
        }
        return Findings(
            table,
            summarise(rows, ["task", "arm", "learning_rate", "split"]),
            found,
            drawn,
            report,
            tables.selections_table(chosen),
            {
                "trials.csv": tables.trials_table(tried, values),
                "budget.csv": budget,
                "leaderboard.csv": ranked,
            },
        )

    def judge(self, run: Run, tried: Search) -> Values:
        """What each trial gave on held-out training examples, higher is better."""
        plan = {
            (task, arm, trial): self.cells_of(task, arm, trial, self.tuning_seeds, tuning=True)
            for (task, arm), trials in tried.items()
            for trial in trials
        }
        return judge(run, plan, self.schedule)

    def cells_of(
        self, task: str, arm: str, trial: Trial, number: int, *, tuning: bool = False
    ) -> list[Cell]:
        """The training runs of one trial."""
        return self.with_seeds(
            self.workload_of(task, tuning=tuning),
            arm,
            trial.learning_rate,
            number,
            FIRST_TUNING_SEED if tuning else 0,
            trial.settings,
        )

    def trained(self, chosen: Mapping[tuple[str, str], Chosen]) -> dict[Part, list[Cell]]:
        """The final training runs: of the best trials, of the runners-up, and the noise floor."""
        plan: dict[Part, list[Cell]] = {}
        number = min(self.runner_up_seeds, self.seeds)
        for (task, arm), found in chosen.items():  # an arm's own beside each other: one program
            plan["best", task, arm] = self.cells_of(task, arm, found.best, self.seeds)
            plan["runner-up", task, arm] = self.cells_of(task, arm, found.runner_up, number)
            if self.floor and arm == self.against:
                again = f"perturbed({arm})"
                plan["floor", task, again] = self.cells_of(task, again, found.best, self.seeds)
        return plan

    def compare(self, parts: Mapping[Part, pd.DataFrame]) -> Iterator[dict[str, Any]]:
        """Every arm against the reference on every task; then what else bears on it."""
        others = [arm for arm in self.arms if arm != self.against]
        for family, kind, column in (
            (CONFIRMATORY, "best", "final"),
            (LATE, "best", "late"),
            (RUNNER_UP, "runner-up", "final"),
        ):
            for task in self.tasks:
                reference = sample(parts["best", task, self.against], column)
                for arm in others:
                    yield compare(
                        f"Is {label(arm)} better than {label(self.against)}?",
                        sample(parts[kind, task, arm], column),
                        reference,
                        family=family,
                        condition=find_task(task).title,
                    )
        for kind, task, arm in parts:
            if kind == "floor":
                yield compare(
                    "Is an optimizer better than itself, perturbed by one rounding error?",
                    sample(parts["best", task, self.against]),
                    sample(parts[kind, task, arm]),
                    family=FLOOR,
                    condition=find_task(task).title,
                )

    def ranked(
        self,
        parts: Mapping[Part, pd.DataFrame],
        chosen: Mapping[tuple[str, str], Chosen],
        times: pd.DataFrame,
    ) -> pd.DataFrame:
        """One row per task and arm: results, and steps and seconds to the task's target.

        The target is the task's share of what the reference's best trial gave on held-out
        examples: it is fixed before the runs that are judged by it.
        """
        rows = []
        for task in self.tasks:
            of = find_task(task)
            tuned = of.metric.sign * chosen[task, self.against].score
            target = tuned * of.target if of.metric.higher_is_better else tuned / of.target
            for arm in self.arms:
                runs = parts["best", task, arm]
                by_epoch = runs.pivot(index="seed", columns="epoch", values=of.metric.column)
                epochs = [
                    scores.epochs_to(of.metric.sign * target, line)
                    for line in of.metric.sign * of.metric.scale * by_epoch.to_numpy()
                ]
                mine = times[(times["task"] == task) & (times["arm"] == arm)].iloc[0]
                per_epoch = math.ceil(mine["examples"] / mine["batch_size"])
                steps = float(np.median(epochs)) * per_epoch
                final = of.metric.sign * sample(runs).by_seed
                late = of.metric.sign * sample(runs, "late").by_seed
                rows.append(
                    {
                        "task": task,
                        "arm": arm,
                        "trial": str(chosen[task, arm].best),
                        "n": len(final),
                        "final": final.mean(),
                        "final_sd": final.std(),
                        "late": late.mean(),
                        "target": target,
                        "steps": steps,
                        "reached": int(np.isfinite(epochs).sum()),
                        "step_seconds": mine["seconds"],
                        "seconds": steps * mine["seconds"],
                    }
                )
        return pd.DataFrame(rows)

    def points(self, parts: Mapping[Part, pd.DataFrame]) -> pd.DataFrame:
        """One value per task, arm and seed, higher is better."""
        return pd.concat(
            sample(rows).by_seed.rename("value").reset_index().assign(task=task, arm=arm)
            for (kind, task, arm), rows in parts.items()
            if kind == "best"
        )

    def table(self, ranked: pd.DataFrame, found: pd.DataFrame) -> Table:
        """One row per arm: its result on each task, wins and losses after Holm."""
        titles = [f"{find_task(task).title}, {find_task(task).metric.axis}" for task in self.tasks]
        table = [["arm", *titles, "wins", "losses", "equal", "not shown"]]
        for arm in self.arms:
            verdicts = [
                Verdict(row["verdict"])
                for row in rows_of(found, family=CONFIRMATORY, treatment=arm)
            ]
            of_arm = ranked[ranked["arm"] == arm]
            counted = (
                ["reference", "", "", ""]
                if arm == self.against
                else [str(verdicts.count(verdict)) for verdict in ORDER]
            )
            table.append(
                [
                    label(arm),
                    *(
                        mean_and_sd(row["final"], row["final_sd"], 2)
                        for row in of_arm.to_dict("records")
                    ),
                    *counted,
                ]
            )
        return table

    def report(
        self,
        chosen: Mapping[tuple[str, str], Chosen],
        ranked: pd.DataFrame,
        found: pd.DataFrame,
        table: Table,
    ) -> list[str]:
        """The page, which begins with what its two figures show."""
        judged = {
            "final": "after the last epoch",
            "late": "over the last three epochs",
        }[judged_by(self.schedule)]
        sections = [
            "Leaderboard",
            f"Each arm had {self.budget} trials on each task, judged {judged} on held-out training "
            f"examples by the mean of {self.tuning_seeds} tuning seeds; more only where the best "
            f"one lay at an edge. {self.epochs} epochs, {self.schedule} learning rate. The best "
            f"trial ran on {self.seeds} fresh seeds and the test examples; the differences are "
            f"paired by seed. Reference: {label(self.against)}.",
            f"![differences to the reference]({FIGURE})",
            markdown_table(table),
            "Wins and losses are after Holm over all arms and tasks.",
            "## Written down before",
            f"Every arm against {label(self.against)} on every task, at the best trial of each:",
            *compared(found, CONFIRMATORY),
        ]
        if rows_of(found, family=FLOOR):
            sections += [
                "## The noise floor",
                "The reference beside itself, its first step larger by one rounding error. What is "
                "seen here is what chance makes of one and the same optimizer.",
                *compared(found, FLOOR),
            ]
        return [
            *sections,
            "## Exploration",
            "The mean of the last three epochs in place of the last one:",
            *compared(found, LATE),
            f"Every other arm's second best trial against {label(self.against)} at its best one, "
            "for how much hangs on the selection:",
            *compared(found, RUNNER_UP),
            "## Steps to the target, and scores over all tasks",
            f"![profiles, scores and budgets]({PROFILES})",
            markdown_table(tables.steps_table(ranked)),
            "The target is a share of what the reference's best trial gave on held-out examples, "
            "fixed before these runs. *Steps*: the median over seeds, in whole epochs; — where "
            "most seeds did not reach it. *Seconds*: steps times the time of a step, measured for "
            "all arms in turns on one device.",
            "## The search",
            markdown_table(tables.search_table(chosen)),
            tables.SURE,
        ]

    def claims(self, found: pd.DataFrame) -> list[Claim]:
        """What the paper did not look at: all arms of a task, and each, against the reference."""
        rows = rows_of(found, family=CONFIRMATORY)
        question = f"Are other optimizers better than {label(self.against)}, all tuned alike?"
        return [
            *(
                against_one(question, of_task, find_task(task).title)
                for task in self.tasks
                if (of_task := [r for r in rows if r["condition"] == find_task(task).title])
            ),
            *(Claim.of("not in the paper", row, data=row["condition"]) for row in rows),
        ]
