"""Studies that search on several tasks: their workloads, and what a trial is judged by."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.cells import Cell, Workload
from experiments.schedules import Schedule, judged_by
from experiments.spaces import Trial
from experiments.studies.base import Run, Study, train
from experiments.summary import sample
from experiments.tasks import find_task
from experiments.tuning import Values


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
