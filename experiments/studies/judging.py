"""Studies that search: what they try, on which workloads, and what a trial is judged by."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeVar

import numpy as np

from experiments.cells import Cell, Workload
from experiments.naming import find_arm
from experiments.schedules import Schedule, judged_by
from experiments.search import (
    NEAR,
    finer_learning_rates,
    near_learning_rates,
    next_learning_rate,
)
from experiments.spaces import Trial
from experiments.studies.base import FIRST_TUNING_SEED, Run, Study, train
from experiments.studies.checks import check_at_least_one
from experiments.summary import sample
from experiments.tasks import find_task
from experiments.tuning import Values

Trained = TypeVar("Trained")
Searched = dict[tuple[Workload, str], dict[float, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Searching(Study):
    """Settings of the studies that choose among learning rates themselves.

    Attributes:
      tuning_seeds: number of training runs per learning rate in the search, on seeds of their own.
    """

    tuning_seeds: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least_one("tuning_seeds", self.tuning_seeds)

    def search_cells(
        self, arm: str, learning_rate: float, workload: Workload | None = None
    ) -> list[Cell]:
        """The training runs that judge one learning rate, on held-out training examples."""
        held_out = dataclasses.replace(workload or self.workload(), split="validation")
        return self.with_seeds(held_out, arm, learning_rate, self.tuning_seeds, FIRST_TUNING_SEED)

    def search(self, run: Run, arms: Iterable[str], workloads: Iterable[Workload]) -> Searched:
        """Three learning rates around each arm's default, more while the best is at an end, finer.

        Args:
          run: trains.
          arms: to search for.
          workloads: each searched on its own.

        Returns:
          Of each workload and arm, what each learning rate gave: higher is better.
        """
        arms = list(arms)
        rates = {
            (workload, arm): near_learning_rates(find_arm(arm).learning_rate)
            for workload in workloads
            for arm in arms
        }
        while True:
            found = self.judge_rates(run, rates)
            more = {key: next_learning_rate(of_key, NEAR) for key, of_key in found.items()}
            if not any(more.values()):
                break
            for key, rate in more.items():
                rates[key] += [rate] if rate else []
        rates = {key: [*tried, *finer_learning_rates(found[key])] for key, tried in rates.items()}
        return self.judge_rates(run, rates)

    def judge_rates(
        self, run: Run, rates: Mapping[tuple[Workload, str], Sequence[float]]
    ) -> Searched:
        """What each learning rate of each workload and arm gave."""
        trials = {
            (workload, arm, rate): self.search_cells(arm, rate, workload)
            for (workload, arm), tried in rates.items()
            for rate in tried
        }
        scores = judge_trials(run, trials, judged_by(self.schedule))
        return {key: {rate: scores[*key, rate] for rate in tried} for key, tried in rates.items()}

    def how_searched(self) -> str:
        """The search in a sentence."""
        when = {"final": "after the last epoch", "late": "over the last three epochs"}
        return (
            "the best of three learning rates around its default, half a decade apart, of further "
            "ones as long as the best lay at an end, and of the two halfway to its neighbours; "
            f"judged {when[judged_by(self.schedule)]} on held-out training examples by the mean of "
            f"{self.tuning_seeds} seeds that no result has"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnTasks(Study):
    """A study on several tasks, each with batches of its own size."""

    def workload_of(self, task: str, *, tuning: bool = False) -> Workload:
        """What the cells of a task share; in tuning, judged on held-out training examples."""
        workload = Workload(task, self.epochs, find_task(task).batch_size)
        return dataclasses.replace(workload, split="validation") if tuning else workload


def judge(
    run: Run, trials: Mapping[tuple[str, str, Trial], Sequence[Cell]], schedule: Schedule
) -> Values:
    """What each trial gave per tuning seed, higher is better.

    Args:
      run: trains.
      trials: the training runs of each task, arm and trial, on held-out training examples.
      schedule: how the learning rate goes over training.
    """
    _, parts = train(run, trials)
    values: Values = {}
    for (task, arm, trial), rows in parts.items():
        by_seed = sample(rows, judged_by(schedule)).by_seed
        values.setdefault((task, arm), {})[trial] = np.asarray(by_seed, np.float64)
    return values


def judge_trials(
    run: Run, trials: Mapping[Trained, list[Cell]], column: Literal["final", "late"] = "final"
) -> dict[Trained, float]:
    """Mean result of each trial's training runs: higher is better."""
    _, parts = train(run, trials)
    return {trial: sample(rows, column).by_seed.mean() for trial, rows in parts.items()}
