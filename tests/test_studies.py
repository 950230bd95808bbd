"""The studies, from settings to files, with a made-up outcome in place of training."""

import dataclasses
import functools
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from experiments import __main__ as command_line
from experiments import figures, run, tasks
from experiments.cells import ConfigError
from experiments.configs import (
    Accuracy,
    DesignSpace,
    Dynamics,
    LowData,
    Noise,
    Optimizers,
    Selection,
    Study,
    Text,
    Transfer,
    Tune,
    Verdict,
)
from experiments.dataset import Dataset
from experiments.hypotheses import HYPOTHESES
from experiments.optimizers import ARMS, FAIR_TEST, PLASTIC, SELECTION
from experiments.records import CELL_COLUMNS, RecordError
from experiments.statistics import holm, paired_comparison
from experiments.train import Arrays, Task

IMAGES = 120
BEST_RATES = {"full": 0.3, "sgd": 0.003, "adam": 0.001}  # of others: their default
STATISTICS = (
    "alpha_mean",
    "alpha_std",
    "alpha_min",
    "alpha_max",
    "fraction_at_min",
    "fraction_at_max",
    "fraction_negative",
    "raw_gradient_norm",
    "modulated_update_norm",
)
NORMS = ("raw_update_norm", "effective_update_norm")
LEAVES = ("hidden/0/kernel", "hidden/0/bias", "head/kernel", "head/bias")


def dataset(name: str = "tiny") -> Dataset:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (IMAGES + 40, 4, 4, 1), np.uint8)
    labels = np.arange(IMAGES + 40, dtype=np.int32) % 10
    return Dataset(name, pixels[:IMAGES], labels[:IMAGES], pixels[IMAGES:], labels[IMAGES:], "IDX")


class Outcome:
    """In place of a program: an accuracy for each arm, learning rate and seed.

    It falls by a point for each half decade between the learning rate and the arm's best one, and
    has an effect of the seed that all arms share and one of their own.
    """

    trained: int = 0  # epochs of cells

    def __init__(
        self,
        task: Task,
        optimizer: object,
        train: Arrays,
        test: Arrays,
        *,
        epochs: int,
        diagnostics: bool | str,
        **_: object,
    ) -> None:
        del task, test
        self.width = 4
        (self.arm,) = (arm.name for arm in ARMS.values() if arm.make is optimizer)
        self.images, self.epochs, self.diagnostics = len(train.labels), epochs, diagnostics

    def compile(self, *_: np.ndarray) -> None: ...

    def init(self, seeds: np.ndarray, learning_rates: np.ndarray) -> SimpleNamespace:
        return SimpleNamespace(epoch=0, seeds=seeds, rates=learning_rates)

    def train_epoch(
        self, state: SimpleNamespace, seeds: np.ndarray, learning_rates: np.ndarray
    ) -> tuple[SimpleNamespace, dict[str, np.ndarray]]:
        assert (state.seeds == seeds).all()
        assert (state.rates == learning_rates).all()
        Outcome.trained += len(seeds)
        state = SimpleNamespace(epoch=state.epoch + 1, seeds=seeds, rates=learning_rates)
        names = list(NORMS) if self.diagnostics else []
        if self.diagnostics and self.arm in PLASTIC:
            names += STATISTICS
            if self.diagnostics == "per_leaf":
                names += [f"{name}/{leaf}" for name in STATISTICS for leaf in LEAVES]
                names += [name for leaf in LEAVES for name in figures.histogram_columns(leaf)]
        values = {name: self._draw(seeds, name) for name in names}
        return state, {"train_loss": 1 / state.epoch + self._draw(seeds, "loss"), **values}

    def evaluate(self, state: SimpleNamespace) -> dict[str, np.ndarray]:
        best = BEST_RATES.get(self.arm, ARMS[self.arm].learning_rate)
        away = 2 * np.abs(np.log10(state.rates / best))
        points = 90 - away - 2 / state.epoch - 10 / self.images
        points += 0.5 * self._draw(state.seeds, "seed") + 0.2 * self._draw(state.seeds, self.arm)
        loss = 1 / state.epoch + self._draw(state.seeds, "test")
        return {"test_loss": loss, "test_accuracy": points / 100}

    def _draw(self, seeds: np.ndarray, what: str) -> np.ndarray:
        key = [len(what), *what.encode()]
        return np.array([np.random.default_rng([int(seed), *key]).random() for seed in seeds])


