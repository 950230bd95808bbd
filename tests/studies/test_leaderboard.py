"""The leaderboard on planted truths: what is there is found, and what is not is not."""

from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from experiments.cells import Cell, ConfigError
from experiments.comparisons import Verdict, rows_of
from experiments.scores import interquartile_means, normalised, performance_profile
from experiments.studies import leaderboard
from experiments.studies.leaderboard import CONFIRMATORY, FLOOR, RUNNER_UP, Leaderboard
from experiments.studies.leaderboard_figures import profiles
from tests.studies.planted import Planted, level


@pytest.fixture(autouse=True)
def _no_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A figure takes longer than the rest; one test draws them."""
    if request.node.name != "test_its_page_and_figures_are_written_from_records_alone":
        for name in ("differences", "profiles"):
            monkeypatch.setattr(leaderboard.figures, name, lambda *_: plt.figure())
    yield
    plt.close("all")


def board(**settings) -> Leaderboard:
    sizes = {"seeds": 20, "epochs": 4, "budget": 4, "tuning_seeds": 3, "floor": False}
    return Leaderboard(**{"arms": ("sgd", "adam"), **sizes, **settings})


def verdict(found, family: str = CONFIRMATORY, **where) -> Verdict:
    (row,) = rows_of(found.comparisons, family=family, **where)
    return Verdict(row["verdict"])


class TestPlantedTruths:
    def test_of_two_equal_arms_nothing_is_shown_or_they_are_equal(self):
        found = board().run(Planted(level), "")
        assert verdict(found) in (Verdict.NOT_SHOWN, Verdict.NO_PRACTICAL_DIFFERENCE)

    def test_an_arm_that_is_better_by_a_known_amount_is_found(self):
        found = board().run(Planted(lambda cell: 90.0 + 0.6 * (cell.arm == "adam")), "")
        (row,) = rows_of(found.comparisons, family=CONFIRMATORY)
        assert Verdict(row["verdict"]) == Verdict.BETTER
        assert row["interval_low"] < 0.6 < row["interval_high"]

    def test_of_a_loss_less_is_better(self):
        study = board(tasks=("mnist5k_autoencoder",))
        found = study.run(Planted(lambda cell: 9.0 - 0.6 * (cell.arm == "adam")), "")
        (row,) = rows_of(found.comparisons, family=CONFIRMATORY)
        assert Verdict(row["verdict"]) == Verdict.BETTER
        assert row["mean"] == pytest.approx(0.6, abs=0.2)
        assert row["metric"] == "reduction of final squared error per image"

    def test_a_run_that_diverged_counts_as_the_worst(self):
        study = board(tasks=("mnist5k_autoencoder",), seeds=6)

        def truth(cell: Cell) -> float:
            return np.nan if (cell.arm, cell.seed) == ("adam", 0) else 9.0

        found = study.run(Planted(truth), "")
        (row,) = rows_of(found.comparisons, family=CONFIRMATORY)
        assert row["n"] == 6
        assert row["mean"] < -100, "784 of one seed, in the mean of six"

    def test_an_arm_that_wins_only_by_more_trials_loses_at_equal_budgets(self):
        """It has one good rate in sixty, where the other one is as good nearly everywhere."""

        def truth(cell: Cell) -> float:
            if cell.arm == "adam":
                return 90.0
            rare = abs(np.log10(cell.learning_rate / 0.1)) < 0.02
            return 91.0 if rare else 80.0

        few = board(budget=4).run(Planted(truth, noise=0.01), "")
        many = board(budget=64).run(Planted(truth, noise=0.01), "")
        assert verdict(few) == Verdict.BETTER, "adam at four trials"
        assert verdict(many) == Verdict.WORSE, "adam at 64"
        curves = many.tables["budget.csv"].pivot(index="budget", columns="arm", values="expected")
        assert (curves.loc[:16, "sgd"] < curves.loc[:16, "adam"]).all()
        assert curves.loc[4, "sgd"] < curves.loc[64, "sgd"]

    def test_the_claim_of_a_task_counts_the_arms_and_names_the_best(self):
        study = board(arms=("sgd", "adam", "momentum"))
        truth = {"sgd": 90.0, "adam": 91.0, "momentum": 89.0}
        found = study.run(Planted(lambda cell: truth[cell.arm]), "")
        claim, *others = study.claims(found.comparisons)
        assert claim.question == "Are other optimizers better than SGD, all tuned alike?"
        assert (claim.answer, claim.headline) == ("of 2 better: 1; worse: 1", True)
        assert claim.measured.startswith("Adam: Δ +1.")
        assert "; worse: SGD momentum Δ -" in claim.measured
        assert len(others) == 2

    def test_a_task_may_be_added_to_the_records(self):
        one, two = board(), board(tasks=("mnist5k", "mnist_small"))
        assert one.configuration() == two.configuration()
        planted = Planted(level)
        two.run(planted, "")
        settings = {**two.configuration(), "tasks": ["mnist5k"]}  # as old records have it
        rows = planted(list(planted.cells))
        assert Leaderboard.on_record(Path("here"), settings, rows).tasks == two.tasks

    def test_the_noise_floor_is_no_difference(self):
        found = board(floor=True).run(Planted(level), "")
        (row,) = rows_of(found.comparisons, family=FLOOR)
        assert (row["treatment"], row["control"]) == ("sgd", "perturbed(sgd)")
        assert Verdict(row["verdict"]) != Verdict.BETTER


class TestSearch:
    @pytest.fixture
    def planted(self) -> Planted:
        """Best at 1, a decade above sgd's own rate and so at the edge of its space."""
        return Planted(lambda cell: 90 - abs(np.log10(cell.learning_rate)), noise=0.01)

    def test_gives_every_arm_as_many_trials_of_as_many_seeds(self):
        planted = Planted(lambda cell: 90 - np.log10(cell.learning_rate / 0.1) ** 2, 0.01)
        board(arms=("sgd", "sgd_homeostasis"), budget=6).run(planted, "")
        tuning = {cell for cell in planted.cells if cell.seed >= 1000}
        for arm in ("sgd", "sgd_homeostasis"):
            trials = {(cell.learning_rate, cell.settings) for cell in tuning if cell.arm == arm}
            assert len(trials) == 6
        assert {cell.workload.split for cell in tuning} == {"validation"}

    def test_goes_on_beyond_an_edge_and_counts_what_it_tried(self, planted: Planted):
        found = board(arms=("sgd", "momentum"), budget=4).run(planted, "")
        chosen = found.selections.set_index("arm")
        assert chosen.loc["sgd", "trials"] > 4
        tried = found.tables["trials.csv"].groupby("arm")["trial"].size()
        assert tried.to_dict() == chosen["trials"].to_dict()

    def test_never_looks_at_test_examples(self):
        planted = Planted(lambda cell: 90.0 + 9 * (cell.workload.split == "test"))
        found = board().run(planted, "")
        assert (found.selections["validation"] < 95).all()

    def test_varies_the_settings_that_are_named(self):
        planted = Planted(level)
        study = board(arms=("adam", "sgd"), search=("b1=linear(.8, .99)",))
        table = study.run(planted, "").tables["trials.csv"]
        of_adam = table[table["arm"] == "adam"]
        assert of_adam["b1"].between(0.8, 0.99).all()
        assert table.loc[table["arm"] == "sgd", "b1"].isna().all()

    def test_reports_the_comparison_at_the_runner_up(self):
        found = board(runner_up_seeds=3).run(Planted(level), "")
        (row,) = rows_of(found.comparisons, family=RUNNER_UP)
        assert row["n"] == 3


