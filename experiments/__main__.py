"""The command line: ``python -m experiments STUDY [options]``."""

import argparse
import contextlib
import functools
import inspect
import os
import shutil
import sys
from typing import get_args

import jax
import tyro
from rich.console import Console
from rich.markup import escape

from experiments import power, tasks
from experiments.cells import ConfigError
from experiments.checkpoints import CHECKPOINTS, saved
from experiments.comparisons import measured, pair, rows_of
from experiments.dataset import DataError
from experiments.mesh import join_processes, make_mesh
from experiments.planning import PLAN, Rehearsal, make_plan, write_plan
from experiments.records import RecordError, Records
from experiments.run import Runner
from experiments.store import Store
from experiments.studies import STUDIES
from experiments.studies.base import VARIABLE, Preset, Study
from experiments.studies.saving import save
from experiments.tables import show


def main() -> None:
    """Runs one study; errors that a user can correct end it with one line and exit code 2."""
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    console = Console()
    try:
        if sys.argv[1:2] == ["power"]:
            tyro.cli(power.main, args=sys.argv[2:], prog="python -m experiments power")
            return
        preset = _preset(sys.argv[1:])
        study = tyro.extras.overridable_config_cli(
            {name: (explanation(study), study.at(preset)) for name, study in STUDIES.items()},
            prog="python -m experiments",
            description=f"{__doc__}\n\nAlso: power --out DIR says what a study could have shown.",
        )
        if study.distributed:
            join_processes()
        console.quiet = jax.process_index() > 0
        run(study, console)
        jax.distributed.shutdown()  # together: the first to leave a job would stop the others
    except (ConfigError, DataError, RecordError) as error:
        Console(stderr=True).print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def explanation(study: type[Study]) -> str:
    """What a study does, in full: its docstring up to the settings, which the options explain."""
    return (inspect.getdoc(study) or "").partition("\n\nAttributes:")[0]


def _preset(arguments: list[str]) -> Preset:
    """The preset that is asked for, whose sizes are the defaults of all other options."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", choices=get_args(Preset), default="paper")
    with contextlib.suppress(argparse.ArgumentError, SystemExit), contextlib.redirect_stderr(None):
        return parser.parse_known_args(arguments)[0].preset
    return "paper"  # what is wrong with it is for the whole command line to say


def run(study: Study, console: Console) -> None:
    """Runs a study and shows its table."""
    study.check_optimizers()
    folder, mesh = study.folder, make_mesh(study.mesh)
    load = functools.partial(tasks.load, data_dir=study.data_dir, raw_dir=study.raw_dir)
    with Records(folder, study.name, study.configuration(), study.defaults(), VARIABLE) as records:
        store = Store(folder.parent / "store")
        runner = Runner(records, load, console, mesh, fsdp=study.fsdp, store=store)
        if study.plan:
            show_plan(study, runner, console)
            return
        try:
            source = runner.load(study.workload()).source  # first: without data nothing starts
            findings = study.run(runner, source)
        except KeyboardInterrupt:
            place = (
                "from the last checkpoint"
                if saved(folder)
                else "with the runs that are not on record"
            )
            console.print(f"Stopped. The same command continues {place}.")
            raise
        save(study, findings, folder)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)  # no run is left to continue
    show(findings.table, console)
    families = findings.comparisons["family"].nunique()
    for row in rows_of(findings.comparisons):
        family = f"{row['family']}: " if families > 1 else ""
        where = f", {row['condition']}" if row["condition"] else ""
        console.print(
            f"{family}{pair(row)}{where}: {measured(row)}: {row['verdict']}", markup=False
        )
    console.print(f"Figure, report and records: {escape(str(folder))}", soft_wrap=True)


def show_plan(study: Study, runner: Runner, console: Console) -> None:
    """Shows and writes down what a study will do, without a training run of it."""
    rehearsal = Rehearsal()
    found = study.run(rehearsal, "made up").comparisons
    cells = list(rehearsal.cells)
    plan = make_plan(cells, found, runner.finished(cells), runner.step_times(cells))
    for table in plan.tables():
        show(table, console)
    write_plan(plan, study, study.folder)
    console.print(f"Plan, to be committed before it runs: {study.folder / PLAN}", soft_wrap=True)


if __name__ == "__main__":
    main()
