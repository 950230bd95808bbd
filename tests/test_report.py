"""Reports anew from the committed records: without training, to the same numbers."""

import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from experiments import plotting, report
from experiments.records import RecordError

COMMITTED = Path(__file__).parents[1] / "docs" / "results"
TEXTS = ("summary.csv", "comparisons.csv", "claims.csv", "report.md")


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plotting, "save", lambda figure, _: plt.close(figure))


def records_of(name: str, folder: Path) -> Path:
    """A copy of what a committed study trained."""
    copy = folder / name
    copy.mkdir()
    for file in ("runs.csv", "manifest.json"):
        shutil.copy(COMMITTED / name / file, copy)
    return copy


@pytest.mark.parametrize(
    "name", ["accuracy-mnist", "dynamics-fashion_mnist", "optimizers-cifar10", "text-python_source"]
)
def test_a_committed_report_is_made_from_its_records_alone(name: str, tmp_path: Path):
    folder = records_of(name, tmp_path)
    runs = (folder / "runs.csv").read_bytes()
    report.main((folder,))
    for text in TEXTS:
        assert (folder / text).read_text() == (COMMITTED / name / text).read_text(), text
    assert (folder / "runs.csv").read_bytes() == runs


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
