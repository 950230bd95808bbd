"""The command line: ``python -m experiments STUDY [options]``."""

import argparse
import contextlib
import dataclasses
import functools
import os
import shutil
import sys
from typing import get_args

import jax
import rich.table
import tyro
from rich.console import Console
from rich.markup import escape

from experiments import studies, tasks
from experiments.cells import ConfigError
from experiments.checkpoints import CHECKPOINTS, saved
from experiments.configs import Preset, Study
from experiments.dataset import DataError
from experiments.mesh import join_processes, make_mesh
from experiments.records import RecordError, Records
from experiments.report import Table
from experiments.run import Runner
from experiments.store import Store

# Where things lie or run says nothing about what they are.
PLACES = ("out", "data_dir", "raw_dir", "mesh", "fsdp", "distributed")
# May change: every record names its own, and finished runs are kept.
VARIABLE = ("preset", "arms", "seeds", "ablation_seeds", "budget", "tuned", "baselines")


def main() -> None:
    """Runs one study; errors that a user can mend end it with one line and exit code 2."""
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    console = Console()
    try:
        preset = _preset(sys.argv[1:])
        study = tyro.extras.overridable_config_cli(
            {
                name: ((config.__doc__ or "").partition("\n")[0], config.at(preset))
                for name, (config, _) in studies.STUDIES.items()
            },
            prog="python -m experiments",
            description=__doc__,
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


def _preset(arguments: list[str]) -> Preset:
    """The preset that is asked for, whose sizes are the defaults of all other options."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", choices=get_args(Preset), default="paper")
    with contextlib.suppress(argparse.ArgumentError, SystemExit), contextlib.redirect_stderr(None):
        return parser.parse_known_args(arguments)[0].preset
    return "paper"  # what is wrong with it is for the whole command line to say


def run(study: Study, console: Console) -> None:
    """Runs a study and shows its table."""
    name, execute = next(
        (name, function)
        for name, (config, function) in studies.STUDIES.items()
        if config is type(study)
    )
    folder = study.out or studies.default_folder(name, study.dataset)
    configuration = {
        key: value
        for key, value in dataclasses.asdict(study).items()
        if key not in (*PLACES, *VARIABLE)
    }
    mesh = make_mesh(study.mesh)
    load = functools.partial(tasks.load, data_dir=study.data_dir, raw_dir=study.raw_dir)
    with Records(folder, name, configuration) as records:
        store = Store(folder.parent / "store")
        runner = Runner(records, load, console, mesh, fsdp=study.fsdp, store=store)
        try:
            table = execute(study, runner)
        except KeyboardInterrupt:
            place = (
                "from the last checkpoint"
                if saved(folder)
                else "with the runs that are not on record"
            )
            console.print(f"Stopped. The same command goes on {place}.")
            raise
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)  # nothing is left to go on with
    show(table, console)
    console.print(f"Figure, report and records: {escape(str(folder))}", soft_wrap=True)


def show(table: Table, console: Console) -> None:
    """Prints a table with a header row."""
    header, *rows = table
    printed = rich.table.Table(*header)
    for row in rows:
        printed.add_row(*row)
    console.print(printed)


if __name__ == "__main__":
    main()
