"""Speed of training: many seeds together or one by one, and what the optimizer adds to a step."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress

from benchmarks import harness
from experiments import tasks
from experiments.arms import ARMS
from experiments.cells import ConfigError
from experiments.dataset import Dataset
from experiments.mesh import make_mesh
from experiments.naming import colour
from experiments.tables import Table, markdown_table, show
from experiments.train import Arrays, Problem, Program

Model = Literal["mlp", "resnet18"]
Way = Literal["one by one", "lax.map", "vmap", "all devices"]

WAYS: dict[Way, str] = {
    "one by one": "#000000",
    "lax.map": "#0072B2",
    "vmap": "#D55E00",
    "all devices": "#009E73",
}
ARM = "full"  # whose seeds are trained together
BARE, REFERENCE = "sgd", "momentum"


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
      steps: of an epoch of each model.
      seeds: numbers of seeds that are trained together.
      arms: whose training step is compared, besides plain SGD and SGD momentum.
      seconds: of rounds for each number of seeds, and again for the arms.
      limit: seconds that an epoch of all seeds may take; what would take longer is left out.
    """

    steps: dict[Model, int]
    seeds: tuple[int, ...]
    arms: tuple[str, ...]
    seconds: float
    limit: float


# An epoch has two steps at least: XLA takes a loop of one step for no loop.
SIZES: dict[harness.Preset, Size] = {
    "default": Size(
        {"mlp": 16, "resnet18": 2},
        seeds=(1, 4, 16, 64),
        arms=("adam", "gradient_only", "full"),
        seconds=10.0,
        limit=10.0,
    ),
    "smoke": Size({"mlp": 2}, seeds=(2,), arms=(), seconds=0.0, limit=10.0),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Times epochs of training, on random images.

    Attributes:
      preset: "smoke" takes a few steps of the MLP alone, to see that everything works.
      width: channels of ResNet-18's first stage; 16 on a CPU and 64 elsewhere if nothing is given.
      resnet_batch: images per step of ResNet-18; 32 on a CPU and 128 elsewhere if nothing is given.
      resnet_dtype: of ResNet-18's activations; float32 on a CPU and bfloat16 elsewhere if nothing
        is given. Parameters and the optimizer's state are float32.
      go_on: keep what the folder holds, if it was measured with the same commit, versions, device
        and settings, and measure the rest.
      out: folder for tables, figure, report and manifest.
    """

    preset: harness.Preset = "default"
    width: int | None = None
    resnet_batch: int | None = None
    resnet_dtype: Literal["float32", "bfloat16"] | None = None
    go_on: bool = False
    out: Path = Path("results/benchmarks-train")

    def __post_init__(self) -> None:
        for name in ("width", "resnet_batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}.")


@dataclasses.dataclass(frozen=True)
class Work:
    """A problem of the studies, and random images for an epoch of it."""

    title: str
    problem: Problem
    images: Arrays

    def program(self, arm: str, **settings: Any) -> Program:
        """The training of one arm."""
        make = ARMS[arm].make
        return Program(self.problem, make, self.images, self.images, epochs=1, **settings)


def make_work(model: Model, config: Config) -> Work:
    """What is trained, as the studies have it but for its size."""
    on_cpu = jax.devices()[0].platform == "cpu"
    if model == "mlp":
        task, shape, batch_size, title = tasks.TASKS["mnist"], (28, 28, 1), 128, "MLP"
    else:
        width = config.width or (16 if on_cpu else 64)
        dtype = config.resnet_dtype or ("float32" if on_cpu else "bfloat16")
        task = dataclasses.replace(tasks.TASKS["cifar10"], model=tasks.resnet(width, dtype=dtype))
        shape = (32, 32, 3)
        batch_size = config.resnet_batch or (32 if on_cpu else 128)
        title = f"ResNet-18, {width} channels, {dtype}"
    rng = np.random.default_rng(0)
    size = SIZES[config.preset].steps[model] * batch_size
    inputs = rng.integers(0, 256, (size, *shape), np.uint8)
    labels = rng.integers(0, 10, size).astype(np.int32)
    dataset = Dataset(model, inputs, labels, inputs, labels, source="random numbers")
    problem = tasks.problem_of(task, dataset, batch_size)
    return Work(f"{title}, batches of {batch_size}", problem, Arrays(inputs, labels))


class Epoch:
    """An epoch of a number of seeds, ``together`` of them at a time."""

    def __init__(self, program: Program, arm: str, seeds: int, together: int) -> None:
        self._program = program
        self._chunks = np.arange(seeds).reshape(-1, together)
        self._learning_rates = np.full(together, ARMS[arm].learning_rate)
        self._states = [program.init(chunk, self._learning_rates) for chunk in self._chunks]

    def __call__(self) -> Any:
        """Trains every seed for one more epoch: the new states, maybe still being computed."""
        for i, chunk in enumerate(self._chunks):
            self._states[i], _ = self._program.train_epoch(
                self._states[i], chunk, self._learning_rates
            )
        return self._states


def measure_throughput(
    work: Work,
    size: Size,
    progress: Progress,
    note: Callable[[str], None],
    known: Mapping[int, pd.DataFrame],
) -> Iterator[pd.DataFrame]:
    """Images per second by number of seeds and way to train them: a table for each number.

    The ways are one seed after the other with one program, all seeds in one program by ``lax.map``
    or by ``vmap`` on one device, and, where there are several devices, all seeds spread over them
    as the studies do it. ``known``: the tables that are there already, by number of seeds.
    """
    first = make_mesh(devices=jax.devices()[:1])
    mapped = work.program(ARM, mesh=first, loop="map")
    programs: dict[Way, Program] = {
        "one by one": mapped,
        "lax.map": mapped,
        "vmap": work.program(ARM, mesh=first, loop="vmap"),
    }
    if jax.device_count() > 1:
        programs["all devices"] = work.program(ARM)
    seconds_a_seed = dict.fromkeys(programs, 0.0)
    for seeds in size.seeds:
        if seeds in known:
            rates = known[seeds].set_index("way")["images_per_second"]
            for way in (way for way in programs if way in rates):
                seconds_a_seed[way] = len(work.images.labels) / rates[way]
            continue
        calls: dict[Way, Epoch] = {}
        title = f"{work.title}, seeds: {seeds}"
        for way in progress.track(programs, description=f"{title}: compiling"):
            program = programs[way]
            expected = seeds * seconds_a_seed[way]
            if seeds % program.width:
                continue
            if expected > size.limit:
                note(f"{title}, {way}: skipped, an epoch would take about {expected:.2g} s.")
                continue
            epoch = Epoch(program, ARM, seeds, 1 if way == "one by one" else seeds)
            try:
                jax.block_until_ready(epoch())
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                note(f"{title}, {way}: skipped, the memory of the device does not suffice.")
                continue
            calls[way] = epoch
        if not calls:
            continue
        taken = harness.time_in_turns(calls, size.seconds, progress, f"{title}: rounds")
        rows = []
        for way, seconds in taken.items():
            seconds_a_seed[way] = float(np.median(seconds)) / seeds
            rows.append(
                {
                    "model": work.title,
                    "seeds": seeds,
                    "way": way,
                    "rounds": len(seconds),
                    "images_per_second": len(work.images.labels) / seconds_a_seed[way],
                }
            )
        yield pd.DataFrame(rows)


def measure_optimizers(work: Work, size: Size, progress: Progress) -> pd.DataFrame:
    """Time of a training step by arm, one seed: one row per arm.

    The optimizer's share is what a step takes beyond the step with plain SGD, θ − ηg, which is the
    least that a step with the same gradient can do.
    """
    first = make_mesh(devices=jax.devices()[:1])
    calls = {}
    arms = (BARE, REFERENCE, *size.arms)
    for arm in progress.track(arms, description=f"{work.title}, arms: compiling"):
        calls[arm] = Epoch(work.program(arm, mesh=first), arm, seeds=1, together=1)
        jax.block_until_ready(calls[arm]())
    taken = harness.time_in_turns(calls, size.seconds, progress, f"{work.title}, arms: rounds")
    steps = len(work.images.labels) // work.problem.batch_size
    return pd.DataFrame(
        [
            {
                "model": work.title,
                "arm": arm,
                "rounds": len(seconds),
                "median_ms": 1e3 * np.median(seconds) / steps,
                "best_ms": 1e3 * np.min(seconds) / steps,
                "ratio_to_momentum": np.median(seconds / taken[REFERENCE]),
                "optimizer_share": np.median(1 - taken[BARE] / seconds),
            }
            for arm, seconds in taken.items()
        ]
    )


def throughput_table(rows: pd.DataFrame) -> Table:
    """Images per second, as readers should see them: one line per number of seeds."""
    ways = list(rows["way"].unique())
    table = [["model", "seeds", *ways]]
    for (model, seeds), group in rows.groupby(["model", "seeds"], sort=False):
        by_way = group.set_index("way")["images_per_second"]
        cells = (f"{by_way[way]:,.0f}" if way in by_way else "" for way in ways)
        table.append([str(model), str(seeds), *cells])
    return table


def optimizer_table(rows: pd.DataFrame) -> Table:
    """The time of a training step by arm, as readers should see it."""
    table = [["model", "arm", "ms per step", "best", "x SGD momentum", "optimizer's share"]]
    for row in rows.to_dict("records"):
        table.append(
            [
                row["model"],
                ARMS[row["arm"]].label,
                f"{row['median_ms']:.2f}",
                f"{row['best_ms']:.2f}",
                f"{row['ratio_to_momentum']:.2f}",
                f"{row['optimizer_share']:.1%}",
            ]
        )
    return table


def make_figure(throughput: pd.DataFrame, optimizers: pd.DataFrame) -> Figure:
    """One line of panels per model: images per second by seeds, and the step's time by arm."""
    titles = list(throughput["model"].unique())
    figure, grid = plt.subplots(
        len(titles), 2, figsize=(10, 3.6 * len(titles)), squeeze=False, layout="constrained"
    )
    for (left, right), title in zip(grid, titles, strict=True):
        _draw_throughput(left, throughput[throughput["model"] == title])
        _draw_optimizers(right, optimizers[optimizers["model"] == title])
        left.set_title(title)
        right.set_title(title)
    grid[0, 0].legend(frameon=False)
    return figure


def _draw_throughput(axes: Axes, rows: pd.DataFrame) -> None:
    for way, line_colour in WAYS.items():
        of_way = rows[rows["way"] == way]
        if len(of_way):
            axes.plot(
                of_way["seeds"],
                of_way["images_per_second"],
                color=line_colour,
                marker="o",
                label=way,
            )
    seeds = sorted(rows["seeds"].unique())
    axes.set(xscale="log", yscale="log", xlabel="seeds", ylabel="images per second, all seeds")
    axes.set_xticks(seeds, [str(number) for number in seeds], minor=False)
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_optimizers(axes: Axes, rows: pd.DataFrame) -> None:
    arms = rows["arm"]
    heights = np.arange(len(arms))[::-1]
    axes.barh(heights, rows["ratio_to_momentum"], color=[colour(arm) for arm in arms])
    axes.axvline(1, color="0.4", linewidth=0.8)
    axes.set_yticks(heights, [ARMS[arm].label for arm in arms])
    axes.set(xlabel="time of a training step, SGD momentum = 1")
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def make_report(
    throughput: pd.DataFrame, optimizers: pd.DataFrame, notes: list[str], measured_on: str
) -> str:
    """The report in Markdown."""
    return "\n".join(
        [
            "# The speed of training",
            "",
            f"{measured_on} What is measured, and how, is on the page on benchmarks.",
            "",
            f"Images per second, all seeds together, {ARMS[ARM].label}:",
            "",
            markdown_table(throughput_table(throughput)),
            "",
            *(f"{note}\n" for note in notes),
            "A training step, one seed:",
            "",
            markdown_table(optimizer_table(optimizers)),
            "",
            "![speed of training](figure.png)",
            "",
        ]
    )


def run(config: Config, console: Console) -> None:
    """Measures, shows and writes down."""
    harness.prepare(config.out, "train")
    manifest = harness.make_manifest("train", config)
    size = SIZES[config.preset]
    tables, notes = harness.kept(config.out, manifest) if config.go_on else ({}, [])

    def note(text: str) -> None:
        if text not in notes:
            console.print(text)
            notes.append(text)

    def add(table: str, rows: pd.DataFrame) -> None:
        """Writes down what there is, so that a run that is stopped can go on from there."""
        tables[table] = pd.concat([*([tables[table]] if table in tables else []), rows])
        harness.write_tables(config.out, {**manifest, "notes": notes}, tables)

    def of(table: str, work: Work) -> pd.DataFrame:
        """What is there of a model."""
        rows = tables.get(table, pd.DataFrame(columns=["model", "seeds", "arm"]))
        return rows[rows["model"] == work.title]

    with harness.show_progress(console) as progress:
        for model in size.steps:
            work = make_work(model, config)
            there = of("throughput", work)
            known = {seeds: there[there["seeds"] == seeds] for seeds in there["seeds"].unique()}
            for rows in measure_throughput(work, size, progress, note, known):
                add("throughput", rows)
            if of("optimizers", work).empty:
                add("optimizers", measure_optimizers(work, size, progress))
    throughput, optimizers = tables["throughput"], tables["optimizers"]
    show(throughput_table(throughput), console)
    show(optimizer_table(optimizers), console)
    report = make_report(throughput, optimizers, notes, harness.measured_on(manifest))
    figure = make_figure(throughput, optimizers)
    harness.write(config.out, {**manifest, "notes": notes}, tables, figure, report)
    console.print(f"Tables, figure and report: {config.out}", soft_wrap=True)


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    harness.command_line(Config, run, "train")