class TestReport:
    def test_keeps_hypotheses_and_exploration_apart(self):
        report = "\n".join(board(floor=True).run(Planted(level), "").report)
        parts = [report.index(f"## {title}") for title in ("Written", "The noise", "Exploration")]
        assert parts == sorted(parts)

    def test_says_what_each_comparison_could_have_shown(self):
        found = board().run(Planted(level), "")
        assert "could show" in "\n".join(found.report)
        assert np.isfinite(found.comparisons["detectable"]).any()

    def test_counts_steps_to_a_target_that_was_fixed_before(self):
        def truth(cell: Cell) -> float:
            return 90.0 if cell.arm == "sgd" else 80.0

        ranked = board().run(Planted(truth, 0.0), "").tables["leaderboard.csv"].set_index("arm")
        assert ranked.loc["sgd", "target"] == pytest.approx(0.98 * 90, abs=2)
        assert ranked.loc["sgd", "steps"] in (20, 30, 40)
        assert np.isinf(ranked.loc["adam", "steps"]), "censored, not left out"


class TestRefusals:
    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"reference": "lion"}, "reference must be one of the arms sgd adam, got 'lion'"),
            ({"tasks": ()}, "tasks must not be empty"),
            ({"tasks": ("imagenet",)}, "unknown task 'imagenet'"),
            ({"search": ("no_such=log(1, 2)",)}, "none of the arms has a setting 'no_such'"),
            ({"budget": 0}, "budget must be at least 1"),
        ],
    )
    def test_come_before_any_run(self, settings: dict, said: str):
        with pytest.raises(ConfigError, match=said):
            board(**settings)


