"""Steps compiled for TPUs and an H100 that need not be there: bytes, kernels, memory, collectives.

Needs the compilers, which ``make accelerators`` installs. Nothing runs on a device.
"""

import contextlib
import dataclasses
import importlib.util
import io
import json
import multiprocessing
import multiprocessing.connection
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import pandas as pd
from rich.console import Console

from benchmarks import accelerators_report as report
from benchmarks import compilation, harness
from experiments.cells import ConfigError
from experiments.records import MANIFEST, write_atomically
from experiments.tables import show

PACKAGES = {"libtpu": "libtpu", "jax_cuda12_plugin": "jax-cuda12-plugin"}  # by module
LIBRARY = "neuroplastic_optax"
STEP_KEYS = ["target", "tree", "optimizer"]
POD_KEYS = ["devices", "sharding", "optimizer"]
ON_PODS = ("adam", "with_plasticity")
MAIN = (
    *("adam", "adamw", "lamb", "muon", "full", "gradient_only"),
    *("with_plasticity", "adamw_with_plasticity"),
)


@dataclasses.dataclass(frozen=True)
class Block:
    """Steps to compile: every optimizer for every target."""

    tree: str
    targets: tuple[str, ...]
    optimizers: tuple[str, ...] = tuple(compilation.CONTESTANTS)


@dataclasses.dataclass(frozen=True)
class Size:
    """What is compiled: blocks of steps, and training steps for these numbers of devices."""

    steps: tuple[Block, ...]
    pods: tuple[int, ...]


# Trees of many leaves take up to a minute for an optimizer, and Muon on the transformer more.
LARGER = ("v5e", "v5p", "v6e", "h100")
SIZES: dict[harness.Preset, Size] = {
    "default": Size(
        (
            Block("leaf", tuple(compilation.TARGETS)),
            Block("resnet18", LARGER, MAIN),
            Block("transformer", LARGER, tuple(name for name in MAIN if name != "muon")),
        ),
        (4, 256, 16, 64),
    ),
    "smoke": Size((Block("leaf", ("v5e", "h100"), ("adam", "full")),), ()),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Compiles optimizer steps for TPUs and an H100, and counts what they move. Nothing runs.

    What the folder holds already, of the same commit and versions, is not compiled again: a run
    that was stopped goes on where it was.

    Attributes:
      preset: "smoke" compiles four steps, to see that everything works.
      out: folder for tables, figure, report and manifest.
      trees: which trees of parameters, of those of the preset; all where none is named.
      optimizers: likewise, which optimizers.
      targets: likewise, which accelerators.
      pods: whether training steps are compiled for parts of a TPU v5e pod, where the preset does.
      library: folder with the package neuroplastic_optax of another commit, such as a worktree, to
        count its optimizers by the same rules; the package beside this one if nothing is given.
    """

    preset: harness.Preset = "default"
    out: Path = Path("results/benchmarks-accelerators")
    trees: tuple[str, ...] = ()
    optimizers: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    pods: bool = True
    library: Path | None = None

    def __post_init__(self) -> None:
        if self.library is not None and not (self.library / LIBRARY / "__init__.py").is_file():
            raise ConfigError(
                f"library must be a folder with the package {LIBRARY}, got {self.library}, which "
                "has none."
            )
        known: dict[str, Iterable[str]] = {
            "trees": compilation.TREES,
            "optimizers": compilation.CONTESTANTS,
            "targets": compilation.TARGETS,
        }
        for name, names in known.items():
            for value in getattr(self, name):
                if value not in names:
                    raise ConfigError(f"{name} must be of {', '.join(names)}, got {value!r}.")


def check_compilers() -> dict[str, str]:
    """The versions of the compilers.

    Raises:
      ConfigError: one is not installed, or the plugin is not of JAX's version.
    """
    ours = jax.__version__
    advice = "`make accelerators` installs both, as does the extra `accelerators` of this project"
    for module, package in PACKAGES.items():
        if importlib.util.find_spec(module) is None:
            raise ConfigError(f"the compiler of {package} is not installed; {advice}.")
    versions = {package: metadata.version(package) for package in PACKAGES.values()}
    if versions["jax-cuda12-plugin"] != ours:
        found = versions["jax-cuda12-plugin"]
        raise ConfigError(f"jax-cuda12-plugin {found} is not for JAX {ours}; {advice}.")
    return versions


def _compile(
    arguments: tuple[Any, ...],
    library: Path | None,
    answer: multiprocessing.connection.Connection,
    log: str,
) -> None:
    """In a process of its own: compiles, counts and sends the counts."""
    descriptor = os.open(log, os.O_WRONLY | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    answer.send(compilation.count(*arguments, library=library))


def compile_apart(*arguments: Any, library: Path | None = None) -> dict[str, Any]:
    """The counts of one compilation; ``outcome`` says how the compiler ended it otherwise."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.accelerators_report", "benchmarks.harness"])
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.NamedTemporaryFile("r", suffix=".log", errors="replace") as log:
        process = context.Process(target=_compile, args=(arguments, library, sender, log.name))
        process.start()
        sender.close()
        try:
            counts: dict[str, Any] = receiver.recv()
        except EOFError:
            counts = {}
        process.join()
        if counts:
            return {"outcome": "compiles", "reason": "", **counts}
        said = log.read()
    return ended(process.exitcode or 0, said)


