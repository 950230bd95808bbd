"""All that is to be measured on a lent accelerator, in parts that go on where they were stopped."""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from rich.console import Console

from benchmarks import harness
from experiments.cells import ConfigError
from experiments.records import write_atomically
from experiments.tables import Table, markdown_table, show

DONE = "done.json"
LEAVE = 30  # seconds that a part is given to write what it has, before it is ended
SHORTEST = 60  # seconds; with less left, no other part is begun


@dataclasses.dataclass(frozen=True)
class Part:
    """A command with a folder of its own; with the same folder it goes on where it was.

    Attributes:
      module: what ``python -m`` runs.
      presets: its preset for each of ours.
      arguments: what else it is told.
    """

    module: str
    presets: dict[harness.Preset, str]
    arguments: tuple[str, ...] = ()

    def command(self, preset: harness.Preset, folder: Path) -> list[str]:
        """The whole command."""
        options = ["--preset", self.presets[preset], "--out", str(folder)]
        return [sys.executable, "-m", self.module, *self.arguments, *options]


SELECTED = "docs/results/selection-mnist"  # in a clone; figure 5 takes its settings from there
SAME: dict[harness.Preset, str] = {"default": "default", "smoke": "smoke"}
STUDY: dict[harness.Preset, str] = {"default": "paper", "smoke": "smoke"}
PARTS = {
    "step": Part("benchmarks.step", SAME, ("--go-on",)),
    "train": Part("benchmarks.train", SAME, ("--go-on",)),
    "figure4": Part("experiments", STUDY, ("optimizers",)),
    "figure5": Part("experiments", STUDY, ("transfer", "--tuned", SELECTED)),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Measures on whatever device JAX finds first: steps, training, then figures 4 and 5.

    Call it again until it says that nothing is left; parts that are done are not done again.

    Attributes:
      preset: "smoke" takes the smallest size of everything, to see that it works.
      minutes: how long this call may take; what is then unfinished is stopped, and goes on in the
        next call: a study from its records, a benchmark from the tables that it wrote.
      parts: which parts, in their order; all where none is named.
      out: folder for the folders of the parts and the report.
    """

    preset: harness.Preset = "default"
    minutes: float = 9.0
    parts: tuple[str, ...] = ()
    out: Path = Path("results/benchmarks-gpu")

    def __post_init__(self) -> None:
        for part in self.parts:
            if part not in PARTS:
                raise ConfigError(f"parts must be of {', '.join(PARTS)}, got {part!r}.")
        if self.minutes <= 0:
            raise ConfigError(f"minutes must be above 0, got {self.minutes}.")


@dataclasses.dataclass(frozen=True)
class Goal:
    """What a number of the records should be.

    Attributes:
      title: what is measured.
      file: the table that holds it, relative to the folder of all parts.
      value: reads it; None where the table does not have it.
      wanted: the number to reach.
      at_most: whether less is better.
      form: how the number is written.
    """

    title: str
    file: str
    value: Callable[[pd.DataFrame], float | None]
    wanted: float
    at_most: bool
    form: str

    def row(self, folder: Path) -> list[str]:
        """Title, number, goal, and whether it is reached."""
        path = folder / self.file
        value = self.value(pd.read_csv(path)) if path.exists() else None
        sign = "≤" if self.at_most else "≥"
        goal = f"{sign} {self.form.format(self.wanted)}"
        if value is None:
            return [self.title, "not measured", goal, ""]
        reached = value <= self.wanted if self.at_most else value >= self.wanted
        return [self.title, self.form.format(value), goal, "yes" if reached else "no"]


def share_of_copy(step: pd.DataFrame) -> float | None:
    """The full method's bytes per second on one large leaf, relative to a copy in place."""
    found = step.query("tree == 'leaf' and optimizer == 'full' and donated")
    return None if found.empty else float(found["bandwidth_share"].iloc[0])


def images_per_second(throughput: pd.DataFrame) -> float | None:
    """Of ResNet-18 with activations in bfloat16, one seed, the fastest way."""
    of = throughput["model"].str.startswith("ResNet") & throughput["model"].str.contains("bfloat16")
    found = throughput[of & (throughput["seeds"] == 1)]
    return None if found.empty else float(found["images_per_second"].max())


def added_to_momentum(optimizers: pd.DataFrame) -> float | None:
    """What the full method adds to a training step of ResNet-18 with SGD momentum."""
    found = optimizers[optimizers["model"].str.startswith("ResNet") & (optimizers["arm"] == "full")]
    return None if found.empty else float(found["ratio_to_momentum"].iloc[0]) - 1


def time_of_64_seeds(throughput: pd.DataFrame) -> float | None:
    """Of the MLP's 64 seeds together, relative to the time of one."""
    best = (
        throughput[throughput["model"].str.startswith("MLP")]
        .groupby("seeds")["images_per_second"]
        .max()
    )
    return None if 64 not in best.index else float(64 * best[1] / best[64])


GOALS = (
    Goal(
        "share of the copy's speed, one leaf",
        "step/step.csv",
        share_of_copy,
        0.85,
        False,
        "{:.0%}",
    ),
    Goal(
        "ResNet-18 in bfloat16, images per second",
        "train/throughput.csv",
        images_per_second,
        40e3,
        False,
        "{:,.0f}",
    ),
    Goal(
        "added to SGD momentum, ResNet-18",
        "train/optimizers.csv",
        added_to_momentum,
        0.05,
        True,
        "{:.1%}",
    ),
    Goal(
        "64 seeds of the MLP, in times of one",
        "train/throughput.csv",
        time_of_64_seeds,
        8,
        True,
        "{:.1f}",
    ),
)


def goal_table(folder: Path) -> Table:
    """What is measured so far, beside the goals."""
    return [["", "measured", "goal", "reached"], *(goal.row(folder) for goal in GOALS)]


def run_part(command: list[str], seconds: float) -> bool | None:
    """Whether a command succeeded; None where its time was over."""
    process = subprocess.Popen(command)
    try:
        return process.wait(max(seconds - LEAVE, 1)) == 0
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(LEAVE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return None


def run(config: Config, console: Console) -> None:
    """Runs what is not done yet, as far as the time allows, and reports."""
    harness.prepare(config.out, "gpu")
    end = time.monotonic() + 60 * config.minutes
    path = config.out / DONE
    done: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    wanted = config.parts or tuple(PARTS)
    for name in wanted:
        left = end - time.monotonic()
        if done.get(name) == "done" or left < min(SHORTEST, 60 * config.minutes / 2):
            continue
        console.print(f"{name}: {left:.0f} s left")
        succeeded = run_part(PARTS[name].command(config.preset, config.out / name), left)
        done[name] = {True: "done", False: "failed", None: "stopped"}[succeeded]
        write_atomically(path, json.dumps(done, indent=2) + "\n")
    _report(config, done, console)
    rest = [name for name in wanted if done.get(name) != "done"]
    left_over = f"not done: {', '.join(rest)}; call it again" if rest else "nothing is left"
    console.print(f"{config.out}: {left_over}.", soft_wrap=True)


def _report(config: Config, done: dict[str, str], console: Console) -> None:
    manifest = harness.make_manifest("gpu", config)
    write_atomically(config.out / "manifest.json", json.dumps(manifest, indent=2) + "\n")
    table = goal_table(config.out)
    show(table, console)
    parts = [
        f"- {name}: [{done.get(name, 'not begun')}]({name}/report.md)"
        if (config.out / name / "report.md").exists()
        else f"- {name}: {done.get(name, 'not begun')}"
        for name in PARTS
    ]
    lines = ["# On one device", "", harness.measured_on(manifest), ""]
    lines += [markdown_table(table), "", *parts, ""]
    write_atomically(config.out / "report.md", "\n".join(lines))


if __name__ == "__main__":
    harness.command_line(Config, run, "gpu")
