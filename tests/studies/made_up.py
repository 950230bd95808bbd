"""What the tests of all studies share: a made-up outcome in place of training."""

import dataclasses
import functools
import io
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from rich.console import Console

from experiments import __main__ as command_line
from experiments import plotting
from experiments.arms import ARMS
from experiments.comparisons import COLUMNS
from experiments.dataset import Dataset
from experiments.naming import find_arm, label
from experiments.records import CELL_COLUMNS
from experiments.report import write_report
from experiments.studies import STUDIES
from experiments.studies.base import FIRST_TUNING_SEED, Study
from experiments.studies.dynamics import histogram_columns
from experiments.train import Arrays, Problem

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
)
NORMS = ("raw_gradient_norm", "raw_update_norm", "effective_update_norm")
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
        task: Problem,
        optimizer: Callable[..., object],
        train: Arrays,
        test: Arrays,
        *,
        epochs: int,
        diagnostics: bool | str,
        **_: object,
    ) -> None:
        del task, test
        self.width = 4
        self.arm = optimizer.__self__.name  # of the arm whose method makes it
        self.images, self.epochs, self.diagnostics = len(train.labels), epochs, diagnostics

    def compile(self, *_: np.ndarray, **settings: np.ndarray) -> None: ...

    def init(
        self, seeds: np.ndarray, learning_rates: np.ndarray, **_: np.ndarray
    ) -> SimpleNamespace:
        return SimpleNamespace(epoch=0, seeds=seeds, rates=learning_rates)

    def train_epoch(
        self, state: SimpleNamespace, seeds: np.ndarray, learning_rates: np.ndarray, **_: np.ndarray
    ) -> tuple[SimpleNamespace, dict[str, np.ndarray]]:
        assert (state.seeds == seeds).all()
        assert (state.rates == learning_rates).all()
        Outcome.trained += len(seeds)
        state = SimpleNamespace(epoch=state.epoch + 1, seeds=seeds, rates=learning_rates)
        names = list(NORMS) if self.diagnostics else []
        if self.diagnostics and find_arm(self.arm).has_alpha:
            names += STATISTICS
            if self.diagnostics == "per_leaf":
                names += [f"{name}/{leaf}" for name in STATISTICS for leaf in LEAVES]
                names += [name for leaf in LEAVES for name in histogram_columns(leaf)]
        values = {name: self._draw(seeds, name) for name in names}
        return state, {"train_loss": 1 / state.epoch + self._draw(seeds, "loss"), **values}

    def evaluate(self, state: SimpleNamespace) -> dict[str, np.ndarray]:
        best = BEST_RATES.get(self.arm, find_arm(self.arm).learning_rate)
        away = 2 * np.abs(np.log10(state.rates / best))
        points = 90 - away - 2 / state.epoch - 10 / self.images
        points += 0.5 * self._draw(state.seeds, "seed") + 0.2 * self._draw(state.seeds, self.arm)
        loss = 1 / state.epoch + self._draw(state.seeds, "test")
        return {"test_loss": loss, "test_accuracy": points / 100}

    def _draw(self, seeds: np.ndarray, what: str) -> np.ndarray:
        key = [len(what), *what.encode()]
        return np.array([np.random.default_rng([int(seed), *key]).random() for seed in seeds])


def execute(study: Study) -> str:
    """Runs a study; returns what the console shows."""
    shown = io.StringIO()
    command_line.run(study, Console(file=shown, width=300))
    return shown.getvalue()


def read(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / name, keep_default_na=name != "claims.csv")


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


def final_percent(rows: pd.DataFrame) -> pd.Series:
    """Final accuracy by everything that varies in these tests."""
    last = rows[rows["epoch"] == rows["epochs"]]
    names = ["split", "label_noise", "batch_size", "fraction", "epochs", "arm", "learning_rate"]
    return 100 * last.set_index([*names, "seed"])["test_accuracy"].sort_index()