@pytest.fixture(scope="module", autouse=True)
def _made_up() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "Program", Outcome)
        patch.setattr(run, "replicate", lambda arrays, _: arrays)
        patch.setattr(tasks, "_load_whole", lambda *_: dataset())
        yield
    assert plt.get_fignums() == []


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of other things: a picture takes longer than the rest of a study."""
    monkeypatch.setattr(figures, "save", lambda figure, _: plt.close(figure))


def execute(study: Study) -> str:
    """Runs a study; returns what the console shows."""
    shown = io.StringIO()
    command_line.run(study, Console(file=shown, width=300))
    return shown.getvalue()


def read(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / name)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


def final_percent(rows: pd.DataFrame) -> pd.Series:
    """Final accuracy by everything that varies in these tests."""
    last = rows[rows["epoch"] == rows["epochs"]]
    names = ["split", "label_noise", "batch_size", "fraction", "epochs", "arm", "learning_rate"]
    return 100 * last.set_index([*names, "seed"])["test_accuracy"].sort_index()


ALWAYS = {"runs.csv", "manifest.json", "summary.csv", "figure.png", "report.md"}

STUDIES = {
    "accuracy": (Accuracy(arms=("full", "sgd"), seeds=3, epochs=2), set()),
    "low_data": (LowData(seeds=3, epochs=2, fractions=(0.5, 1.0)), set()),
    "dynamics": (
        Dynamics(seeds=2, epochs=2),
        {"layers-full.png", "layers-gradient_only.png"},
    ),
    "noise": (
        Noise(arms=("full", "sgd"), seeds=3, epochs=2, label_noise=(0.0, 0.4), batch_sizes=(8,)),
        set(),
    ),
    "selection": (
        Selection(arms=("full", "gradient_only", "adam"), seeds=3, epochs=2, tuning_seeds=1),
        {"selections.csv"},
    ),
    "optimizers": (Optimizers(arms=("full", "sgd", "adam"), seeds=2, epochs=2), set()),
    "design_space": (
        DesignSpace(
            arms=("full", "bounded", "momentum_gain", "adam_gain"),
            baselines=("sgd", "adam"),
            seeds=3,
            epochs=2,
            tuning_seeds=1,
        ),
        set(),
    ),
    "text": (
        Text(dataset="mnist5k", arms=("full", "sgd"), seeds=3, epochs=2, tuning_seeds=1),
        set(),
    ),
    "tune": (
        Tune(arms=("full", "sgd", "adam"), seeds=2, epochs=2, budget=6),
        {"selections.csv"},
    ),
}


@dataclasses.dataclass(frozen=True)
class Done:
    """A study that was run."""

    name: str
    study: Study
    folder: Path
    shown: str

    @property
    def rows(self) -> pd.DataFrame:
        return read(self.folder, "runs.csv")

    @property
    def report(self) -> str:
        return (self.folder / "report.md").read_text()


@pytest.fixture(scope="module")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Done]:
    @functools.cache
    def run_once(name: str) -> Done:
        folder = tmp_path_factory.mktemp(name)
        study = dataclasses.replace(STUDIES[name][0], out=folder)
        return Done(name, study, folder, execute(study))

    return run_once


@pytest.fixture
def done(request: pytest.FixtureRequest, run_once: Callable[[str], Done]) -> Done:
    return run_once(request.param)


every_study = pytest.mark.parametrize("done", STUDIES, indirect=True)


def of(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("done", [name], indirect=True, ids=[""])


@every_study
class TestEveryStudy:
    def test_leaves_its_files_and_no_others(self, done: Done):
        assert files(done.folder) == ALWAYS | STUDIES[done.name][1]
        for picture in done.folder.glob("*.png"):
            assert picture.read_bytes().startswith(b"\x89PNG")
        assert str(done.folder) in done.shown.splitlines()[-1]

    def test_shows_every_arm_in_its_table_and_its_report(self, done: Done):
        for arm in done.study.arms:
            assert ARMS[arm].label in done.shown
            assert ARMS[arm].label in done.report
        assert done.report.splitlines()[2].startswith("**Not the full protocol**")
        for picture in done.folder.glob("*.png"):
            assert f"]({picture.name})" in done.report
        for block in re.findall(r"(?:^\|.*\n?)+", done.report, re.MULTILINE):
            widths = {line.count("|") for line in block.strip().split("\n")}
            assert len(widths) == 1, "a table is well formed"

    @pytest.mark.usefixtures("no_pictures")
    def test_trains_nothing_the_second_time(self, done: Done):
        texts = ("runs.csv", "summary.csv", "report.md")
        before = [(done.folder / text).read_text() for text in texts]
        trained = Outcome.trained
        execute(done.study)
        assert Outcome.trained == trained > 0
        assert [(done.folder / text).read_text() for text in texts] == before

    def test_records_every_epoch_of_a_cell_once(self, done: Done):
        assert not done.rows.duplicated([*CELL_COLUMNS, "epoch"]).any()
        assert (done.rows.groupby(CELL_COLUMNS)["epoch"].agg(list).map(sorted_from_one)).all()

    def test_notes_its_settings_and_no_place(self, done: Done):
        text = (done.folder / "manifest.json").read_text()
        manifest = json.loads(text)
        assert manifest["study"] == done.name
        assert manifest["configuration"]["epochs"] == 2
        assert str(done.folder) not in text
        assert set(manifest["arms"]) >= set(done.study.arms)

    def test_pairs_all_arms_by_seed(self, done: Done):
        conditions = ["split", "label_noise", "batch_size", "fraction", "epochs"]
        for _, of_condition in done.rows.groupby(conditions):
            seeds = of_condition.groupby(["arm", "learning_rate"])["seed"].agg(set)
            assert all(group == seeds.iloc[0] for group in seeds)


def sorted_from_one(epochs: list[int]) -> bool:
    return epochs == list(range(1, len(epochs) + 1))


class TestAccuracy:
    @of("accuracy")
    def test_summary_is_of_the_recorded_rows(self, done: Done):
        summary = read(done.folder, "summary.csv").set_index("arm")
        final = final_percent(done.rows).groupby("arm")
        for arm in ("full", "sgd"):
            assert summary.loc[arm, "final_accuracy_mean"] == pytest.approx(final.mean()[arm])
            assert summary.loc[arm, "final_accuracy_sd"] == pytest.approx(final.std()[arm])
            assert summary.loc[arm, "n"] == 3

    @pytest.mark.usefixtures("no_pictures")
    def test_may_grow_by_seeds_and_arms_but_not_change(self, tmp_path: Path):
        execute(Accuracy(arms=("sgd",), seeds=1, epochs=2, out=tmp_path))
        execute(Accuracy(arms=("sgd", "adam"), seeds=3, epochs=2, out=tmp_path))
        assert len(read(tmp_path, "runs.csv")) == 2 * 3 * 2
        with pytest.raises(RecordError, match="epochs was 2, now 3"):
            execute(Accuracy(arms=("sgd",), seeds=1, epochs=3, out=tmp_path))

    @pytest.mark.usefixtures("no_pictures")
    def test_shows_only_what_was_asked_for(self, tmp_path: Path):
        execute(Accuracy(arms=("sgd", "adam"), seeds=3, epochs=2, out=tmp_path))
        shown = execute(Accuracy(arms=("adam",), seeds=2, epochs=2, out=tmp_path))
        assert "SGD" not in shown
        assert read(tmp_path, "summary.csv")["n"].tolist() == [2]


@of("tune")
class TestTune:
    def test_selects_the_best_rate_of_every_arm(self, done: Done):
        selections = read(done.folder, "selections.csv").set_index("arm")
        assert selections["learning_rate"].to_dict() == BEST_RATES
        assert not selections["at_edge"].any()

    def test_spends_the_same_budget_on_every_arm(self, done: Done):
        """But on those whose best rate lies at the edge of it: here SGD's."""
        tried = done.rows.groupby("arm")["learning_rate"].nunique()
        assert tried["full"] == tried["adam"] == 6
        assert tried["sgd"] > 6
        trials = read(done.folder, "selections.csv").set_index("arm")["trials"]
        assert tried.to_dict() == trials.to_dict()

    def test_looks_at_no_test_image_and_at_no_seed_of_another_study(self, done: Done):
        assert set(done.rows["split"]) == {"validation"}
        others = {cell.seed for cell in Accuracy(seeds=100).cells()}
        assert not set(done.rows["seed"]) & others


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    """Where the study tune could have left its selections."""
    return selections_in(tmp_path)


