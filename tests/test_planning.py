"""A study before it runs, and what it could have shown after."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from experiments import power, tasks
from experiments.comparisons import COLUMNS
from experiments.planning import Rehearsal, make_plan, write_plan
from experiments.records import RecordError
from experiments.statistics import seeds_needed, smallest_difference
from experiments.studies import STUDIES
from experiments.studies.accuracy import Accuracy
from experiments.studies.base import Study
from experiments.studies.leaderboard import Leaderboard
from experiments.studies.verdict import FairTest


@pytest.fixture(autouse=True)
def _no_figure_stays_open() -> Iterator[None]:
    yield
    plt.close("all")


def rehearse(study: Study) -> tuple[Rehearsal, pd.DataFrame]:
    rehearsal = Rehearsal()
    return rehearsal, study.run(rehearsal, "made up").comparisons


@pytest.mark.parametrize("name", [n for n in STUDIES if n not in ("verdict", "transfer")])
def test_every_study_can_be_planned_without_training(name: str):
    rehearsal, found = rehearse(STUDIES[name].at("smoke"))
    assert rehearsal.cells
    assert set(found.columns) == set(COLUMNS)


def test_a_study_of_selected_settings_is_planned_with_them(tmp_path: Path):
    selections = pd.DataFrame({"arm": list(FairTest.arms), "learning_rate": 0.1})
    selections.to_csv(tmp_path / "selections.csv", index=False)
    rehearsal, found = rehearse(FairTest(tuned=tmp_path, seeds=2, epochs=1))
    assert {cell.learning_rate for cell in rehearsal.cells} >= {0.1}
    assert set(found["family"]) == {"hypotheses", "exploration"}


@pytest.fixture
def study() -> Leaderboard:
    return Leaderboard(
        arms=("sgd", "adam"), seeds=5, epochs=2, budget=4, tuning_seeds=2, runner_up_seeds=3
    )


class TestPlan:
    def test_counts_runs_and_core_hours(self, study: Leaderboard):
        rehearsal, found = rehearse(study)
        cells = list(rehearsal.cells)
        times = rehearsal.step_times(cells).drop_duplicates().assign(seconds=0.5, examples=1280)
        plan = make_plan(cells, found, set(), times)
        runs = plan.runs.set_index(["arm", "purpose"])
        assert runs.loc[("adam", "search"), "runs"] == 4 * 2
        # Seeds of the runner-up are of another trial.
        assert runs.loc[("adam", "result"), "runs"] == 5 + 3
        assert runs.loc[("perturbed(sgd)", "result"), "runs"] == 5
        assert runs.loc[("adam", "result"), "core_hours"] == pytest.approx(8 * 2 * 10 * 0.5 / 3600)

    def test_leaves_out_what_is_finished(self, study: Leaderboard):
        rehearsal, found = rehearse(study)
        cells = list(rehearsal.cells)
        times = rehearsal.step_times(cells).drop_duplicates()
        plan = make_plan(cells, found, set(cells), times)
        assert plan.runs["epochs"].sum() == 0
        assert plan.runs["finished"].sum() == len(cells)

    def test_says_what_each_family_can_show(self, study: Leaderboard):
        rehearsal, found = rehearse(study)
        times = rehearsal.step_times(list(rehearsal.cells)).drop_duplicates()
        plan = make_plan(list(rehearsal.cells), found, set(), times)
        families = plan.families.set_index("family")
        assert families.loc["hypotheses", "n"] == 5
        assert families.loc["hypotheses", "smallest"] == smallest_difference(5, 1.0, tests=1)

    def test_is_written_down_with_its_configuration(self, study: Leaderboard, tmp_path: Path):
        rehearsal, found = rehearse(study)
        times = rehearsal.step_times(list(rehearsal.cells)).drop_duplicates()
        write_plan(make_plan(list(rehearsal.cells), found, set(), times), study, tmp_path)
        data = json.loads((tmp_path / "plan.json").read_text())
        assert data["configuration"]["budget"] == 4
        assert "standard deviations of the paired differences" in (tmp_path / "plan.md").read_text()


def test_rehearsed_rows_are_best_at_an_arm_s_own_rate():
    study = Accuracy(arms=("sgd",), seeds=1, epochs=1)
    (cell,) = study.cells("sgd", 0.1)
    column = tasks.find_task("mnist5k").metric.column
    values = [
        Rehearsal()([dataclasses.replace(cell, learning_rate=rate)])[column].item()
        for rate in (0.1, 0.3, 1.0)
    ]
    assert values == sorted(values, reverse=True)


class TestPower:
    def test_is_what_a_simulation_finds(self):
        import numpy as np
        from scipy import stats

        difference = smallest_difference(10, 0.5, tests=4)
        draws = np.random.default_rng(0).normal(difference, 0.5, (4000, 10))
        p = stats.ttest_1samp(draws, 0, axis=1, alternative="greater").pvalue
        assert np.mean(p <= 0.05 / 4) == pytest.approx(0.8, abs=0.02)

    def test_needs_as_many_seeds_as_show_the_difference(self):
        n = seeds_needed(0.5, 0.3)
        assert smallest_difference(n, 0.5) <= 0.3 < smallest_difference(n - 1, 0.5)

    def test_of_a_folder_without_comparisons_is_an_error_that_names_it(self, tmp_path: Path):
        with pytest.raises(RecordError, match=r"comparisons.csv is no table of comparisons"):
            power.main(tmp_path)

    def test_of_a_study_says_what_it_could_have_shown(self, tmp_path: Path, capsys):
        _, found = rehearse(Accuracy(arms=("sgd", "adam"), seeds=6, epochs=1))
        found.to_csv(tmp_path / "comparisons.csv", index=False)
        power.main(tmp_path)
        shown = capsys.readouterr().out
        assert "Adam" in shown
        assert f"{found['detectable'].item():.2f}" in shown
