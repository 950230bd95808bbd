"""What the benchmarks share: calls timed in turns, and the files that a run leaves behind."""

import dataclasses
import datetime
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import numpy as np
import numpy.typing as npt
import pandas as pd
import tyro
from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from experiments import plotting
from experiments.cells import ConfigError
from experiments.dataset import DataError
from experiments.records import MANIFEST, RecordError, circumstances, write_atomically

Preset = Literal["default", "smoke"]
Seconds = npt.NDArray[np.float64]
Key = TypeVar("Key", bound=Hashable)
Config = TypeVar("Config")

MIN_ROUNDS, MAX_ROUNDS = 3, 100
ENVIRONMENT = ("GLIBC_TUNABLES", "XLA_FLAGS")  # variables that change how fast a program is


def time_in_turns(
    calls: Mapping[Key, Callable[[], Any]], seconds: float, progress: Progress, title: str
) -> dict[Key, Seconds]:
    """Times calls in rounds: whatever else the machine does then falls on all of them alike.

    A round makes every call once, in an order of its own, and waits for each result. The first
    round is not counted; it says how many rounds fit.

    Args:
      calls: what to time, by name; each returns the arrays to wait for.
      seconds: time for the rounds, of which there are at least 3 and at most 100.
      progress: where a bar is shown.
      title: of the bar.

    Returns:
      Seconds [rounds] by name.
    """
    start = time.perf_counter()
    for call in calls.values():
        jax.block_until_ready(call())
    first = time.perf_counter() - start
    rounds = int(np.clip(seconds / first, MIN_ROUNDS, MAX_ROUNDS))
    keys = list(calls)
    taken: dict[Key, list[float]] = {key: [] for key in keys}
    rng = np.random.default_rng(0)
    for _ in progress.track(range(rounds), description=title):
        for index in rng.permutation(len(keys)):
            start = time.perf_counter()
            result = jax.block_until_ready(calls[keys[index]]())
            taken[keys[index]].append(time.perf_counter() - start)
            del result  # outside the clock, and before the next call needs the memory
    return {key: np.asarray(times) for key, times in taken.items()}


def show_progress(console: Console) -> Progress:
    """A bar for each part of a benchmark, with the time that is left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("elapsed,"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
    )


def free_memory() -> float:
    """Bytes that are free for arrays on the first device; infinite where nothing tells."""
    stats = jax.devices()[0].memory_stats()
    if stats is not None:
        return float(stats["bytes_limit"] - stats["bytes_in_use"])
    try:
        available = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        available = None
    return float("inf") if available is None else 1024 * float(available[1])


def prepare(folder: Path, benchmark: str) -> None:
    """Makes the folder, before anything is measured.

    Raises:
      RecordError: it cannot be used, or holds the records of something else.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"{folder} cannot be used: {error.strerror}.") from error
    if not os.access(folder, os.W_OK):
        raise RecordError(f"{folder} cannot be used: it is not writable.")
    path = folder / MANIFEST
    if not path.exists():
        return
    try:
        found = json.loads(path.read_text())["benchmark"]
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if found != benchmark:
        raise RecordError(
            f"{path} is no manifest of the benchmark {benchmark!r}; choose another folder."
        )


def checksum(package: Path) -> str:
    """SHA-256 of a package's modules, which says what code was measured."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def kept(folder: Path, manifest: Mapping[str, Any]) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Tables by name, and notes, that a folder holds of the same measurement.

    Nothing, unless all that decides it is as in the manifest and the code as it was committed.
    """
    path = folder / MANIFEST
    if not path.exists() or manifest["commit"].endswith("+"):
        return {}, []
    found = json.loads(path.read_text())
    if any(found.get(key) != value for key, value in manifest.items() if key != "written"):
        return {}, []
    return {file.stem: pd.read_csv(file) for file in folder.glob("*.csv")}, found.get("notes", [])


def write_tables(
    folder: Path, manifest: Mapping[str, Any], tables: Mapping[str, pd.DataFrame]
) -> None:
    """Leaves manifest and tables (as CSV, by name), for a run that goes on from there."""
    for name, table in tables.items():
        write_atomically(folder / f"{name}.csv", table.to_csv(index=False))
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def write(
    folder: Path,
    manifest: Mapping[str, Any],
    tables: Mapping[str, pd.DataFrame],
    figure: Figure,
    report: str,
) -> None:
    """Leaves manifest, tables (as CSV, by name), figure and report, each written as a whole."""
    write_tables(folder, manifest, tables)
    plotting.save(figure, folder / "figure.png")
    write_atomically(folder / "report.md", report)


def make_manifest(benchmark: str, config: Any) -> dict[str, Any]:
    """What was run, a dataclass of settings, and under what circumstances."""
    settings = {
        key: value
        for key, value in dataclasses.asdict(config).items()
        # Where things lie, and when they were made, says nothing about what they are.
        if not isinstance(value, Path) and key != "go_on"
    }
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {
        "benchmark": benchmark,
        "configuration": settings,
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        **circumstances(),
        "written": now,
    }


def measured_on(manifest: Mapping[str, Any]) -> str:
    """The circumstances in a sentence, for the report."""
    versions = manifest["versions"]
    variables = "".join(f"{name}={value}, " for name, value in manifest["environment"].items())
    return (
        f"Measured on {manifest['device']} with {variables}JAX {versions['jax']}, "
        f"Optax {versions['optax']} and Flax {versions['flax']}, at commit {manifest['commit']}, "
        f"{manifest['written'][:10]}."
    )


def command_line(config: type[Config], run: Callable[[Config, Console], None], name: str) -> None:
    """Runs a benchmark; errors that a user can mend end it with one line and exit code 2."""
    console = Console()
    try:
        run(tyro.cli(config, prog=f"python -m benchmarks.{name}"), console)
    except (ConfigError, DataError, RecordError) as error:
        Console(stderr=True).print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("Stopped; what was measured last is not written.")
        sys.exit(130)
