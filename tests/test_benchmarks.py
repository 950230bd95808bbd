"""The benchmarks, at a size that takes seconds: what they measure adds up and is written down."""

import dataclasses
import functools
import importlib.util
import io
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from flax import nnx
from rich.console import Console

from benchmarks import harness, step, train
from experiments import results
from experiments.cells import ConfigError
from experiments.mesh import make_mesh
from experiments.models import ResNet
from experiments.records import RecordError
from experiments.tables import markdown_table

PARAMETERS = {"leaf": 2**24, "mlp": 269_322, "resnet18": 11_173_962, "transformer": 99_998_208}
HAS_FLASH = importlib.util.find_spec("flashoptim_jax") is not None


@dataclasses.dataclass(frozen=True)
class Run:
    """A benchmark that was run in this process."""

    said: str
    folder: Path

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.folder / f"{name}.csv")

    @property
    def report(self) -> str:
        return (self.folder / "report.md").read_text()

    def shows(self, table: list[list[str]]) -> bool:
        """Whether a table stands in what was printed, and in the report."""
        printed = [re.findall(r"[^┃│]+", line) for line in self.said.splitlines()]
        lines = [[cell.strip() for cell in cells] for cells in printed]
        return all(line in lines for line in table) and markdown_table(table) in self.report


def run(benchmark: Any, folder: Path, **settings: Any) -> Run:
    said = io.StringIO()
    benchmark.run(benchmark.Config("smoke", out=folder, **settings), Console(file=said, width=200))
    return Run(said.getvalue(), folder)


LEAVES = {"kernel": (64, 64), "bias": (64,)}


def step_program(optimizer: str, platform: str) -> str:
    """A step on two leaves, lowered for a platform."""
    made = step.CONTESTANTS[optimizer].make()

    def take(gradients: Any, state: Any, params: Any) -> Any:
        if hasattr(made, "step"):
            return made.step(params, state, gradients)
        updates, state = made.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    params = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in LEAVES.items()}
    state = jax.eval_shape(made.init, params)
    traced = jax.jit(take).trace(params, state, params)
    return traced.lower(lowering_platforms=(platform,)).as_text()


