"""What a step of training takes, measured for several optimizers in turns."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from experiments.mesh import make_mesh
from experiments.optimizers import Factory
from experiments.schedules import Schedule
from experiments.train import Arrays, Problem, Program

STEP_TIMES = "step_times.csv"
TIMED = ("task", "batch_size", "examples", "arm", "seconds")  # its columns
STEPS = 20  # in a row, between two looks at the clock
ROUNDS = 7


def step_seconds(
    problem: Problem,
    examples: Arrays,
    optimizers: Mapping[str, tuple[Factory, float]],
    *,
    schedule: Schedule,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Seconds per step of each optimizer, on one device: the median of rounds in turns.

    A slow moment of a shared machine then slows all of them, and their ratios stay.

    Args:
      problem: what is trained.
      examples: at least one; a few batches are taken of them.
      optimizers: factory and learning rate, by name.
      schedule: how the learning rate goes over training.
      advance: called after each optimizer is compiled.
    """
    size = STEPS * problem.batch_size
    few = jax.tree.map(lambda x: np.resize(x, (size, *x.shape[1:])), examples)
    evaluated = jax.tree.map(lambda x: x[:1], few)
    mesh = make_mesh(devices=jax.devices()[:1])
    seeds = np.zeros(1, np.int64)
    runs: dict[str, tuple[Program, np.ndarray[Any, Any], Any]] = {}
    for name, (factory, rate) in optimizers.items():
        program = Program(problem, factory, few, evaluated, epochs=1, schedule=schedule, mesh=mesh)
        rates = np.full(1, rate)
        state, _ = program.train_epoch(program.init(seeds, rates), seeds, rates)
        runs[name] = program, rates, jax.block_until_ready(state)
        advance()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, (program, rates, state) in runs.items():
            start = time.perf_counter()
            after, _ = jax.block_until_ready(program.train_epoch(state, seeds, rates))
            seconds[name].append((time.perf_counter() - start) / STEPS)
            runs[name] = program, rates, after
    return {name: statistics.median(taken) for name, taken in seconds.items()}
