"""The studies: which cells each one runs, and what it makes of their records."""

from collections.abc import Callable

from experiments import figures, report
from experiments.configs import Accuracy, Study
from experiments.records import write_atomically
from experiments.run import Runner
from experiments.summary import summarise

SUMMARY, FIGURE, REPORT = "summary.csv", "figure.png", "report.md"


def accuracy(study: Accuracy, runner: Runner) -> report.Table:
    """Runs the accuracy study; returns the table of its results."""
    rows = runner(study.cells())
    summary = summarise(rows, ["arm", "learning_rate"])
    table = report.summary_table(summary)
    folder = runner.records.folder
    write_atomically(folder / SUMMARY, summary.to_csv(index=False))
    figures.save(figures.accuracy_by_epoch(rows), folder / FIGURE)
    source = runner.load(study.workload()).source
    write_atomically(folder / REPORT, report.accuracy_report(rows, table, source))
    return table


STUDIES: dict[type[Study], Callable[..., report.Table]] = {Accuracy: accuracy}
