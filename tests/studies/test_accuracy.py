"""Figure 2: test accuracy by epoch."""

from pathlib import Path

import pytest

from experiments import reference
from experiments.arms import ARMS
from experiments.cells import Workload
from experiments.records import RecordError
from experiments.studies.accuracy import Accuracy
from tests.studies.made_up import Done, StudyTests, execute, final_percent, read


class TestAccuracy(StudyTests):
    study = Accuracy(arms=("full", "sgd"), seeds=3, epochs=2)

    def test_summary_is_of_the_recorded_rows(self, done: Done):
        summary = done.read("summary.csv").set_index("arm")
        final = final_percent(done.rows).groupby("arm")
        for arm in ("full", "sgd"):
            assert summary.loc[arm, "final_mean"] == pytest.approx(final.mean()[arm])
            assert summary.loc[arm, "final_sd"] == pytest.approx(final.std()[arm])
            assert summary.loc[arm, "n"] == 3

    def test_compares_the_first_arm_with_the_others_by_seed(self, done: Done):
        final = final_percent(done.rows).groupby("arm").mean()
        (row,) = done.comparisons.to_dict("records")
        assert (row["treatment"], row["control"]) == ("full", "sgd")
        assert row["mean"] == pytest.approx(final["full"] - final["sgd"], abs=1e-4)


@pytest.mark.usefixtures("no_pictures")
class TestRecords:
    def test_may_grow_by_seeds_and_arms_but_not_change(self, tmp_path: Path):
        execute(Accuracy(arms=("sgd",), seeds=1, epochs=2, out=tmp_path))
        execute(Accuracy(arms=("sgd", "adam"), seeds=3, epochs=2, out=tmp_path))
        assert len(read(tmp_path, "runs.csv")) == 2 * 3 * 2
        with pytest.raises(RecordError, match="epochs was 2, now 3"):
            execute(Accuracy(arms=("sgd",), seeds=1, epochs=3, out=tmp_path))

    def test_show_only_what_was_asked_for(self, tmp_path: Path):
        execute(Accuracy(arms=("sgd", "adam"), seeds=3, epochs=2, out=tmp_path))
        shown = execute(Accuracy(arms=("adam",), seeds=2, epochs=2, out=tmp_path))
        assert "SGD" not in shown
        assert read(tmp_path, "summary.csv")["n"].tolist() == [2]

    def test_of_one_arm_compare_nothing(self, tmp_path: Path):
        execute(Accuracy(arms=("adam",), seeds=2, epochs=2, out=tmp_path))
        assert read(tmp_path, "comparisons.csv").empty
        assert "sign flips" not in (tmp_path / "report.md").read_text()

    def test_stand_beside_the_published_implementation_after_ten_epochs(self, tmp_path: Path):
        execute(Accuracy(task="mnist", arms=("full",), seeds=3, out=tmp_path))
        report = (tmp_path / "report.md").read_text()
        ours = final_percent(read(tmp_path, "runs.csv")).mean()
        published = reference.load("mnist").query("arm == 'full' and epoch == 10")
        theirs = 100 * published["test_accuracy"].mean()
        assert f"{ours:.2f}% here" in report
        assert f"{theirs:.2f}% there" in report
        assert f"{ours - theirs:+.2f} points apart" in report


class TestCells:
    def test_are_every_arm_with_every_seed(self):
        plan = Accuracy(arms=("sgd", "adam"), seeds=3).trained()
        assert [(cell.arm, cell.seed) for cells in plan.values() for cell in cells] == [
            (arm, seed) for arm in ("sgd", "adam") for seed in (0, 1, 2)
        ]

    def test_share_one_workload(self):
        study = Accuracy(task="mnist", seeds=2, epochs=3, batch_size=64)
        workload = Workload("mnist", epochs=3, batch_size=64, diagnostics=True)
        assert {cell.workload for cells in study.trained().values() for cell in cells} == {workload}

    def test_take_the_default_learning_rate_of_their_arm(self):
        for arm, (cell,) in Accuracy(arms=tuple(ARMS), seeds=1).trained().items():
            assert cell.learning_rate == ARMS[arm].learning_rate

    def test_take_the_one_for_all_where_it_is_given(self):
        plan = Accuracy(arms=("sgd", "adam"), learning_rate=0.25).trained()
        assert {cell.learning_rate for cells in plan.values() for cell in cells} == {0.25}

    def test_do_not_depend_on_where_things_are(self):
        elsewhere = Accuracy(out=Path("a"), data_dir=Path("b"), raw_dir=Path("c"))
        assert elsewhere.trained() == Accuracy().trained()

    def test_of_more_seeds_begin_with_those_of_fewer(self):
        fewer, more = (Accuracy(arms=("sgd",), seeds=n).trained()["sgd"] for n in (2, 4))
        assert more[:2] == fewer
