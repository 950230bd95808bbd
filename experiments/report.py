"""Reports of finished studies anew, from their records alone: ``python -m experiments.report``."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import tyro

from experiments.cells import Cell, ConfigError
from experiments.records import MANIFEST, RUNS, RecordError, read_runs
from experiments.studies import STUDIES
from experiments.studies.base import Run
from experiments.studies.saving import save
from experiments.summary import of_cells


def write_report(folder: Path) -> None:
    """Writes summary, comparisons, claims, figures and report of a study from its records.

    Raises:
      RecordError: a training run that the study needs is not on record.
      ConfigError: the study was made from selections that have changed since.
    """
    manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    runs = read_runs(folder / RUNS)
    configuration = manifest["configuration"]
    study = STUDIES[manifest["study"]].on_record(folder, configuration, runs)
    read, now = (found.get("selections") for found in (configuration, study.configuration()))
    if read != now:
        raise ConfigError(
            f"{folder} was made from selections that have changed since: run the study "
            f"{study.name} anew, into another folder."
        )
    # Parts of the data say more than the whole, and the whole is what a report names.
    source = min((data["source"] for data in manifest["data"].values()), key=len)
    save(study, study.run(on_record(folder, runs), source), folder)


def on_record(folder: Path, runs: pd.DataFrame) -> Run:
    """In place of a runner: gives the rows of cells that are on record, and trains none."""

    def run(cells: Sequence[Cell]) -> pd.DataFrame:
        rows = of_cells(runs, cells)
        if len(rows) != sum(cell.workload.epochs for cell in cells):
            raise RecordError(f"{folder / RUNS} has not all training runs that its report is of.")
        return rows

    return run


def main(folders: tyro.conf.Positional[tuple[Path, ...]]) -> None:
    """Writes summaries, comparisons, figures and reports anew, without training.

    Args:
      folders: of finished studies.
    """
    for folder in folders:
        try:
            write_report(folder)
        except (ConfigError, RecordError) as error:
            print(f"left as it is: {error}")


if __name__ == "__main__":
    tyro.cli(main)
