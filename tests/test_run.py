"""Running cells: nothing is trained twice, an interruption costs an epoch at most."""

import dataclasses
import functools
import gc
import io
import json
import math
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from flax import nnx
from jax.sharding import Mesh
from rich.console import Console

from experiments import checkpoints, run
from experiments.cells import Cell, Workload
from experiments.dataset import DataError, Dataset
from experiments.models import MLP
from experiments.records import Records
from experiments.run import Runner
from experiments.store import Store
from experiments.summary import per_cell
from experiments.train import Problem, Program

EPOCHS = 2
WORKLOAD = Workload("mnist", epochs=EPOCHS, batch_size=16)
ARMS = ("sgd", "momentum")
SECONDS = ["seconds", "evaluation_seconds"]


def images(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (size, 4, 4, 1), np.uint8)
    return pixels, rng.integers(0, 10, size).astype(np.int32)


DATASET = Dataset("tiny", *images(70, 0), *images(20, 1), source="made up")


def cells(*arms: str, seeds: int, learning_rate: float = 0.1) -> list[Cell]:
    return [Cell(WORKLOAD, arm, learning_rate, seed) for arm in arms for seed in range(seeds)]


class Watched:
    """A program that counts the epochs of its cells, and can be interrupted."""

    def __init__(self, program: Program, watch: "Watch") -> None:
        self._program, self._watch = program, watch
        self.compile, self.init = program.compile, program.init
        self.evaluate = program.evaluate

    @property
    def width(self) -> int:
        """Twice the number of devices, so that a few seeds need padding on any machine."""
        return 2 * self._program.width

    def began(self) -> None:
        """Something for tests to put in its place."""

    def train_epoch(self, state, seeds: np.ndarray, learning_rates: np.ndarray, **places):
        self.began()
        self._watch.epochs.append(seeds.tolist())
        if len(self._watch.epochs) == self._watch.interrupt_at:
            raise KeyboardInterrupt
        return self._program.train_epoch(state, seeds, learning_rates, **places)


class Watch:
    """What was trained since the last reset: for each epoch of a program its cells' seeds."""

    def __init__(self) -> None:
        self.reset()

    def reset(self, interrupt_at: int | None = None) -> None:
        self.epochs: list[list[int]] = []
        self.interrupt_at = interrupt_at


def tiny_problem(workload: Workload, dataset: Dataset) -> Problem:
    """A linear model in place of the paper's."""
    features = dataset.train_images[0].size

    def model(rngs: nnx.Rngs) -> nnx.Module:
        return MLP(features, (), rngs=rngs)

    def preprocess(pixels: jax.Array, key: jax.Array | None) -> jax.Array:
        del key
        return pixels.astype(jnp.float32) / 255

    return Problem(model, preprocess, workload.batch_size)


@pytest.fixture(scope="module")
def watch() -> Iterator[Watch]:
    """All tests share the programs, and so their compilation."""
    watch = Watch()

    @functools.cache
    def program(optimizer: Callable, epochs: int) -> Program:
        problem = tiny_problem(WORKLOAD, DATASET)
        train = (DATASET.train_images, DATASET.train_labels)
        test = (DATASET.test_images, DATASET.test_labels)
        return Program(problem, optimizer, run.Arrays(*train), run.Arrays(*test), epochs=epochs)

    def watched(
        problem: Problem, optimizer: Callable, *_: object, epochs: int, **__: object
    ) -> Watched:
        assert problem.batch_size == WORKLOAD.batch_size
        return Watched(program(optimizer, epochs), watch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "Program", watched)
        patch.setattr(run.tasks, "make_problem", tiny_problem)
        yield watch


