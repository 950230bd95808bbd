"""The search for a plasticity that earns its place, on planted truths."""

import re
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from experiments.arms import ARMS
from experiments.cells import Cell, ConfigError
from experiments.comparisons import Verdict, rows_of
from experiments.report import write_report
from experiments.studies import families
from experiments.studies.families import FAMILIES, Families
from experiments.studies.families_questions import CONFIRMATORY, ELSEWHERE, FLOOR, placebos_of
from tests.studies.made_up import execute
from tests.studies.planted import Planted, level

FURTHER = ("mnist_small", "cifar10_small")
PLACEBOS = placebos_of("plastic_adam").keys()


@pytest.fixture(autouse=True)
def _no_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A figure takes longer than the rest; one test draws them."""
    if request.node.name != "test_its_page_and_figures_are_written_from_records_alone":
        for name in ("differences", "search"):
            monkeypatch.setattr(families.figures, name, lambda *_: plt.figure())
    yield
    plt.close("all")


def study(**settings) -> Families:
    sizes = {"seeds": 20, "epochs": 3, "budget": 8, "kept": 3, "tuning_seeds": 3, "rates": 4}
    few = {"task": "mnist5k", "arms": ("plastic_adam",), "further": FURTHER}
    return Families(**{**few, **sizes, **settings})


def tuning(planted: Planted, arm: str, task: str = "mnist5k") -> list[Cell]:
    cells = dict.fromkeys(planted.cells)
    of_arm = [c for c in cells if c.arm == arm and c.workload.task == task and c.seed >= 1000]
    assert {cell.workload.split for cell in of_arm} == {"validation"}
    return of_arm


def gain(points: float, *, placebos: float = 0.0):
    """Plasticity is better than its base by so many points, and its placebos are too."""

    def truth(cell: Cell) -> float:
        if not cell.arm.startswith("plastic"):
            return 90.0
        return 90.0 + (placebos if cell.arm in PLACEBOS else points)

    return truth


class TestEveryFamily:
    @pytest.mark.parametrize("arm", FAMILIES)
    def test_is_an_arm_beside_its_base_and_its_placebos(self, arm: str):
        names = {arm, FAMILIES[arm].base, *placebos_of(arm)}
        assert names <= set(ARMS)

    def test_has_as_many_trials_as_its_base_over_the_settings_of_its_own(self):
        planted = Planted(level)
        study(arms=tuple(FAMILIES), further=()).run(planted, "")
        for arm, (base, _) in FAMILIES.items():
            for name in (arm, base):
                first = [c for c in tuning(planted, name) if c.seed == 1000]
                assert len({(c.learning_rate, c.settings) for c in first}) == 8
                assert len({len(set(dict(c.settings))) for c in first}) == 1
        settings = {name for name, _ in tuning(planted, "plastic_adam")[0].settings}
        assert {"weight_decay", "strength", "memory_share", "max_alpha"} <= settings
        settings = {name for name, _ in tuning(planted, "adamw")[0].settings}
        assert settings == {"weight_decay", "b1", "b2"}

    def test_tries_all_on_one_seed_and_the_best_on_more(self):
        planted = Planted(level)
        study(further=()).run(planted, "")
        cells = tuning(planted, "adamw")
        assert len(cells) == 8 + 3 * 2

    def test_keeps_its_settings_on_further_tasks_where_only_the_rate_is_tuned(self):
        planted = Planted(level)
        found = study().run(planted, "")
        chosen = found.selections[found.selections["task"] == "mnist5k"].set_index("arm")
        for task in FURTHER:
            cells = tuning(planted, "plastic_adam", task)
            assert len({cell.learning_rate for cell in cells}) >= 4
            (settings,) = {cell.settings for cell in cells}
            assert dict(settings)["strength"] == chosen.loc["plastic_adam", "strength"]


class TestAnswer:
    def test_is_yes_where_a_family_is_better_than_its_base_on_two_tasks(self):
        of = study()
        found = of.run(Planted(gain(0.8)), "")
        answer, *_ = of.claims(found.comparisons)
        assert answer.answer.startswith("yes: AdamW with plasticity")
        assert answer.headline

    def test_is_no_where_it_is_not_and_says_what_the_data_leave_open(self):
        of = study()
        found = of.run(Planted(level), "")
        answer, *_ = of.claims(found.comparisons)
        assert answer.answer.startswith("no:")
        assert re.search(
            r"largest gain still compatible with the data is \d\.\d\d", answer.measured
        )

    def test_is_no_where_it_is_better_on_one_task_alone(self):
        of = study(further=("mnist_small",))
        found = of.run(
            Planted(lambda c: 90 + ("plastic" in c.arm and c.workload.task == "mnist5k")), ""
        )
        assert of.claims(found.comparisons)[0].answer.startswith("no:")

    def test_tells_a_gain_that_its_placebos_have_too(self):
        found = study(further=()).run(Planted(gain(0.8, placebos=0.8)), "")
        by_control = {
            row["control"]: Verdict(row["verdict"])
            for row in rows_of(found.comparisons, family=CONFIRMATORY)
        }
        assert by_control["adamw"] == Verdict.BETTER
        assert by_control["plastic_adam_norm_matched"] != Verdict.BETTER

    def test_is_explained_by_placebos_on_the_further_tasks_where_it_is_better(self):
        planted = Planted(
            lambda cell: gain(0.8)(cell) if cell.workload.task != "mnist_small" else 90.0
        )
        found = study(further_seeds=7).run(planted, "").comparisons
        placebos = [
            cell for cell in planted.cells if cell.arm in PLACEBOS and cell.workload.task in FURTHER
        ]
        assert {cell.workload.task for cell in placebos} == {"cifar10_small"}
        assert {cell.arm for cell in placebos} == PLACEBOS
        assert {cell.seed for cell in placebos} == set(range(7))
        rows = rows_of(found, family=ELSEWHERE)
        assert [row["control"] for row in rows] == [*PLACEBOS]
        assert {row["verdict"] for row in rows} == {Verdict.BETTER}

    def test_has_a_noise_floor(self):
        found = study(further=()).run(Planted(level), "")
        (row,) = rows_of(found.comparisons, family=FLOOR)
        assert row["control"] == "perturbed(plastic_adam)"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"arms": ("adam",)}, "families as arms, .*adam"),
        ({"further": ("imagenet",)}, "unknown task 'imagenet'"),
        ({"kept": 0}, "kept must be at least 1"),
    ],
)
def test_refusals_come_before_any_run(settings: dict, said: str):
    with pytest.raises(ConfigError, match=said):
        study(**settings)


def test_its_page_and_figures_are_written_from_records_alone(tmp_path: Path):
    """On made-up results; then the same report from the records."""
    small = {**Families.sizes["smoke"], "further": ("mnist",), "out": tmp_path / "families"}
    shown = execute(Families(preset="smoke", **small))
    assert "AdamW with plasticity" in shown
    pages = ("report.md", "figure.png", "search.png", "comparisons.csv", "claims.csv")
    before = {name: (tmp_path / "families" / name).read_bytes() for name in pages}
    trials = pd.read_csv(tmp_path / "families" / "trials.csv")
    searched = trials[trials["task"] == "mnist5k"].groupby("arm")["trial"].agg(list)
    assert searched.to_dict() == {"plastic_adam": [0, 1, 2], "adamw": [0, 1, 2]}
    write_report(tmp_path / "families")
    assert before == {name: (tmp_path / "families" / name).read_bytes() for name in pages}