class Clock:
    """Stands in for the module ``time``: only sleep makes its time pass."""

    def __init__(self) -> None:
        self._now = 0.0

    def perf_counter(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(harness, "time", clock)
    return clock


@pytest.fixture
def progress() -> harness.Progress:
    return harness.show_progress(Console(file=io.StringIO()))


@pytest.fixture(scope="module")
def step_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The MLP, and a tree that this machine has no memory for."""
    with pytest.MonkeyPatch.context() as patch:
        size = dataclasses.replace(step.SIZES["smoke"], seconds={"mlp": 0.0, "transformer": 0.0})
        patch.setitem(step.SIZES, "smoke", size)
        patch.setattr(harness, "free_memory", lambda: 1e9)
        return run(step, tmp_path_factory.mktemp("step"))


@pytest.fixture(scope="module")
def rows(step_run: Run) -> pd.DataFrame:
    return step_run.table("step")


@pytest.fixture(scope="module")
def train_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(train, tmp_path_factory.mktemp("train"))


class TestStep:
    def test_has_a_row_for_each_optimizer_without_and_with_donation(self, rows: pd.DataFrame):
        expected = [(name, donated) for name in step.CONTESTANTS for donated in (False, True)]
        assert list(zip(rows["optimizer"], rows["donated"], strict=True)) == expected
        assert set(rows["tree"]) == {"mlp"}
        assert set(rows["parameters"]) == {PARAMETERS["mlp"]}

    def test_no_step_moves_less_than_its_floor(self, rows: pd.DataFrame):
        assert (rows["bytes_per_parameter"] >= rows["floor_bytes_per_parameter"] - 1e-9).all()

    def test_sgd_moves_what_it_must_and_no_more(self, rows: pd.DataFrame):
        sgd = rows[rows["optimizer"] == "sgd"]
        assert sgd["bytes_per_parameter"].tolist() == pytest.approx([12, 12], abs=0.01)

    def test_donation_adds_no_traffic(self, rows: pd.DataFrame):
        """Results in another order than the donated arguments would be copied."""
        by_donation = rows.pivot(index="optimizer", columns="donated", values="bytes_per_parameter")
        if jax.__version_info__ < (0, 10):  # its XLA copies a trace in bfloat16
            by_donation = by_donation.drop("full_bfloat16")
        by_donation = by_donation.drop("flash_adamw", errors="ignore")  # has an order of its own
        assert (by_donation[True] <= by_donation[False]).all()

    def test_the_time_of_adam_is_one_adam(self, rows: pd.DataFrame):
        assert rows.loc[rows["optimizer"] == "adam", "ratio_to_adam"].tolist() == [1, 1]

    def test_times_are_those_of_something(self, rows: pd.DataFrame):
        assert (rows["best_ms"] > 0).all()
        assert (rows["median_ms"] >= rows["best_ms"]).all()
        assert (rows["compile_seconds"] > 0).all()
        assert (rows["rounds"] == harness.MIN_ROUNDS).all()

    @pytest.mark.parametrize(
        ("optimizer", "bytes_a_parameter"),
        [
            ("sgd", 0),
            ("adam", 8),
            ("full", 12),
            ("full_bfloat16", 6),
            ("gradient_only", 0),
            ("with_plasticity", 20),
        ],
    )
    def test_state_is_its_traces_a_few_counts_and_a_mean_for_each_leaf(
        self, optimizer: str, bytes_a_parameter: int, rows: pd.DataFrame
    ):
        state = rows.loc[rows["optimizer"] == optimizer, "state_bytes"]
        counts = state - bytes_a_parameter * PARAMETERS["mlp"]
        leaves = len(jax.tree.leaves(step.TREES["mlp"]()))
        assert counts.between(0, 16 + 4 * leaves).all()

    def test_the_share_of_the_bandwidth_follows_from_the_other_columns(self, rows: pd.DataFrame):
        moved = rows["bytes_per_parameter"] * rows["parameters"]
        of_copy = moved / (rows["median_ms"] / 1e3) / rows["copy_bytes_per_second"]
        np.testing.assert_allclose(rows["bandwidth_share"], of_copy)

    def test_shows_and_reports_what_it_records(self, step_run: Run, rows: pd.DataFrame):
        assert step_run.shows(step.make_table(rows))

    def test_says_what_it_left_out(self, step_run: Run):
        sentence = r"Transformer skipped: it needs about \d+\.\d GB, and 1\.0 GB of memory are free"
        assert re.search(sentence, step_run.said)
        assert re.search(sentence, step_run.report)

    def test_leaves_a_figure_and_a_manifest(self, step_run: Run):
        check_folder(step_run, "step", {"step.csv"})

    def test_floors_are_those_counted_by_hand(self):
        """Bytes per parameter: the passes of each optimizer, counted by hand."""
        assert {name: contestant.floor for name, contestant in step.CONTESTANTS.items()} == {
            "sgd": 12,
            "adam": 28,
            "adamw": 28,
            "muon": 20,
            "full": 16 + 32 + 12,
            "full_other_barrier": 16 + 32 + 12,
            "full_bfloat16": 10 + 20 + 12,
            "gradient_only": 4 + 4 + 12,
            "with_plasticity": 16 + 52 + 16,
        } | ({"flash_adamw": 6 + 10} if HAS_FLASH else {})

    @pytest.mark.parametrize("platform", ["cpu", "gpu"])
    def test_the_barrier_is_left_out_where_the_library_has_it_and_else_put_in(
        self, platform: str, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(jax, "default_backend", lambda: platform)
        lowered = {"cpu": "cpu", "gpu": "cuda"}[platform]
        barriers = {
            name: "optimization_barrier" in step_program(name, lowered)
            for name in ("full", "full_other_barrier")
        }
        on_cpu = platform == "cpu"
        assert barriers == {"full": on_cpu, "full_other_barrier": not on_cpu}

    def test_the_barrier_changes_no_number(self):
        params = {"kernel": jnp.linspace(-1.0, 1.0, 24).reshape(4, 6)}
        gradients = jax.tree.map(jnp.sin, params)
        usual, other = (
            (tx := step.CONTESTANTS[name].make()).update(gradients, tx.init(params), params)
            for name in ("full", "full_other_barrier")
        )
        chex.assert_trees_all_close(usual, other, rtol=1e-6)

    @pytest.mark.skipif(
        not HAS_FLASH or jax.__version_info__ >= (0, 11),
        reason="flashoptim-jax is not installed, or this JAX lowers it for a GPU beside one alone",
    )
    def test_the_fused_peer_is_one_kernel_for_each_leaf_on_a_gpu(
        self, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        assert step_program("flash_adamw", "cuda").count("custom_call") == len(LEAVES)

    def test_bytes_are_counted_where_the_compiler_gives_no_count(self):
        arrays = step.Arrays(*({"kernel": jnp.ones((512, 512))} for _ in range(2)))
        made = step.Step(optax.sgd(0.1), arrays)
        compiled = made._compiled[True]
        made._compiled[True] = SimpleNamespace(cost_analysis=lambda: None, as_text=compiled.as_text)
        assert made.bytes_accessed(True) == pytest.approx(12 * 512**2, rel=0.01)

    @pytest.mark.parametrize("tree", step.TREES)
    def test_trees_have_the_models_sizes(self, tree: str):
        assert sum(leaf.size for leaf in jax.tree.leaves(step.TREES[tree]())) == PARAMETERS[tree]

    def test_what_fits_is_not_left_out(self):
        assert step.shortage("mlp", copied=2**20) is None


class TestTrain:
    def test_has_a_row_for_each_number_of_seeds_and_way(self, train_run: Run):
        rows = train_run.table("throughput")
        ways = ("one by one", "lax.map", "vmap")
        expected = [(seeds, way) for seeds in (2,) for way in ways]
        assert list(zip(rows["seeds"], rows["way"], strict=True)) == expected
        assert (rows["images_per_second"] > 0).all()

    def test_the_step_with_momentum_is_one_and_plain_sgd_adds_nothing_to_itself(
        self, train_run: Run
    ):
        rows = train_run.table("optimizers").set_index("arm")
        assert rows.index.tolist() == ["sgd", "momentum"]
        assert rows.loc["momentum", "ratio_to_momentum"] == 1
        assert rows.loc["sgd", "optimizer_share"] == 0
        assert (rows["optimizer_share"] < 1).all()

    def test_shows_and_reports_what_it_records(self, train_run: Run):
        assert train_run.shows(train.throughput_table(train_run.table("throughput")))
        assert train_run.shows(train.optimizer_table(train_run.table("optimizers")))

    def test_leaves_a_figure_and_a_manifest(self, train_run: Run):
        check_folder(train_run, "train", {"throughput.csv", "optimizers.csv"})

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_resnet18_has_activations_of_the_dtype_and_parameters_in_float32(self, dtype: Any):
        work = train.make_work(
            "resnet18", train.Config(width=4, resnet_batch=2, resnet_dtype=dtype)
        )
        assert dtype in work.title

        def features(images: jax.Array) -> tuple[jax.Array, Any]:
            model = work.problem.model(nnx.Rngs(0))
            return model.stem(images), nnx.state(model, nnx.Param)

        images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
        activations, params = jax.eval_shape(features, images)
        assert activations.dtype == dtype
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}

    def test_resnet18_is_as_wide_as_asked_for(self):
        work = train.make_work("resnet18", train.Config("default", width=4, resnet_batch=3))
        model = nnx.eval_shape(lambda: work.problem.model(nnx.Rngs(0)))
        assert isinstance(model, ResNet)
        assert model.stem.kernel.shape == (3, 3, 3, 4)
        assert work.problem.batch_size == 3
        assert work.images.inputs.shape == (6, 32, 32, 3)

    @pytest.mark.parametrize("setting", ["width", "resnet_batch"])
    def test_a_size_below_one_is_refused(self, setting: str):
        with pytest.raises(ConfigError, match=f"{setting} must be at least 1, got 0"):
            train.Config(**{setting: 0})


@dataclasses.dataclass(frozen=True)
class FakeProgram:
    """Takes a hundredth of a second for each seed."""

    clock: Clock
    width: int
    room: float = float("inf")
    """Seeds that fit into the memory."""

    def init(self, seeds: np.ndarray, learning_rates: np.ndarray) -> int:
        assert len(seeds) == len(learning_rates)
        return len(seeds)

    def train_epoch(
        self, state: int, seeds: np.ndarray, learning_rates: np.ndarray
    ) -> tuple[int, dict[str, jax.Array]]:
        assert state == len(seeds) == len(learning_rates)
        if len(seeds) > self.room:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        self.clock.sleep(0.01 * len(seeds))
        return state, {}


Measure = Callable[..., tuple[pd.DataFrame, list[str]]]


class TestThroughput:
    """Ten images, with programs that need no compilation."""

    @pytest.fixture
    def measure(self, clock: Clock, progress: harness.Progress) -> Measure:
        def measure(
            seeds: tuple[int, ...],
            *,
            limit: float = 1.0,
            room: float = float("inf"),
            known: dict[int, pd.DataFrame] | None = None,
        ) -> tuple[pd.DataFrame, list[str]]:
            class FakeWork(train.Work):
                def program(self, arm: str, **settings: Any) -> FakeProgram:
                    assert arm == train.ARM
                    mesh = settings.get("mesh", make_mesh())
                    return FakeProgram(clock, mesh.size, room)

            images = train.Arrays(np.zeros((10, 1), np.uint8), np.zeros(10, np.int32))
            size = train.Size({}, seeds, arms=(), seconds=0.0, limit=limit)
            notes: list[str] = []
            work = FakeWork("Model", None, images)
            tables = train.measure_throughput(work, size, progress, notes.append, known or {})
            return pd.concat(tables, ignore_index=True), notes

        return measure

    def test_is_images_of_all_seeds_by_time(self, measure: Measure):
        rows, notes = measure((1, 8))
        np.testing.assert_allclose(rows["images_per_second"], 1000)
        assert notes == []

    def test_all_devices_take_as_many_seeds_each(self, measure: Measure):
        rows, _ = measure((1, 8))
        assert rows.groupby("seeds")["way"].agg(list).to_dict() == {
            1: ["one by one", "lax.map", "vmap"],
            8: ["one by one", "lax.map", "vmap", "all devices"],
        }

    def test_what_would_take_too_long_is_left_out_and_said(self, measure: Measure):
        rows, notes = measure((1, 4), limit=0.03)
        assert set(rows["seeds"]) == {1}
        assert notes[0] == (
            "Model, seeds: 4, one by one: skipped, an epoch would take about 0.04 s."
        )
        assert len(notes) == 3

    def test_what_is_known_is_not_measured_again_and_still_tells_what_takes_too_long(
        self, measure: Measure
    ):
        first, _ = measure((1,))
        rows, notes = measure((1, 2, 4), limit=0.03, known={1: first})
        assert set(rows["seeds"]) == {2}
        assert len(notes) == 3

    def test_what_does_not_fit_is_left_out_and_said(self, measure: Measure):
        rows, notes = measure((1, 2), room=1)
        assert rows[rows["seeds"] == 2]["way"].tolist() == ["one by one"]
        assert [note.partition(":")[2] for note in notes] == [
            f" 2, {way}: skipped, the memory of the device does not suffice."
            for way in ("lax.map", "vmap")
        ]


class TestTurns:
    def test_every_round_makes_every_call_once(self, clock: Clock, progress: harness.Progress):
        made: list[str] = []

        def call(name: str) -> None:
            made.append(name)
            clock.sleep(1.0)

        calls = {name: functools.partial(call, name) for name in "abc"}
        taken = harness.time_in_turns(calls, 0.0, progress, "turns")
        rounds = [sorted(made[i : i + 3]) for i in range(0, len(made), 3)]
        assert rounds == [["a", "b", "c"]] * (1 + harness.MIN_ROUNDS)
        assert {len(seconds) for seconds in taken.values()} == {harness.MIN_ROUNDS}
        assert set(taken) == set("abc")

    def test_times_belong_to_their_calls(self, clock: Clock, progress: harness.Progress):
        naps = {"long": 3.0, "short": 0.5}
        calls = {name: functools.partial(clock.sleep, nap) for name, nap in naps.items()}
        taken = harness.time_in_turns(calls, 0.0, progress, "turns")
        assert all((taken[name] == nap).all() for name, nap in naps.items())

    @pytest.mark.parametrize(("seconds", "rounds"), [(0.0, 3), (8.0, 8), (1e9, 100)])
    def test_rounds_fill_the_time(
        self, seconds: float, rounds: int, clock: Clock, progress: harness.Progress
    ):
        calls = {"nap": functools.partial(clock.sleep, 1.0)}
        assert len(harness.time_in_turns(calls, seconds, progress, "turns")["nap"]) == rounds


class TestGoingOn:
    """A run that was stopped, of code that is as it was committed."""

    @pytest.fixture
    def commit(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
        """The commit that the benchmarks find."""
        found = {"commit": "abc"}
        usual = harness.circumstances
        monkeypatch.setattr(harness, "circumstances", lambda: usual() | found)
        return found

    @pytest.fixture
    def measured(self, rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The trees that are measured, of which the second is interrupted the first time."""
        trees: list[str] = []

        def measure(tree: str, *_: Any) -> pd.DataFrame:
            trees.append(tree)
            if trees == ["mlp", "resnet18"]:
                raise KeyboardInterrupt
            return rows.assign(tree=tree)

        size = step.Size({"mlp": 0.0, "resnet18": 0.0}, 1)
        monkeypatch.setitem(step.SIZES, "smoke", size)
        monkeypatch.setattr(step, "measure", measure)
        return trees

    def test_of_steps_keeps_the_trees_that_are_done(
        self, commit: dict[str, str], measured: list[str], tmp_path: Path
    ):
        with pytest.raises(KeyboardInterrupt):
            run(step, tmp_path, go_on=True)
        finished = run(step, tmp_path, go_on=True)
        assert commit["commit"] in finished.report
        assert measured == ["mlp", "resnet18", "resnet18"]
        assert finished.table("step")["tree"].unique().tolist() == ["mlp", "resnet18"]

    @pytest.mark.parametrize("how", ["not asked to", "of another commit", "of changed code"])
    def test_is_from_the_beginning_where_what_is_there_may_be_of_something_else(
        self, how: str, commit: dict[str, str], measured: list[str], tmp_path: Path
    ):
        if how == "of changed code":
            commit["commit"] = "abc+"
        with pytest.raises(KeyboardInterrupt):
            run(step, tmp_path, go_on=True)
        if how == "of another commit":
            commit["commit"] = "def"
        run(step, tmp_path, go_on=how != "not asked to")
        assert measured == ["mlp", "resnet18", "mlp", "resnet18"]

    @pytest.mark.usefixtures("commit")
    def test_of_training_keeps_models_and_numbers_of_seeds(
        self,
        train_run: Run,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ):
        seen: list[int] = []

        def throughput(*arguments: Any) -> Any:
            note, known = arguments[-2:]
            note("as it was")
            seen.extend(known)
            return iter([] if known else [train_run.table("throughput")])

        def optimizers(*_: Any) -> pd.DataFrame:
            if not seen:
                raise KeyboardInterrupt
            return train_run.table("optimizers")

        monkeypatch.setattr(train, "measure_throughput", throughput)
        monkeypatch.setattr(train, "measure_optimizers", optimizers)
        with pytest.raises(KeyboardInterrupt):
            run(train, tmp_path, go_on=True)
        finished = run(train, tmp_path, go_on=True)
        assert seen == [2]
        for table in ("throughput", "optimizers"):
            pd.testing.assert_frame_equal(finished.table(table), train_run.table(table))
        assert finished.report.count("as it was") == 1


class TestFolder:
    def test_of_something_else_is_refused_and_left_alone(self, tmp_path: Path):
        for found in ('{"study": "accuracy"}', '{"benchmark": "train"}', "garbage", "[]"):
            (tmp_path / "manifest.json").write_text(found)
            with pytest.raises(RecordError, match="is no manifest of the benchmark 'step'"):
                harness.prepare(tmp_path, "step")
            assert (tmp_path / "manifest.json").read_text() == found

    def test_of_the_same_benchmark_is_used_again(self, tmp_path: Path):
        (tmp_path / "manifest.json").write_text('{"benchmark": "step"}')
        harness.prepare(tmp_path, "step")

    def test_that_is_a_file_is_refused_by_the_command_line(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ):
        (tmp_path / "out").write_text("")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["step", "--out", "out"])
        with pytest.raises(SystemExit) as exit_:
            harness.command_line(step.Config, step.run, "step")
        assert exit_.value.code == 2
        assert capsys.readouterr().err.startswith("error: out cannot be used: File exists.")


