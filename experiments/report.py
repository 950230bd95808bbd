"""Reports of finished studies anew, from their records alone: ``python -m experiments.report``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import tyro

from experiments.cells import Cell, ConfigError
from experiments.records import MANIFEST, RUNS, RecordError, of_cells, read_runs
from experiments.studies import STUDIES
from experiments.studies.saving import save
from experiments.tasks import find_task
from experiments.timing import STEP_TIMES


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
    source = _source(manifest["data"], find_task(study.workload().task).data)
    save(study, study.run(OnRecord(folder, runs), source), folder)


def _source(data: Mapping[str, Mapping[str, str]], name: object) -> str:
    """Where a task's data are from.

    Parts of the data say more than the whole, and the whole is what a report names.
    """
    of_task = [facts for key, facts in data.items() if key.partition("-")[0] == name]
    return min((facts["source"] for facts in of_task or data.values()), key=len)


class OnRecord:
    """In place of a runner: gives the rows of cells that are on record, and trains none.

    Args:
      folder: of the records.
      runs: their rows.
    """

    def __init__(self, folder: Path, runs: pd.DataFrame) -> None:
        self._folder = folder
        self._runs = runs

    def __call__(self, cells: Sequence[Cell]) -> pd.DataFrame:
        """The rows of all cells; an error where one is not on record."""
        rows = of_cells(self._runs, cells)
        if len(rows) != sum(cell.workload.epochs for cell in cells):
            missing = f"{self._folder / RUNS} has not all training runs that its report is of."
            raise RecordError(missing)
        return rows

    def step_times(self, cells: Sequence[Cell]) -> pd.DataFrame:
        """What was measured when the study ran."""
        del cells
        return pd.read_csv(self._folder / STEP_TIMES)


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
