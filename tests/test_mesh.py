"""Meshes: a program gives the same however the devices share its cells, batches and parameters."""

import functools
import re
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.arms import ARMS
from experiments.cells import ConfigError
from experiments.mesh import check_batch_size, fsdp_spec, make_mesh, seed_devices
from experiments.preprocessing import random_crop
from experiments.records import Records, write_atomically
from experiments.train import Arrays, CellState, Problem, Program
from tests.study_process import StudyProcess, watch, write_images

BATCH, EPOCHS = 16, 2
CELLS = np.arange(8), np.linspace(0.05, 0.4, 8)  # seeds and learning rates


class TestMesh:
    @pytest.mark.parametrize(
        ("axes", "seed", "data"),
        [
            ([], 8, 1),
            (["seed=8"], 8, 1),
            (["data=8"], 1, 8),
            (["data=4"], 2, 4),
            (["seed=2", "data=4"], 2, 4),
            (["data=2", "seed=4"], 4, 2),
        ],
    )
    def test_takes_all_devices(self, axes: list[str], seed: int, data: int):
        mesh = make_mesh(axes)
        assert dict(mesh.shape) == {"seed": seed, "data": data}
        assert set(mesh.devices.flat) == set(jax.devices())

    @pytest.mark.parametrize(
        ("axes", "said"),
        [
            (["data=3"], "mesh data=3 .* seed=2 times data=3 is 6, found 8 devices"),
            (["data=16"], "seed=1 times data=16 is 16, found 8 devices"),
            (["seed=2"], "seed=2 times data=1 is 2, found 8 devices"),
            (["seed=4", "data=4"], "seed=4 times data=4 is 16, found 8 devices"),
            (["data"], "mesh takes seed=N and data=N with N of at least 1, got 'data'"),
            (["data=0"], "got 'data=0'"),
            (["data=-1"], "got 'data=-1'"),
            (["data=two"], "got 'data=two'"),
            (["model=2"], "got 'model=2'"),
            (["data=2", "data=2"], "mesh takes data once, got data=2 data=2"),
        ],
    )
    def test_refuses_what_the_devices_cannot_be(self, axes: list[str], said: str):
        with pytest.raises(ConfigError, match=said):
            make_mesh(axes)

    def test_has_no_more_places_for_cells_than_there_are_cells(self):
        mesh = make_mesh(["seed=4", "data=2"])
        part = seed_devices(mesh, 3)
        assert dict(part.shape) == {"seed": 3, "data": 2}
        assert set(part.devices.flat) == set(mesh.devices[:3].flat)
        assert seed_devices(mesh, 4) is seed_devices(mesh, 9) is mesh

    def test_stays_whole_where_several_processes_have_it(self, monkeypatch: pytest.MonkeyPatch):
        mesh = make_mesh()
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        assert seed_devices(mesh, 1) is mesh

    def test_needs_an_image_of_each_batch_for_every_device(self):
        check_batch_size(4, make_mesh(["data=4"]))
        with pytest.raises(ConfigError, match="at least the mesh's data=4, got 3"):
            check_batch_size(3, make_mesh(["data=4"]))


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((8, 16), P(None, "data")),
        ((16, 8), P("data")),
        ((8, 9), P("data")),
        ((8, 8), P("data")),
        ((9, 10), P()),
        ((4,), P()),
        ((0, 3), P()),
        ((), P()),
    ],
)
def test_fsdp_cuts_the_largest_axis_that_can_be_cut(shape: tuple[int, ...], spec: P):
    assert fsdp_spec(shape, 8) == spec