class TestScores:
    def test_go_from_the_lowest_arm_s_mean_to_the_best_arm_s(self):
        values = pd.DataFrame(
            {"task": "t", "arm": ["a", "a", "b", "b"], "seed": [0, 1] * 2, "value": [1.0, 3, 5, 7]}
        )
        means = normalised(values).groupby("arm")["score"].mean()
        assert means.to_dict() == {"a": 0, "b": 1}

    def test_interquartile_means_leave_out_the_quarter_at_either_end(self):
        scores = pd.DataFrame({"task": "t", "arm": "a", "score": [0.0, 1, 1, 100]})
        (row,) = interquartile_means(scores).to_dict("records")
        assert row["score"] == 1
        assert row["low"] <= 1 <= row["high"]

    def test_profiles_count_the_tasks_within_a_factor_of_the_best(self):
        steps = pd.DataFrame(
            {"task": ["t", "t", "u", "u"], "arm": ["a", "b"] * 2, "steps": [10.0, 30, np.inf, 5]}
        )
        shares = performance_profile(steps, np.array([1.0, 2, 4]))
        assert shares["a"].tolist() == [0.5, 0.5, 0.5]
        assert shares["b"].tolist() == [0.5, 0.5, 1.0]


def test_its_page_and_figures_are_written_from_records_alone(tmp_path: Path):
    """Two arms of a task of one's own, for real; then the same report from the records."""
    from experiments.report import write_report
    from tests.studies.made_up import execute, read

    study = Leaderboard.at("smoke")
    own = "docs/own_task.py:make"
    study = type(study)(
        **{**study.sizes["smoke"], "arms": ("sgd", "optax:adam")},
        preset="smoke",
        tasks=(own,),
        out=tmp_path / "board",
    )
    shown = execute(study)
    assert "adam − SGD" in shown
    before = {path.name: path.read_bytes() for path in (tmp_path / "board").glob("*.[cmp]*")}
    assert {"report.md", "figure.png", "profiles.png", "trials.csv", "budget.csv"} <= set(before)
    assert len(read(tmp_path / "board", "leaderboard.csv")) == 2
    write_report(tmp_path / "board")
    after = {path.name: path.read_bytes() for path in (tmp_path / "board").glob("*.[cmp]*")}
    assert after == before


class TestProfiles:
    @pytest.fixture
    def drawn(self) -> Callable[..., list[str]]:
        """The titles of the panels, of results for some tasks."""

        def drawn(*tasks: str) -> list[str]:
            arms = ("sgd", "adam")
            both = [(task, arm) for task in tasks for arm in arms]
            ranked = pd.DataFrame(both, columns=["task", "arm"])
            ranked = ranked.assign(steps=[10.0, np.inf] * len(tasks), target=97.0)
            points = pd.concat(ranked.assign(seed=seed, value=seed * 1.0) for seed in range(4))
            budget = pd.concat(
                ranked.assign(budget=k, expected=90.0 + k + ranked.index) for k in (1, 2)
            )
            figure = profiles(ranked, points, budget)
            assert [text.get_text() for text in figure.legends[0].get_texts()] == ["SGD", "Adam"]
            return [axes.get_title() for axes in figure.axes]

        return drawn

    def test_are_of_several_tasks(self, drawn: Callable[..., list[str]]):
        assert drawn("mnist", "fashion_mnist")[0] == "steps to the target (tasks: 2)"

    def test_of_one_task_are_the_steps_of_every_arm(self, drawn: Callable[..., list[str]]):
        assert drawn("mnist")[0] == "steps to 97.00"