def test_the_page_of_results_leaves_benchmarks_out(step_run: Run, tmp_path: Path):
    shutil.copytree(step_run.folder, tmp_path / "benchmarks-step")
    assert results.find(tmp_path) == []


@pytest.mark.parametrize("value", [None, "glibc.malloc.hugetlb=1"])
def test_variables_that_change_the_speed_are_written_down(
    value: str | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if value is not None:
        monkeypatch.setenv("GLIBC_TUNABLES", value)
    manifest = harness.make_manifest("step", step.Config())
    assert manifest["environment"].get("GLIBC_TUNABLES") == value
    assert ("with GLIBC_TUNABLES=" in harness.measured_on(manifest)) == (value is not None)


def test_free_memory_is_that_of_a_machine():
    assert 2**20 < harness.free_memory() < 2**50


def check_folder(finished: Run, benchmark: str, tables: set[str]) -> None:
    """The files of a benchmark are there, whole, and name what they were made by."""
    names = {path.name for path in finished.folder.iterdir()}
    assert names == {"manifest.json", "figure.png", "report.md", *tables}
    assert (finished.folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    manifest = json.loads((finished.folder / "manifest.json").read_text())
    assert manifest["benchmark"] == benchmark
    assert manifest["configuration"]["preset"] == "smoke"
    assert {"commit", "versions", "device", "written"} < manifest.keys()
    assert manifest["device"] in finished.report
    assert str(finished.folder) not in finished.report + json.dumps(manifest)
