"""Reports anew from the committed records: without training, to the same numbers."""

import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure

from experiments import plotting, report
from experiments.records import RecordError

COMMITTED = Path(__file__).parents[1] / "docs" / "results"
TEXTS = ("summary.csv", "comparisons.csv", "claims.csv", "report.md")


@pytest.fixture(autouse=True)
def titles(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What is written above figures, none of which is saved."""
    found = {}

    def keep(figure: Figure, path: Path) -> None:
        plt.close(figure)
        found[path.name] = figure.get_suptitle() or figure.axes[0].get_title()

    monkeypatch.setattr(plotting, "save", keep)
    return found


def records_of(name: str, folder: Path) -> Path:
    """A copy of what a committed study trained."""
    copy = folder / name
    copy.mkdir()
    for file in ("runs.csv", "manifest.json"):
        shutil.copy(COMMITTED / name / file, copy)
    return copy


@pytest.mark.parametrize(
    ("name", "task", "could"),
    [
        ("accuracy-mnist", "MNIST: ", "could show 0.16 points at 80% power"),
        ("dynamics-fashion_mnist", "Fashion-MNIST: ", "could show 0.0035 (mean α in the last"),
        (
            "optimizers-cifar10",
            "CIFAR-10 (width 8, 10% of the data, 6 epochs): ",
            "too few seeds to show any difference",
        ),
        (
            "text-python_source",
            "Python's standard library (50% of the data, 2 epochs): ",
            "could show 0.59 to 0.9 points at 80% power",
        ),
    ],
)
def test_a_committed_report_is_made_from_its_records_alone(
    name: str, task: str, could: str, tmp_path: Path, titles: dict[str, str]
):
    folder = records_of(name, tmp_path)
    runs = (folder / "runs.csv").read_bytes()
    report.main((folder,))
    for text in TEXTS:
        assert (folder / text).read_text() == (COMMITTED / name / text).read_text(), text
    assert (folder / "runs.csv").read_bytes() == runs
    assert titles["figure.png"].startswith(task)
    assert could in titles["figure.png"]


def test_the_source_is_that_of_the_study_s_own_task():
    data = {
        "fashion_mnist-validation10": {"source": "images; held out"},
        "fashion_mnist": {"source": "images"},
        "cifar10": {"source": "less"},
    }
    assert report._source(data, "fashion_mnist") == "images"


def test_a_run_that_is_not_on_record_is_not_trained(tmp_path: Path):
    folder = records_of("text-python_source", tmp_path)
    lines = (folder / "runs.csv").read_text().splitlines(keepends=True)
    (folder / "runs.csv").write_text("".join(lines[:-2]))
    with pytest.raises(RecordError, match=r"runs\.csv has not all training runs"):
        report.write_report(folder)


def test_a_study_whose_selections_have_changed_is_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = records_of("transfer-cifar10", tmp_path)
    shutil.copytree(COMMITTED / "selection-mnist", tmp_path / "selection-mnist")
    report.main((folder,))
    assert "was made from selections that have changed since" in capsys.readouterr().out
    assert not (folder / "report.md").exists()