def write_selections(folder: Path) -> Path:
    """What the study tune could have left in a folder."""
    folder.mkdir(exist_ok=True)
    rates = {arm.name: BEST_RATES.get(arm.name, arm.learning_rate) for arm in ARMS.values()}
    table = pd.DataFrame({"arm": rates.keys(), "learning_rate": rates.values()})
    table.to_csv(folder / "selections.csv", index=False)
    return folder


def words(figure: Figure) -> str:
    """All that is written in a figure."""
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def draws_differences(axes: Axes, rows: pd.DataFrame) -> None:
    """The points and intervals of some axes are those of the comparisons, in their order."""
    points = [line for line in axes.get_lines() if line.get_marker() == "o"]
    intervals = [line for line in axes.get_lines() if line.get_marker() in ("|", "_")]
    along = "get_xdata" if intervals[0].get_marker() == "|" else "get_ydata"
    drawn = [
        (*getattr(point, along)(), *getattr(interval, along)())
        for point, interval in zip(points, intervals, strict=True)
    ]
    expected = rows[["mean", "interval_low", "interval_high"]].to_numpy()
    np.testing.assert_allclose(drawn, expected, atol=1e-6)


@dataclasses.dataclass(frozen=True)
class Done:
    """A study that was run."""

    study: Study
    folder: Path
    shown: str

    def read(self, name: str) -> pd.DataFrame:
        return read(self.folder, name)

    @property
    def rows(self) -> pd.DataFrame:
        return self.read("runs.csv")

    @property
    def comparisons(self) -> pd.DataFrame:
        table = pd.read_csv(self.folder / "comparisons.csv", dtype={"condition": str})
        return table.fillna({"condition": ""})

    def family(self, name: str) -> pd.DataFrame:
        return self.comparisons[self.comparisons["family"] == name]

    @property
    def report(self) -> str:
        return (self.folder / "report.md").read_text()

    @functools.cached_property
    def figures(self) -> dict[str, Figure]:
        """What is drawn anew from the records."""
        drawn: dict[str, Figure] = {}

        def keep(figure: Figure, path: Path) -> None:
            plt.close(figure)
            drawn[path.name] = figure

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plotting, "save", keep)
            write_report(self.folder)
        return drawn