class Normalised(nnx.Module):
    """Whatever could notice that a batch is cut up: batch statistics, dropout.

    No bias where the mean is taken away: its gradient is rounding alone, which α scales up.
    """

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(48, 24, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(24, rngs=rngs)
        self.dropout = nnx.Dropout(0.1)
        self.head = nnx.Linear(24, 10, rngs=rngs)

    def __call__(self, x: jax.Array, *, train: bool, rngs: nnx.Rngs | None = None) -> jax.Array:
        x = nnx.relu(self.norm(self.hidden(x), use_running_average=not train))
        return self.head(self.dropout(x, deterministic=not train, rngs=rngs))


def preprocess(images: jax.Array, key: jax.Array | None) -> jax.Array:
    if key is not None:
        images = random_crop(images, key, padding=1)
    return images.reshape(len(images), -1).astype(jnp.float32) / 255


def split(size: int, seed: int) -> Arrays:
    """Images whose brightness differs much, so that a mean over a part of a batch is far off."""
    rng = np.random.default_rng(seed)
    brightness = rng.integers(1, 256, (size, 1, 1, 1))
    images = (rng.random((size, 4, 4, 3)) * brightness).astype(np.uint8)
    return Arrays(images, rng.integers(0, 10, size).astype(np.int32))


def train(program: Program) -> tuple[CellState, list[dict[str, np.ndarray]]]:
    """The last state, on the devices, and each epoch's metrics."""
    state, metrics = program.init(*CELLS), []
    for _ in range(EPOCHS):
        state, trained = program.train_epoch(state, *CELLS)
        metrics.append(jax.device_get({**trained, **program.evaluate(state)}))
    return state, metrics


# Neither the last batch of 6 nor the evaluated 50 images can be cut into 8 or 4 equal parts.
make_program = functools.partial(
    Program,
    Problem(Normalised, preprocess, BATCH),
    train=split(70, seed=0),
    test=split(50, seed=1),
    optimizer=ARMS["full"].make,
    epochs=EPOCHS,
    diagnostics=True,
)


@pytest.fixture(scope="module")
def alone() -> tuple[CellState, list[dict[str, np.ndarray]]]:
    """What one device gives."""
    return jax.device_get(train(make_program(mesh=make_mesh(devices=jax.devices()[:1]))))


class TestSharedWork:
    @pytest.mark.parametrize(
        ("axes", "loop", "fsdp"),
        [
            (["seed=8"], "map", False),
            (["data=8"], "map", False),
            (["data=8"], "map", True),
            (["seed=2", "data=4"], "vmap", True),
        ],
        ids=["seed=8", "data=8", "data=8-fsdp", "seed=2-data=4-fsdp"],
    )
    def test_gives_what_one_device_gives(self, axes: list[str], loop: str, fsdp: bool, alone):
        """Parameters, traces, batch statistics, losses, accuracies and diagnostics of α."""
        mesh = make_mesh(axes)
        program = make_program(mesh=mesh, fsdp=fsdp, loop=loop)
        assert program.width == mesh.shape["seed"]
        state, metrics = train(program)
        assert {"train_loss", "test_accuracy", "alpha_mean"} < set(metrics[0])
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
            (jax.device_get(state), metrics),
            alone,
        )
        self.assert_lie_as_asked(state, mesh, fsdp)

    def assert_lie_as_asked(self, state: CellState, mesh: jax.sharding.Mesh, fsdp: bool) -> None:
        """Traces as their parameters; with ``fsdp`` no device has more than a part of a kernel."""
        traces = [
            optax.tree.get(state.opt_state, name) for name in ("activity", "memory_mu", "memory_nu")
        ]
        whole = NamedSharding(mesh, P("seed"))
        for tree in (state.params, *traces):
            for leaf in jax.tree.leaves(tree):
                spec = fsdp_spec(leaf.shape[1:], mesh.shape["data"]) if fsdp else P()
                expected = NamedSharding(mesh, P("seed", *spec))
                assert leaf.sharding.is_equivalent_to(expected, leaf.ndim)
        kernel = state.params["head"]["kernel"]
        assert kernel[...].addressable_shards[0].data.size == kernel[...].size // (
            8 if fsdp else mesh.shape["seed"]
        )
        for leaf in jax.tree.leaves((state.variables, state.step)):
            assert leaf.sharding.is_equivalent_to(whole, leaf.ndim)

    @pytest.mark.parametrize(("axes", "images"), [(["seed=8"], BATCH), (["data=8"], BATCH // 8)])
    def test_is_a_part_of_every_batch(self, axes: list[str], images: int):
        """No device computes the logits of another one's images."""
        program = make_program(mesh=make_mesh(axes), optimizer=ARMS["sgd"].make)
        state = program.init(*CELLS)
        epoch = jax.jit(lambda state: program.train_epoch(state, *CELLS))
        compiled = epoch.lower(state).compile().as_text()
        assert f"f32[{images},10]" in compiled
        assert (f"f32[{BATCH},10]" in compiled) == (images == BATCH)

    def test_leaves_diagnostics_whole(self):
        """A histogram with as many bins as devices is still no trace."""
        program = make_program(mesh=make_mesh(["data=2"]), fsdp=True, diagnostics="per_leaf")
        histogram = optax.tree.get(program.init(*CELLS).opt_state, "alpha_histogram")
        assert histogram.shape[-1] % 2 == 0
        assert histogram.sharding.spec == P("seed")


STUDY_EPOCHS = 4
STUDY = (
    "accuracy --dataset mnist --raw-dir raw --data-dir data --arms momentum --seeds 2 "
    f"--epochs {STUDY_EPOCHS} --batch-size 32 --no-diagnostics "
)


def start(
    folder: Path,
    options: str,
    *,
    devices: int,
    prepare: Sequence[Callable[[], None]] = (),
    **environment: object,
) -> StudyProcess:
    """A study in a process of its own."""
    settings = {"jax_num_cpu_devices": devices, "jax_disable_most_optimizations": True}
    environment |= {"JAX_NUM_CPU_DEVICES": devices}
    return StudyProcess(
        folder,
        STUDY + options,
        settings=settings,
        environment={name: str(value) for name, value in environment.items()},
        prepare=prepare,
    )


def start_two(
    folder: Path, options: str, prepare: Sequence[Callable[[], None]] = ()
) -> list[StudyProcess]:
    """A study in two processes of 2 devices each that SLURM seems to have started."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    job = {"SLURM_JOB_ID": 1, "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": 2}
    job |= {"JAX_COORDINATOR_PORT": port}
    return [
        start(
            folder,
            options,
            devices=2,
            prepare=prepare,
            **job,
            SLURM_PROCID=process,
            SLURM_LOCALID=process,
        )
        for process in (0, 1)
    ]


@pytest.fixture(scope="module")
def alone_and_two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """One process with 4 devices, and two with 2 each, of which each has a seed of its own.

    Their folders are apart, and so their stores: each trains its own.
    """
    folder = tmp_path_factory.mktemp("processes")
    write_images(folder / "raw", train=200, test=50)
    running = [start(folder, "--out alone/out", devices=4)]
    running += start_two(folder, "--mesh seed=2 data=2 --out two/out --distributed")
    ended = [process.communicate() for process in running]
    assert [code for code, *_ in ended] == [0, 0, 0], "\n".join(map(str, ended))
    return folder, [said for _, said, _ in ended]


def runs_of(folder: Path) -> pd.DataFrame:
    """What a study recorded, but for how long it took."""
    return pd.read_csv(folder / "runs.csv").drop(columns=["seconds", "evaluation_seconds"])


class TestTwoProcesses:
    def test_give_what_one_gives(self, alone_and_two: tuple[Path, list[str]]):
        folder, _ = alone_and_two
        runs = runs_of(folder / "two/out")
        assert set(runs["seed"]) == {0, 1}
        pd.testing.assert_frame_equal(runs, runs_of(folder / "alone/out"), rtol=1e-4)

    def test_that_were_killed_go_on_where_they_stood(self, alone_and_two: tuple[Path, list[str]]):
        """They share every batch, and the parameters."""
        folder, _ = alone_and_two
        command = "--mesh data=4 --fsdp --out killed/out --distributed"
        log = folder / "epochs.log"
        killed = start_two(folder, command, prepare=[watch])
        while not log.exists() or len(log.read_text().splitlines()) < 2 * (STUDY_EPOCHS - 1):
            assert [process.poll() for process in killed] == [None, None]
            time.sleep(0.01)
        for process in killed:
            process.kill()
        ended = [process.communicate() for process in killed]
        assert [code for code, *_ in ended] == [-9, -9], "\n".join(map(str, ended))
        log.unlink()
        ended = [process.communicate() for process in start_two(folder, command, prepare=[watch])]
        assert [code for code, *_ in ended] == [0, 0], "\n".join(map(str, ended))
        (kept,) = re.findall(r"Goes on after epoch (\d)", ended[0][1])
        assert len(log.read_text().splitlines()) == 2 * (STUDY_EPOCHS - int(kept))
        runs = runs_of(folder / "killed/out")
        pd.testing.assert_frame_equal(runs, runs_of(folder / "alone/out"), rtol=1e-4)
        assert not (folder / "killed/out/checkpoints").exists()

    def test_print_what_the_first_one_prints_and_nothing_else(
        self, alone_and_two: tuple[Path, list[str]]
    ):
        _, (alone, first, second) = alone_and_two
        assert all("SGD momentum" in said for said in (alone, first))
        assert "SGD momentum" not in second

    def test_leave_the_records_to_the_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        with Records(tmp_path, "accuracy", {}):
            monkeypatch.setattr(jax, "process_index", lambda: 1)
            with Records(tmp_path, "accuracy", {}):  # the folder is not held against it
                write_atomically(tmp_path / "summary.csv", "arm")
        assert not (tmp_path / "summary.csv").exists()
