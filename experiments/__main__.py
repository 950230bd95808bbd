"""The command line: ``python -m experiments STUDY [options]``."""

import dataclasses
import functools
import os
import sys

import jax
import rich.table
import tyro
from rich.console import Console
from rich.markup import escape

from experiments import studies, tasks
from experiments.configs import ConfigError, Study
from experiments.data import DataError
from experiments.mesh import join_processes, make_mesh
from experiments.records import RecordError, Records
from experiments.report import Table
from experiments.run import Runner

# Where things lie or run says nothing about what they are.
PLACES = ("out", "data_dir", "raw_dir", "mesh", "fsdp", "distributed")
# May change: every record names its own, and finished runs are kept.
VARIABLE = ("arms", "seeds", "ablation_seeds", "budget", "tuned")


def main() -> None:
    """Runs one study; errors that a user can mend end it with one line and exit code 2."""
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    console = Console()
    try:
        study = tyro.extras.subcommand_cli_from_dict(
            {name: config for name, (config, _) in studies.STUDIES.items()},
            prog="python -m experiments",
            description=__doc__,
        )
        if study.distributed:
            join_processes()
        console.quiet = jax.process_index() > 0
        run(study, console)
    except (ConfigError, DataError, RecordError) as error:
        Console(stderr=True).print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("Stopped. The same command goes on from the last finished program.")
        sys.exit(130)


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
        table = execute(study, Runner(records, load, console, mesh, fsdp=study.fsdp))
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