def selections_in(folder: Path) -> Path:
    rates = {arm.name: BEST_RATES.get(arm.name, arm.learning_rate) for arm in ARMS.values()}
    table = pd.DataFrame({"arm": rates.keys(), "learning_rate": rates.values()})
    table.to_csv(folder / "selections.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the study verdict left its files."""
    tuned, out = selections_in(tmp_path_factory.mktemp("tuned")), tmp_path_factory.mktemp("out")
    execute(Verdict(seeds=6, ablation_seeds=3, epochs=2, tuned=tuned, out=out))
    return out


class TestVerdict:
    def test_compares_every_hypothesis_on_fresh_seeds_and_test_images(self, judged: Path):
        assert files(judged) == ALWAYS | {"comparisons.csv"}
        rows = read(judged, "runs.csv")
        assert set(rows["split"]) == {"test"}
        assert rows["seed"].max() == 5
        final = final_percent(rows).droplevel(["split", "label_noise", "batch_size", "fraction"])
        comparisons = read(judged, "comparisons.csv")
        assert len(comparisons) == len(HYPOTHESES)
        p_values = []
        for hypothesis, found in zip(HYPOTHESES, comparisons.to_dict("records"), strict=True):
            treatment, control = (
                final.loc[2, competitor.arm, self.rate(competitor.arm, competitor.rate)].to_numpy()
                for competitor in (hypothesis.treatment, hypothesis.control)
            )
            expected = paired_comparison(treatment, control)
            p_values.append(expected.p_value)
            assert found["n"] == 6
            assert found["mean"] == pytest.approx((treatment - control).mean(), abs=1e-5)
            assert found["p_value"] == pytest.approx(expected.p_value)
        np.testing.assert_allclose(comparisons["p_adjusted"], holm(p_values))

    @staticmethod
    def rate(arm: str, kind: str) -> float:
        default = ARMS[arm].learning_rate
        return default if kind == "published" else BEST_RATES.get(arm, default)

    def test_says_all_of_it_in_the_report(self, judged: Path):
        report = (judged / "report.md").read_text()
        for hypothesis in HYPOTHESES:
            assert hypothesis.question in report
        for verdict in read(judged, "comparisons.csv")["verdict"]:
            assert verdict in report
        for arm in FAIR_TEST:
            assert ARMS[arm].label in report

    def test_without_its_learning_rates_says_how_to_get_them(self, tmp_path: Path):
        with pytest.raises(ConfigError, match=r"selections\.csv is missing.*experiments tune"):
            execute(Verdict(tuned=tmp_path / "absent", out=tmp_path / "out"))

    def test_without_the_learning_rate_of_an_arm_names_the_arm(self, tuned: Path, tmp_path: Path):
        table = read(tuned, "selections.csv")
        table[table["arm"] != "adam"].to_csv(tuned / "selections.csv", index=False)
        with pytest.raises(ConfigError, match=r"selections\.csv has no learning rate for adam\."):
            execute(Verdict(tuned=tuned, out=tmp_path / "out"))

    def test_without_an_arm_of_the_hypotheses_names_the_arm(self):
        with pytest.raises(ConfigError, match=r"arms .*permuted"):
            Verdict(arms=tuple(arm for arm in ARMS if arm != "permuted"))


@of("low_data")
class TestLowData:
    def test_trains_a_share_for_as_many_epochs_and_for_as_many_steps(self, done: Done):
        shares = set(zip(done.rows["fraction"], done.rows["epochs"], strict=True))
        assert shares == {(0.5, 2), (0.5, 4), (1.0, 2)}

    def test_compares_the_arms_in_every_condition(self, done: Done):
        final = final_percent(done.rows).groupby(["fraction", "epochs", "arm"])
        mean = final.mean().unstack("arm")
        for gain in mean["full"] - mean["gradient_only"]:
            assert f"| {gain:+.2f} |" in done.report


@of("noise")
class TestNoise:
    def test_tunes_each_arm_in_each_condition_on_held_out_images(self, done: Done):
        conditions = {(0.0, 128), (0.4, 128), (0.0, 8)}
        for split, count in (("validation", 3), ("test", 1)):
            of_split = done.rows[done.rows["split"] == split]
            groups = of_split.groupby(["label_noise", "batch_size", "arm"])["learning_rate"]
            assert (groups.nunique() == count).all()
            assert {key[:2] for key in groups.groups} == conditions

    def test_takes_the_rates_that_were_best_there(self, done: Done):
        chosen = done.rows[done.rows["split"] == "test"].groupby("arm")["learning_rate"].unique()
        assert chosen["full"].tolist() == [0.3]
        assert chosen["sgd"].tolist() == [0.03], "the nearest to its best of the three"


class TestDynamics:
    def test_is_of_arms_with_a_coefficient_alone(self):
        with pytest.raises(ConfigError, match=r"'sgd'; known are full, gradient_only"):
            Dynamics(arms=("full", "sgd"))

    @of("dynamics")
    def test_watches_every_leaf(self, done: Done):
        for leaf in LEAVES:
            assert done.rows[f"alpha_mean/{leaf}"].notna().all()

    @of("dynamics")
    def test_reports_the_last_epoch(self, done: Done):
        last = done.rows[(done.rows["arm"] == "full") & (done.rows["epoch"] == 2)]
        assert f"| {last['alpha_mean'].mean():.3f} |" in done.report


@of("selection")
class TestSelection:
    def test_judges_thirty_six_trials_a_family_on_held_out_images(self, done: Done):
        trials = read(done.folder, "summary.csv")
        assert (trials.groupby("family").size() == 36).all()
        tried = done.rows[done.rows["split"] == "validation"]
        assert len(tried.groupby(["arm", "learning_rate"])) == 3 * 36

    def test_selects_the_best_trial_and_runs_it_on_fresh_seeds_and_test_images(self, done: Done):
        trials = read(done.folder, "summary.csv")
        trials = trials.set_index(["family", "arm", "learning_rate"]).sort_index()
        fresh = done.rows[done.rows["split"] == "test"]
        for row in read(done.folder, "selections.csv").to_dict("records"):
            accuracy = trials.loc[row["family"], "validation_accuracy"]
            assert accuracy.idxmax() == (row["arm"], row["learning_rate"])
            assert row["validation_accuracy"] == pytest.approx(accuracy.max())
            same = fresh[["arm", "learning_rate"]] == [row["arm"], row["learning_rate"]]
            assert set(fresh.loc[same.all(axis=1), "seed"]) == {0, 1, 2}

    def test_says_where_the_published_configuration_stands(self, done: Done):
        trials = read(done.folder, "summary.csv").query("family == 'full'")
        is_published = (trials["arm"] == "full") & (trials["learning_rate"] == 0.1)
        published = trials.loc[is_published, "validation_accuracy"].item()
        rank = (trials["validation_accuracy"] > published).sum() + 1
        assert f"is number {rank} of the full method's 36" in done.report


@of("optimizers")
class TestOptimizers:
    def test_runs_every_arm_at_three_rates(self, done: Done):
        rates = done.rows.groupby("arm")["learning_rate"].agg(lambda rates: sorted(set(rates)))
        assert rates["full"] == [0.03, 0.1, 0.3]
        assert rates["adam"] == [0.0003, 0.001, 0.003]

    def test_ranks_the_arms_at_their_best_rates(self, done: Done):
        summary = read(done.folder, "summary.csv")
        best = summary.groupby("arm")["final_accuracy_mean"].max().sort_values(ascending=False)
        places = re.findall(r"^(\d)\. (.*) at ", done.report, re.MULTILINE)
        assert places == [(f"{i}", ARMS[arm].label) for i, arm in enumerate(best.index, 1)]


@of("design_space")
class TestDesignSpace:
    def test_runs_a_variant_at_the_rate_that_was_best_for_its_base(self, done: Done):
        rows = done.rows
        held_out = final_percent(rows).loc["validation"].groupby(["arm", "learning_rate"]).mean()
        rates = rows[rows["split"] == "test"].groupby("arm")["learning_rate"].unique()
        for variant, base in {
            "full": "sgd_homeostasis",
            "bounded": "sgd_homeostasis",
            "momentum_gain": "momentum_homeostasis",
            "adam_gain": "adam_homeostasis",
        }.items():
            assert rates[variant].tolist() == rates[base].tolist() == [held_out[base].idxmax()]

    def test_compares_it_with_its_base_and_with_the_strongest_tuned_baseline(self, done: Done):
        of_test = final_percent(done.rows).loc["test"].groupby(["arm"]).mean()
        held_out = final_percent(done.rows).loc["validation"].groupby(["arm", "learning_rate"])
        strongest = held_out.mean()[["sgd", "adam"]].idxmax()[0]
        (line,) = (line for line in done.report.splitlines() if line.startswith("| bounded"))
        assert f"| {of_test['bounded'] - of_test['sgd_homeostasis']:+.2f} |" in line
        assert f"| {of_test['bounded'] - of_test[strongest]:+.2f} |" in line

    def test_says_that_few_seeds_show_nothing(self, done: Done):
        assert "with 3 seeds no p is below 0.12" in done.report
        assert "nothing can be shown" in done.report


@pytest.mark.parametrize("done", ["noise", "optimizers", "design_space", "text"], indirect=True)
def test_a_best_rate_at_an_end_of_the_three_is_marked(done: Done):
    """SGD's is made to be at an end, and no arm's is where it starts, at 0.1 or 0.001."""
    assert "†: the best of the three learning rates is at an end" in done.report
    assert "0.03†" in done.report
    assert "0.03†" in done.shown or done.name == "optimizers"  # which shows all rates
    assert not re.search(r"\b0\.(1|001)†", done.report)


class TestTransfer:
    @pytest.fixture(scope="class")
    @classmethod
    def selected(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("selected")
        pd.DataFrame(
            [(family, family, 0.05) for family in SELECTION],
            columns=["family", "arm", "learning_rate"],
        ).to_csv(folder / "selections.csv", index=False)
        return folder

    def test_takes_published_and_selected_settings_unchanged(self, selected: Path, tmp_path: Path):
        out = tmp_path / "out"
        shown = execute(Transfer(seeds=2, epochs=2, tuned=selected, out=out))
        assert files(out) == ALWAYS
        rates = read(out, "runs.csv").groupby("arm")["learning_rate"].agg(set)
        assert rates["full"] == rates["gradient_only"] == {0.1, 0.05}
        assert rates["adam"] == rates["sgd_homeostasis"] == {0.05}
        report = (out / "report.md").read_text()
        assert all(ARMS[arm].label in shown and ARMS[arm].label in report for arm in SELECTION)
        assert "No runs diverged." in report

    def test_without_them_says_how_to_get_them(self, tmp_path: Path):
        with pytest.raises(ConfigError, match=r"selections\.csv is missing.*experiments selection"):
            execute(Transfer(tuned=tmp_path / "absent", out=tmp_path / "out"))

    def test_refuses_those_of_the_study_tune(self, tuned: Path, tmp_path: Path):
        with pytest.raises(ConfigError, match=r"no column 'family': it is not of .* selection"):
            execute(Transfer(tuned=tuned, out=tmp_path / "out"))


@of("text")
class TestText:
    def test_takes_the_rates_that_were_best_on_held_out_text(self, done: Done):
        chosen = done.rows[done.rows["split"] == "test"].groupby("arm")["learning_rate"].unique()
        assert chosen["full"].tolist() == [0.3]
        assert chosen["sgd"].tolist() == [0.03]

    def test_compares_the_first_arm_with_the_others(self, done: Done):
        final = final_percent(done.rows).loc["test"].groupby("arm").mean()
        assert f"| {final['full'] - final['sgd']:+.2f} |" in done.report
