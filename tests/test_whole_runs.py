"""Whole runs beside PyTorch, which another program stands in for: nothing here needs torch."""

import dataclasses
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import harness, torch_process, whole_runs, whole_runs_report
from benchmarks.torch_process import PACKAGE, Worker
from experiments.cells import ConfigError
from tests.test_benchmarks import Run, check_folder, run

ROUNDS = 2
ANSWERS = """
import json, sys, time
data, threads, *source = sys.argv[1:]
versions = {"torch": "0.0", "python of torch": "0.1"}
print(json.dumps({"versions": versions, "threads": int(threads), "source": source}), flush=True)
for line in sys.stdin:
    order = json.loads(line)
    time.sleep(0.01 if order["images"] == "before" else 0.05)
    order["test_accuracy"] = 0.5
    print(json.dumps(order), flush=True)
"""


def stands_in(folder: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Lets a program take the place of the one that trains with torch."""
    worker = folder / "worker.py"
    worker.write_text(program)
    monkeypatch.setattr(torch_process, "WORKER", worker)


def clone(folder: Path) -> Path:
    """A repository that has the published package, with nothing in it."""
    (folder / PACKAGE).mkdir(parents=True)
    (folder / PACKAGE / "__init__.py").write_text("")
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        stands_in(tmp_path_factory.mktemp("worker"), patch, ANSWERS)
        patch.setattr(harness, "MIN_ROUNDS", ROUNDS)  # each compiles anew
        return run(whole_runs, tmp_path_factory.mktemp("whole_runs"))


class TestRun:
    def test_has_a_row_for_each_number_of_seeds_and_each_way_to_get_images(self, finished: Run):
        rows = finished.table("whole_runs")
        found = list(zip(rows["implementation"], rows["how"], rows["seeds"], strict=True))
        assert found == [
            ("neuroplastic-optax", "together", 1),
            ("neuroplastic-optax", "together", 2),
            ("torch's Adam", "images one by one", 1),
            ("torch's Adam", "images prepared before", 1),
        ]
        assert (rows["rounds"] == ROUNDS).all()

    def test_seconds_are_those_of_something(self, finished: Run):
        rows = finished.table("whole_runs")
        assert (rows["seconds_per_seed"] >= rows["best_seconds_per_seed"]).all()
        assert rows["seconds_per_seed"].between(0.01, 600).all()
        beside = rows["beside_training_seconds"]
        assert (beside[:2] < rows["seconds_per_seed"][:2]).all()
        assert beside[2:].isna().all()

    def test_every_run_compiles(self, finished: Run):
        rows = finished.table("whole_runs")
        assert (rows["beside_training_seconds"][:2] > 0.2).all()

    def test_ratios_are_of_the_same_round(self, finished: Run):
        ratios = finished.table("ratios")
        assert ratios["seeds"].tolist() == [1, 2, 1, 2]
        assert ratios["ratio"].between(ratios["smallest"], ratios["largest"]).all()
        assert ratios["target"].isna().all()  # those are of ten epochs on all images

    def test_shows_and_reports_what_it_records(self, finished: Run):
        assert finished.shows(whole_runs_report.run_table(finished.table("whole_runs")))
        assert finished.shows(whole_runs_report.ratio_table(finished.table("ratios")))

    def test_says_that_the_published_implementation_was_not_at_hand(self, finished: Run):
        assert "was not at hand: measured is torch's Adam" in finished.report
        ratio = finished.table("ratios")["ratio"].iloc[0]
        table = whole_runs_report.ratio_table(finished.table("ratios"))
        assert table[0][4] == "x 1.7, not measured"
        assert table[1][4] == f"{1.7 * ratio:.1f}"

    def test_leaves_a_figure_and_a_manifest(self, finished: Run):
        check_folder(finished, "whole_runs", {"whole_runs.csv", "ratios.csv"})
        assert "PyTorch 0.0 in a process of its own" in finished.report


def test_the_published_implementation_is_named_by_its_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    stands_in(tmp_path, monkeypatch, ANSWERS)
    config = whole_runs.Config("smoke", published=clone(tmp_path / "clone"), images=256)
    dataset = whole_runs.make_data(config)
    with whole_runs.start_worker(config, dataset) as worker:
        assert worker.facts["source"] == [str(tmp_path / "clone" / "src")]
        manifest = whole_runs.describe(config, dataset, worker)
    assert str(tmp_path) not in str(manifest)
    assert manifest["compared_with"]["implementation"] == "published implementation"
    assert len(manifest["compared_with"]["sha256 of its package"]) == 64
    assert (manifest["data"]["train"], manifest["data"]["evaluated"]) == (256, 64)


def test_a_whole_run_of_torch_is_as_many_times_the_epochs_that_are_timed(
    monkeypatch: pytest.MonkeyPatch,
):
    """Four seconds for two seeds of ours, and three for one of ten epochs of the other one."""
    seconds = {0: np.full(3, 4.0), 1: np.full(3, 3.0)}
    monkeypatch.setattr(harness, "time_in_turns", lambda *_: seconds)

    @dataclasses.dataclass
    class Call:
        beside: list[float] = dataclasses.field(default_factory=lambda: [9.0, 1.0, 1.0, 1.0])
        accuracy: list[float] = dataclasses.field(default_factory=lambda: [0.0, 0.9, 0.9, 0.9])

    contestants = [
        whole_runs.Contestant(whole_runs.OURS, "together", 2, 10, Call()),
        whole_runs.Contestant(whole_runs.ADAM, "images one by one", 1, 1, Call()),
    ]
    rows, ratios = whole_runs.measure(contestants, 10, None)
    assert rows["seconds_per_seed"].tolist() == [2, 30]
    assert rows["beside_training_seconds"].tolist() == [1, 1]
    assert ratios["ratio"].tolist() == [15]


@pytest.mark.parametrize("seeds", [1, 10])
def test_targets_stand_beside_the_ratios(seeds: int):
    row = {
        "other": whole_runs.PUBLISHED,
        "how": "as it is",
        "ratio": 12.3,
        "smallest": 11,
        "largest": 13,
    }
    ratios = pd.DataFrame([{**row, "seeds": seeds, "target": whole_runs.TARGETS[seeds]}])
    target = {1: "10", 10: "15"}[seeds]
    assert whole_runs_report.ratio_table(ratios)[1][2:] == ["12.3", "11.0 to 13.0", target]


class TestErrors:
    @pytest.mark.parametrize("name", ["epochs", "seeds", "images", "torch_epochs"])
    def test_a_size_below_one_is_refused(self, name: str):
        with pytest.raises(ConfigError, match=f"{name} must be at least 1, got 0"):
            whole_runs.Config(**{name: 0})

    def test_torch_trains_no_longer_than_a_whole_run(self):
        with pytest.raises(ConfigError, match="torch_epochs must be at most the 2 epochs"):
            whole_runs.Config(epochs=2, torch_epochs=3)

    def test_more_images_than_there_are_are_refused(self):
        config = whole_runs.Config("smoke", images=4001)
        with pytest.raises(ConfigError, match="images must be at most the 4000 that mnist5k has"):
            whole_runs.make_data(config)

    def test_a_folder_without_the_package_is_refused(self, tmp_path: Path):
        with pytest.raises(ConfigError, match=f"published must be .* {PACKAGE}, got {tmp_path}"):
            whole_runs.Config(published=tmp_path)

    def test_an_interpreter_that_is_not_there_is_refused(self, tmp_path: Path):
        nowhere = tmp_path / "python"
        with pytest.raises(ConfigError, match=f"python must be .* got {nowhere}: No such file"):
            Worker(tmp_path / "data.npz", nowhere, None)

    def test_an_interpreter_without_torch_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        stands_in(tmp_path, monkeypatch, "import a_torch_that_is_not_there")
        expected = "python must be an interpreter that has torch and NumPy; the process of .* ended"
        with pytest.raises(ConfigError, match=f"{expected}: .*No module named 'a_torch"):
            Worker(tmp_path / "data.npz", None, None)

    def test_a_package_that_does_not_fit_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        stands_in(tmp_path, monkeypatch, "raise TypeError('no warmup_epochs')")
        with pytest.raises(ConfigError, match=r"takes the published settings; .*no warmup_epochs"):
            Worker(tmp_path / "data.npz", None, clone(tmp_path / "clone"))

    def test_a_process_that_ends_in_the_middle_is_told_of(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        ends = ANSWERS.replace("time.sleep(", "sys.exit('out of memory'); (")
        stands_in(tmp_path, monkeypatch, ends)
        worker = Worker(tmp_path / "data.npz", None, None)
        with pytest.raises(ConfigError, match="ended: out of memory"):
            worker.train(images="before", seed=0, epochs=1)
        worker.close()


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.parametrize("images", list(whole_runs.PREPARED))
def test_torch_learns_what_it_is_given(images: str, tmp_path: Path):
    labels = np.repeat(np.arange(10, dtype=np.int32), 64)
    pictures = np.broadcast_to(25 * labels[:, None, None, None], (640, 28, 28, 1)).astype(np.uint8)
    data = tmp_path / "data.npz"
    splits = {"train_images": pictures, "test_images": pictures}
    np.savez(data, **splits, train_labels=labels, test_labels=labels)
    worker = Worker(data, Path(sys.executable), None)
    answer = worker.train(images=images, seed=0, epochs=20)
    worker.close()
    assert answer["test_accuracy"] > 0.3, "of ten classes"
    assert answer["seconds"] > 0