def ended(code: int, log: str) -> dict[str, str]:
    """The row of a compilation whose process ended with an exit code and these last words."""
    return {"outcome": "aborts" if code < 0 else "fails", "reason": reason(log)}


def reason(log: str) -> str:
    r"""What a compiler said last, in one line.

    >>> reason("F0000 00:00:01.5 42 loop_optimizer.cc:7] Check failed: a == b \n*** trace ***")
    'loop_optimizer.cc:7] Check failed: a == b'
    """
    fatal = re.findall(r"^F\d{4}.*?(\S+\.cc:\d+\] .*?)\s*$", log, re.MULTILINE)
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return (fatal or lines[-1:] or [""])[0][:300]


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """The variables of `compilation.ENVIRONMENT`, for this process and those that compile."""
    before = dict(os.environ)
    jax.config.update("jax_platforms", "cpu")
    os.environ.update(compilation.ENVIRONMENT)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _wanted(config: Config) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """The steps and the training steps to compile."""
    size = SIZES[config.preset]
    steps = [
        (target, block.tree, optimizer)
        for block in size.steps
        if not config.trees or block.tree in config.trees
        for optimizer in block.optimizers
        if not config.optimizers or optimizer in config.optimizers
        for target in block.targets
        if not config.targets or target in config.targets
    ]
    pods = [
        (devices, sharding, optimizer)
        for devices in (size.pods if config.pods else ())
        for sharding in compilation.SHARDINGS
        for optimizer in ON_PODS
    ]
    return steps, pods


class Table:
    """A CSV file with a row for each compilation, written as soon as it is known."""

    def __init__(self, path: Path, keys: list[str], go_on: bool) -> None:
        self._path, self._keys = path, keys
        self.rows = pd.DataFrame(columns=[*keys, "outcome", "reason"])
        if go_on and path.exists():
            self.rows = pd.read_csv(path)
        else:
            path.unlink(missing_ok=True)  # of other code, and no part of this record

    def has(self, key: tuple[Any, ...]) -> bool:
        """Whether a compilation is on record."""
        return key in set(self.rows[self._keys].itertuples(index=False, name=None))

    def add(self, key: tuple[Any, ...], counts: dict[str, Any]) -> None:
        """Records one more."""
        row = dict(zip(self._keys, key, strict=True)) | counts
        # Through CSV, so that what is shown is what is read back.
        rows = [*self.rows.to_dict("records"), row]
        text = pd.DataFrame(rows).to_csv(index=False)
        write_atomically(self._path, text)
        self.rows = pd.read_csv(io.StringIO(text))


def _same_code(folder: Path, manifest: dict[str, Any]) -> bool:
    """Whether what a folder holds was counted by the same code with the same compilers."""
    path = folder / MANIFEST
    if not path.exists():
        return False
    found = json.loads(path.read_text())
    clean = not manifest["commit"].endswith("+")
    keys = ("commit", "versions", "library")
    return clean and all(found.get(key) == manifest.get(key) for key in keys)


def run(config: Config, console: Console) -> None:
    """Compiles, shows and writes down."""
    harness.prepare(config.out, "accelerators")
    compilers = check_compilers()
    with _environment(), harness.show_progress(console) as progress:
        manifest = harness.make_manifest("accelerators", config)
        manifest["versions"] |= compilers
        if config.library is not None:
            manifest["library"] = harness.checksum(config.library / LIBRARY)
        go_on = _same_code(config.out, manifest)
        steps = Table(config.out / "steps.csv", STEP_KEYS, go_on)
        pods = Table(config.out / "pods.csv", POD_KEYS, go_on)
        write_atomically(config.out / MANIFEST, json.dumps(manifest, indent=2) + "\n")
        step_keys, pod_keys = _wanted(config)
        for key in progress.track(step_keys, description="steps"):
            if not steps.has(key):
                steps.add(key, compile_apart("step", *key, library=config.library))
        for key in progress.track(pod_keys, description="training steps"):
            if not pods.has(key):
                pods.add(key, compile_apart("train", *key, library=config.library))
    for title, table in report.tables(steps.rows, pods.rows):
        console.print(title)
        show(table, console)
    harness.write(
        config.out,
        manifest,
        {"steps": steps.rows} | ({"pods": pods.rows} if len(pods.rows) else {}),
        report.make_figure(steps.rows, pods.rows),
        report.make_report(steps.rows, pods.rows, manifest),
    )
    console.print(f"Tables, figure and report: {config.out}", soft_wrap=True)


if __name__ == "__main__":
    harness.command_line(Config, run, "accelerators")
