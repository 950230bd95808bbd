"""Checkpoints of cells in training: complete and bit for bit, or refused."""

import contextlib
import gc
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments import checkpoints
from experiments.arms import ARMS
from experiments.checkpoints import Checkpoint, CheckpointError
from experiments.optimizers import Training
from experiments.records import RecordError
from experiments.train import CellState

CELLS = NamedSharding(Mesh(np.array(jax.devices()), ("cell",)), PartitionSpec("cell"))
ROWS = [
    {"arm": "sgd", "epoch": epoch, "diagnostics": False, "rate": 1 / 3, "loss": loss}
    for epoch, loss in enumerate((0.1, float("inf"), float("nan")), start=1)
]


# Where it fails, Orbax leaves coroutines behind that complain when they are collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True, scope="module")
def _collected() -> Iterator[None]:
    """What these tests leave behind is collected with them, and in no test of another file."""
    yield
    gc.collect()


@pytest.fixture(autouse=True, scope="module")
def _every_epoch() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "INTERVAL", 0.0)
        yield


class Model(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.head = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5)


def random_bits(leaf: jax.Array) -> jax.Array:
    """Eight cells of a leaf, of any bits: what is no number, infinite or tiny is among them."""
    shape, dtype = (8, *leaf.shape), np.dtype(leaf.dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    bits = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    return jax.device_put(bits.view(dtype).reshape(shape), CELLS)


def state_of(arm: str) -> CellState:
    params, variables = nnx.state(Model(nnx.Rngs(0)), nnx.Param, ...)
    optimizer = ARMS[arm].make(jnp.float32(0.1), Training(10, 2, "per_leaf"))
    state = CellState(params, variables, optimizer.init(params), jnp.zeros([], jnp.int32))
    return jax.tree.map(random_bits, state)


@pytest.fixture(scope="module")
def state() -> CellState:
    return state_of("full")


def assert_same_bits(one: CellState, other: CellState) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert (a.dtype, a.shape, a.sharding) == (b.dtype, b.shape, b.sharding)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def write(folder: Path, state: CellState, epoch: int = 1, rows: list | None = None) -> None:
    with Checkpoint(folder) as checkpoint:
        checkpoint.save(epoch, state, rows or ROWS)


def steps(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestRestored:
    def test_are_state_and_rows_of_all_kinds_of_arms_to_the_last_bit(self, tmp_path: Path):
        """Those with random numbers and those without entries among them."""
        arms = ("full", "permuted", "random", "momentum_classifier", "controller_layers", "adamw")
        states = {arm: state_of(arm) for arm in arms}
        write(tmp_path / "new", states)
        with Checkpoint(tmp_path / "new") as checkpoint:
            restored, rows = checkpoint.restore(jax.tree.map(jnp.zeros_like, states))
        assert_same_bits(restored, states)
        assert repr(rows) == repr(ROWS), "types and what is no number included"

    @pytest.mark.parametrize(
        "dtype", ["bool", "int8", "uint8", "uint32", "int32", "float16", "bfloat16", "float32"]
    )
    def test_is_a_leaf_of_any_dtype(self, dtype: str, tmp_path: Path):
        bits = random_bits(jnp.zeros(5, "uint8" if dtype == "bool" else dtype))
        leaf = bits > 127 if dtype == "bool" else bits
        write(tmp_path / "new", {"leaf": leaf})
        with Checkpoint(tmp_path / "new") as checkpoint:
            restored, _ = checkpoint.restore({"leaf": jnp.zeros_like(leaf)})
        assert_same_bits(restored, {"leaf": leaf})

    def test_is_the_last_one(self, state: CellState, tmp_path: Path):
        with Checkpoint(tmp_path) as checkpoint:
            for epoch in (1, 2, 3):
                checkpoint.save(epoch, state, ROWS[:epoch])
        assert steps(tmp_path) == ["3"]
        with Checkpoint(tmp_path) as checkpoint:
            _, rows = checkpoint.restore(state)
        assert len(rows) == 3

    def test_is_what_there_was_before_training_went_on(self, tmp_path: Path):
        """The state is donated and rows are added while a checkpoint is written."""

        def train(state: dict[str, jax.Array]) -> dict[str, jax.Array]:
            return {name: 1.5 * leaf + 1 for name, leaf in state.items()}

        step = jax.jit(train, donate_argnums=0)
        state = step({"leaf": jax.device_put(jnp.ones((8, 100_000)), CELLS)})
        expected, rows = np.array(state["leaf"]), ROWS[:1]
        with Checkpoint(tmp_path) as checkpoint:
            checkpoint.save(1, state, rows)
            rows += ROWS[1:]
            for _ in range(3):
                state = step(state)
        with Checkpoint(tmp_path) as checkpoint:
            restored, rows = checkpoint.restore(state)
        np.testing.assert_array_equal(restored["leaf"], expected)
        assert rows == ROWS[:1]

    def test_is_nothing_where_there_is_none(self, state: CellState, tmp_path: Path):
        with Checkpoint(tmp_path / "new") as checkpoint:
            assert checkpoint.restore(state) is None
        assert not (tmp_path / "new").exists()


def test_no_state_is_gathered_to_be_saved(
    state: CellState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Each process sums up its own parts; what they exchange is a number."""
    exchanged: list[int] = []
    gather = checkpoints.multihost_utils.process_allgather

    def watched(value: object, **settings: bool) -> object:
        exchanged.extend(leaf.size for leaf in jax.tree.leaves(value))
        return gather(value, **settings)

    monkeypatch.setattr(checkpoints.multihost_utils, "process_allgather", watched)
    write(tmp_path / "new", state)
    assert exchanged == [1]


def test_a_folder_without_a_complete_checkpoint_has_none_saved(state: CellState, tmp_path: Path):
    assert not checkpoints.saved(tmp_path)
    (tmp_path / "checkpoints/abc/1.orbax-checkpoint-tmp").mkdir(parents=True)
    assert not checkpoints.saved(tmp_path)
    write(tmp_path / "checkpoints/def", state)
    assert checkpoints.saved(tmp_path)


class TestYoungCheckpoint:
    def test_is_not_replaced(
        self, state: CellState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        with Checkpoint(tmp_path) as checkpoint:
            checkpoint.save(1, state, ROWS)
            monkeypatch.setattr(checkpoints, "INTERVAL", 1000.0)
            checkpoint.save(2, state, ROWS)
        assert steps(tmp_path) == ["1"]

    def test_is_not_written_before_its_time(
        self, state: CellState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(checkpoints, "INTERVAL", 1000.0)
        with Checkpoint(tmp_path / "new") as checkpoint:
            checkpoint.save(1, state, ROWS)
        assert not (tmp_path / "new").exists(), "a study of seconds leaves nothing to remove"


class TestRemovedCheckpoint:
    def test_leaves_nothing(self, state: CellState, tmp_path: Path):
        with Checkpoint(tmp_path / "new") as checkpoint:
            checkpoint.save(1, state, ROWS)
            checkpoint.remove()
        assert not (tmp_path / "new").exists()

    def test_makes_room_for_another(self, state: CellState, tmp_path: Path):
        with Checkpoint(tmp_path / "new") as checkpoint:
            checkpoint.save(7, state, ROWS)
            checkpoint.remove()
            checkpoint.save(1, state, ROWS[:1])
        with Checkpoint(tmp_path / "new") as checkpoint:
            _, rows = checkpoint.restore(state)
        assert rows == ROWS[:1]


class TestUnfinishedCheckpoint:
    def test_is_passed_over_and_removed(self, state: CellState, tmp_path: Path):
        write(tmp_path, state, epoch=1, rows=ROWS[:1])
        write(tmp_path / "other", state, epoch=2)
        (tmp_path / "other/2").rename(tmp_path / "3.orbax-checkpoint-tmp")
        with Checkpoint(tmp_path) as checkpoint:
            _, rows = checkpoint.restore(state)
            checkpoint.save(2, state, ROWS)
        assert rows == ROWS[:1]
        assert steps(tmp_path) == ["2", "other"]


@pytest.fixture(scope="module")
def few() -> CellState:
    """A state of few leaves: its checkpoint has the files of one of many, and is read sooner."""
    return state_of("momentum")


@pytest.fixture(scope="module")
def original(few: CellState, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint to damage copies of."""
    folder = tmp_path_factory.mktemp("original")
    write(folder, few)
    return folder


# Orbax leaves its other reads behind when one fails.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class TestDamagedCheckpoint:
    """As it was written, or refused."""

    @pytest.mark.parametrize("damage", ["cut", "half", "emptied", "missing", "flipped"])
    def test_is_refused(self, damage: str, original: Path, few: CellState, tmp_path: Path):
        refused = 0
        files = sorted(path.relative_to(original) for path in original.rglob("*") if path.is_file())
        for number, file in enumerate(files):
            folder = tmp_path / str(number)
            shutil.copytree(original, folder)
            content = bytearray((folder / file).read_bytes())
            if damage == "missing":
                (folder / file).unlink()
            elif damage == "flipped":
                for place in range(0, len(content), max(1, len(content) // 3)):
                    content[place] ^= 4
                (folder / file).write_bytes(content)
            else:
                kept = {"cut": len(content) - 1, "half": len(content) // 2, "emptied": 0}[damage]
                (folder / file).write_bytes(content[: max(kept, 0)])
            restored = None
            with Checkpoint(folder) as checkpoint, contextlib.suppress(CheckpointError):
                restored = checkpoint.restore(few)
            if restored is None:
                refused += 1
            else:
                assert_same_bits(restored[0], few)
                assert repr(restored[1]) == repr(ROWS)
        assert refused >= 2

    @pytest.mark.parametrize("part", ["state", "rows"])
    def test_is_refused_where_a_part_is_another(
        self, part: str, original: Path, few: CellState, tmp_path: Path
    ):
        """State and rows of two epochs, each of them whole."""
        other = jax.tree.map(jnp.ones_like, few)
        write(tmp_path / "other", other, rows=ROWS[:1])
        shutil.copytree(original, tmp_path / "mixed")
        shutil.rmtree(tmp_path / "mixed/1" / part)
        (tmp_path / "other/1" / part).rename(tmp_path / "mixed/1" / part)
        with (
            Checkpoint(tmp_path / "mixed") as checkpoint,
            pytest.raises(CheckpointError, match="checksum"),
        ):
            checkpoint.restore(few)

    def test_is_refused_where_the_state_is_of_another_shape(self, original: Path, few: CellState):
        other = jax.tree.map(lambda leaf: jnp.zeros((*leaf.shape, 2), leaf.dtype), few)
        with Checkpoint(original) as checkpoint, pytest.raises(CheckpointError):
            checkpoint.restore(other)


class TestUnwritableFolder:
    @pytest.mark.parametrize("occupied", ["checkpoints", "checkpoints/one"])
    def test_is_an_error_that_names_it(self, occupied: str, state: CellState, tmp_path: Path):
        (tmp_path / occupied).parent.mkdir(exist_ok=True)
        (tmp_path / occupied).write_text("a file where the folder should be")
        folder = tmp_path / "checkpoints/one"
        with (
            Checkpoint(folder) as checkpoint,
            pytest.raises(RecordError, match=f"{folder} cannot be written: "),
        ):
            checkpoint.save(1, state, ROWS)


def test_the_name_depends_on_every_fact():
    facts = {"seeds": [0, 1], "size": 8}
    assert checkpoints.identify(facts) == checkpoints.identify(dict(reversed(facts.items())))
    others = [facts | {"size": 9}, facts | {"seeds": [1, 0]}, facts | {"more": 1}, {"size": 8}]
    names = {checkpoints.identify(other) for other in [facts, *others]}
    assert len(names) == 1 + len(others)
