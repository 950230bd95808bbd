"""Settings that every test shares, and the table of properties (``--conformance-table``)."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator

import hypothesis
import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Most of the time of the tests is compilation: where a test does not say otherwise, with no effort.
jax.config.update("jax_disable_most_optimizations", True)
# XLA reads its flags with the first program, here and in the processes that tests start. Without
# these, most of what it does is to lower fusions through MLIR and to link many modules into one.
EMITTERS, QUICK = "xla_cpu_use_fusion_emitters", "--xla_cpu_parallel_codegen_split_count=1"
WITHOUT_EMITTERS = f"--{EMITTERS}=false {QUICK}"


def has_emitters_flag() -> bool:
    """Whether this XLA can do without the emitters; with a flag that it does not know it ends."""
    started = [sys.executable, "-c", "import jax; jax.devices()"]
    environment = {**os.environ, "XLA_FLAGS": WITHOUT_EMITTERS, "JAX_PLATFORMS": "cpu"}
    return not subprocess.run(started, env=environment, capture_output=True, check=False).returncode


if QUICK not in os.environ.get("XLA_FLAGS", ""):  # else this is a worker, which has them
    flags = WITHOUT_EMITTERS if has_emitters_flag() else QUICK
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), flags]).strip()

hypothesis.settings.register_profile(
    "specification", deadline=None, derandomize=True, database=None, max_examples=25
)
hypothesis.settings.load_profile("specification")

LONGEST = (
    "test_conformance.py",
    "test_mesh.py",
    "test_resume.py",
    "test_train.py",
    "test_fuzz.py",
    "test_checkpoints.py",
    "test_oracle.py",
    "test_whole_runs.py",
    "test_arms.py",
    "test_examples.py",
    "test_diagnostics.py",
    "test_cli.py",
    "test_golden.py",
    "test_benchmarks.py",
    "test_traffic.py",
    "test_docs.py",
    "test_families.py",
    "test_leaderboard.py",
    "test_models.py",
    "test_accelerators.py",
    "test_run.py",
    "test_flax.py",
    "test_sharding.py",
    "test_own_task.py",
    "test_selection.py",
)

CONFORMANCE_TEST = re.compile(r"test_conformance\.py::test_(\w+)\[(\w+)")


@pytest.fixture
def fully_optimized(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Programs are compiled as users' are, for tests of what the compiler makes of them."""
    jax.config.update("jax_disable_most_optimizations", False)
    # In one module still, which changes no code.
    usual = {EMITTERS: True} if EMITTERS in os.environ["XLA_FLAGS"] else {}
    jit = jax.jit

    def with_options(fun: Callable, *, compiler_options: dict | None = None, **how: object):
        if "inline" in how:
            return jit(fun, **how)
        return jit(fun, compiler_options=usual | (compiler_options or {}), **how)

    monkeypatch.setattr(jax, "jit", with_options)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--conformance-table",
        action="store_true",
        help="print which transformation has which property, from the outcomes of this run",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files that take longest first, so that no worker begins one when others are done."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else 99)


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    """Prints one row per property and one column per transformation, with xdist or without."""
    if not config.getoption("--conformance-table"):
        return
    outcomes: dict[str, dict[str, bool]] = {}
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            if found := CONFORMANCE_TEST.search(report.nodeid):
                row = outcomes.setdefault(found[1], {})
                row[found[2]] = row.get(found[2], True) and outcome == "passed"
    for line in conformance_table(outcomes):
        terminalreporter.write_line(line)


def conformance_table(outcomes: dict[str, dict[str, bool]]) -> list[str]:
    """The lines of a table, ``outcomes[property][transformation]``, with a legend below."""
    names = sorted({name for row in outcomes.values() for name in row})
    marks = {True: "✓", False: "✗", None: "·"}
    width = max(map(len, outcomes), default=0)
    lines = [" ".join([" " * width, *(f"{column:>2}" for column in range(1, len(names) + 1))])]
    for title in sorted(outcomes):
        cells = (f"{marks[outcomes[title].get(name)]:>2}" for name in names)
        lines.append(" ".join([title.ljust(width), *cells]))
    columns = [f"{column:>2} {name}" for column, name in enumerate(names, 1)]
    return [*lines, "✓ has the property, ✗ has it not, · not tested: its base has it not", *columns]