class StudyTests:
    """What holds for every study: the class of a study's tests inherits it.

    Attributes:
      study: small.
      files: what it leaves beside what every study leaves.
    """

    study: ClassVar[Study]
    files: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def prepared(cls, folder: Path) -> Study:
        """The study, with the input that it needs."""
        del folder
        return cls.study

    @pytest.fixture(scope="class")
    @classmethod
    def done(cls, tmp_path_factory: pytest.TempPathFactory) -> Done:
        folder = tmp_path_factory.mktemp(cls.__name__) / "out"
        study = dataclasses.replace(cls.prepared(folder.parent), out=folder)
        return Done(study, folder, execute(study))

    def test_is_in_the_registry_under_its_name(self):
        assert STUDIES[self.study.name] is type(self.study)

    def test_leaves_its_files_and_no_others(self, done: Done):
        always = {"runs.csv", "manifest.json", "summary.csv", "comparisons.csv", "claims.csv"}
        always |= {"table.csv"}
        assert files(done.folder) == always | {"figure.png", "report.md"} | self.files
        for picture in done.folder.glob("*.png"):
            assert picture.read_bytes().startswith(b"\x89PNG")
        assert str(done.folder) in done.shown.splitlines()[-1]

    def test_shows_every_arm_in_its_table_and_its_report(self, done: Done):
        for arm in done.study.arms:
            assert label(arm) in done.shown
            assert label(arm) in done.report
        assert done.report.splitlines()[2].startswith("**Not the full protocol**")
        for picture in done.folder.glob("*.png"):
            assert f"]({picture.name})" in done.report
        for block in re.findall(r"(?:^\|.*\n?)+", done.report, re.MULTILINE):
            widths = {line.count("|") for line in block.strip().split("\n")}
            assert len(widths) == 1, "a table is well formed"

    def test_says_in_each_figure_its_task_scale_and_seeds_and_what_it_could_have_shown(
        self, done: Done
    ):
        for name, figure in done.figures.items():
            assert f"{done.study.title}{done.study.scale()}: " in words(figure), name
            assert re.search(
                rf"\b({done.study.seeds} seeds|n = {done.study.seeds}\b)", words(figure)
            )
        if len(done.comparisons):
            sizes = [f"{size:.2g}" for size in done.comparisons["detectable"] if size < math.inf]
            pattern = r"could show (\S+)|too few seeds"
            found = re.findall(pattern, words(done.figures["figure.png"]))
            assert found
            assert set(found) <= {"", *sizes}

    def test_reports_every_comparison_that_it_records(self, done: Done):
        assert tuple(done.comparisons.columns) == COLUMNS
        for row in done.comparisons.to_dict("records"):
            numbers = (row[name] for name in ("mean", "interval_low", "interval_high"))
            mean, low, high = (f"{number:+z.2f}" for number in numbers)
            pair = f"| {label(row['treatment'])} − {label(row['control'])} | "
            where = f"{row['condition']} | " if "condition |" in done.report else ""
            assert f"{pair}{where}{mean} [{low}, {high}] | " in done.report
            assert f"Δ {mean} [{low}, {high}]" in done.shown

    def test_claims_with_numbers_of_its_comparisons_alone(self, done: Done):
        known = {
            tuple(f"{row[name]:+z.2f}" for name in ("mean", "interval_low", "interval_high"))
            for row in done.comparisons.to_dict("records")
        }
        for claim in done.read("claims.csv").to_dict("records"):
            found = re.findall(r"Δ (\S+) \[(\S+), (\S+)\]", claim["measured"])
            assert found
            assert set(found) <= known

    @pytest.mark.usefixtures("no_pictures")
    def test_trains_nothing_the_second_time(self, done: Done):
        texts = ("runs.csv", "summary.csv", "comparisons.csv", "claims.csv", "report.md")
        before = [(done.folder / text).read_text() for text in texts]
        trained = Outcome.trained
        execute(done.study)
        assert Outcome.trained == trained > 0
        assert [(done.folder / text).read_text() for text in texts] == before

    @pytest.mark.usefixtures("no_pictures")
    def test_is_reported_anew_from_its_records_alone(self, done: Done):
        texts = ("runs.csv", "summary.csv", "comparisons.csv", "claims.csv", "report.md")
        before = [(done.folder / text).read_text() for text in texts]
        for text in texts[1:]:
            (done.folder / text).unlink()
        write_report(done.folder)
        assert [(done.folder / text).read_text() for text in texts] == before

    def test_records_every_epoch_of_a_cell_once(self, done: Done):
        assert not done.rows.duplicated([*CELL_COLUMNS, "epoch"]).any()
        epochs = done.rows.groupby(CELL_COLUMNS)["epoch"].agg(list)
        assert epochs.map(lambda found: found == list(range(1, len(found) + 1))).all()

    def test_notes_its_settings_and_no_place(self, done: Done):
        text = (done.folder / "manifest.json").read_text()
        manifest = json.loads(text)
        assert manifest["study"] == done.study.name
        assert manifest["configuration"]["epochs"] == 2
        assert str(done.folder.parent) not in text

    def test_pairs_all_arms_by_seed(self, done: Done):
        final = done.rows[done.rows["seed"] < FIRST_TUNING_SEED]
        for row in done.comparisons.to_dict("records"):
            sides = (("treatment", "treatment_rate"), ("control", "control_rate"))
            seeds = [set(final.loc[final["arm"] == row[arm], "seed"]) for arm, _ in sides]
            assert row["n"] == len(seeds[0] & seeds[1])