@pytest.fixture(autouse=True)
def _fresh(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """No checkpoint on a slow machine either, but where a test wants them."""
    watch.reset()
    monkeypatch.setattr(checkpoints, "INTERVAL", math.inf)


def train(
    folder: Path,
    wanted: list[Cell],
    *,
    dataset: Dataset = DATASET,
    console: Console | None = None,
    store: Store | None = None,
) -> pd.DataFrame:
    console = console or Console(file=io.StringIO())
    with Records(folder, "accuracy", {}) as records:
        return Runner(records, lambda _: dataset, console, store=store)(wanted)


def recorded(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "runs.csv")


def assert_same_but_for_seconds(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(
        one.drop(columns=SECONDS), other.drop(columns=SECONDS), check_exact=True
    )


class TestRows:
    def test_are_one_an_epoch_of_every_cell(self, tmp_path: Path):
        wanted = cells(*ARMS, seeds=3)
        rows = train(tmp_path, wanted)
        assert list(zip(rows["arm"], rows["seed"], rows["epoch"], strict=True)) == [
            (cell.arm, cell.seed, epoch) for cell in wanted for epoch in (1, 2)
        ]
        assert (rows[SECONDS] >= 0).all(axis=None)
        assert rows["test_accuracy"].between(0, 1).all()

    def test_differ_by_arm_and_seed_and_epoch(self, tmp_path: Path):
        rows = train(tmp_path, cells(*ARMS, seeds=3))
        assert rows["train_loss"].nunique() == len(rows)

    def test_do_not_hold_the_cells_that_only_fill_a_program(self, tmp_path: Path, watch: Watch):
        rows = train(tmp_path, cells("sgd", seeds=1))
        assert len(watch.epochs[0]) > 1
        assert set(watch.epochs[0]) == {0}
        assert len(rows) == len(recorded(tmp_path)) == EPOCHS

    def test_do_not_depend_on_the_cells_beside_them(self, tmp_path: Path):
        alone = train(tmp_path / "alone", cells("sgd", seeds=1))
        among = train(tmp_path / "among", cells("sgd", seeds=3))
        assert_same_but_for_seconds(alone, among.iloc[:EPOCHS])

    def test_of_several_learning_rates_of_an_arm_come_from_one_program(
        self, tmp_path: Path, watch: Watch
    ):
        slow, fast = (cells("sgd", seeds=1, learning_rate=rate) for rate in (0.01, 0.5))
        rows = train(tmp_path, slow + fast)
        assert len(watch.epochs) == EPOCHS
        assert_same_but_for_seconds(
            rows.iloc[EPOCHS:].reset_index(drop=True), train(tmp_path / "fast", fast)
        )


class TestLog:
    def test_tells_the_time_that_is_left_however_long_an_epoch_takes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """By a clock that goes on by two minutes with every epoch."""
        now = 0.0

        def begin(*_: object) -> None:
            nonlocal now
            now += 120

        monkeypatch.setattr(Watched, "began", begin)
        log = io.StringIO()
        console = Console(file=log, width=200, get_time=lambda: now)
        train(tmp_path, cells(*ARMS, seeds=1), console=console)
        first, second, *_ = log.getvalue().splitlines()
        assert first.startswith("2/4 epochs, 0:04:00 elapsed, 0:04:00 left: mnist")
        assert second.startswith("4/4 epochs, 0:08:00 elapsed, 0:00:00 left: mnist")


class TestFinishedCells:
    def test_are_not_trained_again(self, tmp_path: Path, watch: Watch):
        wanted = cells(*ARMS, seeds=2)
        first = train(tmp_path, wanted)
        content = (tmp_path / "runs.csv").read_bytes()
        watch.reset()
        pd.testing.assert_frame_equal(train(tmp_path, wanted), first)
        assert watch.epochs == []
        assert (tmp_path / "runs.csv").read_bytes() == content

    def test_are_not_trained_twice_where_they_are_wanted_twice(self, tmp_path: Path, watch: Watch):
        one, other = (cells(arm, seeds=1) for arm in ARMS)
        rows = train(tmp_path, one + other + one)
        assert len(watch.epochs) == 2 * EPOCHS
        assert len(recorded(tmp_path)) == 2 * EPOCHS
        assert set(rows["arm"]) == set(ARMS)
        watch.reset()
        train(tmp_path, one + other)
        assert watch.epochs == []

    def test_are_kept_where_seeds_are_added(self, tmp_path: Path, watch: Watch):
        train(tmp_path, cells("sgd", seeds=1))
        kept = recorded(tmp_path)
        watch.reset()
        rows = train(tmp_path, cells("sgd", seeds=3))
        assert [set(seeds) for seeds in watch.epochs] == [{1, 2}] * EPOCHS
        pd.testing.assert_frame_equal(recorded(tmp_path).iloc[:EPOCHS], kept)
        assert_same_but_for_seconds(rows, train(tmp_path / "whole", cells("sgd", seeds=3)))

    def test_are_kept_where_arms_are_added(self, tmp_path: Path, watch: Watch):
        train(tmp_path, cells("momentum", seeds=2))
        watch.reset()
        rows = train(tmp_path, cells(*ARMS, seeds=2))
        assert len(watch.epochs) == EPOCHS
        assert rows["arm"].tolist() == ["sgd"] * 2 * EPOCHS + ["momentum"] * 2 * EPOCHS

    def test_stay_on_record_where_seeds_and_arms_are_taken_away(self, tmp_path: Path):
        train(tmp_path, cells(*ARMS, seeds=2))
        assert len(train(tmp_path, cells("sgd", seeds=1))) == EPOCHS
        assert len(recorded(tmp_path)) == 4 * EPOCHS


class TestStoredCells:
    def test_are_one_number_for_every_study_and_trained_once(self, tmp_path: Path, watch: Watch):
        store, wanted = Store(tmp_path / "store"), cells(*ARMS, seeds=2)
        first = train(tmp_path / "first", wanted, store=store)
        watch.reset()
        second = train(tmp_path / "second", wanted, store=store)
        assert watch.epochs == []
        pd.testing.assert_frame_equal(second, first)
        assert (tmp_path / "second/runs.csv").read_bytes() == (
            tmp_path / "first/runs.csv"
        ).read_bytes()

    def test_do_not_keep_others_from_being_trained(self, tmp_path: Path, watch: Watch):
        store = Store(tmp_path / "store")
        train(tmp_path / "first", cells("sgd", seeds=1), store=store)
        watch.reset()
        rows = train(tmp_path / "second", cells("sgd", seeds=3), store=store)
        assert [set(seeds) for seeds in watch.epochs] == [{1, 2}] * EPOCHS
        assert len(rows) == 3 * EPOCHS

    def test_are_not_those_of_other_data(self, tmp_path: Path, watch: Watch):
        store, wanted = Store(tmp_path / "store"), cells("sgd", seeds=1)
        train(tmp_path / "first", wanted, store=store)
        watch.reset()
        other = dataclasses.replace(DATASET, train_labels=DATASET.train_labels[::-1])
        train(tmp_path / "second", wanted, dataset=other, store=store)
        assert len(watch.epochs) == EPOCHS

    def test_name_what_made_them_in_the_manifest(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        store = Store(tmp_path / "store")
        train(tmp_path / "first", cells("sgd", seeds=1), store=store)
        facts = {"commit": "another", "versions": {}, "device": "another"}
        monkeypatch.setattr(run, "circumstances", lambda: facts)
        train(tmp_path / "second", cells("sgd", seeds=2), store=store)
        manifest = json.loads((tmp_path / "second/manifest.json").read_text())
        assert len(manifest["made_by"]) == 2
        assert manifest["made_by"][1] == facts
        assert list(manifest["data"]) == ["tiny"]

    def test_that_another_process_finished_first_are_this_study_s_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        store, wanted = Store(tmp_path / "store"), cells("sgd", seeds=1)
        first = train(tmp_path / "first", wanted, store=store)
        found = [{}]  # what this process sees before it trains
        find = Store.find
        monkeypatch.setattr(
            Store, "find", lambda store, cells: found.pop() if found else find(store, cells)
        )
        pd.testing.assert_frame_equal(train(tmp_path / "second", wanted, store=store), first)


class TestInterruptedStudy:
    @pytest.fixture
    def whole(self, tmp_path: Path) -> Path:
        """A study that was not interrupted."""
        train(tmp_path / "whole", cells(*ARMS, seeds=2))
        return tmp_path / "whole"

    @pytest.mark.parametrize(("epoch", "kept"), [(1, 0), (2, 0), (3, 1), (4, 1)])
    def test_goes_on_to_the_same_records(
        self, epoch: int, kept: int, whole: Path, tmp_path: Path, watch: Watch
    ):
        """Of two arms with two epochs; a part of an arm leaves nothing."""
        folder, wanted = tmp_path / "interrupted", cells(*ARMS, seeds=2)
        watch.reset(interrupt_at=epoch)
        with pytest.raises(KeyboardInterrupt):
            train(folder, wanted)
        assert (folder / "runs.csv").exists() == bool(kept)
        if kept:
            assert set(recorded(folder)["arm"]) == {"sgd"}
        watch.reset()
        train(folder, wanted)
        assert len(watch.epochs) == (2 - kept) * EPOCHS
        assert_same_but_for_seconds(recorded(folder), recorded(whole))

    def test_keeps_the_programs_of_an_arm_that_were_finished(
        self, tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(run, "MAX_ROUNDS", 1)
        width = 2 * len(jax.devices())
        wanted = cells("sgd", seeds=width + 1)
        watch.reset(interrupt_at=EPOCHS + 1)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, wanted)
        assert sorted(recorded(tmp_path)["seed"].unique()) == list(range(width))
        watch.reset()
        train(tmp_path, wanted)
        assert [set(seeds) for seeds in watch.epochs] == [{width}] * EPOCHS
        assert sorted(recorded(tmp_path)["seed"].unique()) == list(range(width + 1))


class TestCheckpoint:
    """Of an arm with two epochs, interrupted in the second."""

    @pytest.fixture
    def wanted(self) -> list[Cell]:
        return cells("sgd", seeds=2)

    @pytest.fixture
    def whole(self, tmp_path: Path, wanted: list[Cell], watch: Watch) -> pd.DataFrame:
        train(tmp_path / "whole", wanted)
        watch.reset()
        return recorded(tmp_path / "whole")

    @pytest.fixture
    def folder(
        self,
        wanted: list[Cell],
        tmp_path: Path,
        watch: Watch,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Path:
        monkeypatch.setattr(checkpoints, "INTERVAL", 0.0)
        watch.reset(interrupt_at=2)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "interrupted", wanted)
        watch.reset()
        return tmp_path / "interrupted"

    def test_is_where_the_same_cells_go_on(
        self, folder: Path, wanted: list[Cell], whole: pd.DataFrame, watch: Watch
    ):
        log = io.StringIO()
        train(folder, wanted, console=Console(file=log, width=200))
        assert len(watch.epochs) == 1
        assert "Goes on after epoch 1." in log.getvalue()
        assert_same_but_for_seconds(recorded(folder), whole)
        assert (recorded(folder)[SECONDS] > 0).all(axis=None)

    def test_counts_as_progress_from_the_start(
        self, folder: Path, wanted: list[Cell], monkeypatch: pytest.MonkeyPatch
    ):
        steps = []
        monkeypatch.setattr(run.Progress, "advance", lambda *arguments: steps.append(arguments[-1]))
        train(folder, wanted)
        assert steps == [len(wanted), len(wanted)]

    def test_is_removed_when_its_cells_are_on_record(self, folder: Path, wanted: list[Cell]):
        (left,) = (folder / "checkpoints").iterdir()
        train(folder, wanted)
        assert not left.exists()

    def test_waits_for_its_cells_while_others_are_trained(
        self, folder: Path, wanted: list[Cell], whole: pd.DataFrame, watch: Watch
    ):
        train(folder, cells("momentum", seeds=2))
        watch.reset()
        rows = train(folder, wanted)
        assert len(watch.epochs) == 1
        assert_same_but_for_seconds(rows.drop(columns="study"), whole.drop(columns="study"))

    @pytest.mark.parametrize("change", ["cells", "data", "circumstances"])
    def test_is_of_no_use_where_something_else_is_trained(
        self, change: str, folder: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
    ):
        seeds = 3 if change == "cells" else 2
        dataset = dataclasses.replace(DATASET, train_labels=DATASET.train_labels[::-1])
        if change == "circumstances":
            monkeypatch.setattr(run, "circumstances", lambda: {"commit": "another"})
        train(folder, cells("sgd", seeds=seeds), dataset=dataset if change == "data" else DATASET)
        assert len(watch.epochs) == EPOCHS

    # Orbax leaves its other reads behind when one fails.
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_that_was_cut_is_named_and_its_cells_start_anew(
        self, folder: Path, wanted: list[Cell], whole: pd.DataFrame, watch: Watch
    ):
        (checkpoint,) = (folder / "checkpoints").iterdir()
        for path in checkpoint.rglob("*"):
            if path.is_file():
                path.write_bytes(path.read_bytes()[:-1])
        log = io.StringIO()
        watch.reset(interrupt_at=2)
        with pytest.raises(KeyboardInterrupt):
            train(folder, wanted, console=Console(file=log, width=200))
        assert f"{checkpoint} cannot be read" in log.getvalue()
        assert "its cells are trained from the beginning" in log.getvalue()
        watch.reset()
        train(folder, wanted)
        assert len(watch.epochs) == 1, "another took its place"
        assert_same_but_for_seconds(recorded(folder), whole)


class TestDivergedCell:
    def test_is_recorded_and_does_not_stop_the_others(self, tmp_path: Path):
        good = cells("sgd", seeds=2)
        bad = cells("sgd", seeds=1, learning_rate=1e38)
        rows = train(tmp_path / "both", good + bad)
        diverged = per_cell(rows).set_index("learning_rate")["diverged_epoch"]
        assert diverged[0.1].isna().all()
        assert diverged[1e38] == 1
        pd.testing.assert_frame_equal(train(tmp_path / "both", good + bad), rows)
        alone = train(tmp_path / "alone", good)
        assert_same_but_for_seconds(rows.iloc[: len(alone)], alone)


class TestData:
    def test_is_loaded_once_and_noted_with_its_checksum(self, tmp_path: Path):
        loaded = []

        def load(workload: Workload) -> Dataset:
            loaded.append(workload)
            return DATASET

        with Records(tmp_path, "accuracy", {}) as records:
            Runner(records, load, Console(file=io.StringIO()))(cells(*ARMS, seeds=1))
        assert loaded == [WORKLOAD]
        manifest = pd.read_json(tmp_path / "manifest.json", typ="series")
        assert manifest["data"] == {
            "tiny": {
                "source": "made up",
                "checksum": DATASET.checksum,
                "train": 70,
                "evaluated": 20,
            }
        }

    def test_is_not_loaded_where_everything_is_on_record(self, tmp_path: Path):
        def load(_: Workload) -> Dataset:
            raise AssertionError

        train(tmp_path, cells("sgd", seeds=1))
        with Records(tmp_path, "accuracy", {}) as records:
            Runner(records, load, Console(file=io.StringIO()))(cells("sgd", seeds=1))

    def test_that_is_not_to_be_had_is_an_error_before_any_progress(self, tmp_path: Path):
        def load(_: Workload) -> Dataset:
            raise DataError("raw_dir absent is not a folder")

        log = io.StringIO()
        with Records(tmp_path, "accuracy", {}) as records, pytest.raises(DataError):
            Runner(records, load, Console(file=log))(cells("sgd", seeds=1))
        assert log.getvalue() == ""


def test_a_study_keeps_no_more_than_a_few_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    built: list[weakref.ref] = []
    make = run.Program

    def watched(*arguments: object, **settings: object) -> Watched:
        program = make(*arguments, **settings)
        built.append(weakref.ref(program))
        return program

    monkeypatch.setattr(run, "Program", watched)
    workloads = [dataclasses.replace(WORKLOAD, label_noise=rate / 10) for rate in range(5)]
    loaded = [dataclasses.replace(DATASET, name=f"tiny{rate}") for rate in range(5)]
    data = [weakref.ref(dataset) for dataset in loaded]
    with Records(tmp_path, "accuracy", {}) as records:
        runner = Runner(
            records,
            lambda workload: loaded[workloads.index(workload)],
            Console(file=io.StringIO()),
        )
        runner([Cell(workload, "sgd", 0.1, 0) for workload in workloads])
        loaded.clear()
        gc.collect()
        assert len(built) == 5
        assert sum(reference() is not None for reference in built) == run.KEPT
        assert sum(reference() is not None for reference in data) <= run.KEPT


@pytest.mark.parametrize(
    ("number", "devices"), [(1, 1), (3, 3), (len(jax.devices()), len(jax.devices()))]
)
def test_a_program_has_no_more_devices_than_cells(
    number: int, devices: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    meshes: list[Mesh] = []
    make = run.Program

    def watched(*arguments: object, mesh: Mesh, **settings: object) -> Watched:
        meshes.append(mesh)
        return make(*arguments, mesh=mesh, **settings)

    monkeypatch.setattr(run, "Program", watched)
    train(tmp_path, cells("sgd", seeds=number))
    assert [mesh.size for mesh in meshes] == [devices]


class TestProgress:
    def test_counts_the_epochs_of_all_cells_in_a_log(self, tmp_path: Path):
        train(tmp_path, cells("sgd", seeds=2))
        log = io.StringIO()
        with Records(tmp_path, "accuracy", {}) as records:
            console = Console(file=log, width=200)
            Runner(records, lambda _: DATASET, console)(cells(*ARMS, seeds=2))
        assert "8/8 epochs" in log.getvalue()
        assert "mnist: SGD momentum" in log.getvalue()
