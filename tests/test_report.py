"""Reports anew from the committed records: without training, to the same numbers."""

import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
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
    ],
)
def test_a_committed_report_is_made_from_its_records_alone(
    name: str, task: str, could: str, tmp_path: Path, titles: dict[str, str]
):
    folder = records_of(name, tmp_path)
    runs = (folder / "runs.csv").read_bytes()
    report.main((folder,))
    for text in TEXTS:
        made, committed = folder / text, COMMITTED / name / text
        if made.suffix == ".csv":  # the last digit is that of SciPy's version
            tables = (pd.read_csv(path) for path in (made, committed))
            pd.testing.assert_frame_equal(*tables, rtol=1e-9)
        else:
            assert made.read_text() == committed.read_text(), text
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
    folder = records_of("accuracy-mnist", tmp_path)
    lines = (folder / "runs.csv").read_text().splitlines(keepends=True)
    (folder / "runs.csv").write_text("".join(lines[:-2]))
    with pytest.raises(RecordError, match=r"runs\.csv has not all training runs"):
        report.write_report(folder)


def test_a_study_whose_settings_are_gone_is_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = records_of("accuracy-mnist", tmp_path)
    manifest = (folder / "manifest.json").read_text()
    changed = manifest.replace('"epochs"', '"before": 1, "epochs"', 1)
    (folder / "manifest.json").write_text(changed)
    report.main((folder,))
    assert "a study accuracy with before, which it no longer has" in capsys.readouterr().out
    assert not (folder / "report.md").exists()


def test_a_study_whose_selections_have_changed_is_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = records_of("verdict-mnist", tmp_path)
    shutil.copytree(COMMITTED / "tune-mnist", tmp_path / "tune-mnist")
    selections = tmp_path / "tune-mnist/selections.csv"
    selections.write_text(selections.read_text() + "\n")
    report.main((folder,))
    assert "was made from selections that have changed since" in capsys.readouterr().out
    assert not (folder / "report.md").exists()
