"""What a study leaves beside its records."""

import dataclasses
from pathlib import Path

import pandas as pd

from experiments import plotting
from experiments.records import write_atomically
from experiments.studies.base import SELECTIONS, Study
from experiments.studies.findings import Claim, Findings

TABLE = "table.csv"  # as the command line shows it


def save(study: Study, findings: Findings, folder: Path) -> None:
    """Writes what a study leaves beside its records."""
    write_atomically(folder / "summary.csv", findings.summary.to_csv(index=False))
    write_atomically(folder / "comparisons.csv", findings.comparisons.to_csv(index=False))
    claims = pd.DataFrame(
        [
            {**vars(claim), "data": claim.data or study.title + study.scale()}
            for claim in study.claims(findings.comparisons)
        ],
        columns=list(dict.fromkeys(["data", *(f.name for f in dataclasses.fields(Claim))])),
    )
    write_atomically(folder / "claims.csv", claims.to_csv(index=False))
    if findings.selections is not None:
        write_atomically(folder / SELECTIONS, findings.selections.to_csv(index=False))
    header, *lines = findings.table
    shown = pd.DataFrame(lines, columns=header)
    for name, table in {TABLE: shown, **findings.tables}.items():
        write_atomically(folder / name, table.to_csv(index=False))
    for name, figure in findings.figures.items():
        plotting.save(figure, folder / name)
    title, *paragraphs = findings.report
    report = [f"# {title}: {study.title}", *reductions(study), *paragraphs]
    write_atomically(folder / "report.md", "\n\n".join(report) + "\n")


def reductions(study: Study) -> list[str]:
    """A paragraph on what is smaller than in the full protocol; nothing where nothing is.

    >>> reductions(Study(epochs=3))
    ['**Not the full protocol**, whose values are in brackets: epochs 3 (10).']
    """
    changes = [
        f"{name.replace('_', ' ')} {_value(ours)} ({_value(full)})"
        for name, (ours, full) in study.reductions().items()
    ]
    if not changes:
        return []
    return [f"**Not the full protocol**, whose values are in brackets: {', '.join(changes)}."]


def _value(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
